//! The network: patches, four stages of blocks with a merge of patches between them, norms of the outputs.

use tch::{Kind, Tensor};

use super::{
    super::parts::{
        Convolution, DropPath, GeluMlp, Part, add_branch, factor, hide, linear_without_bias,
        pad_images, pad_to_multiple, padding_at,
    },
    SwinConfig,
    attention::{WindowAttention, from_windows, shift_mask, to_windows},
};
use crate::{
    error::Result,
    models::{
        layers::{LayerNorm, Linear},
        padding::PaddingPyramid,
        parameters::Scope,
    },
};

/// Side of a patch, in pixels.
const PATCH: i64 = 4;

/// What a block needs besides its input. All of it is constant: it has no gradient.
#[derive(Debug)]
struct Around {
    /// Of windows that are shifted: see [`shift_mask`].
    mask: Option<Tensor>,
    /// `[B, H, W]`, true = padding.
    padding: Option<Tensor>,
    /// `[B, 1, 1, 1]` of each branch, where some are dropped.
    factors: [Option<Tensor>; 2],
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: WindowAttention,
    norm2: LayerNorm,
    mlp: GeluMlp,
    window: i64,
    /// Cells by which the windows are shifted.
    shift: i64,
}

impl Block {
    fn new(scope: &Scope, dim: i64, heads: i64, window: i64, shift: i64) -> Self {
        Self {
            norm1: LayerNorm::new(&scope.sub("norm1"), dim),
            attn: WindowAttention::new(&scope.sub("attn"), dim, heads, window),
            norm2: LayerNorm::new(&scope.sub("norm2"), dim),
            mlp: GeluMlp::new(&scope.sub("mlp"), dim, 4 * dim),
            window,
            shift,
        }
    }

    /// # Shapes
    /// `[B, H, W, C]` → `[B, H, W, C]`
    fn forward(&self, x: &Tensor, around: &Around) -> Tensor {
        let size = x.size();
        // Zero after the norm: tokens of padding take part as such.
        let y = hide(&self.norm1.forward(x), around.padding.as_ref());
        let mut y = pad_to_multiple(&y, self.window);
        let padded = [y.size()[1], y.size()[2]];
        if self.shift > 0 {
            y = y.roll([-self.shift, -self.shift], [1, 2]);
        }
        let y = self.attn.forward(&to_windows(&y, self.window), around.mask.as_ref());
        let mut y = from_windows(&y, self.window, padded);
        if self.shift > 0 {
            y = y.roll([self.shift, self.shift], [1, 2]);
        }
        let y = y.narrow(1, 0, size[1]).narrow(2, 0, size[2]);
        let [attention, mlp] = &around.factors;
        let x = add_branch(x, &y, attention.as_ref());
        add_branch(&x, &self.mlp.forward(&self.norm2.forward(&x)), mlp.as_ref())
    }
}

/// Four neighbours become one token of twice the channels.
#[derive(Debug)]
struct Merge {
    norm: LayerNorm,
    reduction: Linear,
}

impl Merge {
    fn new(scope: &Scope, dim: i64) -> Self {
        Self {
            norm: LayerNorm::new(&scope.sub("norm"), 4 * dim),
            reduction: linear_without_bias(&scope.sub("reduction"), 4 * dim, 2 * dim),
        }
    }

    /// # Shapes
    /// `[B, H, W, C]`, zero in the padding → `[B, ⌈H / 2⌉, ⌈W / 2⌉, 2C]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = pad_to_multiple(x, 2);
        let every = |y: i64, x_: i64| x.slice(1, y, None, 2).slice(2, x_, None, 2);
        let four = [every(0, 0), every(1, 0), every(0, 1), every(1, 1)];
        self.reduction.forward(&self.norm.forward(&Tensor::cat(&four, -1)))
    }
}

#[derive(Debug)]
struct Stage {
    blocks: Vec<Part<Block>>,
    /// None after the last stage.
    downsample: Option<Merge>,
    /// None where the map is not asked for.
    norm: Option<LayerNorm>,
}

/// A Swin Transformer with its weights.
#[derive(Debug)]
pub struct Swin {
    proj: Convolution,
    norm: LayerNorm,
    stages: Vec<Stage>,
    drop_path: DropPath,
    window: i64,
}

impl Swin {
    /// Key names are those of Microsoft's code, below `scope`. `outputs` are the levels that are asked for,
    /// ascending.
    #[must_use]
    pub fn new(scope: &Scope, config: &SwinConfig, outputs: &[usize]) -> Self {
        let (width, blocks, window) = (config.width(), config.blocks(), config.window());
        let frozen = |stage: i64| config.frozen_stages >= stage;
        let embed = scope.sub("patch_embed").layer(0).frozen(frozen(0));
        let norms = 1 + blocks.iter().sum::<i64>() as u32;
        let mut layer = 0;
        let stages = (0..4)
            .map(|stage| {
                let own = scope.sub("layers").sub(stage).frozen(frozen(stage as i64 + 1));
                let dim = width << stage;
                let blocks = (0..blocks[stage])
                    .map(|i| {
                        layer += 1;
                        let scope = own.sub("blocks").sub(i).layer(layer);
                        let shift = if i % 2 == 0 { 0 } else { window / 2 };
                        Part::new(&scope, config.checkpointing, || {
                            Block::new(&scope, dim, dim / config.head_width, window, shift)
                        })
                    })
                    .collect();
                let downsample = own.sub("downsample").layer(layer);
                let norm = scope.sub(format!("norm{stage}")).layer(norms);
                Stage {
                    blocks,
                    downsample: (stage < 3).then(|| Merge::new(&downsample, dim)),
                    norm: outputs.contains(&stage).then(|| LayerNorm::new(&norm, dim)),
                }
            })
            .collect();
        Self {
            proj: Convolution::strided(&embed.sub("proj"), (3, width), (PATCH, PATCH, 0)),
            norm: LayerNorm::new(&embed.sub("norm"), width),
            stages,
            drop_path: DropPath::rising(config.drop_path, blocks.iter().sum(), 2),
            window,
        }
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
        let last = self.stages.iter().rposition(|stage| stage.norm.is_some()).unwrap_or(0);
        let patches = self.proj.forward(&pad_images(images, PATCH));
        let mut x = self.norm.forward(&patches.permute([0, 2, 3, 1]));
        let (mut maps, mut stride, mut branch) = (Vec::new(), PATCH, 0);
        for stage in &self.stages[..=last] {
            let padding = padding_at(pyramid, stride);
            let mask = self.mask(&x, padding.as_ref());
            for (i, block) in stage.blocks.iter().enumerate() {
                let around = Around {
                    mask: (i % 2 == 1).then(|| mask.shallow_clone()),
                    padding: padding.as_ref().map(Tensor::shallow_clone),
                    factors: [branch, branch + 1].map(|branch| factor(factors.as_ref(), branch)),
                };
                x = block.forward(&x, move |block, x| block.forward(x, &around))?;
                branch += 2;
            }
            if let Some(norm) = &stage.norm {
                maps.push(hide(&norm.forward(&x), padding.as_ref()).permute([0, 3, 1, 2]));
            }
            if let Some(downsample) = &stage.downsample {
                x = downsample.forward(&hide(&x, padding.as_ref()));
                stride *= 2;
            }
        }
        Ok(maps)
    }

    /// The mask of a stage's shifted windows.
    fn mask(&self, x: &Tensor, padding: Option<&Tensor>) -> Tensor {
        let whole = |side: i64| (side + self.window - 1) / self.window * self.window;
        let size = [x.size()[1], x.size()[2]].map(whole);
        // In 16 bits where the attention is: it is as large as the logits of a few heads.
        let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let kind = torch_ext::autocast_kind(x.device()).unwrap_or(kind);
        shift_mask(size, (self.window, self.window / 2), padding, (kind, x.device()))
    }
}
