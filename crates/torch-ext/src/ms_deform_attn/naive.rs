//! The reference: one `grid_sampler` a level, differentiated by libtorch.

use tch::{Kind, Tensor};

use super::Shapes;
use crate::Result;

/// [`super::ms_deform_attn`] as a composition of libtorch's operations: slow, and right.
///
/// # Shapes
/// - `value`: `[B, S, M, D]`, the levels' positions one after the other, row by row
/// - `spatial_shapes`: `(H, W)` of each level
/// - `sampling_locations`: `[B, Q, M, L, P, 2]`, x then y
/// - `attention_weights`: `[B, Q, M, L, P]`
/// - returns `[B, Q, M·D]` in the kind of `value`
///
/// # Errors
/// When shapes disagree.
pub fn ms_deform_attn_naive(
    value: &Tensor,
    spatial_shapes: &[(i64, i64)],
    sampling_locations: &Tensor,
    attention_weights: &Tensor,
) -> Result<Tensor> {
    let Shapes { b, s: _, m, d, q, l: _, p } =
        Shapes::check(value, spatial_shapes, sampling_locations, attention_weights)?;
    let kind = value.kind();
    // Low-precision values are read into the locations' kind (f32); the result goes back.
    let wide = if kind == Kind::Double { Kind::Double } else { Kind::Float };
    let value = value.f_to_kind(wide)?;
    let locations = sampling_locations.f_to_kind(wide)?;
    let weights = attention_weights.f_to_kind(wide)?;
    if b * q == 0 {
        // grid_sampler refuses an empty batch. The sums are 0 and carry the zero gradients.
        let zero = value.f_sum(wide)? * 0.0 + locations.f_sum(wide)? + weights.f_sum(wide)?;
        return Ok(
            (Tensor::f_zeros([b, q, m * d], (wide, value.device()))? + zero).f_to_kind(kind)?
        );
    }
    // grid_sampler's coordinates run from -1 to 1 over the outer edges of the pixels.
    let grids = locations * 2.0 - 1.0; // [B, Q, M, L, P, 2]
    let mut sampled = Vec::with_capacity(spatial_shapes.len());
    let mut start = 0;
    for (level, &(h, w)) in (0..).zip(spatial_shapes) {
        let map = value
            .f_narrow(1, start, h * w)?
            .f_permute([0, 2, 3, 1])? // [B, M, D, H·W]
            .f_reshape([b * m, d, h, w])?;
        let grid = grids
            .f_select(3, level)?
            .f_permute([0, 2, 1, 3, 4])? // [B, M, Q, P, 2]
            .f_reshape([b * m, q, p, 2])?;
        // Bilinear (0), zeros outside (0).
        sampled.push(map.f_grid_sampler(&grid, 0, 0, false)?); // [B·M, D, Q, P]
        start += h * w;
    }
    let weights = weights
        .f_permute([0, 2, 1, 3, 4])? // [B, M, Q, L, P]
        .f_reshape([b * m, 1, q, -1])?;
    let sampled = Tensor::f_stack(&sampled, 3)?.f_flatten(3, 4)?; // [B·M, D, Q, L·P]
    let output = sampled.f_mul(&weights)?.f_sum_dim_intlist(-1, false, None)?; // [B·M, D, Q]
    Ok(output.f_view([b, m * d, q])?.f_transpose(1, 2)?.f_contiguous()?.f_to_kind(kind)?)
}
