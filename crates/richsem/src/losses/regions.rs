//! Regions of a batch, as the semantic branch's loss sees them: DINO's queries, or the pooled boxes of a
//! two-stage detector.

use tch::Tensor;

use crate::semantic_branch::RegionFeatures;

/// Which regions the semantic loss needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether regions of every layer or stage are needed, not only of the last.
    pub every_layer: bool,
    /// Whether regions are needed that are matched to no box.
    pub unmatched: bool,
}

/// Regions, and the boxes that they are matched to. M of them learn. They lie set by set.
#[derive(Debug)]
pub struct Regions {
    /// `[N, D]`: features of all regions.
    pub features: RegionFeatures,
    /// `[N, 4]`: where each looks, cxcywh relative to its image, without gradients.
    pub boxes: Tensor,
    /// `[M]` i64, on the device of the features: which of the N regions learn.
    pub rows: Tensor,
    /// `[M]`: number of each region's image in the batch.
    pub images: Vec<i64>,
    /// For the sets that are matched, in their order: the box of each region, counted over the
    /// batch image by image.
    pub targets: Vec<i64>,
    /// The sets, in the order of `rows`.
    pub sets: Vec<RegionSet>,
}

/// Regions whose losses are summed to one loss term.
#[derive(Debug)]
pub struct RegionSet {
    /// Suffix of its term's name.
    pub suffix: String,
    /// How many regions the set has.
    pub count: usize,
    /// Whether each region is matched to a box. If not, the set has all regions of the images.
    pub matched: bool,
    /// The sum of the losses is divided by this.
    pub normalizer: f64,
    /// `[W]` i64: the classes that the federated loss looks at there; none: all.
    pub classes: Option<Tensor>,
}
