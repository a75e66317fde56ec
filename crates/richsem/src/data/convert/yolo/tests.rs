//! What is written reads back, and what is lost is counted.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::write::{Split, write};
use crate::data::{
    dataset::Dataset,
    formats::yolo_tests::{pixels, put, put_image, rows, shares},
};

fn train(dataset: &Dataset) -> [Split<'_>; 1] {
    [Split { name: "train", dataset }]
}

/// Puts an image where each belongs.
fn with_images(folder: &Path, images: &[(String, std::path::PathBuf)]) {
    for (_, place) in images {
        put_image(folder, &place.to_string_lossy());
    }
}

#[test]
fn boxes_and_names_come_back() {
    let source = tempfile::tempdir().unwrap();
    let names = [
        "cat",
        "a \"b\": c",
        "yes",
        "naïve",
        "1.0",
        " lead",
        "trail ",
        "\tx",
        "\u{2028}s",
        "n\u{85}l",
        "\u{feff}b",
        "null",
        "#",
    ];
    let listed: Vec<String> = names.iter().map(|n| serde_json::to_string(n).unwrap()).collect();
    put(
        source.path(),
        "data.yaml",
        format!("train: images/train\nval: images/val\nnames: [{}]\n", listed.join(", ")),
    );
    for (split, name, label) in [
        ("train", "0", "0 0.123456789 0.5 0.1 0.3333333333333\n4 0.5 0.5 1 1\n"),
        ("train", "deep/images/1", "3 0.25 0.75 0.5 0.5\n"),
        ("train", "2", ""),
        ("val", "0", "2 0.7 0.7 0.01 0.02\n"),
    ] {
        let image = format!("images/{split}/{name}.png");
        put_image(source.path(), &image);
        let (before, after) = image.rsplit_once("images/").unwrap();
        put(source.path(), &format!("{before}labels/{}", after.replace("png", "txt")), label);
    }
    let (train, val) =
        (pixels(source.path(), "train").unwrap(), pixels(source.path(), "val").unwrap());
    let out = tempfile::tempdir().unwrap();
    let splits = [Split { name: "train", dataset: &train }, Split { name: "val", dataset: &val }];
    let written = write(&splits, out.path()).unwrap();
    assert_eq!((written.boxes, written.lost.as_slice()), (4, &[][..]));
    let places: Vec<String> =
        written.images.iter().map(|(_, place)| place.to_string_lossy().into_owned()).collect();
    assert_eq!(
        places,
        ["images/train/0.png", "images/train/2.png", "images/train/deep/1.png", "images/val/0.png"]
    );
    assert_eq!(written.images[2].0, "images/train/deep/images/1.png");
    with_images(out.path(), &written.images);
    for (name, before) in [("train", &train), ("val", &val)] {
        let after = pixels(out.path(), name).unwrap();
        let classes = |d: &Dataset| -> Vec<String> {
            d.vocabulary().categories().iter().map(|c| c.name.clone()).collect()
        };
        assert_eq!(classes(&after), names);
        assert_eq!(after.annotations().len(), before.annotations().len());
        for (a, b) in after.annotations().iter().zip(before.annotations()) {
            assert_eq!((a.image, a.class), (b.image, b.class));
            for (x, y) in a.bbox.0.iter().zip(b.bbox.0) {
                assert!((x - y).abs() < 1e-6, "{a:?} {b:?}");
            }
        }
    }
}

const COCO: &str = r#"{"images": [
    {"id": 7, "file_name": "a.jpg", "width": 100, "height": 50, "neg_category_ids": [9], "not_exhaustive_category_ids": []},
    {"id": 8, "file_name": "sub/a.png", "width": 100, "height": 50},
    {"id": 9, "file_name": "a.png", "width": 100, "height": 50},
    {"id": 10, "file_name": "hash", "width": 100, "height": 50}],
  "annotations": [
    {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 333},
    {"id": 2, "image_id": 7, "category_id": 3, "bbox": [10, 10, 20, 20], "area": 400},
    {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1},
    {"id": 4, "image_id": 7, "category_id": 9, "bbox": [0, 0, 5, 5], "ignore": 1},
    {"id": 5, "image_id": 7, "category_id": 9, "bbox": [90, -10, 20, 30], "area": 600},
    {"id": 6, "image_id": 7, "category_id": 9, "bbox": [120, 10, 20, 20], "area": 400}],
  "categories": [{"id": 9, "name": "b", "synset": "b.n.01"}, {"id": 3, "name": "a"}]}"#;

#[test]
fn what_cannot_be_carried_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "set.json", COCO);
    let dataset = Dataset::open(&folder.path().join("set.json")).unwrap();
    let out = folder.path().join("out");
    let written = write(&train(&dataset), &out).unwrap();
    assert_eq!(written.boxes, 2);
    assert_eq!(
        written.lost,
        [
            ("crowd regions, left out", 1),
            ("boxes to be ignored, left out", 1),
            ("empty boxes, left out", 1),
            ("boxes equal to an earlier one, left out", 1),
            ("boxes beyond their image, clipped", 1),
            ("areas that are not width x height", 1),
            ("images with verified classes: what is not shown becomes absent", 1),
            ("images whose names are no image's, which readers pass over", 1),
            ("images with a number added to their name, for a label file of their own", 1),
            ("image ids", 4),
            ("class ids, which become 0, 1, …", 2),
            ("classes of which more than the name is known, as synonyms or counts", 1),
        ]
    );
    let places: Vec<_> = written.images.iter().map(|(_, place)| place.to_string_lossy()).collect();
    assert_eq!(
        places,
        [
            "images/train/a.jpg",
            "images/train/sub/a.png",
            "images/train/a_2.png",
            "images/train/hash"
        ]
    );
    let label = |name: &str| fs_err::read_to_string(out.join("labels/train").join(name)).unwrap();
    assert_eq!(label("a.txt"), "0 0.2 0.4 0.2 0.4\n1 0.95 0.2 0.1 0.4\n");
    assert_eq!([label("a_2.txt"), label("sub/a.txt"), label("hash.txt")], ["", "", ""]);
    assert_eq!(
        fs_err::read_to_string(out.join("data.yaml")).unwrap(),
        "train: images/train\nnc: 2\nnames:\n  0: \"a\"\n  1: \"b\"\n"
    );
    with_images(&out, &written.images[..1]);
    let again = shares(&out, "train").unwrap();
    assert_eq!(rows(&again)[0].1.len(), 2);
}

#[test]
fn what_cannot_be_written_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "set.json", COCO.replacen(", \"width\": 100, \"height\": 50", "", 1));
    let file = folder.path().join("set.json");
    let dataset = Dataset::open(&file).unwrap();
    let out = folder.path().join("out");
    let error = write(&train(&dataset), &out).unwrap_err().to_string();
    assert!(
        error.contains("set.json: images: the size of image 7 (`a.jpg`) is not known"),
        "{error}"
    );
    assert!(!out.exists());
    let named = |name| write(&[Split { name, dataset: &dataset }], &out).unwrap_err().to_string();
    assert!(
        named("train2017")
            .contains("`split`: expected train, val, test, each once, got `train2017`")
    );
    assert!(write(&[], &out).unwrap_err().to_string().contains("got none"));
    let twice = [train(&dataset)[0], train(&dataset)[0]];
    assert!(write(&twice, &out).unwrap_err().to_string().contains("each once"));
    put(folder.path(), "other.json", COCO.replace("\"name\": \"b\"", "\"name\": \"c\""));
    let other = Dataset::open(&folder.path().join("other.json")).unwrap();
    let splits = [train(&dataset)[0], Split { name: "val", dataset: &other }];
    let error = write(&splits, &out).unwrap_err().to_string();
    assert!(error.contains("other.json: categories: its classes are not those of"), "{error}");
}
