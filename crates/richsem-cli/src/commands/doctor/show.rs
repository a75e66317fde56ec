//! What was found, on the terminal.

use anyhow::Result;
use richsem::{
    doctor::{Examination, Finding, Level},
    plural::counted,
};

use crate::{output, table};

/// Prints everything.
pub(super) fn show(examination: &Examination) -> Result<()> {
    output::print(format!(
        "{}\n\n{}\n\n{}\n",
        table_of_parts(examination),
        table_of_groups(examination),
        table_of_sizes(examination)
    ))?;
    for finding in &examination.findings {
        output::print(words(finding))?;
    }
    let count = |level| examination.count(level);
    output::print(format!(
        "\n{}, {} to look at, {}",
        counted(count(Level::Problem), "problem"),
        counted(count(Level::Look), "thing"),
        counted(count(Level::Note), "note")
    ))?;
    if examination.scheme.advice.is_empty() {
        return output::print("scheme: the numbers of this set speak for the default settings");
    }
    output::print(format!("\nscheme\n\n{}", examination.scheme.toml.trim_end()))
}

/// Cases of a finding that the terminal shows; files have more.
const SHOWN: usize = 3;

fn words(finding: &Finding) -> String {
    let mut text = format!("{:<8} {}: {}", finding.level.name(), finding.part, finding.text);
    for example in finding.examples.iter().take(SHOWN) {
        text += &format!("\n           {}", example.text);
    }
    if !finding.advice.is_empty() {
        text += &format!("\n         → {}", finding.advice);
    }
    text
}

fn table_of_parts(examination: &Examination) -> String {
    let rows = examination.parts.iter().map(|part| {
        vec![
            part.name.to_owned(),
            part.format.clone(),
            part.images.to_string(),
            part.boxes.to_string(),
            part.classes.to_string(),
            part.read.map_or_else(|| table::NOTHING.to_owned(), |read| read.to_string()),
        ]
    });
    table::table(&["<part", "<format", "images", "boxes", "classes", "images read"], rows)
}

fn table_of_groups(examination: &Examination) -> String {
    let mut columns = vec!["<group".to_owned(), "classes".to_owned()];
    for part in &examination.parts {
        columns.extend([format!("{}: seen", part.name), format!("{}: boxes", part.name)]);
    }
    let rows = examination.groups.iter().map(|group| {
        let mut row =
            vec![table::group_name(group.frequency).to_owned(), group.classes.to_string()];
        for (seen, boxes) in group.seen.iter().zip(&group.boxes) {
            row.extend([seen.to_string(), boxes.to_string()]);
        }
        row
    });
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    table::table(&columns, rows)
}

/// Shares of the training part's boxes by their side, once images are resized.
fn table_of_sizes(examination: &Examination) -> String {
    let (sizes, density) = (&examination.sizes, &examination.density);
    let row = |name: &str, counts: &[usize; 4]| {
        let total: usize = counts.iter().sum();
        let mut row = vec![name.to_owned(), total.to_string()];
        row.extend(
            counts.map(|count| table::percent((total > 0).then(|| count as f64 / total as f64))),
        );
        row
    };
    let mut rows = vec![row("all", &sizes.by_side)];
    let groups = examination.groups.iter().zip(&sizes.by_group);
    rows.extend(groups.map(|(group, counts)| row(table::group_name(group.frequency), counts)));
    let columns = ["<train", "boxes", "% below 16 px", "% to 32", "% to 96", "% larger"];
    format!(
        "{}\n(sides of boxes in images resized to {}, at most {}; the images' median shorter side: {})\n\
         boxes an image: {:.1} on average, {} in 99 % of the images at most, {} in the fullest",
        table::table(&columns, rows),
        sizes.scale.size,
        sizes.scale.max_size,
        sizes.median_side,
        density.mean,
        density.p99,
        density.most
    )
}
