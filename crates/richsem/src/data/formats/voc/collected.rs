//! The files of a VOC set by what they are, whether they lie in a folder or in an archive.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::{
    data::{
        formats::{is_usual, members::Span, place::beginning},
        listing::{PassedOver, is_image},
    },
    error::{Error, Result},
};

/// Bytes of the longest XML file or list that is read.
const LONGEST_TEXT: u64 = 64 << 20;

/// Bytes that are looked at to know what a file is.
const HEAD: usize = 4096;

/// The folders of a set that are looked into.
pub(super) const FOLDERS: [&str; 3] = ["Annotations", "JPEGImages", "ImageSets"];

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
    /// Whether the files do not lie in folders of VOC's names: each XML file beside its image, as labelImg and
    /// Roboflow write them, or images and XML files in folders of their own.
    pub(super) beside: bool,
    /// Folders with names of usual parts, where they are no parts because some annotations lie in none.
    pub(super) unused_parts: Vec<String>,
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

/// Tells the kind of a file in a set whose XML files lie beside the images, by its path in the set.
pub(super) fn kind_beside(path: &str) -> Kind {
    let hidden = path.split('/').any(|part| part.starts_with('.') || part.is_empty());
    // Lists are in their usual folder, wherever the rest lies.
    if let Some((_, Kind::Split(split))) = kind_of(Path::new(path)).filter(|_| !hidden) {
        return Kind::Split(split);
    }
    match path.rsplit_once('.') {
        Some((stem, extension)) if !hidden && extension.eq_ignore_ascii_case("xml") => {
            Kind::Annotation { stem: stem.to_owned() }
        }
        Some((stem, _)) if !hidden && is_image(path) => {
            Kind::Image { stem: stem.to_owned(), below: path.to_owned() }
        }
        _ => Kind::Other,
    }
}

/// Whether a text begins as the annotation of one image does.
pub(in crate::data::formats) fn is_annotation(text: &[u8]) -> bool {
    let text = beginning(&text[..text.len().min(HEAD)]);
    text.contains("<annotation>") || text.contains("<annotation ")
}

impl Collected {
    /// Makes image sets of the folders, if all annotations lie in folders with the names of usual parts, as
    /// Roboflow's `train`, `valid` and `test`. Around them, and in them, may be others.
    pub(super) fn split_by_folders(&mut self) {
        if !self.splits.is_empty() {
            return;
        }
        let stems = self.annotations.keys();
        let all: Vec<Vec<&str>> = stems.map(|stem| folders(stem)).collect();
        let common = all.iter().skip(1).fold(all.first().map_or(0, Vec::len), |common, folders| {
            all[0].iter().zip(folders).take(common).take_while(|(a, b)| a == b).count()
        });
        let usual = |folder: &&&str| is_usual(folder);
        // What tells files apart, at one depth or at several; where all are of one part, the folders around them.
        let at = |level: usize| all.iter().map(|f| f.get(level).filter(usual).copied()).collect();
        let inner = all.iter().map(|f| f[common..].iter().find(usual).copied()).collect();
        let ways = [at(common), inner].into_iter().chain((0..common).rev().map(at));
        let ways: Vec<Vec<Option<&str>>> = ways.collect();
        let Some(parts) = ways.iter().find(|parts| parts.iter().all(Option::is_some)) else {
            let some: BTreeSet<&str> = ways[1].iter().flatten().copied().collect();
            self.unused_parts = some.into_iter().map(str::to_owned).collect();
            return;
        };
        let mut sets: BTreeMap<String, String> = BTreeMap::new();
        for (stem, part) in self.annotations.keys().zip(parts.iter().flatten()) {
            let list = sets.entry((*part).to_owned()).or_default();
            list.push_str(stem);
            list.push('\n');
        }
        self.splits = sets;
    }

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

/// The folders of a path.
fn folders(path: &str) -> Vec<&str> {
    path.rsplit_once('/').map_or_else(Vec::new, |(folders, _)| folders.split('/').collect())
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
