//! Faster R-CNN with a feature pyramid (arXiv 1506.01497, 1612.03144), as detectron2 or torchvision computes it;
//! with several stages Cascade R-CNN (arXiv 1712.00726). Which boxes learn what is not decided here.

mod anchors;
pub mod coding;
mod config;
mod fpn;
pub mod postprocess;
pub mod roi;
pub mod rpn;

use tch::{Kind, Tensor};

pub use config::{
    BoxHeadKind, BoxPredictor, Classifier, FasterRcnnConfig, RoiConfig, RpnConfig, Variant,
};
pub use roi::StageOutput;
pub use rpn::{Proposals, RpnOutput};

use self::{
    coding::{BoxCoder, clip},
    fpn::Fpn,
    roi::Stage,
    rpn::Rpn,
};
use super::{
    backbone::{Backbone, BackboneConfig},
    class_head::{ClassSpace, TextTable},
    images::Images,
    layers::at_least_f32,
    padding::{Extent, Padding, PaddingPyramid},
    parameters::ParameterStore,
    projection::Projection,
};
use crate::error::{Error, Result};

pub(crate) use anchors::in_image;
pub(crate) use rpn::has_inside;

/// The backbone's maps that are read: C2 to C5.
const OUTPUTS: [usize; config::LEVELS] = [0, 1, 2, 3];

/// The detector with its weights. Parameters have torchvision's names.
#[derive(Debug)]
pub struct FasterRcnn {
    backbone: Backbone,
    fpn: Fpn,
    rpn: Rpn,
    stages: Vec<Stage>,
    space: ClassSpace,
    config: FasterRcnnConfig,
}

/// Feature maps of a batch.
#[derive(Debug)]
pub struct Features {
    /// P2 to P6, `[B, D, H_l, W_l]`.
    pyramid: Vec<Tensor>,
    /// `[B, 2]`: height and width of each image in pixels, without padding.
    pub sizes: Tensor,
    /// Height and width of the batch.
    padded: [i64; 2],
    /// Whether padding changes nothing: then the pyramid is zero there.
    masked: bool,
}

/// What it finds, before post-processing: P places for boxes in each image.
#[derive(Debug)]
pub struct InferenceOutput {
    /// `[B, P, C]`: probability of each class; −1 where a place is empty.
    pub scores: Tensor,
    /// `[B, P, 4 C]`, or `[B, P, 4]` where boxes are the same for all classes: corners in pixels of the batch.
    pub boxes: Tensor,
    /// `[B, 2]`: height and width of each image in the batch, in pixels.
    pub sizes: Tensor,
}

impl Features {
    /// P2 to P6, `[B, D, H_l, W_l]`.
    pub fn pyramid(&self) -> &[Tensor] {
        &self.pyramid
    }
}

impl FasterRcnn {
    /// Builds the detector in an empty store. `space` is the number of classes, or the width of the text tables
    /// it will be given.
    ///
    /// # Errors
    /// As [`FasterRcnnConfig::validate`].
    pub fn new(
        store: &ParameterStore,
        config: &FasterRcnnConfig,
        space: ClassSpace,
    ) -> Result<Self> {
        config.validate("model.faster_rcnn")?;
        let root = store.root();
        let backbone = root.sub("backbone");
        let channels: Vec<i64> = config.backbone.levels().iter().map(|l| l.channels).collect();
        let heads = root.sub("roi_heads");
        let count = config.roi.stages();
        // A ResNet has the name `body` in itself.
        let body = match &config.backbone {
            BackboneConfig::Resnet(_) => backbone.clone().backbone(),
            _ => backbone.clone().backbone().sub("body"),
        };
        let stage = |number: usize| {
            let of = |name: &str| match count {
                1 => heads.sub(name),
                _ => heads.sub(name).sub(number),
            };
            Stage::new((&of("box_head"), &of("box_predictor")), number, config, space)
        };
        Ok(Self {
            backbone: Backbone::new(&body, &config.backbone, &OUTPUTS),
            fpn: Fpn::new(&backbone.sub("fpn"), &channels, config.fpn_dim),
            rpn: Rpn::new(&root.sub("rpn").sub("head"), config),
            stages: (0..count).map(stage).collect(),
            space,
            config: config.clone(),
        })
    }

    /// Sizes it was built with.
    #[must_use]
    pub fn config(&self) -> &FasterRcnnConfig {
        &self.config
    }

    /// The last stage's projection into the space of the text, if it compares with text.
    #[must_use]
    pub fn class_projection(&self) -> Option<&Projection> {
        self.stages.last().and_then(|stage| stage.class_head().projection())
    }

    /// Takes the scale of the text's own model, for the class heads of all stages.
    pub fn set_logit_scale(&self, logit_scale: f64) {
        self.stages.iter().for_each(|stage| stage.class_head().set_logit_scale(logit_scale));
    }

    /// Codes of a stage's boxes.
    ///
    /// # Panics
    /// Beyond the last stage.
    #[must_use]
    pub fn coder(&self, stage: usize) -> BoxCoder {
        self.stages[stage].coder
    }

    /// Feature maps of images.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn features(&self, images: Images, train: bool) -> Result<Features> {
        let Images { pixels, mask, draws, learns: _ } = images;
        let masked = self.config.padding() == Padding::Masked;
        // Strides are powers of two where padding can be masked.
        let halvings = self.config.strides().map(|stride| stride.log2() as usize);
        let padding = masked.then(|| PaddingPyramid::new(mask, halvings[config::LEVELS - 1]));
        let maps = self.backbone.forward(pixels, padding.as_ref(), (train, draws))?;
        let extents = halvings.map(|halvings| Extent::at(padding.as_ref(), halvings));
        let pyramid = self.fpn.forward(&maps, &extents);
        let kind = if pixels.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let inside = mask.logical_not();
        let side =
            |axis: i64| inside.select(axis, 0).sum_dim_intlist([1i64].as_slice(), false, kind);
        let [.., height, width] = pixels.size()[..] else {
            unreachable!("images are [B, 3, H, W]")
        };
        Ok(Features {
            pyramid,
            sizes: Tensor::stack(&[side(2), side(1)], 1),
            padded: [height, width],
            masked,
        })
    }

    /// What the region proposal network says of every anchor.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn rpn(&self, features: &Features) -> Result<RpnOutput> {
        let sizes = features.masked.then_some(&features.sizes);
        self.rpn.forward(&features.pyramid, features.padded, sizes)
    }

    /// The boxes to look at. Without gradients.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn propose(
        &self,
        output: &RpnOutput,
        features: &Features,
        train: bool,
    ) -> Result<Proposals> {
        self.rpn.propose(output, &features.sizes, train)
    }

    /// What a stage says of boxes. In a cascade's training each stage passes its share of the gradient on to the
    /// features, so that all together pass on as much as one.
    ///
    /// # Shapes
    /// `boxes` `[R, 5]`: index of the image, corners in pixels; no gradient
    ///
    /// # Errors
    /// A text table that is missing or of another width; what libtorch refuses.
    pub fn look(
        &self,
        features: &Features,
        boxes: &Tensor,
        stage: usize,
        text: Option<&TextTable>,
    ) -> Result<StageOutput> {
        self.check_text(text)?;
        let maps = &features.pyramid[..config::LEVELS];
        let strides = self.config.strides();
        let boxes = (boxes, features.masked.then_some(&features.sizes));
        let pooled = roi::pool((maps, strides), boxes, self.config.roi.pool, self.config.variant)?;
        let stages = self.stages.len();
        let pooled = match stages {
            1 => pooled,
            _ => torch_ext::custom_function(
                "scale_gradient",
                &[&pooled],
                &[],
                || Ok(pooled.f_add_scalar(0.0)?),
                move |args| Ok(vec![Some(args.grad.f_mul_scalar(1.0 / stages as f64)?)]),
            )?,
        };
        Ok(self.stages[stage].forward(&pooled, text))
    }

    /// The boxes that a stage of a cascade hands on to the next: inside their images, without gradients.
    ///
    /// # Shapes
    /// `boxes` `[B, P, 4]`, `deltas` `[B · P, 4]` → `[B, P, 4]`
    pub fn refine(&self, boxes: &Tensor, deltas: &Tensor, stage: usize, sizes: &Tensor) -> Tensor {
        let codes = deltas.detach().view(boxes.size().as_slice());
        clip(&self.stages[stage].coder.decode(&codes, boxes), sizes)
    }

    /// Finds objects. Without gradients, with running statistics.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn infer(&self, images: Images, text: Option<&TextTable>) -> Result<InferenceOutput> {
        torch_ext::no_grad(|| {
            let features = self.features(images, false)?;
            let Proposals { boxes, valid, .. } =
                self.propose(&self.rpn(&features)?, &features, false)?;
            self.infer_at(&features, &boxes, &valid, text)
        })
    }

    /// As [`Self::infer`], of these boxes.
    fn infer_at(
        &self,
        features: &Features,
        boxes: &Tensor,
        valid: &Tensor,
        text: Option<&TextTable>,
    ) -> Result<InferenceOutput> {
        let (images, places, _) = boxes.size3()?;
        let mut boxes = boxes.shallow_clone();
        let mut scores: Option<Tensor> = None;
        let last = self.stages.len() - 1;
        for number in 0..=last {
            let out = self.look(features, &with_images(&boxes), number, text)?;
            let own = self.probabilities(&out.logits);
            scores = Some(match scores {
                Some(before) => before + own,
                None => own,
            });
            if number < last {
                boxes = self.refine(&boxes, &out.deltas, number, &features.sizes);
            } else {
                let codes = out.deltas.view([images, places, -1, 4]);
                let found = self.stages[number].coder.decode(&codes, &boxes.unsqueeze(2));
                boxes = clip(&found, &features.sizes).flatten(2, 3);
            }
        }
        let scores = scores.expect("there is a first stage") / self.stages.len() as f64;
        let scores = scores.view([images, places, -1]);
        let scores = scores.masked_fill(&valid.logical_not().unsqueeze(-1), -1.0);
        Ok(InferenceOutput { scores, boxes, sizes: features.sizes.shallow_clone() })
    }

    /// # Shapes
    /// `[R, C]` or `[R, C + 1]` → `[R, C]`
    fn probabilities(&self, logits: &Tensor) -> Tensor {
        match self.config.classifier {
            Classifier::Sigmoid => logits.sigmoid(),
            Classifier::Softmax => {
                let all = logits.softmax(-1, at_least_f32(logits).kind());
                all.narrow(-1, 0, all.size()[1] - 1)
            }
        }
    }

    fn check_text(&self, text: Option<&TextTable>) -> Result<()> {
        match (self.space, text) {
            (ClassSpace::Text(_), None) => Err(Error::config(
                "model.class_head",
                "this detector compares with text: it needs a text table",
            )),
            (ClassSpace::Text(width), Some(table)) if table.dim() != width => Err(Error::config(
                "model.class_head.table",
                format!("expected embeddings of width {width}, got {}", table.dim()),
            )),
            _ => Ok(()),
        }
    }
}

/// Boxes of all images in one list, each with the number of its image.
///
/// # Shapes
/// `[B, P, 4]` → `[B · P, 5]`
pub fn with_images(boxes: &Tensor) -> Tensor {
    let [images, places, _] = boxes.size()[..] else { unreachable!("boxes are [B, P, 4]") };
    let numbers = Tensor::arange(images, (boxes.kind(), boxes.device()));
    let numbers = numbers.view([images, 1, 1]).expand([images, places, 1], false);
    Tensor::cat(&[&numbers, boxes], 2).view([-1, 5])
}

#[cfg(test)]
mod tests;
