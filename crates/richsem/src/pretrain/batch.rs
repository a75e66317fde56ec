//! Batches of captioned images, as a detector's teacher will see them: four to a canvas, each
//! pooled from its box on the canvas's map.
//!
//! CLIP trains on one image at a time, at one resolution. A teacher of a detector labels boxes
//! that lie anywhere on the grid of the map, among other things: pretraining shows it just that.

use image::{RgbImage, imageops};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::{CaptionSet, PretrainData};
use crate::{
    boxes::Xyxy,
    data::transforms::resize,
    error::{Error, Result},
    random::{Random, Stream},
    teacher::clip::PIXELS,
};

const ORDER: u64 = u64::MAX - 1;
const SIDE: u64 = u64::MAX - 2;

/// N images on ⌈N / 4⌉ canvases.
#[derive(Debug)]
pub(super) struct Canvases {
    /// `[⌈N / 4⌉, 3, 2 · side, 2 · side]` u8 on the CPU; zero where no image is.
    pixels: Tensor,
    /// `[N, 5]` f32 on the CPU: canvas, x0, y0, x1, y1.
    boxes: Tensor,
    /// `[N]`: number of each image's caption.
    pub(super) captions: Vec<usize>,
}

impl Canvases {
    fn new(images: &[RgbImage], captions: Vec<usize>, side: u32) -> Result<Self> {
        let width = 2 * side;
        let mut canvases = vec![RgbImage::new(width, width); images.len().div_ceil(4)];
        let mut boxes = Vec::with_capacity(5 * images.len());
        for (i, image) in images.iter().enumerate() {
            let (x, y) = (i as u32 % 2 * side, i as u32 % 4 / 2 * side);
            imageops::replace(&mut canvases[i / 4], image, i64::from(x), i64::from(y));
            boxes.extend([(i / 4) as u32, x, y, x + side, y + side].map(|v| v as f32));
        }
        let bytes: Vec<u8> = canvases.into_iter().flat_map(RgbImage::into_raw).collect();
        let (count, width) = (images.len().div_ceil(4) as i64, i64::from(width));
        let pixels = Tensor::f_from_data_size(&bytes, &[count, width, width, 3], Kind::Uint8)?
            .f_permute([0, 3, 1, 2])?;
        let boxes = Tensor::f_from_slice(&boxes)?.f_view([-1, 5])?;
        Ok(Self { pixels, boxes, captions })
    }

    /// The model's input: canvases `[K, 3, H, W]`, normalised, and boxes `[N, 5]`, both f32 on
    /// `device`.
    pub(super) fn upload(&self, device: Device) -> Result<(Tensor, Tensor)> {
        let channels = |values: &[f32; 3]| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(values)?.f_view([1, 3, 1, 1])?.f_to_device(device)?)
        };
        let pixels = self.pixels.f_to_device(device)?.f_to_kind(Kind::Float)?;
        // cuDNN's fast convolutions want channels last in memory, oneDNN's want them first.
        let pixels = if device.is_cuda() { pixels } else { pixels.f_contiguous()? };
        let pixels = pixels.f_div_scalar(255.0)?.f_sub(&channels(&PIXELS.mean)?)?;
        Ok((pixels.f_div(&channels(&PIXELS.std)?)?, self.boxes.f_to_device(device)?))
    }
}

/// The images of one step: `step` of a run counts from 0. The order is a new permutation each
/// time all images came.
pub(super) fn training(
    set: &CaptionSet,
    of: &[usize],
    config: &PretrainData,
    seed: u64,
    step: u64,
) -> Result<Canvases> {
    let size = config.batch_size as u64;
    let count = of.len() as u64;
    let (first, last) = (step * size, (step + 1) * size);
    let mut chosen = Vec::with_capacity(config.batch_size);
    for epoch in first / count..last.div_ceil(count) {
        let mut order = of.to_vec();
        Random::new(seed, Stream::Pretrain, epoch, ORDER).shuffle(&mut order);
        let within =
            |at: u64| (at.clamp(epoch * count, (epoch + 1) * count) - epoch * count) as usize;
        chosen.extend_from_slice(&order[within(first)..within(last)]);
    }
    let mut random = Random::new(seed, Stream::Pretrain, step, SIDE);
    let side = config.sides[random.below(config.sides.len())] as u32;
    let images = chosen.par_iter().enumerate().map(|(slot, &at)| {
        let random = Random::new(seed, Stream::Pretrain, step, slot as u64);
        image(set, at, side, Some((config, random)))
    });
    let images = images.collect::<Result<Vec<_>>>()?;
    Canvases::new(&images, captions_of(set, &chosen), side)
}

/// These images without augmentation, each as a square of `side` pixels.
pub(super) fn whole(set: &CaptionSet, of: &[usize], side: u32) -> Result<Canvases> {
    let images = of.par_iter().map(|&at| image(set, at, side, None)).collect::<Result<Vec<_>>>()?;
    Canvases::new(&images, captions_of(set, of), side)
}

fn captions_of(set: &CaptionSet, of: &[usize]) -> Vec<usize> {
    of.iter().map(|&at| set.images()[at].caption).collect()
}

/// An image's region, or a random part of it, as a square.
fn image(
    set: &CaptionSet,
    at: usize,
    side: u32,
    augment: Option<(&PretrainData, Random)>,
) -> Result<RgbImage> {
    let captioned = &set.images()[at];
    let image = set.store().image(&captioned.image)?;
    let (width, height) = image.dimensions();
    let [mut x0, mut y0, mut x1, mut y1] = match captioned.region {
        None => [0.0, 0.0, width as f32, height as f32],
        Some(region) => {
            let clipped = region.clipped(width, height);
            if clipped.is_degenerate() {
                let problem = format!(
                    "expected a box inside the image, {width} x {height} pixels, got {:?}",
                    region.to_xywh().0
                );
                let place = set.store().display_path(&captioned.image);
                return Err(Error::invalid(&place, "bbox", problem));
            }
            clipped.0
        }
    };
    let mut mirrored = false;
    if let Some((config, mut random)) = augment {
        Xyxy([x0, y0, x1, y1]) = part(Xyxy([x0, y0, x1, y1]), config.least_area, &mut random);
        mirrored = random.chance(config.flip);
    }
    let (left, top) = ((x0.floor() as u32).min(width - 1), (y0.floor() as u32).min(height - 1));
    let (right, bottom) = (x1.ceil() as u32, y1.ceil() as u32);
    let (w, h) = ((right.min(width) - left).max(1), (bottom.min(height) - top).max(1));
    let cut = imageops::crop_imm(&image, left, top, w, h).to_image();
    let mut square = resize(&cut, side, side);
    if mirrored {
        imageops::flip_horizontal_in_place(&mut square);
    }
    Ok(square)
}

/// A part of a box, of `least_area` of its area or more, 3/4 to 4/3 of its proportions
/// (torchvision's `RandomResizedCrop`, its tries for a part that fits replaced by a limit).
fn part(of: Xyxy, least_area: f64, random: &mut Random) -> Xyxy {
    let Xyxy([x0, y0, x1, y1]) = of;
    let area = random.range(least_area, 1.0);
    let most = (4.0f64 / 3.0).ln();
    let aspect = if least_area < 1.0 { random.range(-most, most).exp() } else { 1.0 };
    let share = |s: f64| s.sqrt().min(1.0) as f32;
    let (w, h) = ((x1 - x0) * share(area * aspect), (y1 - y0) * share(area / aspect));
    let x = x0 + (x1 - x0 - w) * random.uniform() as f32;
    let y = y0 + (y1 - y0 - h) * random.uniform() as f32;
    Xyxy([x, y, x + w, y + h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_within_and_is_large_enough() {
        let of = Xyxy([10.0, 20.0, 110.0, 70.0]);
        for item in 0..500 {
            let mut random = Random::new(0, Stream::Test, 0, item);
            let Xyxy([x0, y0, x1, y1]) = part(of, 0.5, &mut random);
            assert!(x0 >= 10.0 && y0 >= 20.0 && x1 <= 110.01 && y1 <= 70.01);
            // Half the area at 4/3 of the proportions still fits, so nothing of that is cut.
            assert!((x1 - x0) * (y1 - y0) >= 0.499 * 5000.0, "{:?}", [x0, y0, x1, y1]);
        }
        let mut random = Random::new(0, Stream::Test, 0, 0);
        let Xyxy(whole) = part(of, 1.0, &mut random);
        assert!(whole.iter().zip(of.0).all(|(a, b)| (a - b).abs() < 1e-3), "{whole:?}");
    }
}
