//! Archives in archives, shards, kept indices, and stops on the way.
#![allow(clippy::unwrap_used)]

mod headers;

use std::{ops::ControlFlow, slice::from_ref, time::Duration};

use super::*;
use crate::data::image_store::{
    Indexing,
    support::{nested, tar, written},
};

fn go_on(_: Indexing) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn never() -> Keeping {
    Keeping { places: Vec::new(), from: u64::MAX, run: 1 << 20, every: Duration::MAX }
}

/// Keeps everything, and tells of every file.
fn always(places: Vec<PathBuf>) -> Keeping {
    Keeping { places, from: 0, run: 4, every: Duration::ZERO }
}

fn open(paths: &[PathBuf], keeping: &Keeping) -> Result<Archives> {
    Archives::open_keeping(&paths[0], (paths, paths.len() > 1), keeping, &mut go_on)
}

fn names(archives: &Archives) -> Vec<String> {
    let mut names = Vec::new();
    archives.index.each_within("", |name, _| names.push(name.to_owned())).unwrap();
    names
}

#[test]
fn archives_in_an_archive_are_folders() {
    let folder = tempfile::tempdir().unwrap();
    for below in ["", "winter21_whole/", "./a/b/"] {
        let path = written(folder.path(), "whole.tar", &nested(below));
        let archives = open(&[path], &never()).unwrap();
        assert_eq!(archives.index.len(), 15);
        for name in ["n01440764/n01440764_11.JPEG", "./n02123045/n02123045_0.JPEG"] {
            let contents = archives.read(name).unwrap();
            assert_eq!(Some(str::from_utf8(&contents).unwrap()), name.rsplit('/').next());
        }
        assert_eq!(archives.index.folders("").unwrap(), ["n01440764", "n02123045"]);
        let notes = archives.notes().join("\n");
        assert!(
            notes.contains("1 archive holds no files") && notes.contains("n01443537"),
            "{notes}"
        );
    }
}

#[test]
fn names_are_whole_where_images_lie_beside_archives() {
    let folder = tempfile::tempdir().unwrap();
    let inner = tar(&[("more/1.jpg", b"1"), ("2.jpg", b"2"), ("x/more/3.jpg", b"3")]);
    let outer = tar(&[("cat/0.jpg", b"0"), ("cat/more.tar", &inner), ("cat/n.tar", b"no archive")]);
    let archives = open(&[written(folder.path(), "a.tar", &outer)], &never()).unwrap();
    let expected =
        ["cat/0.jpg", "cat/more/1.jpg", "cat/more/2.jpg", "cat/more/x/more/3.jpg", "cat/n.tar"];
    assert_eq!(names(&archives), expected);
    let outer = tar(&[("train/a.tar", &inner), ("val/a.tar", &inner)]);
    let archives = open(&[written(folder.path(), "b.tar", &outer)], &never()).unwrap();
    assert_eq!(archives.index.folders("").unwrap(), ["train", "val"]);
    assert_eq!(archives.read("val/a/2.jpg").unwrap(), b"2");
}

#[test]
fn several_archives_are_folders_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, bytes: &[u8]| written(folder.path(), name, bytes);
    let paths = [
        path("00000.tar", &tar(&[("0.jpg", b"a"), ("0.cls", b"1")])),
        path("00001.tar", &tar(&[("0.jpg", b"b"), ("0.cls", b"2")])),
        path("n01440764.tar", &tar(&[("n01440764/x.JPEG", b"c")])),
        path("set.tar", &nested("")),
    ];
    let archives = open(&paths, &never()).unwrap();
    assert_eq!(archives.read("00001/0.jpg").unwrap(), b"b");
    assert_eq!(archives.companion("00001/0.jpg", "cls").unwrap().unwrap(), b"2");
    assert_eq!(archives.read("n01440764/x.JPEG").unwrap(), b"c");
    assert_eq!(archives.read("set/n02123045/n02123045_2.JPEG").unwrap(), b"n02123045_2.JPEG");
    assert_eq!(archives.index.len(), 20);
    // So many that they are opened for each read.
    let many: Vec<PathBuf> = (0..MOST_OPEN + 2)
        .map(|i| path(&format!("many/{i:05}.tar"), &tar(&[("a.jpg", format!("{i}").as_bytes())])))
        .collect();
    let archives = open(&many, &never()).unwrap();
    assert!(archives.open.is_empty());
    assert_eq!(archives.read("00129/a.jpg").unwrap(), b"129");
}

#[test]
fn odd_members_are_read_or_counted() {
    use ::tar::EntryType::{Fifo, GNUSparse, Symlink};
    use std::io::Write as _;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"picture").unwrap();
    let packed = packed.finish().unwrap();
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: Option<::tar::EntryType>, contents: &[u8]| {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        if let Some(kind) = kind {
            header.set_entry_type(kind);
        }
        if kind == Some(GNUSparse) {
            header.as_gnu_mut().unwrap().set_real_size(0);
        }
        match kind {
            Some(Symlink) => builder.append_link(&mut header, name, "nowhere").unwrap(),
            _ => builder.append_data(&mut header, name, contents).unwrap(),
        }
    };
    add("a.jpg", None, &packed);
    add("b.jpg", None, &packed[..packed.len() / 2]);
    add("c.gz", None, &packed);
    add("d.jpg", Some(Fifo), b"");
    add("e.jpg", Some(Symlink), b"");
    add("a.txt", None, b"old");
    add("a.txt", None, b"new");
    add("s.jpg", Some(GNUSparse), b"");
    let folder = tempfile::tempdir().unwrap();
    let bytes = builder.into_inner().unwrap();
    let archives = open(&[written(folder.path(), "a.tar", &bytes)], &never()).unwrap();
    assert_eq!(archives.read("a.jpg").unwrap(), b"picture");
    let error = archives.read("b.jpg").unwrap_err().to_string();
    assert!(error.contains("a.tar/b.jpg: gzip: cannot be unpacked"), "{error}");
    assert_eq!(archives.read("c.gz").unwrap(), packed, "not an image by its name");
    assert_eq!(
        archives.notes(),
        [
            "1 file has the name of a later file, which is read instead (as `a.txt`)",
            "passed over: devices and other special members, 1 (as `d.jpg`)",
            "passed over: sparse files, 1 (as `s.jpg`)",
            "1 link leads to no file of the archive (as `e.jpg`)",
        ]
    );
}

#[test]
fn compressed_archives_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, by) in [
        (&b"\x1F\x8B\x08\0\0\0\0\0"[..], "gzip"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xFD7zXZ\0\0", "xz"),
        (b"\x28\xB5\x2F\xFD\0\0", "zstd"),
        (b"PK\x03\x04\0\0", "zip"),
    ] {
        let error = open(&[written(folder.path(), "a.tar", bytes)], &never()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("a.tar: tar archive: compressed with ") && text.contains(by),
            "{text}"
        );
    }
    let outer = tar(&[("n1.tar", b"\x1F\x8B\x08 compressed")]);
    let error = open(&[written(folder.path(), "b.tar", &outer)], &never()).unwrap_err().to_string();
    assert!(error.contains("`n1.tar` in it is compressed with gzip"), "{error}");
}

#[test]
fn an_inner_archive_that_is_cut_off_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let inner = tar(&[("a.jpg", &[1; 2000]), ("b.jpg", &[2; 2000])]);
    for (length, expected) in [
        (512 + 1000, "truncated: `a.jpg` has 2000 bytes from 1024, the archive ends at 2024"),
        (512 + 2048 + 100, "damaged or truncated"),
    ] {
        let outer = tar(&[("n1.tar", &inner[..length]), ("n2.tar", &inner)]);
        let path = written(folder.path(), "a.tar", &outer);
        let error = open(&[path], &never()).unwrap_err().to_string();
        assert!(
            error.contains("tar archive `n1.tar` in it: ") && error.contains(expected),
            "{error}"
        );
    }
    // Between two files: nothing is missing but the end mark.
    let outer = tar(&[("n1.tar", &inner[..512 + 2048]), ("n2.tar", &inner)]);
    let archives = open(&[written(folder.path(), "a.tar", &outer)], &never()).unwrap();
    assert_eq!(archives.index.len(), 3);
    let notes = archives.notes().join("\n");
    assert!(
        notes.contains("1 archive ends without an end mark") && notes.contains("n1"),
        "{notes}"
    );
}

/// Anything may be missing or changed: there is an error, or what is read are files of the archive.
#[test]
fn cut_and_changed_archives_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let whole = nested("x/");
    let check = |bytes: &[u8]| {
        let path = written(folder.path(), "a.tar", bytes);
        if let Ok(archives) = open(&[path], &never()) {
            for name in names(&archives) {
                let _ = archives.read(&name);
                let _ = archives.companion(&name, "json");
            }
            return true;
        }
        false
    };
    assert!(check(&whole));
    let mut opened = 0;
    for length in (0..whole.len()).step_by(512) {
        opened += usize::from(check(&whole[..length]));
        opened += usize::from(check(&whole[..length + 100]));
    }
    // At the end of the outer archive's members and in the zeros after them.
    assert!(opened < 30, "{opened} of {}", whole.len() / 256);
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        check(&changed);
    }
}

#[test]
fn a_kept_index_is_used_until_the_archive_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "a.tar", &nested(""));
    let place = folder.path().join("a.tar.richsem-index");
    let keeping = always(vec![place.clone()]);
    let fresh = open(from_ref(&path), &never()).unwrap();
    let first = open(from_ref(&path), &keeping).unwrap();
    assert!(place.is_file() && !place.with_extension("richsem-indexing").exists());
    let changed = fs_err::metadata(&path).unwrap().modified().unwrap();
    // Of equal length and time, the archive itself is not looked at.
    let length = fs_err::read(&path).unwrap().len();
    fs_err::write(&path, vec![b'x'; length]).unwrap();
    let file = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
    file.file().set_modified(changed).unwrap();
    let second = open(from_ref(&path), &keeping).unwrap();
    for archives in [&first, &second] {
        assert_eq!(names(archives), names(&fresh));
        assert_eq!(archives.tally, fresh.tally);
    }
    file.file().set_modified(changed + Duration::from_nanos(1_000)).unwrap();
    assert!(open(from_ref(&path), &keeping).is_err());
    fs_err::write(&path, nested("")).unwrap();
    // Damaged anywhere, it is made anew, or says so when it is read.
    let kept = {
        open(from_ref(&path), &keeping).unwrap();
        fs_err::read(&place).unwrap()
    };
    for at in (0..kept.len()).step_by(31) {
        let mut damaged = kept.clone();
        damaged[at] ^= 0x10;
        fs_err::write(&place, damaged).unwrap();
        let archives = open(from_ref(&path), &keeping).unwrap();
        match archives.read("n01440764/n01440764_3.JPEG") {
            Ok(bytes) => assert_eq!(bytes, b"n01440764_3.JPEG"),
            Err(error) => assert!(error.to_string().contains("index: "), "{error}"),
        }
    }
    for length in (0..kept.len()).step_by(97) {
        fs_err::write(&place, &kept[..length]).unwrap();
        let archives = open(from_ref(&path), &keeping).unwrap();
        assert_eq!(names(&archives), names(&fresh), "{length}");
    }
}

#[test]
fn the_first_place_that_can_be_written_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "a.tar", &nested(""));
    // A file where a folder would have to be: nobody can write there, whoever runs the test.
    let nowhere = path.join("below/a.richsem-index");
    let cache = folder.path().join("cache/a.richsem-index");
    let archives = open(from_ref(&path), &always(vec![nowhere.clone(), cache.clone()])).unwrap();
    assert_eq!(archives.index.len(), 15);
    assert!(cache.is_file());
    let archives = open(from_ref(&path), &always(vec![nowhere])).unwrap();
    assert_eq!(archives.index.len(), 15);
    let keeping = Keeping::usual(&[&path]);
    assert_eq!(keeping.places[0], folder.path().join("a.tar.richsem-index"));
    let several = Keeping::usual(&[&path, &folder.path().join("b.tar")]);
    let name = several.places[0].file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with('.') && name.ends_with(".richsem-index"), "{name}");
    if let Some(cached) = keeping.places.get(1) {
        assert!(cached.parent().unwrap().ends_with("richsem/archives"), "{}", cached.display());
    }
    // Small ones are indexed each time.
    open(&[path], &keeping).unwrap();
    assert!(!keeping.places[0].exists());
}

/// Stops after each number of files, and goes on: nothing is walked twice, and the index is the same.
#[test]
fn a_stop_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [
        written(folder.path(), "a.tar", &nested("")),
        written(
            folder.path(),
            "b.tar",
            &tar(&[("1.jpg", b"1"), ("1.json", b"2"), ("1.jpg", b"3")]),
        ),
    ];
    let fresh = open(&paths, &never()).unwrap();
    let place = folder.path().join("index.richsem-index");
    let keeping = always(vec![place.clone()]);
    let mut steps = 0;
    Archives::open_keeping(&paths[0], (&paths, true), &keeping, &mut |_| {
        steps += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(steps >= 18, "{steps}");
    for stop in 1..=steps {
        fs_err::remove_file(&place).unwrap();
        let mut seen = 0;
        let stopped = Archives::open_keeping(&paths[0], (&paths, true), &keeping, &mut |_| {
            seen += 1;
            if seen == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped, Err(Error::Stopped)), "{stop}");
        let journal = place.with_extension(journal::EXTENSION);
        assert!(journal.is_file());
        if stop % 3 == 0 {
            // The last record was being written: what it held is walked again.
            let bytes = fs_err::read(&journal).unwrap();
            fs_err::write(&journal, &bytes[..bytes.len() - 5]).unwrap();
        }
        let archives = Archives::open_keeping(&paths[0], (&paths, true), &keeping, &mut |_| {
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(names(&archives), names(&fresh), "{stop}");
        assert_eq!(archives.tally, fresh.tally, "{stop}");
        assert!(!journal.exists());
        let twice = seen - steps;
        assert!(if stop % 3 == 0 { twice <= 1 } else { twice == 0 }, "{stop}: {twice}");
    }
}

#[test]
fn two_processes_index_one_archive() {
    let folder = tempfile::tempdir().unwrap();
    let paths = [written(folder.path(), "a.tar", &nested(""))];
    let place = folder.path().join("a.richsem-index");
    let keeping = always(vec![place.clone()]);
    let mut within = None;
    let outer = Archives::open_keeping(&paths[0], (&paths, true), &keeping, &mut |told| {
        if told.files == 5 && within.is_none() {
            within = Some(
                Archives::open_keeping(&paths[0], (&paths, true), &keeping, &mut go_on)
                    .map(|archives| names(&archives)),
            );
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(within.unwrap().unwrap(), names(&outer));
    assert!(place.is_file());
}

#[test]
fn fields_are_of_neighbours_only() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = tar(&[
        ("a/1.jpg", b"p"),
        ("a/1.SEG.png", b"s"),
        ("a/1.JSON", b"j"),
        ("a/2.json", b"k"),
        ("a/2.jpg", b"q"),
        ("b/2.txt", b"not of a/2"),
        ("a/1.cls", b"behind others"),
        ("3", b"no field"),
    ]);
    let archives = open(&[written(folder.path(), "a.tar", &bytes)], &never()).unwrap();
    assert!(archives.is_samples());
    for (name, field, expected) in [
        ("a/1.jpg", "json", Some(&b"j"[..])),
        ("./a/1.jpg", "seg.png", Some(b"s")),
        ("a/1.jpg", "jpg", Some(b"p")),
        ("a/2.jpg", "json", Some(b"k")),
        ("a/1.jpg", "cls", None),
        ("a/2.jpg", "txt", None),
        ("a/2.jpg", "xml", None),
        ("3", "cls", None),
        ("absent.jpg", "cls", None),
    ] {
        let found = archives.companion(name, field).unwrap();
        assert_eq!(found.as_deref(), expected, "{name} {field}");
    }
    let plain = tar(&[("photo.v2.jpg", b"1"), ("b.jpg", b"2"), ("b.txt", b"3"), ("c.jpg", b"4")]);
    let archives = open(&[written(folder.path(), "b.tar", &plain)], &never()).unwrap();
    assert!(!archives.is_samples());
}

/// 1,000 inner archives, 1 GB. Only headers are read, so that holes serve as contents.
#[test]
fn a_large_nested_archive_is_indexed() {
    const INNER: usize = 1000;
    const FILES: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.tar");
    crate::testing::write_nested_tar(&path, INNER, FILES, 100 * 1024).unwrap();
    let archives = open(&[path], &never()).unwrap();
    assert_eq!(archives.index.len(), (INNER * FILES) as u64);
}

#[test]
fn the_samples_of_the_formats_are_read() {
    use crate::testing::shared;
    let files = ["imagenet_tar/ILSVRC2012_img_train.tar", "imagenet_tar/winter21_whole.tar"];
    for file in files {
        let Some(path) = shared(&format!("samples/{file}")) else { return };
        let archives = open(&[path], &never()).unwrap();
        assert_eq!(archives.index.folders("").unwrap(), ["n01440764", "n02123045"], "{file}");
        let bytes = archives.read("n01440764/n01440764_26.JPEG").unwrap();
        assert_eq!(bytes.len(), 637);
        assert!(bytes.starts_with(&[0xFF, 0xD8]) && archives.notes().is_empty());
    }
    let Some(path) = shared("samples/webdataset/cls-000000.tar") else { return };
    let archives = open(&[path], &never()).unwrap();
    assert!(archives.is_samples());
    assert_eq!(archives.companion("sub/000001.jpg", "cls").unwrap().unwrap(), b"0\n");
    assert_eq!(archives.companion("000002.JPEG", "cls").unwrap().unwrap().len(), 1);
}
