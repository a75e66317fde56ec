//! Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, equation 3) as a module:
//! projections around the sampling kernel of `torch-ext`.

use std::f64::consts::TAU;

use tch::Tensor;

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

/// Multi-scale deformable attention with its weights.
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
        let sampling_offsets = Linear::with_init(
            &scope.sub("sampling_offsets").sampling(),
            dim,
            samples * 2,
            zero,
            Some(zero),
        );
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
            torch_ext::no_grad(|| bias.shallow_clone().copy_(&Tensor::from_slice(&directions)));
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
    /// points for boxes. Nothing is sampled for queries that are `unread`.
    ///
    /// # Shapes
    /// `query` `[B, Q, D]`, `reference_points` `[B, Q, L, 2 | 4]`, `memory` `[B, S, D]`, `unread`
    /// `[B, Q]` → `[B, Q, D]`
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn forward(
        &self,
        query: &Tensor,
        reference_points: &Tensor,
        memory: &Tensor,
        levels: &Levels,
        unread: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (b, q, d) = query.size3()?;
        let (m, l, p) = (self.heads, self.levels, self.points);
        let value = self.value_proj.forward_zeroed(memory, &levels.padding);
        let value = value.view([b, -1, m, d / m]); // [B, S, M, D / M]
        // Eight bits of mantissa would move a sample by up to 1/64 of a pixel.
        let offsets = torch_ext::no_autocast(query.device(), || {
            self.sampling_offsets.forward(&query.to_kind(self.sampling_offsets.weight.kind()))
        });
        let sampled = torch_ext::ms_deform_attn_around(
            &value,
            &levels.spatial_shapes,
            reference_points,
            &offsets.view([b, q, m, l, p, 2]),
            &self.attention_weights.forward(query).view([b, q, m, l, p]),
            unread,
        )?;
        Ok(self.output_proj.forward(&sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::uniform;
    use crate::{
        models::parameters::{ParameterStore, Role},
        random::{Random, Stream},
    };
    use tch::{Device, Kind};

    fn fill(x: &Tensor, item: u64) {
        let mut random = Random::new(9, Stream::Test, 0, item);
        let values: Vec<f32> = (0..x.numel()).map(|_| random.normal() as f32 * 0.7).collect();
        torch_ext::no_grad(|| x.shallow_clone().copy_(&Tensor::from_slice(&values).view_as(x)));
    }

    fn rows(x: &Tensor) -> Vec<Vec<f64>> {
        let width = *x.size().last().unwrap();
        Vec::try_from(x.to_kind(Kind::Double).reshape([-1, width])).unwrap()
    }

    fn apply(linear: &Linear, x: &[f64]) -> Vec<f64> {
        let bias =
            Vec::<f64>::try_from(linear.bias.as_ref().unwrap().to_kind(Kind::Double)).unwrap();
        let dot = |row: &Vec<f64>| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
        rows(&linear.weight).iter().zip(bias).map(|(row, b)| dot(row) + b).collect()
    }

    /// Equation 3 of Deformable DETR in loops, for reference points and for reference boxes.
    #[test]
    fn the_module_follows_its_equation() {
        let (d, heads, points, q) = (8usize, 2usize, 3usize, 4usize);
        let shapes = [(3i64, 4i64), (2, 2)];
        let store = ParameterStore::new(Device::Cpu, 0);
        let module = MsDeformAttn::new(&store.root(), d as i64, heads as i64, 2, points as i64);
        for (i, p) in store.parameters().iter().enumerate() {
            assert_eq!(p.role, Role::Trainable);
            fill(&p.tensor, i as u64);
        }
        let options = (Kind::Float, Device::Cpu);
        let (query, memory) =
            (Tensor::zeros([1, 4, 8], options), Tensor::zeros([1, 16, 8], options));
        fill(&query, 100);
        fill(&memory, 101);
        let padded = [3usize, 7, 11, 13];
        let padding = Tensor::zeros([1, 16], (Kind::Bool, Device::Cpu));
        for &p in &padded {
            let _ = padding.narrow(1, p as i64, 1).fill_(1);
        }
        let levels = Levels {
            spatial_shapes: shapes.to_vec(),
            padding,
            valid_ratios: Tensor::ones([1, 2, 2], options),
        };
        let value: Vec<Vec<f64>> = rows(&memory)
            .iter()
            .enumerate()
            .map(
                |(s, x)| {
                    if padded.contains(&s) { vec![0.0; d] } else { apply(&module.value_proj, x) }
                },
            )
            .collect();
        for width in [2usize, 4] {
            let reference = uniform(1, &[1, q as i64, 2, width as i64]);
            let got = rows(&module.forward(&query, &reference, &memory, &levels, None).unwrap());
            let reference = rows(&reference); // q · 2 rows
            for (i, x) in rows(&query).iter().enumerate() {
                let offsets = apply(&module.sampling_offsets, x);
                let weights = apply(&module.attention_weights, x);
                let mut mixed = vec![0.0; d];
                for head in 0..heads {
                    let own = &weights[head * 2 * points..][..2 * points];
                    let total: f64 = own.iter().map(|w| w.exp()).sum();
                    for level in 0..2 {
                        let (h, w) = shapes[level];
                        let start = if level == 0 { 0 } else { 12 };
                        let r = &reference[i * 2 + level];
                        for point in 0..points {
                            let at = (head * 2 + level) * points + point;
                            let (dx, dy) = (offsets[at * 2], offsets[at * 2 + 1]);
                            let (x, y) = if width == 2 {
                                (r[0] + dx / w as f64, r[1] + dy / h as f64)
                            } else {
                                let n = points as f64;
                                (r[0] + dx / n * r[2] * 0.5, r[1] + dy / n * r[3] * 0.5)
                            };
                            let (px, py) = (x * w as f64 - 0.5, y * h as f64 - 0.5);
                            for (cx, cy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                                let (ix, iy) = (px.floor() as i64 + cx, py.floor() as i64 + cy);
                                if !(0..w).contains(&ix) || !(0..h).contains(&iy) {
                                    continue;
                                }
                                let near =
                                    (1.0 - (px - ix as f64).abs()) * (1.0 - (py - iy as f64).abs());
                                let token = start + (iy * w + ix) as usize;
                                for k in (0..d / heads).map(|k| head * d / heads + k) {
                                    mixed[k] += own[level * points + point].exp() / total
                                        * near
                                        * value[token][k];
                                }
                            }
                        }
                    }
                }
                for (got, expected) in got[i].iter().zip(apply(&module.output_proj, &mixed)) {
                    assert!((got - expected).abs() < 1e-4, "{width} {i}: {got} {expected}");
                }
            }
        }
    }

    #[test]
    fn offsets_start_as_steps_outwards() {
        let store = ParameterStore::new(Device::Cpu, 0);
        let module = MsDeformAttn::new(&store.root(), 8, 8, 1, 2);
        let bias = rows(&module.sampling_offsets.bias.as_ref().unwrap().view([8, 2, 2]));
        // Head 0 points along x, head 1 along the diagonal, head 2 along y.
        for (row, expected) in [(0, [1.0, 0.0]), (1, [2.0, 0.0]), (2, [1.0, 1.0]), (5, [0.0, 2.0])]
        {
            for (got, expected) in bias[row].iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{row}: {got} {expected}");
            }
        }
    }
}
