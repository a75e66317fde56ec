//! Detection batches and batches of classification images as one row, by fixed weights (RichSem,
//! section 3.4: 1:1).

use std::sync::Arc;

use super::{batch::Batch, epochs::Epochs, loader::BatchSource};
use crate::error::Result;

/// A source of extra batches and how many of them a cycle has.
pub struct Extra {
    /// Its batches, from the start of the run on, without an end.
    pub source: Arc<dyn BatchSource>,
    /// Its share.
    pub weight: u32,
}

/// The row. Epochs are those of the detection data: an extra batch belongs to the epoch of the
/// detection batch before it.
pub struct Alternation {
    detection: Arc<Epochs>,
    extra: Vec<Extra>,
    /// One cycle: 0 is a detection batch, i + 1 one of the i-th extra source. Starts with 0.
    cycle: Vec<usize>,
}

impl Alternation {
    /// `weight` is the detection data's share of a cycle, at least 1.
    #[must_use]
    pub fn new(detection: Arc<Epochs>, weight: u32, extra: Vec<Extra>) -> Self {
        let weights: Vec<u32> =
            std::iter::once(weight).chain(extra.iter().map(|e| e.weight)).collect();
        Self { detection, extra, cycle: cycle(&weights) }
    }

    /// Position of the n-th detection batch.
    fn position_of(&self, detection: u64) -> u64 {
        let share = self.occurrences(0, self.cycle.len());
        let (cycles, rest) = (detection / share, detection % share);
        let mut of_detection = self.cycle.iter().enumerate().filter(|(_, s)| **s == 0);
        let within = of_detection.nth(rest as usize).map_or(0, |(i, _)| i);
        cycles * self.cycle.len() as u64 + within as u64
    }

    /// How often a source comes among the first `slots` of a cycle.
    fn occurrences(&self, source: usize, slots: usize) -> u64 {
        self.cycle[..slots].iter().filter(|&&s| s == source).count() as u64
    }

    /// Which source a position is of (0: detection, i + 1: the i-th extra source), and its position there.
    fn source_at(&self, position: u64) -> (usize, u64) {
        let length = self.cycle.len() as u64;
        let (cycles, slot) = (position / length, (position % length) as usize);
        let source = self.cycle[slot];
        let whole = cycles * self.occurrences(source, self.cycle.len());
        (source, whole + self.occurrences(source, slot))
    }

    /// Positions of an extra set's batches, or of the detection batches (`None`).
    pub fn positions_of(&self, extra: Option<usize>) -> impl Iterator<Item = u64> {
        let source = extra.map_or(0, |i| i + 1);
        let wanted: Vec<bool> = self.cycle.iter().map(|&s| s == source).collect();
        (0..self.total()).filter(move |&p| wanted[(p % wanted.len() as u64) as usize])
    }

    /// Batches of all epochs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.position_of(self.detection.total())
    }

    /// Batches of one epoch, extra ones included.
    #[must_use]
    pub fn batches(&self, epoch: u64) -> u64 {
        let start = self.detection.start(epoch);
        self.position_of(start + self.detection.batches(epoch)) - self.position_of(start)
    }
}

impl BatchSource for Alternation {
    fn build(&self, position: u64) -> Result<Batch> {
        let (source, own) = self.source_at(position);
        if source == 0 {
            return self.detection.build(own);
        }
        let mut batch = self.extra[source - 1].source.build(own)?;
        batch.extra = Some(source - 1);
        Ok(batch)
    }

    fn shape(&self, position: u64) -> Option<[i64; 3]> {
        match self.source_at(position) {
            (0, own) => self.detection.shape(own),
            (source, own) => self.extra[source - 1].source.shape(own),
        }
    }
}

/// Each source as often as its weight, as evenly spread as whole batches allow: at every slot the
/// one that lags furthest behind its share, the first of equals.
fn cycle(weights: &[u32]) -> Vec<usize> {
    let total: i64 = weights.iter().map(|&w| i64::from(w)).sum();
    let mut lag = vec![0i64; weights.len()];
    let mut cycle: Vec<usize> = (0..total)
        .map(|_| {
            for (lag, &weight) in lag.iter_mut().zip(weights) {
                *lag += i64::from(weight);
            }
            // `max_by_key` gives the last of equals: reversed, the first.
            let next = (0..lag.len()).rev().max_by_key(|&i| lag[i]).unwrap_or(0);
            lag[next] -= total;
            next
        })
        .collect();
    // An extra batch follows the detection batch whose epoch it belongs to.
    let first = cycle.iter().position(|&source| source == 0).unwrap_or(0);
    cycle.rotate_left(first);
    cycle
}

#[cfg(test)]
#[path = "alternation_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
