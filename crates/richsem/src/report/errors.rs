//! Kinds of errors, calibration, and AP without a limit that classes share.

use std::fmt::Write as _;

use super::{escape, percent, thousands};
use crate::evaluate::{
    Summary,
    errors::{Calibration, Errors, Tide},
};

pub(super) fn section(summary: &Summary) -> String {
    let Some(errors) = &summary.errors else { return String::new() };
    let calibration = errors.calibration.as_ref().map(calibration).unwrap_or_default();
    tide(&errors.tide) + &beside(summary, errors) + &calibration
}

fn tide(tide: &Tide) -> String {
    let mut html = format!(
        "<p>Errors at IoU 0.50 (TIDE), and what AP50 ({}) would gain if each kind alone were mended. \
         Gains do not add up.</p>\n<div class=\"scroll\"><table><thead><tr><th></th>\
         <th class=\"num\">errors</th><th class=\"num\">gain</th></tr></thead>\n<tbody>\n",
        percent(Some(tide.ap50))
    );
    let mut row = |name: &str, count: String, gain: f64| {
        let gain = percent(Some(gain));
        let _ = writeln!(
            html,
            "<tr><th>{name}</th><td class=\"num\">{count}</td><td class=\"num\">{gain}</td></tr>"
        );
    };
    for error in &tide.errors {
        let count = thousands(usize::try_from(error.count).unwrap_or(usize::MAX));
        row(error.kind.meaning(), count, error.delta_ap);
    }
    row("all false positives", String::new(), tide.false_positives);
    row("all that is not found", String::new(), tide.false_negatives);
    html.push_str("</tbody></table></div>\n");
    html
}

/// AP-Fixed and AP-Pool beside the standard.
fn beside(summary: &Summary, errors: &Errors) -> String {
    let pooled = &errors.pooled;
    let pooled = |name: &str| match name {
        "AP" => pooled.ap,
        "AP50" => pooled.ap50,
        "APr" => pooled.ap_rare,
        "APc" => pooled.ap_common,
        "APf" => pooled.ap_frequent,
        _ => None,
    };
    let mut html = format!(
        "<h3>AP-Fixed and AP-Pool</h3>\n<p>Fixed: the best 10,000 detections of each class, however \
         many an image has. Pool: the same, those of all classes in one ranking. {} of {} classes \
         have fewer than 10,000 detections.</p>\n<div class=\"scroll\"><table><thead><tr><th></th>\
         <th class=\"num\">standard</th><th class=\"num\">fixed</th><th class=\"num\">pool</th></tr>\
         </thead>\n<tbody>\n",
        thousands(errors.fixed.classes_below_limit),
        thousands(errors.fixed.per_class.len()),
    );
    for metric in errors.fixed.metrics.iter().filter(|metric| metric.value.is_some()) {
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}\
             </td></tr>",
            escape(&metric.name),
            percent(summary.get(&metric.name)),
            percent(metric.value),
            percent(pooled(&metric.name)),
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn calibration(calibration: &Calibration) -> String {
    let mut html = format!(
        "<h3>Calibration</h3>\n<p>Mean difference between score and share found (ECE): {}; the \
         largest of a bin (MCE): {}.</p>\n<div class=\"scroll\"><table><thead><tr><th>scores</th>\
         <th class=\"num\">mean score</th><th class=\"num\">find a box</th>\
         <th class=\"num\">detections</th></tr></thead>\n<tbody>\n",
        percent(Some(calibration.ece)),
        percent(Some(calibration.mce)),
    );
    for bin in calibration.bins.iter().filter(|bin| bin.count > 0) {
        let _ = writeln!(
            html,
            "<tr><th>{:.0} to {:.0}</th><td class=\"num\">{}</td><td class=\"num\">{}</td>\
             <td class=\"num\">{}</td></tr>",
            100.0 * bin.low,
            100.0 * bin.high,
            percent(Some(bin.score)),
            percent(Some(bin.share)),
            thousands(bin.count),
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}
