//! What Faster R-CNN learns: which boxes it looks at in training, and the terms of both of its stages.

mod criterion;
mod input;
mod matching;
mod regions;
mod sampling;

use tch::Tensor;

pub use criterion::{Criterion, MatchedTerms, PendingTerms};
pub use input::{Input, StageTensors, TrainingOutput};

use self::{
    input::Truth,
    matching::{Labels, Overlaps},
    sampling::{Draw, draws, most_positive, places},
};
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

    /// The pass. The host waits on the way: for the boxes that are suppressed, and for the levels that boxes are
    /// read from.
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
        let truth = Truth::new(&input.targets, (proposals.boxes.kind(), proposals.boxes.device()));
        let mut boxes = torch_ext::no_grad(|| self.choose(&proposals, &truth, input));
        let mut stages = Vec::new();
        let mut last_features = None;
        for number in 0..self.config.roi.stages() {
            if number > 0 {
                boxes = torch_ext::no_grad(|| self.again(boxes, number, &truth, input));
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
    fn choose(&self, proposals: &Proposals, truth: &Truth, input: &Input) -> Looked {
        let config = &self.config.roi;
        let (device, kind) = (proposals.boxes.device(), proposals.boxes.kind());
        let most = truth.boxes.iter().map(|boxes| boxes.size()[0]).max().unwrap_or(0);
        let each =
            truth.boxes.iter().zip(&truth.first).enumerate().map(|(i, (objects, &first))| {
                let (image, own) = (i as i64, objects.size()[0]);
                // Places without an object, so that all images have the same number.
                let none = Tensor::zeros([most - own, 4], (kind, device));
                let boxes = Tensor::cat(&[&proposals.boxes.get(image), objects, &none], 0);
                let there = Tensor::ones([own], (tch::Kind::Bool, device));
                let valid = [&proposals.valid.get(image), &there, &none.select(1, 0).gt(0.0)];
                let valid = Tensor::cat(&valid, 0);
                let overlaps = Overlaps::new(objects, &boxes, input.ignore_inside);
                let Labels { positive, negative, target } = overlaps.box_labels(config.iou[0]);
                let (positive, negative) =
                    (positive.logical_and(&valid), negative.logical_and(&valid));
                let draws = draws(
                    input.key,
                    input.first_image + i as u64,
                    Draw::Rois,
                    boxes.size()[0],
                    device,
                );
                let total = config.batch_per_image;
                let most = most_positive(total, config.positive_fraction);
                let (at, valid) = places((&positive, &negative), &draws, total, most);
                let target = (target + first).masked_fill(&positive.logical_not(), -1);
                Looked {
                    boxes: boxes.index_select(0, &at),
                    target: target.index_select(0, &at),
                    valid,
                }
            });
        Looked::stack(&each.collect::<Vec<_>>())
    }

    /// What the boxes are in a later stage of a cascade, which asks for more overlap. None is drawn anew.
    fn again(&self, boxes: Looked, stage: usize, truth: &Truth, input: &Input) -> Looked {
        let each =
            truth.boxes.iter().zip(&truth.first).enumerate().map(|(i, (objects, &first))| {
                let own = boxes.boxes.get(i as i64);
                let overlaps = Overlaps::new(objects, &own, input.ignore_inside);
                let Labels { positive, negative, target } =
                    overlaps.box_labels(self.config.roi.iou[stage]);
                let counts = positive.logical_or(&negative);
                Looked {
                    boxes: own,
                    valid: boxes.valid.get(i as i64).logical_and(&counts),
                    target: (target + first).masked_fill(&positive.logical_not(), -1),
                }
            });
        Looked::stack(&each.collect::<Vec<_>>())
    }
}

/// Boxes of a stage, and what they are: see [`StageTensors`].
struct Looked {
    boxes: Tensor,
    valid: Tensor,
    target: Tensor,
}

impl Looked {
    fn stack(each: &[Self]) -> Self {
        let stack =
            |of: fn(&Self) -> &Tensor| Tensor::stack(&each.iter().map(of).collect::<Vec<_>>(), 0);
        Self {
            boxes: stack(|one| &one.boxes),
            valid: stack(|one| &one.valid),
            target: stack(|one| &one.target),
        }
    }
}
