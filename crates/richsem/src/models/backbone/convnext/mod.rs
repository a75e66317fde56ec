//! ConvNeXts (arXiv 2201.03545, and version 2, arXiv 2301.00808).

mod network;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    Level,
    parts::{Common, four_levels},
};
use crate::error::Result;

pub use network::Convnext;

/// Kind of ConvNeXt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConvnextName {
    /// 96 channels, blocks 3-3-9-3.
    ConvnextT,
    /// 96 channels, blocks 3-3-27-3.
    ConvnextS,
    /// 128 channels, blocks 3-3-27-3.
    ConvnextB,
    /// 192 channels, blocks 3-3-27-3.
    ConvnextL,
    /// 256 channels, blocks 3-3-27-3.
    ConvnextXl,
    /// Version 2: 40 channels, blocks 2-2-6-2.
    ConvnextV2A,
    /// Version 2: 80 channels, blocks 2-2-8-2.
    ConvnextV2N,
    /// Version 2: 96 channels, blocks 3-3-9-3.
    ConvnextV2T,
    /// Version 2: 128 channels, blocks 3-3-27-3.
    ConvnextV2B,
    /// Version 2: 192 channels, blocks 3-3-27-3.
    ConvnextV2L,
    /// Version 2: 352 channels, blocks 3-3-27-3.
    ConvnextV2H,
}

impl ConvnextName {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::ConvnextT,
        Self::ConvnextS,
        Self::ConvnextB,
        Self::ConvnextL,
        Self::ConvnextXl,
        Self::ConvnextV2A,
        Self::ConvnextV2N,
        Self::ConvnextV2T,
        Self::ConvnextV2B,
        Self::ConvnextV2L,
        Self::ConvnextV2H,
    ];

    /// The name in settings files, as `convnext_t`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConvnextT => "convnext_t",
            Self::ConvnextS => "convnext_s",
            Self::ConvnextB => "convnext_b",
            Self::ConvnextL => "convnext_l",
            Self::ConvnextXl => "convnext_xl",
            Self::ConvnextV2A => "convnext_v2_a",
            Self::ConvnextV2N => "convnext_v2_n",
            Self::ConvnextV2T => "convnext_v2_t",
            Self::ConvnextV2B => "convnext_v2_b",
            Self::ConvnextV2L => "convnext_v2_l",
            Self::ConvnextV2H => "convnext_v2_h",
        }
    }

    /// Channels of the first stage of the published model.
    #[must_use]
    pub fn width(self) -> i64 {
        match self {
            Self::ConvnextV2A => 40,
            Self::ConvnextV2N => 80,
            Self::ConvnextT | Self::ConvnextS | Self::ConvnextV2T => 96,
            Self::ConvnextB | Self::ConvnextV2B => 128,
            Self::ConvnextL | Self::ConvnextV2L => 192,
            Self::ConvnextXl => 256,
            Self::ConvnextV2H => 352,
        }
    }

    /// Blocks of each stage of the published model.
    #[must_use]
    pub fn blocks(self) -> [i64; 4] {
        match self {
            Self::ConvnextV2A => [2, 2, 6, 2],
            Self::ConvnextV2N => [2, 2, 8, 2],
            Self::ConvnextT | Self::ConvnextV2T => [3, 3, 9, 3],
            _ => [3, 3, 27, 3],
        }
    }

    /// Whether it is of version 2: global response normalisation in the place of layer scale.
    #[must_use]
    pub fn is_v2(self) -> bool {
        matches!(
            self,
            Self::ConvnextV2A
                | Self::ConvnextV2N
                | Self::ConvnextV2T
                | Self::ConvnextV2B
                | Self::ConvnextV2L
                | Self::ConvnextV2H
        )
    }
}

/// Settings of a ConvNeXt as backbone. It needs `data.pad_multiple` to be a multiple of 32: its convolutions
/// drop what is left over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConvnextConfig {
    /// Kind: `convnext_t`, `_s`, `_b`, `_l`, `_xl`, or `convnext_v2_a`, `_n`, `_t`, `_b`, `_l`, `_h`. Default:
    /// `convnext_t`.
    pub name: ConvnextName,
    /// Channels of the first stage. Each stage has twice as many as the one before. Default: those of the
    /// published model; up to 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// Number of blocks of each of the four stages, each from 1 to 1000. Default: those of the published
    /// model.
    pub layers: Vec<i64>,
    /// How often a training image passes the last block by; from 0 at the first block it rises to this.
    /// Default: 0.4, as in the official detectors of `convnext_t` (0.6 to 0.8 of larger ones); 0 to 0.95.
    pub drop_path: f64,
    /// How many stages are not trained: −1 none, 0 the stem, 1 that and the first stage, and so on; 4 is
    /// everything but the norms of the outputs. Default: −1.
    pub frozen_stages: i64,
    /// Whether the backward pass runs each block again, instead of keeping what lies between: less memory,
    /// more time, the same numbers but for rounding. Default: false.
    pub checkpointing: bool,
    /// Weights to start from: safetensors, or PyTorch's `.pt` or `.pth`, with Meta's names, timm's,
    /// torchvision's, mmdetection's or Hugging Face's. The path is relative to the settings file. Default:
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

impl Default for ConvnextConfig {
    fn default() -> Self {
        Self {
            name: ConvnextName::ConvnextT,
            width: None,
            layers: Vec::new(),
            drop_path: 0.4,
            frozen_stages: -1,
            checkpointing: false,
            weights: None,
        }
    }
}

impl ConvnextConfig {
    /// What it is, in a few words: `convnext_l`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.name.name().to_owned();
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
        let Self { width, ref layers, drop_path, frozen_stages, .. } = *self;
        Common { width, layers, drop_path, frozen_stages }.validate(key, 1)
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

    /// Random numbers that a training pass takes for each image: one a block, for drop path.
    #[must_use]
    pub fn draws(&self) -> usize {
        if self.drop_path > 0.0 { self.blocks().iter().sum::<i64>() as usize } else { 0 }
    }
}
