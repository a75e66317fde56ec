//! What is known of one image: its boxes, and which classes may be counted as absent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{boxes::Cxcywh, geometry::Geometry, vocabulary::ClassIndex};

/// Which classes an image says something about. Detection sets differ. COCO annotates every class
/// in every image. LVIS verifies a few classes for each image (arXiv 1908.03195, section 3).
/// Partial sets know only what they show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelKnowledge {
    /// Classes with at least one box here.
    pub present: Vec<ClassIndex>,
    /// Classes verified absent (LVIS `neg_category_ids`).
    pub absent: Vec<ClassIndex>,
    /// Classes whose boxes here are not all annotated (LVIS `not_exhaustive_category_ids`).
    pub not_exhaustive: Vec<ClassIndex>,
    /// Classes of which every image of the set shows all boxes, sorted. If such a class is in none
    /// of the other lists, it is absent. For COCO these are all 80 classes, for LVIS none. A
    /// classification image says nothing about classes that are not among its labels.
    pub exhaustive: Arc<[ClassIndex]>,
}

impl LabelKnowledge {
    /// Whether a class that is in none of the lists is absent.
    #[must_use]
    pub fn is_exhaustive(&self, class: ClassIndex) -> bool {
        self.exhaustive.binary_search(&class).is_ok()
    }
}

/// What is known of one image, for training. `boxes` and `labels` are parallel, length T.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Id of the image in its annotation file.
    pub image_id: i64,
    /// `[T]` boxes, relative to the unpadded image.
    pub boxes: Vec<Cxcywh>,
    /// `[T]` class of each box.
    pub labels: Vec<ClassIndex>,
    /// What is known of the other classes.
    pub knowledge: LabelKnowledge,
    /// `[height, width]` in pixels after the transforms, before padding.
    pub size: [u32; 2],
    /// `[height, width]` of the file, the frame of reference of results.
    pub original_size: [u32; 2],
    /// The view of the image that this is. None after a crop, and on a mosaic.
    pub view: Option<View>,
    /// Where points of the file lie in this image. None on a mosaic, and where there is no file.
    pub geometry: Option<Geometry>,
}

/// A whole image as training shows it. Without crops there are as many views as scales, and twice
/// as many with flips. So what a frozen teacher says of them can be kept (see [`crate::prepared`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Number of the image in its set.
    pub image: u32,
    /// Shorter side that was asked for, in pixels. 0 means as the file has it.
    pub scale: u32,
    /// Whether the image was mirrored.
    pub flip: bool,
}

impl View {
    /// The view of an image as its file has it.
    #[must_use]
    pub fn of(image: usize) -> Option<Self> {
        let image = u32::try_from(image).ok()?;
        Some(Self { image, scale: 0, flip: false })
    }
}

/// Which query learns from a box.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxMatching {
    /// The query that the Hungarian matching gives to the box.
    #[default]
    Hungarian,
    /// The query whose predicted box is the largest with its centre inside (Detic's max-size loss,
    /// arXiv 2201.02605, section 3.2). It is meant for boxes that are a whole image. Detic learns
    /// only classes that way: switch `l1` and `giou` off.
    MaxSize,
}

/// Which losses the boxes of a set have. The box of a classification image is coarse, and may teach
/// less than one that an annotator drew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Supervision {
    /// Whether its boxes have class losses. Default: true.
    pub class: bool,
    /// Whether its boxes have L1 losses. Of Faster R-CNN it is the box loss. Default: true.
    pub l1: bool,
    /// Whether its boxes have GIoU losses. Default: true. Faster R-CNN has none.
    pub giou: bool,
    /// Whether its boxes have a semantic loss, if there is a semantic branch. Default: true.
    pub semantic: bool,
    /// Whether the encoder's proposals keep the losses that are switched off here, as in the
    /// official code. Default: false. Only for DINO.
    pub interm_exempt: bool,
    /// Which query learns from a box: `hungarian` (the default) or `max_size`. Only for DINO.
    pub assignment: BoxMatching,
    /// Whether the region proposal network learns from its boxes. Default: true. Only for Faster R-CNN.
    pub rpn: bool,
    /// Whether anchors and proposals of which nine tenths lie inside a box do not count as background, where
    /// they overlap it too little to be it. In a coarse box the object itself may be such a proposal. Default:
    /// false. Only for Faster R-CNN.
    pub ignore_inside: bool,
    /// What all losses of its batches are multiplied by, the semantic one included. Default: 1; 0.001 to 1000. It
    /// means little where `train.clip_max_norm` is below the usual norm of the gradient, which is then cut to the
    /// same length again.
    pub loss_weight: f64,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            class: true,
            l1: true,
            giou: true,
            semantic: true,
            interm_exempt: false,
            assignment: BoxMatching::Hungarian,
            rpn: true,
            ignore_inside: false,
            loss_weight: 1.0,
        }
    }
}
