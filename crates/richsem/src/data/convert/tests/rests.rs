//! Fields that nothing here reads: carried between COCO and LVIS, counted for others.

use serde_json::{Value, json};

use super::*;

/// A file with all that programs write beside boxes.
fn rich() -> Value {
    json!({
        "info": {"year": 2020}, "licenses": [{"id": 1, "name": "CC"}], "videos": [],
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 64, "height": 48, "license": 1,
             "date_captured": "2020", "video_id": 3, "flickr_url": "http", "custom": {"deep": [1.50, null]}},
            {"id": 8, "file_name": "b.jpg", "width": 64, "height": 48, "date_captured": ""}],
        "annotations": [
            {"id": 5, "image_id": 8, "category_id": 2, "bbox": [1.0, 2.0, 30.0, 10.0], "area": 12.5, "iscrowd": 0,
             "segmentation": [[1, 2, 31, 2, 31, 12]], "keypoints": [1, 2, 2], "num_keypoints": 1,
             "attributes": {"occluded": true, "rotation": 30.0}, "score": 0.9, "track_id": 5},
            {"id": 4, "image_id": 7, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.0, "iscrowd": 1,
             "segmentation": {"counts": "abc", "size": [48, 64]}, "attributes": {}}],
        "categories": [
            {"id": 1, "name": "cat", "synonyms": ["cat", "kitty"], "def": "a cat", "skeleton": [[1, 2]]},
            {"id": 2, "name": "dog", "synonyms": ["dog"], "supercategory": ["odd"]}],
    })
}

fn by_id(file: &Value, list: &str) -> Vec<Value> {
    let mut all = file[list].as_array().unwrap().clone();
    all.sort_by_key(|record| record["id"].as_i64());
    all
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Every field of every record.
fn assert_whole(before: &Value, after: &Value) {
    for list in ["images", "annotations", "categories"] {
        assert_eq!(by_id(before, list), by_id(after, list), "{list}");
    }
    let top = |file: &Value| {
        let mut top = file.as_object().unwrap().clone();
        top.retain(|key, _| !["images", "annotations", "categories"].contains(&key.as_str()));
        top
    };
    assert_eq!(top(before), top(after));
}

#[test]
fn a_file_keeps_every_field_in_its_own_format() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(folder.path(), "rich.json", rich().to_string());
    let report = to(Target::Coco, &input, &folder.path().join("out")).unwrap();
    assert_eq!((lost(&report), report.fields_counted), (vec![], true));
    assert_whole(&rich(), &read(&report.splits[0].path));
    let (before, after) =
        (Dataset::open(&input).unwrap(), Dataset::open(&report.splits[0].path).unwrap());
    assert_same(&before, &after);
    assert_eq!(before.synonyms(), after.synonyms());
    // Ids that are texts.
    let text = rich().to_string().replace("\"id\":7,", "\"id\":\"x7\",");
    let text = text.replace("\"image_id\":7,", "\"image_id\":\"x7\",");
    let text = text.replace("\"id\":5,\"image_id\"", "\"id\":\"a5\",\"image_id\"");
    let input = write(folder.path(), "texts.json", text);
    let report = to(Target::Coco, &input, &folder.path().join("texts")).unwrap();
    let after = read(&report.splits[0].path);
    let custom = |file: &Value| -> Vec<Value> {
        file["images"].as_array().unwrap().iter().map(|image| image["custom"].clone()).collect()
    };
    assert_eq!(custom(&after), custom(&rich()));
    let scored = after["annotations"].as_array().unwrap().iter().filter(|a| a["score"] == 0.9);
    assert_eq!(scored.map(|a| a["track_id"].clone()).collect::<Vec<_>>(), [json!(5)]);
}

/// The file in an archive, also packed; the second of two, so that it does not lie at the beginning.
#[test]
fn a_file_of_an_archive_keeps_every_field() {
    let folder = tempfile::tempdir().unwrap();
    let packed = {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        std::io::Write::write_all(&mut packer, rich().to_string().as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let input = folder.path().join("set.tar");
    let mut builder = tar::Builder::new(std::fs::File::create(&input).unwrap());
    for (name, bytes) in
        [("set/val.json", rich().to_string().into_bytes()), ("set/train.json.gz", packed)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &*bytes).unwrap();
    }
    builder.into_inner().unwrap();
    let keep = Some(super::super::PutImages::Keep);
    let how = Conversion { images: keep, ..Conversion::to(Target::Coco) };
    let report = convert(&input, &folder.path().join("out"), &how, &GO, &mut go_on).unwrap();
    assert_eq!((lost(&report), report.fields_counted), (vec![], true));
    assert_eq!(report.splits.len(), 2);
    report.splits.iter().for_each(|split| assert_whole(&rich(), &read(&split.path)));
}

#[test]
fn real_files_keep_every_field() {
    for file in ["evaluation/lvis/lvis_val_100_refreq.json", "photos/coco_mini/instances.json"] {
        let Some(input) = shared(file) else { continue };
        let output = tempfile::tempdir().unwrap();
        let target = if file.contains("lvis") { Target::Lvis } else { Target::Coco };
        let how =
            Conversion { images: Some(super::super::PutImages::Keep), ..Conversion::to(target) };
        let report = convert(&input, output.path(), &how, &GO, &mut go_on).unwrap();
        let (before, after) = (read(&input), read(&report.splits[0].path));
        for list in ["images", "annotations", "categories"] {
            for (before, after) in by_id(&before, list).iter().zip(by_id(&after, list)) {
                for (field, value) in before.as_object().unwrap() {
                    let same = match (value.as_f64(), after[field].as_f64()) {
                        (Some(before), Some(after)) => before.total_cmp(&after).is_eq(),
                        _ => field == "bbox" || *value == after[field],
                    };
                    assert!(same, "{file} {list} {field}: {value} {}", after[field]);
                }
            }
        }
        assert_eq!(before["info"], after["info"]);
    }
}

#[test]
fn fields_that_yolo_has_no_place_for_are_counted_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let input = write(folder.path(), "train.json", rich().to_string());
    let how =
        Conversion { images: Some(super::super::PutImages::Keep), ..Conversion::to(Target::Yolo) };
    let report = convert(&input, &folder.path().join("out"), &how, &GO, &mut go_on).unwrap();
    let lost = lost(&report);
    for (what, count) in [
        ("`info` of the file", 1),
        ("`licenses` of the file", 1),
        ("annotations with `segmentation`", 2),
        ("annotations with `keypoints`", 1),
        ("annotations with `attributes`", 1),
        ("annotations with `score`", 1),
        ("annotations with `track_id`", 1),
        ("images with `license`", 1),
        ("images with `date_captured`", 1),
        ("images with `video_id`", 1),
        ("images with `custom`", 1),
        ("categories with `def`", 1),
        ("categories with `skeleton`", 1),
        ("categories with `supercategory`", 1),
    ] {
        assert!(lost.contains(&format!("train: {what} {count}")), "{what}: {lost:?}");
    }
    assert!(!lost.iter().any(|line| line.contains("videos")), "an empty list says nothing");
    assert!(report.fields_counted);
}

/// Parts that number their classes in different ways, one of which lists what the other does not.
#[test]
fn fields_of_classes_follow_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let (train, mut val) = (rich(), rich());
    val["categories"] = json!([{"id": 2, "name": "ant", "def": "an ant"}, {"id": 1, "name": "dog", "def": "a dog"}]);
    write(folder.path(), "in/train.json", train.to_string());
    write(folder.path(), "in/val.json", val.to_string());
    let report = to(Target::Coco, &folder.path().join("in"), &folder.path().join("out")).unwrap();
    for split in &report.splits {
        let file = read(&split.path);
        let defs: Vec<_> = by_id(&file, "categories")
            .iter()
            .map(|c| (c["name"].as_str().unwrap().to_owned(), c["def"].clone()))
            .collect();
        let dog = if split.name == "val" { json!("a dog") } else { Value::Null };
        let expected = [("ant", json!("an ant")), ("cat", json!("a cat")), ("dog", dog)]
            .map(|(n, d)| (n.to_owned(), d));
        assert_eq!(defs, expected, "{}", split.name);
    }
}
