//! What the four numbers of a box are, where no file says: decided by the boxes themselves, if they leave one
//! possibility.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{argument::Argument, data::records::Unit};

/// What the four numbers of a box are, in sets that do not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxForm {
    /// Left upper corner, width and height, in pixels.
    Xywh,
    /// Left upper and right lower corner, in pixels.
    Xyxy,
    /// Centre, width and height, in pixels.
    Cxcywh,
    /// Left upper corner, width and height, as shares of the image's.
    XywhShares,
    /// Left upper and right lower corner, as shares of the image's width and height.
    XyxyShares,
    /// Centre, width and height, as shares of the image's.
    CxcywhShares,
}

impl BoxForm {
    /// All forms, those in pixels first.
    pub const ALL: [Self; 6] = [
        Self::Xywh,
        Self::Xyxy,
        Self::Cxcywh,
        Self::XywhShares,
        Self::XyxyShares,
        Self::CxcywhShares,
    ];

    /// What settings and flags call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xywh => "xywh",
            Self::Xyxy => "xyxy",
            Self::Cxcywh => "cxcywh",
            Self::XywhShares => "xywh_shares",
            Self::XyxyShares => "xyxy_shares",
            Self::CxcywhShares => "cxcywh_shares",
        }
    }

    /// Pixels, or shares of the image.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Self::Xywh | Self::Xyxy | Self::Cxcywh => Unit::Pixels,
            Self::XywhShares | Self::XyxyShares | Self::CxcywhShares => Unit::Shares,
        }
    }

    /// Four numbers as left upper corner, width and height, in the same unit. Width and height are negative
    /// where the numbers are no box of this form.
    #[must_use]
    pub fn xywh(self, [a, b, c, d]: [f64; 4]) -> [f64; 4] {
        match self {
            Self::Xywh | Self::XywhShares => [a, b, c, d],
            Self::Xyxy | Self::XyxyShares => [a, b, c - a, d - b],
            Self::Cxcywh | Self::CxcywhShares => [a - c / 2.0, b - d / 2.0, c, d],
        }
    }
}

impl fmt::Display for BoxForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BoxForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|form| form.name() == text);
        found.ok_or_else(|| format!("expected one of {}", names(&Self::ALL)))
    }
}

fn names(forms: &[BoxForm]) -> String {
    forms.iter().map(|form| form.name()).collect::<Vec<_>>().join(", ")
}

/// A box as it is written, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) bbox: [f64; 4],
    /// `[height, width]` of its image in pixels.
    pub(super) size: Option<[u32; 2]>,
    pub(super) area: Option<f64>,
}

/// How far a box may be beyond its image: what rounding does. In pixels.
const SLACK: f64 = 1.0;
/// As [`SLACK`], in shares.
const SLACK_OF_ONE: f64 = 0.005;
/// One box in so many may be wrong, as in sets that people drew, without a form being out of the question.
const WRONG_ONE_IN: usize = 50;

impl Seen {
    /// Whether the numbers are no box of that form that lies in the image.
    fn is_wrong_as(&self, form: BoxForm) -> bool {
        let [x, y, width, height] = form.xywh(self.bbox);
        let (size, slack) = match form.unit() {
            Unit::Pixels => (self.size.map(|size| size.map(f64::from)), SLACK),
            Unit::Shares => (Some([1.0; 2]), SLACK_OF_ONE),
        };
        let beyond = size.is_some_and(|[most_y, most_x]| {
            x + width > most_x + slack || y + height > most_y + slack
        });
        width < 0.0 || height < 0.0 || x < -slack || y < -slack || beyond
    }

    /// Whether the area that is written is width times height in that form.
    fn has_area_of(&self, form: BoxForm) -> bool {
        let [_, _, width, height] = form.xywh(self.bbox);
        let area = self.area.unwrap_or_default();
        area > 0.0 && (width * height - area).abs() <= 0.01 * area
    }
}

/// The form of the boxes, and a note that tells how it was found.
///
/// # Errors
/// With the problem and a hint: no form fits, or several do.
pub(super) fn decide<'a>(
    boxes: impl Iterator<Item = Seen> + Clone + 'a,
) -> Result<(BoxForm, Option<String>), (String, String)> {
    let boxes = || boxes.clone().filter(|seen| seen.bbox.iter().all(|number| number.is_finite()));
    let count = |is: &dyn Fn(&Seen) -> bool| boxes().filter(|seen| is(seen)).count();
    let all = boxes().count();
    if all == 0 {
        return Ok((BoxForm::Xywh, None));
    }
    let few = |wrong: usize| wrong * WRONG_ONE_IN <= all;
    let large = count(&|seen| seen.bbox.iter().any(|number| number.abs() > 1.0 + SLACK_OF_ONE));
    let unit = if few(large) { Unit::Shares } else { Unit::Pixels };
    let forms = BoxForm::ALL.into_iter().filter(|form| form.unit() == unit);
    let wrong: Vec<(BoxForm, usize)> =
        forms.map(|form| (form, count(&|seen| seen.is_wrong_as(form)))).collect();
    let mut possible: Vec<BoxForm> =
        wrong.iter().filter(|(_, wrong)| few(*wrong)).map(|(form, _)| *form).collect();
    if unit == Unit::Pixels {
        // Masks have areas of their own, so that an area that differs shows nothing.
        let areas = count(&|seen| seen.area.is_some_and(|area| area > 0.0));
        let shown = |form| {
            let equal = count(&|seen| seen.has_area_of(form));
            equal > 0 && equal * 10 >= areas * 9
        };
        match (shown(BoxForm::Xywh), shown(BoxForm::Xyxy)) {
            (true, false) => possible.retain(|form| *form != BoxForm::Xyxy),
            (false, true) => possible.retain(|form| *form == BoxForm::Xyxy),
            _ => {}
        }
    }
    let counts: Vec<String> =
        wrong.iter().map(|(form, wrong)| format!("{wrong} as {form}")).collect();
    let counts = counts.join(", ");
    match *possible {
        [form] => Ok((
            form,
            Some(format!(
                "boxes are read as {form}: nothing else is possible (of {all} boxes, inverted or beyond their \
                 image: {counts}). If that is wrong, say what they are: {}",
                Argument::Boxes
            )),
        )),
        [] => Err((
            format!(
                "boxes of no known form (of {all} boxes, inverted or beyond their image: {counts})"
            ),
            format!("if you know what they are, say it: {} ({})", Argument::Boxes, explained()),
        )),
        _ => Err((
            format!(
                "the file does not say what the numbers of its boxes are, and its {all} boxes can be {}",
                names(&possible).replace(", ", " or ")
            ),
            format!("say what they are: {} ({})", Argument::Boxes, explained()),
        )),
    }
}

fn explained() -> String {
    format!(
        "{}; xywh is a corner, width and height, as COCO's; xyxy two corners; cxcywh the centre, width and \
         height; shares go from 0 to 1",
        names(&BoxForm::ALL)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SIZE: Option<[u32; 2]> = Some([100, 200]);

    /// Boxes all over an image of 200 by 100, in a form; the factor is 1 for pixels.
    fn drawn(form: BoxForm, size: Option<[u32; 2]>) -> Vec<Seen> {
        let [across, down] = if form.unit() == Unit::Shares { [200.0, 100.0] } else { [1.0; 2] };
        let mut boxes = Vec::new();
        for x in (0..180).step_by(20) {
            for y in (0..80).step_by(20) {
                let [x, y, w, h] = [x as f64 / across, y as f64 / down, 20.0 / across, 20.0 / down];
                let bbox = match form {
                    BoxForm::Xywh | BoxForm::XywhShares => [x, y, w, h],
                    BoxForm::Xyxy | BoxForm::XyxyShares => [x, y, x + w, y + h],
                    BoxForm::Cxcywh | BoxForm::CxcywhShares => [x + w / 2.0, y + h / 2.0, w, h],
                };
                boxes.push(Seen { bbox, size, area: None });
            }
        }
        boxes
    }

    fn of(boxes: &[Seen]) -> Result<BoxForm, String> {
        decide(boxes.iter().copied()).map(|(form, _)| form).map_err(|(problem, _)| problem)
    }

    #[test]
    fn every_form_is_told_from_the_others() {
        for form in [BoxForm::Xywh, BoxForm::Xyxy, BoxForm::XywhShares, BoxForm::XyxyShares] {
            assert_eq!(of(&drawn(form, SIZE)), Ok(form), "{form}");
            let xywh = drawn(form, SIZE)[5];
            let [x, y, w, h] = form.xywh(xywh.bbox);
            assert!((x * w * y * h).abs() > 0.0, "{form}");
        }
        // Centres of boxes that touch the right edge, too, are corners of boxes beyond it.
        for form in [BoxForm::Cxcywh, BoxForm::CxcywhShares] {
            let mut boxes = drawn(form, SIZE);
            let last = boxes[boxes.len() - 1];
            let [x, y, w, h] = last.bbox;
            let at = |i| Seen { bbox: [x + w, y - h * f64::from(i), w, h], ..last };
            boxes.extend((0..4).map(at));
            assert_eq!(of(&boxes), Ok(form), "{form}");
        }
    }

    #[test]
    fn a_few_wrong_boxes_do_not_decide() {
        let mut boxes: Vec<Seen> = (0..3).flat_map(|_| drawn(BoxForm::Xywh, SIZE)).collect();
        boxes.push(Seen { bbox: [190.0, 10.0, 30.0, 5.0], size: SIZE, area: None });
        boxes.push(Seen { bbox: [f64::NAN, 10.0, 30.0, 5.0], size: SIZE, area: None });
        assert_eq!(of(&boxes), Ok(BoxForm::Xywh));
        let (_, note) = decide(boxes.iter().copied()).unwrap();
        let note = note.unwrap();
        assert!(note.contains("of 109 boxes") && note.contains("1 as xywh"), "{note}");
    }

    #[test]
    fn what_may_be_several_is_asked() {
        let one = |bbox, size, area| of(&[Seen { bbox, size, area }]);
        let problem = one([10.0, 10.0, 20.0, 20.0], SIZE, None).unwrap_err();
        assert!(problem.ends_with("its 1 boxes can be xywh or xyxy or cxcywh"), "{problem}");
        // Areas tell corners from sizes.
        assert_eq!(one([10.0, 10.0, 20.0, 20.0], SIZE, Some(100.0)), Ok(BoxForm::Xyxy));
        let problem = one([10.0, 10.0, 20.0, 20.0], SIZE, Some(400.0)).unwrap_err();
        assert!(problem.ends_with("can be xywh or cxcywh"), "{problem}");
        assert_eq!(one([8.0, 10.0, 20.0, 20.0], SIZE, Some(400.0)), Ok(BoxForm::Xywh));
        // Without sizes nothing is beyond an image.
        let corners = drawn(BoxForm::Xyxy, None);
        assert!(of(&corners).unwrap_err().ends_with("can be xywh or xyxy"));
        let problem = one([500.0, 10.0, 20.0, 20.0], SIZE, None).unwrap_err();
        assert!(problem.starts_with("boxes of no known form (of 1 boxes"), "{problem}");
        assert_eq!(of(&[]), Ok(BoxForm::Xywh));
    }

    #[test]
    fn names_are_read_back() {
        for form in BoxForm::ALL {
            assert_eq!(form.name().parse(), Ok(form));
            let written = serde_json::to_string(&form).unwrap();
            assert_eq!(written, format!("\"{form}\""));
            assert_eq!(serde_json::from_str::<BoxForm>(&written).unwrap(), form);
        }
        assert!("yolo".parse::<BoxForm>().unwrap_err().contains("xywh, xyxy"));
    }
}
