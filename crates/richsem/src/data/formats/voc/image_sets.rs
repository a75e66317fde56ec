//! The image sets of `ImageSets/`: which lists are sets of their own, and what they list.

use std::{collections::BTreeSet, path::Path};

use super::{
    collected::Collected,
    report::Report,
    stems::{Found, Stems},
};
use crate::error::{Error, Result};

/// An image set.
pub(super) struct Split<'a> {
    pub(super) name: &'a str,
    /// The images it lists, in its order, each once. Every one is annotated.
    pub(super) stems: Vec<&'a str>,
    /// Lines that name an image for the second time.
    pub(super) again: Vec<usize>,
}

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

/// The name of a set without lists.
const ALL: &str = "all";

/// The image sets, with the images that each lists. Without any, all annotated images are one set. Lists of a
/// class are counted among what is passed over.
pub(super) fn image_sets<'a>(
    input: &Path,
    collected: &'a Collected,
    report: &mut Report,
) -> Result<Vec<Split<'a>>> {
    if collected.splits.is_empty() {
        let stems = collected.annotations.keys().map(String::as_str).collect();
        return Ok(vec![Split { name: ALL, stems, again: Vec::new() }]);
    }
    let stems = Stems::of(collected.annotations.keys());
    let mut splits = Vec::new();
    for (name, text) in &collected.splits {
        if is_of_class(name, text, collected) {
            report.passed_over.count("lists of a class".to_owned(), &format!("{name}.txt"));
            continue;
        }
        splits.push(split(input, name, text, &stems)?);
    }
    // The usual ones first, in their usual order; the others behind, by name.
    let rank = |name: &str| USUAL.iter().position(|usual| *usual == name).unwrap_or(USUAL.len());
    splits.sort_by_key(|split| rank(split.name));
    Ok(splits)
}

/// Looks up each line of a list.
fn split<'a>(input: &Path, name: &'a str, text: &'a str, stems: &Stems<'a>) -> Result<Split<'a>> {
    let mut split = Split { name, stems: Vec::new(), again: Vec::new() };
    let mut taken = BTreeSet::new();
    for Line { number, text, first, .. } in lines(text) {
        let wrong = |problem: String, hint: &str| {
            Err(Error::invalid(input, format!("image set {name}, line {number}"), problem)
                .with_hint(hint))
        };
        // `name`, or `name 1`; a name may hold spaces.
        let (wanted, found) = match stems.find(text) {
            Found::None => (first, stems.find(first)),
            found => (text, found),
        };
        let stem = match found {
            Found::One(stem) => stem,
            Found::None => {
                return wrong(
                    format!("no Annotations/{wanted}.xml"),
                    "each line names an image, without extension",
                );
            }
            Found::Several(one, two) => {
                return wrong(
                    format!("`{wanted}` may be `{one}` or `{two}`"),
                    "name it with its folder below Annotations",
                );
            }
        };
        if taken.insert(stem) {
            split.stems.push(stem);
        } else {
            split.again.push(number);
        }
    }
    Ok(split)
}

/// The usual image sets, in the order in which they are shown.
const USUAL: [&str; 4] = ["train", "val", "trainval", "test"];
