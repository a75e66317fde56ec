//! Files that are right, files that are wrong in one way each, and real files.
#![allow(clippy::unwrap_used)]

mod malformed;
mod real;

use std::{io::Write as _, path::Path};

use super::{Counted, Dataset, LoadReport};
use crate::{
    boxes::{Xywh, Xyxy},
    data::{formats::coco, records::AnnotationFormat},
    error::Result,
    json,
    random::{Random, Stream},
    vocabulary::{ClassIndex, Frequency},
};

/// A file with that content; deleted with the handle.
fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

/// What reports call the format.
const COCO: &str = "COCO or LVIS JSON";

/// More than the small files have.
const WHOLE: usize = 4 << 20;

/// Reads a file so many bytes at a time.
fn open_in_chunks(path: &Path, chunk: usize) -> Result<Dataset> {
    let mut dataset =
        Dataset::of(path, coco::read(path, json::open(path)?, chunk, true, &|| Ok(()))?);
    dataset.report.format = COCO;
    Ok(dataset)
}

fn open(content: &str) -> Result<Dataset> {
    Dataset::open(file(content.as_bytes()).path())
}

/// Two images, of which the second has no boxes; category ids with holes, not in order; one crowd,
/// one box beyond the image, one empty; escapes and braces in strings.
const SMALL: &str = r#"{
  "info": {"quote \" brace {": ["]", {"a": "}\\"}], "n": -1.5e3, "t": true},
  "annotations": [
    {"id": 7, "image_id": 20, "category_id": 90, "bbox": [10, 20, 30.25, 40], "area": 600.5,
     "iscrowd": 0, "segmentation": [[10, 20, 40.25, 20, 10, 60]]},
    {"id": 5, "image_id": 20, "category_id": 3, "bbox": [-5, 90, 10, 20], "segmentation": []},
    {"bbox": [0, 0, 100, 100], "iscrowd": 1, "id": 9, "image_id": 20, "category_id": 3,
     "segmentation": {"counts": "a{]\\\"", "size": [100, 100]}, "extra": {"bbox": 1}},
    {"id": 6, "image_id": 20, "category_id": 3, "bbox": [100, 0, 10, 10], "area": 100}
  ],
  "version": 3,
  "images": [
    {"id": 20, "file_name": "a\\b.jpg", "coco_url": "http://h/z.jpg", "width": 100, "height": 100},
    {"id": 10, "coco_url": "http://h.org/train2017/b.jpg?x=1", "width": 64.0, "height": 48}
  ],
  "categories": [
    {"id": 90, "name": "cup }", "synset": "cup.n.01"}, {"id": 3, "name": "mug"},
    {"id": 41, "name": "jug", "wnid": "n1", "lvis_clip_row": 5}
  ]
}"#;

#[test]
fn a_small_file_is_read_as_it_is() {
    let small = file(SMALL.as_bytes());
    let dataset = Dataset::open(small.path()).unwrap();
    assert_eq!(dataset.format(), AnnotationFormat::Coco);
    let files: Vec<_> = dataset.images().iter().map(|i| i.file_name.as_str()).collect();
    assert_eq!(files, ["a/b.jpg", "train2017/b.jpg"], "file_name wins over coco_url");
    assert_eq!(dataset.images()[1].size, Some([48, 64]));

    // Class indices follow the ids 3, 41, 90.
    let seen: Vec<_> = dataset.annotations_of(0).iter().map(|a| (a.id, a.class.0)).collect();
    assert_eq!(seen, [(7, 2), (5, 0), (9, 0), (6, 0)], "file order, raw");
    assert_eq!(dataset.annotations_of(0)[1].bbox, Xywh([-5.0, 90.0, 10.0, 20.0]));
    let areas: Vec<f64> = dataset.annotations().iter().map(|a| a.area).collect();
    assert_eq!(areas, [600.5, 200.0, 10_000.0, 100.0], "missing areas are width x height");
    assert!(dataset.annotations_of(1).is_empty());

    let trained = dataset.training_boxes(0);
    assert_eq!(
        trained,
        [
            (Xyxy([10.0, 20.0, 40.25, 60.0]), ClassIndex(2)),
            (Xyxy([0.0, 90.0, 5.0, 100.0]), ClassIndex(0)),
        ],
        "the crowd is left out, one box is clipped, the one outside dropped"
    );
    assert!(dataset.training_boxes(1).is_empty());

    let classes = dataset.vocabulary().categories();
    let counts: Vec<_> =
        classes.iter().map(|c| (c.name.as_str(), c.image_count, c.instance_count)).collect();
    assert_eq!(counts, [("mug", 1, 3), ("jug", 0, 0), ("cup }", 1, 1)]);
    assert!(classes.iter().all(|c| c.frequency == Frequency::Rare));
    assert_eq!((classes[1].wnid.as_deref(), classes[1].text_row), (Some("n1"), Some(5)));
    assert_eq!(classes[2].synset.as_deref(), Some("cup.n.01"));
    assert_eq!(
        *dataset.report(),
        LoadReport {
            format: COCO,
            images: 2,
            annotations: 4,
            categories: 3,
            by_frequency: [3, 0, 0],
            unseen_categories: 1,
            images_without_boxes: 1,
            crowd: 1,
            clipped: Counted { count: 2, ids: vec![5, 6] },
            degenerate: Counted { count: 1, ids: vec![6] },
            computed_image_count: 3,
            computed_instance_count: 3,
            computed_frequency: 3,
            computed_area: 2,
            ..LoadReport::default()
        }
    );
    let text = dataset.report().to_string();
    assert!(text.starts_with("2 images, 4 annotations, 3 classes (3 rare, 0 common, 0 frequent)"));
    assert!(
        text.contains("crowd regions, not trained on: 1") && text.contains("image_count of 3"),
        "{text}"
    );
}

#[test]
fn wherever_a_chunk_ends_the_result_is_the_same() {
    let small = file(SMALL.as_bytes());
    let whole = Dataset::open(small.path()).unwrap();
    for chunk in 1..=SMALL.len() {
        let parts = open_in_chunks(small.path(), chunk).unwrap();
        assert_eq!(parts.annotations(), whole.annotations(), "chunks of {chunk}");
        assert_eq!(parts.images(), whole.images(), "chunks of {chunk}");
        assert_eq!(parts.vocabulary(), whole.vocabulary(), "chunks of {chunk}");
        assert_eq!(parts.report(), whole.report(), "chunks of {chunk}");
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for end in 0..SMALL.len() {
        let cut = file(&SMALL.as_bytes()[..end]);
        for chunk in [WHOLE, 7] {
            let message = open_in_chunks(cut.path(), chunk).unwrap_err().to_string();
            let told = ["truncated", "empty", "white space"];
            assert!(told.iter().any(|t| message.contains(t)), "cut at {end}: {message}");
        }
    }
}

/// Any byte changed to any of these gives a dataset or an error, in every chunking the same.
#[test]
fn no_changed_byte_panics() {
    for at in 0..SMALL.len() {
        let mut random = Random::new(0, Stream::Test, 3, at as u64);
        for new in [b'"', b'{', b']', b'\\', b'-', 0xff, random.bits() as u8] {
            let mut bytes = SMALL.as_bytes().to_vec();
            bytes[at] = new;
            let changed = file(&bytes);
            let outcome = |chunk| match open_in_chunks(changed.path(), chunk) {
                Ok(dataset) => {
                    let each = 0..dataset.images().len();
                    let trained: Vec<_> = each.map(|i| dataset.training_boxes(i)).collect();
                    format!("{:?} {trained:?}", dataset.annotations())
                }
                Err(e) => e.to_string(),
            };
            assert_eq!(outcome(WHOLE), outcome(11), "byte {at} = {new}");
        }
    }
}

/// COCO knows of every class; LVIS of those it names.
#[test]
fn knowledge_of_absent_classes_follows_the_format() {
    let dataset = open(SMALL).unwrap();
    let knowledge = dataset.knowledge(0);
    assert_eq!(knowledge.present, [ClassIndex(0), ClassIndex(2)]);
    assert!(
        knowledge.absent.is_empty() && knowledge.exhaustive.len() == dataset.vocabulary().len()
    );
    assert_eq!(dataset.knowledge(1).exhaustive, knowledge.exhaustive);

    // Class 90 is listed as absent although it has a box, class 41 twice.
    let lvis = SMALL.replace(
        r#"{"id": 20,"#,
        r#"{"id": 20, "neg_category_ids": [90, 41, 41], "not_exhaustive_category_ids": [3],"#,
    );
    let dataset = open(&lvis).unwrap();
    assert_eq!(dataset.format(), AnnotationFormat::Lvis);
    assert_eq!(dataset.images()[0].neg_classes, [2, 1, 1].map(ClassIndex), "as in the file");
    let knowledge = dataset.knowledge(0);
    assert_eq!(knowledge.present, [ClassIndex(0), ClassIndex(2)]);
    assert_eq!(knowledge.absent, [ClassIndex(1)], "a box outweighs the list");
    assert_eq!(knowledge.not_exhaustive, [ClassIndex(0)]);
    assert!(knowledge.exhaustive.is_empty());
    assert!(dataset.knowledge(1).exhaustive.is_empty(), "the whole file is LVIS");

    let empty = SMALL.replace(r#"{"id": 20,"#, r#"{"id": 20, "neg_category_ids": [],"#);
    assert_eq!(
        open(&empty).unwrap().format(),
        AnnotationFormat::Coco,
        "empty lists verify nothing"
    );
    // Lists may name classes that were taken out of the file.
    let removed = SMALL.replace(r#"{"id": 20,"#, r#"{"id": 20, "neg_category_ids": [42, 41, 43],"#);
    let dataset = open(&removed).unwrap();
    assert_eq!((dataset.format(), dataset.report().removed_listed), (AnnotationFormat::Lvis, 2));
    let image = dataset.images().iter().find(|image| image.id == 20).unwrap();
    assert_eq!(image.neg_classes, [ClassIndex(1)]);
}

/// What a box says outweighs a list, and of two lists the weaker claim holds: as in lvis-api, where
/// detections of a class in both lists are ignored.
#[test]
fn lists_that_contradict_boxes_or_each_other_are_counted_with_their_images() {
    let lists = |negative: &str, not_exhaustive: &str| {
        let lists = format!(
            r#"{{"id": 20, "neg_category_ids": {negative}, "not_exhaustive_category_ids": {not_exhaustive},"#
        );
        open(&SMALL.replace(r#"{"id": 20,"#, &lists)).unwrap()
    };
    let one = Counted { count: 1, ids: vec![20] };
    // Classes 3 and 90 have boxes in image 20, class 41 has none.
    for (negative, not_exhaustive, with_boxes, in_both) in [
        ("[41]", "[]", false, false),
        ("[41]", "[3]", false, false),
        ("[90]", "[]", true, false),
        ("[90, 3, 41, 90]", "[90]", true, false),
        ("[41]", "[41]", false, true),
        ("[41, 90]", "[3, 41]", true, true),
    ] {
        let dataset = lists(negative, not_exhaustive);
        let report = dataset.report();
        let expected = |is: bool| if is { one.clone() } else { Counted::default() };
        let what = format!("{negative} {not_exhaustive}");
        assert_eq!(report.absent_with_boxes, expected(with_boxes), "{what}");
        assert_eq!(report.absent_and_not_exhaustive, expected(in_both), "{what}");
        let text = report.to_string();
        for (part, is) in [
            ("a class in their neg_category_ids, the boxes count: 1 (image id 20)", with_boxes),
            ("taken as not exhaustively annotated: 1 (image id 20)", in_both),
        ] {
            assert_eq!(text.contains(part), is, "{what}: {text}");
        }
        assert_eq!(dataset.knowledge(0).present, [ClassIndex(0), ClassIndex(2)], "{what}");
        assert_eq!(dataset.training_boxes(0).len(), 2, "{what}: no box is lost");
    }
    // An image without boxes contradicts none.
    let other = SMALL.replace(r#"{"id": 10,"#, r#"{"id": 10, "neg_category_ids": [90, 3],"#);
    assert_eq!(open(&other).unwrap().report().absent_with_boxes, Counted::default());
}

#[test]
fn missing_counts_are_counted_and_given_ones_kept() {
    let mut annotations = Vec::new();
    // Class 1 in 11 images, two boxes in each; class 2 in one.
    for image in 0..11 {
        for _ in 0..2 {
            annotations.push((image, 1));
        }
    }
    annotations.push((4, 2));
    let annotations: Vec<String> = annotations
        .iter()
        .enumerate()
        .map(|(id, (image, class))| {
            format!(r#"{{"id":{id},"image_id":{image},"category_id":{class},"bbox":[0,0,9,9]}}"#)
        })
        .collect();
    let images: Vec<String> = (0..11)
        .map(|i| format!(r#"{{"id":{i},"file_name":"{i}.jpg","width":10,"height":10}}"#))
        .collect();
    let with = |second: &str| {
        let (annotations, images) = (annotations.join(","), images.join(","));
        open(&format!(
            r#"{{"images":[{images}],"annotations":[{annotations}],"categories":[{{"id":1,"name":"a"}},{{"id":2,"name":"b"{second}}}]}}"#
        ))
        .unwrap()
    };
    let dataset = with("");
    let [a, b] = dataset.vocabulary().categories() else { panic!() };
    assert_eq!((a.image_count, a.instance_count, a.frequency), (11, 22, Frequency::Common));
    assert_eq!((b.image_count, b.instance_count, b.frequency), (1, 1, Frequency::Rare));

    let dataset = with(r#","image_count":500,"instance_count":900"#);
    let b = &dataset.vocabulary().categories()[1];
    assert_eq!((b.image_count, b.instance_count, b.frequency), (500, 900, Frequency::Frequent));
    assert_eq!(dataset.report().computed_image_count, 1);

    let dataset = with(r#","frequency":"c""#);
    let b = &dataset.vocabulary().categories()[1];
    assert_eq!((b.image_count, b.frequency), (1, Frequency::Common));
    assert_eq!(
        (dataset.report().computed_frequency, dataset.report().computed_image_count),
        (1, 2)
    );
}

#[test]
fn boxes_in_another_convention_are_noticed() {
    let with = |bbox: &str| {
        open(&SMALL.replace("[10, 20, 30.25, 40]", bbox).replace("[-5, 90, 10, 20]", bbox)).unwrap()
    };
    let warned = |bbox: &str| with(bbox).report().warnings.join(" ");
    assert_eq!(warned("[50, 60, 50, 40]"), "");
    assert!(warned("[50, 60, 90, 95]").contains("are these two corners?"));
    assert!(warned("[0.1, 0.2, 0.3, 0.3]").contains("relative to the image?"));
    let dataset = open(&SMALL.replace("\"mug\"", "\"jug\"")).unwrap();
    assert!(dataset.report().warnings[0].contains("more than one category is called `jug`"));
}

#[test]
fn a_file_without_any_box_is_read() {
    let start = SMALL.find("\"annotations\"").unwrap();
    let end = SMALL.find("\"version\"").unwrap();
    let none = format!("{}\"annotations\": [ ], {}", &SMALL[..start], &SMALL[end..]);
    let dataset = open(&none).unwrap();
    assert_eq!((dataset.annotations().len(), dataset.report().images_without_boxes), (0, 2));
    assert!(dataset.report().warnings[0].contains("no annotations"));
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    let marked = open(&format!("\u{feff} {SMALL}\n")).unwrap();
    let plain = open(SMALL).unwrap();
    assert_eq!(marked.images(), plain.images());
    assert_eq!(marked.annotations(), plain.annotations());
}

#[test]
fn a_gzip_archive_is_read_and_a_damaged_one_is_named() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(SMALL.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let plain = open(SMALL).unwrap();
    // As one archive, and as two that were joined.
    let whole = file(&packed);
    let dataset = Dataset::open(whole.path()).unwrap();
    assert_eq!((dataset.images(), dataset.annotations()), (plain.images(), plain.annotations()));
    let mut again = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    again.write_all(&packed).unwrap();
    let message = Dataset::open(file(&again.finish().unwrap()).path()).unwrap_err().to_string();
    assert!(message.contains("gzip archive within a gzip archive"), "{message}");
    for cut in [2, 5, 12, packed.len() / 2, packed.len() - 3] {
        let cut = file(&packed[..cut]);
        let message = Dataset::open(cut.path()).unwrap_err().to_string();
        assert!(message.contains("gzip archive is damaged or cut off"), "{message}");
    }
}

/// gzip's own rule: zeros behind the end are a tape's padding, anything else is not passed over.
#[test]
fn zeros_behind_a_gzip_archive_are_padding_and_nothing_else_is() {
    let pack = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let (start, end) = SMALL.split_at(SMALL.len() / 2);
    let plain = open(SMALL).unwrap();
    let (one, two) = (pack(SMALL), [pack(start), pack(end)].concat());
    // More zeros than are read at a time.
    for padding in [0, 1, 2, 17, 512, 100_000] {
        for packed in [&one, &two] {
            let padded = [packed.as_slice(), &vec![0; padding]].concat();
            let dataset = Dataset::open(file(&padded).path()).unwrap();
            assert_eq!(dataset.annotations(), plain.annotations(), "{padding}");
            assert_eq!(dataset.images(), plain.images(), "{padding}");
        }
    }
    let zeros = [0; 9];
    for rest in [
        b"x".to_vec(),
        b"\n".to_vec(),
        vec![0x1f],
        vec![0x1f, 0x8b],
        [&zeros[..], b"x"].concat(),
        // gzip, too, takes this for rubbish.
        [&zeros[..], &pack(" ")].concat(),
    ] {
        let message =
            Dataset::open(file(&[one.clone(), rest].concat()).path()).unwrap_err().to_string();
        assert!(message.contains("gzip archive is damaged or cut off"), "{message}");
        assert!(message.contains("hint: "), "{message}");
    }
    // Between two halves they are not passed over in silence.
    let apart = [pack(start), zeros.to_vec(), pack(end)].concat();
    assert!(Dataset::open(file(&apart).path()).is_err());
}

#[test]
fn sizes_may_be_left_out_and_boxes_are_clipped_once_they_are_known() {
    for instead in ["", r#", "width": null, "height": null"#] {
        let text = SMALL.replace(r#", "width": 100, "height": 100"#, instead);
        let dataset = open(&text).unwrap();
        assert_eq!(dataset.images()[0].size, None, "{text}");
        assert_eq!(dataset.report().unknown_sizes, 1);
    }
}

/// Of a file that was written twice into one: images under two ids, boxes said again.
#[test]
fn what_is_there_twice_is_counted_with_its_ids() {
    let image = |id: i64, name: &str| {
        format!(r#"{{"id":{id},"file_name":"{name}","width":50,"height":50}}"#)
    };
    let boxed = |id: i64, image: i64, class: i64, bbox: &str, crowd: u8| {
        format!(
            r#"{{"id":{id},"image_id":{image},"category_id":{class},"bbox":{bbox},"iscrowd":{crowd}}}"#
        )
    };
    let images = [image(1, "a.jpg"), image(2, "b.jpg"), image(7, "./a.jpg"), image(9, "a.jpg")];
    let annotations = [
        boxed(10, 1, 3, "[1, 2, 3, 4]", 0),
        boxed(11, 1, 3, "[1, 2, 3, 4]", 0),
        boxed(12, 2, 3, "[1, 2, 3, 4]", 0),
        boxed(13, 1, 4, "[1, 2, 3, 4]", 0),
        boxed(14, 1, 3, "[1, 2, 3, 4.5]", 0),
        boxed(15, 1, 3, "[1.0, 2, 3, 4]", 0),
        boxed(16, 2, 4, "[1, 2, 3, 4]", 1),
        boxed(17, 2, 4, "[1, 2, 3, 4]", 1),
        boxed(18, 2, 4, "[60, 2, 3, 4]", 0),
    ];
    let categories = r#"{"id":0,"name":"fish-x","supercategory":"none"},
        {"id":3,"name":"cod","supercategory":"fish-x"},
        {"id":4,"name":"eel","supercategory":"fish-x"},
        {"id":5,"name":"ray","supercategory":"fish-x"}"#;
    let text = format!(
        r#"{{"images":[{}],"annotations":[{}],"categories":[{categories}]}}"#,
        images.join(","),
        annotations.join(",")
    );
    let dataset = Dataset::open(file(text.as_bytes()).path()).unwrap();
    let report = dataset.report();
    assert_eq!(report.same_file, Counted { count: 2, ids: vec![7, 9] });
    assert_eq!(report.repeated, Counted { count: 2, ids: vec![11, 15] });
    assert_eq!(report.degenerate, Counted { count: 1, ids: vec![18] });
    let said = report.to_string();
    for line in [
        "images with the same file as an earlier one: 2 (image ids 7, 9)",
        "boxes that repeat an earlier one of their image and class: 2 (annotation ids 11, 15)",
        "empty boxes, dropped from training: 1 (annotation id 18)",
        "category 0 `fish-x` has no boxes and is the supercategory of all others",
    ] {
        assert!(said.contains(line), "no `{line}` in {said}");
    }
    // With boxes of its own a root is a class like any other; so is an ordinary one without boxes.
    let text = text.replace(r#""category_id":4"#, r#""category_id":0"#);
    let said = Dataset::open(file(text.as_bytes()).path()).unwrap().report().to_string();
    assert!(!said.contains("supercategory"), "{said}");
}

#[test]
fn of_many_odd_boxes_the_first_ids_are_told() {
    let mut found = Counted::default();
    (1..=5).for_each(|id| found.add(id));
    assert_eq!(found.ids("annotation"), " (annotation ids 1, 2, 3, 4, 5)");
    found.add(6);
    assert_eq!(found.ids("annotation"), " (annotation ids 1, 2, 3, 4, 5, …)");
}
