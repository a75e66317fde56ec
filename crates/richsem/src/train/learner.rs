//! What learns: the detector, its objective and its optimizer, one batch at a time.

use std::{cell::RefCell, sync::Arc};

use tch::{Device, Kind, Tensor};
use torch_ext::Download;

use super::{
    Optimizer, TrainingModel,
    labels::{LabelSource, StepLabels},
    pass::{PassInput, Runner, recorded_with},
    whole::{mean_of_all, whole_of_all},
};
use crate::{
    collective::Collective,
    config::Config,
    data::{batch::Batch, loader::BatchSource},
    detector::Detector,
    error::{Error, Result, guarded},
    families::{Objective, Step, TrainingOutput},
    losses::{
        semantic::{semantic_terms, target_boxes},
        terms::{LossTerms, StepKey, WholeBatch},
    },
    models::parameters::Role,
    precision::Precision,
    random::{Random, Stream},
    recordings::{At, Recordings},
    semantic_branch::{SemanticBranch, SemanticConfig, TargetBoxes},
    teacher::{self, OpenTeacher, SoftLabels},
    vocabulary::Vocabulary,
};

/// The detector in training.
#[derive(Debug)]
pub struct Learner {
    /// The detector, and the branch beside it.
    pub model: TrainingModel,
    /// Its optimizer, which holds the storage of its trainable parameters.
    pub optimizer: Optimizer,
    pub(super) objective: Objective,
    pub(super) semantic: Option<(SemanticConfig, LabelSource)>,
    /// Its weights are the EMA of the detector's; none without one.
    averaged: Option<Detector>,
    accumulate: u64,
    precision: Precision,
    collective: Arc<dyn Collective>,
    /// Of trained batch norms.
    pub(super) statistics: Vec<Tensor>,
    pub(super) recordings: RefCell<Recordings>,
    /// Of the parameters: f32, but in tests.
    pub(super) kind: Kind,
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
pub struct Intermediates {
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
    /// As [`Detector::new`], [`Optimizer::new`], [`crate::teacher::open`] and
    /// [`crate::prepared::Prepared::open`]; a branch without a teacher.
    pub fn new(
        config: &Config,
        vocabulary: Vocabulary,
        device: Device,
        collective: Arc<dyn Collective>,
    ) -> Result<Self> {
        Self::with_teacher(config, vocabulary, (device, collective), &teacher::open)
    }

    /// As [`Self::new`], with a teacher of one's own.
    ///
    /// # Errors
    /// As [`Self::new`]; those of `open_teacher`.
    pub fn with_teacher(
        config: &Config,
        vocabulary: Vocabulary,
        network: (Device, Arc<dyn Collective>),
        open_teacher: &OpenTeacher,
    ) -> Result<Self> {
        Self::of_kind(Kind::Float, config, vocabulary, network, open_teacher)
    }

    /// As [`Self::with_teacher`], in f64 where tests ask for it: there sums that are made in another order differ
    /// in their 16th digit.
    ///
    /// # Errors
    /// As [`Self::with_teacher`].
    #[doc(hidden)]
    pub fn of_kind(
        kind: Kind,
        config: &Config,
        vocabulary: Vocabulary,
        (device, collective): (Device, Arc<dyn Collective>),
        open_teacher: &OpenTeacher,
    ) -> Result<Self> {
        let labels = LabelSource::open(config, &vocabulary, device, open_teacher)?;
        config.train.precision.apply()?;
        let regions = config.semantic_branch().is_some();
        let counts = vocabulary.image_counts();
        let objective = Objective::new(&config.model, &config.loss, &counts, regions);
        let text = labels.as_ref().map(LabelSource::text);
        let place = (device, config.seed);
        let detector = Detector::new(&config.of_detector(), vocabulary, place, text)?;
        let semantic = match (config.semantic_branch(), labels) {
            (None, _) => None,
            (Some(semantic), Some(labels)) => Some((semantic.clone(), labels)),
            (Some(_), None) => {
                let problem = "the semantic branch learns from a teacher, and there is none";
                return Err(Error::config("teacher", problem)
                    .with_hint("set teacher.weights, or take [semantic] out"));
            }
        };
        let branch_of = |(semantic, labels): &(SemanticConfig, LabelSource)| {
            let (text, logit_scale) = labels.text();
            let (dim, projection) =
                (config.model.region_dim(), detector.network().class_projection());
            SemanticBranch::new(semantic, dim, text, logit_scale.exp(), projection, place)
        };
        let semantic_branch = semantic.as_ref().map(branch_of).transpose()?;
        let model = TrainingModel { detector, semantic_branch };
        if kind != Kind::Float {
            for mut parameter in model.parameters() {
                let other = parameter.tensor.f_detach()?.f_to_kind(kind)?;
                parameter.tensor.set_data(&other);
            }
        }
        let optimizer = guarded(|| Optimizer::new(model.parameters(), &config.train));
        let optimizer = optimizer.map_err(|error| {
            let count = model.detector.trainable_count();
            error.for_work(
                || format!("the optimizer's state of {count} parameters"),
                config.model.smaller(),
            )
        })?;
        let averaged = match optimizer.ema() {
            // The branch's parameters are among them, and no detector's.
            Some(mut ema) => {
                let own = model.detector.weights();
                ema.retain(|name, _| own.contains_key(name));
                Some(guarded(|| model.detector.over(ema))?)
            }
            None => None,
        };
        let statistics = model.parameters().into_iter().filter(|p| p.role == Role::Statistics);
        let statistics = statistics.map(|p| p.tensor).collect();
        let recordings = RefCell::new(model.detector.config().recordings(device));
        Ok(Self {
            model,
            optimizer,
            objective,
            semantic,
            averaged,
            accumulate: config.train.accumulate,
            precision: config.train.precision,
            collective,
            statistics,
            recordings,
            kind,
            loss_sum: RefCell::default(),
        })
    }

    /// These batches, with the soft labels that were prepared of them, if it learns from such.
    #[must_use]
    pub fn batches(&self, source: Arc<dyn BatchSource>) -> Arc<dyn BatchSource> {
        match &self.semantic {
            Some((_, labels)) => labels.around(source),
            None => source,
        }
    }

    /// What is evaluated and saved: the detector with the EMA of its weights, or, without one, as it is.
    #[must_use]
    pub fn evaluated(&self) -> &Detector {
        self.averaged.as_ref().unwrap_or(&self.model.detector)
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
    /// A process that failed or is gone; what libtorch refuses.
    pub fn prepare(&self, batch: &Batch, key: StepKey) -> Result<Prepared> {
        let whole = whole_of_all(self.collective(), batch, key)?;
        let prepared = guarded(|| {
            let detector = &self.model.detector;
            let mut recordings = self.recordings.borrow_mut();
            let device = detector.device();
            let common = recordings.on();
            let Batch { targets, supervision, .. } = batch;
            let step = Step { targets, supervision, whole: whole.clone() };
            let targets = self.objective.prepare(step, device, common);
            let form = detector.form(batch);
            let of = recorded_with(batch.len() as i64, &targets, form);
            let at = recordings.at(&of, batch.size());
            let normalization = detector.config().model.normalization();
            let (images, mask) =
                batch.normalize_to(device, &normalization, at.size(batch.size()))?;
            let draws = self.draws(batch.len(), &whole);
            let input = PassInput { images, mask, draws, targets, form, learns: true };
            let input = if self.kind == Kind::Float { input } else { input.of_kind(self.kind) };
            Ok(Prepared { whole, of, at, input })
        });
        prepared.map_err(|error| error.for_work(|| self.describe_step(batch), SMALLER_STEP))
    }

    /// Adds a batch's gradients, over `accumulate`, to those there are. All of it is queued, but for a matching
    /// that the host has to decide: the device is still at work when this returns.
    ///
    /// # Errors
    /// [`Error::NonFinite`] of a matching that the host decided, the gradients are then not to be used and
    /// `intermediates` say how far it came; what libtorch refuses.
    pub fn start(
        &self,
        batch: &Batch,
        prepared: Prepared,
        intermediates: &mut Intermediates,
    ) -> Result<PendingLoss> {
        let loss = guarded(|| {
            let Prepared { whole, of, at, input } = prepared;
            let mut recordings = self.recordings.borrow_mut();
            let size = at.size(batch.size());
            if let At::New(_) = at {
                self.record(&mut recordings, &of, size, &input);
            }
            let replay = match at {
                At::Own => None,
                At::Kept(_) | At::New(_) => recordings.replay(&of, size, &input.tensors())?,
            };
            let own;
            let tensors = match &replay {
                Some(replay) => replay.results(),
                None => {
                    own = input.run(self.runner(&self.optimizer.buffers()))?;
                    &own
                }
            };
            let output = self.objective.output(tensors, &input.targets);
            // A recording has its own copy, and only a teacher looks at them again.
            let images = self.semantic.is_some().then(|| input.images.shallow_clone());
            drop(input);
            let output = intermediates.output.insert(output);
            let losses = self.losses(batch, images.as_ref(), whole, output)?;
            let losses = intermediates.losses.insert(losses);
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
    pub fn backward(&self, batch: &Batch, key: StepKey) -> Result<BatchLoss> {
        let prepared = self.prepare(batch, key)?;
        self.start(batch, prepared, &mut Intermediates::default())?.wait()
    }

    /// What takes memory in a step.
    fn describe_step(&self, batch: &Batch) -> String {
        let boxes = batch.targets.iter().map(|target| target.boxes.len()).max().unwrap_or(0);
        format!(
            "a step on {} with at most {boxes} boxes, {}, in a network of {} parameters",
            batch.describe(),
            self.objective.describe(boxes),
            self.model.detector.trainable_count()
        )
    }

    /// How its passes are run; `buffers` are the optimizer's.
    pub(super) fn runner<'a>(&'a self, buffers: &'a [Tensor]) -> Runner<'a> {
        let (objective, detector) = (&self.objective, &self.model.detector);
        Runner { objective, detector, precision: self.precision, buffers }
    }

    /// What happened to the recorded passes that a user should know, once.
    pub fn take_news(&self) -> Option<String> {
        self.recordings.borrow_mut().take_news().or_else(|| self.evaluated().take_news())
    }

    /// What is random in a pass on that many images; none where nothing is.
    pub(super) fn draws(&self, images: usize, whole: &WholeBatch) -> Option<Tensor> {
        let count = self.model.detector.network().draws();
        if count == 0 {
            return None;
        }
        let WholeBatch { key, first_image, .. } = whole;
        let mut values = Vec::with_capacity(count * images);
        for image in 0..images as u64 {
            let item = first_image + image;
            let mut random = Random::new(key.seed, Stream::Backbone, key.micro_step, item);
            values.extend((0..count).map(|_| random.uniform() as f32));
        }
        let values = Tensor::from_slice(&values).view([images as i64, count as i64]);
        Some(torch_ext::upload(&values.transpose(0, 1).contiguous(), self.model.detector.device()))
    }

    /// All losses of a batch, in total as its set has them weigh.
    fn losses(
        &self,
        batch: &Batch,
        images: Option<&Tensor>,
        whole: WholeBatch,
        output: &TrainingOutput,
    ) -> Result<LossTerms> {
        let mut losses = self.unweighted(batch, images, whole, output)?;
        let weight = batch.supervision.loss_weight;
        if weight != 1.0 {
            losses.total = losses.total.g_mul_scalar(weight);
        }
        Ok(losses)
    }

    fn unweighted(
        &self,
        batch: &Batch,
        images: Option<&Tensor>,
        whole: WholeBatch,
        output: &TrainingOutput,
    ) -> Result<LossTerms> {
        let Batch { targets, supervision, .. } = batch;
        let step = Step { targets, supervision, whole };
        let pending = self.objective.start(output, step)?;
        let (Some((config, source)), Some(branch), Some(images), true) =
            (&self.semantic, &self.model.semantic_branch, images, supervision.semantic)
        else {
            let matched = pending.wait()?;
            let num_boxes = mean_of_all(self.collective(), matched.num_boxes())?;
            return matched.finish(num_boxes, None).map(|(losses, _)| losses);
        };
        let normalization = self.model.detector.config().model.normalization();
        let mut labels = StepLabels::new(source, batch, images, normalization);
        // Boxes that are known are labelled while the host matches.
        let mut known = None;
        if config.target_boxes == TargetBoxes::GroundTruth
            && targets.iter().any(|t| !t.boxes.is_empty())
        {
            known = Some(labels.of(&torch_ext::upload(&target_boxes(targets), images.device()))?);
        }
        let matched = pending.wait()?;
        let num_boxes = mean_of_all(self.collective(), matched.num_boxes())?;
        let (mut losses, regions) = matched.finish(num_boxes, Some(config.wanted()))?;
        let Some(mut regions) = regions else { return Ok(losses) };
        // Sets of all regions: their number is known here.
        for set in regions.sets.iter_mut().filter(|set| !set.matched) {
            set.normalizer = mean_of_all(self.collective(), set.normalizer)?;
        }
        let mut label = |boxes: &Tensor| match known.take() {
            Some(labels) => Ok(labels),
            None => labels.of(boxes),
        };
        losses.append(semantic_terms(config, branch, &regions, targets, &mut label)?);
        Ok(losses)
    }

    /// What the teacher says of a batch's own boxes, image by image; none without a teacher.
    ///
    /// # Errors
    /// What the teacher or libtorch refuses.
    pub fn soft_labels(&self, batch: &Batch) -> Result<Option<SoftLabels>> {
        let Some((_, labels)) = &self.semantic else { return Ok(None) };
        let detector = &self.model.detector;
        let normalization = detector.config().model.normalization();
        labels.of_batch(batch, detector.device(), &normalization).map(Some)
    }

    /// Clips and applies the gradients, queued behind what is queued by now. Where the gradient or the loss
    /// turns out not to be finite, the weights stay as they are; the run is over then, for the update was counted.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn start_update(&mut self, lr_factor: f64) -> Result<PendingUpdate> {
        guarded(|| {
            self.collective.mean_gradients(&self.optimizer.gradients())?;
            self.share_statistics()?;
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
                return Err(Error::non_finite("the gradient is not finite"));
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
    whole: WholeBatch,
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
            let mut values = Vec::<f64>::try_from(self.values.wait()?.f_to_kind(Kind::Double)?)?;
            let loss = values.pop().unwrap_or(f64::NAN);
            if !loss.is_finite() {
                return Err(Error::non_finite("the loss is not finite"));
            }
            Ok(BatchLoss { loss, terms: self.names.into_iter().zip(values).collect() })
        })
    }
}

/// An update whose norm is on its way to the host.
#[derive(Debug)]
pub struct PendingUpdate(Download);

/// What makes a step less.
const SMALLER_STEP: &str = "lower data.batch_size, data.augment.scales, the sizes in [model], \
                            or set train.precision = \"bf16\"";
