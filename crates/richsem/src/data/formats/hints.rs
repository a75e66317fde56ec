//! What to do with a place that has no known format, where it shows what it is.

use std::path::Path;

use super::{Place, place::PARQUET, voc};
use crate::data::listing::is_image;

/// Folders that are looked into.
const MOST: usize = 20;

/// What to do with a place that no format fits, if it shows what it is.
pub(super) fn of(place: &Place) -> Option<String> {
    if let Some((_, hint)) = place.packed() {
        return Some(hint);
    }
    if place.is_tar() {
        return Some(
            "of archives COCO's and LVIS's JSON, VOC's XML and YOLO's labels are read in place; of WebDataset's \
             shards only labels of whole images, as extra data (data.extra); unpack others"
                .to_owned(),
        );
    }
    if voc::is_annotation(place.head()) {
        let folder = place.path().parent().filter(|folder| !folder.as_os_str().is_empty());
        return Some(format!(
            "this is Pascal VOC's XML of one image: give the folder of all of them, {}",
            folder.unwrap_or(Path::new(".")).display()
        ));
    }
    if place.head().starts_with(PARQUET) || is_classification(place, 1) {
        return Some(
            "images with labels and without boxes are extra data: give them as data.extra in the settings, or \
             with --extra to doctor and init"
                .to_owned(),
        );
    }
    labels_alone(place)
}

/// Whether a folder holds folders of images and no file: one for each class, perhaps for each part.
fn is_classification(place: &Place, depth: usize) -> bool {
    let mut folders = place.folders().peekable();
    if !place.is_folder() || folders.peek().is_none() || place.files().any(is_image) {
        return false;
    }
    folders.take(MOST).filter_map(|name| place.below(name)).all(|class| {
        let images = class.folders().next().is_none() && class.files().any(is_image);
        images || depth > 0 && is_classification(&class, depth - 1)
    })
}

/// What to write where YOLO's labels have no `data.yaml` and no list of their classes.
pub(super) fn labels_alone(place: &Place) -> Option<String> {
    place.below("labels")?;
    place.below("images").filter(Place::is_folder)?;
    Some(format!(
        "for YOLO's labels write {}: the name of a class on each line, in the order of their numbers from 0; or a \
         data.yaml with `train`, `val` and `names`",
        place.path().join("classes.txt").display()
    ))
}
