//! Folders of images with a `metadata.jsonl`: a record for each image on a line of its own; or a `metadata.csv`,
//! where lists and objects stand as JSON in their fields.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value as Json};

use super::{
    super::{Format, Place, Request, below_root},
    collect::Collector,
    part_of, places,
};
use crate::{
    data::{
        image_store::parquet::{
            AREAS, BOXES, CATEGORIES, CROWDS, HEIGHTS, IMAGE_IDS, OBJECT_IDS, Object, Row, Value,
            WIDTHS,
        },
        reading::{FILES, Watch, open_store},
        records::Records,
    },
    error::{Error, Result, first_few},
    json,
    plural::counted,
};

pub(in super::super) const FORMAT: Format = Format {
    name: "imagefolder",
    title: "Hugging Face imagefolder",
    recognise: |place| {
        let parts = parts(place);
        let (name, file) = parts.first()?;
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        let below = if name.is_empty() { String::new() } else { format!("{name}/") };
        Some(format!("{below}{file} has images and boxes"))
    },
    splits: |place| {
        let parts = parts(place).into_iter().map(|(name, _)| name);
        Ok(parts.filter(|name| !name.is_empty()).collect())
    },
    read,
};

/// The file of records in a folder of images: the first that is there.
const METADATA: [&str; 2] = ["metadata.jsonl", "metadata.csv"];

/// The key of a record that holds the objects.
const OBJECTS: &str = "objects";

/// The key of a record that names the image.
const FILE_NAME: &str = "file_name";

/// The files of a set's parts. There is one without a name if it is all one.
fn parts(place: &Place) -> Vec<(String, PathBuf)> {
    if !place.is_folder() {
        let all = (String::new(), place.path().to_owned());
        let is_records = place.ends_with(".jsonl") || place.ends_with(".csv");
        return if is_records && has_boxes(place) { vec![all] } else { Vec::new() };
    }
    let file = |place: &Place| {
        let mut files = METADATA.iter().filter_map(|name| place.below(name));
        files.find(has_boxes).map(|file| file.path().to_owned())
    };
    for place in places(place) {
        if let Some(own) = file(&place) {
            return vec![(String::new(), own)];
        }
        let parts = place.folders();
        let part = |name: &str| Some((name.to_owned(), file(&place.below(name)?)?));
        let parts: Vec<_> = parts.filter_map(part).collect();
        if !parts.is_empty() {
            return parts;
        }
    }
    Vec::new()
}

/// Whether records name images and boxes, as far as the beginning shows. Those of captions have no boxes.
fn has_boxes(file: &Place) -> bool {
    let text = file.text();
    if file.ends_with(".csv") {
        let header = text.lines().next().unwrap_or_default();
        let names: Vec<&str> =
            header.split(',').map(|name| name.trim().trim_matches('"')).collect();
        let boxes = BOXES.iter().chain(&[OBJECTS]).any(|key| names.contains(key));
        return names.contains(&FILE_NAME) && boxes;
    }
    let has = |key: &str| text.contains(&format!("\"{key}\""));
    text.trim_start().starts_with('{') && has(FILE_NAME) && BOXES.iter().any(|key| has(key))
}

fn read(request: &Request<'_>) -> Result<Records> {
    let place = Place::new(request.path)?;
    let parts = parts(&place);
    let part = part_of(request.path, &parts, request.split)?;
    let file = &parts[part].1;
    let mut collector = Collector::new(None);
    let mut names = std::collections::BTreeSet::new();
    each(file, request.watch, |line, row| {
        if !names.insert(row.image.clone()) {
            let problem = format!("the image `{}` is on a line before, too", row.image);
            return Err(Error::invalid(file, format!("line {line}: {FILE_NAME}"), problem));
        }
        collector.row(row, request.annotated, || (file.clone(), format!("line {line}: objects")))
    })?;
    if collector.asks_others() {
        for (_, (_, other)) in parts.iter().enumerate().filter(|(at, _)| *at != part) {
            each(other, request.watch, |_, row| {
                collector.other(row);
                Ok(())
            })?;
        }
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let beside = folder.unwrap_or(Path::new(".")).to_owned();
    let images_at = request.images.map_or(beside, Path::to_owned);
    let mut records = collector.finish(request, file, images_at.clone())?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    compare(&images_at, (&name, &names), request.watch, &mut records)?;
    Ok(records)
}

/// Tells of images without a record, and of records without an image.
fn compare(
    images_at: &Path,
    (name, names): (&str, &std::collections::BTreeSet<String>),
    watch: Watch<'_>,
    records: &mut Records,
) -> Result<()> {
    let store = open_store(images_at, Default::default(), watch)?;
    let (files, _) = store.images("")?;
    let unnamed: Vec<String> = files.into_iter().filter(|file| !names.contains(file)).collect();
    let missing: Vec<String> = names.iter().filter(|name| !store.contains(name)).cloned().collect();
    if !unnamed.is_empty() {
        let (count, few) = (unnamed.len(), first_few(unnamed.into_iter()));
        records.notes.push(format!("images that {name} does not name, left out: {count} ({few})"));
    }
    if !missing.is_empty() && missing.len() < names.len() {
        let (count, few) = (missing.len(), first_few(missing.into_iter()));
        let images = counted(count, "image");
        records.warnings.push(format!("{images} of {name} not there: {few}"));
    }
    Ok(())
}

/// Shows the records of a file, with the number of each line, from 1.
fn each(
    file: &Path,
    watch: Watch<'_>,
    mut visit: impl FnMut(usize, Row) -> Result<()>,
) -> Result<()> {
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        return each_of_csv(file, watch, visit);
    }
    let (reader, counter) = json::open_counted(file)?;
    let mut lines = BufReader::new(reader);
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if line % FILES == 0 {
            crate::data::reading::tell(&counter, watch)?;
        }
        let wrong = |problem: String| Error::invalid(file, format!("line {line}"), problem);
        if lines.read_until(b'\n', &mut bytes).map_err(|error| wrong(error.to_string()))? == 0 {
            break;
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii();
        if text.is_empty() {
            continue;
        }
        let record: Map<String, Json> = serde_json::from_slice(text).map_err(|error| {
            wrong(format!("expected a JSON object, got what is none: {error}"))
                .with_hint("expected a record for each image, on a line of its own")
        })?;
        let row = row(&record, line).map_err(|(key, problem)| {
            Error::invalid(file, format!("line {line}: {key}"), problem)
        })?;
        visit(line, row)?;
    }
    Ok(())
}

/// As [`each`], of a CSV file: the first line names the columns, an empty field is no value.
fn each_of_csv(
    file: &Path,
    watch: Watch<'_>,
    mut visit: impl FnMut(usize, Row) -> Result<()>,
) -> Result<()> {
    let (reader, counter) = json::open_counted(file)?;
    let mut rows = csv::Reader::from_reader(reader);
    let wrong = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        Error::invalid(file, format!("line {line}"), error.to_string())
    };
    let header = rows.headers().map_err(wrong)?.clone();
    let names: Vec<&str> =
        header.iter().map(|name| name.trim_start_matches('\u{feff}').trim()).collect();
    for (at, record) in rows.records().enumerate() {
        if at % FILES == 0 {
            crate::data::reading::tell(&counter, watch)?;
        }
        let record = record.map_err(wrong)?;
        let line = record.position().map_or(0, |position| position.line() as usize);
        let fields = names.iter().zip(&record).filter(|(_, field)| !field.is_empty());
        let field = |(name, text): (&&str, &str)| ((*name).to_owned(), field(name, text));
        let record: Map<String, Json> = fields.map(field).collect();
        let row = row(&record, line).map_err(|(key, problem)| {
            Error::invalid(file, format!("line {line}: {key}"), problem)
                .with_hint("lists and objects stand as JSON in their fields: [[1, 2, 3, 4]]")
        })?;
        visit(line, row)?;
    }
    Ok(())
}

/// A field as JSON where it is some, and as text.
fn field(name: &str, text: &str) -> Json {
    let value = if name == FILE_NAME { None } else { serde_json::from_str(text).ok() };
    value.unwrap_or_else(|| Json::String(text.to_owned()))
}

/// What is wrong, with the key.
type Wrong = (String, String);

fn wrong(key: &str, expected: &str, got: &Json) -> Wrong {
    /// Characters of a value that are shown.
    const SHOWN: usize = 60;
    let got: String = got.to_string().chars().take(SHOWN).collect();
    (key.to_owned(), format!("expected {expected}, got {got}"))
}

/// The first of some keys that a record has, and its value if that is not null.
fn get<'a>(record: &'a Map<String, Json>, keys: &[&str]) -> Option<(&'a str, &'a Json)> {
    let found = keys.iter().find_map(|key| record.get_key_value(*key))?;
    Some((found.0.as_str(), found.1)).filter(|(_, value)| !value.is_null())
}

fn row(record: &Map<String, Json>, line: usize) -> Result<Row, Wrong> {
    let image = match record.get(FILE_NAME) {
        Some(Json::String(name)) => {
            below_root(name).map_err(|problem| (FILE_NAME.to_owned(), problem))?
        }
        Some(other) => return Err(wrong(FILE_NAME, "a text", other)),
        None => return Err((FILE_NAME.to_owned(), "missing".to_owned())),
    };
    let side = |keys| match get(record, keys) {
        Some((key, value)) => {
            value.as_i64().map(Some).ok_or_else(|| wrong(key, "a whole number", value))
        }
        None => Ok(None),
    };
    let id = get(record, IMAGE_IDS).map(|(key, id)| value(key, id)).transpose()?.flatten();
    let (width, height) = (side(WIDTHS)?, side(HEIGHTS)?);
    let row = line as u64;
    Ok(Row { image, file: 0, row, id, width, height, label: None, objects: objects(record)? })
}

/// The objects: in the key `objects`, as lists or as a list, or lists in the record itself.
fn objects(record: &Map<String, Json>) -> Result<Option<Vec<Object>>, Wrong> {
    match record.get(OBJECTS) {
        Some(Json::Null) => Ok(None),
        Some(Json::Object(lists)) => lists_of(lists),
        Some(Json::Array(objects)) => {
            let each = |object: &Json| match object {
                Json::Object(fields) => object_of(|keys| get(fields, keys)),
                other => Err(wrong(OBJECTS, "an object", other)),
            };
            objects.iter().map(each).collect::<Result<_, _>>().map(Some)
        }
        Some(other) => Err(wrong(OBJECTS, "an object or a list", other)),
        None => lists_of(record),
    }
}

/// Objects as a list for each of their fields.
fn lists_of(record: &Map<String, Json>) -> Result<Option<Vec<Object>>, Wrong> {
    let list = |keys: &[&str]| match get(record, keys) {
        Some((key, Json::Array(list))) => Ok(Some((key, list))),
        Some((key, other)) => Err(wrong(key, "a list", other)),
        None => Ok(None),
    };
    let Some((_, boxes)) = list(BOXES)? else { return Ok(None) };
    let is_list = |keys: &&[&str]| matches!(get(record, keys), Some((_, Json::Array(_))));
    // Beside the lists, the image has an id of its own.
    let fields = [CATEGORIES, OBJECT_IDS, AREAS, CROWDS];
    for keys in fields.iter().filter(|keys| is_list(keys)) {
        if let Some((key, list)) = list(keys)?
            && list.len() != boxes.len()
        {
            let problem = format!("{} values for {} boxes", list.len(), boxes.len());
            return Err((key.to_owned(), problem));
        }
    }
    let each = |i: usize| {
        object_of(|keys| match get(record, keys) {
            Some((key, Json::Array(list))) => {
                list.get(i).filter(|value| !value.is_null()).map(|value| (key, value))
            }
            _ => None,
        })
    };
    (0..boxes.len()).map(each).collect::<Result<_, _>>().map(Some)
}

/// An object whose fields are found by their keys.
fn object_of<'a>(of: impl Fn(&[&str]) -> Option<(&'a str, &'a Json)>) -> Result<Object, Wrong> {
    let bbox = match of(BOXES) {
        Some((key, value)) => {
            let numbers = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let numbers: Option<Vec<f64>> = numbers.iter().map(Json::as_f64).collect();
            let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
            numbers.ok_or_else(|| wrong(key, "four numbers", value))?
        }
        None => return Err((BOXES[0].to_owned(), "missing".to_owned())),
    };
    let written = |keys| of(keys).map(|(key, written)| value(key, written)).transpose();
    let area =
        of(AREAS).map(|(key, area)| area.as_f64().ok_or_else(|| wrong(key, "a number", area)));
    let crowd = of(CROWDS).map(|(key, crowd)| match (crowd.as_bool(), crowd.as_i64()) {
        (Some(crowd), _) => Ok(crowd),
        (_, Some(crowd @ (0 | 1))) => Ok(crowd == 1),
        _ => Err(wrong(key, "true, false, 0 or 1", crowd)),
    });
    let category = written(CATEGORIES)?.flatten();
    Ok(Object {
        bbox,
        category: category.filter(|category| *category != Value::Integer(-1)),
        id: written(OBJECT_IDS)?.flatten(),
        area: area.transpose()?,
        crowd: crowd.transpose()?,
    })
}

/// An id or a class.
fn value(key: &str, value: &Json) -> Result<Option<Value>, Wrong> {
    match value {
        Json::Null => Ok(None),
        Json::String(text) => Ok(Some(Value::Text(text.clone()))),
        other => match other.as_i64() {
            Some(number) => Ok(Some(Value::Integer(number))),
            None => Err(wrong(key, "a whole number or a text", other)),
        },
    }
}
