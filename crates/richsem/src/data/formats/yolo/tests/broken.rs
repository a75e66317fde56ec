//! Sets with mistakes: one message with file, line, field and what to do, each.

use std::path::Path;

use super::{pixels, put, put_image, rows, shares, told};

/// What is changed in a set.
type Change<'a> = &'a dyn Fn(&Path);

/// A set of so many images, each with a box, and what is changed in it.
fn set(images: usize, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "data.yaml", "train: images/train\nval: images/val\nnames: [cat, dog]\n");
    for i in 0..images {
        put_image(folder.path(), &format!("images/train/{i}.png"));
        put(folder.path(), &format!("labels/train/{i}.txt"), "1 0.5 0.5 0.5 0.5\n");
    }
    change(folder.path());
    folder
}

#[test]
fn one_message_each() {
    let cases: [(Change<'_>, &[&str]); 12] = [
        (
            &|f| put(f, "labels/train/0.txt", "1 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5"),
            &["labels/train/0.txt: line 2: columns: expected 5 columns", "got 4", "cut off"],
        ),
        (
            &|f| put(f, "labels/train/0.txt", "1 0.5 nan 0.5 0.5"),
            &["0.txt: line 1: centre y: expected a number, got `nan`", "hint: "],
        ),
        (
            &|f| put(f, "labels/train/0.txt", "1 0.5 0.5 -0.5 0.5"),
            &["0.txt: line 1: width: expected a share", "got -0.5"],
        ),
        (
            &|f| put(f, "labels/train/0.txt", "2 0.5 0.5 0.5 0.5"),
            &[
                "0.txt: line 1: class: expected an index from 0 to 1, got 2",
                "(2 classes in ",
                "data.yaml",
            ],
        ),
        (
            &|f| put(f, "labels/train/0.txt", b"1 0.5 0.5 0.5 0.5\ncaf\xe9"),
            &["0.txt: line 2: text: expected UTF-8 text, got the byte 0xe9"],
        ),
        (
            &|f| put(f, "labels/train/0.txt", b"\xff\xfe1\0"),
            &["0.txt: line 1: text: this is UTF-16 text"],
        ),
        (
            &|f| fs_err::remove_dir_all(f.join("labels")).unwrap(),
            &[
                "data.yaml: line 1: train: none of the 1 images has a label file; the first was looked for at ",
                "labels/train/0.txt",
                "hint: labels lie beside",
            ],
        ),
        (
            &|f| fs_err::remove_file(f.join("images/train/0.png")).unwrap(),
            &["data.yaml: line 1: train: there are no images", "expected files that end in .jpg"],
        ),
        (
            &|f| fs_err::remove_dir_all(f.join("images")).unwrap(),
            &[
                "data.yaml: line 1: train: expected a folder of images or a file that lists them; there is no ",
                "images/train",
                "paths are relative to",
            ],
        ),
        (
            &|f| put(f, "images/train/0.png", ""),
            &["images/train/0.png: image: expected JPEG", "an empty file"],
        ),
        (
            &|f| put(f, "data.yaml", "val: images/val\nnames: [a]\n"),
            &["no part `train`; it has `val`"],
        ),
        (
            &|f| put(f, "data.yaml", "train: list.txt\nnames: [a]\n"),
            &["line 1: train: expected a folder of images or a file that lists them", "list.txt"],
        ),
    ];
    for (change, expected) in cases {
        let folder = set(1, change);
        let error = pixels(folder.path(), "train").unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

#[test]
fn a_list_that_names_nothing_or_is_no_text() {
    for (bytes, expected) in [
        (&b""[..], "line 1: train: there are no images"),
        (b"notes\nreadme.txt\n", "there are no images (passed over as no images: 2 lines of "),
        (b"gone.png\nlost.png\n", "none of the 2 images has a label file"),
        (b"\xff\xfea\0", "list.txt: text: this is UTF-16 text"),
        (b"caf\xe9.png", "list.txt: text: expected UTF-8 text, got 0xe9"),
    ] {
        let folder = set(1, |f| {
            put(f, "list.txt", bytes);
            put(f, "data.yaml", "train: list.txt\nnames: [a]\n");
        });
        let error = pixels(folder.path(), "train").unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn one_broken_file_of_ten_leaves_its_image_out() {
    let folder = set(10, |f| put(f, "labels/train/3.txt", "1 0.5 0.5 0.5 0.5\n1 0.5 0.5 2 0.5\n"));
    let dataset = shares(folder.path(), "train").unwrap();
    assert_eq!((dataset.images().len(), dataset.annotations().len()), (9, 9));
    assert!(rows(&dataset).iter().all(|(name, _)| name != "images/train/3.png"));
    // Ids are those of the list with all images.
    assert_eq!((dataset.images()[2].id, dataset.images()[3].id), (3, 5));
    let warning = "warning: 1 image is left out because a row of the label file is wrong, as \
                   Ultralytics does. The first: ";
    assert!(told(&dataset, warning), "{}", dataset.report());
    assert!(
        told(&dataset, "labels/train/3.txt: line 2: width: expected a share"),
        "{}",
        dataset.report()
    );
    assert!(!told(&dataset, "without an image"), "{}", dataset.report());
    put(folder.path(), "labels/train/7.txt", "1 0.5 0.5 2 0.5\n");
    let error = shares(folder.path(), "train").unwrap_err().to_string();
    assert!(
        error.contains("3.txt: line 2: width") && error.contains("it is in 2 of 10 files"),
        "{error}"
    );
}

#[test]
fn a_class_that_is_not_there_is_always_an_error() {
    let folder = set(30, |f| {
        put(f, "labels/train/11.txt", "1 0.5 0.5 0.5\n");
        put(f, "labels/train/12.txt", "2 0.5 0.5 0.5 0.5\n");
        put(f, "labels/train/13.txt", "7 0.5 0.5 0.5 0.5\n");
    });
    let error = shares(folder.path(), "train").unwrap_err().to_string();
    assert!(
        error.contains("12.txt: line 1: class: expected an index from 0 to 1, got 2"),
        "{error}"
    );
    assert!(error.contains("it is in 2 of 30 files"), "{error}");
}

#[test]
fn images_alone_need_no_labels() {
    let folder = set(2, |f| fs_err::remove_dir_all(f.join("labels")).unwrap());
    let opening = crate::data::formats::Opening {
        usual_split: Some("train"),
        annotated: false,
        ..Default::default()
    };
    let dataset = crate::data::dataset::Dataset::open_as(folder.path(), &opening).unwrap();
    assert_eq!((dataset.images().len(), dataset.annotations().len()), (2, 0));
}

#[test]
fn several_data_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["coco.yaml", "voc.yml"] {
        put(folder.path(), name, "train: images\nnames: [a]\n");
    }
    put(folder.path(), "hyp.yaml", "lr0: 0.01\n");
    let error = pixels(folder.path(), "train").unwrap_err().to_string();
    assert!(error.contains("data.yaml: several files may be it: coco.yaml, voc.yml"), "{error}");
}
