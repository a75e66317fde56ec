//! A run's report: one HTML file that holds everything it shows (styles, charts, images), so
//! that it can be mailed, printed or put beside another.

mod certainty;
mod chart;
mod classes;
mod errors;
mod facts;
mod images;
mod metrics;
mod run;

use std::{fmt::Write as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use image::RgbImage;

use crate::{Result, draw, error::write_atomically, evaluate::Summary};

pub(crate) use facts::Facts;
pub use images::RunOptions;
pub use run::run;

/// Everything a report shows. Sections without content are left out.
#[derive(Debug, Clone)]
pub struct ReportData {
    /// Heading of the page: the name of the run's folder.
    pub title: String,
    /// What a reader must know first: what is missing, skipped or unfinished.
    pub notes: Vec<String>,
    /// Settings and circumstances, in the order to be read: name and value.
    pub facts: Vec<(String, String)>,
    /// All settings of the run, as TOML; empty to show none.
    pub settings: String,
    /// Losses over steps; the first is drawn strongest.
    pub loss: Vec<Series>,
    /// Average precisions (fractions) over epochs.
    pub ap: Vec<Series>,
    /// The run's name in tables where others stand beside it.
    pub name: String,
    /// The metrics; `None` where nothing was evaluated.
    pub summary: Option<Summary>,
    /// Earlier runs to compare with, evaluated on the same ground truth.
    pub others: Vec<NamedSummary>,
    /// Ground truth beside predictions, as [`draw::truth_and_prediction`] makes them.
    pub images: Vec<Drawn>,
}

/// The metrics of another run, to compare with.
#[derive(Debug, Clone)]
pub struct NamedSummary {
    /// Heading of its column: the run's name, and how long it was trained.
    pub name: String,
    /// The metrics of one of its evaluations.
    pub summary: Summary,
}

/// A curve of a chart.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// (x, y), x ascending. Where y is not finite the curve is interrupted.
    pub points: Vec<(f64, f64)>,
}

/// An image with words beneath.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The words beneath the image.
    pub caption: String,
    /// The image, shown as it is.
    pub image: RgbImage,
}

/// Writes the report. The file is either wholly there or not at all.
///
/// # Errors
/// Those of [`render`], and if the file cannot be written.
pub fn write(path: &Path, data: &ReportData) -> Result<()> {
    let page = render(data)?;
    write_atomically(path, |out| Ok(out.write_all(page.as_bytes())?))
}

/// The report as HTML.
///
/// # Errors
/// If an image has no pixels or is too large for JPEG.
pub fn render(data: &ReportData) -> Result<String> {
    let mut body = String::new();
    let mut section = |heading: &str, content: String| {
        if !content.is_empty() {
            let id = heading.to_lowercase();
            let _ = write!(body, "<section id=\"{id}\"><h2>{heading}</h2>\n{content}</section>\n");
        }
    };
    let summary = data.summary.as_ref();
    section("Results", summary.map(|s| metrics::section(data, s)).unwrap_or_default());
    section("Certainty", summary.map(certainty::section).unwrap_or_default());
    section("Errors", summary.map(errors::section).unwrap_or_default());
    section("Training", training(data));
    section("Classes", summary.map(|s| classes::section(data, s)).unwrap_or_default());
    section("Images", gallery(&data.images)?);
    section("Run", facts(&data.facts) + &settings(&data.settings));
    let title = escape(&data.title);
    let line = summary.map_or_else(|| "not evaluated".to_owned(), evaluated);
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{style}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>{title}</h1><p class=\"lead\">{line}</p></header>\n{notes}{body}\
         <footer>Written by richsem {version}. Values in percent.</footer>\n</main>\n\
         <script>\n{script}</script>\n</body>\n</html>\n",
        notes = notes(&data.notes),
        style = include_str!("style.css"),
        script = include_str!("page.js"),
        version = env!("CARGO_PKG_VERSION"),
    ))
}

/// What the metrics are of: protocol, images, boxes, classes and detections.
fn evaluated(summary: &Summary) -> String {
    format!(
        "{} protocol · {} images · {} boxes of {} classes · {} detections",
        summary.protocol,
        thousands(summary.images),
        thousands(summary.boxes),
        thousands(summary.per_class.len()),
        thousands(summary.detections),
    )
}

fn notes(notes: &[String]) -> String {
    let items: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    if items.is_empty() { items } else { format!("<ul class=\"notes\">{items}</ul>\n") }
}

fn settings(toml: &str) -> String {
    if toml.is_empty() {
        return String::new();
    }
    format!("<details><summary>All settings</summary><pre>{}</pre></details>\n", escape(toml))
}

fn training(data: &ReportData) -> String {
    let charts = [
        chart::Chart {
            title: "Loss",
            x_label: "step",
            y_label: "loss",
            series: &data.loss,
            kind: chart::Kind::Loss,
        },
        chart::Chart {
            title: "Average precision",
            x_label: "epoch",
            y_label: "AP (%)",
            series: &data.ap,
            kind: chart::Kind::Percent,
        },
    ];
    let charts: String = charts.iter().filter_map(chart::Chart::render).collect();
    if charts.is_empty() { charts } else { format!("<div class=\"charts\">{charts}</div>\n") }
}

fn gallery(images: &[Drawn]) -> Result<String> {
    let mut html = String::new();
    for image in images {
        let jpeg = BASE64.encode(draw::encode_jpeg(&image.image)?);
        let caption = escape(&image.caption);
        let (width, height) = image.image.dimensions();
        let _ = writeln!(
            html,
            "<figure><img src=\"data:image/jpeg;base64,{jpeg}\" width=\"{width}\" \
             height=\"{height}\" alt=\"{caption}\"><figcaption>{caption}</figcaption></figure>"
        );
    }
    Ok(if html.is_empty() { html } else { format!("<div class=\"gallery\">\n{html}</div>\n") })
}

fn facts(facts: &[(String, String)]) -> String {
    let rows: String = facts
        .iter()
        .map(|(name, value)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escape(name), escape(value))
        })
        .collect();
    if rows.is_empty() { rows } else { format!("<dl class=\"facts\">\n{rows}</dl>\n") }
}

/// Text as HTML shows it literally, in elements and in quoted attributes.
fn escape(text: &str) -> String {
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
fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{:.1}", 100.0 * v))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
