//! A list of the classes in place of a `data.yaml`, where annotation tools put it.

use std::path::{Path, PathBuf};

use super::put;
use crate::data::{dataset::Dataset, formats::Opening};

fn put_all(folder: &Path, files: &[(&str, &str)]) {
    files.iter().for_each(|(name, text)| put(folder, name, text));
}

fn packed(folder: &Path) -> PathBuf {
    let archive = folder.with_extension("tar");
    let mut builder = tar::Builder::new(fs_err::File::create(&archive).unwrap());
    builder.append_dir_all("set", folder).unwrap();
    builder.finish().unwrap();
    archive
}

/// Names and contents.
type Files = &'static [(&'static str, &'static str)];

/// An image and the classes of its boxes.
type Shown = (String, Vec<u32>);

/// Parts, classes, and the images of one part.
fn seen(place: &Path, split: Option<&str>) -> (Vec<String>, Vec<String>, Vec<Shown>) {
    let opening = Opening { split: split.map(str::to_owned), pixels: false, ..Opening::default() };
    let set = Dataset::open_as(place, &opening).unwrap();
    let images = set.images().iter().enumerate().map(|(at, image)| {
        let classes = set.annotations_of(at).iter().map(|a| a.class.0).collect();
        (image.file_name.rsplit('/').next().unwrap().to_owned(), classes)
    });
    let mut images: Vec<_> = images.collect();
    images.sort();
    let names = set.vocabulary().categories().iter().map(|c| c.name.clone()).collect();
    (Dataset::parts(place, &opening).unwrap(), names, images)
}

const ROWS: &str = "1 0.5 0.5 0.2 0.2\n0 0.4 0.4 0.1 0.1\n";

#[test]
fn the_layouts_of_annotation_tools_are_read() {
    // Label Studio; labelImg with a folder of labels; labelImg; parts below; Roboflow's Darknet export.
    let layouts: [(Files, &[&str]); 5] = [
        (
            &[
                ("classes.txt", "cat\ndog\n"),
                ("images/a.jpg", ""),
                ("images/b.jpg", ""),
                ("labels/a.txt", ROWS),
                ("labels/b.txt", ""),
                (
                    "notes.json",
                    r#"{"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2024}}"#,
                ),
            ],
            &[],
        ),
        (
            &[
                ("labels/classes.txt", "cat\r\ndog\r\n"),
                ("images/a.jpg", ""),
                ("images/b.jpg", ""),
                ("labels/a.txt", ROWS),
            ],
            &[],
        ),
        (
            &[("classes.txt", "\u{feff}cat\ndog"), ("a.jpg", ""), ("b.jpg", ""), ("a.txt", ROWS)],
            &[],
        ),
        (
            &[
                ("classes.txt", "cat\ndog\n"),
                ("images/train/a.jpg", ""),
                ("images/train/b.jpg", ""),
                ("labels/train/a.txt", ROWS),
                ("images/val/c.jpg", ""),
                ("labels/val/c.txt", ROWS),
            ],
            &["train", "val"],
        ),
        (
            &[
                ("train/_darknet.labels", "cat\ndog\n"),
                ("valid/_darknet.labels", "cat\ndog\n"),
                ("train/a.jpg", ""),
                ("train/b.jpg", ""),
                ("train/a.txt", ROWS),
                ("valid/c.jpg", ""),
                ("valid/c.txt", ROWS),
            ],
            &["train", "valid"],
        ),
    ];
    for (files, parts) in layouts {
        // Folders above the set that are called as one of it are none of it.
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("images/mine");
        put_all(&folder, files);
        for place in [folder.clone(), packed(&folder)] {
            let split = parts.first().copied();
            let (found, names, images) = seen(&place, split);
            assert_eq!(found, parts, "{files:?}");
            assert_eq!(names, ["cat", "dog"], "{files:?}");
            let expected = [("a.jpg".to_owned(), vec![1, 0]), ("b.jpg".to_owned(), vec![])];
            assert_eq!(images, expected, "{} {files:?}", place.display());
            if let Some(second) = parts.get(1) {
                assert_eq!(seen(&place, Some(second)).2, [("c.jpg".to_owned(), vec![1, 0])]);
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_list_is_named() {
    for (files, says) in [
        (
            &[("classes.txt", "cat\n\ndog\n")][..],
            "classes.txt: line 2: expected the name of a class",
        ),
        (&[("classes.txt", "cat\n")], "expected an index from 0 to 0, got 1"),
        (&[("classes.txt", "")], "classes.txt: names: the file is empty"),
        (
            &[("classes.txt", "cat\ndog\n"), ("labels/classes.txt", "dog\ncat\n")],
            "labels/classes.txt: classes: other names than in ",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        put_all(folder.path(), &[("images/a.jpg", ""), ("labels/a.txt", ROWS)]);
        put_all(folder.path(), files);
        let opening = Opening { pixels: false, ..Opening::default() };
        let error = Dataset::open_as(folder.path(), &opening).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("hint: "), "{says}: {error}");
    }
}

/// Captions beside images, and a list of classes of another kind: no rows of numbers, no set.
#[test]
fn texts_beside_images_are_no_labels() {
    let folder = tempfile::tempdir().unwrap();
    put_all(
        folder.path(),
        &[("classes.txt", "cat\n"), ("a.jpg", ""), ("a.txt", "1 cat on a mat, asleep")],
    );
    let error = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("no known format"), "{error}");
}

/// Images without objects have empty labels, and may come first.
#[test]
fn empty_labels_do_not_hide_a_set() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "classes.txt", "cat\ndog\n");
    for i in 0..60 {
        put(folder.path(), &format!("{i:03}.jpg"), "");
        put(folder.path(), &format!("{i:03}.txt"), "");
    }
    put(folder.path(), "zebra.jpg", "");
    put(folder.path(), "zebra.txt", ROWS);
    let (_, names, images) = seen(folder.path(), None);
    assert_eq!((names.len(), images.len()), (2, 61));
}
