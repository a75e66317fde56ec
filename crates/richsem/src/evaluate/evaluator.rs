//! The ground truth held in memory, ready to evaluate one set of detections after another.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{Protocol, ground_truth::GroundTruth};
use crate::{
    Error, Result,
    argument::Argument,
    data::dataset::{AnnotationFormat, Dataset},
    detections::Detection,
    vocabulary::{CategoryId, Vocabulary},
};

/// Formats with protocols of their own, as [`Dataset::format_name`] has them.
const OPEN_IMAGES: &str = "openimages";
const VISUAL_GENOME: &str = "visual_genome";

/// Detections LVIS keeps of an image.
const LVIS_MAX_DETECTIONS: usize = 300;

/// Evaluates detections against one annotation file, read once.
pub struct Evaluator {
    path: PathBuf,
    pub(super) truth: GroundTruth,
    pub(super) protocol: Protocol,
    why: String,
    pub(super) max_detections: usize,
    pub(super) image_at: HashMap<i64, u32>,
    pub(super) category_at: HashMap<CategoryId, u32>,
}

impl Evaluator {
    /// An evaluator for a dataset. OpenImages and Visual Genome have protocols of their own; of others the
    /// protocol is LVIS if the file verifies classes image by image, else COCO.
    ///
    /// # Panics
    /// Never: without a chosen protocol nothing is refused.
    #[must_use]
    pub fn of(dataset: &Dataset) -> Self {
        Self::of_as(dataset, None).expect("only a chosen protocol can be refused")
    }

    /// Like [`Self::of`], with a protocol chosen.
    ///
    /// # Errors
    /// LVIS's protocol needs `neg_category_ids` or `not_exhaustive_category_ids`, without which it would
    /// forgive most false positives.
    pub fn of_as(dataset: &Dataset, protocol: Option<Protocol>) -> Result<Self> {
        let report = dataset.report();
        if protocol == Some(Protocol::Lvis) && !report.lists {
            return Err(Error::invalid(
                dataset.path(),
                "images[].neg_category_ids",
                "no image has it, and the LVIS protocol needs it",
            )
            .with_hint("evaluate with the COCO protocol"));
        }
        let (from_file, because) = match (dataset.format_name(), dataset.format()) {
            (OPEN_IMAGES, _) => (Protocol::OpenImages, "these are OpenImages' files".to_owned()),
            (VISUAL_GENOME, _) => {
                (Protocol::VisualGenome, "these are Visual Genome's files".to_owned())
            }
            (_, AnnotationFormat::Lvis) => (Protocol::Lvis, report.why_format()),
            (_, AnnotationFormat::Coco) => (Protocol::Coco, report.why_format()),
        };
        let why = match protocol {
            Some(_) => format!("as asked for; {because}"),
            None => because,
        };
        let truth = GroundTruth::of(dataset);
        let image_at = (0..).zip(&truth.images).map(|(i, image)| (image.id, i)).collect();
        let category_at = (0..).zip(&truth.categories).map(|(i, c)| (c.id, i)).collect();
        Ok(Self {
            path: dataset.path().to_owned(),
            truth,
            protocol: protocol.unwrap_or(from_file),
            why,
            max_detections: LVIS_MAX_DETECTIONS,
            image_at,
            category_at,
        })
    }

    /// Keeps fewer than 300 detections of an image under the LVIS protocol, as lvis-api's
    /// `LVISResults(max_dets)`; the metrics' names say so (`AR@100`). COCO's 1, 10 and 100 stay.
    #[must_use]
    pub fn with_max_detections(mut self, count: usize) -> Self {
        self.max_detections = count.clamp(1, LVIS_MAX_DETECTIONS);
        self
    }

    /// Takes image and box counts from the training set, and the frequency group of every class
    /// whose group the file doesn't give. Classes are matched by category id.
    #[must_use]
    pub fn with_training_vocabulary(mut self, vocabulary: &Vocabulary) -> Self {
        for category in &mut self.truth.categories {
            let Some(class) = vocabulary.class_of(category.id) else { continue };
            let trained = vocabulary.category(class);
            category.image_count = trained.image_count;
            category.instance_count = trained.instance_count;
            category.frequency = category.frequency.or(Some(trained.frequency));
        }
        self
    }

    /// The rules that it evaluates by.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Why it evaluates by these rules: what the file says, or that they were asked for.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Ids of the images, ascending: a full evaluation has detections tried on each of them.
    pub fn image_ids(&self) -> impl Iterator<Item = i64> {
        self.truth.images.iter().map(|image| image.id)
    }

    /// Whether the annotation file has that category. A split need not have all that were trained.
    #[must_use]
    pub fn knows(&self, category: CategoryId) -> bool {
        self.category_at.contains_key(&category)
    }

    /// Whether the detections belong to this annotation file. `file` is where they were read, for
    /// the message.
    ///
    /// # Errors
    /// Naming the first record with an image or category that the annotation file doesn't have.
    pub fn check(&self, file: &Path, detections: &[Detection]) -> Result<()> {
        for (i, detection) in detections.iter().enumerate() {
            let (field, id, kind) = if !self.image_at.contains_key(&detection.image_id) {
                ("image_id", detection.image_id, "image")
            } else if !self.category_at.contains_key(&detection.category_id) {
                ("category_id", detection.category_id.0, "category")
            } else {
                continue;
            };
            let truth = self.path.display();
            return Err(Error::invalid(
                file,
                format!("[{i}].{field}"),
                format!("`{truth}` has no {kind} with the id {id}"),
            )
            .with_hint(format!(
                "pass the annotation file these detections were made for ({}); ids must be those \
                 of that file",
                Argument::Annotations
            )));
        }
        Ok(())
    }

    /// Refuses detections of other images or classes, and numbers that are not finite.
    pub(super) fn check_all(&self, detections: &[Detection]) -> Result<()> {
        let unnamed = Path::new("detections");
        self.check(unnamed, detections)?;
        let finite = |d: &Detection| d.score.is_finite() && d.bbox.0.iter().all(|v| v.is_finite());
        if let Some(i) = detections.iter().position(|d| !finite(d)) {
            let problem = format!("not finite: {:?}", detections[i]);
            return Err(Error::invalid(unnamed, format!("[{i}]"), problem));
        }
        Ok(())
    }
}
