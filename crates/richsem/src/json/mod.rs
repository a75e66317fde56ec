//! Users' JSON files: opened however they are packed, read a few megabytes at a time, and explained
//! where they are wrong. One way for annotations, detections and lists of images.

mod records;
mod stream;

use std::{io::Read, path::Path};

use crate::error::{Error, Result};

pub(crate) use records::{Flag, INTEGER, Integer, Record, parse};
pub(crate) use stream::JsonStream;

/// What a file's top level must be.
#[derive(Debug)]
pub(crate) struct Form {
    /// `{` or `[`.
    pub(crate) bracket: u8,
    /// In words.
    pub(crate) expected: &'static str,
    /// What to say where it is the other of the two.
    pub(crate) other: &'static str,
}

/// The file, unpacked where it is a gzip archive.
///
/// # Errors
/// A file that cannot be opened, a folder.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    let mut file = fs_err::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(Error::invalid(path, "top level", "this is a folder")
            .with_hint("give the file (.json) in it; images have their own option"));
    }
    let mut head = Vec::new();
    file.by_ref().take(2).read_to_end(&mut head)?;
    let packed = head == [0x1f, 0x8b];
    let whole = std::io::Cursor::new(head).chain(file);
    Ok(match packed {
        true => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        false => Box::new(whole),
    })
}
