//! Every trap of the protocol by itself. Boxes are on a grid of eighths, where sums are exact.

use super::*;

/// Animal, above Dog and Bear; Toy; Teddy, below Bear and Toy.
const ANIMAL: u32 = 0;
const DOG: u32 = 1;
const BEAR: u32 = 2;
const TOY: u32 = 3;
const TEDDY: u32 = 4;

fn relations() -> Relations {
    let text = r#"{"LabelName": "/m/0", "Subcategory": [
        {"LabelName": "/m/animal", "Part": [{"LabelName": "/m/toy"}], "Subcategory": [
            {"LabelName": "/m/dog"},
            {"LabelName": "/m/bear", "Subcategory": [{"LabelName": "/m/teddy"}]}]},
        {"LabelName": "/m/toy", "Subcategory": [{"LabelName": "/m/teddy"}]}]}"#;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), text).unwrap();
    let mids = ["/m/animal", "/m/dog", "/m/bear", "/m/toy", "/m/teddy"].into_iter().collect();
    crate::data::openimages::Hierarchy::open(file.path()).unwrap().over(&mids)
}

fn single(image: u32, class: u32, bbox: [f64; 4]) -> TrueBox {
    TrueBox { image, class, bbox: bbox.map(|eighths| eighths / 8.0), group_of: false }
}

fn group(image: u32, class: u32, bbox: [f64; 4]) -> TrueBox {
    TrueBox { group_of: true, ..single(image, class, bbox) }
}

fn found(image: u32, class: u32, score: f64, bbox: [f64; 4]) -> ScoredBox {
    ScoredBox { image, class, score, bbox: bbox.map(|eighths| eighths / 8.0) }
}

fn label(image: u32, class: u32, present: bool) -> VerifiedLabel {
    VerifiedLabel { image, class, present }
}

fn measure(boxes: &[TrueBox], labels: &[VerifiedLabel], found: &[ScoredBox]) -> OpenImagesSummary {
    evaluate(Truth { boxes, labels }, found, &relations(), Rules::CHALLENGE).unwrap()
}

/// Score and correctness of what counts.
fn ranked(summary: &OpenImagesSummary, class: u32) -> Vec<(f64, bool)> {
    let class = &summary.classes[class as usize];
    class.ranked.iter().map(|found| (found.score, found.correct)).collect()
}

const WHOLE: [f64; 4] = [0.0, 0.0, 8.0, 8.0];

#[test]
fn a_taken_box_leaves_no_second_choice() {
    // The second detection overlaps both boxes enough, and the taken one more.
    let boxes = [single(0, DOG, [0.0, 0.0, 4.0, 4.0]), single(0, DOG, [1.0, 0.0, 5.0, 4.0])];
    let found =
        [found(0, DOG, 0.9, [0.0, 0.0, 4.0, 4.0]), found(0, DOG, 0.8, [0.0, 0.0, 4.5, 4.0])];
    let summary = measure(&boxes, &[], &found);
    assert_eq!(ranked(&summary, DOG), [(0.9, true), (0.8, false)]);
    assert_eq!(summary.classes[DOG as usize].ap, Some(0.5));
}

#[test]
fn of_equal_overlaps_the_first_box_counts() {
    let twin = single(0, DOG, [0.0, 0.0, 4.0, 4.0]);
    let other = single(0, DOG, [2.0, 0.0, 6.0, 4.0]);
    let middle = found(0, DOG, 0.9, [1.0, 0.0, 5.0, 4.0]);
    let exact = found(0, DOG, 0.8, [0.0, 0.0, 4.0, 4.0]);
    // IoU 0.6 with both: it takes the first, and what fits the first exactly comes too late.
    let summary = measure(&[twin, other], &[], &[middle, exact]);
    assert_eq!(ranked(&summary, DOG), [(0.9, true), (0.8, false)]);
    let summary = measure(&[other, twin], &[], &[middle, exact]);
    assert_eq!(ranked(&summary, DOG), [(0.9, true), (0.8, true)]);
    // Two equal boxes are found once: the second detection's best box is the first, too.
    let summary = measure(&[twin, twin], &[], &[exact, exact]);
    assert_eq!(ranked(&summary, DOG), [(0.8, true), (0.8, false)]);
}

#[test]
fn both_thresholds_are_inclusive() {
    let dog = single(0, DOG, [0.0, 0.0, 4.0, 4.0]);
    let half = found(0, DOG, 0.9, [0.0, 0.0, 4.0, 2.0]);
    let less = found(0, DOG, 0.9, [0.0, 0.0, 4.0, 1.999]);
    assert_eq!(ranked(&measure(&[dog], &[], &[half]), DOG), [(0.9, true)]);
    assert_eq!(ranked(&measure(&[dog], &[], &[less]), DOG), [(0.9, false)]);
    let pack = group(0, DOG, [0.0, 0.0, 4.0, 4.0]);
    let half = found(0, DOG, 0.9, [3.0, 0.0, 5.0, 1.0]);
    let less = found(0, DOG, 0.9, [3.0, 0.0, 5.001, 1.0]);
    assert_eq!(ranked(&measure(&[pack], &[], &[half]), DOG), [(0.9, true)]);
    assert_eq!(ranked(&measure(&[pack], &[], &[less]), DOG), [(0.9, false)]);
}

#[test]
fn a_group_counts_once_with_its_best_score() {
    let pack = group(0, DOG, WHOLE);
    let small = |score| found(0, DOG, score, [1.0, 1.0, 2.0, 2.0]);
    let summary = measure(&[pack], &[], &[small(0.3), small(0.7), small(0.5)]);
    assert_eq!(ranked(&summary, DOG), [(0.7, true)]);
    assert_eq!(summary.not_counted.in_groups, 3);
    assert_eq!(summary.classes[DOG as usize].num_gt, 1);
    assert_eq!(summary.classes[DOG as usize].ap, Some(1.0));
}

#[test]
fn a_group_that_is_missed_is_a_miss() {
    let boxes = [group(0, DOG, [0.0, 0.0, 2.0, 2.0]), single(0, DOG, [4.0, 4.0, 8.0, 8.0])];
    let one = [found(0, DOG, 0.9, [4.0, 4.0, 8.0, 8.0])];
    let summary = measure(&boxes, &[], &one);
    assert_eq!(summary.classes[DOG as usize].num_gt, 2);
    assert_eq!(summary.classes[DOG as usize].ap, Some(0.5));
    // Also one that is found with a score of 0, as in the original; the detection is gone all the same.
    let nothing = [found(0, DOG, 0.0, [0.0, 0.0, 1.0, 1.0])];
    let summary = measure(&boxes[..1], &[], &nothing);
    assert_eq!((ranked(&summary, DOG), summary.not_counted.in_groups), (vec![], 1));
    assert_eq!(summary.classes[DOG as usize].ap, Some(0.0));
}

#[test]
fn the_share_in_a_group_is_of_the_detections_area() {
    // It holds the whole group, and a quarter of it is in the group.
    let pack = group(0, DOG, [0.0, 0.0, 4.0, 4.0]);
    let summary = measure(&[pack], &[], &[found(0, DOG, 0.9, WHOLE)]);
    assert_eq!(ranked(&summary, DOG), [(0.9, false)]);
}

#[test]
fn a_taken_single_box_sends_a_detection_to_the_group() {
    let boxes = [single(0, DOG, [0.0, 0.0, 4.0, 4.0]), group(0, DOG, WHOLE)];
    let twice = [0.9, 0.8].map(|score| found(0, DOG, score, [0.0, 0.0, 4.0, 4.0]));
    assert_eq!(ranked(&measure(&boxes, &[], &twice), DOG), [(0.9, true), (0.8, true)]);
    // Without weight, groups are no boxes to be found, and what is in them does not count.
    let rules = Rules { groups: Groups::Ignored, ..Rules::CHALLENGE };
    let truth = Truth { boxes: &boxes, labels: &[] };
    let summary = evaluate(truth, &twice, &relations(), rules).unwrap();
    assert_eq!(ranked(&summary, DOG), [(0.9, true)]);
    assert_eq!(summary.classes[DOG as usize].num_gt, 1);
}

#[test]
fn the_mean_is_of_classes_with_a_box() {
    let boxes = [single(0, DOG, WHOLE), single(1, TOY, WHOLE)];
    let labels = [label(0, TEDDY, true), label(0, BEAR, false)];
    let found =
        [found(0, DOG, 0.9, WHOLE), found(0, TEDDY, 0.9, WHOLE), found(0, BEAR, 0.8, WHOLE)];
    let rules = Rules::FLAT;
    let summary =
        evaluate(Truth { boxes: &boxes, labels: &labels }, &found, &relations(), rules).unwrap();
    let aps: Vec<_> = summary.classes.iter().map(|class| class.ap).collect();
    // Toy was never predicted. Teddy and Bear were, wrongly, and have no box.
    assert_eq!(aps, [None, Some(1.0), None, Some(0.0), None]);
    assert_eq!(summary.map, Some(0.5));
    assert_eq!(ranked(&summary, TEDDY), [(0.9, false)]);
    assert_eq!(measure(&[], &labels, &found).map, None);
}

#[test]
fn an_image_judges_what_it_has_a_label_or_a_box_of() {
    let boxes = [single(0, DOG, WHOLE), single(1, TOY, WHOLE)];
    let all = |image, class| found(image, class, 0.5 + f64::from(image) / 10.0, WHOLE);
    let detections = [all(1, DOG), all(2, DOG), all(3, DOG), all(4, DOG), all(0, DOG)];
    // Image 2 says there is none, image 3 that there is one without a box; 1 says nothing of dogs, 4 nothing.
    let labels = [label(2, DOG, false), label(3, DOG, true)];
    let summary = measure(&boxes, &labels, &detections);
    assert_eq!(ranked(&summary, DOG), [(0.8, false), (0.7, false), (0.5, true)]);
    assert_eq!(summary.not_counted.unjudged, 2);
    let rules = Rules { judged: Judged::Everything, ..Rules::CHALLENGE };
    let truth = Truth { boxes: &boxes, labels: &labels };
    assert_eq!(ranked(&evaluate(truth, &detections, &relations(), rules).unwrap(), DOG).len(), 5);
}

#[test]
fn boxes_go_up_to_all_parents_and_no_further() {
    let summary = measure(&[group(0, TEDDY, WHOLE), single(0, TEDDY, WHOLE)], &[], &[]);
    let num_gt: Vec<usize> = summary.classes.iter().map(|class| class.num_gt).collect();
    // Each of Bear, Toy and Animal once per box, although Teddy has two parents.
    assert_eq!(num_gt, [2, 0, 2, 2, 2]);
}

#[test]
fn labels_go_up_if_present_and_down_if_absent() {
    let detections: Vec<_> = (0..5).map(|class| found(0, class, 0.9, WHOLE)).collect();
    let judged = |labels: &[VerifiedLabel]| -> Vec<bool> {
        let summary = measure(&[], labels, &detections);
        (0..5).map(|class| !ranked(&summary, class).is_empty()).collect()
    };
    assert_eq!(judged(&[label(0, BEAR, true)]), [true, false, true, false, false]);
    // No animal: no dog, bear, or teddy. Toys are no part of it.
    assert_eq!(judged(&[label(0, ANIMAL, false)]), [true, true, true, false, true]);
}

#[test]
fn detections_go_up_only_if_asked() {
    let boxes = [single(0, TEDDY, WHOLE)];
    let teddy = [found(0, TEDDY, 0.9, WHOLE)];
    let aps = |rules| -> Vec<Option<f64>> {
        let truth = Truth { boxes: &boxes, labels: &[] };
        let summary = evaluate(truth, &teddy, &relations(), rules).unwrap();
        summary.classes.iter().map(|class| class.ap).collect()
    };
    assert_eq!(aps(Rules::CHALLENGE), [Some(0.0), None, Some(0.0), Some(0.0), Some(1.0)]);
    assert_eq!(aps(Rules::EXPANDED), [Some(1.0), None, Some(1.0), Some(1.0), Some(1.0)]);
    assert_eq!(aps(Rules::FLAT), [None, None, None, None, Some(1.0)]);
}

#[test]
fn detections_without_area_or_with_low_scores_are_dropped() {
    let detections = [
        found(0, DOG, 0.9, [1.0, 0.0, 1.0, 8.0]),
        found(0, DOG, 0.8, [2.0, 0.0, 1.0, 8.0]),
        found(0, DOG, -10.0, WHOLE),
        found(0, DOG, -9.9, WHOLE),
    ];
    let summary = measure(&[single(0, DOG, WHOLE)], &[], &detections);
    assert_eq!(ranked(&summary, DOG), [(-9.9, true)]);
    assert_eq!((summary.not_counted.without_area, summary.not_counted.low_score), (2, 1));
    // A true box without an area stays to be found.
    let flat = single(1, DOG, [1.0, 0.0, 1.0, 8.0]);
    let summary = measure(&[single(0, DOG, WHOLE), flat], &[], &detections);
    assert_eq!(summary.classes[DOG as usize].ap, Some(0.5));
}

#[test]
fn ten_thousand_detections_of_an_image_and_class_count() {
    let wrong = (0..10_000).map(|i| found(0, DOG, 0.9 + f64::from(i) * 1e-6, [0.0, 0.0, 1.0, 1.0]));
    let mut detections: Vec<_> = wrong.collect();
    detections.push(found(0, DOG, 0.5, WHOLE));
    detections.push(found(1, DOG, 0.4, WHOLE));
    let summary = measure(&[single(0, DOG, WHOLE), single(1, DOG, WHOLE)], &[], &detections);
    assert_eq!(summary.not_counted.beyond_limit, 1);
    let right: Vec<_> = ranked(&summary, DOG).into_iter().filter(|(_, right)| *right).collect();
    assert_eq!(right, [(0.4, true)]);
    assert_eq!(ranked(&summary, DOG).len(), 10_001);
}

/// The original leaves ties to an unstable sort. Here the image decides, then the list.
#[test]
fn ties_have_one_order() {
    let boxes = [single(0, DOG, WHOLE), single(1, DOG, WHOLE)];
    let right = |image| found(image, DOG, 0.5, WHOLE);
    let wrong = |image| found(image, DOG, 0.5, [0.0, 0.0, 1.0, 1.0]);
    let order = |detections: &[ScoredBox]| -> Vec<(u32, bool)> {
        let summary = measure(&boxes, &[], detections);
        let dogs = summary.classes[DOG as usize].ranked.iter();
        dogs.map(|found| (found.image, found.correct)).collect()
    };
    assert_eq!(order(&[right(1), wrong(0), right(0)]), [(0, false), (0, true), (1, true)]);
    assert_eq!(order(&[right(0), right(1), wrong(0)]), [(0, true), (0, false), (1, true)]);
    // -0 and 0 are the same score.
    let zero = |image, score| ScoredBox { score, ..wrong(image) };
    assert_eq!(order(&[zero(1, 0.0), zero(0, -0.0)]), [(0, false), (1, false)]);
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let truth = Truth { boxes: &[single(0, DOG, WHOLE)], labels: &[] };
    let error = |found| evaluate(truth, &[found], &relations(), Rules::CHALLENGE).unwrap_err();
    let strange = error(found(0, 5, 0.5, WHOLE)).to_string();
    assert_eq!(strange, "detection 0 has class 5, and there are 5 classes");
    for bad in [found(0, DOG, f64::NAN, WHOLE), found(0, DOG, 0.5, [0.0, 0.0, f64::INFINITY, 1.0])]
    {
        let text = error(bad).to_string();
        assert_eq!(text, "detection 0 has a number that is not finite");
    }
    let truth = Truth { boxes: &[], labels: &[label(0, 9, true)] };
    let error = evaluate(truth, &[], &relations(), Rules::CHALLENGE).unwrap_err();
    assert_eq!(error.to_string(), "label 0 has class 9, and there are 5 classes");
}
