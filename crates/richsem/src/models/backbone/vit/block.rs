//! A block: attention in the image or in windows, then an MLP, each added to what went in.

use tch::Tensor;

use super::{
    super::{
        parts::{add_branch, pad_to_multiple},
        swin::{from_windows, to_windows},
    },
    VitConfig,
    attention::Attention,
    mlp::Mlp,
    rope::Rope,
};
use crate::models::{
    layers::LayerNorm,
    parameters::{Init, Scope},
};

/// A norm, and the scale of the branch that it begins.
#[derive(Debug)]
struct Branch {
    norm: LayerNorm,
    /// γ, `[C]`.
    scale: Option<Tensor>,
}

impl Branch {
    /// Number 1 is attention, 2 the MLP.
    fn new(scope: &Scope, config: &VitConfig, number: i64) -> Self {
        let (family, dim) = (config.name.family(), config.width());
        let norm = scope.sub(format!("norm{number}"));
        let scale = family.layer_scale().map(|initial| {
            let scope = scope.sub(format!("ls{number}"));
            scope.parameter_without_decay("gamma", &[dim], Init::Constant(initial))
        });
        Self { norm: LayerNorm::with_eps(&norm, dim, family.eps()), scale }
    }

    /// `x + γ · branch(norm(x))`, the branch with its factor of drop path.
    fn add(
        &self,
        x: &Tensor,
        branch: impl FnOnce(&Tensor) -> Tensor,
        factor: Option<&Tensor>,
    ) -> Tensor {
        let y = branch(&self.norm.forward(x));
        match &self.scale {
            Some(scale) => add_branch(x, &(&y * scale.to_kind(y.kind())), factor),
            None => add_branch(x, &y, factor),
        }
    }
}

/// One block.
#[derive(Debug)]
pub(super) struct Block {
    attention: (Branch, Attention),
    mlp: (Branch, Mlp),
    /// None: it attends to the whole image.
    window: Option<i64>,
}

impl Block {
    pub(super) fn new(scope: &Scope, config: &VitConfig, window: Option<i64>) -> Self {
        let side = window.unwrap_or_else(|| config.relative_grid());
        Self {
            attention: (
                Branch::new(scope, config, 1),
                Attention::new(&scope.sub("attn"), config, side),
            ),
            mlp: (Branch::new(scope, config, 2), Mlp::new(&scope.sub("mlp"), config)),
            window,
        }
    }

    /// Tokens of a map of `[h, w]` patches, which are the last ones; `rope` has the turns of the map, or of a window.
    ///
    /// # Shapes
    /// `[B, N, C]`, `factors` `[B, 1, 1]` → `[B, N, C]`
    pub(super) fn forward(
        &self,
        x: &Tensor,
        map: [i64; 2],
        rope: Option<&Rope>,
        factors: &[Option<Tensor>; 2],
    ) -> Tensor {
        let (branch, attention) = &self.attention;
        let attend = |y: &Tensor| match self.window {
            None => attention.forward(y, map, rope),
            Some(window) => in_windows(y, map, window, |y| attention.forward(y, [window; 2], rope)),
        };
        let x = branch.add(x, attend, factors[0].as_ref());
        let (branch, mlp) = &self.mlp;
        branch.add(&x, |y| mlp.forward(y), factors[1].as_ref())
    }
}

/// What `attend` makes of each window of a map by itself.
///
/// # Shapes
/// `[B, h · w, C]`; `attend` of `[B · windows, window², C]` → `[B, h · w, C]`
fn in_windows(
    x: &Tensor,
    [h, w]: [i64; 2],
    window: i64,
    attend: impl FnOnce(&Tensor) -> Tensor,
) -> Tensor {
    let [b, _, c] = x.size()[..] else { unreachable!("tokens are [B, N, C]") };
    // Zero after the norm: tokens of padding take part as such.
    let padded = pad_to_multiple(&x.view([b, h, w, c]), window);
    let sides = [padded.size()[1], padded.size()[2]];
    let windows = to_windows(&padded, window);
    let y = attend(&windows.flatten(0, 1)).view_as(&windows);
    from_windows(&y, window, sides).narrow(1, 0, h).narrow(2, 0, w).reshape([b, h * w, c])
}
