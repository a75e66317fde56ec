//! CVAT's XML for images: the two samples, and what is wrong with others.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use crate::{
    boxes::Xywh,
    data::{dataset::Dataset, formats::Opening},
    testing::shared,
};

fn open(path: &Path, split: Option<&str>) -> crate::Result<Dataset> {
    let opening = Opening { split: split.map(str::to_owned), ..Opening::default() };
    Dataset::open_as(path, &opening)
}

/// A file of one image of 40 by 30 pixels with these shapes.
fn with(shapes: &str) -> crate::Result<Dataset> {
    file(format!(
        r#"<annotations><meta><task><labels><label><name>b</name></label><label><name>a</name></label>
        </labels></task></meta><image id="5" name="x/1.jpg" width="40" height="30">{shapes}</image></annotations>"#
    ))
}

fn file(text: impl AsRef<[u8]>) -> crate::Result<Dataset> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("annotations.xml");
    fs_err::write(&path, text).unwrap();
    Dataset::open_as(&path, &Opening { format: Some("cvat".into()), ..Opening::default() })
}

#[test]
fn a_project_has_its_subsets_as_parts() {
    let Some(folder) = shared("samples/cvat/for_images") else { return };
    let path = folder.join("project_annotations.xml");
    let message = open(&path, None).unwrap_err().to_string();
    assert!(message.contains("several parts: `Test`, `Train`, `Validation`"), "{message}");
    let dataset = open(&path, Some("val")).unwrap();
    assert_eq!((dataset.split(), dataset.report().format), ("Validation", "CVAT XML for images"));
    let images: Vec<_> =
        dataset.images().iter().map(|i| (i.id, i.file_name.as_str(), i.size)).collect();
    assert_eq!(images, [(0, "img0.jpg", Some([8, 8])), (1, "img1.jpg", Some([10, 10]))]);
    let boxes: Vec<_> =
        dataset.annotations().iter().map(|a| (a.image, a.class.0, a.bbox)).collect();
    let expected = [(0, 0, Xywh([0.0, 2.0, 4.0, 2.0])), (1, 0, Xywh([1.0, 2.0, 5.0, 3.0]))];
    assert_eq!(boxes, expected, "the second is a polygon");
    let names: Vec<&str> = dataset.vocabulary().categories().iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["label1", "label2"]);
    let notes = [
        "boxes made of polygons, ellipses and masks: 1",
        "<points>, passed over: it has no box: 1",
        "<polyline>, passed over: it has no box: 1",
    ];
    assert_eq!(dataset.report().notes, notes);
}

#[test]
fn a_task_has_no_parts_and_shapes_may_lack_a_label() {
    let Some(folder) = shared("samples/cvat/for_images") else { return };
    let dataset = open(&folder.join("task_train.xml"), None).unwrap();
    assert_eq!((dataset.split(), dataset.images().len(), dataset.annotations().len()), ("", 2, 1));
    assert!(dataset.report().notes.contains(&"shapes without a label, passed over: 1".to_owned()));
    // Both files of a folder, each its parts.
    let message = open(&folder, Some("train")).unwrap_err().to_string();
    assert!(message.contains("`project_annotations/Train`") && message.contains("`task_train`"));
    assert_eq!(open(&folder, Some("task_train")).unwrap().images().len(), 2);
    let part = open(&folder, Some("project_annotations/Train")).unwrap();
    assert_eq!(part.split(), "project_annotations/Train");
}

#[test]
fn turned_boxes_ellipses_and_masks_have_the_box_around() {
    let dataset = with(
        r#"<box label="a" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90"/>
        <ellipse label="a" cx="20" cy="10" rx="8" ry="4" rotation="90"/>
        <mask label="b" rle="1, 2" left="3" top="4" width="5" height="6"/>
        <tag label="b"/><cuboid label="a"/>"#,
    );
    let dataset = dataset.unwrap();
    let expected = [[15.0, 5.0, 10.0, 20.0], [16.0, 2.0, 8.0, 16.0], [3.0, 4.0, 5.0, 6.0]];
    for (annotation, expected) in dataset.annotations().iter().zip(expected) {
        for (got, expected) in annotation.bbox.0.into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-9, "{:?} {expected:?}", annotation.bbox);
        }
    }
    let classes: Vec<u32> = dataset.annotations().iter().map(|a| a.class.0).collect();
    assert_eq!(classes, [1, 1, 0], "in the order of the file's labels");
    let notes = &dataset.report().notes;
    assert!(
        notes.contains(&"shapes with a rotation, the upright box around is taken: 2".to_owned())
    );
    assert!(notes.iter().any(|note| note.contains("<tag>")), "{notes:?}");
}

#[test]
fn ids_used_twice_sizes_of_0_and_labels_nobody_declared() {
    let dataset = file(
        r#"<annotations><image id="0" name="a b.jpg" width="0" height="0"/>
        <image id="0" name="c.jpg" width="9" height="9"><box label="new" xtl="0" ytl="0" xbr="1" ybr="1"/>
        </image></annotations>"#,
    );
    let dataset = dataset.unwrap();
    let images: Vec<_> =
        dataset.images().iter().map(|i| (i.id, i.file_name.as_str(), i.size)).collect();
    assert_eq!(images, [(1, "a b.jpg", None), (2, "c.jpg", Some([9, 9]))]);
    assert_eq!(dataset.vocabulary().categories()[0].name, "new");
    assert!(dataset.report().notes[0].contains("numbered anew"));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let boxed = r#"<box label="a" xtl="1" ytl="1" xbr="3" ybr="3"/>"#;
    for (shapes, says) in [
        (
            boxed.replace("xtl=\"1\" ", ""),
            "image[0].box[0].xtl: missing (line 2)\n  hint: the element has",
        ),
        (boxed.replace("\"3\"", "\"x\""), "box[0].xbr: expected a finite number, got `x`"),
        (boxed.replace("\"3\"", "\"NaN\""), "box[0].xbr: expected a finite number, got `NaN`"),
        (boxed.replace("xbr=\"3\"", "xbr=\"0\""), "box[0].xbr: expected 1 or more, got 0"),
        (
            format!("{boxed}<polygon label=\"a\" points=\"1,2;3\"/>"),
            "polygon[1].points: expected x,y;x,y",
        ),
        ("<polygon label=\"a\" points=\"\"/>".to_owned(), "polygon[0].points: missing"),
        (boxed.replace("/>", ">"), "XML: broken: "),
    ] {
        let message = with(&shapes).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn files_that_are_none() {
    let track = r#"<annotations><track id="0" label="a"/></annotations>"#;
    for (text, says) in [
        (&b""[..], "XML: the file is empty"),
        (b"<annotations><image", "XML: broken: "),
        (b"<annotation/>", "expected <annotations>, got <annotation>"),
        (b"<annotations/>", "the file lists no images"),
        (track.as_bytes(), "CVAT's XML for videos\n  hint: export the task as `CVAT for images`"),
        (b"<annotations>\xff</annotations>", "not UTF-8 text"),
        (b"PK\x03\x04", "XML: "),
    ] {
        let message = file(text).unwrap_err().to_string();
        assert!(message.contains(says) && message.contains("hint"), "{message}");
    }
    let outside =
        r#"<annotations><image id="0" name="../a.jpg" width="1" height="1"/></annotations>"#;
    let message = file(outside).unwrap_err().to_string();
    assert!(message.contains("image[0].name: the path leaves the image root"), "{message}");
}

#[test]
fn images_lie_below_images_and_the_subset() {
    let Some(folder) = shared("samples/cvat/for_images") else { return };
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join("annotations.xml");
    fs_err::copy(folder.join("project_annotations.xml"), &file).unwrap();
    let images = copy.path().join("images/Train");
    fs_err::create_dir_all(&images).unwrap();
    fs_err::write(images.join("img0.jpg"), "").unwrap();
    assert_eq!(open(copy.path(), Some("train")).unwrap().images_at(), Some(&*images));
}

#[test]
fn a_mask_has_no_negative_side() {
    let error =
        with(r#"<mask label="b" rle="1" left="3" top="4" width="-5" height="6"/>"#).unwrap_err();
    assert!(error.to_string().contains("width: expected pixels, 0 or more, got -5"), "{error}");
}

#[test]
fn text_in_16_bits_is_recognised() {
    let text = r#"<?xml version="1.0"?><annotations><image id="5" name="é.jpg" width="4" height="3"/></annotations>"#;
    let marked: Vec<u16> = "\u{feff}".encode_utf16().chain(text.encode_utf16()).collect();
    let bytes = |units: &[u16], order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        units.iter().copied().flat_map(order).collect()
    };
    let files = [
        bytes(&marked, u16::to_le_bytes),
        bytes(&marked, u16::to_be_bytes),
        bytes(&marked[1..], u16::to_le_bytes),
        bytes(&marked[1..], u16::to_be_bytes),
    ];
    for file in files {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("annotations.xml");
        fs_err::write(&path, file).unwrap();
        for place in [&*path, folder.path()] {
            assert_eq!(open(place, None).unwrap().images()[0].file_name, "é.jpg");
        }
    }
}
