//! Darknet's sets: `obj.data` names the classes and the lists of images, and a text file beside each image
//! has its boxes. CVAT and other tools export them with paths of Darknet's own folder (`data/obj.names`).

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::{
    Format, Place, Request,
    yolo::{self, Files, LabelRule, Labels, Paths, Rows, tidy},
};
use crate::{
    data::records::Records,
    error::{Error, Result, read_text},
};

pub(super) const FORMAT: Format = Format {
    name: "darknet",
    title: "Darknet (obj.data)",
    recognise,
    splits: |place| {
        let data = Data::read(&file_of(place)?)?;
        Ok(data.lists().map(|(name, _)| name.to_owned()).collect())
    },
    read,
};

/// Keys that name a list of images.
const SPLITS: [&str; 4] = ["train", "valid", "val", "test"];

fn recognise(place: &Place) -> Option<String> {
    if place.is_folder() {
        let files = candidates(place);
        return files.first().map(|name| format!("there is {name}"));
    }
    (place.ends_with(".data") && names_a_set(&place.text())).then(|| "it has `names =`".to_owned())
}

/// The files of a folder that may be an `obj.data`, sorted.
fn candidates(place: &Place) -> Vec<String> {
    let all = place.files().filter(|name| name.to_lowercase().ends_with(".data"));
    all.filter(|name| place.below(name).is_some_and(|file| names_a_set(&file.text())))
        .map(str::to_owned)
        .collect()
}

fn names_a_set(text: &str) -> bool {
    let has = |key: &str| {
        text.lines().any(|line| line.split_once('=').is_some_and(|(k, _)| k.trim() == key))
    };
    has("names") || SPLITS.into_iter().any(has)
}

fn file_of(place: &Place) -> Result<PathBuf> {
    if !place.is_folder() {
        return Ok(place.path().to_owned());
    }
    match candidates(place).as_slice() {
        [only] => Ok(place.path().join(only)),
        [] => Err(Error::invalid(place.path(), "obj.data", "there is no such file")
            .with_hint("give the file that has `names` and `train`")),
        several => {
            let problem = format!("several files may be it: {}", several.join(", "));
            Err(Error::invalid(place.path(), "obj.data", problem)
                .with_hint("give the path of one of them"))
        }
    }
}

/// A value of the file, with its line.
struct Entry {
    key: String,
    value: String,
    line: usize,
}

/// `key = value` lines.
struct Data {
    file: PathBuf,
    root: PathBuf,
    entries: Vec<Entry>,
}

impl Data {
    fn read(file: &Path) -> Result<Self> {
        let text = read_text(file)?;
        let mut entries: Vec<Entry> = Vec::new();
        for (line, row) in (1..).zip(text.lines().map(str::trim)) {
            if row.is_empty() || row.starts_with(['#', ';']) {
                continue;
            }
            let Some((key, value)) = row.split_once('=') else {
                let problem = format!("expected `key = value`, got `{}`", row.escape_debug());
                return Err(Error::invalid(file, format!("line {line}"), problem));
            };
            let (key, value) = (key.trim().to_owned(), tidy(value));
            if let Some(earlier) = entries.iter().find(|entry| entry.key == key) {
                let problem = format!("it is on line {}, too", earlier.line);
                return Err(Error::invalid(file, format!("line {line}: {key}"), problem)
                    .with_hint("remove one of the two"));
            }
            if !value.is_empty() {
                entries.push(Entry { key, value, line });
            }
        }
        let root = yolo::absolute(file.parent().unwrap_or(Path::new("")))?;
        let data = Self { file: file.to_owned(), root, entries };
        if data.lists().next().is_none() {
            return Err(Error::invalid(file, "train", "missing")
                .with_hint("name the list of images, as `train = data/train.txt`"));
        }
        Ok(data)
    }

    fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    fn lists(&self) -> impl Iterator<Item = (&'static str, &Entry)> {
        SPLITS.into_iter().filter_map(|key| Some((key, self.get(key)?)))
    }

    /// A file that an entry names; paths often begin with folders of another machine.
    fn file_at(&self, entry: &Entry) -> Result<PathBuf> {
        let bases = [self.root.clone(), self.root.parent().unwrap_or(&self.root).to_owned()];
        let found = yolo::find(&bases, &entry.value, 1, Path::is_file);
        found.map(|found| found.path).ok_or_else(|| {
            let problem = format!("there is no file `{}`", entry.value);
            Error::invalid(&self.file, format!("line {}: {}", entry.line, entry.key), problem)
                .with_hint(format!("it was looked for in {}", self.root.display()))
        })
    }

    fn names(&self) -> Result<Vec<String>> {
        let Some(entry) = self.get("names") else {
            return Err(Error::invalid(&self.file, "names", "missing")
                .with_hint("name the file that has a class on each line, as `names = obj.names`"));
        };
        let file = self.file_at(entry)?;
        let text = read_text(&file)?;
        let names = yolo::class_list(&file, &text)?;
        if let Some(entry) = self.get("classes")
            && entry.value.parse() != Ok(names.len())
        {
            let problem =
                format!("{}, but {} names are in {}", entry.value, names.len(), file.display());
            let field = format!("line {}: classes", entry.line);
            return Err(Error::invalid(&self.file, field, problem)
                .with_hint("correct the number, or the list of names"));
        }
        Ok(names)
    }
}

fn read(request: &Request<'_>) -> Result<Records> {
    let data = Data::read(&file_of(&Place::new(request.path)?)?)?;
    let names = data.names()?;
    let (key, entry) = data.lists().find(|(key, _)| *key == request.split).ok_or_else(|| {
        Error::invalid(&data.file, request.split, "missing").with_hint("name the list of images")
    })?;
    let list = data.file_at(entry)?;
    let files = Files::Folders;
    let paths =
        Paths { files: &files, root: &data.root, rule: LabelRule::Darknet, images: request.images };
    let images = paths.gather(&[list], request.watch)?;
    let field = format!("line {}: {key}", entry.line);
    let labels = Labels {
        files: &files,
        file: &data.file,
        field: &field,
        names: &names,
        rows: Rows { classes: names.len(), keypoints: None },
        annotated: request.annotated,
    };
    labels.read(images, request.watch)
}
