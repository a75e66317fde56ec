//! One run, from data to the last evaluation.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    BatchLoss, Intermediates, Learner, Observer, PendingLoss, PendingUpdate, Position, Prepared,
    agree, checkpoint, diagnose,
    inputs::{OpenedSet, workers},
    patience,
    rows::{MetricsRow, TrainRow},
    run::{Outcome, Start, Worker},
    run_folder::{EVENTS, Labels, RunFolder},
    schedule::{lr_factor, row_due},
    setup::{self, Place},
    slowest::{Lap, Slowest},
    supply::Supply,
    teacher_check,
};
use crate::{
    collective::{self, Pace},
    config::{Config, TrainConfig},
    data::{
        batch::Batch,
        detection_source::BrokenImages,
        image_store::ImageStore,
        interleaved::{Interleaved, Sources},
        loader::Loader,
    },
    error::{Error, Result},
    evaluate::Evaluator,
    losses::terms::StepKey,
    predict::ReadAhead,
    teacher::{self, OpenTeacher},
    tensorboard::EventWriter,
};

pub(super) struct Trainer<'a> {
    pub(super) config: Config,
    pub(super) run: RunFolder,
    pub(super) learner: Learner,
    pub(super) batches: Arc<Interleaved>,
    sources: Sources,
    pub(super) val: Option<(OpenedSet, Evaluator)>,
    pub(super) broken: Arc<BrokenImages>,
    /// Where the training images are.
    pub(super) store: Arc<ImageStore>,
    pub(super) position: Position,
    supply: Supply,
    slowest: Slowest,
    /// None where another process writes the run's folder.
    pub(super) tensorboard: Option<EventWriter>,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) stop: &'a AtomicBool,
    /// Steps that may take longer than others.
    slow_steps: u32,
}

/// Batches of a process after which kernels are compiled and plans made.
const WARM_UP: u32 = 3;

/// A batch that the device is at work on.
struct Started {
    batch: Batch,
    loss: PendingLoss,
    /// Of the last batch of an update.
    update: Option<PendingUpdate>,
    intermediates: Intermediates,
}

/// Trains until all epochs are done or `stop` is set, which every process of the run follows.
///
/// # Errors
/// Whatever is wrong with settings, data or folder; a number that is not finite.
pub fn train(
    start: Start,
    worker: &Worker,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    train_with_teacher(start, worker, &teacher::open, observer, stop)
}

/// As [`train`], with a teacher of one's own: `open_teacher` is asked for it where the settings have a
/// `[teacher]` (with `activation` set, which is CLIP's alone) and need it.
///
/// # Errors
/// As [`train`]; those of the teacher.
pub fn train_with_teacher(
    start: Start,
    worker: &Worker,
    open_teacher: &OpenTeacher,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let Worker { device, collective } = worker.clone();
    // The folder is this process's own before anything in it is swept or written.
    let (mut config, place) = Place::open(start, collective.as_ref(), observer)?;
    agree::on_settings(collective.as_ref(), &config)?;
    let data = setup::open_data(&config, place.has_checkpoint(), collective.as_ref(), observer)?;
    let first = || Ok(Arc::clone(&data.batches));
    let settled = teacher_check::settle_activation(&mut config, &data.vocabulary, device, &first)?;
    settled.iter().for_each(|message| observer.message(message));
    let network = (device, Arc::clone(&collective));
    let (learner, resumed) =
        setup::learner(&mut config, &data, network, open_teacher, &place, observer)?;
    let (run, _lock) = match place {
        Place::New(folder) => {
            let (run, lock) = folder.begin(&config, &data.vocabulary, &data.fingerprint)?;
            (run, Some(lock))
        }
        Place::Existing(run, lock) => (run, lock),
        Place::Beside(folder) => (RunFolder::beside(folder), None),
    };
    let mut position = resumed.unwrap_or_else(|| Position::start(collective.world()));
    let moved = position.go_on_with(collective.world(), &data.batches, config.train.accumulate);
    moved.iter().for_each(|message| observer.message(message));
    if collective.leads() {
        run.rewind(position.updates)?;
        run.write_labels(&Labels::of(
            &data.entries,
            data.val.as_ref().map(|(set, _)| &*set.entries),
        ))?;
    }
    // The folder is there for all.
    collective::any(collective.as_ref(), [false])?;
    observer.folder(run.path());
    observer.message(&format!(
        "{} trainable parameters on {}; padding {}; run folder {}",
        learner.model.detector.trainable_count(),
        torch_ext::device_name(device),
        config.model.padding(),
        run.path().display()
    ));
    let events = run.file(EVENTS);
    let tensorboard = match (collective.leads(), position.updates) {
        (false, _) => None,
        (true, 0) => Some(EventWriter::create(&events, wall_time())?),
        (true, updates) => Some(EventWriter::resume(&events, wall_time(), updates)?),
    };
    if position.micro_steps > 0 {
        observer.message(&format!(
            "resumed at step {} (epoch {}, batch {})",
            position.updates, position.epoch, position.batch
        ));
    }
    let setup::Data { batches, val, broken, store, .. } = data;
    let sources = batches.sources();
    let (supply, slowest) = (Supply::default(), Slowest::new(learner.collective().world()));
    let trainer = Trainer {
        config,
        run,
        learner,
        batches,
        sources,
        val,
        broken,
        store,
        position,
        supply,
        slowest,
        tensorboard,
        observer,
        stop,
        slow_steps: WARM_UP,
    };
    trainer.run()
}

pub(super) fn wall_time() -> f64 {
    // Before 1970 only if the machine's clock is wrong: then 0 is as good.
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |t| t.as_secs_f64())
}

impl Trainer<'_> {
    fn run(mut self) -> Result<Outcome> {
        let epochs = self.config.train.epochs;
        let mut last = None;
        let source = self.learner.batches(Arc::<Interleaved>::clone(&self.batches) as _);
        let positions = self.position.micro_steps..self.batches.total();
        if !positions.is_empty() && self.learner.records_ahead() {
            self.record_ahead()?;
        }
        let ahead = self.read_ahead();
        let mut loader = Loader::new(source, positions, ahead.workers, ahead.prefetch)?;
        while self.position.epoch < epochs || self.position.pending_eval {
            if self.position.batch == 0 && !self.position.pending_eval && self.out_of_patience()? {
                break;
            }
            if !self.position.pending_eval {
                let batches = self.batches.batches(self.position.epoch);
                if self.epoch(batches, &mut loader)?.is_break() {
                    self.finish();
                    return Ok(Outcome::Stopped(self.position.updates));
                }
            }
            if self.position.pending_eval {
                match self.evaluate()? {
                    ControlFlow::Break(()) => {
                        self.finish();
                        return Ok(Outcome::Stopped(self.position.updates));
                    }
                    ControlFlow::Continue(summary) => last = summary.map(Box::new),
                }
            }
            self.prune()?;
        }
        self.finish();
        Ok(Outcome::Finished { summary: last, val: self.val.map(|(set, _)| set) })
    }

    fn finish(&mut self) {
        if let Some(summary) = self.broken.summary() {
            self.observer.message(&summary);
        }
        let val = self.val.as_ref().map(|(split, _)| ("data.val", &split.store));
        for (key, store) in [("data.train", &self.store)].into_iter().chain(val) {
            if let Some(note) = store.turned(&format!("{key}.orientation")) {
                self.observer.message(&format!("{key}: {note}"));
            }
        }
    }

    /// One epoch, or what is left of it. Breaks when asked to stop, after an update, with
    /// everything saved.
    fn epoch(&mut self, batches: u64, loader: &mut Loader) -> Result<ControlFlow<()>> {
        let TrainConfig { epochs, checkpoint_every, .. } = self.config.train;
        self.observer.epoch(self.position.epoch, epochs, self.position.batch, batches);
        let mut lap = Lap::start(self.learner.collective());
        let mut stopping = false;
        // Others may still be at what came before.
        self.slow_steps = self.slow_steps.max(1);
        let first = if self.position.batch < batches { loader.next() } else { None };
        let mut upcoming = first.map(|batch| self.prepare(batch));
        while let Some(next) = upcoming.take() {
            let pace = if self.slow_steps == 0 { Pace::Steps } else { Pace::Long };
            self.learner.collective().pace(pace);
            self.slow_steps = self.slow_steps.saturating_sub(1);
            let started = self.start(next)?;
            // While the device works on this one.
            let before = Instant::now();
            let next = if self.position.batch < batches { loader.next() } else { None };
            let waited = before.elapsed().as_secs_f64();
            upcoming = next.map(|batch| self.prepare(batch));
            let updated = started.update.is_some();
            stopping |= self.finish_batch(started, &mut lap, waited)?;
            if updated
                && self.position.batch < batches
                && (stopping || self.checkpoint_due(checkpoint_every))
            {
                self.learner.collective().pace(Pace::Long);
                self.save()?;
                if stopping {
                    return Ok(ControlFlow::Break(()));
                }
                self.prune()?;
                lap = Lap::start(self.learner.collective());
                self.slow_steps = self.slow_steps.max(1);
            }
        }
        self.learner.collective().pace(Pace::Long);
        self.end_epoch(stopping)
    }

    /// Has a batch on its way through the network and back.
    fn start(&mut self, next: Result<(Batch, Prepared)>) -> Result<Started> {
        let mut started = self.start_batch(next)?;
        self.position.batch += 1;
        self.position.micro_steps += 1;
        if self.position.batch.is_multiple_of(self.config.train.accumulate) {
            started.update = Some(self.learner.start_update(self.lr_factor())?);
        }
        Ok(started)
    }

    fn start_batch(&mut self, next: Result<(Batch, Prepared)>) -> Result<Started> {
        let (batch, prepared) = next?;
        for message in &batch.skipped {
            self.observer.message(&format!("skipped: {message}"));
        }
        let mut intermediates = Intermediates::default();
        let loss = self.learner.start(&batch, prepared, &mut intermediates);
        let loss = loss.map_err(|error| self.explain(error, &batch, &intermediates))?;
        if let Some(news) = self.learner.take_news() {
            self.observer.message(&news);
        }
        Ok(Started { batch, loss, update: None, intermediates })
    }

    /// Waits for a batch, and for its update where it ends one. The batch took the time of the `lap` since the
    /// one before, of which the loader was `waited` for. Says whether any process is to stop.
    fn finish_batch(&mut self, started: Started, lap: &mut Lap, waited: f64) -> Result<bool> {
        let Started { batch, loss, update, intermediates } = started;
        let before = Instant::now();
        let loss = loss.wait().map_err(|error| self.explain(error, &batch, &intermediates))?;
        let device = before.elapsed().as_secs_f64();
        let (loss, images, stop) = self.of_all(&batch, loss)?;
        if let Some(message) = self.slowest.message(self.learner.collective())? {
            self.observer.message(&message);
        }
        let loss = self.count(&batch, loss, images);
        let seconds = lap.seconds();
        if let Some(message) = self.supply.batch(batch.len(), seconds, waited, device) {
            self.observer.message(&message);
        }
        self.position.since_log.seconds += seconds;
        let collective = self.learner.collective();
        self.slowest.worked(lap.worked(collective), waited);
        *lap = Lap::start(collective);
        let row = match update {
            Some(update) => {
                let norm = self.learner.finish_update(update);
                self.updated(norm.map_err(|error| self.explain(error, &batch, &intermediates))?)?
            }
            None => None,
        };
        self.observer.batch(loss, images as usize, row.as_ref());
        Ok(stop)
    }

    /// The mean of a batch's losses over the processes, the images of all, and whether any is to stop: all
    /// processes leave the loop at the same batch.
    fn of_all(&mut self, batch: &Batch, own: BatchLoss) -> Result<(BatchLoss, u64, bool)> {
        let collective = self.learner.collective();
        let stop = f64::from(u8::from(self.stop.load(Ordering::Relaxed)));
        let mut values = vec![stop, batch.len() as f64, own.loss];
        values.extend(own.terms.iter().map(|(_, value)| value));
        let of_losses = values.len();
        values.extend(self.slowest.shares(collective));
        let mut sums = collective::sums(collective, &values)?;
        self.slowest.batch(&sums.split_off(of_losses));
        let mean = |sum: &f64| sum / collective.world() as f64;
        let names = own.terms.into_iter().map(|(name, _)| name);
        let loss = BatchLoss {
            loss: mean(&sums[2]),
            terms: names.zip(sums[3..].iter().map(mean)).collect(),
        };
        Ok((loss, sums[1] as u64, sums[0] > 0.0))
    }

    /// Breaks where any process is to stop. What is evaluated, and what a run ends with, is always on
    /// disk first.
    fn end_epoch(&mut self, stopping: bool) -> Result<ControlFlow<()>> {
        let TrainConfig { epochs, checkpoint_every, eval_every, .. } = self.config.train;
        self.position.epoch += 1;
        self.position.batch = 0;
        let done = self.position.epoch;
        let due = done == epochs || (eval_every > 0 && done.is_multiple_of(eval_every));
        self.position.pending_eval = due && self.val.is_some();
        let [stop] = self.agree([stopping || self.stop.load(Ordering::Relaxed)])?;
        if self.position.pending_eval
            || done == epochs
            || stop
            || self.checkpoint_due(checkpoint_every)
        {
            self.save()?;
        }
        Ok(match stop {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    /// Whether no evaluation of late was better than those before: says so, if it is.
    fn out_of_patience(&mut self) -> Result<bool> {
        let patience = self.config.train.patience;
        let ended = match patience {
            0 => None,
            _ => patience::ended(&self.run.metrics()?, patience),
        };
        let [stop] = self.agree([ended.is_some()])?;
        if let Some(message) = ended {
            self.observer.message(&message);
        }
        Ok(stop)
    }

    /// Of each question, whether any process says yes.
    fn agree<const N: usize>(&self, answers: [bool; N]) -> Result<[bool; N]> {
        collective::any(self.learner.collective(), answers)
    }

    fn checkpoint_due(&self, every: u64) -> bool {
        every > 0 && self.position.updates.is_multiple_of(every)
    }

    pub(super) fn read_ahead(&self) -> ReadAhead {
        ReadAhead {
            workers: workers(self.config.data.workers),
            prefetch: self.config.data.prefetch,
        }
    }

    /// The batch that comes next, on its way to the device.
    fn prepare(&self, batch: Result<Batch>) -> Result<(Batch, Prepared)> {
        let batch = batch?;
        let key = StepKey { seed: self.config.seed, micro_step: self.position.micro_steps };
        let prepared = self.learner.prepare(&batch, key)?;
        Ok((batch, prepared))
    }

    /// Adds the loss of a batch of so many images to the sums since the last row of metrics; returns the weighted
    /// objective.
    fn count(&mut self, batch: &Batch, losses: BatchLoss, images: u64) -> f64 {
        let sums = &mut self.position.since_log;
        sums.batches += 1;
        sums.images += images;
        sums.timed_images += images;
        sums.loss += losses.loss;
        for (name, value) in losses.terms {
            let name = format!("{}{name}", self.sources.prefix(batch.source));
            let (sum, count) = sums.terms.entry(name).or_default();
            *sum += value;
            *count += 1;
        }
        losses.loss
    }

    /// Says more about a number that is not finite; other errors stay as they are.
    fn explain(&self, error: Error, batch: &Batch, intermediates: &Intermediates) -> Error {
        match error {
            Error::NonFinite { problem, .. } => {
                let step = self.position.updates + 1;
                let rank = self.learner.collective().rank();
                let folder = self.run.non_finite(step, rank);
                diagnose::non_finite(folder, step, &problem, batch, &self.learner, intermediates)
            }
            other => other,
        }
    }

    /// What the rates are multiplied with now.
    fn lr_factor(&self) -> f64 {
        lr_factor(&self.config.train, self.position.epoch, self.position.updates)
    }

    /// An update was applied to gradients of that norm.
    fn updated(&mut self, norm: f64) -> Result<Option<TrainRow>> {
        let lr = self.config.train.lr * self.lr_factor();
        self.position.updates += 1;
        self.position.since_log.updates += 1;
        self.position.since_log.grad_norm += norm;
        let batches = self.batches.batches(self.position.epoch);
        let last = self.position.batch == batches;
        let of_epoch = last.then_some(batches / self.config.train.accumulate);
        if !row_due(self.position.updates, self.config.train.log_every, of_epoch) {
            return Ok(None);
        }
        let sums = std::mem::take(&mut self.position.since_log);
        let memory = torch_ext::memory(self.learner.model.detector.device());
        let mean = |(name, (sum, count)): (String, (f64, u64))| (name, sum / count as f64);
        let row = TrainRow {
            step: self.position.updates,
            epoch: self.position.epoch,
            lr,
            loss: sums.loss / sums.batches as f64,
            grad_norm: sums.grad_norm / sums.updates as f64,
            images_per_second: sums.timed_images as f64 / sums.seconds.max(1e-9),
            images: sums.images,
            memory_mib: memory.map_or(0.0, |m| m.peak_reserved as f64 / f64::from(1 << 20)),
            terms: sums.terms.into_iter().map(mean).collect(),
        };
        let Some(tensorboard) = &mut self.tensorboard else { return Ok(Some(row)) };
        self.run.append(&MetricsRow::Train(row.clone()))?;
        let mut scalars = vec![
            ("train/loss", row.loss as f32),
            ("train/lr", row.lr as f32),
            ("train/grad_norm", row.grad_norm as f32),
            ("train/images_per_second", row.images_per_second as f32),
        ];
        let terms: Vec<(String, f32)> =
            row.terms.iter().map(|(k, v)| (format!("train/{k}"), *v as f32)).collect();
        scalars.extend(terms.iter().map(|(k, v)| (k.as_str(), *v)));
        tensorboard.scalars(row.step, wall_time(), &scalars)?;
        Ok(Some(row))
    }

    fn save(&mut self) -> Result<()> {
        let Some(tensorboard) = &mut self.tensorboard else { return Ok(()) };
        checkpoint::save(&self.run, &self.config, &self.learner, &self.position)?;
        tensorboard.flush()
    }

    fn prune(&self) -> Result<()> {
        if !self.learner.collective().leads() {
            return Ok(());
        }
        checkpoint::prune(&self.run, &self.position, self.config.train.keep_every)
    }
}
