//! How far a study is, on stderr: a bar on a terminal, a plain line now and then elsewhere.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use richsem::{
    study::{PlannedRun, last_row},
    train::MetricsRow,
};

use crate::{
    output,
    progress::{bar, hms},
    table::NOTHING,
};

/// Time between two looks at the runs' logs.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two plain lines, where stderr is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(60);

/// A run that is being trained.
pub(super) struct Watched<'a> {
    pub(super) run: &'a PlannedRun,
    pub(super) folder: PathBuf,
    pub(super) label: String,
    /// Seconds since it was started or resumed.
    pub(super) seconds: f64,
}

pub(super) struct StudyProgress {
    bar: Option<ProgressBar>,
    total: usize,
    looked: Option<Instant>,
    plain: Instant,
}

impl StudyProgress {
    /// Without a bar, until [`Self::start`].
    pub(super) fn new() -> Self {
        Self { bar: None, total: 0, looked: None, plain: Instant::now() }
    }

    pub(super) fn start(&mut self, total: usize) {
        self.total = total;
        self.bar = bar(total as u64, "{prefix} {bar:16} {pos}/{len}  {wide_msg}");
        if let Some(bar) = &self.bar {
            bar.set_prefix("runs");
        }
    }

    /// Leaves the terminal to what comes after.
    pub(super) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Writes a line above the bar.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Shows the state, at most once a second. `queued` has the variant of each waiting run, by index.
    /// `durations` has variant and seconds of each finished run.
    pub(super) fn show(
        &mut self,
        done: usize,
        watched: &[Watched<'_>],
        queued: &[usize],
        durations: &[(usize, f64)],
        jobs: usize,
    ) {
        if self.looked.is_some_and(|then| then.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        let is_plain_due = self.bar.is_none() && self.plain.elapsed() >= PLAIN_EVERY;
        if self.bar.is_none() && !is_plain_due {
            return;
        }
        let running: Vec<(usize, f64)> =
            watched.iter().map(|w| (w.run.variant, w.seconds)).collect();
        let left = seconds_left(&running, queued, durations, jobs);
        let eta = left.map_or_else(|| NOTHING.to_owned(), hms);
        let runs: Vec<String> =
            watched.iter().map(|w| format!("{} {}", w.label, place(w))).collect();
        let message = format!("ETA {eta}  {}", runs.join("; "));
        match &self.bar {
            Some(bar) => {
                bar.set_position(done as u64);
                bar.set_message(message);
            }
            None => {
                self.plain = Instant::now();
                output::note(format!("{done} of {} runs  {message}", self.total));
            }
        }
    }
}

/// How far a run is, from the last row of its metrics.
fn place(watched: &Watched<'_>) -> String {
    let epochs = watched.run.config.train.epochs;
    match last_row(&watched.folder) {
        None => "starting".to_owned(),
        Some(MetricsRow::Train(row)) => {
            format!("step {} (epoch {}/{epochs})", row.step, row.epoch + 1)
        }
        Some(MetricsRow::Eval(row)) => {
            format!("step {} (evaluated after epoch {}/{epochs})", row.step, row.epoch)
        }
    }
}

/// Seconds that are left, from the mean time of finished runs: those of the same variant, or of all if
/// there is none. `None` before the first.
fn seconds_left(
    running: &[(usize, f64)],
    queued: &[usize],
    durations: &[(usize, f64)],
    jobs: usize,
) -> Option<f64> {
    let mean = |of: &dyn Fn(usize) -> bool| {
        let list: Vec<f64> = durations.iter().filter(|(v, _)| of(*v)).map(|(_, s)| *s).collect();
        (!list.is_empty()).then(|| list.iter().sum::<f64>() / list.len() as f64)
    };
    let overall = mean(&|_| true)?;
    let whole = |variant: usize| mean(&|v| v == variant).unwrap_or(overall);
    let rest: Vec<f64> = running
        .iter()
        .map(|&(variant, seconds)| (whole(variant) - seconds).max(0.0))
        .chain(queued.iter().map(|&variant| whole(variant)))
        .collect();
    let at_once = jobs.min(rest.len()).max(1);
    let longest = rest.iter().copied().fold(0.0, f64::max);
    Some((rest.iter().sum::<f64>() / at_once as f64).max(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_of_runs_like_them_shared_by_the_jobs() {
        assert_eq!(seconds_left(&[(0, 1.0)], &[1], &[], 1), None);
        // Variant 0 takes 10, variant 1 takes 30, an unknown variant the mean of all, 20.
        let durations = [(0, 10.0), (1, 30.0)];
        assert_eq!(seconds_left(&[(0, 4.0)], &[1, 0], &durations, 1), Some(46.0));
        assert_eq!(seconds_left(&[(0, 4.0)], &[0, 0], &durations, 2), Some(13.0));
        assert_eq!(seconds_left(&[(2, 5.0)], &[], &durations, 4), Some(15.0));
        // No sooner than the longest of them.
        assert_eq!(seconds_left(&[(0, 99.0)], &[1], &durations, 2), Some(30.0));
    }
}
