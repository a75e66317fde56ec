//! What learns: the detector, its objective and its optimizer, one batch at a time.

use tch::{Device, Kind, Tensor};
use torch_ext::Download;

use std::cell::RefCell;

use super::{
    Optimizer, TrainingModel,
    pass::{PassInput, recorded_with},
};
use crate::{
    collective::Collective,
    config::Config,
    data::batch::{Batch, Normalization},
    detector::{Detector, SMALLER_NETWORK},
    error::{Error, Result, guarded},
    losses::{
        Criterion, LossTerms,
        criterion::StepKey,
        distillation::{semantic_terms, target_boxes},
    },
    models::{
        denoising::DenoisingQueries,
        dino::{TrainingOutput, TrainingTensors},
    },
    prepared::{LabelSource, Prepared as PreparedLabels},
    random::{Random, Stream},
    recordings::{At, Recordings},
    semantic_branch::{SemanticBranch, SemanticConfig, TargetBoxes},
    targets::Target,
    teacher::{self, SoftLabels, Teacher},
    vocabulary::Vocabulary,
};

/// The detector in training.
#[derive(Debug)]
pub struct Learner {
    /// The detector, and the branch beside it.
    pub model: TrainingModel,
    /// Its optimizer, which holds the storage of its trainable parameters.
    pub optimizer: Optimizer,
    criterion: Criterion,
    pub(super) semantic: Option<(SemanticConfig, LabelSource)>,
    accumulate: u64,
    collective: Box<dyn Collective>,
    pub(super) recordings: RefCell<Recordings>,
    /// Of the losses since the last update, `[1]`: not finite if one of them is not.
    loss_sum: RefCell<Option<Tensor>>,
}

/// What a batch gave.
#[derive(Debug)]
pub struct BatchLoss {
    /// The weighted objective.
    pub loss: f64,
    /// Every term by name, before weighting.
    pub terms: Vec<(String, f64)>,
}

/// How far a batch came, for the report when a number is not finite.
#[derive(Debug, Default)]
pub struct Trace {
    /// Of the forward pass.
    pub output: Option<TrainingOutput>,
    /// Of the criterion.
    pub losses: Option<LossTerms>,
}

impl Learner {
    /// With initial weights, and the teacher that the settings name, or what it said before. Its text
    /// is used if the class head has no table of its own, the rest if there is a semantic branch.
    ///
    /// # Errors
    /// As [`Detector::new`], [`Optimizer::new`], [`teacher::open`] and [`PreparedLabels::open`]; a branch
    /// without a teacher.
    pub fn new(
        config: &Config,
        vocabulary: Vocabulary,
        device: Device,
        collective: Box<dyn Collective>,
    ) -> Result<Self> {
        let labels = match &config.teacher {
            Some(teacher) if config.needs_teacher() => Some(match teacher.prepared {
                Some(_) => LabelSource::Prepared(Box::new(PreparedLabels::open(
                    config,
                    &vocabulary,
                    device,
                )?)),
                None => LabelSource::Teacher(teacher::open(teacher, &vocabulary, device)?),
            }),
            _ => None,
        };
        config.train.precision.apply()?;
        let criterion = Criterion::new(config.loss.clone(), &vocabulary.image_counts());
        let text = labels.as_ref().map(LabelSource::text);
        let detector = Detector::new(&config.of_detector(), vocabulary, device, text)?;
        let semantic = match (config.semantic_branch(), labels) {
            (None, _) => None,
            (Some(semantic), Some(labels)) => Some((semantic.clone(), labels)),
            (Some(_), None) => {
                let problem = "the semantic branch learns from a teacher, and there is none";
                return Err(Error::config("teacher", problem)
                    .with_hint("set teacher.weights, or take [semantic] out"));
            }
        };
        let semantic_branch = match &semantic {
            None => None,
            Some((semantic, labels)) => {
                let (text, logit_scale) = labels.text();
                Some(SemanticBranch::new(
                    semantic,
                    config.model.dino.transformer.hidden_dim,
                    text,
                    logit_scale.exp(),
                    detector.model.class_projection(),
                    (device, config.seed),
                )?)
            }
        };
        let model = TrainingModel { detector, semantic_branch };
        let optimizer = guarded(|| Optimizer::new(model.parameters(), &config.train));
        let optimizer = optimizer.map_err(|error| {
            let count = model.detector.store.trainable_count();
            error.for_work(
                || format!("the optimizer's state of {count} parameters"),
                SMALLER_NETWORK,
            )
        })?;
        let accumulate = config.train.accumulate;
        let recordings = RefCell::new(Recordings::of(&model.detector.config, device));
        let loss_sum = RefCell::default();
        Ok(Self {
            model,
            optimizer,
            criterion,
            semantic,
            accumulate,
            collective,
            recordings,
            loss_sum,
        })
    }

    /// What is left when training is over.
    #[must_use]
    pub fn into_detector(self) -> Detector {
        self.model.detector
    }

    /// The processes of this run.
    #[must_use]
    pub fn collective(&self) -> &dyn Collective {
        self.collective.as_ref()
    }

    /// What a step on a batch needs on the device, queued. Best while the device still works on the step
    /// before.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn prepare(&self, batch: &Batch, key: StepKey) -> Result<Prepared> {
        let prepared = guarded(|| {
            let detector = &self.model.detector;
            let mut recordings = self.recordings.borrow_mut();
            let denoising = self.denoising(&batch.targets, key, recordings.on());
            let few_tokens = detector.few_tokens(batch.targets.iter().map(|target| target.size));
            let of = recorded_with(batch.len(), denoising.as_ref(), few_tokens);
            let at = recordings.at(&of, batch.size());
            let normalization = detector.config.model.normalization();
            let (images, mask) =
                batch.normalize_to(detector.device(), &normalization, at.size(batch.size()))?;
            Ok(Prepared { key, of, at, input: PassInput { images, mask, denoising, few_tokens } })
        });
        prepared.map_err(|error| error.for_work(|| self.describe_step(batch), SMALLER_STEP))
    }

    /// Adds a batch's gradients, over `accumulate`, to those there are. All of it is queued, but for a matching
    /// that the host has to decide: the device is still at work when this returns.
    ///
    /// # Errors
    /// [`Error::NonFinite`] of a matching that the host decided, the gradients are then not to be used and
    /// `trace` says how far it came; what libtorch refuses.
    pub fn start(
        &self,
        batch: &Batch,
        prepared: Prepared,
        trace: &mut Trace,
    ) -> Result<PendingLoss> {
        let loss = guarded(|| {
            let Prepared { key, of, at, input } = prepared;
            let detector = &self.model.detector;
            let mut recordings = self.recordings.borrow_mut();
            let size = at.size(batch.size());
            if let At::New(_) = at {
                self.record(&mut recordings, &of, size, &input);
            }
            let replay = match at {
                At::Own => None,
                At::Kept(_) | At::New(_) => recordings.replay(&of, size, &input.tensors())?,
            };
            let tensors = match &replay {
                Some(replay) => TrainingTensors::from_list(replay.results()),
                None => input.run(
                    detector,
                    detector.config.train.precision,
                    &self.optimizer.buffers(),
                )?,
            };
            let layout = input.denoising.as_ref().map(|dn| dn.layout);
            // A recording has its own copy, and only a teacher looks at them again.
            let images = self.semantic.is_some().then(|| input.images.shallow_clone());
            drop(input);
            let output = trace.output.insert(TrainingOutput::new(tensors, layout));
            let losses = trace.losses.insert(self.losses(batch, images.as_ref(), key, output)?);
            (&losses.total / self.accumulate as f64).backward();
            if let Some(replay) = replay {
                replay.backward()?;
            }
            let total = losses.total.detach().view([1]);
            let values = torch_ext::download(&Tensor::f_cat(&[&losses.values, &total], 0)?)?;
            let mut sum = self.loss_sum.borrow_mut();
            *sum = Some(match sum.take() {
                Some(before) => before + total,
                None => total,
            });
            Ok(PendingLoss { names: losses.names.clone(), values })
        });
        loss.map_err(|error| error.for_work(|| self.describe_step(batch), SMALLER_STEP))
    }

    /// [`Self::prepare`], [`Self::start`] and the loss.
    ///
    /// # Errors
    /// As theirs; [`Error::NonFinite`] for the loss.
    pub fn backward(&self, batch: &Batch, key: StepKey, trace: &mut Trace) -> Result<BatchLoss> {
        self.start(batch, self.prepare(batch, key)?, trace)?.wait()
    }

    /// What takes memory in a step.
    fn describe_step(&self, batch: &Batch) -> String {
        let boxes = batch.targets.iter().map(|target| target.boxes.len()).max().unwrap_or(0);
        let model = &self.model.detector.config.model;
        let queries = model.dino.transformer.num_queries;
        let noised = model.denoising.queries(boxes as i64);
        format!(
            "a step on {} with at most {boxes} boxes, {queries} queries and {noised} denoising \
             queries each, in a network of {} parameters",
            batch.describe(),
            self.model.detector.store.trainable_count()
        )
    }

    /// What happened to the recorded passes that a user should know, once.
    pub fn take_news(&self) -> Option<String> {
        self.recordings.borrow_mut().take_news().or_else(|| self.model.detector.take_news())
    }

    /// As many for nearly all batches, where passes are recorded.
    pub(super) fn denoising(
        &self,
        targets: &[Target],
        key: StepKey,
        recorded: bool,
    ) -> Option<DenoisingQueries> {
        let Detector { vocabulary, config, .. } = &self.model.detector;
        let rank = self.collective.rank();
        let queries = config.model.dino.transformer.num_queries;
        DenoisingQueries::new(
            targets,
            &config.model.denoising,
            vocabulary.len() as i64,
            &mut Random::new(key.seed, Stream::Denoising, key.step, rank),
            self.model.detector.device(),
            |slots| match recorded {
                true => config.model.denoising.common_slots(slots, queries),
                false => slots,
            },
        )
    }

    fn losses(
        &self,
        batch: &Batch,
        images: Option<&Tensor>,
        key: StepKey,
        output: &TrainingOutput,
    ) -> Result<LossTerms> {
        let normalization = self.model.detector.config.model.normalization();
        let collective = self.collective.as_ref();
        let (targets, supervision) = (&batch.targets, &batch.supervision);
        let semantic = match (&self.semantic, &self.model.semantic_branch) {
            (Some((config, source)), Some(branch)) if supervision.semantic => {
                Some((config, source, branch))
            }
            _ => None,
        };
        let pending = self.criterion.start(output, targets, supervision, key, collective)?;
        let (Some((config, source, branch)), Some(images)) = (semantic, images) else {
            return pending.finish().map(|(losses, _)| losses);
        };
        let mut map = None;
        let mut ask = |boxes: &Tensor| {
            let teacher = match source {
                LabelSource::Teacher(teacher) => teacher,
                // Of the batch's own boxes: `prepared` refuses settings that ask for others.
                LabelSource::Prepared(prepared) => return prepared.label(batch),
            };
            let map = match &map {
                Some(map) => map,
                None => map.insert(teacher.encode(&pixels(images, &normalization)?)?),
            };
            teacher.label(map, boxes)
        };
        // Boxes that are known are labelled while the host matches.
        let mut known = None;
        if config.target_boxes == TargetBoxes::GroundTruth
            && targets.iter().any(|t| !t.boxes.is_empty())
        {
            let boxes = torch_ext::upload(&target_boxes(targets), images.device());
            known = Some(ask(&boxes)?);
        }
        let (mut losses, decisions) = pending.finish()?;
        let mut label = |boxes: &Tensor| match known.take() {
            Some(labels) => Ok(labels),
            None => ask(boxes),
        };
        losses.append(semantic_terms(config, branch, output, targets, &decisions, &mut label)?);
        Ok(losses)
    }

    /// What the teacher says of a batch's own boxes, image by image; none without a teacher.
    ///
    /// # Errors
    /// What the teacher or libtorch refuses.
    pub fn soft_labels(&self, batch: &Batch) -> Result<Option<SoftLabels>> {
        let teacher = match &self.semantic {
            None => return Ok(None),
            Some((_, LabelSource::Prepared(prepared))) => {
                return guarded(|| prepared.label(batch)).map(Some);
            }
            Some((_, LabelSource::Teacher(teacher))) => teacher,
        };
        let device = self.model.detector.device();
        let normalization = self.model.detector.config.model.normalization();
        label_batch(teacher.as_ref(), batch, device, &normalization).map(Some)
    }

    /// Clips and applies the gradients, queued behind what is queued by now. Where the gradient or the loss
    /// turns out not to be finite, the weights stay as they are; the run is over then, for the update was counted.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn start_update(&mut self, lr_factor: f64) -> Result<PendingUpdate> {
        guarded(|| {
            let norm = self.optimizer.clip()?;
            let finite = match self.loss_sum.borrow_mut().take() {
                Some(loss) => (&norm + loss.view([])).isfinite(),
                None => norm.isfinite(),
            };
            self.optimizer.step(lr_factor, Some(&finite.logical_not().to_kind(Kind::Float)))?;
            Ok(PendingUpdate(torch_ext::download(&norm.view([1]).to_kind(Kind::Float))?))
        })
    }

    /// Waits for an update, and starts new gradients. Returns the norm of the old ones before clipping.
    ///
    /// # Errors
    /// [`Error::NonFinite`], with the weights and gradients as they were; what libtorch refuses.
    pub fn finish_update(&mut self, update: PendingUpdate) -> Result<f64> {
        guarded(|| {
            let norm = update.0.wait()?.f_double_value(&[0])?;
            if !norm.is_finite() {
                return Err(Error::NonFinite("the gradient is not finite".into()));
            }
            self.optimizer.zero_grad();
            Ok(norm)
        })
    }

    /// [`Self::start_update`] and [`Self::finish_update`].
    ///
    /// # Errors
    /// As theirs.
    pub fn update(&mut self, lr_factor: f64) -> Result<f64> {
        let update = self.start_update(lr_factor)?;
        self.finish_update(update)
    }
}

/// A batch on the device; see [`Learner::prepare`].
#[derive(Debug)]
pub struct Prepared {
    key: StepKey,
    /// What its recording depends on besides the size.
    of: [i64; 3],
    at: At,
    input: PassInput,
}

/// A loss on its way to the host.
#[derive(Debug)]
pub struct PendingLoss {
    names: Vec<String>,
    /// The terms, then the weighted objective.
    values: Download,
}

impl PendingLoss {
    /// The loss.
    ///
    /// # Errors
    /// [`Error::NonFinite`]; what an earlier kernel failed with.
    pub fn wait(self) -> Result<BatchLoss> {
        guarded(|| {
            let mut values = Vec::<f32>::try_from(self.values.wait()?)?;
            let loss = values.pop().map_or(f64::NAN, f64::from);
            if !loss.is_finite() {
                return Err(Error::NonFinite("the loss is not finite".into()));
            }
            let terms = self.names.into_iter().zip(values.into_iter().map(f64::from));
            Ok(BatchLoss { loss, terms: terms.collect() })
        })
    }
}

/// An update whose norm is on its way to the host.
#[derive(Debug)]
pub struct PendingUpdate(Download);

/// What makes a step less.
const SMALLER_STEP: &str = "lower data.batch_size, data.augment.scales, model.denoising.number or the \
                            sizes in model.dino, or set train.precision = \"bf16\"";

/// What a teacher says of a batch's own boxes, image by image.
///
/// # Errors
/// What the teacher or libtorch refuses.
pub(crate) fn label_batch(
    teacher: &dyn Teacher,
    batch: &Batch,
    device: Device,
    normalization: &Normalization,
) -> Result<SoftLabels> {
    let labels = guarded(|| {
        let (images, _) = batch.normalize(device, normalization)?;
        let map = teacher.encode(&pixels(&images, normalization)?)?;
        let boxes = target_boxes(&batch.targets).f_to_device(device)?;
        teacher.label(&map, &boxes)
    });
    labels.map_err(|error| {
        error.for_work(
            || format!("the teacher's look at {}", batch.describe()),
            "lower data.batch_size, data.augment.scales, or the extra set's tile and augment, or set \
             teacher.precision = \"bf16\"",
        )
    })
}

/// What the teacher sees of a normalised batch, `[B, 3, H, W]` in [0, 1]: padding becomes the mean
/// colour, as in the reference.
pub(crate) fn pixels(images: &Tensor, normalization: &Normalization) -> Result<Tensor> {
    let (mean, std) = normalization.tensors(images.device());
    Ok(images.f_mul(&std)?.f_add(&mean)?)
}
