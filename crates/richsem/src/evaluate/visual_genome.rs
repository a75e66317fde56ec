//! The metric of Visual Genome's 1600 classes: average precision at IoU 0.5, as the code of bottom-up
//! attention computes it (arXiv 1707.07998, `lib/datasets/vg_eval.py`).
//!
//! - Boxes include their last pixel: a width is `x1 - x0 + 1`.
//! - A detection belongs to the box of its class and image that it overlaps most, the first of several. It is
//!   right if the IoU is above 0.5 (not equal) and no better detection has taken the box. There is no second
//!   choice.
//! - AP is the area below all points of the monotone curve. A class without a box to be found has AP 0, and
//!   counts in the mean. A second mean weighs classes by their boxes.
//! - Images without a single box are not part of the set: detections in them do not count.
//!
//! Ties: by score, then by image, then by position in the list. (The original leaves ties to an unstable
//! sort.)
//!
//! The original's numbers also bear its way of keeping boxes: [`true_box`] and [`written`] do the same.

use rayon::prelude::*;

use super::ranking::{ByClass, Ranked, RankedClass, TrueBox, by_image, check_one, descending};
use crate::{
    data::openimages::ScoredBox,
    error::{Error, Result},
};

/// A detection is right above this IoU.
const THRESHOLD: f64 = 0.5;

/// The metric of all classes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VisualGenomeSummary {
    /// By position. `ap` is none without a box to be found; the means take 0.
    pub classes: Vec<RankedClass>,
    /// Mean AP of all classes.
    pub mean: f64,
    /// Mean AP weighted by the number of boxes; none without a box.
    pub weighted_mean: Option<f64>,
    /// Detections in images without a box.
    pub unjudged: usize,
}

/// Evaluates detections in pixels. Numbers do not depend on the number of threads.
///
/// # Errors
/// A class of `classes` or beyond; a number that is not finite; no class; more than 2³² records; a group-of
/// box, which Visual Genome does not have.
pub fn evaluate(
    truth: &[TrueBox],
    detections: &[ScoredBox],
    classes: usize,
) -> Result<VisualGenomeSummary> {
    check(truth, detections, classes)?;
    let mut images: Vec<u32> = truth.iter().map(|truth| truth.image).collect();
    images.sort_unstable();
    images.dedup();
    let judged = |detection: &&ScoredBox| images.binary_search(&detection.image).is_ok();
    let boxes = ByClass::new(truth.len(), classes, |i| [truth[i].class]);
    let found = ByClass::new(detections.len(), classes, |i| [detections[i].class]);
    let measured: Vec<(RankedClass, usize)> = (0..classes)
        .into_par_iter()
        .map(|class| {
            let boxes: Vec<&TrueBox> =
                boxes.of(class).iter().map(|&i| &truth[i as usize]).collect();
            let all = found.of(class);
            let found = all.iter().map(|&i| &detections[i as usize]).filter(judged).collect();
            let class = measure(boxes, found);
            let unjudged = all.len() - class.ranked.len();
            (class, unjudged)
        })
        .collect();
    Ok(VisualGenomeSummary::of(measured))
}

impl VisualGenomeSummary {
    fn of(measured: Vec<(RankedClass, usize)>) -> Self {
        let unjudged = measured.iter().map(|(_, unjudged)| unjudged).sum();
        let classes: Vec<RankedClass> = measured.into_iter().map(|(class, _)| class).collect();
        let ap = |class: &RankedClass| class.ap.unwrap_or(0.0);
        let boxes: usize = classes.iter().map(|class| class.num_gt).sum();
        let found: f64 = classes.iter().map(|class| ap(class) * class.num_gt as f64).sum();
        Self {
            mean: classes.iter().map(ap).sum::<f64>() / classes.len() as f64,
            weighted_mean: (boxes > 0).then(|| found / boxes as f64),
            classes,
            unjudged,
        }
    }
}

/// One class.
fn measure(mut boxes: Vec<&TrueBox>, mut found: Vec<&ScoredBox>) -> RankedClass {
    boxes.sort_by_key(|truth| truth.image);
    found.sort_by(|a, b| a.image.cmp(&b.image).then_with(|| descending(a.score, b.score)));
    let (mut ranked, mut rest) = (Vec::with_capacity(found.len()), &boxes[..]);
    for found in by_image(&found, |detection| detection.image) {
        let image = found[0].image;
        rest = &rest[rest.partition_point(|truth| truth.image < image)..];
        let here = &rest[..rest.partition_point(|truth| truth.image == image)];
        let mut taken = vec![false; here.len()];
        for detection in found {
            let nearest = nearest(detection.bbox, here);
            let correct = nearest.is_some_and(|at| !std::mem::replace(&mut taken[at], true));
            ranked.push(Ranked { score: detection.score, image, correct });
        }
    }
    RankedClass::new(ranked, boxes.iter().map(|truth| truth.image))
}

/// The first box of the largest IoU, if that is above the threshold.
fn nearest(found: [f64; 4], boxes: &[&TrueBox]) -> Option<usize> {
    let (mut best, mut largest) = (None, f64::NEG_INFINITY);
    for (i, truth) in boxes.iter().enumerate() {
        let overlap = iou(found, truth.bbox);
        if overlap > largest {
            (best, largest) = (Some(i), overlap);
        }
    }
    best.filter(|_| largest > THRESHOLD)
}

fn area([x0, y0, x1, y1]: [f64; 4]) -> f64 {
    (x1 - x0 + 1.0) * (y1 - y0 + 1.0)
}

fn iou(found: [f64; 4], truth: [f64; 4]) -> f64 {
    let width = (truth[2].min(found[2]) - truth[0].max(found[0]) + 1.0).max(0.0);
    let height = (truth[3].min(found[3]) - truth[1].max(found[1]) + 1.0).max(0.0);
    let common = width * height;
    common / (area(found) + area(truth) - common)
}

/// A box as the original's ground truth has it: from `[x, y, width, height]` in pixels to corners, clipped to
/// the image's last pixel, without fractions. A box without an inside becomes a square at the image's
/// corner, as wide as the image: so the original does.
#[must_use]
pub fn true_box([x, y, w, h]: [f64; 4], width: u32, height: u32) -> [f64; 4] {
    let (last_x, last_y) = (f64::from(width) - 1.0, f64::from(height) - 1.0);
    let (x0, y0) = (x.max(0.0), y.max(0.0));
    let (x1, y1) = ((x + w).min(last_x), (y + h).min(last_y));
    let corners = if x1 < x0 || y1 < y0 { [0.0, 0.0, last_x, last_x] } else { [x0, y0, x1, y1] };
    corners.map(f64::trunc)
}

/// A detection as the original's results files have it: boxes count from pixel 1 (the truth counts from 0)
/// and have one decimal, scores have three.
#[must_use]
pub fn written(found: ScoredBox) -> ScoredBox {
    let bbox = found.bbox.map(|value| rounded(value + 1.0, 1));
    ScoredBox { bbox, score: rounded(found.score, 3), ..found }
}

/// A number as it is written with that many decimals.
fn rounded(value: f64, decimals: usize) -> f64 {
    // Digits that were just written are a number.
    format!("{value:.decimals$}").parse().unwrap_or(value)
}

fn check(truth: &[TrueBox], detections: &[ScoredBox], classes: usize) -> Result<()> {
    if classes == 0 {
        return Err(Error::other("there are no classes"));
    }
    if truth.len().max(detections.len()) > u32::MAX as usize {
        return Err(Error::other("more than 2³² boxes or detections"));
    }
    if let Some(i) = truth.iter().position(|truth| truth.group_of) {
        return Err(Error::other(format!("box {i} is a group, which Visual Genome does not have")));
    }
    let finite = |bbox: [f64; 4]| bbox.iter().all(|value| value.is_finite());
    let boxes = truth.iter().map(|truth| (truth.class, finite(truth.bbox)));
    check_one("box", boxes, classes)?;
    let found = detections.iter().map(|d| (d.class, d.score.is_finite() && finite(d.bbox)));
    check_one("detection", found, classes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "visual_genome_tests.rs"]
mod tests;
