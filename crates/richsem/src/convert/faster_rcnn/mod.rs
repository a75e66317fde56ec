//! Faster R-CNN of torchvision and detectron2 as a detector of this program, and back.

mod export;
mod import;
pub mod keys;
mod sizes;

pub(super) use export::to_pth;
pub(super) use import::{from_checkpoint, initial_values};

use self::keys::Origin;
use crate::models::{config::ModelConfig, faster_rcnn::Classifier};

/// ImageNet's mean pixel as detectron2's models have it: red, green and blue, from 0 to 1; nothing is divided.
const MSRA_MEAN: [f32; 3] = [123.675 / 255.0, 116.28 / 255.0, 103.53 / 255.0];
const MSRA_STD: [f32; 3] = [1.0 / 255.0; 3];

/// The stem's convolution, whose input channels may be blue, green, red.
const STEM: &str = "backbone.body.conv1.weight";

/// Whether the weights of a detectron2 model with these pixels see blue first: those of MSRA, which are not divided.
fn sees_blue_first(model: &ModelConfig) -> bool {
    model.pixel_std.iter().zip(MSRA_STD).all(|(own, msra)| (own - msra).abs() < 1e-6)
}

/// What of a predictor has a row for each class.
fn rows(name: &str) -> Option<Rows> {
    if !name.starts_with("roi_heads.box_predictor.") {
        return None;
    }
    let ends = |part: &str| {
        [".weight", ".bias"].iter().any(|leaf| name.ends_with(&format!("{part}{leaf}")))
    };
    match () {
        () if ends(".cls_score") => Some(Rows::Classes),
        () if ends(".bbox_pred") || ends(".bbox_pred.2") => Some(Rows::Boxes),
        () => None,
    }
}

/// What rows of a predictor are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// One for each class, and one for the background.
    Classes,
    /// Four for each class, or four for all.
    Boxes,
}

/// Whether a checkpoint has the background before the classes, with boxes of its own.
fn background_first(origin: Origin) -> bool {
    origin != Origin::Detectron2
}

/// The rows of a checkpoint's tensor, of `count` rows, that are ours, in our order; none: all of them, as they are.
/// `classes` are the numbers of our classes among the checkpoint's.
fn own_rows(
    what: Rows,
    count: i64,
    origin: Origin,
    classes: &[i64],
    classifier: Classifier,
) -> Option<Vec<i64>> {
    match what {
        Rows::Boxes if count == 4 => None,
        Rows::Boxes => {
            Some(classes.iter().flat_map(|row| (0..4).map(move |i| row * 4 + i)).collect())
        }
        Rows::Classes => {
            let background = if background_first(origin) { 0 } else { count - 1 };
            let last = (classifier == Classifier::Softmax).then_some(background);
            Some(classes.iter().copied().chain(last).collect())
        }
    }
}

/// The numbers of the classes in a checkpoint that has ours alone, in our order.
fn in_order(origin: Origin, classes: i64) -> Vec<i64> {
    let first = i64::from(background_first(origin));
    (first..first + classes).collect()
}

/// How many rows a checkpoint of so many classes has.
fn row_count(what: Rows, origin: Origin, classes: i64) -> i64 {
    match what {
        Rows::Classes => classes + 1,
        Rows::Boxes => 4 * (classes + i64::from(background_first(origin))),
    }
}
