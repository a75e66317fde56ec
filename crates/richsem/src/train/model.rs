//! What is trained: the detector, and the semantic branch beside it.

use crate::{
    detector::Detector,
    models::parameters::{Parameter, ParameterStore},
    semantic_branch::SemanticBranch,
};

/// The detector and what exists beside it in training only. Evaluation, prediction and saving take
/// the `detector`.
#[derive(Debug)]
pub struct TrainingModel {
    /// What is left after training.
    pub detector: Detector,
    /// Learns the teacher's soft labels; none: plain detection training.
    pub semantic_branch: Option<SemanticBranch>,
}

impl TrainingModel {
    /// Where parameters live.
    #[must_use]
    pub fn stores(&self) -> Vec<&ParameterStore> {
        let branch = self.semantic_branch.as_ref().map(SemanticBranch::store);
        std::iter::once(self.detector.store()).chain(branch).collect()
    }

    /// All parameters and buffers, the detector's first. Tensors are shared, not copied.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        self.stores().into_iter().flat_map(ParameterStore::parameters).collect()
    }
}
