//! Against tidecv 1.0.1, lvis-api 0.5.3 and the metrics' paper's own code on shared data, and by hand.

use std::path::Path;

use serde_json::json;

use super::{super::*, pooled::best_of_classes, *};
use crate::{
    boxes::Xywh, data::dataset::Dataset, detections, testing::shared, vocabulary::CategoryId,
};

const BOX: [f64; 4] = [100.0, 100.0, 50.0, 50.0];
/// IoU with [`BOX`]: 1/3.
const BESIDE: [f64; 4] = [125.0, 100.0, 50.0, 50.0];
const FAR: [f64; 4] = [400.0, 400.0, 50.0, 50.0];

fn found(image_id: i64, class: i64, bbox: [f64; 4], score: f64) -> Detection {
    Detection { image_id, category_id: CategoryId(class), bbox: Xywh(bbox), score }
}

/// Images 1 and 2 with a cat at [`BOX`] each. LVIS's lists, if any, are those of image 1.
fn cats(lists: Option<(&[i64], &[i64])>) -> Evaluator {
    let mut images = vec![
        json!({"id": 1, "file_name": "1.jpg", "width": 640, "height": 640}),
        json!({"id": 2, "file_name": "2.jpg", "width": 640, "height": 640}),
    ];
    if let Some((absent, not_exhaustive)) = lists {
        images[0]["neg_category_ids"] = json!(absent);
        images[0]["not_exhaustive_category_ids"] = json!(not_exhaustive);
    }
    let truth = json!({
        "images": images,
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX},
            {"id": 2, "image_id": 2, "category_id": 1, "bbox": BOX},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), truth.to_string()).unwrap();
    Evaluator::of(&Dataset::open(file.path()).unwrap())
}

fn errors(evaluator: &Evaluator, found: &[Detection]) -> Errors {
    evaluator.errors(found, &evaluator.matches(found).unwrap()).unwrap()
}

/// Counts of class, location, both, duplicate, background and missed errors.
fn counts(tide: &Tide) -> [u64; 6] {
    std::array::from_fn(|i| tide.errors[i].count)
}

#[test]
fn every_kind_of_error_is_told() {
    let coco = cats(None);
    let right = found(1, 1, BOX, 0.9);
    for (other, expected) in [
        (found(2, 2, BOX, 0.8), [1, 0, 0, 0, 0, 0]),
        (found(2, 1, BESIDE, 0.8), [0, 1, 0, 0, 0, 0]),
        (found(2, 2, BESIDE, 0.8), [0, 0, 1, 0, 0, 1]),
        (found(1, 1, BOX, 0.8), [0, 0, 0, 1, 0, 1]),
        (found(2, 1, FAR, 0.8), [0, 0, 0, 0, 1, 1]),
        (found(2, 1, BOX, 0.8), [0, 0, 0, 0, 0, 0]),
    ] {
        let tide = errors(&coco, &[right, other]).tide;
        assert_eq!(counts(&tide), expected, "{other:?}");
        assert_eq!(tide.judged, 2);
    }
}

/// One of two boxes is found: 51 of 101 recalls. What is mended makes it two of two, or one of one.
#[test]
fn gains_are_what_mending_brings() {
    let coco = cats(None);
    let gains = |other| {
        let tide = errors(&coco, &[found(1, 1, BOX, 0.9), other]).tide;
        assert!((tide.ap50 - 51.0 / 101.0).abs() < 1e-12);
        let whole = |gain: f64| (gain - 50.0 / 101.0).abs() < 1e-12;
        tide.errors.iter().filter(|error| whole(error.delta_ap)).map(|e| e.kind).collect::<Vec<_>>()
    };
    assert_eq!(gains(found(2, 2, BOX, 0.8)), [ErrorKind::Class]);
    assert_eq!(gains(found(2, 1, BESIDE, 0.8)), [ErrorKind::Location]);
    assert_eq!(gains(found(2, 1, FAR, 0.8)), [ErrorKind::Missed]);
}

#[test]
fn what_lvis_does_not_judge_is_no_error() {
    let dog = found(1, 2, FAR, 0.95);
    let more_cats = found(1, 1, FAR, 0.95);
    let both = [found(1, 1, BOX, 0.9), found(2, 1, BOX, 0.9)];
    let of = |lists: (&[i64], &[i64]), other| {
        let tide = errors(&cats(Some(lists)), &[both[0], both[1], other]).tide;
        (counts(&tide), tide.judged)
    };
    let background = [0, 0, 0, 0, 1, 0];
    assert_eq!(of((&[], &[1]), dog), ([0; 6], 2), "no word on dogs");
    assert_eq!(of((&[2], &[1]), dog), (background, 3), "no dogs");
    assert_eq!(of((&[2], &[1]), more_cats), ([0; 6], 3), "not all cats are annotated");
    assert_eq!(of((&[2], &[]), more_cats), (background, 3));
}

/// Counts, and gains in percent; AP50; gains without false positives and without misses. By tidecv, changed
/// where it leaves something to chance or to rounding: the mean is over the classes that have boxes, as AP's
/// (tidecv's goes over those that have detections too, and loses a class whose last detection is mended);
/// ignored detections are no errors; equal scores are in order of images and classes; recalls are pycocotools'
/// (tidecv's i/100 lies a rounding beside some).
type Tidecv = ([u64; 6], [f64; 6], f64, [f64; 2]);

fn assert_tidecv(name: &str, truth: &Path, results: &Path, expected: &Tidecv) {
    let evaluator = Evaluator::of(&Dataset::open(truth).unwrap());
    let found = detections::read(results).unwrap();
    let tide = errors(&evaluator, &found).tide;
    let summary = evaluator.evaluate(&found).unwrap();
    assert!((tide.ap50 - summary.get("AP50").unwrap()).abs() < 1e-12, "{name}");
    let (of_kind, gains, ap50, [positives, negatives]) = expected;
    assert_eq!(counts(&tide), *of_kind, "{name}");
    let close = |got: f64, expected: f64, what: &str| {
        // tidecv shows a loss as no gain.
        let got = 100.0 * got.max(0.0);
        assert!((got - expected).abs() < 1e-9, "{name}: {what}: {got} is not {expected}");
    };
    close(tide.ap50, *ap50, "AP50");
    for (error, gain) in tide.errors.iter().zip(gains) {
        close(error.delta_ap, *gain, error.kind.meaning());
    }
    close(tide.false_positives, *positives, "false positives");
    close(tide.false_negatives, *negatives, "false negatives");
}

#[test]
fn errors_are_tidecvs() {
    let Some(folder) = shared("evaluation") else { return };
    let coco: [(&str, Tidecv); 3] = [
        (
            "fce_gt_dt",
            (
                [2, 0, 0, 0, 1, 1],
                [15.862211221122, 0.0, 0.0, 0.0, 5.528052805281, 4.207920792079],
                69.471947194719,
                [5.528052805281, 22.194719471947],
            ),
        ),
        (
            "rafael_val2014_100_bboxarea",
            (
                [83, 1, 0, 1, 0, 97],
                [16.757478265236, 0.24988213107, 0.0, 0.020599225914, 0.0, 8.228735720447],
                69.697272472996,
                [7.403151855151, 18.044927371135],
            ),
        ),
        (
            "rafael_voc2012_100",
            (
                [3, 33, 22, 2, 166, 35],
                [
                    2.406230732963,
                    6.143408870143,
                    4.62400018076,
                    0.004680243696,
                    10.910695554804,
                    7.576954823315,
                ],
                61.002968053152,
                [20.531685412195, 12.30407635753],
            ),
        ),
    ];
    for (name, expected) in &coco {
        let file = |kind: &str| folder.join(format!("coco/{name}_{kind}.json"));
        assert_tidecv(name, &file("gt"), &file("dt"), expected);
    }
    let lvis: [(&str, Tidecv); 3] = [
        (
            "good",
            (
                [15, 26, 172, 84, 409, 202],
                [
                    0.393136640252,
                    0.726494453957,
                    0.13144721806,
                    1.240460782783,
                    0.652407403212,
                    12.480513780038,
                ],
                76.020425051318,
                [2.218240920543, 13.018337299232],
            ),
        ),
        (
            "noisy",
            (
                [18, 319, 425, 19, 1078, 387],
                [
                    0.720340455098,
                    26.180661207156,
                    0.564548748108,
                    0.034441601204,
                    1.521185389216,
                    10.432562716687,
                ],
                32.998587320032,
                [5.422465311547, 21.984528671797],
            ),
        ),
        (
            "over300",
            (
                [125, 482, 3838, 109, 9192, 101],
                [
                    0.394250231251,
                    9.785961639977,
                    4.646843812226,
                    0.670276526569,
                    9.108457524267,
                    3.92072842478,
                ],
                57.04403489578,
                [23.612557079207, 9.68136917645],
            ),
        ),
    ];
    for (name, expected) in &lvis {
        let results = folder.join(format!("lvis/lvis_synth_dets_{name}.json"));
        assert_tidecv(name, &folder.join("lvis/data_lvis_val_100.json"), &results, expected);
    }
}

/// lvis-api without a limit, and the paper's pooled ranking over lvis-api's matches.
#[test]
fn fixed_and_pooled_are_the_papers() {
    let Some(folder) = shared("evaluation/lvis") else { return };
    let evaluator = Evaluator::of(&Dataset::open(&folder.join("data_lvis_val_100.json")).unwrap());
    for (name, fixed, pooled) in [
        (
            "good",
            [
                0.422280336041,
                0.760204250513,
                0.430269426962,
                0.427693795822,
                0.43794327608,
                0.439635050462,
                0.0,
                0.46047249725,
                0.417730119058,
            ],
            [0.358252003681, 0.71655454391, 0.0, 0.341554721323, 0.364876056886],
        ),
        (
            "noisy",
            [
                0.101226517447,
                0.3299858732,
                0.049855248683,
                0.118322894949,
                0.102021545069,
                0.086994308126,
                0.0,
                0.141525969264,
                0.094259492056,
            ],
            [0.059592419261, 0.231534098749, 0.0, 0.05783874446, 0.062522263333],
        ),
        (
            "over300",
            [
                0.237609583385,
                0.571169895597,
                0.147464094865,
                0.324112993003,
                0.289168322714,
                0.266899682722,
                0.15,
                0.228922114896,
                0.239799732052,
            ],
            [0.141332738575, 0.397116568621, 0.013043478261, 0.085700842426, 0.172578051475],
        ),
    ] {
        let found = detections::read(&folder.join(format!("lvis_synth_dets_{name}.json"))).unwrap();
        let errors = errors(&evaluator, &found);
        let close = |got: Option<f64>, expected: f64, what: &str| {
            let got = got.unwrap();
            assert!((got - expected).abs() < 1e-10, "{name}: {what}: {got} is not {expected}");
        };
        for (metric, expected) in errors.fixed.metrics.iter().zip(fixed) {
            close(metric.value, expected, &metric.name);
        }
        let Pooled { ap, ap50, ap_rare, ap_common, ap_frequent } = errors.pooled;
        for (got, expected) in [ap, ap50, ap_rare, ap_common, ap_frequent].into_iter().zip(pooled) {
            close(got, expected, "pooled");
        }
        let classes = errors.fixed.per_class.len();
        assert_eq!(errors.fixed.classes_below_limit, classes);
        // The limit of 300 costs nothing where no image has more.
        let summary = evaluator.evaluate(&found).unwrap();
        let cost = errors.fixed.metrics[0].value.unwrap() - summary.get("AP").unwrap();
        assert_eq!(cost.abs() > 1e-6, name == "over300", "{name}: {cost}");
    }
}

#[test]
fn ten_thousand_of_a_class_stay_the_best_and_the_first() {
    // A better score every third time; equal ones are in the file's order.
    let score = |i: usize| if i.is_multiple_of(3) { 0.9 } else { 0.1 };
    let mut boxes: Vec<_> = (0..12_000).map(|i| found(1, 1, BOX, score(i))).collect();
    boxes.push(found(1, 2, BOX, 0.01));
    let (kept, full) = best_of_classes(&boxes);
    assert_eq!(full, 1);
    assert_eq!(kept.iter().filter(|&&kept| kept).count(), 10_001);
    assert!(kept[12_000] && (0..12_000).step_by(3).all(|i| kept[i]));
    let last = kept[..12_000].iter().rposition(|&kept| kept).unwrap();
    let poor_after = (0..12_000).filter(|i| i % 3 > 0).skip(6000);
    assert!(poor_after.clone().all(|i| !kept[i]), "the first 6000 poor ones stay");
    assert_eq!(last, 11_997);
}

#[test]
fn one_ranking_needs_scores_that_mean_the_same() {
    let truth = json!({
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": BOX},
            {"id": 2, "image_id": 2, "category_id": 2, "bbox": BOX},
        ],
        "categories": [
            {"id": 1, "name": "cat", "frequency": "f"}, {"id": 2, "name": "dog", "frequency": "r"},
        ],
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), truth.to_string()).unwrap();
    let evaluator = Evaluator::of(&Dataset::open(file.path()).unwrap());
    // Each class alone is ranked well; the dogs' scores are all below the cat that is none.
    let boxes = [
        found(1, 1, BOX, 0.9),
        found(2, 1, FAR, 0.8),
        found(2, 2, BOX, 0.2),
        found(1, 2, FAR, 0.1),
    ];
    let Errors { fixed, pooled, .. } = errors(&evaluator, &boxes);
    assert!((fixed.metrics[0].value.unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(fixed.per_class.len(), 2);
    // Precision 1 up to a recall of one half (51 of 101), then 2/3.
    let expected = (51.0 + 50.0 * 2.0 / 3.0) / 101.0;
    assert!((pooled.ap.unwrap() - expected).abs() < 1e-12, "{pooled:?}");
    assert!((pooled.ap_rare.unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(pooled.ap_common, None);
}

#[test]
fn calibration_compares_scores_with_what_they_find() {
    let coco = cats(None);
    let calibration = |boxes: &[Detection]| coco.matches(boxes).unwrap().calibration();
    let boxes = [
        found(1, 1, BOX, 0.95),
        found(2, 1, BOX, 0.91),
        found(2, 1, FAR, 0.25),
        found(1, 1, FAR, 0.21),
        found(1, 1, BOX, 1.0),
    ];
    let calibration_of = calibration(&boxes).unwrap();
    // The best of the two on image 1 finds its box. Two of three find one, at a mean score of 0.9533.
    let last = &calibration_of.bins[9];
    assert_eq!((last.count, last.low, last.high), (3, 0.9, 1.0));
    assert!((last.share - 2.0 / 3.0).abs() < 1e-12 && (last.score - 2.86 / 3.0).abs() < 1e-12);
    assert_eq!(calibration_of.bins[2].count, 2);
    let (high, low): (f64, f64) = (2.86 / 3.0 - 2.0 / 3.0, 0.23);
    assert!((calibration_of.ece - (3.0 * high + 2.0 * low) / 5.0).abs() < 1e-12);
    assert!((calibration_of.mce - high.max(low)).abs() < 1e-12);
    assert_eq!(calibration_of.per_class, [Some(calibration_of.ece), None]);
    assert_eq!(calibration(&[found(1, 1, BOX, 7.5)]), None, "a score that is no share");
    assert_eq!(calibration(&[]), None);
}

#[test]
fn errors_are_the_same_after_json_and_in_any_thread() {
    let Some(folder) = shared("evaluation/lvis") else { return };
    let evaluator = Evaluator::of(&Dataset::open(&folder.join("data_lvis_val_100.json")).unwrap());
    let found = detections::read(&folder.join("lvis_synth_dets_noisy.json")).unwrap();
    let of_all = errors(&evaluator, &found);
    let text = serde_json::to_string(&of_all).unwrap();
    assert_eq!(serde_json::from_str::<Errors>(&text).unwrap(), of_all);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(serde_json::to_string(&alone.install(|| errors(&evaluator, &found))).unwrap(), text);
}

/// The engine's own, which holds everything in memory at once.
fn engines(evaluator: &Evaluator, found: &[Detection]) -> Vec<(u64, f64)> {
    use super::super::batches::{Batch, Rules};
    use hotcoco::params::{IouType, Params};
    let mut all = Batch::of(0);
    evaluator
        .each_batch(evaluator.all_of(found), |batch| {
            all.images.extend(batch.images);
            all.truths.extend(batch.truths);
            all.found.extend(batch.found);
            Ok::<_, crate::Error>(())
        })
        .unwrap();
    let mut areas = Params::new(IouType::Bbox).area_ranges;
    areas.truncate(1);
    let rules = Rules { max_detections: evaluator.per_class(), overlaps: vec![0.5], areas };
    let tide = evaluator.match_records(all, &rules).unwrap().tide_errors(0.5, 0.1).unwrap();
    let names = ["Cls", "Loc", "Both", "Dupe", "Bkg", "Miss", "FP", "FN"];
    let of_name =
        |name: &str| (tide.counts.get(name).copied().unwrap_or_default(), tide.delta_ap[name]);
    names.map(of_name).into()
}

/// More images than are matched at a time, with crowds and equal scores.
#[test]
fn errors_by_batches_are_the_engines() {
    let mut random = crate::random::Random::new(3, crate::random::Stream::Test, 0, 0);
    let mut whole = |most: u32| (random.uniform() * f64::from(most)) as u32;
    let (mut images, mut truths, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for image in 1..=1500i64 {
        images.push(
            json!({"id": image, "file_name": format!("{image}.jpg"), "width": 99, "height": 99}),
        );
        for _ in 0..whole(4) {
            let bbox = [whole(5) * 8, whole(5) * 8, 16 + whole(3) * 8, 16 + whole(3) * 8];
            let [class, crowd] = [1 + whole(3), u32::from(whole(9) == 0)];
            truths.push(json!({
                "id": truths.len() + 1, "image_id": image, "category_id": class, "bbox": bbox, "iscrowd": crowd,
            }));
            for _ in 0..whole(4) {
                let shifted = [bbox[0] + whole(3) * 4, bbox[1] + whole(3) * 4, bbox[2], bbox[3]];
                let class = if whole(3) == 0 { 1 + whole(4) } else { class };
                let score = f64::from(whole(20)) / 20.0;
                results.push(found(image, i64::from(class), shifted.map(f64::from), score));
            }
        }
    }
    let categories = [1, 2, 3, 4].map(|id| json!({"id": id, "name": format!("class {id}")}));
    let truth = json!({
        "images": images,
        "annotations": truths,
        "categories": categories,
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    fs_err::write(file.path(), truth.to_string()).unwrap();
    let evaluator = Evaluator::of(&Dataset::open(file.path()).unwrap());
    let tide = errors(&evaluator, &results).tide;
    let expected = engines(&evaluator, &results);
    for (error, (count, gain)) in tide.errors.iter().zip(&expected) {
        assert!(
            error.count == *count && *count > 0,
            "{:?}: {} for {count}",
            error.kind,
            error.count
        );
        assert!((error.delta_ap - gain).abs() < 1e-12, "{:?}", error.kind);
    }
    assert!((tide.false_positives - expected[6].1).abs() < 1e-12);
    assert!((tide.false_negatives - expected[7].1).abs() < 1e-12);
    assert_eq!(tide.judged, results.len());
}
