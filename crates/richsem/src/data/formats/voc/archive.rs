//! A set in an uncompressed `.tar`, read in place: its headers, then the texts that are asked for.

use std::{
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use super::collected::{Collected, Kind, Span, TextFile, kind_of, two_sets};
use crate::error::{Error, Result};

/// Most files of an archive that are looked at to recognise a set in it.
const MOST_LOOKED_AT: usize = 1 << 18;

/// A path without `./`.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The first XML file in a folder `Annotations` of an archive.
pub(super) fn first_annotation(input: &Path) -> Option<PathBuf> {
    let file = std::fs::File::open(input).ok()?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    for entry in archive.entries_with_seek().ok()?.take(MOST_LOOKED_AT) {
        let entry = entry.ok()?;
        let path = plain(&entry.path().ok()?);
        if let Some((_, Kind::Annotation { .. })) = kind_of(&path)
            && entry.header().entry_type().is_file()
        {
            return Some(path);
        }
    }
    None
}

/// Finds the files of a set. Its headers are read, and the texts of its image sets.
pub(super) fn collect(input: &Path) -> Result<Collected> {
    let broken = |e: &dyn std::fmt::Display| {
        Error::invalid(input, "archive", format!("not a readable .tar: {e}")).with_hint(
            "expected a folder or an uncompressed .tar; unpack .tar.gz and .zip first, and if it \
             is a .tar, it may be truncated: compare its size with the original's",
        )
    };
    let mut file = fs_err::File::open(input)?;
    let total = file.metadata()?.len();
    let mut magic = [0; 4];
    let read = file.read(&mut magic)?;
    match &magic[..read] {
        [0x1f, 0x8b, ..] => return Err(broken(&"it is compressed with gzip")),
        [b'P', b'K', 3, 4] => return Err(broken(&"it is a zip archive")),
        _ => {}
    }
    let mut collected = Collected {
        images_at: input.to_owned(),
        archive: Some(fs_err::File::open(input)?),
        ..Collected::default()
    };
    let mut root: Option<PathBuf> = None;
    std::io::Seek::rewind(&mut file)?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    for entry in archive.entries_with_seek().map_err(|e| broken(&e))? {
        let entry = entry.map_err(|e| broken(&e))?;
        let kind = entry.header().entry_type();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = plain(Path::new(&name));
        if kind.is_symlink() || kind.is_hard_link() {
            collected.passed_over.count("links within the archive".into(), &path.to_string_lossy());
        }
        if !kind.is_file() {
            continue;
        }
        let known = kind_of(&path).filter(|(_, kind)| !matches!(kind, Kind::Other));
        let Some((set, kind)) = known else {
            collected.passed_over.add(&path.to_string_lossy());
            continue;
        };
        match &root {
            None => root = Some(set),
            Some(first) if *first != set => return Err(two_sets(input, first, &set)),
            Some(_) => {}
        }
        let span = Span { offset: entry.raw_file_position(), length: entry.size() };
        if span.offset.checked_add(span.length).is_none_or(|end| end > total) {
            return Err(broken(&format!("`{}` is cut short", path.display())));
        }
        // A store of images has names without a leading `./`.
        let name = name.trim_start_matches("./").to_owned();
        collected.take(kind, TextFile { path: input.join(&path), span: Some(span) }, name)?;
    }
    Ok(collected)
}
