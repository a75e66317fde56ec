//! The loss terms of a step.

use tch::Tensor;

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

/// Where in a run the step stands: the key of its random draws.
#[derive(Debug, Clone, Copy)]
pub struct StepKey {
    /// Seed of the run, as in its settings.
    pub seed: u64,
    /// Number of batches since the start of the run. With `accumulate` several batches make one
    /// update.
    pub micro_step: u64,
}
