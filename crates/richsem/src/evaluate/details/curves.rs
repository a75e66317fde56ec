//! Precision over recall, and both over the score.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::{
    Matches,
    class_matches::ClassMatches,
    curve::{RECALLS, Scratch},
    thresholds::Ranked,
};
use crate::vocabulary::Frequency;

/// Positions of IoU 0.50 and 0.75 among the ten overlaps.
const OVERLAPS: [(usize, f64); 2] = [(0, 0.5), (5, 0.75)];

/// Steps from score 0 to 1.
const SCORES: u32 = 100;

/// Precision at the recalls 0, 0.01, … 1, the mean of the classes that have boxes. Its mean is the average
/// precision of the evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecall {
    /// The classes that it is of; all without one.
    pub group: Option<Frequency>,
    /// From this IoU on a box is found.
    pub overlap: f64,
    /// Fractions, 101 of them. 0 where no class has that recall.
    pub precision: Vec<f64>,
}

/// Precision, recall and F1 of the detections from a score on. Those of all classes count together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverScores {
    /// The classes that it is of; all without one.
    pub group: Option<Frequency>,
    /// Boxes to be found.
    pub boxes: usize,
    /// At the scores 0, 0.01, …, up to the highest one of a detection.
    pub points: Vec<OperatingPoint>,
    /// Where F1 is best; none where nothing is found.
    pub best: Option<OperatingPoint>,
}

/// What a user gets who takes the detections from a score on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OperatingPoint {
    /// The smallest score that is taken.
    pub score: f64,
    /// Share of the detections that find a box.
    pub precision: f64,
    /// Share of the boxes that are found.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

impl OperatingPoint {
    fn new(score: f64, hits: usize, taken: usize, boxes: usize) -> Self {
        let share = |of: usize| if of == 0 { 0.0 } else { hits as f64 / of as f64 };
        let both = (taken + boxes) as f64;
        Self {
            score,
            precision: share(taken),
            recall: share(boxes),
            f1: if both > 0.0 { 2.0 * hits as f64 / both } else { 0.0 },
        }
    }
}

/// All classes, and each group that has some.
fn groups(classes: &[ClassMatches]) -> impl Iterator<Item = Option<Frequency>> + '_ {
    let groups = [Frequency::Rare, Frequency::Common, Frequency::Frequent].map(Some);
    let there = |group: &Option<Frequency>| classes.iter().any(|class| class.frequency == *group);
    [None].into_iter().chain(groups.into_iter().filter(there).collect::<Vec<_>>())
}

impl Matches {
    /// The classes of a group, or all.
    fn of_group(&self, group: Option<Frequency>) -> impl Iterator<Item = &ClassMatches> {
        self.classes.iter().filter(move |class| group.is_none() || class.frequency == group)
    }

    pub(super) fn precision_recall(&self) -> Vec<PrecisionRecall> {
        let mut curves = Vec::new();
        for group in groups(&self.classes) {
            let overlaps = if group.is_none() { &OVERLAPS[..] } else { &OVERLAPS[..1] };
            for &(position, overlap) in overlaps.iter().filter(|(at, _)| *at < self.overlaps) {
                let classes: Vec<&ClassMatches> = self.of_group(group).collect();
                let of_class = |scratch: &mut Scratch, class: &&ClassMatches| {
                    scratch.precisions_at_recalls(class, position)
                };
                let of_classes: Vec<Vec<f64>> =
                    classes.par_iter().map_init(Scratch::default, of_class).flatten().collect();
                if of_classes.is_empty() {
                    continue;
                }
                let mean = |i: usize| {
                    let sum: f64 = of_classes.iter().map(|of_class| of_class[i]).sum();
                    sum / of_classes.len() as f64
                };
                let precision = (0..RECALLS).map(mean).collect();
                curves.push(PrecisionRecall { group, overlap, precision });
            }
        }
        curves
    }

    pub(super) fn over_scores(&self) -> Vec<OverScores> {
        let curves = groups(&self.classes).map(|group| {
            let ranked = Ranked::of_all(self.of_group(group));
            (ranked.scores_outside().is_none()).then(|| over_scores(group, &ranked))
        });
        curves.collect::<Option<Vec<_>>>().unwrap_or_default()
    }
}

fn over_scores(group: Option<Frequency>, ranked: &Ranked) -> OverScores {
    let Ranked { boxes, detections } = ranked;
    let at = |score: f64, mut taken: usize, mut hits: usize| {
        while let Some((_, hit)) = detections.get(taken).filter(|(of, _)| *of >= score) {
            taken += 1;
            hits += usize::from(*hit);
        }
        (taken, hits)
    };
    let (mut points, mut taken, mut hits) = (Vec::new(), 0, 0);
    for step in (0..=SCORES).rev() {
        let score = f64::from(step) / f64::from(SCORES);
        (taken, hits) = at(score, taken, hits);
        if taken > 0 {
            points.push(OperatingPoint::new(score, hits, taken, *boxes));
        }
    }
    points.reverse();
    let best = ranked.best().map(|score| {
        let (taken, hits) = at(score, 0, 0);
        OperatingPoint::new(score, hits, taken, *boxes)
    });
    OverScores { group, boxes: *boxes, points, best }
}
