//! What the network takes in a training step, as lists of tensors: so that it can be recorded.

use tch::{Kind, Tensor};

use crate::{
    detector::Detector,
    error::Result,
    families::{Objective, TargetInput},
    models::network::{Images, PassForm},
    precision::Precision,
};

/// How a pass is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runner<'a> {
    pub objective: &'a Objective,
    pub detector: &'a Detector,
    pub precision: Precision,
    /// The optimizer's buffers, which hold the parameters.
    pub buffers: &'a [Tensor],
}

/// A batch's images, and what is made of its targets.
#[derive(Debug)]
pub(super) struct PassInput {
    /// `[B, 3, H, W]`, normalised.
    pub images: Tensor,
    /// `[B, H, W]`, true = padding.
    pub mask: Tensor,
    /// `[draws, B]`, see [`Images::draws`].
    pub draws: Option<Tensor>,
    /// Inputs made of the targets.
    pub targets: TargetInput,
    /// Which form of the pass these images need.
    pub form: PassForm,
    /// See [`Images::learns`].
    pub learns: bool,
}

impl PassInput {
    /// All tensors: images, mask, draws if there are any, then those of the targets.
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        let images = [&self.images, &self.mask].into_iter().chain(&self.draws);
        images.chain(self.targets.tensors()).collect()
    }

    /// The same with numbers of another kind.
    pub(super) fn of_kind(self, kind: Kind) -> Self {
        let cast =
            |x: &Tensor| if x.is_floating_point() { x.to_kind(kind) } else { x.shallow_clone() };
        let targets: Vec<Tensor> = self.targets.tensors().into_iter().map(cast).collect();
        Self {
            images: cast(&self.images),
            draws: self.draws.as_ref().map(cast),
            targets: self.targets.with(&targets),
            ..self
        }
    }

    /// Runs the network.
    ///
    /// # Errors
    /// As [`Objective::run`].
    pub(super) fn run(&self, runner: Runner) -> Result<Vec<Tensor>> {
        let images = Images {
            draws: self.draws.as_ref(),
            learns: self.learns,
            ..Images::new(&self.images, &self.mask)
        };
        self.run_targets(runner, images, &self.targets)
    }

    /// As [`Self::run`] on other tensors, in the order of [`Self::tensors`], for a recording.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) fn run_on(&self, tensors: &[Tensor], runner: Runner) -> Result<Vec<Tensor>> {
        let (images, targets) = tensors.split_at(2 + usize::from(self.draws.is_some()));
        let targets = self.targets.with(targets);
        let images = Images {
            draws: images.get(2),
            learns: self.learns,
            ..Images::new(&images[0], &images[1])
        };
        self.run_targets(runner, images, &targets)
    }

    fn run_targets(
        &self,
        Runner { objective, detector, precision, buffers }: Runner,
        images: Images,
        targets: &TargetInput,
    ) -> Result<Vec<Tensor>> {
        let text = detector.classes().text();
        precision.run_with(detector.device(), buffers, || {
            objective.run(detector.network(), images, self.form, text, targets)
        })
    }
}

/// All that a recorded pass depends on besides the size of the images.
pub(super) fn recorded_with(images: i64, targets: &TargetInput, form: PassForm) -> [i64; 3] {
    [images, targets.shape(), form.0]
}
