//! Swin Transformers (arXiv 2103.14030), as detectors use them: maps of any size, padded to whole windows.

mod attention;
mod network;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    Level,
    parts::{Common, four_levels},
};
use crate::{bounds::within, error::Result};

pub(super) use attention::{from_windows, to_windows};
pub use network::Swin;

/// Kind of Swin Transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwinName {
    /// 96 channels, blocks 2-2-6-2.
    SwinT,
    /// 96 channels, blocks 2-2-18-2.
    SwinS,
    /// 128 channels, blocks 2-2-18-2.
    SwinB,
    /// 192 channels, blocks 2-2-18-2.
    SwinL,
}

impl SwinName {
    /// All of them, smallest first.
    pub const ALL: [Self; 4] = [Self::SwinT, Self::SwinS, Self::SwinB, Self::SwinL];

    /// The name in settings files, as `swin_t`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SwinT => "swin_t",
            Self::SwinS => "swin_s",
            Self::SwinB => "swin_b",
            Self::SwinL => "swin_l",
        }
    }

    /// Channels of the first stage of the published model.
    #[must_use]
    pub fn width(self) -> i64 {
        match self {
            Self::SwinT | Self::SwinS => 96,
            Self::SwinB => 128,
            Self::SwinL => 192,
        }
    }

    /// Blocks of each stage of the published model.
    #[must_use]
    pub fn blocks(self) -> [i64; 4] {
        [2, 2, if self == Self::SwinT { 6 } else { 18 }, 2]
    }

    /// Side of a window of the published model: 7, or 12 of those that are pretrained on larger images.
    #[must_use]
    pub fn window(self) -> i64 {
        match self {
            Self::SwinT | Self::SwinS => 7,
            Self::SwinB | Self::SwinL => 12,
        }
    }
}

/// Settings of a Swin Transformer as backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwinConfig {
    /// Kind: `swin_t`, `swin_s`, `swin_b` or `swin_l`. Default: `swin_t`. Reference: `backbone`.
    pub name: SwinName,
    /// Side of a window, in cells of a map; 2 to 64. Default: 7 for `swin_t` and `swin_s`, 12 for `swin_b` and
    /// `swin_l`. It must be that of the `weights`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// Channels of the first stage. Each stage has twice as many as the one before. Default: those of the
    /// published model; a multiple of `head_width` up to 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// Number of blocks of each of the four stages, each from 1 to 1000. Default: those of the published
    /// model.
    pub layers: Vec<i64>,
    /// Channels of an attention head. Default: 32, as in every published model; 1 to 1024.
    pub head_width: i64,
    /// How often a training image passes the branches of the last block by; from 0 at the first block it
    /// rises to this. Default: 0.2; 0 to 0.95. Reference: `drop_path_rate` (0.2 there, and in mmdetection 0.3
    /// for `swin_b`).
    pub drop_path: f64,
    /// How many stages are not trained: −1 none, 0 the patch embedding, 1 that and the first stage, and so
    /// on; 4 is everything but the norms of the outputs. Default: −1, as in the reference.
    pub frozen_stages: i64,
    /// Whether the backward pass runs each block again, instead of keeping what lies between: less memory,
    /// more time, the same numbers but for rounding. Default: false. Reference: `use_checkpoint`.
    pub checkpointing: bool,
    /// Weights to start from: safetensors, or PyTorch's `.pt` or `.pth`, with Microsoft's names, timm's,
    /// torchvision's, mmdetection's or Hugging Face's. The path is relative to the settings file. Default:
    /// none. Reference: `pretrain_model_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

impl Default for SwinConfig {
    fn default() -> Self {
        Self {
            name: SwinName::SwinT,
            window: None,
            width: None,
            layers: Vec::new(),
            head_width: 32,
            drop_path: 0.2,
            frozen_stages: -1,
            checkpointing: false,
            weights: None,
        }
    }
}

impl SwinConfig {
    /// What it is, in a few words: `swin_l, window 12`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{}, window {}", self.name.name(), self.window());
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
        within(format!("{key}.head_width"), self.head_width, 1..=1024)?;
        within(format!("{key}.window"), self.window(), 2..=64)?;
        let Self { width, ref layers, drop_path, frozen_stages, .. } = *self;
        // A default width is checked too: the head's may not divide it.
        let width = width.or(Some(self.width()));
        Common { width, layers, drop_path, frozen_stages }.validate(key, self.head_width)
    }

    /// Side of a window: the setting, or else the published model's.
    #[must_use]
    pub fn window(&self) -> i64 {
        self.window.unwrap_or_else(|| self.name.window())
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
