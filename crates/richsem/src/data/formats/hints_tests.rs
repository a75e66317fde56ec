//! Places of no known format that show what they are: each message says what to do.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use crate::data::dataset::Dataset;

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, bytes).unwrap();
}

fn error(path: &Path) -> String {
    Dataset::open(path).unwrap_err().to_string()
}

#[test]
fn archives_that_are_not_read_in_place_are_named_with_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    tar.append_data(&mut header, "train.json", &b"{}"[..]).unwrap();
    std::io::Write::write_all(&mut packer, &tar.into_inner().unwrap()).unwrap();
    for (name, bytes, what, command) in [
        ("a.zip", b"PK\x03\x04rest".to_vec(), "a zip archive", "unzip "),
        ("a set.zip", b"PK\x03\x04rest".to_vec(), "a zip archive", "/a set.zip' -d '"),
        ("a.tar.gz", packer.finish().unwrap(), "packed with gzip", "tar -xzf "),
        ("a.tar.xz", b"\xfd7zXZ\0rest".to_vec(), "packed with xz", "tar -xJf "),
        ("a.7z", b"7z\xbc\xaf\x27\x1c\0\0".to_vec(), "a 7z archive", "7z x "),
    ] {
        write(folder.path(), name, bytes);
        let text = error(&folder.path().join(name));
        assert!(text.contains(what) && text.contains(command), "{name}: {text}");
    }
}

#[test]
fn images_with_labels_alone_are_extra_data() {
    for places in [["cat/1.jpg", "dog/2.jpg"], ["train/cat/1.jpg", "val/dog/2.jpg"]] {
        let folder = tempfile::tempdir().unwrap();
        places.iter().for_each(|name| write(folder.path(), name, ""));
        let text = error(folder.path());
        assert!(text.contains("data.extra") && text.contains("--extra"), "{text}");
    }
}

#[test]
fn labels_without_names_of_classes_say_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["images/a.jpg", "labels/a.txt"] {
        write(folder.path(), name, "");
    }
    let text = error(folder.path());
    assert!(text.contains("classes.txt: the name of a class on each line"), "{text}");
}
