//! The network: patches with positions, blocks in a row, the pyramid.

use tch::Tensor;

use super::{
    super::{
        parts::{Convolution, DropPath, GeluMlp, Part, add_branch, factor, pad_to_multiple},
        swin::{from_windows, to_windows},
    },
    PATCH, VitConfig,
    attention::Attention,
    pyramid::PyramidLevel,
};
use crate::{
    error::Result,
    models::{
        layers::LayerNorm,
        parameters::{Init, Scope},
    },
};

/// Of all norms.
const EPS: f64 = 1e-6;

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: GeluMlp,
    /// None: it attends to the whole image.
    window: Option<i64>,
}

impl Block {
    fn new(scope: &Scope, config: &VitConfig, window: Option<i64>) -> Self {
        let dim = config.width();
        let side = window.unwrap_or(config.relative_grid);
        Self {
            norm1: LayerNorm::with_eps(&scope.sub("norm1"), dim, EPS),
            attn: Attention::new(&scope.sub("attn"), dim, config.heads(), side),
            norm2: LayerNorm::with_eps(&scope.sub("norm2"), dim, EPS),
            mlp: GeluMlp::new(&scope.sub("mlp"), dim, 4 * dim),
            window,
        }
    }

    /// # Shapes
    /// `[B, H, W, C]`, `factors` `[B, 1, 1, 1]` → `[B, H, W, C]`
    fn forward(&self, x: &Tensor, factors: &[Option<Tensor>; 2]) -> Tensor {
        let y = self.norm1.forward(x);
        let y = match self.window {
            None => self.attn.forward(&y),
            Some(window) => {
                let [b, h, w, c] = x.size()[..] else { unreachable!("maps are [B, H, W, C]") };
                // Zero after the norm: tokens of padding take part as such.
                let y = pad_to_multiple(&y, window);
                let padded = [y.size()[1], y.size()[2]];
                let y = to_windows(&y, window);
                let count = y.size()[1];
                let y = self.attn.forward(&y.view([b * count, window, window, c]));
                let y = from_windows(&y.view([b, count, window * window, c]), window, padded);
                y.narrow(1, 0, h).narrow(2, 0, w)
            }
        };
        let [attention, mlp] = factors;
        let x = add_branch(x, &y, attention.as_ref());
        add_branch(&x, &self.mlp.forward(&self.norm2.forward(&x)), mlp.as_ref())
    }
}

/// A plain vision transformer with its pyramid and weights.
#[derive(Debug)]
pub struct Vit {
    proj: Convolution,
    /// `[1, 1 + grid², C]`: of the class token, which a detector does not have, then of each patch.
    pos_embed: Tensor,
    blocks: Vec<Part<Block>>,
    pyramid: Vec<PyramidLevel>,
    drop_path: DropPath,
    grid: i64,
}

impl Vit {
    /// Key names are detectron2's, below `scope`. `outputs` are the levels that are asked for, ascending.
    #[must_use]
    pub fn new(scope: &Scope, config: &VitConfig, outputs: &[usize]) -> Self {
        let (dim, depth, grid) = (config.width(), config.depth(), config.position_grid);
        let net = scope.sub("net").layer(0);
        let global = config.global_blocks();
        let block = |i: i64| {
            let scope = net.sub("blocks").sub(i).layer(i as u32 + 1);
            let window = (!global.contains(&i)).then_some(config.window);
            let make = || Block::new(&scope, config, window);
            Part::new(&scope, config.checkpointing, make)
        };
        let above = scope.clone().layer(depth as u32 + 1);
        Self {
            pos_embed: net.parameter_without_decay(
                "pos_embed",
                &[1, 1 + grid * grid, dim],
                Init::Normal(0.02),
            ),
            proj: Convolution::strided(
                &net.sub("patch_embed").sub("proj"),
                (3, dim),
                (PATCH, PATCH, 0),
            ),
            blocks: (0..depth).map(block).collect(),
            pyramid: outputs
                .iter()
                .map(|&level| PyramidLevel::new(&above, level, dim, config.pyramid_width))
                .collect(),
            drop_path: DropPath::rising(config.drop_path, depth, 2),
            grid,
        }
    }

    /// The maps of the levels that were asked for. See [`super::super::Backbone::forward`].
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(&self, images: &Tensor, draws: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let factors = self.drop_path.factors(draws);
        let patches = self.proj.forward(images).permute([0, 2, 3, 1]);
        let positions = self.positions([patches.size()[1], patches.size()[2]]);
        let mut x = &patches + positions.to_kind(patches.kind());
        for (i, block) in self.blocks.iter().enumerate() {
            let own = [2 * i, 2 * i + 1].map(|branch| factor(factors.as_ref(), branch));
            x = block.forward(&x, move |block, x| block.forward(x, &own))?;
        }
        let x = x.permute([0, 3, 1, 2]);
        Ok(self.pyramid.iter().map(|level| level.forward(&x)).collect())
    }

    /// The patches' positions, of maps of another size than the table's interpolated (bicubic): `[1, h, w, C]`.
    fn positions(&self, [h, w]: [i64; 2]) -> Tensor {
        let grid = self.grid;
        let table = self.pos_embed.narrow(1, 1, grid * grid).view([1, grid, grid, -1]);
        if (h, w) == (grid, grid) {
            return table;
        }
        let table = table.permute([0, 3, 1, 2]);
        table.upsample_bicubic2d([h, w], false, None, None).permute([0, 2, 3, 1])
    }
}
