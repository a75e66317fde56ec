//! Detections as files: COCO's results JSON, which LVIS uses too (a list of `image_id`,
//! `category_id`, `bbox` and `score`).
//!
//! A full LVIS validation run has six million records. So memory holds a few megabytes of text at a time, and
//! an error names the position and field of the wrong record.

mod image_names;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    argument::Argument,
    boxes::Xywh,
    error::write_atomically,
    json::{self, ID, INTEGER, Id, Integer, JsonRecord, JsonStream, TopLevel},
    plural::counted,
    vocabulary::{ByName, CategoryId, Vocabulary},
};
pub use image_names::ImageNames;
use image_names::not_called;

/// A detected object: a record of a results file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Detection {
    /// Id of the image in its annotation file; where ids are texts there, the image's number (see
    /// [`ImageNames::text_of`]).
    pub image_id: i64,
    /// Category in the annotation file's own numbering.
    pub category_id: CategoryId,
    /// In pixels of the original image.
    pub bbox: Xywh,
    /// Confidence; only its order matters to the metrics.
    pub score: f64,
}

impl Detection {
    /// The first field that is not a finite number.
    fn not_finite(&self) -> Option<&'static str> {
        if self.bbox.0.iter().any(|v| !v.is_finite()) {
            Some("bbox")
        } else {
            (!self.score.is_finite()).then_some("score")
        }
    }
}

#[derive(Deserialize)]
struct RawDetection {
    image_id: Option<Id>,
    file_name: Option<String>,
    category_id: Integer,
    category_name: Option<String>,
    bbox: [f64; 4],
    score: f64,
}

impl JsonRecord<'_> for RawDetection {
    const LIST: &'static str = "";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("image_id", ID),
        ("file_name", "a string"),
        ("category_id", INTEGER),
        ("category_name", "a string"),
        ("bbox", "4 finite numbers [x, y, width, height]"),
        ("score", "a finite number"),
    ];
}

const TOP_LEVEL: TopLevel = TopLevel {
    bracket: b'[',
    expected: "a list of detections",
    other: "this looks like an annotation file, not like detections",
};

/// Bytes read at a time.
const CHUNK: usize = 4 << 20;

/// The contents of a results file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// All detections, in the file's order.
    pub detections: Vec<Detection>,
    /// How many have a `file_name` of another image than their `image_id`: the name was followed.
    pub renumbered: usize,
    /// How many have a `category_name` of another class than their `category_id`: the name was followed.
    pub renamed: usize,
    /// Detections of classes that the annotation file does not have, by the name: left out, as a split need not have
    /// every class.
    pub left_out: BTreeMap<String, usize>,
    /// Detections in images that the annotation file does not have, by the names of these: left out, as a folder may
    /// have other images, too.
    pub other_images: BTreeMap<String, usize>,
    /// How many have a width or height below 0: the official evaluators take them, and they match nothing.
    pub negative: usize,
}

/// What the records of a results file may name: the images and classes of an annotation file.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The images of the annotation file, by name.
    pub images: &'a ImageNames,
    /// The classes of the annotation file.
    pub classes: &'a Vocabulary,
}

/// Reads a results file by its `image_id`s, which must be numbers. Fields other than the four (a segmentation,
/// an id) are ignored.
///
/// # Errors
/// If the file cannot be read, is cut off, is not a list, or a record lacks a field, has a text as
/// `image_id`, or a number that is not finite: the message names the record and the field.
pub fn read(path: &Path) -> Result<Vec<Detection>> {
    Ok(read_as(path, None)?.detections)
}

/// Reads a results file for the annotation file that `names` are from. If a record has a `file_name` or a
/// `category_name` (as those of `richsem predict` have), these say which image or class is meant. The
/// `image_id` or `category_id` does not, since another program may have counted in another order. Where the
/// ids of the annotation file's images are texts, those of the records are looked up.
///
/// # Errors
/// Those of [`read`]; a name that no image or class has, or several.
pub fn read_for(path: &Path, names: Names) -> Result<Found> {
    read_as(path, Some(names))
}

fn read_as(path: &Path, names: Option<Names>) -> Result<Found> {
    let mut reader = Reader {
        path,
        names,
        by_name: names.map(|names| names.classes.by_name()).unwrap_or_default(),
        found: Found::default(),
        first_other: None,
        classes: HashMap::new(),
        name_of_image: HashMap::new(),
        unnamed: 0,
        agreed: 0,
    };
    let mut stream = JsonStream::new(path, json::open(path)?, CHUNK);
    stream.open(&TOP_LEVEL)?;
    stream.records("", |batch| json::parse(path, batch, |i, raw| reader.add(i, raw)))?;
    stream.end()?;
    reader.finish()
}

/// Takes the records of a results file one after the other.
struct Reader<'a> {
    path: &'a Path,
    names: Option<Names<'a>>,
    by_name: ByName,
    found: Found,
    /// The classes found so far, by the name and id in a record.
    classes: HashMap<(String, CategoryId), Option<CategoryId>>,
    /// The name that each image goes by in the file.
    name_of_image: HashMap<i64, String>,
    /// The first record in an image that the annotation file does not have.
    first_other: Option<usize>,
    /// Records without a `file_name`.
    unnamed: usize,
    /// Records whose `file_name` and `image_id` are of the same image.
    agreed: usize,
}

impl Reader<'_> {
    /// Adds the record at a position of the file.
    fn add(&mut self, i: usize, raw: RawDetection) -> Result<()> {
        let RawDetection { image_id, file_name, category_id, category_name, bbox, score } = raw;
        let given_class = CategoryId(category_id.0);
        let given_image = self.given(i, image_id, file_name.is_some())?;
        let image_id = match self.image(i, given_image, file_name)? {
            Some(Some(id)) => id,
            Some(None) => {
                let problem = format!("missing; expected {ID}");
                return Err(Error::invalid(self.path, format!("[{i}].image_id"), problem));
            }
            None => return Ok(()),
        };
        self.found.renumbered += usize::from(given_image.is_some_and(|given| given != image_id));
        let Some(category_id) = self.class(i, given_class, category_name)? else { return Ok(()) };
        self.found.negative += usize::from(bbox[2] < 0.0 || bbox[3] < 0.0);
        self.found.renamed += usize::from(category_id != given_class);
        let bbox = Xywh(bbox);
        self.found.detections.push(Detection { image_id, category_id, bbox, score });
        Ok(())
    }

    /// The image that an `image_id` means. None without one, and where it means none but the record has a
    /// name, which counts more.
    fn given(&self, i: usize, id: Option<Id>, named: bool) -> Result<Option<i64>> {
        let Some(id) = id else { return Ok(None) };
        let field = format!("[{i}].image_id");
        let hint = format!(
            "pass the annotation file of these very images ({}), or write file_name into the records",
            Argument::Annotations
        );
        match self.names.map(|names| names.images).filter(|images| images.has_texts()) {
            Some(images) => match images.with_text(&id.clone().into_text()) {
                Some(number) => Ok(Some(number)),
                None if named => Ok(None),
                None => {
                    let problem = format!("no image of the annotation file has the id {id}");
                    Err(Error::invalid(self.path, field, problem).with_hint(hint))
                }
            },
            None => match id.number() {
                Some(number) => Ok(Some(number)),
                None if named && self.names.is_some() => Ok(None),
                None => {
                    let problem = match self.names {
                        Some(_) => format!("{id} is a text, and the annotation file has numbers"),
                        None => format!("expected {INTEGER}, got the string {id}"),
                    };
                    Err(Error::invalid(self.path, field, problem).with_hint(hint))
                }
            },
        }
    }

    /// The image of a record: the one that its name says, or else its id, if it has one. None, which is counted, for
    /// the name of an image that the annotation file does not have.
    fn image(
        &mut self,
        i: usize,
        given: Option<i64>,
        name: Option<String>,
    ) -> Result<Option<Option<i64>>> {
        let Some(names) = self.names else { return Ok(Some(given)) };
        let Some(name) = name else {
            self.unnamed += 1;
            return Ok(Some(given));
        };
        let field = || format!("[{i}].file_name");
        let wrong = |problem| Error::invalid(self.path, field(), problem).with_hint(hint_images());
        let Some(id) = names.images.find(&name, given).map_err(wrong)? else {
            self.first_other.get_or_insert(i);
            *self.found.other_images.entry(name).or_default() += 1;
            return Ok(None);
        };
        match self.name_of_image.get(&id) {
            Some(before) if *before != name => {
                let problem = format!("`{before}` and `{name}` would both be image {id}");
                return Err(Error::invalid(self.path, field(), problem).with_hint(
                    "one of the two is another image: leave its detections out, or write into \
                     file_name what tells them apart, as the annotation file has it",
                ));
            }
            Some(_) => {}
            None => drop(self.name_of_image.insert(id, name)),
        }
        self.agreed += usize::from(given == Some(id));
        Ok(Some(Some(id)))
    }

    /// The class of a record: the one that its name says, or else its id. None, which is counted, for a class that
    /// the annotation file does not have.
    fn class(
        &mut self,
        i: usize,
        given: CategoryId,
        name: Option<String>,
    ) -> Result<Option<CategoryId>> {
        let (Some(names), Some(name)) = (self.names, name) else { return Ok(Some(given)) };
        let key = (name, given);
        let found = match self.classes.get(&key) {
            Some(&known) => known,
            None => {
                let found = class_named(&key.0, given, names.classes, &self.by_name).map_err(
                    |problem| {
                        Error::invalid(self.path, format!("[{i}].category_name"), problem)
                            .with_hint(HINT_CLASSES)
                    },
                )?;
                self.classes.insert(key.clone(), found);
                found
            }
        };
        if found.is_none() {
            *self.found.left_out.entry(key.0).or_default() += 1;
        }
        Ok(found)
    }

    /// What was read.
    ///
    /// # Errors
    /// All records with a name show that the ids are not the annotation file's, and some have only an id.
    fn finish(self) -> Result<Found> {
        let Self { path, found, first_other, unnamed, agreed, .. } = self;
        if found.renumbered > 0 && agreed == 0 && unnamed > 0 {
            let problem = format!(
                "missing in {}, whose image_id cannot be relied on: that of all {} others is of another \
                 image than their file_name",
                counted(unnamed, "record"),
                found.renumbered
            );
            return Err(Error::invalid(path, "file_name", problem).with_hint(
                "write file_name into every record, or take it out of all so that image_id counts",
            ));
        }
        if let (Some(first), Some(name)) = (first_other, found.other_images.keys().next())
            && found.detections.is_empty()
            && found.left_out.is_empty()
        {
            let field = format!("[{first}].file_name");
            return Err(Error::invalid(path, field, not_called(name)).with_hint(hint_images()));
        }
        if let Some(name) = found.left_out.keys().next()
            && found.detections.is_empty()
        {
            let problem = format!(
                "no detection is of a class that the annotation file has; of those that it has not, as `{name}`: {}",
                found.left_out.values().sum::<usize>()
            );
            return Err(Error::invalid(path, "category_name", problem).with_hint(HINT_CLASSES));
        }
        Ok(found)
    }
}

/// What to do where images are none of the annotation file's.
fn hint_images() -> String {
    format!(
        "pass the annotation file of these very images ({}), or take file_name out of the records so that image_id \
         counts",
        Argument::Annotations
    )
}

/// What to do where classes are none of the annotation file's.
const HINT_CLASSES: &str = "give the annotation file of these very classes, or take category_name out of the records \
                            so that category_id counts";

/// The class of that name. If several have it, the one of the `given` id. None if no class has it.
fn class_named(
    name: &str,
    given: CategoryId,
    classes: &Vocabulary,
    by_name: &ByName,
) -> Result<Option<CategoryId>, String> {
    let named = by_name.find(name).iter();
    let ids: Vec<CategoryId> = named.map(|&place| classes.categories()[place].id).collect();
    match ids.as_slice() {
        _ if ids.contains(&given) => Ok(Some(given)),
        [a, b, ..] => {
            Err(format!("`{name}` may be class {} or {} of the annotation file", a.0, b.0))
        }
        one => Ok(one.first().copied()),
    }
}

/// Writes a results file, one record a line, every number so that it reads back the same to the
/// last bit. The file is either wholly there or not at all.
///
/// # Errors
/// If a number is not finite (JSON has no such number), or the file cannot be written.
pub fn write(path: &Path, detections: &[Detection]) -> Result<()> {
    write_for(path, detections, &ImageNames::default())
}

/// As [`write()`], for the annotation file that `images` are from: where ids are texts there, `image_id` is
/// that text.
///
/// # Errors
/// As [`write()`]; a detection of an image that is not there, where ids are texts.
pub fn write_for(path: &Path, detections: &[Detection], images: &ImageNames) -> Result<()> {
    for (i, detection) in detections.iter().enumerate() {
        if let Some(field) = detection.not_finite() {
            return Err(Error::invalid(
                path,
                format!("[{i}].{field}"),
                format!("not finite, so not written: {detection:?}"),
            ));
        }
        if images.has_texts() && images.text_of(detection.image_id).is_none() {
            let problem =
                format!("no image of the annotation file has the number {}", detection.image_id);
            return Err(Error::invalid(path, format!("[{i}].image_id"), problem)
                .with_hint("give the annotation file that the detections were made for"));
        }
    }
    write_atomically(path, |out| {
        for (i, detection) in detections.iter().enumerate() {
            out.write_all(if i == 0 { b"[\n" } else { b",\n" })?;
            match images.text_of(detection.image_id) {
                None => serde_json::to_writer(&mut *out, detection),
                Some(image_id) => {
                    serde_json::to_writer(&mut *out, &Written::of(detection, image_id))
                }
            }
            .map_err(std::io::Error::from)?;
        }
        out.write_all(if detections.is_empty() { b"[]\n" } else { b"\n]\n" })?;
        Ok(())
    })
}

/// A record whose image has a text for an id.
#[derive(Serialize)]
struct Written<'a> {
    image_id: &'a str,
    category_id: CategoryId,
    bbox: Xywh,
    score: f64,
}

impl<'a> Written<'a> {
    fn of(detection: &Detection, image_id: &'a str) -> Self {
        let Detection { image_id: _, category_id, bbox, score } = *detection;
        Self { image_id, category_id, bbox, score }
    }
}

/// What became of a box or detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// A detection that finds a box of its class.
    TruePositive,
    /// A detection that finds none.
    FalsePositive,
    /// A box that no detection finds.
    FalseNegative,
}

impl Verdict {
    /// All of them, in the order of their usual names.
    pub const ALL: [Self; 3] = [Self::TruePositive, Self::FalsePositive, Self::FalseNegative];

    /// `TP`, `FP` or `FN`.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::TruePositive => "TP",
            Self::FalsePositive => "FP",
            Self::FalseNegative => "FN",
        }
    }
}
