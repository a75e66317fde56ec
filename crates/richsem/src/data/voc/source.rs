//! Where a VOC set is read from: a folder, or an archive of one.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::atomic::AtomicBool,
};

use super::xml::{self, Annotated};
use crate::error::{Error, Result, unless_stopped};

/// The image sets that are looked for, in the order in which they are written.
pub(super) const SPLITS: [&str; 4] = ["train", "val", "trainval", "test"];

const PICTURES: [&str; 4] = ["jpg", "jpeg", "png", "bmp"];

/// No XML file or list is longer than this.
const LONGEST_TEXT: u64 = 64 << 20;

/// A set's texts, and where its pictures are.
#[derive(Default)]
pub(super) struct Collected {
    /// By name without extension, which is the picture's id in VOC.
    pub(super) annotations: BTreeMap<String, Annotated>,
    /// File names by name without extension.
    pub(super) pictures: BTreeMap<String, String>,
    /// The text of each image set.
    pub(super) splits: BTreeMap<&'static str, String>,
    /// The folder of the pictures.
    pub(super) image_root: PathBuf,
}

/// What a file of a set is.
enum Kind {
    Annotation { stem: String },
    Picture { stem: String, name: String },
    Split(&'static str),
}

/// Tells the kind from the path, and the folder that the set lies in.
fn kind_of(path: &Path) -> Option<(PathBuf, Kind)> {
    let name = path.file_name()?.to_str()?;
    let stem = path.file_stem()?.to_str()?.to_owned();
    // `._x.xml` and the like: what macOS leaves in archives.
    if name.starts_with('.') {
        return None;
    }
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase();
    let folder = path.parent()?;
    match (folder.file_name()?.to_str()?, extension.as_str()) {
        ("Annotations", "xml") => Some((folder.parent()?.into(), Kind::Annotation { stem })),
        ("JPEGImages", e) if PICTURES.contains(&e) => {
            Some((folder.parent()?.into(), Kind::Picture { stem, name: name.to_owned() }))
        }
        ("Main", "txt") if folder.parent()?.file_name()? == "ImageSets" => {
            let split = SPLITS.into_iter().find(|split| *split == stem)?;
            Some((folder.parent()?.parent()?.into(), Kind::Split(split)))
        }
        _ => None,
    }
}

impl Collected {
    /// Takes the text of an annotation or image set; `file` is for messages.
    fn take_text(&mut self, kind: Kind, file: &Path, text: Vec<u8>) -> Result<()> {
        match kind {
            Kind::Annotation { stem } => {
                self.annotations.insert(stem, xml::parse(file, &text)?);
            }
            Kind::Split(split) => {
                let text = String::from_utf8(text).map_err(|_| {
                    Error::invalid(file, "image set", "not UTF-8 text")
                        .with_hint("save it as UTF-8")
                })?;
                self.splits.insert(split, text.trim_start_matches('\u{feff}').to_owned());
            }
            Kind::Picture { stem, name } => {
                self.pictures.insert(stem, name);
            }
        }
        Ok(())
    }
}

/// Two sets at once have no common meaning: their pictures share names.
fn two_sets(input: &Path, first: &Path, second: &Path) -> Error {
    let problem = format!("two sets in one: `{}` and `{}`", first.display(), second.display());
    Error::invalid(input, "Annotations", problem).with_hint("convert them one at a time")
}

/// Reads a folder. The pictures stay where they are.
pub(super) fn from_folder(input: &Path, stop: &AtomicBool) -> Result<Collected> {
    let roots = roots_below(input, 3)?;
    let root = match roots.as_slice() {
        [] => return Ok(Collected::default()),
        [root] => root,
        [first, second, ..] => return Err(two_sets(input, first, second)),
    };
    let mut collected = Collected { image_root: root.join("JPEGImages"), ..Collected::default() };
    for folder in ["Annotations", "JPEGImages", "ImageSets/Main"] {
        let folder = root.join(folder);
        if !folder.is_dir() {
            continue;
        }
        for path in sorted_entries(&folder)? {
            unless_stopped(stop)?;
            match kind_of(&path) {
                None => {}
                Some((_, kind @ Kind::Picture { .. })) => {
                    collected.take_text(kind, &path, Vec::new())?;
                }
                Some((_, kind)) => {
                    let text = text_of(&path, fs_err::File::open(&path)?)?;
                    collected.take_text(kind, &path, text)?;
                }
            }
        }
    }
    Ok(collected)
}

/// The folders that hold `Annotations`, the input itself first.
fn roots_below(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    if folder.join("Annotations").is_dir() {
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

fn text_of(file: &Path, reader: impl Read) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    reader.take(LONGEST_TEXT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST_TEXT {
        return Err(Error::invalid(file, "XML", "longer than 64 MiB")
            .with_hint("this is no annotation of one picture"));
    }
    Ok(text)
}

/// Reads an archive front to back once, writing its pictures to `images`.
pub(super) fn from_tar(input: &Path, images: &Path, stop: &AtomicBool) -> Result<Collected> {
    let broken = |e: &dyn std::fmt::Display| {
        Error::invalid(input, "archive", format!("not a readable .tar: {e}")).with_hint(
            "expected a folder or an uncompressed .tar; unpack .tar.gz and .zip first, and if it \
             is a .tar, it may be truncated: compare its size with the original's",
        )
    };
    let mut file = fs_err::File::open(input)?;
    let mut magic = [0; 4];
    let read = file.read(&mut magic)?;
    match &magic[..read] {
        [0x1f, 0x8b, ..] => return Err(broken(&"it is compressed with gzip")),
        [b'P', b'K', 3, 4] => return Err(broken(&"it is a zip archive")),
        _ => io::Seek::rewind(&mut file)?,
    }
    let mut collected = Collected { image_root: images.to_owned(), ..Collected::default() };
    let mut root: Option<PathBuf> = None;
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(1 << 20, file));
    for entry in archive.entries().map_err(|e| broken(&e))? {
        unless_stopped(stop)?;
        let mut entry = entry.map_err(|e| broken(&e))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path: PathBuf = entry
            .path()
            .map_err(|e| broken(&e))?
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        let Some((set, kind)) = kind_of(&path) else { continue };
        match &root {
            None => root = Some(set),
            Some(first) if *first != set => return Err(two_sets(input, first, &set)),
            Some(_) => {}
        }
        let (shown, size) = (input.join(&path), entry.size());
        let cut_short = || broken(&format!("`{}` is cut short", path.display()));
        if let Kind::Picture { name, .. } = &kind {
            // `name` is a file name alone, so nothing can be written outside `images`.
            fs_err::create_dir_all(images)?;
            let mut picture = fs_err::File::create(images.join(name))?;
            if io::copy(&mut entry, &mut picture)? < size {
                return Err(cut_short());
            }
            collected.take_text(kind, &shown, Vec::new())?;
        } else {
            let text = text_of(&shown, &mut entry)?;
            if (text.len() as u64) < size {
                return Err(cut_short());
            }
            collected.take_text(kind, &shown, text)?;
        }
    }
    Ok(collected)
}
