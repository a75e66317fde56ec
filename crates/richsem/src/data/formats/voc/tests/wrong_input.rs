//! Input that is refused, and what is said of it; encodings that are right and wrong.

use super::*;

#[test]
fn the_encoding_that_the_xml_says_is_obeyed() {
    let text = |encoding: &str| {
        format!(
            "<?xml version=\"1.0\"{encoding}?>\n<annotation><size><width>8</width><height>9\
             </height></size>{}</annotation>",
            OBJECT.replace("dog", "café 犬")
        )
    };
    let declaring = |label: &str| text(&format!(" encoding='{label}'"));
    let utf16: Vec<u8> = [0xFEFF]
        .into_iter()
        .chain(declaring("UTF-16").encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let shift_jis = declaring("Shift_JIS").replace("café", "cafe");
    let without_mark = declaring("utf-16").encode_utf16().flat_map(u16::to_be_bytes).collect();
    let with_dtd = declaring("utf-8").replace("<annotation>", "<!DOCTYPE annotation><annotation>");
    let files: [(&str, Vec<u8>); 8] = [
        ("café 犬", without_mark),
        ("café 犬", declaring("utf-16").into_bytes()),
        ("café 犬", with_dtd.into_bytes()),
        ("café 犬", text("").into_bytes()),
        ("café 犬", declaring("utf-8").into_bytes()),
        ("café 犬", utf16),
        ("cafe 犬", encoding_rs::SHIFT_JIS.encode(&shift_jis).0.into_owned()),
        (
            "café",
            encoding_rs::WINDOWS_1252.encode(&declaring("ISO-8859-1").replace(" 犬", "")).0.into(),
        ),
    ];
    for (name, bytes) in files {
        let set = small_set(OBJECT);
        std::fs::write(annotation(&set, "c"), bytes).unwrap();
        let (val, _) = read(set.path(), "val").unwrap();
        let classes: Vec<_> = val.vocabulary().categories().iter().map(|c| &c.name).collect();
        assert_eq!(classes, [name, "dog"]);
    }
    for (bytes, says) in [
        (declaring("klingon").into_bytes(), "says its encoding is `klingon`, which is unknown"),
        (
            encoding_rs::WINDOWS_1252.encode(&text("").replace('犬', "e")).0.into(),
            "not UTF-8 text, and it says",
        ),
        (
            b"<?xml encoding=\"utf-8\"?><annotation>\xff</annotation>".into(),
            "not UTF-8 text, which",
        ),
    ] {
        let set = small_set(OBJECT);
        std::fs::write(annotation(&set, "c"), bytes).unwrap();
        let message = read(set.path(), "val").unwrap_err().to_string();
        assert!(message.contains("c.xml: XML: ") && message.contains(says), "{message}");
    }
}

#[test]
fn mistakes_are_named_with_file_and_field() {
    // (what is replaced in c.xml, by what, what the message says)
    let table = [
        ("</annotation>", "", "c.xml: XML: broken"),
        ("<annotation>", "<annotation", "c.xml: XML: broken"),
        ("annotation>", "labels>", "expected <annotation>, got <labels>"),
        ("<name>dog</name>", "<name> </name>", "c.xml: object[0].name: missing"),
        ("bndbox>", "polygon>", "c.xml: object[0].bndbox: missing"),
        ("<xmin>2</xmin>", "", "c.xml: object[0].bndbox.xmin: missing"),
        ("<xmin>2", "<xmin>two", "object[0].bndbox.xmin: expected a finite number, got `two`"),
        ("<xmin>2", "<xmin>NaN", "object[0].bndbox.xmin: expected a finite number, got `NaN`"),
        ("<width>8", "<width>-8", "c.xml: size.width: expected a number of pixels, got `-8`"),
        ("<difficult>0", "<difficult>7", "object[0].difficult: expected 0 or 1, got `7`"),
    ];
    for (old, new, says) in table {
        let set = small_set(OBJECT);
        let path = annotation(&set, "c");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(old));
        std::fs::write(&path, text.replace(old, new)).unwrap();
        let message = read(set.path(), "val").unwrap_err().to_string();
        let is_told = message.contains(says) && message.contains("hint: ");
        assert!(is_told, "{old} -> {new}: {message}");
    }
    let set = small_set(OBJECT);
    std::fs::write(annotation(&set, "c"), b"<annotation>\xff</annotation>").unwrap();
    let message = read(set.path(), "val").unwrap_err().to_string();
    assert!(message.contains("c.xml: XML: not UTF-8 text"), "{message}");
}

#[test]
fn sets_that_do_not_hold_together_are_refused() {
    let says = |set: &tempfile::TempDir, words: &str| {
        let message = read(set.path(), "val").unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("hint: "), "{message}");
    };
    let set = small_set(OBJECT);
    std::fs::write(set.path().join("VOC/deeper/ImageSets/Main/val.txt"), "c\nd\n").unwrap();
    says(&set, "image set val, line 2: no Annotations/d.xml");

    let set = small_set(OBJECT);
    std::fs::remove_file(set.path().join("VOC/deeper/JPEGImages/c.png")).unwrap();
    says(&set, "Annotations/c.xml: its image is missing");

    let set = small_set(OBJECT);
    for list in ["train", "val", "dog_train"] {
        std::fs::write(set.path().join(format!("VOC/deeper/ImageSets/Main/{list}.txt")), "")
            .unwrap();
    }
    says(&set, "ImageSets: no list names an image: train, val, test, dog_train");

    let set = small_set(OBJECT);
    std::fs::create_dir_all(set.path().join("other/Annotations")).unwrap();
    says(&set, "two sets in one");

    says(&tempfile::tempdir().unwrap(), "no Annotations/*.xml");
}

#[test]
fn archives_that_cannot_be_read_are_refused() {
    let set = small_set(OBJECT);
    let archive = archive_of(&set.path().join("VOC/deeper"), "./set");
    let bytes = std::fs::read(archive.path()).unwrap();
    let outcome = |content: &[u8]| {
        std::fs::write(archive.path(), content).unwrap();
        let outcome = read(archive.path(), "train").map_err(|e| e.to_string());
        outcome.map(|(set, _)| set.annotations().len())
    };
    assert_eq!(outcome(&bytes), Ok(1));
    for (content, says) in [
        (b"\x1f\x8b\x08\x00".as_slice(), "it is packed with gzip"),
        (b"PK\x03\x04".as_slice(), "a zip archive"),
        (b"".as_slice(), "the file is empty"),
        (&[b'x'; 2000], "does not begin as a .tar does"),
    ] {
        let message = outcome(content).unwrap_err();
        assert!(message.contains(says) && message.contains("hint: "), "{message}");
    }
    // Cut anywhere: an error, or a set that is whole without the rest; never a panic.
    let mut refused = 0;
    for end in (0..bytes.len()).step_by(97) {
        refused += usize::from(outcome(&bytes[..end]).is_err());
    }
    assert!(refused > 10, "{refused}");
}

/// A name that leads out of the archive is a name like any other: nothing is unpacked.
#[test]
fn names_that_lead_out_of_an_archive_are_read_in_it() {
    let archive = archive_that_leads_out();
    let (all, _) = read(archive.path(), "all").unwrap();
    assert_eq!((files(&all), all.annotations().len()), (vec!["../../JPEGImages/a.png"], 1));
    let store = ImageStore::open(archive.path(), Default::default()).unwrap();
    assert!(store.contains("../../JPEGImages/a.png"));
}
