//! A parquet file, read at positions, by any number of threads.

use std::{
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use ::parquet::{
    basic::Compression,
    errors::{ParquetError, Result as ParquetResult},
    file::{
        reader::{ChunkReader, FileReader as _, Length},
        serialized_reader::SerializedFileReader,
    },
};
use bytes::Bytes;
use fs_err::os::unix::fs::FileExt as _;

use crate::{Error, Result, error::caught};

/// The file of a table. `parquet`'s own way with files moves their one position, which threads share.
#[derive(Debug, Clone)]
pub(super) struct Source {
    path: Arc<Path>,
    /// None: opened for each read, since there are too many.
    file: Option<Arc<fs_err::File>>,
    length: u64,
}

/// The file from a position on.
pub(super) struct From {
    source: Source,
    file: Option<Arc<fs_err::File>>,
    at: u64,
}

impl Source {
    fn handle(&self) -> io::Result<Arc<fs_err::File>> {
        match &self.file {
            Some(file) => Ok(file.clone()),
            None => Ok(Arc::new(fs_err::File::open(&*self.path)?)),
        }
    }
}

impl Read for From {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.source.handle()?),
        };
        let read = file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Source {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let from = From { source: self.clone(), file: self.file.clone(), at: start };
        // A page's header is some 50 bytes, and what follows it is read in one piece.
        Ok(BufReader::with_capacity(512, from))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // Before memory is taken: a damaged file may say any length.
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            let problem = format!("{length} bytes from {start} are behind the end of the file");
            return Err(ParquetError::EOF(problem));
        }
        let mut bytes = vec![0; length];
        self.handle()?.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// A parquet file.
pub(super) struct File {
    pub(super) path: PathBuf,
    /// What the store calls it.
    pub(super) stem: String,
    pub(super) reader: SerializedFileReader<Source>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

impl File {
    /// Reads what the file says about itself. `stem`: what the store calls it; `keep`: the file stays open.
    ///
    /// # Errors
    /// The file cannot be read, or is no whole parquet file.
    pub(super) fn open(path: &Path, stem: String, keep: bool) -> Result<Self> {
        let file = fs_err::File::open(path)?;
        let length = file.metadata()?.len();
        let file = keep.then(|| Arc::new(file));
        let source = Source { path: path.into(), file, length };
        let reader = whole(path, || SerializedFileReader::new(source))?;
        Ok(Self { path: path.to_owned(), stem, reader })
    }

    /// As [`whole`], of this file.
    ///
    /// # Errors
    /// As [`whole`]; a compression that is not read.
    pub(super) fn whole<T>(&self, read: impl FnOnce() -> ParquetResult<T>) -> Result<T> {
        whole(&self.path, read).map_err(|error| match self.other_compression() {
            Some(compression) => of_compression(&self.path, &compression),
            None => error,
        })
    }

    /// The first compression of a column that is not read, if there is one.
    fn other_compression(&self) -> Option<String> {
        let groups = self.reader.metadata().row_groups();
        let all =
            groups.iter().flat_map(|group| group.columns()).map(|column| column.compression());
        let other = all.into_iter().find(|compression| {
            !matches!(
                compression,
                Compression::UNCOMPRESSED
                    | Compression::SNAPPY
                    | Compression::GZIP(_)
                    | Compression::ZSTD(_)
            )
        })?;
        let name = format!("{other:?}").to_lowercase();
        Some(name.split('(').next().unwrap_or_default().to_owned())
    }
}

/// A file with a compression that is not read.
fn of_compression(path: &Path, compression: &str) -> Error {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!("{stem}-zstd.parquet"));
    let problem = format!("compressed with {compression}, which is not read");
    Error::invalid(path, "parquet", problem).with_hint(format!(
        "write it anew with zstd (snappy, gzip and none are read, too), as in Python: import pyarrow.parquet as pq; \
         pq.write_table(pq.read_table({:?}), {new:?}, compression=\"zstd\")",
        path
    ))
}

/// Reads of a parquet file, and says what is wrong where that fails, or panics: the reader's checks of a
/// damaged file are not complete.
///
/// # Errors
/// Those of `read`, and its panics.
fn whole<T>(path: &Path, read: impl FnOnce() -> ParquetResult<T>) -> Result<T> {
    let problem = match caught(read) {
        Ok(Ok(read)) => return Ok(read),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic,
    };
    Err(Error::invalid(path, "parquet", format!("cannot be read: {problem}"))
        .with_hint("is the file whole? Copy or download it again"))
}
