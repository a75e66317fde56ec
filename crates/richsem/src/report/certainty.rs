//! How certain the metrics are, and the differences to another results file.

use std::fmt::Write as _;

use super::{escape, percent, things, thousands};
use crate::evaluate::{Comparison, Intervals, Summary};

pub(super) fn section(summary: &Summary) -> String {
    let intervals = summary.intervals.as_ref().map(intervals).unwrap_or_default();
    intervals + &summary.comparison.as_ref().map(comparison).unwrap_or_default()
}

/// An interval in percent, as `9.1 to 15.5`.
fn range(interval: Option<[f64; 2]>) -> String {
    let text = |[low, high]: [f64; 2]| format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high);
    interval.map_or_else(|| "–".to_owned(), |ends| text(ends).replace('-', "−"))
}

const CLASSES_AND_BOXES: &str =
    "<th class=\"num\">classes</th><th class=\"num\">boxes</th></tr></thead>\n<tbody>\n";

fn intervals(intervals: &Intervals) -> String {
    // A set without boxes.
    if intervals.metrics.iter().all(|metric| metric.value.is_none()) {
        return String::new();
    }
    let mut html = format!(
        "<p>95 % intervals: for these classes on other images, by leaving out each of {} of images; and for classes in general, of which these are a sample. Another training may \
         differ by more.</p>\n<div class=\"scroll\"><table><thead><tr><th></th>\
         <th class=\"num\">value</th><th class=\"num\">other images</th>\
         <th class=\"num\">classes in general</th>{CLASSES_AND_BOXES}",
        things(intervals.groups, "group")
    );
    for metric in intervals.metrics.iter().filter(|metric| metric.value.is_some()) {
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}\
             </td><td class=\"num\">{}</td><td class=\"num\">{}</td></tr>",
            escape(&metric.name),
            percent(metric.value),
            range(metric.interval),
            range(metric.over_classes),
            thousands(metric.classes),
            thousands(metric.boxes),
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn comparison(comparison: &Comparison) -> String {
    let name = escape(&comparison.with);
    let mut html = format!(
        "<h3>Less {name}</h3>\n<p>Both without the same group of images at a time.</p>\n\
         <div class=\"scroll\"><table><thead><tr><th></th><th class=\"num\">this</th>\
         <th class=\"num\">{name}</th><th class=\"num\">difference</th>\
         <th class=\"num\">95 %, other images</th><th class=\"num\">95 %, classes in general</th>\
         {CLASSES_AND_BOXES}"
    );
    for metric in comparison.metrics.iter().filter(|metric| metric.difference.is_some()) {
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td class=\"num\">{}</td><td class=\"num\">{}</td>{}<td class=\"num\">{}\
             </td><td class=\"num\">{}</td><td class=\"num\">{}</td><td class=\"num\">{}</td></tr>",
            escape(&metric.name),
            percent(metric.first),
            percent(metric.second),
            super::metrics::difference(metric.first, metric.second),
            range(metric.interval),
            range(metric.over_classes),
            thousands(metric.classes),
            thousands(metric.boxes),
        );
    }
    html.push_str("</tbody></table></div>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::intervals::MetricInterval;

    #[test]
    fn a_set_without_boxes_has_no_table_of_intervals() {
        let of = |value: Option<f64>, groups: usize| {
            let (name, interval, over_classes) = ("AP".to_owned(), None, None);
            let (classes, boxes) = (0, 0);
            let metric = MetricInterval { name, value, interval, over_classes, classes, boxes };
            intervals(&Intervals { groups, metrics: vec![metric], per_class: vec![] })
        };
        assert_eq!(of(None, 1), "");
        assert!(of(Some(0.5), 1).contains("each of 1 group of images;"));
        assert!(of(Some(0.5), 50).contains("each of 50 groups of images;"));
    }
}
