//! Detections as files: COCO's results JSON, which LVIS uses too (a list of `image_id`,
//! `category_id`, `bbox` and `score`).
//!
//! A full LVIS validation run is six million records. They are read straight into the list,
//! never as text beside it, and a wrong record is named by its position and field.

use std::{cell::Cell, io::BufReader, path::Path};

use serde::{
    Deserialize, Serialize,
    de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::{Error, Result, boxes::Xywh, error::write_atomically, vocabulary::CategoryId};

/// One detected object.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Detection {
    /// Id of the image in its annotation file.
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

impl<'de> Deserialize<'de> for Detection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Record(&Place::default()).deserialize(deserializer)
    }
}

/// Reads a results file. Fields other than the four (a segmentation, an id) are ignored.
///
/// # Errors
/// If the file cannot be read, is cut off, is not a list, or a record lacks a field or has a
/// number that is not finite: the message names the record and the field.
pub fn read(path: &Path) -> Result<Vec<Detection>> {
    let file = fs_err::File::open(path)?;
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 20, file));
    let place = Place::default();
    List(&place)
        .deserialize(&mut json)
        .and_then(|detections| json.end().map(|()| detections))
        .map_err(|e| explain(path, &place, e))
}

/// Writes a results file, one record a line, every number so that it reads back the same to the
/// last bit. The file is either wholly there or not at all.
///
/// # Errors
/// If a number is not finite (JSON has no such number), or the file cannot be written.
pub fn write(path: &Path, detections: &[Detection]) -> Result<()> {
    for (i, detection) in detections.iter().enumerate() {
        if let Some(field) = detection.not_finite() {
            return Err(Error::invalid(
                path,
                format!("[{i}].{field}"),
                format!("not finite, so not written: {detection:?}"),
            ));
        }
    }
    write_atomically(path, |out| {
        for (i, detection) in detections.iter().enumerate() {
            out.write_all(if i == 0 { b"[\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *out, detection).map_err(std::io::Error::from)?;
        }
        out.write_all(if detections.is_empty() { b"[]\n" } else { b"\n]\n" })?;
        Ok(())
    })
}

/// Where in the file the reader is, for the message if it must stop.
#[derive(Default)]
struct Place {
    record: Cell<Option<usize>>,
    field: Cell<Option<&'static str>>,
    /// The top level is an object, as in annotation files.
    object: Cell<bool>,
}

fn explain(path: &Path, place: &Place, error: serde_json::Error) -> Error {
    let at = format!("line {}, column {}", error.line(), error.column());
    let field = match (place.record.get(), place.field.get()) {
        (None, _) => "top level".to_owned(),
        (Some(i), None) => format!("[{i}]"),
        (Some(i), Some(field)) => format!("[{i}].{field}"),
    };
    match error.classify() {
        serde_json::error::Category::Io => {
            let error = std::io::Error::from(error);
            let text = format!("could not read `{}`: {error}", path.display());
            Error::Io(std::io::Error::new(error.kind(), text))
        }
        serde_json::error::Category::Eof if place.record.get().is_none() => {
            Error::invalid(path, field, "expected a list of detections, got an empty file")
        }
        serde_json::error::Category::Eof => {
            Error::invalid(path, field, format!("the file ends here ({at}): it is cut off"))
                .with_hint("write it again; whatever wrote it was interrupted")
        }
        serde_json::error::Category::Syntax => {
            let invalid = Error::invalid(path, field, format!("not JSON: {error}"));
            if place.field.get().is_some() {
                invalid.with_hint("JSON has no NaN and no Infinity: leave such detections out")
            } else {
                invalid
            }
        }
        serde_json::error::Category::Data => {
            // Without serde_json's own " at line 1 column 5": record and field say where.
            let position = format!(" at line {} column {}", error.line(), error.column());
            let text = error.to_string();
            let problem = text.strip_suffix(&position).unwrap_or(&text);
            let invalid = Error::invalid(path, field, problem);
            if place.object.get() {
                invalid.with_hint("this looks like an annotation file, not like detections")
            } else {
                invalid
            }
        }
    }
}

/// The list, noting in the place which record is being read.
struct List<'a>(&'a Place);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = Vec<Detection>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Detection>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of detections")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut detections = Vec::new();
        loop {
            self.0.record.set(Some(detections.len()));
            self.0.field.set(None);
            match list.next_element_seed(Record(self.0))? {
                Some(detection) => detections.push(detection),
                None => break,
            }
        }
        self.0.record.set(None);
        Ok(detections)
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        self.0.object.set(true);
        Err(de::Error::custom("expected a list of detections, got an object"))
    }
}

/// One record, noting in the place which field is being read.
struct Record<'a>(&'a Place);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    ImageId,
    CategoryId,
    Bbox,
    Score,
    #[serde(other)]
    Other,
}

impl<'de> DeserializeSeed<'de> for Record<'_> {
    type Value = Detection;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_> {
    type Value = Detection;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with image_id, category_id, bbox and score")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Detection, A::Error> {
        let at = |field: &'static str| self.0.field.set(Some(field));
        let (mut image_id, mut category_id, mut bbox, mut score) = (None, None, None, None);
        while let Some(key) = map.next_key()? {
            match key {
                Key::ImageId => {
                    at("image_id");
                    image_id = Some(map.next_value::<Id>()?.0);
                }
                Key::CategoryId => {
                    at("category_id");
                    category_id = Some(CategoryId(map.next_value::<Id>()?.0));
                }
                Key::Bbox => {
                    at("bbox");
                    bbox = Some(Xywh(map.next_value::<FourNumbers>()?.0));
                }
                Key::Score => {
                    at("score");
                    score = Some(map.next_value::<Number>()?.0);
                }
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            self.0.field.set(None);
        }
        let missing = |field| {
            at(field);
            de::Error::custom("missing")
        };
        Ok(Detection {
            image_id: image_id.ok_or_else(|| missing("image_id"))?,
            category_id: category_id.ok_or_else(|| missing("category_id"))?,
            bbox: bbox.ok_or_else(|| missing("bbox"))?,
            score: score.ok_or_else(|| missing("score"))?,
        })
    }
}

/// An integer, also when written as `17.0` (pandas does).
#[derive(Clone, Copy)]
pub(crate) struct Id(pub(crate) i64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Id;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an integer")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Id, E> {
                Ok(Id(v))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Id, E> {
                i64::try_from(v).map(Id).map_err(|_| E::custom(format!("{v} is too large")))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Id, E> {
                // Beyond 2⁵³ a float no longer names one integer.
                if v.fract() == 0.0 && v.abs() <= (1u64 << 53) as f64 {
                    Ok(Id(v as i64))
                } else {
                    Err(E::custom(format!("expected an integer, got {v}")))
                }
            }
        }
        deserializer.deserialize_any(Whole)
    }
}

/// A finite number.
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Finite;
        impl Visitor<'_> for Finite {
            type Value = Number;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a finite number")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Number, E> {
                Ok(Number(v as f64))
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Number, E> {
                Ok(Number(v as f64))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Number, E> {
                if v.is_finite() {
                    Ok(Number(v))
                } else {
                    Err(E::custom(format!("expected a finite number, got {v}")))
                }
            }
        }
        deserializer.deserialize_any(Finite)
    }
}

/// A box as files have it.
pub(crate) struct FourNumbers(pub(crate) [f64; 4]);

impl<'de> Deserialize<'de> for FourNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Four;
        impl<'de> Visitor<'de> for Four {
            type Value = FourNumbers;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("4 finite numbers")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FourNumbers, A::Error> {
                let (mut numbers, mut count) = ([0.0; 4], 0);
                while let Some(Number(number)) = list.next_element()? {
                    if let Some(slot) = numbers.get_mut(count) {
                        *slot = number;
                    }
                    count += 1;
                }
                if count == 4 {
                    Ok(FourNumbers(numbers))
                } else {
                    Err(de::Error::custom(format!("expected 4 finite numbers, got {count}")))
                }
            }
        }
        deserializer.deserialize_any(Four)
    }
}

#[cfg(test)]
#[path = "detections_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
