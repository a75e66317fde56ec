//! Nothing that is read is written over, and nothing is put where it would be read with the set.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{Conversion, Part, Target, images::Names, images::Placing};
use crate::error::{Error, Result};

/// Refuses an output in a folder that is searched for the images of the set: those that are put there would be more
/// images of it.
pub(super) fn refuse_searched(
    sets: &[Part],
    placing: &Placing,
    output: &Path,
    how: &Conversion,
) -> Result<()> {
    if how.target != Target::Yolo && !placing.puts_any() {
        return Ok(());
    }
    let Some(folder) = sets.iter().find_map(|(_, set)| set.searched_folder_of(output)) else {
        return Ok(());
    };
    let problem = format!(
        "`{}` is in `{}`, where all images are read: those that are put there would be in the set, too",
        output.display(),
        folder.display()
    );
    Err(Error::config("output", problem).with_hint("choose a folder that is not in it"))
}

/// Refuses to replace a file that the set was read from: annotations, an archive, an image. `new` holds what is to be
/// moved into `output`.
pub(super) fn refuse_read(
    input: &Path,
    sets: &[Part],
    (placing, images): (&Placing, &[Names]),
    (new, output): (&Path, &Path),
) -> Result<()> {
    let mut replaced = HashSet::new();
    find_replaced(new, output, &mut replaced)?;
    if replaced.is_empty() {
        return Ok(());
    }
    let of_set = |(at, (_, set)): (usize, &Part)| {
        let store = placing.store(at);
        let of_image = |(name, _): &(String, PathBuf)| Some(store?.display_path(name));
        let images = images[at].iter().filter_map(of_image);
        let json = set.json_file().map(|json| json.path().to_owned());
        let archive = set.images_at().map(Path::to_owned);
        json.into_iter().chain(archive).chain(images).collect::<Vec<_>>()
    };
    let named = [input.to_owned(), input.join("data.yaml"), input.join("data.yml")];
    let read = named.into_iter().chain(sets.iter().enumerate().flat_map(of_set));
    for file in read {
        // A link, and what it leads to.
        let places = [entry(&file), file.canonicalize().ok()];
        if places.iter().flatten().any(|place| replaced.contains(place)) {
            let problem = format!("`{}` is read, and would be replaced", file.display());
            return Err(Error::config("output", problem).with_hint("choose another folder"));
        }
    }
    Ok(())
}

/// The file's own place, its folder named in the only way; none if that is not there.
fn entry(file: &Path) -> Option<PathBuf> {
    let file = std::path::absolute(file).ok()?;
    Some(file.parent()?.canonicalize().ok()?.join(file.file_name()?))
}

/// What is there under a name that something in `new` has.
fn find_replaced(new: &Path, there: &Path, replaced: &mut HashSet<PathBuf>) -> Result<()> {
    for item in fs_err::read_dir(new)? {
        let item = item?;
        let place = there.join(item.file_name());
        if item.file_type()?.is_dir() && place.is_dir() {
            find_replaced(&item.path(), &place, replaced)?;
        } else if place.symlink_metadata().is_ok() {
            replaced.extend(entry(&place));
        }
    }
    Ok(())
}
