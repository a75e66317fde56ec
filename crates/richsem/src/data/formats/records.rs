//! What a reader of a format hands over: records as they are written, with the same types whatever the
//! format. Nothing is counted or clipped yet.

use std::path::{Path, PathBuf};

use super::BoxForm;
use crate::{
    data::{
        dataset::{Annotation, AnnotationFormat, ImageRecord},
        openimages::Relations,
    },
    vocabulary::Frequency,
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
    /// What the numbers of the boxes are.
    pub(in crate::data) unit: Unit,
    /// What the file says of classes that it does not show.
    pub(in crate::data) verified: AnnotationFormat,
    /// The folder or archive that the names of the images are in, where the format says.
    pub(in crate::data) images_at: Option<PathBuf>,
    /// The images' ids as they are written, where some are no numbers; by position. Their own are then their
    /// numbers, from 1.
    pub(in crate::data) image_ids: Option<Vec<String>>,
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
#[derive(Debug, Default, Clone)]
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

/// What is asked of a reader.
#[derive(Debug, Clone, Copy)]
pub(in crate::data) struct Request<'a> {
    /// The file or folder that was given.
    pub(in crate::data) path: &'a Path,
    /// Which part of the set, one of those that [`super::Format::splits`] names; empty where it names none.
    pub(in crate::data) split: &'a str,
    /// Where the images are, if the user says.
    pub(in crate::data) images: Option<&'a Path>,
    /// A list of classes, if the user gives one. Only Visual Genome has a use for it.
    pub(in crate::data) vocabulary: Option<&'a Path>,
    /// What the numbers of the boxes are, if the user says. Only Hugging Face's sets leave it open.
    pub(in crate::data) boxes: Option<BoxForm>,
    /// Whether there must be annotations. A list of images alone is enough to predict.
    pub(in crate::data) annotated: bool,
}
