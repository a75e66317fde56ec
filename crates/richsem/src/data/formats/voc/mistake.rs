//! What is wrong with a set whose XML files are all empty or broken, so that it has no known format.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{
    Place,
    archive::MOST_XML,
    collected::{Collected, TextFile, is_annotation},
    source::{collect, has_xml},
    xml,
};
use crate::error::Error;

/// What is wrong with the first XML file that is probably meant to be annotations: it has the name of an image,
/// or lies in a folder without images.
pub(in crate::data::formats) fn mistake(place: &Place) -> Option<Error> {
    if place.is_folder() && !has_xml(place) {
        return None;
    }
    let collected = collect(place.path()).ok()?;
    let mut first = None;
    for file in meant(&collected, place.path()) {
        let (path, text) = collected.text(file).ok()?;
        match xml::parse(&path, &text) {
            Err(error) if !is_annotation(&text) && !is_whole(&text) => {
                first = first.or(Some(error));
            }
            // Of another kind, or a set that is not recognised for another reason.
            _ => return None,
        }
    }
    first
}

fn is_whole(text: &[u8]) -> bool {
    roxmltree::Document::parse(&String::from_utf8_lossy(text)).is_ok()
}

fn meant<'a>(collected: &'a Collected, place: &Path) -> impl Iterator<Item = &'a TextFile> {
    let last = |stem: &str| stem.rsplit('/').next().unwrap_or_default().to_owned();
    let names: HashSet<String> = collected.images.keys().map(|stem| last(stem)).collect();
    let folder = |file: &Path| file.parent().map(Path::to_owned);
    let images = collected.images.values();
    let with_images: HashSet<Option<PathBuf>> =
        images.map(|image| folder(&collected.images_at.join(&image.name))).collect();
    let is_meant = move |stem: &str, file: &TextFile| {
        let own = folder(&file.path);
        names.contains(&last(stem)) || own.as_deref() != Some(place) && !with_images.contains(&own)
    };
    let is_meant: Vec<bool> =
        collected.annotations.iter().map(|(stem, file)| is_meant(stem, file)).collect();
    let files = collected.annotations.values().zip(is_meant);
    files.filter_map(|(file, is_meant)| is_meant.then_some(file)).take(MOST_XML)
}
