//! What the network takes and gives in a training step, as lists of tensors: so that it can be recorded.

use tch::Tensor;

use crate::{
    detector::Detector,
    error::Result,
    models::{
        denoising::DenoisingQueries,
        dino::{Input, TrainingTensors},
    },
    precision::Precision,
};

/// A batch's images, and the denoising queries.
#[derive(Debug)]
pub(super) struct PassInput {
    /// `[B, 3, H, W]`, normalised.
    pub images: Tensor,
    /// `[B, H, W]`, true = padding.
    pub mask: Tensor,
    /// None where no image has a box.
    pub denoising: Option<DenoisingQueries>,
    /// See [`Input::few_tokens`].
    pub few_tokens: bool,
}

impl PassInput {
    /// All tensors, in an order that [`Self::with`] knows.
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let denoising = self.denoising.iter();
        let denoising = denoising.flat_map(|dn| [&dn.labels, &dn.used, &dn.references, &dn.groups]);
        [&self.images, &self.mask].into_iter().chain(denoising).collect()
    }

    /// The same with other tensors, in the order of [`Self::tensors`].
    fn with(&self, tensors: &[Tensor]) -> Self {
        let tensor = |i: usize| tensors[i].shallow_clone();
        Self {
            images: tensor(0),
            mask: tensor(1),
            denoising: self.denoising.as_ref().map(|dn| DenoisingQueries {
                layout: dn.layout,
                labels: tensor(2),
                used: tensor(3),
                references: tensor(4),
                groups: tensor(5),
            }),
            few_tokens: self.few_tokens,
        }
    }

    /// Runs the network, in the precision of the run. `buffers` are those of its parameters.
    ///
    /// # Errors
    /// As [`crate::models::dino::Dino::training_tensors`].
    pub(super) fn run(
        &self,
        detector: &Detector,
        precision: Precision,
        buffers: &[Tensor],
    ) -> Result<TrainingTensors> {
        let input = Input {
            text: detector.text.as_ref(),
            denoising: self.denoising.as_ref(),
            few_tokens: self.few_tokens,
            ..Input::new(&self.images, &self.mask)
        };
        precision.run_with(detector.device(), buffers, || detector.model.training_tensors(&input))
    }

    /// As [`Self::run`] on other tensors, for a recording.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) fn run_on(
        &self,
        tensors: &[Tensor],
        detector: &Detector,
        precision: Precision,
        buffers: &[Tensor],
    ) -> Result<Vec<Tensor>> {
        Ok(self.with(tensors).run(detector, precision, buffers)?.into_list())
    }
}

/// All that a recorded pass depends on besides the size of the images.
pub(super) fn recorded_with(
    images: usize,
    denoising: Option<&DenoisingQueries>,
    few_tokens: bool,
) -> [i64; 3] {
    [images as i64, denoising.map_or(0, |dn| dn.layout.slots), few_tokens.into()]
}
