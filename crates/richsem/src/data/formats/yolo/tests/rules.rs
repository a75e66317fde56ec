//! Paths, lists, names and links.

use super::{pixels, put, put_image, rows, shares, told};
use crate::data::{dataset::Dataset, formats::Opening, image_io::Orientation};

const ROW: &str = "0 0.5 0.5 0.5 0.5\n";

fn names(dataset: &Dataset) -> Vec<&str> {
    dataset.images().iter().map(|image| image.file_name.as_str()).collect()
}

#[test]
fn the_path_may_be_of_another_machine() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put_image(root, "set/train/images/a.png");
    put(root, "set/train/labels/a.txt", ROW);
    for (text, note) in [
        ("path: set\ntrain: train/images", None),
        ("path: ./set/\ntrain: ./train/images/", None),
        (
            "path: ../nowhere/set\ntrain: set/train/images",
            Some("there is no folder `../nowhere/set`"),
        ),
        (
            "path: /content/set\ntrain: set\\train\\images",
            Some("there is no folder `/content/set`"),
        ),
        ("train: /content/set/train/images", Some("there is no `/content/set/train/images`: ")),
        ("path: set\ntrain: ../../train/images", None),
    ] {
        put(root, "data.yaml", format!("{text}\nnames: [a]\n"));
        let dataset = pixels(root, "train").unwrap();
        assert!(names(&dataset)[0].ends_with("train/images/a.png"), "{text}");
        assert_eq!(dataset.annotations()[0].bbox.0, [10.0, 5.0, 20.0, 10.0], "{text}");
        match note {
            Some(note) => assert!(told(&dataset, note), "{text}: {}", dataset.report()),
            None => assert!(dataset.report().notes.is_empty(), "{text}: {}", dataset.report()),
        }
    }
}

#[test]
fn a_folder_beside_the_set_is_ultralytics_choice_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for place in ["train/images/other.png", "set/train/images/own.png"] {
        put_image(root, place);
        put(root, &place.replace("/images/", "/labels/").replace("png", "txt"), ROW);
    }
    put(root, "set/data.yaml", "train: ../train/images\nnames: [a]\n");
    let dataset = pixels(&root.join("set"), "train").unwrap();
    assert!(names(&dataset)[0].ends_with("other.png"));
    assert!(told(&dataset, "warning: `../train/images` is "), "{}", dataset.report());
}

#[test]
fn lists_name_images_in_many_ways() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["a", "b", "c", "d"] {
        put_image(root, &format!("set/images/{name}.png"));
        put(root, &format!("set/labels/{name}.txt"), ROW);
    }
    let absolute = root.join("set/images/d.png");
    let list = format!(
        "\u{feff}./images/c.png\r\nimages\\a.png\r\n\r\n/home/ann/images/b.png\r\n{}\r\nimages/a.png\r\n\
         images/gone.png\r\nimages/notes.txt\r\n",
        absolute.display()
    );
    put(root, "set/train.txt", list);
    put(root, "set/data.yaml", "train: train.txt\nnames: [x]\n");
    let dataset = pixels(&root.join("set"), "train").unwrap();
    assert_eq!(names(&dataset), ["images/c.png", "images/a.png", "images/b.png", "images/d.png"]);
    assert_eq!(dataset.annotations().len(), 4);
    for line in [
        "images that are listed twice, taken once: 1",
        "listed images found only without the first folders of their paths: 1 (/home/ann/images/b.png)",
        "images without a file, left out: 1 (images/gone.png)",
        "1 line of ",
    ] {
        assert!(told(&dataset, line), "{line}: {}", dataset.report());
    }
}

#[test]
fn labels_without_images_and_images_without_labels_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["a.png", "b.png", "deep/c.png"] {
        put_image(root, &format!("images/train/{name}"));
    }
    for name in ["a.txt", "gone.txt", "deep/c.txt", "lost/d.txt", "classes.txt"] {
        put(root, &format!("labels/train/{name}"), ROW);
    }
    put(root, "data.yaml", "train: images/train\nnames: [x]\n");
    let dataset = pixels(root, "train").unwrap();
    for line in [
        "images without a label file, taken for background: 1 (images/train/b.png)",
        "label files without an image, passed over: 2 (labels/train/gone.txt, labels/train/lost/d.txt)",
    ] {
        assert!(told(&dataset, line), "{line}: {}", dataset.report());
    }
    assert_eq!(dataset.report().images_without_boxes, 1);
}

#[test]
fn labels_beside_the_images_are_no_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put_image(root, "pics/a.png");
    put(root, "pics/a.txt", ROW);
    put(root, "pics/b.avif", "");
    put(root, "pics/.hidden.png", "");
    put(root, "data.yaml", "train: pics\nnames: [x]\n");
    let dataset = pixels(root, "train").unwrap();
    assert_eq!(dataset.annotations().len(), 1);
    assert_eq!(
        dataset.report().notes,
        [format!(
            "passed over as no images: 1 .avif (pics/b.avif), 1 hidden ({})",
            root.join("pics/.hidden.png").display()
        )]
    );
}

#[test]
#[cfg(unix)]
fn links_to_folders_are_followed_but_not_back() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put_image(root, "elsewhere/a.png");
    put(root, "labels/train/more/a.txt", ROW);
    fs_err::create_dir_all(root.join("images/train")).unwrap();
    let link = |to: &str, name: &str| {
        fs_err::os::unix::fs::symlink(root.join(to), root.join(name)).unwrap();
    };
    link("elsewhere", "images/train/more");
    link("images", "images/train/again");
    link("nothing.png", "images/train/dangling.png");
    put(root, "data.yaml", "train: images/train\nnames: [x]\n");
    let dataset = pixels(root, "train").unwrap();
    assert_eq!(
        (names(&dataset), dataset.annotations().len()),
        (vec!["images/train/more/a.png"], 1)
    );
    assert!(told(&dataset, "1 broken link"), "{}", dataset.report());
    assert!(told(&dataset, "1 link to a folder around it"), "{}", dataset.report());
}

#[test]
fn the_images_may_be_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put_image(root, "pics/train/a.png");
    put_image(root, "flat/a.png");
    put(root, "set/labels/train/a.txt", ROW);
    put(root, "set/data.yaml", "train: ../images/train\nnames: [x]\n");
    for (images, name) in [("pics", "train/a.png"), ("pics/train", "a.png"), ("flat", "a.png")] {
        let images = Some(root.join(images));
        let opening = Opening { images, usual_split: Some("train"), ..Opening::default() };
        let dataset = Dataset::open_as(&root.join("set"), &opening).unwrap();
        assert_eq!((names(&dataset), dataset.annotations().len()), (vec![name], 1), "{opening:?}");
    }
    put(root, "set/train.txt", "./images/train/a.png\n");
    put(root, "set/data.yaml", "train: train.txt\nnames: [x]\n");
    let images = Some(root.join("pics"));
    let opening = Opening { images, usual_split: Some("train"), ..Opening::default() };
    let dataset = Dataset::open_as(&root.join("set"), &opening).unwrap();
    assert_eq!((names(&dataset), dataset.annotations().len()), (vec!["train/a.png"], 1));
}

#[test]
fn validation_is_val_and_an_empty_test_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put_image(root, "images/a.png");
    put(root, "labels/a.txt", ROW);
    put(root, "data.yaml", "train: images\nvalidation: images\ntest:\nnames: {0: x}\n");
    let usual = |split| {
        let opening = Opening { usual_split: Some(split), ..Opening::default() };
        Dataset::open_as(root, &opening)
    };
    assert_eq!(usual("val").unwrap().split(), "validation");
    let error = usual("test").unwrap_err().to_string();
    assert!(error.contains("no part `test`; it has `train`, `validation`"), "{error}");
}

#[test]
fn boxes_are_of_the_image_as_viewers_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // 40 x 20 as stored; the tag turns it by a quarter.
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(40, 20).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    let jpeg = bytes.into_inner();
    let exif =
        b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    put(root, "images/a.jpg", [&jpeg[..2], exif, &jpeg[2..]].concat());
    put(root, "labels/a.txt", "0 0.5 0.25 0.5 0.5\n");
    put(root, "data.yaml", "train: images\nnames: [x]\n");
    let dataset = pixels(root, "train").unwrap();
    assert_eq!(dataset.images()[0].size, Some([40, 20]));
    assert_eq!(dataset.annotations()[0].bbox.0, [5.0, 0.0, 10.0, 20.0]);
    let orientation = Orientation::Stored;
    let stored = Opening { split: Some("train".to_owned()), orientation, ..Opening::default() };
    let stored = Dataset::open_as(root, &stored).unwrap();
    assert!(told(&stored, "with an EXIF orientation have wrong boxes"), "{}", stored.report());
    assert!(!told(&dataset, "EXIF"), "{}", dataset.report());
}

#[test]
fn classes_without_names_are_numbered_and_keys_that_come_twice_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put_image(root, "images/a.png");
    put(root, "labels/a.txt", "1 0.5 0.5 0.5 0.5\n");
    put(root, "data.yaml", "train: nowhere\ntrain: images\nnc: 2\n");
    let dataset = shares(root, "train").unwrap();
    assert_eq!(dataset.vocabulary().categories()[1].name, "class_1");
    assert_eq!(rows(&dataset), [("images/a.png".to_owned(), vec![(1, [0.5; 4])])]);
    assert!(told(&dataset, "has `nc` and no `names`"), "{}", dataset.report());
    assert!(told(&dataset, "`train` is there 2 times in "), "{}", dataset.report());
}

#[test]
fn keypoints_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put_image(root, "images/a.png");
    put(root, "labels/a.txt", "0 0.5 0.5 0.5 0.5 0.1 0.2 2 0.3 0.4 0\n");
    put(root, "data.yaml", "train: images\nnames: [x]\nkpt_shape: [2, 3]\n");
    let dataset = shares(root, "train").unwrap();
    assert_eq!(rows(&dataset)[0].1, [(0, [0.5; 4])]);
    assert!(told(&dataset, "keypoints are passed over"), "{}", dataset.report());
}

#[test]
fn a_part_that_was_not_exported_is_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("rf");
    for part in ["train", "valid"] {
        put_image(&root, &format!("{part}/images/a.png"));
        put(&root, &format!("{part}/labels/a.txt"), ROW);
    }
    let paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n";
    put(&root, "data.yaml", format!("{paths}names: [x]\n"));
    assert_eq!(Dataset::parts(&root, &Opening::default()).unwrap(), ["train", "val"]);
    for part in ["train", "val"] {
        let set = pixels(&root, part).unwrap();
        assert!(told(&set, "names the part `test`, which is not there"), "{}", set.report());
    }
    // Both places that are tried are named, for a part that is asked for and where none is there.
    let error = pixels(&root, "test").unwrap_err().to_string();
    let (beside, own) = (folder.path().join("test/images"), root.join("test/images"));
    let says = format!("there is no {} and no {}", beside.display(), own.display());
    assert!(error.contains("line 3: test: ") && error.contains(&says), "{error}");
    fs_err::remove_dir_all(root.join("train")).unwrap();
    fs_err::remove_dir_all(root.join("valid")).unwrap();
    assert_eq!(Dataset::parts(&root, &Opening::default()).unwrap().len(), 3);
    let error = pixels(&root, "val").unwrap_err().to_string();
    assert!(error.contains("line 2: val: expected a folder of images"), "{error}");
}
