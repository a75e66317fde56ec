//! Pascal VOC's XML, read as it lies: a folder or an uncompressed `.tar`, at any depth of which are
//! `Annotations/*.xml`, `JPEGImages/` (both with folders in them, or without) and, unless everything is one
//! set, `ImageSets/Main/*.txt` (or `ImageSets/*.txt`). Each image set is a split, whatever it is called.
//!
//! hotcoco has a converter too (`hotcoco::convert::voc_to_coco`), which these numbers are tested against. It
//! reads a folder as one set, so image sets, archives, sizes missing from the XML and images whose name the
//! XML gets wrong need this one.
//!
//! Boxes: VOC counts pixels from 1 and includes both ends (the devkit's area is
//! `(xmax - xmin + 1) * (ymax - ymin + 1)`), so `xmin, ymin, xmax, ymax` become
//! `[xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]`.
//!
//! `difficult` objects become crowd regions, the nearest COCO has to VOC's rule: neither trained on, nor
//! missed, nor a false alarm when found. One difference remains: COCO compares a detection with a crowd by
//! the share of the *detection* inside, VOC by intersection over union.
//!
//! Ids of images, annotations and classes are the same in every image set: classes are those of all that are
//! listed, sorted by name; images and their annotations are numbered in the order of their names.
//!
//! Boxes that lie beyond their image are kept and counted, as [`crate::data::dataset`] does: training clips
//! them, evaluation sees the file's own numbers. Sizes are compared with the images'.

mod apart;
mod archive;
mod collected;
mod frame;
mod image_sets;
mod images;
mod mistake;
mod report;
mod source;
mod stems;
#[cfg(test)]
mod tests;
pub(super) mod xml;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use rayon::prelude::*;

use super::{Format, Place, Request};
use crate::{
    data::{
        image_io::Orientation,
        reading::{FILES, Reading, Watch, open_store},
        records::{Annotation, ClassRecord, ImageRecord, Records},
    },
    error::{Error, Result},
    vocabulary::ClassIndex,
};
use collected::Collected;
pub(super) use collected::is_annotation;
use frame::{Agreement, coco_box, frame};
use image_sets::{Split, image_sets};
use images::Images;
pub(super) use mistake::mistake;
use report::Report;
use source::collect;
#[cfg(test)]
pub(in crate::data) use tests::archive_that_leads_out;
use xml::{Annotated, Object};

pub(super) const FORMAT: Format = Format {
    name: "voc",
    title: "Pascal VOC XML",
    recognise: source::recognise,
    splits,
    read: |request| {
        let (mut records, report) = read(request)?;
        records.notes = report.notes();
        records.warnings = report.warnings(request.split);
        Ok(records)
    },
};

/// The image sets that list something.
fn splits(place: &Place) -> Result<Vec<String>> {
    let collected = collect(place.path())?;
    let sets = listing_sets(place.path(), &collected, &mut Report::default())?;
    Ok(sets.into_iter().map(|set| set.name.to_owned()).collect())
}

/// The image sets that list something; at least one.
fn listing_sets<'a>(
    input: &Path,
    collected: &'a Collected,
    report: &mut Report,
) -> Result<Vec<Split<'a>>> {
    if collected.annotations.is_empty() {
        return Err(Error::invalid(input, "Annotations", "no Annotations/*.xml in it")
            .with_hint("a Pascal VOC set has the folders Annotations, JPEGImages and ImageSets"));
    }
    let (listing, empty): (Vec<_>, Vec<_>) =
        image_sets(input, collected, report)?.into_iter().partition(|set| !set.stems.is_empty());
    report.empty_sets = empty.iter().map(|set| set.name.to_owned()).collect();
    if listing.is_empty() {
        let sets = report.empty_sets.join(", ");
        return Err(Error::invalid(input, "ImageSets", format!("no list names an image: {sets}"))
            .with_hint("take the empty lists away, and all annotated images become one set"));
    }
    Ok(listing)
}

/// Reads one image set, and tells what was met.
fn read(request: &Request<'_>) -> Result<(Records, Report)> {
    let input = request.path;
    let collected = collect(input)?;
    let mut report = Report {
        passed_over: collected.passed_over.clone(),
        unused_parts: collected.unused_parts.clone(),
        ..Report::default()
    };
    let sets = listing_sets(input, &collected, &mut report)?;
    let listed: BTreeSet<&str> = sets.iter().flat_map(|set| &set.stems).copied().collect();
    report.unlisted = collected.annotations.len() - listed.len();
    let annotated = parsed(&collected, &listed, request.watch)?;
    let classes = classes_of(input, &annotated)?;
    let Some(set) = sets.into_iter().find(|set| set.name == request.split) else {
        let problem = format!("there is no list `{}` that names an image", request.split);
        return Err(Error::invalid(input, "ImageSets", problem));
    };
    set.again.iter().for_each(|line| report.listed_twice.add(&format!("{} line {line}", set.name)));
    // Sizes in the XML are compared with what viewers show.
    let store = open_store(
        request.images.unwrap_or(&collected.images_at),
        Orientation::Exif,
        request.watch,
    )?;
    let images = Images::new(input, request, &collected, &store)?;
    let places = images.places_of(&set.stems, &annotated)?;
    let orientation = request.orientation;
    let mut frames: Vec<Result<_>> = Vec::with_capacity(set.stems.len());
    for (stems, names) in set.stems.chunks(FILES).zip(places.chunks(FILES)) {
        let pairs = stems.par_iter().zip(names);
        frames.par_extend(
            pairs.map(|(stem, name)| frame(&store, name, &annotated[stem], orientation)),
        );
        (request.watch)(Reading::Sizes { done: frames.len(), of: set.stems.len() })?;
    }
    report.orientation = orientation;
    let mut reader = Reader { classes: &classes, numbers: numbers(&annotated), report };
    let mut records = Records {
        classes: (1..).zip(&classes).map(|(id, name)| ClassRecord::named(id, *name)).collect(),
        images_at: Some(store.path().to_owned()),
        numbered: true,
        ..Records::default()
    };
    for ((stem, file_name), frame) in set.stems.iter().zip(places).zip(frames) {
        let (size, found) = frame?;
        reader.report.count_frame(found, stem);
        let sized_by_image = found == Agreement::OfTurnedImage;
        let image = ImageRecord { sized_by_image, ..reader.image(stem, file_name, size) };
        reader.objects(stem, size, &annotated[stem], &mut records);
        records.images.push(image);
    }
    Ok((records, reader.report))
}

/// The annotations of all listed images, by their names.
fn parsed<'a>(
    collected: &'a Collected,
    listed: &BTreeSet<&'a str>,
    watch: Watch<'_>,
) -> Result<BTreeMap<&'a str, Annotated>> {
    let listed: Vec<&str> = listed.iter().copied().collect();
    let mut texts: Vec<Result<Annotated>> = Vec::with_capacity(listed.len());
    for stems in listed.chunks(FILES) {
        texts.par_extend(stems.par_iter().map(|stem| {
            let (file, text) = collected.text(&collected.annotations[*stem])?;
            xml::parse(&file, &text)
        }));
        watch(Reading::Files { done: texts.len(), of: listed.len() })?;
    }
    // The first mistake in the order of names is told, not the first that a thread came upon.
    listed.into_iter().zip(texts).map(|(stem, text)| Ok((stem, text?))).collect()
}

/// The names of all classes of the listed images, sorted.
fn classes_of<'a>(input: &Path, annotated: &'a BTreeMap<&str, Annotated>) -> Result<Vec<&'a str>> {
    let objects = annotated.values().flat_map(|annotated| &annotated.objects);
    let classes: BTreeSet<&str> = objects.map(|object| object.name.as_str()).collect();
    if classes.is_empty() {
        let problem =
            format!("no object in any of the {} annotations that are listed", annotated.len());
        return Err(Error::invalid(input, "Annotations", problem).with_hint(
            "without a class there is nothing to train on or to evaluate: has the program \
             that wrote these files left the <object>s out?",
        ));
    }
    Ok(classes.into_iter().collect())
}

/// The id of an image and of its first annotation, by its name, as they are in every image set.
fn numbers<'a>(annotated: &BTreeMap<&'a str, Annotated>) -> BTreeMap<&'a str, (i64, i64)> {
    let mut next = 1;
    (1..)
        .zip(annotated)
        .map(|(id, (stem, annotated))| {
            let first = next;
            let kept = annotated.objects.iter().filter(|object| has_inside(object));
            next += kept.count() as i64;
            (*stem, (id, first))
        })
        .collect()
}

fn has_inside(object: &Object) -> bool {
    let [_, _, w, h] = coco_box(object).0;
    w > 0.0 && h > 0.0
}

/// Reads images one after the other, and counts what it meets.
struct Reader<'a> {
    /// Sorted; a class's id is its place, from 1.
    classes: &'a [&'a str],
    /// See [`numbers`].
    numbers: BTreeMap<&'a str, (i64, i64)>,
    report: Report,
}

impl Reader<'_> {
    fn image(&self, stem: &str, file_name: String, size: [u32; 2]) -> ImageRecord {
        ImageRecord {
            id: self.numbers[stem].0,
            file_name,
            size: Some(size),
            ..ImageRecord::default()
        }
    }

    /// Adds the objects of the image that comes next.
    fn objects(
        &mut self,
        stem: &str,
        size: [u32; 2],
        annotated: &Annotated,
        records: &mut Records,
    ) {
        let (_, mut id) = self.numbers[stem];
        for object in &annotated.objects {
            if !has_inside(object) {
                self.report.degenerate.add(stem);
                continue;
            }
            let class = self.classes.partition_point(|class| *class < object.name.as_str());
            let bbox = coco_box(object);
            let [_, _, w, h] = bbox.0;
            self.report.count_box(bbox, object.difficult, size, stem);
            records.annotations.push(Annotation {
                id,
                image: records.images.len() as u32,
                class: ClassIndex(class as u32),
                bbox,
                area: w * h,
                crowd: object.difficult,
                ignore: false,
            });
            id += 1;
        }
    }
}
