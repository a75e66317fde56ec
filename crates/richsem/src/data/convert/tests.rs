//! What is written reads back as it was; what cannot be said is counted.
#![allow(clippy::unwrap_used)]

mod classes;
mod frames;
mod images;
mod inputs;
mod rests;
mod verified;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use super::{Conversion, ConversionReport, Target, convert};
use crate::{
    data::{dataset::Dataset, formats::Opening, records::AnnotationFormat},
    error::{Error, Result},
    hash::sha256_of_file,
    testing::shared,
    vocabulary::Frequency,
};

/// The `stop` of tests that do not stop.
static GO: AtomicBool = AtomicBool::new(false);

pub(super) fn go_on(_: crate::data::Reading) -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

fn to(target: Target, input: &Path, output: &Path) -> Result<ConversionReport> {
    convert(input, output, &Conversion::to(target), &GO, &mut go_on)
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

/// Every number of two sets, to the last digit.
fn assert_same(one: &Dataset, other: &Dataset) {
    assert_eq!(one.images(), other.images());
    assert_eq!(one.annotations(), other.annotations());
    assert_eq!(one.vocabulary(), other.vocabulary());
    assert_eq!(one.frequencies(), other.frequencies());
    assert_eq!(one.format(), other.format());
    for image in 0..one.images().len() {
        assert_eq!(one.knowledge(image), other.knowledge(image));
    }
    let facts = |set: &Dataset| -> Vec<_> {
        let classes = set.class_records().iter();
        classes.map(|c| (c.supercategory.clone(), c.image_count, c.instance_count)).collect()
    };
    assert_eq!(facts(one), facts(other));
}

/// What was counted as lost, as `train: crowd regions 2`.
fn lost(report: &ConversionReport) -> Vec<String> {
    let all = report.not_carried.lost().iter();
    all.map(|lost| format!("{}: {} {}", lost.part, lost.what, lost.count)).collect()
}

/// Numbers with digits to lose, ids with holes, a class without boxes, and all that a file may have.
const ODD: &str = r#"{"info": {}, "images": [
    {"id": 70, "file_name": "b/é \"1\".jpg", "width": 640, "height": 480},
    {"id": -3, "file_name": "a.jpg", "width": 1, "height": 100000}],
  "annotations": [
    {"id": 9, "image_id": -3, "category_id": 90, "bbox": [0.1, 1e-7, 0.30000000000000004, 99999.99999999999]},
    {"id": 4, "image_id": 70, "category_id": 1, "bbox": [-5.5, 3, 33.33333333333333, 7], "area": 0.1, "iscrowd": 1},
    {"id": 5, "image_id": 70, "category_id": 1, "bbox": [1, 2, 0, 0], "area": 1023.9999999999999, "ignore": 1}],
  "categories": [
    {"id": 90, "name": "a", "supercategory": "s"}, {"id": 0, "name": "unseen", "synset": "x.n.01"},
    {"id": 1, "name": "犬", "image_count": 7, "frequency": "f", "wnid": "n0", "lvis_clip_row": 3}]}"#;

#[test]
fn coco_becomes_the_same_coco() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(folder.path(), "odd.set.json", ODD);
    let output = folder.path().join("deep/out");
    let report = to(Target::Coco, &input, &output).unwrap();
    assert_eq!(report.splits[0].path, output.join("odd.json"));
    let (before, after) =
        (Dataset::open(&input).unwrap(), Dataset::open(&output.join("odd.json")).unwrap());
    assert_same(&before, &after);
    assert_eq!((report.splits[0].boxes, report.splits[0].crowds), (3, 1));
    assert_eq!((lost(&report), &report.notes), (vec![], &vec![]));
    assert_eq!(report.classes, ["unseen", "犬", "a"]);
    // What was written once is written the same again.
    to(Target::Coco, &output.join("odd.json"), &folder.path().join("again")).unwrap();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("deep/out/odd.json"), read("again/odd.json"));
}

#[test]
fn real_sets_become_the_same() {
    for (file, target) in [
        ("photos/coco_mini/instances.json", Target::Coco),
        ("evaluation/coco/rafael_voc2012_100_gt.json", Target::Coco),
        ("evaluation/coco/fce_ignore_gt.json", Target::Coco),
        ("evaluation/lvis/data_lvis_val_100.json", Target::Lvis),
        ("tinylvis/train.json", Target::Lvis),
        ("tinylvis/val.json", Target::Lvis),
    ] {
        let Some(input) = shared(file) else { continue };
        let output = tempfile::tempdir().unwrap();
        let how = Conversion { images: Some(super::PutImages::Keep), ..Conversion::to(target) };
        let report = convert(&input, output.path(), &how, &GO, &mut go_on).unwrap();
        let before = Dataset::open(&input).unwrap();
        assert_same(&before, &Dataset::open(&report.splits[0].path).unwrap());
        let is_lvis = before.format() == AnnotationFormat::Lvis;
        assert_eq!(is_lvis, target == Target::Lvis, "{file}");
        assert_eq!(lost(&report), [""; 0], "{file}");
    }
}

/// The sums are those of what `dataset from-voc` wrote, before sets of other formats could be converted.
#[test]
fn voc_becomes_the_coco_that_it_always_became() {
    let Some(archive) = shared("photos/bccd/BCCD.tar") else { return };
    let folder = tempfile::tempdir().unwrap();
    tar::Archive::new(std::fs::File::open(&archive).unwrap()).unpack(folder.path()).unwrap();
    for (input, images) in [(archive.as_path(), 364), (&folder.path().join("BCCD"), 0)] {
        let output = tempfile::tempdir().unwrap();
        let report = to(Target::Coco, input, output.path()).unwrap();
        for (split, (name, sum)) in report.splits.iter().zip([
            ("train", "05914cc9e58cf6c07321acbee6d3e6dcc3f3cac553f58fd9ae2148fde5d26ddb"),
            ("val", "f0d61639567e79914ea7d72ac6e4074836d2426c08fe7096b90ee9670ab560c4"),
            ("trainval", "c2bf9a2eb3c9c4c185943bcf2e005a009b8851a1266055c07d2f00c56f4c95c5"),
            ("test", "bf87974580d86e550370c8d42580bc7927d36e92640b3beb6a3c3d1f8701845f"),
        ]) {
            assert_eq!(split.path, output.path().join(format!("{name}.json")));
            assert_eq!(sha256_of_file(&split.path).unwrap(), sum, "{name}");
        }
        assert_eq!((report.splits.len(), lost(&report)), (4, vec![]));
        // Those of the archive are copied out of it, those of the folder stay.
        let put = output.path().join("images");
        assert_eq!(std::fs::read_dir(&put).map_or(0, Iterator::count), images);
        let place = if images > 0 { put } else { input.join("JPEGImages") };
        for split in &report.splits {
            assert_eq!(split.images_at.as_deref(), Some(&*place));
        }
        if images > 0 {
            let image = std::fs::read(place.join("BloodImage_00007.jpg")).unwrap();
            let original = folder.path().join("BCCD/JPEGImages/BloodImage_00007.jpg");
            assert_eq!(image, std::fs::read(original).unwrap());
            // What was written has its images beside it.
            let val = Opening { usual_split: Some("val"), ..Opening::default() };
            let val = Dataset::open_as(output.path(), &val).unwrap();
            assert_eq!((val.split(), val.images_at()), ("val", Some(&*place)));
        }
    }
}

/// Two parts: cat and dog in the training images, cat alone in the others.
fn two_parts(folder: &Path) {
    let image = |id: u32, name: &str| {
        format!(r#"{{"id": {id}, "file_name": "{name}", "width": 8, "height": 6}}"#)
    };
    let bbox = |id: u32, image: u32, class: u32, crowd: u32| {
        format!(
            r#"{{"id": {id}, "image_id": {image}, "category_id": {class}, "bbox": [0, 0, 4, 4],
            "iscrowd": {crowd}}}"#
        )
    };
    let classes =
        r#"[{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 4, "name": "cow"}]"#;
    for (part, images, boxes) in [
        (
            "train",
            vec![image(1, "a.png"), image(2, "b.png")],
            vec![bbox(1, 1, 1, 0), bbox(2, 1, 1, 0), bbox(3, 1, 2, 1), bbox(4, 2, 1, 0)],
        ),
        ("val", vec![image(3, "c.png")], vec![bbox(5, 3, 1, 0)]),
    ] {
        let (images, boxes) = (images.join(", "), boxes.join(", "));
        let text = format!(
            r#"{{"images": [{images}], "annotations": [{boxes}], "categories": {classes}}}"#
        );
        write(folder, &format!("{part}.json"), text);
    }
}

#[test]
fn lvis_is_given_the_lists_and_counts_that_coco_means() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    two_parts(input.path());
    let report = to(Target::Lvis, input.path(), output.path()).unwrap();
    assert_eq!(lost(&report), ["train: crowd regions 1"]);
    assert_eq!(
        report.notes,
        ["image_count, instance_count and frequency of 3 classes were counted in `train`"]
    );
    let val = Dataset::open(&report.splits[1].path).unwrap();
    assert_eq!(val.format(), AnnotationFormat::Lvis);
    let counts: Vec<_> = val
        .class_records()
        .iter()
        .map(|c| (c.image_count, c.instance_count, c.frequency))
        .collect();
    let rare = Some(Frequency::Rare);
    let expected = [(Some(2), Some(3), rare), (Some(1), Some(1), rare), (Some(0), Some(0), rare)];
    assert_eq!(counts, expected, "of the training images");
    let ids = |set: &Dataset, image: usize| -> Vec<i64> {
        let absent = set.images()[image].neg_classes.iter();
        absent.map(|class| set.vocabulary().category(*class).id.0).collect()
    };
    let train = Dataset::open(&report.splits[0].path).unwrap();
    assert_eq!((ids(&train, 0), ids(&train, 1), ids(&val, 0)), (vec![4], vec![2, 4], vec![2, 4]));
    let before = Dataset::open(&input.path().join("train.json")).unwrap();
    assert_eq!(train.annotations(), before.annotations());
    // What was known before is known still.
    for image in 0..2 {
        let (before, after) = (before.knowledge(image), train.knowledge(image));
        assert_eq!(before.present, after.present);
        let absent: Vec<_> =
            before.exhaustive.iter().filter(|c| !before.present.contains(c)).copied().collect();
        assert_eq!(absent, after.absent);
    }
}

#[test]
fn what_coco_cannot_say_of_lvis_is_counted() {
    let Some(input) = shared("evaluation/lvis/data_lvis_val_100.json") else { return };
    let output = tempfile::tempdir().unwrap();
    let report = to(Target::Coco, &input, output.path()).unwrap();
    let before = Dataset::open(&input).unwrap();
    let after = Dataset::open(&report.splits[0].path).unwrap();
    assert_eq!(
        (before.annotations(), before.vocabulary()),
        (after.annotations(), after.vocabulary())
    );
    assert_eq!(after.format(), AnnotationFormat::Coco);
    let count = |list: fn(&crate::data::records::ImageRecord) -> bool| {
        before.images().iter().filter(|image| list(image)).count()
    };
    let absent = count(|image| !image.neg_classes.is_empty());
    let partly = count(|image| !image.not_exhaustive_classes.is_empty());
    assert!(absent > 50 && partly > 10, "{absent} {partly}");
    let name = "data_lvis_val_100";
    assert_eq!(
        lost(&report),
        [
            format!("{name}: images with lists of classes verified absent {absent}"),
            format!("{name}: images with lists of classes not exhaustively annotated {partly}"),
        ]
    );
}

#[test]
fn one_part_may_be_meant() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    two_parts(input.path());
    let opening = Opening { split: Some("validation".into()), ..Opening::default() };
    let how = Conversion { opening, ..Conversion::to(Target::Coco) };
    let report = convert(input.path(), output.path(), &how, &GO, &mut go_on).unwrap();
    assert_eq!((report.splits.len(), report.splits[0].name.as_str()), (1, "val"));
    assert!(!output.path().join("train.json").exists());
}

#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    two_parts(input.path());
    write(output.path(), "val.json", "mine");
    write(output.path(), "other", "mine");
    let message = to(Target::Coco, input.path(), output.path()).unwrap_err().to_string();
    assert!(message.contains("exists and is not empty") && message.contains("hint"), "{message}");
    assert_eq!(std::fs::read(output.path().join("val.json")).unwrap(), b"mine");
    let how = Conversion { overwrite: true, ..Conversion::to(Target::Coco) };
    convert(input.path(), output.path(), &how, &GO, &mut go_on).unwrap();
    assert_eq!(Dataset::open(&output.path().join("val.json")).unwrap().annotations().len(), 1);
    assert_eq!(std::fs::read(output.path().join("other")).unwrap(), b"mine");
    assert_eq!(std::fs::read_dir(output.path()).unwrap().count(), 3, "nothing temporary stays");
}

#[test]
fn an_error_or_a_stop_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    two_parts(&input);
    let output = folder.path().join("out");
    let stop = AtomicBool::new(true);
    let how = Conversion::to(Target::Coco);
    let error = convert(&input, &output, &how, &stop, &mut go_on).unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
    write(&input, "val.json", r#"{"images": [], "annotations": [{"id": "#);
    let message = to(Target::Coco, &input, &output).unwrap_err().to_string();
    assert!(message.contains("val.json"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let empty = tempfile::tempdir().unwrap();
    for (input, says) in
        [(folder.path().join("absent"), "absent"), (empty.path().to_owned(), "format")]
    {
        let message = to(Target::Coco, &input, &output).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

/// A stop while a file is written ends the writing.
#[test]
fn a_stop_ends_a_file() {
    let folder = tempfile::tempdir().unwrap();
    two_parts(folder.path());
    let set = Dataset::open(&folder.path().join("train.json")).unwrap();
    let path = folder.path().join("out.json");
    let stop = AtomicBool::new(true);
    let error = super::json::write(
        &set,
        super::json::Kind::Coco,
        &super::json::More::default(),
        &path,
        &stop,
    )
    .unwrap_err();
    assert!(matches!(error, Error::Stopped) && !path.exists(), "{error}");
}

/// Of Open Images as COCO: text ids, classes that are seen and have no box, ids of entities.
const SEEN: &str = r#"{"images": [
    {"id": "0a", "file_name": "0a.jpg", "width": 9, "height": 9, "pos_category_ids": [1, 2], "neg_category_ids": []}],
  "annotations": [{"id": "f-1", "image_id": "0a", "category_id": 1, "bbox": [0, 0, 4, 4]}],
  "categories": [{"id": 1, "name": "dog", "freebase_id": "/m/0bt9lr", "synonyms": ["hound"]},
    {"id": 2, "name": "ball"}]}"#;

#[test]
fn ids_names_and_what_was_seen_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(folder.path(), "seen.json", SEEN);
    let before = Dataset::open(&input).unwrap();
    let report = to(Target::Lvis, &input, &folder.path().join("lvis")).unwrap();
    let after = Dataset::open(&report.splits[0].path).unwrap();
    assert_eq!((after.text_id(0), after.annotations()), (Some("0a"), before.annotations()));
    assert_eq!(after.annotation_text_id(&after.annotations()[0]), Some("f-1"));
    assert_eq!(after.knowledge(0), before.knowledge(0));
    let facts = |set: &Dataset| -> Vec<_> {
        set.class_records().iter().map(|c| (c.key.clone(), c.synonyms.clone())).collect()
    };
    assert_eq!(facts(&after), facts(&before));
    assert_eq!(facts(&after)[0].0.as_deref(), Some("/m/0bt9lr"));
    // Its image is not there.
    let how = Conversion { images: Some(super::PutImages::Keep), ..Conversion::to(Target::Yolo) };
    let report = convert(&input, &folder.path().join("yolo"), &how, &GO, &mut go_on).unwrap();
    let lost = lost(&report);
    let has = |what: &str| lost.iter().any(|line| line.contains(what));
    assert!(
        has("image ids 1") && has("more than the name is known, as synonyms or counts 1"),
        "{lost:?}"
    );
}

#[test]
fn old_labels_are_never_taken_for_new_ones() {
    let (input, output) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    two_parts(input.path());
    for name in ["a", "b", "c"] {
        image::RgbImage::new(8, 6).save(input.path().join(format!("{name}.png"))).unwrap();
    }
    write(output.path(), "labels/train/old.txt", "0 .5 .5 .1 .1");
    let how = Conversion { overwrite: true, ..Conversion::to(Target::Yolo) };
    let error =
        convert(input.path(), output.path(), &how, &GO, &mut go_on).unwrap_err().to_string();
    assert!(error.contains("labels` is there already"), "{error}");
}
