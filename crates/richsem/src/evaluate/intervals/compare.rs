//! Two results files against each other, image by image the same.

use serde::{Deserialize, Serialize};

use super::{
    super::Matches,
    interval, over_classes,
    replicates::{Moved, Replicates},
};
use crate::{
    error::{Error, Result},
    vocabulary::CategoryId,
};

/// The differences between two results files, evaluated on the same images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the second, for readers. [`Matches::compare`] leaves it empty.
    #[serde(default)]
    pub with: String,
    /// Number of groups of images that were left out in turn, in both.
    pub groups: usize,
    /// AP, AP50, AP75, APs, APm, APl, APr, APc, APf; those without a value too.
    pub metrics: Vec<Difference>,
    /// AP of every class, in order of ids.
    pub per_class: Vec<ClassDifference>,
}

/// A metric in both, and the first less the second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Name, as in the summary.
    pub name: String,
    /// The metric in the first, a fraction.
    pub first: Option<f64>,
    /// The metric in the second.
    pub second: Option<f64>,
    /// First less second.
    pub difference: Option<f64>,
    /// 95 % interval of the difference, for these classes on other images. `None` if fewer than two groups
    /// have boxes, or if leaving out a group changes nothing.
    pub interval: Option<[f64; 2]>,
    /// 95 % t-interval of the mean difference over classes: for classes in general.
    pub over_classes: Option<[f64; 2]>,
    /// Classes that it is the mean of.
    pub classes: usize,
    /// Boxes that were to be found.
    pub boxes: usize,
}

/// The AP of a class in both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassDifference {
    /// Id in the annotation file.
    pub category_id: CategoryId,
    /// First less second, a fraction. `None` without boxes.
    pub difference: Option<f64>,
    /// 95 % interval over images. Among many classes, one in twenty lies outside of zero by chance.
    pub interval: Option<[f64; 2]>,
}

impl Comparison {
    /// The difference in that metric.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Difference> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}

impl Matches {
    /// This less another, with 95 % intervals: both lose the same group of images at a time, so that what is
    /// hard or easy for both cancels.
    ///
    /// # Errors
    /// The other was matched with other images, classes or boxes, or by other rules.
    pub fn compare(&self, other: &Self) -> Result<Comparison> {
        let ids = |matches: &Self| matches.classes().map(|(id, ..)| id).collect::<Vec<_>>();
        let truths = |matches: &Self| -> Vec<Vec<_>> {
            matches.classes.iter().map(|class| class.truths.clone()).collect()
        };
        if self.protocol != other.protocol
            || self.images != other.images
            || ids(self) != ids(other)
            || truths(self) != truths(other)
        {
            return Err(Error::other(
                "two results are compared that were not evaluated on the same ground truth",
            )
            .with_hint("evaluate both with the same annotation file and protocol"));
        }
        let (ours, theirs) =
            (Replicates::of(self, self.groups()), Replicates::of(other, self.groups()));
        let metrics = ours.metrics.iter().zip(&theirs.metrics).map(|(a, b)| {
            let moved = a.moved.less(&b.moved);
            let by_class = a.of_classes.iter().zip(&b.of_classes).map(|(a, b)| a - b);
            Difference {
                name: a.name.to_owned(),
                first: a.moved.value,
                second: b.moved.value,
                difference: moved.value,
                interval: interval(&moved),
                over_classes: over_classes(&by_class.collect::<Vec<_>>()),
                classes: a.of_classes.len(),
                boxes: a.boxes,
            }
        });
        let metrics = metrics.collect();
        let classes = self.classes.iter().zip(ours.per_class.iter().zip(&theirs.per_class));
        let per_class = classes.map(|(class, (a, b))| {
            let moved = a.less(b);
            let (difference, interval) = (moved.value, interval(&moved));
            ClassDifference { category_id: class.id, difference, interval }
        });
        Ok(Comparison {
            with: String::new(),
            groups: self.groups(),
            metrics,
            per_class: per_class.collect(),
        })
    }
}

impl Moved {
    /// The difference of two values on the same images, which lose the same groups.
    fn less(&self, other: &Self) -> Self {
        Self {
            value: self.value.zip(other.value).map(|(a, b)| a - b),
            moves: self.moves.iter().zip(&other.moves).map(|(a, b)| a - b).collect(),
            filled: self.filled,
        }
    }
}
