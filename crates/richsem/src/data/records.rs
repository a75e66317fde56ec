//! What a set has, whatever its format: images, annotations, classes. Readers ([`super::formats`]) hand these
//! over as they are written; nothing is counted or clipped yet.

use std::path::PathBuf;

use crate::{
    boxes::Xywh,
    data::{json_file::JsonFile, openimages::Relations, texts::Texts},
    vocabulary::{ClassIndex, Frequency},
};

/// An annotated set, every id resolved.
#[derive(Debug, Default)]
pub(in crate::data) struct Records {
    /// In the order of the file. The lists of classes are positions in [`Self::classes`].
    pub(in crate::data) images: Vec<ImageRecord>,
    /// In any order. `image` is a position in [`Self::images`], `class` one in [`Self::classes`].
    pub(in crate::data) annotations: Vec<Annotation>,
    /// In any order; their ids are all different.
    pub(in crate::data) classes: Vec<ClassRecord>,
    /// Whether the reader made the ids of the classes, because the format knows classes by their names alone.
    pub(in crate::data) numbered: bool,
    /// What the numbers of the boxes are.
    pub(in crate::data) unit: Unit,
    /// Whether they were shares before they became pixels.
    pub(in crate::data) from_shares: bool,
    /// What the file says of classes that it does not show.
    pub(in crate::data) verified: AnnotationFormat,
    /// The folder or archive that the names of the images are in, where the format says.
    pub(in crate::data) images_at: Option<PathBuf>,
    /// Folders in which every image is one of the set, at any depth.
    pub(in crate::data) searched: Vec<PathBuf>,
    /// The COCO or LVIS file that all was read from.
    pub(in crate::data) json: Option<JsonFile>,
    /// The images' ids as they are written, where some are no numbers; by position. Their own are then their
    /// numbers, from 1.
    pub(in crate::data) image_ids: Option<Texts>,
    /// The annotations' ids as they are written, where some are no numbers; by position. Their own are then their
    /// numbers, from 1.
    pub(in crate::data) annotation_ids: Option<Texts>,
    /// Which classes are kinds of which others, by their positions in [`Self::classes`], whose ids then
    /// rise with it.
    pub(in crate::data) relations: Option<Relations>,
    /// What the reader counted.
    pub(in crate::data) counts: ReadCounts,
    /// What was passed over or understood in a way that a user should know, each a line without an end.
    pub(in crate::data) notes: Vec<String>,
    /// What looks wrong although it is allowed, each a sentence.
    pub(in crate::data) warnings: Vec<String>,
}

/// Counts of a reader that the report of every format has.
#[derive(Debug, Default)]
pub(in crate::data) struct ReadCounts {
    /// Annotations without an area.
    pub(in crate::data) computed_area: usize,
    /// Entries in lists of verified classes that are no class of the file.
    pub(in crate::data) removed_listed: usize,
    /// Whether any image has a list of verified classes, perhaps an empty one.
    pub(in crate::data) lists: bool,
    /// Images with an entry in one of these.
    pub(in crate::data) listing: usize,
}

/// A class as its file has it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::data) struct ClassRecord {
    pub(in crate::data) id: i64,
    pub(in crate::data) name: String,
    /// Its id in the set where that is text, as OpenImages' `/m/01g317`.
    pub(in crate::data) key: Option<String>,
    /// Other names of it.
    pub(in crate::data) synonyms: Vec<String>,
    pub(in crate::data) supercategory: Option<String>,
    /// Counted where there is none, as the next two.
    pub(in crate::data) image_count: Option<u32>,
    pub(in crate::data) instance_count: Option<u32>,
    pub(in crate::data) frequency: Option<Frequency>,
    pub(in crate::data) synset: Option<String>,
    pub(in crate::data) wnid: Option<String>,
    pub(in crate::data) text_row: Option<u32>,
}

impl ClassRecord {
    /// A class of which the file says no more than its name.
    pub(in crate::data) fn named(id: i64, name: impl Into<String>) -> Self {
        Self { id, name: name.into(), ..Self::default() }
    }
}

/// What the numbers of a box are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unit {
    /// Pixels of the image.
    #[default]
    Pixels,
    /// Shares of its width and height, from 0 to 1: of the image as viewers show it.
    Shares,
}

/// What a file says about the classes that it does not show in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnnotationFormat {
    /// Every class is annotated in every image: what is not shown is absent.
    #[default]
    Coco,
    /// Classes are verified for each image: `neg_category_ids`, `not_exhaustive_category_ids`. A
    /// file is LVIS if any of these lists has an entry. Lists that are empty in every image verify
    /// nothing.
    Lvis,
}

/// One image of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageRecord {
    /// Its id in the file. Where ids are texts, its number in the file, from 1: see [`super::dataset::Dataset::text_id`].
    pub id: i64,
    /// Path below the image root, with `/` between folders and never leaving that root. The
    /// file's `file_name`, where it has one; otherwise, as in LVIS v1, the path in `coco_url`
    /// (`http://images.cocodataset.org/train2017/000000391895.jpg` gives
    /// `train2017/000000391895.jpg`). If both are present, `file_name` wins.
    pub file_name: String,
    /// `[height, width]` in pixels, if the file says.
    pub size: Option<[u32; 2]>,
    /// Whether the reader took the size from the image, because the file has none, and the boxes do not show either
    /// which way up they were drawn.
    pub sized_by_image: bool,
    /// Classes verified present, whether boxes show them or not (OpenImages).
    pub present_classes: Vec<ClassIndex>,
    /// Classes verified absent, in the file's order; those that are in the file.
    pub neg_classes: Vec<ClassIndex>,
    /// Classes whose boxes here are not all annotated, in the file's order.
    pub not_exhaustive_classes: Vec<ClassIndex>,
}

/// One annotation, with the file's own numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// Its id in the file. Where ids are texts, its number in the file, from 1: see
    /// [`super::dataset::Dataset::annotation_text_id`].
    pub id: i64,
    /// Position of its image in [`super::dataset::Dataset::images`].
    pub image: u32,
    /// Its class, a position in [`super::dataset::Dataset::vocabulary`].
    pub class: ClassIndex,
    /// As in the file: not clipped, perhaps empty. Width and height are never negative.
    pub bbox: Xywh,
    /// The file's `area` (of the mask, in COCO and LVIS), or width × height where it has none.
    pub area: f64,
    /// A region of many instances (`iscrowd`): ignored by evaluation, not trained on.
    pub crowd: bool,
    /// LVIS's `ignore`: neither to be found nor a mistake.
    pub ignore: bool,
}
