//! Where a VOC set is read from: a folder, or an archive of one. What files it has, and their kinds.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    Place,
    archive::{self, Span},
};
use crate::{
    data::listing::{PassedOver, is_image},
    error::{Error, Result},
};

/// Bytes of the longest XML file or list that is read.
const LONGEST_TEXT: u64 = 64 << 20;

/// How deep below the given folder a set may lie.
const DEPTH: usize = 3;

/// Most entries of a folder that is looked into for a set: one with more is a folder of images.
const MOST_ENTRIES: usize = 1000;

/// The folders of a set that are looked into.
const FOLDERS: [&str; 3] = ["Annotations", "JPEGImages", "ImageSets"];

/// A set's files, and where its images are.
#[derive(Default)]
pub(super) struct Collected {
    /// By path below `Annotations` without extension, which is the image's id in VOC.
    pub(super) annotations: BTreeMap<String, TextFile>,
    /// By path below `JPEGImages` without extension.
    pub(super) images: BTreeMap<String, ImageFile>,
    /// The text of each image set, by its name.
    pub(super) splits: BTreeMap<String, String>,
    /// The folder `JPEGImages`, or the archive.
    pub(super) images_at: PathBuf,
    /// What was taken for none of these.
    pub(super) passed_over: PassedOver,
    /// The archive, if it is one.
    pub(super) archive: Option<fs_err::File>,
}

/// A text that is not read yet.
pub(super) struct TextFile {
    /// Its path, in an archive below that of the archive.
    pub(super) path: PathBuf,
    /// Where it lies in the archive.
    pub(super) span: Option<Span>,
}

/// An image's names.
#[derive(Clone)]
pub(super) struct ImageFile {
    /// Path below `JPEGImages`.
    pub(super) below: String,
    /// What the store of the images calls it.
    pub(super) name: String,
}

/// What a file of a set is.
pub(super) enum Kind {
    Annotation { stem: String },
    Image { stem: String, below: String },
    Split(String),
    Other,
}

/// Tells the kind from the path, and the folder that the set lies in; none for what lies in no set.
pub(super) fn kind_of(path: &Path) -> Option<(PathBuf, Kind)> {
    let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap_or_default()).collect();
    let at = parts.iter().position(|part| FOLDERS.contains(part))?;
    let (root, below) = (path.iter().take(at).collect(), &parts[at + 1..]);
    let Some(&file) = below.last() else { return Some((root, Kind::Other)) };
    let name = below.join("/");
    // `._x.xml` and the like: what macOS leaves in archives.
    let hidden = below.iter().any(|part| part.starts_with('.') || part.is_empty());
    let (stem, extension) = match (hidden, file.rsplit_once('.')) {
        (false, Some((_, extension))) => {
            (name[..name.len() - extension.len() - 1].to_owned(), extension.to_lowercase())
        }
        _ => return Some((root, Kind::Other)),
    };
    let kind = match (parts[at], extension.as_str()) {
        ("Annotations", "xml") => Kind::Annotation { stem },
        ("JPEGImages", _) if is_image(&name) => Kind::Image { stem, below: name },
        // Main is the detection task's; other folders hold those of other tasks.
        ("ImageSets", "txt") if !stem.contains('/') => Kind::Split(stem),
        ("ImageSets", "txt") => match stem.strip_prefix("Main/") {
            Some(stem) if !stem.contains('/') => Kind::Split(stem.to_owned()),
            _ => Kind::Other,
        },
        _ => Kind::Other,
    };
    Some((root, kind))
}

impl Collected {
    /// Takes a file of a kind. `name` is what the store of the images calls it.
    pub(super) fn take(&mut self, kind: Kind, file: TextFile, name: String) -> Result<()> {
        match kind {
            Kind::Annotation { stem } => {
                if let Some(other) = self.annotations.insert(stem, file) {
                    return Err(Error::invalid(
                        &other.path,
                        "annotation",
                        "there is another of this name",
                    )
                    .with_hint("the archive has it twice: keep one"));
                }
            }
            Kind::Split(split) => {
                let text = self.text(&file)?.1;
                let text = String::from_utf8(text).map_err(|_| {
                    Error::invalid(&file.path, "image set", "not UTF-8 text")
                        .with_hint("save it as UTF-8")
                })?;
                let text = text.trim_start_matches('\u{feff}').to_owned();
                if self.splits.insert(split, text).is_some() {
                    return Err(Error::invalid(
                        &file.path,
                        "image set",
                        "there is another of this name",
                    )
                    .with_hint("ImageSets and ImageSets/Main both have it: keep one"));
                }
            }
            Kind::Image { stem, below } => {
                if let Some(other) = self.images.insert(stem, ImageFile { below, name }) {
                    return Err(twice(&file.path, &other.below));
                }
            }
            Kind::Other => self.passed_over.add(&file.path.to_string_lossy()),
        }
        Ok(())
    }

    /// Reads a text. Its path is for messages.
    pub(super) fn text<'a>(&self, file: &'a TextFile) -> Result<(Cow<'a, Path>, Vec<u8>)> {
        let text = match (&self.archive, file.span) {
            (Some(archive), Some(span)) if span.length <= LONGEST_TEXT => span.read(archive)?,
            (Some(_), Some(_)) => return Err(too_long(&file.path)),
            _ => {
                let mut text = Vec::new();
                let opened = fs_err::File::open(&file.path)?;
                opened.take(LONGEST_TEXT + 1).read_to_end(&mut text)?;
                if text.len() as u64 > LONGEST_TEXT {
                    return Err(too_long(&file.path));
                }
                text
            }
        };
        Ok((Cow::Borrowed(&file.path), text))
    }
}

/// Two images of one name.
pub(super) fn twice(file: &Path, other: &str) -> Error {
    Error::invalid(file, "image", "there is another of this name")
        .with_hint(format!("`{other}` and this one: which do the boxes belong to?"))
}

fn too_long(file: &Path) -> Error {
    Error::invalid(file, "XML", "longer than 64 MiB")
        .with_hint("this is no annotation of one image")
}

/// Two sets at once have no common meaning: their images share names.
pub(super) fn two_sets(input: &Path, first: &Path, second: &Path) -> Error {
    let problem = format!("two sets in one: `{}` and `{}`", first.display(), second.display());
    Error::invalid(input, "Annotations", problem).with_hint("give one of them")
}

/// What shows that there is such a set: an XML file in a folder `Annotations`.
pub(super) fn recognise(place: &Place) -> Option<String> {
    let found = if place.is_folder() {
        annotation_below(place.path(), DEPTH)
            .map(|path| path.strip_prefix(place.path()).map(Path::to_owned).unwrap_or(path))
    } else {
        archive::first_annotation(place.path())
    };
    found.map(|path| format!("there is {}", path.display()))
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
    let roots = roots_below(input, DEPTH)?;
    let root = match roots.as_slice() {
        [] => return Ok(Collected::default()),
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
    Ok(collected)
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
