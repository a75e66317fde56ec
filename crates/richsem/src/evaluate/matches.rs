//! What became of every detection that was judged, kept small. AP of any part of the images, curves and
//! counts come from it without matching again.

use hotcoco::{
    StreamingEval,
    params::{AreaRange, IouType, Params},
};
use rayon::prelude::*;

use super::{
    Evaluator, Protocol, Summary,
    batches::{Chosen, Rules, engine},
    class_matches::{AREAS, ClassMatches, IGNORED},
    curve::{Scratch, Selection},
    metrics::COCO_MAX_DETECTIONS,
    state,
};
use crate::{
    Result,
    detections::Detection,
    vocabulary::{CategoryId, Frequency},
};

/// All judged detections of a results file: score, image, and what each found. 28 bytes a detection.
///
/// The matching is that of the evaluation. Under LVIS's rules, detections of classes of which an image says
/// nothing are not judged and are not here.
#[derive(Debug, Clone, PartialEq)]
pub struct Matches {
    pub(super) protocol: Protocol,
    /// Images of the ground truth. Positions are in order of their ids.
    pub(super) images: usize,
    /// Number of overlaps (10: IoU 0.50 to 0.95).
    pub(super) overlaps: usize,
    pub(super) classes: Vec<ClassMatches>,
}

impl Evaluator {
    /// Matches detections as [`Self::evaluate`] does, and keeps what became of each.
    ///
    /// # Errors
    /// As [`Self::evaluate`]; OpenImages' protocol, which has no such matches.
    pub fn matches(&self, detections: &[Detection]) -> Result<Matches> {
        self.check_matched()?;
        self.check_all(detections)?;
        let mut matches = self.no_matches();
        let mut all = true;
        self.each_batch(self.all_of(detections), |batch| {
            let mut engine = self.engine()?;
            engine.update(batch.images, batch.truths, batch.found)?;
            all &= matches.take_state(&engine);
            Ok(())
        })
        .map_err(engine)?;
        self.or_rebuilt(detections, all.then_some(matches))
    }

    /// [`Self::evaluate`] and [`Self::matches`] at once: nothing is matched twice.
    ///
    /// # Errors
    /// As [`Self::matches`].
    pub fn evaluate_and_match(&self, detections: &[Detection]) -> Result<(Summary, Matches)> {
        self.check_matched()?;
        self.check_all(detections)?;
        let mut matches = self.no_matches();
        let mut all = true;
        let mut whole = self.engine().map_err(engine)?;
        self.each_batch(self.all_of(detections), |batch| {
            let mut engine = self.engine()?;
            engine.update(batch.images, batch.truths, batch.found)?;
            all &= matches.take_state(&engine);
            whole.merge(engine)
        })
        .map_err(engine)?;
        let summary = self.with_own_means(self.summary_of(whole, detections.len()), detections)?;
        Ok((summary, self.or_rebuilt(detections, all.then_some(matches))?))
    }

    /// The matches in order, or all anew where the engine's state could not be read.
    fn or_rebuilt(&self, detections: &[Detection], read: Option<Matches>) -> Result<Matches> {
        match read {
            Some(mut matches) => {
                matches.sort();
                Ok(matches)
            }
            None => self.matches_of(self.all_of(detections), self.per_class()),
        }
    }

    pub(super) fn all_of<'a>(&self, detections: &'a [Detection]) -> Chosen<'a> {
        Chosen { detections, kept: None, per_image: self.max_detections }
    }

    fn no_matches(&self) -> Matches {
        Matches {
            protocol: self.protocol,
            images: self.truth.images.len(),
            overlaps: Params::new(IouType::Bbox).iou_thrs.len(),
            classes: self.truth.categories.iter().map(ClassMatches::of).collect(),
        }
    }

    /// Detections of an image and class that the protocol looks at.
    pub(super) fn per_class(&self) -> usize {
        match self.protocol {
            Protocol::Lvis => self.max_detections,
            _ => COCO_MAX_DETECTIONS.into_iter().max().unwrap_or(0),
        }
    }

    /// As [`Self::matches`], of chosen detections, with the best `per_class` of an image and class.
    pub(super) fn matches_of(&self, chosen: Chosen<'_>, per_class: usize) -> Result<Matches> {
        let Params { iou_thrs: overlaps, area_ranges: areas, .. } = Params::new(IouType::Bbox);
        let rules = Rules { max_detections: per_class, overlaps, areas };
        let mut matches = self.no_matches();
        self.each_batch(chosen, |batch| {
            let result = self.match_records(batch, &rules)?;
            for record in result.eval_imgs().iter().flatten() {
                matches.take(record, &rules.areas);
            }
            Ok::<_, crate::Error>(())
        })?;
        matches.sort();
        Ok(matches)
    }
}

impl Matches {
    fn sort(&mut self) {
        self.classes.par_iter_mut().for_each(ClassMatches::sort);
    }

    /// Adds what an engine matched; false if its state cannot be read.
    fn take_state(&mut self, engine: &StreamingEval) -> bool {
        let Some(records) = state::records(&engine.to_bytes(), self.overlaps) else { return false };
        for record in records {
            let Some(class) = self.classes.get_mut(record.class) else { return false };
            class.scores.extend(record.scores);
            class.flags.extend(record.flags);
            class.images.resize(class.scores.len(), record.image);
            if record.boxes.iter().any(|&boxes| boxes > 0) {
                class.truths.push((record.image, record.boxes));
            }
        }
        true
    }

    /// Adds the record of one image, class and size. The engine gives those of all sizes of an image and
    /// class one after another, each with the same detections in the same order.
    fn take(&mut self, record: &hotcoco::EvalImg, areas: &[AreaRange]) {
        let image = record.image_id as u32;
        let area = areas.iter().position(|area| area.range == record.area_rng);
        let class = self.classes.get_mut(record.category_id as usize);
        let (Some(area), Some(class)) = (area, class) else { return };
        let new = class.images.last() != Some(&image);
        if new {
            class.scores.extend_from_slice(&record.dt_scores);
            class.images.resize(class.scores.len(), image);
            class.flags.resize(class.scores.len(), [0; AREAS]);
        }
        let start = class.scores.len() - record.dt_scores.len();
        for (d, flags) in class.flags[start..].iter_mut().enumerate() {
            for t in 0..self.overlaps {
                flags[area] |= u32::from(record.dt_matched[(t, d)]) << t
                    | u32::from(record.dt_ignore[(t, d)]) << (IGNORED + t);
            }
        }
        let boxes = record.num_gt_in_denominator() as u32;
        if boxes > 0 {
            match class.truths.last_mut() {
                Some((last, counts)) if *last == image => counts[area] = boxes,
                _ => {
                    let mut counts = [0; AREAS];
                    counts[area] = boxes;
                    class.truths.push((image, counts));
                }
            }
        }
    }

    /// Number of judged detections.
    #[must_use]
    pub fn judged(&self) -> usize {
        self.classes.iter().map(|class| class.scores.len()).sum()
    }

    /// Ids, names and frequency groups of the classes, in order of ids.
    pub fn classes(&self) -> impl Iterator<Item = (CategoryId, &str, Option<Frequency>)> {
        self.classes.iter().map(|class| (class.id, class.name.as_str(), class.frequency))
    }

    /// AP of each class (mean over IoU 0.50 to 0.95, objects of all sizes); `None` without boxes.
    #[must_use]
    pub fn class_aps(&self) -> Vec<Option<f64>> {
        let all = Selection { area: 0, overlaps: 0..self.overlaps };
        let ap = |scratch: &mut Scratch, class| scratch.average_precision(class, &all);
        self.classes.par_iter().map_init(Scratch::default, ap).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "matches_tests.rs"]
mod tests;
