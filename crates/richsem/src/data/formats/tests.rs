//! Which format and which part of a set are meant.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::{Opening, same_split};
use crate::{data::dataset::Dataset, testing::shared};

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, text).unwrap();
}

/// An annotation file of one image and one box.
fn coco(image: &str) -> String {
    format!(
        r#"{{"images": [{{"id": 1, "file_name": "{image}", "width": 8, "height": 6}}],
        "annotations": [{{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}}],
        "categories": [{{"id": 1, "name": "a"}}]}}"#
    )
}

fn split(path: &Path, split: Option<&str>, usual: Option<&'static str>) -> crate::Result<Dataset> {
    let opening =
        Opening { split: split.map(str::to_owned), usual_split: usual, ..Opening::default() };
    Dataset::open_as(path, &opening)
}

#[test]
fn names_of_splits_mean_the_same_with_years_and_prefixes() {
    for (name, wanted) in [
        ("valid", "val"),
        ("validation", "val"),
        ("val2017", "val"),
        ("lvis_v1_val", "validation"),
        ("train2017", "train"),
        ("instances-train", "train"),
        ("Test", "test"),
    ] {
        assert!(same_split(name, wanted), "{name} is {wanted}");
    }
    for (name, wanted) in [
        ("trainval", "val"),
        ("train", "val"),
        ("evaluation", "val"),
        ("fold1", "fold3"),
        ("val", "validation2"),
    ] {
        assert!(!same_split(name, wanted), "{name} is not {wanted}");
    }
}

#[test]
fn a_folder_of_coco_files_is_one_set_in_parts_with_its_images() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "annotations/instances_train2017.json", &coco("a.jpg"));
    write(root, "annotations/instances_val2017.json", &coco("b.jpg"));
    write(root, "annotations/captions_val2017.json", &coco("b.jpg"));
    write(root, "train2017/a.jpg", "");
    write(root, "val2017/b.jpg", "");
    let train = split(root, None, Some("train")).unwrap();
    assert_eq!((train.split(), train.images()[0].file_name.as_str()), ("train2017", "a.jpg"));
    assert_eq!(train.images_at(), Some(&*root.join("train2017")));
    let val = split(root, Some("val"), None).unwrap();
    assert_eq!(val.images_at(), Some(&*root.join("val2017")));
    let message = split(root, None, None).unwrap_err().to_string();
    assert!(message.contains("several parts: `train2017`, `val2017`"), "{message}");
    let message = split(root, Some("test"), None).unwrap_err().to_string();
    assert!(message.contains("no part `test`; it has `train2017`, `val2017`"), "{message}");
}

#[test]
fn files_of_one_split_are_told_apart_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "annotations/instances_train.json", &coco("a.jpg"));
    write(root, "annotations/train.json", &coco("b.jpg"));
    let message = split(root, None, Some("train")).unwrap_err().to_string();
    assert!(message.contains("several parts: `instances_train`, `train`"), "{message}");
    let whole = split(root, Some("instances_train"), None).unwrap();
    assert_eq!(whole.images()[0].file_name, "a.jpg");
}

#[test]
fn what_a_split_is_for_never_takes_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "train.json", &coco("a.jpg"));
    let message = split(root, None, Some("val")).unwrap_err().to_string();
    assert!(message.contains("no part `val`; it has `train`"), "{message}");
    // A file of no split's name is all of the set.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "labels.json", &coco("a.jpg"));
    assert_eq!(split(folder.path(), None, Some("val")).unwrap().split(), "labels");
}

#[test]
fn a_roboflow_export_has_its_images_beside_its_annotations() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (part, image) in [("train", "a.jpg"), ("valid", "b.jpg")] {
        write(root, &format!("{part}/_annotations.coco.json"), &coco(image));
        write(root, &format!("{part}/{image}"), "");
    }
    let val = split(root, None, Some("val")).unwrap();
    assert_eq!((val.split(), val.images()[0].file_name.as_str()), ("valid", "b.jpg"));
    assert_eq!(val.images_at(), Some(&*root.join("valid")));
}

#[test]
fn what_has_no_known_format_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let message = Dataset::open(root).unwrap_err().to_string();
    assert!(message.contains("an empty folder"), "{message}");
    write(root, "notes.txt", "Dear reader,\nthis is no annotation");
    let message = Dataset::open(root).unwrap_err().to_string();
    assert!(message.contains("no known format, with `notes.txt`"), "{message}");
    let message = Dataset::open(&root.join("notes.txt")).unwrap_err().to_string();
    assert!(message.contains("it begins with `Dear reader,"), "{message}");
    let named = Opening { format: Some("cocoa".into()), ..Opening::default() };
    let message = Dataset::open_as(root, &named).unwrap_err().to_string();
    assert!(message.contains("no format `cocoa`"), "{message}");
}

/// The names of all formats that fit a place.
fn fitting(path: &Path) -> Vec<&'static str> {
    let place = super::Place::new(path).unwrap();
    let formats = super::FORMATS.iter().filter(|format| (format.recognise)(&place).is_some());
    formats.map(|format| format.name).collect()
}

#[test]
fn samples_in_json_and_xml_have_one_format_each() {
    for (sample, format) in [
        ("coco_odd/odd.json", "coco"),
        ("coco_odd/odd_bom.json", "coco"),
        ("cvat/coco_1.0", "coco"),
        ("cvat/coco_1.0/annotations/instances_default.json", "coco"),
        ("cvat/for_images", "cvat"),
        ("cvat/for_images/project_annotations.xml", "cvat"),
        ("cvat/for_images/task_train.xml", "cvat"),
        ("labelstudio/polygons_result.json", "coco"),
        ("labelstudio/rectangles_result.json", "coco"),
        ("labelstudio/tasks_export.json", "label_studio"),
        ("objects365/zhiyuan_objv2_train.head.json", "coco"),
        ("openimages/openimages2coco_like.json", "coco"),
        ("roboflow_coco/datumaro", "coco"),
        ("roboflow_coco/datumaro/train/_annotations.coco.json", "coco"),
        ("v3det/v3det_2023_v1_train.like.json", "coco"),
        ("visual_genome", "visual_genome"),
        ("visual_genome/objects_v1.0.0.json", "visual_genome"),
        ("visual_genome/objects_v1.2.0.json", "visual_genome"),
    ] {
        let Some(path) = shared(&format!("samples/{sample}")) else { return };
        assert_eq!(fitting(&path), [format], "{sample}");
    }
}

#[test]
fn samples_of_other_formats_are_none_in_json_and_xml() {
    for sample in [
        "captions",
        "hf_parquet/classification",
        "hf_parquet/imagefolder",
        "hf_parquet/list_of_structs",
        "imagenet_tar",
        "openimages/mmdet",
        "openimages/oidv6-train-annotations-bbox.head.csv",
        "openimages/datumaro_v5",
        "roboflow_yolo/cones_and_cubes",
        "roboflow_yolo/datumaro",
        "visual_genome/attributes_v1.2.0.json",
        "visual_genome/image_data.json",
        "webdataset",
        "yolo/classify",
        "yolo/darknet_strict",
        "yolo/edge",
        "yolo/ultralytics_like",
    ] {
        let Some(path) = shared(&format!("samples/{sample}")) else { return };
        let fits = fitting(&path);
        for format in ["coco", "cvat", "label_studio", "visual_genome"] {
            assert!(!fits.contains(&format), "{sample} is {fits:?}");
        }
    }
}

#[test]
fn where_two_formats_fit_both_are_named() {
    let Some(path) = shared("samples/labelstudio") else { return };
    let message = Dataset::open(&path).unwrap_err().to_string();
    assert!(message.contains("more than one format fits: `coco` ("), "{message}");
    assert!(message.contains("`label_studio` (tasks_export.json is a list of tasks)"), "{message}");
    let named = Opening { format: Some("label_studio".into()), ..Opening::default() };
    assert_eq!(Dataset::open_as(&path, &named).unwrap().images().len(), 2);
}

/// Each sample has its own format, and no other one fits. Whoever adds a format adds its samples.
#[test]
fn every_sample_is_recognised_as_its_own_format() {
    for (path, format) in [
        ("samples/roboflow_coco/datumaro", "coco"),
        ("samples/roboflow_yolo/datumaro", "yolo"),
        ("samples/roboflow_yolo/cones_and_cubes", "yolo"),
        ("samples/yolo/edge", "yolo"),
        ("samples/yolo/edge/data_list.yaml", "yolo"),
        ("samples/yolo/darknet_strict", "darknet"),
        ("samples/yolo/darknet_strict/obj.data", "darknet"),
        ("photos/voc2012_100/yolo_format", "darknet"),
        ("samples/hf_parquet/struct_of_lists", "parquet"),
        ("samples/hf_parquet/struct_of_lists/data", "parquet"),
        ("samples/hf_parquet/list_of_structs/data/train-00000-of-00001.parquet", "parquet"),
        ("samples/hf_parquet/imagefolder", "imagefolder"),
        ("samples/hf_parquet/imagefolder/train", "imagefolder"),
        ("samples/hf_parquet/imagefolder/train/metadata.jsonl", "imagefolder"),
    ] {
        let Some(path) = shared(path) else { continue };
        let place = super::Place::new(&path).unwrap();
        let found = super::choose_format(&place, None).map(|format| format.name);
        assert_eq!(found.unwrap(), format, "{}", path.display());
    }
}

/// Tables of labels, shards and class folders are no annotations.
#[test]
fn samples_without_boxes_have_no_format() {
    for sample in [
        "captions",
        "hf_parquet",
        "hf_parquet/classification",
        "hf_parquet/classification/data",
        "hf_parquet/classification/data/train-00000-of-00001.parquet",
        "imagenet_tar",
        "webdataset",
        "webdataset/img2dataset",
        "yolo/classify",
    ] {
        let Some(path) = shared(&format!("samples/{sample}")) else { return };
        assert_eq!(fitting(&path), [""; 0], "{sample}");
    }
}

/// Folders of other things have none of the formats that are recognised by text files.
#[test]
fn samples_of_other_formats_are_not_taken_for_yolo_or_darknet() {
    let Some(samples) = shared("samples") else { return };
    for sample in fs_err::read_dir(samples).unwrap() {
        let sample = sample.unwrap().path();
        let name = sample.file_name().unwrap().to_string_lossy().into_owned();
        if !sample.is_dir() || matches!(name.as_str(), "yolo" | "roboflow_yolo") {
            continue;
        }
        let inner = fs_err::read_dir(&sample).unwrap().map(|entry| entry.unwrap().path());
        for path in inner.chain([sample.clone()]) {
            let place = super::Place::new(&path).unwrap();
            for format in [&super::darknet::FORMAT, &super::yolo::FORMAT] {
                assert_eq!((format.recognise)(&place), None, "{} {}", format.name, path.display());
            }
        }
    }
}
