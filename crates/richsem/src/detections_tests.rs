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
    let derived: Vec<Detection> = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    assert_eq!(derived, detections);

    write(&path, &[]).unwrap();
    assert_eq!(read(&path).unwrap(), []);
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn other_fields_are_ignored_and_whole_floats_are_ids() {
    let text = r#" [ {"id": 4, "segmentation": {"size": [2, 2], "counts": "11"}, "image_id": 1.0,
        "category_id": 2, "bbox": [1, 2.5, 3e0, 4], "score": 1, "extra": [[{}]]} ] "#;
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
    assert_eq!(base("bbox", "[1,2,3]"), "dets.json: [2].bbox: expected 4 finite numbers, got 3");
    assert_eq!(
        base("bbox", "[1,2,3,4,5]"),
        "dets.json: [2].bbox: expected 4 finite numbers, got 5"
    );
    assert_eq!(
        base("bbox", "[1,null,3,4]"),
        "dets.json: [2].bbox: invalid type: null, expected a finite number"
    );
    assert_eq!(
        base("bbox", "{}"),
        "dets.json: [2].bbox: invalid type: map, expected 4 finite numbers"
    );
    assert_eq!(
        base("score", "\"0.9\""),
        "dets.json: [2].score: invalid type: string \"0.9\", expected a finite number"
    );
    assert_eq!(base("image_id", "1.5"), "dets.json: [2].image_id: expected an integer, got 1.5");
    assert_eq!(
        base("category_id", "\"cat\""),
        "dets.json: [2].category_id: invalid type: string \"cat\", expected an integer"
    );
    assert_eq!(
        with(r#"{"image_id":1,"category_id":2,"bbox":[1,2,3,4]}"#),
        "dets.json: [2].score: missing"
    );
    assert_eq!(
        with("[1]"),
        "dets.json: [2]: invalid type: sequence, expected an object with image_id, category_id, \
         bbox and score"
    );
    let nan = with(r#"{"image_id":1,"category_id":2,"bbox":[1,2,3,4],"score":NaN}"#);
    assert!(nan.starts_with("dets.json: [2].score: not JSON: expected value"), "{nan}");
    assert!(nan.contains("no NaN"), "{nan}");
    let huge = with(r#"{"image_id":1,"category_id":2,"bbox":[1,2,3,1e999],"score":1}"#);
    assert!(huge.starts_with("dets.json: [2].bbox: not JSON: number out of range"), "{huge}");
}

#[test]
fn files_that_are_no_list_say_so() {
    assert_eq!(
        message(r#"{"images": [], "annotations": []}"#),
        "dets.json: top level: expected a list of detections, got an object\n  hint: this looks \
         like an annotation file, not like detections"
    );
    assert_eq!(
        message("17"),
        "dets.json: top level: invalid type: integer `17`, expected a list of detections"
    );
    assert_eq!(
        message(""),
        "dets.json: top level: expected a list of detections, got an empty file"
    );
    assert!(message("[] []").contains("top level: not JSON: trailing characters"));
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
            assert!(error.contains("it is cut off"), "{end}: {error}");
        }
    }
    let in_the_score = format!("[{GOOD},{}", &GOOD[..GOOD.len() - 2]);
    assert!(message(&in_the_score).starts_with("dets.json: [1].score: the file ends here"));
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
