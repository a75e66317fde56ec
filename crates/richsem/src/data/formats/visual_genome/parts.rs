//! Which files of Visual Genome there are, and which parts of the set.
//!
//! Its files have no splits. Work on it has lists of images: `train.txt`, `val.txt` and `test.txt`, as in
//! bottom-up-attention, whose lines begin with an image's path. If these lie beside, they are the parts.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use crate::{
    data::{formats::Place, records::ImageRecord},
    error::{Error, Result, read_text},
};

/// Names of the lists.
const LISTS: [&str; 3] = ["train", "val", "test"];

pub(super) fn recognise(place: &Place) -> Option<String> {
    if place.is_folder() {
        let file = objects_in(place).into_iter().next()?;
        return Some(format!("{} has objects with names", file_name(&file)));
    }
    has_objects(place).then(|| "it has objects with names".to_owned())
}

/// Scene graphs have objects too, and relationships between them.
fn has_objects(place: &Place) -> bool {
    let text = place.text();
    let has = |key: &str| text.contains(&format!("\"{key}\""));
    text.trim_start().starts_with('[') && has("objects") && has("names") && !has("relationships")
}

/// `objects.json`, `objects_v1.2.0.json`, also packed.
fn objects_in(place: &Place) -> Vec<PathBuf> {
    let named = |name: &&str| {
        name.starts_with("objects") && (name.ends_with(".json") || name.ends_with(".json.gz"))
    };
    let places = place.files().filter(named).filter_map(|name| place.below(name));
    places.filter(has_objects).map(|file| file.path().to_owned()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A part of the set.
pub(super) struct Part {
    /// Empty where it is all there is.
    pub(super) name: String,
    pub(super) objects: PathBuf,
    /// The list of its images; all of them without one.
    list: Option<PathBuf>,
}

/// The parts: of each file of objects, each list.
pub(super) fn parts(path: &Path) -> Result<Vec<Part>> {
    let place = Place::new(path)?;
    let files = if place.is_folder() { objects_in(&place) } else { vec![path.to_owned()] };
    let several = files.len() > 1;
    let mut parts = Vec::new();
    for objects in files {
        let whole = file_name(&objects);
        let stem = whole.trim_end_matches(".gz").trim_end_matches(".json").to_owned();
        let folder = objects.parent().unwrap_or(Path::new(""));
        let lists = LISTS.map(|list| (list, folder.join(format!("{list}.txt"))));
        let lists: Vec<_> = lists.into_iter().filter(|(_, file)| file.is_file()).collect();
        if lists.is_empty() {
            let name = if several { stem } else { String::new() };
            parts.push(Part { name, objects, list: None });
            continue;
        }
        for (list, file) in lists {
            let name = if several { format!("{stem}/{list}") } else { list.to_owned() };
            parts.push(Part { name, objects: objects.clone(), list: Some(file) });
        }
    }
    Ok(parts)
}

pub(super) fn splits(place: &Place) -> Result<Vec<String>> {
    let names = parts(place.path())?.into_iter().map(|part| part.name);
    Ok(names.filter(|name| !name.is_empty()).collect())
}

impl Part {
    /// Whether each image belongs to it. `at` has the positions of the images by their ids.
    pub(super) fn kept(&self, images: &[ImageRecord], at: &HashMap<i64, u32>) -> Result<Vec<bool>> {
        let Some(list) = &self.list else { return Ok(vec![true; images.len()]) };
        let text = read_text(list)?;
        let mut kept = vec![false; images.len()];
        for (number, line) in (1..).zip(text.lines()) {
            let Some(path) = line.split_whitespace().next() else { continue };
            let name = path.rsplit('/').next().unwrap_or(path);
            let id = name.split('.').next().and_then(|id| id.parse::<i64>().ok());
            let known = id.and_then(|id| at.get(&id)).copied();
            let known = known.ok_or_else(|| {
                let problem = format!("expected an image of the set, got `{}`", path.escape_debug());
                Error::invalid(list, format!("line {number}"), problem).with_hint(
                    "lines begin with the path of an image (VG_100K/2.jpg), whose name is its id; move the \
                     list elsewhere if it is none",
                )
            })?;
            kept[known as usize] = true;
        }
        if !kept.contains(&true) {
            return Err(Error::invalid(list, "images", "the list is empty")
                .with_hint("write a line for each image, or move the list elsewhere"));
        }
        Ok(kept)
    }
}
