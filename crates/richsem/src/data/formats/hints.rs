//! What to do with a place that has no known format, where it shows what it is.

use std::{io::Read as _, path::Path};

use super::{Place, place::PARQUET};
use crate::data::listing::is_image;

/// Folders that are looked into.
const MOST: usize = 20;

/// Archives that must be unpacked: how they begin, what they are called, and the command.
const PACKED: [(&[u8], &str, &str); 7] = [
    (b"PK\x03\x04", "a zip archive", "unzip {file} -d {folder}"),
    (b"PK\x05\x06", "an empty zip archive", "unzip {file} -d {folder}"),
    (b"\x1f\x8b", "packed with gzip", "mkdir {folder} && tar -xzf {file} -C {folder}"),
    (b"BZh", "packed with bzip2", "mkdir {folder} && tar -xjf {file} -C {folder}"),
    (b"\xfd7zXZ", "packed with xz", "mkdir {folder} && tar -xJf {file} -C {folder}"),
    (
        b"\x28\xb5\x2f\xfd",
        "packed with zstd",
        "mkdir {folder} && tar --zstd -xf {file} -C {folder}",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {file} -o{folder}"),
];

/// An archive that is not read in place: what it is, and what unpacks it.
pub(super) fn packed(place: &Place) -> Option<(&'static str, String)> {
    let mut magic = Vec::new();
    if place.is_folder() {
        return None;
    }
    std::fs::File::open(place.first_file()).ok()?.take(8).read_to_end(&mut magic).ok()?;
    let (_, what, command) = PACKED.iter().find(|(start, ..)| magic.starts_with(start))?;
    let file = place.path().display().to_string();
    let folder = [".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".gz"]
        .iter()
        .find_map(|end| file.strip_suffix(end))
        .map_or_else(|| format!("{file}-unpacked"), str::to_owned);
    let command = command.replace("{file}", &quoted(&file)).replace("{folder}", &quoted(&folder));
    Some((what, format!("unpack it: {command}; then give {folder}")))
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=,@%".contains(c);
    if path.chars().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

/// What to do with a place that no format fits, if it shows what it is.
pub(super) fn of(place: &Place) -> Option<String> {
    if let Some((_, hint)) = packed(place) {
        return Some(hint);
    }
    if place.is_tar() {
        return Some(
            "of archives COCO's and LVIS's JSON, VOC's XML and YOLO's labels are read in place; of WebDataset's \
             shards only labels of whole images, as extra data (data.extra); unpack others"
                .to_owned(),
        );
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

/// What to write where YOLO's labels have no `data.yaml`.
fn labels_alone(place: &Place) -> Option<String> {
    let labels = place.below("labels")?;
    place.below("images").filter(Place::is_folder)?;
    let part = |name: &str| labels.below(name).is_some_and(|folder| folder.is_folder());
    let parts: Vec<&str> =
        ["train", "val", "valid", "test"].into_iter().filter(|n| part(n)).collect();
    let lines: Vec<String> = if parts.is_empty() {
        vec!["train: images".to_owned(), "val: images".to_owned()]
    } else {
        parts
            .iter()
            .map(|name| format!("{}: images/{name}", name.replace("valid", "val")))
            .collect()
    };
    let lists = [place.path().join("classes.txt"), labels.path().join("classes.txt")];
    let names = lists.iter().find_map(|list| names(list));
    let names = names.unwrap_or_else(|| "the classes in the order of their numbers".to_owned());
    Some(format!(
        "for YOLO's labels write {} with the lines `{}` and `names: [{names}]`",
        place.path().join("data.yaml").display(),
        lines.join("`, `")
    ))
}

/// The names of a list of classes, for YAML.
fn names(list: &Path) -> Option<String> {
    let text = std::fs::read_to_string(list).ok()?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<String> = lines.map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    let most = names.len() > 100;
    (!names.is_empty()).then(|| {
        if most {
            format!("the {} lines of {}", names.len(), list.display())
        } else {
            names.join(", ")
        }
    })
}
