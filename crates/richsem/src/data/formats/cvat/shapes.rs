//! Boxes of CVAT's shapes.

use std::path::Path;

use roxmltree::{Document, Node};

use crate::{
    data::formats::coco::{of_points, turned},
    error::{Error, Result},
};

/// An element, and where it is, for messages.
pub(super) struct Element<'f, 'a, 'i> {
    pub(super) file: &'f Path,
    pub(super) document: &'a Document<'i>,
    pub(super) node: Node<'a, 'i>,
    pub(super) place: String,
}

impl Element<'_, '_, '_> {
    pub(super) fn wrong(&self, attribute: &str, problem: impl std::fmt::Display) -> Error {
        let line = self.document.text_pos_at(self.node.range().start).row;
        let field = format!("{}.{attribute}", self.place);
        Error::invalid(self.file, field, format!("{problem} (line {line})"))
    }

    /// A text that must be there.
    pub(super) fn text(&self, attribute: &str) -> Result<&str> {
        let text = self.node.attribute(attribute).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| {
            let there: Vec<&str> = self.node.attributes().map(|a| a.name()).collect();
            self.wrong(attribute, "missing")
                .with_hint(format!("the element has {}", there.join(", ")))
        })
    }

    fn number(&self, attribute: &str) -> Result<f64> {
        let text = self.text(attribute)?;
        finite(text).ok_or_else(|| {
            self.wrong(
                attribute,
                format!("expected a finite number, got `{}`", text.escape_debug()),
            )
        })
    }

    /// A side of an image in pixels; none for 0, which CVAT writes where it does not know.
    pub(super) fn size(&self, attribute: &str) -> Result<Option<u32>> {
        let Some(text) = self.node.attribute(attribute) else { return Ok(None) };
        let side = text.trim().parse::<u32>().map_err(|_| {
            self.wrong(attribute, format!("expected pixels, got `{}`", text.escape_debug()))
        })?;
        Ok(Some(side).filter(|side| *side > 0))
    }

    fn rotation(&self) -> Result<f64> {
        self.node.attribute("rotation").map_or(Ok(0.0), |_| self.number("rotation"))
    }
}

fn finite(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite())
}

/// The upright box of a shape.
pub(super) struct Shape {
    /// `[x, y, width, height]` in pixels.
    pub(super) bbox: [f64; 4],
    /// Whether it is around a turned one.
    pub(super) turned: bool,
}

impl Shape {
    /// Whether elements of that name have a box.
    pub(super) fn has_box(element: &str) -> bool {
        matches!(element, "box" | "polygon" | "ellipse" | "mask")
    }

    /// None of elements that have no box: points, lines, cuboids, skeletons, labels of the whole image.
    pub(super) fn of(element: &Element<'_, '_, '_>) -> Result<Option<Self>> {
        let number = |attribute: &str| element.number(attribute);
        let rotation = element.rotation()?;
        let bbox = match element.node.tag_name().name() {
            "box" => {
                let [x0, y0, x1, y1] =
                    [number("xtl")?, number("ytl")?, number("xbr")?, number("ybr")?];
                for (attribute, start, end) in [("xbr", x0, x1), ("ybr", y0, y1)] {
                    if end < start {
                        let problem = format!("expected {start} or more, got {end}");
                        return Err(element.wrong(attribute, problem).with_hint(
                            "xtl, ytl is the upper left corner, xbr, ybr the lower right one",
                        ));
                    }
                }
                turned([x0, y0, x1 - x0, y1 - y0], rotation)
            }
            "ellipse" => {
                let (cx, cy, rx, ry) = (number("cx")?, number("cy")?, number("rx")?, number("ry")?);
                let (sin, cos) = rotation.to_radians().sin_cos();
                let (w, h) = ((rx * cos).hypot(ry * sin), (rx * sin).hypot(ry * cos));
                [cx - w, cy - h, 2.0 * w, 2.0 * h]
            }
            "mask" => {
                let [width, height] = [number("width")?, number("height")?];
                for (attribute, side) in [("width", width), ("height", height)] {
                    if side < 0.0 {
                        let problem = format!("expected pixels, 0 or more, got {side}");
                        return Err(element.wrong(attribute, problem));
                    }
                }
                [number("left")?, number("top")?, width, height]
            }
            "polygon" => of_points(points(element)?.into_iter())
                .ok_or_else(|| element.wrong("points", "expected points, got none"))?,
            _ => return Ok(None),
        };
        Ok(Some(Self { bbox, turned: rotation % 180.0 != 0.0 }))
    }
}

/// `x,y;x,y;…`
fn points(element: &Element<'_, '_, '_>) -> Result<Vec<[f64; 2]>> {
    let each = element.text("points")?.split(';').map(|point| {
        let numbers = point.split_once(',').and_then(|(x, y)| Some([finite(x)?, finite(y)?]));
        numbers.ok_or_else(|| {
            let problem = format!("expected x,y;x,y;…, got `{}`", point.escape_debug());
            element.wrong("points", problem)
        })
    });
    each.collect()
}
