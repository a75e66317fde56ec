//! The tasks of Label Studio's export, as they are written.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    data::formats::coco::of_points,
    json::{INTEGER, Integer, JsonRecord},
};

#[derive(Deserialize)]
pub(super) struct RawTask {
    pub(super) id: Option<Integer>,
    pub(super) data: Map<String, Value>,
    #[serde(alias = "completions")]
    pub(super) annotations: Option<Vec<RawAnnotation>>,
}

impl JsonRecord<'_> for RawTask {
    const LIST: &'static str = "";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", INTEGER),
        ("data", "an object with the image's address"),
        ("annotations", "a list of annotations, each with a list `result`"),
    ];
}

#[derive(Deserialize)]
pub(super) struct RawAnnotation {
    pub(super) result: Vec<RawResult>,
    pub(super) was_cancelled: Option<bool>,
    pub(super) ground_truth: Option<bool>,
    /// ISO 8601, so that texts sort as times.
    pub(super) updated_at: Option<String>,
}

/// One thing that was drawn or chosen.
#[derive(Deserialize)]
pub(super) struct RawResult {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    original_width: Option<f64>,
    original_height: Option<f64>,
    pub(super) image_rotation: Option<f64>,
    #[serde(default)]
    value: Map<String, Value>,
}

/// What a result is for a detector.
pub(super) enum Drawn {
    /// No box: a point, a mask of a brush, a choice, a text.
    Nothing,
    /// A turned box, whose place depends on the image's size, which is not known.
    TurnedUnknown,
    Box {
        /// In shares of the image.
        bbox: [f64; 4],
        labels: Vec<String>,
        turned: bool,
        /// Whether it is around a polygon or an ellipse.
        around: bool,
    },
}

/// A field of `value`, and what is wrong with it.
type Wrong = (String, String);

impl RawResult {
    /// `[height, width]` in pixels, if it says.
    pub(super) fn size(&self) -> Option<[u32; 2]> {
        let side = |value: Option<f64>| {
            value.filter(|v| v.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(v))
        };
        Some([side(self.original_height)? as u32, side(self.original_width)? as u32])
    }

    /// What it is, in an image of a size.
    ///
    /// # Errors
    /// The field that is not as it should be.
    pub(super) fn drawn(&self, size: Option<[u32; 2]>) -> Result<Drawn, Wrong> {
        let (turned, degrees) = match self.value.get("rotation") {
            Some(_) => (self.number("rotation")? % 360.0 != 0.0, self.number("rotation")?),
            None => (false, 0.0),
        };
        let has = |key: &str| self.value.contains_key(key);
        let known = size.or((!turned).then_some([1; 2]));
        // What is called so must have its numbers: to leave it out would lose a box.
        let rectangle = self.kind.starts_with("rectangle") || has("width") && has("height");
        let ellipse = self.kind.starts_with("ellipse") || has("radiusX") && has("radiusY");
        let polygon = has("points") && self.kind.starts_with("polygon");
        if !rectangle && !ellipse && !polygon {
            return Ok(Drawn::Nothing);
        }
        let Some([height, width]) = known.map(|size| size.map(f64::from)) else {
            return Ok(Drawn::TurnedUnknown);
        };
        let points = if polygon {
            self.points()?
        } else {
            let (x, y) = (self.number("x")? / 100.0 * width, self.number("y")? / 100.0 * height);
            let (sin, cos) = degrees.to_radians().sin_cos();
            let share = |key: &str, side: f64| Ok::<f64, Wrong>(self.number(key)? / 100.0 * side);
            let corners = if rectangle {
                let (w, h) = (share("width", width)?, share("height", height)?);
                // It turns around its upper left corner.
                [[0.0, 0.0], [w, 0.0], [w, h], [0.0, h]]
                    .map(|[a, b]| [x + a * cos - b * sin, y + a * sin + b * cos])
                    .to_vec()
            } else {
                let (rx, ry) = (share("radiusX", width)?, share("radiusY", height)?);
                let (w, h) = ((rx * cos).hypot(ry * sin), (rx * sin).hypot(ry * cos));
                vec![[x - w, y - h], [x + w, y + h]]
            };
            corners.into_iter().map(|[x, y]| [x / width, y / height]).collect()
        };
        let bbox = of_points(points.into_iter());
        let bbox =
            bbox.ok_or_else(|| ("points".to_owned(), "expected points, got none".to_owned()))?;
        let around = !rectangle;
        Ok(Drawn::Box { bbox, labels: self.labels(), turned, around })
    }

    /// The labels: `rectanglelabels`, `polygonlabels`, `labels`.
    fn labels(&self) -> Vec<String> {
        let lists = self.value.iter().filter(|(key, _)| key.ends_with("labels"));
        let texts =
            lists.filter_map(|(_, list)| list.as_array()).flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    fn number(&self, key: &str) -> Result<f64, Wrong> {
        let value = self.value.get(key);
        value.and_then(Value::as_f64).ok_or_else(|| {
            let got = value.map_or("nothing".to_owned(), Value::to_string);
            (key.to_owned(), format!("expected a number, in percent of the image, got {got}"))
        })
    }

    /// Points of a polygon, in shares.
    fn points(&self) -> Result<Vec<[f64; 2]>, Wrong> {
        let list = self.value.get("points").and_then(Value::as_array);
        let points = list.and_then(|list| {
            let point = |value: &Value| match value.as_array()?.as_slice() {
                [x, y] => Some([x.as_f64()? / 100.0, y.as_f64()? / 100.0]),
                _ => None,
            };
            list.iter().map(point).collect()
        });
        points.ok_or_else(|| {
            ("points".to_owned(), "expected a list of [x, y], in percent".to_owned())
        })
    }
}
