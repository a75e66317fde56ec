//! Where images lie: in a folder, in tar archives, or in parquet files. Archives and tables are read in place.

mod archives;
mod folder;
mod index;
mod packed;
pub mod parquet;
mod pattern;
mod recognise;
mod samples;

#[cfg(test)]
mod support;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io::{BufReader, Cursor},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use image::RgbImage;
use rayon::prelude::*;

use super::{
    image_io::{self, Decoded, Frame, Orientation, frames},
    listing::{PassedOver, is_image},
};
use crate::{Error, Result, plural::counted};

use archives::Archives;
pub(in crate::data) use archives::is_header;
use folder::Listed;
use index::Index;
pub(in crate::data) use packed::packed;
pub use packed::unpacking;
use parquet::Tables;
pub use recognise::StoreKind;

/// Images by name. Reading is safe from any number of threads at once.
///
/// What lies at a path is known by what is in it:
///
/// | what | names |
/// |---|---|
/// | a folder | paths below it |
/// | an uncompressed tar archive | paths in it |
/// | tar archives in a tar archive, as ImageNet's | `n01440764/n01440764_26.JPEG`: the folder is the inner archive's name |
/// | a folder of tar archives and nothing else, as webdataset's or img2dataset's shards | `00000/000000003.jpg`: the folder is the archive's name |
/// | parquet files with a column of images, as Hugging Face's, or a folder of them | the `path` of each image, if all have one and no two the same; else `train-00000-of-00001/17.jpg`: file and row |
///
/// Several files can be named by a pattern: `shard-{000000..000127}.tar`, `train-*.parquet`.
///
/// Archives are indexed: their headers are read once. The index of a large archive is kept, beside it as
/// `NAME.tar.richsem-index`, or, where that cannot be written, in `~/.cache/richsem/archives`. It is valid
/// until the length or the time of the archive changes. What was found is written down every 15 seconds: a
/// stop does not lose it.
#[derive(Debug)]
pub struct ImageStore {
    location: Location,
    orientation: Orientation,
    /// Names of the images that [`Self::turned`] tells about.
    turned: Mutex<BTreeSet<String>>,
    /// Names of the files that [`Self::several`] tells about.
    several: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
enum Location {
    /// Files below this folder.
    Folder(PathBuf),
    /// Members of tar archives.
    Archives(Archives),
    /// Rows of parquet files.
    Tables(Tables),
}

/// How far the indexing of archives is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexing {
    /// Bytes of the archives that are behind: most of them were not read.
    pub bytes: u64,
    /// Bytes of all archives.
    pub of: u64,
    /// Files found.
    pub files: u64,
}

/// Told how far it is; says whether to go on.
type Progress<'a> = &'a mut dyn FnMut(Indexing) -> ControlFlow<()>;

impl ImageStore {
    /// Opens a store. Archives are indexed (headers only, contents are skipped).
    ///
    /// # Errors
    /// `path` does not exist, is no store of images, is compressed, ends early, or is damaged.
    pub fn open(path: &Path, orientation: Orientation) -> Result<Self> {
        Self::open_with(path, orientation, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`Self::open`]. `progress` is told some five times a second how far the indexing is, and says
    /// whether to go on.
    ///
    /// # Errors
    /// As [`Self::open`]; [`Error::Stopped`] if `progress` says so. What was found is kept.
    pub fn open_with(
        path: &Path,
        orientation: Orientation,
        progress: &mut dyn FnMut(Indexing) -> ControlFlow<()>,
    ) -> Result<Self> {
        let recognised = recognise::recognise(path)?;
        let files = &recognised.files;
        let location = match recognised.kind {
            StoreKind::Folder => Location::Folder(path.to_owned()),
            StoreKind::Archive | StoreKind::Archives => {
                let several = recognised.kind == StoreKind::Archives;
                Location::Archives(Archives::open(path, files, several, progress)?)
            }
            StoreKind::Parquet => Location::Tables(Tables::open(path, files)?),
            StoreKind::CaptionUrls => {
                let problem = "a table of captions and URLs: the images are not in it";
                return Err(Error::invalid(path, "images", problem)
                    .with_hint("fetch the images with img2dataset, and give the folder it wrote"));
            }
        };
        Ok(Self { location, orientation, turned: Mutex::default(), several: Mutex::default() })
    }

    /// What lies at a path, without opening it.
    ///
    /// # Errors
    /// Nothing is there, or it cannot be read.
    pub fn kind_of(path: &Path) -> Result<StoreKind> {
        Ok(recognise::recognise(path)?.kind)
    }

    /// Whether there is something at a path, or a pattern fits some file.
    #[must_use]
    pub fn is_there(path: &Path) -> bool {
        path.exists() || matches!(pattern::files(path), Ok(Some(_)))
    }

    /// Whether it is of webdataset's samples: archives of images with other fields beside them.
    pub(in crate::data) fn is_samples(&self) -> bool {
        matches!(&self.location, Location::Archives(archives) if archives.is_samples())
    }

    /// The files that a pattern names, sorted; none if the path is no pattern.
    ///
    /// # Errors
    /// No file fits.
    pub(in crate::data) fn files_of(pattern: &Path) -> Result<Option<Vec<PathBuf>>> {
        pattern::files(pattern)
    }

    /// Images in a folder. Names are paths below it, or whole paths if `path` is empty.
    #[must_use]
    pub fn folder(path: PathBuf, orientation: Orientation) -> Self {
        Self {
            location: Location::Folder(path),
            orientation,
            turned: Mutex::default(),
            several: Mutex::default(),
        }
    }

    /// What should be told of the store, a line each: what archives hold besides files, names that occur
    /// twice, archives that may have been cut off, or that are not opened.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match &self.location {
            Location::Folder(folder) => {
                let unopened = recognise::unopened(folder);
                let note = |first: &String| {
                    format!(
                        "{} beside the folders or images, not opened (as `{first}`): unpack them, or give a \
                         folder of archives alone",
                        counted(unopened.len(), "archive")
                    )
                };
                unopened.first().map(note).into_iter().collect()
            }
            Location::Archives(archives) => archives.notes(),
            Location::Tables(tables) => tables.notes(),
        }
    }

    /// Notes an image with an EXIF orientation for which the annotations do not show which way up its boxes
    /// were drawn: its size is the same both ways, or the annotations have no size.
    pub(crate) fn note_turned(&self, name: &str) {
        let mut turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        if !turned.contains(name) {
            turned.insert(name.to_owned());
        }
    }

    /// A note on such images, if some were read. `setting` is the setting or flag to change.
    #[must_use]
    pub fn turned(&self, setting: &str) -> Option<String> {
        let turned = self.turned.lock().unwrap_or_else(PoisonError::into_inner);
        let first = turned.first()?;
        let (read, otherwise, value) = match self.orientation {
            Orientation::Exif => ("as viewers show them", "on the pixels as stored", "stored"),
            Orientation::Stored => ("as stored", "on what viewers show", "exif"),
        };
        Some(format!(
            "{}, as `{first}`, with an EXIF orientation, read {read}. The annotations do not show which way up \
             the boxes were drawn. If they were drawn {otherwise}, set {setting} to {value}",
            counted(turned.len(), "image")
        ))
    }

    /// A note on files of several images of which the first one was read, if there were some.
    #[must_use]
    pub fn several(&self) -> Option<String> {
        let several = self.several.lock().unwrap_or_else(PoisonError::into_inner);
        let first = several.first()?;
        Some(format!(
            "{}, as `{first}`, of several images or pages: the first one is read",
            counted(several.len(), "file")
        ))
    }

    /// If none of these files exists: a message that names the first one. This is another mistake than
    /// some broken images: the wrong folder or archive.
    pub fn holds_none_of<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
        let first = names.next()?;
        if self.contains(first) || names.any(|name| self.contains(name)) {
            return None;
        }
        let what = match &self.location {
            Location::Folder(folder) => format!("the folder `{}`", folder.display()),
            Location::Archives(archives) => format!("the archive `{}`", archives.path().display()),
            Location::Tables(tables) => format!("the table `{}`", tables.path().display()),
        };
        let instead = self.index().and_then(|index| instead_of(first, index)).unwrap_or_default();
        Some(format!("{what} holds none of the annotated images, as `{first}`{instead}"))
    }

    /// The folder, archive or table.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.location {
            Location::Folder(path) => path,
            Location::Archives(archives) => archives.path(),
            Location::Tables(tables) => tables.path(),
        }
    }

    /// The names of what is no folder.
    fn index(&self) -> Option<&Index> {
        match &self.location {
            Location::Folder(_) => None,
            Location::Archives(archives) => Some(archives.index()),
            Location::Tables(tables) => Some(tables.index()),
        }
    }

    /// The contents of one image's file.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match &self.location {
            Location::Folder(folder) => image_io::read(&folder.join(name)),
            Location::Archives(archives) => archives.read(name),
            Location::Tables(tables) => tables.read(name),
        }
    }

    /// What lies beside an image under its name: a field of its sample, as `cls`, `json` or `txt`. The key of
    /// a sample is the path up to the first dot of the file's name, and the rest, in lower case, is the
    /// field. In archives only neighbours are of one sample. None if there is no such field, and for parquet.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn companion(&self, name: &str, field: &str) -> Result<Option<Vec<u8>>> {
        match &self.location {
            Location::Folder(folder) => {
                let Some(key) = samples::key(name) else { return Ok(None) };
                let path = folder.join(format!("{key}.{field}"));
                if path.is_file() { Ok(Some(fs_err::read(path)?)) } else { Ok(None) }
            }
            Location::Archives(archives) => archives.companion(name, field),
            Location::Tables(_) => Ok(None),
        }
    }

    /// Reads and decodes one image.
    ///
    /// # Errors
    /// As [`Self::read`] and [`image_io::decode_bytes`].
    pub fn image(&self, name: &str) -> Result<RgbImage> {
        Ok(self.decode(name)?.image)
    }

    /// As [`Self::image`], with its EXIF orientation.
    pub(crate) fn decode(&self, name: &str) -> Result<Decoded> {
        let bytes = self.read(name)?;
        if frames::are_several(&bytes) {
            let mut several = self.several.lock().unwrap_or_else(PoisonError::into_inner);
            several.insert(name.to_owned());
        }
        image_io::decode_bytes(&bytes, &self.display_path(name), self.orientation)
    }

    /// `[height, width]` of an image, the way up that images are read, from its headers alone.
    ///
    /// # Errors
    /// As [`Self::read`] and [`image_io::size`].
    pub fn size(&self, name: &str) -> Result<[u32; 2]> {
        self.size_as(name, self.orientation)
    }

    /// As [`Self::size`], another way up.
    pub(in crate::data) fn size_as(
        &self,
        name: &str,
        orientation: Orientation,
    ) -> Result<[u32; 2]> {
        Ok(self.frame(name)?.size(orientation))
    }

    /// What the headers of an image say of its frame.
    pub(in crate::data) fn frame(&self, name: &str) -> Result<Frame> {
        let path = self.display_path(name);
        match &self.location {
            Location::Folder(_) => {
                image_io::frame_of(BufReader::new(fs_err::File::open(&path)?), &path)
            }
            Location::Archives(archives) => archives.frame(name),
            Location::Tables(_) => image_io::frame_of(Cursor::new(self.read(name)?), &path),
        }
    }

    /// As [`Self::size`], of many images at once. None for one that is not there.
    #[must_use]
    pub fn sizes<N: AsRef<str> + Sync>(&self, names: &[N]) -> Vec<Option<Result<[u32; 2]>>> {
        let size = |name: &N| {
            let name = name.as_ref();
            self.contains(name).then(|| self.size(name))
        };
        names.par_iter().map(size).collect()
    }

    /// Which way up images are read.
    #[must_use]
    pub fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// Whether there is such a file. False, too, if an archive's index cannot be read: reading the file
    /// tells why.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match &self.location {
            Location::Folder(folder) => folder.join(name).is_file(),
            Location::Archives(_) | Location::Tables(_) => {
                let found = self.index().map(|index| index.find(archives::plain(name)));
                matches!(found, Some(Ok(Some(_))))
            }
        }
    }

    /// The folders directly below `below` (empty, or a path that ends in `/`), sorted, as in
    /// `n02690373`. Hidden ones (`.git`) are left out. Links to folders are followed.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn folders(&self, below: &str) -> Result<Vec<String>> {
        let mut found = match &self.location {
            Location::Folder(folder) => folder::folders(&folder.join(below))?,
            Location::Archives(_) | Location::Tables(_) => match self.index() {
                Some(index) => index.folders(below)?,
                None => Vec::new(),
            },
        };
        found.retain(|name| !name.starts_with('.'));
        found.sort_unstable();
        Ok(found)
    }

    /// The files below `below` (empty, or a path that ends in `/`), at any depth, sorted; paths
    /// relative to `below`. Hidden ones (`._1.jpg`) are left out. Links to files are followed,
    /// links to folders are not: they may lead back.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn files(&self, below: &str) -> Result<Vec<String>> {
        Ok(self.list(below)?.files)
    }

    /// Those of [`Self::files`] that are images by their names, and what was passed over (with whole
    /// paths). In webdataset's samples `a.seg.png` is no image.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn images(&self, below: &str) -> Result<(Vec<String>, PassedOver)> {
        let Listed { mut files, hidden, dangling } = self.list(below)?;
        let mut passed_over = PassedOver::default();
        let samples = self.is_samples();
        files.retain(|name| {
            let kept = is_image(name) && (!samples || samples::is_own_image(name));
            if !kept && is_image(name) {
                let kind = "fields of samples, not their images".to_owned();
                passed_over.count(kind, &format!("{below}{name}"));
            } else if !kept {
                passed_over.add(&format!("{below}{name}"));
            }
            kept
        });
        hidden.iter().for_each(|name| passed_over.add_hidden(&format!("{below}{name}")));
        dangling.iter().for_each(|name| passed_over.add_dangling(&format!("{below}{name}")));
        Ok((files, passed_over))
    }

    fn list(&self, below: &str) -> Result<Listed> {
        let mut listed = Listed::default();
        if let Location::Folder(folder) = &self.location {
            folder::walk(&folder.join(below), "", &mut listed)?;
        }
        if let Some(index) = self.index() {
            index.each_within(below, |name, _| {
                let name = &name[below.len()..];
                let hidden = name.split('/').any(|part| part.starts_with('.'));
                let of_kind = if hidden { &mut listed.hidden } else { &mut listed.files };
                of_kind.push(name.to_owned());
            })?;
        }
        if let Location::Archives(archives) = &self.location {
            let broken = archives.broken_links().iter().filter_map(|name| name.strip_prefix(below));
            listed.dangling.extend(broken.map(str::to_owned));
        }
        Ok(listed.sorted())
    }

    /// How messages name an image: its path, or archive and member.
    #[must_use]
    pub fn display_path(&self, name: &str) -> PathBuf {
        match &self.location {
            Location::Folder(path) => path.join(name),
            Location::Archives(archives) => archives.path().join(name),
            Location::Tables(tables) => tables.path().join(name),
        }
    }
}

/// What an index has in the place of an image: the same file in some folder, or how its images are called.
fn instead_of(image: &str, index: &Index) -> Option<String> {
    let below = format!("/{image}");
    let (mut same, mut other) = (None, None);
    let seen = index.each_from("", |name, _| {
        if name.ends_with(&below) {
            same = Some(name.to_owned());
            return ControlFlow::Break(());
        }
        if other.is_none() && is_image(name) {
            other = Some(name.to_owned());
        }
        ControlFlow::Continue(())
    });
    seen.ok()?;
    match (same, other) {
        (Some(same), _) => Some(format!(
            ", which is `{same}` in it: unpack it, and give the folder `{}` of what comes out",
            &same[..same.len() - below.len()]
        )),
        (None, Some(other)) => Some(format!("; its images are called as `{other}`")),
        (None, None) => Some("; it has no images at all".to_owned()),
    }
}
