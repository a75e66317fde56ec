//! The CPU twin: Rust, one head at a time so that what it reads stays in the cache.
//!
//! Work is cut by image, head and level or block of queries, never by the number of threads, and
//! each piece adds in one order: results are the same to the last bit whatever the threads.
//!
//! The inner functions hold no closures. A closure that is not inlined is compiled without the vector
//! instructions of the function around it, and calls a library for every fused multiplication.

use std::mem::MaybeUninit;

use rayon::prelude::*;
use tch::Tensor;

use super::{Gradients, OP, Shapes};
use crate::Result;
use crate::real::{Real, Scattered, data, data_mut, filled, mul_add, multiversioned};

/// Queries of one forward task.
const BLOCK: usize = 256;
/// Numbers worked on side by side; a vector register or two of them.
const LANES: usize = 8;

/// The numbers of a [`Read`].
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
        let [mut a, mut b, mut c, mut e] = [OUTSIDE; 4];
        let (in_left, in_right) = (left >= 0, left + 1 < level.width as isize);
        let (in_top, in_bottom) = (top >= 0, top + 1 < level.height as isize);
        // Negative by a row and a pixel at most, and then not used.
        let first = (top * level.width as isize + left) as usize;
        if in_top && in_left {
            a = first;
        }
        if in_top && in_right {
            b = first.wrapping_add(1);
        }
        if in_bottom && in_left {
            c = first.wrapping_add(level.width);
        }
        if in_bottom && in_right {
            e = first.wrapping_add(level.width + 1);
        }
        Some(Self {
            rows: [a, b, c, e],
            coefficients: [rest_y * rest_x, rest_y * x, y * rest_x, y * x],
            x,
            y,
        })
    }

    /// The four pixels' features in a map `[H·W, D]`, zeros outside.
    #[inline(always)]
    fn corners<'a>(&self, map: &'a [T], zeros: &'a [T]) -> [&'a [T]; 4] {
        let d = zeros.len();
        let mut corners = [zeros; 4];
        for (corner, row) in corners.iter_mut().zip(self.rows) {
            if row != OUTSIDE {
                *corner = &map[row * d..][..d];
            }
        }
        corners
    }
}

/// What both passes read, as in [`super::ms_deform_attn`]; all tensors contiguous and of one kind.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    pub(super) spatial_shapes: &'a [(i64, i64)],
    /// `[B, S, M, D]`
    pub(super) value: &'a Tensor,
    /// `[B, Q, M, L, P, 2]`
    pub(super) locations: &'a Tensor,
    /// `[B, Q, M, L, P]`
    pub(super) weights: &'a Tensor,
}

impl Read<'_> {
    /// The values with a head's map in one piece, `[B, M, S, D]`.
    fn by_head(&self) -> Result<Tensor> {
        Ok(self.value.f_permute([0, 2, 1, 3])?.f_contiguous()?)
    }
}

/// Forward pass. Returns `[B, Q, M·D]`.
pub(super) fn forward<T: Real>(shapes: Shapes, read: Read<'_>) -> Result<Tensor> {
    let Shapes { b, m, d, q, .. } = shapes;
    let (by_head, levels) = (read.by_head()?, levels(read.spatial_shapes));
    let inputs = Inputs {
        value: data::<T>(OP, &by_head)?,
        locations: data(OP, read.locations)?,
        weights: data(OP, read.weights)?,
        levels: &levels,
        sizes: shapes.into(),
    };
    let sizes = inputs.sizes;
    let blocks = sizes.q.div_ceil(BLOCK);
    let fill = |output: &mut [MaybeUninit<T>]| {
        let rows = Scattered::new(output);
        (0..sizes.b * sizes.m * blocks).into_par_iter().for_each(|task| {
            let (head, block) = (task / blocks, task % blocks);
            match sizes.d {
                32 => forward_block::<T, 4>(&inputs, head, block, &rows),
                _ => forward_block::<T, 0>(&inputs, head, block, &rows),
            }
        });
    };
    // SAFETY: the tasks are all images, heads and blocks of queries, and each writes all of its rows.
    unsafe { filled(OP, &[b, q, m * d], fill) }
}

multiversioned!(
    fn forward_block / forward_block_body<T, const C: usize>(
        inputs: &Inputs<'_, T>,
        head: usize,
        block: usize,
        output: &Scattered<'_, MaybeUninit<T>>,
    )
);

/// One block of queries of head `head` (of `B·M`). `C` is the number of [`LANES`]-wide chunks of a
/// head's features, 0 for any number of features.
#[inline(always)]
fn forward_block_body<T: Real, const C: usize, const FMA: bool>(
    inputs: &Inputs<'_, T>,
    head: usize,
    block: usize,
    output: &Scattered<'_, MaybeUninit<T>>,
) {
    let Sizes { s, m, d, q, l, p, .. } = inputs.sizes;
    let map = &inputs.value[head * s * d..][..s * d];
    let zeros = vec![T::ZERO; d];
    let mut long = vec![T::ZERO; if C == 0 { d } else { 0 }];
    let (image, head) = (head / m, head % m);
    for query in block * BLOCK..q.min((block + 1) * BLOCK) {
        let item = (image * q + query) * m + head;
        // A sum of known size stays in registers; the other one is `long`.
        let mut sum = [[T::ZERO; LANES]; C];
        long.fill(T::ZERO);
        for (index, level) in inputs.levels.iter().enumerate() {
            let map = &map[level.start * d..][..level.height * level.width * d];
            let first = (item * l + index) * p;
            let weights = &inputs.weights[first..][..p];
            let locations = &inputs.locations[first * 2..][..p * 2];
            for (&weight, location) in weights.iter().zip(locations.chunks_exact(2)) {
                let Some(sample) = Sample::new(location[0], location[1], *level) else { continue };
                let corners = sample.corners(map, &zeros);
                let mut coefficients = sample.coefficients;
                for k in &mut coefficients {
                    *k = *k * weight;
                }
                if C == 0 {
                    add_corners::<T, FMA>(&mut long, corners, coefficients);
                } else {
                    for (corner, k) in corners.into_iter().zip(coefficients) {
                        let corner = chunks::<T, C>(corner);
                        for j in 0..C {
                            for i in 0..LANES {
                                sum[j][i] = mul_add::<T, FMA>(k, corner[j][i], sum[j][i]);
                            }
                        }
                    }
                }
            }
        }
        // SAFETY: each (image, query, head) belongs to one task.
        let target = unsafe { output.part(item * d, d) };
        for (target, &sum) in target.iter_mut().zip(if C == 0 { &long } else { sum.as_flattened() })
        {
            target.write(sum);
        }
    }
}

/// A row as `C` chunks.
#[inline(always)]
fn chunks<T: Real, const C: usize>(row: &[T]) -> &[[T; LANES]; C] {
    row.as_chunks().0.try_into().expect("the kernel for C chunks is given rows of that length")
}

/// `sum += Σ k · corner`.
#[inline(always)]
fn add_corners<T: Real, const FMA: bool>(sum: &mut [T], corners: [&[T]; 4], k: [T; 4]) {
    for (corner, k) in corners.into_iter().zip(k) {
        add_scaled::<T, FMA>(sum, k, corner);
    }
}

/// `sum += k · row`.
#[inline(always)]
fn add_scaled<T: Real, const FMA: bool>(sum: &mut [T], k: T, row: &[T]) {
    for (sum, &x) in sum.iter_mut().zip(row) {
        *sum = mul_add::<T, FMA>(k, x, *sum);
    }
}

/// Backward pass. `grad` `[B, Q, M·D]`; `needs`: whether the gradients of value, locations and weights are
/// wanted.
pub(super) fn backward<T: Real>(
    shapes: Shapes,
    grad: &Tensor,
    read: Read<'_>,
    needs: &[bool],
) -> Result<Gradients> {
    let Shapes { b, s, m, d, .. } = shapes;
    let options = (T::KIND, read.value.device());
    let (by_head, levels) = (read.by_head()?, levels(read.spatial_shapes));
    let inputs = Inputs {
        value: data::<T>(OP, &by_head)?,
        locations: data(OP, read.locations)?,
        weights: data(OP, read.weights)?,
        levels: &levels,
        sizes: shapes.into(),
    };
    let mut grad_value = Tensor::f_zeros(if needs[0] { [b, m, s, d] } else { [0; 4] }, options)?;
    let mut grad_locations = Tensor::f_zeros_like(read.locations)?;
    let mut grad_weights = Tensor::f_zeros_like(read.weights)?;
    // SAFETY: the tensors were just made, and are used nowhere else before they are whole.
    let [of_value, of_locations, of_weights] = unsafe {
        [
            data_mut(OP, &mut grad_value)?,
            data_mut(OP, &mut grad_locations)?,
            data_mut(OP, &mut grad_weights)?,
        ]
    };
    let outputs = Outputs {
        value: needs[0].then_some(Scattered::new(of_value)),
        locations: Scattered::new(of_locations),
        weights: Scattered::new(of_weights),
    };
    let sizes = inputs.sizes;
    let grad = data::<T>(OP, grad)?;
    // Every point of a level adds to that level's map alone, so this cut needs no reduction.
    (0..sizes.b * sizes.m * sizes.l).into_par_iter().for_each(|task| {
        let (head, level) = (task / sizes.l, task % sizes.l);
        match sizes.d {
            32 => backward_level::<T, 4>(&inputs, grad, head, level, &outputs),
            _ => backward_level::<T, 0>(&inputs, grad, head, level, &outputs),
        }
    });
    let grad_value =
        if needs[0] { Some(grad_value.f_permute([0, 2, 1, 3])?.f_contiguous()?) } else { None };
    Ok(vec![grad_value, needs[1].then_some(grad_locations), needs[2].then_some(grad_weights)])
}

/// The gradients of a [`Read`]; that of the value is `[B, M, S, D]`, and there if it is wanted.
struct Outputs<'a, T> {
    value: Option<Scattered<'a, T>>,
    locations: Scattered<'a, T>,
    weights: Scattered<'a, T>,
}

multiversioned!(
    fn backward_level / backward_level_body<T, const C: usize>(
        inputs: &Inputs<'_, T>, grad: &[T], head: usize, level: usize, outputs: &Outputs<'_, T>,
    )
);

/// All queries of level `index` of head `head` (of `B·M`). `C` as in [`forward_block_body`].
#[inline(always)]
fn backward_level_body<T: Real, const C: usize, const FMA: bool>(
    inputs: &Inputs<'_, T>,
    grad: &[T],
    head: usize,
    index: usize,
    outputs: &Outputs<'_, T>,
) {
    let Sizes { s, m, d, q, l, p, .. } = inputs.sizes;
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
        let known = if C == 0 { [[T::ZERO; LANES]; C] } else { *chunks(grad) };
        let first = (item * l + index) * p;
        let weights = &inputs.weights[first..][..p];
        let locations = &inputs.locations[first * 2..][..p * 2];
        // SAFETY: each (image, query, head, level) belongs to one task.
        let (grad_weights, grad_locations) =
            unsafe { (outputs.weights.part(first, p), outputs.locations.part(first * 2, p * 2)) };
        for point in 0..p {
            let weight = weights[point];
            let Some(sample) = Sample::new(locations[2 * point], locations[2 * point + 1], level)
            else {
                continue;
            };
            // The gradients of weight and location are combinations of the products of the four
            // corners with the output's gradient.
            let corners = sample.corners(map, &zeros);
            let [a, b, c, e] = products::<T, C, FMA>(corners, grad, &known);
            let [ka, kb, kc, ke] = sample.coefficients;
            grad_weights[point] = ka * a + kb * b + kc * c + ke * e;
            let (x, y) = (sample.x, sample.y);
            grad_locations[2 * point] = weight * width * ((T::ONE - y) * (b - a) + y * (e - c));
            grad_locations[2 * point + 1] =
                weight * height * ((T::ONE - x) * (c - a) + x * (e - b));
            if let Some(map) = &mut grad_map {
                add_to_map::<T, C, FMA>(map, &sample, weight, grad, &known);
            }
        }
    }
}

/// Products of the four corners with the output's gradient, which `known` holds in chunks unless `C` is 0.
#[inline(always)]
fn products<T: Real, const C: usize, const FMA: bool>(
    corners: [&[T]; 4],
    grad: &[T],
    known: &[[T; LANES]; C],
) -> [T; 4] {
    let mut products = [T::ZERO; 4];
    for (product, corner) in products.iter_mut().zip(corners) {
        *product = if C == 0 {
            dot::<T, FMA>(grad, corner)
        } else {
            dot_known::<T, C, FMA>(known, chunks(corner))
        };
    }
    products
}

/// Adds the output's gradient to the pixels that a sample has read.
#[inline(always)]
fn add_to_map<T: Real, const C: usize, const FMA: bool>(
    map: &mut [T],
    sample: &Sample<T>,
    weight: T,
    grad: &[T],
    known: &[[T; LANES]; C],
) {
    let d = grad.len();
    for (row, k) in sample.rows.into_iter().zip(sample.coefficients) {
        if row == OUTSIDE {
            continue;
        }
        let target = &mut map[row * d..][..d];
        if C == 0 {
            add_scaled::<T, FMA>(target, k * weight, grad);
        } else {
            add_scaled_known::<T, C, FMA>(target, k * weight, known);
        }
    }
}

/// Sum of products, one after the other.
#[inline(always)]
fn dot<T: Real, const FMA: bool>(a: &[T], b: &[T]) -> T {
    let mut sum = T::ZERO;
    for (&a, &b) in a.iter().zip(b) {
        sum = mul_add::<T, FMA>(a, b, sum);
    }
    sum
}

/// Sum of products, in lanes.
#[inline(always)]
fn dot_known<T: Real, const C: usize, const FMA: bool>(
    a: &[[T; LANES]; C],
    b: &[[T; LANES]; C],
) -> T {
    let mut sum = [T::ZERO; LANES];
    for j in 0..C {
        let (a, b) = (a[j], b[j]);
        for i in 0..LANES {
            sum[i] = mul_add::<T, FMA>(a[i], b[i], sum[i]);
        }
    }
    // Halves, so that the compiler keeps to vector registers.
    let mut four = [T::ZERO; LANES / 2];
    for i in 0..4 {
        four[i] = sum[i] + sum[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

/// `sum += k · row`, in lanes.
#[inline(always)]
fn add_scaled_known<T: Real, const C: usize, const FMA: bool>(
    sum: &mut [T],
    k: T,
    row: &[[T; LANES]; C],
) {
    for (target, &row) in sum.as_chunks_mut::<LANES>().0.iter_mut().zip(row) {
        // Read whole, written whole: the compiler need not wonder whether the two overlap.
        let mut sum = *target;
        for i in 0..LANES {
            sum[i] = mul_add::<T, FMA>(k, row[i], sum[i]);
        }
        *target = sum;
    }
}
