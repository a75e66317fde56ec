//! The samples, sets in parts, and files that are wrong in one way each.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::BoxForm;
use crate::{
    Result,
    data::{
        convert::{Conversion, Target, convert},
        dataset::Dataset,
        formats::Opening,
        image_store::ImageStore,
    },
    testing::shared,
};

fn boxes(set: &Dataset) -> Vec<(u32, u32, [f64; 4], f64)> {
    let all = set.annotations().iter();
    all.map(|a| (a.image, a.class.0, a.bbox.0, a.area)).collect()
}

fn classes(set: &Dataset) -> Vec<(i64, &str)> {
    set.vocabulary().categories().iter().map(|c| (c.id.0, c.name.as_str())).collect()
}

fn split(name: &str) -> Opening {
    Opening { split: Some(name.to_owned()), ..Opening::default() }
}

fn message(set: Result<Dataset>) -> String {
    set.map(|set| format!("{:?}", set.report())).unwrap_err().to_string()
}

const XYWH: BoxForm = BoxForm::Xywh;

#[test]
fn the_samples_are_read_with_their_images() {
    let Some(folder) = shared("samples/hf_parquet") else { return };
    let expected = vec![
        (0, 0, [4.0, 3.0, 20.0, 30.0], 600.0),
        (0, 2, [30.0, 10.0, 25.0, 25.0], 625.0),
        (2, 1, [0.0, 0.0, 64.0, 48.0], 3072.0),
    ];
    for (sample, first) in [("struct_of_lists", 0), ("list_of_structs", 1), ("imagefolder", 0)] {
        let set = Dataset::open_as(
            &folder.join(sample),
            &Opening { usual_split: Some("train"), ..Opening::default() },
        );
        let set = set.unwrap();
        assert_eq!(boxes(&set), expected, "{sample}");
        let names = match sample {
            "imagefolder" => ["class_0", "class_1", "class_2"],
            _ => ["Coverall", "Face_Shield", "Gloves"],
        };
        let ids: Vec<_> = (first..).zip(names).collect();
        assert_eq!(classes(&set), ids, "{sample}");
        let store = ImageStore::open(set.images_at().unwrap(), Default::default()).unwrap();
        for image in set.images() {
            let (width, height) = store.image(&image.file_name).unwrap().dimensions();
            assert_eq!(width * height, 64 * 48, "{sample}: {}", image.file_name);
        }
        let notes = set.report().notes.join("\n");
        let found = "boxes are read as xywh: nothing else is possible (of 3 boxes, inverted or beyond their \
                     image: 0 as xywh, 1 as xyxy, 3 as cxcywh)";
        assert!(notes.contains(found), "{notes}");
    }
}

/// A set of one image (64 by 48) and lines of records in folders.
fn image_folder(parts: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (part, lines) in parts {
        let part = folder.path().join(part);
        fs_err::create_dir_all(&part).unwrap();
        image::RgbImage::new(64, 48).save(part.join("a.png")).unwrap();
        fs_err::write(part.join("metadata.jsonl"), lines).unwrap();
    }
    folder
}

#[test]
fn names_of_classes_are_those_of_all_parts() {
    let record = |class: &str| {
        format!(
            r#"{{"file_name": "a.png", "objects": {{"bbox": [[30, 3, 20, 30], [40, 2, 20, 8]], "category": ["{class}", null]}}}}"#
        )
    };
    let folder = image_folder(&[("train", &record("dog")), ("validation", &record("cat"))]);
    for (part, class) in [("train", 1), ("val", 0)] {
        let set = Dataset::open_as(folder.path(), &split(part)).unwrap();
        assert_eq!(classes(&set), [(1, "cat"), (2, "dog")]);
        assert_eq!(boxes(&set), [(0, class, [30.0, 3.0, 20.0, 30.0], 600.0)]);
        let notes = set.report().notes.join("\n");
        assert!(notes.contains("boxes without a class (null, or -1), left out: 1"), "{notes}");
    }
    let text = message(Dataset::open(folder.path()));
    assert!(text.contains("several parts: `train`, `validation`"), "{text}");
}

#[test]
fn a_class_without_a_name_and_a_set_without_images_are_refused() {
    let line =
        r#"{"file_name": "a.png", "objects": {"bbox": [[30, 3, 20, 30]], "category": [" "]}}"#;
    let as_xywh = Opening { boxes: Some(XYWH), ..Opening::default() };
    let text = message(Dataset::open_as(image_folder(&[("", line)]).path(), &as_xywh));
    assert!(text.contains("classes: expected a name of class 1, got ` `"), "{text}");
}

#[test]
fn boxes_that_may_be_several_things_are_asked_for() {
    let line = r#"{"file_name": "a.png", "bboxes": [[10, 10, 20, 20]], "labels": [3]}"#;
    let folder = image_folder(&[("", line)]);
    let text = message(Dataset::open(folder.path()));
    let problem = "metadata.jsonl: boxes: the file does not say what the numbers of its boxes are, and its 1 \
                   boxes can be xywh or xyxy or cxcywh";
    assert!(text.contains(problem), "{text}");
    assert!(text.contains("say what they are: `boxes` (xywh, xyxy, cxcywh, xywh_shares"), "{text}");
    let chosen = |form| {
        let opening = Opening { boxes: Some(form), ..Opening::default() };
        Dataset::open_as(folder.path(), &opening).unwrap()
    };
    assert_eq!(boxes(&chosen(XYWH)), [(0, 0, [10.0, 10.0, 20.0, 20.0], 400.0)]);
    assert_eq!(boxes(&chosen(BoxForm::Xyxy)), [(0, 0, [10.0, 10.0, 10.0, 10.0], 100.0)]);
    assert_eq!(boxes(&chosen(BoxForm::Cxcywh)), [(0, 0, [0.0, 0.0, 20.0, 20.0], 400.0)]);
    assert_eq!(classes(&chosen(XYWH)), [(3, "class_3")]);
    // To predict, boxes are not needed.
    let set = Dataset::open_images(folder.path()).unwrap();
    assert_eq!((set.images().len(), set.annotations().len()), (1, 0));
    assert!(set.report().notes.join("\n").contains("boxes are left out: the file does not say"));
}

#[test]
fn shares_become_pixels() {
    let line = r#"{"file_name": "a.png", "objects": [{"bbox": [0.5, 0.25, 0.25, 0.75], "label": 0, "area": 9},
        {"bbox": [0, 0, 0.5, 1], "label": 1, "iscrowd": 1}]}"#;
    let folder = image_folder(&[("", &line.replace('\n', " "))]);
    let set = Dataset::open(folder.path()).unwrap();
    let expected =
        [(0, 0, [32.0, 12.0, 16.0, 36.0], 576.0), (0, 1, [0.0, 0.0, 32.0, 48.0], 1536.0)];
    assert_eq!(boxes(&set), expected);
    assert!(set.annotations()[1].crowd && !set.annotations()[0].crowd);
    let notes = set.report().notes.join("\n");
    assert!(notes.contains("boxes are read as xywh_shares"), "{notes}");
}

#[test]
fn other_formats_say_what_their_boxes_are() {
    let Some(path) = shared("samples/coco_odd/odd.json") else { return };
    let opening = Opening { boxes: Some(XYWH), ..Opening::default() };
    let text = message(Dataset::open_as(&path, &opening));
    assert!(text.contains("`boxes`: COCO or LVIS JSON says what the numbers"), "{text}");
}

#[test]
fn images_without_a_record_and_records_without_an_image_are_told() {
    let line = |name: &str| {
        format!(
            r#"{{"file_name": "{name}", "objects": {{"bbox": [[4, 3, 20, 45], [30, 1, 20, 20]], "category": [0, 0]}}}}"#
        )
    };
    let folder =
        image_folder(&[("", &format!("\u{feff}{}\r\n\n{}", line("a.png"), line("b.png")))]);
    image::RgbImage::new(8, 8).save(folder.path().join("c.png")).unwrap();
    let set = Dataset::open(folder.path()).unwrap();
    assert_eq!(set.images().len(), 2);
    let report = set.report();
    let text = format!("{} {}", report.notes.join("\n"), report.warnings.join("\n"));
    assert!(text.contains("metadata.jsonl does not name, left out: 1 (c.png)"), "{text}");
    assert!(text.contains("1 image of metadata.jsonl not there: b.png"), "{text}");
}

#[test]
fn mistakes_in_records_are_named_with_their_line() {
    let first = r#"{"file_name": "a.png", "objects": {"bbox": [[4, 3, 20, 45]], "category": [0]}}"#;
    for (line, expected) in [
        ("{", "line 2: expected a JSON object, got what is none: EOF"),
        ("[1]", "line 2: expected a JSON object, got what is none"),
        (first, "line 2: file_name: the image `a.png` is on a line before, too"),
        (r#"{"objects": null}"#, "line 2: file_name: missing"),
        (r#"{"file_name": 3}"#, "line 2: file_name: expected a text, got 3"),
        (r#"{"file_name": "../b.png"}"#, "line 2: file_name: the path leaves the image root"),
        (
            r#"{"file_name": "b.png", "objects": {"bbox": [[1, 2, 3]], "category": [0]}}"#,
            "line 2: bbox: expected four numbers, got [1,2,3]",
        ),
        (
            r#"{"file_name": "b.png", "objects": {"bbox": [[1, 2, 3, "4"]], "category": [0]}}"#,
            "line 2: bbox: expected four numbers",
        ),
        (
            r#"{"file_name": "b.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": []}}"#,
            "line 2: category: 0 values for 1 boxes",
        ),
        (
            r#"{"file_name": "b.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": [1.5]}}"#,
            "line 2: category: expected a whole number or a text, got 1.5",
        ),
        (
            r#"{"file_name": "b.png", "objects": 3}"#,
            "line 2: objects: expected an object or a list",
        ),
        (r#"{"file_name": "b.png", "width": "w"}"#, "line 2: width: expected a whole number"),
    ] {
        let folder = image_folder(&[("", &format!("{first}\n{line}\n"))]);
        let text = message(Dataset::open(folder.path()));
        assert!(text.contains(expected), "{line}: {text}");
    }
    // Bytes that are no text.
    let folder = image_folder(&[("", first)]);
    let mut bytes = first.as_bytes().to_vec();
    bytes.extend(b"\n{\"file_name\": \"\xff\"}");
    fs_err::write(folder.path().join("metadata.jsonl"), bytes).unwrap();
    let text = message(Dataset::open(folder.path()));
    assert!(text.contains("line 2: expected a JSON object"), "{text}");
}

#[test]
fn captions_are_no_boxes() {
    let folder = image_folder(&[("", r#"{"file_name": "a.png", "text": "a bbox"}"#)]);
    let text = message(Dataset::open(folder.path()));
    assert!(text.contains("a folder of no known format"), "{text}");
}

/// The sample's table under other names.
fn tables(names: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    let sample = shared("samples/hf_parquet/struct_of_lists/data/train-00000-of-00001.parquet")?;
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let path = folder.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::copy(&sample, path).unwrap();
    }
    Some((folder, sample))
}

#[test]
fn files_are_parts_by_their_names() {
    let names = [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/validation-00000-of-00001.parquet",
    ];
    let Some((folder, sample)) = tables(&names) else { return };
    let open = |part: &str| Dataset::open_as(folder.path(), &split(part));
    for (part, images, place) in [
        ("train", 6, "data/train-[0-9]*.parquet"),
        ("val", 3, "data/validation-00000-of-00001.parquet"),
        ("test", 3, "data/test-00000-of-00001.parquet"),
    ] {
        let set = open(part).unwrap();
        assert_eq!((set.images().len(), set.annotations().len()), (images, images));
        let place = folder.path().join(place);
        assert_eq!(set.images_at(), Some(&*place));
        let store = ImageStore::open(&place, Default::default()).unwrap();
        assert!(set.images().iter().all(|image| store.contains(&image.file_name)), "{part}");
        // Two files have the same ids.
        let repeated = set.report().notes.iter().any(|note| note.contains("numbered from 1"));
        assert_eq!(repeated, part == "train");
    }
    let text = message(open("dev"));
    assert!(text.contains("no part `dev`; it has `test`, `train`, `validation`"), "{text}");
    // A file alone, a pattern, folders of parts, and names that are no parts.
    assert_eq!(Dataset::open(&sample).unwrap().images().len(), 3);
    let pattern = folder.path().join("data/train-*.parquet");
    assert_eq!(Dataset::open(&pattern).unwrap().images().len(), 6);
    let Some((folder, _)) = tables(&["train/0000.parquet", "valid/0000.parquet"]) else { return };
    let set = Dataset::open_as(folder.path(), &split("val")).unwrap();
    assert_eq!((set.split(), set.images().len()), ("valid", 3));
    let Some((folder, _)) = tables(&["0000.parquet", "0001.parquet"]) else { return };
    let set = Dataset::open(folder.path()).unwrap();
    assert_eq!((set.split(), set.images().len()), ("", 6));
}

#[test]
fn broken_tables_say_so() {
    let Some((folder, sample)) = tables(&[]) else { return };
    let path = folder.path().join("train.parquet");
    let whole = fs_err::read(sample).unwrap();
    for length in [4, 100, whole.len() - 1] {
        fs_err::write(&path, &whole[..length]).unwrap();
        for place in [folder.path(), &*path] {
            let text = message(Dataset::open(place));
            assert!(text.contains("train.parquet: parquet: cannot be read"), "{text}");
        }
    }
    fs_err::write(&path, "").unwrap();
    assert!(message(Dataset::open(&path)).contains("an empty file"));
    fs_err::write(&path, "PAR2").unwrap();
    assert!(message(Dataset::open(&path)).contains("it begins with `PAR2`"));
}

#[test]
fn a_table_is_converted_with_its_images() {
    let Some(path) = shared("samples/hf_parquet/struct_of_lists") else { return };
    let out = tempfile::tempdir().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    convert(&path, out.path(), &Conversion::to(Target::Coco), &stop, &mut |_| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let set = Dataset::open_as(&out.path().join("train.json"), &Opening::default()).unwrap();
    assert_eq!((set.images().len(), set.annotations().len()), (3, 3));
    let store = ImageStore::open(set.images_at().unwrap(), Default::default()).unwrap();
    assert!(set.images().iter().all(|image| store.image(&image.file_name).is_ok()));
}

/// The same records in both files.
#[test]
fn records_may_be_csv() {
    let jsonl = r#"{"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4], [0, 0, 2, 2]], "category": ["cat", "dog"]}}
{"file_name": "b.png", "objects": {"bbox": [], "category": []}}
"#;
    let csv = "file_name,objects,source\n\
        a.png,\"{\"\"bbox\"\": [[1, 2, 3, 4], [0, 0, 2, 2]], \"\"category\"\": [\"\"cat\"\", \"\"dog\"\"]}\",web\n\
        b.png,\"{\"\"bbox\"\": [], \"\"category\"\": []}\",\n";
    let lists = "file_name,bbox,category\n\
        a.png,\"[[1, 2, 3, 4], [0, 0, 2, 2]]\",\"[\"\"cat\"\", \"\"dog\"\"]\"\n\
        b.png,[],[]\n";
    let open = |name: &str, text: &str| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            image::RgbImage::new(9, 8).save(folder.path().join(name)).unwrap();
        }
        fs_err::write(folder.path().join(name), text).unwrap();
        let opening = Opening { boxes: Some(BoxForm::Xywh), ..Opening::default() };
        Dataset::open_as(folder.path(), &opening)
    };
    let expected = open("metadata.jsonl", jsonl).unwrap();
    assert_eq!(expected.annotations().len(), 2);
    for text in [csv, lists] {
        let set = open("metadata.csv", text).unwrap();
        assert_eq!(set.format_name(), "imagefolder");
        assert_eq!((set.images(), set.annotations()), (expected.images(), expected.annotations()));
        assert_eq!(set.vocabulary(), expected.vocabulary());
    }
    let python = "file_name,objects\na.png,\"{'bbox': [[1, 2, 3, 4]]}\"\n";
    let text = message(open("metadata.csv", python));
    assert!(text.contains("metadata.csv: line 2: objects: expected an object or a list"), "{text}");
    assert!(text.contains("stand as JSON"), "{text}");
    let short = "file_name,bbox\na.png\n";
    assert!(message(open("metadata.csv", short)).contains("metadata.csv: line 2"));
}

#[test]
fn files_of_a_part_that_are_missing_are_named() {
    let sample = "samples/hf_parquet/struct_of_lists/data/train-00000-of-00001.parquet";
    let Some(sample) = shared(sample) else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs_err::create_dir(&data).unwrap();
    let warnings = |path: &std::path::Path| {
        let opening = Opening { boxes: Some(XYWH), ..split("train") };
        Dataset::open_as(path, &opening).unwrap().report().warnings.join("\n")
    };
    let put = |number: usize| {
        let name = data.join(format!("train-0000{number}-of-00003.parquet"));
        fs_err::copy(&sample, &name).unwrap();
        name
    };
    put(0);
    let text = warnings(folder.path());
    let says = "2 files are not there: train-00001-of-00003.parquet, train-00002-of-00003.parquet";
    assert!(text.contains(says), "{text}");
    put(2);
    let text = warnings(folder.path());
    assert!(text.contains("1 file is not there: train-00001-of-00003.parquet"), "{text}");
    let one = put(1);
    assert!(!warnings(folder.path()).contains("not there"));
    fs_err::remove_file(data.join("train-00000-of-00003.parquet")).unwrap();
    // A file that is given by itself is all that is asked for.
    let set = Dataset::open_as(&one, &Opening { boxes: Some(XYWH), ..Opening::default() });
    assert!(!set.unwrap().report().warnings.join("\n").contains("not there"));
}
