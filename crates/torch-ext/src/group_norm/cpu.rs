//! The CPU kernels: a task an image and group, whose channels are neighbours in memory. Sums run over
//! the image's pixels packed together, as if there were no padding: the same bits with it and without.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;
use tch::Tensor;

use super::OP;
use crate::Result;
use crate::real::{self, data, data_mut, mul_add, multiversioned};

/// Numbers that are added up in `T` before the sum goes into an f64; two blocks are in the first cache
/// while they are read.
const BLOCK: usize = 1024;
/// Sums that run side by side.
const LANES: usize = 16;
/// Fewer numbers than this are not worth waking other threads for.
const PARALLEL: usize = 1 << 14;
/// Pivot, mean - pivot and 1 / standard deviation of a group. What is normalised is `x - pivot`, which
/// is exact where the mean is far larger than the deviation.
const STATISTICS: usize = 3;

/// `f32` or `f64`; named as the bound that `multiversioned!` writes.
pub(super) trait Real: real::Real + Into<f64> {}

impl Real for f32 {}
impl Real for f64 {}

/// The pixels of an image that are not padding.
struct Image {
    /// In runs without a gap.
    runs: Vec<Range<usize>>,
    /// How many.
    pixels: usize,
}

/// Sizes, and where the images lie.
pub(super) struct Shape {
    channels: usize,
    groups: usize,
    /// Pixels of a map.
    area: usize,
    /// One for each of the batch, or one for all.
    images: Vec<Image>,
}

impl Shape {
    /// Of a contiguous `x` `[B, C, H, W]` and `padding` `[B, H, W]`, both checked.
    pub(super) fn new(x: &Tensor, groups: i64, padding: Option<&Tensor>) -> Self {
        let size = x.size();
        let area = (size[2] * size[3]) as usize;
        let images = match padding {
            None => vec![Image { runs: vec![0..area], pixels: area }],
            Some(padding) => {
                // SAFETY: a contiguous tensor of bools on the CPU, a byte each, that outlives this.
                let padding = unsafe {
                    std::slice::from_raw_parts(padding.data_ptr().cast::<u8>(), padding.numel())
                };
                padding.chunks_exact(area).map(Image::new).collect()
            }
        };
        Self { channels: size[1] as usize, groups: groups as usize, area, images }
    }

    /// Channels of a group.
    fn width(&self) -> usize {
        self.channels / self.groups
    }

    /// The image and the channels of a task.
    fn task(&self, index: usize) -> (&Image, Range<usize>) {
        let (image, group) = (index / self.groups, index % self.groups);
        let image = self.images.get(image).unwrap_or(&self.images[0]);
        (image, group * self.width()..(group + 1) * self.width())
    }
}

impl Image {
    fn new(padding: &[u8]) -> Self {
        let mut runs = vec![];
        let mut start = 0;
        while let Some(skipped) = padding[start..].iter().position(|&padded| padded == 0) {
            let first = start + skipped;
            let length = padding[first..].iter().position(|&padded| padded != 0);
            start = length.map_or(padding.len(), |length| first + length);
            runs.push(first..start);
        }
        let pixels = runs.iter().map(ExactSizeIterator::len).sum();
        Self { runs, pixels }
    }
}

/// Where packing goes on: plane, run, and how much of the run has been taken.
#[derive(Default)]
struct Cursor {
    plane: usize,
    run: usize,
    taken: usize,
}

impl Cursor {
    /// Fills the block with the next of the image's numbers in `planes` of `area` pixels; returns how
    /// many there were.
    #[inline(always)]
    fn fill<T: Copy>(
        &mut self,
        planes: &[T],
        area: usize,
        image: &Image,
        block: &mut [T; BLOCK],
    ) -> usize {
        let mut filled = 0;
        while (self.plane + 1) * area <= planes.len() {
            while let Some(run) = image.runs.get(self.run) {
                let length = (run.len() - self.taken).min(BLOCK - filled);
                let from = self.plane * area + run.start + self.taken;
                block[filled..filled + length].copy_from_slice(&planes[from..from + length]);
                filled += length;
                self.taken += length;
                if self.taken < run.len() {
                    return filled;
                }
                (self.run, self.taken) = (self.run + 1, 0);
            }
            (self.plane, self.run) = (self.plane + 1, 0);
        }
        filled
    }
}

/// Sums of `x - pivot` and of its square.
struct Moments<T> {
    pivot: T,
    sums: [f64; 2],
    /// Numbers seen.
    count: usize,
}

impl<T: Real> Moments<T> {
    /// The pivot is the mean of the first block. That of a number lost by rounding grows with
    /// (mean - pivot)² / variance, which is below the number of blocks.
    #[inline(always)]
    fn add<const FMA: bool>(&mut self, block: &[T]) {
        if self.count == 0 {
            let [sum, _] = sums::<T, FMA>(block, T::ZERO);
            self.pivot = T::from_f64(sum / block.len() as f64);
        }
        let [sum, squares] = sums::<T, FMA>(block, self.pivot);
        self.sums[0] += sum;
        self.sums[1] += squares;
        self.count += block.len();
    }
}

/// Sums of `x - pivot` and of its square over a block.
#[inline(always)]
fn sums<T: Real, const FMA: bool>(block: &[T], pivot: T) -> [f64; 2] {
    let mut lanes = [[T::ZERO; LANES]; 2];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            let d = chunk[i] - pivot;
            lanes[0][i] += d;
            lanes[1][i] = mul_add::<T, FMA>(d, d, lanes[1][i]);
        }
    }
    for (i, &x) in rest.iter().enumerate() {
        let d = x - pivot;
        lanes[0][i] += d;
        lanes[1][i] = mul_add::<T, FMA>(d, d, lanes[1][i]);
    }
    lanes.map(total)
}

/// Sums of `g` and of `g · (x - pivot)` over two blocks of one length.
#[inline(always)]
fn products<T: Real, const FMA: bool>(grad: &[T], x: &[T], pivot: T) -> [f64; 2] {
    let mut lanes = [[T::ZERO; LANES]; 2];
    let (grads, grad_rest) = grad.as_chunks::<LANES>();
    let (xs, x_rest) = x.as_chunks::<LANES>();
    for (grad, x) in grads.iter().zip(xs) {
        for i in 0..LANES {
            lanes[0][i] += grad[i];
            lanes[1][i] = mul_add::<T, FMA>(grad[i], x[i] - pivot, lanes[1][i]);
        }
    }
    for (i, (&grad, &x)) in grad_rest.iter().zip(x_rest).enumerate() {
        lanes[0][i] += grad;
        lanes[1][i] = mul_add::<T, FMA>(grad, x - pivot, lanes[1][i]);
    }
    lanes.map(total)
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

/// Zeros in what lies between the runs of a plane.
#[inline(always)]
fn clear_padding<T: Real>(plane: &mut [MaybeUninit<T>], image: &Image) {
    let mut end = 0;
    for run in &image.runs {
        plane[end..run.start].fill(MaybeUninit::new(T::ZERO));
        end = run.end;
    }
    plane[end..].fill(MaybeUninit::new(T::ZERO));
}

/// `x`, `output` `[channels, area]`, `weight`, `bias` `[channels]`: one group. Writes all of `output`.
#[inline(always)]
fn forward_body<T: Real, const FMA: bool>(
    image: &Image,
    x: &[T],
    weight: &[T],
    bias: &[T],
    eps: f64,
    statistics: &mut [T],
    output: &mut [MaybeUninit<T>],
) {
    let area = x.len() / weight.len();
    let mut moments = Moments { pivot: T::ZERO, sums: [0.0; 2], count: 0 };
    if image.pixels == area {
        for block in x.chunks(BLOCK) {
            moments.add::<FMA>(block);
        }
    } else {
        let mut cursor = Cursor::default();
        let mut block = [T::ZERO; BLOCK];
        loop {
            let filled = cursor.fill(x, area, image, &mut block);
            if filled == 0 {
                break;
            }
            moments.add::<FMA>(&block[..filled]);
        }
    }
    // At least one, for images of padding alone.
    let count = moments.count.max(1) as f64;
    let pivot = moments.pivot;
    let shift = moments.sums[0] / count;
    // A rounding below zero at most; a NaN stays one.
    let variance = moments.sums[1] / count - shift * shift;
    let variance = if variance < 0.0 { 0.0 } else { variance };
    let scale = 1.0 / (variance + eps).sqrt();
    statistics.copy_from_slice(&[pivot, T::from_f64(shift), T::from_f64(scale)]);
    let planes = x.chunks_exact(area).zip(output.chunks_exact_mut(area));
    for ((x, output), (&weight, &bias)) in planes.zip(weight.iter().zip(bias)) {
        let factor: f64 = scale * weight.into();
        let term = T::from_f64(bias.into() - shift * factor);
        let factor = T::from_f64(factor);
        for run in &image.runs {
            for (output, &x) in output[run.clone()].iter_mut().zip(&x[run.clone()]) {
                output.write(mul_add::<T, FMA>(x - pivot, factor, term));
            }
        }
        clear_padding(output, image);
    }
}

multiversioned! {
    fn forward_group / forward_body<T>(
        image: &Image,
        x: &[T],
        weight: &[T],
        bias: &[T],
        eps: f64,
        statistics: &mut [T],
        output: &mut [MaybeUninit<T>],
    )
}

/// As in [`forward_body`]. Writes `columns` `[channels, 2]`, the gradients of weight and bias from this
/// image, and all of `grad_x` where it is wanted.
#[inline(always)]
fn backward_body<T: Real, const FMA: bool>(
    image: &Image,
    grad: &[T],
    x: &[T],
    weight: &[T],
    statistics: &[T],
    columns: &mut [f64],
    grad_x: Option<&mut [MaybeUninit<T>]>,
) {
    let area = x.len() / weight.len();
    let pivot = statistics[0];
    let [shift, scale]: [f64; 2] = [statistics[1].into(), statistics[2].into()];
    let mut blocks = [[T::ZERO; BLOCK]; 2];
    // Of the gradient of the normalised numbers: its sum, and that of its product with them.
    let mut of_group = [0.0; 2];
    let planes = grad.chunks_exact(area).zip(x.chunks_exact(area));
    for (((grad, x), &weight), columns) in planes.zip(weight).zip(columns.chunks_exact_mut(2)) {
        let mut of_channel = [0.0; 2];
        let mut add = |[sum, product]: [f64; 2]| {
            of_channel[0] += sum;
            of_channel[1] += product;
        };
        if image.pixels == area {
            for (grad, x) in grad.chunks(BLOCK).zip(x.chunks(BLOCK)) {
                add(products::<T, FMA>(grad, x, pivot));
            }
        } else {
            let mut cursors = [Cursor::default(), Cursor::default()];
            loop {
                let filled = cursors[0].fill(grad, area, image, &mut blocks[0]);
                if filled == 0 {
                    break;
                }
                cursors[1].fill(x, area, image, &mut blocks[1]);
                add(products::<T, FMA>(&blocks[0][..filled], &blocks[1][..filled], pivot));
            }
        }
        let [sum, product] = of_channel;
        let product = scale * (product - shift * sum);
        columns.copy_from_slice(&[product, sum]);
        let weight: f64 = weight.into();
        of_group[0] += weight * sum;
        of_group[1] += weight * product;
    }
    let Some(grad_x) = grad_x else { return };
    let count = (weight.len() * image.pixels).max(1) as f64;
    let [mean, mean_product] = of_group.map(|sum| sum / count);
    // scale · (weight · g - mean - mean_product · (x - pivot - shift) · scale)
    let of_x = -scale * scale * mean_product;
    let term = T::from_f64(-scale * mean - of_x * shift);
    let of_x = T::from_f64(of_x);
    let planes = grad.chunks_exact(area).zip(x.chunks_exact(area));
    for ((planes, grad_x), &weight) in planes.zip(grad_x.chunks_exact_mut(area)).zip(weight) {
        let of_grad = T::from_f64(scale * weight.into());
        for run in &image.runs {
            let numbers = planes.0[run.clone()].iter().zip(&planes.1[run.clone()]);
            for (grad_x, (&grad, &x)) in grad_x[run.clone()].iter_mut().zip(numbers) {
                let rest = mul_add::<T, FMA>(x - pivot, of_x, term);
                grad_x.write(mul_add::<T, FMA>(grad, of_grad, rest));
            }
        }
        clear_padding(grad_x, image);
    }
}

multiversioned! {
    fn backward_group / backward_body<T>(
        image: &Image,
        grad: &[T],
        x: &[T],
        weight: &[T],
        statistics: &[T],
        columns: &mut [f64],
        grad_x: Option<&mut [MaybeUninit<T>]>,
    )
}

/// Runs each task, on several threads where there is enough to do.
fn run<I: Send>(
    numbers: usize,
    tasks: impl Iterator<Item = I>,
    f: impl Fn(usize, I) + Send + Sync,
) {
    if numbers < PARALLEL {
        tasks.enumerate().for_each(|(index, task)| f(index, task));
    } else {
        let tasks: Vec<I> = tasks.collect();
        tasks.into_par_iter().enumerate().for_each(|(index, task)| f(index, task));
    }
}

/// The memory of a tensor that was just made, contiguous and of kind `T` on the CPU.
fn unwritten<T: Real>(tensor: &mut Tensor) -> &mut [MaybeUninit<T>] {
    // SAFETY: that many numbers, which nothing else refers to; nothing is said of what they hold.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

/// What a forward pass leaves.
pub(super) struct Forward {
    pub(super) output: Tensor,
    /// `[B, G, 3]`
    pub(super) statistics: Tensor,
}

/// `x` `[B, C, H, W]` with numbers in it, contiguous and of kind `T`, as `weight` and `bias` are.
pub(super) fn forward<T: Real>(
    shape: &Shape,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Forward> {
    let size = x.size();
    let options = (T::KIND, x.device());
    let mut output = Tensor::f_empty(&size, options)?;
    let number = [size[0], shape.groups as i64, STATISTICS as i64];
    let mut statistics = Tensor::f_zeros(number, options)?;
    let (weight, bias) = (weight.f_contiguous()?, bias.f_contiguous()?);
    let [x, weight, bias] = [data::<T>(OP, x)?, data(OP, &weight)?, data(OP, &bias)?];
    let group = shape.width() * shape.area;
    let tasks = x
        .chunks_exact(group)
        .zip(unwritten::<T>(&mut output).chunks_exact_mut(group))
        .zip(data_mut::<T>(OP, &mut statistics)?.chunks_exact_mut(STATISTICS));
    run(x.len(), tasks, |index, ((x, output), statistics)| {
        let (image, channels) = shape.task(index);
        let (weight, bias) = (&weight[channels.clone()], &bias[channels]);
        forward_group(image, x, weight, bias, eps, statistics, output);
    });
    Ok(Forward { output, statistics })
}

/// What a backward pass returns.
pub(super) struct Backward {
    /// Where it is wanted.
    pub(super) x: Option<Tensor>,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// `grad` is of the shape of `x`, which is what [`forward`] was given.
pub(super) fn backward<T: Real>(
    shape: &Shape,
    grad: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    statistics: &Tensor,
    of_x: bool,
) -> Result<Backward> {
    let options = (T::KIND, x.device());
    let mut grad_x = of_x.then(|| Tensor::f_empty(x.size(), options)).transpose()?;
    let (grad, weight) = (grad.f_contiguous()?, weight.f_contiguous()?);
    let [grad, x, weight] = [data::<T>(OP, &grad)?, data(OP, x)?, data(OP, &weight)?];
    let group = shape.width() * shape.area;
    // Of each image, [B, C, 2], and added up in its order.
    let mut columns = vec![0.0; x.len() / shape.area * 2];
    let mut of_x = grad_x.as_mut().map(|grad_x| unwritten::<T>(grad_x).chunks_exact_mut(group));
    let tasks = grad
        .chunks_exact(group)
        .zip(x.chunks_exact(group))
        .zip(data::<T>(OP, statistics)?.chunks_exact(STATISTICS))
        .zip(columns.chunks_exact_mut(2 * shape.width()))
        .map(|task| (task, of_x.as_mut().and_then(Iterator::next)));
    run(x.len(), tasks, |index, ((((grad, x), statistics), columns), grad_x)| {
        let (image, channels) = shape.task(index);
        backward_group(image, grad, x, &weight[channels], statistics, columns, grad_x);
    });
    let mut totals = vec![0.0; 2 * shape.channels];
    for columns in columns.chunks_exact(totals.len()) {
        totals.iter_mut().zip(columns).for_each(|(total, column)| *total += column);
    }
    let totals = Tensor::from_slice(&totals).f_view([-1, 2])?.f_to_kind(T::KIND)?;
    let column = |i| totals.f_select(1, i)?.f_contiguous();
    let (weight, bias) = (column(0)?, column(1)?);
    Ok(Backward { x: grad_x, weight, bias })
}
