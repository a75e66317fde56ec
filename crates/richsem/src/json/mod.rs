//! Users' JSON files: unpacked if they are gzip archives, read a few megabytes at a time, and their
//! mistakes explained. Annotations, detections and lists of images are all read this way.

mod records;
mod stream;

use std::{
    io::{self, BufRead as _, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::GzDecoder;

use crate::error::{Error, Result};

pub(crate) use records::{ID, INTEGER, Id, Integer, JsonRecord, ZeroOrOne, parse};
pub(crate) use stream::JsonStream;

/// What a file's top level must be.
#[derive(Debug)]
pub(crate) struct TopLevel {
    /// The first character: `{` or `[`.
    pub(crate) bracket: u8,
    /// What is expected, in words.
    pub(crate) expected: &'static str,
    /// The hint if it is the other of the two.
    pub(crate) other: &'static str,
}

/// Opens a file. If it is a gzip archive, reading unpacks it.
///
/// # Errors
/// A file that cannot be opened, a folder.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read + Send>> {
    Ok(open_counted(path)?.0)
}

/// How much of a file was read.
#[derive(Debug, Clone)]
pub(crate) struct Counter {
    bytes: Arc<AtomicU64>,
    of: u64,
}

impl Counter {
    /// Bytes of the file that are read, and all of them.
    pub(crate) fn get(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.of)
    }
}

/// Counts the bytes that are read.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// As [`open`], with what says how much of the file was read (of the archive, if it is one).
///
/// # Errors
/// As [`open`].
pub(crate) fn open_counted(path: &Path) -> Result<(Box<dyn Read + Send>, Counter)> {
    let file = fs_err::File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Error::invalid(path, "top level", "this is a folder")
            .with_hint("give the file (.json) in it; images have their own option"));
    }
    counted(file, metadata.len())
}

/// As [`open_counted`], of something of that many bytes that is open already, as a file in an archive.
///
/// # Errors
/// It cannot be read.
pub(crate) fn counted(
    mut file: impl Read + Send + 'static,
    of: u64,
) -> Result<(Box<dyn Read + Send>, Counter)> {
    let mut head = Vec::new();
    file.by_ref().take(2).read_to_end(&mut head)?;
    let packed = head == [0x1f, 0x8b];
    let counter = Counter { bytes: Arc::default(), of };
    let file = Counted { inner: file, bytes: Arc::clone(&counter.bytes) };
    let whole = io::Cursor::new(head).chain(file);
    let reader: Box<dyn Read + Send> = if packed {
        Box::new(Members(Some(GzDecoder::new(BufReader::new(whole)))))
    } else {
        Box::new(whole)
    };
    Ok((reader, counter))
}

/// Reads the contents of a gzip archive: of one member, or of several that were joined. None after the
/// last.
///
/// As in gzip, zeros up to the end of the file are ignored: tapes and block copies add them. Anything else
/// after a member is an error, because it might hold records.
struct Members<R>(Option<GzDecoder<BufReader<R>>>);

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let got = member.read(buffer)?;
            if got > 0 || buffer.is_empty() {
                return Ok(got);
            }
            self.0 =
                self.0.take().map(GzDecoder::into_inner).map(next_member).transpose()?.flatten();
        }
        Ok(0)
    }
}

/// The next member, if there is one.
fn next_member<R: Read>(mut rest: BufReader<R>) -> io::Result<Option<GzDecoder<BufReader<R>>>> {
    let mut padded = false;
    loop {
        let (zeros, ahead) = match rest.fill_buf() {
            Ok(bytes) => {
                (bytes.iter().take_while(|byte| **byte == 0).count(), bytes.first().copied())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match ahead {
            None => return Ok(None),
            Some(0) => {
                rest.consume(zeros);
                padded = true;
            }
            Some(0x1f) if !padded => return Ok(Some(GzDecoder::new(rest))),
            Some(_) => {
                let problem = "after its end there are bytes that are not part of it";
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
        }
    }
}
