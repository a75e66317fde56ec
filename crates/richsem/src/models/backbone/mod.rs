//! Backbones: images in, feature maps out, each smaller than the one before.

mod resnet;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    error::Result,
    models::{padding::PaddingPyramid, parameters::Scope},
};

pub use resnet::{Norm, Resnet, ResnetConfig, ResnetName};

/// A feature map of a backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// C: channels of the map.
    pub channels: i64,
    /// Pixels of the image from one cell to the next, a power of two.
    pub stride: i64,
}

/// A backbone's settings: its `name` says which it is, and so which settings it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "ResnetConfig", into = "ResnetConfig")]
pub enum BackboneConfig {
    /// `resnet18`, `resnet34`, `resnet50`, `resnet101`, `clip_resnet`.
    Resnet(ResnetConfig),
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::Resnet(ResnetConfig::default())
    }
}

impl From<ResnetConfig> for BackboneConfig {
    fn from(config: ResnetConfig) -> Self {
        Self::Resnet(config)
    }
}

impl From<BackboneConfig> for ResnetConfig {
    fn from(BackboneConfig::Resnet(config): BackboneConfig) -> Self {
        config
    }
}

impl BackboneConfig {
    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        match self {
            Self::Resnet(config) => config.validate(key),
        }
    }

    /// The maps that it gives, largest first.
    #[must_use]
    pub fn levels(&self) -> Vec<Level> {
        match self {
            Self::Resnet(config) => config.levels().to_vec(),
        }
    }

    /// Random numbers that a training pass takes for each image, uniform in [0, 1).
    #[must_use]
    pub fn draws(&self) -> usize {
        match self {
            Self::Resnet(_) => 0,
        }
    }

    /// Pixels that the sides of a batch must be a multiple of.
    #[must_use]
    pub fn pad_multiple(&self) -> u32 {
        match self {
            Self::Resnet(_) => 1,
        }
    }

    /// The file of weights to start from, if one is set.
    #[must_use]
    pub fn weights(&self) -> Option<&Path> {
        match self {
            Self::Resnet(config) => config.weights.as_deref(),
        }
    }

    /// Starts from other weights, or from none.
    pub fn set_weights(&mut self, weights: Option<PathBuf>) {
        match self {
            Self::Resnet(config) => config.weights = weights,
        }
    }

    /// What it is, in a few words: `resnet50, frozen_bn`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Resnet(config) => config.describe(),
        }
    }
}

/// A backbone with its weights.
#[derive(Debug)]
pub enum Backbone {
    /// A ResNet, torchvision's or CLIP's.
    Resnet(Resnet),
}

impl Backbone {
    /// Key names are those of the published model, below `scope`.
    #[must_use]
    pub fn new(scope: &Scope, config: &BackboneConfig) -> Self {
        match config {
            BackboneConfig::Resnet(config) => Self::Resnet(Resnet::new(scope, config)),
        }
    }

    /// `train` makes trainable batch norms use the batch's statistics and update their own. With the
    /// `padding` of the images, at least as deep as its last level, an image's maps are those of the image
    /// alone, and zero in the padding, as the images are; without, all of it is image.
    ///
    /// `draws` are the random numbers of a training pass, as many as [`BackboneConfig::draws`] says.
    ///
    /// # Shapes
    /// `[B, 3, H, W]`, draws `[draws, B]` → a map `[B, channels, ⌈H / stride⌉, ⌈W / stride⌉]` for each of
    /// [`BackboneConfig::levels`]
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(
        &self,
        images: &Tensor,
        padding: Option<&PaddingPyramid>,
        (train, draws): (bool, Option<&Tensor>),
    ) -> Result<Vec<Tensor>> {
        debug_assert!(draws.is_none(), "nothing is random in a ResNet");
        match self {
            Self::Resnet(resnet) => resnet.forward(images, padding, train).map(Vec::from),
        }
    }
}
