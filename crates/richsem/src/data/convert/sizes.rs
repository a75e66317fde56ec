//! Sizes that the annotations lack: read from the images, or why that cannot be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
};

use rayon::prelude::*;

use super::{Conversion, ConversionReport, NotCarried, Part, images::Placing};
use crate::{
    data::{dataset::Dataset, image_io::Frame, image_store::ImageStore, records::Unit},
    error::{Error, Result, first_few, unless_stopped},
    plural::counted,
};

/// Images whose size is not known in the end: for each part why, by their names.
pub(super) struct Unknown(Vec<BTreeMap<String, String>>);

/// What reading gave.
pub(super) struct Completed {
    /// Images of which neither the annotations nor the images say the size.
    pub(super) unknown: Unknown,
    /// Images with an EXIF orientation whose size was read, and whose boxes do not show their frame either.
    pub(super) guessed: BTreeSet<String>,
}

/// Reads sizes that the annotations do not have from the images.
///
/// # Errors
/// [`Error::Stopped`] once `stop` is set.
pub(super) fn complete(
    sets: &mut [Part],
    placing: &Placing,
    how: &Conversion,
    report: &mut ConversionReport,
    stop: &AtomicBool,
) -> Result<Completed> {
    let (mut sizes, mut guessed, mut all) = (0, BTreeSet::new(), Vec::with_capacity(sets.len()));
    for (part, (_, set)) in sets.iter_mut().enumerate() {
        let (store, mut unknown) = (placing.store(part), BTreeMap::new());
        let lacking: Vec<usize> =
            (0..set.images().len()).filter(|&at| set.images()[at].size.is_none()).collect();
        let frame = |&at: &usize| {
            unless_stopped(stop)?;
            Ok(frame(store, &set.images()[at].file_name))
        };
        let frames: Vec<_> = lacking.par_iter().map(frame).collect::<Result<_>>()?;
        for (at, frame) in lacking.into_iter().zip(frames) {
            let name = set.images()[at].file_name.clone();
            match frame {
                Ok(frame) => {
                    let boxes = set.annotations_of(at).iter().map(|a| a.bbox);
                    let none = boxes.len() == 0;
                    let (size, shown) = frame.size_of_boxes(how.opening.orientation, boxes);
                    if frame.is_turned() && !shown && !none {
                        guessed.insert(name);
                    }
                    set.images_mut()[at].size = Some(size);
                    sizes += 1;
                }
                Err(why) => {
                    unknown.insert(name, why);
                }
            }
        }
        all.push(unknown);
    }
    if sizes > 0 {
        report.notes.push(format!(
            "read from the images, because the annotations lack it: {}",
            counted(sizes, "size")
        ));
    }
    Ok(Completed { unknown: Unknown(all), guessed })
}

/// What the header of an image says, or why it says nothing, in words.
fn frame(store: Option<&ImageStore>, name: &str) -> std::result::Result<Frame, String> {
    let store = store.ok_or("where the images are is not known")?;
    if !store.contains(name) {
        return Err(format!("there is no file {}", store.display_path(name).display()));
    }
    store.frame(name).map_err(|error| {
        let text = error.to_string();
        format!("its file cannot be read: {}", text.lines().next().unwrap_or_default())
    })
}

impl Unknown {
    /// Refuses boxes in pixels that must become shares of an image whose size is not known.
    pub(super) fn refuse(&self, sets: &[Part]) -> Result<()> {
        for ((_, set), unknown) in sets.iter().zip(&self.0) {
            let lacks = |at: &usize| {
                let name = &set.images()[*at].file_name;
                unknown.contains_key(name) && !set.annotations_of(*at).is_empty()
            };
            if set.unit() == Unit::Pixels
                && let Some(first) = (0..set.images().len()).find(lacks)
            {
                return Err(refused(
                    set,
                    first,
                    unknown,
                    (0..set.images().len()).filter(lacks).count(),
                ));
            }
        }
        Ok(())
    }

    /// Counts and names those that a JSON is written of.
    pub(super) fn tell(&self, sets: &[Part], lost: &mut NotCarried) {
        for ((part, _), unknown) in sets.iter().zip(&self.0) {
            let named = unknown.iter().map(|(name, why)| format!("{name}: {why}"));
            let named = first_few(named.collect::<Vec<_>>().into_iter());
            let instead =
                format!("written without width and height, which other tools need ({named})");
            lost.add(part, "images of unknown size", unknown.len(), instead);
        }
    }
}

/// Of `count` images of unknown size, the first.
fn refused(set: &Dataset, first: usize, unknown: &BTreeMap<String, String>, count: usize) -> Error {
    let image = &set.images()[first];
    let more =
        if count > 1 { format!("; so it is with {} more", count - 1) } else { String::new() };
    let problem = format!(
        "the size of image {} (`{}`) is not known, and its boxes become shares of it: the annotations do not \
         say it, and {}{more}",
        image.id, image.file_name, unknown[&image.file_name]
    );
    Error::invalid(set.path(), "images", problem).with_hint(
        "put a whole image there, write width and height of each image into the annotations, or take the image \
         out of them",
    )
}
