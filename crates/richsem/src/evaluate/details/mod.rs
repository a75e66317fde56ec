//! What a report shows of an evaluation beside its numbers: precision over recall, F1 over the score, which
//! classes are taken for which, and the worst mistakes.

mod curves;
mod mistakes;

use serde::{Deserialize, Serialize};

pub use curves::{OperatingPoint, OverScores, PrecisionRecall};
pub use mistakes::{Confusion, ConfusionCell, Example, JudgedBox};

use super::{Evaluator, Matches, Protocol, Summary};
use crate::{Result, detections::Detection};

/// The score from which on detections are used where none is better than another.
pub const USUAL_SCORE: f64 = 0.3;

/// Curves, confusions and examples of one evaluation. All at IoU 0.50 but for the curves that say otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// From this score on detections count in [`Self::confusion`], [`Self::misses`] and
    /// [`Self::false_alarms`]: the one with the best F1 of all classes together, as
    /// [`super::Thresholds::global`]. [`USUAL_SCORE`] where nothing is found.
    pub score: f64,
    /// Of all classes at IoU 0.50 and 0.75, then of each frequency group at 0.50; those without boxes are left
    /// out.
    pub precision_recall: Vec<PrecisionRecall>,
    /// Of all classes together, then of each frequency group. Empty if a score is outside of 0 to 1.
    pub over_scores: Vec<OverScores>,
    /// What boxes and detections were taken for.
    pub confusion: Confusion,
    /// The largest boxes that are not found, the worst first.
    pub misses: Vec<Example>,
    /// The false positives with the highest scores, the worst first.
    pub false_alarms: Vec<Example>,
}

impl Evaluator {
    /// [`Self::evaluate_with_intervals`], with [`Summary::details`] where the protocol has matches.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_with_details(&self, detections: &[Detection]) -> Result<Summary> {
        if self.protocol == Protocol::OpenImages {
            return self.evaluate_with_intervals(detections);
        }
        let (mut summary, matches) = self.evaluate_and_match(detections)?;
        summary.intervals = Some(matches.intervals());
        summary.details = Some(self.details(detections, &matches)?);
        Ok(summary)
    }

    /// Looks closer at detections. `matches` are those of the same detections.
    ///
    /// # Errors
    /// As [`Self::matches`].
    pub fn details(&self, detections: &[Detection], matches: &Matches) -> Result<Details> {
        self.check_all(detections)?;
        let over_scores = matches.over_scores();
        let best = over_scores.first().and_then(|all| all.best);
        let score = best.map_or(USUAL_SCORE, |best| best.score);
        let mistakes = self.mistakes(detections, score)?;
        Ok(Details {
            score,
            precision_recall: matches.precision_recall(),
            over_scores,
            confusion: mistakes.confusion,
            misses: mistakes.misses,
            false_alarms: mistakes.false_alarms,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
