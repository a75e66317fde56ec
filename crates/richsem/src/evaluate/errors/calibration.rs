//! Whether a score of 0.8 is right eight times in ten.

use hotcoco::metrics::calibration::{
    CalibrationBin, calibration_curve, calibration_error, scores_in_unit_interval,
};
use serde::{Deserialize, Serialize};

use super::super::{
    Matches,
    class_matches::{ClassMatches, Outcome},
};

/// Bins of equal width between 0 and 1.
const BINS: usize = 10;

/// Scores against the share of detections that find a box at IoU 0.50.
///
/// Detections that are not judged are left out, and so are those on crowds and ignored boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Expected calibration error: mean of |share − score| over bins, by their detections.
    pub ece: f64,
    /// Maximum calibration error: the largest of these. A bin of few detections may have it.
    pub mce: f64,
    /// Ten bins of scores.
    pub bins: Vec<Bin>,
    /// Expected calibration error of each class, in order of ids; `None` without judged detections.
    pub per_class: Vec<Option<f64>>,
}

/// The detections with scores in one range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lowest score in it.
    pub low: f64,
    /// Scores below this one; the last bin has 1 too.
    pub high: f64,
    /// Mean score; 0 of an empty bin.
    pub score: f64,
    /// Share that finds a box; 0 of an empty bin.
    pub share: f64,
    /// Number of detections.
    pub count: usize,
}

impl Matches {
    /// Calibration at IoU 0.50. `None` if a score is outside of 0 to 1, or nothing was judged.
    #[must_use]
    pub fn calibration(&self) -> Option<Calibration> {
        let (mut scores, mut right) = (vec![], vec![]);
        let mut per_class = Vec::with_capacity(self.classes.len());
        for class in &self.classes {
            let (of_class, right_of_class) = judged(class);
            scores_in_unit_interval(&of_class).ok()?;
            per_class.push((!of_class.is_empty()).then(|| {
                calibration_error(&calibration_curve(&of_class, &right_of_class, BINS)).0
            }));
            scores.extend(of_class);
            right.extend(right_of_class);
        }
        if scores.is_empty() {
            return None;
        }
        let bins = calibration_curve(&scores, &right, BINS);
        let (ece, mce) = calibration_error(&bins);
        let bins = bins.into_iter().map(|bin| {
            let CalibrationBin { bin_lower, bin_upper, avg_confidence, avg_accuracy, count } = bin;
            Bin {
                low: bin_lower,
                high: bin_upper,
                score: avg_confidence,
                share: avg_accuracy,
                count,
            }
        });
        Some(Calibration { ece, mce, bins: bins.collect(), per_class })
    }
}

/// Scores of a class's detections that count at IoU 0.50, and whether each finds a box.
fn judged(class: &ClassMatches) -> (Vec<f64>, Vec<bool>) {
    let outcomes = (0..class.scores.len()).map(|i| (class.scores[i], class.outcome(i, 0, 0)));
    outcomes
        .filter(|(_, outcome)| *outcome != Outcome::Ignored)
        .map(|(score, outcome)| (score, outcome == Outcome::Hit))
        .unzip()
}
