//! Precision over recall, and F1 over the score: which threshold to use.

use super::{
    ReportData,
    chart::{Across, Chart, Line, Style, Upwards},
    group_color, group_name, percent,
};
use crate::evaluate::{
    Details, Summary,
    details::{OverScores, PrecisionRecall},
};

/// Colours of what is of all classes, of another overlap, and of another run.
const ALL: usize = 0;
const STRICT: usize = 4;
const OTHER: usize = 5;

pub(super) fn section(data: &ReportData, summary: &Summary) -> String {
    let Some(details) = &summary.details else { return String::new() };
    let charts = [precision_recall(data, details), f1(details), recall(details)];
    let charts: String = charts.into_iter().flatten().collect();
    if charts.is_empty() {
        return charts;
    }
    format!("{}<div class=\"charts\">{charts}</div>\n", advice(details))
}

/// Which threshold to use, in words.
fn advice(details: &Details) -> String {
    let best = details.over_scores.first().and_then(|all| all.best);
    let Some(best) = best else {
        return "<p>No detection finds a box: there is no threshold to choose.</p>\n".to_owned();
    };
    format!(
        "<p>The best F1 of all classes together is {}, with detections of a score of at least {:.2}: {} % of \
         them find a box, and {} % of the boxes are found. Take a higher score for fewer false alarms, a lower \
         one to miss less. Rare classes often have lower scores: <code>richsem eval --save-thresholds</code> \
         gives each class its own.</p>\n",
        percent(Some(best.f1)),
        best.score,
        percent(Some(best.precision)),
        percent(Some(best.recall)),
    )
}

fn precision_recall(data: &ReportData, details: &Details) -> Option<String> {
    let line = |curve: &PrecisionRecall, name: String, short: &str, color: usize| Line {
        name,
        short: short.to_owned(),
        color,
        style: Style::Smooth,
        points: (0..)
            .zip(&curve.precision)
            .map(|(i, &precision)| (f64::from(i), precision))
            .collect(),
        value: Some(percent(Some(
            curve.precision.iter().sum::<f64>() / curve.precision.len().max(1) as f64,
        ))),
    };
    let mut lines: Vec<Line> = details
        .precision_recall
        .iter()
        .map(|curve| match curve.group {
            None if curve.overlap > 0.5 => {
                line(curve, format!("all, IoU {:.2}", curve.overlap), "IoU 0.75", STRICT)
            }
            None => line(curve, "all classes, AP50".to_owned(), "all", ALL),
            Some(_) => line(
                curve,
                format!("{}, AP50", group_name(curve.group)),
                group_name(curve.group),
                group_color(curve.group),
            ),
        })
        .collect();
    if let Some(other) = data.others.first() {
        let theirs = other.summary.details.iter().flat_map(|details| &details.precision_recall);
        let all = theirs.into_iter().find(|curve| curve.group.is_none() && curve.overlap == 0.5);
        lines.extend(all.map(|curve| {
            line(curve, format!("{}, all classes, AP50", other.name), &other.name, OTHER)
        }));
    }
    let chart = Chart {
        title: "Precision and recall",
        x_label: "recall (%)",
        y_label: "precision (%)",
        lines: &lines,
        across: Across::FromZero,
        upwards: Upwards::Percent,
        mark: None,
        note: "Means over classes. The area under a curve is its AP.".to_owned(),
    };
    chart.render()
}

fn over_scores(
    details: &Details,
    value: impl Fn(&OverScores) -> Option<f64>,
    point: impl Fn(&crate::evaluate::details::OperatingPoint) -> f64,
) -> Vec<Line> {
    let line = |curve: &OverScores| Line {
        name: match curve.group {
            None => "all classes".to_owned(),
            group => group_name(group).to_owned(),
        },
        short: match curve.group {
            None => "all".to_owned(),
            group => group_name(group).to_owned(),
        },
        color: group_color(curve.group),
        style: Style::Smooth,
        points: curve.points.iter().map(|at| (at.score, point(at))).collect(),
        value: Some(percent(value(curve))),
    };
    details.over_scores.iter().filter(|curve| curve.boxes > 0).map(line).collect()
}

fn f1(details: &Details) -> Option<String> {
    let best = details.over_scores.first()?.best;
    let chart = Chart {
        title: "F1 and score",
        x_label: "smallest score that is used",
        y_label: "F1 (%)",
        lines: &over_scores(details, |curve| curve.best.map(|best| best.f1), |at| at.f1),
        across: Across::FromZero,
        upwards: Upwards::Percent,
        mark: best.map(|best| (best.score, format!("best: {:.2}", best.score))),
        note: "The legend has the best F1 of each. At IoU 0.50, detections of all classes counted together."
            .to_owned(),
    };
    chart.render()
}

fn recall(details: &Details) -> Option<String> {
    let all = details.over_scores.first().filter(|all| all.boxes > 0)?;
    let of =
        |name: &str, color: usize, value: fn(&crate::evaluate::details::OperatingPoint) -> f64| {
            Line {
                name: format!("{name}, all classes"),
                short: name.to_owned(),
                color,
                style: Style::Smooth,
                points: all.points.iter().map(|at| (at.score, value(at))).collect(),
                value: Some(percent(all.best.as_ref().map(value))),
            }
        };
    let lines = [of("precision", ALL, |at| at.precision), of("recall", 2, |at| at.recall)];
    let chart = Chart {
        title: "Precision, recall and score",
        x_label: "smallest score that is used",
        y_label: "%",
        lines: &lines,
        across: Across::FromZero,
        upwards: Upwards::Percent,
        mark: all.best.map(|best| (best.score, format!("best F1: {:.2}", best.score))),
        note: "The legend has the values where F1 is best.".to_owned(),
    };
    chart.render()
}
