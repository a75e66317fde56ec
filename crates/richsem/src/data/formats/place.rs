//! What lies at a path, as far as it takes to recognise a format.

use std::{
    borrow::Cow,
    cell::OnceCell,
    collections::BTreeSet,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::{
    data::{
        image_store::{ImageStore, packed},
        reading::{Watch, open_store},
        records::ImageRecord,
    },
    error::Result,
    json,
};

/// Bytes that are read of a file to recognise it.
const HEAD: u64 = 64 << 10;

/// What parquet files begin with.
pub(super) const PARQUET: &[u8] = b"PAR1";

/// Names that a message shows of a folder.
const SHOWN: usize = 6;

/// Images whose files are looked for, to know a folder of images again.
const LOOKED_FOR: usize = 20;

/// A file or folder whose format is asked for; or several parquet files, by a pattern.
pub(in crate::data) struct Place {
    path: PathBuf,
    /// The file whose head is looked at: the first one of a pattern.
    first: PathBuf,
    folder: bool,
    /// Of a folder: the names of what is in it, folders with a `/` at their end, sorted. Hidden ones are
    /// left out.
    names: Vec<String>,
    head: OnceCell<Vec<u8>>,
}

impl Place {
    /// # Errors
    /// A path that does not exist, or a folder that cannot be read.
    pub(in crate::data) fn new(path: &Path) -> Result<Self> {
        let place = |first: &Path, folder, names| {
            let (path, first) = (path.to_owned(), first.to_owned());
            Self { path, first, folder, names, head: OnceCell::new() }
        };
        if let Some(first) = ImageStore::files_of(path)?.and_then(|files| files.into_iter().next())
        {
            let several = place(&first, false, Vec::new());
            if several.head().starts_with(PARQUET) {
                return Ok(several);
            }
        }
        let folder = fs_err::metadata(path)?.is_dir();
        let names = if folder { names_in(path)? } else { Vec::new() };
        Ok(place(path, folder, names))
    }

    /// The file, or the first of several.
    pub(in crate::data) fn first_file(&self) -> &Path {
        &self.first
    }

    pub(in crate::data) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::data) fn is_folder(&self) -> bool {
        self.folder
    }

    /// The place below it, a file or folder; none if there is none that can be read.
    pub(in crate::data) fn below(&self, name: &str) -> Option<Self> {
        if self.folder { Self::new(&self.path.join(name)).ok() } else { None }
    }

    /// Names of the files of a folder, sorted.
    pub(in crate::data) fn files(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str).filter(|name| !name.ends_with('/'))
    }

    /// Names of the folders of a folder, sorted.
    pub(in crate::data) fn folders(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| name.strip_suffix('/'))
    }

    /// The first bytes of a file, unpacked if it is a gzip archive, without a byte order mark; empty if it
    /// cannot be read.
    pub(in crate::data) fn head(&self) -> &[u8] {
        let head = self.head.get_or_init(|| {
            let mut head = Vec::new();
            if !self.folder
                && let Ok(file) = json::open(&self.first)
            {
                // What is wrong with it, its reader will say.
                let _ = file.take(HEAD).read_to_end(&mut head);
            }
            head
        });
        head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head)
    }

    /// As [`Self::head`], as text.
    pub(in crate::data) fn text(&self) -> Cow<'_, str> {
        beginning(self.head())
    }

    /// Whether the name of a file ends so, in upper or lower case.
    pub(in crate::data) fn ends_with(&self, end: &str) -> bool {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        !self.folder && name.ends_with(end)
    }

    /// Whether it is an archive that may be read in place, by its name or its first bytes.
    pub(in crate::data) fn is_tar(&self) -> bool {
        let magic = self.head().get(257..262);
        !self.folder && (self.ends_with(".tar") || magic == Some(b"ustar"))
    }

    /// What it is, and what unpacks it, if it is an archive that is not read in place.
    pub(super) fn packed(&self) -> Option<(&'static str, String)> {
        if self.folder { None } else { packed(self.path(), self.first_file()) }
    }

    /// What was found, for a message that no format fits.
    pub(in crate::data) fn describe(&self) -> String {
        if self.folder {
            let shown: Vec<_> = self.names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect();
            let more = if self.names.len() > SHOWN { ", …" } else { "" };
            return match shown.as_slice() {
                [] => "expected annotations, got an empty folder".to_owned(),
                _ => format!(
                    "expected annotations, got a folder of no known format, with {}{more}",
                    shown.join(", ")
                ),
            };
        }
        if let Some((what, _)) = self.packed() {
            return format!("expected annotations, got a file that is {what}");
        }
        if self.is_tar() {
            return "expected annotations, got an archive without any that are read in it"
                .to_owned();
        }
        let text = self.text();
        if text.contains('\0') {
            return "expected annotations, got a binary file of no known format".to_owned();
        }
        let start: String = text.chars().take(40).collect();
        match start.as_str() {
            "" => "expected annotations, got an empty file".to_owned(),
            _ => format!(
                "expected annotations, got a file of no known format; it begins with `{}`",
                start.escape_debug()
            ),
        }
    }
}

/// The text that a file begins with, to see what it is: UTF-8, or UTF-16 where it shows. What is neither is
/// replaced.
pub(super) fn beginning(head: &[u8]) -> Cow<'_, str> {
    let encoding = match head {
        // XML without a byte order mark.
        [b'<', 0, ..] => encoding_rs::UTF_16LE,
        [0, b'<', ..] => encoding_rs::UTF_16BE,
        _ => encoding_rs::UTF_8,
    };
    encoding.decode(head).0
}

/// Names in a folder, those of folders with a `/` at their end, sorted. Links are followed.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            let kind = entry.file_type()?;
            let is_folder = kind.is_dir() || kind.is_symlink() && entry.path().is_dir();
            names.insert(if is_folder { format!("{name}/") } else { name });
        }
    }
    Ok(names.into_iter().collect())
}

/// A sample of a set's images, from all over it: often a part of it is missing.
pub(in crate::data) fn sample(images: &[ImageRecord]) -> Vec<&str> {
    let every = (images.len() / LOOKED_FOR).max(1);
    images.iter().step_by(every).map(|image| image.file_name.as_str()).collect()
}

/// Of several ways to find images the one by which most are `held`, and the first of these; none if no image is.
/// A way that holds `all` of them ends it: a name may exist by accident in the wrong place, and all of them do not.
pub(in crate::data) fn most_held<T>(
    all: usize,
    ways: impl IntoIterator<Item = T>,
    held: impl Fn(&T) -> usize,
) -> Option<T> {
    let (mut most, mut best) = (0, None);
    for way in ways {
        let held = held(&way);
        if held > most {
            (most, best) = (held, Some(way));
        }
        if most == all {
            break;
        }
    }
    best
}

/// Folders and archives that may hold a set's images; each is opened when it is first looked into.
pub(in crate::data) struct Roots<'a> {
    places: Vec<PathBuf>,
    stores: Vec<OnceCell<Option<ImageStore>>>,
    watch: Watch<'a>,
}

impl<'a> Roots<'a> {
    pub(in crate::data) fn new(places: Vec<PathBuf>, watch: Watch<'a>) -> Self {
        let stores = places.iter().map(|_| OnceCell::new()).collect();
        Self { places, stores, watch }
    }

    /// The one that holds most of the images, and which of the lists of their names it holds.
    pub(in crate::data) fn find<N: AsRef<str>>(&self, lists: &[Vec<N>]) -> Option<(usize, &Path)> {
        let all = lists.first().map_or(0, Vec::len);
        let roots = 0..self.places.len();
        let ways = (0..lists.len()).flat_map(|list| roots.clone().map(move |root| (list, root)));
        let held = |&(list, root): &(usize, usize)| {
            let open = || open_store(&self.places[root], Default::default(), self.watch).ok();
            let store = self.stores[root].get_or_init(open).as_ref();
            let held = |name: &&N| store.is_some_and(|store| store.contains(name.as_ref()));
            lists[list].iter().filter(held).count()
        };
        most_held(all, ways, held).map(|(list, root)| (list, self.places[root].as_path()))
    }
}
