//! How often the intervals hold what they promise, on drawn evaluations whose true value is known: mean AP of
//! 100 classes with 1 to 10 boxes each, the rare classes of a long tail.

use rayon::prelude::*;

use super::{
    super::{
        Matches, Protocol,
        class_matches::{AREAS, ClassMatches},
    },
    *,
};
use crate::{
    random::{Random, Stream},
    vocabulary::Frequency,
};

const IMAGES: usize = 2000;
const CLASSES: usize = 100;
/// IoU 0.50 and 0.55: what is drawn has no boxes, and more overlaps would only cost time.
const OVERLAPS: usize = 2;

/// No box is small, medium or large: APs, APm and APl are not looked at here.
const ALL_SIZES_ALONE: [u32; AREAS] = [1, 0, 0, 0];

/// How easily a class is found, the same in every draw.
struct Class {
    /// Mean number of its boxes.
    boxes: usize,
    /// Share of its boxes that are found at IoU 0.50.
    found: f64,
    /// False positives for each of its boxes.
    wrong: f64,
}

fn class(k: usize, detector: u64) -> Class {
    let mut random = Random::new(20, Stream::Test, detector, k as u64);
    Class { boxes: 1 + k % 10, found: random.range(0.2, 0.9), wrong: random.range(0.0, 6.0) }
}

/// The judged detections of one evaluation: other images, the same classes and detector.
fn draw(number: u64, detector: u64) -> Matches {
    let classes = (0..CLASSES).map(|k| {
        let Class { boxes, found, wrong } = class(k, detector);
        // Where the boxes are does not depend on the detector.
        let mut places = Random::new(21, Stream::Test, number, k as u64);
        let mut random = Random::new(22 + detector, Stream::Test, number, k as u64);
        let mut drawn = ClassMatches {
            id: CategoryId(k as i64),
            name: String::new(),
            frequency: Some(Frequency::Rare),
            scores: vec![],
            images: vec![],
            flags: vec![],
            truths: vec![],
        };
        let mut image = 0;
        // Other images have other numbers of boxes.
        for b in 0..poisson(&mut places, boxes as f64) {
            // Objects come in company: one in three is beside another of its class.
            if b == 0 || !places.chance(0.3) {
                image = places.below(IMAGES) as u32;
            }
            let hard = places.uniform();
            drawn.truths.push((image, ALL_SIZES_ALONE));
            if hard < found {
                let flags = if random.chance(0.8) { 0b11 } else { 0b01 };
                drawn.push(image, random.normal() + 1.5, flags);
            }
        }
        for _ in 0..boxes * 6 {
            let at = places.below(IMAGES) as u32;
            if random.chance(wrong / 6.0) {
                drawn.push(at, random.normal(), 0);
            }
        }
        drawn.sort();
        drawn
    });
    let classes = classes.collect();
    Matches { protocol: Protocol::Lvis, images: IMAGES, overlaps: OVERLAPS, classes }
}

/// A count with that mean (Knuth's method).
fn poisson(random: &mut Random, mean: f64) -> usize {
    let (end, mut product, mut count) = ((-mean).exp(), random.uniform(), 0);
    while product > end {
        product *= random.uniform();
        count += 1;
    }
    count
}

impl ClassMatches {
    fn push(&mut self, image: u32, score: f64, flags: u32) {
        self.scores.push(score);
        self.images.push(image);
        self.flags.push(ALL_SIZES_ALONE.map(|all| all * flags));
    }
}

/// Mean AP of the classes.
fn mean_ap(matches: &Matches) -> f64 {
    let aps: Vec<f64> = matches.class_aps().into_iter().flatten().collect();
    aps.iter().sum::<f64>() / aps.len() as f64
}

/// The mean of a value over many draws, others than those whose intervals are looked at.
fn expected(value: impl Fn(u64) -> f64 + Sync) -> f64 {
    const MANY: u64 = 2000;
    let values: Vec<f64> = (0..MANY).into_par_iter().map(|i| value(1_000_000 + i)).collect();
    values.iter().sum::<f64>() / MANY as f64
}

/// Share of draws whose interval holds the truth, in percent, and the mean width of the intervals.
fn coverage(truth: f64, interval: impl Fn(u64) -> [f64; 2] + Sync + Send) -> (f64, f64) {
    const DRAWS: u64 = 600;
    let intervals: Vec<_> = (0..DRAWS).into_par_iter().map(interval).collect();
    let held = intervals.iter().filter(|[low, high]| (*low..=*high).contains(&truth)).count();
    let widths: f64 = intervals.iter().map(|[low, high]| high - low).sum();
    (100.0 * held as f64 / DRAWS as f64, widths / DRAWS as f64)
}

#[test]
fn intervals_of_rare_classes_hold_95_times_in_100() {
    let truth = expected(|i| mean_ap(&draw(i, 0)));
    let interval = |i| {
        let metric = draw(i, 0).intervals().get("APr").cloned();
        metric.and_then(|metric| metric.interval).expect("boxes in many groups")
    };
    let (held, width) = coverage(truth, interval);
    println!("APr {truth:.3}: {held:.1} % of the intervals hold it, mean width {width:.3}");
    assert!((93.0..=98.0).contains(&held), "{held} %");
    // Wide intervals would hold anything.
    assert!(width < 0.15, "{width}");
}

#[test]
fn intervals_of_differences_hold_95_times_in_100() {
    let truth = expected(|i| mean_ap(&draw(i, 1)) - mean_ap(&draw(i, 2)));
    let interval = |i| {
        let comparison = draw(i, 1).compare(&draw(i, 2)).expect("the same boxes");
        let metric = comparison.get("APr").cloned();
        metric.and_then(|metric| metric.interval).expect("boxes in many groups")
    };
    let (held, width) = coverage(truth, interval);
    println!("difference {truth:.3}: {held:.1} % of the intervals hold it, mean width {width:.3}");
    assert!((93.0..=98.0).contains(&held), "{held} %");
    assert!(width < 0.15, "{width}");
}
