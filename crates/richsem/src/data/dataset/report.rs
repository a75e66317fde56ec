//! Counts made while loading, for a user to compare with what the file should have.

use std::{collections::HashSet, fmt};

use crate::{
    data::{
        openimages::Relations,
        records::{Annotation, ClassRecord, ImageRecord, Unit},
    },
    plural::{among, counted},
    vocabulary::{Category, CategoryId, Frequency, Vocabulary},
};

/// How many things of one kind there are, and the ids of the first ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many things of this kind there are.
    pub count: usize,
    /// Ids of the first five in the file.
    pub ids: Vec<i64>,
}

/// Most ids that are kept of each kind.
const MOST_IDS: usize = 5;

impl Counted {
    pub(super) fn add(&mut self, id: i64) {
        self.count += 1;
        if self.ids.len() < MOST_IDS {
            self.ids.push(id);
        }
    }

    /// ` (image ids 3, 5, 8, …)`, to stand after the count.
    #[must_use]
    pub fn ids(&self, of: &str) -> String {
        let ids: Vec<String> = self.ids.iter().map(i64::to_string).collect();
        let more = if self.count > ids.len() { ", …" } else { "" };
        let s = if self.count == 1 { "" } else { "s" };
        format!(" ({of} id{s} {}{more})", ids.join(", "))
    }
}

/// Counts of one file. `Display` gives a few lines, and leaves out what is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The format that was recognised, as messages call it.
    pub format: &'static str,
    /// Number of images, with and without boxes.
    pub images: usize,
    /// Number of annotations, crowds included.
    pub annotations: usize,
    /// C: number of classes.
    pub categories: usize,
    /// Number of rare, common and frequent classes.
    pub by_frequency: [usize; 3],
    /// Number of classes that no annotation of this file has.
    pub unseen_categories: usize,
    /// Number of images that have no annotation.
    pub images_without_boxes: usize,
    /// Crowd annotations: not trained on.
    pub crowd: usize,
    /// Others that reach beyond their image: clipped for training. Ids of annotations.
    pub clipped: Counted,
    /// Others with no inside, in the file or once clipped: dropped from training. Ids of annotations.
    pub degenerate: Counted,
    /// Annotations with the class and the box, to the digit, of an earlier one of the image: each
    /// counts in training and evaluation. Their own ids.
    pub repeated: Counted,
    /// Images that are the file of an earlier one: the boxes of one are background in the other.
    /// Their own ids.
    pub same_file: Counted,
    /// Classes whose `image_count` was counted because the file has none.
    pub computed_image_count: usize,
    /// Classes whose `instance_count` was counted.
    pub computed_instance_count: usize,
    /// Classes whose `frequency` was derived from the image count.
    pub computed_frequency: usize,
    /// Annotations whose `area` was computed as width × height.
    pub computed_area: usize,
    /// Images whose size the file does not give: it is known once they are read.
    pub unknown_sizes: usize,
    /// Whether any image has `neg_category_ids` or `not_exhaustive_category_ids`, perhaps empty.
    pub lists: bool,
    /// Number of images with an entry in one of the two.
    pub listing: usize,
    /// Number of entries in the two lists that are no category of the file. They are ignored.
    pub removed_listed: usize,
    /// Images that have boxes of a class that they list as verified absent: the boxes count, as in
    /// lvis-api. Their ids.
    pub absent_with_boxes: Counted,
    /// Images that list a class without boxes as verified absent, and as not exhaustively annotated or
    /// as seen: as in lvis-api it is unknown there, and a detection of it no mistake. Their ids.
    pub absent_and_not_exhaustive: Counted,
    /// What was passed over, or understood in a way that a user should know, each a line.
    pub notes: Vec<String>,
    /// What looks wrong although it is allowed, each a sentence.
    pub warnings: Vec<String>,
}

impl LoadReport {
    /// Why the file's [`super::AnnotationFormat`] is what it is.
    #[must_use]
    pub fn why_format(&self) -> String {
        match (self.listing, self.lists) {
            (0, false) => "no image has neg_category_ids or not_exhaustive_category_ids".to_owned(),
            (0, true) => {
                "neg_category_ids and not_exhaustive_category_ids are empty in every image"
                    .to_owned()
            }
            (listing, _) => format!(
                "{} classes that are verified absent or not exhaustively annotated",
                among(listing, self.images, "image", ["lists", "list"])
            ),
        }
    }
}

impl LoadReport {
    /// What was counted because the file does not have it, each as `image_count of 3`.
    fn computed(&self) -> Vec<String> {
        let told = |name: &str, count: usize| (count > 0).then(|| format!("{name} of {count}"));
        let all = [
            told("image_count", self.computed_image_count),
            told("instance_count", self.computed_instance_count),
            told("frequency", self.computed_frequency),
        ];
        all.into_iter().flatten().collect()
    }
}

/// A report of a set to evaluate on: see [`LoadReport::without_counted_groups`].
struct Judging<'a>(&'a LoadReport);

impl fmt::Display for Judging<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, self.0.computed_frequency < self.0.categories)
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, true)
    }
}

impl LoadReport {
    /// The same lines for a set to evaluate on. How many of its own few images show a class says nothing of how
    /// rare the class is in training: rare, common and frequent classes are told only if the file says which
    /// these are.
    pub fn without_counted_groups(&self) -> impl fmt::Display {
        Judging(self)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, groups: bool) -> fmt::Result {
        write!(
            f,
            "{}, {}, {}",
            counted(self.images, "image"),
            counted(self.annotations, "annotation"),
            counted(self.categories, "class")
        )?;
        if groups {
            let [rare, common, frequent] = self.by_frequency;
            write!(f, " ({rare} rare, {common} common, {frequent} frequent)")?;
        }
        let plain = |what, count: usize| (what, count, String::new());
        let found = |what, found: &Counted, of| (what, found.count, found.ids(of));
        for (what, count, ids) in [
            plain("images without boxes", self.images_without_boxes),
            plain("classes without boxes", self.unseen_categories),
            plain("crowd regions, not trained on", self.crowd),
            found("images with the same file as an earlier one", &self.same_file, "image"),
            found(
                "boxes that repeat an earlier one of their image and class",
                &self.repeated,
                "annotation",
            ),
            found("boxes beyond their image, clipped for training", &self.clipped, "annotation"),
            found("empty boxes, dropped from training", &self.degenerate, "annotation"),
            plain("missing areas, width x height is used", self.computed_area),
            plain("images whose size is unknown until they are read", self.unknown_sizes),
            plain(
                "entries of neg_category_ids and not_exhaustive_category_ids that are no category of \
                 the file, ignored",
                self.removed_listed,
            ),
            found(
                "images with boxes of a class in their neg_category_ids, the boxes count",
                &self.absent_with_boxes,
                "image",
            ),
            found(
                "images with a class that is verified absent and also seen or not exhaustively annotated, \
                 taken as not exhaustively annotated",
                &self.absent_and_not_exhaustive,
                "image",
            ),
        ] {
            if count > 0 {
                write!(f, "\n  {what}: {count}{ids}")?;
            }
        }
        let computed = self.computed();
        if !computed.is_empty() {
            write!(f, "\n  counted from the boxes, by class: {}", computed.join(", "))?;
        }
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        for warning in &self.warnings {
            write!(f, "\n  warning: {warning}")?;
        }
        Ok(())
    }
}

/// The classes in order of their ids, with counts from the grouped annotations where the file has none.
pub(super) fn count_classes(
    classes: &[ClassRecord],
    annotations: &[Annotation],
    relations: Option<&Relations>,
    report: &mut LoadReport,
) -> Vocabulary {
    let counts = images_and_instances(classes.len(), annotations, relations);
    let mut complete = Vec::with_capacity(classes.len());
    for (record, (images, instances)) in classes.iter().zip(counts) {
        report.computed_image_count += usize::from(record.image_count.is_none());
        report.computed_instance_count += usize::from(record.instance_count.is_none());
        report.computed_frequency += usize::from(record.frequency.is_none());
        report.unseen_categories += usize::from(instances == 0);
        if instances == 0 && is_root(record, classes) {
            report.warnings.push(format!(
                "category {} `{}` has no boxes and is the supercategory of all others, as Roboflow \
                 writes it. It takes a place in the class head: remove it from the file",
                record.id, record.name
            ));
        }
        let image_count = record.image_count.unwrap_or(images);
        let frequency = record.frequency.unwrap_or(Frequency::of(image_count));
        report.by_frequency[frequency as usize] += 1;
        complete.push(Category {
            id: CategoryId(record.id),
            name: record.name.clone(),
            key: record.key.clone(),
            image_count,
            instance_count: record.instance_count.unwrap_or(instances),
            frequency,
            synset: record.synset.clone(),
            wnid: record.wnid.clone(),
            text_row: record.text_row,
        });
    }
    report.categories = classes.len();
    let mut names: Vec<&str> = classes.iter().map(|c| &*c.name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        report.warnings.push(format!(
            "more than one category is called `{}`: a text prompt cannot tell them apart",
            pair[0]
        ));
    }
    Vocabulary::new(complete)
}

/// Numbers of images and of boxes of each class, from grouped annotations. A box counts for the ancestors of
/// its class, too.
pub(super) fn images_and_instances(
    classes: usize,
    annotations: &[Annotation],
    relations: Option<&Relations>,
) -> Vec<(u32, u32)> {
    let mut counts = vec![(0, 0); classes];
    let mut last_image = vec![u32::MAX; counts.len()];
    let mut count = |class: u32, image: u32| {
        let class = class as usize;
        counts[class].1 += 1;
        if last_image[class] != image {
            counts[class].0 += 1;
            last_image[class] = image;
        }
    };
    for annotation in annotations {
        let class = annotation.class.0;
        count(class, annotation.image);
        for &above in relations.iter().flat_map(|relations| relations.ancestors(class)) {
            count(above, annotation.image);
        }
    }
    counts
}

/// Whether a class is the supercategory of every other one.
fn is_root(class: &ClassRecord, all: &[ClassRecord]) -> bool {
    let mut others = all.iter().filter(|other| other.id != class.id).peekable();
    others.peek().is_some()
        && others.all(|other| other.supercategory.as_deref() == Some(&class.name))
}

/// Counts images that are the same file.
fn count_files(images: &[ImageRecord], report: &mut LoadReport) {
    let mut seen = HashSet::with_capacity(images.len());
    for image in images {
        if !seen.insert(image.file_name.as_str()) {
            report.same_file.add(image.id);
        }
    }
}

/// Counts images whose lists contradict their annotations, or each other. The annotations of image `i` are
/// `annotations[starts[i]..starts[i + 1]]`.
pub(super) fn count_contradictions(
    images: &[ImageRecord],
    annotations: &[Annotation],
    starts: &[u32],
    report: &mut LoadReport,
) {
    for (image, span) in images.iter().zip(starts.windows(2)) {
        if image.neg_classes.is_empty() {
            continue;
        }
        let of_image = &annotations[span[0] as usize..span[1] as usize];
        let present: HashSet<_> = of_image.iter().map(|annotation| annotation.class).collect();
        let mut absent = image.neg_classes.iter().filter(|class| !present.contains(class));
        if image.neg_classes.iter().any(|class| present.contains(class)) {
            report.absent_with_boxes.add(image.id);
        }
        let open = [&image.not_exhaustive_classes, &image.present_classes];
        if absent.any(|class| open.iter().any(|list| list.contains(class))) {
            report.absent_and_not_exhaustive.add(image.id);
        }
    }
}

/// Counts annotations with the class and box of an earlier one of the same image. They are grouped by
/// image.
fn count_repeated(annotations: &[Annotation], report: &mut LoadReport) {
    let mut order: Vec<usize> = Vec::new();
    for of_image in annotations.chunk_by(|a, b| a.image == b.image) {
        order.clear();
        order.extend((0..of_image.len()).filter(|&i| !of_image[i].crowd));
        let key = |i: usize| (of_image[i].class, of_image[i].bbox.0.map(f64::to_bits));
        // Stable: of equals the file's first stays first.
        order.sort_by_key(|&i| key(i));
        let repeated = order.windows(2).filter(|pair| key(pair[0]) == key(pair[1]));
        let mut repeated: Vec<usize> = repeated.map(|pair| pair[1]).collect();
        repeated.sort_unstable();
        repeated.into_iter().for_each(|i| report.repeated.add(of_image[i].id));
    }
}

/// Counts boxes that training will leave out, and notices boxes in another format.
pub(super) fn count_boxes(
    images: &[ImageRecord],
    annotations: &[Annotation],
    unit: Unit,
    report: &mut LoadReport,
) {
    report.images = images.len();
    report.annotations = annotations.len();
    report.crowd = annotations.iter().filter(|a| a.crowd).count();
    count_files(images, report);
    count_repeated(annotations, report);
    let (mut far_outside, mut relative) = (0, 0);
    for annotation in annotations.iter().filter(|a| !a.crowd) {
        let image = &images[annotation.image as usize];
        let corners = annotation.bbox.to_xyxy();
        let [height, width] = match unit {
            Unit::Pixels => image.size.unwrap_or([u32::MAX; 2]),
            Unit::Shares => [1; 2],
        };
        let clipped = corners.clipped(width, height);
        if clipped != corners {
            report.clipped.add(annotation.id);
        }
        if clipped.is_degenerate() {
            report.degenerate.add(annotation.id);
        }
        let [x, y, w, h] = annotation.bbox.0;
        let beyond = |end: f64, size: u32| end > 1.05 * f64::from(size) + 2.0;
        // Two corners instead of corner and size: too large, and never smaller than the corner.
        let outside = beyond(x + w, width) || beyond(y + h, height);
        far_outside += usize::from(outside && w >= x && h >= y);
        relative += usize::from(unit == Unit::Pixels && [x, y, w, h].iter().all(|v| *v <= 1.0));
    }
    let boxes = annotations.len() - report.crowd;
    if annotations.is_empty() {
        report.warnings.push("the file has no annotations at all".to_owned());
    }
    if 2 * far_outside > boxes {
        report.warnings.push(format!(
            "{} far beyond the image. Boxes are [x, y, width, height]: are these two corners?",
            among(far_outside, boxes, "box", ["reaches", "reach"])
        ));
    }
    if 2 * relative > boxes {
        report.warnings.push(format!(
            "{} within one pixel. Boxes are in pixels: are these relative to the image?",
            among(relative, boxes, "box", ["lies", "lie"])
        ));
    }
}
