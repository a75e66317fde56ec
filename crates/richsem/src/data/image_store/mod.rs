//! Where images lie: in a folder, or in one `.tar` read in place.

mod tar;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io::Cursor,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fs_err::os::unix::fs::FileExt as _;
use image::RgbImage;
use rayon::prelude::*;

use tar::Member;

use super::{
    image_io::{self, Decoded, Orientation},
    listing::{PassedOver, is_image},
};
use crate::{Error, Result};

/// Images by name. Reading is safe from any number of threads at once.
#[derive(Debug)]
pub struct ImageStore {
    location: Location,
    orientation: Orientation,
    /// Names of the images that [`Self::turned`] tells about.
    turned: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
enum Location {
    /// Files below this folder.
    Folder(PathBuf),
    /// Members of an uncompressed tar archive.
    Tar {
        /// Path of the archive.
        path: PathBuf,
        /// Kept open; reads say where they start, so that threads do not disturb each other.
        file: fs_err::File,
        /// Its files, sorted by name, each name once.
        members: Vec<Member>,
    },
}

impl ImageStore {
    /// Opens a folder, or indexes a tar archive (headers only, contents are skipped).
    ///
    /// # Errors
    /// `path` does not exist, is no tar archive, is compressed, or ends early.
    pub fn open(path: &Path, orientation: Orientation) -> Result<Self> {
        if fs_err::metadata(path)?.is_dir() {
            return Ok(Self::folder(path.to_owned(), orientation));
        }
        let file = fs_err::File::open(path)?;
        let members = tar::index(&file, path)?;
        let location = Location::Tar { path: path.to_owned(), file, members };
        Ok(Self { location, orientation, turned: Mutex::default() })
    }

    /// Images in a folder. Names are paths below it, or whole paths if `path` is empty.
    #[must_use]
    pub fn folder(path: PathBuf, orientation: Orientation) -> Self {
        Self { location: Location::Folder(path), orientation, turned: Mutex::default() }
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
            "{} image(s), as `{first}`, have an EXIF orientation, and are read {read}. The annotations do \
             not show which way up the boxes were drawn. If they were drawn {otherwise}, set {setting} \
             to {value}",
            turned.len()
        ))
    }

    /// If none of these files exists: a message that names the first one. This is another mistake than
    /// some broken images: the wrong folder or archive.
    pub fn holds_none_of<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
        let first = names.next()?;
        if self.contains(first) || names.any(|name| self.contains(name)) {
            return None;
        }
        let (what, example) = match &self.location {
            Location::Folder(folder) => (format!("the folder `{}`", folder.display()), None),
            Location::Tar { path, members, .. } => {
                let example = members.first().map(|member| &member.name);
                (format!("the archive `{}`", path.display()), example)
            }
        };
        let example = example.map(|e| format!("; its names look like `{e}`")).unwrap_or_default();
        Some(format!("{what} holds none of the annotated images, as `{first}`{example}"))
    }

    /// The folder or archive.
    #[must_use]
    pub fn path(&self) -> &Path {
        match &self.location {
            Location::Folder(path) | Location::Tar { path, .. } => path,
        }
    }

    /// The contents of one image's file.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match &self.location {
            Location::Folder(folder) => Ok(fs_err::read(folder.join(name))?),
            Location::Tar { path, file, members } => {
                let Some(member) = tar::find(members, name) else {
                    let problem = format!("not among the archive's {} files", members.len());
                    let mut error = Error::invalid(path, name, problem);
                    if let Some(Member { name, .. }) = members.first() {
                        error = error.with_hint(format!("its names look like `{name}`"));
                    }
                    return Err(error);
                };
                let mut bytes = vec![0; member.length as usize];
                file.read_exact_at(&mut bytes, member.offset)?;
                Ok(bytes)
            }
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
        image_io::decode_bytes(&self.read(name)?, &self.display_path(name), self.orientation)
    }

    /// `[height, width]` of an image, the way up that images are read, from its headers alone.
    ///
    /// # Errors
    /// As [`Self::read`] and [`image_io::size`].
    pub fn size(&self, name: &str) -> Result<[u32; 2]> {
        let path = self.display_path(name);
        match &self.location {
            Location::Folder(_) => image_io::size(&path, self.orientation),
            Location::Tar { .. } => {
                image_io::size_of(Cursor::new(self.read(name)?), &path, self.orientation)
            }
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

    /// Whether there is such a file.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match &self.location {
            Location::Folder(folder) => folder.join(name).is_file(),
            Location::Tar { members, .. } => tar::find(members, name).is_some(),
        }
    }

    /// The folders directly below `below` (empty, or a path that ends in `/`), sorted, as in
    /// `n02690373`. Hidden ones (`.git`) are left out. Links to folders are followed.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn folders(&self, below: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        match &self.location {
            Location::Folder(folder) => {
                for entry in fs_err::read_dir(folder.join(below))? {
                    let entry = entry?;
                    if entry.path().is_dir() {
                        found.push(entry.file_name().to_string_lossy().into_owned());
                    }
                }
            }
            Location::Tar { members, .. } => {
                for member in tar::within(members, below) {
                    // Sorted by name, so that those of one folder stand together.
                    if let Some((folder, _)) = member.name[below.len()..].split_once('/')
                        && found.last().is_none_or(|last| last != folder)
                    {
                        found.push(folder.to_owned());
                    }
                }
            }
        }
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
    /// paths).
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn images(&self, below: &str) -> Result<(Vec<String>, PassedOver)> {
        let Listed { mut files, hidden, dangling } = self.list(below)?;
        let mut passed_over = PassedOver::default();
        files.retain(|name| {
            let kept = is_image(name);
            if !kept {
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
        match &self.location {
            Location::Folder(folder) => walk(&folder.join(below), "", &mut listed)?,
            Location::Tar { members, .. } => {
                for name in tar::within(members, below).iter().map(|m| &m.name[below.len()..]) {
                    let hidden = name.split('/').any(|part| part.starts_with('.'));
                    let of_kind = if hidden { &mut listed.hidden } else { &mut listed.files };
                    of_kind.push(name.to_owned());
                }
            }
        }
        let Listed { files, hidden, dangling } = &mut listed;
        for names in [files, hidden, dangling] {
            names.sort_unstable();
        }
        Ok(listed)
    }

    /// How messages name an image: its path, or archive and member.
    #[must_use]
    pub fn display_path(&self, name: &str) -> PathBuf {
        match &self.location {
            Location::Folder(path) | Location::Tar { path, .. } => path.join(name),
        }
    }
}

/// The files below a folder, by kind.
#[derive(Default)]
struct Listed {
    files: Vec<String>,
    /// Hidden files and folders.
    hidden: Vec<String>,
    /// Links whose target does not exist.
    dangling: Vec<String>,
}

/// Adds the files of a folder and those below it, with `prefix` before their names.
fn walk(folder: &Path, prefix: &str, listed: &mut Listed) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type()?;
        let of_kind = if entry.file_name().as_encoded_bytes().starts_with(b".") {
            &mut listed.hidden
        } else if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), listed)?;
            continue;
        } else if !kind.is_symlink() {
            &mut listed.files
        } else {
            match std::fs::metadata(entry.path()) {
                Ok(target) if target.is_dir() => continue,
                Ok(_) => &mut listed.files,
                Err(_) => &mut listed.dangling,
            }
        };
        of_kind.push(name);
    }
    Ok(())
}
