//! Average precision and recall of boxes, by COCO's and LVIS's protocols; and by OpenImages'
//! ([`openimages`]) and Visual Genome's ([`visual_genome`]), which measure at one threshold.
//!
//! For COCO and LVIS, `hotcoco` matches and accumulates. On every case of the tests its numbers are those
//! of pycocotools and lvis-api, to ten digits. What it gets from here, and why:
//!
//! - Images are handed over in batches, so that memory holds one batch of records and about 20
//!   bytes a detection, not the whole results file twice (lvis-api needs tens of gigabytes for
//!   LVIS v1's validation set).
//! - LVIS knows no crowds: lvis-api never reads `iscrowd`, hotcoco does, so the flag is cleared.
//!   lvis-api's `ignore` flag is given as an area outside every range, which has the same effect.
//! - LVIS keeps the 300 best detections of an image over all classes before anything else, ties in
//!   file order. hotcoco's limit is fixed; ours is set by [`Evaluator::with_max_detections`].
//! - A ground-truth box with id 0 counts like any other. In both official evaluators a match with
//!   it reads as no match.

mod batches;
mod by_class;
mod class_matches;
mod curve;
pub mod details;
pub mod errors;
mod evaluator;
mod ground_truth;
pub mod intervals;
mod matches;
mod metrics;
pub mod openimages;
mod ranking;
mod state;
mod summary;
pub mod thresholds;
pub mod visual_genome;

use std::path::Path;

pub use crate::data::openimages::{ScoredBox, VerifiedLabel};
pub use details::Details;
pub use errors::Errors;
pub use evaluator::Evaluator;
pub use intervals::{Comparison, Intervals};
pub use matches::Matches;
pub use ranking::{Ranked, RankedClass, TrueBox};
pub(crate) use summary::MAIN;
pub use summary::{ClassResult, Summary};
pub use thresholds::Thresholds;

use serde::{Deserialize, Serialize};

use crate::{Result, data::dataset::Dataset, detections::Detection};

/// The rules that decide what counts as a false positive, and which metrics there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every class is annotated in every image; 100 detections an image and class.
    Coco,
    /// An image judges only the classes it shows and those verified absent (`neg_category_ids`);
    /// 300 detections an image. arXiv 1908.03195.
    Lvis,
    /// OpenImages' challenge of 2019: AP at IoU 0.5; an image judges the classes it shows and those
    /// verified, of which groups of objects and a hierarchy are part ([`openimages`]).
    OpenImages,
    /// COCO's metrics, and beside them those of Visual Genome's 1600 classes ([`visual_genome`]).
    #[serde(rename = "visual-genome", alias = "visualgenome")]
    VisualGenome,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Coco => "COCO",
            Self::Lvis => "LVIS",
            Self::OpenImages => "OpenImages",
            Self::VisualGenome => "Visual Genome",
        })
    }
}

/// Evaluates detections against an annotation file; `None` takes the protocol from the file
/// (LVIS where its images list verified classes). To evaluate repeatedly, keep an [`Evaluator`].
///
/// # Errors
/// Those of [`Dataset::open`], [`Evaluator::of_as`] and [`Evaluator::evaluate`].
pub fn evaluate(
    ground_truth: &Path,
    detections: &[Detection],
    protocol: Option<Protocol>,
) -> Result<Summary> {
    Evaluator::of_as(&Dataset::open(ground_truth)?, protocol)?.evaluate(detections)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_official;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_random;
