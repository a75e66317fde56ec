//! COCO's and LVIS's files in an uncompressed `.tar`, read in place: their parts are those that a folder would
//! have. Images are called by their paths in the archive.

use std::{
    collections::HashSet,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::names::{
    ANNOTATIONS, Look, boxed, is_json, is_meant, is_roboflow, names, near, near_of, parts,
};
use crate::{
    data::{
        formats::{
            Place, Request,
            images_at::{self, PARTS, are_apart, last},
            members::{MOST_LOOKED_AT, Span, members},
            place::{most_held, sample},
        },
        image_store::ImageStore,
        json_file::JsonFile,
        listing::{PassedOver, is_image},
        reading::open_store,
        records::Records,
    },
    error::{Error, Result},
    json,
};

/// Bytes of a JSON file that are read to know what is in it.
const HEAD: u64 = 64 << 10;

/// An annotation file of an archive.
pub(super) struct File {
    /// Its path in the archive.
    pub(super) path: PathBuf,
    span: Span,
}

/// The JSON files of an archive that may be a set's, sorted by their paths, each with its beginning; as far as
/// its headers can be read: the reader says what is wrong with the rest.
fn candidates(archive: &Path, most: usize) -> Result<Vec<(File, Look)>> {
    let (mut found, mut images) = (Vec::new(), HashSet::new());
    let (members, read) = members(archive, most, &mut PassedOver::default());
    for member in members {
        let hidden = member.path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."));
        let name = member.path.to_string_lossy();
        if !hidden && is_json(&name) {
            found.push(File { span: member.span, path: member.path });
        } else if !hidden && is_image(&name) {
            images.insert(member.path.with_extension(""));
        }
    }
    if most == usize::MAX {
        read?;
    }
    // The labels of one image (WebDataset) are beside it, under its name.
    found.retain(|file| !images.contains(&file.path.with_extension("")));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let opened = fs_err::File::open(archive)?;
    let roboflow = found.iter().any(|file| is_roboflow(&file.path));
    found.retain(|file| !roboflow || is_roboflow(&file.path));
    // Those nearest to the top, as a folder has them: `annotations/*.json`, else what lies beside that folder.
    let place = |file: &File| {
        let folders = file.path.iter().count();
        let inner = file.path.iter().rev().nth(1).is_some_and(|name| name == ANNOTATIONS);
        if inner { (folders - 1, 0) } else { (folders, 1) }
    };
    let nearest = found.iter().map(place).min();
    found.retain(|file| Some(place(file)) == nearest);
    let mut all = Vec::new();
    for file in found {
        let (reader, _) =
            json::counted(file.span.reader(clone(&opened, archive)?), file.span.length)?;
        let mut head = Vec::new();
        // What is wrong with it, its reader will say.
        let _ = reader.take(HEAD).read_to_end(&mut head);
        all.push((file, Look::of(&String::from_utf8_lossy(&head))));
    }
    Ok(all)
}

/// The annotation files of an archive, sorted by their paths.
fn files(archive: &Path, most: usize) -> Result<Vec<File>> {
    let (files, looks): (Vec<File>, Vec<Look>) = candidates(archive, most)?.into_iter().unzip();
    let named: Vec<(PathBuf, Look)> =
        files.iter().map(|file| file.path.clone()).zip(looks).collect();
    let is_part = parts(&named);
    let paths: Vec<PathBuf> =
        named.into_iter().zip(&is_part).filter(|(_, is)| **is).map(|((path, _), _)| path).collect();
    let boxed = boxed(&paths);
    Ok(files.into_iter().filter(|file| boxed.contains(&file.path)).collect())
}

/// As of a folder: what is wrong with the first JSON file that is probably meant to be annotations.
pub(super) fn mistake(place: &Place) -> Option<Error> {
    let files = candidates(place.path(), usize::MAX).ok()?;
    let (file, _) = files.into_iter().find(|(file, look)| is_meant(&file.path, *look))?;
    let opened = fs_err::File::open(place.path()).ok()?;
    let (reader, _) = json::counted(file.span.reader(opened), file.span.length).ok()?;
    let shown = place.path().join(&file.path);
    super::read(&shown, reader, super::CHUNK, true, &|| Ok(())).err()
}

fn clone(file: &fs_err::File, path: &Path) -> Result<fs_err::File> {
    let cloned = file.file().try_clone()?;
    Ok(fs_err::File::from_parts(cloned, path))
}

/// The files that recognising a place takes.
pub(super) fn look(place: &Place) -> Vec<File> {
    files(place.path(), MOST_LOOKED_AT).unwrap_or_default()
}

/// What its parts are called.
pub(super) fn splits(place: &Place) -> Result<Vec<String>> {
    let files = files(place.path(), usize::MAX)?;
    Ok(names(&files.into_iter().map(|file| file.path).collect::<Vec<_>>()))
}

/// Reads a part.
pub(super) fn read(request: &Request<'_>) -> Result<Records> {
    let files = files(request.path, usize::MAX)?;
    let paths: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
    let at = names(&paths).iter().position(|name| name == request.split);
    let file = at.map(|at| &files[at]).ok_or_else(|| {
        Error::invalid(request.path, "annotations", "expected JSON in the archive, got none")
    })?;
    let opened = fs_err::File::open(request.path)?;
    let (reader, counter) = json::counted(file.span.reader(opened), file.span.length)?;
    let told = || crate::data::reading::tell(&counter, request.watch);
    let shown = request.path.join(&file.path);
    let mut records = super::read(&shown, reader, super::CHUNK, request.annotated, &told)?;
    let Span { offset, length } = file.span;
    records.json = Some(JsonFile::inside(request.path, &file.path, offset, length));
    if request.images.is_none() {
        let store = open_store(request.path, Default::default(), request.watch)?;
        if find(&store, &file.path, &mut records) {
            return Ok(records);
        }
    }
    let near = super::own_first(&mut records, near(request.path));
    images_at::find(near, request, &mut records)?;
    Ok(records)
}

/// Looks for the images in the archive itself, and calls them by their paths there.
fn find(store: &ImageStore, file: &Path, records: &mut Records) -> bool {
    let sample = sample(&records.images);
    let folders = near_of(file);
    let ways = PARTS.iter().flat_map(|&parts| folders.iter().map(move |folder| (parts, folder)));
    let full = |(parts, folder): (usize, &PathBuf), name: &str| joined(folder, last(name, parts));
    let held = |way: &(usize, &PathBuf)| {
        let held = sample.iter().filter(|name| store.contains(&full(*way, name))).count();
        if held > 0 && are_apart(&records.images, way.0) { held } else { 0 }
    };
    let Some(way) = most_held(sample.len(), ways, held) else { return false };
    if way.0 != usize::MAX {
        let first = sample.first().copied().unwrap_or_default();
        records.notes.push(format!(
            "the images are found in the archive by the ends of their names (`{}` for `{first}`)",
            full(way, first)
        ));
    }
    for image in &mut records.images {
        image.file_name = full(way, &image.file_name);
    }
    records.images_at = Some(store.path().to_owned());
    true
}

fn joined(folder: &Path, name: &str) -> String {
    let folder = folder.to_string_lossy();
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}
