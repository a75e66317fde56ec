//! Frozen teachers: images and boxes in, soft labels over the vocabulary out (RichSem, section
//! 3.2). A teacher runs without autograd; what it sees are pixels and boxes, never targets, so
//! annotated and predicted boxes are labelled the same way.

pub mod clip;
mod clip_teacher;
mod config;
pub(crate) mod made_for;
mod text_table;

use tch::{Device, Kind, Tensor};

use crate::{error::Result, models::class_head::TextTable, vocabulary::Vocabulary};

pub use clip_teacher::ClipTeacher;
pub(crate) use clip_teacher::text_of_clip;
pub use config::{TeacherConfig, TeacherText, VitLabels};
pub use text_table::encode_prompts;

/// A teacher's view of a batch of images, to label boxes from.
#[derive(Debug)]
pub struct DenseMap {
    /// `[B, D, ⌈H / stride⌉, ⌈W / stride⌉]`. A teacher that crops keeps the (normalised) images
    /// themselves, at stride 1.
    pub features: Tensor,
    /// Image pixels per cell of the map.
    pub stride: i64,
}

/// What a teacher says of each box.
#[derive(Debug)]
pub struct SoftLabels {
    /// `[N, C]` f32: `exp(logit_scale) · norm(features) · norm(text)ᵀ`. Their softmax over the
    /// classes is the soft label.
    pub logits: Tensor,
    /// `[N, D]` f32: features of each box, of length one.
    pub features: Tensor,
}

impl SoftLabels {
    /// Compares box features with the vocabulary, in f32. A box that saw nothing (features of
    /// length zero) gets equal logits rather than NaN.
    ///
    /// # Shapes
    /// `features` `[N, D]`, any floating kind; `text.normalized` `[C, D]`
    ///
    /// # Panics
    /// Features of another width than the text's.
    #[must_use]
    pub fn new(features: &Tensor, text: &TextTable, logit_scale: f64) -> Self {
        let features = features.to_kind(Kind::Float);
        let length = features.norm_scalaropt_dim(2.0, [-1i64], true);
        let features = features / length.clamp_min(1e-12);
        let logits = features.matmul(&text.normalized.transpose(0, 1)) * logit_scale.exp();
        Self { logits, features }
    }
}

/// What box features are compared with: text embeddings and a factor.
#[derive(Debug)]
pub struct LabelSpace {
    /// Text embeddings of the classes.
    pub text: TextTable,
    /// The logarithm of the factor between cosines and logits.
    pub logit_scale: f64,
}

/// A frozen model that labels boxes.
pub trait Teacher: std::fmt::Debug + Send {
    /// Computes the map of a batch, once for all its boxes.
    ///
    /// # Shapes
    /// `images` `[B, 3, H, W]` f32, RGB in [0, 1], on the teacher's device; it applies its own mean
    /// and standard deviation
    ///
    /// # Errors
    /// Another shape, images too small for the model, what libtorch refuses.
    fn encode(&self, images: &Tensor) -> Result<DenseMap>;

    /// Labels boxes of the images that gave `map`, any number of times.
    ///
    /// # Shapes
    /// `boxes` `[N, 5]` f32 on the teacher's device: index of the image, then x0, y0, x1, y1 in
    /// pixels of `images`, clipped to it; N may be 0
    ///
    /// # Errors
    /// Another shape, what libtorch refuses.
    fn label(&self, map: &DenseMap, boxes: &Tensor) -> Result<SoftLabels>;

    /// Text embeddings of the classes, which the logits compare with.
    fn text(&self) -> &TextTable;

    /// The logarithm of the factor between cosines and logits.
    fn logit_scale(&self) -> f64;

    /// What kind of model it is, in one line.
    fn describe(&self) -> String;
}

/// Opens a teacher: from its settings, for these classes, on that device.
pub type OpenTeacher<'a> =
    dyn Fn(&TeacherConfig, &Vocabulary, Device) -> Result<Box<dyn Teacher>> + 'a;

/// Opens the teacher that the settings name, with the vocabulary's text table on its device.
///
/// # Errors
/// No weights are named; weights or a table that cannot be read or do not belong together, a prompt
/// that is too long.
pub fn open(
    config: &TeacherConfig,
    vocabulary: &Vocabulary,
    device: Device,
) -> Result<Box<dyn Teacher>> {
    Ok(Box::new(ClipTeacher::open(config, vocabulary, device)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_golden;
