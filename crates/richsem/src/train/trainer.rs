//! One run, from data to the last evaluation.

use std::{
    fs::File,
    ops::ControlFlow,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tch::Device;

use super::{
    BatchLoss, Learner, NewRun, Observer, PendingLoss, Position, Prepared, changes, checkpoint,
    diagnose, init,
    inputs::{
        OpenedSet, Split, batches, check_boxes, check_files, check_vocabularies, extra_sets,
        workers,
    },
    learner::{self, Trace},
    run_folder::{MetricsRow, RunFolder, TrainRow},
    schedule::{lr_factor, row_due},
    supply::Supply,
    teacher_check,
};
use crate::{
    collective::{self, Collective, Single},
    config::{Config, SplitConfig, TrainConfig},
    data::{
        batch::Batch,
        detection_source::BrokenImages,
        fingerprint::Fingerprint,
        image_store::ImageStore,
        interleaved::{Interleaved, Sources},
        loader::Loader,
    },
    error::{Error, Result},
    evaluate::{Evaluator, Summary},
    losses::terms::StepKey,
    predict::ReadAhead,
    prepared,
    teacher::{self, OpenTeacher},
    tensorboard::EventWriter,
};

/// A new run, or one to go on with.
#[derive(Debug)]
pub enum Start {
    /// A new run in that folder.
    New {
        /// Its settings.
        config: Box<Config>,
        /// Its folder.
        folder: NewRun,
    },
    /// The run of that folder, with the settings saved there.
    Resume(PathBuf),
}

impl Start {
    /// A new run with these settings in that folder.
    #[must_use]
    pub fn new(config: Config, folder: NewRun) -> Self {
        Self::New { config: Box::new(config), folder }
    }
}

/// This process's part in a run.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Where it computes.
    pub device: Device,
    /// The processes of the run.
    pub collective: Arc<dyn Collective>,
}

impl Worker {
    /// The only process of its run.
    #[must_use]
    pub fn alone(device: Device) -> Self {
        Self { device, collective: Arc::new(Single) }
    }
}

/// Where it trains, kept from others.
enum Place {
    New(NewRun),
    Existing(RunFolder, File),
}

impl Place {
    fn has_checkpoint(&self) -> bool {
        match self {
            Self::New(_) => false,
            Self::Existing(run, _) => run.file("checkpoints/last").exists(),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All epochs are done.
    Finished {
        /// The last evaluation, if there is a validation set.
        summary: Option<Box<Summary>>,
        /// The validation set.
        val: Option<OpenedSet>,
    },
    /// It was told to stop, and saved everything at this update.
    Stopped(u64),
}

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
    pub(super) tensorboard: EventWriter,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) stop: &'a AtomicBool,
}

/// A batch that the device is at work on.
struct Started {
    batch: Batch,
    loss: PendingLoss,
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
    let (mut config, place) = match start {
        Start::New { config, folder } => (*config, Place::New(folder)),
        Start::Resume(folder) => {
            let run = RunFolder::open(&folder)?;
            let config = run.config()?;
            training_split(&config)?;
            let lock = run.lock()?;
            run.sweep()?;
            for line in changes::since_checkpoint(&run, &config)? {
                observer.message(&line);
            }
            (config, Place::Existing(run, lock))
        }
    };
    let split = training_split(&config)?;
    // A run with a checkpoint has weights of its own.
    let has_weights = place.has_checkpoint();
    check_files(&config, has_weights)?;
    for warning in config.warnings() {
        observer.message(&warning);
    }
    let (dataset, split) = Split::open("data.train", split, observer)?;
    check_boxes(&config, &dataset, &split, observer)?;
    let vocabulary = dataset.vocabulary().clone();
    drop(dataset);
    let val = match &config.data.val {
        None => None,
        Some(split) => {
            let (dataset, split) = Split::open("data.val", split, observer)?;
            check_vocabularies(&vocabulary, &dataset)?;
            let evaluator = Evaluator::of(&dataset)
                .with_max_detections(config.eval.max_detections as usize)
                .with_training_vocabulary(&vocabulary);
            let (protocol, why) = (evaluator.protocol(), evaluator.why());
            observer.message(&format!("data.val is evaluated by the {protocol} protocol: {why}"));
            let Split { store, entries } = split;
            let vocabulary = dataset.vocabulary().clone();
            Some((OpenedSet { store, entries, vocabulary }, evaluator))
        }
    };
    let broken = Arc::new(BrokenImages::new(config.data.max_broken_images));
    let extras = extra_sets(&config, &vocabulary, observer)?;
    prepared::check_data(&config, (&split.store, &split.entries), &extras)?;
    let mut data = Fingerprint::of(&split.entries).with_extra(extras.iter().map(AsRef::as_ref));
    if let Some(file) = config.teacher_file() {
        data = data.with_teacher(&file)?;
    }
    let all = batches(&config, &split, &extras, &broken, collective.as_ref())?;
    let updates = all.total() / config.train.accumulate;
    if config.train.warmup_steps >= updates {
        observer.message(&format!(
            "train.warmup_steps: {} is not reached: the whole run has {updates} steps, so the rate \
             is below train.lr to its end",
            config.train.warmup_steps
        ));
    }

    let first = || Ok(Arc::clone(&all));
    if let Some(said) = teacher_check::settle_activation(&mut config, &vocabulary, device, &first)?
    {
        observer.message(&said);
    }
    let initial = match has_weights {
        true => None,
        false => init::read(&mut config)?,
    };
    let mut learner = Learner::with_teacher(
        &config,
        vocabulary.clone(),
        (device, Arc::clone(&collective)),
        open_teacher,
    )?;
    let resumed = match &place {
        Place::New(_) => None,
        Place::Existing(run, _) => {
            run.complete(&vocabulary, &data)?;
            checkpoint::resume(run, &mut learner)?
        }
    };
    if resumed.is_none() {
        for said in init::start(&config, initial, &mut learner)? {
            observer.message(&said);
        }
    }
    if resumed.is_none()
        && let Some(semantic) = config.semantic_branch()
    {
        for said in teacher_check::check(&learner, &all, semantic.min_top1)? {
            observer.message(&said);
        }
    }
    let (run, _lock) = match place {
        Place::New(folder) => folder.begin(&config, &vocabulary, &data)?,
        Place::Existing(run, lock) => (run, lock),
    };
    let position = resumed.unwrap_or_else(|| Position::start(collective.world()));
    run.rewind(position.updates)?;
    observer.message(&format!(
        "{} trainable parameters on {}; padding {}; run folder {}",
        learner.model.detector.trainable_count(),
        torch_ext::device_name(device),
        config.model.padding(),
        run.path().display()
    ));
    if position.micro_steps > 0 {
        observer.message(&format!(
            "resumed at step {} (epoch {}, batch {})",
            position.updates, position.epoch, position.batch
        ));
    }
    let tensorboard = if position.updates > 0 {
        EventWriter::resume(&run.file("tensorboard"), wall_time(), position.updates)?
    } else {
        EventWriter::create(&run.file("tensorboard"), wall_time())?
    };
    let trainer = Trainer {
        config,
        run,
        learner,
        sources: all.sources(),
        batches: all,
        val,
        broken,
        store: split.store,
        position,
        supply: Supply::default(),
        tensorboard,
        observer,
        stop,
    };
    trainer.run()
}

fn training_split(config: &Config) -> Result<&SplitConfig> {
    config.data.train.as_ref().ok_or_else(|| {
        Error::config("data.train", "missing: nothing to learn from")
            .with_hint("set data.train.annotations and data.train.images")
    })
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
                    ControlFlow::Continue(summary) => last = Some(Box::new(summary)),
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

    /// One epoch, or what is left of it. Breaks when told to stop, after an update, with
    /// everything saved.
    fn epoch(&mut self, batches: u64, loader: &mut Loader) -> Result<ControlFlow<()>> {
        let TrainConfig { epochs, accumulate, checkpoint_every, eval_every, .. } =
            self.config.train;
        self.observer.epoch(self.position.epoch, epochs, self.position.batch, batches);
        let mut mark = Instant::now();
        let mut stopping = false;
        let first = if self.position.batch < batches { loader.next() } else { None };
        let mut upcoming = first.map(|batch| self.prepare(batch));
        while let Some(next) = upcoming.take() {
            let mut trace = Trace::default();
            let started = self.start(next, &mut trace);
            // All processes leave the loop at the same batch, whatever happened to one of them.
            let [stop, failed] =
                self.agree([self.stop.load(Ordering::Relaxed), started.is_err()])?;
            let Started { batch, loss } = started?;
            if failed {
                return Err(learner::elsewhere());
            }
            self.position.batch += 1;
            self.position.micro_steps += 1;
            let updated = self.position.batch.is_multiple_of(accumulate);
            let update = match updated {
                true => Some(self.learner.start_update(self.lr_factor())?),
                false => None,
            };
            // While the device works on this one.
            let before = Instant::now();
            let next = if self.position.batch < batches { loader.next() } else { None };
            let waited = before.elapsed().as_secs_f64();
            upcoming = next.map(|batch| self.prepare(batch));
            let before = Instant::now();
            let loss = loss.wait().map_err(|error| self.explain(error, &batch, &trace))?;
            let device = before.elapsed().as_secs_f64();
            let loss = self.count(&batch, loss);
            let seconds = mark.elapsed().as_secs_f64();
            if let Some(said) = self.supply.batch(batch.len(), seconds, waited, device) {
                self.observer.message(&said);
            }
            self.position.window.seconds += seconds;
            mark = Instant::now();
            let row = match update {
                Some(update) => {
                    let norm = self.learner.finish_update(update);
                    self.updated(norm.map_err(|error| self.explain(error, &batch, &trace))?)?
                }
                None => None,
            };
            self.observer.batch(loss, batch.len(), row.as_ref());
            stopping |= stop;
            if updated
                && self.position.batch < batches
                && (stopping || self.checkpoint_due(checkpoint_every))
            {
                self.save()?;
                if stopping {
                    return Ok(ControlFlow::Break(()));
                }
                self.prune()?;
                mark = Instant::now();
            }
        }
        self.position.epoch += 1;
        self.position.batch = 0;
        let done = self.position.epoch;
        let due = done == epochs || (eval_every > 0 && done.is_multiple_of(eval_every));
        self.position.pending_eval = due && self.val.is_some();
        let [stop] = self.agree([stopping || self.stop.load(Ordering::Relaxed)])?;
        // What is evaluated, and what a run ends with, is always on disk first.
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

    /// Has a batch on its way through the network and back.
    fn start(&mut self, next: Result<(Batch, Prepared)>, trace: &mut Trace) -> Result<Started> {
        let (batch, prepared) = match next {
            Ok(next) => next,
            Err(error) => {
                self.learner.tell_failed()?;
                return Err(error);
            }
        };
        for message in &batch.skipped {
            self.observer.message(&format!("skipped: {message}"));
        }
        let loss = self.learner.start(&batch, prepared, trace);
        let loss = loss.map_err(|error| self.explain(error, &batch, trace))?;
        if let Some(news) = self.learner.take_news() {
            self.observer.message(&news);
        }
        Ok(Started { batch, loss })
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
        let key = StepKey { seed: self.config.seed, step: self.position.micro_steps };
        let prepared = self.learner.prepare(&batch, key)?;
        Ok((batch, prepared))
    }

    /// Adds a batch's loss to the sums of the window; returns the weighted objective.
    fn count(&mut self, batch: &Batch, losses: BatchLoss) -> f64 {
        let window = &mut self.position.window;
        window.batches += 1;
        window.images += batch.len();
        window.loss += losses.loss;
        for (name, value) in losses.terms {
            let name = format!("{}{name}", self.sources.prefix(batch.source));
            let (sum, count) = window.terms.entry(name).or_default();
            *sum += value;
            *count += 1;
        }
        losses.loss
    }

    /// Says more about a number that is not finite; other errors stay as they are.
    fn explain(&self, error: Error, batch: &Batch, trace: &Trace) -> Error {
        match error {
            Error::NonFinite(what) => {
                let step = self.position.updates + 1;
                diagnose::non_finite(&self.run, step, &what, batch, &self.learner, trace)
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
        let factor = self.lr_factor();
        let config = &self.config.train;
        self.position.updates += 1;
        self.position.window.updates += 1;
        self.position.window.grad_norm += norm;
        let batches = self.batches.batches(self.position.epoch);
        let last = self.position.batch == batches;
        let of_epoch = last.then_some(batches / config.accumulate);
        if !row_due(self.position.updates, config.log_every, of_epoch) {
            return Ok(None);
        }
        let device = self.learner.model.detector.device();
        let window = std::mem::take(&mut self.position.window);
        let batches = window.batches as f64;
        let row = TrainRow {
            step: self.position.updates,
            epoch: self.position.epoch,
            lr: config.lr * factor,
            loss: window.loss / batches,
            grad_norm: window.grad_norm / window.updates as f64,
            images_per_second: window.images as f64 / window.seconds.max(1e-9),
            memory_mib: torch_ext::memory(device)
                .map_or(0.0, |m| m.peak_reserved as f64 / f64::from(1 << 20)),
            terms: window
                .terms
                .into_iter()
                .map(|(name, (sum, count))| (name, sum / count as f64))
                .collect(),
        };
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
        self.tensorboard.scalars(row.step, wall_time(), &scalars)?;
        Ok(Some(row))
    }

    fn save(&mut self) -> Result<()> {
        checkpoint::save(&self.run, &self.config, &self.learner, &self.position)?;
        self.tensorboard.flush()
    }

    fn prune(&self) -> Result<()> {
        let (keep, run) = (self.config.train.keep_every, &self.run);
        // Numbered checkpoints that are kept are those written at the end of every n-th epoch.
        let rows = if keep > 0 { run.metrics()? } else { Vec::new() };
        let kept: Vec<u64> = rows
            .iter()
            .filter_map(|row| match row {
                MetricsRow::Eval(row) if row.epoch % keep == 0 => Some(row.step),
                _ => None,
            })
            .collect();
        checkpoint::prune(run, &self.position, |step| kept.contains(&step))
    }
}
