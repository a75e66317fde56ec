//! Visual Genome: real records of five images, the list of 1600 classes, and what is wrong with others.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use super::vocabulary::ENOUGH;
use crate::{
    data::{dataset::Dataset, formats::Opening, records::AnnotationFormat},
    testing::shared,
};

/// A folder with some of the samples; none where they are absent.
fn folder(files: &[(&str, &str)]) -> Option<tempfile::TempDir> {
    let samples = shared("samples/visual_genome")?;
    let folder = tempfile::tempdir().unwrap();
    for (from, to) in files {
        fs_err::copy(samples.join(from), folder.path().join(to)).unwrap();
    }
    Some(folder)
}

const IMAGES: (&str, &str) = ("image_data.json", "image_data.json");

fn open(path: &Path, split: Option<&str>, vocabulary: Option<PathBuf>) -> crate::Result<Dataset> {
    let opening = Opening { split: split.map(str::to_owned), vocabulary, ..Opening::default() };
    Dataset::open_as(path, &opening)
}

/// A set of one image and these objects, in a class for each of `names`.
fn with(objects: &str, names: &str) -> crate::Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs_err::write(folder.path().join(name), text).unwrap();
    write("image_data.json", IMAGE);
    write("objects.json", &format!(r#"[{{"image_id": 1, "objects": [{objects}]}}]"#));
    write("objects_vocab.txt", names);
    Dataset::open(folder.path())
}

const IMAGE: &str =
    r#"[{"image_id": 1, "url": "https://h/rak248/VG_100K_2/1.jpg", "width": 800, "height": 600}]"#;

fn object(names: &str) -> String {
    format!(r#"{{"object_id": 9, "x": 1, "y": 2, "w": 3, "h": 4, "names": [{names}]}}"#)
}

/// Numbers counted by a program of its own in Python.
#[test]
fn the_list_of_1600_classes() {
    let Some(folder) = folder(&[
        IMAGES,
        ("objects_v1.2.0.json", "objects.json"),
        ("objects_vocab_1600.txt", "objects_vocab.txt"),
    ]) else {
        return;
    };
    let dataset = open(folder.path(), None, None).unwrap();
    assert_eq!((dataset.split(), dataset.images().len()), ("", 5));
    assert_eq!(dataset.images()[0].file_name, "VG_100K_2/1.jpg");
    assert_eq!(dataset.images()[1].file_name, "VG_100K/2.jpg");
    assert_eq!(dataset.images()[2].size, Some([480, 640]));
    assert_eq!((dataset.vocabulary().len(), dataset.annotations().len()), (1600, 146 + 2 + 3));
    let seen = dataset.vocabulary().categories().iter().filter(|c| c.instance_count > 0).count();
    assert_eq!(seen, 90);
    let first = &dataset.annotations()[0];
    assert_eq!((first.id, first.bbox.0), (1_058_498, [421.0, 91.0, 79.0, 339.0]));
    assert_eq!(dataset.vocabulary().category(first.class).name, "clock");
    let stop =
        dataset.vocabulary().categories().iter().position(|c| c.name == "stop sign").unwrap();
    assert_eq!(dataset.synonyms()[stop], ["stopsign"]);
    assert_eq!(dataset.format(), AnnotationFormat::Coco);
    let notes = dataset.report().notes.join("\n");
    for note in [
        "found under their own name: 146 objects of",
        "merged by other names in the list: 2 objects of 1 name (`street light` as",
        "moved off: 3 objects of 3 names (`black hair` as `hair` 1, `grey keys` as `keys` 1, `white top` as `top` 1)",
        "in no class, left out: 26 objects of 22 names (`color` 3, `cables` 2, `colour` 2, …)",
        "objects with several names, of which the first counts: 12",
        "does not show all objects",
    ] {
        assert!(notes.contains(note), "{note}\n{notes}");
    }
}

#[test]
fn the_first_version_calls_its_ids_otherwise() {
    let Some(folder) = folder(&[IMAGES, ("objects_v1.0.0.json", "objects_v1.json")]) else {
        return;
    };
    let list = shared("samples/visual_genome/objects_vocab_1600.txt");
    let dataset = open(folder.path(), None, list).unwrap();
    assert_eq!((dataset.annotations()[0].id, dataset.images().len()), (38203, 5));
}

#[test]
fn two_versions_in_a_folder_are_two_parts() {
    let Some(samples) = shared("samples/visual_genome") else { return };
    let message = open(&samples, None, None).unwrap_err().to_string();
    assert!(message.contains("several parts: `objects_v1.0.0`, `objects_v1.2.0`"), "{message}");
    let list = Some(samples.join("objects_vocab_1600.txt"));
    let dataset = open(&samples, Some("objects_v1.2.0"), list).unwrap();
    assert_eq!(dataset.annotations().len(), 151);
}

#[test]
fn lists_of_images_are_parts() {
    let Some(folder) = folder(&[IMAGES, ("objects_v1.2.0.json", "objects.json")]) else { return };
    let list = || shared("samples/visual_genome/objects_vocab_1600.txt");
    let write = |name: &str, text: &str| fs_err::write(folder.path().join(name), text).unwrap();
    write("train.txt", "VG_100K_2/1.jpg xml/1.xml\nVG_100K/3.jpg xml/3.xml\r\n\n5\n");
    write("val.txt", "VG_100K/4.jpg xml/4.xml\n");
    let train = open(folder.path(), Some("training"), list()).unwrap();
    let ids: Vec<i64> = train.images().iter().map(|image| image.id).collect();
    assert_eq!((train.split(), ids), ("train", vec![1, 3, 5]));
    let val = open(folder.path(), Some("val"), list()).unwrap();
    assert_eq!(val.images()[0].id, 4);
    let whole =
        open(&shared("samples/visual_genome").unwrap(), Some("objects_v1.2.0"), list()).unwrap();
    let boxes = |dataset: &Dataset, id: i64| {
        let at = dataset.images().iter().position(|image| image.id == id).unwrap();
        dataset.annotations_of(at).iter().map(|a| a.bbox).collect::<Vec<_>>()
    };
    for id in [1, 3, 5] {
        assert_eq!(boxes(&train, id), boxes(&whole, id));
    }
    write("val.txt", "VG_100K/4.jpg\nVG_100K/cat.jpg\n");
    let message = open(folder.path(), Some("val"), list()).unwrap_err().to_string();
    assert!(
        message.contains("val.txt: line 2: expected an image of the set, got `VG_100K/cat.jpg`")
    );
    write("val.txt", "\n");
    let message = open(folder.path(), Some("val"), list()).unwrap_err().to_string();
    assert!(message.contains("the list is empty"), "{message}");
}

#[test]
fn rules_of_names() {
    let names = [
        "\"Tall White Building.\"",
        "\"white\"",
        "\"black and white cat\"",
        "\"orange juice\"",
        "\"STOPSIGN\"",
    ];
    let objects: Vec<String> = names.map(object).to_vec();
    let dataset =
        with(&objects.join(","), "building\nstop sign,stopsign\norange juice\njuice\nwhite\n")
            .unwrap();
    let classes: Vec<&str> = dataset
        .annotations()
        .iter()
        .map(|a| &*dataset.vocabulary().category(a.class).name)
        .collect();
    assert_eq!(classes, ["building", "white", "orange juice", "stop sign"]);
    let ids: Vec<i64> = dataset.annotations().iter().map(|a| a.id).collect();
    assert_eq!(ids, [1, 2, 3, 4], "all had the same");
    assert!(dataset.report().notes.iter().any(|note| note.contains("numbered anew")));
}

#[test]
fn without_a_list_names_with_enough_boxes_are_classes() {
    let many = |name: &str, count: usize| vec![object(&format!("\"{name}\"")); count];
    let mut objects = many("wall", ENOUGH - 1);
    objects.extend(many("White Wall", 1));
    objects.extend(many("cat", ENOUGH - 1));
    let open_without = |objects: &[String]| {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("image_data.json"), IMAGE).unwrap();
        let text = format!(r#"[{{"image_id": 1, "objects": [{}]}}]"#, objects.join(","));
        fs_err::write(folder.path().join("objects.json"), text).unwrap();
        Dataset::open(folder.path())
    };
    let dataset = open_without(&objects).unwrap();
    let class = &dataset.vocabulary().categories()[0];
    assert_eq!((dataset.vocabulary().len(), &*class.name, class.instance_count), (1, "wall", 50));
    let notes = dataset.report().notes.join("\n");
    assert!(notes.contains("classes: 1 name that 50 boxes have"), "{notes}");
    assert!(notes.contains("in no class, left out: 49 objects of 1 name (`cat` 49)"), "{notes}");
    let message = open_without(&objects[1..]).unwrap_err().to_string();
    assert!(message.contains("none of 2 names has 50 boxes\n  hint: give a list"), "{message}");
}

#[test]
fn objects_that_cannot_be_used_are_counted() {
    let merged = object("\"cat\"")
        .replace("\"object_id\": 9", "\"object_id\": 1, \"merged_object_ids\": [7, 8]");
    let objects = [
        merged,
        object("").replace("9", "2"),
        object("\" \"").replace("9", "3"),
        object("\"cat\"").replace("\"w\": 3", "\"w\": -3"),
    ];
    let dataset = with(&objects.join(","), "cat").unwrap();
    assert_eq!(dataset.annotations().len(), 1);
    let notes = dataset.report().notes.join("\n");
    assert!(notes.contains("objects without a name, left out: 2"), "{notes}");
    assert!(notes.contains("merged from several (merged_object_ids): 1"), "{notes}");
    assert!(dataset.report().warnings[0].contains("1 object has a negative width or height"));
}

/// Ids are the numbers of the lines, of empty ones too; a byte order mark is no part of a name.
#[test]
fn a_list_of_classes_numbers_its_lines() {
    let classes = |names: &str| -> Vec<(i64, String)> {
        let dataset = with(&object("\"cat\""), names).unwrap();
        let categories = dataset.vocabulary().categories().iter();
        categories.map(|class| (class.id.0, class.name.clone())).collect()
    };
    let expected = [(1, "cat".to_owned()), (4, "dog".to_owned())];
    assert_eq!(classes("\u{feff}cat,kitten\r\n\r\n ,\r\ndog\r\n"), expected);
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("image_data.json", IMAGE),
        ("objects.json", &format!(r#"[{{"image_id": 1, "objects": [{}]}}]"#, object("\"cat\""))),
        ("objects_vocab.txt", "cat"),
        ("val.txt", "\u{feff}VG_100K_2/1.jpg\n"),
    ] {
        fs_err::write(folder.path().join(name), text).unwrap();
    }
    assert_eq!(open(folder.path(), Some("val"), None).unwrap().images().len(), 1);
}

#[test]
fn what_is_wrong_is_named() {
    for (objects, names, says) in [
        (object("\"cat\""), "", "objects_vocab.txt: classes: the list is empty"),
        (object("\"cat\""), "cat\ndog,Cat.\n", "line 2: `cat` is already in line 1"),
        (object("7"), "cat", "[0].objects: expected a list of objects"),
        (
            object("\"cat\"").replace("\"x\": 1", "\"x\": null"),
            "cat",
            "[0].objects: expected a list",
        ),
        (format!("{}}}]", object("\"cat\"")), "cat", "[0]"),
    ] {
        let message = with(&objects, names).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn broken_files_are_named() {
    let opened = |images: &[u8], objects: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("image_data.json"), images).unwrap();
        fs_err::write(folder.path().join("objects.json"), objects).unwrap();
        fs_err::write(folder.path().join("objects_vocab.txt"), "cat").unwrap();
        let opening = Opening { format: Some("visual_genome".into()), ..Opening::default() };
        Dataset::open_as(&folder.path().join("objects.json"), &opening).unwrap_err().to_string()
    };
    let image = IMAGE.as_bytes();
    let objects = format!(r#"[{{"image_id": 1, "objects": [{}]}}]"#, object("\"cat\""));
    let cut = &objects.as_bytes()[..objects.len() - 20];
    let record = |id: &str| format!(r#"{{{id} "objects": []}}"#);
    let twice = format!("[{0}, {0}]", record("\"image_id\": 1,"));
    let two = format!("[{0}, {0}]", &IMAGE[1..IMAGE.len() - 1]);
    for (images, objects, says) in [
        (image, &b""[..], "objects.json: top level: the file is empty"),
        (image, cut, "objects.json: [0]: the file ends at byte"),
        (image, b"{\"images\": []}", "expected a list, as in Visual Genome's files, got an object"),
        (image, b"\xff\xfe[\0", "UTF-16"),
        (
            image,
            format!("[{}]", record("")).as_bytes(),
            "[0].image_id: missing; expected an integer",
        ),
        (image, twice.as_bytes(), "[1].image_id: the image 1 has another record before"),
        (b"[]", objects.as_bytes(), "image_data.json: top level: the list is empty"),
        (&image[..20], objects.as_bytes(), "image_data.json: [0]: the file ends at byte 20"),
        (
            two.as_bytes(),
            objects.as_bytes(),
            "image_data.json: [1].image_id: 1 is already the id of [0]",
        ),
        (br#"[{"image_id": 1}]"#, objects.as_bytes(), "image_data.json: [0].url: missing"),
    ] {
        let message = opened(images, objects);
        assert!(message.contains(says), "{says}\n{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("objects.json"), &objects).unwrap();
    let message = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("image_data.json: images: missing: it lists the images"), "{message}");
}

#[test]
fn a_list_of_classes_is_for_visual_genome_alone() {
    let Some(path) = shared("samples/labelstudio/polygons_result.json") else { return };
    let message = open(&path, None, Some("x.txt".into())).unwrap_err().to_string();
    assert!(message.contains("COCO or LVIS JSON has classes of its own"), "{message}");
}

#[test]
fn a_list_of_classes_that_is_not_there_is_named_with_what_it_is() {
    let list = std::path::Path::new("/nowhere/nope.txt");
    let error = super::vocabulary::Vocabulary::find(Some(list), list).err().unwrap().to_string();
    assert!(error.starts_with("`vocabulary`: there is no file `/nowhere/nope.txt`"), "{error}");
    assert!(error.contains("a class on each line"), "{error}");
}
