//! What files of archives in archives, and of several archives, are called.

use fs_err::os::unix::fs::FileExt as _;
use serde::{Deserialize, Serialize};

use super::{Part, region::Region, walk::is_header};
use crate::{Error, Result};

/// An archive in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inner {
    /// Its name as a member.
    pub(super) name: String,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Its length in bytes.
    pub(super) length: u64,
}

/// How a member's own name becomes that in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Naming {
    /// What names begin with: empty, or the path of a folder with its `/`.
    prefix: String,
    /// The folder that an archive often has around its files, with its `/`; it is not repeated.
    own: String,
}

impl Naming {
    /// Of an archive's members.
    pub(super) fn of_part(part: &Part) -> Self {
        let own = part.prefix.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let own = if own.is_empty() { String::new() } else { format!("{own}/") };
        Self { prefix: part.prefix.clone(), own }
    }

    /// Of the members of an archive in it: `n01440764.tar` has the files of the folder `n01440764`.
    /// `root` is left out of its name.
    pub(super) fn of_inner(part: &Part, inner: &Inner, root: &str) -> Self {
        let name = inner.name.strip_prefix(root).unwrap_or(&inner.name);
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let own = stem.rsplit('/').next().unwrap_or(stem);
        let own = format!("{own}/");
        Self { prefix: format!("{}{stem}/", part.prefix), own }
    }

    /// The name in the store.
    pub(super) fn name(&self, name: &str) -> String {
        let below = name.strip_prefix(&self.own).unwrap_or(name);
        [&self.prefix, below].concat()
    }
}

/// The folders that all archives in an archive lie in: not a part of names, since nothing else is there.
/// Empty if there are images besides.
pub(super) fn root(inners: &[Inner], loose: bool) -> String {
    let folder = |inner: &Inner| {
        let end = inner.name.rfind('/').map_or(0, |slash| slash + 1);
        inner.name[..end].to_owned()
    };
    let mut folders = inners.iter().map(folder);
    let (false, Some(mut root)) = (loose, folders.next()) else { return String::new() };
    for folder in folders {
        while !folder.starts_with(&root) {
            root.pop();
            root.truncate(root.rfind('/').map_or(0, |slash| slash + 1));
        }
    }
    root
}

/// Whether a member is an archive of its own: a `.tar` by name and by its first block.
///
/// # Errors
/// A `.tar` that is compressed: its files would be missing.
pub(super) fn is_archive(
    whole: Region<'_>,
    name: &str,
    (offset, length): (u64, u64),
) -> Result<bool> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if !extension.eq_ignore_ascii_case("tar") {
        return Ok(false);
    }
    let mut block = vec![0; length.min(512) as usize];
    whole.file.read_exact_at(&mut block, offset)?;
    if block.starts_with(&[0x1F, 0x8B]) {
        let problem =
            format!("`{name}` in it is compressed with gzip; its members cannot be found");
        return Err(Error::invalid(whole.path, "tar archive", problem)
            .with_hint("unpack the archive, and decompress those in it: `gunzip FILE`"));
    }
    Ok(is_header(&block))
}
