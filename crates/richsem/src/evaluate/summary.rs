//! The results of an evaluation, as plain data for tables, logs, reports and files.

use serde::{Deserialize, Serialize};

use super::{Comparison, Details, Errors, Intervals, Protocol};
use crate::vocabulary::{CategoryId, Frequency};

/// All metrics of one evaluation. Values are fractions (0.345, not 34.5); `None` where there was
/// nothing to evaluate, as for APr without rare classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The rules that the numbers follow.
    pub protocol: Protocol,
    /// Images of the ground truth.
    pub images: usize,
    /// Boxes of the ground truth, crowds and ignored ones included.
    pub boxes: usize,
    /// Number of detections that were evaluated.
    pub detections: usize,
    /// Names and values, in the official order. Both: AP, AP50, AP75, APs, APm, APl. LVIS: APr,
    /// APc, APf, AR@300, ARs@300, ARm@300, ARl@300. COCO: AR1, AR10, AR100, ARs, ARm, ARl, and APr,
    /// APc, APf where the classes' frequency groups are known.
    #[serde(with = "as_map")]
    pub metrics: Vec<(String, Option<f64>)>,
    /// One entry a category, in order of ids.
    pub per_class: Vec<ClassResult>,
    /// 95 % intervals of the average precisions, where they were asked for ([`super::Matches::intervals`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Intervals>,
    /// The differences to another results file, where it was asked for ([`super::Matches::compare`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// What the errors are and what they cost, where it was asked for ([`super::Evaluator::errors`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<Errors>,
    /// Curves, confusions and the worst mistakes, where they were asked for ([`super::Evaluator::details`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// Metrics that a run is judged by, the first that there is.
pub(crate) const MAIN: [&str; 2] = ["AP", "AP50"];

/// The results of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// Its id in the annotation file.
    pub category_id: CategoryId,
    /// Name in the annotation file.
    pub name: String,
    /// Its group by training images, where known.
    pub frequency: Option<Frequency>,
    /// Training images that show it, from the file or the training set's vocabulary; without
    /// either, images of this file.
    pub image_count: u32,
    /// Training boxes of it, from the same place.
    pub instance_count: u32,
    /// Boxes of it in the ground truth.
    pub boxes: u32,
    /// AP: mean over IoU 0.50 to 0.95. `None` without ground truth.
    pub ap: Option<f64>,
    /// AP at IoU 0.50. `None` without ground truth.
    pub ap50: Option<f64>,
}

impl Summary {
    /// The metric of that name, if the protocol has it and there was something to evaluate.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(n, _)| n == name).and_then(|(_, value)| *value)
    }

    /// The metric that a run is judged by: AP, or AP50 where the protocol has no other.
    #[must_use]
    pub fn main(&self) -> Option<f64> {
        MAIN.iter().find_map(|name| self.get(name))
    }

    /// Mean AP at IoU 0.50 over the evaluated classes of a frequency group. The official evaluators leave it
    /// out. It shows first whether a short training has learned anything.
    #[must_use]
    pub fn ap50_of(&self, group: Frequency) -> Option<f64> {
        let of_group = self.per_class.iter().filter(|c| c.frequency == Some(group));
        let evaluated: Vec<f64> = of_group.filter_map(|c| c.ap50).collect();
        (!evaluated.is_empty()).then(|| evaluated.iter().sum::<f64>() / evaluated.len() as f64)
    }

    /// As JSON: metrics as an object in the official order, absent values as null.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers, names and lists are always JSON")
    }
}

/// Metrics as a JSON object, their order kept.
mod as_map {
    use serde::{
        Deserializer, Serializer,
        de::{MapAccess, Visitor},
    };

    type Metrics = Vec<(String, Option<f64>)>;

    pub(super) fn serialize<S: Serializer>(metrics: &Metrics, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(metrics.iter().map(|(name, value)| (name, value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Metrics, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Metrics;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("metrics by name")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics, A::Error> {
                let mut metrics = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    metrics.push(entry);
                }
                Ok(metrics)
            }
        }
        from.deserialize_map(Object)
    }
}
