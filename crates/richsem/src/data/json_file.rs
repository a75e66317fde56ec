//! The COCO or LVIS file that a set was read from: a file of its own, or one in a `.tar`.

use std::{
    io::{Read, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use crate::{error::Result, json};

/// Such a file, to be read again.
#[derive(Debug, Clone)]
pub(in crate::data) struct JsonFile {
    path: PathBuf,
    inside: Option<Inside>,
}

/// Where a file lies in an archive.
#[derive(Debug, Clone)]
struct Inside {
    archive: PathBuf,
    /// In bytes, from the archive's beginning.
    offset: u64,
    /// In bytes.
    length: u64,
}

impl JsonFile {
    /// A file of its own.
    pub(in crate::data) fn at(path: PathBuf) -> Self {
        Self { path, inside: None }
    }

    /// A file of an archive. `path` is its path there.
    pub(in crate::data) fn inside(archive: &Path, path: &Path, offset: u64, length: u64) -> Self {
        let inside = Inside { archive: archive.to_owned(), offset, length };
        Self { path: archive.join(path), inside: Some(inside) }
    }

    /// What messages call it; no other file has this path.
    pub(in crate::data) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it. If it is packed with gzip, reading unpacks it.
    ///
    /// # Errors
    /// It, or its archive, cannot be read.
    pub(in crate::data) fn open(&self) -> Result<Box<dyn Read + Send>> {
        let Some(inside) = &self.inside else { return json::open(&self.path) };
        let mut archive = fs_err::File::open(&inside.archive)?;
        archive.seek(SeekFrom::Start(inside.offset))?;
        Ok(json::counted(archive.take(inside.length), inside.length)?.0)
    }
}
