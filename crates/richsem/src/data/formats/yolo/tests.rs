//! Samples, and the rules they show.
#![allow(clippy::unwrap_used)]

mod archive;
mod broken;
mod labels;
mod listed;
mod rules;
mod yaml;

use std::path::Path;

use crate::{
    data::{dataset::Dataset, formats::Opening, records::Unit},
    testing::shared,
};

/// Writes a file below a folder.
pub(in crate::data) fn put(folder: &Path, name: &str, contents: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(path, contents).unwrap();
}

/// Writes an image of 40 by 20 pixels.
pub(in crate::data) fn put_image(folder: &Path, name: &str) {
    let path = folder.join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::new(40, 20).save(path).unwrap();
}

/// Opens a split; boxes in shares.
pub(in crate::data) fn shares(path: &Path, split: &str) -> crate::Result<Dataset> {
    let split = Some(split.to_owned());
    Dataset::open_as(path, &Opening { split, pixels: false, ..Opening::default() })
}

/// Opens a split; boxes in pixels.
pub(in crate::data) fn pixels(path: &Path, split: &str) -> crate::Result<Dataset> {
    Dataset::open_as(path, &Opening { split: Some(split.to_owned()), ..Opening::default() })
}

/// Class, and centre and size in shares.
type Row = (u32, [f64; 4]);

/// Names of the images with class, centre and size of each box, in shares.
pub(in crate::data) fn rows(dataset: &Dataset) -> Vec<(String, Vec<Row>)> {
    assert_eq!(dataset.unit(), Unit::Shares);
    let boxes = |image: usize| {
        let all = dataset.annotations_of(image).iter();
        all.map(|a| {
            let [x, y, w, h] = a.bbox.0;
            (a.class.0, [x + w / 2.0, y + h / 2.0, w, h])
        })
        .collect()
    };
    let images = dataset.images().iter().enumerate();
    images.map(|(i, image)| (image.file_name.clone(), boxes(i))).collect()
}

/// Whether a line of the report says so.
pub(in crate::data) fn told(dataset: &Dataset, what: &str) -> bool {
    dataset.report().to_string().contains(what)
}

#[test]
fn the_edge_cases_are_read_as_ultralytics_reads_them() {
    let Some(folder) = shared("samples/yolo/edge") else { return };
    let expected = fs_err::read(folder.join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    let mut compared = 0;
    for split in ["train", "val"] {
        let dataset = shares(&folder, split).unwrap();
        let names: Vec<&str> =
            dataset.vocabulary().categories().iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["cat", "dog"]);
        let got = rows(&dataset);
        let wanted = expected["data.yaml"][split].as_object().unwrap();
        assert_eq!(got.len(), wanted.len());
        for (name, boxes) in got {
            let wanted = wanted[&name]["boxes"].as_array().unwrap();
            assert_eq!(boxes.len(), wanted.len(), "{name}");
            for ((class, numbers), row) in boxes.iter().zip(wanted) {
                assert_eq!(f64::from(*class), row[0].as_f64().unwrap(), "{name}");
                for (number, wanted) in numbers.iter().zip(&row.as_array().unwrap()[1..]) {
                    assert!((number - wanted.as_f64().unwrap()).abs() < 1e-12, "{name}: {row}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 24);
    let train = pixels(&folder, "train").unwrap();
    assert_eq!(train.images()[0].size, Some([24, 32]));
    assert_eq!(train.annotations_of(0)[0].bbox.0, [12.0, 6.0, 8.0, 12.0]);
    for line in [
        "images without a label file, taken for background: 1 (images/train/2.jpg)",
        "rows that repeat an earlier one of their file, left out: 1",
        "passed over as no images: 1 .txt (images/train/notes.txt)",
    ] {
        assert!(told(&train, line), "{line}: {}", train.report());
    }
    assert!(told(
        &pixels(&folder, "val").unwrap(),
        "polygons, of which the box around them is taken: 2"
    ));
}

#[test]
fn the_other_data_files_of_the_edge_cases() {
    let Some(folder) = shared("samples/yolo/edge") else { return };
    let names = |file: &str, split: &str| {
        let dataset = pixels(&folder.join(file), split).unwrap();
        dataset.images().iter().map(|i| i.file_name.clone()).collect::<Vec<_>>()
    };
    let (train, val) = (names("data.yaml", "train"), names("data.yaml", "val"));
    assert_eq!(names("data_list.yaml", "train"), [train.clone(), val.clone()].concat());
    assert_eq!(names("data_list.yaml", "val"), val);
    assert_eq!(names("data_roboflow_like.yaml", "train"), train);
    let error = pixels(&folder.join("data_names_hole.yaml"), "train").unwrap_err().to_string();
    assert!(
        error.contains("line 4: names: expected indices from 0 to 1 without holes, got 2"),
        "{error}"
    );
}

#[test]
fn a_real_export_of_roboflow_counts_its_sources() {
    let Some(sample) = shared("samples/roboflow_yolo/cones_and_cubes") else { return };
    // As it lies there it has no images.
    let error = pixels(&sample, "train").unwrap_err().to_string();
    assert!(error.contains("data.yaml: line 1: train: expected a folder of images"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "data.yaml", fs_err::read(sample.join("data.yaml")).unwrap());
    for split in ["train", "valid", "test"] {
        for label in fs_err::read_dir(sample.join(split).join("labels")).unwrap() {
            let label = label.unwrap();
            let name = label.file_name().into_string().unwrap();
            put(
                folder.path(),
                &format!("{split}/labels/{name}"),
                fs_err::read(label.path()).unwrap(),
            );
            put_image(
                folder.path(),
                &format!("{split}/images/{}.jpg", name.trim_end_matches(".txt")),
            );
        }
    }
    let opening = |usual| Opening { usual_split: Some(usual), ..Opening::default() };
    let train = Dataset::open_as(folder.path(), &opening("train")).unwrap();
    assert_eq!((train.split(), train.images().len(), train.annotations().len()), ("train", 3, 6));
    assert!(
        told(&train, "images that Roboflow made from others: 3 of 1 sources"),
        "{}",
        train.report()
    );
    let [x, y, w, h] = train.annotations()[0].bbox.0;
    assert_eq!([x, y, w, h].map(|v| (v * 1e9).round() / 1e9), [14.8125, 7.640625, 11.5, 9.34375]);
    let val = Dataset::open_as(folder.path(), &opening("val")).unwrap();
    assert_eq!((val.split(), val.images().len()), ("val", 3));
    assert!(!told(&val, "copies"), "{}", val.report());
    assert_eq!(val.images_at().unwrap(), folder.path());
    assert!(val.images()[0].file_name.starts_with("valid/images/WIN_"));
}

#[test]
fn the_other_samples_say_what_is_missing() {
    let Some(sample) = shared("samples/roboflow_yolo/datumaro") else { return };
    let error = pixels(&sample, "val").unwrap_err().to_string();
    assert!(error.contains("data.yaml: line 2: val: expected a folder of images"), "{error}");
    assert!(error.contains("paths are relative to"), "{error}");
}
