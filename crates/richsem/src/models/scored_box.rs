//! What every family of detectors finds.

use serde::{Deserialize, Serialize};

use crate::{boxes::Xyxy, vocabulary::ClassIndex};

/// A detected object: box, class and score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScoredBox {
    /// The box, in pixels of the original image.
    pub bbox: Xyxy,
    /// The class it is taken for.
    pub class: ClassIndex,
    /// Probability of that class, in [0, 1].
    pub score: f32,
}
