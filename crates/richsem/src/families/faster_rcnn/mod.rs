//! What Faster R-CNN learns: which boxes it looks at in training, and the terms of both of its stages.

mod criterion;
mod input;
mod matching;
mod regions;
mod sampling;

use tch::{Device, Kind, Tensor};

pub use criterion::{Criterion, MatchedTerms, PendingTerms};
pub use input::{Input, StageTensors, TrainingOutput};

use self::{
    matching::{Labels, Overlaps},
    sampling::{most_positive, places},
};
use super::Step;
use crate::{
    error::Result,
    losses::LossConfig,
    models::{
        class_head::TextTable,
        faster_rcnn::{FasterRcnn, FasterRcnnConfig, Proposals, has_inside, with_images},
        network::Images,
    },
};

/// What a Faster R-CNN detector learns by.
#[derive(Debug)]
pub struct Objective {
    /// The terms.
    pub criterion: Criterion,
    config: FasterRcnnConfig,
}

impl Objective {
    /// `image_counts` of the vocabulary's classes drive the federated loss. `regions`: whether a semantic branch
    /// will ask for regions.
    #[must_use]
    pub fn new(
        config: &FasterRcnnConfig,
        loss: &LossConfig,
        image_counts: &[u32],
        regions: bool,
    ) -> Self {
        Self {
            criterion: Criterion::new(config, loss, image_counts, regions),
            config: config.clone(),
        }
    }

    pub(super) fn describe(&self) -> String {
        let (anchors, boxes) = (self.config.rpn.batch_per_image, self.config.roi.batch_per_image);
        format!("{anchors} anchors and {boxes} boxes of proposals each")
    }

    /// The inputs that are made of a batch's targets.
    pub(super) fn input(&self, step: &Step<'_>, device: Device, common: bool) -> Input {
        Input::new(step, self.config.rpn.post_nms_train, device, common)
    }

    /// The pass. On a GPU nothing waits, and shapes depend on those of the input alone.
    pub(super) fn run(
        &self,
        network: &FasterRcnn,
        images: Images,
        text: Option<&TextTable>,
        input: &Input,
    ) -> Result<Vec<Tensor>> {
        let features = network.features(images, images.learns)?;
        let rpn = network.rpn(&features)?;
        let proposals = network.propose(&rpn, &features, true)?;
        let truth = torch_ext::no_grad(|| Truth::new(input, proposals.boxes.kind()));
        let mut boxes = torch_ext::no_grad(|| self.choose(&proposals, &truth, &input.draws));
        let mut stages = Vec::new();
        let mut last_features = None;
        for number in 0..self.config.roi.stages() {
            if number > 0 {
                boxes = torch_ext::no_grad(|| self.again(boxes, number, &truth));
            }
            let out = network.look(&features, &with_images(&boxes.boxes), number, text)?;
            let next = (number + 1 < self.config.roi.stages()).then(|| {
                let refined = network.refine(&boxes.boxes, &out.deltas, number, &features.sizes);
                let valid = boxes.valid.logical_and(&has_inside(&refined, 0.0));
                Looked { boxes: refined, valid, target: boxes.target.shallow_clone() }
            });
            let Looked { boxes: at, valid, target } = boxes;
            stages.push(StageTensors {
                boxes: at.shallow_clone(),
                valid: valid.shallow_clone(),
                target: target.shallow_clone(),
                logits: out.logits,
                deltas: out.deltas,
            });
            last_features = Some(out.features);
            boxes = next.unwrap_or(Looked { boxes: at, valid, target });
        }
        let features = last_features.expect("there is a first stage");
        let (rpn_logits, rpn_deltas, anchors) = (rpn.logits, rpn.deltas, rpn.anchors);
        let output = TrainingOutput { rpn_logits, rpn_deltas, anchors, features, stages };
        Ok(output.into_list())
    }

    /// The boxes that learn, of the proposals and the objects' own.
    fn choose(&self, proposals: &Proposals, truth: &Truth, draws: &Tensor) -> Looked {
        let config = &self.config.roi;
        let boxes = Tensor::cat(&[&proposals.boxes, &truth.boxes], 1);
        let valid = Tensor::cat(&[&proposals.valid, truth.there], 1);
        let Labels { positive, negative, target } = truth.labels(&boxes, config.iou[0]);
        let (positive, negative) = (positive.logical_and(&valid), negative.logical_and(&valid));
        // Those of objects come last, however many proposals there are.
        let objects = truth.boxes.size()[1];
        let of_objects = draws.narrow(1, draws.size()[1] - objects, objects);
        let of_proposals = draws.narrow(1, 0, boxes.size()[1] - objects);
        let draws = Tensor::cat(&[of_proposals, of_objects], 1);
        let total = config.batch_per_image;
        let most = most_positive(total, config.positive_fraction);
        let (at, valid) = places((&positive, &negative), &draws, total, most);
        let target = target.masked_fill(&positive.logical_not(), -1);
        let at_boxes = at.unsqueeze(-1).expand([-1, -1, 4], false);
        Looked {
            boxes: boxes.gather(1, &at_boxes, false),
            target: target.gather(1, &at, false),
            valid,
        }
    }

    /// What the boxes are in a later stage of a cascade, which asks for more overlap. None is drawn anew.
    fn again(&self, Looked { boxes, valid, .. }: Looked, stage: usize, truth: &Truth) -> Looked {
        let Labels { positive, negative, target } =
            truth.labels(&boxes, self.config.roi.iou[stage]);
        Looked {
            boxes,
            valid: valid.logical_and(&positive.logical_or(&negative)),
            target: target.masked_fill(&positive.logical_not(), -1),
        }
    }
}

/// The objects of a batch.
struct Truth<'a> {
    /// `[B, T, 4]`: corners in pixels.
    boxes: Tensor,
    there: &'a Tensor,
    /// `[B, 1]`: number of the first object of each image among the batch's.
    first: Tensor,
    ignore_inside: bool,
}

impl<'a> Truth<'a> {
    fn new(input: &'a Input, kind: Kind) -> Self {
        let counts = input.there.sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
        Self {
            boxes: input.boxes.to_kind(kind),
            there: &input.there,
            first: counts.cumsum(0, Kind::Int64) - counts,
            ignore_inside: input.ignore_inside,
        }
    }

    /// What boxes `[B, N, 4]` are that overlap an object by `iou` or not; objects are counted over the batch.
    fn labels(&self, boxes: &Tensor, iou: f64) -> Labels {
        let overlaps = Overlaps::new(&self.boxes, boxes, Some(self.there), self.ignore_inside);
        let labels = overlaps.box_labels(iou);
        Labels { target: labels.target + &self.first, ..labels }
    }
}

/// Boxes of a stage, and what they are: see [`StageTensors`].
struct Looked {
    boxes: Tensor,
    valid: Tensor,
    target: Tensor,
}

#[cfg(test)]
mod padding_tests;
