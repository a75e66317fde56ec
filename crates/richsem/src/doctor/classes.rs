//! Images and boxes of each class in each part, and classes that are missing in one.

use serde::Serialize;

use super::{
    Examined, Part, Role,
    finding::{Example, Finding, Level, counted},
};
use crate::{
    data::dataset::Dataset,
    vocabulary::{CategoryId, Frequency},
};

/// A class of the training part in every part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassRow {
    /// Its id in the annotation file.
    pub id: CategoryId,
    /// Its name.
    pub name: String,
    /// Its group: the file's, or by its images in the training part.
    pub frequency: Frequency,
    /// Images of each part that show it. Of classification images those that are labelled with it.
    pub images: Vec<usize>,
    /// Boxes of each part, crowds included; 0 of classification images.
    pub boxes: Vec<usize>,
}

/// A group of classes in every part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupRow {
    /// Which group.
    pub frequency: Frequency,
    /// Number of its classes.
    pub classes: usize,
    /// Those of its classes that each part shows.
    pub seen: Vec<usize>,
    /// Boxes of its classes in each part; of classification images their number.
    pub boxes: Vec<usize>,
}

/// Images and boxes by class, counted here: the counts in a file may be those of another split.
pub(super) fn counts(dataset: &Dataset) -> Vec<[usize; 2]> {
    let mut counts = vec![[0; 2]; dataset.vocabulary().len()];
    let mut last_image = vec![u32::MAX; counts.len()];
    for annotation in dataset.annotations() {
        let class = annotation.class.0 as usize;
        counts[class][1] += 1;
        if last_image[class] != annotation.image {
            last_image[class] = annotation.image;
            counts[class][0] += 1;
        }
    }
    counts
}

/// All classes of the training part, in the order of its vocabulary.
pub(super) fn rows(examined: &Examined<'_>) -> Vec<ClassRow> {
    let Some((_, own)) = examined.annotated(Role::Train) else { return Vec::new() };
    let of_part: Vec<Vec<[usize; 2]>> =
        examined.parts.iter().map(|part| in_vocabulary(part, own)).collect();
    let categories = own.vocabulary().categories().iter().zip(own.frequencies());
    categories
        .enumerate()
        .map(|(class, (category, given))| {
            let of = |what: usize| of_part.iter().map(|counts| counts[class][what]).collect();
            let (images, boxes): (Vec<usize>, Vec<usize>) = (of(0), of(1));
            let train = u32::try_from(images[0]).unwrap_or(u32::MAX);
            ClassRow {
                id: category.id,
                name: category.name.clone(),
                frequency: given.unwrap_or(Frequency::of(train)),
                images,
                boxes,
            }
        })
        .collect()
}

/// Counts of a part, by the classes of another's vocabulary.
fn in_vocabulary(part: &Part<'_>, own: &Dataset) -> Vec<[usize; 2]> {
    let mut counted = vec![[0; 2]; own.vocabulary().len()];
    match part.dataset {
        Some(dataset) => {
            let categories = dataset.vocabulary().categories();
            for (category, counts) in categories.iter().zip(counts(dataset)) {
                if let Some(class) = own.vocabulary().class_of(category.id) {
                    counted[class.0 as usize] = counts;
                }
            }
        }
        None => {
            for (counts, images) in counted.iter_mut().zip(&part.labelled) {
                counts[0] = *images as usize;
            }
        }
    }
    counted
}

/// The rare, common and frequent classes in every part.
pub(super) fn groups(rows: &[ClassRow]) -> Vec<GroupRow> {
    let parts = rows.first().map_or(0, |row| row.images.len());
    [Frequency::Rare, Frequency::Common, Frequency::Frequent]
        .into_iter()
        .map(|frequency| {
            let of = || rows.iter().filter(move |row| row.frequency == frequency);
            let seen = |at: usize| of().filter(|row| row.images[at] > 0).count();
            let boxes = |at: usize| of().map(|row| row.boxes[at].max(row.images[at])).sum();
            GroupRow {
                frequency,
                classes: of().count(),
                seen: (0..parts).map(seen).collect(),
                boxes: (0..parts).map(boxes).collect(),
            }
        })
        .collect()
}

/// Whether metrics are of a part: it is for validation or test, and has boxes.
fn is_judged(part: &Part<'_>) -> bool {
    let boxes = part.dataset.is_some_and(|dataset| !dataset.annotations().is_empty());
    part.role == Role::Val || part.role == Role::Test && boxes
}

/// Classes that one part shows and another does not.
pub(super) fn check(examined: &Examined<'_>, rows: &[ClassRow]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(train) = examined.parts.first().map(Part::name) else { return findings };
    let untrained: Vec<&ClassRow> = rows.iter().filter(|row| row.images[0] == 0).collect();
    let text =
        format!("{} no box in {train}", counted(untrained.len(), "class has", "classes have"));
    findings.extend(
        named("classes_untrained", Level::Look, train, text, untrained, |row| row.name.clone())
            .map(|finding| {
                finding.advise("a detector cannot learn them: take them out, or add images")
            }),
    );
    for (at, part) in examined.parts.iter().enumerate().filter(|(_, p)| is_judged(p)) {
        let both = format!("{train}, {}", part.name());
        let boxes = |row: &&ClassRow| {
            format!(
                "{}: {}",
                row.name,
                crate::plural::counted(row.boxes[at].max(row.boxes[0]), "box")
            )
        };
        let only: Vec<&ClassRow> =
            rows.iter().filter(|row| row.images[0] == 0 && row.images[at] > 0).collect();
        let text = format!(
            "{} boxes in {} and none in {train}",
            counted(only.len(), "class has", "classes have"),
            part.name()
        );
        findings.extend(
            named("classes_only_judged", Level::Problem, &both, text, only, |row| boxes(&row)).map(
                |f| f.advise("their AP is 0 whatever the detector: add images, or split anew"),
            ),
        );
        let unjudged: Vec<&ClassRow> =
            rows.iter().filter(|row| row.images[0] > 0 && row.images[at] == 0).collect();
        let text = format!(
            "{} no box in {}: the metrics leave them out",
            counted(unjudged.len(), "class has", "classes have"),
            part.name()
        );
        findings.extend(
            named("classes_not_judged", Level::Look, &both, text, unjudged, |row| boxes(&row))
                .map(|f| f.advise("split so that each class is in both, where it has two images")),
        );
        findings.extend(unknown(examined, part));
    }
    findings
}

/// Classes of a part that the training part does not have at all.
fn unknown(examined: &Examined<'_>, part: &Part<'_>) -> Option<Finding> {
    let ((train, own), other) = (examined.annotated(Role::Train)?, part.dataset?);
    let categories = other.vocabulary().categories().iter().zip(counts(other));
    let unknown = categories.filter(|(category, [_, boxes])| {
        *boxes > 0 && own.vocabulary().class_of(category.id).is_none()
    });
    let examples: Vec<Example> = unknown
        .map(|(category, [_, boxes])| Example {
            text: format!(
                "{} `{}`: {}",
                category.id.0,
                category.name,
                crate::plural::counted(boxes, "box")
            ),
            shown: Vec::new(),
        })
        .collect();
    let text = format!(
        "{} boxes in {} and {} not in the file of {}",
        counted(examples.len(), "category has", "categories have"),
        part.name(),
        if examples.len() == 1 { "is" } else { "are" },
        train.name()
    );
    (!examples.is_empty()).then(|| {
        let parts = format!("{}, {}", train.name(), part.name());
        Finding::new("classes_unknown", Level::Problem, parts, examples.len(), text)
            .advise("give both files the same categories")
            .with(examples)
    })
}

fn named(
    code: &'static str,
    level: Level,
    part: &str,
    text: String,
    rows: Vec<&ClassRow>,
    say: impl Fn(&ClassRow) -> String,
) -> Option<Finding> {
    let example = |row: &&ClassRow| Example { text: say(row), shown: Vec::new() };
    (!rows.is_empty()).then(|| {
        Finding::new(code, level, part, rows.len(), text).with(rows.iter().map(example).collect())
    })
}
