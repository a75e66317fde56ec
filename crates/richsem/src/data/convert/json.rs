//! COCO's and LVIS's JSON.

use std::{
    io::{self, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use super::NotCarried;
use crate::{
    boxes::Xywh,
    data::{
        dataset::Dataset,
        formats::{Rest, Written},
        records::{Annotation, AnnotationFormat, ClassRecord, ImageRecord},
    },
    error::{Error, Result, unless_stopped, write_atomically},
    vocabulary::{ClassIndex, Frequency},
};

/// Which of the two.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Coco,
    /// With the set that classes are counted in where no file gives the counts. It has the same classes.
    Lvis(&'a Dataset),
}

impl Kind<'_> {
    fn is_lvis(self) -> bool {
        matches!(self, Self::Lvis(_))
    }
}

/// Writes a set as one file, with what the file that it was read from has `more`. What is written reads back as it
/// was, to the last digit.
pub(super) fn write(
    set: &Dataset,
    kind: Kind<'_>,
    more: &More<'_>,
    path: &Path,
    stop: &AtomicBool,
) -> Result<()> {
    write_atomically(path, |out| {
        serde_json::to_writer(Stopping { out, stop }, &File { set, kind, more }).map_err(|e| {
            if stop.load(Ordering::Relaxed) { Error::Stopped } else { io::Error::from(e).into() }
        })
    })?;
    unless_stopped(stop)
}

/// Fails once it is to stop: a large file takes long to write.
struct Stopping<'a> {
    out: &'a mut dyn Write,
    stop: &'a AtomicBool,
}

impl Write for Stopping<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped"));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What is counted of classes that are verified present in an image without a box of them.
const SEEN: &str = "images with classes that are seen and have no box";

/// Tells what the file of a part does not say.
pub(super) fn tell_lost(part: &str, set: &Dataset, kind: Kind<'_>, lost: &mut NotCarried) {
    let images = |holds: &dyn Fn(&ImageRecord) -> bool| {
        set.images().iter().filter(|image| holds(image)).count()
    };
    let all = 0..set.images().len();
    let seen = all.clone().filter(|&image| set.seen_without_box(image).next().is_some()).count();
    if kind.is_lvis() {
        lost.add(
            part,
            "crowd regions",
            set.annotations().iter().filter(|a| a.crowd).count(),
            "written with iscrowd, which this program obeys and LVIS's own tools do not know: to these they \
             are boxes",
        );
    } else if set.format() == AnnotationFormat::Lvis {
        lost.add(
            part,
            "images with lists of classes verified absent",
            images(&|image| !image.neg_classes.is_empty()),
            "COCO takes every class that an image does not show as absent",
        );
        lost.add(
            part,
            "images with lists of classes not exhaustively annotated",
            images(&|image| !image.not_exhaustive_classes.is_empty()),
            "COCO takes every box as annotated",
        );
        lost.add(part, SEEN, seen, "COCO takes what has no box as absent");
        lost.add(
            part,
            "boxes marked `ignore`",
            set.annotations().iter().filter(|a| a.ignore).count(),
            "written with ignore, which this program obeys and COCO's own tools overwrite",
        );
    }
    if kind.is_lvis() {
        lost.add(part, SEEN, seen, "written in not_exhaustive_category_ids");
        let contradictory = |image: &usize| {
            let absent = &set.images()[*image].neg_classes;
            set.seen_without_box(*image).any(|class| absent.contains(&class))
        };
        lost.add(
            part,
            "images with a class that labels call seen and absent, and that has no box",
            all.filter(contradictory).count(),
            "written in not_exhaustive_category_ids alone",
        );
    }
    let says_nothing = |image: &ImageRecord| {
        [&image.neg_classes, &image.not_exhaustive_classes, &image.present_classes]
            .iter()
            .all(|list| list.is_empty())
    };
    let silent = images(&says_nothing);
    if set.format() == AnnotationFormat::Lvis && silent == set.images().len() {
        lost.add(
            part,
            "images that say nothing of classes without a box",
            silent,
            if kind.is_lvis() {
                "lists that are empty in every image are read as if every class were annotated in every image"
            } else {
                "COCO takes every class that an image does not show as absent"
            },
        );
    }
    let related = |class: &u32| set.relations().is_some_and(|r| !r.ancestors(*class).is_empty());
    lost.add(
        part,
        "classes that are kinds of other classes",
        (0..set.vocabulary().len() as u32).filter(related).count(),
        "written without the hierarchy: a box is one of its own class alone",
    );
}

struct File<'a> {
    set: &'a Dataset,
    kind: Kind<'a>,
    more: &'a More<'a>,
}

/// What is written as the file has it that the set was read from.
#[derive(Default)]
pub(super) struct More<'a> {
    /// Of images, annotations and the file.
    pub(super) of: Option<&'a Rest>,
    /// Of the classes, in their order; none if nothing is.
    pub(super) classes: Vec<Written>,
}

/// What is written more of a record.
fn read<E: serde::ser::Error>(written: Option<Result<Written>>) -> Result<Written, E> {
    written.transpose().map(Option::unwrap_or_default).map_err(E::custom)
}

impl Serialize for File<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut file = serializer.serialize_map(None)?;
        file.serialize_entry("images", &Images(self))?;
        file.serialize_entry("annotations", &Annotations(self))?;
        file.serialize_entry("categories", &Categories(self))?;
        // Behind what a file is recognised by.
        for (key, value) in self.more.of.iter().flat_map(|rest| &rest.top.0) {
            file.serialize_entry(key, value)?;
        }
        file.end()
    }
}

/// The id of an image or an annotation, as the set has it.
#[derive(Serialize)]
#[serde(untagged)]
enum WrittenId<'a> {
    Number(i64),
    Text(&'a str),
}

impl<'a> WrittenId<'a> {
    fn of_image(set: &'a Dataset, image: usize) -> Self {
        set.text_id(image).map_or(Self::Number(set.images()[image].id), Self::Text)
    }

    fn of_annotation(set: &'a Dataset, annotation: &Annotation) -> Self {
        set.annotation_text_id(annotation).map_or(Self::Number(annotation.id), Self::Text)
    }
}

#[derive(Serialize)]
struct ImageJson<'a> {
    id: WrittenId<'a>,
    file_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    neg_category_ids: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_exhaustive_category_ids: Option<Vec<i64>>,
    #[serde(flatten)]
    more: Written,
}

struct Images<'a>(&'a File<'a>);

impl Serialize for Images<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let File { set, kind, more } = self.0;
        let ids = |classes: &[ClassIndex]| {
            classes.iter().map(|class| set.vocabulary().category(*class).id.0).collect()
        };
        let mut images = serializer.serialize_seq(Some(set.images().len()))?;
        for (at, image) in set.images().iter().enumerate() {
            images.serialize_element(&ImageJson {
                id: WrittenId::of_image(set, at),
                file_name: &image.file_name,
                width: image.size.map(|[_, width]| width),
                height: image.size.map(|[height, _]| height),
                neg_category_ids: kind.is_lvis().then(|| ids(&absent(set, at))),
                not_exhaustive_category_ids: kind.is_lvis().then(|| ids(&not_exhaustive(set, at))),
                more: read(more.of.map(|rest| rest.of_image(image.id)))?,
            })?;
        }
        images.end()
    }
}

/// The classes that are verified absent in an image: its list, or, where every image shows all that it has
/// of these, all that have no box in it. A file whose lists are all empty is read as one of the second kind; its
/// lists stay as they are.
fn absent(set: &Dataset, image: usize) -> Vec<ClassIndex> {
    match set.format() {
        AnnotationFormat::Coco if !set.report().lists => {
            let known = set.knowledge(image);
            let shown = |class: &ClassIndex| known.present.binary_search(class).is_ok();
            known.exhaustive.iter().copied().filter(|class| !shown(class)).collect()
        }
        // Of labels that contradict each other the reader takes a class for unknown.
        AnnotationFormat::Coco | AnnotationFormat::Lvis => {
            let seen: Vec<ClassIndex> = set.seen_without_box(image).collect();
            let listed = set.images()[image].neg_classes.iter().copied();
            listed.filter(|class| !seen.contains(class)).collect()
        }
    }
}

/// The classes whose boxes in an image are not all known: listed so, or seen without a box.
fn not_exhaustive(set: &Dataset, image: usize) -> Vec<ClassIndex> {
    let listed = &set.images()[image].not_exhaustive_classes;
    let seen = set.seen_without_box(image).filter(|class| !listed.contains(class));
    listed.iter().copied().chain(seen).collect()
}

fn is_false(flag: &u8) -> bool {
    *flag == 0
}

#[derive(Serialize)]
struct AnnotationJson<'a> {
    id: WrittenId<'a>,
    image_id: WrittenId<'a>,
    category_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bbox: Option<Xywh>,
    area: f64,
    iscrowd: u8,
    #[serde(skip_serializing_if = "is_false")]
    ignore: u8,
    #[serde(flatten)]
    more: Written,
}

struct Annotations<'a>(&'a File<'a>);

impl Serialize for Annotations<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let File { set, more, .. } = self.0;
        let mut annotations = serializer.serialize_seq(Some(set.annotations().len()))?;
        for a in set.annotations() {
            let more = read(more.of.map(|rest| rest.of_annotation(a.id)))?;
            annotations.serialize_element(&AnnotationJson {
                id: WrittenId::of_annotation(set, a),
                image_id: WrittenId::of_image(set, a.image as usize),
                category_id: set.vocabulary().category(a.class).id.0,
                // Where the angle beside it turns it, it is written as it was.
                bbox: (!more.has("bbox")).then_some(a.bbox),
                area: a.area,
                iscrowd: u8::from(a.crowd),
                ignore: u8::from(a.ignore),
                more,
            })?;
        }
        annotations.end()
    }
}

#[derive(Serialize)]
struct CategoryJson<'a> {
    id: i64,
    name: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    synonyms: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    freebase_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supercategory: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency: Option<Frequency>,
    #[serde(skip_serializing_if = "Option::is_none")]
    synset: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wnid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lvis_clip_row: Option<u32>,
    #[serde(flatten)]
    more: Written,
}

impl<'a> CategoryJson<'a> {
    /// What the file gives; with `counted`, counts where it gives none.
    fn new(class: &'a ClassRecord, counted: Option<(u32, u32)>, more: Written) -> Self {
        let image_count = class.image_count.or(counted.map(|(images, _)| images));
        let frequency = counted.and(image_count).map(Frequency::of);
        Self {
            id: class.id,
            name: &class.name,
            synonyms: if more.has("synonyms") { &[] } else { &class.synonyms },
            freebase_id: class.key.as_deref(),
            supercategory: class.supercategory.as_deref().filter(|_| !more.has("supercategory")),
            image_count,
            instance_count: class.instance_count.or(counted.map(|(_, boxes)| boxes)),
            frequency: class.frequency.or(frequency),
            synset: class.synset.as_deref(),
            wnid: class.wnid.as_deref(),
            lvis_clip_row: class.text_row,
            more,
        }
    }
}

struct Categories<'a>(&'a File<'a>);

impl Serialize for Categories<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let File { set, kind, more } = self.0;
        let counted = match kind {
            Kind::Coco => Vec::new(),
            Kind::Lvis(counts) => counts.written_counts(),
        };
        let classes = set.class_records().iter().enumerate();
        serializer.collect_seq(classes.map(|(at, class)| {
            let more = more.classes.get(at).cloned().unwrap_or_default();
            CategoryJson::new(class, counted.get(at).copied(), more)
        }))
    }
}
