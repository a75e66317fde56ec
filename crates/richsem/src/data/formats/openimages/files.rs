//! Which files belong together: those of boxes, and the labels, names and hierarchy near them.

use std::path::{Path, PathBuf};

use super::name_of;
use crate::{
    data::{
        formats::{place::Place, words},
        openimages::Kind,
    },
    error::{Error, Result},
};

/// Folders that are looked into, besides those of the splits.
const FOLDERS: [&str; 6] = ["annotations", "annotation", "labels", "metadata", "csv", "data"];

/// Files of a folder that are looked at: OpenImages has a dozen, a folder of one JSON an image thousands.
const MOST_FILES: usize = 100;

/// How deep folders lie in each other: `train/labels/detections.csv`.
const DEPTH: usize = 2;

/// Names of the three splits, as folders.
const SPLITS: [&str; 5] = ["train", "validation", "val", "test", "challenge"];

/// Files of a folder and those below it that may be CSV or JSON, sorted. Folders of images are not looked
/// into.
fn files_below(place: &Place, depth: usize) -> Vec<PathBuf> {
    let is_text = |name: &&str| {
        let name = name.to_ascii_lowercase();
        [".csv", ".csv.gz", ".json"].iter().any(|end| name.ends_with(end))
    };
    let texts = place.files().filter(is_text).take(MOST_FILES);
    let mut files: Vec<PathBuf> = texts.map(|name| place.path().join(name)).collect();
    if depth > 0 {
        let known = |name: &&str| {
            let name = name.to_ascii_lowercase();
            FOLDERS.contains(&&*name) || SPLITS.iter().any(|split| name == *split)
        };
        let folders: Vec<&str> = place.folders().filter(known).collect();
        for folder in folders.into_iter().filter_map(|name| place.below(name)) {
            files.extend(files_below(&folder, depth - 1));
        }
    }
    files
}

/// What a file holds by its header. A file that cannot be read holds nothing here; its reader says why.
fn kind(file: &Path) -> Option<Kind> {
    (!is_json(file)).then(|| Kind::of_file(file).ok().flatten()).flatten()
}

fn is_json(file: &Path) -> bool {
    name_of(file).to_ascii_lowercase().ends_with(".json")
}

/// What a file is meant to hold: what it holds, or else what it is called. Its reader says what is wrong then.
fn meant(file: &Path) -> Option<Kind> {
    let called = || {
        let words = words(&stem(file));
        let has = |word: &str| words.iter().any(|other| other == word);
        // The last two by FiftyOne, where they are the whole names.
        let is = |name: &str| words == [name];
        Some(match () {
            () if is_json(file) => return None,
            () if has("bbox") || is("boxes") => Kind::Boxes,
            () if has("imagelabels") || is("labels") || is("classifications") => Kind::Labels,
            () if has("class") && has("descriptions") || is("classes") => Kind::Classes,
            () => return None,
        })
    };
    match (kind(file), called()) {
        // Boxes without one of the columns that tell them apart.
        (None, called) | (Some(Kind::Labels), called @ Some(Kind::Boxes)) => called,
        (found, _) => found,
    }
}

pub(super) fn recognise(place: &Place) -> Option<String> {
    if !place.is_folder() {
        return (kind(place.path()) == Some(Kind::Boxes))
            .then(|| "its header has ImageID, LabelName and XMin".to_owned());
    }
    let file =
        files_below(place, DEPTH).into_iter().find(|file| kind(file) == Some(Kind::Boxes))?;
    Some(format!("{} has ImageID, LabelName and XMin", name_of(&file)))
}

/// Whether a file holds boxes, or is called so.
pub(super) fn is_of_boxes(file: &Path) -> bool {
    meant(file) == Some(Kind::Boxes)
}

/// The files of boxes, each with its split's name; also those that are only called so.
pub(super) fn boxes_of(place: &Place) -> Result<Vec<(String, PathBuf)>> {
    if !place.is_folder() {
        return Ok(vec![(String::new(), place.path().to_owned())]);
    }
    let all = files_below(place, DEPTH);
    let boxes: Vec<PathBuf> = all.into_iter().filter(|file| is_of_boxes(file)).collect();
    let usual: Vec<Option<String>> =
        boxes.iter().map(|file| split_of(file, place.path())).collect();
    let count = |names: &[Option<String>], name: &Option<String>| {
        names.iter().filter(|other| *other == name).count()
    };
    let stems: Vec<Option<String>> = boxes.iter().map(|file| Some(stem(file))).collect();
    let name = |at: usize| {
        let below = boxes[at].strip_prefix(place.path()).unwrap_or(&boxes[at]);
        match (&usual[at], &stems[at]) {
            (Some(split), _) if count(&usual, &usual[at]) == 1 => split.clone(),
            (_, Some(stem)) if count(&stems, &stems[at]) == 1 => stem.clone(),
            _ => below.to_string_lossy().into_owned(),
        }
    };
    Ok((0..boxes.len()).map(|at| (name(at), boxes[at].clone())).collect())
}

/// Files of boxes in folders that are not looked into, by their paths in the set.
pub(super) fn strangers(place: &Place) -> Vec<String> {
    let known = files_below(place, DEPTH);
    let mut found = Vec::new();
    for folder in place.folders().take(MOST_FILES).filter_map(|name| place.below(name)) {
        let others = files_below(&folder, 0).into_iter().filter(|file| !known.contains(file));
        let boxes = others.filter(|file| kind(file) == Some(Kind::Boxes));
        found
            .extend(boxes.map(|file| {
                file.strip_prefix(place.path()).unwrap_or(&file).display().to_string()
            }));
    }
    found
}

fn stem(file: &Path) -> String {
    let name = name_of(file);
    name.split('.').next().unwrap_or(&name).to_owned()
}

/// Which split a file is of, by its name or its folder's: `train`, `val` or `test`.
fn split_of(file: &Path, root: &Path) -> Option<String> {
    let below = file.strip_prefix(root).unwrap_or(file);
    let words = words(&below.to_string_lossy());
    words.into_iter().find(|word| ["train", "val", "test"].contains(&&**word))
}

/// What lies near a file of boxes.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) labels: Option<PathBuf>,
    pub(super) classes: Option<PathBuf>,
    pub(super) hierarchy: Option<PathBuf>,
}

impl Found {
    /// Looks for them in the folder that was given, or in that of the file.
    pub(super) fn near(file: &Path, place: &Place) -> Result<Self> {
        let folder = file.parent().unwrap_or(Path::new(""));
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let root = if place.is_folder() { place.path() } else { folder };
        let all = files_below(&Place::new(root)?, DEPTH);
        let of_kind = |wanted: Kind| -> Vec<PathBuf> {
            all.iter().filter(|other| meant(other) == Some(wanted)).cloned().collect()
        };
        let split = split_of(file, root);
        let same = |other: &PathBuf| split_of(other, root) == split;
        let any = |other: &PathBuf| same(other) || split_of(other, root).is_none();
        let machine = |other: &PathBuf| name_of(other).to_lowercase().contains("machine");
        let labels = of_kind(Kind::Labels).into_iter().filter(|f| any(f) && !machine(f)).collect();
        let classes = of_kind(Kind::Classes).into_iter().filter(any).collect();
        let hierarchies = all.iter().filter(|other| is_hierarchy(other)).cloned().collect();
        Ok(Self {
            labels: nearest(file, labels, "verified labels")?,
            classes: nearest(file, classes, "names of classes")?,
            hierarchy: nearest(file, hierarchies, "hierarchies")?,
        })
    }

    /// What was found, for the report.
    pub(super) fn notes(&self) -> Vec<String> {
        [
            ("verified labels", &self.labels, "none"),
            (
                "names of classes",
                &self.classes,
                "none near, so the classes are called by their MIDs",
            ),
            ("hierarchy", &self.hierarchy, "none near, so that no class is a kind of another"),
        ]
        .into_iter()
        .map(|(what, file, none)| {
            format!("{what}: {}", file.as_deref().map_or(none.to_owned(), name_of))
        })
        .collect()
    }
}

/// Whether a file is a hierarchy, or is called so: its reader says what is wrong then.
fn is_hierarchy(file: &Path) -> bool {
    let called = || words(&stem(file)).iter().any(|word| word == "hierarchy");
    let looks = |place: Place| {
        let text = place.text();
        text.contains("\"Subcategory\"") && text.contains("\"LabelName\"")
    };
    is_json(file) && (called() || Place::new(file).is_ok_and(looks))
}

/// Of several files of a kind the one whose name has most words in common with that of the boxes.
fn nearest(file: &Path, mut files: Vec<PathBuf>, what: &str) -> Result<Option<PathBuf>> {
    let own = words(&stem(file));
    let shared = |other: &PathBuf| {
        let other = words(&stem(other));
        // Names of the 600 classes with boxes, beside those of the 20,000 with labels alone.
        let boxable = other.iter().any(|word| word == "boxable");
        (own.iter().filter(|word| other.contains(word)).count(), boxable)
    };
    files.sort_by_key(|other| std::cmp::Reverse(shared(other)));
    if let [first, second, ..] = files.as_slice()
        && shared(first) == shared(second)
    {
        let problem =
            format!("two files of {what} are near: {} and {}", name_of(first), name_of(second));
        return Err(Error::invalid(file, what, problem)
            .with_hint("put the one that belongs to these boxes into a folder with them alone"));
    }
    Ok(files.into_iter().next())
}

/// Folders that the images may lie in.
pub(super) fn image_folders(file: &Path, split: &str) -> Vec<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let split = match split_of(file, &folder) {
        Some(word) => vec![
            split.to_owned(),
            word.clone(),
            if word == "val" { "validation".into() } else { word },
        ],
        None => vec![split.to_owned()],
    };
    let above: Vec<PathBuf> = folder.ancestors().take(3).map(Path::to_owned).collect();
    let mut folders = Vec::new();
    for root in above {
        let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
        for name in &split {
            folders.extend([root.join(name), root.join("images").join(name)]);
            folders.push(root.join(name).join("data"));
        }
        folders.extend([root.join("data"), root.join("images"), root]);
    }
    folders.retain(|folder| folder.is_dir());
    folders
}
