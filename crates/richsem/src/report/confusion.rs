//! Which classes are taken for which: a matrix with a row and a column for nothing, and the most frequent
//! confusions.

use std::{collections::HashMap, fmt::Write as _};

use super::{ReportData, escape, page, thousands};
use crate::{
    Result,
    detections::Verdict,
    draw,
    evaluate::{Details, Summary, details::Confusion},
    vocabulary::CategoryId,
};

/// Classes of the matrix; of more classes those that are confused most are shown.
const MOST_CLASSES: usize = 20;

/// Confusions in the list.
const MOST_PAIRS: usize = 15;

/// Strength of a cell's colour that has all of its row, in percent: letters stay readable on it.
const STRONGEST: f64 = 50.0;

pub(super) fn section(data: &ReportData, summary: &Summary) -> Result<String> {
    let Some(details) = &summary.details else { return Ok(String::new()) };
    let names: HashMap<CategoryId, &str> =
        summary.per_class.iter().map(|class| (class.category_id, class.name.as_str())).collect();
    if details.confusion.cells.is_empty() {
        return Ok(String::new());
    }
    let shown = chosen(&details.confusion, summary);
    let mut html = format!(
        "<p>Detections with a score of at least {:.2}, at IoU 0.50. Detections first find boxes of their own \
         class; those that are left are compared with the boxes that are left. So each box is in one cell of \
         its row, each detection in one of its column.</p>\n",
        details.score
    );
    html.push_str(&matrix(&details.confusion, &shown, &names, summary.per_class.len()));
    html.push_str(&pairs(&details.confusion, &names));
    html.push_str(&examples(data, details)?);
    Ok(html)
}

/// The classes of the matrix: all, most training images first, or those with the most confusions.
fn chosen(confusion: &Confusion, summary: &Summary) -> Vec<CategoryId> {
    let mut classes: Vec<_> = summary.per_class.iter().collect();
    classes.sort_by(|a, b| b.image_count.cmp(&a.image_count).then_with(|| a.name.cmp(&b.name)));
    let mut ids: Vec<CategoryId> = classes.iter().map(|class| class.category_id).collect();
    if ids.len() > MOST_CLASSES {
        let mut confused: HashMap<CategoryId, u64> = HashMap::new();
        for cell in &confusion.cells {
            if let (Some(truth), Some(found)) = (cell.truth, cell.found)
                && truth != found
            {
                *confused.entry(truth).or_default() += cell.count;
                *confused.entry(found).or_default() += cell.count;
            }
        }
        // Stable: of equals those with more training images.
        ids.sort_by_key(|id| std::cmp::Reverse(confused.get(id).copied().unwrap_or(0)));
        ids.truncate(MOST_CLASSES);
    }
    ids
}

/// Rows are boxes, columns detections.
fn matrix(
    confusion: &Confusion,
    shown: &[CategoryId],
    names: &HashMap<CategoryId, &str>,
    classes: usize,
) -> String {
    let some = shown.len() < classes;
    // Places: the classes shown, all others (where there are some), nothing.
    let size = shown.len() + usize::from(some) + 1;
    let place: HashMap<CategoryId, usize> = shown.iter().zip(0..).map(|(&id, i)| (id, i)).collect();
    let place = |id: Option<CategoryId>| match id {
        None => size - 1,
        Some(id) => place.get(&id).copied().unwrap_or(shown.len()),
    };
    let mut counts = vec![vec![0u64; size]; size];
    for cell in &confusion.cells {
        counts[place(cell.truth)][place(cell.found)] += cell.count;
    }
    let heading = |at: usize, nothing: &str| -> String {
        match at {
            _ if at == size - 1 => nothing.to_owned(),
            _ if at == shown.len() => "other classes".to_owned(),
            _ => names.get(&shown[at]).map_or_else(|| shown[at].0.to_string(), |n| (*n).to_owned()),
        }
    };
    let caption = if some {
        format!(
            "The {} classes that are confused most, of {}. Rows: what is there. Columns: what it is taken for.",
            shown.len(),
            thousands(classes)
        )
    } else {
        "Rows: what is there. Columns: what it is taken for.".to_owned()
    };
    let mut html = format!(
        "<div class=\"scroll\"><table class=\"confusion\"><caption>{caption}</caption>\n<thead><tr><td></td>"
    );
    for at in 0..size {
        let _ = write!(
            html,
            "<th scope=\"col\"><span>{}</span></th>",
            escape(&heading(at, "not found"))
        );
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (at, row) in counts.iter().enumerate() {
        let total = row.iter().sum::<u64>();
        let _ =
            write!(html, "<tr><th scope=\"row\">{}</th>", escape(&heading(at, "nothing there")));
        for (column, &count) in row.iter().enumerate() {
            // All others among themselves are no diagonal: which one is right is not seen here.
            let right = column == at && at < shown.len();
            let share = if total > 0 { count as f64 / total as f64 } else { 0.0 };
            let class = if right { "right" } else { "wrong" };
            if count == 0 {
                html.push_str("<td></td>");
            } else {
                let _ = write!(
                    html,
                    "<td class=\"{class}\" style=\"--mix:{:.0}%\" title=\"{:.1} % of the row\">{}</td>",
                    STRONGEST * share,
                    100.0 * share,
                    thousands(count as usize)
                );
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    if confusion.left_out > 0 {
        let _ = writeln!(
            html,
            "<p>{} more, in smaller cells, are left out.</p>",
            thousands(confusion.left_out as usize)
        );
    }
    html
}

/// The most frequent confusions of two classes.
fn pairs(confusion: &Confusion, names: &HashMap<CategoryId, &str>) -> String {
    let mut html = String::new();
    let name =
        |id: CategoryId| names.get(&id).map_or_else(|| id.0.to_string(), |n| (*n).to_owned());
    let confused = confusion.cells.iter().filter_map(|cell| {
        let (truth, found) = (cell.truth?, cell.found?);
        (truth != found).then_some((truth, found, cell.count))
    });
    for (truth, found, count) in confused.take(MOST_PAIRS) {
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{}</td><td class=\"num\">{}</td></tr>",
            escape(&name(truth)),
            escape(&name(found)),
            thousands(count as usize)
        );
    }
    if html.is_empty() {
        return "<p>No box is taken for another class.</p>\n".to_owned();
    }
    format!(
        "<h3>Most frequent confusions</h3>\n<div class=\"scroll\"><table><thead><tr><th>what is there</th>\
         <th>what it is taken for</th><th class=\"num\">boxes</th></tr></thead>\n<tbody>\n{html}</tbody></table>\
         </div>\n"
    )
}

/// Images with the worst mistakes, under what their colours mean.
fn examples(data: &ReportData, details: &Details) -> Result<String> {
    let mut html = String::new();
    for (heading, lead, images) in [
        (
            "Worst misses",
            "The largest boxes that no detection finds, one of an image, two of a class.",
            &data.misses,
        ),
        (
            "Worst false alarms",
            "The detections with the highest scores that find no box of their class, one of an image, two of a \
             class. Some may show what the annotations lack.",
            &data.false_alarms,
        ),
    ] {
        let shown = page::gallery(images)?;
        if !shown.is_empty() {
            let _ = write!(html, "<h3>{heading}</h3>\n<p>{lead}</p>\n{}{shown}", colors(details));
        }
    }
    Ok(html)
}

/// What the colours in the images mean.
fn colors(details: &Details) -> String {
    let mut html = String::from("<ul class=\"legend blocks verdicts\">");
    for (verdict, meaning) in [
        (Verdict::TruePositive, "detection that finds a box"),
        (Verdict::FalsePositive, "detection that finds none"),
        (Verdict::FalseNegative, "box that is not found, dashed"),
    ] {
        let [r, g, b] = draw::verdict_color(verdict).0;
        let _ = write!(
            html,
            "<li><i style=\"background:#{r:02x}{g:02x}{b:02x}\"></i><b>{}</b> {meaning}</li>",
            verdict.short()
        );
    }
    let _ = writeln!(html, "<li>scores from {:.2} on</li></ul>", details.score);
    html
}
