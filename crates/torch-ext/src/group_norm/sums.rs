//! Sums over blocks of numbers, in lanes that the compiler turns into vectors.

use std::ops::Range;

use crate::real::{Real, mul_add};

/// How many numbers are added up in `T` before the sum is added to an f64.
pub(super) const BLOCK: usize = 1024;
/// Sums that run side by side.
const LANES: usize = 16;
/// Pixels in a row that are copied without a call; most rows of small maps are no longer.
const SHORT: usize = 2 * LANES;
/// A group's pivot is the mean of so many of its first numbers.
const FIRST: usize = 256;

/// Sums of `x - pivot` and of its square.
pub(super) struct Moments<T> {
    pub(super) pivot: T,
    pub(super) sums: [f64; 2],
    /// How many numbers were added.
    pub(super) count: usize,
}

impl<T: Real> Moments<T> {
    /// The pivot is the mean of the first numbers. The error that rounding makes in the variance grows with
    /// (mean - pivot)² / variance, which is at most the number of all values over that of the first ones.
    #[inline(always)]
    pub(super) fn add<const FMA: bool>(&mut self, block: &[T]) {
        if self.count == 0 {
            let first = &block[..block.len().min(FIRST)];
            let [sum, _] = square_sums::<T, FMA>(first, T::ZERO);
            self.pivot = T::from_f64(sum / first.len() as f64);
        }
        let [sum, squares] = square_sums::<T, FMA>(block, self.pivot);
        self.sums[0] += sum;
        self.sums[1] += squares;
        self.count += block.len();
    }

    /// Adds the numbers of `x` at the runs of each plane of `area` pixels, cut into blocks as if there
    /// were nothing between them.
    #[inline(always)]
    pub(super) fn add_runs<const FMA: bool>(
        &mut self,
        x: &[T],
        area: usize,
        runs: &[Range<usize>],
        scratch: &mut Vec<T>,
    ) {
        let packed = room((2 * BLOCK).min(x.len()) + SHORT, scratch);
        let mut filled = 0;
        for plane in (0..x.len()).step_by(area) {
            for run in runs {
                copy(&x[plane + run.start..], run.len(), &mut packed[filled..]);
                filled += run.len();
                if filled >= BLOCK {
                    self.add::<FMA>(&packed[..BLOCK]);
                    packed.copy_within(BLOCK..filled, 0);
                    filled -= BLOCK;
                }
            }
        }
        if filled > 0 {
            self.add::<FMA>(&packed[..filled]);
        }
    }
}

/// The first places of a task's working memory, as many as asked for. They may hold any value.
#[inline(always)]
pub(super) fn room<T: Real>(length: usize, scratch: &mut Vec<T>) -> &mut [T] {
    if scratch.len() < length {
        scratch.resize(length, T::ZERO);
    }
    &mut scratch[..length]
}

/// Copies `length` numbers, or SHORT where they are fewer and there is room.
#[inline(always)]
fn copy<T: Copy>(from: &[T], length: usize, to: &mut [T]) {
    if length <= SHORT
        && let (Some(from), Some(to)) = (from.first_chunk::<SHORT>(), to.first_chunk_mut::<SHORT>())
    {
        *to = *from;
    } else {
        to[..length].copy_from_slice(&from[..length]);
    }
}

/// Adds `x - pivot` and its square.
#[inline(always)]
fn squares<T: Real, const FMA: bool>(x: &[T; LANES], pivot: T, lanes: &mut [[T; LANES]; 2]) {
    for i in 0..LANES {
        let d = x[i] - pivot;
        lanes[0][i] += d;
        lanes[1][i] = mul_add::<T, FMA>(d, d, lanes[1][i]);
    }
}

/// Sums of `x - pivot` and of its square over a block.
#[inline(always)]
fn square_sums<T: Real, const FMA: bool>(block: &[T], pivot: T) -> [f64; 2] {
    let mut lanes = [[T::ZERO; LANES]; 2];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        squares::<T, FMA>(chunk, pivot, &mut lanes);
    }
    squares::<T, FMA>(&tail(block, rest.len(), pivot), pivot, &mut lanes);
    lanes.map(total)
}

/// Adds `g` and `g · (x - pivot)`.
#[inline(always)]
fn products<T: Real, const FMA: bool>(
    grad: &[T; LANES],
    x: &[T; LANES],
    pivot: T,
    lanes: &mut [[T; LANES]; 2],
) {
    for i in 0..LANES {
        lanes[0][i] += grad[i];
        lanes[1][i] = mul_add::<T, FMA>(grad[i], x[i] - pivot, lanes[1][i]);
    }
}

/// Sums of `g` and of `g · (x - pivot)` over two blocks of one length.
#[inline(always)]
pub(super) fn product_sums<T: Real, const FMA: bool>(grad: &[T], x: &[T], pivot: T) -> [f64; 2] {
    let mut lanes = [[T::ZERO; LANES]; 2];
    let (grads, rest) = grad.as_chunks::<LANES>();
    for (grad, x) in grads.iter().zip(x.as_chunks::<LANES>().0) {
        products::<T, FMA>(grad, x, pivot, &mut lanes);
    }
    let (grad, x) = (tail(grad, rest.len(), T::ZERO), tail(x, rest.len(), pivot));
    products::<T, FMA>(&grad, &x, pivot, &mut lanes);
    lanes.map(total)
}

/// The block with `idle` where `keep` is zero, in a buffer.
#[inline(always)]
pub(super) fn kept<'a, T: Real>(block: &[T], keep: &[T], idle: T, buffer: &'a mut [T]) -> &'a [T] {
    let buffer = &mut buffer[..block.len()];
    for ((to, &x), &keep) in buffer.iter_mut().zip(block).zip(keep) {
        *to = if keep == T::ZERO { idle } else { x };
    }
    buffer
}

/// The last `rest` numbers of a block, fewer than LANES, in lanes that are `idle` otherwise.
#[inline(always)]
fn tail<T: Real>(block: &[T], rest: usize, idle: T) -> [T; LANES] {
    let mut lanes = [idle; LANES];
    match block.last_chunk::<LANES>() {
        Some(last) => {
            let first = (LANES - rest) as u32;
            for i in 0..LANES {
                lanes[i] = if i as u32 >= first { last[i] } else { idle };
            }
        }
        None => lanes[..block.len()].copy_from_slice(block),
    }
    lanes
}

/// Of all lanes, added in halves.
#[inline(always)]
fn total<T: Real>(mut lanes: [T; LANES]) -> f64 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
    }
    lanes[0].into()
}
