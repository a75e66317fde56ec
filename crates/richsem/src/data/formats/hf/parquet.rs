//! Parquet files with the images and their boxes in them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    super::{Format, Place, Request, place::PARQUET, words},
    collect::Collector,
    is_usual, part_of, places,
};
use crate::{
    data::{
        image_store::{
            ImageStore,
            parquet::{Annotations, shows_boxes},
        },
        reading::{FILES, Reading},
        records::Records,
    },
    error::{Error, Result, first_few},
    plural::clause,
};

pub(in super::super) const FORMAT: Format = Format {
    name: "parquet",
    title: "Hugging Face parquet",
    recognise,
    splits: |place| {
        let parts = parts(place)?.into_iter().map(|(name, _)| name);
        Ok(parts.filter(|name| !name.is_empty()).collect())
    },
    read,
};

fn recognise(place: &Place) -> Option<String> {
    if !place.is_folder() {
        return is_set(place).then(|| "it is parquet with images and boxes".to_owned());
    }
    let (_, files) = folders(place).into_iter().next()?;
    let first = files.first()?;
    let place = Place::new(first).ok()?;
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    is_set(&place).then(|| format!("{name} is parquet with images and boxes"))
}

/// A broken file, too: its reader says what is wrong.
fn is_set(place: &Place) -> bool {
    place.head().starts_with(PARQUET) && shows_boxes(place.first_file()).unwrap_or(true)
}

/// Folders with parquet files, and these: the place itself, its folder `data`, or the folders of parts in
/// either.
fn folders(place: &Place) -> Vec<(PathBuf, Vec<PathBuf>)> {
    let of = |place: &Place| {
        let names = place.files().filter(|name| name.to_ascii_lowercase().ends_with(".parquet"));
        let files: Vec<PathBuf> = names.map(|name| place.path().join(name)).collect();
        (!files.is_empty()).then(|| (place.path().to_owned(), files))
    };
    for place in places(place) {
        if let Some(own) = of(&place) {
            return vec![own];
        }
        let parts = place.folders().filter(|name| is_usual(name));
        let parts: Vec<_> = parts.filter_map(|name| of(&place.below(name)?)).collect();
        if !parts.is_empty() {
            return parts;
        }
    }
    Vec::new()
}

/// The parts of a set, and what names the files of each. There is one without a name if it is all one.
///
/// Files are parts by their names, as on Hugging Face: `train-00000-of-00005.parquet`. If no name has the
/// word of a part, all files are one.
fn parts(place: &Place) -> Result<Vec<(String, PathBuf)>> {
    if !place.is_folder() {
        return Ok(vec![(String::new(), place.path().to_owned())]);
    }
    let folders = folders(place);
    let (folder, files) = match folders.as_slice() {
        [] => return Err(Error::invalid(place.path(), "parquet", "there are no parquet files")),
        [(folder, files)] if !is_part(place, folder) => (folder, files),
        parts => {
            let part = |(folder, _): &(PathBuf, _)| (folder_name(folder), all_of(folder, "*"));
            return Ok(parts.iter().map(part).collect());
        }
    };
    let mut named: Vec<(String, Vec<&PathBuf>)> = Vec::new();
    for file in files {
        let name = part_of_file(file);
        match named.iter_mut().find(|(other, _)| *other == name) {
            Some((_, files)) => files.push(file),
            None => named.push((name, vec![file])),
        }
    }
    if !named.iter().any(|(name, _)| is_usual(name)) {
        return Ok(vec![(String::new(), all_of(folder, "*"))]);
    }
    named
        .into_iter()
        .map(|(name, files)| Ok((name.clone(), pattern(folder, &name, &files)?)))
        .collect()
}

/// Whether a folder of files is a part's, below the place.
fn is_part(place: &Place, folder: &Path) -> bool {
    folder != place.path() && is_usual(&folder_name(folder))
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What a file's part is called: its name without numbers at the end, `train-00000-of-00005`.
pub(in crate::data) fn part_of_file(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts: Vec<&str> = stem.split('-').collect();
    while parts.len() > 1 && parts.last().is_some_and(|part| is_number(part) || *part == "of") {
        parts.pop();
    }
    let name = parts.join("-");
    // `train_0`, `train00`; but a name that is a number alone stays.
    let short = name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['_', '.']);
    if words(short).is_empty() { name } else { short.to_owned() }
}

/// The parquet files of a folder whose names fit.
fn all_of(folder: &Path, names: &str) -> PathBuf {
    PathBuf::from(glob::Pattern::escape(&folder.to_string_lossy())).join(format!("{names}.parquet"))
}

/// A pattern for these files and no others.
fn pattern(folder: &Path, name: &str, files: &[&PathBuf]) -> Result<PathBuf> {
    if let [only] = files {
        return Ok((*only).clone());
    }
    let escaped = glob::Pattern::escape(name);
    for names in [format!("{escaped}-[0-9]*"), format!("{escaped}[0-9_.-]*"), format!("{escaped}*")]
    {
        let pattern = all_of(folder, &names);
        let found = ImageStore::files_of(&pattern).ok().flatten().unwrap_or_default();
        if found.iter().eq(files.iter().copied()) {
            return Ok(pattern);
        }
    }
    let problem = format!("the files of `{name}` cannot be told from others by their names");
    Err(Error::invalid(folder, "parquet", problem)
        .with_hint("call them as Hugging Face does: train-00000-of-00005.parquet"))
}

/// The files that are missing beside these by their numbers, as `train-00001-of-00003.parquet`.
fn missing(files: &[PathBuf]) -> Vec<String> {
    let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let there: BTreeSet<String> = files.iter().map(name).collect();
    let numbered = there.iter().filter_map(|name| numbered(name));
    let sets: BTreeSet<(&str, usize, &str)> =
        numbered.map(|(part, number, of)| (part, number.len(), of)).collect();
    let all = sets.into_iter().flat_map(|(part, width, of)| {
        let numbers = (0..of.parse().unwrap_or(0)).take(MOST_MISSING);
        numbers.map(move |n: usize| format!("{part}-{n:0width$}-of-{of}.parquet"))
    });
    all.filter(|name| !there.contains(name)).collect()
}

/// Most files of a part that are looked for: more is a number of another kind.
const MOST_MISSING: usize = 100_000;

/// The part, number and count of `train-00000-of-00003.parquet`.
fn numbered(name: &str) -> Option<(&str, &str, &str)> {
    let (rest, of) = name.strip_suffix(".parquet")?.rsplit_once("-of-")?;
    let (part, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(number) && is_number(of)).then_some((part, number, of))
}

fn read(request: &Request<'_>) -> Result<Records> {
    let place = Place::new(request.path)?;
    let parts = parts(&place)?;
    let part = part_of(request.path, &parts, request.split)?;
    let path = &parts[part].1;
    let files = ImageStore::files_of(path)?.unwrap_or_else(|| vec![path.clone()]);
    // Of a file that is given by itself the others are not asked for.
    let missing = if request.path.is_file() { Vec::new() } else { missing(&files) };
    let annotations = Annotations::open(path)?;
    if !annotations.has_boxes() && request.annotated {
        return Err(Error::invalid(path, "objects", "there is no column of boxes").with_hint(
            "expected a column `objects` with `bbox` and `category`, as Hugging Face's sets for detection",
        ));
    }
    let mut collector = Collector::new(annotations.classes());
    let (mut done, of) = (0, usize::try_from(annotations.len()).unwrap_or(usize::MAX));
    annotations.each(|row| {
        done += 1;
        if done % FILES == 0 {
            (request.watch)(Reading::Files { done, of })?;
        }
        let (file, number) = (row.file, row.row);
        collector.row(row, request.annotated, || {
            (annotations.file(file).to_owned(), format!("row {number}: objects"))
        })
    })?;
    if collector.asks_others() {
        for (_, other) in
            parts.iter().enumerate().filter(|(at, _)| *at != part).map(|(_, part)| part)
        {
            Annotations::open(other)?.each(|row| {
                collector.other(row);
                Ok(())
            })?;
        }
    }
    let images_at = request.images.unwrap_or(path).to_owned();
    let mut records = collector.finish(request, path, images_at)?;
    if !missing.is_empty() {
        records.warnings.push(format!(
            "the set is not whole: by the names of its files {} not there: {}",
            clause(missing.len(), "file", ["is", "are"]),
            first_few(missing.into_iter())
        ));
    }
    let unread = annotations.unread();
    if !unread.is_empty() {
        records.notes.push(format!("columns that are not read: {}", unread.join(", ")));
    }
    Ok(records)
}
