//! How large objects are once images are resized for training, and how many an image has.

use serde::Serialize;

use crate::{
    data::{
        dataset::Dataset,
        transforms::{EvalTransformConfig, TransformConfig, size_after_resize},
    },
    vocabulary::Frequency,
};

/// An object is hard to see below this side (root of its area), in pixels: two cells of a detector's finest
/// map, of stride 8.
pub const SMALL_SIDE: f64 = 16.0;

/// Share of boxes that a resize may make small before a larger one is proposed.
const MOST_LOST: f64 = 0.05;

/// Longest shorter side that is proposed. Memory and time grow with its square.
const LARGEST: u32 = 1536;

/// Sides of objects that are counted, in pixels, from the smallest.
const SIDES: [f64; 4] = [SMALL_SIDE, 32.0, 96.0, f64::INFINITY];

/// Sizes to which training and evaluation resize images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scale {
    /// The shorter side, in pixels.
    pub size: u32,
    /// Most pixels of the longer side.
    pub max_size: u32,
    /// The smallest shorter side of training.
    pub smallest: u32,
}

impl Scale {
    /// The sizes of these settings; that of evaluation is the one objects are measured at.
    #[must_use]
    pub fn of(augment: &TransformConfig, resize: &EvalTransformConfig) -> Self {
        Self {
            size: resize.size,
            max_size: resize.max_size,
            smallest: augment.scales.iter().copied().min().unwrap_or(resize.size),
        }
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self::of(&TransformConfig::default(), &EvalTransformConfig::default())
    }
}

/// Sizes of the objects of one part. Crowds and empty boxes are left out, and images of unknown size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sizes {
    /// Sizes that images are resized to.
    pub scale: Scale,
    /// Boxes that were measured.
    pub boxes: usize,
    /// Boxes left out because their image's size is not known.
    pub unknown: usize,
    /// Boxes by their side (root of the area) at that scale: below 16, 32 and 96 pixels, and larger.
    pub by_side: [usize; 4],
    /// The same for the boxes of rare, common and frequent classes.
    pub by_group: [[usize; 4]; 3],
    /// Boxes below 16 pixels at the smallest size of training.
    pub small_at_smallest: usize,
    /// Boxes of at least 16 pixels in the file that the resize makes smaller than that.
    pub lost: usize,
    /// The median shorter side of the images, in pixels; 0 without images.
    pub median_side: u32,
    /// The smallest size in steps of 32 that makes fewer than 5 % of the boxes so small; none where the
    /// present one does, or no size that images have.
    pub needed: Option<u32>,
}

/// How many boxes an image has: boxes that are trained on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Density {
    /// Images.
    pub images: usize,
    /// Boxes an image on average.
    pub mean: f64,
    /// The 99th percentile.
    pub p99: usize,
    /// The most.
    pub most: usize,
    /// Name of the image that has them.
    pub fullest: String,
    /// Most objects that the detector can give in an image.
    pub queries: usize,
    /// Images with more boxes than that.
    pub beyond: usize,
}

/// A box: its side in pixels of the file, its image, and the group of its class.
struct Object {
    side: f64,
    image: u32,
    group: usize,
}

/// The boxes to measure, cut off at their images, and how many are of images of unknown size.
fn objects(dataset: &Dataset, groups: &[Frequency]) -> (Vec<Object>, usize) {
    let (mut objects, mut unknown) = (Vec::new(), 0);
    for annotation in dataset.annotations().iter().filter(|a| !a.crowd) {
        let Some([height, width]) = dataset.images()[annotation.image as usize].size else {
            unknown += 1;
            continue;
        };
        let clipped = annotation.bbox.to_xyxy().clipped(width, height);
        if !clipped.is_degenerate() {
            let [_, _, w, h] = clipped.to_xywh().0;
            let group = groups.get(annotation.class.0 as usize).map_or(0, |group| *group as usize);
            objects.push(Object { side: (w * h).sqrt(), image: annotation.image, group });
        }
    }
    (objects, unknown)
}

/// By how much each image is resized; 1 for one of unknown size.
fn factors(dataset: &Dataset, size: u32, max_size: u32) -> Vec<f64> {
    let factor = |size_of: Option<[u32; 2]>| match size_of {
        Some([height, width]) if height > 0 && width > 0 => {
            let (w, h) = size_after_resize(width, height, size, max_size);
            f64::from(w.min(h)) / f64::from(width.min(height))
        }
        _ => 1.0,
    };
    dataset.images().iter().map(|image| factor(image.size)).collect()
}

/// Objects that these factors make small, and that are not in the file.
fn lost(objects: &[Object], factors: &[f64]) -> usize {
    let is_small = |o: &&Object| o.side * factors[o.image as usize] < SMALL_SIDE;
    objects.iter().filter(|o| o.side >= SMALL_SIDE).filter(is_small).count()
}

/// Measures the objects of a part. `groups` are the classes' groups, by class index.
pub(super) fn sizes(dataset: &Dataset, groups: &[Frequency], scale: &Scale) -> Sizes {
    let (objects, unknown) = objects(dataset, groups);
    let at = factors(dataset, scale.size, scale.max_size);
    let (mut by_side, mut by_group) = ([0; 4], [[0; 4]; 3]);
    for object in &objects {
        let side = object.side * at[object.image as usize];
        let place = SIDES.iter().position(|&limit| side < limit).unwrap_or(SIDES.len() - 1);
        by_side[place] += 1;
        by_group[object.group][place] += 1;
    }
    let mut shorter: Vec<u32> =
        dataset.images().iter().filter_map(|i| i.size).map(|[h, w]| h.min(w)).collect();
    shorter.sort_unstable();
    let smallest = factors(dataset, scale.smallest, scale.max_size);
    let small = |o: &&Object| o.side * smallest[o.image as usize] < SMALL_SIDE;
    let lost_now = lost(&objects, &at);
    let allowed = MOST_LOST * objects.len() as f64;
    let needed = (lost_now as f64 > allowed).then(|| {
        let ratio = f64::from(scale.max_size) / f64::from(scale.size);
        let longest = shorter.last().copied().unwrap_or(0).min(LARGEST).next_multiple_of(32);
        (scale.size + 1..=longest).filter(|size| size % 32 == 0).find(|&size| {
            let max_size = (f64::from(size) * ratio).ceil() as u32;
            lost(&objects, &factors(dataset, size, max_size)) as f64 <= allowed
        })
    });
    Sizes {
        scale: scale.clone(),
        boxes: objects.len(),
        unknown,
        by_side,
        by_group,
        small_at_smallest: objects.iter().filter(small).count(),
        lost: lost_now,
        median_side: shorter.get(shorter.len() / 2).copied().unwrap_or(0),
        needed: needed.flatten(),
    }
}

/// Counts the boxes of each image.
pub(super) fn density(dataset: &Dataset, queries: usize) -> Density {
    let count = |i: usize| dataset.annotations_of(i).iter().filter(|a| !a.crowd).count();
    let counts: Vec<usize> = (0..dataset.images().len()).map(count).collect();
    let fullest = (0..counts.len()).rev().max_by_key(|&i| counts[i]);
    let mut sorted = counts.clone();
    sorted.sort_unstable();
    Density {
        images: counts.len(),
        mean: counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64,
        p99: sorted.get(99 * counts.len() / 100).copied().unwrap_or(0),
        most: sorted.last().copied().unwrap_or(0),
        fullest: fullest.map(|i| dataset.images()[i].file_name.clone()).unwrap_or_default(),
        queries,
        beyond: counts.iter().filter(|&&count| count > queries).count(),
    }
}
