//! Real files, and one of LVIS's shape, against the same files read whole by `serde_json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::file;
use crate::{
    data::{dataset::Dataset, records::AnnotationFormat},
    testing::{shared, write_lvis},
    vocabulary::{ClassIndex, Frequency},
};

/// Compares every field of every record with the file itself.
fn agrees_with_the_file(dataset: &Dataset) {
    let text = std::fs::read(dataset.path()).unwrap();
    let whole: Value = serde_json::from_slice(&text).unwrap();
    let list = |key: &str| whole[key].as_array().unwrap();
    let id = |v: &Value| v.as_i64().unwrap();

    let ids: BTreeSet<i64> = list("categories").iter().map(|c| id(&c["id"])).collect();
    let class: BTreeMap<i64, ClassIndex> = ids.into_iter().zip((0..).map(ClassIndex)).collect();
    let mut by_image: BTreeMap<i64, Vec<&Value>> = BTreeMap::new();
    for annotation in list("annotations") {
        by_image.entry(id(&annotation["image_id"])).or_default().push(annotation);
    }
    let mut images_of: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    let mut instances: BTreeMap<i64, u64> = BTreeMap::new();
    for annotation in list("annotations") {
        let category = id(&annotation["category_id"]);
        images_of.entry(category).or_default().insert(id(&annotation["image_id"]));
        *instances.entry(category).or_default() += 1;
    }

    assert_eq!(dataset.vocabulary().len(), list("categories").len());
    for raw in list("categories") {
        let found = dataset.vocabulary().category(class[&id(&raw["id"])]);
        assert_eq!(
            (found.id.0, found.name.as_str()),
            (id(&raw["id"]), raw["name"].as_str().unwrap())
        );
        let counted = images_of.get(&found.id.0).map_or(0, |i| i.len() as u64);
        assert_eq!(u64::from(found.image_count), raw["image_count"].as_u64().unwrap_or(counted));
        let counted = instances.get(&found.id.0).copied().unwrap_or(0);
        assert_eq!(
            u64::from(found.instance_count),
            raw["instance_count"].as_u64().unwrap_or(counted)
        );
        let group = Frequency::of(found.image_count).letter().to_string();
        assert_eq!(
            found.frequency.letter().to_string(),
            raw["frequency"].as_str().unwrap_or(&group)
        );
        assert_eq!(found.synset.as_deref(), raw["synset"].as_str());
        assert_eq!(found.wnid.as_deref(), raw["wnid"].as_str());
        assert_eq!(found.text_row.map(u64::from), raw["lvis_clip_row"].as_u64());
    }

    assert_eq!(dataset.images().len(), list("images").len());
    let none = Vec::new();
    for (index, (record, raw)) in dataset.images().iter().zip(list("images")).enumerate() {
        assert_eq!(record.id, id(&raw["id"]));
        let size = record.size.unwrap().map(i64::from);
        assert_eq!(size, [id(&raw["height"]), id(&raw["width"])]);
        match raw["file_name"].as_str() {
            Some(name) => assert_eq!(record.file_name, name),
            None => assert!(
                raw["coco_url"].as_str().unwrap().ends_with(&format!("/{}", record.file_name))
            ),
        }
        for (classes, key) in [
            (&record.neg_classes, "neg_category_ids"),
            (&record.not_exhaustive_classes, "not_exhaustive_category_ids"),
        ] {
            let expected: Vec<_> =
                raw[key].as_array().unwrap_or(&none).iter().map(|c| class[&id(c)]).collect();
            assert_eq!(*classes, expected);
        }
        let empty = Vec::new();
        let annotations = by_image.get(&record.id).unwrap_or(&empty);
        assert_eq!(dataset.annotations_of(index).len(), annotations.len());
        for (found, raw) in dataset.annotations_of(index).iter().zip(annotations) {
            assert_eq!((found.id, found.image as usize), (id(&raw["id"]), index));
            assert_eq!(found.class, class[&id(&raw["category_id"])]);
            let bbox: Vec<f64> =
                raw["bbox"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            assert_eq!(found.bbox.0.as_slice(), bbox);
            assert_eq!(found.area, raw["area"].as_f64().unwrap());
            assert_eq!(found.crowd, raw["iscrowd"].as_i64() == Some(1));
        }
    }
}

#[test]
fn real_files_are_read_as_they_are() {
    use AnnotationFormat::{Coco, Lvis};
    // (file, format, images, annotations, classes, crowds): counted with Python's json.
    let table = [
        ("tinylvis/train.json", Lvis, 1076, 4236, 40, 0),
        ("tinylvis/val.json", Lvis, 405, 1600, 40, 0),
        ("photos/coco_mini/instances.json", Coco, 150, 1432, 80, 11),
        ("evaluation/lvis/data_lvis_val_100.json", Lvis, 100, 977, 1230, 0),
        ("evaluation/lvis/lvis_val_100_refreq.json", Lvis, 100, 977, 1230, 0),
        ("evaluation/coco/fce_gt_dt_gt.json", Coco, 3, 9, 4, 0),
        ("evaluation/coco/fce_ignore_gt.json", Coco, 1, 14, 1, 1),
        ("evaluation/coco/rafael_val2014_100_bboxarea_gt.json", Coco, 100, 830, 80, 0),
        ("evaluation/coco/rafael_voc2012_100_gt.json", Coco, 100, 273, 20, 0),
        ("evaluation/coco/val2014_100_fakebbox_gt.json", Coco, 100, 839, 80, 9),
    ];
    for (name, format, images, annotations, classes, crowds) in table {
        let Some(path) = shared(name) else { return };
        let dataset = Dataset::open(&path).unwrap();
        let report = dataset.report();
        assert_eq!(dataset.format(), format, "{name}");
        assert_eq!(
            (report.images, report.annotations, report.categories, report.crowd),
            (images, annotations, classes, crowds),
            "{name}"
        );
        assert_eq!(report.warnings, Vec::<String>::new(), "{name}");
        let trained: usize = (0..images).map(|i| dataset.training_boxes(i).len()).sum();
        assert_eq!(trained, annotations - crowds - report.degenerate.count, "{name}");
        agrees_with_the_file(&dataset);
    }
}

#[test]
fn detection_files_are_recognised() {
    let Some(path) = shared("evaluation/lvis/lvis_synth_dets_good.json") else { return };
    let message = Dataset::open(&path).unwrap_err().to_string();
    assert!(message.contains("detections file"), "{message}");
}

#[test]
fn a_file_of_lvis_shape_is_read_as_it_is() {
    let mut content = Vec::new();
    let counts = write_lvis(&mut content, 0.002).unwrap();
    let written = file(&content);
    for chunk in [super::WHOLE, 5000] {
        let dataset = super::open_in_chunks(written.path(), chunk).unwrap();
        let report = dataset.report();
        assert_eq!(
            (report.images, report.annotations, report.categories),
            (counts.images, counts.annotations, counts.categories)
        );
        assert_eq!(dataset.format(), AnnotationFormat::Lvis);
        agrees_with_the_file(&dataset);
    }
}
