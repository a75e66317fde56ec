//! Batches together with the prepared labels of their boxes: the loader's threads read both.

use std::sync::Arc;

use super::Prepared;
use crate::{
    data::{batch::Batch, loader::BatchSource},
    error::Result,
};

/// Another source's batches, with prepared labels.
pub struct PreparedSource {
    batches: Arc<dyn BatchSource>,
    labels: Arc<Prepared>,
}

impl PreparedSource {
    /// Adds labels to batches. `labels` must be of the sets that the batches are from.
    #[must_use]
    pub fn new(batches: Arc<dyn BatchSource>, labels: Arc<Prepared>) -> Self {
        Self { batches, labels }
    }
}

impl BatchSource for PreparedSource {
    fn build(&self, position: u64) -> Result<Batch> {
        let mut batch = self.batches.build(position)?;
        batch.soft_features = self.labels.read(&batch)?;
        Ok(batch)
    }

    fn shape(&self, position: u64) -> Option<[i64; 3]> {
        self.batches.shape(position)
    }
}
