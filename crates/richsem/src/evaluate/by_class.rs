//! Metrics that rank each class at one overlap: OpenImages' in place of COCO's, Visual Genome's beside them.

use super::{
    ClassResult, Evaluator, Intervals, Protocol, ScoredBox, Summary, TrueBox, VerifiedLabel,
    intervals::RankedIntervals,
    metrics::mean,
    openimages::{self, OpenImagesSummary, Rules, Truth},
    visual_genome::{self, VisualGenomeSummary},
};
use crate::{
    Error, Result, data::openimages::Relations, detections::Detection, vocabulary::Frequency,
};

impl Evaluator {
    /// OpenImages' challenge metric, AP at IoU 0.5, of the detections as they are, and with each one also
    /// one of the ancestors of its class.
    pub(super) fn open_images(&self, detections: &[Detection], intervals: bool) -> Result<Summary> {
        self.check_all(detections)?;
        let none = Relations::none(self.truth.categories.len());
        let relations = self.truth.relations.as_ref().unwrap_or(&none);
        let boxes = self.true_boxes(|b, _| corners(b));
        let truth = Truth { boxes: &boxes, labels: &self.labels() };
        let found = self.scored_boxes(detections);
        let official = openimages::evaluate(truth, &found, relations, Rules::CHALLENGE)?;
        let expanded = openimages::evaluate(truth, &found, relations, Rules::EXPANDED)?;
        let mut summary = self.summary_of_ranked(&official, expanded.map, detections.len());
        if intervals {
            summary.intervals = Some(self.ranked_intervals(&official, &expanded));
        }
        Ok(summary)
    }

    fn ranked_intervals(
        &self,
        official: &OpenImagesSummary,
        expanded: &OpenImagesSummary,
    ) -> Intervals {
        let images = self.truth.images.len();
        let of_expanded = RankedIntervals::of(&expanded.classes, images);
        let of_official = RankedIntervals::of(&official.classes, images);
        let categories = &self.truth.categories;
        let of_group =
            |name, group| of_official.mean(name, |at| categories[at].frequency == Some(group));
        let metrics = vec![
            of_official.mean("AP50", |_| true),
            of_expanded.mean("AP50_expanded", |_| true),
            of_group("AP50r", Frequency::Rare),
            of_group("AP50c", Frequency::Common),
            of_group("AP50f", Frequency::Frequent),
        ];
        of_official.with(metrics, categories.iter().map(|category| category.id))
    }

    fn summary_of_ranked(
        &self,
        official: &OpenImagesSummary,
        expanded: Option<f64>,
        detections: usize,
    ) -> Summary {
        let categories = self.truth.categories.iter().zip(&official.classes);
        let per_class: Vec<ClassResult> = categories
            .map(|(category, ranked)| ClassResult {
                category_id: category.id,
                name: category.name.clone(),
                frequency: category.frequency,
                image_count: category.image_count,
                instance_count: category.instance_count,
                boxes: ranked.num_gt as u32,
                ap: None,
                ap50: ranked.ap,
            })
            .collect();
        let mut metrics =
            vec![("AP50".to_owned(), official.map), ("AP50_expanded".to_owned(), expanded)];
        for group in [Frequency::Rare, Frequency::Common, Frequency::Frequent] {
            let of_group = per_class.iter().filter(|c| c.frequency == Some(group));
            let value = mean(of_group.filter_map(|c| c.ap50));
            metrics.push((format!("AP50{}", group.letter()), value));
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

    /// The summary with the means of Visual Genome's own metric, where that is the protocol.
    pub(super) fn with_own_means(
        &self,
        mut summary: Summary,
        detections: &[Detection],
    ) -> Result<Summary> {
        if self.protocol == Protocol::VisualGenome {
            // In the original's own numbers, which round and count from 1.
            let truth = self.true_boxes(|b, size| match size {
                Some([height, width]) => visual_genome::true_box(b, width, height),
                None => corners(b),
            });
            let found = self.scored_boxes(detections).into_iter().map(visual_genome::written);
            let found: Vec<ScoredBox> = found.collect();
            let VisualGenomeSummary { mean, weighted_mean, .. } =
                visual_genome::evaluate(&truth, &found, self.truth.categories.len())?;
            summary.metrics.push(("AP50_all".to_owned(), Some(mean)));
            summary.metrics.push(("AP50_weighted".to_owned(), weighted_mean));
        }
        Ok(summary)
    }

    /// The boxes by image; `place` makes corners of one, given the image's `[height, width]`.
    fn true_boxes(&self, place: impl Fn([f64; 4], Option<[u32; 2]>) -> [f64; 4]) -> Vec<TrueBox> {
        let mut boxes = Vec::with_capacity(self.truth.boxes.len());
        for (number, image) in (0..).zip(&self.truth.images) {
            boxes.extend(self.truth.boxes[image.boxes.clone()].iter().map(|b| TrueBox {
                image: number,
                class: b.category,
                bbox: place(b.bbox, image.size),
                group_of: b.crowd && self.protocol == Protocol::OpenImages,
            }));
        }
        boxes
    }

    fn labels(&self) -> Vec<VerifiedLabel> {
        let mut labels = Vec::new();
        for (image, truth) in (0..).zip(&self.truth.images) {
            for (list, present) in [(&truth.present, true), (&truth.absent, false)] {
                let label = |&class: &u64| VerifiedLabel { image, class: class as u32, present };
                labels.extend(list.iter().map(label));
            }
        }
        labels
    }

    fn scored_boxes(&self, detections: &[Detection]) -> Vec<ScoredBox> {
        let scored = |detection: &Detection| ScoredBox {
            image: self.image_at[&detection.image_id],
            class: self.category_at[&detection.category_id],
            score: detection.score,
            bbox: corners(detection.bbox.0),
        };
        detections.iter().map(scored).collect()
    }

    /// Refuses what takes matches at ten overlaps, under a protocol that has one.
    pub(super) fn check_matched(&self) -> Result<()> {
        match self.protocol {
            Protocol::OpenImages => Err(Error::other(format!(
                "comparisons, kinds of errors and thresholds come from COCO's and LVIS's \
                 matches; these annotations are evaluated by the {} protocol",
                self.protocol
            ))),
            _ => Ok(()),
        }
    }
}

/// `[x, y, width, height]` as corners.
fn corners([x, y, width, height]: [f64; 4]) -> [f64; 4] {
    [x, y, x + width, y + height]
}
