//! A file of an archive, read where it lies.

use std::io::{self, Read, Seek, SeekFrom};

use fs_err::os::unix::fs::FileExt as _;

use super::super::index::Span;

/// The contents of a file of an archive. Nothing moves in the archive itself.
pub(super) struct Section<'a> {
    archive: &'a fs_err::File,
    span: Span,
    /// Where the reader is, from the beginning of the contents.
    at: u64,
}

impl<'a> Section<'a> {
    pub(super) fn new(archive: &'a fs_err::File, span: Span) -> Self {
        Self { archive, span, at: 0 }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.span.length.saturating_sub(self.at).min(buffer.len() as u64);
        let read =
            self.archive.read_at(&mut buffer[..left as usize], self.span.offset + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Section<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.span.length.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
