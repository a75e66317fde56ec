//! Members of a tar archive, found without reading their contents.

use std::path::Path;

use fs_err::os::unix::fs::FileExt as _;

use crate::{Error, Result};

/// What errors about an archive name as the field.
const FIELD: &str = "tar archive";

/// One file of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Path, without a leading `./`.
    pub(super) name: Box<str>,
    /// Where its contents begin, in bytes.
    pub(super) offset: u64,
    /// Length of its contents in bytes.
    pub(super) length: u64,
}

/// Names in archives often begin with `./`; annotation files have them without.
fn plain(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("./") {
        name = rest;
    }
    name
}

/// The member of that name.
pub(super) fn find<'a>(members: &'a [Member], name: &str) -> Option<&'a Member> {
    let at = members.binary_search_by(|m| (*m.name).cmp(plain(name))).ok()?;
    Some(&members[at])
}

/// The members whose names begin with `below`.
pub(super) fn within<'a>(members: &'a [Member], below: &str) -> &'a [Member] {
    let rest = &members[members.partition_point(|m| *m.name < *below)..];
    &rest[..rest.partition_point(|m| m.name.starts_with(below))]
}

/// Sorts by name. If several members have the same name, the last is the file, as when unpacking.
fn sort(members: &mut Vec<Member>) {
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members.dedup_by(|later, kept| {
        let same = later.name == kept.name;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
}

/// The files of an archive, sorted by name. Only headers are read.
///
/// # Errors
/// The file is compressed, empty, cut off, or no tar archive.
pub(super) fn index(file: &fs_err::File, path: &Path) -> Result<Vec<Member>> {
    let total = file.metadata()?.len();
    let mut magic = [0; 2];
    if total >= 2 {
        file.read_exact_at(&mut magic, 0)?;
    }
    if magic == [0x1F, 0x8B] {
        return Err(Error::invalid(path, FIELD, "compressed with gzip; members cannot be found")
            .with_hint("decompress it first: `gunzip FILE`"));
    }
    if total == 0 {
        return Err(Error::invalid(path, FIELD, "the file is empty")
            .with_hint("copy or download the archive again"));
    }
    // The reader's own words quote bytes of the file.
    let unreadable = |first: bool| {
        let problem = if first {
            "this is neither a folder nor a tar archive"
        } else {
            "damaged or truncated: a header between its files cannot be read"
        };
        Error::invalid(path, FIELD, problem).with_hint(
            "expected a folder of images or an uncompressed .tar; check it with `tar tf FILE`",
        )
    };
    let mut archive = ::tar::Archive::new(std::io::BufReader::new(file));
    let mut members = Vec::new();
    let mut links = Vec::new();
    let entries = archive.entries_with_seek().map_err(|_| unreadable(true))?;
    for (index, entry) in entries.enumerate() {
        let entry = entry.map_err(|_| unreadable(index == 0))?;
        // `path_bytes` resolves GNU long names and PAX records.
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = plain(&name).to_owned();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let (offset, length) = (entry.raw_file_position(), entry.size());
            if offset.checked_add(length).is_none_or(|end| end > total) {
                let problem = format!(
                    "truncated: `{name}` has {length} bytes from {offset}, the file ends at {total}"
                );
                return Err(Error::invalid(path, FIELD, problem)
                    .with_hint("copy or download the archive again"));
            }
            members.push(Member { name: name.into(), offset, length });
        } else if kind.is_hard_link() || kind.is_symlink() {
            let Some(target) = entry.link_name_bytes() else { continue };
            let target = String::from_utf8_lossy(&target).into_owned();
            // tar writes the second name of one file as a link to the first.
            let target = if kind.is_symlink() { beside(&name, &target) } else { Some(target) };
            links.extend(target.map(|target| (name, target)));
        }
    }
    sort(&mut members);
    Ok(with_links(members, links))
}

/// Adds links as members: name and target of each. Links may be to links. Links to nothing in the
/// archive are left out.
fn with_links(mut members: Vec<Member>, mut links: Vec<(String, String)>) -> Vec<Member> {
    loop {
        let (linked, left): (Vec<_>, Vec<_>) =
            links.into_iter().partition(|(_, target)| find(&members, target).is_some());
        if linked.is_empty() {
            return members;
        }
        let linked: Vec<Member> = linked
            .into_iter()
            .filter_map(|(name, target)| {
                Some(Member { name: name.into(), ..find(&members, &target)?.clone() })
            })
            .collect();
        members.extend(linked);
        sort(&mut members);
        links = left;
    }
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
