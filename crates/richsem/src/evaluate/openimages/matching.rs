//! Which detections of an image and class are right.

use super::Groups;
use crate::evaluate::{Ranked, ScoredBox, TrueBox};

/// IoU with a single box, and share of a detection in a group, from which on it belongs to it.
const THRESHOLD: f64 = 0.5;

/// One class of one image.
pub(super) struct Image<'a> {
    pub(super) image: u32,
    pub(super) truth: &'a [&'a TrueBox],
    /// Best first.
    pub(super) found: &'a [&'a ScoredBox],
}

/// Adds the detections that count to `ranked`, and groups that were found behind them. Returns how many
/// detections are in groups.
pub(super) fn match_image(one: &Image<'_>, groups: Groups, ranked: &mut Vec<Ranked>) -> usize {
    let (in_groups, singles): (Vec<&TrueBox>, Vec<&TrueBox>) =
        one.truth.iter().partition(|truth| truth.group_of);
    let mut taken = vec![false; singles.len()];
    let mut best = vec![0.0_f64; in_groups.len()];
    let mut absorbed = 0;
    let image = one.image;
    for detection in one.found {
        let score = detection.score;
        let nearest = most(&singles, |truth| iou(detection.bbox, truth.bbox));
        let correct = nearest.is_some_and(|at| !std::mem::replace(&mut taken[at], true));
        let group = || most(&in_groups, |group| share_inside(detection.bbox, group.bbox));
        match (correct, if correct { None } else { group() }) {
            (false, Some(at)) => {
                best[at] = best[at].max(score);
                absorbed += 1;
            }
            _ => ranked.push(Ranked { score, image, correct }),
        }
    }
    if groups == Groups::Counted {
        let found = best.into_iter().filter(|&score| score > 0.0);
        ranked.extend(found.map(|score| Ranked { score, image, correct: true }));
    }
    absorbed
}

/// The first box of the largest overlap, if that reaches the threshold.
fn most(boxes: &[&TrueBox], overlap: impl Fn(&TrueBox) -> f64) -> Option<usize> {
    let mut best = None;
    let mut largest = f64::NEG_INFINITY;
    for (i, truth) in boxes.iter().enumerate() {
        let overlap = overlap(truth);
        if overlap > largest {
            (best, largest) = (Some(i), overlap);
        }
    }
    best.filter(|_| largest >= THRESHOLD)
}

fn intersection(a: [f64; 4], b: [f64; 4]) -> f64 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    height * width
}

fn area([x0, y0, x1, y1]: [f64; 4]) -> f64 {
    (y1 - y0) * (x1 - x0)
}

/// With the operations of the original, in its order: thresholds are inclusive.
fn iou(found: [f64; 4], truth: [f64; 4]) -> f64 {
    let common = intersection(found, truth);
    common / (area(found) + area(truth) - common)
}

/// How much of a detection's area is in a group.
fn share_inside(found: [f64; 4], group: [f64; 4]) -> f64 {
    intersection(group, found) / area(found)
}
