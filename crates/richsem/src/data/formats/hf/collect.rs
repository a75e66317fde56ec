//! From rows with objects to records: classes, ids, and boxes of whatever form.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use super::{
    super::Request,
    boxes::{Seen, decide},
};
use crate::{
    boxes::Xywh,
    data::{
        image_store::parquet::{Object, Row, Value},
        reading::open_store,
        records::{Annotation, ClassRecord, ImageRecord, Records, Unit},
    },
    error::{Error, Result},
    plural::clause,
    vocabulary::ClassIndex,
};

/// Images whose headers are read to know what their boxes are, where no size is written.
const LOOKED_AT: usize = 200;

/// Where a row is: its file, and what messages call it.
pub(super) type At = (PathBuf, String);

/// A box with its numbers as they are written.
struct Raw {
    image: u32,
    bbox: [f64; 4],
    /// Position among the classes in the order of their first sight, or of their names.
    class: u32,
    id: Option<i64>,
    area: Option<f64>,
    crowd: bool,
}

/// Classes as they are met.
enum Classes {
    /// The file names them: numbers count in this list.
    Named(Vec<String>),
    /// As they are written, with the order of their first sight.
    Met(BTreeMap<Value, u32>),
}

impl Classes {
    /// The number of a class, or what is wrong with it.
    fn number(&mut self, value: Value) -> Result<u32, String> {
        match self {
            Self::Met(met) => {
                let next = met.len() as u32;
                Ok(*met.entry(value).or_insert(next))
            }
            Self::Named(names) => {
                let place = match &value {
                    Value::Integer(number) => usize::try_from(*number).ok(),
                    Value::Text(text) => names.iter().position(|name| name == text),
                };
                let place = place.filter(|place| *place < names.len());
                place.map(|place| place as u32).ok_or_else(|| match value {
                    Value::Integer(number) => format!(
                        "class {number} is none of the {} that the file names, from 0 on",
                        names.len()
                    ),
                    Value::Text(text) => format!("class `{text}` is none that the file names"),
                })
            }
        }
    }

    /// The classes, and the place of each number among them.
    fn finish(self, notes: &mut Vec<String>) -> (Vec<ClassRecord>, Vec<u32>) {
        let met = match self {
            Self::Named(names) => {
                let places = (0..names.len() as u32).collect();
                let named = |(id, name)| ClassRecord::named(id, name);
                return ((0..).zip(names).map(named).collect(), places);
            }
            Self::Met(met) => met,
        };
        let mut places = vec![0; met.len()];
        for (place, &number) in (0..).zip(met.values()) {
            places[number as usize] = place;
        }
        let unnamed = met.keys().any(|value| matches!(value, Value::Integer(_)));
        let all_numbers = met.keys().all(|value| matches!(value, Value::Integer(_)));
        if unnamed {
            notes.push(
                "the file does not name its classes: they are called `class_0` and so on, by their numbers"
                    .to_owned(),
            );
        }
        let record = |(next, value): (i64, Value)| match value {
            Value::Integer(number) => {
                let id = if all_numbers { number } else { next };
                ClassRecord::named(id, format!("class_{number}"))
            }
            Value::Text(name) => ClassRecord::named(next, name),
        };
        ((1..).zip(met.into_keys()).map(record).collect(), places)
    }
}

/// Takes the rows of one part of a set.
pub(super) struct Collector {
    images: Vec<ImageRecord>,
    /// The images' ids as they are written.
    ids: Vec<Option<Value>>,
    boxes: Vec<Raw>,
    classes: Classes,
    /// Boxes without a class.
    unlabelled: usize,
    /// Images whose objects are null.
    unseen: usize,
}

impl Collector {
    /// `classes` are those that the file names, if it does.
    pub(super) fn new(classes: Option<&[String]>) -> Self {
        let classes = classes.map(<[String]>::to_vec);
        Self {
            images: Vec::new(),
            ids: Vec::new(),
            boxes: Vec::new(),
            classes: classes.map_or_else(|| Classes::Met(BTreeMap::new()), Classes::Named),
            unlabelled: 0,
            unseen: 0,
        }
    }

    /// Whether other parts must be asked for their classes, so that all parts have the same.
    pub(super) fn asks_others(&self) -> bool {
        matches!(self.classes, Classes::Met(_))
    }

    /// Takes the classes of a row of another part.
    pub(super) fn other(&mut self, row: Row) {
        if let Classes::Met(_) = self.classes {
            let values = row.objects.into_iter().flatten().filter_map(|object| object.category);
            for value in values {
                // Of what is met, nothing is refused.
                let _ = self.classes.number(value);
            }
        }
    }

    /// Takes a row. Without `annotated` a row without objects is an image, too.
    pub(super) fn row(&mut self, row: Row, annotated: bool, at: impl Fn() -> At) -> Result<()> {
        let objects = match row.objects {
            Some(objects) => objects,
            None if annotated => {
                self.unseen += 1;
                return Ok(());
            }
            None => Vec::new(),
        };
        let image = self.images.len() as u32;
        let side = |side: Option<i64>| side.and_then(|side| u32::try_from(side).ok());
        let size = match (side(row.height), side(row.width)) {
            (Some(height), Some(width)) if height > 0 && width > 0 => Some([height, width]),
            _ => None,
        };
        self.images.push(ImageRecord { file_name: row.image, size, ..ImageRecord::default() });
        self.ids.push(row.id);
        for object in objects {
            self.object(image, object).map_err(|problem| {
                let (file, place) = at();
                Error::invalid(&file, place, problem)
            })?;
        }
        Ok(())
    }

    fn object(&mut self, image: u32, object: Object) -> Result<(), String> {
        let Some(category) = object.category else {
            self.unlabelled += 1;
            return Ok(());
        };
        let class = self.classes.number(category)?;
        let id = match object.id {
            Some(Value::Integer(id)) => Some(id),
            _ => None,
        };
        let crowd = object.crowd.unwrap_or(false);
        self.boxes.push(Raw { image, bbox: object.bbox, class, id, area: object.area, crowd });
        Ok(())
    }

    /// The records. `path` is what messages name, `images_at` where the images are.
    pub(super) fn finish(
        mut self,
        request: &Request<'_>,
        path: &Path,
        images_at: PathBuf,
    ) -> Result<Records> {
        if request.annotated && self.boxes.is_empty() && self.unseen + self.unlabelled > 0 {
            let problem = format!(
                "no box with a class: {} no objects (null), {} no class (null, or -1)",
                clause(self.unseen, "image", ["has", "have"]),
                clause(self.unlabelled, "box", ["has", "have"])
            );
            return Err(Error::invalid(path, "objects", problem)
                .with_hint("is this the part for testing, whose annotations are not published?"));
        }
        let numbered = matches!(self.classes, Classes::Met(_));
        let mut records = Records { images_at: Some(images_at), numbered, ..Records::default() };
        let form = match request.boxes {
            Some(form) => Ok((form, None)),
            None => self.decide(records.images_at.as_deref(), request),
        };
        let form = match form {
            Ok((form, note)) => {
                records.notes.extend(note);
                Some(form)
            }
            Err((problem, hint)) if request.annotated => {
                return Err(Error::invalid(path, "boxes", problem).with_hint(hint));
            }
            Err((problem, _)) => {
                records.notes.push(format!("boxes are left out: {problem}"));
                self.boxes.clear();
                None
            }
        };
        for (count, what) in [
            (self.unseen, "images whose objects are null, left out: nobody looked at them"),
            (self.unlabelled, "boxes without a class (null, or -1), left out"),
        ] {
            if count > 0 {
                records.notes.push(format!("{what}: {count}"));
            }
        }
        let (classes, places) = self.classes.finish(&mut records.notes);
        records.classes = classes;
        number_images(&mut self.images, self.ids, &mut records);
        records.images = self.images;
        if let Some(form) = form {
            records.unit = form.unit();
            take_boxes(self.boxes, &places, |bbox| form.xywh(bbox), &mut records);
        }
        Ok(records)
    }

    /// What the boxes are, by themselves and the sizes of their images.
    fn decide(
        &self,
        images_at: Option<&Path>,
        request: &Request<'_>,
    ) -> Result<(super::BoxForm, Option<String>), (String, String)> {
        let mut sizes: Vec<Option<[u32; 2]>> = self.images.iter().map(|image| image.size).collect();
        let mut unknown: Vec<u32> = self.boxes.iter().map(|raw| raw.image).collect();
        unknown.dedup();
        unknown.retain(|&image| sizes[image as usize].is_none());
        let every = unknown.len().div_ceil(LOOKED_AT).max(1);
        let looked_at: Vec<u32> = unknown.into_iter().step_by(every).collect();
        // What keeps images from being read is told where they are read.
        if !looked_at.is_empty()
            && let Some(place) = images_at
            && let Ok(store) = open_store(place, request.orientation, request.watch)
        {
            let name = |&image: &u32| self.images[image as usize].file_name.as_str();
            let names: Vec<&str> = looked_at.iter().map(name).collect();
            for (&image, size) in looked_at.iter().zip(store.sizes(&names)) {
                sizes[image as usize] = size.and_then(Result::ok);
            }
        }
        decide(self.boxes.iter().map(|raw| Seen {
            bbox: raw.bbox,
            size: sizes[raw.image as usize],
            area: raw.area,
        }))
    }
}

/// Gives the images their ids: those that are written, if they are numbers and all different; else the
/// images are numbered from 1, and what is written is kept, if all have something different.
fn number_images(images: &mut [ImageRecord], ids: Vec<Option<Value>>, records: &mut Records) {
    for (id, image) in (1..).zip(images.iter_mut()) {
        image.id = id;
    }
    let written: Vec<&Value> = ids.iter().flatten().collect();
    if written.is_empty() {
        return;
    }
    let different: HashSet<&Value> = written.iter().copied().collect();
    if different.len() != images.len() {
        let problem = if written.len() < images.len() { "missing" } else { "used twice" };
        records
            .notes
            .push(format!("ids of images are {problem}: the images are numbered from 1 instead"));
        return;
    }
    let numbers: Option<Vec<i64>> = written
        .iter()
        .map(|id| match id {
            Value::Integer(id) => Some(*id),
            Value::Text(_) => None,
        })
        .collect();
    match numbers {
        Some(numbers) => {
            images.iter_mut().zip(numbers).for_each(|(image, id)| image.id = id);
        }
        None => {
            let text = |id: &&Value| match id {
                Value::Integer(id) => id.to_string(),
                Value::Text(id) => id.clone(),
            };
            records.image_ids = Some(written.iter().map(text).collect());
        }
    }
}

/// Makes annotations of boxes. Those that are no boxes are left out and counted.
fn take_boxes(
    boxes: Vec<Raw>,
    places: &[u32],
    xywh: impl Fn([f64; 4]) -> [f64; 4],
    records: &mut Records,
) {
    let ids: Vec<i64> = boxes.iter().filter_map(|raw| raw.id).collect();
    let different: HashSet<i64> = ids.iter().copied().collect();
    let numbered = different.len() != boxes.len();
    if numbered && !ids.is_empty() {
        let note = "ids of boxes are missing or used twice: they are numbered from 1 instead";
        records.notes.push(note.to_owned());
    }
    let (mut no_boxes, shares) = (0, records.unit == Unit::Shares);
    for (next, raw) in (1..).zip(boxes) {
        let [x, y, width, height] = xywh(raw.bbox);
        let whole = [x, y, width, height].iter().all(|number| number.is_finite());
        if !whole || width < 0.0 || height < 0.0 {
            no_boxes += 1;
            continue;
        }
        // In which unit an area beside shares is, nobody knows.
        let area = raw.area.filter(|area| !shares && area.is_finite());
        records.counts.computed_area += usize::from(area.is_none());
        records.annotations.push(Annotation {
            id: raw.id.filter(|_| !numbered).unwrap_or(next),
            image: raw.image,
            class: ClassIndex(places[raw.class as usize]),
            bbox: Xywh([x, y, width, height]),
            area: area.unwrap_or(width * height),
            crowd: raw.crowd,
            ignore: false,
        });
    }
    if no_boxes > 0 {
        records.warnings.push(format!(
            "left out: {} a negative size, or a number that is none",
            clause(no_boxes, "box", ["has", "have"])
        ));
    }
}
