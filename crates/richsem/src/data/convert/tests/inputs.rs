//! What is read is never written over, and stays one set.

use std::collections::BTreeMap;

use super::{super::PutImages, *};
use crate::data::{
    formats::yolo_tests::{put, put_image},
    split::{Division, divide},
};

/// Every file below a folder, with what is in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(contents(&path)),
            false => drop(all.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    all
}

fn over(images: PutImages) -> Conversion {
    let images = Some(images);
    Conversion { images, overwrite: true, ..Conversion::to(Target::Coco) }
}

/// A folder with two parts and their images.
fn two_with_images() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    two_parts(folder.path());
    ["a.png", "b.png", "c.png"].iter().for_each(|n| put_image(&folder.path().join("images"), n));
    folder
}

/// It is refused for that file, and all is as it was.
fn refused(folder: &Path, file: &str, report: Result<ConversionReport>) {
    let message = report.unwrap_err().to_string();
    assert!(message.contains(&format!("/{file}` is read, and would be replaced")), "{message}");
    assert!(message.contains("choose another folder"), "{message}");
    let left: Vec<_> = contents(folder).into_keys().collect();
    assert!(left.iter().all(|file| !file.to_string_lossy().contains(".tmp-")), "{left:?}");
}

#[test]
fn no_file_of_the_input_is_replaced() {
    let folder = two_with_images();
    let root = folder.path();
    let before = contents(root);
    let again =
        |input: &Path, output: &Path, put| convert(input, output, &over(put), &GO, &mut go_on);
    let train = root.join("train.json");
    refused(root, "train.json", again(&train, root, PutImages::Keep));
    refused(root, "train.json", again(root, root, PutImages::Keep));
    // By another way to the folder.
    let link = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root, link.path().join("same")).unwrap();
    refused(root, "train.json", again(&train, &link.path().join("same"), PutImages::Keep));
    // Images: an own link in the place of what it leads to would be the end of it.
    let other = tempfile::tempdir().unwrap();
    std::fs::rename(root.join("train.json"), other.path().join("t.json")).unwrap();
    let how = Opening { images: Some(root.join("images")), ..Opening::default() };
    for put in [PutImages::Link, PutImages::Copy] {
        let how = Conversion { opening: how.clone(), ..over(put) };
        let report = convert(&other.path().join("t.json"), root, &how, &GO, &mut go_on);
        refused(root, "images/a.png", report);
    }
    std::fs::rename(other.path().join("t.json"), root.join("train.json")).unwrap();
    assert_eq!(contents(root), before);

    // A division is a conversion, too.
    let division = Division {
        parts: vec![("train".to_owned(), 0.5), ("val".to_owned(), 0.5)],
        group: None,
        seed: 0,
    };
    let divided = divide(&train, root, &division, &over(PutImages::Keep), &GO, &mut go_on);
    refused(root, "train.json", divided.map(|report| report.written));
    assert_eq!(contents(root), before);
}

/// What an earlier conversion wrote is nobody's input: it is replaced, its links too.
#[test]
fn results_are_replaced_where_that_is_asked_for() {
    let folder = two_with_images();
    let out = folder.path().join("out");
    for put in [PutImages::Link, PutImages::Link, PutImages::Copy, PutImages::Copy] {
        convert(folder.path(), &out, &over(put), &GO, &mut go_on).unwrap();
        assert_eq!(out.join("images/a.png").is_symlink(), put == PutImages::Link);
        assert!(!folder.path().join("images/a.png").is_symlink());
    }
}

#[test]
fn nothing_is_put_where_all_images_are_the_sets() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    put(root, "data.yaml", "train: images\nnames: [a]\n");
    put_image(root, "images/train/1.png");
    put(root, "labels/train/1.txt", "0 0.5 0.5 0.5 0.5\n");
    let before = contents(root);
    let to =
        |output: &str, how: &Conversion| convert(root, &root.join(output), how, &GO, &mut go_on);
    for output in ["images/train/coco", "images/new/deep/coco", "images/../images/coco"] {
        for how in [over(PutImages::Link), over(PutImages::Copy), Conversion::to(Target::Yolo)] {
            let message = to(output, &how).unwrap_err().to_string();
            assert!(message.contains("where all images are read"), "{message}");
            assert!(message.contains("choose a folder that is not in it"), "{message}");
        }
    }
    assert_eq!(contents(root), before);
    // Annotations alone add no image, and beside the folder there is room for all.
    to("images/coco", &over(PutImages::Keep)).unwrap();
    to("images-2", &over(PutImages::Link)).unwrap();
    assert_eq!(Dataset::open(&root.join("data.yaml")).unwrap().images().len(), 1);
    // A list says which images there are.
    put(root, "data.yaml", "train: list.txt\nnames: [a]\n");
    put(root, "list.txt", "images/train/1.png\n");
    to("images/train/coco", &over(PutImages::Link)).unwrap();
    assert_eq!(Dataset::open(&root.join("data.yaml")).unwrap().images().len(), 1);
}
