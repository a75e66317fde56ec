//! OpenImages as its CSV files lie: boxes, verified labels, names of classes, and their hierarchy.
//!
//! A box of a class is one of its ancestors, too: [`crate::data::dataset::Dataset`] expands it for training,
//! evaluation by the challenge's protocol expands it itself. Groups (`IsGroupOf`) are crowds: not trained on.

mod files;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

use super::{
    Format, Request,
    place::{Place, Roots, sample},
};
use crate::{
    boxes::Xywh,
    data::{
        openimages::{
            Boxes, Classes, Flag, Hierarchy, Labels, Names, OpenImagesBox, read_boxes,
            read_boxes_watched, read_classes, read_labels_watched,
        },
        reading::Watch,
        records::{
            Annotation, AnnotationFormat, ClassRecord, ImageRecord, ReadCounts, Records, Unit,
        },
        texts::Texts,
    },
    error::{Error, Result, first_few},
    vocabulary::ClassIndex,
};
use files::Found;

pub(super) const FORMAT: Format = Format {
    name: "openimages",
    title: "OpenImages CSV",
    recognise: files::recognise,
    splits: |place| Ok(files::boxes_of(place)?.into_iter().map(|(split, _)| split).collect()),
    read,
};

/// Boxes that are turned into annotations at a time, so that both are not in memory at once.
const CHUNK: usize = 1 << 20;

/// Most classes that a note names.
const NAMED: usize = 5;

/// What is wrong with a file that is called as those of boxes are, and does not begin as they do.
pub(super) fn mistake(place: &Place) -> Option<Error> {
    let (_, file) = files::boxes_of(place).ok()?.into_iter().next()?;
    files::is_of_boxes(&file).then_some(())?;
    read_boxes(&file, &mut Names::new(), &mut Names::new()).err()
}

fn read(request: &Request<'_>) -> Result<Records> {
    let place = Place::new(request.path)?;
    let boxes_of = files::boxes_of(&place)?;
    let file = boxes_of.into_iter().find(|(split, _)| split == request.split);
    let Some((_, file)) = file else {
        return Err(Error::invalid(
            request.path,
            "boxes",
            "expected a CSV file of boxes, got none",
        ));
    };
    let found = Found::near(&file, &place)?;
    let (mut images, mut mids) = (Names::new(), Names::new());
    let listed = found.classes.as_deref().map(read_classes).transpose()?;
    if let Some(listed) = &listed {
        mids = listed.mids.clone();
    }
    let known = listed.as_ref().map(|listed| listed.mids.len());
    let mut boxes = read_boxes_watched(&file, &mut images, &mut mids, request.watch)?;
    let mut labels = match &found.labels {
        Some(labels) => read_labels_watched(labels, &mut images, &mut mids, request.watch)?,
        None => Labels::default(),
    };
    if listed.is_none() {
        sort_classes(&mut mids, &mut boxes, &mut labels);
    }
    let mut records = Records {
        unit: Unit::Shares,
        numbered: true,
        verified: AnnotationFormat::Lvis,
        notes: found.notes(),
        ..Records::default()
    };
    let strangers = files::strangers(&place);
    if !strangers.is_empty() {
        records.warnings.push(format!(
            "other files of boxes in the folder are not read: {}; give the folder that is meant",
            first_few(strangers.into_iter())
        ));
    }
    if found.labels.is_none() {
        records.warnings.push(
            "no file of verified image-level labels is near the boxes: an image says nothing of classes \
             that it shows no box of"
                .to_owned(),
        );
    }
    note_left_out(&mut records, &boxes, &labels, known, &mids);
    records.classes = classes(listed.as_ref(), &mids, known);
    let within = known.unwrap_or(mids.len());
    records.relations = match &found.hierarchy {
        Some(file) => Some(Hierarchy::open(file)?.over(&first(&mids, within))),
        None => None,
    };
    records.annotations = annotations(boxes.boxes, within);
    let ranks = images.ranks();
    // What finds an id by its text goes before the images come: both would be in memory at once.
    let ids: Texts = images.iter().collect();
    drop(images);
    records.images = ids.iter().zip(ranks).map(image).collect();
    records.image_ids = Some(ids);
    take_labels(&mut records, &labels, within);
    let folders = files::image_folders(&file, request.split);
    let near = request.images.map_or(folders, |images| vec![images.to_owned()]);
    place_images(&mut records, near, request.watch);
    Ok(records)
}

/// Numbers classes in the order of their MIDs, so that the order of the rows decides nothing.
fn sort_classes(mids: &mut Names, boxes: &mut Boxes, labels: &mut Labels) {
    let ranks = mids.ranks();
    boxes.boxes.iter_mut().for_each(|truth| truth.class = ranks[truth.class as usize]);
    labels.labels.iter_mut().for_each(|label| label.class = ranks[label.class as usize]);
    let mut sorted: Vec<&str> = mids.iter().collect();
    sorted.sort_unstable();
    *mids = sorted.into_iter().collect();
}

/// The first of a list of names.
fn first(names: &Names, count: usize) -> Names {
    let mut some = Names::new();
    names.iter().take(count).for_each(|name| {
        some.add(name);
    });
    some
}

/// Images are numbered in the order of their ids, whatever the order of the rows.
fn image((id, rank): (&str, u32)) -> ImageRecord {
    ImageRecord {
        id: i64::from(rank) + 1,
        // In no more memory than it takes: there are millions.
        file_name: [id, ".jpg"].concat(),
        ..ImageRecord::default()
    }
}

fn classes(listed: Option<&Classes>, mids: &Names, known: Option<usize>) -> Vec<ClassRecord> {
    let names = mids.iter().take(known.unwrap_or(mids.len()));
    let class = |(position, mid): (usize, &str)| {
        let name = listed.and_then(|listed| listed.names.get(position).cloned());
        ClassRecord {
            key: Some(mid.to_owned()),
            ..ClassRecord::named(position as i64 + 1, name.unwrap_or_else(|| mid.to_owned()))
        }
    };
    names.enumerate().map(class).collect()
}

/// Puts what the labels verify into the images' lists.
fn take_labels(records: &mut Records, labels: &Labels, known: usize) {
    records.counts = ReadCounts { lists: true, ..ReadCounts::default() };
    let mut repeated = 0;
    for label in labels.labels.iter().filter(|label| (label.class as usize) < known) {
        let image = &mut records.images[label.image as usize];
        let list = if label.present { &mut image.present_classes } else { &mut image.neg_classes };
        let class = ClassIndex(label.class);
        if list.contains(&class) {
            repeated += 1;
        } else {
            list.push(class);
        }
    }
    if repeated > 0 {
        records.notes.push(format!("labels that repeat an earlier one: {repeated}"));
    }
    let listing =
        |image: &&ImageRecord| !image.present_classes.is_empty() || !image.neg_classes.is_empty();
    records.counts.listing = records.images.iter().filter(listing).count();
}

/// The boxes as annotations, in the order of the file.
fn annotations(mut boxes: Vec<OpenImagesBox>, known: usize) -> Vec<Annotation> {
    let mut annotations = Vec::with_capacity(boxes.len());
    // From the end, so that what is done can be given back.
    while !boxes.is_empty() {
        let rest = boxes.split_off(boxes.len().saturating_sub(CHUNK));
        boxes.shrink_to_fit();
        let kept = rest.iter().rev().filter(|truth| (truth.class as usize) < known);
        annotations.extend(kept.map(annotation));
    }
    annotations.reverse();
    for (id, annotation) in (1..).zip(&mut annotations) {
        annotation.id = id;
    }
    annotations
}

fn annotation(truth: &OpenImagesBox) -> Annotation {
    let [x0, y0, x1, y1] = truth.bbox;
    let (width, height) = ((x1 - x0).max(0.0), (y1 - y0).max(0.0));
    Annotation {
        id: 0,
        image: truth.image,
        class: ClassIndex(truth.class),
        bbox: Xywh([x0, y0, width, height]),
        area: width * height,
        crowd: truth.group_of() == Flag::Yes,
        ignore: false,
    }
}

/// Finds the images: below a folder by id, by the first digit of the id, or in folders of the archives'
/// names (`train_0`).
fn place_images(records: &mut Records, folders: Vec<std::path::PathBuf>, watch: Watch<'_>) {
    let by_digit = |name: &str| format!("{}/{name}", &name[..1]);
    let plain: Vec<String> = sample(&records.images).into_iter().map(str::to_owned).collect();
    let mut lists = vec![plain];
    if records.images.iter().all(|image| image.file_name.is_char_boundary(1)) {
        lists.push(lists[0].iter().map(|name| by_digit(name)).collect());
    }
    let roots = Roots::new(folders, watch);
    let Some((list, root)) = roots.find(&lists) else { return };
    records.images_at = Some(root.to_owned());
    if list > 0 {
        for image in &mut records.images {
            image.file_name = by_digit(&image.file_name);
        }
    }
}

/// Tells what of the files is not in the set.
fn note_left_out(
    records: &mut Records,
    boxes: &Boxes,
    labels: &Labels,
    known: Option<usize>,
    mids: &Names,
) {
    if let Some(known) = known {
        let of_boxes = boxes.boxes.iter().map(|truth| truth.class);
        note_strangers(records, "boxes", of_boxes, known, mids);
        let of_labels = labels.labels.iter().map(|label| label.class);
        note_strangers(records, "verified labels", of_labels, known, mids);
    }
    let unknown = boxes.boxes.iter().filter(|truth| truth.group_of() == Flag::Unknown).count();
    for (count, what) in [
        (labels.unverified, "labels of a machine, which verify nothing"),
        (unknown, "boxes of which nobody said whether they are a group: taken for none"),
        (boxes.beyond, "boxes that reach beyond the image"),
    ] {
        if count > 0 {
            records.notes.push(format!("{what}: {count}"));
        }
    }
}

fn note_strangers(
    records: &mut Records,
    what: &str,
    classes: impl Iterator<Item = u32>,
    known: usize,
    mids: &Names,
) {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for class in classes.filter(|&class| class as usize >= known) {
        *counts.entry(class).or_default() += 1;
    }
    if counts.is_empty() {
        return;
    }
    let total: usize = counts.values().sum();
    let named: Vec<&str> = counts.keys().take(NAMED).filter_map(|&class| mids.get(class)).collect();
    let more = if counts.len() > named.len() { ", …" } else { "" };
    records.notes.push(format!(
        "{what} of classes that are not in the list of classes, left out: {total} ({}{more})",
        named.join(", ")
    ));
}

/// What a file is called in notes.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
