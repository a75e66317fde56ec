//! Folders and archives, whole and damaged.
#![allow(clippy::unwrap_used)]

use super::*;

fn archive(names: &[&str]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for name in names {
        let contents = format!("contents of {name}");
        let mut header = ::tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, contents.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn written(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("images.tar");
    fs_err::write(&path, bytes).unwrap();
    path
}

#[test]
fn members_are_found_by_plain_long_and_dotted_names() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}/x.jpg", "deep/".repeat(60)).replace("//", "/");
    let mut bytes = archive(&["a.jpg", "dir/b.jpg", &long]);
    // The tar crate drops a leading "./" when writing; GNU tar keeps it.
    bytes[..8].copy_from_slice(b"./a.jpg\0");
    let sum: u32 =
        (0..512).map(|i| if (148..156).contains(&i) { 32 } else { u32::from(bytes[i]) }).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let store = ImageStore::open(&written(&folder, &bytes), Orientation::Exif).unwrap();
    assert_eq!(store.read("a.jpg").unwrap(), b"contents of a.jpg");
    assert_eq!(store.read("./dir/b.jpg").unwrap(), b"contents of dir/b.jpg");
    assert_eq!(store.read(&long).unwrap(), format!("contents of {long}").into_bytes());
    let text = store.read("c.jpg").unwrap_err().to_string();
    assert!(text.contains("images.tar: c.jpg: not among the archive's 3 files"), "{text}");
}

#[test]
fn folders_and_archives_list_alike() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["b/2.jpg", "b/1.jpg", "a-b/x.jpg", "a/x.jpg", "a/deep/y.jpg", "top.txt", ".git/z"];
    for name in names.iter().chain(&["a/._x.jpg"]) {
        let path = folder.path().join("tree").join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "").unwrap();
    }
    let linked = folder.path().join("tree/c");
    std::os::unix::fs::symlink(folder.path().join("tree/b"), linked).unwrap();
    let mut members = names.to_vec();
    members.extend(["a/._x.jpg", "c/1.jpg", "c/2.jpg", "b/2.jpg"]);
    let archive =
        ImageStore::open(&written(&folder, &archive(&members)), Orientation::Exif).unwrap();
    let tree = ImageStore::open(&folder.path().join("tree"), Orientation::Exif).unwrap();
    for store in [&archive, &tree] {
        assert_eq!(store.folders("").unwrap(), ["a", "a-b", "b", "c"]);
        assert_eq!(store.folders("a/").unwrap(), ["deep"]);
        assert_eq!(store.files("a/").unwrap(), ["deep/y.jpg", "x.jpg"]);
        assert_eq!(store.files("c/").unwrap(), ["1.jpg", "2.jpg"]);
        assert!(store.contains("b/1.jpg") && !store.contains("b"));
    }
    assert_eq!(archive.files("").unwrap().len(), 8, "b/2.jpg, twice in the archive, once");
}

#[test]
fn of_members_with_one_name_the_last_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = ::tar::Builder::new(Vec::new());
    for contents in ["old", "new"] {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(3);
        builder.append_data(&mut header, "a.jpg", contents.as_bytes()).unwrap();
    }
    let store =
        ImageStore::open(&written(&folder, &builder.into_inner().unwrap()), Orientation::Exif)
            .unwrap();
    assert_eq!(store.read("a.jpg").unwrap(), b"new");
}

#[test]
fn links_are_a_second_name() {
    use ::tar::EntryType::{Link, Symlink};
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(3);
    builder.append_data(&mut header, "one/a.jpg", &b"abc"[..]).unwrap();
    for (kind, name, target) in [
        (Link, "b.jpg", "one/a.jpg"),
        (Symlink, "one/c.jpg", "a.jpg"),
        (Symlink, "two/d.jpg", "../one/./c.jpg"),
        (Symlink, "two/e.jpg", "d.jpg"),
        // Nowhere, outside, in a circle.
        (Symlink, "f.jpg", "none.jpg"),
        (Symlink, "g.jpg", "../a.jpg"),
        (Symlink, "h.jpg", "/etc/hostname"),
        (Symlink, "i.jpg", "i.jpg"),
    ] {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let store =
        ImageStore::open(&written(&folder, &builder.into_inner().unwrap()), Orientation::Exif)
            .unwrap();
    for name in ["b.jpg", "one/c.jpg", "two/d.jpg", "two/e.jpg"] {
        assert_eq!(store.read(name).unwrap(), b"abc", "{name}");
    }
    for name in ["f.jpg", "g.jpg", "h.jpg", "i.jpg"] {
        assert!(store.read(name).is_err(), "{name}");
    }
}

#[test]
fn truncated_compressed_or_other_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = archive(&["a.jpg", "b.jpg"]);
    let cases: [(&[u8], &str); 5] = [
        (&whole[..512 + 5], "truncated: `a.jpg`"),
        (&whole[..1024 + 100], "truncated"),
        (b"\x1F\x8Bxyz", "gzip"),
        (b"", "empty"),
        (&[b'x'; 2000], "neither a folder nor a tar archive"),
    ];
    for (bytes, expected) in cases {
        let text =
            ImageStore::open(&written(&folder, bytes), Orientation::Exif).unwrap_err().to_string();
        assert!(text.contains("images.tar: tar archive") && text.contains(expected), "{text}");
    }
    assert!(ImageStore::open(&folder.path().join("absent"), Orientation::Exif).is_err());
}

#[test]
fn threads_read_one_archive_at_once() {
    let names: Vec<String> = (0..50).map(|i| format!("{i}.jpg")).collect();
    let folder = tempfile::tempdir().unwrap();
    let bytes = archive(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let store = ImageStore::open(&written(&folder, &bytes), Orientation::Exif).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for name in names.iter().cycle().take(500) {
                    let expected = format!("contents of {name}").into_bytes();
                    assert_eq!(store.read(name).unwrap(), expected);
                }
            });
        }
    });
}
