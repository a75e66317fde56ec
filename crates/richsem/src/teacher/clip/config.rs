//! Sizes of a CLIP, read off its weights.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use tch::Tensor;

use super::hints::{Activation, Hints};
use crate::{
    error::{Error, Result},
    models::backbone::{Norm, ResnetConfig, ResnetName},
};

/// Channels of an attention head in every model that OpenAI published; no tensor's shape tells.
pub(crate) const HEAD_WIDTH: i64 = 64;

/// Width, and channels of a head, of open_clip's larger vision transformers: H, g, bigG.
const OTHER_HEADS: [(i64, i64); 3] = [(1280, 80), (1408, 88), (1664, 104)];

/// Sizes of an image encoder.
#[derive(Debug, Clone, PartialEq)]
pub enum VisualConfig {
    /// A ResNet and an attention pool.
    Resnet {
        /// Sizes of the backbone. A frozen teacher's norm is `frozen_bn`.
        backbone: ResnetConfig,
        /// Side of the images that it was trained on, in pixels. The attention pool has (resolution
        /// / 32)² positions.
        resolution: i64,
        /// Heads of the attention pool.
        heads: i64,
    },
    /// A vision transformer (ViT).
    Vit {
        /// W: features of a token.
        width: i64,
        /// Number of blocks.
        layers: i64,
        /// Side of a patch, in pixels.
        patch: i64,
        /// Side of the images that it was trained on, in pixels.
        resolution: i64,
        /// Number of attention heads.
        heads: i64,
        /// Features between the two layers of a block's MLP.
        hidden: i64,
        /// Activation between these two layers.
        activation: Activation,
    },
}

impl VisualConfig {
    /// Side of the images it was trained on.
    #[must_use]
    pub fn resolution(&self) -> i64 {
        match self {
            Self::Resnet { resolution, .. } | Self::Vit { resolution, .. } => *resolution,
        }
    }
}

/// Sizes of a text encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextConfig {
    /// Most tokens of a text, start and end included.
    pub context_length: i64,
    /// V: number of different tokens.
    pub vocabulary: i64,
    /// W: features of a token.
    pub width: i64,
    /// Number of blocks.
    pub layers: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Features between the two layers of a block's MLP.
    pub hidden: i64,
    /// Activation between these two layers.
    pub activation: Activation,
}

/// Sizes of an image encoder and a text encoder that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// Sizes of the image encoder.
    pub visual: VisualConfig,
    /// Sizes of the text encoder, if there is one.
    pub text: Option<TextConfig>,
    /// D: features of an embedding, of an image or a text.
    pub embed_dim: i64,
}

/// Shapes of the tensors of a file.
struct TensorShapes<'a> {
    weights: &'a BTreeMap<String, Tensor>,
    path: &'a Path,
}

impl TensorShapes<'_> {
    /// One side of a tensor.
    fn side(&self, name: &str, axis: usize) -> Result<i64> {
        let tensor = self
            .weights
            .get(name)
            .ok_or_else(|| Error::invalid(self.path, name, "missing").with_hint(NOT_CLIP))?;
        match tensor.size().get(axis) {
            Some(&side) if side > 0 => Ok(side),
            _ => Err(self.wrong(name, &format!("expected a side {axis}"))),
        }
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        let got = self.weights.get(name).map(Tensor::size).unwrap_or_default();
        Error::invalid(self.path, name, format!("{expected}, got shape {got:?}"))
            .with_hint(NOT_CLIP)
    }

    /// Side of the square of positions in a positional embedding, without the one in front.
    fn grid(&self, name: &str) -> Result<i64> {
        let positions = self.side(name, 0)? - 1;
        let side = (positions as f64).sqrt().round() as i64;
        if side < 1 || side * side != positions {
            return Err(self.wrong(name, "expected a square number of positions and one more"));
        }
        Ok(side)
    }

    /// How many different numbers follow the prefix.
    fn count(&self, prefix: &str) -> i64 {
        let numbers = self
            .weights
            .keys()
            .filter_map(|k| k.strip_prefix(prefix)?.split('.').next()?.parse::<u32>().ok());
        numbers.collect::<BTreeSet<_>>().len() as i64
    }

    /// Refuses settings of a model with another width.
    fn same_model(&self, name: &str, width: i64, stated: Option<i64>) -> Result<()> {
        match stated.filter(|&stated| stated != width) {
            None => Ok(()),
            Some(stated) => {
                let problem = format!(
                    "the weights have a width of {width}, the settings beside the file say {stated}"
                );
                Err(Error::invalid(self.path, name, problem).with_hint(
                    "config.json or open_clip_config.json beside it belongs to another model: move it away",
                ))
            }
        }
    }

    /// Number of attention heads for a width: as stated, or else so many that each has `of_head` channels.
    fn heads(&self, name: &str, width: i64, stated: Option<i64>, of_head: i64) -> Result<i64> {
        let heads = stated.unwrap_or((width / of_head).max(1));
        if heads < 1 || width % heads != 0 {
            let expected = match stated {
                Some(heads) => format!("expected a width that divides by {heads} heads"),
                None => format!("expected a width that divides by {of_head}"),
            };
            return Err(self.wrong(name, &expected));
        }
        Ok(heads)
    }
}

const NOT_CLIP: &str = "expected the weights of CLIP, with OpenAI's, open_clip's or Hugging Face's \
                        key names";

impl ClipConfig {
    /// Reads the sizes off the tensors, named as OpenAI names them ([`super::to_openai`]). What they do
    /// not tell is as the hints say, or as in the published models: quick GELU, heads of 64 channels
    /// (80, 88 and 104 in open_clip's ViT-H, g and bigG).
    ///
    /// # Errors
    /// No image encoder, or tensors whose shapes are no CLIP's. `path` says where they came from.
    pub fn from_weights(
        weights: &BTreeMap<String, Tensor>,
        hints: &Hints,
        path: &Path,
    ) -> Result<Self> {
        let shapes = TensorShapes { weights, path };
        let (visual, embed_dim) = if weights.contains_key("visual.attnpool.c_proj.weight") {
            (resnet(&shapes)?, shapes.side("visual.attnpool.c_proj.weight", 0)?)
        } else if weights.contains_key("visual.class_embedding") {
            (vit(&shapes, hints)?, shapes.side("visual.proj", 1)?)
        } else {
            let problem = "no image encoder: neither `visual.attnpool.c_proj.weight` (ResNet) nor \
                           `visual.class_embedding` (vision transformer)";
            return Err(Error::invalid(path, "weights", problem).with_hint(NOT_CLIP));
        };
        let has_text = weights.contains_key("token_embedding.weight");
        let text = if has_text { Some(text(&shapes, hints)?) } else { None };
        Ok(Self { visual, text, embed_dim })
    }
}

fn resnet(shapes: &TensorShapes) -> Result<VisualConfig> {
    const FIRST: &str = "visual.layer1.0.conv1.weight";
    const POSITIONS: &str = "visual.attnpool.positional_embedding";
    let backbone = ResnetConfig {
        name: ResnetName::ClipResnet,
        width: shapes.side(FIRST, 0)?,
        layers: (1..=4).map(|i| shapes.count(&format!("visual.layer{i}."))).collect(),
        norm: Norm::FrozenBn,
        frozen_stages: -1,
        ..ResnetConfig::default()
    };
    backbone.validate("backbone").map_err(|error| {
        shapes.wrong(FIRST, &format!("expected one of CLIP's ResNets ({error})"))
    })?;
    let resolution = 32 * shapes.grid(POSITIONS)?;
    let heads = shapes.heads(POSITIONS, 32 * backbone.width, None, HEAD_WIDTH)?;
    Ok(VisualConfig::Resnet { backbone, resolution, heads })
}

fn vit(shapes: &TensorShapes, hints: &Hints) -> Result<VisualConfig> {
    let (width, patch) =
        (shapes.side("visual.conv1.weight", 0)?, shapes.side("visual.conv1.weight", 3)?);
    shapes.same_model("visual.conv1.weight", width, hints.visual.width)?;
    let other = OTHER_HEADS.iter().find(|(of, _)| *of == width);
    let of_head = other.map_or(HEAD_WIDTH, |(_, channels)| *channels);
    Ok(VisualConfig::Vit {
        width,
        layers: shapes.count("visual.transformer.resblocks."),
        patch,
        resolution: patch * shapes.grid("visual.positional_embedding")?,
        heads: shapes.heads("visual.conv1.weight", width, hints.visual.heads, of_head)?,
        hidden: shapes.side("visual.transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        activation: hints.activation.unwrap_or_default(),
    })
}

fn text(shapes: &TensorShapes, hints: &Hints) -> Result<TextConfig> {
    let width = shapes.side("token_embedding.weight", 1)?;
    shapes.same_model("token_embedding.weight", width, hints.text.width)?;
    Ok(TextConfig {
        context_length: shapes.side("positional_embedding", 0)?,
        vocabulary: shapes.side("token_embedding.weight", 0)?,
        width,
        layers: shapes.count("transformer.resblocks."),
        heads: shapes.heads("token_embedding.weight", width, hints.text.heads, HEAD_WIDTH)?,
        hidden: shapes.side("transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        activation: hints.activation.unwrap_or_default(),
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
