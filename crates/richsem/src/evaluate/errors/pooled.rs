//! AP-Fixed and AP-Pool (arXiv 2102.01066). The usual limit of 300 detections an image is shared by all
//! classes, so that a class's AP depends on the scores of the others. AP-Fixed takes the best 10,000 of each
//! class over all images instead, and no limit by image. AP-Pool takes the same detections, matches them by
//! class as always, and ranks those of all classes together: only scores that mean the same for every class do
//! well.
//!
//! A results file that was cut to 300 detections an image has fewer than 10,000 of most classes. Its AP-Fixed
//! is then lower than the detector's.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::super::{
    Matches,
    class_matches::{AREAS, ClassMatches},
    curve::{Scratch, Selection},
    intervals::MetricInterval,
};
use crate::{
    detections::Detection,
    vocabulary::{CategoryId, Frequency},
};

/// Detections of a class over all images.
const PER_CLASS: usize = 10_000;

/// AP of the best 10,000 detections of each class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    /// AP, AP50, AP75, APs, APm, APl, APr, APc, APf, with intervals.
    pub metrics: Vec<MetricInterval>,
    /// AP of each class, in order of ids; `None` without boxes.
    pub per_class: Vec<Option<f64>>,
    /// Classes with fewer than 10,000 detections. If there are any, more detections could raise the AP.
    pub classes_below_limit: usize,
}

/// AP of all classes' detections in one ranking. Each is a mean over IoU 0.50 to 0.95; `None` without boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pooled {
    /// All classes.
    pub ap: Option<f64>,
    /// All classes, at IoU 0.50.
    pub ap50: Option<f64>,
    /// The rare classes among themselves.
    pub ap_rare: Option<f64>,
    /// The common ones.
    pub ap_common: Option<f64>,
    /// The frequent ones.
    pub ap_frequent: Option<f64>,
}

/// Which detections are among the best 10,000 of their class, among equal scores the first in the file; and
/// how many classes have so many.
pub(super) fn best_of_classes(detections: &[Detection]) -> (Vec<bool>, usize) {
    let mut of_class: HashMap<CategoryId, Vec<u32>> = HashMap::new();
    for (i, detection) in (0..).zip(detections) {
        of_class.entry(detection.category_id).or_default().push(i);
    }
    let mut kept = vec![true; detections.len()];
    // The order of classes does not matter: each detection has one.
    for list in of_class.values_mut().filter(|list| list.len() > PER_CLASS) {
        let score = |i: u32| detections[i as usize].score + 0.0; // −0 ties with 0
        list.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
        list[PER_CLASS..].iter().for_each(|&i| kept[i as usize] = false);
    }
    let full = of_class.values().filter(|list| list.len() >= PER_CLASS).count();
    (kept, full)
}

impl Fixed {
    pub(super) fn of(matches: &Matches, classes_below_limit: usize) -> Self {
        let intervals = matches.intervals();
        let per_class = intervals.per_class.iter().map(|class| class.ap).collect();
        Self { metrics: intervals.metrics, per_class, classes_below_limit }
    }
}

impl Pooled {
    pub(super) fn of(matches: &Matches) -> Self {
        let mut scratch = Scratch::default();
        let mut ap = |pool: &ClassMatches, overlaps: usize| {
            scratch.average_precision(pool, &Selection { area: 0, overlaps: 0..overlaps })
        };
        let every = matches.overlaps;
        let of_group = |group| pool(matches, |class| class.frequency == Some(group));
        let all = pool(matches, |_| true);
        Self {
            ap: ap(&all, every),
            ap50: ap(&all, 1),
            ap_rare: ap(&of_group(Frequency::Rare), every),
            ap_common: ap(&of_group(Frequency::Common), every),
            ap_frequent: ap(&of_group(Frequency::Frequent), every),
        }
    }
}

/// Several classes as one. Equal scores are in order of images, then of classes.
fn pool(matches: &Matches, member: impl Fn(&ClassMatches) -> bool) -> ClassMatches {
    let mut all = ClassMatches {
        id: CategoryId(0),
        name: String::new(),
        frequency: None,
        scores: vec![],
        images: vec![],
        flags: vec![],
        truths: vec![],
    };
    let members: Vec<&ClassMatches> =
        matches.classes.iter().filter(|class| member(class)).collect();
    let mut order: Vec<(u32, u32, u32)> = Vec::new();
    for (k, class) in (0..).zip(&members) {
        order.extend((0..).zip(&class.images).map(|(i, &image)| (image, k, i)));
        // APs, APm and APl are not pooled.
        let sizes =
            |boxes: u32| std::array::from_fn::<u32, AREAS, _>(|a| if a == 0 { boxes } else { 0 });
        all.truths.extend(class.truths.iter().map(|&(image, boxes)| (image, sizes(boxes[0]))));
    }
    order.sort_unstable();
    for (image, k, i) in order {
        let class = members[k as usize];
        all.images.push(image);
        all.scores.push(class.scores[i as usize]);
        all.flags.push(class.flags[i as usize]);
    }
    all.sort();
    all
}
