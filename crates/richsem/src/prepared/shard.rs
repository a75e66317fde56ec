//! One file of a set's labels. Features stay on disk. Memory holds only where each view's rows are, four
//! bytes a view.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tch::{Kind, Tensor};

use crate::{
    checkpoint_io::{bytes, safetensors},
    error::{Error, Result},
    hash::hex,
};

const FEATURES: &str = "features";
const ROWS: &str = "rows";
/// Key of the manifest's hash in the metadata.
const MANIFEST_HASH: &str = "prepared";
/// Key of the hash of the values in the metadata.
const VALUES_HASH: &str = "sha256";
/// Far beyond the header of two tensors.
const LONGEST_HEADER: u64 = 1 << 16;

/// What a shard must hold to belong to a folder.
#[derive(Debug, Clone)]
pub(crate) struct ShardSpec {
    /// [`super::manifest::Manifest::hash`] of the folder.
    pub(crate) manifest: String,
    /// Images in this shard; the last of a set may have fewer than others.
    pub(crate) images: usize,
    /// Views of each image, which are the columns.
    pub(crate) views: usize,
    /// Width of the features, D.
    pub(crate) dim: usize,
}

impl ShardSpec {
    /// Views of all images in this shard.
    pub(crate) fn all_views(&self) -> u64 {
        (self.images * self.views) as u64
    }
}

/// A shard whose features can be read.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    /// Where its features begin, in bytes.
    features: u64,
    /// `[images · views + 1]` rows before each view of each image.
    starts: Vec<u32>,
    views: usize,
    dim: usize,
}

#[derive(Deserialize)]
struct Header {
    features: Entry,
    rows: Entry,
    #[serde(default)]
    __metadata__: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

pub(crate) fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("shard-{number:05}.safetensors"))
}

/// Writes a shard wholly or not at all.
///
/// # Shapes
/// `rows` numbers of rows, `[images · views]`; `features` `[Σ rows, D]` f16
pub(crate) fn write(path: &Path, spec: &ShardSpec, rows: &[i32], features: &Tensor) -> Result<()> {
    let shape = [spec.images as i64, spec.views as i64];
    let rows = Tensor::f_from_slice(rows)?.f_view(shape)?;
    let hash = hash_of(&bytes(&rows)?, &bytes(features)?);
    let tensors = BTreeMap::from([
        (FEATURES.to_owned(), features.to_kind(Kind::Half)),
        (ROWS.to_owned(), rows),
    ]);
    let metadata =
        [(MANIFEST_HASH.to_owned(), spec.manifest.clone()), (VALUES_HASH.to_owned(), hash)];
    safetensors::write(path, &tensors, &metadata.into())
}

/// SHA-256 of the values of a shard.
fn hash_of(rows: &[u8], features: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(rows);
    hash.update(features);
    hex(&hash.finalize())
}

impl Shard {
    /// Reads where the rows of each view are, and no features.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another folder.
    pub(crate) fn open(path: &Path, spec: &ShardSpec) -> Result<Self> {
        Ok(Self::open_with_hash(path, spec)?.0)
    }

    /// As [`Self::open`]. It also reads all values, and compares them with their hash.
    pub(crate) fn open_whole(path: &Path, spec: &ShardSpec) -> Result<Self> {
        let (shard, rows, expected) = Self::open_with_hash(path, spec)?;
        let mut features = Vec::new();
        let mut file = fs_err::File::open(path)?;
        file.seek(SeekFrom::Start(shard.features))?;
        let all = shard.row_bytes() * u64::from(shard.rows());
        file.take(all).read_to_end(&mut features)?;
        if hash_of(&rows, &features) != expected {
            return Err(damaged(path, VALUES_HASH, "the values are not those that were written"));
        }
        Ok(shard)
    }

    /// Opens a shard. Returns also the bytes of `rows`, and the hash that the values should have.
    fn open_with_hash(path: &Path, spec: &ShardSpec) -> Result<(Self, Vec<u8>, String)> {
        let bad = |field: &str, problem: String| damaged(path, field, &problem);
        if !path.is_file() {
            return Err(bad("file", "missing".to_owned()));
        }
        let mut file = fs_err::File::open(path)?;
        let length = file.metadata()?.len();
        let (header, data) = Header::read(&mut file, length, path)?;
        let of = header.__metadata__.get(MANIFEST_HASH).map_or("", String::as_str);
        if of != spec.manifest {
            return Err(bad(
                MANIFEST_HASH,
                "the shard belongs to another prepared.json".to_owned(),
            ));
        }
        let hash = header.__metadata__.get(VALUES_HASH).cloned().unwrap_or_default();
        let Header { features, rows, .. } = header;
        let expected = [spec.images, spec.views];
        let rows_bytes = 4 * spec.images as u64 * spec.views as u64;
        if rows.dtype != "I32" || rows.shape != expected || rows.bytes() != Some(rows_bytes) {
            return Err(bad(ROWS, format!("expected i32 {expected:?}, got {:?}", rows.shape)));
        }
        let mut counts = vec![0; rows_bytes as usize];
        if data.saturating_add(rows.data_offsets[1]) > length {
            return Err(bad("length", format!("cut off after {length} bytes")));
        }
        file.seek(SeekFrom::Start(data + rows.data_offsets[0]))?;
        file.read_exact(&mut counts)?;
        let starts = starts_of(&counts)
            .ok_or_else(|| bad(ROWS, "a negative number, or far too many".to_owned()))?;
        let sum = starts.last().copied().unwrap_or(0);
        let expected = [sum as usize, spec.dim];
        let all = u64::from(sum) * spec.dim as u64 * 2;
        if features.dtype != "F16" || features.shape != expected || features.bytes() != Some(all) {
            let problem = format!("expected f16 {expected:?}, got {:?}", features.shape);
            return Err(bad(FEATURES, problem));
        }
        let end = data.saturating_add(features.data_offsets[1].max(rows.data_offsets[1]));
        if end != length {
            return Err(bad("length", format!("expected {end} bytes, got {length}")));
        }
        let shard = Self {
            path: path.to_owned(),
            features: data + features.data_offsets[0],
            starts,
            views: spec.views,
            dim: spec.dim,
        };
        Ok((shard, counts, hash))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of rows, of all views of all images.
    pub(crate) fn rows(&self) -> u32 {
        self.starts.last().copied().unwrap_or(0)
    }

    fn row_bytes(&self) -> u64 {
        2 * self.dim as u64
    }

    /// The first row of a view, and the number of its rows.
    fn span(&self, image: usize, view: usize) -> (u32, u32) {
        let at = image * self.views + view;
        (self.starts[at], self.starts[at + 1] - self.starts[at])
    }

    /// Number of rows of a view of an image of this shard.
    pub(crate) fn count(&self, image: usize, view: usize) -> usize {
        self.span(image, view).1 as usize
    }

    /// Adds the features of a view, f16, to `out`.
    pub(crate) fn read(&self, image: usize, view: usize, out: &mut Vec<u8>) -> Result<()> {
        let (first, count) = self.span(image, view);
        let mut file = fs_err::File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.features + u64::from(first) * self.row_bytes()))?;
        let from = out.len();
        out.resize(from + (u64::from(count) * self.row_bytes()) as usize, 0);
        Ok(file.read_exact(&mut out[from..])?)
    }
}

impl Header {
    /// Reads the header of an open file of that length. Returns also where the values begin.
    fn read(file: &mut fs_err::File, length: u64, path: &Path) -> Result<(Self, u64)> {
        let bad = |problem: String| damaged(path, "header", &problem);
        let mut first = [0; 8];
        if length < 8 {
            return Err(bad(format!("the file has {length} bytes")));
        }
        file.read_exact(&mut first)?;
        let header = u64::from_le_bytes(first);
        if header > LONGEST_HEADER || header + 8 > length {
            return Err(bad("not that of a shard".to_owned()));
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text)?;
        let parsed =
            serde_json::from_slice(&text).map_err(|e| bad(format!("not that of a shard: {e}")))?;
        Ok((parsed, 8 + header))
    }
}

/// The rows before each view, and in the end all, from the bytes of the numbers of rows. None if a number is
/// negative, or the sum does not fit into 32 bits.
fn starts_of(counts: &[u8]) -> Option<Vec<u32>> {
    let mut starts = Vec::with_capacity(counts.len() / 4 + 1);
    let mut sum = 0u32;
    starts.push(sum);
    for count in counts.as_chunks::<4>().0 {
        let count = u32::try_from(i32::from_le_bytes(*count)).ok()?;
        sum = sum.checked_add(count)?;
        starts.push(sum);
    }
    Some(starts)
}

impl Entry {
    /// How many bytes its values take.
    fn bytes(&self) -> Option<u64> {
        self.data_offsets[1].checked_sub(self.data_offsets[0])
    }
}

/// A shard that must be made again.
pub(crate) fn damaged(path: &Path, field: &str, problem: &str) -> Error {
    Error::invalid(path, field, problem).with_hint(
        "run the same `richsem prepare` again: it makes the shards that are missing or damaged",
    )
}
