//! The encoder: every token attends to a few places of every level around itself.

use tch::{Device, Kind, Tensor};

use super::{
    TransformerConfig,
    attention::{Levels, MsDeformAttn},
};
use crate::{
    error::Result,
    models::{
        layers::{LayerNorm, Linear},
        padding::Padding,
        parameters::Scope,
    },
};

#[derive(Debug)]
struct EncoderLayer {
    self_attn: MsDeformAttn,
    norm1: LayerNorm,
    linear1: Linear,
    linear2: Linear,
    norm2: LayerNorm,
}

impl EncoderLayer {
    fn new(scope: &Scope, config: &TransformerConfig) -> Self {
        let d = config.hidden_dim;
        Self {
            self_attn: MsDeformAttn::new(
                &scope.sub("self_attn"),
                d,
                config.nheads,
                config.num_feature_levels,
                config.enc_n_points,
            ),
            norm1: LayerNorm::new(&scope.sub("norm1"), d),
            linear1: Linear::xavier(&scope.sub("linear1"), d, config.dim_feedforward),
            linear2: Linear::xavier(&scope.sub("linear2"), config.dim_feedforward, d),
            norm2: LayerNorm::new(&scope.sub("norm2"), d),
        }
    }

    /// `[B, S, D]` → `[B, S, D]`
    fn forward(
        &self,
        x: &Tensor,
        pos: &Tensor,
        points: &Tensor,
        levels: &Levels,
        unread: Option<&Tensor>,
    ) -> Result<Tensor> {
        let attended = self.self_attn.forward(&(x + pos), points, x, levels, unread)?;
        let x = self.norm1.forward_sum(x, &attended);
        let hidden = self.linear1.forward_relu(&x);
        Ok(self.norm2.forward_sum(&x, &self.linear2.forward(&hidden)))
    }
}

/// All encoder layers.
#[derive(Debug)]
pub(super) struct Encoder {
    layers: Vec<EncoderLayer>,
    padding: Padding,
}

impl Encoder {
    pub(super) fn new(scope: &Scope, config: &TransformerConfig, padding: Padding) -> Self {
        let layer = |i| EncoderLayer::new(&scope.sub("layers").sub(i), config);
        Self { layers: (0..config.enc_layers).map(layer).collect(), padding }
    }

    /// # Shapes
    /// `tokens`, `pos` `[B, S, D]` → `[B, S, D]`
    pub(super) fn forward(&self, tokens: &Tensor, pos: &Tensor, levels: &Levels) -> Result<Tensor> {
        let points = reference_points(levels);
        // No token attends to the padding's, and none of them proposes.
        let unread = match self.padding {
            Padding::Masked => Some(&levels.padding),
            Padding::Official => None,
        };
        let mut x = tokens.shallow_clone();
        for layer in &self.layers {
            x = layer.forward(&x, pos, &points, levels, unread)?;
        }
        Ok(x)
    }
}

/// Centres of one level's pixels: x and y, each `[H·W]`, in pixels.
fn pixel_centres((h, w): (i64, i64), options: (Kind, Device)) -> (Tensor, Tensor) {
    let along = |n: i64| Tensor::arange(n, options) + 0.5;
    let x = along(w).unsqueeze(0).expand([h, w], false).flatten(0, 1);
    let y = along(h).unsqueeze(1).expand([h, w], false).flatten(0, 1);
    (x, y)
}

/// Where each token lies, seen from each level.
///
/// # Shapes
/// → `[B, S, L, 2]` (x, y) in [0, 1] of the padded level
fn reference_points(levels: &Levels) -> Tensor {
    let ratios = &levels.valid_ratios; // [B, L, 2]
    let centres: Vec<Tensor> = levels
        .spatial_shapes
        .iter()
        .enumerate()
        .map(|(level, &(h, w))| {
            let (x, y) = pixel_centres((h, w), (ratios.kind(), ratios.device()));
            let own = ratios.select(1, level as i64); // [B, 2]
            let x = x.unsqueeze(0) / (own.narrow(1, 0, 1) * w as f64);
            let y = y.unsqueeze(0) / (own.narrow(1, 1, 1) * h as f64);
            Tensor::stack(&[x, y], -1) // [B, H·W, 2]
        })
        .collect();
    Tensor::cat(&centres, 1).unsqueeze(2) * ratios.unsqueeze(1)
}

/// The box that each token proposes before the heads refine it: its own centre, w = h =
/// 0.05 · 2^level, and whether it may propose at all (not padding, inside (0.01, 0.99)).
///
/// # Shapes
/// → boxes before the sigmoid `[B, S, 4]`, allowed `[B, S]`
pub(super) fn proposals(levels: &Levels) -> (Tensor, Tensor) {
    let ratios = &levels.valid_ratios;
    let boxes: Vec<Tensor> = levels
        .spatial_shapes
        .iter()
        .enumerate()
        .map(|(level, &(h, w))| {
            let (x, y) = pixel_centres((h, w), (ratios.kind(), ratios.device()));
            // The ratio times the size is the number of valid pixels, a whole number.
            let valid = ratios.select(1, level as i64);
            let x = x.unsqueeze(0) / (valid.narrow(1, 0, 1) * w as f64).round();
            let y = y.unsqueeze(0) / (valid.narrow(1, 1, 1) * h as f64).round();
            let size = Tensor::full_like(&x, 0.05 * f64::from(1u32 << level));
            Tensor::stack(&[&x, &y, &size, &size], -1)
        })
        .collect();
    let boxes = Tensor::cat(&boxes, 1); // [B, S, 4]
    let inside = boxes.gt(0.01).logical_and(&boxes.lt(0.99)).all_dim(-1, false);
    let allowed = inside.logical_and(&levels.padding.logical_not());
    let unsigmoid = (&boxes / (1.0f64 - &boxes)).log();
    (unsigmoid.masked_fill(&allowed.logical_not().unsqueeze(-1), f64::INFINITY), allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One image filling its 2×2 and 1×1 levels, one filling the left half.
    fn levels() -> Levels {
        let padding = Tensor::from_slice(&[0i64, 0, 0, 0, 0, 0, 1, 0, 1, 0]).view([2, 5]);
        Levels {
            spatial_shapes: vec![(2, 2), (1, 1)],
            padding: padding.to_kind(Kind::Bool),
            valid_ratios: Tensor::from_slice(&[1.0f32, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0])
                .view([2, 2, 2]),
        }
    }

    #[test]
    fn reference_points_are_pixel_centres_scaled_by_valid_ratios() {
        let points = reference_points(&levels());
        assert_eq!(points.size(), [2, 5, 2, 2]);
        let at = |b: i64, s: i64, l: i64| {
            [points.double_value(&[b, s, l, 0]), points.double_value(&[b, s, l, 1])]
        };
        assert_eq!(at(0, 0, 0), [0.25, 0.25]);
        assert_eq!(at(0, 3, 1), [0.75, 0.75]);
        assert_eq!(at(0, 4, 0), [0.5, 0.5]);
        // Half-filled: the pixel's centre is at 0.5 of the valid part; 0.25 of the padded level 0,
        // 0.5 of level 1, whose single pixel counts as valid throughout.
        assert_eq!(at(1, 0, 0), [0.25, 0.25]);
        assert_eq!(at(1, 0, 1), [0.5, 0.25]);
    }

    #[test]
    fn proposals_are_masked_outside_the_image() {
        let (boxes, allowed) = proposals(&levels());
        let expected = [1i64, 1, 1, 1, 1, 1, 0, 1, 0, 1].map(|x| x != 0);
        let got: Vec<bool> = Vec::try_from(allowed.flatten(0, 1)).unwrap();
        assert_eq!(got, expected);
        let logit = |p: f64| (p / (1.0 - p)).ln();
        let row: Vec<f64> =
            Vec::try_from(boxes.select(0, 0).select(0, 1).to_kind(Kind::Double)).unwrap();
        for (got, p) in row.iter().zip([0.75, 0.25, 0.05, 0.05]) {
            assert!((got - logit(p)).abs() < 1e-5);
        }
        assert!((boxes.double_value(&[0, 4, 2]) - logit(0.1)).abs() < 1e-5);
        assert!(boxes.double_value(&[1, 1, 0]).is_infinite());
        assert_eq!(boxes.device(), Device::Cpu);
    }
}
