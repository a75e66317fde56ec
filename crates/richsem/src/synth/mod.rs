//! A long-tailed detection set drawn by rule: textured, coloured shapes among clutter, annotated
//! as LVIS is, with a matching folder of classification images.
//!
//! It is what the demo trains on and what tests read: no download, no licence, every box exact.
//! Each image depends on its key (seed, split, index) alone, so that the same configuration
//! gives the same bytes whatever the number of threads. (Across platforms, the last bits of
//! `sin` and `ln` may differ, and a pixel with them.)
//!
//! Class occurrence follows a plan (`plan`), so that LVIS's rare, common and frequent groups are
//! all there in the training split while the validation split is balanced; images are composed
//! (`scene`) of shapes given as signed distances (`shapes`) and painted with analytic
//! anti-aliasing (`draw`).

mod captions;
mod classes;
mod config;
mod draw;
mod lvis;
mod plan;
mod readme;
mod scene;
mod shapes;
mod target;
#[cfg(test)]
mod tests;

use crate::{
    Error, Result,
    error::unless_stopped,
    random::{Random, Stream},
    vocabulary::{Frequency, Vocabulary},
};
use classes::Class;
pub use config::SynthConfig;
use image::{ExtendedColorType, RgbImage, codecs::jpeg::JpegEncoder};
use lvis::Drawn;
use rayon::prelude::*;
use scene::Wanted;
use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
use target::Target;

/// JPEG quality of every image.
const QUALITY: u8 = 92;
/// Least diameter of an object in pixels: all classes can still be told apart.
const LEAST_DIAMETER: f32 = 26.0;
/// Greatest diameter of an object, relative to the shorter side of its image.
const GREATEST_DIAMETER: f32 = 0.57;
/// Chance that a classification image shows a second, smaller object of another class.
const SECOND_OBJECT: f64 = 0.4;

/// The `step` of each kind of draw from [`Stream::Synth`].
mod step {
    pub(super) const VOCABULARY: u64 = 0;
    pub(super) const PLAN_TRAIN: u64 = 1;
    pub(super) const PLAN_VAL: u64 = 2;
    pub(super) const TRAIN: u64 = 3;
    pub(super) const VAL: u64 = 4;
    pub(super) const CLASSIFICATION: u64 = 5;
    pub(super) const CAPTIONED: u64 = 6;
}

/// How much was drawn, and of which classes.
#[derive(Debug, Clone, PartialEq)]
pub struct SynthReport {
    /// The classes with their ids and their counts in the training split.
    pub vocabulary: Vocabulary,
    /// Boxes of each class in the validation split, by class index.
    pub val_instances: Vec<u32>,
    /// Images of the training split.
    pub train_images: usize,
    /// Images of the validation split.
    pub val_images: usize,
    /// Classification images, of all classes together.
    pub classification_images: usize,
    /// Captioned images; 0 if none were asked for.
    pub captioned_images: usize,
}

impl SynthReport {
    /// Boxes in the training split.
    #[must_use]
    pub fn train_boxes(&self) -> usize {
        self.vocabulary.categories().iter().map(|c| c.instance_count as usize).sum()
    }

    /// Boxes in the validation split.
    #[must_use]
    pub fn val_boxes(&self) -> usize {
        self.val_instances.iter().map(|&n| n as usize).sum()
    }

    /// Number of classes of one frequency group.
    #[must_use]
    pub fn classes_of(&self, group: Frequency) -> usize {
        self.vocabulary.categories().iter().filter(|c| c.frequency == group).count()
    }
}

/// Draws the set into `output`:
///
/// ```text
/// output/train.json  val.json           LVIS v1; file names as "train/000001.jpg"
///        images/train/*.jpg  images/val/*.jpg
///        classification/<class>/*.jpg   unless `classification_per_class` is 0
///        captions.jsonl  captioned/*.jpg  unless `captioned_images` is 0
///        README.md                      what it is, counts, how it was made
/// ```
///
/// Everything is drawn beside `output` first and then renamed, so that `output` is never half a set.
/// An `output` that is not empty is refused, unless `overwrite` is set and it is an earlier set of this
/// function. `progress` is called with the images that are done and those in all, from any thread.
///
/// # Errors
/// [`Error::Stopped`] once `stop` is set: nothing is left of what was drawn.
/// [`Error::Config`] for a configuration that cannot be drawn ([`SynthConfig::validate`], and too
/// few places for objects to show each class once) and for an `output` that may not be replaced;
/// I/O errors with the path in them.
pub fn generate(
    config: &SynthConfig,
    output: &Path,
    overwrite: bool,
    stop: &AtomicBool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<SynthReport> {
    config.validate()?;
    let (classes, ranks) = classes::vocabulary(config.classes);
    let train_plan = plan_train(config, &ranks)?;
    let val_plan = plan_val(config)?;

    let target = Target::new(output, overwrite)?;
    let work = target.work();
    fs_err::create_dir_all(work.join("images/train"))?;
    fs_err::create_dir_all(work.join("images/val"))?;

    let classification = config.classes * config.classification_per_class;
    let total = config.train_images + config.val_images + classification + config.captioned_images;
    let done = AtomicUsize::new(0);
    let tick = || {
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        unless_stopped(stop)
    };
    let drawing = Drawing { config, classes: &classes, work: &work, tick: &tick };
    let train = drawing.split("train", step::TRAIN, &train_plan)?;
    let val = drawing.split("val", step::VAL, &val_plan)?;
    if classification > 0 {
        drawing.classification_images()?;
    }
    if config.captioned_images > 0 {
        captions::draw(config, &classes, &work, &tick)?;
    }

    let categories = lvis::categories(&classes, &train);
    let val_counts = lvis::counts(classes.len(), &val);
    let instances = |(_, instances): &(u32, u32)| *instances;
    let report = SynthReport {
        val_instances: val_counts.iter().map(instances).collect(),
        vocabulary: Vocabulary::new(categories),
        train_images: train.len(),
        val_images: val.len(),
        classification_images: classification,
        captioned_images: config.captioned_images,
    };
    check_all_shown(&report)?;
    let both = (&classes[..], report.vocabulary.categories());
    lvis::write(&work.join("train.json"), "train", 0, both, &train)?;
    lvis::write(&work.join("val.json"), "val", config.train_images, both, &val)?;
    fs_err::write(work.join(readme::FILE), readme::text(config, &report))?;
    target.publish()?;
    Ok(report)
}

/// Crowded images may have had no place for an object: no class may be lost that way.
fn check_all_shown(report: &SynthReport) -> Result<()> {
    let categories = report.vocabulary.categories();
    for (category, &in_val) in categories.iter().zip(&report.val_instances) {
        for (key, boxes) in [("train_images", category.instance_count), ("val_images", in_val)] {
            if boxes == 0 {
                let problem = format!("no image had a place left for class `{}`", category.name);
                return Err(Error::config(key, problem)
                    .with_hint("raise it, lower objects_per_image, or raise image_size"));
            }
        }
    }
    Ok(())
}

/// Draws images and saves them below `work`. `tick` is called after each.
struct Drawing<'a> {
    config: &'a SynthConfig,
    classes: &'a [Class],
    work: &'a Path,
    tick: &'a (dyn Fn() -> Result<()> + Sync),
}

impl Drawing<'_> {
    /// The detection images of a split, with the classes that the plan asks of each.
    fn split(&self, name: &str, step: u64, plan: &[Vec<usize>]) -> Result<Vec<Drawn>> {
        let draw = |(index, wanted): (usize, &Vec<usize>)| {
            let random = Random::new(self.config.seed, Stream::Synth, step, index as u64);
            let (image, drawn) = detection_image(self.config, random, wanted, self.classes);
            save(&image, &self.work.join("images").join(lvis::file_name(name, index)))?;
            (self.tick)()?;
            Ok(drawn)
        };
        plan.par_iter().enumerate().map(draw).collect()
    }

    /// The classification images of every class, a folder each.
    fn classification_images(&self) -> Result<()> {
        let Self { config, classes, work, tick } = *self;
        for class in classes {
            fs_err::create_dir_all(work.join("classification").join(class.name()))?;
        }
        let per_class = config.classification_per_class;
        (0..classes.len() * per_class).into_par_iter().try_for_each(|item| {
            let (class, index) = (item / per_class, item % per_class);
            // Keyed so that more images a class add to the earlier ones instead of changing them.
            let key = ((class as u64) << 32) | index as u64;
            let random = Random::new(config.seed, Stream::Synth, step::CLASSIFICATION, key);
            let image = classification_image(config, random, class, classes);
            let folder = work.join("classification").join(classes[class].name());
            save(&image, &folder.join(format!("{:06}.jpg", index + 1)))?;
            tick()
        })
    }
}

/// Number of objects asked of each image of a split.
fn places(
    config: &SynthConfig,
    random: &mut Random,
    key: &str,
    images: usize,
) -> Result<Vec<usize>> {
    let (fewest, most) = config.objects_per_image;
    let places: Vec<usize> = (0..images).map(|_| random.between(fewest, most)).collect();
    let total: usize = places.iter().sum();
    if total < config.classes {
        let classes = config.classes;
        let problem = format!(
            "{images} images of {fewest} to {most} objects hold {total} objects here, \
             fewer than the {classes} classes"
        );
        return Err(Error::config(key, problem)
            .with_hint("raise it or objects_per_image, or lower classes"));
    }
    Ok(places)
}

/// By training image, the positions of the classes asked of it, rarest first.
fn plan_train(config: &SynthConfig, ranks: &[usize]) -> Result<Vec<Vec<usize>>> {
    let mut random = Random::new(config.seed, Stream::Synth, step::PLAN_TRAIN, 0);
    let places = places(config, &mut random, "train_images", config.train_images)?;
    let targets = plan::long_tail(config.classes, config.train_images);
    // Only the most frequent third gains further images: the others stay in their groups.
    let mut fill = targets.clone();
    fill[config.classes.div_ceil(3)..].fill(0);
    let mut plan = plan::assign(&mut random, &places, &targets, &fill);
    let mut by_rank = vec![0; config.classes];
    for (position, &rank) in ranks.iter().enumerate() {
        by_rank[rank] = position;
    }
    plan.iter_mut().flatten().for_each(|class| *class = by_rank[*class]);
    Ok(plan)
}

/// By validation image, the positions of the classes asked of it: as even as can be.
fn plan_val(config: &SynthConfig) -> Result<Vec<Vec<usize>>> {
    let mut random = Random::new(config.seed, Stream::Synth, step::PLAN_VAL, 0);
    let places = places(config, &mut random, "val_images", config.val_images)?;
    // A tenth is left to chance, so that the last class still finds images without it.
    let even = places.iter().sum::<usize>() * 9 / 10 / config.classes;
    let targets = vec![even.clamp(1, config.val_images); config.classes];
    Ok(plan::assign(&mut random, &places, &targets, &vec![1; config.classes]))
}

fn detection_image(
    config: &SynthConfig,
    mut random: Random,
    wanted: &[usize],
    classes: &[Class],
) -> (RgbImage, Drawn) {
    let (small, large) = config.image_size;
    let mut side = || random.between(small as usize, large as usize) as u32;
    let size = (side(), side());
    let greatest = size.0.min(size.1) as f32 * GREATEST_DIAMETER;
    let wanted: Vec<Wanted> = wanted
        .iter()
        .map(|&class| Wanted { class, diameter: (LEAST_DIAMETER, greatest), spread: 1.0 })
        .collect();
    let (image, seen) = scene::compose(&mut random, size, &wanted, classes);
    (image, Drawn { size, seen })
}

/// One object of the class near the middle, and at times a small one of another class.
fn classification_image(
    config: &SynthConfig,
    mut random: Random,
    class: usize,
    classes: &[Class],
) -> RgbImage {
    let side = config.classification_size as f32;
    let diameter = (0.7 * side, 0.95 * side);
    let mut wanted = vec![Wanted { class, diameter, spread: 0.2 }];
    if classes.len() > 1 && random.chance(SECOND_OBJECT) {
        let other = (class + 1 + random.below(classes.len() - 1)) % classes.len();
        let diameter = (0.22 * side, 0.32 * side);
        wanted.push(Wanted { class: other, diameter, spread: 1.0 });
    }
    let size = (config.classification_size, config.classification_size);
    scene::compose(&mut random, size, &wanted, classes).0
}

fn save(image: &RgbImage, path: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, QUALITY)
        .encode(image, image.width(), image.height(), ExtendedColorType::Rgb8)
        .map_err(|e| Error::other(format!("{}: could not encode: {e}", path.display())))?;
    Ok(fs_err::write(path, bytes)?)
}
