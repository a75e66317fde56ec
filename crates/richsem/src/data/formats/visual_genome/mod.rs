//! Visual Genome: `image_data.json` and `objects.json`, of all versions. Objects have names in the words of
//! many people: [`vocabulary`] makes classes of them.

mod parts;
mod records;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use super::{Format, Request, below_root, images_at, sizes::retain_images};
use crate::{
    boxes::Xywh,
    data::{
        reading::Watch,
        records::{Annotation, AnnotationFormat, ImageRecord, Records},
    },
    error::{Error, Result},
    json::{self, JsonStream, TopLevel, parse},
    plural::{clause, counted},
    vocabulary::ClassIndex,
};
use parts::parts;
use records::{RawImage, RawObjects};
use vocabulary::{Chosen, Names, Vocabulary};

pub(super) const FORMAT: Format = Format {
    name: "visual_genome",
    title: "Visual Genome",
    recognise: parts::recognise,
    splits: parts::splits,
    read,
};

/// The file of images beside the objects.
const IMAGE_DATA: &str = "image_data.json";

/// There are no verified classes, so the LVIS protocol would have nothing to count mistakes by.
const NOT_EXHAUSTIVE: &str = "Visual Genome does not show all objects; as in work on it, what is not shown counts \
                              as absent, in training and in evaluation";

/// Bytes read at a time.
const CHUNK: usize = 4 << 20;

const TOP_LEVEL: TopLevel = TopLevel {
    bracket: b'[',
    expected: "a list, as in Visual Genome's files",
    other: "this is not Visual Genome's; files of images, annotations and categories are read as COCO",
};

fn read(request: &Request<'_>) -> Result<Records> {
    let part = parts(request.path)?.into_iter().find(|part| part.name == request.split);
    let part = part.ok_or_else(|| {
        Error::invalid(request.path, "split", format!("there is no part `{}`", request.split))
    })?;
    let folder = part.objects.parent().unwrap_or(Path::new("")).to_owned();
    let (images, at) = read_images(&folder.join(IMAGE_DATA), request.watch)?;
    let mut reader = Reader::new(&part.objects, &at, images.len());
    stream(&part.objects, request.watch, |i, raw| reader.add(i, raw))?;
    let vocabulary = Vocabulary::find(request.vocabulary, &folder)?;
    let chosen = vocabulary.choose(&reader.names, &part.objects)?;
    let kept = part.kept(&images, &at)?;
    let mut records = reader.finish(images, chosen);
    retain_images(&mut records, &kept);
    let near = ["", "images", "images.tar", ".."].map(|name| folder.join(name)).to_vec();
    let there: Vec<PathBuf> = near.into_iter().filter(|path| path.exists()).collect();
    images_at::find(there, request, &mut records)?;
    Ok(records)
}

fn stream<T: for<'a> json::JsonRecord<'a> + Send>(
    file: &Path,
    watch: Watch<'_>,
    mut each: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let (bytes, counter) = json::open_counted(file)?;
    let mut stream = JsonStream::new(file, bytes, CHUNK);
    stream.open(&TOP_LEVEL)?;
    stream.records("", |batch| {
        crate::data::reading::tell(&counter, watch)?;
        parse(file, batch, &mut each)
    })?;
    stream.end()
}

/// The images, and their positions by their ids.
fn read_images(file: &Path, watch: Watch<'_>) -> Result<(Vec<ImageRecord>, HashMap<i64, u32>)> {
    if !file.exists() {
        let problem = "missing: it lists the images, and must lie beside the objects";
        return Err(Error::invalid(file, "images", problem)
            .with_hint("get image_data.json of the same version from Visual Genome's site"));
    }
    let (mut images, mut at): (Vec<ImageRecord>, HashMap<i64, u32>) = Default::default();
    stream(file, watch, |index, raw: RawImage| {
        let wrong = |field: &str, problem: String| {
            Error::invalid(file, format!("[{index}].{field}"), problem)
        };
        let id = raw.id(|| wrong("image_id", "missing; expected an integer".to_owned()))?;
        // `https://…/VG_100K_2/1.jpg`: the folder and the file.
        let cut =
            raw.url.rmatch_indices('/').nth(1).map_or(&*raw.url, |(at, _)| &raw.url[at + 1..]);
        let file_name = below_root(cut).map_err(|problem| {
            wrong("url", problem).with_hint("expected an address that ends in FOLDER/IMAGE.jpg")
        })?;
        if let Some(earlier) = at.insert(id, index as u32) {
            return Err(wrong("image_id", format!("{id} is already the id of [{earlier}]"))
                .with_hint("keep one of the two records"));
        }
        let side = |value: Option<json::Integer>| value.and_then(|v| u32::try_from(v.0).ok());
        let size = side(raw.height).zip(side(raw.width)).filter(|(h, w)| *h > 0 && *w > 0);
        images.push(ImageRecord {
            id,
            file_name,
            size: size.map(|(height, width)| [height, width]),
            ..ImageRecord::default()
        });
        Ok(())
    })?;
    if images.is_empty() {
        return Err(Error::invalid(file, "top level", "the list is empty")
            .with_hint("get the file again from Visual Genome's site"));
    }
    Ok((images, at))
}

/// An object before its class is known.
struct Object {
    id: i64,
    image: u32,
    /// Position in [`Names`].
    name: u32,
    bbox: [f64; 4],
}

/// Takes the records of an objects file one after the other.
struct Reader<'a> {
    file: &'a Path,
    at: &'a HashMap<i64, u32>,
    seen: Vec<bool>,
    ids: HashSet<i64>,
    names: Names,
    objects: Vec<Object>,
    counts: Counts,
}

/// What was passed over.
#[derive(Default)]
struct Counts {
    unknown_images: usize,
    nameless: usize,
    negative: usize,
    merged: usize,
    renumbered: bool,
    first_unknown: i64,
}

impl Counts {
    fn notes(&self) -> Vec<String> {
        let all = [
            ("objects without a name, left out", self.nameless),
            ("objects that Visual Genome merged from several (merged_object_ids)", self.merged),
        ];
        let told = all.into_iter().filter(|(_, count)| *count > 0);
        let mut notes: Vec<String> = told.map(|(what, count)| format!("{what}: {count}")).collect();
        if self.renumbered {
            notes.push("the objects' ids are missing or used twice: numbered anew".to_owned());
        }
        notes
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.negative > 0 {
            warnings.push(format!(
                "{} a negative width or height: left out",
                clause(self.negative, "object", ["has", "have"])
            ));
        }
        if self.unknown_images > 0 {
            warnings.push(format!(
                "the objects of {} are left out, because {IMAGE_DATA} does not have them (the first: {}): are \
                 the files of two versions?",
                counted(self.unknown_images, "image"),
                self.first_unknown
            ));
        }
        warnings
    }
}

impl<'a> Reader<'a> {
    fn new(file: &'a Path, at: &'a HashMap<i64, u32>, images: usize) -> Self {
        Self {
            file,
            at,
            seen: vec![false; images],
            ids: HashSet::new(),
            names: Names::default(),
            objects: Vec::new(),
            counts: Counts::default(),
        }
    }

    fn add(&mut self, index: usize, raw: RawObjects) -> Result<()> {
        let wrong = |field: &str, problem: &str| {
            Error::invalid(self.file, format!("[{index}].{field}"), problem)
        };
        let id = raw.id(|| wrong("image_id", "missing; expected an integer"))?;
        let Some(&image) = self.at.get(&id) else {
            if self.counts.unknown_images == 0 {
                self.counts.first_unknown = id;
            }
            self.counts.unknown_images += 1;
            return Ok(());
        };
        if std::mem::replace(&mut self.seen[image as usize], true) {
            return Err(wrong("image_id", &format!("the image {id} has another record before"))
                .with_hint("join the two records of the image"));
        }
        for object in raw.objects {
            let Some(name) = object.names.first().filter(|name| !name.trim().is_empty()) else {
                self.counts.nameless += 1;
                continue;
            };
            if object.w < 0.0 || object.h < 0.0 {
                self.counts.negative += 1;
                continue;
            }
            self.counts.merged +=
                usize::from(object.merged_object_ids.is_some_and(|m| !m.is_empty()));
            let id = object.object_id.or(object.id).map(|id| id.0);
            self.counts.renumbered |= id.is_none_or(|id| !self.ids.insert(id));
            self.objects.push(Object {
                id: id.unwrap_or_default(),
                image,
                name: self.names.add(name, object.names.len() > 1),
                bbox: [object.x, object.y, object.w, object.h],
            });
        }
        Ok(())
    }

    /// The objects that have a class.
    fn finish(self, images: Vec<ImageRecord>, chosen: Chosen) -> Records {
        let class_of = |object: &Object| chosen.class_of[object.name as usize];
        let classed = self.objects.iter().filter_map(|object| Some((object, class_of(object)?)));
        let mut annotations: Vec<Annotation> = classed
            .map(|(object, class)| Annotation {
                id: object.id,
                image: object.image,
                class: ClassIndex(class),
                bbox: Xywh(object.bbox),
                area: object.bbox[2] * object.bbox[3],
                crowd: false,
                ignore: false,
            })
            .collect();
        if self.counts.renumbered {
            for (annotation, id) in annotations.iter_mut().zip(1..) {
                annotation.id = id;
            }
        }
        let mut notes = chosen.notes;
        notes.extend(self.counts.notes());
        notes.push(NOT_EXHAUSTIVE.to_owned());
        Records {
            images,
            annotations,
            classes: chosen.classes,
            numbered: true,
            verified: AnnotationFormat::Coco,
            notes,
            warnings: self.counts.warnings(),
            ..Records::default()
        }
    }
}
