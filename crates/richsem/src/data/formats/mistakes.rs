//! What is wrong with a place that no format fits because its files are empty, broken or cut short.

use std::{io::Read as _, path::Path};

use super::{Place, coco, hints, members::members, openimages, voc};
use crate::{
    data::listing::{PassedOver, is_image},
    error::Error,
    stand_in::{LOOKED_AT, stand_in},
};

/// Files and folders of a folder that are looked into for what stands for another file.
const MOST: usize = 20;

/// The error, or what its file is, if that only stands for another one. Of images their reader says it.
pub(super) fn explained(error: Error) -> Error {
    match &error {
        Error::Invalid { file, .. } if !is_image(&file.to_string_lossy()) => {
            of_stand_in(file).unwrap_or(error)
        }
        _ => error,
    }
}

/// What is wrong with a file that only stands for another one.
fn of_stand_in(file: &Path) -> Option<Error> {
    let mut start = Vec::new();
    let opened = std::fs::File::open(file).ok()?;
    opened.take(LOOKED_AT as u64).read_to_end(&mut start).ok()?;
    let (what, hint) = stand_in(&start)?;
    Some(
        Error::invalid(file, "contents", format!("expected annotations, got {what}"))
            .with_hint(hint),
    )
}

/// The same of the first such file in a folder, or in the folders in it.
fn stand_in_below(place: &Place) -> Option<Error> {
    let of = |place: &Place| {
        let mut files = place.files().filter(|name| !is_image(name)).take(MOST);
        files.find_map(|name| of_stand_in(&place.path().join(name)))
    };
    of(place).or_else(|| place.folders().take(MOST).find_map(|name| of(&place.below(name)?)))
}

/// The mistake, if there is one that shows.
pub(super) fn of(place: &Place) -> Option<Error> {
    if place.packed().is_some() {
        return None;
    }
    if place.is_tar() {
        let (_, read) = members(place.path(), usize::MAX, &mut PassedOver::default());
        if let Err(error) = read {
            return Some(error);
        }
    } else if let Some(error) = stand_in_below(place) {
        return Some(error);
    } else if let Some(mistake) = openimages::mistake(place) {
        return Some(mistake);
    } else if !place.is_folder() || hints::labels_alone(place).is_some() {
        return None;
    }
    coco::mistake(place).or_else(|| voc::mistake(place))
}
