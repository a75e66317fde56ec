//! Names and where their contents lie, sorted by name, in little memory. An archive can have 14 million files.
//!
//! Names follow each other in blocks of [`PER_BLOCK`]. A name is written as what differs from the one
//! before. The blocks lie in memory or in a file, and are read one at a time. In memory are the first name
//! of each block and its place: about one byte a file of an archive like ImageNet's, and about 20 if the
//! blocks are in memory, too (the tests measure both).

mod block;
mod merge;
#[cfg(test)]
mod tests;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use fs_err::os::unix::fs::FileExt as _;

use crate::{Error, Result};

pub(super) use block::{Blocks, BlocksWriter};
pub(super) use merge::merge;

/// Entries of a block, at most. More make the first names fewer, and a search longer.
pub(super) const PER_BLOCK: usize = 64;

/// Where the contents of a file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    /// Number of the archive among those of the store.
    pub(super) part: u32,
    /// Where the contents begin, in bytes; of a table, the row.
    pub(super) offset: u64,
    /// Length of the contents in bytes; of a table, 0.
    pub(super) length: u64,
}

/// Where the blocks lie.
#[derive(Debug)]
pub(super) enum Blob {
    /// In memory.
    Memory(Vec<u8>),
    /// In a file.
    File(Arc<fs_err::File>),
}

impl Blob {
    /// Fills the buffer from a position on.
    ///
    /// # Errors
    /// It ends before, or cannot be read.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        match self {
            Self::File(file) => Ok(file.read_exact_at(buffer, at)?),
            Self::Memory(bytes) => {
                let start = usize::try_from(at).ok();
                let range = start.and_then(|start| Some(start..start.checked_add(buffer.len())?));
                let from = range.and_then(|range| bytes.get(range)).ok_or_else(damaged)?;
                buffer.copy_from_slice(from);
                Ok(())
            }
        }
    }
}

/// Of blocks whose bytes are not those that were written.
fn damaged() -> Error {
    Error::other("the index of an archive is damaged")
}

/// The first name of each block, and its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directory {
    /// All first names, one after the other.
    text: String,
    /// Where each of them ends.
    ends: Vec<u64>,
    /// Where each block begins.
    starts: Vec<u64>,
    /// Where the last block ends.
    end: u64,
    /// Number of entries of all blocks.
    count: u64,
}

impl Directory {
    fn name(&self, i: usize) -> &str {
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[i] as usize]
    }

    /// The block that holds a name, if any does.
    fn block_of(&self, name: &str) -> usize {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.name(middle) <= name { low = middle + 1 } else { high = middle }
        }
        low.saturating_sub(1)
    }

    /// Where the last block ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Of the same blocks, further behind in a file.
    pub(super) fn moved(mut self, by: u64) -> Self {
        self.starts.iter_mut().for_each(|start| *start = start.saturating_add(by));
        self.end = self.end.saturating_add(by);
        self
    }

    /// As bytes, for a file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let lists = [&self.ends, &self.starts].into_iter().flatten();
        let head = [self.starts.len() as u64, self.end, self.count];
        let numbers = head.iter().chain(lists).flat_map(|number| number.to_le_bytes());
        numbers.chain(self.text.bytes()).collect()
    }

    /// From [`Self::to_bytes`]; none if it is anything else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, _) = bytes.as_chunks::<8>();
        let number = |i: usize| numbers.get(i).map(|number| u64::from_le_bytes(*number));
        let (blocks, end, count) = (usize::try_from(number(0)?).ok()?, number(1)?, number(2)?);
        let list = |from: usize| -> Option<Vec<u64>> {
            let numbers = numbers.get(from..from.checked_add(blocks)?)?;
            Some(numbers.iter().map(|number| u64::from_le_bytes(*number)).collect())
        };
        let (ends, starts) = (list(3)?, list(3 + blocks)?);
        let text = bytes.get((3 + 2 * blocks) * 8..)?;
        let text = String::from_utf8(text.to_vec()).ok()?;
        let whole = ends.is_sorted()
            && starts.is_sorted()
            && starts.last().is_none_or(|last| *last < end)
            && ends.last().copied().unwrap_or(0) == text.len() as u64
            && ends.iter().all(|at| text.is_char_boundary(*at as usize));
        whole.then_some(Self { text, ends, starts, end, count })
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.text.capacity() + 8 * (self.ends.capacity() + self.starts.capacity())
    }
}

/// Names in order, with where their contents lie. Safe from any number of threads.
#[derive(Debug)]
pub(super) struct Index {
    blob: Blob,
    directory: Directory,
    /// The file that messages name.
    path: PathBuf,
}

impl Index {
    /// `path`: the file that messages name.
    pub(super) fn new(blob: Blob, directory: Directory, path: &Path) -> Self {
        Self { blob, directory, path: path.to_owned() }
    }

    /// Of blocks in memory.
    pub(super) fn in_memory(mut blocks: Vec<u8>, directory: Directory, path: &Path) -> Self {
        blocks.shrink_to_fit();
        Self::new(Blob::Memory(blocks), directory, path)
    }

    /// Of names that are in memory, in any order. Of equal names the last counts.
    ///
    /// # Errors
    /// None in practice: the blocks are in memory.
    pub(super) fn of(mut entries: Vec<(String, Span)>, path: &Path) -> Result<Self> {
        // The sort keeps the order of equal names.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let mut writer = BlocksWriter::new(Vec::new(), 0);
        for (i, (name, span)) in entries.iter().enumerate() {
            if entries.get(i + 1).is_none_or(|(next, _)| next != name) {
                writer.push(name, *span)?;
            }
        }
        let (bytes, directory) = writer.finish()?;
        Ok(Self::in_memory(bytes, directory, path))
    }

    /// Number of names.
    pub(super) fn len(&self) -> u64 {
        self.directory.count
    }

    /// All entries in order.
    pub(super) fn blocks(&self) -> Blocks<'_> {
        let start = self.directory.starts.first().copied().unwrap_or(self.directory.end);
        Blocks::new(&self.blob, start, self.directory.end)
    }

    /// Where the contents of a name lie.
    ///
    /// # Errors
    /// The blocks cannot be read, or are damaged.
    pub(super) fn find(&self, name: &str) -> Result<Option<Span>> {
        let mut found = None;
        self.each_from(name, |next, span| {
            found = (next == name).then_some(span);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// The first name that is not before another.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn first_from(&self, from: &str) -> Result<Option<String>> {
        let mut first = None;
        self.each_from(from, |name, _| {
            first = Some(name.to_owned());
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// Shows names in order, from a given one on, until told to stop.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn each_from(
        &self,
        from: &str,
        mut visit: impl FnMut(&str, Span) -> ControlFlow<()>,
    ) -> Result<()> {
        let Some(&start) = self.directory.starts.get(self.directory.block_of(from)) else {
            return Ok(());
        };
        let mut blocks = Blocks::new(&self.blob, start, self.directory.end);
        while let Some((name, span)) = blocks.next().map_err(|error| self.explained(error))? {
            if name >= from && visit(name, span).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Shows the names that begin with `below`, in order.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn each_within(&self, below: &str, mut visit: impl FnMut(&str, Span)) -> Result<()> {
        self.each_from(below, |name, span| {
            if !name.starts_with(below) {
                return ControlFlow::Break(());
            }
            visit(name, span);
            ControlFlow::Continue(())
        })
    }

    /// The folders directly below `below` (empty, or a path that ends in `/`), sorted.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) fn folders(&self, below: &str) -> Result<Vec<String>> {
        let mut folders = Vec::new();
        let mut from = below.to_owned();
        // Files of the folder itself are passed one by one; a folder's files are jumped over.
        loop {
            let mut folder = None;
            self.each_from(&from, |name, _| {
                let rest = name.strip_prefix(below);
                folder = rest.and_then(|rest| rest.split_once('/')).map(|(f, _)| f.to_owned());
                if rest.is_none() || folder.is_some() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            let Some(folder) = folder else { return Ok(folders) };
            // `0` follows `/`.
            from = format!("{below}{folder}0");
            if folders.last() != Some(&folder) {
                folders.push(folder);
            }
        }
    }

    fn explained(&self, error: Error) -> Error {
        match error {
            Error::Other { problem, .. } => Error::invalid(&self.path, "index", problem)
                .with_hint("delete this file; the archive is indexed again"),
            error => error,
        }
    }
}
