//! Tables of how certain metrics are, of differences, and of errors.

use richsem::evaluate::{
    Comparison, Intervals, Summary,
    errors::{Calibration, Errors, Tide},
};
use richsem::plural::{among, counted};

use crate::table::{NOTHING, percent, range, table};

/// Every average precision with its intervals and what it rests on.
pub(crate) fn intervals(intervals: &Intervals) -> String {
    let columns = ["<", "value", "other images", "classes in general", "classes", "boxes"];
    let rows = intervals.metrics.iter().filter(|metric| metric.value.is_some()).map(|metric| {
        vec![
            metric.name.clone(),
            percent(metric.value),
            range(metric.interval),
            range(metric.over_classes),
            metric.classes.to_string(),
            metric.boxes.to_string(),
        ]
    });
    format!(
        "95 % intervals ({} of images)\n{}",
        counted(intervals.groups, "group"),
        table(&columns, rows)
    )
}

/// Intervals of what a training is judged by, if any is known.
pub(crate) fn in_a_line(intervals: &Intervals) -> Option<String> {
    const SHOWN: [&str; 8] = ["AP", "AP50", "APr", "APc", "APf", "AP50r", "AP50c", "AP50f"];
    let shown = intervals.metrics.iter().filter(|metric| SHOWN.contains(&&*metric.name));
    let known = shown.filter(|metric| metric.interval.is_some());
    let known: Vec<String> =
        known.map(|metric| format!("{} {}", metric.name, range(metric.interval))).collect();
    (!known.is_empty()).then(|| format!("95 % for other images: {}", known.join(", ")))
}

/// The differences to another results file.
pub(crate) fn comparison(comparison: &Comparison) -> String {
    let columns =
        ["<", "this", "other", "difference", "other images", "classes in general", "boxes"];
    let rows = comparison.metrics.iter().filter(|metric| metric.difference.is_some());
    let rows = rows.map(|metric| {
        vec![
            metric.name.clone(),
            percent(metric.first),
            percent(metric.second),
            metric.difference.map_or_else(|| NOTHING.to_owned(), |d| format!("{:+.1}", 100.0 * d)),
            range(metric.interval),
            range(metric.over_classes),
            metric.boxes.to_string(),
        ]
    });
    format!(
        "less {}: 95 % intervals of the differences ({} of images)\n{}",
        comparison.with,
        counted(comparison.groups, "group"),
        table(&columns, rows)
    )
}

/// Kinds of errors, AP-Fixed and AP-Pool, calibration.
pub(crate) fn errors(summary: &Summary, errors: &Errors) -> String {
    let calibration = errors.calibration.as_ref().map_or_else(
        || "calibration: – (nothing was judged, or scores are not between 0 and 1)".to_owned(),
        calibration,
    );
    format!("{}\n\n{}\n\n{calibration}", tide(&errors.tide), beside(summary, errors))
}

fn tide(tide: &Tide) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for error in &tide.errors {
        let gain = percent(Some(error.delta_ap));
        rows.push(vec![error.kind.meaning().to_owned(), error.count.to_string(), gain]);
    }
    for (name, gain) in
        [("any false positive", tide.false_positives), ("any box missed", tide.false_negatives)]
    {
        rows.push(vec![name.to_owned(), NOTHING.to_owned(), percent(Some(gain))]);
    }
    format!(
        "errors at IoU 0.50 of {}, and what AP50 ({}) would gain without each kind\n{}",
        counted(tide.judged, "judged detection"),
        percent(Some(tide.ap50)),
        table(&["<", "errors", "gain"], rows)
    )
}

fn beside(summary: &Summary, errors: &Errors) -> String {
    let pooled = |name: &str| match name {
        "AP" => errors.pooled.ap,
        "AP50" => errors.pooled.ap50,
        "APr" => errors.pooled.ap_rare,
        "APc" => errors.pooled.ap_common,
        "APf" => errors.pooled.ap_frequent,
        _ => None,
    };
    let fixed = errors.fixed.metrics.iter().filter(|metric| metric.value.is_some());
    let rows = fixed.map(|metric| {
        vec![
            metric.name.clone(),
            percent(summary.get(&metric.name)),
            percent(metric.value),
            range(metric.interval),
            percent(pooled(&metric.name)),
        ]
    });
    format!(
        "{}\n({} fewer than AP-Fixed's 10,000 detections)",
        table(&["<", "standard", "AP-Fixed", "95 %", "AP-Pool"], rows),
        among(
            errors.fixed.classes_below_limit,
            errors.fixed.per_class.len(),
            "class",
            ["has", "have"]
        )
    )
}

fn calibration(calibration: &Calibration) -> String {
    let rows = calibration.bins.iter().filter(|bin| bin.count > 0).map(|bin| {
        vec![
            format!("{:.1} to {:.1}", bin.low, bin.high),
            percent(Some(bin.score)),
            percent(Some(bin.share)),
            bin.count.to_string(),
        ]
    });
    format!(
        "calibration: ECE {}, MCE {}\n{}",
        percent(Some(calibration.ece)),
        percent(Some(calibration.mce)),
        table(&["<scores", "mean score", "find a box", "detections"], rows)
    )
}
