//! The CPU kernels. A task is a group of an image, whose channels are neighbours in memory. The statistics
//! are those of the image's pixels packed together, as if there were no padding: the results have the same
//! bits with padding and without. The gradients do not: there, padding adds zeros to the sums.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;
use tch::Tensor;

use super::OP;
use super::sums::{BLOCK, Moments, kept, product_sums, room};
use crate::Result;
use crate::real::{Real, data, data_mut, filled, mul_add, multiversioned};

/// Fewer numbers than this are not worth waking other threads for.
const PARALLEL: usize = 1 << 17;
/// Pivot, mean - pivot and 1 / standard deviation of a group. What is normalised is `x - pivot`, which
/// is exact where the mean is far larger than the deviation.
const STATISTICS: usize = 3;

/// The pixels of an image that are not padding.
struct Image<T> {
    /// Number of pixels that are not padding.
    pixels: usize,
    /// `[area]`, if there is padding: one for each pixel that is none, zero for others.
    keep: Option<Vec<T>>,
    /// If there is padding: ranges of pixels without padding among them, of at most BLOCK pixels.
    runs: Vec<Range<usize>>,
}

/// Sizes of a batch, and which pixels of its images are padding.
pub(super) struct Shape<T> {
    channels: usize,
    groups: usize,
    /// Pixels of a map, H · W.
    area: usize,
    /// One for each image of the batch, or, without padding, one for all.
    images: Vec<Image<T>>,
}

impl<T: Real> Shape<T> {
    /// Of a contiguous `x` `[B, C, H, W]` and `padding` `[B, H, W]`, both checked.
    pub(super) fn new(x: &Tensor, groups: i64, padding: Option<&Tensor>) -> Self {
        let size = x.size();
        let area = (size[2] * size[3]) as usize;
        let images = match padding {
            None => vec![Image { pixels: area, keep: None, runs: vec![] }],
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

    /// Number of channels of a group.
    fn width(&self) -> usize {
        self.channels / self.groups
    }

    /// The image and the channels of a task.
    fn task(&self, index: usize) -> (&Image<T>, Range<usize>) {
        let (image, group) = (index / self.groups, index % self.groups);
        let image = self.images.get(image).unwrap_or(&self.images[0]);
        (image, group * self.width()..(group + 1) * self.width())
    }
}

impl<T: Real> Image<T> {
    fn new(padding: &[u8]) -> Self {
        let pixels = padding.iter().filter(|&&padded| padded == 0).count();
        if pixels == padding.len() {
            return Self { pixels, keep: None, runs: vec![] };
        }
        let keep = padding.iter().map(|&padded| if padded == 0 { T::ONE } else { T::ZERO });
        let mut runs = vec![];
        let mut start = 0;
        while let Some(skipped) = padding[start..].iter().position(|&padded| padded == 0) {
            start += skipped;
            let own = &padding[start..padding.len().min(start + BLOCK)];
            let length = own.iter().position(|&padded| padded != 0).unwrap_or(own.len());
            runs.push(start..start + length);
            start += length;
        }
        Self { pixels, keep: Some(keep.collect()), runs }
    }
}

/// What both passes read of one group.
struct Group<'a, T> {
    /// The image that it is of.
    image: &'a Image<T>,
    /// The maps of the group's channels, `[channels, area]`.
    x: &'a [T],
    /// The factor of each channel, `[channels]`.
    weight: &'a [T],
}

/// `bias` `[channels]`, `output` `[channels, area]`. Writes all of `output`.
#[inline(always)]
fn forward_body<T: Real, const FMA: bool>(
    group: &Group<'_, T>,
    bias: &[T],
    eps: f64,
    statistics: &mut [T],
    output: &mut [MaybeUninit<T>],
    scratch: &mut Vec<T>,
) {
    let Group { image, x, weight } = *group;
    let area = x.len() / weight.len();
    let mut moments = Moments { pivot: T::ZERO, sums: [0.0; 2], count: 0 };
    match image.keep {
        None => {
            for block in x.chunks(BLOCK) {
                moments.add::<FMA>(block);
            }
        }
        Some(_) => moments.add_runs::<FMA>(x, area, &image.runs, scratch),
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
        let both = output.iter_mut().zip(x);
        match &image.keep {
            None => {
                for (output, &x) in both {
                    output.write(mul_add::<T, FMA>(x - pivot, factor, term));
                }
            }
            Some(keep) => {
                for ((output, &x), &keep) in both.zip(keep) {
                    let y = mul_add::<T, FMA>(x - pivot, factor, term);
                    output.write(if keep == T::ZERO { T::ZERO } else { y });
                }
            }
        }
    }
}

multiversioned! {
    fn forward_group / forward_body<T>(
        group: &Group<'_, T>,
        bias: &[T],
        eps: f64,
        statistics: &mut [T],
        output: &mut [MaybeUninit<T>],
        scratch: &mut Vec<T>,
    )
}

/// `grad` `[channels, area]`. Writes `columns` `[channels, 2]`, the gradients of weight and bias from this
/// image, and all of `grad_x` where it is wanted.
#[inline(always)]
fn backward_body<T: Real, const FMA: bool>(
    group: &Group<'_, T>,
    grad: &[T],
    statistics: &[T],
    columns: &mut [f64],
    grad_x: Option<&mut [MaybeUninit<T>]>,
    scratch: &mut Vec<T>,
) {
    let Group { image, x, weight } = *group;
    let area = x.len() / weight.len();
    let pivot = statistics[0];
    let [shift, scale]: [f64; 2] = [statistics[1].into(), statistics[2].into()];
    let length = if image.keep.is_some() { area.min(BLOCK) } else { 0 };
    let (grad_buffer, x_buffer) = room(2 * length, scratch).split_at_mut(length);
    // Of the gradient of the normalised numbers: its sum, and that of its product with them.
    let mut of_group = [0.0; 2];
    let planes = grad.chunks_exact(area).zip(x.chunks_exact(area));
    for (((grad, x), &weight), columns) in planes.zip(weight).zip(columns.chunks_exact_mut(2)) {
        let mut of_channel = [0.0; 2];
        for (block, (mut grad, mut x)) in grad.chunks(BLOCK).zip(x.chunks(BLOCK)).enumerate() {
            if let Some(keep) = &image.keep {
                let keep = &keep[block * BLOCK..];
                grad = kept(grad, keep, T::ZERO, grad_buffer);
                x = kept(x, keep, pivot, x_buffer);
            }
            let [sum, product] = product_sums::<T, FMA>(grad, x, pivot);
            of_channel[0] += sum;
            of_channel[1] += product;
        }
        let [sum, product] = of_channel;
        let product = scale * (product - shift * sum);
        columns.copy_from_slice(&[product, sum]);
        let weight: f64 = weight.into();
        of_group[0] += weight * sum;
        of_group[1] += weight * product;
    }
    if let Some(grad_x) = grad_x {
        let count = (weight.len() * image.pixels).max(1) as f64;
        write_grad_x::<T, FMA>(group, grad, statistics, of_group.map(|sum| sum / count), grad_x);
    }
}

/// Writes all of the gradient of `x`. `means`: of the gradient of the normalised numbers, and of its product
/// with them.
#[inline(always)]
fn write_grad_x<T: Real, const FMA: bool>(
    group: &Group<'_, T>,
    grad: &[T],
    statistics: &[T],
    [mean, mean_product]: [f64; 2],
    grad_x: &mut [MaybeUninit<T>],
) {
    let Group { image, x, weight } = *group;
    let area = x.len() / weight.len();
    let pivot = statistics[0];
    let [shift, scale]: [f64; 2] = [statistics[1].into(), statistics[2].into()];
    // scale · (weight · g - mean - mean_product · (x - pivot - shift) · scale)
    let of_x = -scale * scale * mean_product;
    let term = T::from_f64(-scale * mean - of_x * shift);
    let of_x = T::from_f64(of_x);
    let planes = grad.chunks_exact(area).zip(x.chunks_exact(area));
    for (((grad, x), grad_x), &weight) in planes.zip(grad_x.chunks_exact_mut(area)).zip(weight) {
        let of_grad = T::from_f64(scale * weight.into());
        let both = grad_x.iter_mut().zip(grad.iter().zip(x));
        match &image.keep {
            None => {
                for (grad_x, (&grad, &x)) in both {
                    let rest = mul_add::<T, FMA>(x - pivot, of_x, term);
                    grad_x.write(mul_add::<T, FMA>(grad, of_grad, rest));
                }
            }
            Some(keep) => {
                for ((grad_x, (&grad, &x)), &keep) in both.zip(keep) {
                    let rest = mul_add::<T, FMA>(x - pivot, of_x, term);
                    let d = mul_add::<T, FMA>(grad, of_grad, rest);
                    grad_x.write(if keep == T::ZERO { T::ZERO } else { d });
                }
            }
        }
    }
}

multiversioned! {
    fn backward_group / backward_body<T>(
        group: &Group<'_, T>,
        grad: &[T],
        statistics: &[T],
        columns: &mut [f64],
        grad_x: Option<&mut [MaybeUninit<T>]>,
        scratch: &mut Vec<T>,
    )
}

/// Runs each task, on several threads where there is enough to do. Tasks of a thread share their working
/// memory.
fn run<T: Real, I: Send>(
    numbers: usize,
    tasks: impl Iterator<Item = I>,
    f: impl Fn(usize, I, &mut Vec<T>) + Send + Sync,
) {
    if numbers < PARALLEL || rayon::current_num_threads() == 1 {
        let mut scratch = vec![];
        tasks.enumerate().for_each(|(index, task)| f(index, task, &mut scratch));
    } else {
        let tasks: Vec<(usize, I)> = tasks.enumerate().collect();
        tasks
            .into_par_iter()
            .for_each_init(Vec::new, |scratch, (index, task)| f(index, task, scratch));
    }
}

/// What a forward pass leaves.
pub(super) struct Forward {
    pub(super) output: Tensor,
    /// `[B, G, 3]`: the [`STATISTICS`] of each group.
    pub(super) statistics: Tensor,
}

/// `x` `[B, C, H, W]` with numbers in it, contiguous and of kind `T`, as `weight` and `bias` are.
pub(super) fn forward<T: Real>(
    shape: &Shape<T>,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Forward> {
    let size = x.size();
    let options = (T::KIND, x.device());
    let number = [size[0], shape.groups as i64, STATISTICS as i64];
    let mut statistics = Tensor::f_zeros(number, options)?;
    let (weight, bias) = (weight.f_contiguous()?, bias.f_contiguous()?);
    let [x, weight, bias] = [data::<T>(OP, x)?, data(OP, &weight)?, data(OP, &bias)?];
    let group = shape.width() * shape.area;
    // SAFETY: the tensor was just made, and is used nowhere else before this function ends.
    let of_group = unsafe { data_mut::<T>(OP, &mut statistics)? };
    let fill = |output: &mut [MaybeUninit<T>]| {
        let tasks = x
            .chunks_exact(group)
            .zip(output.chunks_exact_mut(group))
            .zip(of_group.chunks_exact_mut(STATISTICS));
        run(x.len(), tasks, |index, ((x, output), statistics), scratch| {
            let (image, channels) = shape.task(index);
            let group = Group { image, x, weight: &weight[channels.clone()] };
            forward_group(&group, &bias[channels], eps, statistics, output, scratch);
        });
    };
    // SAFETY: groups are whole, and `forward_group` writes each place of its own.
    let output = unsafe { filled(OP, &size, fill)? };
    Ok(Forward { output, statistics })
}

/// What a backward pass returns.
pub(super) struct Backward {
    /// The gradient of `x`, if it is wanted.
    pub(super) x: Option<Tensor>,
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
}

/// `grad` is of the shape of `x`, which is what [`forward`] was given.
pub(super) fn backward<T: Real>(
    shape: &Shape<T>,
    grad: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    statistics: &Tensor,
    of_x: bool,
) -> Result<Backward> {
    let size = x.size();
    let (grad, weight) = (grad.f_contiguous()?, weight.f_contiguous()?);
    let [grad, x, weight] = [data::<T>(OP, &grad)?, data(OP, x)?, data(OP, &weight)?];
    let statistics = data::<T>(OP, statistics)?;
    let group = shape.width() * shape.area;
    // Of each image, [B, C, 2], and added up in its order.
    let mut columns = vec![0.0; x.len() / shape.area * 2];
    let mut fill = |grad_x: Option<&mut [MaybeUninit<T>]>| {
        let mut of_x = grad_x.map(|grad_x| grad_x.chunks_exact_mut(group));
        let tasks = grad
            .chunks_exact(group)
            .zip(x.chunks_exact(group))
            .zip(statistics.chunks_exact(STATISTICS))
            .zip(columns.chunks_exact_mut(2 * shape.width()))
            .map(|task| (task, of_x.as_mut().and_then(Iterator::next)));
        run(x.len(), tasks, |index, ((((grad, x), statistics), columns), grad_x), scratch| {
            let (image, channels) = shape.task(index);
            let group = Group { image, x, weight: &weight[channels] };
            backward_group(&group, grad, statistics, columns, grad_x, scratch);
        });
    };
    let grad_x = if of_x {
        // SAFETY: groups are whole, and `backward_group` writes each place of its own.
        Some(unsafe { filled(OP, &size, |grad_x| fill(Some(grad_x)))? })
    } else {
        fill(None);
        None
    };
    let mut totals = vec![0.0; 2 * shape.channels];
    for columns in columns.chunks_exact(totals.len()) {
        totals.iter_mut().zip(columns).for_each(|(total, column)| *total += column);
    }
    let column = |i: usize| -> Result<Tensor> {
        let column: Vec<f64> = totals.chunks_exact(2).map(|total| total[i]).collect();
        Ok(Tensor::f_from_slice(&column)?.f_to_kind(T::KIND)?)
    };
    let (weight, bias) = (column(0)?, column(1)?);
    Ok(Backward { x: grad_x, weight, bias })
}
