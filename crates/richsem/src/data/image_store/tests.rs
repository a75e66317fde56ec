//! Folders and archives, whole and damaged.
#![allow(clippy::unwrap_used)]

use super::*;

fn archive(names: &[&str]) -> Vec<u8> {
    let contents: Vec<String> = names.iter().map(|name| format!("contents of {name}")).collect();
    let files: Vec<_> = names.iter().zip(&contents).map(|(n, c)| (*n, c.as_bytes())).collect();
    support::tar(&files)
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

fn open(path: &Path) -> ImageStore {
    ImageStore::open(path, Orientation::Exif).unwrap()
}

#[test]
fn what_lies_at_a_path_is_known_by_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| support::written(folder.path(), name, bytes);
    let tar = archive(&["a.jpg"]);
    let cases = [
        (path("archive.bin", &tar), StoreKind::Archive),
        (path("shards/0.tar", &tar).with_file_name(""), StoreKind::Archives),
        (path("shards/{0..0}.tar", b"").with_file_name("*.tar"), StoreKind::Archives),
        (path("x/table", b"PAR1").to_owned(), StoreKind::Parquet),
        (path("hub/data/a.parquet", b"PAR1").with_file_name("").join(".."), StoreKind::Parquet),
        (path("cc3m", b"a cat\thttps://a.b/c.jpg\n"), StoreKind::CaptionUrls),
        (path("images/a.jpg", b"").with_file_name(""), StoreKind::Folder),
    ];
    for (path, expected) in &cases {
        assert_eq!(ImageStore::kind_of(path).unwrap(), *expected, "{}", path.display());
        assert!(ImageStore::is_there(path));
    }
    assert!(!ImageStore::is_there(&folder.path().join("none")));
    assert!(!ImageStore::is_there(&folder.path().join("none-{0..2}.tar")));
    // Images or folders beside archives: the folder as it is.
    for beside in ["a.jpg", "train/a.jpg"] {
        let one = tempfile::tempdir().unwrap();
        support::written(one.path(), "train.tar", &tar);
        support::written(one.path(), beside, b"");
        assert_eq!(ImageStore::kind_of(one.path()).unwrap(), StoreKind::Folder, "{beside}");
        let store = open(one.path());
        assert_eq!(store.files("").unwrap().len(), 2);
        assert!(store.notes()[0].starts_with("1 archive beside the folders or images, not opened"));
    }
    let error = ImageStore::open(&cases[5].0, Orientation::Exif).unwrap_err().to_string();
    assert!(error.contains("captions and URLs: the images are not in it"), "{error}");
    path("mixed/a.x", &tar);
    path("mixed/b.x", b"PAR1");
    let error = ImageStore::kind_of(&folder.path().join("mixed/*.x")).unwrap_err().to_string();
    assert!(
        error.contains("a.x` is a tar archive") && error.contains("b.x` is parquet"),
        "{error}"
    );
}

#[test]
fn samples_have_one_image_and_fields() {
    let Some(folder) = crate::testing::shared("samples/webdataset") else { return };
    let store = open(&folder.join("cls-000000.tar"));
    let (images, passed_over) = store.images("").unwrap();
    assert_eq!(images, ["000000.jpg", "000002.JPEG", "sub/000001.jpg"]);
    assert_eq!(
        passed_over.to_string(),
        "3 .cls (as 000000.cls), 1 .txt (__key_without_image.txt), 1 field of samples, not their \
         images (sub/000001.seg.png)"
    );
    assert_eq!(store.image("sub/000001.jpg").unwrap().dimensions().0, 24);
    // A folder has the archive beside its table and its statistics.
    let shards = open(&folder.join("img2dataset"));
    let (images, _) = shards.images("").unwrap();
    assert_eq!(images, ["00000/000000000.jpg", "00000/000000003.jpg"]);
    assert_eq!(shards.folders("").unwrap(), ["00000"]);
    let caption = shards.companion(&images[1], "txt").unwrap().unwrap();
    assert_eq!(caption.len(), 38);
    let one = open(&folder.join("det-{000000..000000}.tar"));
    assert!(one.companion("det-000000/a/0001.jpg", "json").unwrap().unwrap().starts_with(b"{"));
    // Unpacked, the fields lie beside the image.
    let unpacked = tempfile::tempdir().unwrap();
    support::written(unpacked.path(), "a.jpg", b"");
    support::written(unpacked.path(), "a.cls", b"7");
    let store = open(unpacked.path());
    assert_eq!(store.companion("a.jpg", "cls").unwrap().unwrap(), b"7");
    assert_eq!(store.companion("a.jpg", "txt").unwrap(), None);
}

#[test]
fn odd_images_of_imagenet_are_read_or_refused() {
    let Some(path) = crate::testing::shared("samples/imagenet_tar/n02105855_odd_members.tar")
    else {
        return;
    };
    let store = open(&path);
    // PNG by its contents.
    assert_eq!(store.image("n02105855_2933.JPEG").unwrap().dimensions(), (20, 16));
    for name in ["n02105855_1.JPEG", "n02105855_2.JPEG"] {
        let error = store.image(name).unwrap_err().to_string();
        assert!(error.contains(&format!("odd_members.tar/{name}")), "{error}");
    }
    let Some(cmyk) = crate::testing::shared("samples/imagenet_tar/n13037406_cmyk.JPEG") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let tar = support::tar(&[("n13037406_cmyk.JPEG", &fs_err::read(cmyk).unwrap())]);
    assert!(open(&written(&folder, &tar)).image("n13037406_cmyk.JPEG").is_ok());
}

#[test]
fn links_to_nothing_are_passed_over_by_name() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "cat/a.jpg", "b.jpg").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&written(&folder, &builder.into_inner().unwrap()));
    let (images, passed_over) = store.images("cat/").unwrap();
    assert!(images.is_empty());
    assert_eq!(passed_over.to_string(), "1 broken link (cat/a.jpg)");
}
