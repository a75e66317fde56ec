//! The loss terms of a step.

use tch::Tensor;

use crate::targets::Target;

/// Every loss term of a step.
#[derive(Debug)]
pub struct LossTerms {
    /// `loss_ce`, `loss_bbox`, `loss_giou`, `loss_semantic`, with the family's suffixes. DINO's are the
    /// reference's: none for the last layer, `_0` … for the others, `_interm`, `_dn`, `_dn_0` ….
    pub names: Vec<String>,
    /// `[len(names)]`: the value of each term, before its weight.
    pub values: Tensor,
    /// The weighted sum, a scalar with gradients.
    pub total: Tensor,
}

impl LossTerms {
    /// Adds other terms, and their total to this one.
    pub fn append(&mut self, more: Self) {
        self.names.extend(more.names);
        self.values = Tensor::cat(&[&self.values, &more.values], 0);
        self.total = &self.total + more.total;
    }
}

/// The batches of all processes at a step, taken as one: what is drawn at random, and which classes count, does
/// not depend on how the images are spread over processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeBatch {
    /// Where the step stands.
    pub key: StepKey,
    /// Number of this process's first image among all images of the step.
    pub first_image: u64,
    /// Most boxes of an image.
    pub most_boxes: usize,
    /// Classes with a box, sorted, each once.
    pub present: Vec<u32>,
}

impl WholeBatch {
    /// Of a process alone.
    #[must_use]
    pub fn of(key: StepKey, targets: &[Target]) -> Self {
        let mut present: Vec<u32> =
            targets.iter().flat_map(|t| t.labels.iter().map(|c| c.0)).collect();
        present.sort_unstable();
        present.dedup();
        let most_boxes = targets.iter().map(|t| t.boxes.len()).max().unwrap_or(0);
        Self { key, first_image: 0, most_boxes, present }
    }
}

/// Where in a run the step stands: the key of its random draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepKey {
    /// Seed of the run, as in its settings.
    pub seed: u64,
    /// Number of batches since the start of the run. With `accumulate` several batches make one
    /// update.
    pub micro_step: u64,
}
