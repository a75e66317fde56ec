//! Region proposal network (arXiv 1506.01497): which boxes may hold an object.

use tch::{Kind, Tensor};

use super::{
    anchors::{cell_anchors, in_image, level_anchors},
    coding::{BoxCoder, clip},
    config::{FasterRcnnConfig, RpnConfig, Variant},
};
use crate::{
    error::Result,
    models::{
        layers::{Conv2d, at_least_f32},
        parameters::{Init, Scope},
    },
};

/// Codes of anchors are not weighted.
pub const CODER: BoxCoder = BoxCoder { weights: [1.0; 4] };

/// What the network says of every anchor. A is their number in one image, level by level.
#[derive(Debug)]
pub struct RpnOutput {
    /// `[B, A]`: logits of being an object.
    pub logits: Tensor,
    /// `[B, A, 4]`: boxes, as codes relative to the anchors.
    pub deltas: Tensor,
    /// `[A, 4]`: the anchors, in corners.
    pub anchors: Tensor,
    /// `[B, A]` bool: which anchors stand in their image; none: all are taken as if they did.
    pub in_image: Option<Tensor>,
    /// Anchors of each level.
    pub counts: Vec<i64>,
}

/// Boxes to look at. Each image has the same number P of places for them.
#[derive(Debug)]
pub struct Proposals {
    /// `[B, P, 4]`: corners in pixels, inside the image, best first.
    pub boxes: Tensor,
    /// `[B, P]`: logits of being an object; −∞ where a place is empty.
    pub logits: Tensor,
    /// `[B, P]` bool: whether there is a proposal at that place.
    pub valid: Tensor,
}

/// The network with its weights.
#[derive(Debug)]
pub(super) struct Rpn {
    conv: Conv2d,
    logits: Conv2d,
    deltas: Conv2d,
    /// For each level, P2 to P6, the anchors of a cell and the pixels from one cell to the next.
    cells: Vec<(Vec<[f64; 4]>, f64)>,
    config: RpnConfig,
    variant: Variant,
}

impl Rpn {
    pub(super) fn new(scope: &Scope, config: &FasterRcnnConfig) -> Self {
        let dim = config.fpn_dim;
        let (rpn, variant) = (config.rpn.clone(), config.variant);
        let count = rpn.aspect_ratios.len() as i64;
        let conv = |scope: Scope, output: i64, kernel: i64| {
            let (weight, bias) = (Init::Normal(0.01), Some(Init::Constant(0.0)));
            Conv2d::with_init(&scope, (dim, output), (kernel, 1), weight, bias)
        };
        let strides = config.strides();
        let strides = strides.into_iter().chain([2.0 * strides[strides.len() - 1]]);
        let anchors = |&size| cell_anchors(size, &rpn.aspect_ratios, variant.rounds_anchors());
        let cells = rpn.sizes.iter().map(anchors).zip(strides).collect();
        Self {
            conv: conv(scope.sub("conv").sub(0).sub(0), dim, 3),
            logits: conv(scope.sub("cls_logits"), count, 1),
            deltas: conv(scope.sub("bbox_pred"), 4 * count, 1),
            cells,
            config: rpn,
            variant,
        }
    }

    /// What it says of the pyramid of images of `[height, width]`, padding included. `sizes` `[B, 2]`: those without
    /// padding, where that is not treated as image.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn forward(
        &self,
        pyramid: &[Tensor],
        size: [i64; 2],
        sizes: Option<&Tensor>,
    ) -> Result<RpnOutput> {
        let (mut logits, mut deltas, mut anchors, mut counts) = (vec![], vec![], vec![], vec![]);
        for (map, (cells, stride)) in pyramid.iter().zip(&self.cells) {
            let hidden = self.conv.forward(map).relu();
            let (b, _, h, w) = hidden.size4()?;
            let k = cells.len() as i64;
            logits.push(self.logits.forward(&hidden).permute([0, 2, 3, 1]).reshape([b, h * w * k]));
            // A channel is anchor · 4 + coordinate.
            let codes = self.deltas.forward(&hidden).permute([0, 2, 3, 1]);
            deltas.push(codes.reshape([b, h * w * k, 4]));
            // Of a batch, torchvision's strides depend on its padding.
            let stride = if self.variant.rounds_anchors() && sizes.is_none() {
                ((size[0] / h) as f64, (size[1] / w) as f64)
            } else {
                (*stride, *stride)
            };
            let kind = at_least_f32(map).kind();
            anchors.push(level_anchors(cells, (h, w), stride, (kind, map.device())));
            counts.push(h * w * k);
        }
        let anchors = Tensor::cat(&anchors, 0);
        Ok(RpnOutput {
            logits: at_least_f32(&Tensor::cat(&logits, 1)),
            deltas: at_least_f32(&Tensor::cat(&deltas, 1)),
            in_image: sizes.map(|sizes| in_image(&anchors, sizes)),
            anchors,
            counts,
        })
    }

    /// The best boxes: those of each level's best anchors that have an inside in their image and overlap no
    /// better one of their level too much; of these, the image's best. Without gradients. On a GPU nothing waits.
    ///
    /// # Shapes
    /// `sizes` `[B, 2]`: height and width of each image without padding
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn propose(
        &self,
        output: &RpnOutput,
        sizes: &Tensor,
        train: bool,
    ) -> Result<Proposals> {
        torch_ext::no_grad(|| {
            let RpnConfig {
                pre_nms_train, pre_nms_test, post_nms_train, post_nms_test, nms, ..
            } = self.config;
            let (before, after) = match train {
                true => (pre_nms_train, post_nms_train),
                false => (pre_nms_test, post_nms_test),
            };
            let images = output.logits.size()[0];
            let all = match &output.in_image {
                Some(there) => output.logits.masked_fill(&there.logical_not(), f64::NEG_INFINITY),
                None => output.logits.shallow_clone(),
            };
            let (mut logits, mut boxes, mut levels) = (vec![], vec![], vec![]);
            let (mut from, mut largest) = (0, 0);
            for (level, &count) in (0i64..).zip(&output.counts) {
                let best = count.min(before);
                let (top, at) = all.narrow(1, from, count).topk(best, 1, true, true);
                let at_boxes = at.unsqueeze(-1).expand([images, best, 4], false);
                let codes = output.deltas.narrow(1, from, count).gather(1, &at_boxes, false);
                let anchors = output.anchors.narrow(0, from, count).index_select(0, &at.view([-1]));
                boxes.push(CODER.decode(&codes, &anchors.view([images, best, 4])));
                logits.push(top);
                levels.push(Tensor::full([best], level, (Kind::Int64, at.device())));
                largest = largest.max(best);
                from += count;
            }
            let boxes = clip(&Tensor::cat(&boxes, 1), sizes);
            let logits = Tensor::cat(&logits, 1);
            let usable = has_inside(&boxes, self.variant.least_proposal())
                .logical_and(&logits.isfinite())
                .logical_and(&boxes.isfinite().all_dim(-1, false));
            let logits = logits.masked_fill(&usable.logical_not(), f64::NEG_INFINITY);
            // Equal ones stay in the order of levels and anchors.
            let (logits, order) = logits.sort_stable(true, 1, true);
            let boxes = boxes.gather(1, &order.unsqueeze(-1).expand([-1, -1, 4], false), false);
            let levels = Tensor::cat(&levels, 0);
            let total = levels.size()[0];
            let levels = levels.expand([images, total], false).gather(1, &order, false);
            let first =
                Tensor::arange(images, (Kind::Int64, order.device())) * output.counts.len() as i64;
            let groups = (levels + first.unsqueeze(1)).masked_fill(&logits.isneginf(), -1);
            let stays = torch_ext::nms(&boxes.view([-1, 4]), &groups.view([-1]), nms, largest)?;
            let goes = stays.logical_not().view([images, total]).to_kind(Kind::Int8);
            let (goes, at) = goes.sort_stable(true, 1, false);
            let places = total.min(after);
            let (goes, at) = (goes.narrow(1, 0, places), at.narrow(1, 0, places));
            let valid = goes.eq(0);
            Ok(Proposals {
                boxes: boxes.gather(1, &at.unsqueeze(-1).expand([-1, -1, 4], false), false),
                logits: logits
                    .gather(1, &at, false)
                    .masked_fill(&valid.logical_not(), f64::NEG_INFINITY),
                valid,
            })
        })
    }
}

/// Whether both sides of boxes are larger than `least`, or at least so large if it is above zero.
///
/// # Shapes
/// `[…, 4]` → `[…]` bool
pub(crate) fn has_inside(boxes: &Tensor, least: f64) -> Tensor {
    let sides = boxes.narrow(-1, 2, 2) - boxes.narrow(-1, 0, 2);
    let large = if least > 0.0 { sides.ge(least) } else { sides.gt(0.0) };
    large.all_dim(-1, false)
}
