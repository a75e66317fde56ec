//! Cuts a CSV file into parts of whole rows, some megabytes at a time.
//!
//! A row ends where a line ends, unless that is inside quotes. Inside quotes the number of quotes before is
//! odd, also if a quote is written twice to mean itself. So it is enough to count them.

use std::{
    io::{ErrorKind, Read},
    ops::Range,
    path::{Path, PathBuf},
};

use memchr::{memchr, memchr_iter};

use super::{
    block::{Block, lines},
    row,
};
use crate::{
    error::{Error, Result},
    json::{self, Counter},
};

/// A row longer than this is a quote that is never closed, not a row; reading on would take the rest of
/// the file into memory.
const LONGEST: usize = 64 << 20;

/// Bytes that are read first, to look at them.
const HEAD: usize = 64 << 10;

const TRUNCATED: &str = "the file is probably truncated: compare its size with the original's and \
                         download or copy it again";

/// A file, read front to back once.
pub(super) struct Blocks {
    file: PathBuf,
    reader: Box<dyn Read + Send>,
    counter: Counter,
    buffer: Vec<u8>,
    /// How much of the buffer was handed out.
    done: usize,
    /// The line that the buffer begins with.
    line: u64,
    ended: bool,
}

impl Blocks {
    /// Opens a file, packed by gzip or not, and looks whether it can be CSV.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Err(Error::invalid(path, "file", "this is a folder")
                .with_hint("give the file (.csv) in it"));
        }
        let (reader, counter) = json::open_counted(path)?;
        let (buffer, file) = (Vec::new(), path.to_owned());
        let mut blocks = Self { file, reader, counter, buffer, done: 0, line: 1, ended: false };
        blocks.fill(HEAD)?;
        if let Some((problem, hint)) = unusable(&blocks.buffer) {
            return Err(Error::invalid(path, "file", problem).with_hint(hint));
        }
        if blocks.buffer.starts_with(b"\xef\xbb\xbf") {
            blocks.done = 3;
        }
        Ok(blocks)
    }

    /// What says how much of the file was read.
    pub(super) fn counter(&self) -> Counter {
        self.counter.clone()
    }

    /// The first row that is not empty, and its line.
    pub(super) fn first_row(&mut self) -> Result<(u64, Vec<String>)> {
        while let Some(block) = self.next(1, 1)? {
            let parts = block.parts.iter();
            let rows = parts.map(|range| row::texts(&block, range.clone()));
            if let Some(row) = rows.collect::<Result<Vec<_>>>()?.concat().pop() {
                return Ok(row);
            }
        }
        Err(Error::invalid(&self.file, "file", "the file holds only empty lines"))
    }

    /// The next rows, in up to `count` parts of `size` bytes or somewhat more. None at the end of the file.
    pub(super) fn next(&mut self, size: usize, count: usize) -> Result<Option<Block<'_>>> {
        self.line += lines(&self.buffer[..self.done]);
        self.buffer.drain(..self.done);
        self.done = 0;
        self.fill((size * count).max(HEAD))?;
        let parts = loop {
            let parts = cut(&self.buffer, size, count, self.ended);
            if !parts.is_empty() {
                break parts;
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
            if self.ended || self.buffer.len() > LONGEST {
                return Err(self.open_quote());
            }
            // Doubling keeps a row of many blocks linear, although it is looked at from its start.
            self.fill(self.buffer.len() * 2)?;
        };
        self.done = parts.last().map_or(0, |part| part.end);
        let bytes = &self.buffer[..self.done];
        Ok(Some(Block { file: &self.file, bytes, line: self.line, parts }))
    }

    /// Reads until the buffer has that many bytes, or the file ends.
    fn fill(&mut self, bytes: usize) -> Result<()> {
        let want = bytes.saturating_sub(self.buffer.len());
        let mut more = self.reader.by_ref().take(want as u64);
        let got = more.read_to_end(&mut self.buffer).map_err(|error| match error.kind() {
            // Only of what is packed.
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                let problem = format!("the gzip archive is damaged or cut off: {error}");
                Error::invalid(&self.file, "file", problem).with_hint(TRUNCATED)
            }
            _ => error.into(),
        })?;
        self.ended = got < want;
        Ok(())
    }

    fn open_quote(&self) -> Error {
        let at = memchr(b'"', &self.buffer).unwrap_or_default();
        let line = self.line + lines(&self.buffer[..at]);
        let problem = "a quote (\") in this line or after it is never closed";
        Error::invalid(&self.file, format!("line {line}"), problem).with_hint(if self.ended {
            TRUNCATED
        } else {
            "a quote inside a text is written twice, and the text stands in quotes"
        })
    }
}

/// Parts of `size` bytes and up to the end of a row; the last one can be shorter.
fn cut(bytes: &[u8], size: usize, count: usize, ended: bool) -> Vec<Range<usize>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    while parts.len() < count && start < bytes.len() {
        let Some(end) = row_end(bytes, start, size, ended) else { break };
        parts.push(start..end);
        start = end;
    }
    parts
}

/// Where the first row ends that ends `size` bytes after the beginning of a row, or later.
fn row_end(bytes: &[u8], start: usize, size: usize, ended: bool) -> Option<usize> {
    let (mut counted, mut inside) = (start, false);
    let mut from = (start + size).min(bytes.len());
    loop {
        let end = match memchr(b'\n', &bytes[from..]) {
            Some(length) => from + length + 1,
            None if ended => bytes.len(),
            None => return None,
        };
        inside ^= memchr_iter(b'"', &bytes[counted..end]).count() % 2 == 1;
        if !inside {
            return Some(end);
        }
        if end == bytes.len() {
            return None;
        }
        (counted, from) = (end, end);
    }
}

/// Why a file that begins like this is not CSV, and what to do.
fn unusable(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    Some(match head {
        [] => ("the file is empty", TRUNCATED),
        [0x1f, 0x8b, ..] => {
            ("this is a gzip archive within a gzip archive", "unpack it once: gunzip FILE")
        }
        [b'P', b'K', 3, 4, ..] => ("this is a zip archive, not CSV", "unpack it: unzip FILE"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            ("this is UTF-16 text, not UTF-8", "save it as UTF-8")
        }
        _ if memchr(0, head).is_some() => {
            ("expected text, got a byte 0", "is it the right file? If it is text, save it as UTF-8")
        }
        _ if matches!(first, Some(b'{' | b'[')) => {
            ("this looks like JSON, not like CSV", "is it the right file?")
        }
        _ if first == Some(&b'<') => {
            ("this is a page of the web, not CSV", "the download went wrong: get the file again")
        }
        _ => return None,
    })
}
