//! Regions of a batch as the semantic branch's loss sees them, whatever detector they are of: queries of
//! DINO, pooled boxes of a two-stage detector.

use tch::Tensor;

use crate::semantic_branch::RegionFeatures;

/// Which regions are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those of every layer or stage, not of the last alone.
    pub every_layer: bool,
    /// Those that answer for no box, too.
    pub unmatched: bool,
}

/// Regions, and what they answer for. M of them are taught; they lie set by set.
#[derive(Debug)]
pub struct Regions {
    /// `[N, D]`: all regions.
    pub features: RegionFeatures,
    /// `[N, 4]`: where each looks, cxcywh relative to its image, without gradients.
    pub boxes: Tensor,
    /// `[M]` i64, where the features are: which of the N are taught.
    pub rows: Tensor,
    /// `[M]`: image of each.
    pub images: Vec<i64>,
    /// Of those in sets with targets, in their order: which of the batch's boxes, counted image by image, it
    /// answers for.
    pub targets: Vec<i64>,
    /// The sets.
    pub sets: Vec<RegionSet>,
}

/// Regions whose losses are one term.
#[derive(Debug)]
pub struct RegionSet {
    /// Suffix of its term's name.
    pub suffix: String,
    /// How many.
    pub count: usize,
    /// Whether each answers for a box; where not, all regions of the set are there.
    pub matched: bool,
    /// Divides the sum of its losses.
    pub normalizer: f64,
    /// `[W]` i64: the classes that the federated loss looks at there; none: all.
    pub classes: Option<Tensor>,
}
