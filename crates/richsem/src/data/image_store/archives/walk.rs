//! What is in a tar archive, found without reading the contents of its members.

use std::os::unix::fs::FileExt as _;

use super::{
    members::{Member, Members, checksum},
    region::{BLOCK, Region, after},
};
use crate::{Error, Result, data::image_store::unpacking};

/// What a header tells of.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A file: where its contents lie in the file that holds the archive.
    File { name: &'a str, offset: u64, length: u64 },
    /// A second name of a file. `target` is a path in the archive, as the name is.
    Link { name: &'a str, target: Option<String> },
    /// What is neither file, folder nor link: its kind in the plural, and its name.
    Other { kind: &'static str, name: &'a str },
}

/// Names in archives often begin with `./`; annotation files have them without.
pub(in super::super) fn plain(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    name
}

/// Whether bytes are the header of a tar archive's member, or the zeros of an archive without members.
pub(in crate::data) fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.get(..BLOCK as usize) else { return false };
    if block.iter().all(|byte| *byte == 0) {
        return true;
    }
    let digits = block[148..156].split(|byte| !byte.is_ascii_digit()).find(|d| !d.is_empty());
    let written = digits.and_then(|digits| str::from_utf8(digits).ok());
    written.and_then(|digits| u32::from_str_radix(digits, 8).ok()) == Some(checksum(block))
}

/// Refuses what cannot be walked, in words that say what it is.
///
/// # Errors
/// The file is empty, or compressed.
pub(super) fn check(region: &Region<'_>) -> Result<()> {
    if region.start == region.end {
        return Err(Error::invalid(region.path, region.field(), "the file is empty")
            .with_hint("copy or download the archive again"));
    }
    let mut head = [0; 8];
    let read = region.file.file().read_at(&mut head, region.start)?;
    let packed = [
        (&[0x1F, 0x8B][..], "gzip"),
        (b"BZh", "bzip2"),
        (b"\xFD7zXZ\0", "xz"),
        (b"\x28\xB5\x2F\xFD", "zstd"),
        (b"PK\x03\x04", "zip"),
    ];
    for (magic, by) in packed {
        if head[..read].starts_with(magic) {
            let problem = format!("compressed with {by}; members cannot be found");
            let hint = match region.inner {
                None => unpacking(region.path),
                Some(_) => unpacking(region.path).map(|hint| format!("{hint}, unpacked, too")),
            };
            let error = Error::invalid(region.path, region.field(), problem);
            return Err(hint.into_iter().fold(error, Error::with_hint));
        }
    }
    Ok(())
}

/// Shows what is in an archive, from a header at `at` on (a position in the file), and the position after
/// each member. True at the end if the archive has its end mark: without, it may have been cut off.
///
/// # Errors
/// The archive cannot be read, is cut off within a member, is damaged, or is none; those of `visit`.
pub(super) fn walk(
    region: Region<'_>,
    at: u64,
    mut visit: impl FnMut(Found<'_>, u64) -> Result<()>,
) -> Result<bool> {
    let mut members = Members::new(region, at);
    let mut next = at;
    loop {
        let member = members.next().map_err(|error| match error.raw_os_error() {
            // The system's own words; the reader's say nothing of the file.
            Some(_) => Error::from(error),
            None => region.unreadable(next == region.start),
        })?;
        let Some(Member { kind, name, target, sparse, offset, length }) = member else { break };
        let name = plain(&name);
        next = after(offset, length);
        let is_file = kind.is_file() || kind.is_contiguous();
        if is_file && offset.checked_add(length).is_none_or(|end| end > region.end) {
            return Err(region.truncated(name, offset, length));
        }
        let found = if kind.is_hard_link() || kind.is_symlink() {
            // tar writes the second name of one file as a link to the first.
            let target = match kind.is_symlink() {
                true => target.and_then(|target| beside(name, &target)),
                false => target.map(|target| plain(&target).to_owned()),
            };
            Found::Link { name, target }
        } else if sparse {
            Found::Other { kind: "sparse files", name }
        } else if is_file {
            Found::File { name, offset, length }
        } else if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        } else {
            Found::Other { kind: "devices and other special members", name }
        };
        visit(found, next)?;
    }
    Ok(next < region.end)
}

/// The path that a symbolic link points to; none outside of the archive.
fn beside(name: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
