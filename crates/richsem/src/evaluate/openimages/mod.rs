//! The metric of OpenImages' challenges: average precision at IoU 0.5, as the evaluator of the TensorFlow
//! Object Detection API computes it (`OpenImagesChallengeEvaluator`, 2.8.0).
//!
//! 1. With [`Rules::expand_truth`], a box is also a box of all ancestors of its class. So is a label that says
//!    that a class is there; one that says that it is not there goes to all descendants. Detections are not
//!    expanded, unless [`Rules::expand_detections`] says so: a model has to find the animal, too.
//! 2. An image judges the classes that it has a label or a box of. Other detections do not count.
//! 3. Of an image and class: boxes without an area are dropped, and so are scores of -10 and below; then all
//!    but the best 10,000.
//! 4. A detection belongs to the single box (no group) that it overlaps most, the first of several. With
//!    IoU 0.5 or more it is right, unless a better detection has taken that box; there is no second choice.
//! 5. A detection that is not right belongs to the group-of box that holds the largest share of its area. With
//!    half or more it does not count by itself: the group counts as one true positive, with the best score
//!    of its detections. A group that none belongs to is missed. So is one whose best score is not above 0.
//! 6. Precision is made monotone, and AP is the area below all of its points. A class without a box to be
//!    found has no AP; one that was never found has 0.
//!
//! Ties: by score, then by image, then by position in the list; the groups of an image come after its single
//! detections. (The original leaves ties to an unstable sort.)

mod files;
mod matching;
mod results;

use rayon::prelude::*;

pub use files::{Evaluation, Files, LeftOut};
pub use results::{Results, check_results, is_results, read_results, write_results};

use super::ranking::{ByClass, RankedClass, TrueBox, by_image, check_one, descending};
use crate::{
    data::openimages::{Relations, ScoredBox, VerifiedLabel},
    error::{Error, Result},
};
use matching::{Image, match_image};

/// Detections of an image and class that count.
const MAX_DETECTIONS: usize = 10_000;
/// The original's threshold, of a step that does nothing else.
const LOWEST_SCORE: f64 = -10.0;

/// What to do with group-of boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// Each is one box to be found.
    Counted,
    /// They are no boxes to be found, and detections in them do not count: the older metric (V2, weight 0).
    Ignored,
}

/// Which detections can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    /// Those of classes that the image has a label or a box of.
    Verified,
    /// All: the older metric (V2).
    Everything,
}

/// Variants of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether boxes and labels are expanded by the hierarchy.
    pub expand_truth: bool,
    /// Whether each detection is also one of all ancestors of its class.
    pub expand_detections: bool,
    /// What to do with group-of boxes.
    pub groups: Groups,
    /// Which detections can be wrong.
    pub judged: Judged,
}

impl Rules {
    /// The challenge's metric.
    pub const CHALLENGE: Self = Self {
        expand_truth: true,
        expand_detections: false,
        groups: Groups::Counted,
        judged: Judged::Verified,
    };
    /// The challenge's metric of expanded detections, which UniDet and Detic print as `AP50_expand`.
    pub const EXPANDED: Self = Self { expand_detections: true, ..Self::CHALLENGE };
    /// Without the hierarchy.
    pub const FLAT: Self = Self { expand_truth: false, ..Self::CHALLENGE };
    /// The older metric (`OpenImagesDetectionEvaluator`): groups are ignored, everything is judged, no
    /// hierarchy.
    pub const V2: Self = Self { groups: Groups::Ignored, judged: Judged::Everything, ..Self::FLAT };
}

/// What is known of the images.
#[derive(Debug, Clone, Copy)]
pub struct Truth<'a> {
    /// Boxes; which of several equal ones a detection belongs to is decided by their order.
    pub boxes: &'a [TrueBox],
    /// Verified labels.
    pub labels: &'a [VerifiedLabel],
}

/// Detections that did not count; after they were expanded, where they were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NotCounted {
    /// Of classes that their image says nothing about.
    pub unjudged: usize,
    /// Of a box without an area.
    pub without_area: usize,
    /// With a score of -10 or less.
    pub low_score: usize,
    /// Beyond the best 10,000 of their image and class.
    pub beyond_limit: usize,
    /// In a group-of box, which counts once at most.
    pub in_groups: usize,
}

impl std::ops::AddAssign for NotCounted {
    fn add_assign(&mut self, other: Self) {
        self.unjudged += other.unjudged;
        self.without_area += other.without_area;
        self.low_score += other.low_score;
        self.beyond_limit += other.beyond_limit;
        self.in_groups += other.in_groups;
    }
}

/// The metric of all classes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OpenImagesSummary {
    /// By position.
    pub classes: Vec<RankedClass>,
    /// Mean AP of the classes that have one; none if no class has.
    pub map: Option<f64>,
    /// What did not count.
    pub not_counted: NotCounted,
}

/// Evaluates detections. The classes are those of `relations` ([`Relations::none`] for classes without a
/// hierarchy). Numbers do not depend on the number of threads.
///
/// # Errors
/// A class beyond those of `relations`; a number that is not finite; more than 2³² records.
pub fn evaluate(
    truth: Truth<'_>,
    detections: &[ScoredBox],
    relations: &Relations,
    rules: Rules,
) -> Result<OpenImagesSummary> {
    check(truth, detections, relations.len())?;
    let expanded = |class: u32, expand: bool| {
        let more = if expand { relations.ancestors(class) } else { &[] };
        std::iter::once(class).chain(more.iter().copied())
    };
    let classes = relations.len();
    let boxes = ByClass::new(truth.boxes.len(), classes, |i| {
        expanded(truth.boxes[i].class, rules.expand_truth)
    });
    let labels = ByClass::new(truth.labels.len(), classes, |i| {
        let VerifiedLabel { class, present, .. } = truth.labels[i];
        let more = match (rules.expand_truth, present) {
            (false, _) => &[],
            (true, true) => relations.ancestors(class),
            (true, false) => relations.descendants(class),
        };
        std::iter::once(class).chain(more.iter().copied())
    });
    let found = ByClass::new(detections.len(), classes, |i| {
        expanded(detections[i].class, rules.expand_detections)
    });
    let measured: Vec<(RankedClass, NotCounted)> = (0..classes)
        .into_par_iter()
        .map(|class| {
            let mut boxes: Vec<&TrueBox> =
                boxes.of(class).iter().map(|&i| &truth.boxes[i as usize]).collect();
            boxes.sort_by_key(|truth| truth.image);
            let labelled = labels.of(class).iter().map(|&i| truth.labels[i as usize].image);
            let judged = judged(rules, labelled.chain(boxes.iter().map(|truth| truth.image)));
            let found = found.of(class).iter().map(|&i| &detections[i as usize]);
            measure(&boxes, judged.as_deref(), found, rules.groups)
        })
        .collect();
    Ok(OpenImagesSummary::of(measured))
}

impl OpenImagesSummary {
    fn of(measured: Vec<(RankedClass, NotCounted)>) -> Self {
        let mut not_counted = NotCounted::default();
        let mut classes = Vec::with_capacity(measured.len());
        for (class, more) in measured {
            not_counted += more;
            classes.push(class);
        }
        let all: Vec<f64> = classes.iter().filter_map(|class| class.ap).collect();
        let map = (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
        Self { classes, map, not_counted }
    }
}

/// The images that judge a class, sorted. `None`: all.
fn judged(rules: Rules, images: impl Iterator<Item = u32>) -> Option<Vec<u32>> {
    (rules.judged == Judged::Verified).then(|| {
        let mut images: Vec<u32> = images.collect();
        images.sort_unstable();
        images.dedup();
        images
    })
}

/// One class. `boxes` are sorted by image, `found` are in the order of the list.
fn measure<'a>(
    boxes: &[&TrueBox],
    judged: Option<&[u32]>,
    found: impl Iterator<Item = &'a ScoredBox>,
    groups: Groups,
) -> (RankedClass, NotCounted) {
    let mut not_counted = NotCounted::default();
    let mut counted: Vec<&ScoredBox> = Vec::new();
    for detection in found {
        let [x0, y0, x1, y1] = detection.bbox;
        let reason = if judged.is_some_and(|images| images.binary_search(&detection.image).is_err())
        {
            &mut not_counted.unjudged
        } else if !(x0 < x1 && y0 < y1) {
            &mut not_counted.without_area
        } else if detection.score <= LOWEST_SCORE {
            &mut not_counted.low_score
        } else {
            counted.push(detection);
            continue;
        };
        *reason += 1;
    }
    counted.sort_by(|a, b| a.image.cmp(&b.image).then_with(|| descending(a.score, b.score)));
    let (mut ranked, mut rest) = (Vec::with_capacity(counted.len()), boxes);
    for found in by_image(&counted, |detection| detection.image) {
        let image = found[0].image;
        rest = &rest[rest.partition_point(|truth| truth.image < image)..];
        let here;
        (here, rest) = rest.split_at(rest.partition_point(|truth| truth.image == image));
        let one = Image { image, truth: here, found: &found[..found.len().min(MAX_DETECTIONS)] };
        not_counted.beyond_limit += found.len() - one.found.len();
        not_counted.in_groups += match_image(&one, groups, &mut ranked);
    }
    let counts = |truth: &&&TrueBox| groups == Groups::Counted || !truth.group_of;
    (RankedClass::new(ranked, boxes.iter().filter(counts).map(|truth| truth.image)), not_counted)
}

fn check(truth: Truth<'_>, detections: &[ScoredBox], classes: usize) -> Result<()> {
    if [truth.boxes.len(), truth.labels.len(), detections.len()]
        .iter()
        .any(|&n| n > u32::MAX as usize)
    {
        return Err(Error::other("more than 2³² boxes, labels or detections"));
    }
    let boxes = truth.boxes.iter().map(|b| (b.class, b.bbox.iter().all(|v| v.is_finite())));
    let labels = truth.labels.iter().map(|label| (label.class, true));
    let found = detections
        .iter()
        .map(|d| (d.class, d.score.is_finite() && d.bbox.iter().all(|value| value.is_finite())));
    check_one("box", boxes, classes)?;
    check_one("label", labels, classes)?;
    check_one("detection", found, classes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_dataset;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_names;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_official;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_random;
