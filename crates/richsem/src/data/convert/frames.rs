//! The frame that boxes are in: that of the pixels as stored, or that after the EXIF orientation.
//!
//! COCO and LVIS say the size of the frame, and their numbers stay. YOLO's boxes are shares of what viewers show:
//! boxes on the pixels as stored are turned with their image.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{Conversion, ConversionReport, Part, PutImages, Target, images::Placing};
use crate::{
    argument::Argument,
    data::{
        dataset::Dataset,
        image_io::{Frame, Orientation},
        image_store::ImageStore,
        records::Unit,
    },
    error::{Error, Result, first_few},
    plural::counted,
};

/// Reads sizes that the annotations do not have from the images. Gives those with an EXIF orientation.
pub(super) fn complete_sizes(
    sets: &mut [Part],
    placing: &Placing,
    how: &Conversion,
    report: &mut ConversionReport,
) -> BTreeSet<String> {
    let (mut sizes, mut turned) = (0, BTreeSet::new());
    for (part, (_, set)) in sets.iter_mut().enumerate() {
        let Some(store) = placing.store(part) else { continue };
        let unknown: Vec<_> =
            set.images_mut().iter_mut().filter(|image| image.size.is_none()).collect();
        let read: Vec<_> = unknown
            .into_par_iter()
            .filter_map(|image| {
                // One that cannot be read keeps an unknown size, which is counted.
                let frame = store.contains(&image.file_name).then(|| store.frame(&image.file_name));
                let frame = frame?.ok()?;
                image.size = Some(frame.size(how.opening.orientation));
                Some(frame.is_turned().then(|| image.file_name.clone()))
            })
            .collect();
        sizes += read.len();
        turned.extend(read.into_iter().flatten());
    }
    if sizes > 0 {
        report
            .notes
            .push(format!("{sizes} sizes that the annotations lack were read from the images"));
    }
    turned
}

/// A note on images of which nothing shows which way up their boxes were drawn.
fn guessed(images: &BTreeSet<String>, orientation: Orientation) -> Option<String> {
    let (taken, otherwise, value) = match orientation {
        Orientation::Exif => ("what viewers show", "the pixels as stored", "stored"),
        Orientation::Stored => ("the pixels as stored", "what viewers show", "exif"),
    };
    (!images.is_empty()).then(|| {
        format!(
            "{} with an EXIF orientation ({}): the annotations do not show which way up their boxes were drawn. \
             They are taken as drawn on {taken}; if it was {otherwise}, pass {} {value}",
            counted(images.len(), "image"),
            first_few(images.iter().cloned()),
            Argument::Orientation
        )
    })
}

/// Brings the boxes into the frame that the new format is read in. `guessed_sizes` are images whose frame no
/// annotation says.
pub(super) fn fit(
    sets: &mut [Part],
    placing: &Placing,
    how: &Conversion,
    guessed_sizes: BTreeSet<String>,
    report: &mut ConversionReport,
) -> Result<()> {
    let mut met = Met { guessed: guessed_sizes, ..Met::default() };
    for (part, (name, set)) in sets.iter_mut().enumerate() {
        let store = placing.store(part);
        if set.is_from_shares() {
            refuse_stored(set, store, how.opening.orientation)?;
        } else if how.target == Target::Yolo && set.unit() == Unit::Pixels {
            refuse_unseen(set, store, how)?;
            let unseen = turn(set, store, how.opening.orientation, &mut met);
            report.not_carried.add(
                name,
                "images with boxes whose EXIF orientation is not known",
                unseen.len(),
                format!("shares of the size in the annotations: {}", first_few(unseen.into_iter())),
            );
        }
    }
    if !met.turned.is_empty() {
        report.notes.push(format!(
            "boxes of {} are turned as the EXIF orientation says ({}): they were drawn on the pixels as stored, \
             and YOLO's are shares of what viewers show. The new set needs no setting for it",
            counted(met.turned.len(), "image"),
            first_few(met.turned.iter().cloned())
        ));
    }
    report.notes.extend(guessed(&met.guessed, how.opening.orientation));
    if !met.other.is_empty() {
        report.notes.push(format!(
            "{} of another size than the annotations say ({}): boxes are shares of the size in the annotations",
            counted(met.other.len(), "image"),
            first_few(met.other.iter().cloned())
        ));
    }
    Ok(())
}

/// Shares are of the images as viewers show them: as stored, their pixels would be elsewhere.
fn refuse_stored(
    set: &Dataset,
    store: Option<&ImageStore>,
    orientation: Orientation,
) -> Result<()> {
    let Some(store) = store.filter(|_| orientation == Orientation::Stored) else { return Ok(()) };
    let turned = |name: &str| store.contains(name) && store.frame(name).is_ok_and(Frame::is_turned);
    let Some(image) = set.images().par_iter().find_first(|image| turned(&image.file_name)) else {
        return Ok(());
    };
    let problem = format!(
        "expected exif, got stored: boxes of this format are shares of the images as viewers show them, and \
         `{}` has an EXIF orientation",
        image.file_name
    );
    let hint = "leave it out: the boxes are then written where they are";
    Err(Error::argument(Argument::Orientation, problem).with_hint(hint))
}

/// Without any image nothing shows which way up the boxes are.
fn refuse_unseen(set: &Dataset, store: Option<&ImageStore>, how: &Conversion) -> Result<()> {
    let is_there =
        |store: &ImageStore| set.images().par_iter().any(|image| store.contains(&image.file_name));
    if how.images == Some(PutImages::Keep)
        || set.annotations().is_empty()
        || store.is_some_and(is_there)
    {
        return Ok(());
    }
    let problem = "expected the images, found none: YOLO's boxes are shares of them as viewers show them, and \
                   only an image tells its EXIF orientation";
    Err(Error::invalid(set.path(), "images", problem).with_hint(format!(
        "say where the images are: {}; or pass {} keep, if no image has an EXIF orientation",
        Argument::Images,
        Argument::PutImages
    )))
}

/// Images with an EXIF orientation, and those of odd size, by name.
#[derive(Default)]
struct Met {
    turned: Vec<String>,
    guessed: BTreeSet<String>,
    other: Vec<String>,
}

/// Turns boxes that were drawn on the pixels as stored. The size in the annotations shows it; where it is that
/// of both frames, or of none, `orientation` says it. Gives images with boxes that cannot be asked.
fn turn(
    set: &mut Dataset,
    store: Option<&ImageStore>,
    orientation: Orientation,
    met: &mut Met,
) -> Vec<String> {
    let frames: Vec<Option<Frame>> = set
        .images()
        .par_iter()
        .map(|image| {
            let name = &image.file_name;
            store.filter(|store| store.contains(name))?.frame(name).ok()
        })
        .collect();
    let mut unseen = Vec::new();
    for (at, frame) in frames.into_iter().enumerate() {
        if set.annotations_of(at).is_empty() {
            continue;
        }
        let image = &set.images()[at];
        let name = image.file_name.clone();
        let (Some(frame), Some(size)) = (frame, image.size) else {
            unseen.push(name);
            continue;
        };
        let (stored, shown) = (frame.stored, frame.size(Orientation::Exif));
        if size != stored && size != shown {
            met.other.push(name.clone());
        }
        if !frame.is_turned() {
            continue;
        }
        let is_clear = stored != shown && (size == stored || size == shown);
        let is_stored = if is_clear { size == stored } else { orientation == Orientation::Stored };
        if !is_clear {
            met.guessed.insert(name.clone());
        }
        if is_stored {
            let frame = frame.with_stored(size);
            set.redraw(at, frame.size(Orientation::Exif), |bbox| frame.shown(bbox));
            met.turned.push(name);
        }
    }
    unseen
}
