//! Boxes that are probably wrong: overlooked, badly placed, or of another class, by the detections of a model
//! that has not seen these images in training.
//!
//! [`scores`] says how likely each box is right, [`precision`] how far a class's detections can be trusted.
//! Deviation from ObjectLab: where a file verifies classes image by image, detections of a class that an image
//! says nothing about do not count; where it says that not all boxes of a class are there, none of it is
//! overlooked; nothing is overlooked in a crowd region; and an object may touch a box ([`Limits::touch`]).

mod precision;
mod scores;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::Serialize;

use super::finding::{Example, Finding, Level, Marked, Shown, counted};
use crate::{
    boxes::Xywh,
    data::dataset::Dataset,
    detections::Detection,
    vocabulary::{Category, ClassIndex},
};
use precision::{LIMIT_OF_AP, average_precisions};
pub use scores::Limits;
use scores::{Found, Labels, Scores};

/// Whether a detector has seen the images in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It has not: another part, or folds of which each was left out once.
    OutOfFold,
    /// Not known.
    Unknown,
}

impl Origin {
    fn words(self) -> &'static str {
        match self {
            Self::OutOfFold => "by a detector that was not trained on these images",
            Self::Unknown => {
                "whether the detector was trained on these images is not known: one that was repeats their \
                 mistakes, and finds few"
            }
        }
    }
}

/// Which scores count as sure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LimitChoice {
    /// These.
    Given(Limits),
    /// Those at which 90 % and 50 % of the detections are right, by these very labels: for detectors
    /// whose scores are no probabilities, as those that learn by a focal loss.
    ByPrecision,
}

impl Default for LimitChoice {
    fn default() -> Self {
        Self::Given(Limits::default())
    }
}

/// Detections in the images of a part.
#[derive(Debug, Clone, Copy)]
pub struct Detected<'a> {
    /// All of them. Those of images or classes that the part does not have are counted and left out.
    pub detections: &'a [Detection],
    /// Whether their detector has seen the images.
    pub origin: Origin,
    /// Which scores count as sure.
    pub limits: LimitChoice,
}

/// What is wrong with a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mistake {
    /// There is an object without a box.
    Overlooked,
    /// The box is of another class.
    Swapped,
    /// The box is not where the object is.
    BadlyPlaced,
}

impl Mistake {
    const ALL: [Self; 3] = [Self::Overlooked, Self::Swapped, Self::BadlyPlaced];

    fn code(self) -> &'static str {
        match self {
            Self::Overlooked => "overlooked",
            Self::Swapped => "swapped",
            Self::BadlyPlaced => "badly_placed",
        }
    }
}

/// A box that is probably wrong or missing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suspect {
    /// In which way.
    pub error: Mistake,
    /// Id of its image.
    pub image_id: i64,
    /// Id of the annotation; none of an overlooked object.
    pub annotation_id: Option<i64>,
    /// The detection that says so; none where two annotations contradict each other.
    pub detection: Option<Detection>,
    /// How likely the label is right, 0 to 1.
    pub score: f64,
    /// The score below which a label of its class is told.
    pub limit: f64,
    #[serde(skip)]
    image: usize,
}

/// What detections say of the labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelReport {
    /// Whether the detector has seen the images.
    pub origin: Origin,
    /// Detections that were compared.
    pub detections: usize,
    /// Detections of images or classes that the part does not have.
    pub foreign: usize,
    /// Detections of classes that their image says nothing about.
    pub unverified: usize,
    /// The scores that count as sure, and as sure enough to place a box.
    pub limits: [f64; 2],
    /// Detections with at least these scores.
    pub sure: [usize; 2],
    /// The scores at which 90 % and 50 % of the detections are right by these labels.
    pub by_precision: [Option<f64>; 2],
    /// How likely the labels of each image are right, 0 to 1; in the order of the part's images.
    pub quality: Vec<f64>,
    /// All boxes that are told, by kind, the least likely first.
    pub suspects: Vec<Suspect>,
}

/// Compares the labels of a part with detections.
pub(super) fn examine(dataset: &Dataset, detected: &Detected<'_>) -> LabelReport {
    let (images, foreign, unverified) = gather(dataset, detected.detections);
    let classes = dataset.vocabulary().len();
    let by_precision = precision::limits(&images, classes);
    let limits = match detected.limits {
        LimitChoice::Given(limits) => limits,
        // A score that nothing reaches, where no score is enough. Those are strict: just below.
        LimitChoice::ByPrecision => {
            let [high, low] = by_precision.map(|s| s.map_or(f64::INFINITY, f64::next_down));
            Limits { high, low, ..Limits::default() }
        }
    };
    let scores = scores::score(&images, limits);
    let limit_of: Vec<f64> =
        average_precisions(&images, classes).iter().map(|ap| ap * LIMIT_OF_AP).collect();
    let mut suspects = Vec::new();
    for (image, ((labels, found), scores)) in images.iter().zip(&scores).enumerate() {
        let told = suspects_of(dataset, image, (labels, found), scores, &limit_of);
        suspects.extend(told);
    }
    suspects.sort_by(|a, b| a.error.cmp(&b.error).then(a.score.total_cmp(&b.score)));
    let found = || images.iter().flat_map(|(_, found)| &found.scores);
    LabelReport {
        origin: detected.origin,
        detections: found().count(),
        foreign,
        unverified,
        limits: [limits.high, limits.low],
        sure: [limits.high, limits.low].map(|limit| found().filter(|s| **s >= limit).count()),
        by_precision,
        quality: scores.iter().map(Scores::quality).collect(),
        suspects,
    }
}

fn corners(bbox: Xywh) -> [f64; 4] {
    let [x, y, w, h] = bbox.0;
    [x, y, x + w, y + h]
}

/// Whether an annotation is scored: others only hide what is below them.
fn is_scored(annotation: &crate::data::dataset::Annotation) -> bool {
    !annotation.crowd && !annotation.ignore
}

/// Labels and detections by image; how many detections are of unknown images or classes, and how many of
/// classes that their image says nothing about.
fn gather(dataset: &Dataset, detections: &[Detection]) -> (Vec<(Labels, Found)>, usize, usize) {
    let places: HashMap<i64, usize> =
        dataset.images().iter().enumerate().map(|(i, image)| (image.id, i)).collect();
    let mut images: Vec<(Labels, Found)> = (0..dataset.images().len())
        .map(|image| {
            let mut labels = Labels::default();
            for annotation in dataset.annotations_of(image) {
                if is_scored(annotation) {
                    labels.boxes.push(corners(annotation.bbox));
                    labels.classes.push(annotation.class.0);
                } else {
                    labels.shields.push(corners(annotation.bbox));
                }
            }
            (labels, Found::default())
        })
        .collect();
    let mut by_image: Vec<Vec<(u32, &Detection)>> = vec![Vec::new(); images.len()];
    let mut foreign = 0;
    for detection in detections {
        let place = places.get(&detection.image_id);
        match (place, dataset.vocabulary().class_of(detection.category_id)) {
            (Some(&image), Some(class)) => by_image[image].push((class.0, detection)),
            _ => foreign += 1,
        }
    }
    let mut unverified = 0;
    for (image, ((_, found), detections)) in images.iter_mut().zip(by_image).enumerate() {
        let knowledge = dataset.knowledge(image);
        for (class, detection) in detections {
            let index = ClassIndex(class);
            let complete = !knowledge.not_exhaustive.contains(&index);
            let known = knowledge.present.binary_search(&index).is_ok()
                || knowledge.absent.binary_search(&index).is_ok()
                || knowledge.is_exhaustive(index);
            if !known {
                unverified += 1;
                continue;
            }
            found.boxes.push(corners(detection.bbox));
            found.classes.push(class);
            found.scores.push(detection.score);
            found.complete.push(complete);
        }
    }
    (images, foreign, unverified)
}

fn suspects_of(
    dataset: &Dataset,
    image: usize,
    (labels, found): (&Labels, &Found),
    scores: &Scores,
    limit_of: &[f64],
) -> Vec<Suspect> {
    let image_id = dataset.images()[image].id;
    let detection = |at: usize| {
        let [x0, y0, x1, y1] = found.boxes[at];
        let class = dataset.vocabulary().category(ClassIndex(found.classes[at]));
        Detection {
            image_id,
            category_id: class.id,
            bbox: Xywh([x0, y0, x1 - x0, y1 - y0]),
            score: found.scores[at],
        }
    };
    let scored: Vec<i64> =
        dataset.annotations_of(image).iter().filter(|a| is_scored(a)).map(|a| a.id).collect();
    let suspect = |error, at: Option<usize>, by: Option<usize>, score: f64, class: u32| {
        let limit = limit_of[class as usize];
        (score <= limit).then(|| Suspect {
            error,
            image_id,
            annotation_id: at.map(|at| scored[at]),
            detection: by.map(&detection),
            score,
            limit,
            image,
        })
    };
    let overlooked = scores.overlooked.iter().enumerate().filter_map(|(at, score)| {
        suspect(Mistake::Overlooked, None, Some(at), (*score)?, found.classes[at])
    });
    let of_boxes = |error, scores: &[(f64, Option<usize>)]| -> Vec<Suspect> {
        let each = scores.iter().enumerate();
        each.filter_map(|(at, &(score, by))| {
            suspect(error, Some(at), by, score, labels.classes[at])
        })
        .collect()
    };
    let mut all: Vec<Suspect> = overlooked.collect();
    all.extend(of_boxes(Mistake::Swapped, &scores.swapped));
    all.extend(of_boxes(Mistake::BadlyPlaced, &scores.badly_placed));
    all
}

/// The report as findings about part `at`, called `part`.
pub(super) fn findings(
    dataset: &Dataset,
    (at, part): (usize, &str),
    report: &LabelReport,
    most: usize,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for error in Mistake::ALL {
        // Boxes with two classes are told as such.
        let is_told = move |s: &&Suspect| s.error == error && s.detection.is_some();
        let of_kind = || report.suspects.iter().filter(is_told);
        let count = of_kind().count();
        let what = match error {
            Mistake::Overlooked => counted(count, "object has no box", "objects have no box"),
            Mistake::Swapped => {
                counted(count, "box is of another class", "boxes are of another class")
            }
            Mistake::BadlyPlaced => counted(
                count,
                "box is not where its object is",
                "boxes are not where their objects are",
            ),
        };
        let text = format!("probably {what}, {}", report.origin.words());
        let examples = of_kind().take(most).map(|suspect| example(dataset, at, suspect)).collect();
        if count > 0 {
            findings.push(
                Finding::new(error.code(), Level::Look, part, count, text)
                    .advise("look at them, the first ones first; --json has all")
                    .with(examples),
            );
        }
    }
    let note = |code, count, text: String| Finding::new(code, Level::Note, part, count, text);
    if report.unverified > 0 {
        let text = format!(
            "{} of classes that their image says nothing about: not compared",
            counted(report.unverified, "detection is", "detections are")
        );
        findings.push(note("unverified_detections", report.unverified, text));
    }
    if report.foreign > 0 {
        let text = format!(
            "{} of images or classes that the annotations do not have: left out",
            counted(report.foreign, "detection is", "detections are")
        );
        findings.push(note("foreign_detections", report.foreign, text));
    }
    let [high, low] = report.limits;
    let [sure, enough] = report.sure;
    let shown = |s: Option<f64>| s.map_or_else(|| "none".to_owned(), |s| format!("{s:.3}"));
    let [p90, p50] = report.by_precision.map(shown);
    if report.detections == 0 {
        findings.push(note(
            "detections",
            0,
            "no detections: labels were not compared with any".to_owned(),
        ));
        return findings;
    }
    let text = format!(
        "of {} detections {sure} count as sure (score from {high:.3}), {enough} as sure enough to place a box \
         (from {low:.3}); by these labels 90 % are right at {p90}, 50 % at {p50}",
        report.detections
    );
    findings.push(note("detections", report.detections, text));
    findings
}

fn example(dataset: &Dataset, part: usize, suspect: &Suspect) -> Example {
    let record = &dataset.images()[suspect.image];
    let of_image = dataset.annotations_of(suspect.image);
    let annotation = of_image.iter().find(|a| Some(a.id) == suspect.annotation_id);
    let mut boxes = Vec::new();
    let labelled = annotation.map(|a| (dataset.vocabulary().category(a.class), a.bbox));
    if let Some((category, bbox)) = labelled {
        boxes.push(marked(category, bbox, category.name.clone(), None));
    }
    let class = |d: &Detection| {
        dataset.vocabulary().class_of(d.category_id).map(|c| dataset.vocabulary().category(c))
    };
    let detected = suspect.detection.as_ref().and_then(|d| Some((class(d)?, d)));
    if let Some((category, d)) = detected {
        boxes.push(marked(category, d.bbox, format!("detected: {}", category.name), Some(d.score)));
    }
    let name = |of: Option<&Category>| of.map(|c| c.name.clone()).unwrap_or_default();
    let (label, found) = (name(labelled.map(|l| l.0)), name(detected.map(|d| d.0)));
    let words = match suspect.error {
        Mistake::Overlooked => format!("{found}, without a box"),
        Mistake::Swapped => format!("labelled {label}, detected {found}"),
        Mistake::BadlyPlaced => format!("{label}, detected elsewhere"),
    };
    let text = format!("{}: {words} (score of the label {:.3})", record.file_name, suspect.score);
    Example { text, shown: vec![Shown { part, file: record.file_name.clone(), boxes }] }
}

fn marked(category: &Category, bbox: Xywh, label: String, score: Option<f64>) -> Marked {
    Marked { bbox: bbox.0, label, category_id: category.id.0, score }
}
