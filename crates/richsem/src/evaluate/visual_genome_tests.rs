//! By hand, and against numbers of `tests/fixtures/evaluation/visual_genome.py`.

use std::{io::Read as _, path::Path};

use serde::Deserialize;

use super::*;

fn truth(image: u32, class: u32, bbox: [f64; 4]) -> TrueBox {
    TrueBox { image, class, bbox, group_of: false }
}

fn found(image: u32, class: u32, score: f64, bbox: [f64; 4]) -> ScoredBox {
    ScoredBox { image, class, score, bbox }
}

fn correct(summary: &VisualGenomeSummary, class: usize) -> Vec<bool> {
    summary.classes[class].ranked.iter().map(|found| found.correct).collect()
}

#[test]
fn half_is_not_enough_and_boxes_include_their_last_pixel() {
    // 10 × 10 pixels, and its upper half; then one row more.
    let boxes = [truth(0, 0, [0.0, 0.0, 9.0, 9.0])];
    let half = evaluate(&boxes, &[found(0, 0, 0.9, [0.0, 0.0, 9.0, 4.0])], 1).unwrap();
    assert_eq!(correct(&half, 0), [false]);
    let more = evaluate(&boxes, &[found(0, 0, 0.9, [0.0, 0.0, 9.0, 5.0])], 1).unwrap();
    assert_eq!(correct(&more, 0), [true]);
    // Without the last pixel, this would be 4 / 9 of the box.
    let small = [truth(0, 0, [0.0, 0.0, 3.0, 3.0])];
    let two = evaluate(&small, &[found(0, 0, 0.9, [0.0, 0.0, 2.0, 2.0])], 1).unwrap();
    assert_eq!(correct(&two, 0), [true]);
}

#[test]
fn there_is_no_second_choice() {
    let boxes = [truth(0, 0, [0.0, 0.0, 9.0, 9.0]), truth(0, 0, [2.0, 0.0, 11.0, 9.0])];
    let detections =
        [found(0, 0, 0.9, [0.0, 0.0, 9.0, 9.0]), found(0, 0, 0.8, [1.0, 0.0, 10.0, 9.0])];
    assert_eq!(correct(&evaluate(&boxes, &detections, 1).unwrap(), 0), [true, false]);
}

#[test]
fn classes_without_a_box_count_as_zero() {
    let boxes = [
        truth(0, 0, [0.0, 0.0, 9.0, 9.0]),
        truth(0, 0, [20.0, 0.0, 29.0, 9.0]),
        truth(0, 0, [40.0, 0.0, 49.0, 9.0]),
        truth(1, 1, [0.0, 0.0, 9.0, 9.0]),
    ];
    let detections = [
        found(0, 0, 0.9, [0.0, 0.0, 9.0, 9.0]),
        found(1, 1, 0.9, [0.0, 0.0, 9.0, 9.0]),
        found(1, 2, 0.9, [0.0, 0.0, 9.0, 9.0]),
        // No box is in image 7: it is not of the set.
        found(7, 0, 0.95, [0.0, 0.0, 9.0, 9.0]),
    ];
    let summary = evaluate(&boxes, &detections, 4).unwrap();
    let aps: Vec<_> = summary.classes.iter().map(|class| class.ap).collect();
    assert_eq!(aps, [Some(1.0 / 3.0), Some(1.0), None, None]);
    assert!((summary.mean - (1.0 / 3.0 + 1.0) / 4.0).abs() < 1e-15);
    assert!((summary.weighted_mean.unwrap() - 0.5).abs() < 1e-15);
    assert_eq!(summary.unjudged, 1);
    let nothing = evaluate(&[], &detections, 4).unwrap();
    assert_eq!((nothing.mean, nothing.weighted_mean, nothing.unjudged), (0.0, None, 4));
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let (box_, found) = (truth(0, 0, [0.0; 4]), found(0, 0, 0.5, [0.0; 4]));
    let text = |boxes: &[TrueBox], detections: &[ScoredBox], classes| {
        evaluate(boxes, detections, classes).unwrap_err().to_string()
    };
    assert_eq!(text(&[], &[], 0), "there are no classes");
    let group = TrueBox { group_of: true, ..box_ };
    assert_eq!(text(&[group], &[], 1), "box 0 is a group, which Visual Genome does not have");
    let strange = TrueBox { class: 1, ..box_ };
    assert_eq!(text(&[box_, strange], &[], 1), "box 1 has class 1, and there are 1 classes");
    let nan = ScoredBox { score: f64::NAN, ..found };
    assert_eq!(text(&[box_], &[nan], 1), "detection 0 has a number that is not finite");
}

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    kept: Vec<Kept>,
}

#[derive(Deserialize)]
struct Case {
    truth: Vec<(u32, u32, [f64; 4])>,
    found: Vec<(u32, u32, f64, [f64; 4])>,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    ap: Vec<f64>,
    num_gt: Vec<usize>,
    mean: f64,
    weighted_mean: Option<f64>,
}

#[derive(Deserialize)]
struct Kept {
    xywh: [f64; 4],
    size: [u32; 2],
    #[serde(rename = "box")]
    bbox: [f64; 4],
    corners: [f64; 4],
    score: f64,
    written: [f64; 4],
    written_score: f64,
}

fn fixture() -> Fixture {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = here.join("tests/fixtures/evaluation/visual_genome.json.gz");
    let mut text = String::new();
    let packed = fs_err::read(file).unwrap();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn random_cases_come_out_in_any_order_on_any_number_of_threads() {
    let fixture = fixture();
    assert_eq!(fixture.cases.len(), 60);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for (i, case) in fixture.cases.iter().enumerate() {
        let boxes: Vec<_> = case.truth.iter().map(|&(image, c, b)| truth(image, c, b)).collect();
        let mut detections: Vec<_> =
            case.found.iter().map(|&(image, c, score, b)| found(image, c, score, b)).collect();
        let classes = case.expected.ap.len();
        let summary = evaluate(&boxes, &detections, classes).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        for (class, (ap, num_gt)) in
            std::iter::zip(&summary.classes, case.expected.ap.iter().zip(&case.expected.num_gt))
        {
            assert!(close(class.ap.unwrap_or(0.0), *ap), "case {i}: {:?}, not {ap}", class.ap);
            assert_eq!(class.num_gt, *num_gt, "case {i}");
        }
        assert!(close(summary.mean, case.expected.mean), "case {i}");
        match (summary.weighted_mean, case.expected.weighted_mean) {
            (Some(a), Some(b)) => assert!(close(a, b), "case {i}"),
            (a, b) => assert_eq!(a, b, "case {i}"),
        }
        detections.reverse();
        let again = pool.install(|| evaluate(&boxes, &detections, classes)).unwrap();
        assert_eq!(again, summary, "case {i}");
    }
}

#[test]
fn boxes_and_scores_are_kept_as_the_original_does() {
    let fixture = fixture();
    let mut without_inside = 0;
    for kept in &fixture.kept {
        let [width, height] = kept.size;
        assert_eq!(true_box(kept.xywh, width, height), kept.bbox);
        without_inside += usize::from(kept.bbox == true_box([-5.0, 0.0, 1.0, 1.0], width, height));
        let detection = written(found(3, 2, kept.score, kept.corners));
        assert_eq!(detection, found(3, 2, kept.written_score, kept.written));
    }
    assert!(without_inside > 3, "{without_inside}");
}
