//! The curves against the summary's numbers, and the matrix against sums of its rows and columns, on the random
//! cases; the rules on a file that can be worked out by hand.

use std::collections::HashMap;

use super::*;
use crate::{
    boxes::Xywh,
    data::dataset::Dataset,
    detections::Verdict,
    evaluate::{Protocol, Summary},
    vocabulary::{CategoryId, Frequency},
};

fn of_texts(truth: &str, found: &[Detection]) -> (Evaluator, Summary, Details) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.json");
    fs_err::write(&path, truth).unwrap();
    let evaluator = Evaluator::of(&Dataset::open(&path).unwrap());
    let (summary, matches) = evaluator.evaluate_and_match(found).unwrap();
    let details = evaluator.details(found, &matches).unwrap();
    (evaluator, summary, details)
}

fn read(found: &str) -> Vec<Detection> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("found.json");
    fs_err::write(&path, found).unwrap();
    crate::detections::read(&path).unwrap()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The oracle is the summary, whose numbers are the official evaluators'.
#[test]
fn the_means_of_the_curves_are_the_average_precisions() {
    let mut compared = 0;
    for (i, (truth, found)) in super::super::tests_random::texts().enumerate() {
        let (_, summary, details) = of_texts(&truth, &read(&found));
        for curve in &details.precision_recall {
            let official = match (curve.group, curve.overlap) {
                (None, 0.5) => summary.get("AP50"),
                (None, _) => summary.get("AP75"),
                (Some(group), _) => summary.ap50_of(group),
            };
            assert_eq!(curve.precision.len(), 101);
            assert!(curve.precision.is_sorted_by(|a, b| a >= b), "case {i}");
            let area = mean(&curve.precision);
            assert!((area - official.unwrap()).abs() < 1e-9, "case {i}: {area}, {official:?}");
            compared += 1;
        }
    }
    assert!(compared > 600, "{compared}");
}

/// Each box is in one cell of its row, each detection in one of its column; the diagonal is what F1 counts.
#[test]
fn every_box_and_every_detection_is_in_one_cell() {
    let mut confused = 0;
    for (i, (truth, found)) in super::super::tests_random::texts().enumerate() {
        let found = read(&found);
        let (evaluator, _, details) = of_texts(&truth, &found);
        let cells = &details.confusion.cells;
        assert_eq!(details.confusion.left_out, 0);
        let sum = |keep: &dyn Fn(&ConfusionCell) -> bool| -> u64 {
            cells.iter().filter(|cell| keep(cell)).map(|cell| cell.count).sum()
        };
        let matches = evaluator.matches(&found).unwrap();
        for class in &matches.classes {
            let boxes = class.boxes(0) as u64;
            assert_eq!(sum(&|cell| cell.truth == Some(class.id)), boxes, "case {i}");
        }
        let Some(all) = details.over_scores.first() else { continue };
        let Some(best) = all.best else { continue };
        let hits = (best.recall * all.boxes as f64).round() as u64;
        assert_eq!(sum(&|c| c.truth == c.found), hits, "case {i}");
        let taken = (hits as f64 / best.precision).round() as u64;
        assert_eq!(sum(&|c| c.found.is_some()), taken, "case {i}");
        confused += sum(&|c| c.truth != c.found && c.truth.is_some() && c.found.is_some());
        let judged = |kind: Verdict| {
            sum(&|c| match kind {
                Verdict::FalseNegative => c.truth.is_some() && c.truth != c.found,
                _ => c.found.is_some() && c.truth != c.found,
            })
        };
        assert_eq!(details.misses.is_empty(), judged(Verdict::FalseNegative) == 0);
        assert_eq!(details.false_alarms.is_empty(), judged(Verdict::FalsePositive) == 0);
        for example in details.misses.iter().chain(&details.false_alarms) {
            assert!(example.boxes[example.worst].verdict != Verdict::TruePositive);
            let scores = example.boxes.iter().filter_map(|judged| judged.score);
            assert!(scores.into_iter().all(|score| score >= details.score));
        }
    }
    assert!(confused > 50, "{confused}");
}

const HERE: [f64; 4] = [10.0, 10.0, 50.0, 50.0];
const FAR: [f64; 4] = [200.0, 200.0, 60.0, 60.0];
const CAT: CategoryId = CategoryId(3);
const DOG: CategoryId = CategoryId(90);

fn found(image_id: i64, category_id: CategoryId, bbox: [f64; 4], score: f64) -> Detection {
    Detection { image_id, category_id, bbox: Xywh(bbox), score }
}

fn file(images: &str, annotations: &[(i64, CategoryId, [f64; 4])]) -> String {
    let annotations: Vec<serde_json::Value> = (1..)
        .zip(annotations)
        .map(|(id, (image_id, category_id, bbox))| {
            serde_json::json!({"id": id, "image_id": image_id, "category_id": category_id, "bbox": bbox})
        })
        .collect();
    let annotations = serde_json::to_string(&annotations).unwrap();
    format!(
        r#"{{"images": {images}, "annotations": {annotations}, "categories":
        [{{"id": 3, "name": "cat"}}, {{"id": 90, "name": "dog"}}]}}"#
    )
}

fn cells(details: &Details) -> HashMap<[Option<CategoryId>; 2], u64> {
    details.confusion.cells.iter().map(|c| ([c.truth, c.found], c.count)).collect()
}

/// Image 7 has a cat that is found, and a dog that is called a cat; image 8 has a cat that is not found.
#[test]
fn a_box_is_found_confused_or_missed_and_a_detection_may_be_of_nothing() {
    let images = r#"[{"id": 7, "file_name": "7.jpg"}, {"id": 8, "file_name": "8.jpg"}]"#;
    let truth = file(images, &[(7, CAT, HERE), (7, DOG, FAR), (8, CAT, HERE)]);
    let detections = [
        found(7, CAT, HERE, 0.9),
        // The cat is found already; a better score of another class does not take its box away.
        found(7, DOG, HERE, 0.95),
        found(7, CAT, FAR, 0.8),
        found(8, DOG, FAR, 0.7),
        found(8, CAT, HERE, 0.1),
    ];
    let (evaluator, _, mut details) = of_texts(&truth, &detections);
    // F1 is 2 · 2 / (5 + 3) with all detections, 2 · 1 / (2 + 3) with two.
    let best = details.over_scores[0].best.unwrap();
    assert!((best.f1 - 0.5).abs() < 1e-12 && best.score == 0.1 && details.score == 0.1, "{best:?}");
    assert_eq!((best.precision, best.recall), (0.4, 2.0 / 3.0));
    let at = |score: f64| {
        let points = &details.over_scores[0].points;
        points.iter().find(|point| (point.score - score).abs() < 1e-9).copied()
    };
    assert_eq!(at(0.9).unwrap().precision, 0.5);
    assert!(at(0.96).is_none(), "no detection has that score");

    let mistakes = evaluator.mistakes(&detections, 0.3).unwrap();
    details = Details { confusion: mistakes.confusion, ..details };
    let expected = HashMap::from([
        ([Some(CAT), Some(CAT)], 1),
        ([Some(DOG), Some(CAT)], 1),
        ([Some(CAT), None], 1),
        ([None, Some(DOG)], 2),
    ]);
    assert_eq!(cells(&details), expected);
    // The worst miss is the larger box.
    let [dog, cat] = &mistakes.misses[..] else { panic!("{:?}", mistakes.misses) };
    assert_eq!((dog.image_id, cat.image_id), (7, 8));
    let worst = &dog.boxes[dog.worst];
    assert_eq!((worst.category_id, worst.bbox, worst.score), (DOG, Xywh(FAR), None));
    assert_eq!(dog.boxes.len(), 4, "a hit, two false alarms, a miss");
    let scores = mistakes.false_alarms.iter().map(|image| image.boxes[image.worst].score.unwrap());
    assert_eq!(scores.collect::<Vec<_>>(), [0.95, 0.7], "one of an image");
}

/// Under LVIS's rules an image says nothing of most classes, and not all of some are annotated.
#[test]
fn what_is_not_judged_is_no_mistake() {
    let image = |absent: &str, not_exhaustive: &str| {
        format!(
            r#"[{{"id": 7, "file_name": "7.jpg", "neg_category_ids": [{absent}],
            "not_exhaustive_category_ids": [{not_exhaustive}]}}]"#
        )
    };
    let detections = [found(7, CAT, HERE, 0.9), found(7, DOG, FAR, 0.8), found(7, CAT, FAR, 0.7)];
    let of = |absent: &str, not_exhaustive: &str| {
        let truth = file(&image(absent, not_exhaustive), &[(7, CAT, HERE)]);
        let (evaluator, summary, _) = of_texts(&truth, &detections);
        assert_eq!(summary.protocol, Protocol::Lvis);
        let mistakes = evaluator.mistakes(&detections, 0.3).unwrap();
        let mut cells: Vec<_> = mistakes.confusion.cells;
        cells.retain(|cell| cell.truth != cell.found);
        cells.into_iter().map(|cell| cell.found).collect::<Vec<_>>()
    };
    assert_eq!(of("12345", ""), [Some(CAT)], "nothing is known of dogs");
    assert_eq!(of("90", ""), [Some(CAT), Some(DOG)]);
    assert_eq!(of("90", "3"), [Some(DOG)], "there may be more cats");
}

#[test]
fn without_boxes_or_detections_there_are_no_curves_to_choose_from() {
    let images = r#"[{"id": 7, "file_name": "7.jpg"}]"#;
    let (_, _, details) = of_texts(&file(images, &[]), &[found(7, CAT, HERE, 0.9)]);
    assert!(details.precision_recall.is_empty() && details.score == USUAL_SCORE);
    assert_eq!(cells(&details), HashMap::from([([None, Some(CAT)], 1)]));
    let (_, _, details) = of_texts(&file(images, &[(7, CAT, HERE)]), &[]);
    assert_eq!(details.precision_recall[0].precision, [0.0; 101]);
    assert!(details.over_scores[0].points.is_empty() && details.over_scores[0].best.is_none());
    // Logits: there is no grid of scores.
    let (_, _, details) = of_texts(&file(images, &[(7, CAT, HERE)]), &[found(7, CAT, HERE, 4.5)]);
    assert!(details.over_scores.is_empty());
    assert_eq!(cells(&details), HashMap::from([([Some(CAT), Some(CAT)], 1)]));
}

#[test]
fn groups_have_curves_of_their_own() {
    let truth = r#"{"images": [{"id": 7, "file_name": "7.jpg"}], "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 50, 50]},
        {"id": 2, "image_id": 7, "category_id": 90, "bbox": [200, 200, 60, 60]}],
        "categories": [{"id": 3, "name": "cat", "frequency": "r"}, {"id": 90, "name": "dog", "frequency": "f"}]}"#;
    let (_, _, details) = of_texts(truth, &[found(7, CAT, HERE, 0.4)]);
    let groups: Vec<_> = details.precision_recall.iter().map(|c| (c.group, c.overlap)).collect();
    let (rare, frequent) = (Some(Frequency::Rare), Some(Frequency::Frequent));
    assert_eq!(groups, [(None, 0.5), (None, 0.75), (rare, 0.5), (frequent, 0.5)]);
    let recalls: Vec<_> =
        details.over_scores.iter().map(|c| (c.group, c.best.map(|b| b.recall))).collect();
    assert_eq!(recalls, [(None, Some(0.5)), (rare, Some(1.0)), (frequent, None)]);
}
