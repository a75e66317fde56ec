//! Images with a sentence that names what they show, as CLIP learns from. None of them is a
//! detection or a classification image.

use super::{
    SECOND_OBJECT, SynthConfig,
    classes::Class,
    save,
    scene::{self, Seen, Wanted},
    step,
};
use crate::{
    Error, Result,
    random::{Random, Stream},
};
use image::RgbImage;
use rayon::prelude::*;
use std::path::Path;

/// The file of the captions: a JSON object in each line.
pub(super) const FILE: &str = "captions.jsonl";
/// The folder of the captioned images.
pub(super) const FOLDER: &str = "captioned";

/// Draws the images and writes their captions. `tick` is called after each.
pub(super) fn draw(
    config: &SynthConfig,
    classes: &[Class],
    work: &Path,
    tick: &(dyn Fn() -> Result<()> + Sync),
) -> Result<()> {
    fs_err::create_dir_all(work.join(FOLDER))?;
    let one = |item: usize| {
        let random = Random::new(config.seed, Stream::Synth, step::CAPTIONED, item as u64);
        // In turn, so that every class is named, however rare it is in the training split.
        let (pixels, seen) = captioned_image(config, random, item % classes.len(), classes);
        let image = format!("{FOLDER}/{:06}.jpg", item + 1);
        save(&pixels, &work.join(&image))?;
        tick()?;
        let line = serde_json::json!({ "image": image, "caption": caption(&seen, classes) });
        Ok(format!("{line}\n"))
    };
    let lines = (0..config.captioned_images).into_par_iter().map(one);
    let lines = lines.collect::<Result<String>>()?;
    fs_err::write(work.join(FILE), lines).map_err(Error::from)
}

/// An object of the class, and at times a small one of another class.
fn captioned_image(
    config: &SynthConfig,
    mut random: Random,
    class: usize,
    classes: &[Class],
) -> (RgbImage, Vec<Seen>) {
    let side = config.classification_size as f32;
    let diameter = (0.5 * side, 0.95 * side);
    let mut wanted = vec![Wanted { class, diameter, spread: 0.5 }];
    if classes.len() > 1 && random.chance(SECOND_OBJECT) {
        let other = (class + 1 + random.below(classes.len() - 1)) % classes.len();
        let diameter = (0.22 * side, 0.32 * side);
        wanted.push(Wanted { class: other, diameter, spread: 1.0 });
    }
    let size = (config.classification_size, config.classification_size);
    scene::compose(&mut random, size, &wanted, classes)
}

/// Class names as the annotation files spell them, the largest object first.
fn caption(seen: &[Seen], classes: &[Class]) -> String {
    let mut seen: Vec<&Seen> = seen.iter().collect();
    seen.sort_by_key(|s| std::cmp::Reverse(s.area));
    let names: Vec<String> =
        seen.iter().map(|s| format!("a {}", classes[s.class].name())).collect();
    format!("a picture of {}.", names.join(" and "))
}
