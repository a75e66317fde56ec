//! Detection batches and batches of classification images, one after the other, by fixed weights
//! (RichSem, section 3.4: 1:1).

use std::sync::Arc;

use super::{
    batch::{Batch, SourceId},
    epochs::Epochs,
    loader::BatchSource,
};
use crate::error::Result;

/// The sources of a run's batches by their numbers: the detection data, then the extra sets in the order of
/// their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    extra: Vec<String>,
}

impl Sources {
    /// The detection data, and extra sets of these names.
    #[must_use]
    pub fn new(extra: Vec<String>) -> Self {
        Self { extra }
    }

    /// The numbers of all sources.
    pub fn ids(&self) -> impl Iterator<Item = SourceId> + use<> {
        (0..=self.extra.len()).map(SourceId)
    }

    /// The name of an extra set; none for the detection data.
    #[must_use]
    pub fn extra(&self, id: SourceId) -> Option<&str> {
        self.extra.get(id.0.checked_sub(1)?).map(String::as_str)
    }

    /// What a message calls it.
    #[must_use]
    pub fn describe(&self, id: SourceId) -> String {
        self.extra(id)
            .map_or_else(|| "detection data".to_owned(), |name| format!("data.extra.{name}"))
    }

    /// What stands before the names of its loss terms: nothing for the detection data, `extra/`, or
    /// `extra/NAME/` where there are several extra sets.
    #[must_use]
    pub fn prefix(&self, id: SourceId) -> String {
        match self.extra(id) {
            None => String::new(),
            Some(_) if self.extra.len() == 1 => "extra/".to_owned(),
            Some(name) => format!("extra/{name}/"),
        }
    }
}

/// A source of extra batches, its name and its weight.
pub struct Extra {
    /// Name of the set, as in `data.extra.NAME`.
    pub name: String,
    /// Its batches, counted from the start of the run. They never end.
    pub source: Arc<dyn BatchSource>,
    /// How many of its batches a cycle has, at least 1.
    pub weight: u32,
}

/// Batches of all sources in one sequence. Epochs are those of the detection data: an extra batch belongs
/// to the epoch of the detection batch before it.
pub struct Interleaved {
    detection: Arc<Epochs>,
    extra: Vec<Extra>,
    /// The source of each batch of one cycle. It starts with the detection data.
    cycle: Vec<SourceId>,
}

impl Interleaved {
    /// `weight` is the detection data's share of a cycle, at least 1.
    #[must_use]
    pub fn new(detection: Arc<Epochs>, weight: u32, extra: Vec<Extra>) -> Self {
        let weights: Vec<u32> =
            std::iter::once(weight).chain(extra.iter().map(|e| e.weight)).collect();
        Self { detection, extra, cycle: cycle(&weights) }
    }

    /// Position of the n-th detection batch.
    fn position_of(&self, detection: u64) -> u64 {
        let share = self.occurrences(SourceId::DETECTION, self.cycle.len());
        let (cycles, rest) = (detection / share, detection % share);
        let mut of_detection =
            self.cycle.iter().enumerate().filter(|(_, source)| **source == SourceId::DETECTION);
        let within = of_detection.nth(rest as usize).map_or(0, |(i, _)| i);
        cycles * self.cycle.len() as u64 + within as u64
    }

    /// How often a source comes among the first `slots` of a cycle.
    fn occurrences(&self, source: SourceId, slots: usize) -> u64 {
        self.cycle[..slots].iter().filter(|&&s| s == source).count() as u64
    }

    /// The detection data and the extra sets, by number.
    #[must_use]
    pub fn sources(&self) -> Sources {
        Sources::new(self.extra.iter().map(|extra| extra.name.clone()).collect())
    }

    /// Which source a position is of, and its position there.
    fn source_at(&self, position: u64) -> (SourceId, u64) {
        let length = self.cycle.len() as u64;
        let (cycles, slot) = (position / length, (position % length) as usize);
        let source = self.cycle[slot];
        let whole = cycles * self.occurrences(source, self.cycle.len());
        (source, whole + self.occurrences(source, slot))
    }

    /// Positions of a source's batches.
    pub fn positions_of(&self, source: SourceId) -> impl Iterator<Item = u64> {
        let wanted: Vec<bool> = self.cycle.iter().map(|&s| s == source).collect();
        (0..self.total()).filter(move |&p| wanted[(p % wanted.len() as u64) as usize])
    }

    fn source(&self, SourceId(number): SourceId) -> &dyn BatchSource {
        match number.checked_sub(1) {
            None => self.detection.as_ref(),
            Some(extra) => self.extra[extra].source.as_ref(),
        }
    }

    /// Number of batches of all epochs together, extra ones included.
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

impl BatchSource for Interleaved {
    fn build(&self, position: u64) -> Result<Batch> {
        let (source, own) = self.source_at(position);
        Ok(Batch { source, ..self.source(source).build(own)? })
    }

    fn shape(&self, position: u64) -> Option<[i64; 3]> {
        let (source, own) = self.source_at(position);
        self.source(source).shape(own)
    }
}

/// A cycle with each source as often as its weight, spread as evenly as possible: every slot takes the
/// source that is furthest behind its share, the first if several are equal.
fn cycle(weights: &[u32]) -> Vec<SourceId> {
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
    cycle.into_iter().map(SourceId).collect()
}

#[cfg(test)]
#[path = "interleaved_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
