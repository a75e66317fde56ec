//! A run's report: one HTML file that holds everything it shows (styles, charts, images), so
//! that it can be mailed, printed or put beside another.

mod certainty;
mod chart;
mod classes;
mod confusion;
mod csv;
mod errors;
mod facts;
mod labels;
mod metrics;
mod names;
mod operating;
mod page;
#[cfg(test)]
mod palette;
mod run;

use std::path::{Path, PathBuf};

use crate::{
    Result,
    error::write_atomically,
    evaluate::Summary,
    gallery::LEAST_SCORE,
    train::{Labels, OpenedSet},
    vocabulary::Frequency,
};

pub use crate::gallery::Drawn;
pub use csv::metrics_csv;
pub(crate) use facts::Facts;
pub(crate) use page::{
    escape, facts, gallery, notes, page, percent, section, settings, things, thousands,
};
pub use run::run;

/// What a report of a run shows.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Validation images shown at most.
    pub images: usize,
    /// Least score of a prediction that is drawn, 0 to 1. Where an image has none, its best few are drawn.
    pub least_score: f32,
    /// Folders of runs whose evaluations stand beside this one's: the best, and, should that be another,
    /// the one after as many epochs.
    pub compare: Vec<PathBuf>,
    /// What the run is called. None: what tells its folder from the others.
    pub name: Option<String>,
    /// Notes to show at the top of the page.
    pub notes: Vec<String>,
    /// The validation set, where its annotations have been read already.
    pub val: Option<OpenedSet>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            images: 12,
            least_score: LEAST_SCORE,
            compare: Vec::new(),
            name: None,
            notes: Vec::new(),
            val: None,
        }
    }
}

/// Everything a report shows. Sections without content are left out.
#[derive(Debug, Clone, Default)]
pub struct ReportData {
    /// Heading of the page: the name of the run.
    pub title: String,
    /// What a reader must know first: what is missing, skipped or unfinished.
    pub notes: Vec<String>,
    /// Settings and circumstances, in the order to be read: name and value.
    pub facts: Vec<(String, String)>,
    /// All settings of the run, as TOML; empty to show none.
    pub settings: String,
    /// Losses over steps; the first is drawn strongest. Points of [`Series::exact`] ones are not smoothed.
    pub loss: Vec<Series>,
    /// Average precisions (fractions) over epochs.
    pub ap: Vec<Series>,
    /// The run's name in tables where others stand beside it.
    pub name: String,
    /// The metrics; `None` where nothing was evaluated.
    pub summary: Option<Summary>,
    /// Earlier runs to compare with, evaluated on the same ground truth.
    pub others: Vec<NamedSummary>,
    /// What the labels are like, where it is known.
    pub labels: Option<Labels>,
    /// Images of [`crate::evaluate::Details::misses`].
    pub misses: Vec<Drawn>,
    /// Images of [`crate::evaluate::Details::false_alarms`].
    pub false_alarms: Vec<Drawn>,
    /// Ground truth beside predictions.
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
    /// Its name at the curve's end, where there is little room.
    pub short: String,
    /// Whether it has few, exact points rather than many noisy ones.
    pub exact: bool,
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
        section("Threshold", &summary.map(|s| operating::section(data, s)).unwrap_or_default()),
        section("Errors", &summary.map(errors::section).unwrap_or_default()),
        section(
            "Mistakes",
            &summary.map_or_else(|| Ok(String::new()), |s| confusion::section(data, s))?,
        ),
        section("Training", &training(data)),
        section("Labels", &data.labels.as_ref().map(labels::section).unwrap_or_default()),
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
        "{} protocol · {} · {} of {} · {}",
        summary.protocol,
        things(summary.images, "image"),
        things(summary.boxes, "box"),
        things(summary.per_class.len(), "class"),
        things(summary.detections, "detection"),
    )
}

/// A frequency group in words; nothing without one.
fn group_name(group: Option<Frequency>) -> &'static str {
    match group {
        Some(Frequency::Rare) => "rare",
        Some(Frequency::Common) => "common",
        Some(Frequency::Frequent) => "frequent",
        None => "",
    }
}

/// The number of the colour that a group has everywhere; 0 is that of all classes.
fn group_color(group: Option<Frequency>) -> usize {
    match group {
        None => 0,
        Some(Frequency::Rare) => 1,
        Some(Frequency::Common) => 2,
        Some(Frequency::Frequent) => 3,
    }
}

fn training(data: &ReportData) -> String {
    let line = |series: &Series, color: usize, style: chart::Style| chart::Line {
        name: series.name.clone(),
        short: series.short.clone(),
        color,
        style,
        points: series.points.clone(),
        value: None,
    };
    let losses = data.loss.iter().enumerate().map(|(i, series)| {
        line(series, i, if series.exact { chart::Style::Dots } else { chart::Style::Noisy })
    });
    let losses: Vec<_> = losses.collect();
    // Groups have their colours, whichever there are.
    let color = |name: &str| match name {
        "APr" | "AP50r" => group_color(Some(Frequency::Rare)),
        "APc" | "AP50c" => group_color(Some(Frequency::Common)),
        "APf" | "AP50f" => group_color(Some(Frequency::Frequent)),
        "AP50" => 4,
        _ => 0,
    };
    let precisions =
        data.ap.iter().map(|series| line(series, color(&series.name), chart::Style::Dots));
    let precisions: Vec<_> = precisions.collect();
    let chart = |title, x_label, y_label, lines, upwards| {
        let (across, mark, note) = (chart::Across::Whole, None, String::new());
        chart::Chart { title, x_label, y_label, lines, across, upwards, mark, note }.render()
    };
    let charts = [
        chart("Loss", "step", "loss", &losses, chart::Upwards::Loss),
        chart("Average precision", "epoch", "AP (%)", &precisions, chart::Upwards::Percent),
    ];
    let charts: String = charts.into_iter().flatten().collect();
    if charts.is_empty() { charts } else { format!("<div class=\"charts\">{charts}</div>\n") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
