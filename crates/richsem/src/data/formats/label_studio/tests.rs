//! Label Studio's JSON: the sample beside Label Studio's own COCO export of it, and what is wrong with others.
#![allow(clippy::unwrap_used)]

use crate::{
    data::{dataset::Dataset, formats::Opening, records::Unit},
    testing::shared,
};

fn file(text: impl AsRef<[u8]>) -> crate::Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tasks.json");
    fs_err::write(&path, text).unwrap();
    let opening =
        Opening { format: Some("label_studio".into()), pixels: false, ..Opening::default() };
    Dataset::open_as(&path, &opening)
}

/// A task of one result, of an image of 200 by 100 pixels.
fn task(result: &str) -> String {
    format!(
        r#"{{"id": 7, "data": {{"image": "/data/upload/3/ab-x.jpg"}}, "annotations": [{{"id": 1, "result": [
        {{"original_width": 200, "original_height": 100, "image_rotation": 0, {result}}}]}}]}}"#
    )
}

const SQUARE: &str = r#""type": "rectanglelabels", "value": {"x": 10, "y": 20, "width": 5, "height": 10, "rectanglelabels": ["a"]}"#;

fn boxes(dataset: &Dataset) -> Vec<[f64; 4]> {
    dataset.annotations().iter().map(|a| a.bbox.0).collect()
}

fn near(got: [f64; 4], expected: [f64; 4]) {
    for (a, b) in got.into_iter().zip(expected) {
        assert!((a - b).abs() < 1e-9, "{got:?} {expected:?}");
    }
}

#[test]
fn the_newest_annotation_has_the_boxes_of_the_coco_export() {
    let (Some(own), Some(coco)) = (
        shared("samples/labelstudio/tasks_export.json"),
        shared("samples/labelstudio/rectangles_result.json"),
    ) else {
        return;
    };
    let dataset = Dataset::open(&own).unwrap();
    let coco = Dataset::open(&coco).unwrap();
    assert_eq!(dataset.report().format, "Label Studio JSON");
    let images: Vec<_> = dataset.images().iter().map(|i| (i.id, i.file_name.as_str())).collect();
    assert_eq!(images, [(1, "image1"), (2, "image2")]);
    assert_eq!(dataset.images()[0].size, Some([2800, 2800]));
    // The export lists the first image twice, the newest annotation first.
    for (own, export) in [(0, 0), (1, 2)] {
        let (own, export) = (dataset.annotations_of(own), coco.annotations_of(export));
        assert_eq!(own.len(), export.len());
        for (own, export) in own.iter().zip(export) {
            near(own.bbox.0, export.bbox.0);
            assert_eq!(own.class, export.class);
        }
    }
    let notes = &dataset.report().notes;
    assert!(notes.iter().any(|note| note.starts_with("tasks with several annotations") && note.ends_with(": 1")));
}

#[test]
fn the_ground_truth_counts_and_cancelled_ones_do_not() {
    let annotation = |flags: &str, label: &str| {
        format!(
            r#"{{{flags} "result": [{{"original_width": 200, "original_height": 100, "type": "rectanglelabels",
            "value": {{"x": 1, "y": 1, "width": 2, "height": 2, "rectanglelabels": ["{label}"]}}}}]}}"#
        )
    };
    let old = annotation(r#""updated_at": "2022-12-27T21:05:03Z","#, "old");
    let new = annotation(r#""updated_at": "2023-01-02T01:00:00Z","#, "new");
    let truth = annotation(r#""ground_truth": true, "updated_at": "2020","#, "truth");
    let cancelled = annotation(r#""was_cancelled": true, "updated_at": "2024","#, "cancelled");
    for (annotations, expected) in [
        (vec![&new, &old, &cancelled], "new"),
        (vec![&truth, &new], "truth"),
        (vec![&old, &cancelled], "old"),
    ] {
        let list: Vec<&str> = annotations.into_iter().map(String::as_str).collect();
        let text = format!(
            r#"[{{"data": {{"image": "a.jpg"}}, "annotations": [{}]}}, {{"data": {{"image": "b.jpg"}}, "annotations": []}}]"#,
            list.join(",")
        );
        let dataset = file(text).unwrap();
        assert_eq!(dataset.vocabulary().categories()[0].name, expected);
        assert_eq!(dataset.images().len(), 1, "nobody looked at the second");
        assert!(dataset.report().notes[0].starts_with("tasks without an annotation, left out"));
    }
}

#[test]
fn percent_rotation_polygons_and_ellipses() {
    let one = |result: &str| file(format!("[{}]", task(result))).unwrap();
    let square = one(SQUARE);
    assert_eq!(square.images()[0].file_name, "3/ab-x.jpg");
    near(boxes(&square)[0], [20.0, 20.0, 10.0, 10.0]);
    // By 90 degrees around its upper left corner, in pixels: 10 wide and 10 high, to the left.
    near(
        boxes(&one(&SQUARE.replace("\"x\": 10", "\"x\": 10, \"rotation\": 90")))[0],
        [10.0, 20.0, 10.0, 10.0],
    );
    let polygon = r#""type": "polygonlabels", "value": {"points": [[10, 20], [15, 20], [15, 35]], "polygonlabels": ["a"]}"#;
    near(boxes(&one(polygon))[0], [20.0, 20.0, 10.0, 15.0]);
    let ellipse = r#""type": "ellipselabels", "value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 90, "ellipselabels": ["a"]}"#;
    near(boxes(&one(ellipse))[0], [90.0, 30.0, 20.0, 40.0]);
    let both = one(&SQUARE.replace("[\"a\"]", "[\"b\", \"a\"]"));
    let classes: Vec<u32> = both.annotations().iter().map(|a| a.class.0).collect();
    assert_eq!(classes, [1, 0], "a box of two labels is two");
}

#[test]
fn what_has_no_box_or_no_place_is_counted() {
    let tasks = [
        task(SQUARE),
        task(r#""type": "choices", "value": {"choices": ["x"]}"#),
        task(
            r#""type": "brushlabels", "value": {"format": "rle", "rle": [1], "brushlabels": ["a"]}"#,
        ),
        task(&SQUARE.replace("rectanglelabels\":", "nothing\":")),
        task(SQUARE).replace("\"image_rotation\": 0", "\"image_rotation\": 90"),
    ];
    let dataset = file(format!("[{}]", tasks.join(","))).unwrap();
    assert_eq!((dataset.images().len(), dataset.annotations().len()), (4, 1));
    let notes = dataset.report().notes.join("\n");
    for note in [
        "images that were turned in Label Studio, left out",
        "shapes without a label, passed over: 1",
        "`choices`, passed over: it has no box: 1",
        "`brushlabels`, passed over: it has no box: 1",
    ] {
        assert!(notes.contains(note), "{notes}");
    }
}

#[test]
fn a_rectangle_or_an_ellipse_without_its_numbers_is_an_error() {
    let cut = |text: &str, key: &str| task(&text.replace(&format!("\"{key}\": "), "\"other\": "));
    let ellipse = r#""type": "ellipselabels", "value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "ellipselabels": ["a"]}"#;
    for (result, key) in [(SQUARE, "width"), (SQUARE, "height"), (ellipse, "radiusX")] {
        let text = file(format!("[{}, {}]", task(SQUARE), cut(result, key)));
        let text = text.map(|set| set.report().to_string()).unwrap_err().to_string();
        let says = format!("[1].annotations[0].result[0].value.{key}: expected a number");
        assert!(text.contains(&says) && text.contains("got nothing"), "{text}");
    }
}

#[test]
fn unknown_sizes_leave_shares_of_the_image() {
    let unknown = |result: &str| {
        let text = task(result).replace("\"original_width\": 200, \"original_height\": 100,", "");
        file(format!("[{text}]"))
    };
    let dataset = unknown(SQUARE).unwrap();
    assert_eq!((dataset.unit(), dataset.images()[0].size), (Unit::Shares, None));
    near(boxes(&dataset)[0], [0.1, 0.2, 0.05, 0.1]);
    let turned = unknown(&SQUARE.replace("\"x\": 10", "\"x\": 10, \"rotation\": 30")).unwrap();
    assert!(turned.annotations().is_empty());
    assert!(turned.report().notes[0].contains("in images of unknown size, left out"));
}

#[test]
fn addresses_of_images() {
    for (address, name) in [
        ("/data/local-files/?d=shots/a%20b.jpg", "shots/a b.jpg"),
        ("s3://bucket/deep/a.jpg", "deep/a.jpg"),
        ("https://host/a.jpg?token=1", "a.jpg"),
        ("data/upload/a.jpg", "a.jpg"),
        ("/image1", "image1"),
    ] {
        let text = task(SQUARE).replace("/data/upload/3/ab-x.jpg", address);
        assert_eq!(file(format!("[{text}]")).unwrap().images()[0].file_name, name);
    }
    let other = task(SQUARE).replace("{\"image\": ", "{\"text\": \"hello\", \"photo\": ");
    assert_eq!(file(format!("[{other}]")).unwrap().images()[0].file_name, "3/ab-x.jpg");
    let two = task(SQUARE).replace("{\"image\": ", "{\"left\": \"b.jpg\", \"right\": ");
    let message = file(format!("[{two}]")).unwrap_err().to_string();
    assert!(
        message.contains("[0].data: expected one image, got the keys left, right"),
        "{message}"
    );
    let outside = task(SQUARE).replace("/data/upload/3/ab-x.jpg", "../a.jpg");
    let message = file(format!("[{outside}]")).unwrap_err().to_string();
    assert!(message.contains("[0].data.image: the path leaves the image root"), "{message}");
}

#[test]
fn what_is_wrong_is_named() {
    let whole = task(SQUARE);
    let cases = [
        (String::new(), "the file is empty"),
        (format!("[{}", &whole[..90]), "[0]: the file ends at byte"),
        (format!("[{whole}"), "after 1 records"),
        ("{\"images\": []}".to_owned(), "its COCO export is read as COCO"),
        ("[]".to_owned(), "none of 0 tasks has an annotation"),
        ("[{\"id\": 1, \"image\": \"a.jpg\", \"label\": []}]".to_owned(), "[0].data: missing"),
        (
            "[{\"data\": {\"image\": \"a.jpg\"}}]".to_owned(),
            "[0].annotations: missing; expected a list of annotations\n  hint: export the project as `JSON`",
        ),
        (
            format!("[{}]", whole.replace("\"x\": 10", "\"x\": \"ten\"")),
            "[0].annotations[0].result[0].value.x: expected a number, in percent of the image, got \"ten\"",
        ),
        (
            format!("[{}]", whole.replace("\"result\": [", "\"result\": 3, \"r\": [")),
            "[0].annotations",
        ),
    ];
    for (text, says) in cases {
        let message = file(&text).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
    let message = file(b"\xff\xfe[\0").unwrap_err().to_string();
    assert!(message.contains("UTF-16"), "{message}");
}

/// Two exports of one project name different classes, so that they number them in different ways.
#[test]
fn classes_get_the_ids_that_another_set_has_for_their_names() {
    let other = |label: &str| task(&SQUARE.replace("\"a\"", &format!("\"{label}\"")));
    let train = file(format!("[{}, {}]", other("b").replace("7", "8"), other("c"))).unwrap();
    let mut val = file(format!("[{}]", other("c"))).unwrap();
    let id = |set: &Dataset| set.vocabulary().category(set.annotations()[0].class).id.0;
    assert_eq!((id(&val), val.is_numbered()), (1, true));
    crate::train::check_vocabularies(train.vocabulary(), &mut val).unwrap();
    assert_eq!(id(&val), 2);
    let mut strange = file(format!("[{}]", other("d"))).unwrap();
    let error = crate::train::check_vocabularies(train.vocabulary(), &mut strange).unwrap_err();
    assert!(
        error.to_string().contains(
            "classes: `d` (1) is not among the training set's classes. Of the training set's, this one does not have `b` \
             (1), `c` (2)"
        ),
        "{error}"
    );
}

#[test]
fn tasks_of_one_id_are_numbered_anew() {
    let dataset = file(format!("[{0}, {0}]", task(SQUARE))).unwrap();
    assert_eq!(dataset.images().iter().map(|image| image.id).collect::<Vec<_>>(), [1, 2]);
    let notes = &dataset.report().notes;
    assert!(notes.iter().any(|note| note.contains("several tasks have one id (7)")), "{notes:?}");
}
