//! The numbers are the evaluation's, the replicates are evaluations of fewer images, and intervals are absent
//! where the images say nothing.

use serde_json::{Value, json};

use super::{super::*, *};
use crate::{boxes::Xywh, data::dataset::Dataset, detections, testing::shared};

/// The 300 drawn evaluations of the official numbers: truth and detections as JSON.
fn drawn() -> Vec<(Value, Value)> {
    super::super::tests_random::texts()
        .map(|(truth, found)| {
            let parse = |text: &str| serde_json::from_str(text).unwrap();
            (parse(&truth), parse(&found))
        })
        .collect()
}

struct Opened {
    evaluator: Evaluator,
    found: Vec<Detection>,
}

/// As files, read by the readers that users' files go through.
fn open(truth: &Value, found: &Value) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let (at, results) = (folder.path().join("truth.json"), folder.path().join("found.json"));
    fs_err::write(&at, truth.to_string()).unwrap();
    fs_err::write(&results, found.to_string()).unwrap();
    let evaluator = Evaluator::of(&Dataset::open(&at).unwrap());
    Opened { evaluator, found: detections::read(&results).unwrap() }
}

#[track_caller]
fn assert_close(what: &str, got: Option<f64>, expected: Option<f64>) {
    match (got, expected) {
        (Some(got), Some(expected)) => {
            assert!((got - expected).abs() < 1e-12, "{what}: {got} is not {expected}");
        }
        _ => assert_eq!(got, expected, "{what}"),
    }
}

fn assert_the_evaluations(name: &str, Opened { evaluator, found }: &Opened) {
    let summary = evaluator.evaluate(found).unwrap();
    let intervals = evaluator.matches(found).unwrap().intervals();
    assert_eq!(intervals.metrics.len(), 9);
    for metric in &intervals.metrics {
        let absent = summary.metrics.iter().all(|(n, _)| *n != metric.name);
        assert!(!absent || metric.name.len() == 3 && metric.value.is_none(), "{}", metric.name);
        assert_close(&format!("{name}: {}", metric.name), metric.value, summary.get(&metric.name));
        if let (Some(value), Some([low, high])) = (metric.value, metric.interval) {
            assert!(low <= value && value <= high && (0.0..=1.0).contains(&low), "{name}");
        }
    }
    for (class, with) in summary.per_class.iter().zip(&intervals.per_class) {
        assert_eq!(class.category_id, with.category_id);
        assert_close(&format!("{name}: {}", class.name), with.ap, class.ap);
    }
}

#[test]
fn the_estimates_are_the_evaluations() {
    for (i, (truth, found)) in drawn().iter().enumerate() {
        assert_the_evaluations(&format!("case {i}"), &open(truth, found));
    }
    let Some(folder) = shared("evaluation/lvis") else { return };
    for dets in ["good", "noisy", "over300"] {
        let file = folder.join(format!("lvis_synth_dets_{dets}.json"));
        let truth = Dataset::open(&folder.join("data_lvis_val_100.json")).unwrap();
        let found = detections::read(&file).unwrap();
        for max in [300, 100] {
            let evaluator = Evaluator::of(&truth).with_max_detections(max);
            assert_the_evaluations(dets, &Opened { evaluator, found: found.clone() });
        }
    }
}

/// Takes the images away, and all that is of them.
fn without_images(value: &Value, key: &str, gone: &[i64]) -> Value {
    let stays = |record: &&Value| !gone.contains(&record[key].as_i64().unwrap());
    value.as_array().unwrap().iter().filter(stays).cloned().collect()
}

#[test]
fn a_replicate_is_the_evaluation_without_the_groups_images() {
    let mut compared = 0;
    for (i, (truth, found)) in drawn().iter().enumerate().filter(|(i, _)| i % 3 == 0) {
        let whole = open(truth, found);
        let matches = whole.evaluator.matches(&whole.found).unwrap();
        // As many groups as images, at most 50; so few that several images share one.
        let groups = matches.images.min(3);
        let mut ids: Vec<i64> = whole.evaluator.image_ids().collect();
        ids.sort_unstable();
        let mut scratch = super::super::curve::Scratch::default();
        let every = super::super::curve::Selection { area: 0, overlaps: 0..10 };
        let left = matches.classes.iter().map(|class| scratch.left_out(class, &every, groups));
        let left: Vec<_> = left.collect();
        for group in 0..groups {
            let gone: Vec<i64> = ids.iter().copied().skip(group).step_by(groups).collect();
            let mut fewer = truth.clone();
            fewer["images"] = without_images(&truth["images"], "id", &gone);
            fewer["annotations"] = without_images(&truth["annotations"], "image_id", &gone);
            if fewer["images"].as_array().unwrap().is_empty() {
                continue;
            }
            let fewer = open(&fewer, &without_images(found, "image_id", &gone));
            if fewer.evaluator.protocol() != whole.evaluator.protocol() {
                continue; // the images that listed classes are gone
            }
            let summary = fewer.evaluator.evaluate(&fewer.found).unwrap();
            for (class, left) in summary.per_class.iter().zip(&left) {
                let name = format!("case {i} without group {group}: {}", class.name);
                assert_close(&name, left.without[group], class.ap);
                compared += usize::from(class.ap.is_some());
            }
        }
    }
    assert!(compared > 500, "{compared}");
}

#[test]
fn the_interval_of_a_mean_is_students() {
    let values = [0.1, 0.4, 0.35, 0.8, 0.2];
    let (n, mean) = (5.0f64, values.iter().sum::<f64>() / 5.0);
    // The mean without a value moves by (mean − value) / (n − 1); the jackknife's factor is (n − 1)/n.
    let moves: Vec<f64> =
        values.iter().map(|v| ((n - 1.0) / n).sqrt() * (mean - v) / (n - 1.0)).collect();
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    // Student's t of four degrees of freedom.
    let half = 2.776_445_105_197_793 * (variance / n).sqrt();
    let of =
        |value, moves: &[f64], filled| interval(&Moved { value, moves: moves.to_vec(), filled });
    let [low, high] = of(Some(mean), &moves, 5).unwrap();
    assert!((low - (mean - half)).abs() < 1e-12 && (high - (mean + half)).abs() < 1e-12);
    assert_eq!(of(Some(mean), &moves, 1), None, "one group has all boxes");
    assert_eq!(of(Some(mean), &[0.0; 5], 5), None, "nothing moves");
    assert_eq!(of(None, &[], 0), None);
}

/// A class in every group, as frequent as it may be: the usual delete-group jackknife.
#[test]
fn where_all_groups_have_boxes_the_factor_is_the_usual_one() {
    let Opened { evaluator, .. } = open(&two_classes(), &json!([]));
    let boxes: Vec<_> = (0..120)
        .filter(|i| i % 3 > 0)
        .map(|i| found(i, 1, BOX, 0.9))
        .chain((0..120).step_by(5).map(|i| found(i, 1, [300.0, 300.0, 9.0, 9.0], 0.95)))
        .collect();
    let matches = evaluator.matches(&boxes).unwrap();
    let every = super::super::curve::Selection { area: 0, overlaps: 0..10 };
    let left = super::super::curve::Scratch::default().left_out(&matches.classes[0], &every, 50);
    let without: Vec<f64> = left.without.into_iter().flatten().collect();
    let mean = without.iter().sum::<f64>() / 50.0;
    let squares: f64 = without.iter().map(|ap| (ap - mean).powi(2)).sum();
    let half = 2.009_575_237_129_24 * (49.0 / 50.0 * squares).sqrt();
    let all = left.all.unwrap();
    let intervals = matches.intervals();
    let [low, high] = intervals.get("APf").unwrap().interval.unwrap();
    assert!((low - (all - half)).abs() < 1e-9 && (high - (all + half)).abs() < 1e-9);
    assert_eq!(intervals.per_class[0].interval, Some([low, high]));
}

const BOX: [f64; 4] = [10.0, 10.0, 50.0, 50.0];

/// 120 images: class 1 in all of them, class 2 in the first alone.
fn two_classes() -> Value {
    let images: Vec<_> =
        (0..120).map(|i| json!({"id": i, "file_name": format!("{i}.jpg")})).collect();
    let boxes = (0..120).map(|i| (i, 1)).chain([(0, 2)]).enumerate();
    let boxes: Vec<_> = boxes
        .map(|(id, (image, class))| json!({"id": id, "image_id": image, "category_id": class, "bbox": BOX}))
        .collect();
    let classes = json!([{"id": 1, "name": "cat", "frequency": "f"}, {"id": 2, "name": "dog", "frequency": "r"}]);
    json!({"images": images, "annotations": boxes, "categories": classes})
}

fn found(image_id: i64, class: i64, bbox: [f64; 4], score: f64) -> Detection {
    Detection { image_id, category_id: CategoryId(class), bbox: Xywh(bbox), score }
}

#[test]
fn intervals_are_absent_where_images_say_nothing() {
    let Opened { evaluator, .. } = open(&two_classes(), &json!([]));
    let half: Vec<_> = (0..120)
        .filter(|i| i % 2 == 0 || i % 7 == 0)
        .map(|i| found(i, 1, BOX, 0.9))
        .chain([found(0, 2, BOX, 0.9)])
        .collect();
    let intervals = evaluator.matches(&half).unwrap().intervals();
    assert_eq!(intervals.groups, 50);
    let of = |name| intervals.get(name).unwrap();
    let (frequent, rare) = (of("APf"), of("APr"));
    assert_eq!((frequent.boxes, frequent.classes, rare.boxes, rare.classes), (120, 1, 1, 1));
    assert!(frequent.interval.is_some());
    assert_eq!(rare.interval, None, "all its boxes are in one group");
    assert!((rare.value.unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(frequent.over_classes, None, "one class");
    assert!(of("AP").over_classes.is_some());
    assert_eq!((of("APs").value, of("APs").boxes), (None, 0));
    let nothing = evaluator.matches(&[]).unwrap().intervals();
    assert_eq!(nothing.get("APf").map(|m| (m.value, m.interval)), Some((Some(0.0), None)));
}

#[test]
fn differences_are_paired() {
    let Opened { evaluator, .. } = open(&two_classes(), &json!([]));
    // Both miss the same images and have the same false positives. The second places some boxes worse.
    let wrong = (0..120).step_by(4).map(|i| found(i, 1, [300.0, 300.0, 9.0, 9.0], 0.95));
    let boxes = (0..120).filter(|i| i % 3 > 0).map(|i| found(i, 1, BOX, 0.9));
    let first: Vec<_> = boxes.chain(wrong).collect();
    let mut second = first.clone();
    second.iter_mut().take(80).step_by(11).for_each(|d| d.bbox = Xywh([12.0, 10.0, 50.0, 50.0]));
    let [a, b] = [&first, &second].map(|found| evaluator.matches(found).unwrap());
    let comparison = a.compare(&b).unwrap();
    let frequent = comparison.get("APf").unwrap();
    assert_eq!(frequent.difference, Some(frequent.first.unwrap() - frequent.second.unwrap()));
    let width = |interval: Option<[f64; 2]>| interval.map(|[low, high]| high - low).unwrap();
    let alone = width(a.intervals().get("APf").unwrap().interval);
    assert!(width(frequent.interval) < alone / 2.0, "{frequent:?}, alone {alone}");
    let [low, high] = frequent.interval.unwrap();
    let [back_low, back_high] = b.compare(&a).unwrap().get("APf").unwrap().interval.unwrap();
    assert!((low + back_high).abs() < 1e-12 && (high + back_low).abs() < 1e-12);
    let same = a.compare(&a).unwrap();
    assert_eq!(same.get("AP").map(|m| (m.difference, m.interval)), Some((Some(0.0), None)));
    assert_eq!(same.per_class.len(), 2);

    let mut fewer = two_classes();
    fewer["annotations"].as_array_mut().unwrap().pop();
    let other = open(&fewer, &json!([])).evaluator.matches(&first).unwrap();
    let error = a.compare(&other).unwrap_err().to_string();
    assert!(error.contains("same ground truth") && error.contains("hint:"), "{error}");
}

#[test]
fn summaries_keep_intervals_and_older_files_have_none() {
    let Opened { evaluator, .. } = open(&two_classes(), &json!([]));
    let boxes: Vec<_> = (0..60).map(|i| found(i, 1, BOX, 0.9)).collect();
    let mut summary = evaluator.evaluate(&boxes).unwrap();
    let old = summary.to_json();
    assert!(!old.contains("intervals"));
    assert_eq!(serde_json::from_str::<Summary>(&old).unwrap(), summary);
    summary.intervals = Some(evaluator.matches(&boxes).unwrap().intervals());
    let text = summary.to_json();
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    let refused = evaluator.matches(&[found(999, 1, BOX, 0.5)]).unwrap_err().to_string();
    assert!(refused.contains("no image with the id 999"), "{refused}");
}

/// Of classes that are ranked at one overlap: without a group AP is that of the other images.
#[test]
fn ranked_classes_lose_groups_as_evaluations_of_fewer_images_do() {
    use super::super::{Ranked, RankedClass, curve::Scratch};
    let mut random = crate::random::Random::new(5, crate::random::Stream::Test, 0, 0);
    let mut below = |most: u32| (random.uniform() * f64::from(most)) as u32;
    let mut scratch = Scratch::default();
    for (images, groups) in [(40, 7), (6, 6), (3, 3), (1, 1)] {
        let (mut found, mut truths) = (Vec::new(), Vec::new());
        for image in 0..images {
            let boxes = below(4);
            truths.extend((0..boxes).map(|_| image));
            for at in 0..below(5) {
                let correct = at < boxes && below(2) == 0;
                found.push(Ranked { score: f64::from(below(20)), image, correct });
            }
        }
        let class = RankedClass::new(found.clone(), truths.iter().copied());
        let left = scratch.left_out_ranked(&class, groups);
        assert_close("all", left.all, class.ap);
        for (group, without) in left.without.iter().enumerate() {
            let stays = |image: u32| image as usize % groups != group;
            let fewer = found.iter().copied().filter(|found| stays(found.image)).collect();
            let fewer = RankedClass::new(fewer, truths.iter().copied().filter(|i| stays(*i)));
            assert_close(&format!("without {group} of {groups}"), *without, fewer.ap);
        }
    }
}
