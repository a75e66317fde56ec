//! Against cleanlab's own numbers (tests/fixtures/labels/objectlab.py), and what is not in ObjectLab.
#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};

use serde::Deserialize;

use super::*;
use crate::vocabulary::CategoryId;

#[derive(Deserialize)]
struct Fixture {
    classes: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    images: Vec<Image>,
    wanted: Wanted,
}

#[derive(Deserialize)]
struct Image {
    boxes: Vec<[f64; 4]>,
    classes: Vec<u32>,
    found: Vec<(f64, f64, f64, f64, u32, f64)>,
}

#[derive(Deserialize)]
struct Wanted {
    overlooked: Vec<Vec<Option<f64>>>,
    badly_placed: Vec<Vec<f64>>,
    swapped: Vec<Vec<f64>>,
    pooled: [Vec<f64>; 3],
    quality: Vec<f64>,
    scaled_ap: Vec<f64>,
    issues: Vec<bool>,
}

fn fixture() -> Fixture {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/labels/objectlab.json.gz");
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn images(case: &Case) -> Vec<(Labels, Found)> {
    let of_image = |image: &Image| {
        let labels = Labels {
            boxes: image.boxes.clone(),
            classes: image.classes.clone(),
            shields: Vec::new(),
        };
        let found = Found {
            boxes: image.found.iter().map(|f| [f.0, f.1, f.2, f.3]).collect(),
            classes: image.found.iter().map(|f| f.4).collect(),
            scores: image.found.iter().map(|f| f.5).collect(),
            complete: vec![true; image.found.len()],
        };
        (labels, found)
    };
    case.images.iter().map(of_image).collect()
}

/// Relative to the larger of the two: scores of overlooked boxes are as small as 1e-15.
#[track_caller]
fn near(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * a.abs().max(b.abs()), "{a:e} {b:e}");
}

#[test]
fn the_numbers_are_cleanlabs() {
    let fixture = fixture();
    let mut told = [0; 3];
    for case in &fixture.cases {
        let (images, wanted) = (images(case), &case.wanted);
        let scores = scores::score(&images, Limits { touch: 0.0, ..Limits::default() });
        for (i, scores) in scores.iter().enumerate() {
            assert_eq!(scores.overlooked.len(), wanted.overlooked[i].len());
            for (got, wanted) in scores.overlooked.iter().zip(&wanted.overlooked[i]) {
                assert_eq!(got.is_some(), wanted.is_some());
                near(got.unwrap_or(1.0), wanted.unwrap_or(1.0), 1e-9);
            }
            for (got, wanted) in
                [(&scores.badly_placed, &wanted.badly_placed), (&scores.swapped, &wanted.swapped)]
            {
                assert_eq!(got.len(), wanted[i].len());
                got.iter().zip(&wanted[i]).for_each(|(got, wanted)| near(got.0, *wanted, 1e-9));
            }
            for (kind, got) in scores.pooled().into_iter().enumerate() {
                near(got, wanted.pooled[kind][i], 1e-9);
            }
            near(scores.quality(), wanted.quality[i], 1e-9);
        }
        // cleanlab's precisions are of 32 bits.
        let precisions = average_precisions(&images, fixture.classes);
        for (got, wanted) in precisions.iter().zip(&wanted.scaled_ap) {
            near(got * 0.25, *wanted, 1e-5);
        }
        for (i, scores) in scores.iter().enumerate() {
            let limit = |class: u32| precisions[class as usize] * LIMIT_OF_AP;
            let (labels, found) = &images[i];
            let over = scores.overlooked.iter().zip(&found.classes);
            let counts = [
                over.filter(|(s, class)| s.unwrap_or(1.0) <= limit(**class)).count(),
                told_of(&scores.swapped, labels, limit),
                told_of(&scores.badly_placed, labels, limit),
            ];
            assert_eq!(counts.iter().sum::<usize>() > 0, wanted.issues[i], "image {i}");
            told.iter_mut().zip(counts).for_each(|(told, count)| *told += count);
        }
    }
    assert!(told[0] > 0 && told[1] > 0, "the fixture has errors of each sure kind: {told:?}");
}

fn told_of(scores: &[(f64, Option<usize>)], labels: &Labels, limit: impl Fn(u32) -> f64) -> usize {
    scores.iter().zip(&labels.classes).filter(|((s, _), class)| *s <= limit(**class)).count()
}

#[test]
fn precision_says_from_which_score_on_detections_are_right() {
    let at = |x: f64| [x, 0.0, x + 10.0, 10.0];
    let labels = Labels {
        boxes: (0..4).map(|i| at(100.0 * f64::from(i))).collect(),
        classes: vec![0; 4],
        shields: Vec::new(),
    };
    // Right, right, wrong (nothing there), right, wrong class.
    let found = Found {
        boxes: [0.0, 100.0, 550.0, 200.0, 300.0].map(at).into(),
        classes: vec![0, 0, 0, 0, 1],
        scores: vec![0.9, 0.8, 0.7, 0.6, 0.5],
        complete: vec![true; 5],
    };
    let images = [(labels, found)];
    // Of the third and the fourth one half are right.
    assert_eq!(precision::limits(&images, 2), [Some(0.8), Some(0.6)]);
    // Class 0: recalls 1/4, 2/4, 2/4, 3/4; precisions 1, 1, 3/4, 3/4.
    let precisions = average_precisions(&images, 2);
    assert!((precisions[0] - (0.5 + 0.25 * 0.75)).abs() < 1e-12 && precisions[1] == 0.0);
}

/// Two images of three classes. `lists` stands in the first image.
fn dataset(lists: &str, crowd: u8) -> Dataset {
    let text = format!(
        r#"{{"images": [
            {{"id": 7, "file_name": "a.jpg", "width": 300, "height": 300, {lists} "x": 0}},
            {{"id": 8, "file_name": "b.jpg", "width": 300, "height": 300, "neg_category_ids": [9]}}],
          "annotations": [
            {{"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 50, 50], "iscrowd": 0}},
            {{"id": 2, "image_id": 7, "category_id": 5, "bbox": [200, 10, 50, 50], "iscrowd": {crowd}}},
            {{"id": 3, "image_id": 8, "category_id": 5, "bbox": [100, 100, 50, 50]}}],
          "categories": [{{"id": 3, "name": "a"}}, {{"id": 5, "name": "b"}}, {{"id": 9, "name": "c"}}]}}"#
    );
    let mut file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    Dataset::open(file.path()).unwrap()
}

fn detection(image_id: i64, class: i64, x: f64, y: f64, score: f64) -> Detection {
    let bbox = Xywh([x, y, 50.0, 50.0]);
    Detection { image_id, category_id: CategoryId(class), bbox, score }
}

/// A good detector of `a` and `b`, and other detections.
fn examined(dataset: &Dataset, more: &[Detection]) -> LabelReport {
    let mut all = vec![detection(7, 3, 10.0, 10.0, 0.99), detection(8, 5, 100.0, 100.0, 0.98)];
    all.extend_from_slice(more);
    let limits = LimitChoice::default();
    examine(dataset, &Detected { detections: &all, origin: Origin::OutOfFold, limits })
}

#[test]
fn only_verified_classes_are_judged() {
    let there = detection(7, 9, 100.0, 200.0, 0.97);
    let overlooked = |lists: &str, d: Detection| {
        let report = examined(&dataset(lists, 0), &[d]);
        (report.suspects.len(), report.unverified)
    };
    // Of class 9 no box is anywhere: its precision is 0, so that nothing is told of it.
    assert_eq!(overlooked("\"neg_category_ids\": [9],", there), (0, 0));
    assert_eq!(overlooked("\"neg_category_ids\": [],", there), (0, 1), "unknown there");
    // Class 3 is in the image.
    let another = detection(7, 3, 100.0, 200.0, 0.97);
    assert_eq!(overlooked("", another), (1, 0));
    assert_eq!(overlooked("\"not_exhaustive_category_ids\": [3],", another), (0, 0));
    let report = examined(&dataset("", 0), &[another]);
    let suspect = &report.suspects[0];
    assert_eq!((suspect.error, suspect.image_id), (Mistake::Overlooked, 7));
    assert_eq!(suspect.detection.unwrap(), another);
}

/// Deviation from ObjectLab, for which a touch is enough to hide an object.
#[test]
fn an_object_that_only_touches_a_box_is_overlooked() {
    // Annotation 1 is [10, 10, 60, 60]: 5 of 50 columns are shared, then 20.
    for (x, told) in [(55.0, 1), (40.0, 0)] {
        let report = examined(&dataset("", 0), &[detection(7, 3, x, 10.0, 0.97)]);
        let overlooked = report.suspects.iter().filter(|s| s.error == Mistake::Overlooked);
        assert_eq!(overlooked.count(), told, "{x}");
    }
}

#[test]
fn a_crowd_hides_what_is_in_it() {
    let within = detection(7, 3, 210.0, 20.0, 0.97);
    assert_eq!(examined(&dataset("", 1), &[within]).suspects.len(), 0);
    let outside = detection(7, 3, 210.0, 120.0, 0.97);
    assert_eq!(examined(&dataset("", 1), &[outside]).suspects.len(), 1);
}

#[test]
fn swapped_boxes_are_told_with_both_names() {
    // Annotation 2 says `b`, the detector says `a`.
    let dataset = dataset("", 0);
    let report =
        examined(&dataset, &[detection(7, 3, 200.0, 10.0, 0.97), detection(1, 3, 0.0, 0.0, 0.5)]);
    assert_eq!((report.suspects.len(), report.foreign), (1, 1));
    let suspect = &report.suspects[0];
    assert_eq!((suspect.error, suspect.annotation_id), (Mistake::Swapped, Some(2)));
    assert!(suspect.score < 0.11 && suspect.score > 0.0);
    let findings = findings(&dataset, (0, "train"), &report, 5);
    let said = &findings[0].examples[0];
    assert!(said.text.contains("labelled b, detected a"), "{}", said.text);
    assert_eq!(said.shown[0].boxes.len(), 2);
    assert!(findings[0].text.contains("not trained on these images"));
    let unknown =
        Detected { detections: &[], origin: Origin::Unknown, limits: LimitChoice::ByPrecision };
    let nothing = examine(&dataset, &unknown);
    assert_eq!((nothing.suspects.len(), nothing.by_precision), (0, [None; 2]));
    assert_eq!(nothing.quality, [1.0; 2]);
}
