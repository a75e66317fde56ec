//! The frame that boxes are in: that of the pixels as stored, or that after the EXIF orientation.
//!
//! COCO and LVIS say the size of the frame, and their numbers stay. YOLO's boxes are shares of what viewers show:
//! boxes on the pixels as stored are turned with their image.

use std::{collections::BTreeSet, sync::atomic::AtomicBool};

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
    error::{Error, Result, first_few, unless_stopped},
    plural::counted,
};

/// Brings the boxes into the frame that the new format is read in, and tells of images whose frame no annotation
/// says, `guessed_sizes` among them.
pub(super) fn fit(
    sets: &mut [Part],
    placing: &Placing,
    how: &Conversion,
    guessed_sizes: BTreeSet<String>,
    report: &mut ConversionReport,
    stop: &AtomicBool,
) -> Result<()> {
    let mut met = Met { guessed: guessed_sizes, ..Met::default() };
    for (part, (name, set)) in sets.iter_mut().enumerate() {
        let store = placing.store(part);
        if set.is_from_shares() {
            refuse_stored(set, store, how.opening.orientation)?;
            continue;
        }
        let frames =
            if set.unit() == Unit::Pixels { frames(set, store, stop)? } else { Vec::new() };
        met.look(set, &frames, how.opening.orientation);
        if how.target == Target::Yolo && set.unit() == Unit::Pixels {
            refuse_unseen(set, store, how)?;
            let unseen = turn(set, frames, how.opening.orientation, &mut met);
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
    if how.target != Target::Yolo && !met.stored.is_empty() {
        report.orientation = Orientation::Stored;
        report.notes.push(met.of_stored());
    }
    report.notes.extend(met.of_guessed(how.opening.orientation));
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

/// Images with boxes that have an EXIF orientation, and those of odd size, by name.
#[derive(Default)]
struct Met {
    /// Their boxes are turned.
    turned: Vec<String>,
    /// Their boxes are on the pixels as stored.
    stored: Vec<String>,
    /// Their boxes are on what viewers show.
    shown: Vec<String>,
    /// Nothing but the user says which of the two.
    guessed: BTreeSet<String>,
    other: Vec<String>,
}

impl Met {
    /// Notes images with an EXIF orientation and boxes, by the frame of these.
    fn look(&mut self, set: &Dataset, frames: &[Option<Frame>], orientation: Orientation) {
        for (at, (image, frame)) in set.images().iter().zip(frames).enumerate() {
            let Some(frame) = frame.filter(|frame| frame.is_turned()) else { continue };
            if set.annotations_of(at).is_empty() {
                continue;
            }
            let name = image.file_name.clone();
            let clear = |size| !image.sized_by_image && is_clear(frame, size);
            if !image.size.is_some_and(clear) {
                self.guessed.insert(name.clone());
            }
            match image.size.is_some_and(|size| is_stored(frame, size, orientation)) {
                true => self.stored.push(name),
                false => self.shown.push(name),
            }
        }
    }

    /// A note on new files whose boxes are on the pixels as stored.
    fn of_stored(&self) -> String {
        let mixed = match self.shown.as_slice() {
            [] => String::new(),
            shown => format!(
                "; those of {} ({}) are as viewers show them, and no one setting is right for both: `--to yolo` turns \
                 what must be turned",
                counted(shown.len(), "image"),
                first_few(shown.iter().cloned())
            ),
        };
        format!(
            "boxes of {} ({}) are on the pixels as stored, before the EXIF orientation turns these: read the new files \
             so, too ({} stored; orientation = \"stored\" for a set in settings){mixed}",
            counted(self.stored.len(), "image"),
            first_few(self.stored.iter().cloned()),
            Argument::Orientation
        )
    }

    /// A note on images of which nothing shows which way up their boxes were drawn.
    fn of_guessed(&self, orientation: Orientation) -> Option<String> {
        let (taken, otherwise, value, clear) = match orientation {
            Orientation::Exif => {
                ("what viewers show", "the pixels as stored", "stored", &self.stored)
            }
            Orientation::Stored => {
                ("the pixels as stored", "what viewers show", "exif", &self.shown)
            }
        };
        let clear: Vec<&String> =
            clear.iter().filter(|name| !self.guessed.contains(*name)).collect();
        let hint = match clear.as_slice() {
            [] => String::new(),
            [first, ..] => format!(
                ", as of {} in this set, by the size in the annotations (`{first}`)",
                counted(clear.len(), "other image")
            ),
        };
        (!self.guessed.is_empty()).then(|| {
            format!(
                "{} with an EXIF orientation ({}): the annotations do not show which way up their boxes were drawn. \
                 They are taken as drawn on {taken}; if it was {otherwise}{hint}, pass {} {value}",
                counted(self.guessed.len(), "image"),
                first_few(self.guessed.iter().cloned()),
                Argument::Orientation
            )
        })
    }
}

/// Whether boxes of an image of this size in the annotations are on its pixels as stored: by the size, or where
/// that is of both frames or of none, as `orientation` says.
fn is_stored(frame: Frame, size: [u32; 2], orientation: Orientation) -> bool {
    match is_clear(frame, size) {
        true => size == frame.stored,
        false => orientation == Orientation::Stored,
    }
}

/// Whether a size in the annotations is that of one of the two frames alone.
fn is_clear(frame: Frame, size: [u32; 2]) -> bool {
    let (stored, shown) = (frame.stored, frame.size(Orientation::Exif));
    stored != shown && (size == stored || size == shown)
}

/// What the headers of the images say, where they can be read.
fn frames(
    set: &Dataset,
    store: Option<&ImageStore>,
    stop: &AtomicBool,
) -> Result<Vec<Option<Frame>>> {
    let frame = |name: &String| {
        let store = store.filter(|store| store.contains(name))?;
        store.frame(name).ok()
    };
    let images = set.images().par_iter();
    images.map(|image| unless_stopped(stop).map(|()| frame(&image.file_name))).collect()
}

/// Turns boxes that were drawn on the pixels as stored. Gives images with boxes that cannot be asked.
fn turn(
    set: &mut Dataset,
    frames: Vec<Option<Frame>>,
    orientation: Orientation,
    met: &mut Met,
) -> Vec<String> {
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
        if is_stored(frame, size, orientation) {
            let frame = frame.with_stored(size);
            set.redraw(at, frame.size(Orientation::Exif), |bbox| frame.shown(bbox));
            met.turned.push(name);
        }
    }
    unseen
}
