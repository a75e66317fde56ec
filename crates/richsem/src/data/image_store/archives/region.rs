//! Where a tar archive lies: a file, or a part of one.

use std::path::Path;

use crate::Error;

/// Bytes of a block: members and their headers begin at multiples of it.
pub(super) const BLOCK: u64 = 512;

/// A part of a file that holds a tar archive: the whole file, or a member of another archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Region<'a> {
    /// The file.
    pub(super) file: &'a fs_err::File,
    /// Its path.
    pub(super) path: &'a Path,
    /// The member of the file that is walked; none: the whole file.
    pub(super) inner: Option<&'a str>,
    /// Where the archive begins in the file.
    pub(super) start: u64,
    /// Where it ends.
    pub(super) end: u64,
}

/// The position where the header after such a member begins.
pub(super) fn after(offset: u64, length: u64) -> u64 {
    offset.saturating_add(length).div_ceil(BLOCK).saturating_mul(BLOCK)
}

impl Region<'_> {
    /// What errors about an archive name as the field.
    pub(super) fn field(&self) -> String {
        match self.inner {
            Some(name) => format!("tar archive `{name}` in it"),
            None => "tar archive".to_owned(),
        }
    }

    pub(super) fn unreadable(&self, first: bool) -> Error {
        let problem = match (first, self.inner) {
            (true, None) => "this is neither a folder nor a tar archive",
            (true, Some(_)) => "this is no tar archive",
            (false, _) => "damaged or truncated: a header between its files cannot be read",
        };
        Error::invalid(self.path, self.field(), problem).with_hint(
            "expected a folder of images or an uncompressed .tar; check it with `tar tf FILE`",
        )
    }

    pub(super) fn truncated(&self, name: &str, offset: u64, length: u64) -> Error {
        let what = if self.inner.is_some() { "the archive" } else { "the file" };
        let problem = format!(
            "truncated: `{name}` has {length} bytes from {offset}, {what} ends at {}",
            self.end
        );
        Error::invalid(self.path, self.field(), problem)
            .with_hint("copy or download the archive again")
    }
}
