//! What lies at a path: known by what is in it, not by its name.

use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{archives, pattern};
use crate::{Error, Result, data::listing::is_image};

/// What a store of images can be, and what looks like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// A folder of images, or of folders of them.
    Folder,
    /// One tar archive, perhaps of archives.
    Archive,
    /// Tar archives of a folder or a pattern, be it one: shards, or one for each class.
    Archives,
    /// One or more parquet files.
    Parquet,
    /// A table of captions and URLs, as CC3M's. The images are elsewhere: such a table is no store.
    CaptionUrls,
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "a folder",
            Self::Archive => "a tar archive",
            Self::Archives => "several tar archives",
            Self::Parquet => "parquet",
            Self::CaptionUrls => "a table of captions and URLs",
        })
    }
}

/// A kind of store, and its files; none of a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recognised {
    pub(super) kind: StoreKind,
    pub(super) files: Vec<PathBuf>,
}

/// What lies at a path. A folder whose files are tar archives or parquet, with neither images nor folders
/// beside them, is a store of these; so is a folder with nothing but such a folder `data`, as on Hugging
/// Face. A pattern (`shard-{0000..0127}.tar`, `train-*.parquet`) names several files.
///
/// # Errors
/// Nothing is there, it cannot be read, or files of a pattern are of several kinds.
pub(super) fn recognise(path: &Path) -> Result<Recognised> {
    if let Some(files) = pattern::files(path)? {
        let kind = several(path, &files)?;
        return Ok(Recognised { kind, files });
    }
    if fs_err::metadata(path)?.is_dir() {
        return folder(path);
    }
    let kind = file(path)?;
    Ok(Recognised { kind, files: vec![path.to_owned()] })
}

/// Of the files of a pattern.
fn several(path: &Path, files: &[PathBuf]) -> Result<StoreKind> {
    let kinds = files.iter().map(|path| file(path)).collect::<Result<Vec<_>>>()?;
    let differs = kinds.iter().position(|kind| *kind != kinds[0]);
    if let Some(i) = differs {
        let problem = format!(
            "files of several kinds: `{}` is {}, `{}` is {}",
            files[0].display(),
            kinds[0],
            files[i].display(),
            kinds[i]
        );
        return Err(Error::invalid(path, "pattern", problem));
    }
    match kinds[0] {
        StoreKind::Archive => Ok(StoreKind::Archives),
        kind => Ok(kind),
    }
}

/// Of a file. What is nothing else is taken for an archive: the one who opens it says what it is not.
fn file(path: &Path) -> Result<StoreKind> {
    /// Bytes looked at.
    const HEAD: u64 = 1 << 16;
    let mut head = Vec::new();
    fs_err::File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(if head.starts_with(b"PAR1") {
        StoreKind::Parquet
    } else if !archives::is_header(&head) && is_caption_urls(&head) {
        StoreKind::CaptionUrls
    } else {
        StoreKind::Archive
    })
}

/// Whether the first line is a caption, a tab and a URL.
fn is_caption_urls(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(line) = str::from_utf8(line) else { return false };
    let mut columns = line.trim_end_matches('\r').split('\t');
    let (Some(_), Some(url), None) = (columns.next(), columns.next(), columns.next()) else {
        return false;
    };
    url.starts_with("http://") || url.starts_with("https://")
}

/// What lies directly in a folder; hidden files and folders are left out.
#[derive(Default)]
struct Inside {
    folders: Vec<PathBuf>,
    archives: Vec<PathBuf>,
    tables: Vec<PathBuf>,
    images: bool,
}

fn look_into(folder: &Path) -> Result<Inside> {
    let mut inside = Inside::default();
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is = |extension| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
        if name.starts_with('.') {
            continue;
        } else if is_image(&name) {
            inside.images = true;
            // Nothing else matters then, and such a folder may be large.
            break;
        } else if path.is_dir() {
            inside.folders.push(path);
        } else if is("tar") {
            inside.archives.push(path);
        } else if is("parquet") {
            inside.tables.push(path);
        }
    }
    inside.archives.sort_unstable();
    inside.tables.sort_unstable();
    Ok(inside)
}

/// The archives directly in a folder of images or folders: they are not opened. Sorted.
pub(super) fn unopened(folder: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut archives: Vec<String> = names
        .filter(|name| !name.starts_with('.'))
        .filter(|name| name.len() > 4 && name.to_ascii_lowercase().ends_with(".tar"))
        .collect();
    archives.sort_unstable();
    archives
}

fn folder(path: &Path) -> Result<Recognised> {
    let plain = Recognised { kind: StoreKind::Folder, files: Vec::new() };
    let mut inside = look_into(path)?;
    if let [only] = &inside.folders[..]
        && only.file_name().is_some_and(|name| name == "data")
        && !inside.images
        && inside.archives.is_empty()
        && inside.tables.is_empty()
    {
        inside = look_into(only)?;
    }
    let Inside { folders, archives, tables, images } = inside;
    if images || !folders.is_empty() {
        return Ok(plain);
    }
    // img2dataset writes a table of facts beside each archive.
    let archives: Vec<PathBuf> = match archives.first() {
        Some(first) if file(first)? == StoreKind::Archive => archives,
        _ => Vec::new(),
    };
    if !archives.is_empty() {
        return Ok(Recognised { kind: StoreKind::Archives, files: archives });
    }
    match tables.first() {
        Some(first) if file(first)? == StoreKind::Parquet => {
            Ok(Recognised { kind: StoreKind::Parquet, files: tables })
        }
        _ => Ok(plain),
    }
}
