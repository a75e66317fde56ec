//! XML files and images in folders of their own, whatever these are called.

use super::beside::{names, packed, put, xml};
use crate::data::{dataset::Dataset, formats::Opening};

/// Moves the XML files (and the images) of a folder to others.
fn apart(root: &std::path::Path, part: &str, texts: &str, images: &str) {
    for (stem, class) in [("a", "cat"), ("b", "dog")] {
        let name = format!("{part}{stem}");
        put(root, &format!("{part}{images}/{name}", name = name.replace('/', "_")), None);
        let text = root.join(format!("{part}{texts}/{}.xml", name.replace('/', "_")));
        fs_err::create_dir_all(text.parent().unwrap()).unwrap();
        fs_err::write(text, xml("a.png", class).replace("<annotation>", "<annotation>\n")).unwrap();
    }
}

#[test]
fn two_folders_of_any_names_are_a_set() {
    for (texts, images) in [
        ("Annotations", "images"),
        ("annotations", "images"),
        ("annotations", "JPEGImages"),
        ("Annotations", "JPEGImages2"),
        ("xml", "imgs"),
        ("mine/labels", "theirs/photos"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        apart(folder.path(), "", texts, images);
        let set = Dataset::open(folder.path()).unwrap();
        assert_eq!((set.format_name(), set.split()), ("voc", "all"), "{texts} {images}");
        assert_eq!(names(&set), ["a.png", "b.png"], "{texts} {images}");
        assert_eq!(set.images_at(), Some(&*folder.path().join(images)), "{texts} {images}");
        let archive = packed(folder.path());
        let packed = Dataset::open(archive.path()).unwrap();
        assert_eq!(names(&packed), [format!("{images}/a.png"), format!("{images}/b.png")]);
        assert_eq!(packed.annotations(), set.annotations());
        // The folder of the XML files alone: the images are beside it, or where the user says.
        let of_texts = folder.path().join(texts);
        let opening = Opening { images: Some(folder.path().join(images)), ..Opening::default() };
        assert_eq!(names(&Dataset::open_as(&of_texts, &opening).unwrap()), ["a.png", "b.png"]);
        if !texts.contains('/') && !images.ends_with('2') {
            assert_eq!(names(&Dataset::open(&of_texts).unwrap()), ["a.png", "b.png"]);
        }
    }
}

#[test]
fn parts_may_have_two_folders_each_and_lists_may_name_parts() {
    let folder = tempfile::tempdir().unwrap();
    apart(folder.path(), "train/", "annotations", "images");
    apart(folder.path(), "valid/", "annotations", "images");
    let archive = packed(folder.path());
    for place in [folder.path(), archive.path()] {
        assert_eq!(Dataset::parts(place, &Opening::default()).unwrap(), ["train", "valid"]);
        let opening = Opening { split: Some("val".to_owned()), ..Opening::default() };
        let set = Dataset::open_as(place, &opening).unwrap();
        assert_eq!(names(&set), ["valid/images/valid_a.png", "valid/images/valid_b.png"]);
    }
    let folder = tempfile::tempdir().unwrap();
    apart(folder.path(), "", "Annotations", "images");
    let lists = folder.path().join("ImageSets/Main");
    fs_err::create_dir_all(&lists).unwrap();
    fs_err::write(lists.join("train.txt"), "b\n").unwrap();
    let archive = packed(folder.path());
    for (place, name) in [(folder.path(), "b.png"), (archive.path(), "images/b.png")] {
        let set = Dataset::open(place).unwrap();
        assert_eq!((set.split(), names(&set)), ("train", vec![name]));
    }
}

#[test]
fn where_two_folders_have_an_image_the_xml_says_which() {
    let folder = tempfile::tempdir().unwrap();
    apart(folder.path(), "", "xml", "left");
    apart(folder.path(), "", "xml", "right");
    let error = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("xml/a.xml: its image may be"), "{error}");
    for stem in ["a", "b"] {
        let path = folder.path().join(format!("xml/{stem}.xml"));
        let text = fs_err::read_to_string(&path).unwrap();
        let text = text.replace("<annotation>", "<annotation><folder>right</folder>");
        fs_err::write(path, text).unwrap();
    }
    let set = Dataset::open(folder.path()).unwrap();
    assert_eq!(names(&set), ["right/a.png", "right/b.png"]);
    // A folder of a usual name needs no word of the XML.
    let folder = tempfile::tempdir().unwrap();
    apart(folder.path(), "", "annotations", "images");
    apart(folder.path(), "", "annotations", "masks");
    assert_eq!(names(&Dataset::open(folder.path()).unwrap()), ["images/a.png", "images/b.png"]);
}

#[test]
fn what_is_missing_or_broken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    apart(folder.path(), "", "xml", "images");
    let texts = folder.path().join("xml");
    for (text, says) in
        [("", "an empty file"), ("<annotation><object>", "broken"), (" \n", "an empty file")]
    {
        fs_err::write(texts.join("a.xml"), text).unwrap();
        let error = Dataset::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("xml/a.xml") && error.contains(says), "{error}");
    }
    // All of them.
    let alone = tempfile::tempdir().unwrap();
    put(alone.path(), "a", None);
    fs_err::write(alone.path().join("a.xml"), "").unwrap();
    let error = Dataset::open(alone.path()).unwrap_err().to_string();
    assert!(error.contains("a.xml") && error.contains("an empty file"), "{error}");
    // No image anywhere: the hint says how to tell where they are.
    fs_err::write(texts.join("a.xml"), xml("a.png", "cat")).unwrap();
    fs_err::remove_dir_all(folder.path().join("images")).unwrap();
    let error = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("its image is missing") && error.contains("say where"), "{error}");
}
