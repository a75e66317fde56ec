//! Puts the records of a file together.

use std::path::{Path, PathBuf};

use super::{
    absolute, below_root,
    ids::Ids,
    path_of_url,
    records::{Attributes, BBOX, Bbox, RawAnnotation, RawCategory, RawImage},
    segmentation::{self, turned},
};
use crate::{
    boxes::Xywh,
    data::{
        records::{Annotation, ImageRecord},
        texts::Texts,
    },
    error::{Error, Result},
    json::{Id, Integer},
    vocabulary::ClassIndex,
};

/// The hint where the path of an image is not below the root.
pub(super) const RELATIVE: &str = "write paths relative to the folder that is given as image root";

/// What was read so far.
pub(super) struct Builder {
    pub(super) file: PathBuf,
    pub(super) images: Vec<ImageRecord>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) categories: Vec<RawCategory>,
    pub(super) image_ids: Ids,
    pub(super) category_ids: Ids,
    /// The ids of the images as they are written, by position.
    pub(super) written_ids: Vec<Id>,
    /// The ids of the annotations as they are written, by position, once one is a text.
    pub(super) annotation_ids: Option<Texts>,
    /// Classes that an image has, perhaps without a box: its position, and their slots.
    pub(super) present: Vec<(u32, Vec<ClassIndex>)>,
    pub(super) seen: Seen,
    /// The first absolute path of an image, as it is written.
    pub(super) first_absolute: String,
    /// And its root.
    root: String,
    /// Some image has one of LVIS's lists.
    pub(super) lists: bool,
    /// Images with an entry in one of them.
    pub(super) listing: usize,
    pub(super) computed_area: usize,
}

/// What was understood in a way that a note tells, each with the position of the first of them.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) from_outlines: Tally,
    pub(super) turned: Tally,
    pub(super) cvat_masks: Tally,
    pub(super) groups: Tally,
    pub(super) nameless: Tally,
    pub(super) urls: Tally,
    pub(super) absolute: Tally,
}

#[derive(Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) count: usize,
    pub(super) first: i64,
}

impl Tally {
    fn add(&mut self, id: i64) {
        if self.count == 0 {
            self.first = id;
        }
        self.count += 1;
    }
}

impl Builder {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            images: Vec::new(),
            annotations: Vec::new(),
            categories: Vec::new(),
            image_ids: Ids::default(),
            category_ids: Ids::default(),
            written_ids: Vec::new(),
            annotation_ids: None,
            present: Vec::new(),
            seen: Seen::default(),
            first_absolute: String::new(),
            root: String::new(),
            lists: false,
            listing: 0,
            computed_area: 0,
        }
    }

    /// Whether its classes are described as V3Det's are.
    pub(super) fn is_v3det(&self) -> bool {
        self.categories.first().is_some_and(|category| category.cat_info.is_some())
    }

    /// The size of an image, `[height, width]`. None, and 0, is an unknown one.
    fn size(&self, index: usize, raw: &RawImage) -> Result<Option<[u32; 2]>> {
        let side = |name: &str, value: Option<Integer>| match value.map(|value| value.0) {
            None | Some(0) => Ok(None),
            Some(value) => u32::try_from(value).map(Some).map_err(|_| {
                let problem = format!("expected a positive number of pixels, got {value}");
                self.invalid(format!("images[{index}].{name}"), problem)
            }),
        };
        match (side("height", raw.height)?, side("width", raw.width)?) {
            (Some(height), Some(width)) => Ok(Some([height, width])),
            (None, None) => Ok(None),
            (height, _) => {
                let (name, value) =
                    if height.is_some() { ("width", raw.width) } else { ("height", raw.height) };
                let got = if value.is_some() { "0" } else { "missing" };
                let problem = format!("{got}; expected pixels, because the other side is given");
                Err(self
                    .invalid(format!("images[{index}].{name}"), problem)
                    .with_hint("write both sides, or leave out both: the image is then asked"))
            }
        }
    }

    pub(super) fn add_image(&mut self, index: usize, raw: RawImage) -> Result<()> {
        let size = self.size(index, &raw)?;
        let file_name = self.file_name(index, &raw)?;
        self.image_ids.declare(&raw.id, index).map_err(|e| {
            let hint = "each image needs an id of its own";
            self.duplicate(("images", index), e as usize, &raw.id, hint)
        })?;
        let lists =
            [&raw.neg_category_ids, &raw.not_exhaustive_category_ids, &raw.pos_category_ids];
        self.lists |= lists.iter().any(|list| list.is_some());
        self.listing +=
            usize::from(lists.iter().any(|l| l.as_ref().is_some_and(|l| !l.is_empty())));
        let mut slots = |ids: Option<Vec<Integer>>| -> Vec<ClassIndex> {
            let ids = ids.unwrap_or_default();
            ids.iter().map(|id| ClassIndex(self.category_ids.slot(&Id::Number(id.0)))).collect()
        };
        let neg_classes = slots(raw.neg_category_ids);
        let not_exhaustive_classes = slots(raw.not_exhaustive_category_ids);
        let present = slots(raw.pos_category_ids);
        if !present.is_empty() {
            self.present.push((index as u32, present));
        }
        let id = raw.id.number().unwrap_or_default();
        self.written_ids.push(raw.id);
        self.images.push(ImageRecord {
            id,
            file_name,
            size,
            neg_classes,
            not_exhaustive_classes,
            ..ImageRecord::default()
        });
        Ok(())
    }

    /// The path of an image below the image root: see [`ImageRecord::file_name`].
    fn file_name(&mut self, index: usize, raw: &RawImage) -> Result<String> {
        let given = |text: &Option<String>| text.clone().filter(|t| !t.trim().is_empty());
        let (field, path) = match (given(&raw.file_name), given(&raw.coco_url)) {
            (Some(name), _) => ("file_name", name),
            (None, Some(url)) => ("coco_url", url),
            (None, None) => {
                let problem = "missing; expected the image's path below the image root";
                return Err(self
                    .invalid(format!("images[{index}].file_name"), problem)
                    .with_hint("COCO has `file_name`, LVIS v1 `coco_url`; one of them is needed"));
            }
        };
        let below_host = path_of_url(&path);
        if field == "file_name" && below_host.is_some() {
            self.seen.urls.add(index as i64);
        }
        let mut other_root = false;
        let below = below_host.or_else(|| {
            let (root, below) = absolute::below(&path)?;
            if self.seen.absolute.count == 0 {
                self.first_absolute.clone_from(&path);
                self.root.clone_from(&root);
            }
            self.seen.absolute.add(index as i64);
            other_root = root != self.root;
            Some(below)
        });
        if other_root {
            let problem = format!(
                "expected a path below `{}`, as of others, got `{}`",
                self.root,
                path.escape_debug()
            );
            return Err(self
                .invalid(format!("images[{index}].{field}"), problem)
                .with_hint(RELATIVE));
        }
        let path = below_root(below.as_ref().unwrap_or(&path)).map_err(|problem| {
            self.invalid(format!("images[{index}].{field}"), problem).with_hint(RELATIVE)
        })?;
        if !path.rsplit('/').next().unwrap_or_default().contains('.') {
            self.seen.nameless.add(index as i64);
        }
        Ok(path)
    }

    pub(super) fn add_annotation(&mut self, index: usize, raw: RawAnnotation<'_>) -> Result<()> {
        let mut bbox = self.bbox(index, &raw)?;
        let [_, _, w, h] = bbox;
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
        let id = self.annotation_id(index, &raw.id);
        let crowd = raw.iscrowd.is_some_and(|flag| flag.0);
        let group = raw.isgroupof.is_some_and(|flag| flag.0);
        if group && !crowd {
            self.seen.groups.add(id);
        }
        if let Some(attributes) = raw.attributes {
            let Attributes { rotation, cvat } = attributes;
            if cvat && crowd {
                self.seen.cvat_masks.add(id);
            }
            if attributes.turn_boxes() {
                self.seen.turned.add(id);
                bbox = turned(bbox, rotation);
            }
        }
        let place = index as u32;
        let category = Id::Number(raw.category_id.0);
        self.annotations.push(Annotation {
            id,
            image: self.image_ids.mention(&raw.image_id, place),
            class: ClassIndex(self.category_ids.mention(&category, place)),
            bbox: Xywh(bbox),
            area,
            crowd: crowd || group,
            ignore: raw.ignore.is_some_and(|flag| flag.0),
        });
        Ok(())
    }

    /// The id of the next annotation; its number in the file where the file has texts.
    fn annotation_id(&mut self, index: usize, id: &Id) -> i64 {
        if id.is_text() && self.annotation_ids.is_none() {
            let before = self.annotations.iter().map(|annotation| annotation.id.to_string());
            self.annotation_ids = Some(before.collect());
        }
        match &mut self.annotation_ids {
            Some(written) => {
                written.push(&id.clone().into_text());
                index as i64 + 1
            }
            None => id.number().unwrap_or_default(),
        }
    }

    /// The box of an annotation: its own, or the one around its outline.
    fn bbox(&mut self, index: usize, raw: &RawAnnotation<'_>) -> Result<[f64; 4]> {
        let field = |name: &str| format!("annotations[{index}].{name}");
        if let Some(Bbox::Given(bbox)) = raw.bbox {
            for (name, size) in [("width", bbox[2]), ("height", bbox[3])] {
                if size < 0.0 {
                    let problem = format!("expected a {name} of 0 or more, got {size}");
                    return Err(self
                        .invalid(field("bbox"), problem)
                        .with_hint("boxes are [x, y, width, height] in pixels, not two corners"));
                }
            }
            return Ok(bbox);
        }
        let got = if raw.bbox.is_some() { "got an empty list" } else { "missing" };
        let problem = format!("expected {BBOX}, {got}");
        let outline = raw.segmentation.map(segmentation::bbox).transpose().map_err(|wrong| {
            self.invalid(field("segmentation"), wrong)
                .with_hint("the annotation has no bbox, and a box is made of its outline")
        })?;
        match outline.flatten() {
            Some(bbox) => {
                self.seen.from_outlines.add(raw.id.number().unwrap_or(index as i64 + 1));
                Ok(bbox)
            }
            None => Err(self
                .invalid(field("bbox"), problem)
                .with_hint("a segmentation would do, and the annotation has none: leave it out")),
        }
    }

    pub(super) fn add_category(&mut self, index: usize, raw: RawCategory) -> Result<()> {
        if raw.name.trim().is_empty() {
            return Err(self
                .invalid(
                    format!("categories[{index}].name"),
                    "expected a name, got an empty string",
                )
                .with_hint("names become the text prompts of their classes"));
        }
        let id = Id::Number(raw.id.0);
        self.category_ids.declare(&id, index).map_err(|earlier| {
            let hint = format!(
                "`{}` and `{}` need different ids",
                self.categories[earlier as usize].name, raw.name
            );
            self.duplicate(("categories", index), earlier as usize, &id, &hint)
        })?;
        self.categories.push(raw);
        Ok(())
    }

    pub(super) fn invalid(&self, field: String, problem: impl Into<String>) -> Error {
        Error::invalid(&self.file, field, problem)
    }

    /// The id of `list[second]` is that of `list[first]`.
    pub(super) fn duplicate(
        &self,
        (list, second): (&str, usize),
        first: usize,
        id: &Id,
        hint: &str,
    ) -> Error {
        let problem = format!("{id} is already the id of {list}[{first}]");
        self.invalid(format!("{list}[{second}].id"), problem).with_hint(hint)
    }
}
