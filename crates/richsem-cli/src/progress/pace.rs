//! How fast a run is, and how long it still takes.

use std::{collections::VecDeque, time::Instant};

/// An exponential mean over about 50 values, unbiased from the first.
#[derive(Default)]
pub(super) struct Smoothed {
    sum: f64,
    weight: f64,
}

impl Smoothed {
    pub(super) fn add(&mut self, value: f64) {
        const KEEP: f64 = 0.98;
        self.sum = KEEP * self.sum + (1.0 - KEEP) * value;
        self.weight = KEEP * self.weight + (1.0 - KEEP);
    }

    pub(super) fn value(&self) -> f64 {
        self.sum / self.weight
    }
}

/// Speed over the last batches of an epoch. The evaluation between two epochs does not count.
#[derive(Default)]
pub(super) struct Pace {
    recent: VecDeque<(Instant, usize)>,
    /// Kept from one epoch to the next.
    seconds_a_batch: Option<f64>,
}

impl Pace {
    const WINDOW: usize = 50;

    pub(super) fn start(&mut self) {
        self.recent.clear();
        self.recent.push_back((Instant::now(), 0));
    }

    pub(super) fn batch(&mut self, images: usize) {
        self.recent.push_back((Instant::now(), images));
        if self.recent.len() > Self::WINDOW {
            self.recent.pop_front();
        }
        self.seconds_a_batch =
            self.elapsed().map(|seconds| seconds / (self.recent.len() - 1) as f64);
    }

    fn elapsed(&self) -> Option<f64> {
        let (first, _) = self.recent.front()?;
        let (last, _) = self.recent.back()?;
        let seconds = last.duration_since(*first).as_secs_f64();
        (seconds > 0.0).then_some(seconds)
    }

    pub(super) fn seconds_a_batch(&self) -> Option<f64> {
        self.seconds_a_batch
    }

    pub(super) fn images_a_second(&self) -> Option<f64> {
        let images: usize = self.recent.iter().skip(1).map(|(_, images)| images).sum();
        Some(images as f64 / self.elapsed()?)
    }
}

/// How long evaluations take, for the time left.
#[derive(Default)]
pub(super) struct Evaluations {
    /// Epochs between two evaluations: `train.eval_every`.
    pub(super) every: u64,
    /// Whether there is a validation set.
    pub(super) evaluated: bool,
    pub(super) started: Option<Instant>,
    pub(super) seconds: Option<f64>,
}

impl Evaluations {
    pub(super) fn done(&mut self) {
        self.seconds =
            self.started.take().map(|started| started.elapsed().as_secs_f64()).or(self.seconds);
    }

    /// Seconds of the evaluations after `epoch` (from 0) and after later ones. 0 before the first, as
    /// nothing is known.
    pub(super) fn seconds_left(&self, epoch: u64, epochs: u64) -> f64 {
        let Some(seconds) = self.seconds.filter(|_| self.evaluated) else { return 0.0 };
        let due = |done: u64| done == epochs || (self.every > 0 && done.is_multiple_of(self.every));
        seconds * (epoch + 1..=epochs).filter(|&done| due(done)).count() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_one_value_is_that_value_and_it_follows() {
        let mut loss = Smoothed::default();
        loss.add(8.0);
        assert!((loss.value() - 8.0).abs() < 1e-12);
        for _ in 0..500 {
            loss.add(2.0);
        }
        assert!((loss.value() - 2.0).abs() < 1e-3);
    }

    #[test]
    fn evaluations_count_towards_the_time_left() {
        let left = |every, seconds, epoch| {
            Evaluations { every, evaluated: true, started: None, seconds }.seconds_left(epoch, 10)
        };
        assert_eq!(left(1, None, 0), 0.0);
        assert_eq!(left(1, Some(2.0), 0), 20.0);
        assert_eq!(left(4, Some(2.0), 0), 6.0); // after 4, 8 and 10
        assert_eq!(left(4, Some(2.0), 4), 4.0); // after 8 and 10
        assert_eq!(left(0, Some(2.0), 0), 2.0);
    }
}
