//! The network: tokens, blocks in a row, the pyramid.

use tch::{Kind, Tensor};

use super::{
    super::parts::{DropPath, Part, factor},
    VitConfig, VitFamily,
    block::Block,
    embedding::Embedding,
    pyramid::PyramidLevel,
    rope::Rope,
};
use crate::{
    error::Result,
    models::{layers::LayerNorm, parameters::Scope},
};

/// A plain vision transformer with its pyramid and weights.
#[derive(Debug)]
pub struct Vit {
    embedding: Embedding,
    blocks: Vec<(Part<Block>, Option<i64>)>,
    norm: Option<LayerNorm>,
    pyramid: Vec<PyramidLevel>,
    drop_path: DropPath,
    family: VitFamily,
    /// d: features of a head.
    head_width: i64,
    window: Option<i64>,
}

impl Vit {
    /// Key names are detectron2's, below `scope`; within `net` those of the published models, but that parts of one
    /// product are one parameter (`qkv`, `w12`). `outputs` are the levels that are asked for, ascending.
    #[must_use]
    pub fn new(scope: &Scope, config: &VitConfig, outputs: &[usize]) -> Self {
        let (dim, depth, family) = (config.width(), config.depth(), config.name.family());
        let frozen = config.frozen_blocks;
        let net = scope.sub("net");
        let first = net.clone().layer(0).frozen(frozen >= 0);
        let global = config.global_blocks();
        let block = |i: i64| {
            let scope = net.sub("blocks").sub(i).layer(i as u32 + 1).frozen(i < frozen);
            let window = config.window().filter(|_| !global.contains(&i));
            let make = || Block::new(&scope, config, window);
            (Part::new(&scope, config.checkpointing, make), window)
        };
        let above = scope.clone().layer(depth as u32 + 1);
        let last = net.sub("norm").layer(depth as u32 + 1).frozen(frozen >= depth);
        Self {
            embedding: Embedding::new(&first, config),
            blocks: (0..depth).map(block).collect(),
            norm: family.last_norm().then(|| LayerNorm::with_eps(&last, dim, family.eps())),
            pyramid: outputs
                .iter()
                .map(|&level| PyramidLevel::new(&above, level, dim, config.pyramid_width))
                .collect(),
            drop_path: match family.uniform_drop_path() {
                true => DropPath::uniform(config.drop_path, depth, 2),
                false => DropPath::rising(config.drop_path, depth, 2),
            },
            family,
            head_width: dim / config.heads(),
            window: config.window(),
        }
    }

    /// The maps of the levels that were asked for. See [`super::super::Backbone::forward`].
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(&self, images: &Tensor, draws: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let factors = self.drop_path.factors(draws);
        let (mut x, map) = self.embedding.forward(images);
        // Under autocast tokens are of 16 bits, and angles are not.
        let kind = if images.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let rope = |map| Rope::new(self.family, map, self.head_width, (kind, images.device()));
        let (everywhere, within) = (rope(map), self.window.and_then(|side| rope([side; 2])));
        for (i, (block, window)) in self.blocks.iter().enumerate() {
            let own = [2 * i, 2 * i + 1].map(|branch| {
                let factor = factor(factors.as_ref(), branch);
                factor.map(|factor| factor.squeeze_dim(-1)) // [B, 1, 1]
            });
            let rope = if window.is_some() { &within } else { &everywhere };
            let rope = rope.as_ref().map(Rope::share);
            x = block.forward(&x, move |block, x| block.forward(x, map, rope.as_ref(), &own))?;
        }
        let [h, w] = map;
        let patches = x.narrow(1, x.size()[1] - h * w, h * w);
        let patches =
            self.norm.as_ref().map_or_else(|| patches.shallow_clone(), |n| n.forward(&patches));
        let x = patches.transpose(1, 2).unflatten(2, [h, w]);
        Ok(self.pyramid.iter().map(|level| level.forward(&x)).collect())
    }
}
