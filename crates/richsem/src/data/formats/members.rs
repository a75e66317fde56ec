//! The files of an uncompressed `.tar`: found by its headers, read in place.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    path::{Component, Path, PathBuf},
};

use fs_err::os::unix::fs::FileExt as _;

use crate::{
    data::{
        image_store::packed,
        listing::{PassedOver, is_image},
    },
    error::{Error, Result},
    plural::clause,
};

/// Most files of an archive that are looked at to recognise a set in it.
pub(super) const MOST_LOOKED_AT: usize = 1 << 18;

/// Where a file lies in an archive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// In bytes, from the archive's beginning.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) length: u64,
}

impl Span {
    /// Its contents.
    pub(super) fn read(self, archive: &fs_err::File) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.length as usize];
        archive.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// Reads a file of an archive front to back.
pub(super) struct Part {
    archive: fs_err::File,
    left: Span,
}

impl Span {
    /// A reader of the contents.
    pub(super) fn reader(self, archive: fs_err::File) -> Part {
        Part { archive, left: self }
    }
}

impl std::io::Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from(self.left.length).map_or(buffer.len(), |m| m.min(buffer.len()));
        let read = self.archive.read_at(&mut buffer[..most], self.left.offset)?;
        self.left.offset += read as u64;
        self.left.length -= read as u64;
        Ok(read)
    }
}

/// A file of an archive.
pub(super) struct Member {
    /// Its path, without `./`.
    pub(super) path: PathBuf,
    /// Its name as it is written.
    pub(super) name: String,
    pub(super) span: Span,
}

/// A path without `./`.
pub(super) fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The files of an archive, `most` of its entries at the most, in its order; links are passed over. Of files of
/// one path the last one counts, as where the archive is unpacked: `tar -r` appends what has changed. With them
/// comes what is wrong with the archive: what was found up to there is still enough to recognise a set.
pub(super) fn members(
    input: &Path,
    most: usize,
    passed_over: &mut PassedOver,
) -> (Vec<Member>, Result<()>) {
    let mut found = Vec::<Member>::new();
    let mut place = HashMap::<PathBuf, usize>::new();
    let read = each(input, most, passed_over, |member| match place.entry(member.path.clone()) {
        Entry::Occupied(earlier) => found[*earlier.get()] = member,
        Entry::Vacant(new) => {
            new.insert(found.len());
            found.push(member);
        }
    });
    (found, read)
}

/// A note on the files of an archive, other than images, whose name a later one has. The store of the images tells
/// of images.
///
/// # Errors
/// No readable `.tar`; a file that is cut short.
pub(super) fn note_replaced(input: &Path) -> Result<Option<String>> {
    let (mut paths, mut replaced, mut first) = (HashSet::new(), 0, None);
    each(input, usize::MAX, &mut PassedOver::default(), |Member { path, name, .. }| {
        if !is_image(&name) && !paths.insert(path) {
            replaced += 1;
            first.get_or_insert(name);
        }
    })?;
    Ok(first.map(|first| {
        let files = clause(replaced, "file", ["is", "are"]);
        format!("{files} not read, as a later one in the archive has the same name (`{first}`)")
    }))
}

/// Goes through the files of an archive.
fn each(
    input: &Path,
    most: usize,
    passed_over: &mut PassedOver,
    mut each: impl FnMut(Member),
) -> Result<()> {
    let broken = |e: &dyn std::fmt::Display| {
        Error::invalid(input, "archive", format!("not a readable .tar: {e}")).with_hint(
            "expected a folder or an uncompressed .tar; if it is one, it may be truncated: compare its size with the \
             original's",
        )
    };
    let cut = |problem: String| {
        Error::invalid(input, "archive", format!("not a readable .tar: {problem}")).with_hint(
            "it may be truncated: compare its size with the original's and download or copy it again",
        )
    };
    let file = fs_err::File::open(input)?;
    let total = file.metadata()?.len();
    if total == 0 {
        return Err(cut("the file is empty".to_owned()));
    }
    if let Some((what, hint)) = packed(input, input) {
        return Err(Error::invalid(input, "archive", format!("not a readable .tar: it is {what}"))
            .with_hint(hint));
    }
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let mut last = None::<PathBuf>;
    for entry in archive.entries_with_seek().map_err(|e| broken(&e))?.take(most) {
        let entry = entry.map_err(|e| match &last {
            Some(last) => cut(format!("what follows `{}` is no file of it: {e}", last.display())),
            None => broken(&format!("it does not begin as a .tar does: {e}")),
        })?;
        let kind = entry.header().entry_type();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = plain(Path::new(&name));
        last = Some(if path.as_os_str().is_empty() { "./".into() } else { path.clone() });
        if kind.is_symlink() || kind.is_hard_link() {
            passed_over.count("links within the archive".into(), &path.to_string_lossy());
        }
        if !kind.is_file() {
            continue;
        }
        let span = Span { offset: entry.raw_file_position(), length: entry.size() };
        if span.offset.checked_add(span.length).is_none_or(|end| end > total) {
            let there = total.saturating_sub(span.offset);
            let problem = format!(
                "`{}` is cut short: expected {} bytes of it, got {there}",
                path.display(),
                span.length
            );
            return Err(cut(problem));
        }
        each(Member { path, name, span });
    }
    Ok(())
}
