//! Folders of COCO's and LVIS's files, and where their images are.

use std::path::PathBuf;

use super::{
    Place, Request, archive,
    names::{ANNOTATIONS, Look, ROBOFLOW, boxed, is_json, is_meant, names, near, parts},
};
use crate::{
    data::formats::is_usual,
    error::{Error, Result},
    json,
};

pub(super) fn recognise(place: &Place) -> Option<String> {
    if place.is_folder() {
        let files = annotation_files(place);
        let first = files.first()?;
        let name = first.strip_prefix(place.path()).unwrap_or(first);
        return Some(format!("there is {}", name.display()));
    }
    if place.is_tar() {
        let files = archive::look(place);
        return Some(format!("there is {}", files.first()?.path.display()));
    }
    let text = place.text();
    let start = text.trim_start();
    let fits = match start.chars().next() {
        // A record on each line: another format.
        Some('{') => !place.ends_with(".jsonl"),
        // Detections: the reader says so.
        Some('[') => text.contains("\"category_id\""),
        // A broken file too: its reader says what is wrong.
        _ => is_json(&place.path().to_string_lossy()),
    };
    fits.then(|| "it is JSON".to_owned())
}

/// Whether a file is JSON by its beginning.
pub(in crate::data::formats) fn begins_as_json(place: &Place) -> bool {
    place.text().trim_start().starts_with(['{', '[']) && !place.ends_with(".jsonl")
}

/// The annotation files of a folder, sorted: `annotations/*.json`, those in it, or one or more in each folder of a
/// part, as Roboflow's.
fn annotation_files(place: &Place) -> Vec<PathBuf> {
    let of = |place: &Place| -> Vec<PathBuf> {
        let names = place.files().filter(|name| is_json(name));
        let places = names.filter_map(|name| place.below(name));
        // A folder may have a file for each image.
        let files: Vec<(PathBuf, Look)> =
            places.map(|file| (file.path().to_owned(), Look::of(&file.text()))).collect();
        let parts = parts(&files).into_iter().zip(files).filter(|(is_part, _)| *is_part);
        boxed(&parts.map(|(_, (file, _))| file).collect::<Vec<_>>())
    };
    let inner =
        |place: &Place| place.below(ANNOTATIONS).map(|inner| of(&inner)).unwrap_or_default();
    let roboflow = place.folders().map(|folder| place.path().join(folder).join(ROBOFLOW));
    let roboflow: Vec<PathBuf> = roboflow.filter(|file| file.is_file()).collect();
    if !roboflow.is_empty() {
        return roboflow;
    }
    let own = [inner(place), of(place)].into_iter().find(|files| !files.is_empty());
    own.unwrap_or_else(|| {
        let folders = place.folders().filter(|name| is_usual(name));
        let folders: Vec<Place> = folders.filter_map(|name| place.below(name)).collect();
        let each = |of: &dyn Fn(&Place) -> Vec<PathBuf>| folders.iter().flat_map(of).collect();
        let ways: [Vec<PathBuf>; 2] = [each(&inner), each(&of)];
        ways.into_iter().find(|files| !files.is_empty()).unwrap_or_default()
    })
}

/// What is wrong with the annotations of a place that no format fits: with the first JSON file that is probably
/// meant to be some.
pub(in crate::data::formats) fn mistake(place: &Place) -> Option<Error> {
    if place.is_tar() {
        return archive::mistake(place);
    }
    let of = |place: &Place| {
        let mut files = place.files().filter(|name| is_json(name));
        let meant = files.find_map(|name| {
            place.below(name).filter(|file| is_meant(file.path(), Look::of(&file.text())))
        })?;
        let file = meant.path();
        let reader = json::open(file).ok()?;
        super::read(file, reader, super::CHUNK, true, &|| Ok(())).err()
    };
    place.below(ANNOTATIONS).and_then(|inner| of(&inner)).or_else(|| of(place))
}

pub(super) fn splits(place: &Place) -> Result<Vec<String>> {
    if place.is_tar() {
        return archive::splits(place);
    }
    Ok(names(&annotation_files(place)))
}

/// The file to read, and folders that its images may lie in.
pub(super) fn file_of(request: &Request<'_>) -> Result<(PathBuf, Vec<PathBuf>)> {
    let place = Place::new(request.path)?;
    let file = if place.is_folder() {
        let files = annotation_files(&place);
        let at = names(&files).iter().position(|name| name == request.split);
        at.map(|at| files[at].clone()).ok_or_else(|| {
            Error::invalid(request.path, "annotations", "expected JSON in the folder, got none")
        })?
    } else {
        request.path.to_owned()
    };
    let near = near(&file);
    Ok((file, near))
}
