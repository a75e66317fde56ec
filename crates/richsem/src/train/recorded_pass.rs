//! The network's part of a training step, forward and backward, as two recorded CUDA graphs.
//!
//! What lies between them cannot be recorded: the matching is decided on the host, and how many boxes
//! there are changes from batch to batch. So the losses are computed as always, from results that are
//! the leaves of an autograd graph of their own; their gradients are the second graph's input.

use tch::Tensor;

use crate::{
    config::Precision,
    detector::{Detector, autocast_kind},
    error::Result,
    models::{
        denoising::DenoisingQueries,
        dino::{Input, TrainingTensors},
        parameters::Role,
    },
};

/// What a pass takes: a batch's pictures, and the denoising queries.
#[derive(Debug)]
pub(super) struct PassInput {
    /// `[B, 3, H, W]`, normalised.
    pub images: Tensor,
    /// `[B, H, W]`, true = padding.
    pub mask: Tensor,
    /// None where no picture has a box.
    pub denoising: Option<DenoisingQueries>,
    /// See [`Input::few_tokens`].
    pub few_tokens: bool,
}

impl PassInput {
    /// Everything that a recording depends on.
    pub(super) fn shapes(&self) -> Vec<i64> {
        let mut shapes = self.images.size();
        shapes.push(self.denoising.as_ref().map_or(0, |dn| dn.layout.slots));
        shapes.push(self.few_tokens.into());
        shapes
    }

    fn tensors(&self) -> Vec<&Tensor> {
        let denoising = self.denoising.iter();
        let denoising = denoising.flat_map(|dn| [&dn.labels, &dn.used, &dn.references, &dn.groups]);
        [&self.images, &self.mask].into_iter().chain(denoising).collect()
    }

    /// The same in memory of its own.
    fn copy(&self) -> Self {
        Self {
            images: self.images.copy(),
            mask: self.mask.copy(),
            denoising: self.denoising.as_ref().map(|dn| DenoisingQueries {
                layout: dn.layout,
                labels: dn.labels.copy(),
                used: dn.used.copy(),
                references: dn.references.copy(),
                groups: dn.groups.copy(),
            }),
            few_tokens: self.few_tokens,
        }
    }

    /// Runs the network, in the precision of the run.
    ///
    /// # Errors
    /// As [`crate::models::dino::Dino::training_tensors`].
    pub(super) fn run(&self, detector: &Detector, precision: Precision) -> Result<TrainingTensors> {
        let input = Input {
            text: detector.text.as_ref(),
            denoising: self.denoising.as_ref(),
            few_tokens: self.few_tokens,
            ..Input::new(&self.images, &self.mask)
        };
        torch_ext::autocast(detector.device(), autocast_kind(precision), || {
            detector.model.training_tensors(&input)
        })
    }
}

/// Both graphs for inputs of one shape.
#[derive(Debug)]
pub(super) struct RecordedPass {
    input: PassInput,
    /// Without gradients.
    output: TrainingTensors,
    /// Of the results that losses look at.
    grads: Vec<Tensor>,
    forward: torch_ext::CudaGraph,
    backward: torch_ext::CudaGraph,
}

/// What the losses look at. No gradient flows into a layer's input references: the semantic branch,
/// which labels boxes there, takes them as they are.
fn taught(tensors: &TrainingTensors) -> [&Tensor; 5] {
    let TrainingTensors { logits, boxes, interm_logits, interm_boxes, region_features, .. } =
        tensors;
    [logits, boxes, interm_logits, interm_boxes, region_features]
}

impl RecordedPass {
    /// Records both graphs. The gradients of the parameters go to where they are: they must be
    /// there, and stay where they are.
    ///
    /// # Errors
    /// What cannot be recorded; no room for a second copy of what a pass keeps.
    pub(super) fn record(
        detector: &Detector,
        input: &PassInput,
        precision: Precision,
    ) -> Result<Self> {
        let device = detector.device();
        let input = input.copy();
        let (forward, output) =
            torch_ext::CudaGraph::record(device, || input.run(detector, precision))?;
        let outputs = taught(&output).map(Tensor::shallow_clone);
        let grads = outputs.each_ref().map(Tensor::zeros_like);
        let trained: Vec<Tensor> = detector
            .store
            .parameters()
            .into_iter()
            .filter_map(|p| (p.role == Role::Trainable).then_some(p.tensor))
            .collect();
        let (backward, ()) = torch_ext::CudaGraph::record(device, || {
            torch_ext::backward(&outputs, &grads, &trained)
        })?;
        // The results alone are kept, and what the backward pass needed between the two is free.
        let output = output.map(Tensor::detach);
        Ok(Self { input, output, grads: grads.into(), forward, backward })
    }

    /// Runs the network on an input of the recorded shape. The results have no history: what
    /// gradients a loss gives them, [`Self::backward`] takes on.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn forward(&self, input: &PassInput) -> Result<TrainingTensors> {
        torch_ext::no_grad(|| -> Result<()> {
            for (place, value) in self.input.tensors().into_iter().zip(input.tensors()) {
                place.shallow_clone().f_copy_(value)?;
            }
            Ok(())
        })?;
        self.forward.replay()?;
        Ok(self.output.map(|x| x.detach().set_requires_grad(true)))
    }

    /// Adds the gradients of the parameters, from those of the results.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn backward(&self, results: &TrainingTensors) -> Result<()> {
        torch_ext::no_grad(|| -> Result<()> {
            for (place, result) in self.grads.iter().zip(taught(results)) {
                let (mut place, grad) = (place.shallow_clone(), result.grad());
                match grad.defined() {
                    true => place.f_copy_(&grad)?,
                    false => place.f_zero_().map(drop)?,
                }
            }
            Ok(())
        })?;
        Ok(self.backward.replay()?)
    }
}
