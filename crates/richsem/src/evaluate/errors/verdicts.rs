//! What every judged detection is, a batch of images at a time: a hit, or which kind of error, by tidecv's rules.
//! Nine bytes a detection stay.
//!
//! Of a detection that is no hit and not ignored, the first of these that holds:
//!
//! 1. badly placed: its largest overlap with a box of its class is 0.1 to 0.5;
//! 2. wrong class: with a box of another class 0.5 or more;
//! 3. found twice: a box of its class, overlapped by 0.5 or more, is found already;
//! 4. background: with boxes of other classes 0.1 at most;
//! 5. wrong class and badly placed.
//!
//! Mending one of the first two gives a hit if it is the best of those that could find its box, which nobody has
//! found. All others are taken away. All of a box's candidates are of its image, so that a batch decides it.

use std::collections::{HashMap, HashSet};

use hotcoco::{
    EvalImg,
    metrics::counts::average_precision_ranked,
    params::{IouType, Params, default_rec_thrs},
    primitives::sim::bbox_iou_pair,
};
use rayon::prelude::*;

use super::{
    super::{
        Evaluator, Protocol,
        batches::{Batch, Rules},
        class_matches::best_first,
    },
    tide::{BACKGROUND, ErrorKind, FOUND, Tide, TideError},
};
use crate::{Result, detections::Detection};

impl Evaluator {
    pub(super) fn tide(&self, detections: &[Detection]) -> Result<Tide> {
        let mut areas = Params::new(IouType::Bbox).area_ranges;
        areas.truncate(1);
        let rules = Rules { max_detections: self.per_class(), overlaps: vec![FOUND], areas };
        let mut verdicts = Verdicts::new(self.truth.categories.len());
        self.each_batch(self.all_of(detections), |mut batch| {
            let mut judged = self.judged(&batch).into_iter();
            batch.found.retain(|_| judged.next() == Some(true));
            let scene = Scene::of(&batch);
            let result = self.match_records(batch, &rules)?;
            verdicts.add(&scene, result.eval_imgs().iter().flatten());
            Ok::<_, crate::Error>(())
        })?;
        Ok(verdicts.tide())
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

/// The boxes of a batch, as its records name them: by their ids, which count from 1.
struct Scene {
    found: Vec<[f64; 4]>,
    truths: Vec<TrueBox>,
    /// Positions of the boxes of each image that are no crowds, by class.
    of_image: HashMap<u64, Vec<u32>>,
}

struct TrueBox {
    class: u64,
    bbox: [f64; 4],
    crowd: bool,
}

impl Scene {
    fn of(batch: &Batch) -> Self {
        let bbox = |a: &hotcoco::Annotation| a.bbox.unwrap_or_default();
        let mut of_image: HashMap<u64, Vec<u32>> = HashMap::new();
        for (at, truth) in (0..).zip(&batch.truths).filter(|(_, truth)| !truth.iscrowd) {
            of_image.entry(truth.image_id).or_default().push(at);
        }
        for boxes in of_image.values_mut() {
            boxes.sort_by_key(|&at| batch.truths[at as usize].category_id);
        }
        let truth = |a: &hotcoco::Annotation| TrueBox {
            class: a.category_id,
            bbox: bbox(a),
            crowd: a.iscrowd,
        };
        Self {
            found: batch.found.iter().map(bbox).collect(),
            truths: batch.truths.iter().map(truth).collect(),
            of_image,
        }
    }

    fn truth(&self, id: u64) -> &TrueBox {
        &self.truths[id as usize - 1]
    }
}

/// What a detection is at IoU 0.50.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Hit,
    Ignored,
    Wrong(ErrorKind),
    /// Badly placed, and a hit if it were not.
    NearHit,
}

/// A detection of a batch.
struct Judged {
    id: u64,
    score: f64,
    verdict: Verdict,
    /// The id of the box that it would find if it were mended.
    target: Option<u64>,
}

/// The judged detections of a class.
#[derive(Default)]
struct OfClass {
    scores: Vec<f64>,
    verdicts: Vec<Verdict>,
    /// Scores of detections of other classes that would be hits if they were of this one.
    from_others: Vec<f64>,
    boxes: usize,
    /// Boxes that nothing finds, and those of them that no mending finds.
    unfound: usize,
    missed: usize,
}

/// What was judged.
struct Verdicts(Vec<OfClass>);

impl Verdicts {
    pub(super) fn new(classes: usize) -> Self {
        Self((0..classes).map(|_| OfClass::default()).collect())
    }

    /// Adds the records of a batch, in their order.
    pub(super) fn add<'a>(&mut self, scene: &Scene, records: impl Iterator<Item = &'a EvalImg>) {
        let records: Vec<&EvalImg> = records.collect();
        let unfound = |record: &&'a EvalImg| {
            let record = *record;
            let boxes = record.gt_ids.iter().enumerate();
            boxes
                .filter(|&(at, _)| !record.gt_matched[(0, at)] && record.counts_as_miss(at))
                .map(|(_, &id)| id)
                .collect::<Vec<u64>>()
        };
        let open: HashSet<u64> = records.iter().flat_map(unfound).collect();
        let mut judged: Vec<Vec<Judged>> =
            records.par_iter().map(|record| scene.judge(record, &open)).collect();
        // Of those that could find a box the best; among equal scores the first.
        let mut best: HashMap<u64, (f64, u64)> = HashMap::new();
        for found in judged.iter().flatten() {
            let Some(target) = found.target else { continue };
            let held = best.entry(target).or_insert((found.score, found.id));
            if found.score > held.0 || (found.score == held.0 && found.id < held.1) {
                *held = (found.score, found.id);
            }
        }
        for (record, judged) in records.iter().zip(&mut judged) {
            for found in judged.iter_mut() {
                let Some(target) = found.target.filter(|id| best[id].1 == found.id) else {
                    continue;
                };
                match found.verdict {
                    Verdict::Wrong(ErrorKind::Location) => found.verdict = Verdict::NearHit,
                    _ => {
                        let class = scene.truth(target).class;
                        self.0[class as usize].from_others.push(found.score);
                    }
                }
            }
            let class = &mut self.0[record.category_id as usize];
            class.scores.extend(judged.iter().map(|found| found.score));
            class.verdicts.extend(judged.iter().map(|found| found.verdict));
            class.boxes += record.num_gt_in_denominator();
            for id in unfound(record) {
                class.unfound += 1;
                class.missed += usize::from(!best.contains_key(&id));
            }
        }
    }

    pub(super) fn tide(mut self) -> Tide {
        self.0.par_iter_mut().for_each(OfClass::sort);
        let all: Vec<Gains> =
            self.0.par_iter().filter(|class| class.boxes > 0).map(OfClass::gains).collect();
        let mean = |of: &dyn Fn(&Gains) -> f64| {
            if all.is_empty() { 0.0 } else { all.iter().map(of).sum::<f64>() / all.len() as f64 }
        };
        let count = |kind: ErrorKind| match kind {
            ErrorKind::Missed => self.0.iter().map(|class| class.missed).sum::<usize>(),
            kind => {
                let verdicts = self.0.iter().flat_map(|class| &class.verdicts);
                verdicts.filter(|verdict| verdict.kind() == Some(kind)).count()
            }
        };
        let error = |(at, kind): (usize, ErrorKind)| TideError {
            kind,
            delta_ap: mean(&|gains| gains.kinds[at]),
            count: count(kind) as u64,
        };
        Tide {
            ap50: mean(&|gains| gains.ap50),
            errors: ErrorKind::ALL.into_iter().enumerate().map(error).collect(),
            false_positives: mean(&|gains| gains.false_positives),
            false_negatives: mean(&|gains| gains.false_negatives),
            judged: self.0.iter().map(|class| class.scores.len()).sum(),
        }
    }
}

impl Scene {
    /// What the detections of a record are. `open` are the boxes that nothing finds.
    fn judge(&self, record: &EvalImg, open: &HashSet<u64>) -> Vec<Judged> {
        let others = self.of_image.get(&record.image_id).map(Vec::as_slice).unwrap_or_default();
        let of_detection = |(at, &id): (usize, &u64)| {
            // What is in a crowd is matched, too, and does not count.
            let (verdict, target) = if record.dt_ignore[(0, at)] {
                (Verdict::Ignored, None)
            } else if record.dt_matched[(0, at)] {
                (Verdict::Hit, None)
            } else {
                let (kind, target) = self.error(record, self.found[id as usize - 1], others);
                (Verdict::Wrong(kind), target.filter(|id| open.contains(id)))
            };
            Judged { id, score: record.dt_scores[at], verdict, target }
        };
        record.dt_ids.iter().enumerate().map(of_detection).collect()
    }

    /// The kind of error, and the box that it would find if it were mended.
    fn error(&self, record: &EvalImg, bbox: [f64; 4], others: &[u32]) -> (ErrorKind, Option<u64>) {
        let (mut nearest, mut same, mut is_found) = (None, 0.0, false);
        for (at, &id) in record.gt_ids.iter().enumerate() {
            let truth = self.truth(id);
            let overlap = bbox_iou_pair(bbox, truth.bbox, truth.crowd);
            if overlap > same {
                (nearest, same) = (Some(id), overlap);
            }
            is_found |= overlap >= FOUND && record.gt_matched[(0, at)];
        }
        if (BACKGROUND..=FOUND).contains(&same) {
            return (ErrorKind::Location, nearest);
        }
        let (mut other, mut largest) = (None, 0.0);
        for &at in others {
            let truth = &self.truths[at as usize];
            let overlap = bbox_iou_pair(bbox, truth.bbox, false);
            if truth.class != record.category_id && overlap > largest {
                (other, largest) = (Some(u64::from(at) + 1), overlap);
            }
        }
        if largest >= FOUND {
            (ErrorKind::Class, other)
        } else if is_found {
            (ErrorKind::Duplicate, None)
        } else if largest <= BACKGROUND {
            (ErrorKind::Background, None)
        } else {
            (ErrorKind::Both, None)
        }
    }
}

impl Verdict {
    fn kind(self) -> Option<ErrorKind> {
        match self {
            Self::Wrong(kind) => Some(kind),
            Self::NearHit => Some(ErrorKind::Location),
            Self::Hit | Self::Ignored => None,
        }
    }
}

/// AP50 of a class, and what it would gain.
struct Gains {
    ap50: f64,
    /// In the order of [`ErrorKind::ALL`].
    kinds: [f64; 6],
    false_positives: f64,
    false_negatives: f64,
}

impl OfClass {
    fn sort(&mut self) {
        let order = best_first(&self.scores);
        self.scores = order.iter().map(|&i| self.scores[i as usize]).collect();
        self.verdicts = order.iter().map(|&i| self.verdicts[i as usize]).collect();
        let order = best_first(&self.from_others);
        self.from_others = order.iter().map(|&i| self.from_others[i as usize]).collect();
    }

    fn gains(&self) -> Gains {
        let recalls = default_rec_thrs();
        let ap = |verdicts: &mut dyn Iterator<Item = Verdict>, boxes: usize| {
            let counted = verdicts.map(|v| (v == Verdict::Hit, v == Verdict::Ignored));
            let (hits, ignored): (Vec<bool>, Vec<bool>) = counted.unzip();
            average_precision_ranked(&hits, Some(&ignored), boxes, &recalls)
        };
        let as_is = |boxes| ap(&mut self.verdicts.iter().copied(), boxes);
        let ap50 = as_is(self.boxes);
        let kinds = ErrorKind::ALL.map(|kind| match kind {
            ErrorKind::Missed => as_is(self.boxes - self.missed),
            kind => ap(&mut self.mended(kind).into_iter(), self.boxes),
        });
        let right = |verdict: &Verdict| match verdict.kind() {
            Some(_) => Verdict::Ignored,
            None => *verdict,
        };
        Gains {
            ap50,
            kinds: kinds.map(|mended| mended - ap50),
            false_positives: ap(&mut self.verdicts.iter().map(right), self.boxes) - ap50,
            false_negatives: as_is(self.boxes - self.unfound) - ap50,
        }
    }

    /// The verdicts, best first, if errors of one kind were mended.
    fn mended(&self, kind: ErrorKind) -> Vec<Verdict> {
        let from_others = if kind == ErrorKind::Class { &self.from_others[..] } else { &[] };
        let mut from_others = from_others.iter().peekable();
        let mut mended = Vec::with_capacity(self.verdicts.len() + from_others.len());
        for (&score, &verdict) in self.scores.iter().zip(&self.verdicts) {
            while from_others.next_if(|other| **other > score).is_some() {
                mended.push(Verdict::Hit);
            }
            mended.push(match verdict {
                Verdict::NearHit if kind == ErrorKind::Location => Verdict::Hit,
                verdict if verdict.kind() == Some(kind) => Verdict::Ignored,
                verdict => verdict,
            });
        }
        mended.extend(from_others.map(|_| Verdict::Hit));
        mended
    }
}
