//! A set of annotated images, read once, of any of the [`super::formats`].
//!
//! Annotations keep the file's own numbers, because evaluation must see them unchanged; clipping
//! and dropping concern training alone ([`Dataset::training_boxes`]) and are counted while
//! loading. Polygons are passed over: LVIS's training file is 1.1 GB of them, and a box detector
//! never looks.
//!
//! What is accepted beyond COCO's and LVIS's format: a gzip archive, top-level keys in any order, unknown keys
//! anywhere, category ids with holes, ids of images and annotations that are texts, images without boxes or size (also 0 and null),
//! a missing or empty `bbox` beside a segmentation (the box around it), missing `area` (width × height),
//! `iscrowd` (0), `image_count`, `instance_count` and `frequency` (counted), ids written `3.0`, a byte
//! order mark, lists of verified classes that name classes the file does not have (passed over and
//! counted). Everything else stops with the file, the record and the field in the message.

mod change;
mod group;
mod report;
#[cfg(test)]
mod tests;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    boxes::Xyxy,
    data::{
        formats::{self, Opened, Opening},
        json_file::JsonFile,
        openimages::Relations,
        reading::Reading,
        records::{ClassRecord, Records, Unit},
        texts::Texts,
    },
    detections::ImageNames,
    error::Result,
    targets::LabelKnowledge,
    vocabulary::{CategoryId, ClassIndex, Frequency, Vocabulary},
};

pub use super::records::{Annotation, AnnotationFormat, ImageRecord};
pub use report::{Counted, LoadReport};

/// An annotation file in memory, without its polygons.
#[derive(Debug, Clone)]
pub struct Dataset {
    path: PathBuf,
    /// Which part of the set it is; empty where it is all of it.
    split: String,
    /// The format it was read in.
    format_name: &'static str,
    frequencies: Vec<Option<Frequency>>,
    format: AnnotationFormat,
    vocabulary: Vocabulary,
    /// The classes as the file has them, in the vocabulary's order.
    class_records: Vec<ClassRecord>,
    /// Whether the reader made the ids of the classes.
    numbered: bool,
    unit: Unit,
    /// Whether the boxes were shares before they became pixels.
    from_shares: bool,
    images_at: Option<PathBuf>,
    /// Folders in which every image is one of the set.
    searched: Vec<PathBuf>,
    /// The COCO or LVIS file that it was read from.
    json: Option<JsonFile>,
    relations: Option<Relations>,
    /// Classes of which the file shows all boxes, in every image.
    exhaustive: Arc<[ClassIndex]>,
    images: Vec<ImageRecord>,
    /// The images' ids as they are written, where some are texts.
    image_ids: Option<Texts>,
    /// Those of the annotations, by their numbers, where some are texts.
    annotation_ids: Option<Texts>,
    /// Other names of each class.
    synonyms: Vec<Vec<String>>,
    annotations: Vec<Annotation>,
    /// Annotations of image `i` are `annotations[starts[i]..starts[i + 1]]`.
    starts: Vec<u32>,
    report: LoadReport,
}

impl Dataset {
    /// Reads a file or folder of any known format.
    ///
    /// # Errors
    /// If it cannot be read, has no known format, or is not as that format has it; the message names the
    /// record and field.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, &Opening::default())
    }

    /// As [`Self::open`]; the file may be one of images alone, as COCO's `image_info_test-dev2017.json`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_images(path: &Path) -> Result<Self> {
        Self::open_as(path, &Opening { annotated: false, pixels: false, ..Opening::default() })
    }

    /// As [`Self::open`], with a format, a split, or the place of the images chosen.
    ///
    /// # Errors
    /// As [`Self::open`]; a split that the set does not have; images that boxes need and that are not there.
    pub fn open_as(path: &Path, opening: &Opening) -> Result<Self> {
        Self::open_with(path, opening, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`Self::open_as`]. `progress` is told how far it is, and says whether to go on.
    ///
    /// # Errors
    /// As [`Self::open_as`]; [`Error::Stopped`](crate::Error::Stopped) if `progress` says so.
    pub fn open_with(
        path: &Path,
        opening: &Opening,
        progress: &mut dyn FnMut(Reading) -> ControlFlow<()>,
    ) -> Result<Self> {
        let Opened { format, split, records } = formats::open(path, opening, progress)?;
        let mut dataset = Self::of(path, records);
        dataset.report.format = format.title;
        dataset.format_name = format.name;
        dataset.split = split;
        Ok(dataset)
    }

    /// The names of the parts of a set that can be opened one by one, as `train`; none if it is all one.
    ///
    /// # Errors
    /// A path that does not exist, or has no known format, or several.
    pub fn parts(path: &Path, opening: &Opening) -> Result<Vec<String>> {
        formats::splits(path, opening)
    }

    /// Groups the annotations by image, and counts.
    fn of(path: &Path, mut records: Records) -> Self {
        let starts = group::by_image(&mut records.annotations, records.images.len());
        records.annotations.shrink_to_fit();
        let mut report = LoadReport {
            computed_area: records.counts.computed_area,
            unknown_sizes: records.images.iter().filter(|image| image.size.is_none()).count(),
            removed_listed: records.counts.removed_listed,
            lists: records.counts.lists,
            listing: records.counts.listing,
            notes: std::mem::take(&mut records.notes),
            ..LoadReport::default()
        };
        let vocabulary = report::count_classes(
            &records.classes,
            &records.annotations,
            records.relations.as_ref(),
            &mut report,
        );
        let (frequencies, synonyms) = group::by_id(&mut records);
        records.classes.sort_by_key(|class| class.id);
        report::count_boxes(&records.images, &records.annotations, records.unit, &mut report);
        report::count_contradictions(&records.images, &records.annotations, &starts, &mut report);
        report.images_without_boxes = starts.windows(2).filter(|w| w[0] == w[1]).count();
        report.warnings.append(&mut records.warnings);
        let exhaustive = match records.verified {
            AnnotationFormat::Coco => vocabulary.len() as u32,
            AnnotationFormat::Lvis => 0,
        };
        Self {
            path: path.to_owned(),
            split: String::new(),
            format_name: "",
            frequencies,
            format: records.verified,
            exhaustive: (0..exhaustive).map(ClassIndex).collect(),
            vocabulary,
            class_records: records.classes,
            numbered: records.numbered,
            unit: records.unit,
            from_shares: records.from_shares,
            images_at: records.images_at,
            searched: records.searched,
            json: records.json,
            relations: records.relations,
            images: records.images,
            image_ids: records.image_ids,
            annotation_ids: records.annotation_ids,
            synonyms,
            annotations: records.annotations,
            starts,
            report,
        }
    }

    /// The classes, in order of their category ids.
    #[must_use]
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The frequency group that the file gives each class, in the vocabulary's order; the vocabulary's
    /// own are counted where it gives none.
    #[must_use]
    pub fn frequencies(&self) -> &[Option<Frequency>] {
        &self.frequencies
    }

    /// The classes with what the file itself says of them, in the vocabulary's order.
    pub(in crate::data) fn class_records(&self) -> &[ClassRecord] {
        &self.class_records
    }

    /// Gives the set other classes, in the order of their ids, all different. `place` says where each of its
    /// own is among them. It says nothing of the others: they are annotated in none of its images.
    pub(in crate::data) fn set_classes(&mut self, classes: Vec<ClassRecord>, place: &[ClassIndex]) {
        let moved = |class: &mut ClassIndex| *class = place[class.0 as usize];
        self.annotations.iter_mut().for_each(|annotation| moved(&mut annotation.class));
        for image in &mut self.images {
            image.present_classes.iter_mut().for_each(moved);
            image.neg_classes.iter_mut().for_each(moved);
            image.not_exhaustive_classes.iter_mut().for_each(moved);
        }
        let mut exhaustive = self.exhaustive.to_vec();
        exhaustive.iter_mut().for_each(moved);
        exhaustive.sort_unstable();
        self.exhaustive = exhaustive.into();
        self.frequencies = classes.iter().map(|class| class.frequency).collect();
        let mut synonyms = vec![Vec::new(); classes.len()];
        for (names, place) in self.synonyms.drain(..).zip(place) {
            synonyms[place.0 as usize] = names;
        }
        self.synonyms = synonyms;
        // Of other classes it does not say what they are kinds of.
        let is_whole = classes.len() == place.len();
        self.relations =
            self.relations.take().filter(|_| is_whole).map(|relations| relations.moved(place));
        let relations = self.relations.as_ref();
        let mut report = LoadReport::default();
        self.vocabulary =
            report::count_classes(&classes, &self.annotations, relations, &mut report);
        self.class_records = classes;
    }

    /// Whether the ids of the classes were made while reading, because the format knows classes by their
    /// names alone. They then depend on which classes the file has.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.numbered
    }

    /// The folder that a path lies in, and in which every image, at any depth, is one of the set: whatever is put at
    /// the path would be, too. The path need not be there.
    #[must_use]
    pub fn searched_folder_of(&self, path: &Path) -> Option<&Path> {
        let path = std::path::absolute(path).ok()?;
        let there = path.ancestors().find(|folder| folder.exists())?;
        let place = there.canonicalize().ok()?.join(path.strip_prefix(there).ok()?);
        let holds = |folder: &&PathBuf| folder.canonicalize().is_ok_and(|f| place.starts_with(f));
        self.searched.iter().find(holds).map(PathBuf::as_path)
    }

    /// Whether it is this part of the set in this very file or folder.
    #[must_use]
    pub fn is_part(&self, path: &Path, split: &str) -> bool {
        let place = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.split == split && place(&self.path) == place(path)
    }

    /// Gives the classes other ids, in the vocabulary's order and all different.
    pub(crate) fn set_ids(&mut self, ids: &[CategoryId]) {
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&at| ids[at]);
        let mut place = vec![ClassIndex(0); ids.len()];
        for (to, &from) in (0..).zip(&order) {
            place[from] = ClassIndex(to);
        }
        let classes =
            order.iter().map(|&at| ClassRecord { id: ids[at].0, ..self.class_records[at].clone() });
        self.set_classes(classes.collect(), &place);
    }

    /// Other names of each class, in the vocabulary's order: LVIS's and V3Det's synonyms, Objects365's
    /// alternatives. Mostly none.
    #[must_use]
    pub fn synonyms(&self) -> &[Vec<String>] {
        &self.synonyms
    }

    /// The images' ids by their names, and by the ids that the file has for them.
    #[must_use]
    pub fn image_names(&self) -> ImageNames {
        let names = ImageNames::new(self.images.iter().map(|i| (i.file_name.as_str(), i.id)));
        match &self.image_ids {
            Some(written) => names.with_texts(
                written.iter().map(str::to_owned).zip(self.images.iter().map(|i| i.id)),
            ),
            None => names,
        }
    }

    /// The id that the file has for an image, where it has texts for ids ([`ImageRecord::id`] is then the
    /// image's number, from 1); none where ids are numbers, and beyond [`Self::images`].
    #[must_use]
    pub fn text_id(&self, image: usize) -> Option<&str> {
        self.image_ids.as_ref()?.get(image)
    }

    /// Whether the file has texts for the ids of images: also where a part of it has none.
    pub(in crate::data) fn has_text_ids(&self) -> bool {
        self.image_ids.is_some()
    }

    /// The same of annotations.
    pub(in crate::data) fn has_annotation_text_ids(&self) -> bool {
        self.annotation_ids.is_some()
    }

    /// The id that the file has for an annotation, where it has texts for ids ([`Annotation::id`] is then the
    /// annotation's number, from 1); none where ids are numbers.
    #[must_use]
    pub fn annotation_text_id(&self, annotation: &Annotation) -> Option<&str> {
        let at = usize::try_from(annotation.id).ok()?.checked_sub(1)?;
        self.annotation_ids.as_ref()?.get(at)
    }

    /// The images, in the file's order.
    #[must_use]
    pub fn images(&self) -> &[ImageRecord] {
        &self.images
    }

    /// The annotations of one image, crowds included, in the file's order.
    ///
    /// # Panics
    /// If `image` is not an index into [`Self::images`].
    #[must_use]
    pub fn annotations_of(&self, image: usize) -> &[Annotation] {
        &self.annotations[self.starts[image] as usize..self.starts[image + 1] as usize]
    }

    /// All annotations, grouped by image in the order of [`Self::images`], in the file's order
    /// within an image.
    #[must_use]
    pub fn annotations(&self) -> &[Annotation] {
        &self.annotations
    }

    /// Whether the file verifies classes image by image (LVIS) or shows all of them (COCO).
    #[must_use]
    pub fn format(&self) -> AnnotationFormat {
        self.format
    }

    /// What the numbers of the boxes are. [`Unit::Pixels`], unless it was opened otherwise.
    #[must_use]
    pub fn unit(&self) -> Unit {
        self.unit
    }

    /// The folder or archive that the images' names are in, where the format says or it was found near.
    #[must_use]
    pub fn images_at(&self) -> Option<&Path> {
        self.images_at.as_deref()
    }

    /// Where the images are, if the user says that they are in `given`, with which the set was opened: there, or in the
    /// folder below it where they were found. Else as [`Self::images_at`].
    #[must_use]
    pub fn images_in<'a>(&'a self, given: Option<&'a Path>) -> Option<&'a Path> {
        let is_below = |at: &&Path| given.is_none_or(|given| at.starts_with(given));
        self.images_at().filter(is_below).or(given)
    }

    /// Name of the format that it was read in, as `coco`.
    #[must_use]
    pub fn format_name(&self) -> &'static str {
        self.format_name
    }

    /// Which part of the set this is, as `train`; empty where it is all of it.
    #[must_use]
    pub fn split(&self) -> &str {
        &self.split
    }

    /// The file or folder that was read.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was counted and noticed while reading.
    #[must_use]
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// Which classes are kinds of which others, where the set has a hierarchy.
    #[must_use]
    pub fn relations(&self) -> Option<&Relations> {
        self.relations.as_ref()
    }

    /// The boxes to train on: crowds left out (as the reference does, `datasets/coco.py`), clipped
    /// to the image, those without an inside dropped. In pixels of the file's image. In a set with a
    /// hierarchy a box is there for its class, and again for each ancestor of that.
    ///
    /// # Panics
    /// If `image` is not an index into [`Self::images`].
    #[must_use]
    pub fn training_boxes(&self, image: usize) -> Vec<(Xyxy, ClassIndex)> {
        // Of unknown size: to the image's own once it is read.
        let [height, width] = self.images[image].size.unwrap_or([u32::MAX; 2]);
        let above =
            |class: ClassIndex| self.relations.iter().flat_map(move |r| r.ancestors(class.0));
        self.annotations_of(image)
            .iter()
            .filter(|a| !a.crowd)
            .map(|a| (a.bbox.to_xyxy().clipped(width, height), a.class))
            .filter(|(corners, _)| !corners.is_degenerate())
            .flat_map(|(corners, class)| {
                let ancestors = above(class).map(move |&class| (corners, ClassIndex(class)));
                std::iter::once((corners, class)).chain(ancestors)
            })
            .collect()
    }

    /// Which classes the file says something about in that image, each list sorted and without
    /// repetition. A class with any annotation here is present (a crowd or an empty box too), even
    /// if the file also lists it as absent. With a hierarchy, ancestors of what is present are present,
    /// descendants of it are not exhaustive, and descendants of what is absent are absent.
    ///
    /// # Panics
    /// If `image` is not an index into [`Self::images`].
    #[must_use]
    pub fn knowledge(&self, image: usize) -> LabelKnowledge {
        let record = &self.images[image];
        let present = sorted(self.annotations_of(image).iter().map(|a| a.class));
        let is_shown = |class: &ClassIndex| present.binary_search(class).is_ok();
        let absent = sorted(record.neg_classes.iter().copied().filter(|c| !is_shown(c)));
        let seen = self.seen_without_box(image);
        let not_exhaustive = sorted(record.not_exhaustive_classes.iter().copied().chain(seen));
        let mut knowledge = LabelKnowledge {
            present,
            absent,
            not_exhaustive,
            exhaustive: Arc::clone(&self.exhaustive),
        };
        if let Some(relations) = &self.relations {
            expand(&mut knowledge, relations);
        }
        knowledge
    }

    /// Classes that somebody saw in an image, and no box says where: each once.
    pub(in crate::data) fn seen_without_box(
        &self,
        image: usize,
    ) -> impl Iterator<Item = ClassIndex> {
        let boxes = self.annotations_of(image);
        let seen = sorted(self.images[image].present_classes.iter().copied());
        seen.into_iter().filter(|class| !boxes.iter().any(|shown| shown.class == *class))
    }
}

fn sorted(classes: impl Iterator<Item = ClassIndex>) -> Vec<ClassIndex> {
    let mut classes: Vec<_> = classes.collect();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// Says of related classes what follows from what is known. Boxes of what is only seen are not known, nor are
/// those of its ancestors.
fn expand(knowledge: &mut LabelKnowledge, relations: &Relations) {
    let plain = |classes: &[ClassIndex]| -> Vec<u32> { classes.iter().map(|c| c.0).collect() };
    let classes = |numbers: Vec<u32>| numbers.into_iter().map(ClassIndex);
    let known = relations.expand(&plain(&knowledge.present), &plain(&knowledge.absent));
    let seen = relations.expand(&plain(&knowledge.not_exhaustive), &plain(&knowledge.absent));
    let shown = &known.present;
    let open = classes(known.unknown).chain(classes(seen.present)).chain(classes(seen.unknown));
    knowledge.not_exhaustive = sorted(open.filter(|class| shown.binary_search(&class.0).is_err()));
    let open = &knowledge.not_exhaustive;
    knowledge.absent =
        classes(known.absent).filter(|class| open.binary_search(class).is_err()).collect();
    knowledge.present = classes(known.present).collect();
}
