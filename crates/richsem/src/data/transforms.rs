//! Augmentation of one image and its boxes: DETR's recipe (arXiv 2005.12872, section A.4), which
//! DINO and RichSem train with.
//!
//! Flip; then either resize to a random scale, or (with a given probability) resize to a middle
//! scale, crop a random part, and resize that to a random scale. Evaluation only resizes.

use std::cell::RefCell;

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};
use image::RgbImage;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    boxes::Xyxy,
    geometry::Geometry,
    random::Random,
    targets::{LabelKnowledge, Target, View},
    vocabulary::ClassIndex,
};

/// One image on its way into a batch. `boxes` and `labels` are parallel, length T.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The pixels, as transformed so far.
    pub image: RgbImage,
    /// `[T]` boxes in pixels of `image`.
    pub boxes: Vec<Xyxy>,
    /// `[T]` class of each box.
    pub labels: Vec<ClassIndex>,
    /// What is known of the other classes.
    pub knowledge: LabelKnowledge,
    /// Id of the image in its annotation file.
    pub image_id: i64,
    /// `[height, width]` of the file.
    pub original_size: [u32; 2],
    /// The view of the image that this is so far. None after a crop.
    pub view: Option<View>,
    /// Where points of the file lie in `image`. None on a mosaic.
    pub geometry: Option<Geometry>,
}

impl Sample {
    /// An image without boxes and labels.
    #[must_use]
    pub fn new(image: RgbImage) -> Self {
        Self {
            original_size: [image.height(), image.width()],
            image,
            boxes: Vec::new(),
            labels: Vec::new(),
            knowledge: LabelKnowledge::default(),
            image_id: 0,
            view: None,
            geometry: Some(Geometry::IDENTITY),
        }
    }
}

/// Random changes of training images and their boxes. The defaults are the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformConfig {
    /// Probability that an image is mirrored, left for right. Default: 0.5; 0 to 1.
    pub flip: f64,
    /// Lengths of the shorter side, in pixels. Each image gets one of them at random. Default: 480,
    /// 512, … 800; each from 1 to 16,384. Reference: `data_aug_scales`.
    pub scales: Vec<u32>,
    /// Most pixels of the longer side. The image becomes smaller where it would be longer. Default:
    /// 1333; at least the largest of `scales`, at most 16,384. Reference: `data_aug_max_size`.
    pub max_size: u32,
    /// Random crops. `{ probability = 0 }` switches them off.
    pub crop: CropConfig,
}

impl Default for TransformConfig {
    fn default() -> Self {
        Self {
            flip: 0.5,
            scales: (480..=800).step_by(32).collect(),
            max_size: 1333,
            crop: CropConfig::default(),
        }
    }
}

/// Random crops: with a given probability an image is resized, cropped, and resized again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CropConfig {
    /// Probability that an image is cropped. Default: 0.5; 0 to 1. 0 means never.
    pub probability: f64,
    /// Lengths of the shorter side before the crop, in pixels. Each image gets one of them at
    /// random. Default: 400, 500, 600; each from 1 to 16,384. Reference: `data_aug_scales2_resize`.
    pub resize: Vec<u32>,
    /// Smallest width and height of a crop, in pixels. Default: 384; at most `max` and the smallest
    /// of `resize`. Reference: the first number of `data_aug_scales2_crop`.
    pub min: u32,
    /// Largest width and height of a crop, in pixels. Default: 600; at most 16,384. Reference: the
    /// second number of `data_aug_scales2_crop`.
    pub max: u32,
}

impl Default for CropConfig {
    fn default() -> Self {
        Self { probability: 0.5, resize: vec![400, 500, 600], min: 384, max: 600 }
    }
}

/// Size of images in evaluation and prediction. Nothing is random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvalTransformConfig {
    /// Length of the shorter side, in pixels. Default: 800; 1 to 16,384. The reference takes the
    /// largest of `data_aug_scales`.
    pub size: u32,
    /// Most pixels of the longer side. The image becomes smaller where it would be longer. Default:
    /// 1333; at least `size`, at most 16,384. Reference: `data_aug_max_size`.
    pub max_size: u32,
}

impl Default for EvalTransformConfig {
    fn default() -> Self {
        Self { size: 800, max_size: 1333 }
    }
}

/// Longer sides, in pixels, are a typing mistake.
const LONGEST_SIDE: u32 = 16_384;

fn check(holds: bool, key: &str, field: &str, problem: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::config(format!("{key}.{field}"), problem())) }
}

fn check_probability(p: f64, key: &str, field: &str) -> Result<()> {
    check((0.0..=1.0).contains(&p), key, field, || format!("expected 0 to 1, got {p}"))
}

fn check_sides(sides: &[u32], key: &str, field: &str) -> Result<()> {
    check(!sides.is_empty(), key, field, || "expected at least one length, got none".into())?;
    let wrong = sides.iter().find(|s| !(1..=LONGEST_SIDE).contains(*s));
    check(wrong.is_none(), key, field, || {
        format!("expected pixels from 1 to {LONGEST_SIDE}, got {}", wrong.copied().unwrap_or(0))
    })
}

fn check_max_size(max_size: u32, sides: &[u32], key: &str, field: &str) -> Result<()> {
    check_sides(&[max_size], key, "max_size")?;
    let largest = sides.iter().copied().max().unwrap_or(0);
    check(max_size >= largest, key, "max_size", || {
        format!("expected at least {largest}, the largest of {key}.{field}, got {max_size}")
    })
}

impl TransformConfig {
    /// Checks every field, alone and against the others. `key` is this section's dotted name.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key, the rule and the value.
    pub fn validate(&self, key: &str) -> Result<()> {
        check_probability(self.flip, key, "flip")?;
        check_sides(&self.scales, key, "scales")?;
        check_max_size(self.max_size, &self.scales, key, "scales")?;
        let crop = &self.crop;
        check_probability(crop.probability, key, "crop.probability")?;
        check_sides(&crop.resize, key, "crop.resize")?;
        check_sides(&[crop.min, crop.max], key, "crop.min and crop.max")?;
        check(crop.min <= crop.max, key, "crop.min", || {
            format!("expected at most {}, which is {key}.crop.max, got {}", crop.max, crop.min)
        })?;
        let smallest = crop.resize.iter().copied().min().unwrap_or(0);
        check(crop.min <= smallest, key, "crop.min", || {
            format!(
                "expected at most {smallest}, the smallest of {key}.crop.resize, got {}",
                crop.min
            )
        })
    }

    /// Every (shorter side, mirrored) that [`Self::apply`] can give an image, each once, ascending.
    /// With crops there are others besides.
    #[must_use]
    pub fn views(&self) -> Vec<(u32, bool)> {
        let mut scales = self.scales.clone();
        scales.sort_unstable();
        scales.dedup();
        let flips = [(false, self.flip < 1.0), (true, self.flip > 0.0)];
        let flips = flips.into_iter().filter(|&(_, can_be)| can_be);
        scales.iter().flat_map(|&s| flips.clone().map(move |(flip, _)| (s, flip))).collect()
    }

    /// One of [`Self::views`]: the same pixels and boxes as [`Self::apply`] gives when it draws it.
    pub fn apply_view(&self, sample: &mut Sample, scale: u32, mirrored: bool) {
        if mirrored {
            flip(sample);
        }
        resize_shorter_side(sample, scale, self.max_size);
    }

    /// Transforms one sample; every draw comes from `random`.
    pub fn apply(&self, sample: &mut Sample, random: &mut Random) {
        let drawn = self.draw(sample.image.dimensions(), random);
        if drawn.flip {
            flip(sample);
        }
        if let Some(Crop { shorter, left, top, width, height }) = drawn.crop {
            if let Some(shorter) = shorter {
                resize_shorter_side(sample, shorter, self.before_crop());
            }
            crop(sample, left, top, width, height);
        }
        if let Some(shorter) = drawn.shorter {
            resize_shorter_side(sample, shorter, self.max_size);
        }
    }

    /// `(width, height)` that [`Self::apply`] gives an image of that `(width, height)`.
    pub(crate) fn size(&self, size: (u32, u32), random: &mut Random) -> (u32, u32) {
        let drawn = self.draw(size, random);
        let (width, height) = drawn.crop.map_or(size, |crop| (crop.width, crop.height));
        match drawn.shorter {
            Some(shorter) => size_after_resize(width, height, shorter, self.max_size),
            None => (width, height),
        }
    }

    /// What becomes of an image of that `(width, height)`.
    fn draw(&self, (width, height): (u32, u32), random: &mut Random) -> Drawn {
        let flip = random.chance(self.flip);
        let crop = random.chance(self.crop.probability).then(|| {
            let shorter = random.pick(&self.crop.resize).copied();
            let (width, height) = match shorter {
                Some(shorter) => size_after_resize(width, height, shorter, self.before_crop()),
                None => (width, height),
            };
            let mut side = |available: u32| {
                let high = available.min(self.crop.max);
                random.between(self.crop.min.min(high) as usize, high as usize) as u32
            };
            let (w, h) = (side(width), side(height));
            let left = random.between(0, (width - w) as usize) as u32;
            let top = random.between(0, (height - h) as usize) as u32;
            Crop { shorter, left, top, width: w, height: h }
        });
        Drawn { flip, crop, shorter: random.pick(&self.scales).copied() }
    }

    /// Longest a side may become before a crop. Deviation: the reference sets no bound here, so that an
    /// image of 1 x 10,000 would become 400 x 4,000,000. This one is out of reach for usual shapes.
    fn before_crop(&self) -> u32 {
        self.max_size.saturating_mul(4)
    }
}

/// The random numbers of one image.
struct Drawn {
    flip: bool,
    crop: Option<Crop>,
    /// Shorter side of the result, in pixels.
    shorter: Option<u32>,
}

/// The part to cut out, in pixels, after the shorter side was resized to `shorter`.
struct Crop {
    shorter: Option<u32>,
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl EvalTransformConfig {
    /// As [`TransformConfig::validate`].
    ///
    /// # Errors
    /// [`Error::Config`] naming the key, the rule and the value.
    pub fn validate(&self, key: &str) -> Result<()> {
        check_sides(&[self.size], key, "size")?;
        check_max_size(self.max_size, &[self.size], key, "size")
    }

    /// Resizes image and boxes of one sample.
    pub fn apply(&self, sample: &mut Sample) {
        resize_shorter_side(sample, self.size, self.max_size);
    }
}

/// Mirrors image and boxes, left for right.
pub fn flip(sample: &mut Sample) {
    if let Some(view) = &mut sample.view {
        view.flip = !view.flip;
    }
    let width = sample.image.width();
    sample.geometry = sample.geometry.map(|geometry| geometry.flipped(width));
    for row in sample.image.chunks_exact_mut(width as usize * 3) {
        row.as_chunks_mut::<3>().0.reverse();
    }
    let w = width as f32;
    for Xyxy([x0, _, x1, _]) in &mut sample.boxes {
        (*x0, *x1) = (w - *x1, w - *x0);
    }
}

/// Keeps the given part, which must lie inside the image. Boxes are clipped to it. A box with nothing
/// left is removed, with its label. A class without any box left is then absent from this part, unless
/// its boxes were not all annotated.
pub fn crop(sample: &mut Sample, left: u32, top: u32, width: u32, height: u32) {
    sample.view = None;
    sample.geometry = sample.geometry.map(|geometry| geometry.cropped(left, top));
    let stride = sample.image.width() as usize * 3;
    let row = width as usize * 3;
    let mut pixels = std::mem::take(&mut sample.image).into_raw();
    for y in 0..height as usize {
        let from = (top as usize + y) * stride + left as usize * 3;
        pixels.copy_within(from..from + row, y * row);
    }
    pixels.truncate(row * height as usize);
    sample.image = RgbImage::from_raw(width, height, pixels).expect("cut to width x height");

    let (x, y) = (left as f32, top as f32);
    for b in &mut sample.boxes {
        let [x0, y0, x1, y1] = b.0;
        *b = Xyxy([x0 - x, y0 - y, x1 - x, y1 - y]).clipped(width, height);
    }
    let knowledge = &mut sample.knowledge;
    for class in drop_degenerate(&mut sample.boxes, &mut sample.labels) {
        knowledge.present.retain(|&c| c != class);
        if !knowledge.not_exhaustive.contains(&class) && !knowledge.absent.contains(&class) {
            knowledge.absent.push(class);
        }
    }
}

/// Removes boxes without an inside, and their labels. Gives the classes that now have no box left,
/// each once.
fn drop_degenerate(boxes: &mut Vec<Xyxy>, labels: &mut Vec<ClassIndex>) -> Vec<ClassIndex> {
    if !boxes.iter().any(|b| b.is_degenerate()) {
        return Vec::new();
    }
    let all = std::iter::zip(std::mem::take(boxes), std::mem::take(labels));
    let mut gone = Vec::new();
    for (b, label) in all {
        if b.is_degenerate() {
            gone.push(label);
        } else {
            boxes.push(b);
            labels.push(label);
        }
    }
    gone.sort_unstable();
    gone.dedup();
    gone.retain(|class| !labels.contains(class));
    gone
}

/// Resizes so that the shorter side has `size` pixels, or fewer if the longer would exceed
/// `max_size`; boxes follow.
pub fn resize_shorter_side(sample: &mut Sample, size: u32, max_size: u32) {
    if let Some(view) = &mut sample.view {
        view.scale = size;
    }
    let (old_width, old_height) = sample.image.dimensions();
    let (width, height) = size_after_resize(old_width, old_height, size, max_size);
    if (width, height) == (old_width, old_height) {
        return;
    }
    sample.image = resize(&sample.image, width, height);
    let factors =
        [f64::from(width) / f64::from(old_width), f64::from(height) / f64::from(old_height)];
    sample.geometry = sample.geometry.map(|geometry| geometry.resized(factors));
    let [rx, ry] = factors.map(|factor| factor as f32);
    for Xyxy([x0, y0, x1, y1]) in &mut sample.boxes {
        (*x0, *y0, *x1, *y1) = (*x0 * rx, *y0 * ry, *x1 * rx, *y1 * ry);
    }
}

/// `(width, height)` for [`resize_shorter_side`], in the reference's arithmetic: the shorter side
/// is rounded half to even when `max_size` binds, the longer truncated (so it can pass `max_size`
/// by a few pixels when the shorter is rounded up). At least 1 each.
#[must_use]
pub fn size_after_resize(width: u32, height: u32, size: u32, max_size: u32) -> (u32, u32) {
    let shorter = f64::from(width.min(height));
    let longer = f64::from(width.max(height));
    let limit = f64::from(max_size);
    let mut short = f64::from(size);
    if longer / shorter * short > limit {
        short = (limit * shorter / longer).round_ties_even();
    }
    let (short, long) = if short < 1.0 {
        // Deviation: the reference would ask for zero pixels.
        (1, max_size.max(1))
    } else {
        (short as u32, (short * longer / shorter) as u32)
    };
    if width < height { (short, long) } else { (long, short) }
}

thread_local! {
    /// Keeps its buffers from one image to the next.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Antialiased bilinear (triangle filter, its support scaled with the reduction): Pillow's
/// `Image.resize(.., BILINEAR)`. Sizes are at least 1.
#[must_use]
pub fn resize(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    const SIZED: &str = "both buffers are made for their sizes";
    let source = TypedImageRef::<U8x3>::from_buffer(image.width(), image.height(), image.as_raw())
        .expect(SIZED);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let mut target = TypedImage::<U8x3>::from_buffer(width, height, &mut pixels).expect(SIZED);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    // Typed: of any type of pixel, it takes a minute more to compile.
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
        .expect("without a crop box");
    RgbImage::from_raw(width, height, pixels).expect(SIZED)
}

/// The pixels, and the target that belongs to them. Boxes are clipped to the image. Boxes without an
/// inside are annotation mistakes and are left out; their class is really there, so it counts as not
/// exhaustively annotated, not as absent.
#[must_use]
pub fn finish(sample: Sample) -> (RgbImage, Target) {
    let Sample {
        image,
        mut boxes,
        mut labels,
        mut knowledge,
        image_id,
        original_size,
        view,
        geometry,
    } = sample;
    let (width, height) = image.dimensions();
    for b in &mut boxes {
        *b = b.clipped(width, height);
    }
    for class in drop_degenerate(&mut boxes, &mut labels) {
        knowledge.present.retain(|&c| c != class);
        if !knowledge.not_exhaustive.contains(&class) {
            knowledge.not_exhaustive.push(class);
        }
    }
    let target = Target {
        image_id,
        boxes: boxes.into_iter().map(|b| b.to_cxcywh(width, height)).collect(),
        labels,
        knowledge,
        size: [height, width],
        original_size,
        view,
        geometry,
    };
    (image, target)
}

#[cfg(test)]
#[path = "transforms_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
