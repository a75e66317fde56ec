//! What programs write into COCO's format, one fact of each sample a test.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::value::RawValue;

use super::segmentation;
use crate::{
    boxes::Xywh,
    data::{dataset::Dataset, records::AnnotationFormat},
    testing::shared,
};

/// A copy of a sample, some of its text replaced; none where the samples are absent.
fn sample(name: &str, changes: &[(&str, &str)]) -> Option<tempfile::TempDir> {
    let path = shared(&format!("samples/{name}"))?;
    let mut text = fs_err::read_to_string(path).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("a.json"), text).unwrap();
    Some(folder)
}

fn open(folder: &tempfile::TempDir) -> crate::Result<Dataset> {
    Dataset::open(&folder.path().join("a.json"))
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, text).unwrap();
}

/// One image and one annotation with these fields.
fn one(image: &str, annotation: &str) -> crate::Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        r#"{{"images": [{{"id": 1, "width": 10, "height": 8, {image}}}],
        "annotations": [{{"id": 1, "image_id": 1, "category_id": 1, {annotation}}}],
        "categories": [{{"id": 1, "name": "a"}}]}}"#
    );
    write(folder.path(), "a.json", &text);
    open(&folder)
}

#[track_caller]
fn noted(dataset: &Dataset, note: &str) {
    let notes = &dataset.report().notes;
    assert!(notes.iter().any(|line| line.contains(note)), "{notes:?}");
}

/// The odd file's mistakes, put right.
const MENDED: [(&str, &str); 2] = [("-1,", "1,"), ("\"id\": 3,", "\"id\": 4,")];

#[test]
fn the_odd_file_says_what_is_wrong_one_after_the_other() {
    for name in ["coco_odd/odd.json", "coco_odd/odd_bom.json"] {
        let Some(folder) = sample(name, &[]) else { return };
        let message = open(&folder).unwrap_err().to_string();
        assert!(message.contains("annotations[3].bbox: expected a width of 0 or more, got -1"));
        let folder = sample(name, &MENDED[..1]).unwrap();
        let message = open(&folder).unwrap_err().to_string();
        assert!(message.contains("annotations[3].id: 3 is already the id of annotations[2]"));
    }
}

#[test]
fn the_odd_file_mended() {
    for name in ["coco_odd/odd.json", "coco_odd/odd_bom.json"] {
        let Some(folder) = sample(name, &MENDED) else { return };
        let dataset = open(&folder).unwrap();
        let images: Vec<_> =
            dataset.images().iter().map(|i| (i.id, i.file_name.as_str(), i.size)).collect();
        assert_eq!(images, [(1, "x/1.jpg", None), (2, "data/2.jpg", Some([10, 10]))]);
        assert_eq!([dataset.text_id(0), dataset.text_id(1)], [Some("a1"), Some("2")]);
        assert_eq!(dataset.image_names().with_text("a1"), Some(1));
        assert_eq!(dataset.image_names().text_of(2), Some("2"));
        let boxes: Vec<_> = dataset.annotations().iter().map(|a| (a.image, a.bbox.0)).collect();
        let expected = [
            (0, [1.0, 2.0, 3.0, 4.0]),
            (1, [1.0, 1.0, 4.0, 5.0]),
            (1, [8.0, 8.0, 5.0, 5.0]),
            (1, [3.0, 3.0, 1.0, 4.0]),
        ];
        assert_eq!(boxes, expected, "the second has a polygon alone");
        let ignored: Vec<bool> = dataset.annotations().iter().map(|a| a.ignore).collect();
        assert_eq!(ignored, [false, false, true, false]);
        assert_eq!(dataset.report().unknown_sizes, 1);
        assert!(dataset.report().warnings[0].contains("more than one category is called `cat`"));
        noted(
            &dataset,
            "images named by a URL, its path below the host is taken: 1 (as data/2.jpg)",
        );
        noted(&dataset, "the box around their outline is taken: 1 (the first has the id 2)");
    }
}

#[test]
fn ids_of_annotations_may_be_texts() {
    let with = |ids: [&str; 3]| {
        let folder = tempfile::tempdir().unwrap();
        let annotation = |id: &str| {
            format!(r#"{{"id": {id}, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}}"#)
        };
        let text = format!(
            r#"{{"annotations": [{}], "images": [{{"id": 1, "file_name": "a.jpg"}}],
            "categories": [{{"id": 1, "name": "a"}}]}}"#,
            ids.map(annotation).join(",")
        );
        write(folder.path(), "a.json", &text);
        open(&folder)
    };
    let ids = |dataset: &Dataset| -> Vec<i64> {
        dataset.annotations().iter().map(|annotation| annotation.id).collect()
    };
    let numbers = with(["\"12\"", "7.0", "3"]).unwrap();
    assert_eq!(ids(&numbers), [12, 7, 3]);
    assert_eq!(numbers.annotation_text_id(&numbers.annotations()[0]), None);
    let texts = with(["12", "\"9f-2\"", "\"013\""]).unwrap();
    assert_eq!(ids(&texts), [1, 2, 3]);
    let written: Vec<_> =
        texts.annotations().iter().map(|a| texts.annotation_text_id(a).unwrap()).collect();
    assert_eq!(written, ["12", "9f-2", "013"]);
    noted(&texts, "ids of annotations are texts, as `12`: messages number the annotations from 1");
    let twice = with(["1", "\"a\"", "\"a\""]).unwrap_err().to_string();
    assert!(
        twice.contains("annotations[2].id: \"a\" is already the id of annotations[1]"),
        "{twice}"
    );
}

#[test]
fn ids_are_texts_if_any_is_and_numbers_as_texts_are_none() {
    let with = |ids: [&str; 2], image_id: &str| {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            r#"{{"annotations": [{{"id": 1, "image_id": {image_id}, "category_id": 1, "bbox": [0, 0, 1, 1]}}],
            "images": [{{"id": {}, "file_name": "a.jpg"}}, {{"id": {}, "file_name": "b.jpg"}}],
            "categories": [{{"id": 1, "name": "a"}}]}}"#,
            ids[0], ids[1]
        );
        write(folder.path(), "a.json", &text);
        open(&folder)
    };
    let numbers = with(["\"12\"", "7.0"], "12").unwrap();
    assert_eq!((numbers.images()[0].id, numbers.images()[1].id), (12, 7));
    assert_eq!((numbers.text_id(0), numbers.annotations()[0].image), (None, 0));
    // Open Images: digits alone, but not a number's.
    let texts = with(["\"0012345678901234\"", "\"000595fe6fee6369\""], "\"000595fe6fee6369\"");
    let texts = texts.unwrap();
    assert_eq!((texts.images()[0].id, texts.images()[1].id), (1, 2));
    assert_eq!((texts.text_id(0), texts.annotations()[0].image), (Some("0012345678901234"), 1));
    let message = with(["\"x\"", "\"x\""], "\"x\"").unwrap_err().to_string();
    assert!(message.contains("images[1].id: \"x\" is already the id of images[0]"), "{message}");
    let message = with(["\"x\"", "\"y\""], "\"z\"").unwrap_err().to_string();
    assert!(message.contains("annotations[0].image_id: no image has the id \"z\""), "{message}");
    assert!(message.contains("the file has 2 images; the id of the first is \"x\""), "{message}");
}

#[test]
fn open_images_made_into_coco() {
    let name = "openimages/openimages2coco_like.json";
    let Some(folder) = sample(name, &[("\"isgroupof\": 0", "\"isgroupof\": 1")]) else { return };
    let dataset = open(&folder).unwrap();
    assert_eq!(dataset.text_id(1), Some("000595fe6fee6369"));
    let crowds: Vec<bool> = dataset.annotations().iter().map(|a| a.crowd).collect();
    assert_eq!(crowds, [true, false, false, false], "`iscrowd` is false in all");
    noted(
        &dataset,
        "boxes around a group (isgroupof), taken as crowd regions: 1 (the first has the id 0)",
    );
    assert_eq!(dataset.format(), AnnotationFormat::Lvis);
    assert_eq!(dataset.images()[0].neg_classes.len(), 1);

    // Verified, but nobody drew a box.
    let folder =
        sample(name, &[("\"pos_category_ids\": [\n    2", "\"pos_category_ids\": [\n    2, 1")]);
    let dataset = open(&folder.unwrap()).unwrap();
    let open_classes: Vec<u32> =
        dataset.images()[1].not_exhaustive_classes.iter().map(|class| class.0).collect();
    assert_eq!(open_classes, [0]);
    assert!(dataset.images()[0].not_exhaustive_classes.is_empty());
    noted(&dataset, "taken as not exhaustively annotated: 1 in 1 image");
}

#[test]
fn flags_of_groups_are_yes_no_or_unknown() {
    for (flag, crowd) in [("1", true), ("true", true), ("0", false), ("-1", false)] {
        let annotation = format!(r#""bbox": [0, 0, 1, 1], "isgroupof": {flag}"#);
        let dataset = one(r#""file_name": "a.jpg""#, &annotation).unwrap();
        assert_eq!(dataset.annotations()[0].crowd, crowd, "{flag}");
    }
    let message = one(r#""file_name": "a.jpg""#, r#""bbox": [0, 0, 1, 1], "isgroupof": 2"#);
    let message = message.unwrap_err().to_string();
    assert!(message.contains("annotations[0].isgroupof: expected 0, 1 or -1, got 2"), "{message}");
}

#[test]
fn cvat_writes_zeros_rotations_and_masks() {
    let Some(path) = shared("samples/cvat/coco_1.0") else { return };
    let dataset = Dataset::open(&path).unwrap();
    assert_eq!(dataset.split(), "default");
    let names: Vec<_> = dataset.images().iter().map(|i| (i.file_name.as_str(), i.size)).collect();
    let expected = [("job_1/frame 000.png", Some([480, 640])), ("job_1/frame 001.png", None)];
    assert_eq!(names, expected);
    let [plain, turned, mask] = dataset.annotations() else { panic!() };
    assert_eq!(plain.bbox, Xywh([283.44, 67.61, 294.96, 338.09]));
    // 100 x 50 around (150, 125), turned by 45 degrees: 150 / sqrt 2 on each side.
    let side = 150.0 / 2f64.sqrt();
    let expected = [150.0 - side / 2.0, 125.0 - side / 2.0, side, side];
    for (got, expected) in turned.bbox.0.into_iter().zip(expected) {
        assert!((got - expected).abs() < 1e-9, "{got} {expected}");
    }
    assert_eq!(turned.area, 5000.0, "the area is the file's");
    assert!(mask.crowd);
    noted(&dataset, "the upright box around is taken: 1 (the first has the id 2)");
    assert!(dataset.report().warnings[0].contains("1 crowd region: not trained on"));
}

#[test]
fn attributes_of_other_programs_turn_nothing() {
    for attributes in [r#"{"rotation": 45}"#, r#"["rotation"]"#, r#""tall""#, "null", "7"] {
        let annotation = format!(r#""bbox": [1, 2, 3, 4], "attributes": {attributes}"#);
        let dataset = one(r#""file_name": "a.jpg""#, &annotation).unwrap();
        assert_eq!(dataset.annotations()[0].bbox, Xywh([1.0, 2.0, 3.0, 4.0]), "{attributes}");
    }
}

#[test]
fn label_studio_hashes_names_and_lists_images_twice() {
    let Some(path) = shared("samples/labelstudio/rectangles_result.json") else { return };
    let dataset = Dataset::open(&path).unwrap();
    let ids: Vec<i64> = dataset.images().iter().map(|image| image.id).collect();
    assert_eq!(
        (ids, dataset.images()[1].file_name.as_str()),
        (vec![0, 1, 2], "images/718f1d05__image1")
    );
    assert_eq!(dataset.report().same_file.ids, [1]);
    noted(&dataset, "have no extension, taken as they are: 3 (as images/718f1d05__image1)");
    let Some(path) = shared("samples/labelstudio/polygons_result.json") else { return };
    let dataset = Dataset::open(&path).unwrap();
    let [annotation] = dataset.annotations() else { panic!() };
    assert_eq!((annotation.id, dataset.vocabulary().len()), (0, 2));
    // The box of its polygon is the one that the file has.
    let raw: serde_json::Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    let outline = RawValue::from_string(raw["annotations"][0]["segmentation"].to_string()).unwrap();
    let around = segmentation::bbox(&outline).unwrap().unwrap();
    for (got, expected) in around.into_iter().zip(annotation.bbox.0) {
        assert!((got - expected).abs() < 1e-9, "{got} {expected}");
    }
    let nulls = [("\"width\": 640", "\"width\": null"), ("\"height\": 426", "\"height\": null")];
    let folder = sample("labelstudio/polygons_result.json", &nulls).unwrap();
    assert_eq!(open(&folder).unwrap().images()[0].size, None);
}

#[test]
fn roboflow_names_its_copies_and_a_class_above_all() {
    let folder = tempfile::tempdir().unwrap();
    let image = |id: u32, name: &str| {
        format!(r#"{{"id": {id}, "file_name": "{name}", "width": 8, "height": 6}}"#)
    };
    let images = [
        image(0, "cat_jpg.rf.0a.jpg"),
        image(1, "dog_jpg.rf.0b.jpg"),
        image(2, "dog_jpg.rf.0c.jpg"),
        image(3, "dog_jpg.rf.0d.jpg"),
    ];
    let text = format!(
        r#"{{"images": [{}], "annotations": [{{"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4]}}],
        "categories": [{{"id": 0, "name": "pets", "supercategory": "none"}},
        {{"id": 1, "name": "cat", "supercategory": "pets"}}]}}"#,
        images.join(", ")
    );
    for part in ["train", "valid"] {
        write(folder.path(), &format!("{part}/_annotations.coco.json"), &text);
    }
    let opening = crate::data::formats::Opening { split: Some("val".into()), ..Default::default() };
    let dataset = Dataset::open_as(folder.path(), &opening).unwrap();
    assert_eq!(dataset.split(), "valid");
    noted(
        &dataset,
        "images that Roboflow made from others: 4 of 2 sources (`dog_jpg` is there 3 times)",
    );
    assert!(dataset.report().warnings[0].contains("is the supercategory of all others"));
}

#[test]
fn objects365_has_misspelt_names_and_images_elsewhere() {
    let Some(path) = shared("samples/objects365/zhiyuan_objv2_train.head.json") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zhiyuan_objv2_train.json");
    fs_err::copy(path, &file).unwrap();
    let dataset = Dataset::open(&file).unwrap();
    let whole = "images/v1/patch8/objects365_v1_00420917.jpg";
    assert_eq!((dataset.images()[0].file_name.as_str(), dataset.images_at()), (whole, None));
    let names: Vec<&str> = dataset.vocabulary().categories().iter().map(|c| &*c.name).collect();
    assert_eq!(
        (names[37], names[52], names[307], names.len()),
        ("Monitor/TV", "Basket", "Camel", 365)
    );
    assert_eq!(dataset.synonyms()[37], ["Moniter/TV", "Monitor", "TV"]);
    assert_eq!(dataset.synonyms()[12], ["Cabinet", "shelf"]);
    let board = names.iter().position(|name| *name == "Cutting/chopping Board").unwrap();
    assert_eq!(dataset.synonyms()[board], ["Cutting Board", "chopping Board"]);
    noted(&dataset, "put right: 13 (as `Monitor/TV` for `Moniter/TV`)");

    write(folder.path(), "train/patch8/objects365_v1_00420917.jpg", "");
    let dataset = Dataset::open(&file).unwrap();
    assert_eq!(dataset.images()[0].file_name, "patch8/objects365_v1_00420917.jpg");
    assert_eq!(dataset.images_at(), Some(&*folder.path().join("train")));
    noted(&dataset, "by the last two parts of their names");
}

#[test]
fn names_are_not_cut_where_that_would_mix_images_up() {
    let folder = tempfile::tempdir().unwrap();
    let image = |id: u32, name: &str| format!(r#"{{"id": {id}, "file_name": "{name}"}}"#);
    let text = format!(
        r#"{{"images": [{}, {}], "annotations": [], "categories": [{{"id": 1, "name": "a"}}]}}"#,
        image(1, "left/a.jpg"),
        image(2, "right/a.jpg")
    );
    write(folder.path(), "a.json", &text);
    write(folder.path(), "images/a.jpg", "");
    let dataset = open(&folder).unwrap();
    assert_eq!(
        (dataset.images()[1].file_name.as_str(), dataset.images_at()),
        ("right/a.jpg", None)
    );
    let warnings = &dataset.report().warnings;
    assert!(warnings.iter().any(|w| w.contains("do not tell all images apart")), "{warnings:?}");
}

#[test]
fn v3det_has_a_class_tree_beside() {
    let Some(path) = shared("samples/v3det/v3det_2023_v1_train.like.json") else { return };
    let dataset = Dataset::open(&path).unwrap();
    assert_eq!(dataset.synonyms(), [vec![], vec!["ATM".to_owned()]]);
    noted(&dataset, "category_tree.like.json: synonyms of 1 class, the class above of 2");
    let Some(folder) = sample("v3det/v3det_2023_v1_train.like.json", &[]) else { return };
    assert!(open(&folder).unwrap().report().notes.is_empty(), "without a tree nothing is missing");
    write(folder.path(), "v3det_2023_v1_category_tree.json", "{\"id2name\": {}");
    let message = open(&folder).unwrap_err().to_string();
    assert!(message.contains("category_tree.json: class tree: not V3Det's"), "{message}");
    let Some(folder) = shared("samples/v3det") else { return };
    let splits = super::folder::splits(&super::Place::new(&folder).unwrap()).unwrap();
    assert_eq!(splits, ["v3det_2023_v1_train.like"], "the tree is no annotation file");
}

#[test]
fn visual_genome_as_coco_files_has_ids_from_0() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{"images": [{"id": 2370799, "file_name": "VG_100K_2/1.jpg", "width": 8, "height": 6}],
        "annotations": [{"id": 0, "image_id": 2370799, "category_id": 0, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 0, "name": "yolk"}, {"id": 1, "name": "goal"}]}"#;
    for part in ["train", "val", "test"] {
        write(folder.path(), &format!("annotations/visual_genome_{part}.json"), text);
    }
    write(folder.path(), "images/VG_100K_2/1.jpg", "");
    let opening =
        crate::data::formats::Opening { usual_split: Some("train"), ..Default::default() };
    let dataset = Dataset::open_as(folder.path(), &opening).unwrap();
    assert_eq!((dataset.split(), dataset.vocabulary().len()), ("visual_genome_train", 2));
    assert_eq!(dataset.images_at(), Some(&*folder.path().join("images")));
}

/// Made and measured by pycocotools 2.0.
#[test]
fn masks_have_the_boxes_of_pycocotools() {
    let bbox = |text: &str| segmentation::bbox(&RawValue::from_string(text.to_owned()).unwrap());
    let ellipse = "{\"size\": [300, 200], \"counts\": \"ko<k0[8<F8H8I6K4K6K4L4L4M2M4M2N2M4M2N2N2N2N2N2O0O2N2O0O2O0O2O000O2O000000000000000000000001N10001N101N101N2N101N2N2N2N2N2N3L3N2N3L3N3L4L4L5J5L5J7H8H:DoVh0\"}";
    assert_eq!(bbox(ellipse).unwrap(), Some([44.0, 61.0, 73.0, 119.0]));
    let parts = r#"{"size": [7, 5], "counts": "913030001"}"#;
    assert_eq!(bbox(parts).unwrap(), Some([1.0, 2.0, 3.0, 5.0]));
    // A run over the end of a column, and one of all columns.
    let numbers = r#"{"size": [4, 3], "counts": [3, 2, 7]}"#;
    assert_eq!(bbox(numbers).unwrap(), Some([0.0, 0.0, 2.0, 4.0]));
    assert_eq!(bbox(r#"{"size": [4, 3], "counts": [0, 12]}"#).unwrap(), Some([0.0, 0.0, 3.0, 4.0]));
    assert_eq!(bbox(r#"{"size": [4, 3], "counts": [12]}"#).unwrap(), None);
    assert_eq!(
        bbox("[[1, 2, 5, 2, 3, 9], [0, 4, 2, 4, 2, 5]]").unwrap(),
        Some([0.0, 2.0, 5.0, 7.0])
    );
    assert_eq!(bbox("[]").unwrap(), None);
    for (broken, says) in [
        (r#"{"size": [4, 3], "counts": [3, 2]}"#, "cover 5 of its 12 pixels"),
        (r#"{"size": [4, 3], "counts": [3, 20]}"#, "longer than its 12 pixels"),
        (
            r#"{"size": [4, 3], "counts": [0, 18446744073709551615, 2]}"#,
            "longer than its 12 pixels",
        ),
        (r#"{"size": [0, 3], "counts": [0, 1]}"#, "longer than its 0 pixels"),
        (r#"{"size": [7, 5], "counts": "91303000P"}"#, "packed `counts` are broken"),
        (r#"{"size": [7, 5], "counts": "9 "}"#, "packed `counts` are broken"),
        (r#"{"size": [7, 5], "counts": "PPPPPPPPPPPPPPPP"}"#, "packed `counts` are broken"),
        ("[[1, 2, 5]]", "pairs of x and y, got 3 numbers"),
        ("[1, 2, 5, 6]", "expected polygons"),
        ("\"x\"", "expected polygons"),
    ] {
        let message = bbox(broken).unwrap_err();
        assert!(message.contains(says), "{broken}: {message}");
    }
}

#[test]
fn a_broken_outline_without_a_box_is_named() {
    let message = one(r#""file_name": "a.jpg""#, r#""bbox": null, "segmentation": [[1, 2, 3]]"#);
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("annotations[0].segmentation: expected pairs of x and y"),
        "{message}"
    );
    // With a box nobody looks at it.
    assert!(
        one(r#""file_name": "a.jpg""#, r#""bbox": [1, 1, 2, 2], "segmentation": [[1]]"#).is_ok()
    );
}

/// Images that lie where the file says, or beside it under the same names.
#[test]
fn absolute_names_of_images_are_found() {
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["train/a.jpg", "val/b.jpg"] {
        write(elsewhere.path(), name, "");
    }
    let file = |root: &str| {
        format!(
            r#"{{"images": [{{"id": 1, "file_name": "{root}/train/a.jpg", "width": 9, "height": 9}},
                {{"id": 2, "file_name": "{root}/val/b.jpg", "width": 9, "height": 9}}],
            "annotations": [], "categories": [{{"id": 1, "name": "a"}}]}}"#
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let there = elsewhere.path().display().to_string();
    write(folder.path(), "a.json", &file(&there));
    let found = open(&folder).unwrap();
    assert_eq!(found.images_at(), Some(elsewhere.path()));
    noted(&found, "images named by absolute paths");
    // Of another machine: what is near counts.
    for name in ["images/train/a.jpg", "images/val/b.jpg"] {
        write(folder.path(), name, "");
    }
    for root in ["/content/set", r"C:\\Users\\me\\set", r"\\\\server\\set"] {
        write(folder.path(), "a.json", &file(root));
        let found = open(&folder).unwrap();
        assert_eq!(found.images_at(), Some(&*folder.path().join("images")), "{root}");
        let names = found.images().iter().map(|image| image.file_name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["train/a.jpg", "val/b.jpg"]);
    }
    // One name below two roots is no one image.
    write(
        folder.path(),
        "a.json",
        &file(r"C:\\set").replacen(r"C:\\set/val/b", r"D:\\set/train/a", 1),
    );
    let error = open(&folder).unwrap_err().to_string();
    assert!(
        error.contains(r"images[1].file_name: expected a path below `C:`, as of others"),
        "{error}"
    );
    write(folder.path(), "a.json", &file("/content/../set"));
    assert!(open(&folder).unwrap_err().to_string().contains("leaves the image root"));
}
