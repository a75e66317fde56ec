//! The index of large archives on disk: where it lies, what it holds, when it is valid.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    super::index::{Blob, BlocksWriter, Directory, Index, Span},
    tally::Tally,
};
use crate::{Result, error::write_atomically, hash::hex};

/// The end of an index's name.
const SUFFIX: &str = "richsem-index";

/// First and last bytes of the file. The number is the format's: another program makes the index anew.
const MAGIC: &[u8; 8] = b"rsindex1";

/// Bytes at the end of the file: where the facts and the directory begin, their checksum, [`MAGIC`].
const FOOT: u64 = 32;

const CRC: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_XZ);

/// The archives an index is of: it is valid for these files only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Of each archive: name, length in bytes, time of its last change in nanoseconds since 1970.
    archives: Vec<(String, u64, u64)>,
}

impl Identity {
    /// Of the archives as they are now.
    ///
    /// # Errors
    /// One of them cannot be looked at.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Self> {
        let about = |path: &Path| -> Result<_> {
            let about = fs_err::metadata(path)?;
            let changed = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let nanoseconds = u64::try_from(changed.as_nanos()).unwrap_or(u64::MAX);
            Ok((base_name(path), about.len(), nanoseconds))
        };
        Ok(Self { archives: paths.map(about).collect::<Result<_>>()? })
    }

    /// Bytes of all archives.
    pub(super) fn bytes(&self) -> u64 {
        self.archives.iter().map(|(_, length, _)| length).sum()
    }
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// When and where an index is kept.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    /// Files to keep it in. The first that can be written is taken.
    pub(super) places: Vec<PathBuf>,
    /// Fewest files of an archive whose index is kept.
    pub(super) from: u64,
    /// Files after which what is known is written down. So many are in memory, at most.
    pub(super) run: usize,
    /// Time after which what is known is written down: what a stop loses.
    pub(super) every: Duration,
}

impl Keeping {
    /// As it is for users: beside the archives, or else in `~/.cache/richsem/archives`; from 20,000 files
    /// on, which take less than a second unless the disk is slow; whatever takes more than 15 seconds.
    pub(super) fn usual(paths: &[&Path]) -> Self {
        let cache = cache_folder();
        let cached = cache.map(|folder| folder.join(format!("{}.{SUFFIX}", name_of(paths))));
        let places = beside(paths).into_iter().chain(cached).collect();
        Self { places, from: 20_000, run: 1 << 18, every: Duration::from_secs(15) }
    }
}

/// `$XDG_CACHE_HOME/richsem/archives`, or the same under `~/.cache`.
fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("richsem/archives"))
}

/// A name for archives wherever they lie.
fn name_of(paths: &[&Path]) -> String {
    let mut hash = Sha256::new();
    for path in paths {
        let path = path.canonicalize().unwrap_or_else(|_| (*path).to_owned());
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    hex(&hash.finalize()[..16])
}

/// `a.tar.richsem-index` beside `a.tar`; beside several archives of one folder, a hidden file with a name
/// of theirs.
fn beside(paths: &[&Path]) -> Option<PathBuf> {
    let (first, rest) = paths.split_first()?;
    if rest.is_empty() {
        return Some(first.with_file_name(format!("{}.{SUFFIX}", base_name(first))));
    }
    let folder = first.parent()?;
    if rest.iter().any(|path| path.parent() != Some(folder)) {
        return None;
    }
    let mut hash = Sha256::new();
    for path in paths {
        hash.update(base_name(path));
        hash.update([0]);
    }
    Some(folder.join(format!(".{}.{SUFFIX}", hex(&hash.finalize()[..8]))))
}

/// What is known of archives, beside the names.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    identity: Identity,
    tally: Tally,
}

/// The index that is kept in a file, if it is whole and of these archives.
pub(super) fn read(path: &Path, identity: &Identity) -> Option<(Index, Tally)> {
    let file = fs_err::File::open(path).ok()?;
    let total = file.metadata().ok()?.len();
    let blob = Blob::File(Arc::new(file));
    let mut magic = [0; 8];
    blob.read_exact_at(&mut magic, 0).ok()?;
    let end = total.checked_sub(FOOT)?;
    let mut foot = [0; FOOT as usize];
    blob.read_exact_at(&mut foot, end).ok()?;
    if &magic != MAGIC || &foot[24..] != MAGIC {
        return None;
    }
    let (numbers, _) = foot.as_chunks::<8>();
    let [facts_at, directory_at, checksum, _] = numbers else { return None };
    let [facts_at, directory_at, checksum] =
        [facts_at, directory_at, checksum].map(|number| u64::from_le_bytes(*number));
    if facts_at > directory_at || directory_at > end {
        return None;
    }
    let mut tail = vec![0; usize::try_from(end - facts_at).ok()?];
    blob.read_exact_at(&mut tail, facts_at).ok()?;
    if CRC.checksum(&tail) != checksum {
        return None;
    }
    let (facts, directory) = tail.split_at((directory_at - facts_at) as usize);
    let facts: Facts = serde_json::from_slice(facts).ok()?;
    let directory = Directory::from_bytes(directory)?;
    (&facts.identity == identity).then(|| (Index::new(blob, directory, path), facts.tally))
}

/// Keeps an index in a file. `entries` shows them in order to what it is given.
///
/// # Errors
/// The file cannot be written; those of `entries`.
pub(super) fn write(
    path: &Path,
    identity: &Identity,
    entries: impl FnOnce(&mut dyn FnMut(&str, Span) -> Result<()>) -> Result<Tally>,
) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs_err::create_dir_all(folder)?;
    }
    write_atomically(path, |out| {
        out.write_all(MAGIC)?;
        let mut writer = BlocksWriter::new(out, MAGIC.len() as u64);
        let tally = entries(&mut |name, span| Ok(writer.push(name, span)?))?;
        let (out, directory) = writer.finish()?;
        let facts_at = directory.end();
        let facts = serde_json::to_vec(&Facts { identity: identity.clone(), tally })
            .map_err(std::io::Error::from)?;
        let directory_at = facts_at + facts.len() as u64;
        let mut tail = facts;
        tail.extend(directory.to_bytes());
        out.write_all(&tail)?;
        for number in [facts_at, directory_at, CRC.checksum(&tail)] {
            out.write_all(&number.to_le_bytes())?;
        }
        Ok(out.write_all(MAGIC)?)
    })
}
