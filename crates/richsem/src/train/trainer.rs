//! One run, from data to the last measurement.

use std::{
    collections::BTreeMap,
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
    Observer, Optimizer, Position, checkpoint, diagnose,
    run_folder::{EvalRow, MetricsRow, RunFolder, TrainRow},
    schedule::lr_factor,
};
use crate::{
    collective::{Collective, Single},
    config::{Config, Precision, SplitConfig},
    data::{
        batch::Batch,
        dataset::Dataset,
        detection_source::{BrokenImages, DetectionSource, ImageEntry, OnBroken, Transform},
        entries,
        image_store::ImageStore,
        loader::Loader,
        sampler::{LastBatch, Share},
    },
    detector::{Detector, autocast_kind},
    error::{Error, Result, guarded},
    evaluate::{Evaluator, Summary},
    losses::{Criterion, LossTerms, criterion::StepKey},
    models::{denoising::DenoisingQueries, dino::TrainingOutput},
    predict::{ReadAhead, detect_all, to_detections},
    random::{Random, Stream},
    tensorboard::EventWriter,
    vocabulary::Vocabulary,
};

/// A new run, or one to go on with.
#[derive(Debug)]
pub enum Start {
    /// A new run in that folder.
    New {
        /// Its settings.
        config: Box<Config>,
        /// Its folder, which must be empty or absent.
        folder: PathBuf,
    },
    /// The run of that folder, with the settings saved there.
    Resume(PathBuf),
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// All epochs are done; the last measurement, if there is a validation set.
    Finished(Option<Box<Summary>>),
    /// It was told to stop, and saved everything at this update.
    Stopped(u64),
}

/// One set of pictures, ready to be read.
struct Split {
    store: Arc<ImageStore>,
    entries: Arc<Vec<ImageEntry>>,
}

impl Split {
    fn open(dataset: &Dataset, config: &SplitConfig) -> Result<Self> {
        Ok(Self {
            store: Arc::new(ImageStore::open(&config.images)?),
            entries: Arc::new(entries(dataset)),
        })
    }
}

struct Trainer<'a> {
    config: Config,
    run: RunFolder,
    detector: Detector,
    optimizer: Optimizer,
    criterion: Criterion,
    collective: Box<dyn Collective>,
    train: Split,
    val: Option<(Split, Evaluator)>,
    broken: Arc<BrokenImages>,
    position: Position,
    tensorboard: EventWriter,
    observer: &'a mut dyn Observer,
    stop: &'a AtomicBool,
}

/// Trains until all epochs are done or `stop` is set.
///
/// # Errors
/// Whatever is wrong with settings, data or folder; a number that is not finite.
pub fn train(
    start: Start,
    device: Device,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let (config, folder, existing) = match start {
        Start::New { config, folder } => (*config, folder, None),
        Start::Resume(folder) => {
            let run = RunFolder::open(&folder)?;
            (run.config()?, folder, Some(run))
        }
    };
    let split = config.data.train.as_ref().ok_or_else(|| {
        Error::config("data.train", "missing: nothing to learn from")
            .with_hint("set data.train.annotations and data.train.images")
    })?;
    let dataset = Dataset::open(&split.annotations)?;
    observer.message(&format!("{}: {}", split.annotations.display(), dataset.report()));
    let vocabulary = dataset.vocabulary().clone();
    let train = Split::open(&dataset, split)?;
    drop(dataset);
    let val = match &config.data.val {
        None => None,
        Some(split) => {
            let dataset = Dataset::open(&split.annotations)?;
            observer.message(&format!("{}: {}", split.annotations.display(), dataset.report()));
            check_vocabularies(&vocabulary, &dataset)?;
            let evaluator = Evaluator::open(&split.annotations)?
                .with_max_detections(config.eval.max_detections as usize)
                .with_training_vocabulary(&vocabulary);
            Some((Split::open(&dataset, split)?, evaluator))
        }
    };

    torch_ext::set_tf32(config.train.precision != Precision::F32)?;
    let detector = Detector::new(&config, vocabulary.clone(), device)?;
    let mut optimizer = Optimizer::new(&detector.store, &config.train)?;
    let resumed = match &existing {
        None => None,
        Some(run) => checkpoint::resume(run, &detector, &mut optimizer)?,
    };
    if resumed.is_none()
        && let Some(path) = &config.model.dino.backbone.weights
    {
        crate::checkpoint_io::load_backbone(&detector.store, path)?;
        // The running mean starts at the loaded weights.
        optimizer.reset_ema();
        observer.message(&format!("backbone from {}", path.display()));
    }
    let run = match existing {
        Some(run) => run,
        None => RunFolder::create(&folder, &config, &vocabulary)?,
    };
    let position = resumed.unwrap_or_default();
    run.rewind(position.updates)?;
    observer.message(&format!(
        "{} trainable parameters on {device:?}; run folder {}",
        detector.store.trainable_count(),
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
        criterion: Criterion::new(config.loss.clone(), vocabulary.image_counts()),
        collective: Box::new(Single),
        broken: Arc::new(BrokenImages::new(config.data.max_broken_images)),
        config,
        run,
        detector,
        optimizer,
        train,
        val,
        position,
        tensorboard,
        observer,
        stop,
    };
    trainer.run()
}

fn wall_time() -> f64 {
    // Before 1970 only if the machine's clock is wrong: then 0 is as good.
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |t| t.as_secs_f64())
}

/// Every class that is measured must be one that is learned, under the same name.
///
/// # Errors
/// Naming the first class of `val` that is not.
pub fn check_vocabularies(train: &Vocabulary, val: &Dataset) -> Result<()> {
    for (i, category) in val.vocabulary().categories().iter().enumerate() {
        let known = train.class_of(category.id).map(|class| &train.category(class).name);
        if known != Some(&category.name) {
            let problem = match known {
                None => format!("id {} is not in the training set", category.id.0),
                Some(name) => format!(
                    "id {} is `{}` here and `{name}` in the training set",
                    category.id.0, category.name
                ),
            };
            return Err(Error::invalid(val.path(), format!("categories[{i}]"), problem)
                .with_hint("both files must number the same classes in the same way"));
        }
    }
    Ok(())
}

/// Number of reading threads: as configured, or the machine's cores up to 8.
#[must_use]
pub(crate) fn workers(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    std::thread::available_parallelism().map_or(2, |n| n.get().min(8))
}

/// Means of a logging window.
#[derive(Default)]
struct Window {
    started: Option<Instant>,
    batches: u64,
    images: usize,
    updates: u64,
    loss: f64,
    grad_norm: f64,
    terms: BTreeMap<String, f64>,
}

impl Trainer<'_> {
    fn run(mut self) -> Result<Outcome> {
        let epochs = self.config.train.epochs;
        let mut last = None;
        while self.position.epoch < epochs || self.position.pending_eval {
            if !self.position.pending_eval && self.epoch()?.is_break() {
                self.save()?;
                self.finish();
                return Ok(Outcome::Stopped(self.position.updates));
            }
            if self.position.pending_eval {
                match self.measure()? {
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
        Ok(Outcome::Finished(last))
    }

    fn finish(&mut self) {
        if let Some(summary) = self.broken.summary() {
            self.observer.message(&summary);
        }
    }

    /// One epoch, or what is left of it. Breaks when told to stop, after an update.
    fn epoch(&mut self) -> Result<ControlFlow<()>> {
        let (seed, epoch) = (self.config.seed, self.position.epoch);
        let classes: Vec<&[_]> = self.train.entries.iter().map(|e| e.labels.as_slice()).collect();
        let order = self.config.data.sampler.epoch_order(&classes, seed, epoch)?;
        let source = DetectionSource {
            store: Arc::clone(&self.train.store),
            entries: Arc::clone(&self.train.entries),
            order,
            share: Share {
                batch_size: self.config.data.batch_size,
                rank: self.collective.rank() as usize,
                world: self.collective.world() as usize,
                last: LastBatch::Drop,
            },
            transform: Transform::Train(self.config.data.augment.clone()),
            seed,
            epoch,
            pad_multiple: self.config.data.pad_multiple,
            broken: Arc::clone(&self.broken),
            on_broken: OnBroken::Replace,
        };
        let accumulate = self.config.train.accumulate;
        let batches = source.batches()? / accumulate * accumulate;
        if batches == 0 {
            let problem = format!("an epoch has fewer batches than the {accumulate} to average");
            return Err(Error::config("train.accumulate", problem));
        }
        let ahead = self.read_ahead();
        let positions = self.position.batch..batches;
        let loader = Loader::new(Arc::new(source), positions, ahead.workers, ahead.prefetch)?;
        self.observer.epoch(epoch, self.config.train.epochs, self.position.batch, batches);
        let mut window = Window::default();
        for batch in loader {
            let batch = batch?;
            for message in &batch.skipped {
                self.observer.message(&format!("skipped: {message}"));
            }
            if self.position.batch % accumulate == 0 {
                self.optimizer.zero_grad();
            }
            window.started.get_or_insert_with(Instant::now);
            let loss = self.accumulate(&batch, &mut window)?;
            self.position.batch += 1;
            self.position.micro_steps += 1;
            let updated = self.position.batch % accumulate == 0;
            let row = if updated { self.update(&batch, &mut window)? } else { None };
            self.observer.batch(loss, batch.len(), row.as_ref());
            if updated {
                let every = self.config.train.checkpoint_every;
                if self.stop.load(Ordering::Relaxed) && self.position.batch < batches {
                    return Ok(ControlFlow::Break(()));
                }
                if every > 0 && self.position.updates % every == 0 && self.position.batch < batches
                {
                    self.save()?;
                    self.prune()?;
                }
            }
        }
        self.position.epoch += 1;
        self.position.batch = 0;
        let (done, every) = (self.position.epoch, self.config.train.eval_every);
        let due = done == self.config.train.epochs || (every > 0 && done % every == 0);
        self.position.pending_eval = due && self.val.is_some();
        self.save()?;
        Ok(if self.stop.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    fn read_ahead(&self) -> ReadAhead {
        ReadAhead {
            workers: workers(self.config.data.workers),
            prefetch: self.config.data.prefetch,
        }
    }

    /// Adds a batch's gradients; the weighted objective.
    fn accumulate(&mut self, batch: &Batch, window: &mut Window) -> Result<f64> {
        let mut output = None;
        let losses = guarded(|| self.forward(batch, &mut output));
        let losses = match losses {
            Err(Error::NonFinite(_)) => return Err(self.non_finite(batch, output.as_ref(), None)),
            other => other?,
        };
        // The one transfer of a step besides the matching: every term, before anything is updated.
        let values = Vec::<f32>::try_from(losses.values.to_device(Device::Cpu))?;
        let loss = losses.total.double_value(&[]);
        if !loss.is_finite() {
            return Err(self.non_finite(batch, output.as_ref(), Some(&losses)));
        }
        guarded(|| Ok((&losses.total / self.config.train.accumulate as f64).backward()))?;
        window.batches += 1;
        window.images += batch.len();
        window.loss += loss;
        for (name, value) in losses.names.into_iter().zip(values) {
            *window.terms.entry(name).or_default() += f64::from(value);
        }
        Ok(loss)
    }

    fn forward(&self, batch: &Batch, kept: &mut Option<TrainingOutput>) -> Result<LossTerms> {
        let device = self.detector.device();
        let (images, mask) = batch.normalize(device, &self.config.model.normalization())?;
        let key = StepKey { seed: self.config.seed, step: self.position.micro_steps };
        let mut random = Random::new(key.seed, Stream::Denoising, key.step, self.collective.rank());
        let classes = self.detector.vocabulary.len() as i64;
        let denoising = DenoisingQueries::new(
            &batch.targets,
            &self.config.model.denoising,
            classes,
            &mut random,
            device,
        );
        let kind = autocast_kind(self.config.train.precision);
        let text = self.detector.text.as_ref();
        let output = torch_ext::autocast(device, kind, || {
            self.detector.model.forward_train(&images, &mask, text, denoising.as_ref())
        })?;
        let output = kept.insert(output);
        self.criterion.forward(output, &batch.targets, key, self.collective.as_ref())
    }

    fn non_finite(
        &self,
        batch: &Batch,
        output: Option<&TrainingOutput>,
        losses: Option<&LossTerms>,
    ) -> Error {
        let step = self.position.updates + 1;
        diagnose::non_finite(
            &self.run,
            step,
            batch,
            &self.detector,
            output,
            losses,
            &self.optimizer,
        )
    }

    /// Clips and applies the gradients.
    fn update(&mut self, batch: &Batch, window: &mut Window) -> Result<Option<TrainRow>> {
        let norm = self.optimizer.clip().double_value(&[]);
        if !norm.is_finite() {
            let values = tch::Tensor::zeros([0], (tch::Kind::Float, Device::Cpu));
            let losses = LossTerms { names: Vec::new(), total: values.copy(), values };
            return Err(self.non_finite(batch, None, Some(&losses)));
        }
        let config = &self.config.train;
        let factor = lr_factor(config, self.position.epoch, self.position.updates);
        self.optimizer.step(factor)?;
        self.position.updates += 1;
        window.updates += 1;
        window.grad_norm += norm;
        if self.position.updates % config.log_every != 0 {
            return Ok(None);
        }
        let device = self.detector.device();
        let seconds = window.started.map_or(0.0, |t| t.elapsed().as_secs_f64());
        let batches = window.batches as f64;
        let row = TrainRow {
            step: self.position.updates,
            epoch: self.position.epoch,
            lr: config.lr * factor,
            loss: window.loss / batches,
            grad_norm: window.grad_norm / window.updates as f64,
            images_per_second: window.images as f64 / seconds.max(1e-9),
            memory_mib: torch_ext::memory(device)
                .map_or(0.0, |m| m.peak_allocated as f64 / f64::from(1 << 20)),
            terms: std::mem::take(&mut window.terms)
                .into_iter()
                .map(|(name, sum)| (name, sum / batches))
                .collect(),
        };
        *window = Window { started: Some(Instant::now()), ..Window::default() };
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
        checkpoint::save(&self.run, &self.detector, &mut self.optimizer, &self.position)?;
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

    /// Measures the weights that `last` holds. Breaks when told to stop; the measurement is then
    /// still pending.
    fn measure(&mut self) -> Result<ControlFlow<(), Summary>> {
        let Some((split, evaluator)) = &self.val else {
            return Err(Error::Other("a measurement is pending without data.val".into()));
        };
        let source = DetectionSource {
            store: Arc::clone(&split.store),
            entries: Arc::clone(&split.entries),
            order: (0..split.entries.len() as u32).collect(),
            share: Share {
                batch_size: self.config.eval.batch_size,
                rank: 0,
                world: 1,
                last: LastBatch::Short,
            },
            transform: Transform::Eval(self.config.data.resize.clone()),
            seed: self.config.seed,
            epoch: 0,
            pad_multiple: self.config.data.pad_multiple,
            broken: Arc::clone(&self.broken),
            on_broken: OnBroken::LeaveOut,
        };
        let (total, ahead) = (split.entries.len(), self.read_ahead());
        let (detector, observer, stop) = (&self.detector, &mut self.observer, self.stop);
        let mut detections = Vec::new();
        let mut done = 0;
        self.optimizer.with_ema(|| {
            guarded(|| {
                detect_all(detector, source, ahead, |image_id, _, found| {
                    let found = to_detections(image_id, &found, &detector.vocabulary);
                    detections.extend(found.into_iter().filter(|d| evaluator.knows(d.category_id)));
                    done += 1;
                    observer.evaluating(done, total);
                    if stop.load(Ordering::Relaxed) {
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })
            })
        })?;
        if self.stop.load(Ordering::Relaxed) {
            return Ok(ControlFlow::Break(()));
        }
        let summary = evaluator.evaluate(&detections)?;
        let (epoch, step) = (self.position.epoch, self.position.updates);
        let name = format!("eval/epoch-{epoch:04}.json");
        super::run_folder::write_text(&self.run.file(&name), &summary.to_json())?;
        let metrics: BTreeMap<String, Option<f64>> = summary.metrics.iter().cloned().collect();
        let scalars: Vec<(String, f32)> =
            metrics.iter().filter_map(|(k, v)| Some((format!("eval/{k}"), (*v)? as f32))).collect();
        let scalars: Vec<(&str, f32)> = scalars.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        self.tensorboard.scalars(step, wall_time(), &scalars)?;
        self.tensorboard.flush()?;
        let ap = summary.get("AP").unwrap_or(0.0);
        if self.position.best.is_none_or(|(best, _)| ap > best) {
            self.position.best = Some((ap, step));
            checkpoint::link_best(&self.run, step)?;
        }
        // Resuming before this line measures again; the row is then rewritten, not doubled.
        self.run.replace_eval(EvalRow { step, epoch, metrics })?;
        self.position.pending_eval = false;
        checkpoint::write_position(&self.run.file("checkpoints").join("last"), &self.position)?;
        self.observer.evaluated(epoch, &summary);
        Ok(ControlFlow::Continue(summary))
    }
}
