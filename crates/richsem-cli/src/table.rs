//! Tables on the terminal. Metrics in percent with one decimal, a dash where there is nothing.

use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use richsem::{
    evaluate::{ClassResult, Summary},
    plural::{self, counted},
    vocabulary::Frequency,
};

use crate::output;

/// A cell without a value.
pub(crate) const NOTHING: &str = "–";
/// Most classes of a table that shows all of them without `--per-class`.
pub(crate) const MOST_CLASSES: usize = 60;
/// Classes shown at each end of a longer list.
pub(crate) const SHOWN: usize = 20;

/// A table with columns by name: those that start with `<` are flush left, the others flush right.
pub(crate) fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let line = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(line));
    table.set_header(columns.iter().map(|c| c.trim_start_matches('<')).collect::<Vec<_>>());
    for row in rows {
        // A name with line breaks stays in its row.
        let cells = row.iter().map(|cell| output::printable(cell).replace('\n', "\\n"));
        table.add_row(cells);
    }
    for (column, name) in table.column_iter_mut().zip(columns) {
        let side = if name.starts_with('<') { CellAlignment::Left } else { CellAlignment::Right };
        column.set_cell_alignment(side);
    }
    table.trim_fmt()
}

/// A fraction in percent, with one decimal.
pub(crate) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |v| format!("{:.1}", 100.0 * v))
}

/// An interval in percent, as `9.1 to 15.5`.
pub(crate) fn range(interval: Option<[f64; 2]>) -> String {
    interval.map_or_else(
        || NOTHING.to_owned(),
        |[low, high]| format!("{:.1} to {:.1}", 100.0 * low, 100.0 * high),
    )
}

const BY_SIZE: [&str; 6] = ["AP", "AP50", "AP75", "APs", "APm", "APl"];
const BY_FREQUENCY: [&str; 3] = ["APr", "APc", "APf"];
const AP50_BY_FREQUENCY: [(&str, Frequency); 3] =
    [("AP50r", Frequency::Rare), ("AP50c", Frequency::Common), ("AP50f", Frequency::Frequent)];

/// The average precisions in one row.
pub(crate) fn precisions(summary: &Summary) -> String {
    let values = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| percent(summary.get(name))).collect()
    };
    let (names, groups): (Vec<&str>, Vec<Frequency>) = AP50_BY_FREQUENCY.into_iter().unzip();
    // Those that one protocol alone has.
    let own: Vec<&str> = summary.metrics.iter().map(|(name, _)| name.as_str()).collect();
    let own: Vec<&str> = own.into_iter().filter(|name| name.starts_with("AP50_")).collect();
    let columns = [&BY_SIZE[..], &["│"], &BY_FREQUENCY, &names, &own].concat();
    let at_50 = groups.into_iter().map(|g| percent(summary.ap50_of(g))).collect();
    let row = [values(&BY_SIZE), vec!["│".to_owned()], values(&BY_FREQUENCY), at_50, values(&own)]
        .concat();
    table(&columns, [row])
}

/// The average recalls in one row, under the protocol's own names.
pub(crate) fn recalls(summary: &Summary) -> String {
    let recalls = summary.metrics.iter().filter(|(name, _)| name.starts_with("AR"));
    let (names, values): (Vec<&str>, Vec<String>) =
        recalls.map(|(name, value)| (name.as_str(), percent(*value))).unzip();
    table(&names, [values])
}

/// All classes; if there are many, the best and worst of each group. With training boxes, intervals and errors
/// where errors were looked at.
pub(crate) fn classes(summary: &Summary, all: bool) -> String {
    let mut columns = vec!["id", "<class", "<group", "train images", "boxes", "AP", "AP50"];
    if summary.errors.is_some() {
        columns.extend(["train boxes", "95 % of AP", "AP-Fixed", "ECE"]);
    }
    let columns = columns.as_slice();
    let class = |c: &ClassResult| {
        let mut row = vec![
            c.category_id.0.to_string(),
            c.name.clone(),
            group_letter(c.frequency),
            c.image_count.to_string(),
            c.boxes.to_string(),
            percent(c.ap),
            percent(c.ap50),
        ];
        if let Some(errors) = &summary.errors {
            // All lists are in order of ids.
            let at = summary.per_class.iter().position(|other| other.category_id == c.category_id);
            let interval = at.and_then(|k| summary.intervals.as_ref()?.per_class.get(k)?.interval);
            let calibration = errors.calibration.as_ref();
            row.push(c.instance_count.to_string());
            row.push(range(interval));
            row.push(percent(at.and_then(|k| *errors.fixed.per_class.get(k)?)));
            row.push(percent(at.and_then(|k| *calibration?.per_class.get(k)?)));
        }
        row
    };
    if all || summary.per_class.len() <= MOST_CLASSES {
        return table(columns, summary.per_class.iter().map(class));
    }
    // As OpenImages' protocol has it.
    let at_50_alone = summary.per_class.iter().all(|class| class.ap.is_none());
    let mut text = String::new();
    let groups = [Some(Frequency::Frequent), Some(Frequency::Common), Some(Frequency::Rare), None];
    let present: Vec<_> = groups
        .into_iter()
        .filter(|group| summary.per_class.iter().any(|c| c.frequency == *group))
        .collect();
    let mut left_out = summary.per_class.len();
    // About as many in all, however many groups there are.
    let shown = SHOWN.div_ceil(present.len().max(1));
    for group in present {
        let of_group = summary.per_class.iter().filter(|c| c.frequency == group);
        let total = of_group.clone().count();
        let ap = |c: &ClassResult| if at_50_alone { c.ap50 } else { c.ap };
        let mut evaluated: Vec<&ClassResult> = of_group.filter(|c| ap(c).is_some()).collect();
        evaluated.sort_by(|a, b| ap(b).unwrap_or(0.0).total_cmp(&ap(a).unwrap_or(0.0)));
        let name = group.map_or("classes", group_name);
        text +=
            &format!("{name}: {}, {} with boxes here\n", counted(total, "class"), evaluated.len());
        let both_ends = ends(&evaluated, shown);
        left_out -= both_ends.0.len() + both_ends.1.len();
        text += &table(columns, with_gap(both_ends, columns.len(), |c| class(c)));
        text += "\n\n";
    }
    text + &more_classes(left_out, "--per-class")
}

/// The first and the last few of a list; the second part is empty where the list is short.
pub(crate) fn ends<T>(list: &[T], count: usize) -> (&[T], &[T]) {
    if list.len() <= 2 * count {
        (list, &[])
    } else {
        (&list[..count], &list[list.len() - count..])
    }
}

/// Rows of both ends with an ellipsis between them.
pub(crate) fn with_gap<T>(
    (first, last): (&[T], &[T]),
    columns: usize,
    row: impl Fn(&T) -> Vec<String>,
) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = first.iter().map(&row).collect();
    if !last.is_empty() {
        rows.push(vec!["…".to_owned(); columns]);
        rows.extend(last.iter().map(row));
    }
    rows
}

/// Says that a table of classes does not show all of them, and what does.
pub(crate) fn more_classes(left_out: usize, how: &str) -> String {
    format!("({left_out} more {}: {how})", plural::of(left_out, "class"))
}

/// The letter of a group, `r`, `c` or `f`, or a dash.
pub(crate) fn group_letter(group: Option<Frequency>) -> String {
    group.map_or_else(|| NOTHING.to_owned(), |g| g.letter().to_string())
}

/// The name of a group of classes, in words.
pub(crate) fn group_name(group: Frequency) -> &'static str {
    match group {
        Frequency::Rare => "rare",
        Frequency::Common => "common",
        Frequency::Frequent => "frequent",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use richsem::{evaluate::Protocol, vocabulary::CategoryId};

    use super::*;

    fn summary(classes: usize) -> Summary {
        let class = |i: usize| ClassResult {
            category_id: CategoryId(i as i64),
            name: format!("class{i}"),
            frequency: Some([Frequency::Rare, Frequency::Frequent][i % 2]),
            image_count: 3,
            instance_count: 4,
            boxes: 5,
            ap: (i != 7).then_some(i as f64 / 1000.0),
            ap50: Some([0.125, 0.5][i % 2]),
        };
        Summary {
            protocol: Protocol::Coco,
            images: 1,
            boxes: 2,
            detections: 3,
            metrics: vec![
                ("AP".into(), Some(0.3456)),
                ("APs".into(), None),
                ("AR1".into(), Some(1.0)),
            ],
            per_class: (0..classes).map(class).collect(),
            intervals: None,
            comparison: None,
            errors: None,
            details: None,
        }
    }

    #[test]
    fn metrics_are_percentages_and_absent_ones_dashes() {
        let text = precisions(&summary(2));
        let row = text.lines().last().unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words[..7], ["34.6", "–", "–", "–", "–", "–", "│"]);
        assert_eq!(words[7..], ["–", "–", "–", "12.5", "–", "50.0"]);
        assert_eq!(recalls(&summary(1)).split_whitespace().next(), Some("AR1"));
        assert!(recalls(&summary(1)).ends_with("100.0"));
    }

    #[test]
    fn long_class_lists_show_both_ends_of_each_group() {
        let shown = |text: &str| text.matches("class").count();
        assert_eq!(shown(&classes(&summary(60), false)), 61);
        assert_eq!(shown(&classes(&summary(100), true)), 101);
        let text = classes(&summary(100), false);
        for name in ["class99 ", "class81 ", "class1 ", "class98 ", "class80 ", "class0 "] {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
        for name in ["class79 ", "class23 ", "class7 ", "class20 "] {
            assert!(!text.contains(name), "{name} is in\n{text}");
        }
        assert!(text.contains("frequent: 50 classes, 49 with boxes here"), "{text}");
        // Two groups of ten at each end.
        assert!(text.ends_with("(60 more classes: --per-class)"), "{text}");
    }
}
