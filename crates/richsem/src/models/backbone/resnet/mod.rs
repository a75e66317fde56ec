//! ResNets: torchvision's (arXiv 1512.03385) and CLIP's (arXiv 2103.00020).

mod clip;
mod norm;
mod stages;
mod torchvision;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::Level;
use crate::{
    error::{Error, Result},
    models::{
        padding::{Extent, PaddingPyramid},
        parameters::Scope,
    },
};

pub use norm::Norm;

/// Pixels of the image from one cell to the next after the stem.
const STEM_STRIDE: i32 = 4;

/// Kind of ResNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResnetName {
    /// torchvision's ResNet-18 (basic blocks 2-2-2-2).
    Resnet18,
    /// torchvision's ResNet-34 (basic blocks 3-4-6-3).
    Resnet34,
    /// torchvision's ResNet-50 (bottlenecks 3-4-6-3).
    Resnet50,
    /// torchvision's ResNet-101 (bottlenecks 3-4-23-3).
    Resnet101,
    /// CLIP's ModifiedResNet without its attention pool: three convolutions as stem, average
    /// pooling before strided convolutions (3-4-6-3 blocks unless `layers` says otherwise).
    ClipResnet,
}

impl ResnetName {
    /// The name in settings files, as `clip_resnet`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resnet18 => "resnet18",
            Self::Resnet34 => "resnet34",
            Self::Resnet50 => "resnet50",
            Self::Resnet101 => "resnet101",
            Self::ClipResnet => "clip_resnet",
        }
    }

    /// Blocks of each stage of the published model.
    #[must_use]
    pub fn blocks(self) -> [i64; 4] {
        match self {
            Self::Resnet18 => [2, 2, 2, 2],
            Self::Resnet34 | Self::Resnet50 | Self::ClipResnet => [3, 4, 6, 3],
            Self::Resnet101 => [3, 4, 23, 3],
        }
    }
}

/// Settings of a ResNet as backbone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResnetConfig {
    /// Kind of ResNet: `resnet18`, `resnet34`, `resnet50`, `resnet101` or `clip_resnet`. Default:
    /// `resnet50`. Reference: `backbone`.
    pub name: ResnetName,
    /// Channels of the first stage. Each stage has twice as many as the one before. Default: 64, as
    /// in every published model; an even number from 2 to 4096.
    pub width: i64,
    /// Number of blocks of each of the four stages, each from 1 to 1000. Default: those of the
    /// published model.
    pub layers: Vec<i64>,
    /// Normalisation after each convolution: `frozen_bn`, `batch_norm` or `group_norm`. Default:
    /// `frozen_bn`. From scratch `frozen_bn` does not normalise at all: choose another. Reference:
    /// `batch_norm_type`.
    pub norm: Norm,
    /// Groups of each `group_norm`; other norms do not look at it. Default: 32; a divisor of half
    /// the `width`.
    pub groups: i64,
    /// How many stages are not trained: −1 none, 0 the stem, 1 the stem and `layer1`, and so on; 4
    /// is everything. Default: 1, as in the reference.
    pub frozen_stages: i64,
    /// Whether a bottleneck's stride is in its first 1×1 convolution, as in the weights of MSRA that most of
    /// detectron2's models start from. Default: false, as torchvision has it. Only `resnet50` and `resnet101`.
    pub stride_in_1x1: bool,
    /// Weights to start from: safetensors, or PyTorch's `.pt` or `.pth`. The path is relative to
    /// the settings file. Default: none. Reference: `resnet_pretrain_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<std::path::PathBuf>,
}

impl Default for ResnetConfig {
    fn default() -> Self {
        Self {
            name: ResnetName::Resnet50,
            width: 64,
            layers: Vec::new(),
            norm: Norm::FrozenBn,
            groups: 32,
            frozen_stages: 1,
            stride_in_1x1: false,
            weights: None,
        }
    }
}

impl ResnetConfig {
    /// What it is, in a few words: `resnet50, frozen_bn`.
    #[must_use]
    pub fn describe(&self) -> String {
        let norm = match self.norm {
            Norm::FrozenBn => "frozen_bn",
            Norm::BatchNorm => "batch_norm",
            Norm::GroupNorm => "group_norm",
        };
        let mut text = format!("{}, {norm}", self.name.name());
        if self.width != 64 {
            text += &format!(", width {}", self.width);
        }
        text
    }

    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        if !self.layers.is_empty()
            && (self.layers.len() != 4 || self.layers.iter().any(|n| !(1..=1000).contains(n)))
        {
            return Err(Error::config(
                format!("{key}.layers"),
                format!("expected four block counts from 1 to 1000, got {:?}", self.layers),
            ));
        }
        if !(-1..=4).contains(&self.frozen_stages) {
            return Err(Error::config(
                format!("{key}.frozen_stages"),
                format!("expected -1 (train everything) to 4, got {}", self.frozen_stages),
            ));
        }
        if self.stride_in_1x1 && !matches!(self.name, ResnetName::Resnet50 | ResnetName::Resnet101)
        {
            let problem = format!("{} has no bottlenecks of that form", self.name.name());
            return Err(
                Error::config(format!("{key}.stride_in_1x1"), problem).with_hint("leave it out")
            );
        }
        if !(2..=4096).contains(&self.width) || self.width % 2 != 0 {
            return Err(Error::config(
                format!("{key}.width"),
                format!("expected an even number from 2 to 4096, got {}", self.width),
            ));
        }
        if self.norm == Norm::GroupNorm && (self.groups < 1 || (self.width / 2) % self.groups != 0)
        {
            return Err(Error::config(
                format!("{key}.groups"),
                format!(
                    "expected a divisor of {} (half the width), got {}",
                    self.width / 2,
                    self.groups
                ),
            )
            .with_hint(
                "the narrowest normalised layer of a backbone has half its width in channels",
            ));
        }
        Ok(())
    }

    /// Number of blocks of each stage: the setting, or else the published model's.
    fn blocks(&self) -> [i64; 4] {
        match *self.layers {
            [a, b, c, d] => [a, b, c, d],
            _ => self.name.blocks(),
        }
    }

    /// Whether a stage, 0 being the stem, is not trained.
    fn is_frozen(&self, stage: i64) -> bool {
        self.frozen_stages >= stage
    }

    fn expansion(&self) -> i64 {
        if matches!(self.name, ResnetName::Resnet18 | ResnetName::Resnet34) { 1 } else { 4 }
    }

    /// Channels and stride of the four stages' maps, C2 to C5.
    #[must_use]
    pub fn levels(&self) -> [Level; 4] {
        std::array::from_fn(|stage| Level {
            channels: (self.width << stage) * self.expansion(),
            stride: f64::from(STEM_STRIDE << stage),
        })
    }
}

/// A ResNet with its weights.
#[derive(Debug)]
pub enum Resnet {
    /// ResNet-18, -34, -50 or -101, built as torchvision builds it.
    Torchvision(torchvision::Resnet),
    /// CLIP's ModifiedResNet.
    Clip(clip::ClipResnet),
}

impl Resnet {
    /// Key names are torchvision's or OpenAI CLIP's, below `scope`.
    #[must_use]
    pub fn new(scope: &Scope, config: &ResnetConfig) -> Self {
        match config.name {
            ResnetName::ClipResnet => Self::Clip(clip::ClipResnet::new(scope, config)),
            _ => Self::Torchvision(torchvision::Resnet::new(scope, config)),
        }
    }

    /// The maps of the four stages. See [`super::Backbone::forward`].
    ///
    /// # Shapes
    /// `images` `[B, 3, H, W]`, normalised → four maps `[B, C, H/s, W/s]` (rounded up), of the stride s and the
    /// channels C that [`ResnetConfig::levels`] gives
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(
        &self,
        images: &Tensor,
        padding: Option<&PaddingPyramid>,
        train: bool,
    ) -> Result<[Tensor; 4]> {
        let extent = Extent::of_images(padding);
        match self {
            Self::Torchvision(resnet) => resnet.forward(images, extent, train),
            Self::Clip(resnet) => resnet.forward(images, extent, train),
        }
    }
}

#[cfg(test)]
mod tests;
