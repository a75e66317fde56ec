//! Sets laid out in ways that others than the writers of their formats make: appended to archives, packed with the
//! folder around, under equal names.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use super::Opening;
use crate::data::dataset::Dataset;

/// An image.
fn png() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 6).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// COCO's JSON with a box in each image, of that class.
fn coco(images: &[&str], class: &str) -> String {
    let listed = images.iter().enumerate().map(|(i, name)| {
        format!(r#"{{"id": {i}, "file_name": "{name}", "width": 8, "height": 6}}"#)
    });
    let boxes = (0..images.len()).map(|i| {
        format!(r#"{{"id": {i}, "image_id": {i}, "category_id": 1, "bbox": [0, 0, 4, 4]}}"#)
    });
    format!(
        r#"{{"images": [{}], "annotations": [{}], "categories": [{{"id": 1, "name": "{class}"}}]}}"#,
        listed.collect::<Vec<_>>().join(", "),
        boxes.collect::<Vec<_>>().join(", ")
    )
}

/// VOC's XML of one image with a box of that class.
fn voc(class: &str) -> String {
    format!(
        "<annotation><size><width>8</width><height>6</height></size><object><name>{class}</name><bndbox>\
         <xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>"
    )
}

/// The files of a set; images have no text.
type Files<'a> = [(&'a str, String)];

fn bytes((name, text): &(&str, String)) -> Vec<u8> {
    if name.ends_with(".png") { png() } else { text.clone().into_bytes() }
}

fn tar(folder: &Path, files: &Files<'_>) -> PathBuf {
    let path = folder.join("set.tar");
    let mut builder = tar::Builder::new(fs_err::File::create(&path).unwrap());
    for file in files {
        let bytes = bytes(file);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, file.0, &*bytes).unwrap();
    }
    builder.finish().unwrap();
    path
}

fn image() -> String {
    String::new()
}

fn classes(set: &Dataset) -> Vec<String> {
    let of = |a: &crate::data::records::Annotation| set.vocabulary().category(a.class).name.clone();
    set.annotations().iter().map(of).collect()
}

#[test]
fn of_files_of_one_name_in_an_archive_the_last_one_is_read() {
    let yaml = |class: &str| format!("train: images\nnames: [{class}]\n");
    let label = || "0 .5 .5 .5 .5\n".to_owned();
    let sets: [&Files<'_>; 3] = [
        &[
            ("annotations/instances_train.json", coco(&["a.png"], "old")),
            ("images/a.png", image()),
            ("./annotations/instances_train.json", coco(&["a.png"], "new")),
            ("images/a.png", image()),
        ],
        &[
            ("v/Annotations/a.xml", voc("old")),
            ("v/JPEGImages/a.png", image()),
            ("v/Annotations/a.xml", voc("new")),
            ("v/JPEGImages/a.png", image()),
        ],
        &[
            ("data.yaml", yaml("old")),
            ("images/a.png", image()),
            ("labels/a.txt", "0 .5 .5 .5 2".to_owned()),
            ("data.yaml", yaml("new")),
            ("labels/a.txt", label()),
        ],
    ];
    for (files, replaced) in sets.into_iter().zip([1, 1, 2]) {
        let folder = tempfile::tempdir().unwrap();
        let path = tar(folder.path(), files);
        assert!(Dataset::parts(&path, &Opening::default()).unwrap().len() <= 1);
        let set = Dataset::open(&path).unwrap();
        assert_eq!((classes(&set), set.images().len()), (vec!["new".to_owned()], 1));
        let told = set.report().to_string();
        let wanted = if replaced == 1 { "1 file is not read" } else { "2 files are not read" };
        assert_eq!(told.matches(wanted).count(), 1, "{told}");
        assert!(told.contains("a later one in the archive has the same name"), "{told}");
    }
}

fn unpacked(folder: &Path, files: &Files<'_>) -> PathBuf {
    let root = folder.join("set");
    for file in files {
        let path = root.join(file.0);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, bytes(file)).unwrap();
    }
    root
}

fn part(path: &Path, split: &str) -> Dataset {
    let opening = Opening { split: Some(split.to_owned()), ..Opening::default() };
    Dataset::open_as(path, &opening).unwrap()
}

#[test]
fn parts_whose_files_have_one_name_are_called_by_their_folders() {
    let (a, b) = (coco(&["a.png"], "a"), coco(&["a.png"], "b"));
    let sets: [(&Files<'_>, [&str; 2]); 3] = [
        (
            &[
                ("train/annotations.json", a.clone()),
                ("train/images/a.png", image()),
                ("val/annotations.json", b.clone()),
                ("val/images/a.png", image()),
            ],
            ["train", "val"],
        ),
        (
            &[
                ("train/annotations/instances.json", a.clone()),
                ("train/images/a.png", image()),
                ("valid/annotations/instances.json", b.clone()),
                ("valid/images/a.png", image()),
            ],
            ["train", "valid"],
        ),
        (
            &[
                ("x/annotations/instances_train.json", a.clone()),
                ("x/images/a.png", image()),
                ("y/annotations/instances_train.json", b.clone()),
                ("y/images/a.png", image()),
            ],
            ["x", "y"],
        ),
    ];
    for (files, names) in sets {
        let folder = tempfile::tempdir().unwrap();
        let packed = tar(folder.path(), files);
        let mut places = vec![packed];
        if names[0] == "train" {
            places.push(unpacked(folder.path(), files));
        }
        for path in places {
            assert_eq!(Dataset::parts(&path, &Opening::default()).unwrap(), names);
            for (name, class) in names.into_iter().zip(["a", "b"]) {
                let set = part(&path, name);
                assert_eq!((set.split(), classes(&set)), (name, vec![class.to_owned()]));
                let (image, at) = (&set.images()[0].file_name, set.images_at().unwrap());
                assert!(at.join(image).ends_with(format!("{name}/images/a.png")), "{image}");
            }
            let error = Dataset::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("`{}`, `{}`", names[0], names[1])), "{error}");
        }
    }
}

#[test]
fn folders_around_a_set_in_parts_do_not_matter() {
    let yaml = "train: train/images\nval: valid/images\nnames: [a]\n".to_owned();
    let label = || "0 .5 .5 .5 .5\n".to_owned();
    let record = |name: &str| {
        let objects = r#"{"bbox": [[0, 3, 4, 2]], "categories": ["a"]}"#;
        format!(r#"{{"file_name": "{name}", "objects": {objects}}}"#)
    };
    let cvat = r#"<annotations><image id="0" name="a.png" width="8" height="6" subset="train"><box label="a"
        xtl="1" ytl="1" xbr="4" ybr="4"/></image><image id="1" name="b.png" width="8" height="6" subset="valid">
        <box label="a" xtl="1" ytl="1" xbr="4" ybr="4"/></image></annotations>"#;
    // What is in an archive, too.
    let sets: [(bool, &Files<'_>); 7] = [
        (
            true,
            &[
                ("train/a.xml", voc("a")),
                ("train/a.png", image()),
                ("valid/b.xml", voc("a")),
                ("valid/b.png", image()),
            ],
        ),
        (
            true,
            &[
                ("Annotations/train/a.xml", voc("a")),
                ("JPEGImages/train/a.png", image()),
                ("Annotations/valid/b.xml", voc("a")),
                ("JPEGImages/valid/b.png", image()),
            ],
        ),
        (
            true,
            &[
                ("train/_annotations.coco.json", coco(&["a.png"], "a")),
                ("train/a.png", image()),
                ("valid/_annotations.coco.json", coco(&["b.png"], "a")),
                ("valid/b.png", image()),
            ],
        ),
        (
            true,
            &[
                ("data.yaml", yaml),
                ("train/images/a.png", image()),
                ("train/labels/a.txt", label()),
                ("valid/images/b.png", image()),
                ("valid/labels/b.txt", label()),
            ],
        ),
        (
            true,
            &[
                ("train/_darknet.labels", "a".to_owned()),
                ("train/a.png", image()),
                ("train/a.txt", label()),
                ("valid/_darknet.labels", "a".to_owned()),
                ("valid/b.png", image()),
                ("valid/b.txt", label()),
            ],
        ),
        (
            false,
            &[
                ("train/metadata.jsonl", record("a.png")),
                ("train/a.png", image()),
                ("valid/metadata.jsonl", record("b.png")),
                ("valid/b.png", image()),
            ],
        ),
        (
            false,
            &[
                ("annotations.xml", cvat.to_owned()),
                ("images/a.png", image()),
                ("images/b.png", image()),
            ],
        ),
    ];
    for (in_archives, files) in sets {
        for around in ["", "export/", "my_train_export/set/"] {
            let names: Vec<String> =
                files.iter().map(|(name, _)| format!("{around}{name}")).collect();
            let files: Vec<(&str, String)> =
                names.iter().zip(files).map(|(name, (_, text))| (&**name, text.clone())).collect();
            let folder = tempfile::tempdir().unwrap();
            let mut places = vec![unpacked(folder.path(), &files)];
            if in_archives {
                places.push(tar(folder.path(), &files));
            }
            for path in places {
                let first = &names[0];
                let parts = Dataset::parts(&path, &Opening::default()).unwrap();
                let usual = |part: &str| super::same_split(&parts[0], part);
                assert_eq!((parts.len(), usual("train")), (2, true), "{first}: {parts:?}");
                for (split, image) in [("train", "a.png"), ("val", "b.png")] {
                    let set = part(&path, split);
                    let (name, at) = (&set.images()[0].file_name, set.images_at().unwrap());
                    assert_eq!((set.images().len(), set.annotations().len()), (1, 1), "{first}");
                    assert!(name.ends_with(image) && at.starts_with(&path), "{first}: {name}");
                    let store = crate::data::image_store::ImageStore::open(at, Default::default());
                    assert!(store.unwrap().contains(name), "{first}: {name}");
                }
            }
        }
    }
}

#[test]
fn several_sets_in_one_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("x/one/train.json", coco(&["a.png"], "a")),
        ("x/two/data.yaml", "train: images\nnames: [a]\n".to_owned()),
    ];
    let path = unpacked(folder.path(), &files);
    let error = Dataset::open(&path).unwrap_err().to_string();
    assert!(error.contains("several sets in one: `x/one`, `x/two`"), "{error}");
    // Only one has the format that is asked for.
    let opening = Opening { format: Some("coco".to_owned()), ..Opening::default() };
    assert_eq!(Dataset::open_as(&path, &opening).unwrap().images().len(), 1);
}

#[test]
fn folders_of_parts_beside_others_are_told() {
    let files = [
        ("train/a.xml", voc("a")),
        ("train/a.png", image()),
        ("more/b.xml", voc("a")),
        ("more/b.png", image()),
    ];
    let folder = tempfile::tempdir().unwrap();
    for path in [unpacked(folder.path(), &files), tar(folder.path(), &files)] {
        let set = Dataset::open(&path).unwrap();
        let told = set.report().warnings.join("\n");
        assert!(set.images().len() == 2 && told.contains("the name of a part (train)"), "{told}");
    }
}

#[test]
fn one_name_that_happens_to_exist_does_not_say_where_the_images_are() {
    let names = ["a.png", "b.png", "c.png"];
    let files = [
        ("a.png", image()),
        ("annotations/instances_train.json", coco(&names, "a")),
        ("images/a.png", image()),
        ("images/b.png", image()),
        ("images/c.png", image()),
    ];
    let folder = tempfile::tempdir().unwrap();
    for path in [unpacked(folder.path(), &files), tar(folder.path(), &files)] {
        let set = Dataset::open(&path).unwrap();
        let at = set.images_at().unwrap();
        for (image, name) in set.images().iter().zip(names) {
            assert_eq!(at.join(&image.file_name), path.join("images").join(name));
        }
    }
}

#[test]
fn images_below_one_folder_of_the_given_place_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("set.json");
    fs_err::write(&json, coco(&["a.png", "s/b.png"], "a")).unwrap();
    let opening = |images: &Path| Opening { images: Some(images.to_owned()), ..Opening::default() };
    let files = [("im/x/a.png", image()), ("im/x/s/b.png", image()), ("im/y/a.png", image())];
    for images in [unpacked(folder.path(), &files), tar(folder.path(), &files)] {
        let set = Dataset::open_as(&json, &opening(&images)).unwrap();
        let whole: Vec<PathBuf> =
            set.images().iter().map(|i| set.images_at().unwrap().join(&i.file_name)).collect();
        assert_eq!(whole, [images.join("im/x/a.png"), images.join("im/x/s/b.png")]);
        let told = set.report().to_string();
        assert!(told.contains("below `im/x` (`im/x/a.png` for `a.png`)"), "{told}");
    }
    // Two folders have all of them, or one has some.
    let folder = tempfile::tempdir().unwrap();
    for files in [
        vec![
            ("x/a.png", image()),
            ("x/s/b.png", image()),
            ("y/a.png", image()),
            ("y/s/b.png", image()),
        ],
        vec![("x/a.png", image())],
    ] {
        let images = tar(folder.path(), &files);
        let set = Dataset::open_as(&json, &opening(&images)).unwrap();
        assert_eq!((set.images_at(), &*set.images()[0].file_name), (None, "a.png"));
    }
}

#[test]
fn what_the_program_writes_beside_a_set_is_no_part_of_it() {
    let others = [
        ("eval.json", r#"{"protocol": "coco", "images": 24, "boxes": 116, "per_class": []}"#),
        ("doctor.json", r#"{"parts": [{"images": 2, "categories": []}], "text": "\"images\": ["}"#),
        ("metrics.json", r#"{"images": {"annotations": []}, "x": [{"categories": [1]}]}"#),
        ("found.json", r#"[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]"#),
    ];
    let others = others.map(|(name, text)| (name, text.to_owned()));
    let sets: [Vec<(&str, String)>; 3] = [
        vec![("train.json", coco(&["a.png"], "a")), ("a.png", image())],
        vec![("Annotations/a.xml", voc("a")), ("JPEGImages/a.png", image())],
        vec![
            ("data.yaml", "train: images\nnames: [a]\n".to_owned()),
            ("images/a.png", image()),
            ("labels/a.txt", "0 .5 .5 .5 .5\n".to_owned()),
        ],
    ];
    for mut files in sets {
        files.extend(others.clone());
        let folder = tempfile::tempdir().unwrap();
        for path in [unpacked(folder.path(), &files), tar(folder.path(), &files)] {
            let set = Dataset::open(&path).unwrap();
            assert_eq!((set.images().len(), set.annotations().len()), (1, 1), "{}", files[0].0);
        }
    }
}
