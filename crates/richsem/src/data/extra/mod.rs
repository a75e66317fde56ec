//! Classification images as extra training data (arXiv 2310.12152, section 3.4): each has one
//! coarse box, the whole image, labelled with the image's own label.
//!
//! A [`ClassificationSet`] knows the images and their classes in the detection vocabulary, an
//! [`Order`] says which images a batch shows, an [`ExtraSource`] reads them and makes batches, of
//! [`mosaic()`]s or of single images.

mod groups;
mod info;
mod mapping;
mod mosaic;
mod order;
mod report;
mod set;
mod source;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{image_io::Orientation, transforms::TransformConfig};
use crate::{
    Error, Result,
    bounds::{BATCH, within},
    targets::Supervision,
};

pub use mapping::MappingConfig;
pub use mosaic::{mosaic, mosaic_at};
pub use order::Order;
pub use report::ExtraReport;
pub use set::{ClassificationSet, Item};
pub use source::{ExtraSource, FeedConfig};

/// A set of classification images, and how it is learned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraConfig {
    /// A folder of class folders (`n02690373/1.jpg`), or an uncompressed `.tar` of them. Relative
    /// to the file that says so.
    pub images: PathBuf,
    /// A file that lists the images and their labels, as Detic's
    /// `imagenet_lvis_image_info.json`; absent: an image's label is its folder. Relative
    /// likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<PathBuf>,
    /// How the set's classes are found in the detection vocabulary. Absent: folders by wnid; the
    /// categories of `info` by synset, or by name where one side has no synsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<MappingConfig>,
    /// What becomes one image of a batch.
    #[serde(default)]
    pub form: FormConfig,
    /// What is done to each image, before it is pasted; absent: what is done to detection images
    /// (`data.augment`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<TransformConfig>,
    /// Mosaics or single images a step and process; absent: as many as detection images
    /// (`data.batch_size`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Which way up its images are read. The boxes are whole images, so that only what is seen in them
    /// depends on it.
    #[serde(default)]
    pub orientation: Orientation,
    /// Share of its batches, against `data.weight`; 0: none, as if the set were not there.
    #[serde(default = "one")]
    pub weight: u32,
    /// Which images come when.
    #[serde(default)]
    pub order: OrderConfig,
    /// What the whole-image boxes teach.
    #[serde(default)]
    pub supervision: Supervision,
}

fn one() -> u32 {
    1
}

/// What becomes one image of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FormConfig {
    /// Four images on one canvas, see [`mosaic()`].
    Mosaic {
        /// Side of the square that each image is resized to fit, in pixels; the canvas is twice
        /// as wide and high.
        #[serde(default = "default_tile")]
        tile: u32,
    },
    /// One image, as a detection image.
    Single {},
}

fn default_tile() -> u32 {
    640
}

impl Default for FormConfig {
    fn default() -> Self {
        Self::Mosaic { tile: default_tile() }
    }
}

impl FormConfig {
    /// Classification images in one image of a batch.
    #[must_use]
    pub fn images(self) -> usize {
        match self {
            Self::Mosaic { .. } => 4,
            Self::Single {} => 1,
        }
    }
}

/// Which images come when, and with which of their labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderConfig {
    /// Passes over the whole set, each in a new random order; no image comes a second time before
    /// every image came once. All labels of an image.
    #[default]
    Shuffled,
    /// What the official code does on several devices, for comparisons: one fixed permutation,
    /// begun anew each epoch; a mosaic's other three images are drawn at random; the first label
    /// of an image alone.
    Official,
}

const LARGEST_TILE: u32 = 2048;

impl ExtraConfig {
    /// The defaults, for images there.
    #[must_use]
    pub fn new(images: impl Into<PathBuf>) -> Self {
        Self {
            images: images.into(),
            info: None,
            mapping: None,
            form: FormConfig::default(),
            augment: None,
            batch_size: None,
            orientation: Orientation::default(),
            weight: one(),
            order: OrderConfig::default(),
            supervision: Supervision::default(),
        }
    }

    /// Checks every field. `key` is this section's dotted name.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key, the rule and the value.
    pub fn validate(&self, key: &str) -> Result<()> {
        if let FormConfig::Mosaic { tile } = self.form
            && !(2..=LARGEST_TILE).contains(&tile)
        {
            let problem = format!("expected pixels from 2 to {LARGEST_TILE}, got {tile}");
            return Err(Error::config(format!("{key}.form.tile"), problem)
                .with_hint("the canvas is twice as wide and high as a tile"));
        }
        if let Some(batch_size) = self.batch_size {
            within(format!("{key}.batch_size"), batch_size, BATCH)
                .map_err(|e| e.with_hint("leave it out for as many as data.batch_size"))?;
        }
        self.augment.as_ref().map_or(Ok(()), |a| a.validate(&format!("{key}.augment")))
    }
}

#[cfg(test)]
#[path = "tests/support.rs"]
#[allow(clippy::unwrap_used)]
mod support;
#[cfg(test)]
#[path = "tests/config.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
