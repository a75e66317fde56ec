//! Multi-head attention among the tokens of a map or of a window.

use tch::Tensor;

use super::{
    super::parts::{attend, linear, linear_without_bias},
    VitConfig, VitFamily,
    relative::RelativePositions,
    rope::Rope,
};
use crate::models::{layers::Linear, parameters::Scope};

/// Multi-head attention.
#[derive(Debug)]
pub(super) struct Attention {
    qkv: Linear,
    /// Whether the keys' part of the bias counts.
    key_bias: bool,
    proj: Linear,
    relative: Option<RelativePositions>,
    heads: i64,
}

impl Attention {
    /// `side` is that of the maps which relative positions are for.
    pub(super) fn new(scope: &Scope, config: &VitConfig, side: i64) -> Self {
        let (dim, heads, family) = (config.width(), config.heads(), config.name.family());
        let relative = || RelativePositions::new(scope, dim / heads, side);
        let qkv = if config.qkv_bias() { linear } else { linear_without_bias };
        Self {
            relative: (family == VitFamily::Vitdet).then(relative),
            qkv: qkv(&scope.sub("qkv"), dim, 3 * dim),
            key_bias: family.key_bias(),
            proj: linear(&scope.sub("proj"), dim, dim),
            heads,
        }
    }

    /// Tokens of a map of `[h, w]` patches, which are the last ones.
    ///
    /// # Shapes
    /// `[B, N, C]` → `[B, N, C]`
    pub(super) fn forward(&self, x: &Tensor, map: [i64; 2], rope: Option<&Rope>) -> Tensor {
        let [b, n, c] = x.size()[..] else { unreachable!("tokens are [B, N, C]") };
        let qkv = self.qkv(x).view([b, n, 3, self.heads, c / self.heads]).permute([2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|i| qkv.get(i)); // [B, heads, N, d]
        let attended = match (&self.relative, rope) {
            (Some(relative), _) => relative.attend([&q, &k, &v], map),
            (None, Some(rope)) => attend([&rope.turn(&q), &rope.turn(&k), &v], None),
            (None, None) => attend([&q, &k, &v], None),
        };
        self.proj.forward(&attended.transpose(1, 2).reshape([b, n, c]))
    }

    /// Queries, keys and values. A bias of keys is no constant of softmax where keys turn, so that one that was
    /// not there in pretraining must be zero, and stay so.
    fn qkv(&self, x: &Tensor) -> Tensor {
        let Some(bias) = self.qkv.bias.as_ref().filter(|_| !self.key_bias) else {
            return self.qkv.forward(x);
        };
        let parts = bias.chunk(3, 0);
        let bias = Tensor::cat(&[&parts[0], &parts[1].zeros_like(), &parts[2]], 0);
        Linear { weight: self.qkv.weight.shallow_clone(), bias: Some(bias) }.forward(x)
    }
}
