//! How certain a metric is: 95 % intervals over images, by a jackknife that leaves out one group of images
//! after another.
//!
//! Images are put in order of their ids; image `i` (from 0) is in group `i mod 50`. So groups depend on
//! nothing but the annotation file, and two results files have the same ones. With fewer images than 50, each
//! is a group. Images of one video or burst are not independent, and the intervals are then too narrow.
//!
//! A metric is a mean over classes. Without group g, class k's AP moves by δ₍k,g₎, and by nothing if the group
//! has neither boxes nor detections of it. Of the groups, nₖ have boxes of the class. The metric moves by
//!
//! ```text
//! δ₍g₎ = (Σ over classes still there of √((nₖ − 1)/nₖ) · δ₍k,g₎ + Σ over classes gone of (mean − APₖ)) / classes still there
//! ```
//!
//! and the standard error is √(Σ (δ₍g₎ − δ̄)²). Where all groups have boxes of all classes, this is the usual
//! delete-group jackknife with its factor (G − 1)/G. The factor by class is that of a stratified jackknife: a
//! class of two boxes is a sample of two, not of fifty, and with the usual factor the intervals of rare
//! classes are too wide (98 to 99 % of them hold). The interval is the metric ± t standard errors, with
//! Student's t of as many degrees of freedom as groups have boxes of the metric's classes, less one.
//!
//! What it covers: other images for the *same* classes. A claim about rare classes in general is another one:
//! the t-interval over the classes' APs is for it ([`MetricInterval::over_classes`]). Neither covers another
//! training: for that there are studies over seeds.
//!
//! Why not a bootstrap: resampled AP of rare classes is biased upwards, and classes of one image vanish. For
//! the mean AP of 100 classes of 1 to 10 boxes, percentiles of a bootstrap cover 73 % instead of 95, these
//! intervals 95 to 98 (`tests_coverage`).

mod compare;
mod ranked;
mod replicates;

use serde::{Deserialize, Serialize};

pub use compare::{ClassDifference, Comparison, Difference};

use super::Matches;
use crate::{statistics::t_quantile, vocabulary::CategoryId};
pub(super) use ranked::RankedIntervals;
use replicates::{MetricValues, Moved, Replicates};

/// Groups of images, where there are so many images.
pub const GROUPS: usize = 50;

/// 95 % intervals of all average precisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Number of groups of images that were left out in turn.
    pub groups: usize,
    /// AP, AP50, AP75, APs, APm, APl, APr, APc, APf; those without a value too. Under OpenImages' protocol AP50,
    /// AP50_expanded, AP50r, AP50c, AP50f.
    pub metrics: Vec<MetricInterval>,
    /// AP of every class, in order of ids; AP50 under OpenImages' protocol.
    pub per_class: Vec<ClassInterval>,
}

/// A metric, how certain it is, and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricInterval {
    /// Name, as in the summary.
    pub name: String,
    /// The metric, a fraction. `None` where there is nothing to evaluate.
    pub value: Option<f64>,
    /// 95 % interval for these classes on other images, within 0 to 1. `None` if fewer than two groups have
    /// boxes, or if leaving out a group changes nothing: then the images say nothing on it.
    pub interval: Option<[f64; 2]>,
    /// 95 % t-interval of the mean over classes, within 0 to 1: for classes in general, of which these are a
    /// sample. `None` with fewer than two classes, or if their APs are all the same.
    pub over_classes: Option<[f64; 2]>,
    /// Classes that it is the mean of: those with boxes.
    pub classes: usize,
    /// Boxes that were to be found.
    pub boxes: usize,
}

/// AP of a class and its interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassInterval {
    /// Id in the annotation file.
    pub category_id: CategoryId,
    /// AP, a fraction. `None` without boxes.
    pub ap: Option<f64>,
    /// 95 % interval over images, within 0 to 1. `None` as in [`MetricInterval::interval`].
    pub interval: Option<[f64; 2]>,
}

impl Intervals {
    /// The interval of that name, if the metric has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&MetricInterval> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}

impl Matches {
    /// Number of groups of images.
    fn groups(&self) -> usize {
        self.images.min(GROUPS)
    }

    /// All average precisions, without intervals: names as in [`Intervals::metrics`].
    #[must_use]
    pub fn averages(&self) -> Vec<(String, Option<f64>)> {
        let replicates = Replicates::of(self, 0);
        replicates.metrics.iter().map(|m| (m.name.to_owned(), m.moved.value)).collect()
    }

    /// Intervals of all average precisions. The work is small beside the matching: no image is matched again.
    #[must_use]
    pub fn intervals(&self) -> Intervals {
        let replicates = Replicates::of(self, self.groups());
        let metrics = replicates.metrics.iter().map(MetricInterval::of).collect();
        let classes = self.classes.iter().zip(&replicates.per_class);
        let per_class = classes.map(|(class, moved)| ClassInterval::of(class.id, moved));
        Intervals { groups: self.groups(), metrics, per_class: per_class.collect() }
    }
}

impl MetricInterval {
    fn of(metric: &MetricValues) -> Self {
        Self {
            name: metric.name.to_owned(),
            value: metric.moved.value,
            interval: interval(&metric.moved).map(fraction),
            over_classes: over_classes(&metric.of_classes).map(fraction),
            classes: metric.of_classes.len(),
            boxes: metric.boxes,
        }
    }
}

impl ClassInterval {
    fn of(category_id: CategoryId, moved: &Moved) -> Self {
        Self { category_id, ap: moved.value, interval: interval(moved).map(fraction) }
    }
}

/// The interval of a value that moves so without each group.
fn interval(Moved { value, moves, filled }: &Moved) -> Option<[f64; 2]> {
    let value = (*value)?;
    let mean = moves.iter().sum::<f64>() / moves.len() as f64;
    let error = moves.iter().map(|by| (by - mean).powi(2)).sum::<f64>().sqrt();
    // Rounding alone makes moves of 1e-16.
    if *filled < 2 || error < 1e-12 {
        return None;
    }
    let half = t_quantile(filled - 1) * error;
    Some([value - half, value + half])
}

/// The t-interval of the mean of these values.
fn over_classes(values: &[f64]) -> Option<[f64; 2]> {
    let estimate = crate::statistics::Estimate::of(values)?;
    let [low, high] = [estimate.low?, estimate.high?];
    (high - low > 1e-12).then_some([low, high])
}

/// The part of an interval that a fraction can be in.
fn fraction([low, high]: [f64; 2]) -> [f64; 2] {
    [low.max(0.0), high.min(1.0)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
mod tests_coverage;
