//! What a reader of a format is asked for.

use std::path::Path;

use super::hf::BoxForm;
use crate::data::{image_io::Orientation, reading::Watch};

/// What is asked of a reader.
#[derive(Clone, Copy)]
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
    /// Which way up the images are, for boxes in pixels: sizes that are read from the images are those of this frame.
    pub(in crate::data) orientation: Orientation,
    /// Whether there must be annotations. A list of images alone is enough to predict.
    pub(in crate::data) annotated: bool,
    /// Told how far it is, from the thread that reads.
    pub(in crate::data) watch: Watch<'a>,
}
