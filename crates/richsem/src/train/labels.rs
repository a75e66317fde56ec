//! The soft labels of a batch: the teacher's, asked now or before.

use std::sync::Arc;

use tch::{Device, Tensor};

use crate::{
    config::Config,
    data::{batch::Batch, loader::BatchSource},
    error::{Error, Result, guarded},
    losses::semantic::target_boxes,
    models::class_head::TextTable,
    normalization::Normalization,
    prepared::{Prepared, PreparedSource},
    teacher::{DenseMap, LabelSpace, OpenTeacher, SoftLabels, Teacher},
    vocabulary::Vocabulary,
};

/// Where a run's soft labels come from.
#[derive(Debug)]
pub(super) enum LabelSource {
    /// The teacher itself, asked at every step.
    Teacher(Box<dyn Teacher>),
    /// What it said before: the loader has read it, with the batch.
    Prepared { labels: Arc<Prepared>, space: LabelSpace },
}

impl LabelSource {
    /// The one that the settings name; none where nothing needs a teacher.
    ///
    /// # Errors
    /// Those of `open_teacher`; as [`Prepared::open`].
    pub(super) fn open(
        config: &Config,
        vocabulary: &Vocabulary,
        device: Device,
        open_teacher: &OpenTeacher,
    ) -> Result<Option<Self>> {
        let Some(teacher) = config.teacher.as_ref().filter(|_| config.needs_teacher()) else {
            return Ok(None);
        };
        Ok(Some(match teacher.prepared {
            Some(_) => {
                let (labels, space) = Prepared::open(config, vocabulary, device)?;
                Self::Prepared { labels: Arc::new(labels), space }
            }
            None => Self::Teacher(open_teacher(teacher, vocabulary, device)?),
        }))
    }

    /// The vocabulary's embeddings, and the logarithm of the factor between cosines and logits.
    pub(super) fn text(&self) -> (&TextTable, f64) {
        match self {
            Self::Teacher(teacher) => (teacher.text(), teacher.logit_scale()),
            Self::Prepared { space, .. } => (&space.text, space.logit_scale),
        }
    }

    /// These batches, with what was prepared of them.
    pub(super) fn around(&self, batches: Arc<dyn BatchSource>) -> Arc<dyn BatchSource> {
        match self {
            Self::Teacher(_) => batches,
            Self::Prepared { labels, .. } => {
                Arc::new(PreparedSource::new(batches, Arc::clone(labels)))
            }
        }
    }

    /// Has the teacher, if one is asked in training, look at images of that size: cuDNN plans for it.
    ///
    /// # Errors
    /// What the teacher or libtorch refuses.
    pub(super) fn warm_up(&self, images: &Tensor, normalization: &Normalization) -> Result<()> {
        match self {
            Self::Teacher(teacher) => teacher.encode(&normalization.pixels(images)?).map(drop),
            Self::Prepared { .. } => Ok(()),
        }
    }

    /// What it says of a batch's own boxes, image by image.
    ///
    /// # Errors
    /// What the teacher or libtorch refuses.
    pub(super) fn of_batch(
        &self,
        batch: &Batch,
        device: Device,
        normalization: &Normalization,
    ) -> Result<SoftLabels> {
        match self {
            Self::Teacher(teacher) => label_batch(teacher.as_ref(), batch, device, normalization),
            Self::Prepared { space, .. } => guarded(|| kept(space, batch, device)),
        }
    }
}

/// Labels boxes of one batch as its step asks: the teacher looks at the images once, when first asked.
pub(super) struct StepLabels<'a> {
    source: &'a LabelSource,
    batch: &'a Batch,
    images: &'a Tensor,
    normalization: Normalization,
    map: Option<DenseMap>,
}

impl<'a> StepLabels<'a> {
    /// `images` are the batch's, normalised, `[B, 3, H, W]`.
    pub(super) fn new(
        source: &'a LabelSource,
        batch: &'a Batch,
        images: &'a Tensor,
        normalization: Normalization,
    ) -> Self {
        Self { source, batch, images, normalization, map: None }
    }

    /// Of boxes `[N, 5]`, as [`Teacher::label`] takes them. What was prepared is of the batch's own boxes:
    /// settings that ask for others are refused with it.
    ///
    /// # Errors
    /// What the teacher or libtorch refuses.
    pub(super) fn of(&mut self, boxes: &Tensor) -> Result<SoftLabels> {
        let teacher = match self.source {
            LabelSource::Teacher(teacher) => teacher,
            LabelSource::Prepared { space, .. } => {
                return kept(space, self.batch, self.images.device());
            }
        };
        let map = match self.map.take() {
            Some(map) => map,
            None => teacher.encode(&self.normalization.pixels(self.images)?)?,
        };
        teacher.label(self.map.insert(map), boxes)
    }
}

/// The labels that a batch was read with.
fn kept(space: &LabelSpace, batch: &Batch, device: Device) -> Result<SoftLabels> {
    let features = batch
        .soft_features
        .as_ref()
        .ok_or_else(|| Error::other("a batch of a set whose soft labels were not prepared"))?;
    let features = torch_ext::upload(features, device);
    Ok(SoftLabels::new(&features, &space.text, space.logit_scale))
}

/// What a teacher says of a batch's own boxes, image by image.
///
/// # Errors
/// What the teacher or libtorch refuses.
pub(crate) fn label_batch(
    teacher: &dyn Teacher,
    batch: &Batch,
    device: Device,
    normalization: &Normalization,
) -> Result<SoftLabels> {
    let labels = guarded(|| {
        let (images, _) = batch.normalize(device, normalization)?;
        let map = teacher.encode(&normalization.pixels(&images)?)?;
        let boxes = target_boxes(&batch.targets).f_to_device(device)?;
        teacher.label(&map, &boxes)
    });
    labels.map_err(|error: Error| {
        error.for_work(
            || format!("the teacher's look at {}", batch.describe()),
            "lower data.batch_size, data.augment.scales, or the extra set's tile and augment, or set \
             teacher.precision = \"bf16\"",
        )
    })
}
