//! Against the numbers of the original evaluator, of every class and variant.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use super::*;
use crate::{data::openimages::Names, evaluate::ScoredBox, testing::shared};

#[derive(Deserialize)]
struct Expected {
    #[serde(rename = "mAP50")]
    map: f64,
    per_class: BTreeMap<String, ExpectedClass>,
}

#[derive(Deserialize)]
struct ExpectedClass {
    ap: Option<f64>,
    num_gt: f64,
    scores_and_labels: Vec<(f64, f64)>,
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

fn compare(case: &str, expected: &Expected, summary: &OpenImagesSummary, mids: &Names) {
    assert!(summary.map.is_some_and(|map| close(map, expected.map)), "{case}: {:?}", summary.map);
    assert_eq!(expected.per_class.len(), mids.len(), "{case}");
    for (mid, class) in std::iter::zip(mids.iter(), &summary.classes) {
        let expected = &expected.per_class[mid];
        let same = match (class.ap, expected.ap) {
            (Some(a), Some(b)) => close(a, b),
            (a, b) => a == b,
        };
        assert!(same, "{case} {mid}: AP {:?}, expected {:?}", class.ap, expected.ap);
        assert_eq!(class.num_gt as f64, expected.num_gt, "{case} {mid}");
        let ranked =
            class.ranked.iter().map(|found| (found.score, f64::from(u8::from(found.correct))));
        let mut scores = expected.scores_and_labels.clone();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0));
        assert_eq!(ranked.collect::<Vec<_>>(), scores, "{case} {mid}");
    }
}

fn files(folder: &std::path::Path) -> Files {
    let file = |name: &str| -> PathBuf { folder.join(name) };
    Files {
        boxes: file("boxes.csv"),
        labels: Some(file("labels.csv")),
        classes: file("classes.csv"),
        hierarchy: Some(file("hierarchy.json")),
    }
}

#[test]
fn the_samples_come_out() {
    let Some(samples) = shared("samples/openimages_eval") else { return };
    let variants = [
        ("official", Rules::CHALLENGE),
        ("official_predictions_expanded_too", Rules::EXPANDED),
        ("not_expanded", Rules::FLAT),
        ("official_group_of_weight_0", Rules { groups: Groups::Ignored, ..Rules::CHALLENGE }),
    ];
    for case in ["group_of", "hierarchy", "labels"] {
        let folder = samples.join(case);
        let evaluation = Evaluation::open(&files(&folder)).unwrap();
        let text = fs_err::read_to_string(folder.join("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (variant, rules) in variants {
            let expected: Expected = serde_json::from_value(expected[variant].clone()).unwrap();
            for predictions in ["predictions.csv", "submission.csv"] {
                let (summary, left) = evaluation.measure(&folder.join(predictions), rules).unwrap();
                assert!(left.is_empty());
                let case = format!("{case}, {variant}, {predictions}");
                compare(&case, &expected, &summary, &evaluation.classes().mids);
            }
        }
    }
}

#[derive(Deserialize)]
struct CocoTruth {
    images: Vec<CocoImage>,
    annotations: Vec<CocoBox>,
    categories: Vec<CocoClass>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: u32,
    pos_category_ids: Vec<u32>,
    neg_category_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct CocoBox {
    image_id: u32,
    category_id: u32,
    bbox: [f64; 4],
    iscrowd: u8,
}

#[derive(Deserialize)]
struct CocoClass {
    id: u32,
    freebase_id: Option<String>,
}

#[derive(Deserialize)]
struct CocoFound {
    image_id: u32,
    category_id: u32,
    bbox: [f64; 4],
    score: f64,
}

/// 80 images of the challenge's 500 classes. The truth in the file is expanded already; the numbers are
/// Detic's.
#[test]
fn the_shared_set_of_the_challenges_classes_comes_out() {
    let Some(folder) = shared("evaluation/openimages") else { return };
    let read = |name: &str| fs_err::read_to_string(folder.join(name)).unwrap();
    let truth: CocoTruth = serde_json::from_str(&read("oid_synth_gt.json")).unwrap();
    let found: Vec<CocoFound> = serde_json::from_str(&read("oid_synth_dets.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&read("oid_expected.json")).unwrap();
    let hierarchy = "oid-challenge-2019-label500-hierarchy.json";
    let hierarchy = crate::data::openimages::Hierarchy::open(&folder.join(hierarchy)).unwrap();
    let ids: Vec<u32> = truth.categories.iter().map(|class| class.id).collect();
    let mids: Names =
        truth.categories.iter().map(|class| class.freebase_id.as_deref().unwrap()).collect();
    let relations = hierarchy.over(&mids);
    assert_eq!((relations.len(), relations.outside()), (500, &[][..]));
    let class = |id: u32| ids.iter().position(|known| *known == id).unwrap() as u32;
    let corners = |[x, y, w, h]: [f64; 4]| [x, y, x + w, y + h];
    let boxes: Vec<TrueBox> = truth
        .annotations
        .iter()
        .map(|b| TrueBox {
            image: b.image_id,
            class: class(b.category_id),
            bbox: corners(b.bbox),
            group_of: b.iscrowd == 1,
        })
        .collect();
    let label = |image: u32, present: bool| {
        move |id: &u32| VerifiedLabel { image, class: class(*id), present }
    };
    let labels: Vec<VerifiedLabel> = truth
        .images
        .iter()
        .flat_map(|image| {
            let present = image.pos_category_ids.iter().map(label(image.id, true));
            present.chain(image.neg_category_ids.iter().map(label(image.id, false)))
        })
        .collect();
    let found: Vec<ScoredBox> = found
        .iter()
        .map(|f| ScoredBox {
            image: f.image_id,
            class: class(f.category_id),
            score: f.score,
            bbox: corners(f.bbox),
        })
        .collect();
    assert_eq!((boxes.len(), found.len()), (525, 644));
    for (variant, expand_detections) in
        [("expand_pred_label=False", false), ("expand_pred_label=True", true)]
    {
        let rules = Rules { expand_detections, ..Rules::FLAT };
        let truth = Truth { boxes: &boxes, labels: &labels };
        let summary = evaluate(truth, &found, &relations, rules).unwrap();
        let expected = &expected[variant];
        assert!(close(summary.map.unwrap(), expected["mAP50"].as_f64().unwrap()), "{variant}");
        let per_class = expected["per_class"].as_object().unwrap();
        let measured = summary.classes.iter().filter(|class| class.ap.is_some()).count();
        assert_eq!((measured, per_class.len()), (62, 62), "{variant}");
        for (id, ap) in per_class {
            let measured = summary.classes[class(id.parse().unwrap()) as usize].ap.unwrap();
            assert!(close(measured, ap.as_f64().unwrap()), "{variant} {id}: {measured}");
        }
    }
}
