//! Whole rows of a CSV file.

use std::{ops::Range, path::Path};

use memchr::memchr_iter;

/// Rows that are whole.
pub(super) struct Block<'a> {
    pub(super) file: &'a Path,
    pub(super) bytes: &'a [u8],
    /// The line of the file that `bytes` begin with, from 1.
    pub(super) line: u64,
    pub(super) parts: Vec<Range<usize>>,
}

impl Block<'_> {
    /// The line at a byte of the block.
    pub(super) fn line_at(&self, byte: usize) -> u64 {
        self.line + lines(&self.bytes[..byte])
    }
}

pub(super) fn lines(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}
