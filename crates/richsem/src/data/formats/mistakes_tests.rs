//! Files that are empty, broken or cut short: the message names them, wherever they lie.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use super::Opening;
use crate::data::dataset::Dataset;

const GOOD: &str = r#"{"images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
    "categories": [{"id": 1, "name": "a"}]}"#;

/// Files in a folder and, beside it, in an archive.
fn both(files: &[(&str, &str)]) -> (tempfile::TempDir, [PathBuf; 2]) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("set");
    for (name, text) in files {
        let path = folder.join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    let archive = root.path().join("set.tar");
    let mut builder = tar::Builder::new(fs_err::File::create(&archive).unwrap());
    builder.append_dir_all(".", &folder).unwrap();
    builder.finish().unwrap();
    drop(builder);
    (root, [folder, archive])
}

fn error(path: &Path) -> String {
    Dataset::open(path).unwrap_err().to_string()
}

#[test]
fn json_that_is_empty_or_none_is_named() {
    let image = ("images/a.jpg", "");
    for (name, text, says) in [
        ("train.json", "", "top level: the file is empty"),
        ("train.json", r#"{"hello": 1}"#, "images: missing"),
        ("train.json", "[1", "top level: expected an object"),
        ("train.json", "{", "the file ends at byte 1"),
        ("train.json", "not JSON", "top level: expected an object"),
        ("annotations/all.json", "{}", "images: missing"),
        ("my_annotations.json", "{}", "images: missing"),
        ("anything.json", " ", "top level: "),
    ] {
        let (_root, places) = both(&[image, (name, text)]);
        for place in places {
            let message = error(&place);
            let file = place.join(name).display().to_string();
            assert!(message.starts_with(&format!("{file}: ")), "{text}: {message}");
            assert!(message.contains(says), "{text}: {message}");
        }
    }
    // What is no annotation by its name says nothing of a folder of classes.
    let (_root, [folder, archive]) =
        both(&[("cat/1.jpg", ""), ("dog/1.jpg", ""), ("class_index.json", "{}")]);
    assert!(error(&folder).contains("data.extra") && error(&archive).contains("data.extra"));
}

#[test]
fn a_part_that_is_empty_or_none_is_a_part_all_the_same() {
    for (text, says) in [("", "the file is empty"), (r#"{"a": 1}"#, "images: missing")] {
        for names in [
            ["train/_annotations.coco.json", "valid/_annotations.coco.json"],
            ["train.json", "val.json"],
            ["annotations/instances_train2017.json", "annotations/instances_val2017.json"],
            ["annotations/train.json", "annotations/val.json"],
        ] {
            let (_root, places) = both(&[("train/a.jpg", ""), (names[0], GOOD), (names[1], text)]);
            for place in places {
                let parts = Dataset::parts(&place, &Opening::default()).unwrap();
                assert_eq!(parts.len(), 2, "{} {names:?}", place.display());
                let val = Opening { split: Some("val".to_owned()), ..Opening::default() };
                let message = Dataset::open_as(&place, &val).unwrap_err().to_string();
                let file = place.join(names[1]).display().to_string();
                assert!(message.starts_with(&file) && message.contains(says), "{message}");
            }
        }
    }
    // Other JSON beside is none.
    for (name, text) in [("classes.json", ""), ("test.json", r#"["a"]"#), ("info.json", "{}")] {
        let (_root, places) = both(&[("images/a.jpg", ""), ("train.json", GOOD), (name, text)]);
        for place in places {
            assert_eq!(Dataset::parts(&place, &Opening::default()).unwrap(), ["train"], "{name}");
        }
    }
}

#[test]
fn xml_that_is_empty_or_broken_is_named() {
    for (name, text, says) in [
        ("xml/a.xml", "", "got an empty file"),
        ("xml/other.xml", "", "got an empty file"),
        ("xml/a.xml", "<anno", "XML: broken"),
        ("photos/a.xml", "<anno", "XML: broken"),
    ] {
        let (_root, places) = both(&[("photos/a.jpg", ""), ("photos/b.jpg", ""), (name, text)]);
        for place in places {
            let message = error(&place);
            let file = place.join(name).display().to_string();
            assert!(message.starts_with(&file) && message.contains(says), "{message}");
        }
    }
    let (_root, places) = both(&[("cat/1.jpg", ""), ("cat/notes.xml", "<a/>")]);
    assert!(places.iter().all(|place| error(place).contains("data.extra")));
}

#[test]
fn archives_that_are_none_or_cut_short_say_so() {
    let long = "x".repeat(2000);
    let (root, [_, whole]) = both(&[("images/a.jpg", &long), ("train.json", GOOD)]);
    let bytes = fs_err::read(whole).unwrap();
    let cut = root.path().join("cut.tar");
    let says = |bytes: &[u8], says: &str| {
        fs_err::write(&cut, bytes).unwrap();
        let message = error(&cut);
        assert!(message.starts_with(&format!("{}: archive: ", cut.display())), "{message}");
        assert!(message.contains(says), "{message}");
    };
    says(b"", "not a readable .tar: the file is empty");
    says(&[b'x'; 5000], "it does not begin as a .tar does");
    says(b"text", "it does not begin as a .tar does");
    // Wherever it is cut, an entry is named, unless no entry is there or the cut is in the zeros of its end.
    let ends: Vec<usize> = (1..bytes.len() - 1024).step_by(97).collect();
    for end in ends {
        fs_err::write(&cut, &bytes[..end]).unwrap();
        let Err(error) = Dataset::open(&cut) else { continue };
        let message = error.to_string();
        let named = message.contains("is cut short: expected 2000 bytes of it, got ")
            || message.contains("`train.json` is cut short: expected ")
            || message.contains("what follows `")
            || message.contains("it does not begin as");
        assert!(named || end % 512 == 0, "{end}: {message}");
    }
}

#[test]
fn files_that_only_stand_for_others_say_so() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let page = "\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>";
    let (xml, yaml) = ("<annotation></annotation>", "train: images\nnames: [a]\n");
    for (text, what, hint) in
        [(pointer, "a pointer of git-lfs", "git lfs pull"), (page, "a web page", "download")]
    {
        // By themselves, whatever they are called.
        let root = tempfile::tempdir().unwrap();
        for end in ["json", "tar", "parquet", "xml", "jsonl", "csv", "yaml", "json.gz", "zip"] {
            let path = root.path().join(format!("set.{end}"));
            fs_err::write(&path, text).unwrap();
            let message = error(&path);
            assert!(message.starts_with(&path.display().to_string()), "{message}");
            assert!(message.contains(what) && message.contains(hint), "{end}: {message}");
        }
        // In a set.
        let image = ("images/a.jpg", "");
        for (others, name) in [
            (vec![image], "annotations/instances_train.json"),
            (vec![image], "train.json"),
            (vec![], "data/train-00000-of-00001.parquet"),
            (vec![("JPEGImages/b.jpg", "")], "Annotations/b.xml"),
            (vec![("a.jpg", "")], "a.xml"),
            (vec![image, ("labels/a.txt", "0 .5 .5 .1 .1")], "data.yaml"),
            (vec![image, ("data.yaml", yaml)], "labels/a.txt"),
            (vec![("JPEGImages/a.jpg", ""), ("Annotations/b.xml", xml)], "Annotations/a.xml"),
        ] {
            let files: Vec<_> = others.into_iter().chain([(name, text)]).collect();
            let (_root, [folder, _]) = both(&files);
            let message = error(&folder);
            assert!(message.starts_with(&folder.join(name).display().to_string()), "{message}");
            assert!(message.contains(what) && message.contains(hint), "{name}: {message}");
        }
    }
}

#[test]
fn the_xml_of_one_image_is_no_set() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.xml");
    fs_err::write(&path, "<annotation><object/></annotation>").unwrap();
    let message = error(&path);
    let says = format!("give the folder of all of them, {}", root.path().display());
    assert!(message.contains(&says), "{message}");
}
