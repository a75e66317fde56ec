//! What is known of an archive while it is indexed, on disk, so that a stop does not lose it.
//!
//! A line with the archives it is of, then records. Each has the lengths of its three parts, their
//! checksum, and the parts: where the indexing stands, a directory, and the blocks of a sorted list.

use std::{
    fs::TryLockError,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::index::{Blob, Directory, Index},
    keep::Identity,
    state::State,
};
use crate::Result;

const CRC: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_XZ);

/// First bytes of the file; the number is the format's.
const MAGIC: &[u8] = b"rsindexing1 ";

/// The end of a journal's name.
pub(super) const EXTENSION: &str = "richsem-indexing";

/// Longest record that is believed: lists in memory are shorter.
const LONGEST: u64 = 1 << 32;

/// Sorted lists in a file.
#[derive(Debug)]
pub(super) struct Journal {
    file: Arc<fs_err::File>,
    /// Where the next record begins.
    end: u64,
    /// Its name, if it is to be found again.
    path: Option<PathBuf>,
}

/// What an earlier process had found.
#[derive(Debug)]
pub(super) struct Earlier {
    /// Where it stopped.
    pub(super) state: State,
    /// Its sorted lists.
    pub(super) lists: Vec<Index>,
}

impl Journal {
    /// The journal that goes with an index, and what an earlier one of the same archives had found.
    /// `None` if it cannot be written, or another process writes it.
    pub(super) fn open(index: &Path, identity: &Identity) -> Option<(Self, Option<Earlier>)> {
        let path = index.with_extension(EXTENSION);
        fs_err::create_dir_all(path.parent()?).ok()?;
        let mut options = fs_err::OpenOptions::new();
        let file = options.create(true).read(true).append(true).open(&path).ok()?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
        }
        let mut journal = Self { file: Arc::new(file), end: 0, path: Some(path) };
        let head = head(identity)?;
        let found = journal.recover(&head);
        // What follows the last whole record was being written when the process ended.
        journal.file.set_len(journal.end).ok()?;
        if journal.end == 0 {
            (&*journal.file).write_all(&head).ok()?;
            journal.end = head.len() as u64;
        }
        Some((journal, found))
    }

    /// A file without a name, for this process alone.
    pub(super) fn unnamed() -> Option<Self> {
        let file = tempfile::tempfile().ok()?;
        let file = fs_err::File::from_parts(file, std::env::temp_dir());
        Some(Self { file: Arc::new(file), end: 0, path: None })
    }

    /// What the records hold; `end` is after the last whole one.
    fn recover(&mut self, head: &[u8]) -> Option<Earlier> {
        let mut file = std::io::BufReader::new(&*self.file);
        let mut begins = vec![0; head.len()];
        file.read_exact(&mut begins).ok()?;
        if begins != head {
            return None;
        }
        self.end = head.len() as u64;
        let (mut state, mut lists) = (None, Vec::new());
        while let Some((length, record)) = next_record(&mut file) {
            let blocks_at = self.end + length - record.blocks;
            let blob = Blob::File(self.file.clone());
            let path = self.path.clone()?;
            lists.push(Index::new(blob, record.directory.moved(blocks_at), &path));
            state = Some(record.state);
            self.end += length;
        }
        Some(Earlier { state: state?, lists })
    }

    /// Adds a sorted list, and where the indexing stands.
    ///
    /// # Errors
    /// The file cannot be written. It is as before then, for all that read it.
    pub(super) fn add(
        &mut self,
        state: &State,
        blocks: &[u8],
        directory: Directory,
    ) -> Result<Index> {
        let state = serde_json::to_vec(state).map_err(std::io::Error::from)?;
        let mut body = state;
        let state_length = body.len() as u64;
        let directory_bytes = directory.to_bytes();
        body.extend_from_slice(&directory_bytes);
        body.extend_from_slice(blocks);
        let numbers =
            [state_length, directory_bytes.len() as u64, blocks.len() as u64, CRC.checksum(&body)];
        let mut record: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        record.extend(body);
        if let Err(error) = (&*self.file).write_all(&record) {
            let _ = self.file.set_len(self.end);
            return Err(error.into());
        }
        self.end += record.len() as u64;
        let at = self.end - blocks.len() as u64;
        let blob = Blob::File(self.file.clone());
        Ok(Index::new(blob, directory.moved(at), self.file.path()))
    }

    /// Takes the file away: the index is complete.
    pub(super) fn remove(self) {
        if let Some(path) = &self.path {
            let _ = fs_err::remove_file(path);
        }
    }
}

fn head(identity: &Identity) -> Option<Vec<u8>> {
    let mut head = MAGIC.to_vec();
    head.extend(serde_json::to_vec(identity).ok()?);
    head.push(b'\n');
    Some(head)
}

struct Record {
    state: State,
    directory: Directory,
    /// Bytes of its blocks.
    blocks: u64,
}

/// The next record and its length, if it is whole.
fn next_record(file: &mut impl std::io::Read) -> Option<(u64, Record)> {
    let mut numbers = [0; 32];
    file.read_exact(&mut numbers).ok()?;
    let (numbers, _) = numbers.as_chunks::<8>();
    let number = |i: usize| numbers.get(i).map(|number| u64::from_le_bytes(*number));
    let [state, directory, blocks, checksum] = [number(0)?, number(1)?, number(2)?, number(3)?];
    let length = state.checked_add(directory)?.checked_add(blocks).filter(|l| *l < LONGEST)?;
    let mut body = Vec::new();
    file.take(length).read_to_end(&mut body).ok()?;
    if body.len() as u64 != length || CRC.checksum(&body) != checksum {
        return None;
    }
    let (state, rest) = body.split_at_checked(usize::try_from(state).ok()?)?;
    let (directory, _) = rest.split_at_checked(usize::try_from(directory).ok()?)?;
    let record = Record {
        state: serde_json::from_slice(state).ok()?,
        directory: Directory::from_bytes(directory)?,
        blocks,
    };
    Some((32 + length, record))
}
