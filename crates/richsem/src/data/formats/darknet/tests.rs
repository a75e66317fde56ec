//! Samples, prefixes and mistakes.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::super::yolo::tests::{pixels, put, put_image, told};
use crate::{
    data::{dataset::Dataset, formats::Opening},
    testing::shared,
};

/// What is changed in a set.
type Change<'a> = &'a dyn Fn(&Path);

/// A set as CVAT exports it.
fn set(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(
        root,
        "obj.data",
        "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
    );
    put(root, "obj.names", "cat\ndog\n");
    put(root, "train.txt", "data/obj_train_data/a.png\ndata/obj_train_data/b.png\n");
    for name in ["a", "b"] {
        put_image(root, &format!("obj_train_data/{name}.png"));
        put(root, &format!("obj_train_data/{name}.txt"), "1 0.5 0.5 0.5 0.5\n");
    }
    change(root);
    folder
}

#[test]
fn the_prefix_of_the_annotator_is_left_out() {
    let folder = set(|_| {});
    let dataset = pixels(folder.path(), "train").unwrap();
    let names: Vec<&str> = dataset.images().iter().map(|i| i.file_name.as_str()).collect();
    assert_eq!(names, ["obj_train_data/a.png", "obj_train_data/b.png"]);
    assert_eq!(dataset.annotations()[1].bbox.0, [10.0, 5.0, 20.0, 10.0]);
    assert_eq!(dataset.vocabulary().categories()[1].name, "dog");
    assert!(told(&dataset, "found only without the first folders of their paths: 2"));
    // With all of it in `data/`, as Darknet itself has it, nothing is left out.
    let folder = tempfile::tempdir().unwrap();
    let inner = set(|_| {});
    fs_err::rename(inner.path(), folder.path().join("data")).unwrap();
    let dataset = pixels(&folder.path().join("data/obj.data"), "train").unwrap();
    assert_eq!(dataset.annotations().len(), 2);
}

#[test]
fn labels_may_lie_in_folders_of_their_own() {
    for folder_of_images in ["images", "JPEGImages"] {
        let folder = set(|root| {
            put_image(root, &format!("set/{folder_of_images}/c.png"));
            put(root, "set/labels/c.txt", "0 0.5 0.5 1 1\n");
            put(root, "train.txt", format!("./set/{folder_of_images}/c.png"));
        });
        let dataset = pixels(folder.path(), "train").unwrap();
        assert_eq!(dataset.annotations()[0].bbox.0, [0.0, 0.0, 40.0, 20.0]);
    }
}

#[test]
fn mistakes_are_named() {
    let cases: [(Change<'_>, &str); 10] = [
        (&|f| put(f, "obj.data", "names = obj.names\n"), "obj.data: train: missing"),
        (&|f| put(f, "obj.data", "train = train.txt\n"), "obj.data: names: missing"),
        (
            &|f| put(f, "obj.data", "train = train.txt\nnames = x.names\n"),
            "line 2: names: there is no file `x.names`",
        ),
        (
            &|f| put(f, "obj.data", "train = x.txt\nnames = obj.names\n"),
            "line 1: train: there is no file `x.txt`",
        ),
        (
            &|f| put(f, "obj.data", "train = train.txt\nnames\n"),
            "line 2: expected `key = value`, got `names`",
        ),
        (&|f| put(f, "obj.data", "train = a\ntrain = b\n"), "line 2: train: it is on line 1, too"),
        (
            &|f| put(f, "obj.names", "cat\n\ndog\n"),
            "obj.names: line 2: expected the name of a class, got an empty line",
        ),
        (&|f| put(f, "obj.names", ""), "obj.names: names: the file is empty"),
        (&|f| put(f, "obj.names", "cat\n"), "line 1: classes: 2, but 1 names are in "),
        (
            &|f| put(f, "obj_train_data/a.txt", "2 0.5 0.5 0.5 0.5"),
            "a.txt: line 1: class: expected an index from 0 to 1, got 2",
        ),
    ];
    for (change, expected) in cases {
        let folder = set(change);
        let error = pixels(folder.path(), "train").unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let folder = set(|f| put(f, "obj.names", b"caf\xe9\ndog\n"));
    let error = pixels(folder.path(), "train").unwrap_err().to_string();
    assert!(error.contains("obj.names: text: expected UTF-8 text, got 0xe9"), "{error}");
}

#[test]
fn a_sample_without_images_says_where_they_were_looked_for() {
    let Some(sample) = shared("samples/yolo/darknet_strict") else { return };
    let error = pixels(&sample, "train").unwrap_err().to_string();
    assert!(
        error.contains("obj.data: line 2: train: none of the 1 images has a label file"),
        "{error}"
    );
}

/// The same boxes as in VOC's own files of these images, which count pixels from 1.
#[test]
fn photographs_of_voc_have_the_boxes_of_their_xml() {
    let Some(folder) = shared("photos/voc2012_100") else { return };
    let opening = Opening {
        images: Some(folder.join("images")),
        usual_split: Some("train"),
        ..Opening::default()
    };
    let dataset = Dataset::open_as(&folder.join("yolo_format"), &opening).unwrap();
    assert_eq!((dataset.images().len(), dataset.vocabulary().len()), (100, 20));
    let mut compared = 0;
    for (i, image) in dataset.images().iter().enumerate() {
        let xml = image.file_name.replace(".jpg", ".xml");
        let xml = fs_err::read_to_string(folder.join("pascalvoc_format").join(xml)).unwrap();
        let xml = roxmltree::Document::parse(&xml).unwrap();
        let text = |node: roxmltree::Node<'_, '_>, tag: &str| {
            let found = node.descendants().find(|n| n.has_tag_name(tag)).unwrap();
            found.text().unwrap().to_owned()
        };
        let mut wanted: Vec<(String, [f64; 4])> = xml
            .descendants()
            .filter(|node| node.has_tag_name("object"))
            .map(|object| {
                let side = |tag| text(object, tag).parse::<f64>().unwrap();
                (text(object, "name"), ["xmin", "ymin", "xmax", "ymax"].map(side))
            })
            .collect();
        for annotation in dataset.annotations_of(i) {
            let name = &dataset.vocabulary().category(annotation.class).name;
            let [x, y, w, h] = annotation.bbox.0;
            let corners = [x, y, x + w, y + h];
            let same = wanted.iter().position(|(n, box_)| {
                n == name && box_.iter().zip(corners).all(|(a, b)| (a - b).abs() < 1.01)
            });
            let same = same
                .unwrap_or_else(|| panic!("{}: {name} {corners:?} {wanted:?}", image.file_name));
            wanted.remove(same);
            compared += 1;
        }
        assert!(wanted.is_empty(), "{}: {wanted:?}", image.file_name);
    }
    assert_eq!(compared, dataset.annotations().len());
    assert!(compared > 200, "{compared}");
}
