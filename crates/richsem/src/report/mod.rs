//! A run's report: one HTML file that holds everything it shows (styles, charts, images), so
//! that it can be mailed, printed or put beside another.

mod certainty;
mod chart;
mod classes;
mod errors;
mod facts;
mod images;
mod metrics;
mod page;
mod run;

use std::path::Path;

use crate::{Result, error::write_atomically, evaluate::Summary};

pub(crate) use facts::Facts;
pub use images::RunOptions;
pub use page::Drawn;
pub(crate) use page::{escape, facts, gallery, notes, page, percent, section, settings, thousands};
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
    /// Ground truth beside predictions, as [`crate::draw::truth_and_prediction`] makes them.
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
    let summary = data.summary.as_ref();
    let body = [
        notes(&data.notes),
        section("Results", &summary.map(|s| metrics::section(data, s)).unwrap_or_default()),
        section("Certainty", &summary.map(certainty::section).unwrap_or_default()),
        section("Errors", &summary.map(errors::section).unwrap_or_default()),
        section("Training", &training(data)),
        section("Classes", &summary.map(|s| classes::section(data, s)).unwrap_or_default()),
        section("Images", &gallery(&data.images)?),
        section("Run", &(facts(&data.facts) + &settings(&data.settings))),
    ];
    let line = summary.map_or_else(|| "not evaluated".to_owned(), evaluated);
    Ok(page(&data.title, &line, &body.concat(), " Values in percent."))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
