//! The judged detections of one class, and what became of each.

use std::cmp::Reverse;

use super::ground_truth::TrueCategory;
use crate::vocabulary::{CategoryId, Frequency};

/// Sizes of objects: all, small, medium, large, in the engine's order.
pub(super) const AREAS: usize = 4;

/// The bit of [`ClassMatches::flags`] from which on those of ignored detections begin.
pub(super) const IGNORED: usize = 16;

/// The judged detections of one class, best first. Equal scores are in order of images.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClassMatches {
    pub(super) id: CategoryId,
    pub(super) name: String,
    pub(super) frequency: Option<Frequency>,
    pub(super) scores: Vec<f64>,
    /// Position of the image, of each detection.
    pub(super) images: Vec<u32>,
    /// Of each detection, by size: bit t if it found a box at overlap t, bit 16 + t if it does not count
    /// there.
    pub(super) flags: Vec<[u32; AREAS]>,
    /// Boxes that must be found, by size, with their image. Images without any are left out.
    pub(super) truths: Vec<(u32, [u32; AREAS])>,
}

/// What a detection is at an overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Hit,
    Miss,
    Ignored,
}

impl ClassMatches {
    pub(super) fn of(category: &TrueCategory) -> Self {
        Self {
            id: category.id,
            name: category.name.clone(),
            frequency: category.frequency,
            scores: vec![],
            images: vec![],
            flags: vec![],
            truths: vec![],
        }
    }

    pub(super) fn outcome(&self, i: usize, area: usize, overlap: usize) -> Outcome {
        let flags = self.flags[i][area];
        match (flags >> (IGNORED + overlap) & 1, flags >> overlap & 1) {
            (1, _) => Outcome::Ignored,
            (_, 1) => Outcome::Hit,
            _ => Outcome::Miss,
        }
    }

    /// Number of boxes to be found of that size.
    pub(super) fn boxes(&self, area: usize) -> usize {
        self.truths.iter().map(|(_, boxes)| boxes[area] as usize).sum()
    }

    /// Best first; among equal scores those of earlier images, then as they were.
    pub(super) fn sort(&mut self) {
        let order = best_first(&self.scores);
        let order = order.iter().map(|&i| i as usize);
        self.images = order.clone().map(|i| self.images[i]).collect();
        self.flags = order.clone().map(|i| self.flags[i]).collect();
        self.scores = order.map(|i| self.scores[i]).collect();
    }
}

/// Positions of scores, the best first, equal ones as they were. As the engine ranks: −0 ties with 0.
pub(super) fn best_first(scores: &[f64]) -> Vec<u32> {
    let key = |score: f64| {
        let bits = (score + 0.0).to_bits();
        Reverse(if bits >> 63 == 1 { !bits } else { bits | 1 << 63 })
    };
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by_key(|&i| key(scores[i as usize]));
    order
}
