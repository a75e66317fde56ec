//! The CPU twin: Rust, one head at a time so that what it reads stays in the cache.
//!
//! Work is cut by image, head and level or block of queries, never by the number of threads, and
//! each piece adds in one order: results are the same to the last bit whatever the threads.

use rayon::prelude::*;
use tch::Tensor;

use super::{Gradients, OP, Shapes};
use crate::Result;
use crate::real::{Real, Scattered, data, data_mut, mul_add, multiversioned};

/// Queries of one forward task.
const BLOCK: usize = 256;
/// Partial sums of a dot product, so that it runs in vector registers.
const LANES: usize = 8;

/// The numbers both passes read.
#[derive(Clone, Copy)]
struct Inputs<'a, T> {
    /// `[B, M, S, D]`: a head's map lies in one piece.
    value: &'a [T],
    /// `[B, Q, M, L, P, 2]`.
    locations: &'a [T],
    /// `[B, Q, M, L, P]`.
    weights: &'a [T],
    /// Height and width of each level, and where it starts in `S`.
    levels: &'a [Level],
    sizes: Sizes,
}

#[derive(Clone, Copy)]
struct Level {
    height: usize,
    width: usize,
    start: usize,
}

#[derive(Clone, Copy)]
struct Sizes {
    b: usize,
    s: usize,
    m: usize,
    d: usize,
    q: usize,
    l: usize,
    p: usize,
}

impl From<Shapes> for Sizes {
    fn from(shapes: Shapes) -> Self {
        let Shapes { b, s, m, d, q, l, p } = shapes;
        let [b, s, m, d, q, l, p] = [b, s, m, d, q, l, p].map(|n| n as usize);
        Self { b, s, m, d, q, l, p }
    }
}

fn levels(spatial_shapes: &[(i64, i64)]) -> Vec<Level> {
    let mut start = 0;
    spatial_shapes
        .iter()
        .map(|&(h, w)| {
            let level = Level { height: h as usize, width: w as usize, start };
            start += level.height * level.width;
            level
        })
        .collect()
}

/// One bilinear read: the four pixels around a point, and how far into them it lies.
struct Sample<T> {
    /// Rows of the level's map (`y·W + x`): upper left, upper right, lower left, lower right;
    /// `usize::MAX` outside.
    rows: [usize; 4],
    /// Bilinear coefficients of the four.
    coefficients: [T; 4],
    /// Fraction of the way to the right and lower pixels.
    x: T,
    y: T,
}

const OUTSIDE: usize = usize::MAX;

impl<T: Real> Sample<T> {
    /// `None` where all four pixels lie outside (or the location is not a number).
    #[inline(always)]
    fn new(x: T, y: T, level: Level) -> Option<Self> {
        let (width, height) = (T::from_index(level.width), T::from_index(level.height));
        let x = x * width - T::HALF;
        let y = y * height - T::HALF;
        let inside = x > T::ZERO - T::ONE && y > T::ZERO - T::ONE && x < width && y < height;
        if !inside {
            return None;
        }
        let (floor_x, floor_y) = (x.floor(), y.floor());
        let (left, top) = (floor_x.to_index(), floor_y.to_index());
        let (x, y) = (x - floor_x, y - floor_y);
        let (rest_x, rest_y) = (T::ONE - x, T::ONE - y);
        let row = |dx: isize, dy: isize| {
            let (x, y) = (left + dx, top + dy);
            let inside = x >= 0 && y >= 0 && x < level.width as isize && y < level.height as isize;
            if inside { y as usize * level.width + x as usize } else { OUTSIDE }
        };
        Some(Self {
            rows: [row(0, 0), row(1, 0), row(0, 1), row(1, 1)],
            coefficients: [rest_y * rest_x, rest_y * x, y * rest_x, y * x],
            x,
            y,
        })
    }
}

/// Row `row` of a map `[H·W, D]`, or zeros outside.
#[inline(always)]
fn row_or<'a, T>(map: &'a [T], row: usize, d: usize, outside: &'a [T]) -> &'a [T] {
    if row == OUTSIDE { &outside[..d] } else { &map[row * d..][..d] }
}

/// Forward pass. `value` `[B, S, M, D]`; the others as in [`super::ms_deform_attn`]; all contiguous
/// and of kind `T`. Returns `[B, Q, M·D]`.
pub(super) fn forward<T: Real>(
    shapes: Shapes,
    spatial_shapes: &[(i64, i64)],
    value: &Tensor,
    locations: &Tensor,
    weights: &Tensor,
) -> Result<Tensor> {
    let Shapes { b, m, d, q, .. } = shapes;
    let by_head = value.f_permute([0, 2, 1, 3])?.f_contiguous()?;
    let levels = levels(spatial_shapes);
    let inputs = Inputs {
        value: data::<T>(OP, &by_head)?,
        locations: data(OP, locations)?,
        weights: data(OP, weights)?,
        levels: &levels,
        sizes: shapes.into(),
    };
    let mut output = Tensor::f_empty([b, q, m * d], (T::KIND, value.device()))?;
    let rows = Scattered::new(data_mut::<T>(OP, &mut output)?);
    let sizes = inputs.sizes;
    let blocks = sizes.q.div_ceil(BLOCK);
    (0..sizes.b * sizes.m * blocks).into_par_iter().for_each(|task| {
        let (head, block) = (task / blocks, task % blocks);
        match sizes.d {
            32 => forward_block::<T, 32>(&inputs, head, block, &rows),
            _ => forward_block::<T, 0>(&inputs, head, block, &rows),
        }
    });
    Ok(output)
}

multiversioned!(
    fn forward_block / forward_block_body<T, const D: usize>(
        inputs: &Inputs<'_, T>, head: usize, block: usize, output: &Scattered<'_, T>,
    )
);

/// One block of queries of head `head` (of `B·M`). `D` is the head's features, 0 for any number.
#[inline(always)]
fn forward_block_body<T: Real, const D: usize, const FMA: bool>(
    inputs: &Inputs<'_, T>,
    head: usize,
    block: usize,
    output: &Scattered<'_, T>,
) {
    let Sizes { s, m, q, l, p, .. } = inputs.sizes;
    let d = if D == 0 { inputs.sizes.d } else { D };
    let map = &inputs.value[head * s * d..][..s * d];
    let zeros = vec![T::ZERO; d];
    let (image, head) = (head / m, head % m);
    for query in block * BLOCK..q.min((block + 1) * BLOCK) {
        let item = (image * q + query) * m + head;
        // SAFETY: each (image, query, head) belongs to one task.
        let target = unsafe { output.part(item * d, d) };
        // Accumulating in a local array lets a known D stay in registers.
        let mut known = [T::ZERO; D];
        if D == 0 {
            target.fill(T::ZERO);
        }
        for (index, level) in inputs.levels.iter().enumerate() {
            let map = &map[level.start * d..][..level.height * level.width * d];
            let first = (item * l + index) * p;
            let weights = &inputs.weights[first..][..p];
            let locations = &inputs.locations[first * 2..][..p * 2];
            for (&weight, location) in weights.iter().zip(locations.chunks_exact(2)) {
                let Some(sample) = Sample::new(location[0], location[1], *level) else { continue };
                let [a, b, c, e] = sample.rows.map(|row| row_or(map, row, d, &zeros));
                let [ka, kb, kc, ke] = sample.coefficients.map(|k| k * weight);
                let sum = if D == 0 { &mut *target } else { &mut known[..] };
                for i in 0..d {
                    let upper = mul_add::<T, FMA>(ka, a[i], mul_add::<T, FMA>(kb, b[i], sum[i]));
                    sum[i] = mul_add::<T, FMA>(kc, c[i], mul_add::<T, FMA>(ke, e[i], upper));
                }
            }
        }
        if D != 0 {
            target.copy_from_slice(&known);
        }
    }
}

/// Backward pass. `grad` `[B, Q, M·D]`; the others as in [`forward`].
pub(super) fn backward<T: Real>(
    shapes: Shapes,
    spatial_shapes: &[(i64, i64)],
    grad: &Tensor,
    value: &Tensor,
    locations: &Tensor,
    weights: &Tensor,
    needs: &[bool],
) -> Result<Gradients> {
    let Shapes { b, s, m, d, .. } = shapes;
    let options = (T::KIND, value.device());
    let by_head = value.f_permute([0, 2, 1, 3])?.f_contiguous()?;
    let levels = levels(spatial_shapes);
    let inputs = Inputs {
        value: data::<T>(OP, &by_head)?,
        locations: data(OP, locations)?,
        weights: data(OP, weights)?,
        levels: &levels,
        sizes: shapes.into(),
    };
    let mut grad_value = Tensor::f_zeros(if needs[0] { [b, m, s, d] } else { [0; 4] }, options)?;
    let mut grad_locations = Tensor::f_zeros_like(locations)?;
    let mut grad_weights = Tensor::f_zeros_like(weights)?;
    let outputs = Outputs {
        value: needs[0].then_some(Scattered::new(data_mut(OP, &mut grad_value)?)),
        locations: Scattered::new(data_mut(OP, &mut grad_locations)?),
        weights: Scattered::new(data_mut(OP, &mut grad_weights)?),
    };
    let sizes = inputs.sizes;
    let grad = data::<T>(OP, grad)?;
    // Every point of a level adds to that level's map alone, so this cut needs no reduction.
    (0..sizes.b * sizes.m * sizes.l).into_par_iter().for_each(|task| {
        let (head, level) = (task / sizes.l, task % sizes.l);
        match sizes.d {
            32 => backward_level::<T, 32>(&inputs, grad, head, level, &outputs),
            _ => backward_level::<T, 0>(&inputs, grad, head, level, &outputs),
        }
    });
    drop(outputs);
    let grad_value = match needs[0] {
        true => Some(grad_value.f_permute([0, 2, 1, 3])?.f_contiguous()?),
        false => None,
    };
    Ok(vec![grad_value, needs[1].then_some(grad_locations), needs[2].then_some(grad_weights)])
}

/// Where the gradients go; `value` `[B, M, S, D]`.
struct Outputs<'a, T> {
    value: Option<Scattered<'a, T>>,
    locations: Scattered<'a, T>,
    weights: Scattered<'a, T>,
}

multiversioned!(
    fn backward_level / backward_level_body<T, const D: usize>(
        inputs: &Inputs<'_, T>, grad: &[T], head: usize, level: usize, outputs: &Outputs<'_, T>,
    )
);

/// All queries of level `index` of head `head` (of `B·M`).
#[inline(always)]
fn backward_level_body<T: Real, const D: usize, const FMA: bool>(
    inputs: &Inputs<'_, T>,
    grad: &[T],
    head: usize,
    index: usize,
    outputs: &Outputs<'_, T>,
) {
    let Sizes { s, m, q, l, p, .. } = inputs.sizes;
    let d = if D == 0 { inputs.sizes.d } else { D };
    let level = inputs.levels[index];
    let (start, length) = ((head * s + level.start) * d, level.height * level.width * d);
    let map = &inputs.value[start..][..length];
    // SAFETY: each (image, head, level) belongs to one task.
    let mut grad_map = outputs.value.as_ref().map(|value| unsafe { value.part(start, length) });
    let zeros = vec![T::ZERO; d];
    let (width, height) = (T::from_index(level.width), T::from_index(level.height));
    let (image, head) = (head / m, head % m);
    for query in 0..q {
        let item = (image * q + query) * m + head;
        let grad = &grad[item * d..][..d];
        let first = (item * l + index) * p;
        // SAFETY: each (image, query, head, level) belongs to one task.
        let (grad_weights, grad_locations) =
            unsafe { (outputs.weights.part(first, p), outputs.locations.part(first * 2, p * 2)) };
        for point in 0..p {
            let weight = inputs.weights[first + point];
            let location = &inputs.locations[(first + point) * 2..][..2];
            let Some(sample) = Sample::new(location[0], location[1], level) else { continue };
            let corners = sample.rows.map(|row| row_or(map, row, d, &zeros));
            let [a, b, c, e] = dots::<T, FMA>(grad, corners);
            let [ka, kb, kc, ke] = sample.coefficients;
            grad_weights[point] = ka * a + kb * b + kc * c + ke * e;
            let (x, y) = (sample.x, sample.y);
            grad_locations[2 * point] = weight * width * ((T::ONE - y) * (b - a) + y * (e - c));
            grad_locations[2 * point + 1] =
                weight * height * ((T::ONE - x) * (c - a) + x * (e - b));
            if let Some(map) = &mut grad_map {
                for (row, k) in sample.rows.into_iter().zip(sample.coefficients) {
                    if row != OUTSIDE {
                        let k = k * weight;
                        for (sum, &g) in map[row * d..][..d].iter_mut().zip(grad) {
                            *sum = mul_add::<T, FMA>(k, g, *sum);
                        }
                    }
                }
            }
        }
    }
}

/// Dot products of `grad` with the four corners.
#[inline(always)]
fn dots<T: Real, const FMA: bool>(grad: &[T], corners: [&[T]; 4]) -> [T; 4] {
    let mut sums = [[T::ZERO; LANES]; 4];
    let whole = grad.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        for (sum, corner) in sums.iter_mut().zip(corners) {
            for lane in 0..LANES {
                sum[lane] = mul_add::<T, FMA>(grad[start + lane], corner[start + lane], sum[lane]);
            }
        }
    }
    for i in whole..grad.len() {
        for (sum, corner) in sums.iter_mut().zip(corners) {
            sum[i - whole] = mul_add::<T, FMA>(grad[i], corner[i], sum[i - whole]);
        }
    }
    sums.map(|lanes| {
        let [a, b, c, d, e, f, g, h] = lanes;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    })
}
