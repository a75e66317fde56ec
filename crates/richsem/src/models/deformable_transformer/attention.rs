//! Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, equation 3) as a module:
//! projections around the sampling kernel of `torch-ext`.

use std::f64::consts::TAU;

use tch::{Kind, Tensor};

use crate::{
    error::Result,
    models::{
        layers::Linear,
        parameters::{Init, Scope},
    },
};

/// Feature maps of all levels, flattened and concatenated, and what their positions mean.
#[derive(Debug)]
pub struct Levels {
    /// (height, width) of each level.
    pub spatial_shapes: Vec<(i64, i64)>,
    /// `[B, S]`, true = padding.
    pub padding: Tensor,
    /// `[B, L, 2]`: the part of each level (width, height) that is not padding.
    pub valid_ratios: Tensor,
}

/// The attention module.
#[derive(Debug)]
pub struct MsDeformAttn {
    sampling_offsets: Linear,
    attention_weights: Linear,
    value_proj: Linear,
    output_proj: Linear,
    heads: i64,
    levels: i64,
    points: i64,
}

impl MsDeformAttn {
    /// Offsets start as `points` steps outwards in `heads` directions, weights uniform.
    #[must_use]
    pub fn new(scope: &Scope, dim: i64, heads: i64, levels: i64, points: i64) -> Self {
        let zero = Init::Constant(0.0);
        let samples = heads * levels * points;
        let projection = |name: &str| {
            Linear::with_init(&scope.sub(name), dim, dim, Init::XavierUniform, Some(zero))
        };
        let sampling_offsets =
            Linear::with_init(&scope.sub("sampling_offsets"), dim, samples * 2, zero, Some(zero));
        let mut directions = Vec::with_capacity(samples as usize * 2);
        for head in 0..heads {
            let theta = head as f64 * TAU / heads as f64;
            let (x, y) = (theta.cos(), theta.sin());
            let largest = x.abs().max(y.abs());
            for _ in 0..levels {
                for point in 1..=points {
                    directions.push((x / largest * point as f64) as f32);
                    directions.push((y / largest * point as f64) as f32);
                }
            }
        }
        if let Some(bias) = &sampling_offsets.bias {
            tch::no_grad(|| bias.shallow_clone().copy_(&Tensor::from_slice(&directions)));
        }
        Self {
            sampling_offsets,
            attention_weights: Linear::with_init(
                &scope.sub("attention_weights"),
                dim,
                samples,
                zero,
                Some(zero),
            ),
            value_proj: projection("value_proj"),
            output_proj: projection("output_proj"),
            heads,
            levels,
            points,
        }
    }

    /// `reference_points` are points (x, y) or boxes (cx, cy, w, h) in [0, 1] of each *padded*
    /// level; offsets count pixels of the level for points, and half a box over the number of
    /// points for boxes.
    ///
    /// # Shapes
    /// `query` `[B, Q, D]`, `reference_points` `[B, Q, L, 2 | 4]`, `memory` `[B, S, D]` →
    /// `[B, Q, D]`
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn forward(
        &self,
        query: &Tensor,
        reference_points: &Tensor,
        memory: &Tensor,
        levels: &Levels,
    ) -> Result<Tensor> {
        let (b, q, d) = query.size3()?;
        let (m, l, p) = (self.heads, self.levels, self.points);
        let value = self.value_proj.forward(memory).masked_fill(&levels.padding.unsqueeze(-1), 0.0);
        // The kernel adds gradients up in f32 whatever it is given: on an H100 f32 values make its
        // backward pass 1.7 times as fast as bf16 ones (benches/README.md).
        let value = value.to_kind(Kind::Float).view([b, -1, m, d / m]); // [B, S, M, D / M]
        let offsets = self.sampling_offsets.forward(query).to_kind(Kind::Float);
        let offsets = offsets.view([b, q, m, l, p, 2]);
        let weights = self.attention_weights.forward(query).view([b, q, m, l * p]);
        let weights = weights.softmax(-1, Kind::Float).view([b, q, m, l, p]);
        let reference = reference_points.view([b, q, 1, l, 1, -1]);
        let locations = if reference_points.size()[3] == 2 {
            let sizes: Vec<f32> =
                levels.spatial_shapes.iter().flat_map(|&(h, w)| [w as f32, h as f32]).collect();
            let sizes = Tensor::from_slice(&sizes).to_device(query.device()).view([l, 1, 2]);
            reference + offsets / sizes
        } else {
            let half = reference.narrow(-1, 2, 2) * (0.5 / p as f64);
            reference.narrow(-1, 0, 2) + offsets * half
        }; // [B, Q, M, L, P, 2]
        let sampled =
            torch_ext::ms_deform_attn(&value, &levels.spatial_shapes, &locations, &weights)?;
        Ok(self.output_proj.forward(&sampled))
    }
}
