//! The samples, sets in parts, and files that are wrong in one way each.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use super::BoxForm;
use crate::{
    Error, Result,
    data::{
        convert::{Conversion, Target, convert},
        dataset::Dataset,
        formats::Opening,
        image_store::ImageStore,
    },
    testing::shared,
};

fn boxes(set: &Dataset) -> Vec<(u32, u32, [f64; 4], f64)> {
    let all = set.annotations().iter();
    all.map(|a| (a.image, a.class.0, a.bbox.0, a.area)).collect()
}

fn classes(set: &Dataset) -> Vec<(i64, &str)> {
    set.vocabulary().categories().iter().map(|c| (c.id.0, c.name.as_str())).collect()
}

fn split(name: &str) -> Opening {
    Opening { split: Some(name.to_owned()), ..Opening::default() }
}

fn message(set: Result<Dataset>) -> String {
    set.map(|set| format!("{:?}", set.report())).unwrap_err().to_string()
}

const XYWH: BoxForm = BoxForm::Xywh;

#[test]
fn the_samples_are_read_with_their_images() {
    let Some(folder) = shared("samples/hf_parquet") else { return };
    let expected = vec![
        (0, 0, [4.0, 3.0, 20.0, 30.0], 600.0),
        (0, 2, [30.0, 10.0, 25.0, 25.0], 625.0),
        (2, 1, [0.0, 0.0, 64.0, 48.0], 3072.0),
    ];
    for (sample, first) in [("struct_of_lists", 0), ("list_of_structs", 1), ("imagefolder", 0)] {
        let set = Dataset::open_as(
            &folder.join(sample),
            &Opening { usual_split: Some("train"), ..Opening::default() },
        );
        let set = set.unwrap();
        assert_eq!(boxes(&set), expected, "{sample}");
        let names = match sample {
            "imagefolder" => ["class_0", "class_1", "class_2"],
            _ => ["Coverall", "Face_Shield", "Gloves"],
        };
        let ids: Vec<_> = (first..).zip(names).collect();
        assert_eq!(classes(&set), ids, "{sample}");
        let store = ImageStore::open(set.images_at().unwrap(), Default::default()).unwrap();
        for image in set.images() {
            let (width, height) = store.image(&image.file_name).unwrap().dimensions();
            assert_eq!(width * height, 64 * 48, "{sample}: {}", image.file_name);
        }
        let notes = set.report().notes.join("\n");
        let found = "boxes are read as xywh: nothing else is possible (of 3 boxes, inverted or beyond their \
                     image: 0 as xywh, 1 as xyxy, 3 as cxcywh)";
        assert!(notes.contains(found), "{notes}");
    }
}
