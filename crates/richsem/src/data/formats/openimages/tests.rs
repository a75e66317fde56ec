//! OpenImages' folders: made here, and the samples of the project's test data.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use image::RgbImage;

use crate::{
    data::{
        dataset::Dataset,
        formats::Opening,
        records::{AnnotationFormat, Unit},
    },
    error::Result,
    testing,
    vocabulary::ClassIndex,
};

const BOXES: &str = "\
ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
0b,xclick,/m/dog,1,0.25,0.75,0,0.5,0,0,0,0,0
0a,xclick,/m/animal,1,0,1,0,1,0,0,0,0,0
0b,xclick,/m/cat,1,0,0.5,0.5,1,0,0,1,0,0
0b,xclick,/m/stranger,1,0,0.5,0.5,1,0,0,1,0,0
";

const LABELS: &str = "\
ImageID,Source,LabelName,Confidence
0a,verification,/m/plant,1
0b,verification,/m/plant,0
0c,verification,/m/animal,0
0c,machine,/m/plant,0.7
";

const CLASSES: &str = "/m/animal,Animal\n/m/dog,Dog\n/m/cat,Cat\n/m/plant,\"Plant, green\"\n";

const HIERARCHY: &str = r#"{"LabelName": "/m/root", "Subcategory": [
    {"LabelName": "/m/animal", "Subcategory": [{"LabelName": "/m/dog"}, {"LabelName": "/m/cat"}]},
    {"LabelName": "/m/plant"}]}"#;

const LABELS_FILE: &str = "oidv6-train-annotations-human-imagelabels.csv";
const CLASSES_FILE: &str = "class-descriptions-boxable.csv";
const HIERARCHY_FILE: &str = "bbox_labels_600_hierarchy.json";

fn set(folder: &Path) {
    for (name, text) in [
        ("oidv6-train-annotations-bbox.csv", BOXES),
        ("validation-annotations-bbox.csv", &BOXES.replace("0b", "1b")),
        (LABELS_FILE, LABELS),
        (CLASSES_FILE, CLASSES),
        (HIERARCHY_FILE, HIERARCHY),
    ] {
        fs_err::write(folder.join(name), text).unwrap();
    }
}

fn open(folder: &Path, split: &str, pixels: bool) -> Result<Dataset> {
    let opening = Opening { split: Some(split.to_owned()), pixels, ..Opening::default() };
    Dataset::open_as(folder, &opening)
}

#[test]
fn files_that_lie_together_are_one_set() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path());
    let set = open(folder.path(), "train", false).unwrap();
    assert_eq!((set.unit(), set.format()), (Unit::Shares, AnnotationFormat::Lvis));
    let names: Vec<&str> = set.vocabulary().categories().iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["Animal", "Dog", "Cat", "Plant, green"]);
    assert_eq!(set.vocabulary().categories()[1].key.as_deref(), Some("/m/dog"));
    // In the order of the files; numbered by their ids.
    let images: Vec<_> = set.images().iter().map(|i| (i.id, i.file_name.as_str())).collect();
    assert_eq!(images, [(2, "0b.jpg"), (1, "0a.jpg"), (3, "0c.jpg")]);
    let boxes: Vec<_> =
        set.annotations_of(0).iter().map(|a| (a.class.0, a.bbox.0, a.crowd)).collect();
    assert_eq!(boxes, [(1, [0.25, 0.0, 0.5, 0.5], false), (2, [0.0, 0.5, 0.5, 0.5], true)]);
    let report = set.report().to_string();
    for says in [
        "boxes of classes that are not in the list of classes, left out: 1 (/m/stranger)",
        "labels of a machine, which verify nothing: 1",
        "hierarchy: bbox_labels_600_hierarchy.json",
        "verified labels: oidv6-train-annotations-human-imagelabels.csv",
    ] {
        assert!(report.contains(says), "{report}");
    }
    let report = open(folder.path(), "val", false).unwrap().report().to_string();
    assert!(report.contains("verified labels: none"), "{report}");
}

#[test]
fn a_box_is_one_of_its_ancestors_and_says_nothing_of_its_descendants() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path());
    let set = open(folder.path(), "train", false).unwrap();
    let classes = |list: &[ClassIndex]| list.iter().map(|class| class.0).collect::<Vec<_>>();
    let lists = |image| {
        let known = set.knowledge(image);
        [known.present, known.absent, known.not_exhaustive].map(|list| classes(&list))
    };
    assert_eq!(lists(0), [vec![0, 1, 2], vec![3], vec![]], "a dog and cats are animals");
    assert_eq!(
        lists(1),
        [vec![0], vec![], vec![1, 2, 3]],
        "which animal, nobody said; a plant is seen"
    );
    assert_eq!(lists(2), [vec![], vec![0, 1, 2], vec![]], "no animal, so no dog");
    let labels =
        |image| set.training_boxes(image).iter().map(|(_, class)| class.0).collect::<Vec<_>>();
    assert_eq!((labels(0), labels(1)), (vec![1, 0], vec![0]), "the group is not trained on");
    let counts: Vec<_> = set.vocabulary().categories().iter().map(|c| c.instance_count).collect();
    assert_eq!(counts, [3, 1, 1, 0]);
}

#[test]
fn a_verified_absence_holds_below_a_class_that_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let hierarchy = r#"{"LabelName": "/m/root", "Subcategory": [{"LabelName": "/m/person",
        "Subcategory": [{"LabelName": "/m/man"}, {"LabelName": "/m/woman"}]}]}"#;
    for (name, text) in [
        ("boxes.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax\n0a,/m/man,0,1,0,1\n"),
        (
            "labels.csv",
            "ImageID,Source,LabelName,Confidence\n0a,v,/m/person,1\n0a,v,/m/man,1\n0a,v,/m/woman,0\n",
        ),
        ("classes.csv", "/m/person,Person\n/m/man,Man\n/m/woman,Woman\n"),
        ("hierarchy.json", hierarchy),
    ] {
        fs_err::write(folder.path().join(name), text).unwrap();
    }
    let alone = Opening { pixels: false, ..Opening::default() };
    let known = Dataset::open_as(folder.path(), &alone).unwrap().knowledge(0);
    assert_eq!(known.present, [ClassIndex(0), ClassIndex(1)]);
    assert_eq!(known.absent, [ClassIndex(2)]);
    assert_eq!(known.not_exhaustive, []);
}

#[test]
fn shares_become_pixels_of_the_images_that_are_there() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path());
    let message = open(folder.path(), "train", true).unwrap_err().to_string();
    assert!(message.contains("the images are not known"), "{message}");
    // In folders by the first digit of the id, as some tools lay them out.
    let images = folder.path().join("train/0");
    fs_err::create_dir_all(&images).unwrap();
    RgbImage::new(40, 20).save(images.join("0b.jpg")).unwrap();
    let set = open(folder.path(), "train", true).unwrap();
    assert_eq!(set.unit(), Unit::Pixels);
    assert_eq!(set.images().len(), 1);
    assert_eq!(set.images()[0].file_name, "0/0b.jpg");
    assert_eq!(set.annotations_of(0)[0].bbox.0, [10.0, 0.0, 20.0, 10.0]);
    assert_eq!(set.annotations_of(0)[0].area, 200.0);
    let report = set.report().to_string();
    assert!(report.contains("images without a file, left out: 2 (0/0a.jpg, 0/0c.jpg)"), "{report}");
}

fn utf16(text: &str) -> Vec<u8> {
    "\u{feff}"
        .chars()
        .chain(text.chars())
        .collect::<String>()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// What is called as one of the files is never passed over because it cannot be read as one.
#[test]
fn files_near_that_are_broken_are_named() {
    for (name, text, says) in [
        (LABELS_FILE, utf16(LABELS), "this is UTF-16 text"),
        (LABELS_FILE, LABELS.replace(',', ";").into(), "columns are separated by commas"),
        (LABELS_FILE, Vec::new(), "the file is empty"),
        (CLASSES_FILE, utf16(CLASSES), "this is UTF-16 text"),
        (CLASSES_FILE, b"/m/animal,Anim\xe9l\n".to_vec(), "expected UTF-8 text, got 0xe9"),
        (
            CLASSES_FILE,
            CLASSES.replace(',', ";").into(),
            "expected MID,Name, got `/m/animal;Animal`",
        ),
        (CLASSES_FILE, Vec::new(), "the file is empty"),
        (HIERARCHY_FILE, utf16(HIERARCHY), "this is UTF-16 text"),
        (HIERARCHY_FILE, b"{}".to_vec(), "expected a `LabelName`"),
        (HIERARCHY_FILE, Vec::new(), "JSON: EOF"),
        ("oidv6-train-annotations-bbox.csv", utf16(BOXES), "this is UTF-16 text"),
        ("oidv6-train-annotations-bbox.csv", Vec::new(), "the file is empty"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        set(folder.path());
        fs_err::write(folder.path().join(name), text).unwrap();
        let message = open(folder.path(), "train", false).unwrap_err().to_string();
        let named = format!("{}: ", folder.path().join(name).display());
        assert!(message.starts_with(&named) && message.contains(says), "{message}");
    }
    // Those of another part say nothing of this one.
    let folder = tempfile::tempdir().unwrap();
    set(folder.path());
    for name in ["test-annotations-human-imagelabels.csv", "train-machine-imagelabels.csv"] {
        fs_err::write(folder.path().join(name), "").unwrap();
    }
    open(folder.path(), "train", false).unwrap();
}

#[test]
fn boxes_that_are_broken_are_named_without_the_format_and_with_it() {
    for (text, says) in [
        (utf16(BOXES), "this is UTF-16 text"),
        (BOXES.replace(',', ";").into(), "columns are separated by commas"),
        (Vec::new(), "the file is empty"),
        (BOXES.replace("XMin", "Left").into(), "with a column `XMin`"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("train-annotations-bbox.csv");
        fs_err::write(&file, text).unwrap();
        fs_err::create_dir(folder.path().join("images")).unwrap();
        fs_err::write(folder.path().join("images/a.jpg"), "").unwrap();
        for format in [None, Some("openimages".to_owned())] {
            for path in [folder.path(), &file] {
                let opening = Opening { format: format.clone(), ..Opening::default() };
                let message = Dataset::open_as(path, &opening).unwrap_err().to_string();
                let named = format!("{}: ", file.display());
                assert!(message.starts_with(&named) && message.contains(says), "{message}");
            }
        }
    }
}

#[test]
fn the_samples_are_read() {
    let Some(samples) = testing::shared("samples/openimages") else { return };
    let set = open(&samples.join("datumaro_v6"), "train", false).unwrap();
    assert_eq!((set.images().len(), set.annotations().len(), set.vocabulary().len()), (2, 1, 4));
    let alone = Opening { pixels: false, ..Opening::default() };
    let set = Dataset::open_as(&samples.join("challenge2019_validation_bbox.head.csv"), &alone);
    assert!(!set.unwrap().annotations().is_empty());
    let Some(cases) = testing::shared("samples/openimages_eval") else { return };
    for case in ["group_of", "hierarchy", "labels"] {
        let set = Dataset::open_as(&cases.join(case), &alone).unwrap();
        assert!(set.relations().is_some() && set.report().lists, "{case}");
    }
}

/// Without a list of classes they are numbered by their MIDs, whatever the order of the rows.
#[test]
fn the_order_of_the_rows_numbers_no_class() {
    let named = |text: &str| -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("train-annotations-bbox.csv"), text).unwrap();
        let set = open(folder.path(), "train", false).unwrap();
        let name = |a: &crate::data::records::Annotation| {
            let class = set.vocabulary().category(a.class);
            format!("{} {}", class.id.0, class.name)
        };
        let mut names: Vec<String> = set.annotations().iter().map(name).collect();
        names.sort();
        names
    };
    let mut rows: Vec<&str> = BOXES.lines().collect();
    rows[1..].reverse();
    let expected = ["1 /m/animal", "2 /m/cat", "3 /m/dog", "4 /m/stranger"];
    assert_eq!(
        (named(BOXES), named(&rows.join("\n"))),
        (expected.map(str::to_owned).to_vec(), expected.map(str::to_owned).to_vec())
    );
}
