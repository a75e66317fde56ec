//! What a file has beside the fields that are read: outlines, key points, attributes, and whatever its program
//! wrote. Conversions carry it from file to file, or count it by the names of its fields.
//!
//! It may be a gigabyte of outlines. So what records have is put into a temporary file, and found there record by
//! record; what the file has at its top level is kept.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::AtomicBool,
};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{CHUNK, TOP_LEVEL, records::Attributes};
use crate::{
    data::{dataset::Dataset, records::ClassRecord},
    error::{Error, Result, unless_stopped},
    json::{self, Id, JsonRecord, JsonStream, parse},
};

/// Values that say nothing.
const NOTHING: [&str; 4] = ["null", "[]", "{}", "\"\""];
const LONGEST_NOTHING: usize = 4;

/// What is written of an image by itself; the lists of classes have their own counts.
const OF_IMAGES: [&str; 7] = [
    "id",
    "file_name",
    "width",
    "height",
    "neg_category_ids",
    "pos_category_ids",
    "not_exhaustive_category_ids",
];

const OF_ANNOTATIONS: [&str; 7] =
    ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore"];

/// `synonyms` are not among them: readers leave out the name itself.
const OF_CLASSES: [&str; 9] = [
    "id",
    "name",
    "image_count",
    "instance_count",
    "frequency",
    "synset",
    "wnid",
    "lvis_clip_row",
    "freebase_id",
];

/// Fields with their values as they are written.
#[derive(Debug, Clone, Default)]
pub(in crate::data) struct Written(pub(in crate::data) Vec<(String, Box<RawValue>)>);

impl Written {
    /// Whether there is such a field.
    pub(in crate::data) fn has(&self, field: &str) -> bool {
        self.0.iter().any(|(name, _)| name == field)
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Written;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Written(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl JsonRecord<'_> for Written {
    // That each is an object was seen when the set was read.
    const LIST: &'static str = "records";
    const FIELDS: &'static [(&'static str, &'static str)] = &[];
}

/// Where the fields of a record are in the temporary file.
#[derive(Debug, Clone, Copy)]
struct Span {
    offset: u64,
    length: usize,
}

/// What a file has beside what is read.
#[derive(Debug)]
pub(in crate::data) struct Rest {
    /// What it has at its top level.
    pub(in crate::data) top: Written,
    /// How many records have a field that says something: by what they are (`images`), and its name.
    pub(in crate::data) counts: BTreeMap<(&'static str, String), usize>,
    /// By the ids that the set has for them.
    images: HashMap<i64, Span>,
    annotations: HashMap<i64, Span>,
    classes: Vec<(i64, String, Written)>,
    /// None if it only counts.
    bytes: Option<File>,
}

impl Rest {
    /// Reads the file of a set again; none if it was not read from one. The temporary file is in `folder`;
    /// without one, fields are only counted.
    ///
    /// # Errors
    /// [`Error::Stopped`] once `stop` is set; the file is no longer as it was, or there is no space.
    pub(in crate::data) fn read(
        set: &Dataset,
        folder: Option<&Path>,
        stop: &AtomicBool,
    ) -> Result<Option<Self>> {
        let Some(json) = set.json_file() else { return Ok(None) };
        let file = json.path();
        let bytes = folder.map(tempfile::tempfile_in).transpose()?;
        let mut reading = Reading {
            rest: Self {
                top: Written::default(),
                counts: BTreeMap::new(),
                images: HashMap::new(),
                annotations: HashMap::new(),
                classes: Vec::new(),
                bytes: bytes.as_ref().map(File::try_clone).transpose()?,
            },
            out: bytes.map(|bytes| BufWriter::with_capacity(CHUNK, bytes)),
            offset: 0,
            image_texts: set.has_text_ids(),
            annotation_texts: set.has_annotation_text_ids(),
        };
        let mut stream = JsonStream::new(file, json.open()?, CHUNK);
        stream.open(&TOP_LEVEL)?;
        while let Some(key) = stream.next_key()? {
            match key.as_str() {
                "images" | "annotations" | "categories" => stream.records(&key, |batch| {
                    unless_stopped(stop)?;
                    parse(file, batch, |at, record| match key.as_str() {
                        "images" => reading.image(at, record),
                        "annotations" => reading.annotation(at, record),
                        _ => reading.class(record),
                    })
                })?,
                _ if folder.is_none() => {
                    // Enough to see whether it says something.
                    let mut start = String::new();
                    stream.value(&key, &mut |byte| {
                        if start.len() < LONGEST_NOTHING + 1 {
                            start.push(char::from(byte));
                        }
                    })?;
                    reading.count("", &key, &start);
                }
                _ => {
                    let mut text = Vec::new();
                    stream.value(&key, &mut |byte| text.push(byte))?;
                    let value = String::from_utf8(text).map_err(|e| e.to_string());
                    let value = value
                        .and_then(|text| RawValue::from_string(text).map_err(|e| e.to_string()))
                        .map_err(|problem| {
                            Error::invalid(file, &key, format!("expected JSON, got {problem}"))
                                .with_hint("correct it, or leave this key out")
                        })?;
                    reading.count("", &key, value.get());
                    reading.rest.top.0.push((key, value));
                }
            }
        }
        if let Some(out) = &mut reading.out {
            out.flush()?;
        }
        Ok(Some(reading.rest))
    }

    /// What the file says more of an image.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(in crate::data) fn of_image(&self, id: i64) -> Result<Written> {
        self.at(self.images.get(&id))
    }

    /// What the file says more of an annotation: also its box, where CVAT's angle beside it turns it when it is
    /// read.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(in crate::data) fn of_annotation(&self, id: i64) -> Result<Written> {
        self.at(self.annotations.get(&id))
    }

    /// What the file says more of a class: of that name, where its id may be another by now, or of that id,
    /// where the reader gave it another name, so that `is_name` does not know the one in the file. `synonyms`
    /// are here, if they are those of the class.
    pub(in crate::data) fn of_class(
        &self,
        class: &ClassRecord,
        is_name: impl Fn(&str) -> bool,
    ) -> Option<Written> {
        let classes = || self.classes.iter();
        let found = classes()
            .find(|(id, name, _)| *id == class.id && *name == class.name)
            .or_else(|| classes().find(|(_, name, _)| *name == class.name))
            .or_else(|| classes().find(|(id, name, _)| *id == class.id && !is_name(name)));
        let mut written = found?.2.clone();
        written.0.retain(|(name, value)| match name.as_str() {
            "synonyms" => {
                let given: Vec<serde_json::Value> =
                    serde_json::from_str(value.get()).unwrap_or_default();
                let others = given.iter().filter_map(serde_json::Value::as_str);
                others.filter(|other| *other != class.name).eq(&class.synonyms)
            }
            _ => true,
        });
        Some(written)
    }

    fn at(&self, span: Option<&Span>) -> Result<Written> {
        let (Some(span), Some(bytes)) = (span, &self.bytes) else { return Ok(Written::default()) };
        let mut text = vec![0; span.length];
        bytes.read_exact_at(&mut text, span.offset)?;
        serde_json::from_slice(&text).map_err(|e| Error::other(e.to_string()))
    }
}

/// A file that is read.
struct Reading {
    rest: Rest,
    out: Option<BufWriter<File>>,
    offset: u64,
    /// Whether the ids are texts: what has them is then numbered from 1.
    image_texts: bool,
    annotation_texts: bool,
}

impl Reading {
    fn image(&mut self, at: usize, mut record: Written) -> Result<()> {
        let id = id_of(&record, at, self.image_texts);
        if let Some((name, value)) = record.0.iter().find(|(name, _)| name == "pos_category_ids") {
            self.count("images", name, value.get());
        }
        record.0.retain(|(name, _)| !OF_IMAGES.contains(&name.as_str()));
        for (name, value) in &record.0 {
            self.count("images", name, value.get());
        }
        if let (Some(id), Some(span)) = (id, self.put(&record)?) {
            self.rest.images.insert(id, span);
        }
        Ok(())
    }

    fn annotation(&mut self, at: usize, mut record: Written) -> Result<()> {
        let id = id_of(&record, at, self.annotation_texts);
        let value = |field: &str| record.0.iter().find(|(name, _)| name == field).map(|f| &f.1);
        let attributes = value("attributes").and_then(|raw| Attributes::of(raw));
        let bbox = attributes.filter(|a| a.turn_boxes()).map(|_| match value("bbox") {
            Some(bbox) => bbox.clone(),
            None => RawValue::NULL.to_owned(),
        });
        record.0.retain(|(name, _)| !OF_ANNOTATIONS.contains(&name.as_str()));
        for (name, value) in &record.0 {
            self.count("annotations", name, value.get());
        }
        record.0.extend(bbox.map(|bbox| ("bbox".to_owned(), bbox)));
        if let (Some(id), Some(span)) = (id, self.put(&record)?) {
            self.rest.annotations.insert(id, span);
        }
        Ok(())
    }

    fn class(&mut self, mut record: Written) -> Result<()> {
        let text = |field: &str| record.0.iter().find(|(name, _)| name == field).map(|f| f.1.get());
        let id = text("id").and_then(|id| serde_json::from_str::<json::Integer>(id).ok());
        let name = text("name").and_then(|name| serde_json::from_str::<String>(name).ok());
        record.0.retain(|(name, value)| match name.as_str() {
            // Of others than texts nothing is read.
            "supercategory" => !value.get().starts_with(['"', 'n']),
            name => !OF_CLASSES.contains(&name),
        });
        for (name, value) in record.0.iter().filter(|(name, _)| name != "synonyms") {
            self.count("categories", name, value.get());
        }
        if let (Some(id), Some(name), false) = (id, name, record.0.is_empty()) {
            self.rest.classes.push((id.0, name, record));
        }
        Ok(())
    }

    /// Puts the fields of a record into the temporary file.
    fn put(&mut self, record: &Written) -> Result<Option<Span>> {
        let Some(out) = self.out.as_mut().filter(|_| !record.0.is_empty()) else {
            return Ok(None);
        };
        let text = serde_json::to_vec(record).map_err(|e| Error::other(e.to_string()))?;
        out.write_all(&text)?;
        let span = Span { offset: self.offset, length: text.len() };
        self.offset += text.len() as u64;
        Ok(Some(span))
    }

    /// Counts a field, unless it says nothing.
    fn count(&mut self, list: &'static str, field: &str, value: &str) {
        if !NOTHING.contains(&value) {
            *self.rest.counts.entry((list, field.to_owned())).or_default() += 1;
        }
    }
}

/// The id that the set has for a record; none for one that it cannot have read.
fn id_of(record: &Written, at: usize, texts: bool) -> Option<i64> {
    if texts {
        return Some(at as i64 + 1);
    }
    let (_, value) = record.0.iter().find(|(name, _)| name == "id")?;
    serde_json::from_str::<Id>(value.get()).ok()?.number()
}
