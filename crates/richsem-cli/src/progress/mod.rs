//! Progress on stderr: a bar on a terminal, a plain line now and then elsewhere.

mod pace;

use std::{
    borrow::Cow,
    io::IsTerminal as _,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use richsem::{
    config::Config,
    data::{
        Reading,
        dataset::Dataset,
        formats::Opening,
        image_io::Orientation,
        image_store::{ImageStore, Indexing},
    },
    evaluate::Summary,
    plural::counted,
    train::{Observer, TrainRow},
};

use self::pace::{Evaluations, Pace, Smoothed};
use crate::{analysis, output, ranks, table};

/// Batches after which the user is told how long the run will take.
const FORETOLD: u64 = 20;
/// Seconds after which that is foretold at the latest, if batches are slow.
const FORETOLD_AFTER: Duration = Duration::from_secs(20);
/// Time until the first plain line, where stderr is no terminal, and between the others.
const PLAIN_FIRST: Duration = Duration::from_secs(1);
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// A progress bar. None if stderr is no terminal.
pub(crate) fn bar(total: u64, template: &str) -> Option<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(template).expect("the templates below are valid");
    bar.set_style(style.progress_chars("━╸─"));
    Some(bar)
}

/// Counts things done, from any thread.
pub(crate) struct Counter {
    what: &'static str,
    bar: Option<ProgressBar>,
    /// When the next plain line is due.
    plain: Mutex<Instant>,
}

impl Counter {
    /// `what` stands before the numbers, as "detecting".
    pub(crate) fn new(what: &'static str, total: usize) -> Self {
        let template = "{prefix} {bar:30} {pos}/{len}  {per_sec}  {eta} left";
        let bar = bar(total as u64, template);
        if let Some(bar) = &bar {
            bar.set_prefix(what);
        }
        Self { what, bar, plain: Mutex::new(Instant::now() + PLAIN_FIRST) }
    }

    /// Shows that `done` of `total` are done. A smaller number than before, from a slow thread, changes
    /// nothing.
    pub(crate) fn set(&self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.update(|state| state.set_pos(state.pos().max(done as u64)));
            return;
        }
        let mut due = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() >= *due {
            *due = Instant::now() + PLAIN_EVERY;
            output::note(format!("{}: {done} of {total}", self.what));
        }
    }

    /// Writes a line above the bar.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Shows how far the reading of a set is.
#[derive(Default)]
pub(crate) struct ReadProgress(Option<Counter>);

impl ReadProgress {
    pub(crate) fn set(&mut self, at: Reading) {
        let mib = |bytes: u64| (bytes >> 20) as usize;
        let (what, done, of) = match at {
            Reading::Indexing(Indexing { bytes, of, .. }) => {
                ("indexing (MiB)", mib(bytes), mib(of))
            }
            Reading::Annotations { bytes, of } => {
                ("reading annotations (MiB)", mib(bytes), mib(of))
            }
            Reading::Files { done, of } => ("reading annotations", done, of),
            Reading::Sizes { done, of } => ("reading sizes of images", done, of),
            _ => return,
        };
        if self.0.as_ref().is_none_or(|counter| counter.what != what) {
            self.0 = Some(Counter::new(what, of));
        }
        if let Some(counter) = &self.0 {
            counter.set(done, of);
        }
    }
}

/// Opens images, and shows how far the indexing of archives is.
pub(crate) fn open_images(path: &Path, orientation: Orientation) -> richsem::Result<ImageStore> {
    let mut progress = ReadProgress::default();
    ImageStore::open_with(path, orientation, &mut |at| {
        progress.set(Reading::Indexing(at));
        ControlFlow::Continue(())
    })
}

/// Opens a set, and shows how far it is.
pub(crate) fn open_set(path: &Path, opening: &Opening) -> richsem::Result<Dataset> {
    let mut progress = ReadProgress::default();
    Dataset::open_with(path, opening, &mut |at| {
        progress.set(at);
        ControlFlow::Continue(())
    })
}

/// Shows the progress of a training run.
pub(crate) struct TrainProgress {
    bar: Option<ProgressBar>,
    reading: ReadProgress,
    stop: Arc<AtomicBool>,
    stop_noticed: bool,
    epoch: u64,
    epochs: u64,
    batch: u64,
    batches: u64,
    loss: Smoothed,
    pace: Pace,
    last_row: Option<TrainRow>,
    evaluations: Evaluations,
    /// Number of batches since the start or the resume.
    seen: u64,
    /// When the first of these began.
    started: Instant,
    /// Whether the user was told how long the run will take.
    foretold: bool,
}

impl TrainProgress {
    /// Signals set `stop`. The user is told once that this was noticed.
    pub(crate) fn new(config: &Config, stop: Arc<AtomicBool>) -> Self {
        Self {
            bar: bar(0, "{prefix} {bar:24} {pos}/{len}  {msg}"),
            reading: ReadProgress::default(),
            stop,
            stop_noticed: false,
            epoch: 0,
            epochs: config.train.epochs,
            batch: 0,
            batches: 0,
            loss: Smoothed::default(),
            pace: Pace::default(),
            last_row: None,
            evaluations: Evaluations {
                every: config.train.eval_every,
                evaluated: config.data.val.is_some(),
                ..Evaluations::default()
            },
            seen: 0,
            started: Instant::now(),
            foretold: false,
        }
    }

    /// Leaves the terminal to what comes after the run.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn above(&self, write: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn eta(&self) -> String {
        let Some(batch) = self.pace.seconds_a_batch() else { return "–".into() };
        let later = self.epochs.saturating_sub(self.epoch + 1);
        let left = self.batches.saturating_sub(self.batch) + later * self.batches;
        hms(left as f64 * batch + self.evaluations.seconds_left(self.epoch, self.epochs))
    }

    /// Tells the user how long the run will take, once its pace is known.
    fn foretell(&self) {
        let (Some(pace), left) = (self.pace.images_a_second(), self.eta()) else { return };
        let batches = self.epochs * self.batches;
        let at = self.epoch * self.batches + self.batch;
        self.above(|| {
            output::note(format!(
                "{} in {}, {at} of them done: about {left} to go at {pace:.1} images a second",
                counted(batches as usize, "batch"),
                counted(self.epochs as usize, "epoch")
            ));
        });
    }

    fn notice_stop(&mut self) {
        if !self.stop_noticed && self.stop.load(Ordering::Relaxed) {
            self.stop_noticed = true;
            self.above(|| output::note("stopping: saving first; a second Ctrl-C ends at once"));
        }
    }
}

impl Observer for TrainProgress {
    fn message(&mut self, text: &str) {
        // What comes next is told when a set is read.
        self.reading = ReadProgress::default();
        self.above(|| output::note(text));
    }

    fn folder(&mut self, path: &Path) {
        // Without its log a process trains all the same.
        if let Err(error) = ranks::keep_logs(path) {
            output::warn(format!("the log of this process cannot be written: {error:#}"));
        }
    }

    fn reading(&mut self, at: Reading) -> ControlFlow<()> {
        self.reading.set(at);
        if self.stop.load(Ordering::Relaxed) {
            self.reading = ReadProgress::default();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, epoch: u64, epochs: u64, batch: u64, batches: u64) {
        (self.epoch, self.epochs, self.batch, self.batches) = (epoch, epochs, batch, batches);
        self.pace.start();
        if self.seen == 0 {
            self.started = Instant::now();
            if self.bar.is_none() {
                let (batches, epochs) =
                    (counted(batches as usize, "batch"), counted(epochs as usize, "epoch"));
                output::note(format!("training: {epochs} of {batches}"));
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_length(batches);
            bar.set_position(batch);
            bar.set_prefix(format!("epoch {}/{epochs}", epoch + 1));
            bar.set_message("");
        }
    }

    fn batch(&mut self, loss: f64, images: usize, row: Option<&TrainRow>) {
        self.batch += 1;
        self.loss.add(loss);
        self.pace.batch(images);
        if let Some(row) = row {
            self.last_row = Some(row.clone());
        }
        self.seen += 1;
        let slow = || self.seen > 1 && self.started.elapsed() >= FORETOLD_AFTER;
        if !self.foretold && (self.seen == FORETOLD || slow()) {
            self.foretold = true;
            self.foretell();
        }
        match (&self.bar, row) {
            (Some(bar), _) => {
                bar.set_position(self.batch);
                bar.set_message(bar_message(
                    self.loss.value(),
                    self.last_row.as_ref(),
                    self.pace.images_a_second(),
                    &self.eta(),
                ));
            }
            (None, Some(row)) => output::note(format!(
                "epoch {}/{}  batch {}/{}  {}  ETA {}",
                self.epoch + 1,
                self.epochs,
                self.batch,
                self.batches,
                row_text(row),
                self.eta()
            )),
            (None, None) => {}
        }
        self.notice_stop();
    }

    fn recording(&mut self, done: usize, total: usize) {
        match &self.bar {
            Some(bar) => {
                bar.set_prefix("recording");
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message("passes as CUDA graphs");
            }
            None if done == 1 => {
                output::note(format!("recording {} as CUDA graphs", counted(total, "pass")))
            }
            None => {}
        }
        self.notice_stop();
    }

    fn evaluating(&mut self, done: usize, total: usize) {
        let first = self.evaluations.started.is_none();
        let started = *self.evaluations.started.get_or_insert_with(Instant::now);
        match &self.bar {
            Some(bar) => {
                if first {
                    bar.set_message("");
                    bar.set_position(done as u64);
                    bar.set_length(total as u64);
                    bar.set_prefix("evaluating");
                }
                bar.set_position(done as u64);
                let seconds = started.elapsed().as_secs_f64() / done.max(1) as f64;
                bar.set_message(format!("{} left", hms(seconds * (total - done) as f64)));
            }
            None if first => output::note(format!("evaluating {}", counted(total, "image"))),
            None => {}
        }
        self.notice_stop();
    }

    fn evaluated(&mut self, epoch: u64, summary: &Summary) {
        self.evaluations.done();
        let intervals = summary.intervals.as_ref().and_then(analysis::in_a_line);
        let intervals = intervals.map(|line| format!("{line}\n")).unwrap_or_default();
        let text = format!("after epoch {epoch}:\n{}\n{intervals}", table::precisions(summary));
        // A closed stdout must not cost the run.
        self.above(|| drop(output::print(text)));
    }
}

fn bar_message(loss: f64, row: Option<&TrainRow>, images: Option<f64>, eta: &str) -> String {
    let mut parts: Vec<Cow<'_, str>> = vec![format!("loss {loss:.3}").into()];
    if let Some(row) = row {
        parts.push(format!("lr {:.1e}", row.lr).into());
    }
    if let Some(images) = images {
        parts.push(format!("{images:.1} img/s").into());
    }
    if let Some(memory) = row.map(|r| r.memory_mib).filter(|m| *m > 0.0) {
        parts.push(format!("{:.1} GiB", memory / 1024.0).into());
    }
    parts.push(format!("ETA {eta}").into());
    parts.join("  ")
}

fn row_text(row: &TrainRow) -> String {
    let mut text = format!(
        "step {}  loss {:.4}  grad norm {:.3}  lr {:.2e}  {:.1} img/s",
        row.step, row.loss, row.grad_norm, row.lr, row.images_per_second
    );
    if row.memory_mib > 0.0 {
        text += &format!("  {:.1} GiB", row.memory_mib / 1024.0);
    }
    text
}

/// Seconds as `h:mm:ss`.
pub(crate) fn hms(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64; // saturates: no unbelievable number overflows
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_hours_minutes_seconds() {
        assert_eq!(hms(0.4), "0:00:00");
        assert_eq!(hms(3_725.0), "1:02:05");
        assert_eq!(hms(-1.0), "0:00:00");
        assert_eq!(hms(400_000.0), "111:06:40");
    }
}
