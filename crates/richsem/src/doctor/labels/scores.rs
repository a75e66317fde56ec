//! How likely each box is right, as ObjectLab scores it (arXiv 2309.00832), to the last digits of the numbers
//! that cleanlab 2.9 gives.
//!
//! A detection and a box are similar by .9 of their intersection over union and .1 of `exp(-d / 10)`, d the
//! distance of their centres in pixels.
//!
//! - overlooked (a score a sure detection): it touches no box (see [`Limits::touch`]); the similarity to the nearest box of its class,
//!   or almost 0 where the image has none.
//! - badly placed (a score a box): the similarity of the most similar detection of its class that touches it
//!   and has some score; 1 without one.
//! - swapped (a score a box): 1 minus the similarity of the most similar sure detection of another class.
//!   Almost 0 for a box that another class has too.
//!
//! An image's score of each kind is the softmin of those of its boxes (temperature .1), its quality the
//! geometric mean of the three.

use rayon::prelude::*;

use super::super::overlaps::SAME_BOX;

const ALPHA: f64 = 0.9;
const PER_PIXEL: f64 = 0.1;
const TEMPERATURE: f64 = 0.1;
const TINY: f64 = 1e-100;
/// Keeps a quotient of areas finite.
const LEAST_AREA: f64 = 1e-6;

/// From which scores on a detection counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// A sure detection: overlooked and swapped boxes are looked for with these. ObjectLab: 0.95.
    pub high: f64,
    /// A detection that places a box. ObjectLab: 0.5.
    pub low: f64,
    /// An object is overlooked where no box overlaps its detection by more than this (intersection over
    /// union). ObjectLab: 0, so that in a full image nearly nothing is. Here: 0.1, as hotcoco has it.
    pub touch: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { high: 0.95, low: 0.5, touch: 0.1 }
    }
}

/// Boxes of one image, `[x0, y0, x1, y1]`, and the class of each.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels {
    pub(super) boxes: Vec<[f64; 4]>,
    pub(super) classes: Vec<u32>,
    /// Regions in which nothing is overlooked: crowds.
    pub(super) shields: Vec<[f64; 4]>,
}

/// Detections of one image.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    pub(super) boxes: Vec<[f64; 4]>,
    pub(super) classes: Vec<u32>,
    pub(super) scores: Vec<f64>,
    /// Whether a box may be missing where such a detection is: not of a class whose boxes are known to be
    /// incomplete here.
    pub(super) complete: Vec<bool>,
}

/// Scores of one image, each from 0 (wrong) to 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Scores {
    /// Of each detection; none for one that says nothing of a missing box.
    pub(super) overlooked: Vec<Option<f64>>,
    /// Of each box, and the detection by which it was scored.
    pub(super) badly_placed: Vec<(f64, Option<usize>)>,
    /// Of each box, and the detection by which it was scored.
    pub(super) swapped: Vec<(f64, Option<usize>)>,
}

impl Scores {
    /// Of the whole image, by kind.
    pub(super) fn pooled(&self) -> [f64; 3] {
        let first = |scores: &[(f64, Option<usize>)]| softmin(scores.iter().map(|(s, _)| *s));
        [
            softmin(self.overlooked.iter().copied().flatten()),
            first(&self.badly_placed),
            first(&self.swapped),
        ]
    }

    /// How likely all labels of the image are right, 0 to 1.
    pub(super) fn quality(&self) -> f64 {
        (self.pooled().iter().map(|score| (TINY + score).ln() / 3.0).sum::<f64>()).exp()
    }
}

fn softmin(scores: impl Iterator<Item = f64> + Clone) -> f64 {
    let Some(least) = scores.clone().reduce(f64::min) else { return 1.0 };
    let weight = |score: f64| ((least - score) / TEMPERATURE).exp();
    let total: f64 = scores.clone().map(weight).sum();
    scores.map(|score| weight(score) / total * score).sum()
}

/// Intersection over union of two boxes of two corners.
pub(super) fn iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let [left, top] = [a[0].max(b[0]), a[1].max(b[1])];
    let [right, bottom] = [a[2].min(b[2]), a[3].min(b[3])];
    if right < left || bottom < top {
        return 0.0;
    }
    let both = (right - left) * (bottom - top);
    let area = |[x0, y0, x1, y1]: [f64; 4]| (x1 - x0) * (y1 - y0);
    both / (area(a) + area(b) - both).max(LEAST_AREA)
}

fn similarity(a: [f64; 4], b: [f64; 4]) -> f64 {
    let centre = |[x0, y0, x1, y1]: [f64; 4]| [(x0 + x1) / 2.0, (y0 + y1) / 2.0];
    let ([ax, ay], [bx, by]) = (centre(a), centre(b));
    let apart = ((ax - bx) * (ax - bx) + (ay - by) * (ay - by)).sqrt();
    // Written as the reference has it: of far boxes it gives 0 and not a tiny number.
    let distance = 1.0 - (-apart * PER_PIXEL).exp();
    iou(a, b) * ALPHA + (1.0 - ALPHA) * (1.0 - distance)
}

/// The least similarity above 0 of a box and a detection of one image, over all images; 1 without any.
fn least_similarity(images: &[(Labels, Found)]) -> f64 {
    let of_image = |(labels, found): &(Labels, Found)| {
        let pairs = labels.boxes.iter().flat_map(|&a| found.boxes.iter().map(move |&b| (a, b)));
        pairs.map(|(a, b)| similarity(a, b)).filter(|&s| s > 0.0).fold(1.0, f64::min)
    };
    images.par_iter().map(of_image).reduce(|| 1.0, f64::min)
}

/// The scores of every image.
pub(super) fn score(images: &[(Labels, Found)], limits: Limits) -> Vec<Scores> {
    let least = least_similarity(images);
    let of_image = |(labels, found): &(Labels, Found)| Scores {
        overlooked: overlooked(labels, found, limits, least),
        badly_placed: badly_placed(labels, found, limits),
        swapped: swapped(labels, found, limits, least),
    };
    images.par_iter().map(of_image).collect()
}

fn overlooked(labels: &Labels, found: &Found, limits: Limits, least: f64) -> Vec<Option<f64>> {
    let of_one = |at: usize| {
        let bbox = found.boxes[at];
        let overlaps = |boxes: &[[f64; 4]], most| boxes.iter().any(|&b| iou(b, bbox) > most);
        if found.scores[at] < limits.high
            || !found.complete[at]
            || overlaps(&labels.boxes, limits.touch)
            || overlaps(&labels.shields, 0.0)
        {
            return None;
        }
        let of_class = labels.boxes.iter().zip(&labels.classes);
        let of_class = of_class.filter(|(_, class)| **class == found.classes[at]);
        let nearest = of_class.map(|(&label, _)| similarity(label, bbox)).reduce(f64::max);
        Some(nearest.unwrap_or_else(|| least * (1.0 - found.scores[at])))
    };
    (0..found.boxes.len()).map(of_one).collect()
}

fn badly_placed(labels: &Labels, found: &Found, limits: Limits) -> Vec<(f64, Option<usize>)> {
    let of_one = |at: usize| {
        let of_class = (0..found.boxes.len()).filter(|&d| {
            found.classes[d] == labels.classes[at]
                && found.scores[d] > limits.low
                && iou(labels.boxes[at], found.boxes[d]) > 0.0
        });
        best(of_class, labels.boxes[at], found).map_or((1.0, None), |(d, s)| (s, Some(d)))
    };
    (0..labels.boxes.len()).map(of_one).collect()
}

fn swapped(
    labels: &Labels,
    found: &Found,
    limits: Limits,
    least: f64,
) -> Vec<(f64, Option<usize>)> {
    let of_one = |at: usize| {
        let conflict = |other: usize| {
            labels.classes[other] != labels.classes[at]
                && iou(labels.boxes[other], labels.boxes[at]) >= SAME_BOX
        };
        if (0..labels.boxes.len()).any(conflict) {
            return (least, None);
        }
        let others = (0..found.boxes.len())
            .filter(|&d| found.classes[d] != labels.classes[at] && found.scores[d] > limits.high);
        best(others, labels.boxes[at], found)
            .map_or((1.0, None), |(d, s)| ((1.0 - s).max(least), Some(d)))
    };
    (0..labels.boxes.len()).map(of_one).collect()
}

/// The most similar of some detections, the first of equals.
fn best(
    detections: impl Iterator<Item = usize>,
    label: [f64; 4],
    found: &Found,
) -> Option<(usize, f64)> {
    detections
        .map(|d| (d, similarity(label, found.boxes[d])))
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
}
