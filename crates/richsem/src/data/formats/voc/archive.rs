//! A set in an uncompressed `.tar`, read in place: its headers, then the texts that are asked for.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use super::collected::{Collected, Kind, TextFile, is_annotation, kind_beside, kind_of, two_sets};
use crate::{
    data::{
        formats::members::{MOST_LOOKED_AT, Member, members, plain},
        listing::PassedOver,
    },
    error::Result,
};

/// Most XML files that are looked into: some may be empty or broken.
pub(super) const MOST_XML: usize = 50;

/// Bytes of an XML file that are read to know what it is.
const MOST_READ: u64 = 4096;

/// The first XML file in a folder `Annotations` of an archive, or the first one of an archive that has images.
pub(super) fn first_annotation(input: &Path) -> Option<PathBuf> {
    let file = std::fs::File::open(input).ok()?;
    let mut archive = tar::Archive::new(std::io::BufReader::new(file));
    let (mut beside, mut images, mut looked_into) = (None, false, 0);
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
            Kind::Annotation { .. } if beside.is_none() && looked_into < MOST_XML => {
                looked_into += 1;
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
    let mut collected = Collected {
        images_at: input.to_owned(),
        archive: Some(fs_err::File::open(input)?),
        ..Collected::default()
    };
    let (mut root, mut files) = (None::<PathBuf>, Vec::new());
    let (mut has_images, mut has_texts) = (false, false);
    let mut links = PassedOver::default();
    let (members, read) = members(input, usize::MAX, &mut links);
    read?;
    for Member { path, name, span } in members {
        // A store of images has names without a leading `./`.
        let name = name.trim_start_matches("./").to_owned();
        let known = kind_of(&path).map(|(_, kind)| kind);
        has_images |= matches!(known, Some(Kind::Image { .. }));
        has_texts |= matches!(known, Some(Kind::Annotation { .. }));
        files.push((path, name, span));
    }
    collected.passed_over.extend(links);
    // Without folders of VOC's names, XML files lie beside their images or in a folder of their own.
    collected.beside = !(has_images && has_texts);
    for (path, name, span) in files {
        let known = kind_of(&path).filter(|(_, kind)| !matches!(kind, Kind::Other));
        let kind = match known {
            _ if collected.beside => kind_beside(&name),
            None => Kind::Other,
            Some((set, kind)) => {
                let first = root.get_or_insert_with(|| set.clone());
                if *first != set {
                    return Err(two_sets(input, first, &set));
                }
                kind
            }
        };
        let shown = if matches!(kind, Kind::Other) { path } else { input.join(path) };
        collected.take(kind, TextFile { path: shown, span: Some(span) }, name)?;
    }
    if collected.beside {
        collected.without_own_folders();
    }
    collected.split_by_folders();
    Ok(collected)
}
