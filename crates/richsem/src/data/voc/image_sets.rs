//! The image sets of `ImageSets/`: which lists are sets of their own, and what they list.

use std::{collections::BTreeSet, path::Path};

use super::{
    report::ConversionReport,
    source::Collected,
    stems::{Found, Stems},
};
use crate::error::{Error, Result};

/// An image set: its name, and the images it lists, every one of which is annotated.
pub(super) type Split<'a> = (&'a str, Vec<&'a str>);

/// A line of an image set that names an image.
struct Line<'a> {
    /// Counts the lines of the file, empty ones too, from 1.
    number: usize,
    /// The whole line: a name may hold spaces.
    text: &'a str,
    /// The line up to the first space.
    first: &'a str,
    /// Whether a flag (-1, 0 or 1) follows the name, as in the devkit's lists of a class.
    flagged: bool,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(i, line)| {
        let text = line.trim();
        let first = text.split_whitespace().next()?;
        let last = text.rsplit_once(char::is_whitespace).map(|(_, last)| last);
        let flagged = last.is_some_and(|flag| ["-1", "0", "1"].contains(&flag));
        Some(Line { number: i + 1, text, first, flagged })
    })
}

/// Whether a set is the devkit's list of a class, as `aeroplane_train`: images of another set, each with
/// a flag of whether it shows the class.
fn is_of_class(name: &str, text: &str, collected: &Collected) -> bool {
    let within = |whole: &str| {
        let whole: BTreeSet<&str> = lines(whole).map(|line| line.first).collect();
        lines(text).all(|line| whole.contains(line.first))
    };
    let mut sets = collected
        .splits
        .iter()
        .filter(|(set, _)| name.strip_suffix(set.as_str()).is_some_and(|rest| rest.ends_with('_')));
    let mut lines = lines(text).peekable();
    lines.peek().is_some() && lines.all(|line| line.flagged) && sets.any(|(_, whole)| within(whole))
}

/// The image sets, with the images that each lists. Without any, all annotated images are one set.
pub(super) fn splits<'a>(
    input: &Path,
    collected: &'a Collected,
    report: &mut ConversionReport,
) -> Result<Vec<Split<'a>>> {
    if collected.splits.is_empty() {
        let all = collected.annotations.keys().map(String::as_str).collect();
        return Ok(vec![("all", all)]);
    }
    let stems = Stems::of(collected.annotations.keys());
    let mut splits = Vec::new();
    for (split, text) in &collected.splits {
        if is_of_class(split, text, collected) {
            report.passed_over.count("lists of a class".to_owned(), &format!("{split}.txt"));
            continue;
        }
        let mut listed = Vec::new();
        let mut taken = BTreeSet::new();
        for Line { number, text, first, .. } in lines(text) {
            let at = || format!("image set {split}, line {number}");
            let wrong = |problem| Error::invalid(input, at(), problem);
            // `name`, or `name 1`; a name may hold spaces.
            let (name, found) = match stems.find(text) {
                Found::None => (first, stems.find(first)),
                found => (text, found),
            };
            let stem = match found {
                Found::One(stem) => stem,
                Found::None => {
                    return Err(wrong(format!("no Annotations/{name}.xml"))
                        .with_hint("each line names an image, without extension"));
                }
                Found::Several(one, two) => {
                    return Err(wrong(format!("`{name}` may be `{one}` or `{two}`"))
                        .with_hint("name it with its folder below Annotations"));
                }
            };
            if taken.insert(stem) {
                listed.push(stem);
            } else {
                report.listed_twice.add(&format!("{split} line {number}"));
            }
        }
        splits.push((split.as_str(), listed));
    }
    // The usual ones first, in their usual order; the others behind, by name.
    let rank = |name: &str| USUAL.iter().position(|usual| *usual == name).unwrap_or(USUAL.len());
    splits.sort_by_key(|(name, _)| rank(name));
    Ok(splits)
}

/// The usual image sets, in the order in which they are shown.
const USUAL: [&str; 4] = ["train", "val", "trainval", "test"];
