//! The metrics of a whole results file.

use hotcoco::{
    COCOeval, EvalMode, StreamingEval,
    params::{IouType, Params},
    types,
};

use super::{
    ClassResult, Evaluator, Protocol, Summary,
    batches::{Batch, engine},
};
use crate::{Result, detections::Detection, vocabulary::Frequency};

/// Detections COCO's average recalls are computed with, per image and class.
pub(super) const COCO_MAX_DETECTIONS: [usize; 3] = [1, 10, 100];

impl Evaluator {
    /// All metrics of these detections. Their order matters only among equal scores.
    ///
    /// # Errors
    /// Those of [`Self::check`], and a number that is not finite, both naming the record as part
    /// of `detections`.
    pub fn evaluate(&self, detections: &[Detection]) -> Result<Summary> {
        if self.protocol == Protocol::OpenImages {
            return self.open_images(detections, false);
        }
        self.check_all(detections)?;
        let mut whole = self.engine().map_err(engine)?;
        self.each_batch(self.all_of(detections), |Batch { images, truths, found }| {
            whole.update(images, truths, found)
        })
        .map_err(engine)?;
        self.with_own_means(self.summary_of(whole, detections.len()), detections)
    }

    /// [`Self::evaluate`], with 95 % intervals of all average precisions ([`Summary::intervals`]).
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_with_intervals(&self, detections: &[Detection]) -> Result<Summary> {
        if self.protocol == Protocol::OpenImages {
            return self.open_images(detections, true);
        }
        let (mut summary, matches) = self.evaluate_and_match(detections)?;
        summary.intervals = Some(matches.intervals());
        Ok(summary)
    }

    /// The metrics of what an engine matched.
    pub(super) fn summary_of(&self, engine: StreamingEval, detections: usize) -> Summary {
        let mut result = engine.finalize();
        result.accumulate();
        self.summarize(&mut result, detections)
    }

    /// An engine that has matched nothing.
    pub(super) fn engine(&self) -> hotcoco::error::Result<StreamingEval> {
        let (mode, max_detections) = match self.protocol {
            Protocol::Lvis => (EvalMode::Lvis, vec![self.max_detections]),
            _ => (EvalMode::Coco, COCO_MAX_DETECTIONS.to_vec()),
        };
        let params = Params { max_dets: max_detections, ..Params::new(IouType::Bbox) };
        let categories = (0..).zip(&self.truth.categories).map(|(position, c)| types::Category {
            id: position,
            name: c.name.clone(),
            frequency: c.frequency.map(|f| f.letter().to_string()),
            ..types::Category::default()
        });
        StreamingEval::new(params, mode, categories.collect())
    }

    fn summarize(&self, result: &mut COCOeval, detections: usize) -> Summary {
        result.summarize_lines(); // computes the metrics; the printed lines are not used
        let values = result.stats().unwrap_or_default().iter().map(|&value| computed(value));
        let names = result.metric_keys().into_iter().map(|name| match self.protocol {
            // The engine's name is fixed, the number of detections is not.
            Protocol::Lvis => name.replace("@300", &format!("@{}", self.max_detections)),
            _ => name.to_owned(),
        });
        let mut metrics: Vec<_> = names.zip(values).collect();

        let mut boxes = vec![0; self.truth.categories.len()];
        for b in &self.truth.boxes {
            boxes[b.category as usize] += 1;
        }
        let per_class: Vec<_> = self
            .truth
            .categories
            .iter()
            .enumerate()
            .map(|(k, category)| ClassResult {
                category_id: category.id,
                name: category.name.clone(),
                frequency: category.frequency,
                image_count: category.image_count,
                instance_count: category.instance_count,
                boxes: boxes[k],
                ap: class_ap(result, k, None),
                ap50: class_ap(result, k, Some(0.5)),
            })
            .collect();
        let grouped = per_class.iter().any(|class| class.frequency.is_some());
        if self.protocol != Protocol::Lvis && grouped {
            for group in [Frequency::Rare, Frequency::Common, Frequency::Frequent] {
                let of_group = per_class.iter().filter(|c| c.frequency == Some(group));
                metrics
                    .push((format!("AP{}", group.letter()), mean(of_group.filter_map(|c| c.ap))));
            }
        }
        Summary {
            protocol: self.protocol,
            images: self.truth.images.len(),
            boxes: self.truth.boxes.len(),
            detections,
            metrics,
            per_class,
            intervals: None,
            comparison: None,
            errors: None,
            details: None,
        }
    }
}

/// Mean precision of class `k` over recall, and over IoU unless one is given; objects of every
/// size, the largest number of detections.
fn class_ap(result: &COCOeval, k: usize, iou: Option<f64>) -> Option<f64> {
    let curves = result.accumulated()?;
    let size = result.params.all_area_idx();
    let count = result.params.max_det_idx();
    let thresholds = match iou {
        Some(iou) => {
            let t = result.params.iou_thr_idx(iou)?;
            t..t + 1
        }
        None => 0..curves.shape.t,
    };
    let points = thresholds.flat_map(|t| (0..curves.shape.r).map(move |r| (t, r)));
    let precisions =
        points.map(|(t, r)| curves.precision[curves.precision_idx(t, r, k, size, count)]);
    mean(precisions.filter_map(computed))
}

/// A metric of the engine. It has −1 for "nothing to evaluate".
fn computed(value: f64) -> Option<f64> {
    (value >= 0.0).then_some(value)
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}
