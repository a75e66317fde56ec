//! COCO's JSON and LVIS's, which is COCO's with verified-absent classes (arXiv 1908.03195), as files and as
//! folders of them.
//!
//! The lists come in any order (LVIS v0.5 has `annotations` before `images`): ids are resolved at
//! the end. Until then `Annotation::image` and every `ClassIndex` hold a *slot*, the order in
//! which an id was first seen; that way nothing is kept twice.

mod folder;
mod ids;
mod records;

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use super::{Format, Place, ReadCounts, Records, Request, place::root_of};
use crate::{
    argument::Argument,
    boxes::Xywh,
    data::dataset::{Annotation, AnnotationFormat, ImageRecord},
    error::{Error, Result},
    json::{self, Integer, JsonStream, TopLevel, parse},
    vocabulary::ClassIndex,
};
use ids::{Ids, known_ids};
use records::{RawAnnotation, RawCategory, RawImage};

pub(super) const FORMAT: Format = Format {
    name: "coco",
    title: "COCO or LVIS JSON",
    recognise: folder::recognise,
    splits: folder::splits,
    read: |request| {
        let (file, near) = folder::file_of(request)?;
        let mut records = read(&file, json::open(&file)?, CHUNK, request.annotated)?;
        let names = records.images.iter().map(|image| image.file_name.as_str());
        records.images_at = root_of(near, names);
        Ok(records)
    },
};

/// Bytes read at a time: thousands of records, so that parsing them in parallel pays, and small
/// beside what is kept.
const CHUNK: usize = 4 << 20;

const TOP_LEVEL: TopLevel = TopLevel {
    bracket: b'{',
    expected: "an object with `images`, `annotations` and `categories`",
    other: "this looks like a detections file, as `predict` writes: give the annotation file",
};

/// Reads a file front to back, `chunk` bytes at a time. It must have annotations if it is `annotated`.
pub(in crate::data) fn read(
    file: &Path,
    reader: impl Read,
    chunk: usize,
    annotated: bool,
) -> Result<Records> {
    let mut builder = Builder::new(file);
    let mut stream = JsonStream::new(file, reader, chunk);
    let mut found = [false, !annotated, false];
    stream.open(&TOP_LEVEL)?;
    while let Some(key) = stream.next_key()? {
        match key.as_str() {
            "images" => {
                found[0] = true;
                stream.records(&key, |batch| {
                    parse(file, batch, |i, raw| builder.add_image(i, raw))
                })?;
            }
            "annotations" => {
                found[1] = true;
                stream.records(&key, |batch| {
                    parse(file, batch, |i, raw| builder.add_annotation(i, raw))
                })?;
            }
            "categories" => {
                found[2] = true;
                stream.records(&key, |batch| {
                    parse(file, batch, |i, raw| builder.add_category(i, raw))
                })?;
            }
            _ => stream.skip_value(&key)?,
        }
    }
    let without_boxes = format!(
        "a file with images but no boxes (test-dev's image info) can be neither trained on nor evaluated; \
         to predict with the ids of its images, give it as {}",
        Argument::Annotations
    );
    let hints = [
        ("images", "a COCO or LVIS file lists its images under `images`"),
        ("annotations", without_boxes.as_str()),
        (
            "categories",
            "a COCO or LVIS file lists its classes under `categories`, each id and name",
        ),
    ];
    for (found, (key, hint)) in found.into_iter().zip(hints) {
        if !found {
            return Err(Error::invalid(file, key, "missing").with_hint(hint));
        }
    }
    builder.finish()
}

/// An image's path with `/` between its folders, or what is wrong with it: it must stay below the
/// image root.
pub(in crate::data) fn below_root(path: &str) -> Result<String, String> {
    let refuse = |problem: &str| Err(format!("{problem}: `{}`", path.escape_debug()));
    // Files written on Windows; also `..\` must not slip through.
    let unix = path.replace('\\', "/");
    let drive = unix.as_bytes().get(1) == Some(&b':') && unix.as_bytes()[0].is_ascii_alphabetic();
    if unix.starts_with('/') || drive {
        return refuse("expected a relative path, got an absolute one");
    }
    let parts: Vec<&str> = unix.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        return refuse("the path leaves the image root");
    }
    if parts.is_empty() || unix.ends_with('/') || unix.contains('\0') {
        return refuse("expected the path of an image");
    }
    Ok(parts.join("/"))
}

struct Builder {
    file: PathBuf,
    images: Vec<ImageRecord>,
    annotations: Vec<Annotation>,
    categories: Vec<RawCategory>,
    image_ids: Ids,
    category_ids: Ids,
    /// Some image has one of LVIS's lists.
    lists: bool,
    /// Images with an entry in one of them.
    listing: usize,
    computed_area: usize,
}

impl Builder {
    fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            images: Vec::new(),
            annotations: Vec::new(),
            categories: Vec::new(),
            image_ids: Ids::default(),
            category_ids: Ids::default(),
            lists: false,
            listing: 0,
            computed_area: 0,
        }
    }

    fn add_image(&mut self, index: usize, raw: RawImage) -> Result<()> {
        let side = |name: &str, value: Integer| {
            u32::try_from(value.0).ok().filter(|&v| v > 0).ok_or_else(|| {
                self.invalid(
                    format!("images[{index}].{name}"),
                    format!("expected a positive number of pixels, got {}", value.0),
                )
            })
        };
        let size = match (raw.width, raw.height) {
            (Some(width), Some(height)) => Some([side("height", height)?, side("width", width)?]),
            (None, None) => None,
            (given, _) => {
                let name = if given.is_some() { "height" } else { "width" };
                let problem = "missing; expected pixels, because the other side is given";
                return Err(self.invalid(format!("images[{index}].{name}"), problem));
            }
        };
        let file_name = self.file_name(index, &raw)?;
        self.image_ids.declare(raw.id.0, index).map_err(|e| {
            self.duplicate(
                "images",
                e as usize,
                index,
                raw.id.0,
                "each image needs an id of its own",
            )
        })?;
        let lists = [&raw.neg_category_ids, &raw.not_exhaustive_category_ids];
        self.lists |= lists.iter().any(|list| list.is_some());
        self.listing +=
            usize::from(lists.iter().any(|l| l.as_ref().is_some_and(|l| !l.is_empty())));
        let mut slots = |ids: Option<Vec<Integer>>| -> Vec<ClassIndex> {
            let ids = ids.unwrap_or_default();
            ids.iter().map(|id| ClassIndex(self.category_ids.slot(id.0))).collect()
        };
        let neg_classes = slots(raw.neg_category_ids);
        let not_exhaustive_classes = slots(raw.not_exhaustive_category_ids);
        self.images.push(ImageRecord {
            id: raw.id.0,
            file_name,
            size,
            present_classes: Vec::new(),
            neg_classes,
            not_exhaustive_classes,
        });
        Ok(())
    }

    /// The path of an image below the image root: see [`ImageRecord::file_name`].
    fn file_name(&self, index: usize, raw: &RawImage) -> Result<String> {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.trim().is_empty());
        let (field, path) = match (given(&raw.file_name), given(&raw.coco_url)) {
            (Some(name), _) => ("file_name", name),
            (None, Some(url)) => {
                let below_host = url.split_once("://").map_or(url.as_str(), |(_, rest)| {
                    rest.split_once('/').map_or("", |(_host, path)| path)
                });
                let path = below_host.split(['?', '#']).next().unwrap_or_default();
                ("coco_url", path.to_owned())
            }
            (None, None) => {
                let problem = "missing; expected the image's path below the image root";
                return Err(self
                    .invalid(format!("images[{index}].file_name"), problem)
                    .with_hint("COCO has `file_name`, LVIS v1 `coco_url`; one of them is needed"));
            }
        };
        // Two slashes after a URL's host do not make its path an absolute one.
        let path = if field == "coco_url" { path.trim_start_matches('/') } else { &path };
        below_root(path).map_err(|problem| {
            self.invalid(format!("images[{index}].{field}"), problem)
                .with_hint("write paths relative to the folder that is given as image root")
        })
    }

    fn add_annotation(&mut self, index: usize, raw: RawAnnotation) -> Result<()> {
        let [_, _, w, h] = raw.bbox;
        for (name, size) in [("width", w), ("height", h)] {
            if size < 0.0 {
                let problem = format!("expected a {name} of 0 or more, got {size}");
                return Err(self
                    .invalid(format!("annotations[{index}].bbox"), problem)
                    .with_hint("boxes are [x, y, width, height] in pixels, not two corners"));
            }
        }
        let area = match raw.area {
            Some(area) if area < 0.0 => {
                let problem = format!("expected 0 or more square pixels, got {area}");
                return Err(self.invalid(format!("annotations[{index}].area"), problem));
            }
            Some(area) => area,
            None => {
                self.computed_area += 1;
                w * h
            }
        };
        let place = index as u32;
        self.annotations.push(Annotation {
            id: raw.id.0,
            image: self.image_ids.mention(raw.image_id.0, place),
            class: ClassIndex(self.category_ids.mention(raw.category_id.0, place)),
            bbox: Xywh(raw.bbox),
            area,
            crowd: raw.iscrowd.is_some_and(|flag| flag.0),
            ignore: raw.ignore.is_some_and(|flag| flag.0),
        });
        Ok(())
    }

    fn add_category(&mut self, index: usize, raw: RawCategory) -> Result<()> {
        if raw.name.trim().is_empty() {
            return Err(self
                .invalid(
                    format!("categories[{index}].name"),
                    "expected a name, got an empty string",
                )
                .with_hint("names become the text prompts of their classes"));
        }
        self.category_ids.declare(raw.id.0, index).map_err(|earlier| {
            let hint = format!(
                "`{}` and `{}` need different ids",
                self.categories[earlier as usize].name, raw.name
            );
            self.duplicate("categories", earlier as usize, index, raw.id.0, &hint)
        })?;
        self.categories.push(raw);
        Ok(())
    }

    /// Resolves the slots.
    fn finish(mut self) -> Result<Records> {
        for (list, empty) in
            [("images", self.images.is_empty()), ("categories", self.categories.is_empty())]
        {
            if empty {
                return Err(self
                    .invalid(list.to_owned(), "the list is empty")
                    .with_hint("did the program that wrote this file filter everything out?"));
            }
        }
        self.check_annotation_ids()?;
        self.check_mentions()?;

        for annotation in &mut self.annotations {
            let seen = &self.image_ids.seen[annotation.image as usize];
            annotation.image = seen.declared.expect("check_mentions found every id declared");
        }
        let removed_listed = self.resolve_classes();
        let verified =
            if self.listing > 0 { AnnotationFormat::Lvis } else { AnnotationFormat::Coco };
        Ok(Records {
            images: self.images,
            annotations: self.annotations,
            classes: self.categories.into_iter().map(RawCategory::into_class).collect(),
            verified,
            counts: ReadCounts {
                computed_area: self.computed_area,
                removed_listed,
                lists: self.lists,
                listing: self.listing,
            },
            ..Records::default()
        })
    }

    /// Replaces the slots of classes by positions in the file's list. Gives the number of entries in LVIS's
    /// lists that are no category of the file.
    fn resolve_classes(&mut self) -> usize {
        let seen = &self.category_ids.seen;
        let resolve = |class: &mut ClassIndex| {
            let declared = seen[class.0 as usize].declared;
            *class = ClassIndex(declared.expect("check_mentions found every id declared"));
        };
        self.annotations.iter_mut().for_each(|a| resolve(&mut a.class));
        // LVIS's lists may have ids of classes that were removed from the file.
        let mut removed = 0;
        for image in &mut self.images {
            for list in [&mut image.neg_classes, &mut image.not_exhaustive_classes] {
                let all = list.len();
                list.retain(|slot| seen[slot.0 as usize].declared.is_some());
                removed += all - list.len();
                list.iter_mut().for_each(resolve);
            }
        }
        removed
    }

    fn check_annotation_ids(&self) -> Result<()> {
        if self.annotations.is_sorted_by(|a, b| a.id < b.id) {
            return Ok(());
        }
        let mut order: Vec<(i64, u32)> =
            self.annotations.iter().zip(0..).map(|(a, position)| (a.id, position)).collect();
        order.sort_unstable();
        let repeated = order.windows(2).filter(|w| w[0].0 == w[1].0).min_by_key(|w| w[1].1);
        match repeated {
            None => Ok(()),
            Some(pair) => Err(self.duplicate(
                "annotations",
                pair[0].1 as usize,
                pair[1].1 as usize,
                pair[0].0,
                "number the annotations anew: the program that wrote this file, or a merge of two \
                 files, used the id twice",
            )),
        }
    }

    /// Every id that was used must be declared.
    fn check_mentions(&self) -> Result<()> {
        let undeclared = |ids: &Ids| {
            let mut seen = ids.seen.iter().filter(|seen| seen.declared.is_none());
            seen.find_map(|seen| Some((seen.id, seen.mentioned?)))
        };
        if let Some((id, at)) = undeclared(&self.image_ids) {
            let ids = self.images.iter().map(|i| i.id).collect();
            return Err(self
                .invalid(format!("annotations[{at}].image_id"), format!("no image has the id {id}"))
                .with_hint(known_ids("images", ids, id)));
        }
        if let Some((id, at)) = undeclared(&self.category_ids) {
            let field = format!("annotations[{at}].category_id");
            let ids = self.categories.iter().map(|c| c.id.0).collect();
            return Err(self
                .invalid(field, format!("no category has the id {id}"))
                .with_hint(known_ids("categories", ids, id)));
        }
        Ok(())
    }

    fn invalid(&self, field: String, problem: impl Into<String>) -> Error {
        Error::invalid(&self.file, field, problem)
    }

    fn duplicate(&self, list: &str, first: usize, second: usize, id: i64, hint: &str) -> Error {
        self.invalid(
            format!("{list}[{second}].id"),
            format!("{id} is already the id of {list}[{first}]"),
        )
        .with_hint(hint)
    }
}
