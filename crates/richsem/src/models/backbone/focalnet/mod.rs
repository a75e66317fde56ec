//! FocalNets (arXiv 2203.11926): focal modulation in the place of attention.

mod network;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    Level,
    parts::{Common, four_levels},
};
use crate::{
    bounds::within,
    error::{Error, Result},
};

pub use network::Focalnet;

/// Kind of FocalNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FocalnetName {
    /// 96 channels, blocks 2-2-6-2.
    FocalnetT,
    /// 96 channels, blocks 2-2-18-2.
    FocalnetS,
    /// 128 channels, blocks 2-2-18-2.
    FocalnetB,
    /// 192 channels, blocks 2-2-18-2; overlapping patches, norms behind the branches, layer scale.
    FocalnetL,
    /// 256 channels, otherwise as `focalnet_l`.
    FocalnetXl,
    /// 352 channels, otherwise as `focalnet_l`, with a norm inside of the modulation.
    FocalnetH,
}

impl FocalnetName {
    /// All of them, smallest first.
    pub const ALL: [Self; 6] = [
        Self::FocalnetT,
        Self::FocalnetS,
        Self::FocalnetB,
        Self::FocalnetL,
        Self::FocalnetXl,
        Self::FocalnetH,
    ];

    /// The name in settings files, as `focalnet_t`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FocalnetT => "focalnet_t",
            Self::FocalnetS => "focalnet_s",
            Self::FocalnetB => "focalnet_b",
            Self::FocalnetL => "focalnet_l",
            Self::FocalnetXl => "focalnet_xl",
            Self::FocalnetH => "focalnet_h",
        }
    }

    /// Channels of the first stage of the published model.
    #[must_use]
    pub fn width(self) -> i64 {
        match self {
            Self::FocalnetT | Self::FocalnetS => 96,
            Self::FocalnetB => 128,
            Self::FocalnetL => 192,
            Self::FocalnetXl => 256,
            Self::FocalnetH => 352,
        }
    }

    /// Blocks of each stage of the published model.
    #[must_use]
    pub fn blocks(self) -> [i64; 4] {
        [2, 2, if self == Self::FocalnetT { 6 } else { 18 }, 2]
    }

    /// Whether it has the form of the large ones: overlapping patches, norms behind the branches, layer scale.
    #[must_use]
    pub fn is_large(self) -> bool {
        matches!(self, Self::FocalnetL | Self::FocalnetXl | Self::FocalnetH)
    }
}

/// Settings of a FocalNet as backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FocalnetConfig {
    /// Kind: `focalnet_t`, `focalnet_s`, `focalnet_b`, `focalnet_l`, `focalnet_xl` or `focalnet_h`. Default:
    /// `focalnet_t`. Reference: `backbone`.
    pub name: FocalnetName,
    /// Levels of context, each from a larger neighbourhood; 1 to 8. Published are 2 (`srf`) and 3 (`lrf`) of
    /// the smaller three, 3 (`fl3`) and 4 (`fl4`) of the others. Default: 3 and 4. Reference: `focal_levels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub focal_levels: Option<i64>,
    /// Side of the first level's neighbourhood, odd, 1 to 31; each further one is two larger. Default: 3, or 5
    /// of `focalnet_l` and `focalnet_xl` with 3 levels. Larger than that of the `weights`, kernels of these
    /// start in the middle of ours. Reference: `focal_windows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub focal_window: Option<i64>,
    /// Channels of the first stage. Each stage has twice as many as the one before. Default: those of the
    /// published model; up to 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// Number of blocks of each of the four stages, each from 1 to 1000. Default: those of the published
    /// model.
    pub layers: Vec<i64>,
    /// Whether the sum of the contexts is divided by their number. Default: as of the published model, where
    /// only `focalnet_l` with 4 levels does. Reference: `normalize_modulator`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize_modulator: Option<bool>,
    /// How often a training image passes the branches of the last block by; from 0 at the first block it
    /// rises to this. Default: 0.2; 0 to 0.95. Reference: `drop_path_rate`.
    pub drop_path: f64,
    /// How many stages are not trained: −1 none, 0 the patch embedding, 1 that and the first stage, and so
    /// on; 4 is everything but the norms of the outputs. Default: −1, as in the reference.
    pub frozen_stages: i64,
    /// Whether the backward pass runs each block again, instead of keeping what lies between: less memory,
    /// more time, the same numbers but for rounding. Default: false. Reference: `use_checkpoint`.
    pub checkpointing: bool,
    /// Weights to start from: safetensors, or PyTorch's `.pt` or `.pth`, with Microsoft's names, timm's or
    /// Hugging Face's. The path is relative to the settings file. Default: none. Reference:
    /// `pretrain_model_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

impl Default for FocalnetConfig {
    fn default() -> Self {
        Self {
            name: FocalnetName::FocalnetT,
            focal_levels: None,
            focal_window: None,
            width: None,
            layers: Vec::new(),
            normalize_modulator: None,
            drop_path: 0.2,
            frozen_stages: -1,
            checkpointing: false,
            weights: None,
        }
    }
}

impl FocalnetConfig {
    /// What it is, in a few words: `focalnet_l, 4 levels, window 3`.
    #[must_use]
    pub fn describe(&self) -> String {
        let (levels, window) = (self.focal_levels(), self.focal_window());
        let mut text = format!("{}, {levels} levels, window {window}", self.name.name());
        if self.width() != self.name.width() {
            text += &format!(", width {}", self.width());
        }
        if self.blocks() != self.name.blocks() {
            text += &format!(", layers {:?}", self.blocks());
        }
        text
    }

    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        within(format!("{key}.focal_levels"), self.focal_levels(), 1..=8)?;
        within(format!("{key}.focal_window"), self.focal_window(), 1..=31)?;
        if self.focal_window() % 2 == 0 {
            let problem = format!("expected an odd number, got {}", self.focal_window());
            return Err(Error::config(format!("{key}.focal_window"), problem));
        }
        let Self { width, ref layers, drop_path, frozen_stages, .. } = *self;
        Common { width, layers, drop_path, frozen_stages }.validate(key, 1)
    }

    /// Levels of context: the setting, or else a published model's.
    #[must_use]
    pub fn focal_levels(&self) -> i64 {
        self.focal_levels.unwrap_or(if self.name.is_large() { 4 } else { 3 })
    }

    /// Side of the first neighbourhood: the setting, or else the published model's.
    #[must_use]
    pub fn focal_window(&self) -> i64 {
        let wide = matches!(self.name, FocalnetName::FocalnetL | FocalnetName::FocalnetXl)
            && self.focal_levels() == 3;
        self.focal_window.unwrap_or(if wide { 5 } else { 3 })
    }

    /// Whether the sum of contexts is divided by their number: the setting, or else as the published model.
    #[must_use]
    pub fn normalize_modulator(&self) -> bool {
        self.normalize_modulator
            .unwrap_or(self.name == FocalnetName::FocalnetL && self.focal_levels() == 4)
    }

    /// Channels of the first stage: the setting, or else the published model's.
    #[must_use]
    pub fn width(&self) -> i64 {
        self.width.unwrap_or_else(|| self.name.width())
    }

    /// Number of blocks of each stage: the setting, or else the published model's.
    #[must_use]
    pub fn blocks(&self) -> [i64; 4] {
        match *self.layers {
            [a, b, c, d] => [a, b, c, d],
            _ => self.name.blocks(),
        }
    }

    /// Channels and stride of the four stages' maps.
    #[must_use]
    pub fn levels(&self) -> Vec<Level> {
        four_levels(self.width())
    }

    /// Random numbers that a training pass takes for each image: two a block, for drop path.
    #[must_use]
    pub fn draws(&self) -> usize {
        if self.drop_path > 0.0 { 2 * self.blocks().iter().sum::<i64>() as usize } else { 0 }
    }
}
