//! Where a VOC set is read from: a folder, or an archive of one.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::atomic::AtomicBool,
};

use super::xml::{self, Annotated};
use crate::{
    data::listing::{PassedOver, is_image},
    error::{Error, Result, unless_stopped},
};

/// Bytes of the longest XML file or list that is read.
const LONGEST_TEXT: u64 = 64 << 20;

/// A set's texts, and where its images are.
#[derive(Default)]
pub(super) struct Collected {
    /// By path below `Annotations` without extension, which is the image's id in VOC.
    pub(super) annotations: BTreeMap<String, Annotated>,
    /// Paths below `JPEGImages`, by these without extension.
    pub(super) images: BTreeMap<String, String>,
    /// The text of each image set, by its name.
    pub(super) splits: BTreeMap<String, String>,
    /// The folder that the paths of `images` are relative to.
    pub(super) image_root: PathBuf,
    /// What was taken for none of these.
    pub(super) passed_over: PassedOver,
}

/// What a file of a set is.
enum Kind {
    Annotation { stem: String },
    Image { stem: String, name: String },
    Split(String),
    Other,
}

/// The folders of a set that are looked into.
const FOLDERS: [&str; 3] = ["Annotations", "JPEGImages", "ImageSets"];

/// Tells the kind from the path, and the folder that the set lies in; none for what lies in no set.
fn kind_of(path: &Path) -> Option<(PathBuf, Kind)> {
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
        ("JPEGImages", _) if is_image(&name) => Kind::Image { stem, name },
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
    /// Takes the text of an annotation or image set; `file` is for messages.
    fn take_text(&mut self, kind: Kind, file: &Path, text: Vec<u8>) -> Result<()> {
        let twice = |what: &str, hint: &str| {
            Err(Error::invalid(file, what, "there is another of this name").with_hint(hint))
        };
        match kind {
            Kind::Annotation { stem } => {
                if self.annotations.insert(stem, xml::parse(file, &text)?).is_some() {
                    return twice("annotation", "the archive has it twice: keep one");
                }
            }
            Kind::Split(split) => {
                let text = String::from_utf8(text).map_err(|_| {
                    Error::invalid(file, "image set", "not UTF-8 text")
                        .with_hint("save it as UTF-8")
                })?;
                let text = text.trim_start_matches('\u{feff}').to_owned();
                if self.splits.insert(split, text).is_some() {
                    return twice(
                        "image set",
                        "ImageSets and ImageSets/Main both have it: keep one",
                    );
                }
            }
            Kind::Image { stem, name } => {
                if let Some(other) = self.images.insert(stem, name) {
                    let hint = format!("`{other}` and this one: which do the boxes belong to?");
                    return twice("image", &hint);
                }
            }
            Kind::Other => self.passed_over.add(&file.to_string_lossy()),
        }
        Ok(())
    }
}

/// Two sets at once have no common meaning: their images share names.
fn two_sets(input: &Path, first: &Path, second: &Path) -> Error {
    let problem = format!("two sets in one: `{}` and `{}`", first.display(), second.display());
    Error::invalid(input, "Annotations", problem).with_hint("convert them one at a time")
}

/// Reads a folder. The images stay where they are.
pub(super) fn from_folder(input: &Path, stop: &AtomicBool) -> Result<Collected> {
    let roots = roots_below(input, 3)?;
    let root = match roots.as_slice() {
        [] => return Ok(Collected::default()),
        [root] => root,
        [first, second, ..] => return Err(two_sets(input, first, second)),
    };
    let mut collected = Collected { image_root: root.join("JPEGImages"), ..Collected::default() };
    for path in sorted_entries(root)? {
        let name = path.file_name().unwrap_or_default();
        if !path.is_dir() {
            collected.passed_over.add(&path.to_string_lossy());
        } else if FOLDERS.iter().any(|folder| name == *folder) {
            take_folder(&mut collected, root, Path::new(name), stop)?;
        } else {
            collected.passed_over.count("folders".into(), &path.to_string_lossy());
        }
    }
    Ok(collected)
}

/// Takes all files below `root/folder`. Links to folders are not followed: they may lead back.
fn take_folder(
    collected: &mut Collected,
    root: &Path,
    folder: &Path,
    stop: &AtomicBool,
) -> Result<()> {
    for path in sorted_entries(&root.join(folder))? {
        unless_stopped(stop)?;
        let below = folder.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            if path.is_symlink() {
                collected.passed_over.count("links to folders".into(), &path.to_string_lossy());
            } else {
                take_folder(collected, root, &below, stop)?;
            }
            continue;
        }
        if !path.exists() {
            collected.passed_over.add_dangling(&path.to_string_lossy());
            continue;
        }
        let Some((_, kind)) = kind_of(&below) else { continue };
        let text = match kind {
            Kind::Annotation { .. } | Kind::Split(_) => text_of(&path, fs_err::File::open(&path)?)?,
            Kind::Image { .. } | Kind::Other => Vec::new(),
        };
        collected.take_text(kind, &path, text)?;
    }
    Ok(())
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
            .with_hint("this is no annotation of one image"));
    }
    Ok(text)
}

/// Reads an archive front to back once, writing its images to `images`.
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
        let entry_type = entry.header().entry_type();
        let path: PathBuf = entry
            .path()
            .map_err(|e| broken(&e))?
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        if entry_type.is_symlink() || entry_type.is_hard_link() {
            collected.passed_over.count("links within the archive".into(), &path.to_string_lossy());
        }
        if !entry_type.is_file() {
            continue;
        }
        let known = kind_of(&path).filter(|(_, kind)| !matches!(kind, Kind::Other));
        let Some((set, kind)) = known else {
            collected.passed_over.add(&path.to_string_lossy());
            continue;
        };
        match &root {
            None => root = Some(set),
            Some(first) if *first != set => return Err(two_sets(input, first, &set)),
            Some(_) => {}
        }
        let (file, size) = (input.join(&path), entry.size());
        let (text, read) = if let Kind::Image { name, .. } = &kind {
            (Vec::new(), write_image(images, name, &mut entry)?)
        } else {
            let text = text_of(&file, &mut entry)?;
            let read = text.len() as u64;
            (text, read)
        };
        if read < size {
            return Err(broken(&format!("`{}` is cut short", path.display())));
        }
        collected.take_text(kind, &file, text)?;
    }
    Ok(collected)
}

/// Writes an image of an archive into a folder. Returns how many bytes it has.
fn write_image(folder: &Path, name: &str, image: &mut impl Read) -> Result<u64> {
    // No part of `name` begins with a dot, so nothing can be written outside the folder.
    let target = folder.join(name);
    fs_err::create_dir_all(target.parent().unwrap_or(folder))?;
    Ok(io::copy(image, &mut fs_err::File::create(target)?)?)
}
