//! What is known of one image: its boxes, and which classes may be counted as absent.

use crate::{boxes::Cxcywh, vocabulary::ClassIndex};

/// Which classes an image says something about. Detection sets differ: COCO annotates every class
/// everywhere, LVIS verifies a few per image (arXiv 1908.03195, section 3), partial sets know only
/// what they show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelKnowledge {
    /// Classes with at least one box here.
    pub present: Vec<ClassIndex>,
    /// Classes verified absent (LVIS `neg_category_ids`).
    pub absent: Vec<ClassIndex>,
    /// Classes whose boxes here are not all annotated (LVIS `not_exhaustive_category_ids`).
    pub not_exhaustive: Vec<ClassIndex>,
    /// Every class in none of the lists is absent (COCO); otherwise it is unknown (LVIS).
    pub others_absent: bool,
}

/// The supervision of one image. `boxes` and `labels` are parallel, length T.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Id of the image in its annotation file.
    pub image_id: i64,
    /// `[T]` boxes, relative to the unpadded image.
    pub boxes: Vec<Cxcywh>,
    /// `[T]` classes.
    pub labels: Vec<ClassIndex>,
    /// Which other classes are known.
    pub knowledge: LabelKnowledge,
    /// `[height, width]` in pixels after the transforms, before padding.
    pub size: [u32; 2],
    /// `[height, width]` of the file, the frame of reference of results.
    pub original_size: [u32; 2],
}
