//! COCO's JSON and LVIS's, which is COCO's with verified-absent classes (arXiv 1908.03195), as files and as
//! folders or archives of them.
//!
//! The lists come in any order (LVIS v0.5 has `annotations` before `images`): ids are resolved at
//! the end. Until then `Annotation::image` and every `ClassIndex` hold a *slot*, the order in
//! which an id was first seen; that way nothing is kept twice.

mod absolute;
mod archive;
#[cfg(test)]
mod archive_tests;
mod builder;
mod finish;
mod folder;
mod ids;
mod names;
mod objects365;
mod records;
mod rest;
mod segmentation;
#[cfg(test)]
mod tests;
mod v3det;

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use super::{Format, Place, Request, images_at};
use crate::{
    argument::Argument,
    data::{json_file::JsonFile, records::Records},
    error::{Error, Result},
    json::{self, JsonStream, TopLevel, parse},
};
use builder::Builder;
pub(super) use folder::{begins_as_json, mistake};
pub(in crate::data) use rest::{Rest, Written};
pub(super) use segmentation::{of_points, turned};

pub(super) const FORMAT: Format = Format {
    name: "coco",
    title: "COCO or LVIS JSON",
    recognise: folder::recognise,
    splits: folder::splits,
    read: |request| {
        if Place::new(request.path)?.is_tar() {
            return archive::read(request);
        }
        let (file, near) = folder::file_of(request)?;
        let (reader, counter) = json::open_counted(&file)?;
        let told = || crate::data::reading::tell(&counter, request.watch);
        let mut records = read(&file, reader, CHUNK, request.annotated, &told)?;
        let near = own_first(&mut records, near);
        images_at::find(near, request, &mut records)?;
        records.json = Some(JsonFile::at(file));
        Ok(records)
    },
};

/// The place of the images that the file names, then those near.
fn own_first(records: &mut Records, near: Vec<PathBuf>) -> Vec<PathBuf> {
    records.images_at.take().into_iter().chain(near).collect()
}

/// Bytes read at a time: thousands of records, so that parsing them in parallel pays, and small
/// beside what is kept.
const CHUNK: usize = 4 << 20;

const TOP_LEVEL: TopLevel = TopLevel {
    bracket: b'{',
    expected: "an object with `images`, `annotations` and `categories`",
    other: "this looks like a detections file, as `predict` writes, if its records have `category_id`: give the \
            annotation file; other lists are of no known format",
};

/// Reads a file front to back, `chunk` bytes at a time. It must have annotations if it is `annotated`. `told`
/// is called after each chunk, and may end it.
pub(in crate::data) fn read(
    file: &Path,
    reader: impl Read,
    chunk: usize,
    annotated: bool,
    told: &dyn Fn() -> Result<()>,
) -> Result<Records> {
    let mut builder = Builder::new(file);
    let mut stream = JsonStream::new(file, reader, chunk);
    let mut found = [false, !annotated, false];
    stream.open(&TOP_LEVEL)?;
    while let Some(key) = stream.next_key()? {
        match key.as_str() {
            "images" => {
                found[0] = true;
                stream.records(&key, |batch| {
                    told()?;
                    parse(file, batch, |i, raw| builder.add_image(i, raw))
                })?;
            }
            "annotations" => {
                found[1] = true;
                stream.records(&key, |batch| {
                    told()?;
                    parse(file, batch, |i, raw| builder.add_annotation(i, raw))
                })?;
            }
            "categories" => {
                found[2] = true;
                stream.records(&key, |batch| {
                    told()?;
                    parse(file, batch, |i, raw| builder.add_category(i, raw))
                })?;
            }
            _ => stream.skip_value(&key)?,
        }
    }
    let without_boxes = format!(
        "a file with images but no boxes (test-dev's image info) can be neither trained on nor evaluated; \
         to predict with the ids of its images, give it as {}",
        Argument::Annotations
    );
    let hints = [
        ("images", "a COCO or LVIS file lists its images under `images`"),
        ("annotations", without_boxes.as_str()),
        (
            "categories",
            "a COCO or LVIS file lists its classes under `categories`, each id and name",
        ),
    ];
    for (found, (key, hint)) in found.into_iter().zip(hints) {
        if !found {
            return Err(Error::invalid(file, key, "missing").with_hint(hint));
        }
    }
    let v3det = builder.is_v3det();
    let mut records = builder.finish()?;
    objects365::complete(&mut records);
    if v3det {
        v3det::complete(file, &mut records)?;
    }
    Ok(records)
}

/// The path below its host of a URL: without what is asked of the host.
pub(super) fn path_of_url(url: &str) -> Option<String> {
    let (_scheme, rest) = url.split_once("://")?;
    let path = rest.split_once('/').map_or("", |(_host, path)| path);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // Two slashes after the host do not make the path an absolute one.
    Some(path.trim_start_matches('/').to_owned())
}

/// An image's path with `/` between its folders, or what is wrong with it: it must stay below the
/// image root.
pub(in crate::data) fn below_root(path: &str) -> Result<String, String> {
    let refuse = |problem: &str| Err(format!("{problem}: `{}`", path.escape_debug()));
    // Files written on Windows; also `..\` must not slip through.
    let unix = path.replace('\\', "/");
    let drive = unix.as_bytes().get(1) == Some(&b':') && unix.as_bytes()[0].is_ascii_alphabetic();
    if unix.starts_with('/') || drive {
        return refuse("expected a relative path, got an absolute one");
    }
    let parts: Vec<&str> = unix.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return refuse("the path leaves the image root");
    }
    if parts.is_empty() || unix.ends_with('/') || unix.contains('\0') {
        return refuse("expected the path of an image");
    }
    Ok(parts.join("/"))
}
