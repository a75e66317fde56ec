//! What goes wrong and what it costs: error types (TIDE), calibration, and AP without a limit that classes
//! share.

mod calibration;
mod pooled;
mod tide;
mod verdicts;

use serde::{Deserialize, Serialize};

pub use calibration::{Bin, Calibration};
pub use pooled::{Fixed, Pooled};
pub use tide::{ErrorKind, Tide, TideError};

use super::{Evaluator, Matches, batches::Chosen};
use crate::{Result, detections::Detection};

/// Errors of a detector, beside its metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Kinds of errors, and what AP50 would gain without each.
    pub tide: Tide,
    /// Whether scores are the probabilities that they look like. `None` if a score is outside of 0 to 1, or
    /// nothing was judged.
    pub calibration: Option<Calibration>,
    /// AP of the best 10,000 detections of each class, however many an image has.
    pub fixed: Fixed,
    /// AP of the same detections, those of all classes in one ranking.
    pub pooled: Pooled,
}

impl Evaluator {
    /// Looks at the errors of detections. `matches` are those of the same detections.
    ///
    /// Takes 37 bytes of memory for each judged detection, beside those of `matches`.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn errors(&self, detections: &[Detection], matches: &Matches) -> Result<Errors> {
        self.check_all(detections)?;
        let tide = self.tide(detections)?;
        let (kept, full) = pooled::best_of_classes(detections);
        let below_limit = self.truth.categories.len() - full;
        let all = Chosen { detections, kept: Some(&kept), per_image: usize::MAX };
        let unlimited = self.matches_of(all, usize::MAX)?;
        Ok(Errors {
            tide,
            calibration: matches.calibration(),
            fixed: Fixed::of(&unlimited, below_limit),
            pooled: Pooled::of(&unlimited),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
