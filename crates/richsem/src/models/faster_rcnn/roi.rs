//! The second stage: features of boxes, and what they hold.

use tch::{Kind, Tensor};
use torch_ext::LevelBoxes;

use super::{
    coding::BoxCoder,
    config::{BoxHeadKind, BoxPredictor, Classifier, FasterRcnnConfig, GROUPS, LEVELS, Variant},
    fpn::uniform,
};
use crate::{
    error::Result,
    models::{
        class_head::{ClassHead, ClassSpace, TextTable},
        layers::{Conv2d, GroupNorm, Linear, at_least_f32},
        parameters::{Init, Scope},
        projection::Projection,
    },
};

/// Probability that each class starts with, where classes are told apart one by one.
const PRIOR: f64 = 0.01;
/// Side of a box that is read from a map of stride 16, in pixels: what ImageNet's networks see.
const CANONICAL: (f64, f64) = (224.0, 16.0);

/// Number of each box's level, 0 for P2 to 3 for P5, by its area. `finest` is P2's stride.
///
/// # Shapes
/// `[R, 4]` → `[R]` i64
fn level_of(boxes: &Tensor, finest: f64, variant: Variant) -> Tensor {
    let sides = boxes.narrow(1, 2, 2) - boxes.narrow(1, 0, 2);
    let side = (sides.select(1, 0) * sides.select(1, 1)).clamp_min(0.0).sqrt() / CANONICAL.0;
    let (eps, last) = (variant.level_eps(), LEVELS - 1);
    let of_canonical = (CANONICAL.1 / finest).log2();
    let level = match variant {
        Variant::Detectron2 => (side + eps).log2() + of_canonical,
        Variant::Torchvision => side.log2() + (of_canonical + eps),
    };
    // A box that is no box (NaN) is read somewhere: it gives zeros.
    level.nan_to_num(0.0, None, None).floor().clamp(0.0, last as f64).to_kind(Kind::Int64)
}

/// Features of boxes, each from the level of its size. On a GPU nothing waits.
///
/// # Shapes
/// P2 to P5 `[B, C, H_l, W_l]` with their strides, `boxes` `[R, 5]` (image, corners in pixels) → `[R, C, pool, pool]`.
/// `sizes` `[B, 2]`, where images end in their maps: none if padding is treated as image
///
/// # Errors
/// What the kernel refuses.
pub(super) fn pool(
    (pyramid, strides): (&[Tensor], [f64; LEVELS]),
    (boxes, sizes): (&Tensor, Option<&Tensor>),
    pool: i64,
    variant: Variant,
) -> Result<Tensor> {
    let levels = level_of(&boxes.narrow(1, 1, 4), strides[0], variant);
    let scales: Vec<f64> = strides.iter().map(|stride| 1.0 / stride).collect();
    let (ratio, aligned) = variant.pooling();
    let boxes = LevelBoxes { boxes, levels: &levels, sizes };
    Ok(torch_ext::roi_align_levels(pyramid, boxes, (pool, pool), &scales, ratio, aligned)?)
}

/// What lies between pooled boxes and predictors.
#[derive(Debug)]
enum BoxHead {
    TwoFc([Linear; 2]),
    FourConvOneFc(Vec<(Conv2d, GroupNorm)>, Linear),
}

impl BoxHead {
    fn new(scope: &Scope, config: &FasterRcnnConfig) -> Self {
        let (channels, dim) = (config.fpn_dim, config.roi.dim);
        let flat = channels * config.roi.pool * config.roi.pool;
        let fc = |name: &str, input: i64| {
            let zero = Some(Init::Constant(0.0));
            Linear::with_init(&scope.sub(name), input, dim, uniform(input), zero)
        };
        match config.roi.head {
            BoxHeadKind::TwoFc => Self::TwoFc([fc("fc6", flat), fc("fc7", dim)]),
            BoxHeadKind::FourConvOneFc => {
                let layer = |i: i64| {
                    let scope = scope.sub(format!("conv{i}"));
                    let conv = Conv2d::new(&scope, channels, channels, 3, 1);
                    (conv, GroupNorm::new(&scope.sub("norm"), GROUPS, channels))
                };
                Self::FourConvOneFc((1..=4).map(layer).collect(), fc("fc6", flat))
            }
        }
    }

    /// # Shapes
    /// `[R, C, pool, pool]` → `[R, D]`
    fn forward(&self, pooled: &Tensor) -> Tensor {
        match self {
            Self::TwoFc([first, second]) => {
                second.forward_relu(&first.forward_relu(&pooled.flatten(1, 3)))
            }
            Self::FourConvOneFc(layers, last) => {
                let mut x = pooled.shallow_clone();
                for (conv, norm) in layers {
                    x = norm.forward(&conv.forward(&x), None).relu();
                }
                last.forward_relu(&x.flatten(1, 3))
            }
        }
    }
}

/// What a stage says of R boxes.
#[derive(Debug)]
pub struct StageOutput {
    /// `[R, D]`: the boxes as the predictors see them.
    pub features: Tensor,
    /// `[R, C]` class logits; with `softmax` `[R, C + 1]`, the background last.
    pub logits: Tensor,
    /// `[R, 4 C]`, or `[R, 4]` where boxes are the same for all classes: better boxes, as codes relative to the
    /// boxes.
    pub deltas: Tensor,
}

/// One look at boxes: their features, their classes, better boxes.
#[derive(Debug)]
pub(super) struct Stage {
    head: BoxHead,
    class: ClassHead,
    boxes: Vec<Linear>,
    pub(super) coder: BoxCoder,
}

impl Stage {
    /// `heads` and `predictors` are its scopes; `number` counts from 0.
    pub(super) fn new(
        (heads, predictors): (&Scope, &Scope),
        number: usize,
        config: &FasterRcnnConfig,
        space: ClassSpace,
    ) -> Self {
        let dim = config.roi.dim;
        let zero = Init::Constant(0.0);
        let scope = predictors.sub("cls_score");
        let class = match space {
            ClassSpace::Classes(classes) => {
                let (rows, bias) = match config.classifier {
                    Classifier::Softmax => (classes + 1, 0.0),
                    Classifier::Sigmoid => (classes, -((1.0 - PRIOR) / PRIOR).ln()),
                };
                let (weight, bias) = (Init::Normal(0.01), Some(Init::Constant(bias)));
                ClassHead::Linear(Linear::with_init(&scope, dim, rows, weight, bias))
            }
            ClassSpace::Text(width) => ClassHead::Text {
                proj: Projection::new(&scope.sub("linear"), dim, width, config.class_projection),
                logit_scale: scope.buffer("logit_scale", &[], 100f64.ln()),
            },
        };
        let codes = match (config.roi.class_agnostic, space) {
            (true, _) => 4,
            (false, ClassSpace::Classes(classes)) => 4 * classes,
            (false, ClassSpace::Text(_)) => unreachable!("checked by the settings"),
        };
        let scope = predictors.sub("bbox_pred");
        let last =
            |scope: &Scope| Linear::with_init(scope, dim, codes, Init::Normal(0.001), Some(zero));
        let boxes = match config.roi.box_predictor {
            BoxPredictor::Linear => vec![last(&scope)],
            BoxPredictor::Mlp => vec![Linear::new(&scope.sub(0), dim, dim), last(&scope.sub(2))],
        };
        let weights = config.roi.box_weights.map(|weight| weight * (number + 1) as f64);
        Self { head: BoxHead::new(heads, config), class, boxes, coder: BoxCoder { weights } }
    }

    pub(super) fn class_head(&self) -> &ClassHead {
        &self.class
    }

    /// # Shapes
    /// `[R, C, pool, pool]` → see [`StageOutput`]
    pub(super) fn forward(&self, pooled: &Tensor, text: Option<&TextTable>) -> StageOutput {
        let features = self.head.forward(pooled);
        torch_ext::no_autocast(features.device(), || {
            let features = at_least_f32(&features);
            let deltas = match &self.boxes[..] {
                [first, last] => last.forward(&first.forward_relu(&features)),
                only => only[0].forward(&features),
            };
            StageOutput { logits: self.class.forward(&features, text), deltas, features }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 112² lies exactly at the border of P3 and P4 … 224² at that of P4's: ⌊4 + log2(√area / 224)⌋.
    #[test]
    fn a_box_is_read_from_the_level_of_its_size() {
        let squares: Vec<f32> = [8.0f32, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 9000.0]
            .into_iter()
            .flat_map(|side| [1.0, 2.0, 1.0 + side, 2.0 + side])
            .collect();
        let squares = Tensor::from_slice(&squares).view([-1, 4]);
        for variant in [Variant::Detectron2, Variant::Torchvision] {
            let levels = Vec::<i64>::try_from(level_of(&squares, 4.0, variant)).unwrap();
            assert_eq!(levels, [0, 0, 1, 1, 2, 2, 3, 3]);
        }
        // Patches of 14 pixels: strides 3.5, 7, 14, 28. Borders are where those of stride 16 are, times 14 / 16.
        let squares: Vec<f32> = [97.0f32, 99.0, 195.0, 197.0, 391.0, 393.0]
            .into_iter()
            .flat_map(|side| [0.0, 0.0, side, side])
            .collect();
        let squares = Tensor::from_slice(&squares).view([-1, 4]);
        let levels = Vec::<i64>::try_from(level_of(&squares, 3.5, Variant::Detectron2)).unwrap();
        assert_eq!(levels, [0, 1, 1, 2, 2, 3]);
        // A place without a box, and numbers that are none.
        let none = Tensor::zeros([2, 4], (Kind::Float, tch::Device::Cpu));
        let _ = none.get(1).fill_(f64::NAN);
        assert_eq!(
            Vec::<i64>::try_from(level_of(&none, 4.0, Variant::Torchvision)).unwrap(),
            [0, 0]
        );
    }
}
