//! Names of COCO's and LVIS's files: which have boxes, what their parts are called, and where their images may lie.

use std::path::{Path, PathBuf};

use crate::data::formats::{SYNONYMS, is_usual, same_split, words};

/// The file in each folder of a Roboflow export.
pub(super) const ROBOFLOW: &str = "_annotations.coco.json";

/// Folders that annotation files lie in.
pub(super) const ANNOTATIONS: &str = "annotations";

/// Beginnings of names of COCO's other files, which have no boxes of objects.
const NO_BOXES: [&str; 5] =
    ["captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_"];

pub(super) fn is_json(name: &str) -> bool {
    name.ends_with(".json") || name.ends_with(".json.gz")
}

/// What a JSON file is by its beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// It has lists of images or annotations. What evaluations write has numbers there.
    records: bool,
    /// It has a list of classes.
    classes: bool,
    is_list: bool,
    is_empty: bool,
}

impl Look {
    pub(super) fn of(text: &str) -> Self {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let lists = lists(text);
        Self {
            records: ["images", "annotations"].iter().any(|key| lists.contains(key)),
            classes: lists.contains(&"categories"),
            is_list: text.starts_with('['),
            is_empty: text.is_empty(),
        }
    }
}

/// The keys of a text's object that have lists, as far as it goes.
fn lists(text: &str) -> Vec<&str> {
    let Some(text) = text.strip_prefix('{') else { return Vec::new() };
    let (mut lists, mut depth, mut key, mut rest) = (Vec::new(), 0, "", text);
    while let Some(at) = rest.find(['"', '[', '{', ']', '}']) {
        let (sign, after) = (rest.as_bytes()[at], &rest[at + 1..]);
        rest = after;
        match sign {
            b'"' => {
                let Some(end) = string_end(after) else { return lists };
                if depth == 0 && after[end + 1..].trim_start().starts_with(':') {
                    key = &after[..end];
                }
                rest = &after[end + 1..];
            }
            b'[' | b'{' => {
                if depth == 0 && sign == b'[' {
                    lists.push(key);
                }
                depth += 1;
            }
            _ => depth -= 1,
        }
    }
    lists
}

/// Where the string ends that a text begins with.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Which files, each with its beginning, are parts of a set: those that look annotated and, beside these, those
/// that are called as a part is (`val.json`) and are empty or have something else. What is wrong with them,
/// their reader will say. In a Roboflow export the name is enough.
pub(super) fn parts(files: &[(PathBuf, Look)]) -> Vec<bool> {
    // Label Studio puts `notes.json` beside YOLO's labels: their classes once more.
    let looks = |(file, look): &(PathBuf, Look)| {
        is_roboflow(file) || look.records || look.classes && stem(file) != "notes"
    };
    let any = files.iter().any(looks);
    let is_called = |file: &Path, look: &Look| {
        // Lists are of another kind: names of classes, detections.
        let only = matches!(words(&split_of(file)).as_slice(), [word] if is_usual(word));
        !look.is_list && only || look.is_empty && is_usual(&split_of(file))
    };
    let is_part = |each: &(PathBuf, Look)| looks(each) || any && is_called(&each.0, &each.1);
    files.iter().map(is_part).collect()
}

/// Whether a file, in a place of no known format, is probably meant to be annotations: by its name, its folder,
/// or because it is empty.
pub(super) fn is_meant(file: &Path, look: Look) -> bool {
    let words = words(&stem(file));
    let folder = file.parent().and_then(Path::file_name);
    is_usual(&split_of(file))
        || ["annotations", "annotation", "instances", "coco", "lvis"]
            .iter()
            .any(|known| words.iter().any(|word| word == known))
        || folder.is_some_and(|name| name == ANNOTATIONS)
        || look.is_empty
}

/// Those that have boxes by their names; all, if none has.
pub(super) fn boxed(files: &[PathBuf]) -> Vec<PathBuf> {
    let has_boxes = |file: &&PathBuf| !NO_BOXES.iter().any(|p| stem(file).starts_with(p));
    let boxes: Vec<PathBuf> = files.iter().filter(has_boxes).cloned().collect();
    if boxes.is_empty() { files.to_vec() } else { boxes }
}

/// Whether a file has the name that Roboflow gives it.
pub(super) fn is_roboflow(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == ROBOFLOW)
}

/// The name of a file without `.json` or `.json.gz`.
fn stem(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.strip_suffix(".json").unwrap_or(name).to_owned()
}

/// What a file's part of the set is called: its name, or its folder's in a Roboflow export.
fn split_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    if name == ROBOFLOW {
        let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
        return folder.to_string_lossy().into_owned();
    }
    let stem = stem(file);
    stem.strip_prefix("instances_").unwrap_or(&stem).to_owned()
}

/// What the parts are called, each its own name: that of its split, else of its file, else of the folder that it
/// alone lies in, else all of these.
pub(super) fn names(files: &[PathBuf]) -> Vec<String> {
    let whole =
        |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let common = common_folders(files);
    let folder = |file: &PathBuf| {
        let folders = file.parent().into_iter().flatten().skip(common);
        let folders = folders.filter(|name| *name != ANNOTATIONS);
        folders.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>().join("/")
    };
    let below = |file: &PathBuf| format!("{}/{}", folder(file), split_of(file));
    let ways: [Vec<String>; 5] = [
        files.iter().map(|file| split_of(file)).collect(),
        files.iter().map(|file| stem(file)).collect(),
        files.iter().map(whole).collect(),
        files.iter().map(folder).collect(),
        files.iter().map(below).collect(),
    ];
    let unique = |names: &Vec<String>, at: usize| {
        let name = &names[at];
        !name.is_empty() && names.iter().filter(|other| *other == name).count() == 1
    };
    let name = |at: usize| match ways.iter().find(|names| unique(names, at)) {
        Some(way) => way[at].clone(),
        None => files[at].to_string_lossy().into_owned(),
    };
    (0..files.len()).map(name).collect()
}

/// How many folders all files begin with.
fn common_folders(files: &[PathBuf]) -> usize {
    let folders = |file: &PathBuf| file.parent().unwrap_or(Path::new("")).to_owned();
    let common = files.iter().map(folders).reduce(|common, folder| {
        common.iter().zip(&folder).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    });
    common.map_or(0, |common| common.iter().count())
}

/// Folders (and archives) near a file that its images may lie in.
pub(super) fn near(file: &Path) -> Vec<PathBuf> {
    // An empty path is the folder that the program runs in.
    near_of(file)
        .into_iter()
        .map(|path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path })
        .filter(|path| path.exists())
        .collect()
}

/// The same, whether they are there or not.
pub(super) fn near_of(file: &Path) -> Vec<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let split = split_of(file);
    // `lvis_v1_train.json` and `zhiyuan_objv2_train.json` have their images in `train`.
    let usual = SYNONYMS.iter().filter(|group| same_split(&split, group[0]));
    let usual = usual.flat_map(|group| group.iter());
    let usual = usual.flat_map(|name| [(*name).to_owned(), format!("images/{name}")]);
    let mut roots = vec![folder.clone()];
    if folder.file_name().is_some_and(|name| name == ANNOTATIONS) {
        roots.insert(0, folder.parent().unwrap_or(Path::new("")).to_owned());
    }
    let below =
        ["", "images", &split, &format!("images/{split}"), "images.tar", &format!("{split}.tar")]
            .map(str::to_owned);
    let below: Vec<String> = below.into_iter().chain(usual).collect();
    let join = |root: &PathBuf, name: &String| {
        if name.is_empty() { root.clone() } else { root.join(name) }
    };
    roots.iter().flat_map(|root| below.iter().map(move |name| join(root, name))).collect()
}
