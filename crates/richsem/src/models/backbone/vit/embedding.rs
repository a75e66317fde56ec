//! From pixels to tokens: patches, what runs with them, and where they lie.

use tch::Tensor;

use super::{super::parts::Convolution, VitConfig, VitFamily};
use crate::models::{
    layers::LayerNorm,
    parameters::{Init, Scope},
};

/// What is added to the scale by DINOv2 without registers, whose positions are resized by a factor: (h + 0.1) /
/// grid. Its authors took it against rounding, and it moves every sample; the weights know no other.
const OFFSET: f64 = 0.1;

/// How a table of positions comes to another size. All are bicubic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// To the size.
    Size,
    /// To the size, and blurred where it is smaller.
    Antialiased,
    /// By a factor that is [`OFFSET`] off.
    Factor,
}

/// Patches, tokens in front of them, positions.
#[derive(Debug)]
pub(super) struct Embedding {
    proj: Convolution,
    /// `[1, 1 + grid², C]`: of the class token, then of each patch. It is there where no class token is, too:
    /// published files have it.
    positions: Option<Tensor>,
    /// `[1, 1, C]`
    class: Option<Tensor>,
    /// `[1, R, C]`
    registers: Option<Tensor>,
    norm: Option<LayerNorm>,
    grid: i64,
    resize: Resize,
}

impl Embedding {
    pub(super) fn new(scope: &Scope, config: &VitConfig) -> Self {
        let (family, dim, patch) = (config.name.family(), config.width(), config.patch());
        let tokens = |name: &str, count: i64| {
            scope.parameter_without_decay(name, &[1, count, dim], Init::Normal(0.02))
        };
        let grid = config.position_grid();
        let registers = config.registers();
        let proj = scope.sub("patch_embed").sub("proj");
        let strided = (patch, patch, 0);
        Self {
            positions: family.table().then(|| tokens("pos_embed", 1 + grid * grid)),
            class: family.class_token().then(|| tokens("cls_token", 1)),
            registers: (registers > 0).then(|| tokens("register_tokens", registers)),
            proj: match family {
                VitFamily::Clip => Convolution::without_bias(&proj, (3, dim), strided),
                _ => Convolution::strided(&proj, (3, dim), strided),
            },
            norm: (family == VitFamily::Clip)
                .then(|| LayerNorm::with_eps(&scope.sub("ln_pre"), dim, family.eps())),
            grid,
            resize: match family {
                VitFamily::Dinov2 if registers == 0 => Resize::Factor,
                VitFamily::Dinov2 => Resize::Antialiased,
                _ => Resize::Size,
            },
        }
    }

    /// The tokens, patches last, and the sides of their map. What is left over of an image is no patch.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` → `[B, N, C]`, `[h, w]`
    pub(super) fn forward(&self, images: &Tensor) -> (Tensor, [i64; 2]) {
        let patches = self.proj.forward(images); // [B, C, h, w]
        let [b, c, h, w] = patches.size()[..] else { unreachable!("conv2d gives [B, C, h, w]") };
        let kind = patches.kind();
        let mut x = patches.flatten(2, 3).transpose(1, 2);
        if let Some(positions) = &self.positions {
            x += self.resized(positions, [h, w]).to_kind(kind);
        }
        let everywhere = |t: &Tensor| t.to_kind(kind).expand([b, -1, c], false);
        let mut tokens = Vec::new();
        if let Some(class) = &self.class {
            tokens.push(everywhere(&match &self.positions {
                Some(positions) => class + positions.narrow(1, 0, 1),
                None => class.shallow_clone(),
            }));
        }
        // They lie nowhere.
        tokens.extend(self.registers.as_ref().map(everywhere));
        if !tokens.is_empty() {
            tokens.push(x);
            x = Tensor::cat(&tokens, 1);
        }
        (self.norm.as_ref().map_or_else(|| x.shallow_clone(), |norm| norm.forward(&x)), [h, w])
    }

    /// The patches' positions in a map of that size: `[1, h · w, C]`.
    fn resized(&self, table: &Tensor, [h, w]: [i64; 2]) -> Tensor {
        let grid = self.grid;
        let table = table.narrow(1, 1, grid * grid);
        if (h, w) == (grid, grid) {
            return table;
        }
        let table = table.transpose(1, 2).unflatten(2, [grid, grid]);
        let factor = |side: i64| (side as f64 + OFFSET) / grid as f64;
        let resized = match self.resize {
            Resize::Size => table.upsample_bicubic2d([h, w], false, None, None),
            Resize::Antialiased => table.internal_upsample_bicubic2d_aa([h, w], false, None, None),
            Resize::Factor => table.upsample_bicubic2d([h, w], false, factor(h), factor(w)),
        };
        resized.flatten(2, 3).transpose(1, 2)
    }
}
