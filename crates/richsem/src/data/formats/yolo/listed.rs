//! Sets without a `data.yaml`: a list of the classes lies beside the labels, as labelImg, Label Studio's YOLO export
//! and Roboflow's Darknet export have it.

use std::path::{Path, PathBuf};

use super::{
    files::{self, Files},
    places::LabelRule,
    settings::{SPLITS, Settings, Written},
};
use crate::{
    data::listing::{PassedOver, is_image},
    error::{Error, Result},
};

/// What such lists are called.
const LISTS: [&str; 2] = ["classes.txt", "_darknet.labels"];

/// Labels that are looked at to know that they are some. Empty ones, of images without objects, do not count.
const MOST: usize = 50;

/// What makes a set: its list, and the images of each part; `""` is the part of a set in one piece.
#[derive(Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) list: PathBuf,
    root: PathBuf,
    parts: Vec<(&'static str, PathBuf)>,
}

impl Listed {
    /// Finds them in a folder, which is an absolute path, or in an archive as if it were one.
    pub(super) fn find(root: &Path, files: &Files) -> Option<Self> {
        let rule = LabelRule::below(root);
        let lists = lists(root);
        // Where there is no list nothing else is looked at: a folder may have millions of images.
        let list = lists.into_iter().find(|list| files.is_file(list))?;
        let has_labels = |images: &PathBuf| has_labels(images, rule, files);
        let parts = SPLITS.iter().filter_map(|name| {
            let places = [root.join("images").join(name), root.join(name).join("images")];
            let place = places.into_iter().chain([root.join(name)]).find(has_labels)?;
            Some((*name, place))
        });
        let mut parts: Vec<_> = parts.collect();
        if parts.is_empty() {
            let place = [root.join("images"), root.to_owned()].into_iter().find(has_labels)?;
            parts.push(("", place));
        }
        Some(Self { list, root: root.to_owned(), parts })
    }

    /// The same as from a `data.yaml`.
    ///
    /// # Errors
    /// A list that cannot be read, has a line without a name, or is another one than that of another part.
    pub(super) fn settings(self, files: &Files) -> Result<Settings> {
        let names = class_list(&self.list, &files.text(&self.list)?)?;
        for other in lists(&self.root).iter().filter(|other| files.is_file(other)) {
            if *other != self.list && class_list(other, &files.text(other)?)? != names {
                let problem = format!("other names than in {}", self.list.display());
                return Err(Error::invalid(other, "classes", problem)
                    .with_hint("the numbers in the labels are those of one list: keep that one"));
            }
        }
        let written = |path: &Path| Written {
            line: 0,
            path: path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned(),
        };
        Ok(Settings {
            notes: vec![format!("the classes are the lines of {}", self.list.display())],
            warnings: Vec::new(),
            rule: LabelRule::below(&self.root),
            splits: self.parts.iter().map(|(name, path)| (*name, vec![written(path)])).collect(),
            keypoints: None,
            names,
            root: self.root,
            file: self.list,
        })
    }
}

/// Where a list may be: at the top, among the labels, or in the folder of a part.
fn lists(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.to_owned(), root.join("labels")];
    for part in SPLITS {
        folders.extend([
            root.join(part),
            root.join(part).join("labels"),
            root.join("labels").join(part),
        ]);
    }
    folders.iter().flat_map(|folder| LISTS.map(|name| folder.join(name))).collect()
}

/// Whether a folder has images whose labels are rows of numbers.
fn has_labels(images: &Path, rule: LabelRule, files: &Files) -> bool {
    let all = |folder: &Path| {
        let mut all = Vec::new();
        // What cannot be read, the reader says.
        let _ = files.walk(folder, &mut all, &mut PassedOver::default());
        all.sort_unstable();
        all
    };
    if !files.is_dir(images) {
        return false;
    }
    let of_images = all(images);
    let labels = of_images
        .iter()
        .filter(|file| is_image(&file.to_string_lossy()))
        .map(|image| rule.label(image, files))
        .filter(|label| files.is_file(label));
    let texts = labels.filter_map(|label| files.text(&label).ok());
    texts.filter(|text| !text.trim().is_empty()).take(MOST).any(|text| has_row(&text))
}

/// `class x y width height`, and perhaps more numbers.
fn has_row(text: &str) -> bool {
    text.lines().any(|line| {
        let mut columns = line.split_whitespace();
        columns.next().is_some_and(|class| class.parse::<u32>().is_ok())
            && columns.clone().count() >= 4
            && columns.all(|number| number.parse::<f64>().is_ok())
    })
}

/// The names in a list: one on each line.
///
/// # Errors
/// A line without a name, or none at all.
pub(in crate::data::formats) fn class_list(list: &Path, text: &str) -> Result<Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if let Some(at) = names.iter().position(String::is_empty) {
        let problem = "expected the name of a class, got an empty line";
        return Err(Error::invalid(list, format!("line {}", at + 1), problem).with_hint(
            "the number of a line is the class's index: name it, or renumber the labels",
        ));
    }
    if names.is_empty() {
        return Err(Error::invalid(list, "names", "the file is empty")
            .with_hint("write the name of a class on each line"));
    }
    Ok(names)
}

/// The place of a set: a folder, or an archive, where the folder nearest to the top that has a list counts.
pub(super) fn root_in(archive: &files::Archive) -> Option<PathBuf> {
    let is_list = |path: &&Path| LISTS.iter().any(|name| path.ends_with(name));
    let nearest = archive.all().filter(is_list).min_by_key(|path| path.components().count())?;
    let folder = nearest.parent()?;
    // A list among the labels, or in a part, is one or two folders below the set.
    let above = [Some(folder), folder.parent(), folder.parent().and_then(Path::parent)];
    let above: Vec<&Path> =
        above.into_iter().flatten().filter(|folder| folder.starts_with(archive.path())).collect();
    above
        .into_iter()
        .rev()
        .find(|root| lists(root).iter().any(|list| list == nearest))
        .map(Path::to_owned)
}
