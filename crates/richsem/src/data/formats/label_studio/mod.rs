//! Label Studio's own JSON: a list of tasks, each with what its annotators drew, in percent of the image.

mod records;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{Format, Place, Request, below_root, coco::path_of_url, images_at};
use crate::{
    boxes::Xywh,
    data::{
        listing::is_image,
        records::{Annotation, ClassRecord, ImageRecord, Records, Unit},
    },
    error::{Error, Result},
    json::{self, JsonStream, TopLevel, parse},
    vocabulary::ClassIndex,
};
use records::{Drawn, RawAnnotation, RawTask};

pub(super) const FORMAT: Format = Format {
    name: "label_studio",
    title: "Label Studio JSON",
    recognise,
    splits: |place| {
        let files = files(place);
        Ok(if files.len() > 1 { files.iter().map(|file| stem(file)).collect() } else { Vec::new() })
    },
    read,
};

/// Bytes read at a time.
const CHUNK: usize = 4 << 20;

const TOP_LEVEL: TopLevel = TopLevel {
    bracket: b'[',
    expected: "a list of tasks",
    other: "this is not Label Studio's JSON export; its COCO export is read as COCO",
};

fn recognise(place: &Place) -> Option<String> {
    if place.is_folder() {
        let file = files(place).into_iter().next()?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        return Some(format!("{name} is a list of tasks"));
    }
    has_tasks(place).then(|| "it is a list of tasks".to_owned())
}

fn has_tasks(place: &Place) -> bool {
    let text = place.text();
    let all = |keys: &[&str]| keys.iter().all(|key| text.contains(&format!("\"{key}\"")));
    text.trim_start().starts_with('[')
        && (all(&["annotations", "data"])
            || all(&["annotations", "completed_by"])
            || all(&["annotation_id", "annotator"]))
}

fn files(place: &Place) -> Vec<PathBuf> {
    if !place.is_folder() {
        return vec![place.path().to_owned()];
    }
    let names = place.files().filter(|name| name.ends_with(".json"));
    let places = names.filter_map(|name| place.below(name));
    places.filter(has_tasks).map(|file| file.path().to_owned()).collect()
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(request: &Request<'_>) -> Result<Records> {
    let files = files(&Place::new(request.path)?);
    let file =
        files.into_iter().find(|file| request.split.is_empty() || stem(file) == request.split);
    let file = file.ok_or_else(|| {
        Error::invalid(request.path, "split", format!("there is no part `{}`", request.split))
    })?;
    let mut reader = Reader::new(&file);
    let (bytes, counter) = json::open_counted(&file)?;
    let mut stream = JsonStream::new(&file, bytes, CHUNK);
    stream.open(&TOP_LEVEL)?;
    stream.records("", |batch| {
        crate::data::reading::tell(&counter, request.watch)?;
        parse(&file, batch, |i, raw| reader.task(i, raw))
    })?;
    stream.end()?;
    let mut records = reader.finish()?;
    let folder = file.parent().unwrap_or(Path::new("")).to_owned();
    let near = ["", "images", "upload", "media", "images.tar"].map(|name| folder.join(name));
    let there: Vec<PathBuf> = near.into_iter().filter(|path| path.exists()).collect();
    images_at::find(there, request, &mut records)?;
    Ok(records)
}

/// Takes the tasks of a file one after the other.
struct Reader<'a> {
    file: &'a Path,
    images: Vec<ImageRecord>,
    /// Position of the image, name of the class, and the box in shares of the image.
    boxes: Vec<(u32, String, [f64; 4])>,
    without: usize,
    several: usize,
    turned_images: usize,
    turned: usize,
    turned_unknown: usize,
    unlabeled: usize,
    around: usize,
    passed_over: BTreeMap<String, usize>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a Path) -> Self {
        Self {
            file,
            images: Vec::new(),
            boxes: Vec::new(),
            without: 0,
            several: 0,
            turned_images: 0,
            turned: 0,
            turned_unknown: 0,
            unlabeled: 0,
            around: 0,
            passed_over: BTreeMap::new(),
        }
    }

    fn invalid(&self, field: String, problem: impl Into<String>) -> Error {
        Error::invalid(self.file, field, problem)
    }

    fn task(&mut self, index: usize, raw: RawTask) -> Result<()> {
        let Some(annotations) = raw.annotations else {
            return Err(self
                .invalid(
                    format!("[{index}].annotations"),
                    "missing; expected a list of annotations",
                )
                .with_hint("export the project as `JSON`, not as `JSON-MIN`"));
        };
        let Some((at, annotation)) = self.chosen(annotations) else {
            self.without += 1;
            return Ok(());
        };
        let results = &annotation.result;
        if results.iter().any(|result| result.image_rotation.unwrap_or(0.0) % 360.0 != 0.0) {
            self.turned_images += 1;
            return Ok(());
        }
        let file_name = self.file_name(index, &raw.data)?;
        let size = results.iter().find_map(|result| result.size());
        let image = self.images.len() as u32;
        self.images.push(ImageRecord {
            id: raw.id.map_or(i64::from(image) + 1, |id| id.0),
            file_name,
            size,
            ..ImageRecord::default()
        });
        for (r, result) in results.iter().enumerate() {
            let drawn = result.drawn(size).map_err(|(field, problem)| {
                let place = format!("[{index}].annotations[{at}].result[{r}].value");
                let place = if field.is_empty() { place } else { format!("{place}.{field}") };
                self.invalid(place, problem)
            })?;
            self.add(image, &result.kind, drawn);
        }
        Ok(())
    }

    /// The annotation to read of a task, and its position: the one marked as ground truth, or else the one
    /// that was changed last. None if all are cancelled.
    fn chosen(&mut self, annotations: Vec<RawAnnotation>) -> Option<(usize, RawAnnotation)> {
        let done = annotations.into_iter().enumerate();
        let done: Vec<_> = done.filter(|(_, a)| !a.was_cancelled.unwrap_or(false)).collect();
        self.several += usize::from(done.len() > 1);
        let key = |a: &RawAnnotation| (a.ground_truth.unwrap_or(false), a.updated_at.clone());
        done.into_iter().max_by_key(|(at, annotation)| (key(annotation), *at))
    }

    fn add(&mut self, image: u32, kind: &str, drawn: Drawn) {
        match drawn {
            Drawn::Nothing => *self.passed_over.entry(kind.to_owned()).or_default() += 1,
            Drawn::TurnedUnknown => self.turned_unknown += 1,
            Drawn::Box { labels, .. } if labels.is_empty() => self.unlabeled += 1,
            Drawn::Box { bbox, labels, turned, around } => {
                self.turned += usize::from(turned);
                self.around += usize::from(around);
                self.boxes.extend(labels.into_iter().map(|label| (image, label, bbox)));
            }
        }
    }

    /// The path of a task's image.
    fn file_name(
        &self,
        index: usize,
        data: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String> {
        let texts = || data.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let all: Vec<_> = texts().collect();
        let images: Vec<_> = texts().filter(|(_, text)| is_image(text)).collect();
        let (key, text) = match (texts().find(|(key, _)| *key == "image"), &*all, &*images) {
            (Some(image), ..) => image,
            (None, [only], _) | (None, _, [only]) => *only,
            _ => {
                let keys: Vec<&str> = data.keys().map(String::as_str).collect();
                let problem = format!("expected one image, got the keys {}", keys.join(", "));
                return Err(self
                    .invalid(format!("[{index}].data"), problem)
                    .with_hint("call the key of the image `image`"));
            }
        };
        below_root(&path_of(text)).map_err(|problem| {
            self.invalid(format!("[{index}].data.{key}"), problem)
                .with_hint("expected the path or URL of an image")
        })
    }

    fn finish(mut self) -> Result<Records> {
        if self.images.is_empty() {
            let problem =
                format!("none of {} tasks has an annotation", self.without + self.turned_images);
            return Err(self
                .invalid("top level".to_owned(), problem)
                .with_hint("annotate the tasks, and export them again"));
        }
        let mut names: Vec<&String> = self.boxes.iter().map(|(_, name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        let known = |image: u32| self.images[image as usize].size;
        let pixels = self.boxes.iter().all(|(image, ..)| known(*image).is_some());
        let annotations = self.boxes.iter().zip(1..).map(|((image, name, bbox), id)| {
            let [height, width] = match known(*image) {
                Some(size) if pixels => size.map(f64::from),
                _ => [1.0; 2],
            };
            let [x, y, w, h] = *bbox;
            let bbox = [x * width, y * height, w * width, h * height];
            let class = names.partition_point(|other| *other < name);
            Annotation {
                id,
                image: *image,
                class: ClassIndex(class as u32),
                bbox: Xywh(bbox),
                area: bbox[2] * bbox[3],
                crowd: false,
                ignore: false,
            }
        });
        let annotations = annotations.collect();
        let classes =
            names.iter().zip(1..).map(|(name, id)| ClassRecord::named(id, *name)).collect();
        let mut notes = self.notes();
        notes.extend(number_anew(&mut self.images));
        Ok(Records {
            images: self.images,
            annotations,
            classes,
            numbered: true,
            unit: if pixels { Unit::Pixels } else { Unit::Shares },
            notes,
            ..Records::default()
        })
    }

    fn notes(&self) -> Vec<String> {
        let all = [
            ("tasks without an annotation, left out: nobody looked at them", self.without),
            (
                "tasks with several annotations, of which the one marked as ground truth is read, or the one \
                 changed last",
                self.several,
            ),
            (
                "images that were turned in Label Studio, left out: where their boxes are is not known",
                self.turned_images,
            ),
            ("boxes made of polygons and ellipses", self.around),
            ("boxes with a rotation, the upright box around is taken", self.turned),
            (
                "boxes with a rotation in images of unknown size, left out: their place is not known",
                self.turned_unknown,
            ),
            ("shapes without a label, passed over", self.unlabeled),
        ];
        let told = all.into_iter().filter(|(_, count)| *count > 0);
        let told = told.map(|(what, count)| format!("{what}: {count}"));
        let passed = self.passed_over.iter();
        told.chain(passed.map(|(kind, n)| format!("`{kind}`, passed over: it has no box: {n}")))
            .collect()
    }
}

/// Numbers the images in the order of the file if an id is there twice, as in a merge of two projects. Gives a
/// note then.
fn number_anew(images: &mut [ImageRecord]) -> Option<String> {
    let mut ids = BTreeSet::new();
    let twice = images.iter().find(|image| !ids.insert(image.id))?.id;
    for (image, id) in images.iter_mut().zip(1..) {
        image.id = id;
    }
    Some(format!(
        "images are numbered in the order of the file, because several tasks have one id ({twice})"
    ))
}

/// The path that Label Studio's address of an image means.
fn path_of(address: &str) -> String {
    if let Some((_, rest)) = address.split_once("/data/local-files/?d=") {
        let path = unescaped(rest.split('&').next().unwrap_or_default());
        return path.trim_start_matches('/').to_owned();
    }
    let path = path_of_url(address).unwrap_or_else(|| address.to_owned());
    let path = path.trim_start_matches('/');
    path.strip_prefix("data/upload/").map_or(path, |upload| upload).to_owned()
}

/// A text with its `%20`s resolved; as it is, if that gives no text.
fn unescaped(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let code = code.and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(plain).unwrap_or_else(|_| text.to_owned())
}
