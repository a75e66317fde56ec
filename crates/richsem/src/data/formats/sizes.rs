//! Sizes that only the images know, and boxes that are shares of these.

use std::path::Path;

use super::Opening;
use crate::{
    argument::Argument,
    boxes::Xywh,
    data::{
        image_io::Orientation,
        reading::{FILES, Reading, Watch, open_store},
        records::{Records, Unit},
    },
    error::{Error, Result},
    plural::counted,
};

/// Most images that a note names.
const NAMED: usize = 3;

/// Has the boxes in pixels, if they must be. Images whose files are missing are left out and counted: of
/// large sets many have a part only.
pub(super) fn complete(
    path: &Path,
    records: &mut Records,
    opening: &Opening,
    watch: Watch<'_>,
) -> Result<()> {
    if records.unit == Unit::Pixels || !opening.pixels {
        return Ok(());
    }
    let place = opening.images.as_deref().or(records.images_at.as_deref());
    let Some(place) = place else {
        let problem = "boxes are shares of their images, and the images are not known";
        return Err(Error::invalid(path, "images", problem)
            .with_hint(format!("say where the images are: {}", Argument::Images)));
    };
    let store = open_store(place, opening.orientation, watch)?;
    let unknown: Vec<usize> =
        (0..records.images.len()).filter(|&i| records.images[i].size.is_none()).collect();
    let names: Vec<&str> = unknown.iter().map(|&i| records.images[i].file_name.as_str()).collect();
    let mut sizes = Vec::with_capacity(names.len());
    for some in names.chunks(FILES) {
        sizes.extend(store.sizes(some));
        watch(Reading::Sizes { done: sizes.len(), of: names.len() })?;
    }
    if !sizes.is_empty()
        && sizes.iter().all(Option::is_none)
        && let Some(problem) = store.holds_none_of(names.into_iter())
    {
        return Err(Error::invalid(path, "images", problem)
            .with_hint(format!("say where the images are: {}", Argument::Images)));
    }
    let (mut missing, mut broken) = (Vec::new(), Vec::new());
    for (at, size) in unknown.into_iter().zip(sizes) {
        let image = &mut records.images[at];
        match size {
            Some(Ok(size)) => image.size = Some(size),
            Some(Err(error)) => broken.push(error),
            None => missing.push(image.file_name.clone()),
        }
    }
    note_missing(records, &missing);
    let kept: Vec<bool> = records.images.iter().map(|image| image.size.is_some()).collect();
    if !broken.is_empty() && !kept.contains(&true) {
        return Err(broken.swap_remove(0));
    }
    if opening.orientation == Orientation::Stored {
        records.warnings.push(format!(
            "boxes are shares of the images as viewers show them, and the images are read as stored: those \
             with an EXIF orientation have wrong boxes. Set {} to exif",
            Argument::Orientation
        ));
    }
    if let Some(first) = broken.first() {
        records.warnings.push(format!(
            "{} cannot be read, so that the places of the boxes are not known: left out. The first: {first}",
            counted(broken.len(), "image")
        ));
    }
    retain_images(records, &kept);
    to_pixels(records);
    Ok(())
}

/// Notes images without a file.
fn note_missing(records: &mut Records, missing: &[String]) {
    if !missing.is_empty() {
        let more = if missing.len() > NAMED { ", …" } else { "" };
        let named = &missing[..missing.len().min(NAMED)];
        let note = format!(
            "images without a file, left out: {} ({}{more})",
            missing.len(),
            named.join(", ")
        );
        records.warnings.push(note);
    }
}

/// Makes pixels of boxes that are shares. All images have a size.
fn to_pixels(records: &mut Records) {
    for annotation in &mut records.annotations {
        let Some([height, width]) = records.images[annotation.image as usize].size else {
            continue;
        };
        let [x, y, w, h] = annotation.bbox.0;
        let (width, height) = (f64::from(width), f64::from(height));
        annotation.bbox = Xywh([x * width, y * height, w * width, h * height]);
        annotation.area *= width * height;
    }
    records.unit = Unit::Pixels;
    records.from_shares = true;
}

/// Keeps some of the images, and their annotations.
pub(super) fn retain_images(records: &mut Records, kept: &[bool]) {
    if kept.iter().all(|&keep| keep) {
        return;
    }
    let mut place = Vec::with_capacity(kept.len());
    let mut next = 0;
    for &keep in kept {
        place.push(keep.then_some(next));
        next += u32::from(keep);
    }
    let mut all = kept.iter();
    records.images.retain(|_| all.next().copied().unwrap_or(false));
    if let Some(ids) = &mut records.image_ids {
        ids.retain(kept);
    }
    records.annotations.retain_mut(|annotation| match place[annotation.image as usize] {
        Some(at) => {
            annotation.image = at;
            true
        }
        None => false,
    });
}
