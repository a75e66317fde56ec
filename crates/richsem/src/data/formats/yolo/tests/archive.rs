//! Sets in a `.tar`: the same as in a folder.

use std::path::{Path, PathBuf};

use super::{pixels, put, put_image, rows, shares, told};
use crate::data::formats::{Opening, format_of};

/// A split in folders and one in a list, background, a stranger and a label without an image.
fn set() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    put(path, "data.yaml", "train: images/train\nval: lists/val.txt\nnames: [cat, dog]\n");
    for name in ["images/train/a.png", "images/train/deep/b.png", "images/train/none.png"] {
        put_image(path, name);
    }
    put(path, "images/train/notes.md", "");
    put(path, "labels/train/a.txt", "1 0.5 0.5 0.5 0.5\n0 0.25 0.25 0.125 0.25\n");
    put(path, "labels/train/deep/b.txt", "0 0.5 0.5 0.25 0.5\n");
    put(path, "labels/train/alone.txt", "0 0.5 0.5 0.25 0.5\n");
    put_image(path, "images/val/c.png");
    put(path, "labels/val/c.txt", "1 0.5 0.5 1 1\n");
    put(path, "lists/val.txt", "./images/val/c.png\n");
    folder
}

/// The folder in an archive, below `name` there. The archive is in a folder `images`, which is none of the set's.
fn archived(set: &Path, name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images/set.tar");
    put(folder.path(), "images/set.tar", "");
    let mut builder = tar::Builder::new(fs_err::File::create(&path).unwrap());
    // What tells the format comes first, so that an archive that is cut off is known by it, too.
    builder
        .append_path_with_name(set.join("data.yaml"), Path::new(name).join("data.yaml"))
        .unwrap();
    for part in ["images", "labels", "lists"] {
        builder.append_dir_all(Path::new(name).join(part), set.join(part)).unwrap();
    }
    builder.finish().unwrap();
    (folder, path)
}

#[test]
fn an_archive_gives_the_set_of_its_folder() {
    let set = set();
    for (name, below) in [(".", ""), ("deep/set", "deep/set/")] {
        let (_folder, archive) = archived(set.path(), name);
        assert_eq!(format_of(&archive).unwrap(), Some("yolo"));
        for split in ["train", "val"] {
            let (whole, read) =
                (shares(set.path(), split).unwrap(), shares(&archive, split).unwrap());
            let mut expected = rows(&whole);
            expected.iter_mut().for_each(|(name, _)| name.insert_str(0, below));
            assert_eq!(rows(&read), expected);
            assert_eq!(read.vocabulary().categories(), whole.vocabulary().categories());
            // Sizes are those of the images in it.
            let (whole, read) =
                (pixels(set.path(), split).unwrap(), pixels(&archive, split).unwrap());
            assert_eq!(read.images()[0].size, Some([20, 40]));
            for image in 0..whole.images().len() {
                assert_eq!(read.annotations_of(image), whole.annotations_of(image));
            }
        }
        let train = shares(&archive, "train").unwrap();
        for line in [
            format!("taken for background: 1 ({below}images/train/none.png)"),
            format!("without an image, passed over: 1 ({below}labels/train/alone.txt)"),
            format!("passed over as no images: 1 .md ({below}images/train/notes.md)"),
        ] {
            assert!(told(&train, &line), "{line}: {}", train.report());
        }
    }
}

#[test]
fn labels_may_be_in_an_archive_and_images_elsewhere() {
    let set = set();
    let (_folder, archive) = archived(set.path(), ".");
    let opening = Opening {
        split: Some("train".to_owned()),
        images: Some(set.path().join("images/train")),
        pixels: false,
        ..Opening::default()
    };
    let dataset = crate::data::dataset::Dataset::open_as(&archive, &opening).unwrap();
    let names: Vec<String> = rows(&dataset).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a.png", "deep/b.png", "none.png"]);
    assert_eq!(rows(&dataset)[0].1.len(), 2);
}

#[test]
fn a_mistake_in_an_archive_names_archive_entry_and_line() {
    let set = set();
    put(set.path(), "labels/train/a.txt", "1 0.5 0.5 0.5 0.5\n0 0.25 0.2");
    let (_folder, archive) = archived(set.path(), ".");
    let error = pixels(&archive, "train").unwrap_err().to_string();
    let says = "images/set.tar/labels/train/a.txt: line 2: columns: expected 5 columns";
    assert!(error.contains(says) && error.contains("cut off"), "{error}");

    // A key of data.yaml, and a list.
    put(set.path(), "data.yaml", "train: images/trian\nval: lists/none.txt\nnames: [cat, dog]\n");
    let (_folder, archive) = archived(set.path(), ".");
    for (split, says) in [
        ("train", "set.tar/data.yaml: line 1: train: expected a folder of images"),
        ("val", "set.tar/data.yaml: line 2: val: expected a folder of images"),
    ] {
        let error = pixels(&archive, split).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// A download that stopped within an image, a label or a header.
#[test]
fn an_archive_that_is_cut_off_is_refused_and_never_panics() {
    let set = set();
    let (folder, archive) = archived(set.path(), ".");
    let whole = fs_err::read(&archive).unwrap();
    let cut = folder.path().join("cut.tar");
    for length in (0..whole.len()).step_by(300) {
        fs_err::write(&cut, &whole[..length]).unwrap();
        let _ = pixels(&cut, "train");
    }
    // Behind the last file, of one block, are 1024 bytes of zeros.
    fs_err::write(&cut, &whole[..whole.len() - 1024 - 512 + 5]).unwrap();
    let error = pixels(&cut, "train").unwrap_err().to_string();
    let says = "cut.tar: archive: not a readable .tar: `lists/val.txt` is cut short";
    assert!(error.contains(says) && error.contains("it may be truncated"), "{error}");
    fs_err::write(&cut, "not a tar").unwrap();
    let error = pixels(&cut, "train").unwrap_err().to_string();
    assert!(error.contains("cut.tar: archive: not a readable .tar"), "{error}");
}
