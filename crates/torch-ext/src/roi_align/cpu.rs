//! RoIAlign on the CPU: the points of a box are worked out once for all channels. Forward runs over
//! boxes in parallel, backward over the channels of an image, each adding the boxes in their order,
//! so that results do not depend on the threads.

use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::{Geometry, OP};
use crate::real::{Real, data, data_mut};
use crate::{Error, Result};

/// Channels of one backward task.
const CHANNELS: usize = 8;

/// One bilinear read: four pixels of a channel's map and their coefficients, divided by the number
/// of points of the bin.
struct Point<T> {
    pixels: [usize; 4],
    coefficients: [T; 4],
}

/// The points of a box, bin by bin.
struct Points<T> {
    points: Vec<Point<T>>,
    /// Points of each bin; those outside the map are left out.
    counts: Vec<usize>,
}

/// Where each image ends in its map: height and width in feature pixels.
#[derive(Clone)]
pub(super) struct Ends(Vec<[usize; 2]>);

impl Ends {
    /// `sizes` `[B, 2]` of the images in image pixels; none: maps end with their images.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn new(geometry: &Geometry, sizes: Option<&Tensor>) -> Result<Self> {
        let whole = [geometry.height as usize, geometry.width as usize];
        let Some(sizes) = sizes else { return Ok(Self(vec![whole; geometry.b as usize])) };
        let sizes =
            Vec::<f32>::try_from(sizes.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?)?;
        let end = |side: f32, whole: usize| {
            let pixels = (side * geometry.scale as f32).ceil();
            // Not a number: nothing is there.
            if pixels > 0.0 { (pixels as usize).min(whole) } else { 0 }
        };
        let of = |size: &[f32]| [end(size[0], whole[0]), end(size[1], whole[1])];
        Ok(Self(sizes.chunks_exact(2).map(of).collect()))
    }
}

/// A bilinear read at (x, y) in feature pixels of an image that ends there, in a map of that `pitch`; `None` more
/// than a pixel outside.
fn point<T: Real>(
    (x, y): (T, T),
    [height, width]: [usize; 2],
    pitch: usize,
    share: T,
) -> Option<Point<T>> {
    let outside =
        |v: T, size: usize| size == 0 || !(v >= T::ZERO - T::ONE && v <= T::from_index(size));
    if outside(x, width) || outside(y, height) {
        return None;
    }
    // Pixels on both sides, and the fraction of the way between; the border is repeated.
    let neighbours = |v: T, size: usize| {
        let v = if v > T::ZERO { v } else { T::ZERO };
        let low = v.to_index() as usize;
        if low + 1 >= size {
            (size - 1, size - 1, T::ZERO)
        } else {
            (low, low + 1, v - T::from_index(low))
        }
    };
    let (left, right, x) = neighbours(x, width);
    let (top, bottom, y) = neighbours(y, height);
    let (rest_x, rest_y) = (T::ONE - x, T::ONE - y);
    Some(Point {
        pixels: [
            top * pitch + left,
            top * pitch + right,
            bottom * pitch + left,
            bottom * pitch + right,
        ],
        coefficients: [
            rest_y * rest_x * share,
            rest_y * x * share,
            y * rest_x * share,
            y * x * share,
        ],
    })
}

/// `corners`: x0, y0, x1, y1 in image pixels; `end` of its image in feature pixels.
fn points<T: Real>(geometry: &Geometry, corners: &[T], end: [usize; 2]) -> Points<T> {
    let pitch = geometry.width as usize;
    let (down, across) = (geometry.bins.0 as usize, geometry.bins.1 as usize);
    let scale = T::from_f64(geometry.scale);
    let offset = if geometry.aligned { T::HALF } else { T::ZERO };
    let start = |v: T| v * scale - offset;
    let (x, y) = (start(corners[0]), start(corners[1]));
    let extent = |from: T, to: T| {
        let extent = start(to) - from;
        if geometry.aligned || extent > T::ONE { extent } else { T::ONE }
    };
    let bin_width = extent(x, corners[2]) / T::from_index(across);
    let bin_height = extent(y, corners[3]) / T::from_index(down);
    let grid = |bin: T| match geometry.ratio {
        // A box turned inside out has none.
        0 => usize::try_from(bin.ceil().to_index()).unwrap_or(0),
        ratio => ratio as usize,
    };
    let (rows, columns) = (grid(bin_height), grid(bin_width));
    let share = T::ONE / T::from_index((rows * columns).max(1));
    // The middle of the `i`th of `n` parts of a bin.
    let middle = |start: T, bin: usize, size: T, i: usize, n: usize| {
        start + T::from_index(bin) * size + (T::from_index(i) + T::HALF) * size / T::from_index(n)
    };
    let mut found = Points { points: vec![], counts: Vec::with_capacity(down * across) };
    for bin_row in 0..down {
        for bin_column in 0..across {
            let before = found.points.len();
            for row in 0..rows {
                let y = middle(y, bin_row, bin_height, row, rows);
                found.points.extend((0..columns).filter_map(|column| {
                    let x = middle(x, bin_column, bin_width, column, columns);
                    point((x, y), end, pitch, share)
                }));
            }
            found.counts.push(found.points.len() - before);
        }
    }
    found
}

/// The number of each box's image, which is the first of its five numbers.
fn images<T: Real>(geometry: &Geometry, boxes: &[T]) -> Result<Vec<usize>> {
    boxes
        .chunks_exact(5)
        .enumerate()
        .map(|(i, one)| {
            let image = one[0].to_index();
            usize::try_from(image).ok().filter(|&image| image < geometry.b as usize).ok_or_else(
                || {
                    Error::argument(
                        OP,
                        "boxes",
                        format!("an image index below {} in box {i}", geometry.b),
                        image.to_string(),
                    )
                },
            )
        })
        .collect()
}

/// `features` `[B, C, H, W]`, `boxes` `[N, 5]`, both contiguous and of kind `T`.
pub(super) fn forward<T: Real>(
    geometry: Geometry,
    features: &Tensor,
    boxes: &Tensor,
    ends: &Ends,
) -> Result<Tensor> {
    let Geometry { c, height, width, n, bins, .. } = geometry;
    let mut output = Tensor::f_zeros([n, c, bins.0, bins.1], (T::KIND, features.device()))?;
    let boxes = data::<T>(OP, boxes)?;
    let images = images(&geometry, boxes)?;
    let features = data::<T>(OP, features)?;
    let (bins, area, channels) =
        ((bins.0 * bins.1) as usize, (height * width) as usize, c as usize);
    if features.is_empty() {
        return Ok(output);
    }
    // SAFETY: the tensor was just made, and is used nowhere else before it is whole.
    unsafe { data_mut::<T>(OP, &mut output)? }
        .par_chunks_mut((channels * bins).max(1))
        .zip(boxes.par_chunks_exact(5))
        .zip(&images)
        .for_each(|((output, one), &image)| {
            let Points { points, counts } = points(&geometry, &one[1..], ends.0[image]);
            for (channel, output) in output.chunks_exact_mut(bins).enumerate() {
                let map = &features[(image * channels + channel) * area..][..area];
                let mut points = points.iter();
                for (bin, &count) in output.iter_mut().zip(&counts) {
                    for point in points.by_ref().take(count) {
                        for (&pixel, &k) in point.pixels.iter().zip(&point.coefficients) {
                            *bin += k * map[pixel];
                        }
                    }
                }
            }
        });
    Ok(output)
}

/// `grad` `[N, C, h, w]`; returns `[B, C, H, W]`.
pub(super) fn backward<T: Real>(
    geometry: Geometry,
    grad: &Tensor,
    boxes: &Tensor,
    ends: &Ends,
) -> Result<Tensor> {
    let Geometry { b, c, height, width, bins, .. } = geometry;
    let mut grad_features = Tensor::f_zeros([b, c, height, width], (T::KIND, grad.device()))?;
    let boxes = data::<T>(OP, boxes)?;
    let images = images(&geometry, boxes)?;
    let grad = data::<T>(OP, grad)?;
    let (bins, area, channels) =
        ((bins.0 * bins.1) as usize, (height * width) as usize, c as usize);
    if area * channels == 0 {
        return Ok(grad_features);
    }
    // SAFETY: the tensor was just made, and is used nowhere else before it is whole.
    unsafe { data_mut::<T>(OP, &mut grad_features)? }
        .par_chunks_mut(channels * area)
        .enumerate()
        .flat_map(|(image, maps)| {
            maps.par_chunks_mut(CHANNELS * area)
                .enumerate()
                .map(move |(block, maps)| (image, block * CHANNELS, maps))
        })
        .for_each(|(image, first, maps)| {
            for (index, one) in boxes.chunks_exact(5).enumerate() {
                if images[index] != image {
                    continue;
                }
                let Points { points, counts } = points(&geometry, &one[1..], ends.0[image]);
                for (channel, map) in (first..).zip(maps.chunks_exact_mut(area)) {
                    let grad = &grad[(index * channels + channel) * bins..][..bins];
                    let mut points = points.iter();
                    for (&grad, &count) in grad.iter().zip(&counts) {
                        for point in points.by_ref().take(count) {
                            for (&pixel, &k) in point.pixels.iter().zip(&point.coefficients) {
                                map[pixel] += k * grad;
                            }
                        }
                    }
                }
            }
        });
    Ok(grad_features)
}
