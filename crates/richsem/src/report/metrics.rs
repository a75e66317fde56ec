//! The final metrics: the main ones large, all of them in a table, other runs beside.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{ReportData, escape, percent};
use crate::{
    evaluate::{Protocol, Summary},
    vocabulary::plain_name,
};

/// Shown large, with what they mean.
const MAIN: [(&str, &str); 6] = [
    ("AP", "mean over IoU 0.50–0.95"),
    ("AP50", "at IoU 0.50"),
    ("AP75", "at IoU 0.75"),
    ("APr", "rare: up to 10 training images"),
    ("APc", "common: 11 to 100"),
    ("APf", "frequent: over 100"),
];

pub(super) fn section(data: &ReportData, summary: &Summary) -> String {
    let mut html = String::from("<div class=\"tiles\">\n");
    for (name, meaning) in MAIN {
        // Sets without frequency groups have no such metric; groups without classes have no value.
        if summary.metrics.iter().any(|(n, _)| n == name) {
            let group = name.strip_prefix("AP").filter(|g| ["r", "c", "f"].contains(g));
            let class = match group {
                Some("r") => " t1",
                Some("c") => " t2",
                Some("f") => " t3",
                _ => "",
            };
            let _ = writeln!(
                html,
                "<div class=\"tile{class}\"><span class=\"name\">{name}</span><span \
                 class=\"value\">{}</span><span class=\"note\">{meaning}</span></div>",
                percent(summary.get(name)),
            );
        }
    }
    html.push_str("</div>\n");
    if data.others.is_empty() {
        html.push_str(&flat(summary))
    } else {
        html.push_str(&beside(data, summary))
    }
    html
}

/// What a metric is, in words.
fn meaning(name: &str, protocol: Protocol) -> String {
    if let Some((_, meaning)) = MAIN.iter().find(|(n, _)| *n == name) {
        return format!("average precision, {meaning}");
    }
    let (kind, rest) = match (name.strip_prefix("AP"), name.strip_prefix("AR")) {
        (Some(rest), _) => ("average precision", rest),
        (_, Some(rest)) => ("average recall", rest),
        _ => return String::new(),
    };
    let (size, count) = match rest.chars().next() {
        Some('s') => (", small objects (under 32² pixels)", &rest[1..]),
        Some('m') => (", medium objects (32² to 96² pixels)", &rest[1..]),
        Some('l') => (", large objects (over 96² pixels)", &rest[1..]),
        _ => ("", rest),
    };
    match count.trim_start_matches('@') {
        "" => format!("{kind}{size}"),
        count => {
            let per = if protocol == Protocol::Lvis { "an image" } else { "an image and class" };
            format!("{kind}{size}, {count} detections {per}")
        }
    }
}

/// All metrics of one run, in two columns of rows.
fn flat(summary: &Summary) -> String {
    let mut html = String::from("<div class=\"metrics\">\n");
    for (name, value) in &summary.metrics {
        let _ = writeln!(
            html,
            "<div><b>{}</b><span>{}</span><output>{}</output></div>",
            escape(name),
            meaning(name, summary.protocol),
            percent(*value),
        );
    }
    html.push_str("</div>\n");
    html
}

/// All metrics of several runs, each other with its difference from this one.
fn beside(data: &ReportData, summary: &Summary) -> String {
    let mut html = format!(
        "<div class=\"scroll\"><table class=\"beside\"><thead><tr><th></th><th></th>\
         <th class=\"num\">{}</th>",
        escape(&data.name)
    );
    for other in &data.others {
        let name = escape(&other.name);
        let _ = write!(html, "<th class=\"num\">{name}</th><th class=\"num\">difference</th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (name, value) in &summary.metrics {
        let _ = write!(
            html,
            "<tr><th>{}</th><td>{}</td><td class=\"num\">{}</td>",
            escape(name),
            meaning(name, summary.protocol),
            percent(*value)
        );
        for other in &data.others {
            let theirs = other.summary.get(name);
            let _ = write!(
                html,
                "<td class=\"num\">{}</td>{}",
                percent(theirs),
                difference(*value, theirs)
            );
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    for other in &data.others {
        if let Some(why) = incomparable(summary, &other.summary) {
            let _ = writeln!(html, "<p class=\"warning\">{}: {why}.</p>", escape(&other.name));
        }
    }
    html
}

/// This run minus another, as a table cell.
pub(super) fn difference(ours: Option<f64>, theirs: Option<f64>) -> String {
    let Some(delta) = ours.zip(theirs).map(|(a, b)| 100.0 * (a - b)) else {
        return "<td class=\"num\">–</td>".to_owned();
    };
    // What rounds to 0.0 is neither better nor worse.
    let class = match delta {
        d if d >= 0.05 => " up",
        d if d <= -0.05 => " down",
        _ => "",
    };
    let text = if class.is_empty() { "0.0".to_owned() } else { format!("{delta:+.1}") };
    format!("<td class=\"num{class}\">{}</td>", text.replace('-', "−"))
}

/// Why two runs' numbers do not compare, if they don't.
fn incomparable(a: &Summary, b: &Summary) -> Option<String> {
    if a.protocol != b.protocol {
        return Some(format!("evaluated by the {} protocol, not {}", b.protocol, a.protocol));
    }
    if (a.images, a.boxes) != (b.images, b.boxes) {
        return Some(format!(
            "evaluated on {} images with {} boxes, not {} with {}",
            b.images, b.boxes, a.images, a.boxes
        ));
    }
    let names = |of: &Summary| -> BTreeSet<String> {
        of.per_class.iter().map(|class| plain_name(&class.name)).collect()
    };
    let (own, other) = (names(a), names(b));
    (own != other).then(|| {
        format!(
            "evaluated on other classes: {} of its {} are among the {} here",
            own.intersection(&other).count(),
            other.len(),
            own.len()
        )
    })
}
