use super::*;

fn read_text(text: &str) -> Result<Vec<Detection>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    fs_err::write(&path, text).unwrap();
    // Without the folder's random name, so that messages can be compared.
    read(&path).map_err(|e| match e {
        Error::Invalid { field, problem, hint, .. } => {
            Error::Invalid { file: "dets.json".into(), field, problem, hint }
        }
        other => other,
    })
}

fn message(text: &str) -> String {
    read_text(text).unwrap_err().to_string()
}

const GOOD: &str = r#"{"image_id":1,"category_id":2,"bbox":[1,2,3,4],"score":0.5}"#;

#[test]
fn numbers_come_back_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    let mut random = crate::random::Random::new(7, crate::random::Stream::Test, 0, 0);
    let mut detections: Vec<_> = (0..1000)
        .map(|i| Detection {
            image_id: i % 7 - 3,
            category_id: CategoryId(i % 11),
            bbox: Xywh([0; 4].map(|_| random.uniform() * 1333.0)),
            score: random.uniform(),
        })
        .collect();
    detections.push(Detection {
        image_id: i64::MAX,
        category_id: CategoryId(i64::MIN),
        bbox: Xywh([0.1 + 0.2, -1e-300, 5e-324, f64::MAX]),
        score: 1.0 - f64::EPSILON / 2.0,
    });
    write(&path, &detections).unwrap();
    assert_eq!(read(&path).unwrap(), detections);
    write(&path, &[]).unwrap();
    assert_eq!(read(&path).unwrap(), []);
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn boxes_of_negative_size_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    let with = |bbox: &str| GOOD.replace("[1,2,3,4]", bbox);
    let records = [with("[1,1,-5,3]"), with("[1,1,5,-0.5]"), with("[1,1,0,0]"), GOOD.to_owned()];
    fs_err::write(&path, format!("[{}]", records.join(","))).unwrap();
    let names = Names { images: &ImageNames::default(), classes: &Vocabulary::new(Vec::new()) };
    let found = read_for(&path, names).unwrap();
    assert_eq!((found.detections.len(), found.negative), (4, 2));
}

#[test]
fn other_fields_are_ignored_and_whole_floats_and_digits_are_ids() {
    let text = r#" [ {"id": 4, "segmentation": {"size": [2, 2], "counts": "11"}, "image_id": 1.0,
        "category_id": "2", "bbox": [1, 2.5, 3e0, 4], "score": 1, "extra": [[{}]]} ] "#;
    let expected = Detection {
        image_id: 1,
        category_id: CategoryId(2),
        bbox: Xywh([1.0, 2.5, 3.0, 4.0]),
        score: 1.0,
    };
    assert_eq!(read_text(text).unwrap(), [expected]);
}

#[test]
fn a_wrong_record_is_named_with_its_field() {
    let with = |record: &str| message(&format!("[{GOOD},\n{GOOD},\n{record}]"));
    let base = |field: &str, value: &str| {
        let mut record: serde_json::Value = serde_json::from_str(GOOD).unwrap();
        record[field] = serde_json::from_str(value).unwrap();
        with(&record.to_string())
    };
    let four = "expected 4 finite numbers [x, y, width, height], got";
    for (field, value, says) in [
        ("bbox", "[1,2,3]", format!("{four} a list of 3: [1,2,3]")),
        ("bbox", "[1,2,3,4,5]", format!("{four} a list of 5: [1,2,3,4,5]")),
        ("bbox", "[1,null,3,4]", format!("{four} a list of 4: [1,null,3,4]")),
        ("bbox", "{}", format!("{four} an object: {{}}")),
        ("score", "\"0.9\"", "expected a finite number, got the string \"0.9\"".into()),
        ("image_id", "1.5", "expected an integer or a string, got 1.5".into()),
        (
            "category_id",
            "\"cat\"",
            "expected an integer, got the string \"cat\"\n  hint: ids".into(),
        ),
    ] {
        let message = base(field, value);
        assert!(message.starts_with(&format!("dets.json: [2].{field}: {says}")), "{message}");
    }
    for (record, says) in [
        (r#"{"image_id":1,"category_id":2,"bbox":[1,2,3,4]}"#, "[2].score: missing; expected a"),
        (r#"{"category_id":2,"bbox":[1,2,3,4],"score":1}"#, "[2].image_id: missing; expected an"),
        ("[1]", "[2]: expected an object, got a list"),
        (
            r#"{"image_id":1,"category_id":2,"bbox":[1,2,3,4],"score":NaN}"#,
            "[2].score: expected a finite number, got NaN\n  hint: NaN is not JSON",
        ),
        (
            r#"{"image_id":1,"category_id":2,"bbox":[1,2,3,1e999],"score":1}"#,
            "[2].bbox: expected 4 finite numbers [x, y, width, height], got a number too large",
        ),
    ] {
        let message = with(record);
        assert!(message.starts_with(&format!("dets.json: {says}")), "{message}");
    }
}

#[test]
fn files_that_are_no_list_say_so() {
    assert_eq!(
        message(r#"{"images": [], "annotations": []}"#),
        "dets.json: top level: expected a list of detections, got an object at byte 0\n  hint: this \
         looks like an annotation file, not like detections"
    );
    for (text, says) in [
        ("17", "top level: expected a list of detections, got a number at byte 0"),
        ("", "top level: the file is empty"),
        ("[] []", "top level: unexpected text at byte 3, after its end"),
    ] {
        let message = message(text);
        assert!(message.starts_with(&format!("dets.json: {says}")), "{message}");
    }
    let absent = read(Path::new("/nowhere/dets.json")).unwrap_err().to_string();
    assert!(absent.contains("/nowhere/dets.json"), "{absent}");
}

/// Wherever the file is cut off: an error, never a panic and never a shorter list.
#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    let text = format!("[{GOOD},{GOOD}]");
    for end in 0..text.len() {
        let error = message(&text[..end]);
        if end > 0 {
            assert!(error.contains("is probably truncated"), "{end}: {error}");
        }
    }
    let in_the_score = format!("[{GOOD},{}", &GOOD[..GOOD.len() - 2]);
    assert!(message(&in_the_score).starts_with("dets.json: [1]: the file ends at byte"));
}

/// As annotations are: packed, or behind a byte order mark.
#[test]
fn what_annotations_may_be_packed_in_detections_may() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    let text = format!("[{GOOD}]");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    for bytes in [packed.finish().unwrap(), format!("\u{feff}{text}").into_bytes()] {
        fs_err::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap().len(), 1);
    }
    let utf16: Vec<u8> =
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    fs_err::write(&path, utf16).unwrap();
    assert!(read(&path).unwrap_err().to_string().contains("UTF-16 text, not UTF-8"));
}

/// A record's name says which image is meant, however its program numbered them.
#[test]
fn names_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    let record = |id: &str, name: &str| {
        format!(r#"{{{id}"file_name":"{name}","category_id":2,"bbox":[1,2,3,4],"score":0.5}}"#)
    };
    let ids = [
        ("val/a.jpg", 12),
        ("val/b.jpg", 7),
        ("x/c.jpg", 1),
        ("y/c.jpg", 2),
        ("e.jpg", 30),
        ("e.jpg", 31),
    ];
    let ids = ImageNames::new(ids);
    let read = |records: &[String]| {
        fs_err::write(&path, format!("[{}]", records.join(","))).unwrap();
        read_for(&path, Names { images: &ids, classes: &Vocabulary::new(Vec::new()) })
    };
    let records = [
        record(r#""image_id":1,"#, "val/a.jpg"),
        record(r#""image_id":7,"#, "b.jpg"),
        record("", "/somewhere/y/c.jpg"),
        record(r#""image_id":31,"#, "e.jpg"),
        GOOD.to_owned(),
    ];
    let found = read(&records).unwrap();
    let images: Vec<i64> = found.detections.iter().map(|d| d.image_id).collect();
    assert_eq!((images, found.renumbered), (vec![12, 7, 2, 31, 1], 1));
    for (name, says) in [
        ("d.jpg", "no image of the annotation file is called `d.jpg`"),
        ("train/a.jpg", "no image of the annotation file is called `train/a.jpg`"),
        ("c.jpg", "`c.jpg` may be image 1 (`x/c.jpg`) or 2 (`y/c.jpg`)"),
        ("e.jpg", "`e.jpg` may be image 30 (`e.jpg`) or 31 (`e.jpg`)"),
    ] {
        let message = read(&[record(r#""image_id":99,"#, name)]).unwrap_err().to_string();
        assert!(message.contains("[0].file_name: ") && message.contains(says), "{message}");
    }
    // A folder may have other images, too.
    let found = read(&[records[0].clone(), record("", "d.jpg"), record("", "d.jpg")]).unwrap();
    assert_eq!(found.detections.len(), 1);
    assert_eq!(found.other_images, [("d.jpg".to_owned(), 2)].into());
}

/// Names that cannot all be right, and ids that are shown to be wrong, are not evaluated by.
#[test]
fn names_and_ids_that_contradict_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    let ids = ImageNames::new([("val/a.jpg", 12), ("val/b.jpg", 7)]);
    let read = |records: &[(i64, &str)]| {
        let records = records.iter().map(|(id, name)| {
            let name =
                if name.is_empty() { String::new() } else { format!(r#","file_name":"{name}""#) };
            format!(r#"{{"image_id":{id}{name},"category_id":2,"bbox":[1,2,3,4],"score":0.5}}"#)
        });
        let records: Vec<String> = records.collect();
        fs_err::write(&path, format!("[{}]", records.join(","))).unwrap();
        read_for(&path, Names { images: &ids, classes: &Vocabulary::new(Vec::new()) })
            .map(|found| found.detections.len())
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(&[(1, "val/a.jpg"), (1, "val/a.jpg"), (2, "b.jpg")]), Ok(3));
    let message = read(&[(1, "val/a.jpg"), (3, "a.jpg")]).unwrap_err();
    let expected = "[1].file_name: `val/a.jpg` and `a.jpg` would both be image 12";
    assert!(message.contains(expected), "{message}");
    let message = read(&[(1, "val/a.jpg"), (7, "")]).unwrap_err();
    assert!(message.contains("file_name: missing in 1 record,"), "{message}");
    // Where some ids are right, those without a name may be.
    assert_eq!(read(&[(1, "val/a.jpg"), (7, "val/b.jpg"), (7, "")]), Ok(3));
}

#[test]
fn a_class_is_the_one_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    let category = |id: i64, name: &str| crate::vocabulary::Category {
        key: None,
        id: CategoryId(id),
        name: name.to_owned(),
        image_count: 1,
        instance_count: 1,
        frequency: crate::vocabulary::Frequency::Common,
        synset: None,
        wnid: None,
        text_row: None,
    };
    let names = [(3, "cat"), (5, "stop_sign"), (8, "crane"), (9, "crane")];
    let classes = Vocabulary::new(names.map(|(id, name)| category(id, name)).into());
    let images = ImageNames::default();
    let read = |id: i64, name: &str| {
        let record = GOOD.replace("\"category_id\":2", &format!("\"category_id\":{id},{name}"));
        fs_err::write(&path, format!("[{record}]")).unwrap();
        read_for(&path, Names { images: &images, classes: &classes })
            .map(|found| (found.detections[0].category_id.0, found.renamed))
    };
    let named = |name: &str| format!("\"category_name\":\"{name}\"");
    for (id, name, expected) in [
        (3, named("cat"), (3, 0)),
        (5, named("Stop sign"), (5, 0)),
        (3, named("stop sign"), (5, 1)),
        (77, named("cat"), (3, 1)),
        (9, named("crane"), (9, 0)),
        (3, "\"more\":1".to_owned(), (3, 0)),
    ] {
        assert_eq!(read(id, &name).unwrap(), expected, "{id} {name}");
    }
    let message = read(3, &named("crane")).unwrap_err().to_string();
    assert!(message.contains("[0].category_name: `crane` may be class 8 or 9"), "{message}");
    // A split need not have every class.
    for id in [3, 77] {
        let message = read(id, &named("dog")).unwrap_err().to_string();
        assert!(message.contains("of those that it has not, as `dog`: 1"), "{message}");
        let records = [named("dog"), named("cat"), named("dog")]
            .map(|name| GOOD.replace("\"category_id\":2", &format!("\"category_id\":{id},{name}")));
        fs_err::write(&path, format!("[{}]", records.join(","))).unwrap();
        let found = read_for(&path, Names { images: &images, classes: &classes }).unwrap();
        assert_eq!(found.detections.len(), 1);
        assert_eq!(found.left_out, [("dog".to_owned(), 2)].into());
        // One count of a name, whatever its ids are.
        let other = records[0].replace("\"category_id\":", "\"category_id\":1");
        fs_err::write(&path, format!("[{},{other}]", records.join(","))).unwrap();
        let found = read_for(&path, Names { images: &images, classes: &classes }).unwrap();
        assert_eq!(found.left_out, [("dog".to_owned(), 3)].into());
    }
}

#[test]
fn a_number_that_is_not_finite_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    let detection = Detection {
        image_id: 1,
        category_id: CategoryId(2),
        bbox: Xywh([1.0, 2.0, 3.0, 4.0]),
        score: f64::NAN,
    };
    let error = write(&path, &[detection]).unwrap_err().to_string();
    assert!(error.contains("[0].score: not finite"), "{error}");
    let detection = Detection { bbox: Xywh([f64::INFINITY; 4]), score: 1.0, ..detection };
    let error = write(&path, &[detection]).unwrap_err().to_string();
    assert!(error.contains("[0].bbox: not finite"), "{error}");
    assert!(!path.exists());
}

/// The images of a set whose ids are texts.
fn texts() -> ImageNames {
    let texts = [("a1".to_owned(), 1), ("007".to_owned(), 2), ("3".to_owned(), 3)];
    ImageNames::new([("x/a.jpg", 1), ("x/b.jpg", 2), ("x/c.jpg", 3)]).with_texts(texts)
}

fn read_texts(records: &[&str]) -> Result<Found> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    fs_err::write(&path, format!("[{}]", records.join(","))).unwrap();
    read_for(&path, Names { images: &texts(), classes: &Vocabulary::new(Vec::new()) })
}

#[test]
fn ids_that_are_texts_are_looked_up_and_written_again() {
    let record = |id: &str, name: &str| {
        format!(r#"{{"image_id":{id}{name},"category_id":2,"bbox":[1,2,3,4],"score":0.5}}"#)
    };
    let a_name = r#","file_name":"found/x/a.jpg""#;
    let records = [
        record("\"a1\"", ""),
        record("\"007\"", ""),
        // A number is the text of it; a name counts more than an id that no image has.
        record("3", ""),
        record("\"b9\"", a_name),
        record("99", a_name),
    ];
    let all: Vec<&str> = records.iter().map(String::as_str).collect();
    let found = read_texts(&all).unwrap();
    let images: Vec<i64> = found.detections.iter().map(|d| d.image_id).collect();
    assert_eq!(images, [1, 2, 3, 1, 1]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    write_for(&path, &found.detections[..2], &texts()).unwrap();
    let text = fs_err::read_to_string(&path).unwrap();
    let first = r#"{"image_id":"a1","category_id":2,"bbox":[1.0,2.0,3.0,4.0],"score":0.5}"#;
    assert!(text.starts_with(&format!("[\n{first},\n")) && text.contains(r#""007""#), "{text}");
    let again = read_for(&path, Names { images: &texts(), classes: &Vocabulary::new(Vec::new()) });
    assert_eq!(again.unwrap().detections, found.detections[..2]);
    let other = Detection { image_id: 4, ..found.detections[0] };
    let message = write_for(&path, &[other], &texts()).unwrap_err().to_string();
    assert!(message.contains("[0].image_id: no image of the annotation file has the number 4"));
}

#[test]
fn ids_that_are_texts_and_mean_no_image() {
    for id in ["\"b9\"", "7", "2"] {
        let record = GOOD.replace("\"image_id\":1", &format!("\"image_id\":{id}"));
        let message = read_texts(&[&record]).unwrap_err().to_string();
        assert!(
            message.contains(&format!("has the id {id}\n  hint: pass the annotation")),
            "{message}"
        );
    }
    let text = GOOD.replace("\"image_id\":1", "\"image_id\":\"a1\"");
    let told = message(&format!("[{text}]"));
    assert!(told.contains("[0].image_id: expected an integer, got the string \"a1\""), "{told}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dets.json");
    fs_err::write(&path, format!("[{text}]")).unwrap();
    let names = Names { images: &ImageNames::default(), classes: &Vocabulary::new(Vec::new()) };
    let told = read_for(&path, names).unwrap_err().to_string();
    assert!(told.contains("\"a1\" is a text, and the annotation file has numbers"), "{told}");
}
