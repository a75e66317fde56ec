//! TIDE's kinds of errors (arXiv 2008.08115), by hotcoco, whose rules are tidecv's.

use std::collections::HashSet;

use hotcoco::params::{IouType, Params};
use serde::{Deserialize, Serialize};

use super::super::{
    Evaluator, Protocol,
    batches::{Batch, Rules, engine},
};
use crate::{Result, detections::Detection};

/// From this overlap on a box is found.
const FOUND: f64 = 0.5;

/// Up to this overlap with every box a detection shows background.
const BACKGROUND: f64 = 0.1;

/// Kinds of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// Well placed on a box of another class.
    Class,
    /// The right class, an overlap of 0.1 to 0.5 with its box.
    Location,
    /// Another class, an overlap of 0.1 to 0.5.
    Both,
    /// The box is found already, with a better score.
    Duplicate,
    /// An overlap of at most 0.1 with every box.
    Background,
    /// A box that no detection finds, nor would after its class or place is corrected.
    Missed,
}

impl ErrorKind {
    /// All kinds, in the order to be shown, with the engine's names.
    const ALL: [(Self, &str); 6] = [
        (Self::Class, "Cls"),
        (Self::Location, "Loc"),
        (Self::Both, "Both"),
        (Self::Duplicate, "Dupe"),
        (Self::Background, "Bkg"),
        (Self::Missed, "Miss"),
    ];

    /// What it is, in a few words.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Class => "wrong class",
            Self::Location => "badly placed",
            Self::Both => "wrong class and badly placed",
            Self::Duplicate => "found twice",
            Self::Background => "nothing is there",
            Self::Missed => "not found",
        }
    }
}

/// Errors at IoU 0.50 by kind.
///
/// Only what is judged counts: under LVIS's rules, a detection of a class of which the image says nothing is
/// no error, nor is one that finds nothing where not all of its class are annotated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tide {
    /// AP50, as in the summary.
    pub ap50: f64,
    /// Each kind, in a fixed order.
    pub errors: Vec<TideError>,
    /// What AP50 would gain if no false positive were there.
    pub false_positives: f64,
    /// What AP50 would gain if no box were missed.
    pub false_negatives: f64,
    /// Detections that were judged.
    pub judged: usize,
}

/// Errors of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TideError {
    /// Which kind.
    pub kind: ErrorKind,
    /// What AP50 would gain if these alone were mended, a fraction. Gains do not add up.
    pub delta_ap: f64,
    /// How many there are, over all classes.
    pub count: u64,
}

impl Evaluator {
    pub(super) fn tide(&self, detections: &[Detection]) -> Result<Tide> {
        let mut all = Batch::of(self.truth.images.len());
        self.each_batch(self.all_of(detections), |batch| {
            let judged = self.judged(&batch);
            let Batch { images, truths, found } = batch;
            all.images.extend(images);
            all.truths.extend(truths);
            all.found.extend(
                found.into_iter().zip(judged).filter_map(|(d, judged)| judged.then_some(d)),
            );
            Ok::<_, crate::Error>(())
        })?;
        let judged = all.found.len();
        let mut areas = Params::new(IouType::Bbox).area_ranges;
        areas.truncate(1);
        let max_detections = self.per_class();
        let rules = Rules { max_detections, overlaps: vec![FOUND], areas };
        let result = self.match_records(all, &rules)?;
        let tide = result.tide_errors(FOUND, BACKGROUND).map_err(engine)?;
        let gain = |name: &str| tide.delta_ap.get(name).copied().unwrap_or(0.0);
        Ok(Tide {
            ap50: tide.ap_base,
            errors: ErrorKind::ALL
                .map(|(kind, name)| TideError {
                    kind,
                    delta_ap: gain(name),
                    count: tide.counts.get(name).copied().unwrap_or(0),
                })
                .into(),
            false_positives: gain("FP"),
            false_negatives: gain("FN"),
            judged,
        })
    }

    /// Whether each detection is of a class that its image judges: all under COCO's rules; under LVIS's, those
    /// that the image shows and those that are verified absent.
    fn judged(&self, batch: &Batch) -> Vec<bool> {
        if self.protocol != Protocol::Lvis {
            return vec![true; batch.found.len()];
        }
        let shown = batch.truths.iter().map(|truth| (truth.image_id, truth.category_id));
        let absent = batch
            .images
            .iter()
            .flat_map(|image| image.neg_category_ids.iter().map(|&class| (image.id, class)));
        let known: HashSet<(u64, u64)> = shown.chain(absent).collect();
        let judged = |d: &hotcoco::Annotation| known.contains(&(d.image_id, d.category_id));
        batch.found.iter().map(judged).collect()
    }
}
