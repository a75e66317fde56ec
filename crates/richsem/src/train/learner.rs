//! What learns: the detector, its objective and its optimizer, one batch at a time.

use tch::{Device, Tensor};

use super::Optimizer;
use crate::{
    collective::Collective,
    config::{Config, Precision},
    data::batch::Batch,
    detector::{Detector, autocast_kind},
    error::{Error, Result, guarded},
    losses::{Criterion, LossTerms, criterion::StepKey},
    models::{denoising::DenoisingQueries, dino::TrainingOutput},
    random::{Random, Stream},
    vocabulary::Vocabulary,
};

/// The detector in training.
#[derive(Debug)]
pub struct Learner {
    /// The detector.
    pub detector: Detector,
    /// Its optimizer, which holds the storage of its trainable parameters.
    pub optimizer: Optimizer,
    criterion: Criterion,
    collective: Box<dyn Collective>,
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
    /// With initial weights.
    ///
    /// # Errors
    /// As [`Detector::new`] and [`Optimizer::new`].
    pub fn new(
        config: &Config,
        vocabulary: Vocabulary,
        device: Device,
        collective: Box<dyn Collective>,
    ) -> Result<Self> {
        torch_ext::set_tf32(config.train.precision != Precision::F32)?;
        let criterion = Criterion::new(config.loss.clone(), vocabulary.image_counts());
        let detector = Detector::new(config, vocabulary, device)?;
        let optimizer = Optimizer::new(&detector.store, &config.train)?;
        Ok(Self { detector, optimizer, criterion, collective })
    }

    /// The processes of this run.
    #[must_use]
    pub fn collective(&self) -> &dyn Collective {
        self.collective.as_ref()
    }

    /// Adds a batch's gradients, over `accumulate`, to those there are.
    ///
    /// # Errors
    /// [`Error::NonFinite`] before anything was added, `trace` then says how far it came; what
    /// libtorch refuses.
    pub fn backward(&self, batch: &Batch, key: StepKey, trace: &mut Trace) -> Result<BatchLoss> {
        guarded(|| {
            let losses = trace.losses.insert(self.forward(batch, key, &mut trace.output)?);
            // The one transfer of a step besides the matching: every term, before any gradient.
            let total = losses.total.detach().view([1]);
            let all = Tensor::cat(&[&losses.values, &total], 0).to_device(Device::Cpu);
            let mut values = Vec::<f32>::try_from(all)?;
            let loss = values.pop().map_or(f64::NAN, f64::from);
            if !loss.is_finite() {
                return Err(Error::NonFinite("the loss is not finite".into()));
            }
            let accumulate = self.detector.config.train.accumulate;
            (&losses.total / accumulate as f64).backward();
            let terms = losses.names.iter().cloned().zip(values.into_iter().map(f64::from));
            Ok(BatchLoss { loss, terms: terms.collect() })
        })
    }

    fn forward(
        &self,
        batch: &Batch,
        key: StepKey,
        kept: &mut Option<TrainingOutput>,
    ) -> Result<LossTerms> {
        let Detector { model, vocabulary, text, config, .. } = &self.detector;
        let device = self.detector.device();
        let (images, mask) = batch.normalize(device, &config.model.normalization())?;
        let rank = self.collective.rank();
        let mut random = Random::new(key.seed, Stream::Denoising, key.step, rank);
        let denoising = DenoisingQueries::new(
            &batch.targets,
            &config.model.denoising,
            vocabulary.len() as i64,
            &mut random,
            device,
        );
        let output = torch_ext::autocast(device, autocast_kind(config.train.precision), || {
            model.forward_train(&images, &mask, text.as_ref(), denoising.as_ref())
        })?;
        let output = kept.insert(output);
        self.criterion.forward(output, &batch.targets, key, self.collective.as_ref())
    }

    /// Clips and applies the gradients, and starts new ones. Returns their norm before clipping.
    ///
    /// # Errors
    /// [`Error::NonFinite`], with nothing applied; what libtorch refuses.
    pub fn update(&mut self, lr_factor: f64) -> Result<f64> {
        guarded(|| {
            let norm = self.optimizer.clip();
            if !norm.is_finite() {
                return Err(Error::NonFinite("the gradient is not finite".into()));
            }
            self.optimizer.step(lr_factor)?;
            self.optimizer.zero_grad();
            Ok(norm)
        })
    }
}
