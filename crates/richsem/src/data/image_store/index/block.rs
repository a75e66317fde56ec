//! Entries as bytes: each block has its length, its checksum, and names that begin like the one before.

use std::io::{self, Write};

use super::{Blob, Directory, PER_BLOCK, Span, damaged};
use crate::Result;

/// Sixteen bytes at a time: a block is checked whenever a name in it is looked for.
static CRC: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISO_HDLC);

/// Bytes before a block's entries: its length and its checksum.
const HEAD: u64 = 8;

/// Longest block that is believed. 64 names of 64 KiB are shorter.
const LONGEST: u32 = 1 << 24;

/// Seven bits a byte, the lowest first.
fn put(number: u64, out: &mut Vec<u8>) {
    let mut left = number;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Writes entries that come in order.
#[derive(Debug)]
pub(in super::super) struct BlocksWriter<W: Write> {
    out: W,
    block: Vec<u8>,
    in_block: usize,
    last: String,
    directory: Directory,
}

impl<W: Write> BlocksWriter<W> {
    /// `at`: the position of the first block in the file.
    pub(in super::super) fn new(out: W, at: u64) -> Self {
        let directory = Directory { end: at, ..Directory::default() };
        Self { out, block: Vec::new(), in_block: 0, last: String::new(), directory }
    }

    /// Adds the next name: after the one before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(in super::super) fn push(&mut self, name: &str, span: Span) -> io::Result<()> {
        if self.in_block == PER_BLOCK {
            self.end_block()?;
        }
        if self.in_block == 0 {
            self.last.clear();
            self.directory.text.push_str(name);
            self.directory.ends.push(self.directory.text.len() as u64);
            self.directory.starts.push(self.directory.end);
        }
        let pairs = self.last.bytes().zip(name.bytes());
        let shared = pairs.take_while(|(a, b)| a == b).count();
        let rest = &name.as_bytes()[shared..];
        put(shared as u64, &mut self.block);
        put(rest.len() as u64, &mut self.block);
        self.block.extend_from_slice(rest);
        for number in [u64::from(span.part), span.offset, span.length] {
            put(number, &mut self.block);
        }
        name.clone_into(&mut self.last);
        self.in_block += 1;
        self.directory.count += 1;
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.in_block > 0 {
            let length = u32::try_from(self.block.len())
                .ok()
                .filter(|length| *length <= LONGEST)
                .ok_or_else(|| io::Error::other("the names of an archive are too long"))?;
            self.out.write_all(&length.to_le_bytes())?;
            self.out.write_all(&CRC.checksum(&self.block).to_le_bytes())?;
            self.out.write_all(&self.block)?;
            self.directory.end += HEAD + u64::from(length);
        }
        self.block.clear();
        self.in_block = 0;
        Ok(())
    }

    /// What was written to, and where the blocks are.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(in super::super) fn finish(mut self) -> io::Result<(W, Directory)> {
        self.end_block()?;
        self.directory.text.shrink_to_fit();
        self.directory.ends.shrink_to_fit();
        self.directory.starts.shrink_to_fit();
        Ok((self.out, self.directory))
    }
}

/// Entries of blocks that follow each other, one at a time.
#[derive(Debug)]
pub(in super::super) struct Blocks<'a> {
    blob: &'a Blob,
    at: u64,
    end: u64,
    block: Vec<u8>,
    /// Where the next entry begins in the block.
    next: usize,
    name: Vec<u8>,
}

impl<'a> Blocks<'a> {
    /// The blocks from one position to another.
    pub(in super::super) fn new(blob: &'a Blob, at: u64, end: u64) -> Self {
        Self { blob, at, end, block: Vec::new(), next: 0, name: Vec::new() }
    }

    /// The next entry.
    ///
    /// # Errors
    /// The blocks cannot be read, or are damaged.
    pub(in super::super) fn next(&mut self) -> Result<Option<(&str, Span)>> {
        if self.next == self.block.len() {
            if self.at >= self.end {
                return Ok(None);
            }
            self.load()?;
        }
        let span = self.entry().ok_or_else(damaged)?;
        let name = str::from_utf8(&self.name).map_err(|_| damaged())?;
        Ok(Some((name, span)))
    }

    fn load(&mut self) -> Result<()> {
        let mut head = [0; HEAD as usize];
        self.blob.read_exact_at(&mut head, self.at)?;
        let [a, b, c, d, checksum @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        let end = self.at + HEAD + u64::from(length);
        if length == 0 || length > LONGEST || end > self.end {
            return Err(damaged());
        }
        self.block.resize(length as usize, 0);
        self.blob.read_exact_at(&mut self.block, self.at + HEAD)?;
        if CRC.checksum(&self.block) != u32::from_le_bytes(checksum) {
            return Err(damaged());
        }
        self.at = end;
        self.next = 0;
        self.name.clear();
        Ok(())
    }

    fn entry(&mut self) -> Option<Span> {
        let mut bytes = self.block.get(self.next..)?;
        let shared = usize::try_from(take(&mut bytes)?).ok()?;
        let rest = usize::try_from(take(&mut bytes)?).ok()?;
        let (rest, mut bytes) = bytes.split_at_checked(rest)?;
        if shared > self.name.len() {
            return None;
        }
        self.name.truncate(shared);
        self.name.extend_from_slice(rest);
        let part = u32::try_from(take(&mut bytes)?).ok()?;
        let (offset, length) = (take(&mut bytes)?, take(&mut bytes)?);
        self.next = self.block.len() - bytes.len();
        Some(Span { part, offset, length })
    }
}
