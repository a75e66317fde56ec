//! Where a VOC set is read from: a folder, or an archive of one.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Place, apart, archive,
    collected::{
        Collected, FOLDERS, Kind, TextFile, is_annotation, kind_beside, kind_of, two_sets,
    },
};
use crate::{data::listing::is_image, error::Result};

/// How deep below the given folder a set may lie.
const DEPTH: usize = 3;

/// Most entries of a folder that is looked into for a set: one with more is a folder of images.
const MOST_ENTRIES: usize = 1000;

/// What shows that there is such a set: an XML file in a folder `Annotations`, or VOC's XML in any folder.
pub(super) fn recognise(place: &Place) -> Option<String> {
    let found = if place.is_folder() {
        annotation_below(place.path(), DEPTH)
            .map(|path| path.strip_prefix(place.path()).map(Path::to_owned).unwrap_or(path))
            .or_else(|| annotation_in(place, DEPTH))
    } else {
        archive::first_annotation(place.path())
    };
    found.map(|path| format!("there is {}", path.display()))
}

/// The first of VOC's XML files in the folder or below. Where all are empty, the first of these beside an image:
/// the reader says of it that it is empty.
fn annotation_in(place: &Place, depth: usize) -> Option<PathBuf> {
    let is_xml = |name: &&str| name.to_ascii_lowercase().ends_with(".xml");
    let looked_into = place.files().filter(is_xml).take(archive::MOST_XML);
    let heads: Vec<(&str, Place)> =
        looked_into.filter_map(|name| Some((name, place.below(name)?))).collect();
    let annotated = heads.iter().find(|(_, file)| is_annotation(file.head()));
    let empty = || {
        let all = heads.iter().all(|(_, file)| file.text().trim().is_empty());
        heads.first().filter(|_| all && place.files().any(is_image))
    };
    if let Some((name, _)) = annotated.or_else(empty) {
        return Some((*name).into());
    }
    if depth == 0 || place.files().count() > MOST_ENTRIES {
        return None;
    }
    let mut folders = place.folders().take(MOST_ENTRIES);
    folders.find_map(|name| {
        let below = place.below(name)?;
        Some(Path::new(name).join(annotation_in(&below, depth - 1)?))
    })
}

/// Whether there is an XML file in the folder or near below.
pub(super) fn has_xml(place: &Place) -> bool {
    fn below(place: &Place, depth: usize) -> bool {
        let is_xml = |name: &str| name.to_ascii_lowercase().ends_with(".xml");
        if place.files().any(is_xml) {
            return true;
        }
        let looked_into = depth > 0 && place.files().count() <= MOST_ENTRIES;
        looked_into
            && place
                .folders()
                .take(MOST_ENTRIES)
                .filter_map(|name| place.below(name))
                .any(|folder| below(&folder, depth - 1))
    }
    below(place, DEPTH)
}

/// The first XML file in a folder `Annotations` near. Folders of very many files are not gone through.
fn annotation_below(folder: &Path, depth: usize) -> Option<PathBuf> {
    let annotations = folder.join(FOLDERS[0]);
    if annotations.is_dir() {
        return first_xml(&annotations, DEPTH);
    }
    if depth == 0 {
        return None;
    }
    let mut folders = Vec::new();
    for (count, entry) in std::fs::read_dir(folder).ok()?.flatten().enumerate() {
        if count > MOST_ENTRIES {
            return None;
        }
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    folders.iter().find_map(|folder| annotation_below(folder, depth - 1))
}

fn first_xml(folder: &Path, depth: usize) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    let is_xml = |path: &PathBuf| {
        let relative = Path::new(FOLDERS[0]).join(path.file_name().unwrap_or_default());
        matches!(kind_of(&relative), Some((_, Kind::Annotation { .. })))
    };
    if let Some(found) = entries.iter().find(|path| is_xml(path)) {
        return Some(found.clone());
    }
    let folders = entries.iter().filter(|path| depth > 0 && path.is_dir() && !path.is_symlink());
    folders.into_iter().find_map(|folder| first_xml(folder, depth - 1))
}

/// The files of a set.
pub(super) fn collect(input: &Path) -> Result<Collected> {
    if fs_err::metadata(input)?.is_dir() { from_folder(input) } else { archive::collect(input) }
}

fn from_folder(input: &Path) -> Result<Collected> {
    let mut roots = roots_below(input, DEPTH)?;
    if !roots.iter().any(|root| root.join(FOLDERS[1]).is_dir()) {
        roots.clear();
    }
    let root = match roots.as_slice() {
        [] => {
            let mut collected =
                Collected { images_at: input.to_owned(), beside: true, ..Collected::default() };
            take_beside(&mut collected, input, "")?;
            if let Some(near) = apart::images_near(input).filter(|_| collected.images.is_empty()) {
                take_images(&mut collected, &near)?;
            }
            collected.without_own_folders();
            collected.split_by_folders();
            return Ok(collected);
        }
        [root] => root,
        [first, second, ..] => return Err(two_sets(input, first, second)),
    };
    let mut collected = Collected { images_at: root.join("JPEGImages"), ..Collected::default() };
    for path in sorted_entries(root)? {
        let name = path.file_name().unwrap_or_default();
        if !path.is_dir() {
            collected.passed_over.add(&path.to_string_lossy());
        } else if FOLDERS.iter().any(|folder| name == *folder) {
            take_folder(&mut collected, root, Path::new(name))?;
        } else {
            collected.passed_over.count("folders".into(), &path.to_string_lossy());
        }
    }
    collected.split_by_folders();
    Ok(collected)
}

/// Takes the images of a folder beside that of the XML files.
fn take_images(collected: &mut Collected, folder: &Path) -> Result<()> {
    let mut files = Collected::default();
    take_beside(&mut files, folder, "")?;
    collected.images = files.images;
    folder.clone_into(&mut collected.images_at);
    Ok(())
}

/// Takes all files below a folder, which is at `below` in the set. Links to folders are not followed.
fn take_beside(collected: &mut Collected, folder: &Path, below: &str) -> Result<()> {
    for path in sorted_entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let shown = format!("{below}{name}");
        if name.starts_with('.') {
            collected.passed_over.add_hidden(&shown);
        } else if path.is_dir() && path.is_symlink() {
            collected.passed_over.count("links to folders".into(), &shown);
        } else if path.is_dir() {
            take_beside(collected, &path, &format!("{shown}/"))?;
        } else if !path.exists() {
            collected.passed_over.add_dangling(&shown);
        } else {
            let kind = kind_beside(&shown);
            collected.take(kind, TextFile { path, span: None }, shown)?;
        }
    }
    Ok(())
}

/// Takes all files below `root/folder`. Links to folders are not followed: they may lead back.
fn take_folder(collected: &mut Collected, root: &Path, folder: &Path) -> Result<()> {
    for path in sorted_entries(&root.join(folder))? {
        let below = folder.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            if path.is_symlink() {
                collected.passed_over.count("links to folders".into(), &path.to_string_lossy());
            } else {
                take_folder(collected, root, &below)?;
            }
            continue;
        }
        if !path.exists() {
            collected.passed_over.add_dangling(&path.to_string_lossy());
            continue;
        }
        let Some((_, kind)) = kind_of(&below) else { continue };
        let name =
            if let Kind::Image { below, .. } = &kind { below.clone() } else { String::new() };
        collected.take(kind, TextFile { path, span: None }, name)?;
    }
    Ok(())
}

/// The folders that hold `Annotations`, the input itself first.
fn roots_below(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    if folder.join(FOLDERS[0]).is_dir() {
        return Ok(vec![folder.to_owned()]);
    }
    let mut roots = Vec::new();
    if depth > 0 {
        for path in sorted_entries(folder)? {
            if path.is_dir() && !path.is_symlink() {
                roots.extend(roots_below(&path, depth - 1)?);
            }
        }
    }
    Ok(roots)
}

fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs_err::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}
