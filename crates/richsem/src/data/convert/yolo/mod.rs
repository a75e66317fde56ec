//! Ultralytics' YOLO.

#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use super::{ConversionReport, Part, images::Names};
use crate::{
    data::formats::same_split,
    error::{Error, Result},
    plural::clause,
};
use write::Split;

/// The parts that `data.yaml` can name.
const PARTS: [&str; 3] = ["train", "val", "test"];

/// Gives the parts the names that YOLO has for them, and leaves out those that it has none for. The only part
/// of a set, whatever it is called, is training data.
pub(super) fn name_parts(
    input: &Path,
    sets: &mut Vec<Part>,
    report: &mut ConversionReport,
) -> Result<()> {
    let usual = |name: &str| PARTS.into_iter().find(|part| same_split(name, part));
    let only = sets.len() == 1;
    let mut left_out = Vec::new();
    sets.retain_mut(|(name, _)| match usual(name).or(only.then_some(PARTS[0])) {
        Some(part) => {
            if part != name {
                report.notes.push(format!("`{name}` is written as `{part}`"));
            }
            part.clone_into(name);
            true
        }
        None => {
            left_out.push(name.clone());
            false
        }
    });
    for name in left_out {
        report.notes.push(format!("`{name}` is left out: YOLO has train, val and test alone"));
    }
    let doubled =
        sets.iter().enumerate().find(|(at, (name, _))| sets[..*at].iter().any(|s| s.0 == *name));
    let problem = match (doubled, sets.is_empty()) {
        (Some((_, (name, _))), _) => format!("two parts would be written as `{name}`"),
        (None, true) => "expected train, val or test; no part is called so".to_owned(),
        (None, false) => return Ok(()),
    };
    Err(Error::invalid(input, "split", problem).with_hint(format!(
        "convert one part at a time, into a folder of its own: {}",
        crate::argument::Argument::Split
    )))
}

/// Refuses a folder that has labels: those that are not written over would be read with the others.
pub(super) fn refuse_labels(output: &Path) -> Result<()> {
    let labels = output.join("labels");
    if !labels.exists() {
        return Ok(());
    }
    let problem = format!("`{}` is there already", labels.display());
    Err(Error::config("output", problem)
        .with_hint("choose another folder, or move this one away: old labels would count as new"))
}

/// Writes the labels of all parts, and `data.yaml`. Gives the images of each part with the places that they
/// must have.
pub(super) fn write(
    sets: &[Part],
    folder: &Path,
    report: &mut ConversionReport,
) -> Result<Vec<Names>> {
    let splits: Vec<Split<'_>> =
        sets.iter().map(|(name, dataset)| Split { name, dataset }).collect();
    let written = write::write(&splits, folder)?;
    report.notes.push(format!("{} written", clause(written.boxes, "box", ["is", "are"])));
    for (what, count) in written.lost {
        report.not_carried.add("", what, count, "");
    }
    let mut images = written.images.into_iter();
    Ok(sets.iter().map(|(_, set)| images.by_ref().take(set.images().len()).collect()).collect())
}
