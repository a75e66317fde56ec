//! Sets that lie in a folder of the given one: what was unpacked often has a folder, or two, around it.

use std::path::Path;

use super::{Place, fitting};
use crate::error::{Error, Result, first_few};

/// How many folders may be around a set.
const DEPTH: usize = 3;

/// Most files and folders of a folder whose folders are looked into: one with more is a folder of images, or of
/// classes.
const MOST: usize = 50;

/// Most folders that are looked into in all.
const MOST_IN_ALL: usize = 200;

/// The place of a set: the given one, or the only one below it that has a format, `wanted` if that is said. The given
/// one, too, if there is none: what is wrong is said of that.
///
/// # Errors
/// A path that does not exist; several sets below it.
pub(super) fn place_of(path: &Path, wanted: Option<&str>) -> Result<Place> {
    let fits = |place: &Place| {
        let all = fitting(place);
        all.iter()
            .any(|(format, _)| wanted.is_none_or(|name| format.name.eq_ignore_ascii_case(name)))
    };
    let given = Place::new(path)?;
    if !given.is_folder() || fits(&given) {
        return Ok(given);
    }
    let mut level = below(&given);
    let mut looked = 0;
    for _ in 0..DEPTH {
        looked += level.len();
        if looked > MOST_IN_ALL {
            break;
        }
        let (mut sets, others): (Vec<Place>, Vec<Place>) = level.into_iter().partition(fits);
        match sets.len() {
            0 => level = others.iter().flat_map(below).collect(),
            1 => return Ok(sets.remove(0)),
            _ => {
                let shown = |set: &Place| {
                    let name = set.path().strip_prefix(path).unwrap_or(set.path());
                    format!("`{}`", name.display())
                };
                let problem = format!("several sets in one: {}", first_few(sets.iter().map(shown)));
                return Err(Error::invalid(path, "format", problem)
                    .with_hint(format!("give one of them, as {}", sets[0].path().display())));
            }
        }
    }
    Ok(given)
}

/// The folders of a folder.
fn below(place: &Place) -> Vec<Place> {
    if place.files().chain(place.folders()).count() > MOST {
        return Vec::new();
    }
    place.folders().filter_map(|name| place.below(name)).collect()
}
