//! The rules, each on a file small enough to work out by hand.

use serde_json::{Value, json};

use super::*;
use crate::{
    boxes::Xywh,
    data::dataset::Dataset,
    testing,
    vocabulary::{Category, CategoryId, Frequency, Vocabulary},
};

struct Case {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

fn file(text: &str) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("val.json");
    fs_err::write(&path, text).unwrap();
    Case { _folder: folder, path }
}

/// Images that lack a name and annotations get one, and an id.
fn truth(images: Value, annotations: Value, categories: Value) -> Case {
    let mut value = json!({"images": images, "annotations": annotations, "categories": categories});
    for image in value["images"].as_array_mut().unwrap() {
        image["file_name"] = format!("{}.jpg", image["id"]).into();
    }
    for (id, annotation) in value["annotations"].as_array_mut().unwrap().iter_mut().enumerate() {
        annotation["id"] = id.into();
    }
    file(&value.to_string())
}

fn open(case: &Case) -> Evaluator {
    Evaluator::of(&Dataset::open(&case.path).unwrap())
}

fn detection(image_id: i64, category: i64, bbox: [f64; 4], score: f64) -> Detection {
    Detection { image_id, category_id: CategoryId(category), bbox: Xywh(bbox), score }
}

const BOX: [f64; 4] = [10.0, 10.0, 50.0, 50.0];
const FAR: [f64; 4] = [200.0, 200.0, 50.0, 50.0];

fn cat_and_dog() -> Value {
    json!([{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}])
}

/// One image with a box of class 3.
fn one_box(image: Value, extra: Value) -> Case {
    let mut annotation = json!({"id": 1, "image_id": 7, "category_id": 3, "bbox": BOX});
    annotation.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    truth(json!([image]), json!([annotation]), cat_and_dog())
}

/// 12345 is a class that was taken out of the file: the lists are not empty.
fn lvis_image(absent: &[i64], not_exhaustive: &[i64]) -> Value {
    let absent: Vec<i64> = absent.iter().copied().chain([12345]).collect();
    json!({"id": 7, "neg_category_ids": absent, "not_exhaustive_category_ids": not_exhaustive})
}

fn ap(case: &Case, detections: &[Detection]) -> Option<f64> {
    evaluate(&case.path, detections, None).unwrap().get("AP")
}

#[test]
fn nothing_to_evaluate_is_absent_and_nothing_found_is_zero() {
    let no_boxes = truth(json!([{"id": 7}]), json!([]), cat_and_dog());
    let summary = evaluate(&no_boxes.path, &[detection(7, 3, BOX, 0.9)], None).unwrap();
    assert_eq!((summary.get("AP"), summary.detections), (None, 1));
    assert_eq!(summary.metrics.len(), 12);
    assert!(summary.metrics.iter().all(|(_, value)| value.is_none()));

    let case = one_box(json!({"id": 7}), json!({}));
    let summary = evaluate(&case.path, &[], None).unwrap();
    assert_eq!(summary.get("AP"), Some(0.0));
    assert_eq!(summary.get("AR100"), Some(0.0));
    assert_eq!(summary.get("APs"), None, "no small box");
    let class = |id| summary.per_class.iter().find(|c| c.category_id == CategoryId(id)).unwrap();
    assert_eq!((class(3).ap, class(3).ap50, class(3).boxes), (Some(0.0), Some(0.0), 1));
    assert_eq!((class(90).ap, class(90).ap50, class(90).boxes), (None, None, 0));
    assert_eq!((class(3).image_count, class(3).instance_count), (1, 1));
    assert_eq!(class(90).name, "dog");
}

#[test]
fn a_perfect_detection_is_one_and_a_better_scored_miss_halves_it() {
    let case = one_box(json!({"id": 7}), json!({}));
    let found = detection(7, 3, BOX, 0.5);
    assert!((ap(&case, &[found]).unwrap() - 1.0).abs() < 1e-12);
    assert!((ap(&case, &[detection(7, 3, FAR, 0.9), found]).unwrap() - 0.5).abs() < 1e-12);
    assert!((ap(&case, &[detection(7, 3, FAR, 0.1), found]).unwrap() - 1.0).abs() < 1e-12);
}

/// COCO: every class not annotated is absent. LVIS: only those verified to be.
#[test]
fn lvis_judges_only_what_an_image_says() {
    let found = [detection(7, 3, BOX, 0.5), detection(7, 90, FAR, 0.9)];
    let dog_elsewhere = |image: Value| {
        truth(
            json!([image, {"id": 8, "neg_category_ids": [], "not_exhaustive_category_ids": []}]),
            json!([
                {"id": 1, "image_id": 7, "category_id": 3, "bbox": BOX},
                {"id": 2, "image_id": 8, "category_id": 90, "bbox": BOX},
            ]),
            cat_and_dog(),
        )
    };
    let all: Vec<_> = found.into_iter().chain([detection(8, 90, BOX, 0.5)]).collect();
    let dog_ap = |case: &Case, protocol| {
        let summary = evaluate(&case.path, &all, protocol).unwrap();
        summary.per_class[1].ap.unwrap()
    };
    let unknown = dog_elsewhere(lvis_image(&[], &[]));
    assert!((dog_ap(&unknown, None) - 1.0).abs() < 1e-12, "no word on dogs in image 7");
    assert!((dog_ap(&unknown, Some(Protocol::Coco)) - 0.5).abs() < 1e-12);
    let absent = dog_elsewhere(lvis_image(&[90, 12345], &[]));
    assert!((dog_ap(&absent, None) - 0.5).abs() < 1e-12, "verified absent");

    let miss = [detection(7, 3, BOX, 0.5), detection(7, 3, FAR, 0.9)];
    let exhaustive = one_box(lvis_image(&[], &[]), json!({}));
    assert!((ap(&exhaustive, &miss).unwrap() - 0.5).abs() < 1e-12);
    let not_exhaustive = one_box(lvis_image(&[], &[3]), json!({}));
    assert!((ap(&not_exhaustive, &miss).unwrap() - 1.0).abs() < 1e-12);
}

/// lvis-api reads `ignore` and never `iscrowd`; pycocotools the other way round.
#[test]
fn crowds_are_cocos_and_ignored_boxes_lviss() {
    let found = [detection(7, 3, BOX, 0.5)];
    let coco = json!({"id": 7});
    assert_eq!(ap(&one_box(coco.clone(), json!({"iscrowd": 1})), &found), None);
    assert_eq!(ap(&one_box(coco.clone(), json!({"iscrowd": true})), &found), None);
    assert!(ap(&one_box(coco, json!({"ignore": 1, "iscrowd": null})), &found).is_some());
    let lvis = lvis_image(&[], &[]);
    assert_eq!(ap(&one_box(lvis.clone(), json!({"ignore": 1})), &found), None);
    assert!(ap(&one_box(lvis, json!({"iscrowd": 1})), &found).is_some());
}

#[test]
fn an_image_keeps_its_300_best_over_all_classes() {
    let case = one_box(lvis_image(&[], &[]), json!({}));
    let mut found = vec![detection(7, 90, FAR, 0.9); 300];
    found.push(detection(7, 3, BOX, 0.5));
    assert_eq!(ap(&case, &found), Some(0.0));
    found.remove(0);
    assert!((ap(&case, &found).unwrap() - 1.0).abs() < 1e-12);
    // Among equal scores the first in the file stay.
    let mut tied = vec![detection(7, 90, FAR, 0.5); 300];
    tied.insert(299, detection(7, 3, BOX, 0.5));
    assert!((ap(&case, &tied).unwrap() - 1.0).abs() < 1e-12);
}

#[test]
fn fewer_detections_are_kept_if_asked_for() {
    let case = one_box(lvis_image(&[], &[]), json!({}));
    let evaluator = open(&case).with_max_detections(2);
    let recall = |found: &[Detection]| evaluator.evaluate(found).unwrap().get("AR@2");
    let dog = detection(7, 90, FAR, 0.9);
    let cat = detection(7, 3, BOX, 0.5);
    assert_eq!(recall(&[dog, dog, cat]), Some(0.0));
    assert_eq!(recall(&[cat, dog]), Some(1.0));
    let tied = Detection { score: 0.5, ..dog };
    assert_eq!(recall(&[tied, cat, tied]), Some(1.0));
    assert_eq!(recall(&[tied, tied, cat]), Some(0.0));
}

/// More images than one batch, ids with holes, negative ones, detections in any order.
#[test]
fn batches_of_images_do_not_show() {
    let ids: Vec<i64> = (0..2500).map(|i| i * 3 - 100).collect();
    let images: Vec<_> = ids.iter().rev().map(|id| json!({"id": id})).collect();
    let annotations: Vec<_> =
        ids.iter().map(|id| json!({"image_id": id, "category_id": -5, "bbox": BOX})).collect();
    let case = truth(json!(images), json!(annotations), json!([{"id": -5, "name": "cat"}]));
    // The first half of all images by id is found, with the better scores.
    let half = ids.iter().take(1250);
    let mut found: Vec<_> = half.map(|&id| detection(id, -5, BOX, 0.9)).collect();
    found.extend(ids.iter().skip(1250).map(|&id| detection(id, -5, FAR, 0.1)));
    found.reverse();
    let summary = evaluate(&case.path, &found, None).unwrap();
    assert!((summary.get("AR100").unwrap() - 0.5).abs() < 1e-12);
    assert!((summary.get("AP").unwrap() - 51.0 / 101.0).abs() < 1e-12);
    assert_eq!(summary.per_class[0].name, "cat");
}

#[test]
fn groups_and_counts_come_from_the_training_set_where_the_file_has_none() {
    let case = one_box(json!({"id": 7}), json!({}));
    let category = |id, image_count, frequency| Category {
        image_count,
        instance_count: 2 * image_count,
        frequency,
        ..testing::category(id, "")
    };
    let vocabulary = Vocabulary::new(vec![category(3, 5, Frequency::Rare)]);
    let evaluator = open(&case).with_training_vocabulary(&vocabulary);
    let summary = evaluator.evaluate(&[detection(7, 3, BOX, 0.5)]).unwrap();
    assert_eq!(summary.metrics.len(), 15);
    assert!((summary.get("APr").unwrap() - 1.0).abs() < 1e-12);
    assert_eq!((summary.get("APc"), summary.get("APf")), (None, None));
    let cat = &summary.per_class[0];
    assert_eq!((cat.frequency, cat.image_count), (Some(Frequency::Rare), 5));
    assert_eq!((cat.instance_count, cat.boxes), (10, 1));
    assert_eq!(summary.per_class[1].frequency, None, "the training set lacks dogs");
}

#[test]
fn the_summary_is_the_same_after_json() {
    let case = one_box(lvis_image(&[], &[]), json!({}));
    let summary = evaluate(&case.path, &[detection(7, 3, BOX, 0.5)], None).unwrap();
    let text = summary.to_json();
    assert!(text.contains("\"APr\": null") && text.contains("\"AR@300\": 1.0"), "{text}");
    assert!(text.find("\"AP\"").unwrap() < text.find("\"AP50\"").unwrap(), "official order");
    assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
}

/// Lists that are empty everywhere verify nothing: the same numbers as without them, unless LVIS's
/// protocol is asked for.
#[test]
fn the_protocol_is_that_of_the_content() {
    let miss = [detection(7, 3, BOX, 0.5), detection(7, 90, FAR, 0.9), detection(7, 3, FAR, 0.9)];
    let with = |image: Value, protocol| {
        let case = one_box(image, json!({}));
        let evaluator = Evaluator::of_as(&Dataset::open(&case.path).unwrap(), protocol).unwrap();
        let ap = evaluator.evaluate(&miss).unwrap().get("AP").unwrap();
        (evaluator.protocol(), evaluator.why().to_owned(), (100.0 * ap).round())
    };
    let (plain, why, ap) = with(json!({"id": 7}), None);
    assert_eq!((plain, ap), (Protocol::Coco, 50.0));
    assert!(why.contains("no image has neg_category_ids"), "{why}");
    let empty = || json!({"id": 7, "neg_category_ids": [], "not_exhaustive_category_ids": []});
    let (protocol, why, ap) = with(empty(), None);
    assert_eq!((protocol, ap), (Protocol::Coco, 50.0));
    assert!(why.contains("are empty in every image"), "{why}");
    let (asked, why, _) = with(empty(), Some(Protocol::Lvis));
    assert_eq!(asked, Protocol::Lvis);
    assert!(why.starts_with("as asked for; "), "{why}");
    for image in [lvis_image(&[90], &[]), lvis_image(&[], &[90])] {
        let (listed, why, _) = with(image.clone(), None);
        assert_eq!(listed, Protocol::Lvis);
        assert!(why.starts_with("1 of 1 image lists classes"), "{why}");
        assert_eq!(with(image, Some(Protocol::Coco)).0, Protocol::Coco);
    }
}

/// lvis-api's `get_ann_ids` wants more than no area, of boxes and of detections.
#[test]
fn lvis_leaves_out_what_has_no_area() {
    let nothing = [30.0, 30.0, 0.0, 20.0];
    let case = truth(
        json!([lvis_image(&[90], &[])]),
        json!([
            {"image_id": 7, "category_id": 3, "bbox": BOX},
            {"image_id": 7, "category_id": 3, "bbox": nothing},
        ]),
        cat_and_dog(),
    );
    let found = [detection(7, 3, nothing, 0.9), detection(7, 3, BOX, 0.5)];
    assert!((ap(&case, &found).unwrap() - 1.0).abs() < 1e-12);
    let coco = evaluate(&case.path, &found, Some(Protocol::Coco)).unwrap().get("AP").unwrap();
    assert!(coco < 0.6, "pycocotools counts both: {coco}");
}

#[test]
fn detections_of_other_data_are_named() {
    let case = one_box(json!({"id": 7}), json!({}));
    let evaluator = open(&case);
    let good = detection(7, 3, BOX, 0.5);
    let error = |d| evaluator.evaluate(&[good, d]).unwrap_err().to_string();
    let image = error(detection(8, 3, BOX, 0.5));
    assert!(image.contains("[1].image_id: ") && image.contains("no image with the id 8"));
    assert!(image.contains("`annotations`"), "{image}");
    let category = error(detection(7, 1, BOX, 0.5));
    assert!(category.contains("[1].category_id: "), "{category}");
    let nan = error(detection(7, 3, BOX, f64::NAN));
    assert!(nan.contains("[1]: not finite"), "{nan}");
    assert_eq!(evaluator.image_ids().collect::<Vec<_>>(), [7]);

    let dataset = Dataset::open(&case.path).unwrap();
    let lvis = Evaluator::of_as(&dataset, Some(Protocol::Lvis)).err().unwrap().to_string();
    assert!(lvis.contains("neg_category_ids"), "{lvis}");
}

/// Files have the words of the option; former files are read.
#[test]
fn a_protocol_is_written_as_its_option() {
    let written = |protocol: Protocol| serde_json::to_value(protocol).unwrap();
    assert_eq!(written(Protocol::VisualGenome), "visual-genome");
    assert_eq!(written(Protocol::OpenImages), "openimages");
    for name in ["visual-genome", "visualgenome"] {
        let read: Protocol = serde_json::from_value(name.into()).unwrap();
        assert_eq!(read, Protocol::VisualGenome);
    }
}
