//! The network: a stem, four stages of blocks with a strided convolution between them, norms of the outputs.

use tch::{Kind, Tensor};

use super::{
    super::parts::{Convolution, DropPath, Part, add_branch, factor, hide, linear, padding_at},
    ConvnextConfig,
};
use crate::{
    error::Result,
    models::{
        layers::{LayerNorm, Linear},
        padding::PaddingPyramid,
        parameters::{Init, Scope},
    },
};

/// Of all norms.
const EPS: f64 = 1e-6;
/// Layer scale at the start.
const GAMMA: f64 = 1e-6;
/// Blocks of the third stage that count as one layer for the decay of learning rates.
const BLOCKS_A_LAYER: i64 = 3;

/// Global response normalisation: a channel counts as its norm over the image, relative to the mean of all.
#[derive(Debug)]
struct ResponseNorm {
    /// `[1, 1, 1, 4C]`, as is `beta`.
    gamma: Tensor,
    beta: Tensor,
}

impl ResponseNorm {
    fn new(scope: &Scope, dim: i64) -> Self {
        let zeros =
            |name| scope.parameter_without_decay(name, &[1, 1, 1, dim], Init::Constant(0.0));
        Self { gamma: zeros("gamma"), beta: zeros("beta") }
    }

    /// # Shapes
    /// `[B, H, W, 4C]`, zero in the padding → `[B, H, W, 4C]`
    fn forward(&self, x: &Tensor) -> Tensor {
        // In f32 at least: a sum of many squares.
        let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let norm = x.to_kind(kind).norm_scalaropt_dim(2.0, [1i64, 2], true);
        let relative = &norm / (norm.mean_dim([-1i64].as_slice(), true, kind) + EPS);
        let scale = (relative * self.gamma.to_kind(kind) + 1.0).to_kind(x.kind());
        x * scale + self.beta.to_kind(x.kind())
    }
}

#[derive(Debug)]
struct Block {
    dwconv: Convolution,
    norm: LayerNorm,
    pwconv1: Linear,
    /// Of version 2.
    grn: Option<ResponseNorm>,
    pwconv2: Linear,
    /// Layer scale, of version 1.
    gamma: Option<Tensor>,
}

impl Block {
    fn new(scope: &Scope, dim: i64, v2: bool) -> Self {
        Self {
            gamma: (!v2)
                .then(|| scope.parameter_without_decay("gamma", &[dim], Init::Constant(GAMMA))),
            dwconv: Convolution::new(&scope.sub("dwconv"), (dim, dim), 7, dim),
            norm: LayerNorm::with_eps(&scope.sub("norm"), dim, EPS),
            pwconv1: linear(&scope.sub("pwconv1"), dim, 4 * dim),
            grn: v2.then(|| ResponseNorm::new(&scope.sub("grn"), 4 * dim)),
            pwconv2: linear(&scope.sub("pwconv2"), 4 * dim, dim),
        }
    }

    /// # Shapes
    /// `[B, H, W, C]`, `padding` `[B, H, W]`, `factor` `[B, 1, 1, 1]` → `[B, H, W, C]`
    fn forward(&self, x: &Tensor, padding: Option<&Tensor>, factor: Option<&Tensor>) -> Tensor {
        let y = self.dwconv.forward(&hide(x, padding).permute([0, 3, 1, 2]));
        let y = self.norm.forward(&y.permute([0, 2, 3, 1]));
        let mut y = self.pwconv1.forward(&y).gelu("none");
        if let Some(grn) = &self.grn {
            y = grn.forward(&hide(&y, padding));
        }
        let mut y = self.pwconv2.forward(&y);
        if let Some(gamma) = &self.gamma {
            y = &y * gamma.to_kind(y.kind());
        }
        add_branch(x, &y, factor)
    }
}

#[derive(Debug)]
struct Stage {
    /// Before the convolution; of the stem behind it.
    norm: LayerNorm,
    conv: Convolution,
    blocks: Vec<Part<Block>>,
    /// None where the map is not asked for.
    output: Option<LayerNorm>,
}

/// A ConvNeXt with its weights.
#[derive(Debug)]
pub struct Convnext {
    stages: Vec<Stage>,
    drop_path: DropPath,
}

impl Convnext {
    /// Key names are those of Meta's code, below `scope`. `outputs` are the levels that are asked for,
    /// ascending.
    #[must_use]
    pub fn new(scope: &Scope, config: &ConvnextConfig, outputs: &[usize]) -> Self {
        let (width, blocks, v2) = (config.width(), config.blocks(), config.name.is_v2());
        let frozen = |stage: i64| config.frozen_stages >= stage;
        // The layers of the reference's layer decay.
        let last = 4 + (blocks[2] - 1) / BLOCKS_A_LAYER;
        let layer_of = |stage: usize, block: i64| match stage {
            0 | 1 => stage as i64 + 1,
            2 => 3 + block / BLOCKS_A_LAYER,
            _ => last,
        };
        let stages = (0..4usize)
            .map(|stage| {
                let dim = width << stage;
                let down = scope.sub("downsample_layers").sub(stage);
                let (down, names) = match stage {
                    0 => (down.layer(0).frozen(frozen(0)), ["1", "0"]),
                    _ => {
                        let layer = if stage == 3 { last } else { stage as i64 + 1 };
                        (down.layer(layer as u32).frozen(frozen(stage as i64 + 1)), ["0", "1"])
                    }
                };
                let (input, kernel) = if stage == 0 { (3, 4) } else { (dim / 2, 2) };
                let normed = if stage == 0 { dim } else { input };
                let own = scope.sub("stages").sub(stage).frozen(frozen(stage as i64 + 1));
                let blocks = (0..blocks[stage]).map(|block| {
                    let scope = own.sub(block).layer(layer_of(stage, block) as u32);
                    let make = || Block::new(&scope, dim, v2);
                    Part::new(&scope, config.checkpointing, make)
                });
                let output = scope.sub(format!("norm{stage}")).layer(last as u32 + 1);
                Stage {
                    norm: LayerNorm::with_eps(&down.sub(names[0]), normed, EPS),
                    conv: Convolution::strided(
                        &down.sub(names[1]),
                        (input, dim),
                        (kernel, kernel, 0),
                    ),
                    blocks: blocks.collect(),
                    output: outputs
                        .contains(&stage)
                        .then(|| LayerNorm::with_eps(&output, dim, EPS)),
                }
            })
            .collect();
        Self { stages, drop_path: DropPath::rising(config.drop_path, blocks.iter().sum(), 1) }
    }

    /// The maps of the levels that were asked for. See [`super::super::Backbone::forward`].
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(
        &self,
        images: &Tensor,
        pyramid: Option<&PaddingPyramid>,
        draws: Option<&Tensor>,
    ) -> Result<Vec<Tensor>> {
        let factors = self.drop_path.factors(draws);
        let last = self.stages.iter().rposition(|stage| stage.output.is_some()).unwrap_or(0);
        let (mut x, mut before, mut stride) = (images.permute([0, 2, 3, 1]), None, 4);
        let (mut maps, mut branch) = (Vec::new(), 0);
        for (i, stage) in self.stages[..=last].iter().enumerate() {
            let convolved =
                |x: &Tensor| stage.conv.forward(&x.permute([0, 3, 1, 2])).permute([0, 2, 3, 1]);
            x = match i {
                0 => stage.norm.forward(&convolved(&x)),
                // Zero behind the norm, whose bias is not.
                _ => convolved(&hide(&stage.norm.forward(&x), before.as_ref())),
            };
            let padding = padding_at(pyramid, stride);
            for block in &stage.blocks {
                let factor = factor(factors.as_ref(), branch);
                let padding = padding.as_ref().map(Tensor::shallow_clone);
                x = block.forward(&x, move |block, x| {
                    block.forward(x, padding.as_ref(), factor.as_ref())
                })?;
                branch += 1;
            }
            if let Some(norm) = &stage.output {
                maps.push(hide(&norm.forward(&x), padding.as_ref()).permute([0, 3, 1, 2]));
            }
            before = padding;
            stride *= 2;
        }
        Ok(maps)
    }
}
