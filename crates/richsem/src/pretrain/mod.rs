//! Training of a small CLIP from scratch on captioned images, to be a [`crate::teacher::Teacher`] where no
//! published CLIP knows the domain: contrastive image–text training (arXiv 2103.00020, section 2),
//! a ResNet with attention pool and a text transformer, written with OpenAI's key names.

mod batch;
mod captions;
mod config;
mod loss;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Instant,
};

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::{
    checkpoint_io::safetensors,
    error::{Error, Result, guarded, unless_stopped, write_atomically},
    models::{
        layers::l2_normalize,
        parameters::{ParameterStore, Role},
    },
    plural::counted,
    teacher::{
        clip::{Activation, Clip, ClipConfig, Hints, Tokenizer, Visual},
        made_for::{MadeFor, common_prompt},
    },
    train::Optimizer,
};
use batch::Canvases;

pub use captions::{CaptionSet, Captioned};
pub use config::{PretrainConfig, PretrainData, PretrainModel, PretrainSchedule};
pub use loss::contrastive_loss;

/// The largest factor on the cosines, as in CLIP.
const MOST_SCALE: f64 = 100.0;
/// Batches that are read before they are used.
const PREFETCH: usize = 4;
/// Images evaluated at once, and captions.
const EVALUATED_AT_ONCE: usize = 64;

/// One row of the metrics. Means are over the steps since the row before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PretrainRow {
    /// Number of steps made so far.
    pub step: u64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// Mean of the contrastive loss.
    pub loss: f64,
    /// Mean norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Factor on the cosines after the last step.
    pub scale: f64,
    /// Images that were trained on in a second, reading included.
    pub images_per_second: f64,
}

/// How often an image that was not trained on finds its own caption.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOut {
    /// Number of images that were evaluated.
    pub images: usize,
    /// Different captions among theirs, to choose from.
    pub captions: usize,
    /// Share of the images for which the likeliest caption is their own.
    pub top1: f64,
    /// The share by always choosing the most frequent caption.
    pub chance: f64,
}

/// What a pretraining reports to.
pub trait PretrainObserver {
    /// A line for the user.
    fn message(&mut self, text: &str);
    /// Called after each step. Every [`PretrainSchedule::log_every`] steps it gets a row.
    fn step(&mut self, done: u64, row: Option<&PretrainRow>);
}

/// A trained CLIP, with its metrics.
#[derive(Debug)]
pub struct Pretrained {
    store: ParameterStore,
    /// Sizes of the model. The norm of its backbone is trained.
    pub config: ClipConfig,
    /// Both encoders with their weights.
    pub clip: Clip,
    /// The rows of the metrics, first to last.
    pub rows: Vec<PretrainRow>,
    /// The evaluation, if some images were not trained on.
    pub held_out: Option<HeldOut>,
    settings: PretrainConfig,
    made_for: MadeFor,
}

/// Trains a CLIP from scratch.
///
/// # Errors
/// [`Error::Stopped`] once `stop` is set; settings that [`PretrainConfig::validate`] refuses; an
/// image that cannot be read; a loss or gradient that is not finite; what libtorch refuses.
pub fn pretrain(
    settings: &PretrainConfig,
    set: &CaptionSet,
    device: Device,
    observer: &mut dyn PretrainObserver,
    stop: &AtomicBool,
) -> Result<Pretrained> {
    settings.validate()?;
    settings.train.precision.apply()?;
    let (train, held_out) = set.split(settings.data.held_out, settings.seed);
    let (tokens, cut) = set.tokens(settings.model.context_length as usize);
    let mut message = format!(
        "{} with {}; {} held out to evaluate on",
        counted(set.images().len(), "image"),
        counted(set.captions().len(), "different caption"),
        held_out.len()
    );
    if cut > 0 {
        message += &format!(
            "; {} cut at {} tokens",
            counted(cut, "caption"),
            settings.model.context_length
        );
    }
    observer.message(&message);
    let config = settings.clip();
    let built = guarded(|| {
        let store = ParameterStore::new(device, settings.seed);
        let clip = Clip::new(&store.root(), &config);
        let optimizer = Optimizer::new(store.parameters(), &settings.optimizer())?;
        Ok((store, clip, optimizer))
    });
    let (store, clip, optimizer) = built.map_err(|error| {
        let less = "lower model.width, model.layers, model.text_width or model.text_layers";
        error.for_work(|| "the weights of the network".to_owned(), less)
    })?;
    observer.message(&format!(
        "{} trainable parameters on {}",
        store.trainable_count(),
        torch_ext::device_name(device)
    ));
    let mut run = Run { settings, set, tokens, device, clip, optimizer };
    let rows = run.train(&train, observer, stop)?;
    let held_out = run.evaluate(&held_out, stop)?;
    let settings = settings.clone();
    let prompt = common_prompt(set.captions().iter().map(String::as_str));
    let made_for =
        MadeFor { sides: settings.data.sides.clone(), templates: prompt.into_iter().collect() };
    Ok(Pretrained { store, config, clip: run.clip, rows, held_out, settings, made_for })
}

struct Run<'a> {
    settings: &'a PretrainConfig,
    set: &'a CaptionSet,
    /// By number of the caption.
    tokens: Vec<Vec<i64>>,
    device: Device,
    clip: Clip,
    optimizer: Optimizer,
}

impl Run<'_> {
    fn train(
        &mut self,
        of: &[usize],
        observer: &mut dyn PretrainObserver,
        stop: &AtomicBool,
    ) -> Result<Vec<PretrainRow>> {
        let (settings, set) = (self.settings, self.set);
        let steps = settings.train.steps;
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(PREFETCH);
            scope.spawn(move || {
                for step in 0..steps {
                    let batch = batch::training(set, of, &settings.data, settings.seed, step);
                    // Nobody takes it: the training has ended.
                    if stop.load(Ordering::Relaxed) || sender.send(batch).is_err() {
                        break;
                    }
                }
            });
            let mut rows = Vec::new();
            let (mut losses, mut norms, mut mark) = (0.0, 0.0, Instant::now());
            for step in 0..steps {
                unless_stopped(stop)?;
                let Ok(batch) = receiver.recv() else { return Err(Error::Stopped) };
                let factor = settings.lr_factor(step);
                let (loss, norm) = self.update(&batch?, factor).map_err(|error| match error {
                    Error::NonFinite { problem, .. } => {
                        Error::non_finite(format!("step {}: {problem}", step + 1))
                            .with_hint("lower train.lr")
                    }
                    other => other,
                })?;
                losses += loss;
                norms += norm;
                let since = (step % settings.train.log_every + 1) as f64;
                let due = (step + 1).is_multiple_of(settings.train.log_every) || step + 1 == steps;
                if due {
                    let images = since * settings.data.batch_size as f64;
                    rows.push(PretrainRow {
                        step: step + 1,
                        lr: settings.train.lr * factor,
                        loss: losses / since,
                        grad_norm: norms / since,
                        scale: self.clip.logit_scale.double_value(&[]).exp(),
                        images_per_second: images / mark.elapsed().as_secs_f64().max(1e-9),
                    });
                    (losses, norms, mark) = (0.0, 0.0, Instant::now());
                }
                observer.step(step + 1, rows.last().filter(|_| due));
            }
            Ok(rows)
        })
    }

    /// One update; the loss and the gradient's norm.
    fn update(&mut self, batch: &Canvases, lr_factor: f64) -> Result<(f64, f64)> {
        let done = guarded(|| {
            // Each different caption is read once.
            let mut different = batch.captions.clone();
            different.sort_unstable();
            different.dedup();
            let rows: Vec<i64> = batch
                .captions
                .iter()
                .map(|c| different.partition_point(|d| d < c) as i64)
                .collect();
            let rows = Tensor::f_from_slice(&rows)?.f_to_device(self.device)?;
            let images = self.images(batch, true)?;
            let texts = self.texts(&different)?.f_index_select(0, &rows)?;
            let loss = contrastive_loss(&images, &texts, &rows, &self.clip.logit_scale);
            let value = loss.f_double_value(&[])?;
            if !value.is_finite() {
                return Err(Error::non_finite(format!("the loss is {value}")));
            }
            loss.f_backward()?;
            let norm = self.optimizer.clip()?.f_double_value(&[])?;
            if !norm.is_finite() {
                return Err(Error::non_finite("the gradient is not finite"));
            }
            self.optimizer.step(lr_factor, None)?;
            self.optimizer.zero_grad();
            let mut scale = self.clip.logit_scale.shallow_clone();
            let _ = torch_ext::no_grad(|| scale.f_clamp_max_(MOST_SCALE.ln()))?;
            Ok((value, norm))
        });
        done.map_err(|error| {
            let images = batch.captions.len();
            error.for_work(
                || format!("a step on {images} images"),
                "lower data.batch_size or data.sides",
            )
        })
    }

    /// Embeddings of a batch's images, `[N, D]` f32, of length one.
    fn images(&self, batch: &Canvases, train: bool) -> Result<Tensor> {
        let Visual::Resnet(visual) = &self.clip.visual else {
            unreachable!("`PretrainConfig::clip` asks for a ResNet");
        };
        let (pixels, boxes) = batch.upload(self.device)?;
        let kind = self.settings.train.precision.kind();
        let features = torch_ext::autocast(self.device, kind, || {
            visual.embed_boxes(&visual.dense(&pixels, train)?, &boxes)
        })?;
        Ok(l2_normalize(&features.f_to_kind(Kind::Float)?))
    }

    /// Embeddings of captions by their numbers, `[N, D]` f32, of length one.
    fn texts(&self, captions: &[usize]) -> Result<Tensor> {
        let Some(encoder) = &self.clip.text else {
            unreachable!("`PretrainConfig::clip` asks for a text encoder");
        };
        let longest = captions.iter().map(|&c| self.tokens[c].len()).max().unwrap_or(0);
        let ids: Vec<i64> = captions
            .iter()
            .flat_map(|&c| {
                let ids = &self.tokens[c];
                ids.iter().copied().chain(std::iter::repeat_n(0, longest - ids.len()))
            })
            .collect();
        let ids = Tensor::f_from_slice(&ids)?.f_view([captions.len() as i64, longest as i64])?;
        let ids = ids.f_to_device(self.device)?;
        let kind = self.settings.train.precision.kind();
        let features = torch_ext::autocast(self.device, kind, || encoder.forward(&ids));
        Ok(l2_normalize(&features.f_to_kind(Kind::Float)?))
    }

    /// For each held-out image, which caption of the held-out images is likeliest.
    fn evaluate(&self, of: &[usize], stop: &AtomicBool) -> Result<Option<HeldOut>> {
        let caption_of = |&at: &usize| self.set.images()[at].caption;
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for caption in of.iter().map(caption_of) {
            *counts.entry(caption).or_default() += 1;
        }
        let Some(most) = counts.values().max() else { return Ok(None) };
        let different: Vec<usize> = counts.keys().copied().collect();
        let mut right = 0;
        guarded(|| {
            torch_ext::no_grad(|| {
                let texts = different.chunks(EVALUATED_AT_ONCE).map(|part| self.texts(part));
                let texts = Tensor::f_cat(&texts.collect::<Result<Vec<_>>>()?, 0)?;
                for part in of.chunks(EVALUATED_AT_ONCE) {
                    unless_stopped(stop)?;
                    let side = self.settings.model.resolution as u32;
                    let batch = batch::whole(self.set, part, side)?;
                    let cosines =
                        self.images(&batch, false)?.f_matmul(&texts.f_transpose(0, 1)?)?;
                    let best =
                        Vec::<i64>::try_from(cosines.f_argmax(1, false)?.to_device(Device::Cpu))?;
                    let hit =
                        |(best, at): (i64, &usize)| different[best as usize] == caption_of(at);
                    right += best.into_iter().zip(part).filter(|&pair| hit(pair)).count();
                }
                Ok(())
            })
        })?;
        let n = of.len() as f64;
        Ok(Some(HeldOut {
            images: of.len(),
            captions: different.len(),
            top1: right as f64 / n,
            chance: *most as f64 / n,
        }))
    }
}

impl Pretrained {
    /// Where the metrics of weights at `out` go: `teacher.safetensors` → `teacher.metrics.jsonl`.
    #[must_use]
    pub fn metrics_path(out: &Path) -> PathBuf {
        out.with_extension("metrics.jsonl")
    }

    /// Writes the weights, with OpenAI's key names and the settings beside them, and the metrics,
    /// one JSON object a line. Tables and kernels are written in 16 bits, norms and biases in 32.
    ///
    /// # Errors
    /// An unwritable folder, a full disk; nothing half-written is left.
    pub fn save(&self, out: &Path) -> Result<()> {
        let json = |e: serde_json::Error| Error::other(format!("{}: {e}", out.display()));
        let mut lines = String::new();
        for row in &self.rows {
            lines += &(serde_json::to_string(row).map_err(json)? + "\n");
        }
        if let Some(held_out) = &self.held_out {
            let row = serde_json::json!({ "held_out": held_out });
            lines += &(row.to_string() + "\n");
        }
        let tensors = self.store.parameters().into_iter().map(|parameter| {
            let value = parameter.tensor.detach();
            let matrix = parameter.role == Role::Trainable && value.dim() >= 2;
            let value = if matrix { value.to_kind(Kind::Half) } else { value };
            (parameter.name, value)
        });
        let settings = serde_json::to_string(&self.settings).map_err(json)?;
        let mut metadata = safetensors::Metadata::from([
            ("format".to_owned(), "pt".to_owned()),
            ("tokenizer".to_owned(), Tokenizer::VERSION.to_owned()),
            ("pretraining".to_owned(), settings),
        ]);
        let hints = Hints { activation: Some(Activation::default()), ..Hints::default() };
        metadata.extend(hints.metadata());
        metadata.extend(self.made_for.metadata());
        safetensors::write(out, &tensors.collect(), &metadata)?;
        write_atomically(&Self::metrics_path(out), |file| Ok(file.write_all(lines.as_bytes())?))
    }
}
