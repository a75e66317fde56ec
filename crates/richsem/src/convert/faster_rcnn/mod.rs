//! Faster R-CNN of torchvision and detectron2 as a detector of this program, and back.

mod export;
mod import;
pub mod keys;
mod sizes;

pub(super) use export::to_pth;
pub(super) use import::{from_checkpoint, initial_values};

use tch::Tensor;

use self::keys::Origin;
use crate::models::faster_rcnn::Classifier;

/// ImageNet's mean pixel as detectron2's models have it: red, green and blue, from 0 to 1; nothing is divided.
const MSRA_MEAN: [f32; 3] = [123.675 / 255.0, 116.28 / 255.0, 103.53 / 255.0];
const MSRA_STD: [f32; 3] = [1.0 / 255.0; 3];

/// The stem's convolution, whose input channels may be blue, green, red.
const STEM: &str = "backbone.body.conv1.weight";

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

/// Rows of a checkpoint that are our classes', in their order; `classes` are their numbers among the rows.
fn to_ours(
    (tensor, what): (&Tensor, Rows),
    origin: Origin,
    classes: &[i64],
    classifier: Classifier,
) -> Tensor {
    let count = tensor.size()[0];
    let rows: Vec<i64> = match what {
        Rows::Boxes if count == 4 => return tensor.shallow_clone(),
        Rows::Boxes => classes.iter().flat_map(|row| (0..4).map(move |i| row * 4 + i)).collect(),
        Rows::Classes => {
            let background = if background_first(origin) { 0 } else { count - 1 };
            let last = (classifier == Classifier::Softmax).then_some(background);
            classes.iter().copied().chain(last).collect()
        }
    };
    tensor.index_select(0, &Tensor::from_slice(&rows))
}

/// Our rows as a checkpoint has them. What we do not have is zero: of a sigmoid the background's row, of
/// torchvision the background's boxes. Nothing looks at them.
fn to_theirs((tensor, what): (&Tensor, Rows), origin: Origin, classifier: Classifier) -> Tensor {
    let zeros = |count: i64| {
        let mut size = tensor.size();
        size[0] = count;
        Tensor::zeros(&*size, (tensor.kind(), tensor.device()))
    };
    let count = tensor.size()[0];
    match (what, background_first(origin)) {
        (Rows::Boxes, true) if count > 4 => Tensor::cat(&[&zeros(4), tensor], 0),
        (Rows::Boxes, _) => tensor.shallow_clone(),
        (Rows::Classes, first) => {
            let (classes, background) = match classifier {
                Classifier::Softmax => {
                    (tensor.narrow(0, 0, count - 1), tensor.narrow(0, count - 1, 1))
                }
                Classifier::Sigmoid => (tensor.shallow_clone(), zeros(1)),
            };
            let both = if first { [background, classes] } else { [classes, background] };
            Tensor::cat(&both, 0)
        }
    }
}
