//! AP of one class from its ranked detections: of all images, and without each group of them.

use std::ops::Range;

use hotcoco::params::default_rec_thrs;

use super::{
    RankedClass,
    class_matches::{ClassMatches, Outcome},
};

/// pycocotools' guard against a division by zero, part of its numbers.
const GUARD: f64 = f64::EPSILON;

/// Recalls that a curve is made of: 0, 0.01, … 1.
pub(super) const RECALLS: usize = 101;

/// What AP is of: a size, and the overlaps that it is the mean over.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    pub(super) area: usize,
    pub(super) overlaps: Range<usize>,
}

/// AP of all images, and without each group; `None` where no box is left.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LeftOut {
    pub(super) all: Option<f64>,
    pub(super) without: Vec<Option<f64>>,
}

/// Buffers, used class after class.
pub(super) struct Scratch {
    recalls: Vec<f64>,
    /// True positives, best first: the group, and the false positives before it.
    hits: Vec<(u32, u32)>,
    /// False positives by group: the number of true positives before each.
    misses: Vec<Vec<u32>>,
    precisions: Vec<f64>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { recalls: default_rec_thrs(), hits: vec![], misses: vec![], precisions: vec![] }
    }
}

impl Scratch {
    pub(super) fn average_precision(
        &mut self,
        class: &ClassMatches,
        selection: &Selection,
    ) -> Option<f64> {
        self.left_out(class, selection, 0).all
    }

    /// The class's AP with all images, and without each of the `groups`: image `i` is in group `i mod groups`.
    ///
    /// Detections are ranked once. A group is left out in the time of the true positives and of the group's
    /// own false positives: between two true positives precision only falls, so that no other ranks count.
    pub(super) fn left_out(
        &mut self,
        class: &ClassMatches,
        selection: &Selection,
        groups: usize,
    ) -> LeftOut {
        let mut boxes = vec![0; groups];
        let mut total = 0;
        for (image, counts) in &class.truths {
            let count = counts[selection.area] as usize;
            total += count;
            if groups > 0 {
                boxes[*image as usize % groups] += count;
            }
        }
        let mut result = LeftOut { all: (total > 0).then_some(0.0), without: vec![None; groups] };
        for (left, boxes) in result.without.iter_mut().zip(&boxes) {
            *left = (total > *boxes).then_some(0.0);
        }
        if total == 0 {
            return result;
        }
        let share = 1.0 / selection.overlaps.len() as f64;
        for overlap in selection.overlaps.clone() {
            let outcome = |i| class.outcome(i, selection.area, overlap);
            let outcomes = class.images.iter().enumerate().map(|(i, &image)| (image, outcome(i)));
            self.rank(outcomes, groups);
            let whole = self.without(None, total);
            if let Some(sum) = &mut result.all {
                *sum += whole;
            }
            for (group, left) in result.without.iter_mut().enumerate() {
                // A hit has a box: without boxes and false positives the group changes nothing.
                let changes = boxes[group] > 0 || !self.misses[group].is_empty();
                if let Some(sum) = left {
                    let of = |s: &mut Self| s.without(Some(group), total - boxes[group]);
                    *sum += if changes { of(self) } else { whole };
                }
            }
        }
        let values = result.without.iter_mut().chain([&mut result.all]);
        values.flatten().for_each(|sum| *sum *= share);
        result
    }

    /// As [`Self::left_out`], of a class that is ranked at one overlap: AP is the area below all points.
    pub(super) fn left_out_ranked(&mut self, class: &RankedClass, groups: usize) -> LeftOut {
        let mut boxes = vec![0; groups];
        for (image, count) in class.truths.iter().filter(|_| groups > 0) {
            boxes[*image as usize % groups] += *count as usize;
        }
        let total = class.num_gt;
        let outcome = |correct| if correct { Outcome::Hit } else { Outcome::Miss };
        self.rank(class.ranked.iter().map(|found| (found.image, outcome(found.correct))), groups);
        let mut area = |group: Option<usize>, boxes: usize| {
            (boxes > 0).then(|| {
                self.envelope(group, 0.0);
                self.precisions.iter().sum::<f64>() / boxes as f64
            })
        };
        let all = area(None, total);
        let without = (0..groups).map(|group| area(Some(group), total - boxes[group])).collect();
        LeftOut { all, without }
    }

    /// Ranks detections, best first: the image of each, and what it is.
    fn rank(&mut self, outcomes: impl Iterator<Item = (u32, Outcome)>, groups: usize) {
        self.hits.clear();
        self.misses.resize_with(groups, Vec::new);
        self.misses.iter_mut().for_each(Vec::clear);
        let mut false_positives = 0;
        for (image, outcome) in outcomes {
            let group = if groups > 0 { image % groups as u32 } else { 0 };
            match outcome {
                Outcome::Hit => self.hits.push((group, false_positives)),
                Outcome::Miss => {
                    false_positives += 1;
                    if let Some(misses) = self.misses.get_mut(group as usize) {
                        misses.push(self.hits.len() as u32);
                    }
                }
                Outcome::Ignored => {}
            }
        }
    }

    /// Precision at each of the 101 recalls, objects of all sizes; `None` without boxes.
    pub(super) fn precisions_at_recalls(
        &mut self,
        class: &ClassMatches,
        overlap: usize,
    ) -> Option<Vec<f64>> {
        let boxes = class.boxes(0);
        if boxes == 0 {
            return None;
        }
        let outcome = |i| class.outcome(i, 0, overlap);
        let outcomes = class.images.iter().enumerate().map(|(i, &image)| (image, outcome(i)));
        self.rank(outcomes, 0);
        self.envelope(None, GUARD);
        let mut precisions: Vec<f64> = self.at_recalls(boxes).collect();
        precisions.resize(self.recalls.len(), 0.0);
        Some(precisions)
    }

    /// AP at 101 recalls of what was ranked, but for one group. `boxes`, above 0, are those of the others.
    fn without(&mut self, group: Option<usize>, boxes: usize) -> f64 {
        self.envelope(group, GUARD);
        self.at_recalls(boxes).fold(0.0, |sum, precision| sum + precision)
            / self.recalls.len() as f64
    }

    /// The precision at each true positive of what was ranked, but for one group: the highest at it or behind
    /// it. `guard` is added to each number that is divided by.
    fn envelope(&mut self, group: Option<usize>, guard: f64) {
        let misses = group.map_or(&[][..], |group| &self.misses[group]);
        let leaves = group.map(|group| group as u32);
        self.precisions.clear();
        let mut dropped = 0;
        for (rank, &(of, before)) in self.hits.iter().enumerate() {
            if Some(of) == leaves {
                continue;
            }
            while misses.get(dropped).is_some_and(|&hits| hits as usize <= rank) {
                dropped += 1;
            }
            let found = self.precisions.len() as f64 + 1.0;
            let wrong = f64::from(before - dropped as u32);
            self.precisions.push(found / (found + wrong + guard));
        }
        for i in (1..self.precisions.len()).rev() {
            self.precisions[i - 1] = self.precisions[i - 1].max(self.precisions[i]);
        }
    }

    /// Precision at each recall, as far as they are reached.
    fn at_recalls(&self, boxes: usize) -> impl Iterator<Item = f64> {
        let mut at = 0;
        self.recalls.iter().map_while(move |&recall| {
            while at < self.precisions.len() && (at + 1) as f64 / (boxes as f64) < recall {
                at += 1;
            }
            self.precisions.get(at).copied()
        })
    }
}
