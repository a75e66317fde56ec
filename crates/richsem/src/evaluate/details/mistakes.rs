//! Which classes are taken for which, and the worst mistakes, from the engine's own matching.

use std::collections::HashMap;

use hotcoco::params::{IouType, Params};
use serde::{Deserialize, Serialize};

use super::super::{
    Evaluator,
    batches::{Batch, Chosen, Rules},
};
use crate::{
    Result,
    boxes::Xywh,
    detections::{Detection, Verdict},
    vocabulary::CategoryId,
};

/// From this overlap on a box is found.
const FOUND: f64 = 0.5;

/// Cells that are kept, those with the most first. LVIS's 1203 classes have a million.
const MOST_CELLS: usize = 2000;

/// Examples of each kind of mistake.
const MOST_EXAMPLES: usize = 6;

/// Examples of one class, of each kind of mistake.
const MOST_OF_CLASS: usize = 2;

/// How often boxes of a class are taken for another.
///
/// Detections first find boxes of their own class, as the metrics have it. Those that find none are then
/// compared with the boxes that are left, whatever their class. So each box and each detection counts once.
/// Under LVIS's rules only what is judged counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// The cells that are not 0, the largest first, at most 2,000 of them.
    pub cells: Vec<ConfusionCell>,
    /// Sum of the cells that were left out.
    pub left_out: u64,
}

/// A cell of the confusion matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionCell {
    /// The class of the box. None: nothing is there, or it is found already.
    pub truth: Option<CategoryId>,
    /// The class of the detection. None: the box is not found.
    pub found: Option<CategoryId>,
    /// How often.
    pub count: u64,
}

/// An image with a mistake, and all that was judged in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Id of the image in the annotation file.
    pub image_id: i64,
    /// Position of the mistake in `boxes`.
    pub worst: usize,
    /// Detections that are used, and boxes that are not found.
    pub boxes: Vec<JudgedBox>,
}

/// What became of a box or detection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedBox {
    /// Its class.
    pub category_id: CategoryId,
    /// Where it is: of the detection, or of the box that is not found.
    pub bbox: Xywh,
    /// Of a detection.
    pub score: Option<f64>,
    /// What became of it.
    pub verdict: Verdict,
}

pub(super) struct Mistakes {
    pub(super) confusion: Confusion,
    pub(super) misses: Vec<Example>,
    pub(super) false_alarms: Vec<Example>,
}

/// What was judged in an image.
struct JudgedImage {
    position: u64,
    boxes: Vec<JudgedBox>,
}

impl Evaluator {
    /// Matches the detections from a score on, and sorts out what went wrong.
    pub(super) fn mistakes(&self, detections: &[Detection], score: f64) -> Result<Mistakes> {
        let kept: Vec<bool> = detections.iter().map(|d| d.score >= score).collect();
        let chosen = Chosen { kept: Some(&kept), ..self.all_of(detections) };
        let mut areas = Params::new(IouType::Bbox).area_ranges;
        areas.truncate(1); // objects of all sizes
        let rules = Rules { max_detections: self.per_class(), overlaps: vec![FOUND], areas };
        let (mut judged, mut cells) = (Vec::new(), HashMap::new());
        self.each_batch(chosen, |batch| self.judge(batch, &rules, &mut judged, &mut cells))?;
        let (misses, false_alarms) = (
            self.worst(&judged, Verdict::FalseNegative),
            self.worst(&judged, Verdict::FalsePositive),
        );
        Ok(Mistakes { confusion: self.confusion(cells), misses, false_alarms })
    }

    /// Adds what became of the boxes and detections of a batch. The engine numbers both from 1, in their order.
    fn judge(
        &self,
        batch: Batch,
        rules: &Rules,
        judged: &mut Vec<JudgedImage>,
        cells: &mut HashMap<[Option<u64>; 2], u64>,
    ) -> Result<()> {
        let Batch { images, truths, found } = batch;
        let (own_truths, own_found) = (truths.clone(), found.clone());
        let left = Batch { images: images.clone(), truths: vec![], found: vec![] };
        let result = self.match_records(Batch { images, truths, found }, rules)?;
        let mut left = left;
        let mut of_image: HashMap<u64, Vec<JudgedBox>> = HashMap::new();
        let mut add = |annotation: &hotcoco::Annotation, verdict: Verdict| {
            of_image.entry(annotation.image_id).or_default().push(JudgedBox {
                category_id: self.truth.categories[annotation.category_id as usize].id,
                bbox: Xywh(annotation.bbox.unwrap_or_default()),
                score: annotation.score,
                verdict,
            });
        };
        for record in result.eval_imgs().iter().flatten() {
            for (d, &id) in record.dt_ids.iter().enumerate() {
                let detection = &own_found[id as usize - 1];
                if record.dt_ignore[(0, d)] {
                    continue;
                }
                if record.dt_matched[(0, d)] {
                    add(detection, Verdict::TruePositive);
                    *cells.entry([Some(record.category_id); 2]).or_default() += 1;
                } else {
                    add(detection, Verdict::FalsePositive);
                    left.found.push(detection.clone());
                }
            }
            for (g, &id) in record.gt_ids.iter().enumerate() {
                if record.counts_as_miss(g) && !record.gt_matched[(0, g)] {
                    let truth = &own_truths[id as usize - 1];
                    add(truth, Verdict::FalseNegative);
                    left.truths.push(truth.clone());
                }
            }
        }
        let mut of_image: Vec<JudgedImage> =
            of_image.into_iter().map(|(position, boxes)| JudgedImage { position, boxes }).collect();
        of_image.sort_by_key(|image| image.position);
        judged.extend(of_image);

        let matrix = self.pair(left, rules)?.confusion_matrix(FOUND, Some(usize::MAX), None);
        let background = matrix.num_cats;
        for (at, &count) in matrix.matrix.iter().enumerate().filter(|(_, count)| **count > 0) {
            let class = |i: usize| (i < background).then_some(i as u64);
            let cell = [class(at / (background + 1)), class(at % (background + 1))];
            *cells.entry(cell).or_default() += count;
        }
        Ok(())
    }

    fn confusion(&self, cells: HashMap<[Option<u64>; 2], u64>) -> Confusion {
        let id = |position: Option<u64>| position.map(|i| self.truth.categories[i as usize].id);
        let mut cells: Vec<ConfusionCell> = cells
            .into_iter()
            .map(|([truth, found], count)| ConfusionCell {
                truth: id(truth),
                found: id(found),
                count,
            })
            .collect();
        cells.sort_by(|a, b| {
            b.count.cmp(&a.count).then((a.truth, a.found).cmp(&(b.truth, b.found)))
        });
        let left_out = cells.iter().skip(MOST_CELLS).map(|cell| cell.count).sum();
        cells.truncate(MOST_CELLS);
        Confusion { cells, left_out }
    }

    /// The worst mistakes of a kind: one of an image, and few of a class, so that they differ.
    fn worst(&self, judged: &[JudgedImage], verdict: Verdict) -> Vec<Example> {
        let bad = |judged: &JudgedBox| {
            judged.score.unwrap_or_else(|| judged.bbox.0[2] * judged.bbox.0[3])
        };
        let mut all: Vec<(usize, usize)> = Vec::new();
        for (i, image) in judged.iter().enumerate() {
            let of_kind = (0..image.boxes.len()).filter(|&at| image.boxes[at].verdict == verdict);
            all.extend(of_kind.map(|at| (i, at)));
        }
        let boxed = |(i, at): (usize, usize)| &judged[i].boxes[at];
        all.sort_by(|&a, &b| bad(boxed(b)).total_cmp(&bad(boxed(a))));
        let (mut examples, mut of_class) = (Vec::new(), HashMap::<CategoryId, usize>::new());
        let mut images = std::collections::HashSet::new();
        for (i, worst) in all {
            if examples.len() == MOST_EXAMPLES {
                break;
            }
            let shown = of_class.entry(boxed((i, worst)).category_id).or_default();
            if *shown < MOST_OF_CLASS && images.insert(i) {
                *shown += 1;
                let image_id = self.truth.images[judged[i].position as usize].id;
                examples.push(Example { image_id, worst, boxes: judged[i].boxes.clone() });
            }
        }
        examples
    }
}
