//! Plain vision transformers as detectors use them: ViTDet (arXiv 2203.16527), with windows, relative positions
//! and a simple feature pyramid.

mod attention;
mod network;
mod pyramid;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Level;
use crate::{
    bounds::within,
    error::{Error, Result},
};

pub use network::Vit;

/// Side of a patch, in pixels.
const PATCH: i64 = 16;

/// Kind of vision transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VitName {
    /// 768 channels, 12 blocks, 12 heads.
    VitdetB,
    /// 1024 channels, 24 blocks, 16 heads.
    VitdetL,
    /// 1280 channels, 32 blocks, 16 heads.
    VitdetH,
}

impl VitName {
    /// All of them, smallest first.
    pub const ALL: [Self; 3] = [Self::VitdetB, Self::VitdetL, Self::VitdetH];

    /// The name in settings files, as `vitdet_b`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VitdetB => "vitdet_b",
            Self::VitdetL => "vitdet_l",
            Self::VitdetH => "vitdet_h",
        }
    }

    /// Channels, blocks and attention heads of the published model.
    #[must_use]
    pub fn sizes(self) -> [i64; 3] {
        match self {
            Self::VitdetB => [768, 12, 12],
            Self::VitdetL => [1024, 24, 16],
            Self::VitdetH => [1280, 32, 16],
        }
    }
}

/// Settings of a vision transformer as backbone. It needs `data.pad_multiple` to be a multiple of 32. Its
/// positions are those of the padded batch, so that `padding` can only be `official`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// Kind: `vitdet_b`, `vitdet_l` or `vitdet_h`. Default: `vitdet_b`.
    pub name: VitName,
    /// Channels. Default: those of the published model; a multiple of four times the `heads`, up to 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// Number of blocks, 1 to 1000. Default: that of the published model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<i64>,
    /// Number of attention heads. Default: that of the published model; 1 to 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<i64>,
    /// Side of a window, in patches; 2 to 128. Default: 14.
    pub window: i64,
    /// Blocks, from 0, that attend to the whole image; the others attend within windows. Default: the last of
    /// each quarter, as in the reference (2, 5, 8, 11 of `vitdet_b`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_blocks: Option<Vec<i64>>,
    /// Side of the square of patches that the table of positions is for; 1 to 256. Others are interpolated.
    /// Default: 14, of pretraining at 224 pixels.
    pub position_grid: i64,
    /// Side of the square of patches that the relative positions of global blocks are for; 1 to 256. Default:
    /// 64, of training at 1024 pixels.
    pub relative_grid: i64,
    /// Channels of each map of the pyramid, 1 to 4096. Default: 256.
    pub pyramid_width: i64,
    /// How often a training image passes the branches of the last block by; from 0 at the first block it
    /// rises to this. Default: 0.1, as the reference of `vitdet_b` (0.4 of `vitdet_l`, 0.5 of `vitdet_h`); 0 to
    /// 0.95.
    pub drop_path: f64,
    /// Whether the backward pass runs each block again, instead of keeping what lies between: less memory,
    /// more time, the same numbers but for rounding. Default: false.
    pub checkpointing: bool,
    /// Weights to start from: safetensors, or PyTorch's `.pt` or `.pth`, with detectron2's names, those of MAE
    /// (also timm's), or Hugging Face's. The path is relative to the settings file. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
}

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            name: VitName::VitdetB,
            width: None,
            depth: None,
            heads: None,
            window: 14,
            global_blocks: None,
            position_grid: 14,
            relative_grid: 64,
            pyramid_width: 256,
            drop_path: 0.1,
            checkpointing: false,
            weights: None,
        }
    }
}

impl VitConfig {
    /// What it is, in a few words: `vitdet_b`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.name.name().to_owned();
        let own = [self.width(), self.depth(), self.heads()];
        for ((name, own), published) in
            ["width", "depth", "heads"].into_iter().zip(own).zip(self.name.sizes())
        {
            if own != published {
                text += &format!(", {name} {own}");
            }
        }
        text
    }

    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        within(format!("{key}.heads"), self.heads(), 1..=256)?;
        within(format!("{key}.depth"), self.depth(), 1..=1000)?;
        within(format!("{key}.window"), self.window, 2..=128)?;
        within(format!("{key}.position_grid"), self.position_grid, 1..=256)?;
        within(format!("{key}.relative_grid"), self.relative_grid, 1..=256)?;
        within(format!("{key}.pyramid_width"), self.pyramid_width, 1..=4096)?;
        within(format!("{key}.drop_path"), self.drop_path, 0.0..=0.95)?;
        let (width, of) = (self.width(), 4 * self.heads());
        if !(1..=4096).contains(&width) || width % of != 0 {
            let problem = format!("expected a multiple of {of} up to 4096, got {width}");
            return Err(Error::config(format!("{key}.width"), problem));
        }
        let blocks = self.global_blocks();
        if blocks.iter().any(|block| !(0..self.depth()).contains(block)) {
            let problem =
                format!("expected numbers from 0 to {}, got {blocks:?}", self.depth() - 1);
            return Err(Error::config(format!("{key}.global_blocks"), problem));
        }
        Ok(())
    }

    /// Channels: the setting, or else the published model's.
    #[must_use]
    pub fn width(&self) -> i64 {
        self.width.unwrap_or(self.name.sizes()[0])
    }

    /// Number of blocks: the setting, or else the published model's.
    #[must_use]
    pub fn depth(&self) -> i64 {
        self.depth.unwrap_or(self.name.sizes()[1])
    }

    /// Number of attention heads: the setting, or else the published model's.
    #[must_use]
    pub fn heads(&self) -> i64 {
        self.heads.unwrap_or(self.name.sizes()[2])
    }

    /// Blocks that attend to the whole image: the setting, or else the last of each quarter.
    #[must_use]
    pub fn global_blocks(&self) -> Vec<i64> {
        let depth = self.depth();
        self.global_blocks
            .clone()
            .unwrap_or_else(|| (1..=4).map(|i| i * depth / 4 - 1).filter(|i| *i >= 0).collect())
    }

    /// Channels and stride of the pyramid's maps.
    #[must_use]
    pub fn levels(&self) -> Vec<Level> {
        [4, 8, 16, 32].map(|stride| Level { channels: self.pyramid_width, stride }).to_vec()
    }

    /// Random numbers that a training pass takes for each image: two a block, for drop path.
    #[must_use]
    pub fn draws(&self) -> usize {
        if self.drop_path > 0.0 { 2 * self.depth() as usize } else { 0 }
    }
}
