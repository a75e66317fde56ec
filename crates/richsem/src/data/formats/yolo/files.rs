//! Where the files of a set lie: in folders, or in an uncompressed `.tar` that is read in place. The paths of
//! an archive's files begin with its own, as if it were a folder.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use crate::{
    data::{
        formats::members::{MOST_LOOKED_AT, Span, members},
        listing::PassedOver,
    },
    error::{Error, Result, read_text, text_of},
};

/// The files of a set.
#[derive(Debug)]
pub(in crate::data::formats) enum Files {
    Folders,
    Archive(Archive),
}

/// The files of an archive.
#[derive(Debug)]
pub(in crate::data::formats) struct Archive {
    /// Absolute.
    path: PathBuf,
    file: fs_err::File,
    spans: BTreeMap<PathBuf, Span>,
    /// Links, which lead nowhere here.
    links: PassedOver,
}

impl Archive {
    /// Reads all headers. The path is absolute.
    ///
    /// # Errors
    /// No readable `.tar`; one that is cut off.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (archive, whole) = Self::read_headers(path, usize::MAX)?;
        whole.map(|()| archive)
    }

    /// What its first entries are, as far as they can be read: [`Self::open`] says what is wrong with the rest.
    ///
    /// # Errors
    /// No file that can be opened.
    pub(super) fn look(path: &Path) -> Result<Self> {
        Self::read_headers(path, MOST_LOOKED_AT).map(|(archive, _)| archive)
    }

    fn read_headers(path: &Path, most: usize) -> Result<(Self, Result<()>)> {
        let file = fs_err::File::open(path)?;
        let (mut spans, mut links) = (BTreeMap::new(), PassedOver::default());
        let (members, read) = members(path, most, &mut links);
        for member in members {
            // What leads out of the archive belongs to no set.
            let inside = normal(&path.join(&member.path));
            if inside.starts_with(path) {
                spans.insert(inside, member.span);
            }
        }
        Ok((Self { path: path.to_owned(), file, spans, links }, read))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// All files, sorted.
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        self.spans.keys().map(PathBuf::as_path)
    }

    /// The files below a folder, sorted.
    fn below(&self, folder: &Path) -> impl Iterator<Item = &Path> {
        let folder = normal(folder);
        let files = self.spans.range(folder.clone()..).map(|(path, _)| path.as_path());
        files.take_while(move |path| path.starts_with(&folder)).filter(|path| *path != self.path)
    }

    /// What a file holds, if there is one.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        self.spans.get(path).map(|span| span.read(&self.file)).transpose()
    }
}

impl Files {
    /// The archive, if it is one: paths before and above it are none of the set's.
    pub(super) fn archive(&self) -> Option<&Path> {
        match self {
            Self::Folders => None,
            Self::Archive(archive) => Some(&archive.path),
        }
    }

    pub(super) fn is_file(&self, path: &Path) -> bool {
        match self {
            Self::Folders => path.is_file(),
            Self::Archive(archive) => archive.spans.contains_key(&normal(path)),
        }
    }

    pub(super) fn is_dir(&self, path: &Path) -> bool {
        match self {
            Self::Folders => path.is_dir(),
            Self::Archive(archive) => !self.is_file(path) && archive.below(path).next().is_some(),
        }
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.is_file(path) || self.is_dir(path)
    }

    /// What a file holds; none if there is no such file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Archive(archive) => archive.read(path),
            Self::Folders => match fs_err::read(path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// A text that is there.
    ///
    /// # Errors
    /// A file that is not there, cannot be read, or is no UTF-8.
    pub(super) fn text(&self, path: &Path) -> Result<String> {
        match self {
            Self::Folders => read_text(path),
            Self::Archive(archive) => match archive.read(&normal(path))? {
                Some(bytes) => text_of(path, bytes),
                None => Err(Error::other(format!("{}: no such file", path.display()))),
            },
        }
    }

    /// Adds the files below a folder, in any order. Links are followed, but not to a folder that the link is in.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(super) fn walk(
        &self,
        folder: &Path,
        files: &mut Vec<PathBuf>,
        passed_over: &mut PassedOver,
    ) -> Result<()> {
        let Self::Archive(archive) = self else { return walk(folder, files, passed_over) };
        for path in archive.below(folder) {
            let inner = path.strip_prefix(folder).unwrap_or(path);
            let hidden = inner.iter().any(|part| part.as_encoded_bytes().starts_with(b"."));
            match hidden {
                true => passed_over.add_hidden(&path.to_string_lossy()),
                false => files.push(path.to_owned()),
            }
        }
        Ok(())
    }

    /// Links of the archive, which are not followed.
    pub(super) fn links(&self) -> PassedOver {
        match self {
            Self::Folders => PassedOver::default(),
            Self::Archive(archive) => archive.links.clone(),
        }
    }
}

/// An absolute path without `.` and `..`. Links are not followed: labels lie beside the images as they are
/// named.
pub(in crate::data::formats) fn absolute(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().is_empty() {
        return Ok(std::env::current_dir()?);
    }
    Ok(normal(&std::path::absolute(path)?))
}

/// An absolute path without `.` and `..`.
pub(super) fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                parts.pop();
            }
            Component::CurDir => {}
            part => parts.push(part),
        }
    }
    parts
}

/// [`Files::walk`] of folders.
fn walk(folder: &Path, files: &mut Vec<PathBuf>, passed_over: &mut PassedOver) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let shown = path.to_string_lossy();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            passed_over.add_hidden(&shown);
        } else if kind.is_dir() {
            walk(&path, files, passed_over)?;
        } else if !kind.is_symlink() {
            files.push(path);
        } else {
            let leads_back = || {
                Ok::<_, crate::Error>(
                    fs_err::canonicalize(folder)?.starts_with(fs_err::canonicalize(&path)?),
                )
            };
            match std::fs::metadata(&path) {
                Err(_) => passed_over.add_dangling(&shown),
                Ok(target) if !target.is_dir() => files.push(path),
                Ok(_) if leads_back()? => {
                    passed_over.count("links to a folder around it".to_owned(), &shown);
                }
                Ok(_) => walk(&path, files, passed_over)?,
            }
        }
    }
    Ok(())
}
