//! The records of a COCO or LVIS file as they are written.

use serde::Deserialize;

use crate::{
    data::formats::ClassRecord,
    json::{INTEGER, Integer, JsonRecord, ZeroOrOne},
    vocabulary::Frequency,
};

const COUNT: &str = "a whole number of 0 or more";
const TEXT: &str = "a string";
const IDS: &str = "a list of category ids";

#[derive(Deserialize)]
pub(super) struct RawImage {
    pub(super) id: Integer,
    pub(super) file_name: Option<String>,
    pub(super) coco_url: Option<String>,
    pub(super) width: Option<Integer>,
    pub(super) height: Option<Integer>,
    pub(super) neg_category_ids: Option<Vec<Integer>>,
    pub(super) not_exhaustive_category_ids: Option<Vec<Integer>>,
}

impl JsonRecord<'_> for RawImage {
    const LIST: &'static str = "images";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", INTEGER),
        ("file_name", TEXT),
        ("coco_url", TEXT),
        ("width", "the image's width in pixels"),
        ("height", "the image's height in pixels"),
        ("neg_category_ids", IDS),
        ("not_exhaustive_category_ids", IDS),
    ];
}

#[derive(Deserialize)]
pub(super) struct RawAnnotation {
    pub(super) id: Integer,
    pub(super) image_id: Integer,
    pub(super) category_id: Integer,
    pub(super) bbox: [f64; 4],
    pub(super) area: Option<f64>,
    pub(super) iscrowd: Option<ZeroOrOne>,
    pub(super) ignore: Option<ZeroOrOne>,
}

impl JsonRecord<'_> for RawAnnotation {
    const LIST: &'static str = "annotations";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", INTEGER),
        ("image_id", INTEGER),
        ("category_id", INTEGER),
        ("bbox", "4 finite numbers [x, y, width, height]"),
        ("area", "a finite number"),
        ("iscrowd", "0 or 1"),
        ("ignore", "0 or 1"),
    ];
}

#[derive(Deserialize)]
pub(super) struct RawCategory {
    pub(super) id: Integer,
    pub(super) name: String,
    /// Text in every known format; anything else is ignored.
    pub(super) supercategory: Option<serde_json::Value>,
    pub(super) image_count: Option<u32>,
    pub(super) instance_count: Option<u32>,
    pub(super) frequency: Option<Frequency>,
    pub(super) synset: Option<String>,
    pub(super) wnid: Option<String>,
    #[serde(rename = "lvis_clip_row")]
    pub(super) text_row: Option<u32>,
}

impl JsonRecord<'_> for RawCategory {
    const LIST: &'static str = "categories";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", INTEGER),
        ("name", TEXT),
        ("image_count", COUNT),
        ("instance_count", COUNT),
        ("frequency", "`r`, `c` or `f`"),
        ("synset", TEXT),
        ("wnid", TEXT),
        ("lvis_clip_row", "a row of the text table, 0 or more"),
    ];
}

impl RawCategory {
    pub(super) fn into_class(self) -> ClassRecord {
        ClassRecord {
            id: self.id.0,
            name: self.name,
            key: None,
            supercategory: self.supercategory.and_then(|s| s.as_str().map(str::to_owned)),
            image_count: self.image_count,
            instance_count: self.instance_count,
            frequency: self.frequency,
            synset: self.synset,
            wnid: self.wnid,
            text_row: self.text_row,
        }
    }
}
