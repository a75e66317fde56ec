//! How good the detections of each class are: a box is told to be wrong only by detections that are mostly
//! right. And from which scores on they are.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::scores::{Found, Labels, iou};

/// Factor from a class's average precision to the score below which a box is told to be wrong: ObjectLab's .25
/// times .8.
pub(super) const LIMIT_OF_AP: f64 = 0.25 * 0.8;

/// Thresholds of intersection over union, COCO's: .5 to .95.
const THRESHOLDS: usize = 10;

fn threshold(at: usize) -> f64 {
    0.5 + 0.05 * at as f64
}

/// A detection, ranked.
#[derive(Clone, Copy)]
struct Ranked {
    score: f64,
    image: u32,
    order: u32,
    /// A bit a threshold, set where it found a box.
    right: u16,
}

/// Average precision of each class, the mean over the thresholds: precision made monotone, all points; a
/// detection belongs to the box it overlaps most, and to no second one.
pub(super) fn average_precisions(images: &[(Labels, Found)], classes: usize) -> Vec<f64> {
    let mut boxes = vec![0usize; classes];
    for (labels, _) in images {
        labels.classes.iter().for_each(|&class| boxes[class as usize] += 1);
    }
    let ranked = ranked(images, classes);
    ranked.par_iter().zip(boxes).map(|(ranked, boxes)| average_precision(ranked, boxes)).collect()
}

fn average_precision(ranked: &[Ranked], boxes: usize) -> f64 {
    if boxes == 0 {
        return 0.0;
    }
    let at_threshold = |at: usize| {
        let mut right = 0usize;
        let mut points: Vec<(f64, f64)> = (1usize..)
            .zip(ranked)
            .map(|(n, detection)| {
                right += usize::from(detection.right >> at & 1);
                (right as f64 / boxes as f64, right as f64 / n as f64)
            })
            .collect();
        let mut best = 0.0f64;
        for (_, precision) in points.iter_mut().rev() {
            best = best.max(*precision);
            *precision = best;
        }
        let mut before = 0.0;
        let step = |&(recall, precision): &(f64, f64)| {
            let area = (recall - before) * precision;
            before = recall;
            area
        };
        points.iter().map(step).sum::<f64>()
    };
    (0..THRESHOLDS).map(at_threshold).sum::<f64>() / THRESHOLDS as f64
}

/// The detections of each class, the best first.
fn ranked(images: &[(Labels, Found)], classes: usize) -> Vec<Vec<Ranked>> {
    let matched: Vec<Vec<(u32, Ranked)>> = images
        .par_iter()
        .enumerate()
        .map(|(image, (labels, found))| matches(image as u32, labels, found))
        .collect();
    let mut by_class: Vec<Vec<Ranked>> = vec![Vec::new(); classes];
    for (class, ranked) in matched.into_iter().flatten() {
        by_class[class as usize].push(ranked);
    }
    by_class.par_iter_mut().for_each(|ranked| ranked.sort_by(order));
    by_class
}

fn order(a: &Ranked, b: &Ranked) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then((a.image, a.order).cmp(&(b.image, b.order)))
}

/// The detections of an image, with their classes.
fn matches(image: u32, labels: &Labels, found: &Found) -> Vec<(u32, Ranked)> {
    let mut by_class: BTreeMap<u32, Vec<Ranked>> = BTreeMap::new();
    for (at, (&class, &score)) in found.classes.iter().zip(&found.scores).enumerate() {
        let ranked = Ranked { score, image, order: at as u32, right: 0 };
        by_class.entry(class).or_default().push(ranked);
    }
    let mut all = Vec::with_capacity(found.boxes.len());
    for (class, mut ranked) in by_class {
        let own: Vec<usize> =
            (0..labels.boxes.len()).filter(|&i| labels.classes[i] == class).collect();
        let mut taken = vec![0u16; own.len()];
        ranked.sort_by(order);
        for detection in &mut ranked {
            let bbox = found.boxes[detection.order as usize];
            let overlaps = own.iter().map(|&i| iou(bbox, labels.boxes[i])).enumerate();
            let best = overlaps.reduce(|best, next| if next.1 > best.1 { next } else { best });
            let Some((place, overlap)) = best else { continue };
            for at in (0..THRESHOLDS).filter(|&at| overlap >= threshold(at)) {
                detection.right |= (1 << at) & !taken[place];
                taken[place] |= 1 << at;
            }
        }
        all.extend(ranked.into_iter().map(|ranked| (class, ranked)));
    }
    all
}

/// Least precision of detections that are sure, and of those that place a box.
const WANTED: [f64; 2] = [0.9, 0.5];

/// Detections that stand together in the ranking, and share a precision.
struct Block {
    right: usize,
    count: usize,
    lowest: f64,
}

impl Block {
    fn precision(&self) -> f64 {
        self.right as f64 / self.count as f64
    }
}

/// The lowest scores at which 90 % and 50 % of the detections are right: of a box's class, at an overlap of at
/// least .5. None where no score is enough. The precision at a score is that of its neighbours in the ranking,
/// as many as make it fall with the score (isotonic regression).
pub(super) fn limits(images: &[(Labels, Found)], classes: usize) -> [Option<f64>; 2] {
    let mut all: Vec<Ranked> = ranked(images, classes).into_iter().flatten().collect();
    all.par_sort_by(order);
    let mut blocks: Vec<Block> = Vec::new();
    // Of equal scores all count.
    for equal in all.chunk_by(|a, b| a.score == b.score) {
        let right = equal.iter().filter(|detection| detection.right & 1 == 1).count();
        let mut block = Block { right, count: equal.len(), lowest: equal[0].score };
        while let Some(above) = blocks.pop_if(|above| above.precision() <= block.precision()) {
            block.right += above.right;
            block.count += above.count;
        }
        blocks.push(block);
    }
    let lowest = |wanted: f64| blocks.iter().rfind(|b| b.precision() >= wanted).map(|b| b.lowest);
    WANTED.map(lowest)
}
