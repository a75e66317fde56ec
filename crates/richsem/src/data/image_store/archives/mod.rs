//! Files in tar archives, read where they are: one archive, archives in an archive (as ImageNet's), or
//! several archives (as webdataset's shards).

mod build;
mod journal;
mod keep;
mod members;
mod naming;
mod region;
mod section;
mod state;
mod tally;
#[cfg(test)]
mod tests;
mod walk;

use std::{
    io::{BufRead as _, BufReader, Cursor, Read as _},
    path::{Path, PathBuf},
};

use fs_err::os::unix::fs::FileExt as _;

use super::{
    Progress,
    index::{Index, Span},
    pattern, samples,
};
use crate::{
    Error, Result,
    data::{
        image_io::{self, Frame},
        listing::is_image,
    },
};

use build::Builder;
use keep::Keeping;
use region::Region;
use section::Section;
use tally::Tally;
use walk::Found;
pub(in crate::data) use walk::is_header;
pub(super) use walk::plain;

/// Most archives that are kept open: a process may have some thousand files open.
const MOST_OPEN: usize = 128;

/// Most bytes of an image that is compressed in its archive. Larger ones are not images.
const LARGEST: u64 = 1 << 29;

/// Most files between an image and another field of its sample.
const MOST_FIELDS: usize = 256;

/// One of the archives of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    path: PathBuf,
    /// What the names of its files begin with: empty for the only archive of a store.
    prefix: String,
}

/// Archives, and where each of their files is.
#[derive(Debug)]
pub(super) struct Archives {
    /// What the user gave.
    path: PathBuf,
    parts: Vec<Part>,
    /// The archives, unless they are too many to be kept open.
    open: Vec<fs_err::File>,
    index: Index,
    tally: Tally,
}

impl Archives {
    /// Indexes archives, or reads the index that is kept. `path` is what messages name. Where there may be
    /// `several` archives, the names begin with the archive's own: `00000.tar` has the files of the folder
    /// `00000`.
    ///
    /// # Errors
    /// An archive is compressed, empty, cut off or damaged, or is none; progress says to stop.
    pub(super) fn open(
        path: &Path,
        archives: &[PathBuf],
        several: bool,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let paths: Vec<&Path> = archives.iter().map(PathBuf::as_path).collect();
        Self::open_keeping(path, (archives, several), &Keeping::usual(&paths), progress)
    }

    fn open_keeping(
        path: &Path,
        (archives, several): (&[PathBuf], bool),
        keeping: &Keeping,
        progress: Progress<'_>,
    ) -> Result<Self> {
        let part = |(path, stem): (&PathBuf, String)| {
            let prefix = if several { format!("{stem}/") } else { String::new() };
            Part { path: path.clone(), prefix }
        };
        let parts: Vec<Part> = archives.iter().zip(pattern::stems(archives)).map(part).collect();
        let (index, tally) = Builder::new(&parts, keeping, progress)?.index()?;
        let mut open = Vec::new();
        if parts.len() <= MOST_OPEN {
            for part in &parts {
                open.push(fs_err::File::open(&part.path)?);
            }
        }
        Ok(Self { path: path.to_owned(), parts, open, index, tally })
    }

    /// What the user gave.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its files.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Links that lead to no file, sorted.
    pub(super) fn broken_links(&self) -> &[String] {
        &self.tally.broken
    }

    /// What should be told of the archives, a line each.
    pub(super) fn notes(&self) -> Vec<String> {
        self.tally.notes()
    }

    /// Whether most images have fields beside them, as webdataset's samples do.
    pub(super) fn is_samples(&self) -> bool {
        self.tally.is_samples()
    }

    /// The contents of a file. An image that is compressed with gzip is unpacked: some of ImageNet's are.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let bytes = self.read_span(self.find(name)?)?;
        if bytes.starts_with(&[0x1F, 0x8B]) && is_image(name) {
            return self.unpacked(name, &bytes);
        }
        Ok(bytes)
    }

    fn find(&self, name: &str) -> Result<Span> {
        if let Some(span) = self.index.find(plain(name))? {
            return Ok(span);
        }
        let problem = format!("not among the archive's {} files", self.index.len());
        let error = Error::invalid(&self.path, name, problem);
        let mut example = None;
        self.index.each_from("", |name, _| {
            example = is_image(name).then(|| name.to_owned());
            if example.is_some() {
                std::ops::ControlFlow::Break(())
            } else {
                std::ops::ControlFlow::Continue(())
            }
        })?;
        Err(match example {
            Some(example) => error.with_hint(format!("its names look like `{example}`")),
            None => error,
        })
    }

    /// `[height, width]` of an image. No more of it is read than its headers, unless it is compressed.
    ///
    /// # Errors
    /// As [`Self::read`] and [`image_io::frame_of`].
    pub(super) fn frame(&self, name: &str) -> Result<Frame> {
        let (span, shown) = (self.find(name)?, self.path.join(name));
        self.with_file(span.part, |file| {
            let mut image = BufReader::new(Section::new(file, span));
            if image.fill_buf()?.starts_with(&[0x1F, 0x8B]) && is_image(name) {
                let bytes = self.unpacked(name, &self.read_span(span)?)?;
                return image_io::frame_of(Cursor::new(bytes), &shown);
            }
            image_io::frame_of(image, &shown)
        })
    }

    fn read_span(&self, span: Span) -> Result<Vec<u8>> {
        self.with_file(span.part, |file| {
            let length = span.length as usize;
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(length).map_err(|_| {
                Error::other(format!("not enough memory for a file of {length} bytes"))
            })?;
            bytes.resize(length, 0);
            file.read_exact_at(&mut bytes, span.offset)?;
            Ok(bytes)
        })
    }

    fn with_file<T>(&self, part: u32, read: impl FnOnce(&fs_err::File) -> Result<T>) -> Result<T> {
        if let Some(file) = self.open.get(part as usize) {
            return read(file);
        }
        read(&fs_err::File::open(&self.part(part)?.path)?)
    }

    fn part(&self, part: u32) -> Result<&Part> {
        self.parts.get(part as usize).ok_or_else(|| {
            Error::invalid(&self.path, "index", "damaged: it names an archive that is not there")
        })
    }

    fn unpacked(&self, name: &str, packed: &[u8]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut reader = flate2::read::MultiGzDecoder::new(packed).take(LARGEST + 1);
        let problem = match reader.read_to_end(&mut bytes) {
            Ok(_) if bytes.len() as u64 <= LARGEST => return Ok(bytes),
            Ok(_) => format!("unpacks to more than {LARGEST} bytes"),
            Err(error) => format!("cannot be unpacked: {error}"),
        };
        Err(Error::invalid(&self.path.join(name), "gzip", problem))
    }

    /// A field of an image's sample, as `cls` or `json` (in lower case): of the file with the same key, if
    /// nothing but files of that key lies between the two.
    ///
    /// # Errors
    /// The archive cannot be read.
    pub(super) fn companion(&self, name: &str, field: &str) -> Result<Option<Vec<u8>>> {
        let name = plain(name);
        let (Some(span), Some(key)) = (self.index.find(name)?, samples::key(name)) else {
            return Ok(None);
        };
        let mut candidates = Vec::new();
        self.index.each_within(&format!("{key}."), |other, at| {
            let (_, written) = samples::split(other).unwrap_or_default();
            if written.to_lowercase() == field && at.part == span.part {
                candidates.push(at);
            }
        })?;
        for at in candidates {
            if at == span || self.are_neighbours(span, at, key)? {
                return Ok(Some(self.read_span(at)?));
            }
        }
        Ok(None)
    }

    /// Whether from one file to another there are only files of one key.
    fn are_neighbours(&self, a: Span, b: Span, key: &str) -> Result<bool> {
        let (first, second) = if a.offset <= b.offset { (a, b) } else { (b, a) };
        // A name in the archive lacks what the store puts before it.
        let base = key.rsplit('/').next().unwrap_or(key);
        let path = &self.part(a.part)?.path;
        let (mut between, mut found) = (0, false);
        self.with_file(a.part, |file| {
            let end = file.metadata()?.len();
            let region = Region { file, path, inner: None, start: first.offset, end };
            let walked =
                walk::walk(region, region::after(first.offset, first.length), |next, _| {
                    let (name, offset) = match next {
                        Found::File { name, offset, .. } => (name, offset),
                        Found::Link { .. } | Found::Other { .. } => return Ok(()),
                    };
                    found = offset == second.offset;
                    between += 1;
                    let same = samples::key(name).is_some_and(|key| is_below(key, base));
                    if found || !same || between > MOST_FIELDS {
                        Err(Error::Stopped)
                    } else {
                        Ok(())
                    }
                });
            match walked {
                Ok(_) | Err(Error::Stopped) => Ok(found),
                Err(error) => Err(error),
            }
        })
    }
}

/// Whether a path's last part is that.
fn is_below(path: &str, base: &str) -> bool {
    path.rsplit('/').next() == Some(base)
}
