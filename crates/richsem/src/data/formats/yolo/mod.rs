//! YOLO's label files as Ultralytics and Roboflow have them: `data.yaml`, images, and a text file for each
//! image. The rules are those of ultralytics 8.4.190, read and not run; docs/formats.md says where this reader
//! does otherwise.

mod files;
mod images;
mod labels;
mod listed;
mod places;
mod records;
mod settings;
#[cfg(test)]
pub(in crate::data) mod tests;
mod yaml;

use std::path::{Path, PathBuf};

use super::{Format, Place, Request, same_split};
use crate::{
    data::{listing::EXTENSIONS, records::Records},
    error::{Error, Result, first_few},
};
use files::Archive;
pub(super) use files::{Files, absolute};
pub(super) use images::{Images, Paths, named};
pub(super) use labels::Rows;
use listed::Listed;
pub(super) use listed::class_list;
pub(super) use places::{LabelRule, find, tidy};
pub(super) use records::Labels;
use settings::{Settings, Written};

pub(super) const FORMAT: Format =
    Format { name: "yolo", title: "YOLO labels", recognise, splits, read };

/// What the file is called by convention.
const USUAL: [&str; 2] = ["data.yaml", "data.yml"];

fn recognise(place: &Place) -> Option<String> {
    if place.is_folder() {
        if let Some(first) = candidates(place).first() {
            return Some(format!("there is {first}"));
        }
        // The lists of a Darknet set are those that its `obj.data` names.
        if place.files().any(|name| name.to_lowercase().ends_with(".data")) {
            return None;
        }
        let root = absolute(place.path()).ok()?;
        let listed = Listed::find(&root, &Files::Folders)?;
        return Some(format!("there is {}", listed.list.strip_prefix(root).ok()?.display()));
    }
    if place.is_tar() {
        let archive = Archive::look(&absolute(place.path()).ok()?).ok()?;
        let top = archive.path().to_owned();
        let first = match candidates_in(&archive).ok()?.into_iter().next() {
            Some(first) => first,
            None => Listed::find(&listed::root_in(&archive)?, &Files::Archive(archive))?.list,
        };
        return Some(format!("there is {}", first.strip_prefix(top).ok()?.display()));
    }
    is_yaml(&place.path().to_string_lossy()).then(|| "it is YAML".to_owned())
}

fn is_yaml(name: &str) -> bool {
    let name = name.to_lowercase();
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// The files of a folder that may be a `data.yaml`, sorted; one with the usual name comes alone.
fn candidates(place: &Place) -> Vec<String> {
    let usual = place.files().find(|name| USUAL.contains(name));
    if let Some(usual) = usual {
        return vec![usual.to_owned()];
    }
    let all = place.files().filter(|name| is_yaml(name));
    all.filter(|name| place.below(name).is_some_and(|file| names_a_set(&file.text())))
        .map(str::to_owned)
        .collect()
}

/// Whether a text has the keys of a `data.yaml`.
fn names_a_set(text: &str) -> bool {
    let has = |keys: &[&str]| {
        text.lines()
            .any(|line| line.split_once(':').is_some_and(|(key, _)| keys.contains(&key.trim_end())))
    };
    has(&["train", "val", "validation", "test"]) && has(&["names", "nc"])
}

/// As [`candidates`], of an archive; those nearest to its top.
fn candidates_in(archive: &Archive) -> Result<Vec<PathBuf>> {
    let depth = |path: &Path| path.components().count();
    let all: Vec<&Path> = archive.all().filter(|path| is_yaml(&path.to_string_lossy())).collect();
    let is_usual = |path: &&&Path| USUAL.iter().any(|name| path.ends_with(name));
    if let Some(usual) = all.iter().filter(is_usual).min_by_key(|path| depth(path)) {
        return Ok(vec![usual.to_path_buf()]);
    }
    let mut named = Vec::new();
    for path in all {
        let text = archive.read(path)?.unwrap_or_default();
        if names_a_set(&String::from_utf8_lossy(&text)) {
            named.push(path.to_owned());
        }
    }
    let least = named.iter().map(|path| depth(path)).min();
    named.retain(|path| Some(depth(path)) == least);
    Ok(named)
}

/// The files of a set, and what its `data.yaml` says, or what there is without one.
fn set_of(place: &Place) -> Result<(Files, Settings)> {
    let (files, candidates) = if place.is_folder() {
        let all = candidates(place).into_iter().map(|name| place.path().join(name));
        (Files::Folders, all.collect())
    } else if place.is_tar() {
        let archive = Archive::open(&absolute(place.path())?)?;
        let all = candidates_in(&archive)?;
        (Files::Archive(archive), all)
    } else {
        (Files::Folders, vec![place.path().to_owned()])
    };
    match candidates.as_slice() {
        [only] => {
            let settings = Settings::read(only, &files)?;
            Ok((files, settings))
        }
        [] => match listed_in(place, &files)? {
            Some(listed) => {
                let settings = listed.settings(&files)?;
                Ok((files, settings))
            }
            None => Err(Error::invalid(place.path(), "data.yaml", "there is no such file")
                .with_hint(
                    "give the file that has `train`, `val` and `names`, or write classes.txt beside the \
                     labels, with the name of a class on each line",
                )),
        },
        several => {
            let named =
                first_few(several.iter().map(|file| {
                    file.strip_prefix(place.path()).unwrap_or(file).display().to_string()
                }));
            let problem = format!("several files may be it: {named}");
            Err(Error::invalid(place.path(), "data.yaml", problem)
                .with_hint("give the path of one of them"))
        }
    }
}

fn listed_in(place: &Place, files: &Files) -> Result<Option<Listed>> {
    let root = match files {
        Files::Folders => Some(absolute(place.path())?),
        Files::Archive(archive) => listed::root_in(archive),
    };
    Ok(root.and_then(|root| Listed::find(&root, files)))
}

fn splits(place: &Place) -> Result<Vec<String>> {
    let (files, settings) = set_of(place)?;
    let absent = absent_parts(&settings, &files);
    let all = settings.splits.iter().map(|(name, _)| *name);
    let there = all.filter(|name| !name.is_empty() && !absent.contains(name));
    Ok(there.map(str::to_owned).collect())
}

/// Parts that `data.yaml` names and that are not there, neither images nor labels, where others are: Roboflow names
/// `test` also where none was exported.
fn absent_parts(settings: &Settings, files: &Files) -> Vec<&'static str> {
    let is_absent = |(key, paths): &&(&'static str, Vec<Written>)| {
        paths.iter().all(|path| part(settings, files, key, path, true).is_err())
    };
    let absent: Vec<_> = settings.splits.iter().filter(is_absent).map(|(key, _)| *key).collect();
    if absent.len() == settings.splits.len() { Vec::new() } else { absent }
}

/// What is wrong with a part that `data.yaml` names and that is not there.
pub(super) fn absent(place: &Place, wanted: &str) -> Option<Error> {
    let (files, settings) = set_of(place).ok()?;
    let absent = absent_parts(&settings, &files);
    let found = settings.splits.iter().find(|(name, _)| same_split(name, wanted));
    let (key, paths) = found.filter(|(name, _)| absent.contains(name))?;
    part(&settings, &files, key, paths.first()?, true).err()
}

fn read(request: &Request<'_>) -> Result<Records> {
    let (files, settings) = set_of(&Place::new(request.path)?)?;
    let (key, written) = settings.split(request.split)?;
    let mut notes = settings.notes.clone();
    notes.extend(absent_parts(&settings, &files).into_iter().map(|part| {
        format!("{} names the part `{part}`, which is not there", settings.file.display())
    }));
    let mut warnings = settings.warnings.clone();
    let mut parts = Vec::with_capacity(written.len());
    for path in written {
        let part = part(&settings, &files, key, path, request.images.is_some())?;
        notes.extend(part.note);
        warnings.extend(part.warning);
        parts.push(part.path);
    }
    let (root, rule) = (&settings.root, settings.rule);
    let paths = Paths { files: &files, root, rule, images: request.images };
    let images = paths.gather(&parts, request.watch)?;
    let field = match written.first() {
        Some(path) if path.line > 0 => format!("line {}: {key}", path.line),
        _ => "images".to_owned(),
    };
    let labels = Labels {
        files: &files,
        file: &settings.file,
        field: &field,
        names: &settings.names,
        rows: Rows { classes: settings.names.len(), keypoints: settings.keypoints },
        annotated: request.annotated,
    };
    let mut records = labels.read(images, request.watch)?;
    records.notes.splice(0..0, notes);
    records.warnings.splice(0..0, warnings);
    // With images elsewhere, it is labels that are searched for.
    let folders = parts.into_iter().filter(|part| !files.is_file(part));
    records.searched = match request.images {
        Some(_) => folders.map(|part| rule.folder(&part, &files)).collect(),
        None => folders.collect(),
    };
    Ok(records)
}

/// A path of `data.yaml`, found.
struct Part {
    path: PathBuf,
    note: Option<String>,
    warning: Option<String>,
}

/// Finds a folder of images, or a list of them. `elsewhere`: the user says where the images are, so that
/// labels are enough.
fn part(
    settings: &Settings,
    files: &Files,
    key: &str,
    written: &Written,
    elsewhere: bool,
) -> Result<Part> {
    let Written { line, path } = written;
    let there = |path: &Path| {
        let labels = || settings.rule.folder(path, files);
        files.exists(path) || (elsewhere && files.is_dir(&labels()))
    };
    let root = std::slice::from_ref(&settings.root);
    let direct = files::normal(&settings.root.join(path));
    // Roboflow writes `../train/images`, and means the folder of the file.
    let inner = path.trim_start_matches("../");
    let within = files::normal(&settings.root.join(inner));
    let (path, note, warning) = if there(&direct) {
        let other = (within != direct && there(&within)).then(|| {
            format!(
                "`{path}` is {} here, as Ultralytics reads it; there is {}, too",
                direct.display(),
                within.display()
            )
        });
        (direct, None, other)
    } else if inner != path && there(&within) {
        (within, None, None)
    } else if path.starts_with('/')
        && let Some(found) = find(root, path, 2, there)
    {
        let note = format!("there is no `{path}`: {} is taken", found.path.display());
        (found.path, Some(note), None)
    } else {
        let also = match within == direct {
            true => String::new(),
            false => format!(" and no {}", within.display()),
        };
        let problem = format!(
            "expected a folder of images or a file that lists them; there is no {}{also}",
            direct.display()
        );
        return Err(Error::invalid(&settings.file, format!("line {line}: {key}"), problem)
            .with_hint(format!(
                "paths are relative to {}; correct the path, or `path` before it",
                settings.root.display()
            )));
    };
    Ok(Part { path, note, warning })
}

/// The error of a part without images.
fn no_images(file: &Path, field: &str, notes: &[String]) -> Error {
    let more = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
    Error::invalid(file, field, format!("there are no images{more}"))
        .with_hint(format!("expected files that end in .{}", EXTENSIONS.join(", .")))
}
