//! What every page has: its frame and style, notes, facts, images and text as HTML shows it.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};

use crate::{Result, draw, gallery::Drawn, plural};

/// A whole page, with style and script in it. `lead` is a line below the title (HTML), `body` its
/// sections, `footer` the line at its end.
pub(crate) fn page(title: &str, lead: &str, body: &str, footer: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{style}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>{title}</h1><p class=\"lead\">{lead}</p></header>\n{body}\
         <footer>Written by richsem {version}.{footer}</footer>\n</main>\n\
         <script>\n{script}</script>\n</body>\n</html>\n",
        style = include_str!("style.css"),
        script = include_str!("page.js"),
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// A section with a heading; nothing without content.
pub(crate) fn section(heading: &str, content: &str) -> String {
    if content.is_empty() {
        return String::new();
    }
    let id = heading.to_lowercase().replace(' ', "-");
    format!("<section id=\"{id}\"><h2>{heading}</h2>\n{content}</section>\n")
}

pub(crate) fn notes(notes: &[String]) -> String {
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    if items.is_empty() { items } else { format!("<ul class=\"notes\">{items}</ul>\n") }
}

pub(crate) fn settings(toml: &str) -> String {
    if toml.is_empty() {
        return String::new();
    }
    format!("<details><summary>All settings</summary><pre>{}</pre></details>\n", escape(toml))
}

pub(crate) fn gallery(images: &[Drawn]) -> Result<String> {
    let mut html = String::new();
    for Drawn { caption, views } in images {
        let caption = escape(caption);
        let pair = if views.len() > 1 { " class=\"pair\"" } else { "" };
        let _ = write!(html, "<figure{pair}><div class=\"views\">");
        for (heading, image) in views {
            let jpeg = BASE64.encode(draw::encode_jpeg(image)?);
            let (width, height) = image.dimensions();
            let mut alt = caption.clone();
            html.push_str("<div>");
            if !heading.is_empty() {
                let heading = escape(heading);
                let _ = write!(html, "<p>{heading}</p>");
                alt = format!("{heading} of {caption}");
            }
            let _ = write!(
                html,
                "<img src=\"data:image/jpeg;base64,{jpeg}\" width=\"{width}\" height=\"{height}\" \
                 alt=\"{alt}\"></div>"
            );
        }
        let _ = writeln!(html, "</div><figcaption>{caption}</figcaption></figure>");
    }
    Ok(if html.is_empty() { html } else { format!("<div class=\"gallery\">\n{html}</div>\n") })
}

pub(crate) fn facts(facts: &[(String, String)]) -> String {
    let rows: String = facts
        .iter()
        .map(|(name, value)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value))
        })
        .collect();
    if rows.is_empty() { rows } else { format!("<dl class=\"facts\">\n{rows}</dl>\n") }
}

/// Text as HTML shows it literally, in elements and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// A fraction in percent with one decimal, a dash where there is none.
pub(crate) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{:.1}", 100.0 * v))
}

/// A number with commas, and what is counted: `1,234 boxes`. `one` is as for [`plural::of`].
pub(crate) fn things(count: usize, one: &str) -> String {
    format!("{} {}", thousands(count), plural::of(count, one))
}

/// A number with commas: 1234567 becomes 1,234,567.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
