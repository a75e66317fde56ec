//! What is wrong with a set of annotated images, and how to train on it.
//!
//! [`examine`] takes opened sets and their images ([`Part`]) and gives an [`Examination`]: findings, each with
//! its count and its first cases, tables of classes and sizes, what detections say of the labels, and a
//! [`scheme`](mod@scheme). [`page`] shows it as one HTML file. It opens nothing itself: a set of any format
//! will do.
//!
//! Why not `hotcoco::quality`: its check takes sets in its own types, with polygons and a map of unknown keys
//! an annotation, so that everything would have to be copied; and 12 of its 20 codes are errors that our
//! readers refuse or count ([`crate::data::dataset::LoadReport`]), 4 are of results files, which
//! [`crate::detections`] checks. Of the rest `near_duplicate` and `zero_instance_category` are here; extreme
//! shapes and few instances are in the tables.

mod classes;
mod copies;
mod files;
mod finding;
mod images;
mod labels;
mod look;
mod neighbours;
mod overlaps;
mod page;
pub mod scheme;
mod sizes;
mod structure;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::Serialize;

use crate::{
    data::{
        dataset::{AnnotationFormat, Dataset},
        image_store::ImageStore,
    },
    error::Result,
};

pub use classes::{ClassRow, GroupRow};
pub use finding::{Example, Finding, Level, Marked, Shown};
pub use images::Watch;
pub use labels::{Detected, LabelReport, LimitChoice, Limits, Mistake, Origin, Suspect};
pub use page::page;
pub use scheme::Scheme;
pub use sizes::{Density, SMALL_SIDE, Scale, Sizes};

use images::Image;
use scheme::{ClassNumbers, Numbers, Place};

/// What a part of the data is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Training: the part that numbers and scheme are about.
    Train,
    /// Validation.
    Val,
    /// Test.
    Test,
    /// Extra images for training, as those of `data.extra`.
    Extra,
}

/// A part of the data.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// What it is for.
    pub role: Role,
    /// Its name in messages, where that is not its role's.
    pub called: Option<String>,
    /// Its annotations; none of classification images.
    pub dataset: Option<&'a Dataset>,
    /// Names of its images in the store.
    pub files: Vec<Cow<'a, str>>,
    /// Its images; none where they are not to be read.
    pub store: Option<&'a ImageStore>,
    /// Of classification images: how many each class of the training part's vocabulary has.
    pub labelled: Vec<u32>,
}

impl<'a> Part<'a> {
    /// Annotated images.
    #[must_use]
    pub fn annotated(role: Role, dataset: &'a Dataset, store: Option<&'a ImageStore>) -> Self {
        let files = dataset.images().iter().map(|image| Cow::from(&*image.file_name)).collect();
        Self { role, called: None, dataset: Some(dataset), files, store, labelled: Vec::new() }
    }

    /// Classification images.
    #[must_use]
    pub fn classification(
        files: Vec<String>,
        store: Option<&'a ImageStore>,
        labelled: Vec<u32>,
    ) -> Self {
        let files = files.into_iter().map(Cow::from).collect();
        Self { role: Role::Extra, called: None, dataset: None, files, store, labelled }
    }

    /// The same with another name in messages.
    #[must_use]
    pub fn called(self, name: impl Into<String>) -> Self {
        Self { called: Some(name.into()), ..self }
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        if let Some(name) = &self.called {
            return name;
        }
        match self.role {
            Role::Train => "train",
            Role::Val => "val",
            Role::Test => "test",
            Role::Extra => "extra",
        }
    }
}

/// What the examination is about.
#[derive(Debug, Clone)]
pub struct Options {
    /// Cases of a finding that are named. Default: 12.
    pub examples: usize,
    /// Sizes to which images are resized. Default: those of the default settings.
    pub scale: Scale,
    /// Queries of the detector. Default: 900.
    pub queries: usize,
    /// Detections of an image that count in evaluation. Default: 300.
    pub max_detections: usize,
    /// Where the data is, for the scheme's settings. Default: not said.
    pub places: Vec<Place>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            examples: 12,
            scale: Scale::default(),
            queries: 900,
            max_detections: 300,
            places: Vec::new(),
        }
    }
}

/// The size of a part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartRow {
    /// Its name.
    pub name: String,
    /// Its format, as messages call it.
    pub format: String,
    /// Images.
    pub images: usize,
    /// Annotations.
    pub boxes: usize,
    /// Classes.
    pub classes: usize,
    /// Images that were read; none where they were not to be.
    pub read: Option<usize>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Examination {
    /// The parts, in the order given.
    pub parts: Vec<PartRow>,
    /// Problems first, then what to look at, then notes.
    pub findings: Vec<Finding>,
    /// Rare, common and frequent classes in each part.
    pub groups: Vec<GroupRow>,
    /// Each class in each part.
    pub classes: Vec<ClassRow>,
    /// How large the training part's objects are.
    pub sizes: Sizes,
    /// How many boxes its images have.
    pub density: Density,
    /// What detections say of its labels.
    pub labels: Option<LabelReport>,
    /// How to train on it.
    pub scheme: Scheme,
}

impl Examination {
    /// How many findings are of a level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

/// The parts, and what was read of their images.
struct Examined<'a> {
    parts: &'a [Part<'a>],
    images: Vec<Vec<Image>>,
}

impl Examined<'_> {
    /// The first annotated part of a role.
    fn annotated(&self, role: Role) -> Option<(&Part<'_>, &Dataset)> {
        self.parts.iter().filter(|part| part.role == role).find_map(|p| Some((p, p.dataset?)))
    }
}

/// Examines a set. The first part must be the training part, annotated. Images are read once, in parallel;
/// of each a few hundred bytes are kept.
///
/// # Errors
/// The first part is no training part; it was stopped. What is wrong with the data is no error.
pub fn examine(
    parts: &[Part<'_>],
    detected: Option<&Detected<'_>>,
    options: &Options,
    watch: &Watch<'_>,
) -> Result<Examination> {
    let Some((Role::Train, Some(train))) = parts.first().map(|part| (part.role, part.dataset))
    else {
        return Err(crate::Error::other("the first part must be annotated images to train on"));
    };
    let examined = Examined { parts, images: images::read(parts, watch)? };
    let classes = classes::rows(&examined);
    let labels = detected.map(|detected| labels::examine(train, detected));
    let mut findings = structure::check(&examined);
    findings.extend(structure::unread(&examined));
    findings.extend(files::check(&examined, options));
    findings.extend(copies::check(&examined, options, watch)?);
    findings.extend(overlaps::check(&examined, options));
    findings.extend(classes::check(&examined, &classes));
    if let Some(labels) = &labels {
        findings.extend(labels::findings(train, (0, parts[0].name()), labels, options.examples));
    }
    // Stable: within a level as above.
    findings.sort_by_key(|finding| finding.level);
    let groups: Vec<_> = classes.iter().map(|row| row.frequency).collect();
    let sizes = sizes::sizes(train, &groups, &options.scale);
    let density = sizes::density(train, options.queries);
    let numbers = numbers(&examined, train, &classes, (&sizes, &density), options);
    Ok(Examination {
        parts: parts.iter().zip(&examined.images).map(row).collect(),
        groups: classes::groups(&classes),
        scheme: scheme::scheme(&numbers),
        findings,
        classes,
        sizes,
        density,
        labels,
    })
}

fn row((part, images): (&Part<'_>, &Vec<Image>)) -> PartRow {
    let labelled = part.labelled.iter().filter(|&&images| images > 0).count();
    PartRow {
        name: part.name().to_owned(),
        format: part.dataset.map_or("classification images", |d| d.report().format).to_owned(),
        images: part.files.len(),
        boxes: part.dataset.map_or(0, |dataset| dataset.annotations().len()),
        classes: part.dataset.map_or(labelled, |dataset| dataset.vocabulary().len()),
        read: part.store.map(|_| images.iter().filter(|p| p.seen().is_some()).count()),
    }
}

/// What the scheme rests on.
fn numbers(
    examined: &Examined<'_>,
    train: &Dataset,
    rows: &[ClassRow],
    (sizes, density): (&Sizes, &Density),
    options: &Options,
) -> Numbers {
    let extra: Vec<usize> =
        (0..examined.parts.len()).filter(|&at| examined.parts[at].role == Role::Extra).collect();
    let classes = rows.iter().map(|row| ClassNumbers {
        name: row.name.clone(),
        images: row.images[0],
        extra: extra.iter().map(|&at| row.images[at]).sum(),
        frequency: row.frequency,
    });
    let judged = examined.annotated(Role::Val);
    Numbers {
        places: options.places.clone(),
        images: train.images().len(),
        classes: classes.collect(),
        verified: verified(train),
        density: density.clone(),
        sizes: sizes.clone(),
        most_judged: judged.map_or(0, |(_, val)| sizes::density(val, 0).most),
        max_detections: options.max_detections,
        has_extra: !extra.is_empty(),
    }
}

/// Mean share of the classes that an image says something about; none where the format shows all.
fn verified(dataset: &Dataset) -> Option<f64> {
    if dataset.format() == AnnotationFormat::Coco {
        return None;
    }
    let classes = dataset.vocabulary().len().max(1) as f64;
    let images = 0..dataset.images().len();
    let known = images.map(|image| {
        let knowledge = dataset.knowledge(image);
        (knowledge.present.len() + knowledge.absent.len()) as f64 / classes
    });
    Some(known.sum::<f64>() / dataset.images().len().max(1) as f64)
}
