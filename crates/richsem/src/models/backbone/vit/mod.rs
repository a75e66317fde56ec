//! Plain vision transformers as detectors use them (ViTDet, arXiv 2203.16527): blocks of one width, and a simple
//! feature pyramid on the last. Five families of pretrained ones differ in tokens, positions and MLP
//! ([`VitFamily`]); the blocks are the same.

mod attention;
mod block;
mod embedding;
mod mlp;
mod name;
mod network;
mod pyramid;
mod relative;
mod rope;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Level;
use crate::{
    bounds::within,
    error::{Error, Result},
};

pub use mlp::VitActivation;
pub use name::{VitFamily, VitName};
pub use network::Vit;

/// Settings of a vision transformer as backbone. It needs `data.pad_multiple` to be a multiple of twice its patch.
/// Its positions are those of the padded batch, so that `padding` can only be `official`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// Kind: `vitdet_b`, `_l`, `_h`; `dinov2_s`, `_b`, `_l`, `_g`; `dinov3_s`, `_s_plus`, `_b`, `_l`, `_l_plus`,
    /// `_h_plus`, `_7b`; `eva02_t`, `_s`, `_b`, `_l`; `clip_vit_b32`, `_b16`, `_l14`. Default: `vitdet_b`.
    pub name: VitName,
    /// Channels. Default: those of the published model; a multiple of four times the `heads`, up to 8192.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<i64>,
    /// Number of blocks, 1 to 1000. Default: that of the published model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<i64>,
    /// Number of attention heads. Default: that of the published model; 1 to 256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<i64>,
    /// Features within the MLP of a block, 1 to 65,536. Default: as many times the width as the published model has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<i64>,
    /// Side of a patch, in pixels; 4 to 64. Default: that of the published model: 14 of `dinov2` and
    /// `clip_vit_l14`, 32 of `clip_vit_b32`, else 16. (Files of `eva02` whose names end in `p14` have 14.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<i64>,
    /// Number of registers: tokens that run with the patches and mean nothing. Only of `dinov2` and `dinov3`.
    /// Default: 4 of `dinov3`; 0 of `dinov2`, whose files `reg4` have 4; up to 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers: Option<i64>,
    /// What lies within an MLP of `clip_vit`: `quick_gelu` (the default, OpenAI's) or `gelu` (most of
    /// open_clip's). No tensor tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<VitActivation>,
    /// Whether queries and values have a bias. Default: as the published model: true, but of `dinov3_7b`. (timm's
    /// files of `dinov3` without `qkvb` in their names have none.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qkv_bias: Option<bool>,
    /// Side of a window, in patches; 2 to 128. Default: 14 of `vitdet`, 16 of `eva02`. Others have no windows:
    /// their class token sees all patches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// Blocks, from 0, that attend to the whole image; the others attend within windows. Default: the last of
    /// each quarter, as in the reference (2, 5, 8, 11 of `vitdet_b`); all blocks where there are no windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_blocks: Option<Vec<i64>>,
    /// Side of the square of patches that the table of positions is for; 1 to 256. Others are interpolated.
    /// Default: that of the published model's pretraining, as 14 of `vitdet_b` and 37 of `dinov2_b`. `dinov3` has
    /// no table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position_grid: Option<i64>,
    /// Side of the square of patches that the relative positions of global blocks are for; 1 to 256. Only of
    /// `vitdet`. Default: 64, of training at 1024 pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_grid: Option<i64>,
    /// Channels of each map of the pyramid, 1 to 4096. Default: 256.
    pub pyramid_width: i64,
    /// How often a training image passes the branches of the last block by; from 0 at the first block it
    /// rises to this (of `dinov3` every block has this rate). Default: 0.1, as the reference of `vitdet_b` (0.4 of
    /// `vitdet_l`, 0.5 of `vitdet_h`); 0 to 0.95.
    pub drop_path: f64,
    /// How many blocks are not trained: −1 none, 0 the patches and positions, 1 these and the first block, and so
    /// on; as many as there are is everything but the pyramid. Default: −1.
    pub frozen_blocks: i64,
    /// Whether the backward pass runs each block again, instead of keeping what lies between: less memory,
    /// more time, the same numbers but for rounding. Default: false.
    pub checkpointing: bool,
    /// Weights to start from: safetensors, or PyTorch's `.pt` or `.pth`, with the names of the family's own code,
    /// timm's or Hugging Face's (of `vitdet` detectron2's or MAE's). The path is relative to the settings file.
    /// Default: none.
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
            hidden: None,
            patch: None,
            registers: None,
            activation: None,
            qkv_bias: None,
            window: None,
            global_blocks: None,
            position_grid: None,
            relative_grid: None,
            pyramid_width: 256,
            drop_path: 0.1,
            frozen_blocks: -1,
            checkpointing: false,
            weights: None,
        }
    }
}

/// Relative positions are for as many patches, where nothing says it.
const RELATIVE_GRID: i64 = 64;

impl VitConfig {
    /// What it is, in a few words: `dinov2_b, 4 registers`. What no tensor tells is not in it.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.name.name().to_owned();
        let [width, depth, heads] = self.name.sizes();
        for (name, own, published) in [
            ("width", self.width(), width),
            ("depth", self.depth(), depth),
            ("heads", self.heads(), heads),
            ("hidden", self.hidden(), self.name.hidden(self.width())),
            ("patch", self.patch(), self.name.patch()),
        ] {
            if own != published {
                text += &format!(", {name} {own}");
            }
        }
        if let Some(grid) = self.position_grid.filter(|_| self.name.family().table())
            && grid != self.name.position_grid(self.patch())
        {
            text += &format!(", position grid {grid}");
        }
        match self.registers() {
            registers if self.name.family().registers().is_none_or(|of| of == registers) => {}
            registers => text += &format!(", {registers} registers"),
        }
        match self.qkv_bias() {
            own if own == self.name.qkv_bias() => {}
            true => text += ", with qkv_bias",
            false => text += ", without qkv_bias",
        }
        text
    }

    /// # Errors
    /// A setting outside its range, or one that this family has not, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        self.check_family(key)?;
        within(format!("{key}.heads"), self.heads(), 1..=256)?;
        within(format!("{key}.depth"), self.depth(), 1..=1000)?;
        within(format!("{key}.hidden"), self.hidden(), 1..=65_536)?;
        within(format!("{key}.patch"), self.patch(), 4..=64)?;
        within(format!("{key}.registers"), self.registers(), 0..=64)?;
        if let Some(window) = self.window {
            within(format!("{key}.window"), window, 2..=128)?;
        }
        within(format!("{key}.position_grid"), self.position_grid(), 1..=256)?;
        within(format!("{key}.relative_grid"), self.relative_grid(), 1..=256)?;
        within(format!("{key}.pyramid_width"), self.pyramid_width, 1..=4096)?;
        within(format!("{key}.drop_path"), self.drop_path, 0.0..=0.95)?;
        within(format!("{key}.frozen_blocks"), self.frozen_blocks, -1..=self.depth())?;
        let (width, of) = (self.width(), 4 * self.heads());
        if !(1..=8192).contains(&width) || width % of != 0 {
            let problem = format!("expected a multiple of {of} up to 8192, got {width}");
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

    /// Refuses what only other families have.
    fn check_family(&self, key: &str) -> Result<()> {
        let (name, family) = (self.name.name(), self.name.family());
        let all = "its class token sees and is seen by all patches, so that it has no windows";
        for (setting, given, allowed, why) in [
            ("window", self.window.is_some(), family.window().is_some(), all),
            ("global_blocks", self.global_blocks.is_some(), family.window().is_some(), all),
            (
                "relative_grid",
                self.relative_grid.is_some(),
                family == VitFamily::Vitdet,
                "only vitdet has relative positions",
            ),
            (
                "position_grid",
                self.position_grid.is_some(),
                family.table(),
                "its positions are rotary: they have no table",
            ),
            (
                "registers",
                self.registers.is_some_and(|count| count != 0),
                family.registers().is_some(),
                "only dinov2 and dinov3 have registers",
            ),
            (
                "activation",
                self.activation.is_some(),
                family == VitFamily::Clip,
                "only clip_vit was published with either",
            ),
        ] {
            if given && !allowed {
                let problem = format!("{name} has none: {why}");
                return Err(Error::config(format!("{key}.{setting}"), problem)
                    .with_hint("take it out, or choose another name"));
            }
        }
        Ok(())
    }

    /// These settings, with what no tensor of a file tells as `other` has it, if it is of the same family: heads
    /// (but of `vitdet`, whose tables tell), activation, windows.
    #[must_use]
    pub fn with_untold_of(mut self, other: &Self) -> Self {
        let family = self.name.family();
        if family != other.name.family() {
            return self;
        }
        self.activation = other.activation;
        // As many as the published model where the width allows it, else those of the other.
        if family != VitFamily::Vitdet && self.width() == other.width() {
            self.heads = Some(other.heads()).filter(|heads| *heads != self.name.sizes()[2]);
        }
        if family == VitFamily::Eva02 {
            self.window = other.window;
            self.global_blocks.clone_from(&other.global_blocks);
        }
        self
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

    /// Features within the MLP of a block: the setting, or else as the published model has them.
    #[must_use]
    pub fn hidden(&self) -> i64 {
        self.hidden.unwrap_or_else(|| self.name.hidden(self.width()))
    }

    /// Side of a patch, in pixels: the setting, or else the published model's.
    #[must_use]
    pub fn patch(&self) -> i64 {
        self.patch.unwrap_or_else(|| self.name.patch())
    }

    /// Number of registers: the setting, or else the published model's.
    #[must_use]
    pub fn registers(&self) -> i64 {
        self.registers.or(self.name.family().registers()).unwrap_or(0)
    }

    /// What lies within an MLP that is not gated.
    #[must_use]
    pub fn activation(&self) -> VitActivation {
        self.activation.unwrap_or(match self.name.family() {
            VitFamily::Clip => VitActivation::QuickGelu,
            _ => VitActivation::Gelu,
        })
    }

    /// Whether queries and values have a bias: the setting, or else as the published model.
    #[must_use]
    pub fn qkv_bias(&self) -> bool {
        self.qkv_bias.unwrap_or_else(|| self.name.qkv_bias())
    }

    /// Side of a window, in patches: the setting, or else the family's; none where there are no windows.
    #[must_use]
    pub fn window(&self) -> Option<i64> {
        self.window.or(self.name.family().window())
    }

    /// Side of the square of patches that the table of positions is for.
    #[must_use]
    pub fn position_grid(&self) -> i64 {
        self.position_grid.unwrap_or_else(|| self.name.position_grid(self.patch()))
    }

    /// Side of the square of patches that relative positions are for.
    #[must_use]
    pub fn relative_grid(&self) -> i64 {
        self.relative_grid.unwrap_or(RELATIVE_GRID)
    }

    /// Blocks that attend to the whole image: the setting, or else the last of each quarter; all where there are no
    /// windows.
    #[must_use]
    pub fn global_blocks(&self) -> Vec<i64> {
        let depth = self.depth();
        if self.window().is_none() {
            return (0..depth).collect();
        }
        self.global_blocks
            .clone()
            .unwrap_or_else(|| (1..=4).map(|i| i * depth / 4 - 1).filter(|i| *i >= 0).collect())
    }

    /// Channels and stride of the pyramid's maps: a quarter, half, all of and twice a patch.
    #[must_use]
    pub fn levels(&self) -> Vec<Level> {
        let stride =
            |part: f64| Level { channels: self.pyramid_width, stride: part * self.patch() as f64 };
        [0.25, 0.5, 1.0, 2.0].map(stride).to_vec()
    }

    /// Pixels that the sides of a batch must be a multiple of: the deepest map has one cell for two patches.
    #[must_use]
    pub fn pad_multiple(&self) -> u32 {
        2 * self.patch() as u32
    }

    /// Random numbers that a training pass takes for each image: two a block, for drop path.
    #[must_use]
    pub fn draws(&self) -> usize {
        if self.drop_path > 0.0 { 2 * self.depth() as usize } else { 0 }
    }
}
