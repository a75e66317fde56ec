//! The records of a COCO or LVIS file as they are written.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    data::records::ClassRecord,
    json::{ID, INTEGER, Id, Integer, JsonRecord, ZeroOrOne},
    vocabulary::Frequency,
};

const COUNT: &str = "a whole number of 0 or more";
const TEXT: &str = "a string";
const IDS: &str = "a list of category ids";

#[derive(Deserialize)]
pub(super) struct RawImage {
    pub(super) id: Id,
    pub(super) file_name: Option<String>,
    pub(super) coco_url: Option<String>,
    pub(super) width: Option<Integer>,
    pub(super) height: Option<Integer>,
    pub(super) neg_category_ids: Option<Vec<Integer>>,
    /// Of Open Images: classes verified present, perhaps without a box.
    pub(super) pos_category_ids: Option<Vec<Integer>>,
    pub(super) not_exhaustive_category_ids: Option<Vec<Integer>>,
}

impl JsonRecord<'_> for RawImage {
    const LIST: &'static str = "images";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", ID),
        ("file_name", TEXT),
        ("coco_url", TEXT),
        ("width", "the image's width in pixels"),
        ("height", "the image's height in pixels"),
        ("neg_category_ids", IDS),
        ("pos_category_ids", IDS),
        ("not_exhaustive_category_ids", IDS),
    ];
}

#[derive(Deserialize)]
pub(super) struct RawAnnotation<'a> {
    pub(super) id: Id,
    pub(super) image_id: Id,
    pub(super) category_id: Integer,
    pub(super) bbox: Option<Bbox>,
    /// Looked at where there is no box.
    #[serde(borrow)]
    pub(super) segmentation: Option<&'a RawValue>,
    pub(super) area: Option<f64>,
    pub(super) iscrowd: Option<ZeroOrOne>,
    /// Of Open Images: one box around several objects.
    pub(super) isgroupof: Option<GroupOf>,
    pub(super) ignore: Option<ZeroOrOne>,
    pub(super) attributes: Option<Attributes>,
}

impl<'a> JsonRecord<'a> for RawAnnotation<'a> {
    const LIST: &'static str = "annotations";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", ID),
        ("image_id", ID),
        ("category_id", INTEGER),
        ("bbox", BBOX),
        ("area", "a finite number"),
        ("iscrowd", "0 or 1"),
        ("isgroupof", "0, 1 or -1"),
        ("ignore", "0 or 1"),
    ];
}

pub(super) const BBOX: &str = "4 finite numbers [x, y, width, height]";

/// A box, or the empty list that some programs write beside a polygon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bbox {
    Given([f64; 4]),
    Empty,
}

impl<'de> Deserialize<'de> for Bbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Four;
        impl<'de> Visitor<'de> for Four {
            type Value = Bbox;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(BBOX)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Bbox, A::Error> {
                let mut bbox = [0.0; 4];
                for (i, number) in bbox.iter_mut().enumerate() {
                    match numbers.next_element()? {
                        Some(given) => *number = given,
                        None if i == 0 => return Ok(Bbox::Empty),
                        None => return Err(serde::de::Error::invalid_length(i, &self)),
                    }
                }
                Ok(Bbox::Given(bbox))
            }
        }
        deserializer.deserialize_seq(Four)
    }
}

/// Open Images' flags: 1 is yes, 0 is no, and -1, which nobody looked at, is no.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct GroupOf(pub(super) bool);

impl<'de> Deserialize<'de> for GroupOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Flag {
            Boolean(bool),
            Number(Integer),
        }
        match Flag::deserialize(deserializer)? {
            Flag::Boolean(flag) => Ok(Self(flag)),
            Flag::Number(Integer(flag)) if (-1..=1).contains(&flag) => Ok(Self(flag == 1)),
            Flag::Number(_) => Err(serde::de::Error::custom("neither 0, 1 nor -1")),
        }
    }
}

/// What CVAT writes of an object beside COCO's fields. Other programs write other things there, which are
/// passed over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Attributes {
    /// Degrees clockwise by which the box is turned around its middle.
    pub(super) rotation: f64,
    /// Whether they are CVAT's.
    pub(super) cvat: bool,
}

impl Attributes {
    /// Those of a record, if they are an object or anything else that a record may have there.
    pub(super) fn of(raw: &RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// Whether a box beside them is turned when it is read.
    pub(super) fn turn_boxes(self) -> bool {
        self.cvat && self.rotation % 180.0 != 0.0
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Known {
            rotation: Option<f64>,
            occluded: Option<IgnoredAny>,
        }
        let raw = <&RawValue>::deserialize(deserializer)?;
        let known: Option<Known> = serde_json::from_str(raw.get()).ok();
        Ok(Self {
            rotation: known.as_ref().and_then(|known| known.rotation).unwrap_or(0.0),
            cvat: known.is_some_and(|known| known.occluded.is_some()),
        })
    }
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
    /// Texts in LVIS; anything else is ignored.
    pub(super) synonyms: Option<serde_json::Value>,
    /// Of Open Images: the class's id there, as `/m/01g317`.
    pub(super) freebase_id: Option<String>,
    /// V3Det's descriptions: what tells its files.
    pub(super) cat_info: Option<IgnoredAny>,
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
        ("freebase_id", TEXT),
        ("lvis_clip_row", "a row of the text table, 0 or more"),
    ];
}

impl RawCategory {
    pub(super) fn into_class(self) -> ClassRecord {
        let others = self.synonyms.as_ref().and_then(serde_json::Value::as_array);
        let others = others.into_iter().flatten().filter_map(serde_json::Value::as_str);
        let synonyms = others.filter(|other| *other != self.name).map(str::to_owned).collect();
        ClassRecord {
            id: self.id.0,
            name: self.name,
            key: self.freebase_id,
            synonyms,
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
