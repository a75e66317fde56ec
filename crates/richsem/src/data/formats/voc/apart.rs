//! XML files in one folder and images in another, whatever the two are called: `annotations/` and `images/`,
//! `xml/` and `photos/`, also within `train/` and `val/`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::collected::Collected;
use crate::data::formats::is_usual;

/// Names of folders that say that XML files are in them, in small letters.
const ANNOTATIONS: [&str; 6] = ["annotations", "annotation", "xml", "xmls", "labels", "pascalvoc"];

/// Names of folders that say that images are in them, in small letters.
const IMAGES: [&str; 6] = ["jpegimages", "images", "image", "imgs", "img", "photos"];

/// Folders beside that of the XML files which have the images.
pub(super) fn images_near(folder: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).ok()?;
    let mut near: Vec<(usize, PathBuf)> = std::fs::read_dir(folder.parent()?)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().to_lowercase();
            let rank = IMAGES.iter().position(|usual| *usual == name)?;
            Some((rank, entry.path())).filter(|(_, path)| path.is_dir())
        })
        .collect();
    near.sort();
    near.into_iter().map(|(_, path)| path).next()
}

impl Collected {
    /// Gives XML files and images that lie in folders of their own the names that they have within these
    /// folders. Where a file lies beside its image, all keep their names.
    pub(super) fn without_own_folders(&mut self) {
        if self.annotations.keys().any(|stem| self.images.contains_key(stem)) {
            return;
        }
        rename(&mut self.annotations, &ANNOTATIONS);
        let folder = common_folder(self.images.keys());
        rename(&mut self.images, &IMAGES);
        // In an archive names are whole paths.
        if self.archive.is_none() && !folder.is_empty() {
            self.images_at.push(&folder);
            for image in self.images.values_mut() {
                let below = image.name.strip_prefix(&folder).map(|rest| rest[1..].to_owned());
                image.name = below.unwrap_or_else(|| image.name.clone());
                image.below.clone_from(&image.name);
            }
        }
    }
}

/// Leaves out of all names the folders that say what is in them, then what else they begin with; not where two
/// would have one name.
fn rename<T>(files: &mut BTreeMap<String, T>, usual: &[&str]) {
    let short = |name: &String| {
        let (folders, last) = name.rsplit_once('/').unwrap_or(("", name));
        let kept = folders.split('/').filter(|folder| {
            !folder.is_empty() && !usual.contains(&folder.to_lowercase().as_str())
        });
        kept.chain([last]).collect::<Vec<_>>().join("/")
    };
    let mut names: Vec<String> = files.keys().map(short).collect();
    let folder = common_folder(names.iter());
    // `train/` is the part of the set that it is.
    if !folder.is_empty() && !folder.split('/').any(is_usual) {
        names.iter_mut().for_each(|name| *name = name[folder.len() + 1..].to_owned());
    }
    let different: std::collections::BTreeSet<&String> = names.iter().collect();
    if different.len() == names.len() {
        *files = names.into_iter().zip(std::mem::take(files).into_values()).collect();
    }
}

/// The folder that all names begin with; empty if there is none.
fn common_folder<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let folders = names.map(|name| {
        let folders = name.rsplit_once('/').map_or("", |(folders, _)| folders);
        folders.split('/').filter(|folder| !folder.is_empty()).collect::<Vec<_>>()
    });
    let common = folders.reduce(|mut common, folders| {
        let same = common.iter().zip(&folders).take_while(|(a, b)| a == b).count();
        common.truncate(same);
        common
    });
    common.unwrap_or_default().join("/")
}
