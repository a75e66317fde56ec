//! Images and classes by their names in results, and what CSV is no results.

use std::path::{Path, PathBuf};

use super::{Results, check_results, is_results, read_results, write_results};
use crate::data::dataset::Dataset;

const HEADER: &str = "ImageID,LabelName,Score,XMin,XMax,YMin,YMax\n";

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs_err::write(&path, text).unwrap();
    path
}

/// Images of 100 times 80 pixels with ids from 1, classes with ids from 1, a box of each image.
fn set(folder: &Path, images: &[&str], classes: &[&str]) -> Dataset {
    let image = |(id, name): (usize, &&str)| serde_json::json!({"id": id, "file_name": name, "width": 100, "height": 80});
    let class = |(id, name): (usize, &&str)| serde_json::json!({"id": id, "name": name});
    let bbox = |id: usize| {
        let bbox = [10.0, 8.0, 20.0, 16.0];
        serde_json::json!({"id": id, "image_id": id, "category_id": 1, "bbox": bbox})
    };
    let text = serde_json::json!({
        "images": (1..).zip(images).map(image).collect::<Vec<_>>(),
        "annotations": (1..=images.len()).map(bbox).collect::<Vec<_>>(),
        "categories": (1..).zip(classes).map(class).collect::<Vec<_>>(),
    });
    Dataset::open(&write(folder, "set.json", text.to_string())).unwrap()
}

fn read(folder: &Path, row: &str, set: &Dataset) -> crate::Result<Results> {
    read_results(&write(folder, "found.csv", format!("{HEADER}{row}\n")), set)
}

/// Those that only one has are found behind those that several have.
#[test]
fn a_name_means_what_alone_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let images = ["x/a.jpg", "y/a.jpg", "z/b.jpg", "p.v1.jpg"];
    let set = set(folder.path(), &images, &["cat", "cat", "wine glass", "dog"]);
    let place = |row: &str| {
        let found = read(folder.path(), row, &set).unwrap().detections;
        found.iter().map(|d| (d.image_id, d.category_id.0)).collect::<Vec<_>>()
    };
    assert_eq!(place("b,dog,0.5,0.1,0.3,0.1,0.3"), [(3, 4)]);
    assert_eq!(place("p.v1,wine glass,0.5,0.1,0.3,0.1,0.3"), [(4, 3)]);
    for (row, says) in [
        (
            "a,dog,0.5,0.1,0.3,0.1,0.3",
            "column ImageID: `a` may be any of 2 images of the annotations: x/a.jpg, y/a.jpg",
        ),
        (
            "b,cat,0.5,0.1,0.3,0.1,0.3",
            "column LabelName: `cat` may be any of 2 classes of the annotations: id 1, id 2",
        ),
    ] {
        let message = read(folder.path(), row, &set).unwrap_err().to_string();
        assert!(message.contains(says) && message.contains("hint"), "{message}");
    }
}

#[test]
fn what_a_submission_cannot_name_is_refused_before_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    for (images, classes, says) in [
        (["x/a.jpg", "y/a.png"], ["cat", "dog"], "`a` may be any of 2 images of the annotations"),
        (["a.jpg", "b.jpg"], ["cat", "cat"], "`cat` may be any of 2 classes of the annotations"),
        (["a.jpg", "b.jpg"], ["cat", "wine glass"], "class `wine glass` has a space in its name"),
    ] {
        let set = set(folder.path(), &images, &classes);
        let message = check_results(&out, &set).unwrap_err().to_string();
        assert!(message.contains(says) && message.contains("ends in .json"), "{message}");
        assert!(write_results(&out, &[], &set).is_err() && !out.exists());
    }
    let text = r#"{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations":
        [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "cat"}]}"#;
    let unknown = Dataset::open(&write(folder.path(), "unknown.json", text)).unwrap();
    let message = check_results(&out, &unknown).unwrap_err().to_string();
    assert!(message.contains("size of a.jpg: unknown"), "{message}");
    let set = set(folder.path(), &["x/a.jpg", "b.jpg"], &["cat", "dog"]);
    check_results(&out, &set).unwrap();
    let row = "b,dog,0.5,0.25,0.5,0.25,0.5";
    let found = read(folder.path(), row, &set).unwrap().detections;
    write_results(&out, &found, &set).unwrap();
    assert_eq!(read_results(&out, &set).unwrap().detections, found);
}

#[test]
fn other_csv_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(folder.path(), &["a.jpg"], &["cat"]);
    for (text, says) in [
        ("file,class,score,x,y,width,height\n", "hint: this is the detections.csv of `predict`"),
        ("ImageID,LabelName,XMin,XMax,YMin,YMax\n", "with a column `Score`"),
        (&HEADER.replace(',', ";"), "hint: columns are separated by commas"),
        ("", "the file is empty"),
    ] {
        let file = write(folder.path(), "other.csv", text);
        assert!(is_results(&file));
        let message = read_results(&file, &set).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
    // By what they hold, whatever they are called.
    assert!(is_results(&write(folder.path(), "found.txt", HEADER)));
    assert!(!is_results(&write(folder.path(), "json.csv", "\u{feff} [{\"image_id\": 1}]")));
    assert!(!is_results(&write(folder.path(), "found.json", "")));
}

#[test]
fn boxes_inside_out_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let set = set(folder.path(), &["a.jpg"], &["cat"]);
    for (row, negative) in [
        ("a,cat,0.5,0.3,0.1,0.1,0.3", 1),
        ("a,cat,0.5,0.1,0.3,0.3,0.1", 1),
        ("a,cat,0.5,0.1,0.1,0.1,0.3", 0),
    ] {
        let read = read(folder.path(), row, &set).unwrap();
        assert_eq!((read.negative, read.detections.len()), (negative, 1));
    }
}
