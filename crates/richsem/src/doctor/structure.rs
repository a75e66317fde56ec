//! What was counted when the files were read, as findings; and whether their classes agree.

use std::collections::HashMap;

use super::{
    Examined, Part, Role,
    finding::{Example, Finding, Level, counted},
};
use crate::{
    data::dataset::{Counted, Dataset},
    vocabulary::Category,
};

/// What reading has counted, of every part.
pub(super) fn check(examined: &Examined<'_>) -> Vec<Finding> {
    let parts = examined.parts.iter();
    let counted = parts.filter_map(|part| Some(of_report(part.name(), part.dataset?)));
    counted.flatten().chain(nothing_to_learn(examined)).chain(classes_disagree(examined)).collect()
}

/// A training set without a box that training takes.
fn nothing_to_learn(examined: &Examined<'_>) -> Option<Finding> {
    let (part, dataset) = examined.annotated(Role::Train)?;
    let learns = (0..dataset.images().len()).any(|image| !dataset.training_boxes(image).is_empty());
    (!learns).then(|| {
        let all = dataset.annotations().len();
        let text = match all {
            0 => "no box to learn from".to_owned(),
            _ => format!(
                "no box to learn from: all {all} are crowd regions, ignored, or without an inside"
            ),
        };
        Finding::new("nothing_to_learn", Level::Problem, part.name(), 1, text)
            .advise("training refuses such a set: is it the right file?")
    })
}

/// Things that reading counts with their ids: code, level, kind of the ids, what they are, what to do.
type Told = (&'static str, Level, &'static str, &'static str, &'static str);

const SAME_FILE: Told = (
    "images_listed_twice",
    Level::Problem,
    "image",
    "images with the same file as an earlier one",
    "join them: the boxes of one are background in the other",
);
const REPEATED: Told = (
    "repeated_boxes",
    Level::Look,
    "annotation",
    "boxes that repeat an earlier one of their image and class",
    "remove them: a detector finds such an object once, and the other counts as missed",
);
const EMPTY: Told = (
    "empty_boxes",
    Level::Look,
    "annotation",
    "boxes without an inside, which training drops",
    "remove them: in evaluation they count as missed",
);
const CLIPPED: Told = (
    "boxes_beyond_images",
    Level::Note,
    "annotation",
    "boxes beyond their image, which training clips",
    "",
);
const ABSENT_WITH_BOXES: Told = (
    "absent_with_boxes",
    Level::Look,
    "image",
    "images with boxes of a class that they list as absent; the boxes count",
    "take the class out of neg_category_ids, or the boxes out of the image",
);
const IN_BOTH_LISTS: Told = (
    "absent_and_not_exhaustive",
    Level::Note,
    "image",
    "images with a class that is verified absent and also seen or not exhaustively annotated, taken as the latter",
    "",
);

fn of_report(part: &str, dataset: &Dataset) -> Vec<Finding> {
    let report = dataset.report();
    let found = |(code, level, kind, text, advice): Told, of: &Counted| {
        let text = format!("{text}: {}{}", of.count, of.ids(kind));
        (of.count > 0).then(|| Finding::new(code, level, part, of.count, text).advise(advice))
    };
    let plain = |code, count: usize, text: &str| {
        let text = format!("{text}: {count}");
        (count > 0).then(|| Finding::new(code, Level::Note, part, count, text))
    };
    let all = [
        found(SAME_FILE, &report.same_file),
        found(REPEATED, &report.repeated),
        found(EMPTY, &report.degenerate),
        found(CLIPPED, &report.clipped),
        found(ABSENT_WITH_BOXES, &report.absent_with_boxes),
        found(IN_BOTH_LISTS, &report.absent_and_not_exhaustive),
        plain("images_without_boxes", report.images_without_boxes, "images without boxes"),
        plain("crowds", report.crowd, "crowd regions, not trained on"),
        plain("unknown_sizes", report.unknown_sizes, "images whose size the file does not say"),
        plain(
            "removed_listed",
            report.removed_listed,
            "entries of neg_category_ids and not_exhaustive_category_ids that are no category of the file",
        ),
    ];
    let mut findings: Vec<Finding> = all.into_iter().flatten().collect();
    let line = |code, level, text: &String| Finding::new(code, level, part, 1, text.clone());
    findings.extend(report.warnings.iter().map(|text| line("warning", Level::Look, text)));
    findings.extend(report.notes.iter().map(|text| line("reading", Level::Note, text)));
    findings
}

/// Classes that have one id and two names, or one name and two ids, in two annotated parts.
fn classes_disagree(examined: &Examined<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some((first, own)) = examined.annotated(Role::Train) else { return findings };
    for part in examined.parts.iter().filter(|part| part.role != Role::Train) {
        let Some(other) = part.dataset else { continue };
        let (named, numbered) = differences(own, other);
        let parts = format!("{}, {}", first.name(), part.name());
        let advice = "the two must name the same classes alike, each once: rename them";
        for (code, what, examples) in [
            ("names_differ", "categories have one id and two names", named),
            ("ids_differ", "categories have one name and two ids", numbered),
        ] {
            if examples.is_empty() {
                continue;
            }
            let count = examples.len();
            let text = format!("{count} {what}");
            findings.push(
                Finding::new(code, Level::Problem, &*parts, count, text)
                    .advise(advice)
                    .with(examples),
            );
        }
    }
    findings
}

/// Ids whose names differ, and names whose ids differ.
fn differences(own: &Dataset, other: &Dataset) -> (Vec<Example>, Vec<Example>) {
    let example = |text: String| Example { text, shown: Vec::new() };
    // A name that several classes have tells nothing.
    let mut by_name: HashMap<&str, Option<&Category>> = HashMap::new();
    for category in own.vocabulary().categories() {
        by_name.entry(&category.name).and_modify(|seen| *seen = None).or_insert(Some(category));
    }
    let (mut named, mut numbered) = (Vec::new(), Vec::new());
    for category in other.vocabulary().categories() {
        let here = own.vocabulary().class_of(category.id).map(|c| own.vocabulary().category(c));
        if let Some(here) = here.filter(|here| here.name != category.name) {
            let (id, a, b) = (category.id.0, &here.name, &category.name);
            named.push(example(format!("{id}: `{a}` and `{b}`")));
        }
        if let Some(Some(here)) = by_name.get(&*category.name)
            && here.id != category.id
        {
            let (name, a, b) = (&category.name, here.id.0, category.id.0);
            numbered.push(example(format!("`{name}`: {a} and {b}")));
        }
    }
    (named, numbered)
}

/// Where nothing of an image was read, images of two parts that are the same file.
pub(super) fn same_files(a: &Part<'_>, b: &Part<'_>) -> Vec<(usize, usize)> {
    let place = |part: &Part<'_>| part.dataset.and_then(Dataset::images_at).map(ToOwned::to_owned);
    let (Some(of_a), Some(of_b)) = (place(a), place(b)) else { return Vec::new() };
    if of_a != of_b {
        return Vec::new();
    }
    let names: HashMap<&str, usize> =
        a.files.iter().enumerate().rev().map(|(i, name)| (&**name, i)).collect();
    let found = b.files.iter().enumerate();
    found.filter_map(|(j, name)| Some((*names.get(&**name)?, j))).collect()
}

/// A line on what was passed over when a part's images were not read.
pub(super) fn unread(examined: &Examined<'_>) -> Option<Finding> {
    let parts = examined.parts.iter().filter(|part| part.store.is_none() && !part.files.is_empty());
    let names: Vec<&str> = parts.map(Part::name).collect();
    (!names.is_empty()).then(|| {
        let text = format!(
            "the images of {} were not read: broken ones, other sizes and copies are not known",
            counted(names.len(), "part", "parts")
        );
        Finding::new("images_not_read", Level::Note, names.join(", "), names.len(), text)
    })
}
