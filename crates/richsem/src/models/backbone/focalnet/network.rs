//! The network: patches, four stages of blocks with a merge of patches between them, norms of the outputs.

use tch::{Kind, Tensor};

use super::{
    super::parts::{
        Convolution, DropPath, GeluMlp, Part, add_branch, factor, hide, linear, pad_images,
        padding_at,
    },
    FocalnetConfig, FocalnetName,
};
use crate::{
    error::Result,
    models::{
        layers::{LayerNorm, Linear},
        padding::{self, PaddingPyramid},
        parameters::{Init, Scope},
    },
};

/// Layer scale at the start.
const GAMMA: f64 = 1e-4;

/// What a block needs besides its input. All of it is constant: it has no gradient.
#[derive(Debug)]
struct Around {
    /// `[B, H, W]`, true = padding.
    padding: Option<Tensor>,
    /// `[B, 1, 1, 1]` of each branch, where some are dropped.
    factors: [Option<Tensor>; 2],
}

/// Gathers context around each token, from near to far, and modulates the token with it.
#[derive(Debug)]
struct Modulation {
    /// Query, context and a gate for each level and for the whole image.
    f: Linear,
    h: Convolution,
    proj: Linear,
    focal_layers: Vec<Convolution>,
    /// Before `proj`, of the largest model.
    ln: Option<LayerNorm>,
    normalize: bool,
}

impl Modulation {
    fn new(scope: &Scope, dim: i64, config: &FocalnetConfig) -> Self {
        let levels = config.focal_levels();
        let layer = |level: i64| {
            let scope = scope.sub("focal_layers").sub(level).sub(0);
            Convolution::depthwise(&scope, dim, config.focal_window() + 2 * level)
        };
        let ln = config.name == FocalnetName::FocalnetH;
        Self {
            f: linear(&scope.sub("f"), dim, 2 * dim + levels + 1),
            h: Convolution::new(&scope.sub("h"), (dim, dim), 1, 1),
            proj: linear(&scope.sub("proj"), dim, dim),
            focal_layers: (0..levels).map(layer).collect(),
            ln: ln.then(|| LayerNorm::new(&scope.sub("ln"), dim)),
            normalize: config.normalize_modulator(),
        }
    }

    /// # Shapes
    /// `[B, H, W, C]`, `padding` `[B, H, W]` → `[B, H, W, C]`
    fn forward(&self, x: &Tensor, padding: Option<&Tensor>) -> Tensor {
        let c = x.size()[3];
        let hide = |maps: Tensor| match padding {
            Some(padding) => padding::hide(&maps, padding),
            None => maps,
        };
        let levels = self.focal_layers.len() as i64;
        let split = self.f.forward(x).permute([0, 3, 1, 2]).split_with_sizes([c, c, levels + 1], 1);
        let [query, context, gates] = &split[..] else { unreachable!("split in three") };
        let mut context = hide(context.shallow_clone());
        let gate = |level: i64| gates.narrow(1, level, 1);
        let mut sum = None;
        for (level, layer) in (0..).zip(&self.focal_layers) {
            context = hide(layer.forward(&context).gelu("none"));
            let gated = &context * gate(level);
            sum = Some(match sum {
                None => gated,
                Some(sum) => sum + gated,
            });
        }
        let whole = mean_of_image(&context, padding).gelu("none") * gate(levels);
        let mut sum = sum.map_or_else(|| whole.shallow_clone(), |sum| sum + &whole);
        if self.normalize {
            sum /= (levels + 1) as f64;
        }
        let modulated = (query * self.h.forward(&sum)).permute([0, 2, 3, 1]);
        match &self.ln {
            Some(ln) => self.proj.forward(&ln.forward(&modulated)),
            None => self.proj.forward(&modulated),
        }
    }
}

/// The mean over the pixels of the image, `[B, C, 1, 1]`. Maps are zero in the padding.
fn mean_of_image(maps: &Tensor, padding: Option<&Tensor>) -> Tensor {
    let Some(padding) = padding else {
        return maps.mean_dim([2i64, 3].as_slice(), true, maps.kind());
    };
    // In f32 at least: a sum of many numbers.
    let kind = if maps.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let count = padding.logical_not().sum_dim_intlist([1i64, 2].as_slice(), true, kind);
    let sum = maps.sum_dim_intlist([2i64, 3].as_slice(), true, kind);
    (sum / count.unsqueeze(1)).to_kind(maps.kind())
}

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    modulation: Modulation,
    norm2: LayerNorm,
    mlp: GeluMlp,
    /// Of the large models, which have their norms behind the branches.
    gammas: Option<[Tensor; 2]>,
}

impl Block {
    fn new(scope: &Scope, dim: i64, config: &FocalnetConfig) -> Self {
        let gamma = |name| scope.parameter_without_decay(name, &[dim], Init::Constant(GAMMA));
        Self {
            gammas: config.name.is_large().then(|| ["gamma_1", "gamma_2"].map(gamma)),
            norm1: LayerNorm::new(&scope.sub("norm1"), dim),
            modulation: Modulation::new(&scope.sub("modulation"), dim, config),
            norm2: LayerNorm::new(&scope.sub("norm2"), dim),
            mlp: GeluMlp::new(&scope.sub("mlp"), dim, 4 * dim),
        }
    }

    /// # Shapes
    /// `[B, H, W, C]` → `[B, H, W, C]`
    fn forward(&self, x: &Tensor, around: &Around) -> Tensor {
        let modulate = |x: &Tensor| self.modulation.forward(x, around.padding.as_ref());
        let [first, second] = &around.factors;
        match &self.gammas {
            None => {
                let x = add_branch(x, &modulate(&self.norm1.forward(x)), first.as_ref());
                add_branch(&x, &self.mlp.forward(&self.norm2.forward(&x)), second.as_ref())
            }
            Some([gamma_1, gamma_2]) => {
                let scaled = |y: Tensor, gamma: &Tensor| {
                    let gamma = gamma.to_kind(y.kind());
                    y * gamma
                };
                let y = scaled(self.norm1.forward(&modulate(x)), gamma_1);
                let x = add_branch(x, &y, first.as_ref());
                let y = scaled(self.norm2.forward(&self.mlp.forward(&x)), gamma_2);
                add_branch(&x, &y, second.as_ref())
            }
        }
    }
}

/// Patches, or a merge of patches: a convolution and its norm.
#[derive(Debug)]
struct Embed {
    proj: Convolution,
    norm: LayerNorm,
    stride: i64,
}

impl Embed {
    fn new(scope: &Scope, (input, output): (i64, i64), stride: i64, overlapping: bool) -> Self {
        let kernel = match (overlapping, stride) {
            (false, _) => (stride, stride, 0),
            (true, 4) => (7, 4, 2),
            (true, _) => (3, 2, 1),
        };
        Self {
            proj: Convolution::strided(&scope.sub("proj"), (input, output), kernel),
            norm: LayerNorm::new(&scope.sub("norm"), output),
            stride,
        }
    }

    /// # Shapes
    /// `[B, in, H, W]`, zero in the padding → `[B, ⌈H / stride⌉, ⌈W / stride⌉, out]`
    fn forward(&self, maps: &Tensor) -> Tensor {
        let maps = self.proj.forward(&pad_images(maps, self.stride));
        self.norm.forward(&maps.permute([0, 2, 3, 1]))
    }
}

#[derive(Debug)]
struct Stage {
    blocks: Vec<Part<Block>>,
    /// None after the last stage.
    downsample: Option<Embed>,
    /// None where the map is not asked for.
    norm: Option<LayerNorm>,
}

/// A FocalNet with its weights.
#[derive(Debug)]
pub struct Focalnet {
    patch_embed: Embed,
    stages: Vec<Stage>,
    drop_path: DropPath,
}

impl Focalnet {
    /// Key names are those of Microsoft's code, below `scope`. `outputs` are the levels that are asked for,
    /// ascending.
    #[must_use]
    pub fn new(scope: &Scope, config: &FocalnetConfig, outputs: &[usize]) -> Self {
        let (width, blocks) = (config.width(), config.blocks());
        let frozen = |stage: i64| config.frozen_stages >= stage;
        let overlapping = config.name.is_large();
        let embed = scope.sub("patch_embed").layer(0).frozen(frozen(0));
        let norms = 1 + blocks.iter().sum::<i64>() as u32;
        let mut layer = 0;
        let patch_embed = Embed::new(&embed, (3, width), 4, overlapping);
        let stages = (0..4)
            .map(|stage| {
                let own = scope.sub("layers").sub(stage).frozen(frozen(stage as i64 + 1));
                let dim = width << stage;
                let blocks = (0..blocks[stage])
                    .map(|i| {
                        layer += 1;
                        let scope = own.sub("blocks").sub(i).layer(layer);
                        let make = || Block::new(&scope, dim, config);
                        Part::new(&scope, config.checkpointing, make)
                    })
                    .collect();
                let downsample = own.sub("downsample").layer(layer);
                let norm = scope.sub(format!("norm{stage}")).layer(norms);
                Stage {
                    blocks,
                    downsample: (stage < 3)
                        .then(|| Embed::new(&downsample, (dim, 2 * dim), 2, overlapping)),
                    norm: outputs.contains(&stage).then(|| LayerNorm::new(&norm, dim)),
                }
            })
            .collect();
        Self {
            patch_embed,
            stages,
            drop_path: DropPath::rising(config.drop_path, blocks.iter().sum(), 2),
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
        let mut x = self.patch_embed.forward(images);
        let (mut maps, mut stride, mut branch) = (Vec::new(), 4, 0);
        for stage in &self.stages[..=last] {
            let padding = padding_at(pyramid, stride);
            for block in &stage.blocks {
                let around = Around {
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
                x = downsample.forward(&hide(&x, padding.as_ref()).permute([0, 3, 1, 2]));
                stride *= 2;
            }
        }
        Ok(maps)
    }
}
