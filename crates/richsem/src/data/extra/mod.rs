//! Classification images as extra training data (arXiv 2310.12152, section 3.4): each has one
//! coarse box, the whole image, labelled with the image's own label.
//!
//! A [`ClassificationSet`] knows the images and their classes in the detection vocabulary, an
//! [`Order`] says which images a batch shows, an [`ExtraSource`] reads them and makes batches, of
//! [`mosaic()`]s or of single images.

mod groups;
mod info;
mod labels;
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

pub use mapping::{MappingConfig, read_mapping};
pub use mosaic::{mosaic, mosaic_at};
pub use order::Order;
pub use report::ExtraReport;
pub use set::{ClassificationSet, Item};
pub use source::{ExtraSource, FeedConfig};

/// A set of classification images, and how the detector learns from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraConfig {
    /// A folder of class folders (`n02690373/1.jpg`), or an uncompressed `.tar` of them. Of folders
    /// `train`, `val` and so on that hold class folders, `train` counts. Or parquet files with a column
    /// `label`, or webdataset's shards with a field `cls` (`shard-{0000..0127}.tar`). The path is relative to
    /// the settings file.
    pub images: PathBuf,
    /// A file that lists the images and their labels, as Detic's `imagenet_lvis_image_info.json`.
    /// The path is relative to the settings file. Default: none; then an image's label is the name
    /// of its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<PathBuf>,
    /// How the set's classes are found among the detection classes. Default: folders by wnid; the
    /// categories of `info` by synset, or by name where one side has no synsets; labels beside the images by
    /// wnid if all look like one, else by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<MappingConfig>,
    /// What makes up one image of a batch: four images as a mosaic, or a single one. Default: `{
    /// kind = "mosaic", tile = 640 }`. Reference: `imagenet_use_mosaic`.
    #[serde(default)]
    pub form: FormConfig,
    /// Random changes of each image, before it is put on a mosaic. Default: those of detection
    /// images (`data.augment`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<TransformConfig>,
    /// Mosaics or single images in a batch of one process. Default: as many as `data.batch_size`; 1
    /// to 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Which way up the images are read: `exif` (the default) or `stored`. The boxes are whole
    /// images, so they do not depend on it.
    #[serde(default)]
    pub orientation: Orientation,
    /// How many batches of this set a cycle has, where `data.weight` is the number of detection
    /// batches. Default: 1; 0 to 1000. 0 leaves the set out.
    #[serde(default = "one")]
    pub weight: u32,
    /// In which order the images come: `shuffled` (the default) or `official`.
    #[serde(default)]
    pub order: OrderConfig,
    /// Which losses the boxes of whole images have. Default: all.
    #[serde(default)]
    pub supervision: Supervision,
}

/// Default of `weight`.
fn one() -> u32 {
    1
}

/// What makes up one image of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FormConfig {
    /// Four images on one canvas: see [`mosaic()`].
    Mosaic {
        /// Each image is resized to fit a square with this side, in pixels. The canvas is twice as
        /// wide and high. Default: 640, as in the paper; 2 to 2048.
        #[serde(default = "default_tile")]
        tile: u32,
    },
    /// One classification image, treated as a detection image is.
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

/// In which order the images come, and with which of their labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderConfig {
    /// Passes over the whole set, each in a new random order. No image comes a second time before
    /// every image came once. Images have all their labels.
    #[default]
    Shuffled,
    /// What the official code does on several devices, for comparisons. There is one fixed order,
    /// which begins anew each epoch. The other three images of a mosaic are drawn at random. Images
    /// have only their first label.
    Official,
}

/// Largest tile of a mosaic, in pixels.
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
        within(format!("{key}.supervision.loss_weight"), self.supervision.loss_weight, 1e-3..=1e3)?;
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
