//! The records of Visual Genome's files as they are written.

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    json::{INTEGER, Integer, JsonRecord},
};

/// A record of `image_data.json`; the ids are `id` in v1.0.
#[derive(Deserialize)]
pub(super) struct RawImage {
    image_id: Option<Integer>,
    id: Option<Integer>,
    pub(super) url: String,
    pub(super) width: Option<Integer>,
    pub(super) height: Option<Integer>,
}

impl JsonRecord<'_> for RawImage {
    const LIST: &'static str = "";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("image_id", INTEGER),
        ("id", INTEGER),
        ("url", "the address of the image"),
        ("width", "the image's width in pixels"),
        ("height", "the image's height in pixels"),
    ];
}

/// All objects of an image.
#[derive(Deserialize)]
pub(super) struct RawObjects {
    image_id: Option<Integer>,
    id: Option<Integer>,
    pub(super) objects: Vec<RawObject>,
}

impl JsonRecord<'_> for RawObjects {
    const LIST: &'static str = "";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("image_id", INTEGER),
        ("id", INTEGER),
        ("objects", "a list of objects, each with x, y, w, h and names"),
    ];
}

impl RawImage {
    pub(super) fn id(&self, missing: impl Fn() -> Error) -> Result<i64> {
        self.image_id.or(self.id).map(|id| id.0).ok_or_else(missing)
    }
}

impl RawObjects {
    pub(super) fn id(&self, missing: impl Fn() -> Error) -> Result<i64> {
        self.image_id.or(self.id).map(|id| id.0).ok_or_else(missing)
    }
}

/// An object. Its id is `id` in v1.0.
#[derive(Deserialize)]
pub(super) struct RawObject {
    pub(super) object_id: Option<Integer>,
    pub(super) id: Option<Integer>,
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) w: f64,
    pub(super) h: f64,
    #[serde(default)]
    pub(super) names: Vec<String>,
    pub(super) merged_object_ids: Option<Vec<Integer>>,
}
