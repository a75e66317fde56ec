//! What a training pass takes besides images, and what it gives.

use tch::{Device, Kind, Tensor};

use crate::{
    losses::terms::{StepKey, WholeBatch},
    targets::{Supervision, Target},
};

/// What a pass needs to know of its targets: it decides on the way which boxes learn.
#[derive(Debug, Clone)]
pub struct Input {
    /// What is known of each image.
    pub targets: Vec<Target>,
    /// Whether what lies inside of a box is no background there.
    pub ignore_inside: bool,
    /// Key of the step's random draws.
    pub key: StepKey,
    /// Number of the first image among those of all processes.
    pub first_image: u64,
}

impl Input {
    /// Of a step's targets.
    #[must_use]
    pub fn new(targets: &[Target], supervision: &Supervision, whole: &WholeBatch) -> Self {
        Self {
            targets: targets.to_vec(),
            ignore_inside: supervision.ignore_inside,
            key: whole.key,
            first_image: whole.first_image,
        }
    }
}

/// The boxes of the images on the device.
pub(super) struct Truth {
    /// Of each image `[T, 4]`, corners in pixels.
    pub(super) boxes: Vec<Tensor>,
    /// The first box of each image among the batch's.
    pub(super) first: Vec<i64>,
}

impl Truth {
    pub(super) fn new(targets: &[Target], (kind, device): (Kind, Device)) -> Self {
        let boxes = targets.iter().map(|target| {
            let [height, width] = target.size.map(f64::from);
            let corners = target.boxes.iter().flat_map(|bbox| {
                let [cx, cy, w, h] = bbox.0.map(f64::from);
                let (half_w, half_h) = (w / 2.0, h / 2.0);
                [
                    (cx - half_w) * width,
                    (cy - half_h) * height,
                    (cx + half_w) * width,
                    (cy + half_h) * height,
                ]
            });
            let corners = Tensor::from_slice(&corners.collect::<Vec<f64>>()).view([-1, 4]);
            torch_ext::upload(&corners.to_kind(kind), device)
        });
        let first = targets.iter().scan(0, |sum, target| {
            let first = *sum;
            *sum += target.boxes.len() as i64;
            Some(first)
        });
        Self { boxes: boxes.collect(), first: first.collect() }
    }
}

/// A look at boxes: what they are, and what a stage says of them. R = images × places.
#[derive(Debug)]
pub struct StageTensors {
    /// `[B, P, 4]`: the boxes, corners in pixels.
    pub boxes: Tensor,
    /// `[B, P]` bool: whether there is a box that counts at that place.
    pub valid: Tensor,
    /// `[B, P]` i64: the object that it is, counted over the batch image by image; −1 for background.
    pub target: Tensor,
    /// `[R, C]`, or `[R, C + 1]` with the background last.
    pub logits: Tensor,
    /// `[R, 4 C]` or `[R, 4]`.
    pub deltas: Tensor,
}

/// What a training pass gives.
#[derive(Debug)]
pub struct TrainingOutput {
    /// `[B, A]`: logits of being an object, of every anchor.
    pub rpn_logits: Tensor,
    /// `[B, A, 4]`: boxes, relative to the anchors.
    pub rpn_deltas: Tensor,
    /// `[A, 4]`: the anchors.
    pub anchors: Tensor,
    /// `[R, D]`: the boxes of the last stage as its predictors see them.
    pub features: Tensor,
    /// The stages in their order.
    pub stages: Vec<StageTensors>,
}

impl TrainingOutput {
    /// The fields in their order.
    #[must_use]
    pub fn into_list(self) -> Vec<Tensor> {
        let Self { rpn_logits, rpn_deltas, anchors, features, stages } = self;
        let mut list = vec![rpn_logits, rpn_deltas, anchors, features];
        list.extend(stages.into_iter().flat_map(|stage| {
            let StageTensors { boxes, valid, target, logits, deltas } = stage;
            [boxes, valid, target, logits, deltas]
        }));
        list
    }

    /// Undoes [`Self::into_list`].
    ///
    /// # Panics
    /// A list of another length.
    #[must_use]
    pub fn from_list(list: &[Tensor]) -> Self {
        let tensor = |x: &Tensor| x.shallow_clone();
        let stages = list[4..].chunks_exact(5).map(|stage| StageTensors {
            boxes: tensor(&stage[0]),
            valid: tensor(&stage[1]),
            target: tensor(&stage[2]),
            logits: tensor(&stage[3]),
            deltas: tensor(&stage[4]),
        });
        Self {
            rpn_logits: tensor(&list[0]),
            rpn_deltas: tensor(&list[1]),
            anchors: tensor(&list[2]),
            features: tensor(&list[3]),
            stages: stages.collect(),
        }
    }

    /// Its tensors by name, in the order in which a pass computes them.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, &Tensor)> {
        let mut named =
            vec![("anchor logits", &self.rpn_logits), ("anchor boxes", &self.rpn_deltas)];
        for stage in &self.stages {
            named.extend([
                ("boxes of the second stage", &stage.boxes),
                ("class logits", &stage.logits),
                ("box codes", &stage.deltas),
            ]);
        }
        named.push(("features of boxes", &self.features));
        named
    }
}
