//! Files below a folder.

use std::path::Path;

use crate::Result;

/// The files below a folder or in an archive, by kind.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) files: Vec<String>,
    /// Hidden files and folders.
    pub(super) hidden: Vec<String>,
    /// Links whose target does not exist.
    pub(super) dangling: Vec<String>,
}

impl Listed {
    /// Sorts the names.
    pub(super) fn sorted(mut self) -> Self {
        for names in [&mut self.files, &mut self.hidden, &mut self.dangling] {
            names.sort_unstable();
        }
        self
    }
}

/// Adds the files of a folder and those below it, with `prefix` before their names.
///
/// # Errors
/// A folder cannot be read.
pub(super) fn walk(folder: &Path, prefix: &str, listed: &mut Listed) -> Result<()> {
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

/// The folders directly below a folder. Links to folders are followed.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn folders(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if entry.path().is_dir() {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}
