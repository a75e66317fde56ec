//! A set in an uncompressed `.tar`, read in place: its headers, then the texts that are asked for.

use std::{
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use super::collected::{
    Collected, Kind, Span, TextFile, is_annotation, kind_beside, kind_of, two_sets,
};
use crate::error::{Error, Result};

/// Most files of an archive that are looked at to recognise a set in it.
const MOST_LOOKED_AT: usize = 1 << 18;

/// Bytes of an XML file that are read to know what it is.
const MOST_READ: u64 = 4096;

/// A path without `./`.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

/// The first XML file in a folder `Annotations` of an archive, or the first one beside images.
pub(super) fn first_annotation(input: &Path) -> Option<PathBuf> {
    let file = std::fs::File::open(input).ok()?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let (mut beside, mut images) = (None, false);
    for entry in archive.entries_with_seek().ok()?.take(MOST_LOOKED_AT) {
        let mut entry = entry.ok()?;
        let path = plain(&entry.path().ok()?);
        if !entry.header().entry_type().is_file() {
            continue;
        }
        if let Some((_, Kind::Annotation { .. })) = kind_of(&path) {
            return Some(path);
        }
        match kind_beside(&path.to_string_lossy()) {
            Kind::Annotation { .. } if beside.is_none() => {
                let mut head = Vec::new();
                entry.by_ref().take(MOST_READ).read_to_end(&mut head).ok()?;
                beside = is_annotation(&head).then_some(path);
            }
            Kind::Image { .. } => images = true,
            _ => {}
        }
    }
    beside.filter(|_| images)
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
    let (mut root, mut others) = (None::<PathBuf>, Vec::new());
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
        let span = Span { offset: entry.raw_file_position(), length: entry.size() };
        if span.offset.checked_add(span.length).is_none_or(|end| end > total) {
            return Err(broken(&format!("`{}` is cut short", path.display())));
        }
        // A store of images has names without a leading `./`.
        let name = name.trim_start_matches("./").to_owned();
        let known = kind_of(&path).filter(|(_, kind)| !matches!(kind, Kind::Other));
        let Some((set, kind)) = known else {
            others.push((path, name, span));
            continue;
        };
        match &root {
            None => root = Some(set),
            Some(first) if *first != set => return Err(two_sets(input, first, &set)),
            Some(_) => {}
        }
        collected.take(kind, TextFile { path: input.join(&path), span: Some(span) }, name)?;
    }
    // Without folders of VOC's names, XML files lie beside their images.
    collected.beside = root.is_none();
    for (path, name, span) in others {
        let kind = if collected.beside { kind_beside(&name) } else { Kind::Other };
        let shown = if matches!(kind, Kind::Other) { path } else { input.join(path) };
        collected.take(kind, TextFile { path: shown, span: Some(span) }, name)?;
    }
    if collected.beside {
        collected.split_by_folders();
    }
    Ok(collected)
}
