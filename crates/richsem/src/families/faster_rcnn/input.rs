//! What a training pass takes besides images, and what it gives.

use tch::{Device, Kind, Tensor};

use super::{
    super::Step,
    sampling::{Draw, draws},
};
use crate::targets::Target;

/// What a pass needs to know of its targets: it decides on the way which boxes learn.
#[derive(Debug)]
pub struct Input {
    /// `[B, T, 4]` f64: the objects' boxes, corners in pixels; zeros where there is no object.
    pub boxes: Tensor,
    /// `[B, T]` bool: whether there is an object at that place.
    pub there: Tensor,
    /// `[B, N]` f32: a random number for each box that may learn: of proposals first, then of objects. N is as large
    /// as it may have to be.
    pub draws: Tensor,
    /// Whether what lies inside of a box is no background there.
    pub ignore_inside: bool,
}

/// Fewest places for objects where batches are to have shapes in common.
const PLACES: usize = 128;

impl Input {
    /// Of a step's targets, for images of up to `proposals` proposals. With `common`, T is 128 or another power of
    /// two: passes are recorded apart for each.
    #[must_use]
    pub fn new(
        Step { targets, supervision, whole }: &Step<'_>,
        proposals: i64,
        device: Device,
        common: bool,
    ) -> Self {
        let images = targets.len() as i64;
        let most = targets.iter().map(|target| target.boxes.len()).max().unwrap_or(0);
        let places = if common { most.max(PLACES).next_power_of_two() } else { most };
        let mut corners = Vec::with_capacity(targets.len() * places * 4);
        let mut there = Vec::with_capacity(targets.len() * places);
        for (target, filled) in targets.iter().zip((1..).map(|image| image * places)) {
            corners.extend(corners_of(target));
            there.resize(there.len() + target.boxes.len(), true);
            corners.resize(filled * 4, 0.0);
            there.resize(filled, false);
        }
        let upload = |x: Tensor| torch_ext::upload(&x, device);
        let draws: Vec<Tensor> = (0..targets.len() as u64)
            .map(|image| {
                let count = proposals + places as i64;
                draws(whole.key, whole.first_image + image, Draw::Rois, count)
            })
            .collect();
        let places = places as i64;
        Self {
            boxes: upload(Tensor::from_slice(&corners).view([images, places, 4])),
            there: upload(Tensor::from_slice(&there).view([images, places])),
            draws: upload(Tensor::stack(&draws, 0)),
            ignore_inside: supervision.ignore_inside,
        }
    }

    /// Its tensors.
    pub(in crate::families) fn tensors(&self) -> [&Tensor; 3] {
        [&self.boxes, &self.there, &self.draws]
    }

    /// The same in other tensors, in the order of [`Self::tensors`].
    pub(in crate::families) fn with(&self, tensors: &[Tensor]) -> Self {
        let [boxes, there, draws] = [0, 1, 2].map(|i| tensors[i].shallow_clone());
        Self { boxes, there, draws, ..*self }
    }

    /// What decides the pass besides images and tensors' kinds.
    pub(in crate::families) fn shape(&self) -> i64 {
        2 * self.boxes.size()[1] + i64::from(self.ignore_inside)
    }
}

/// Corners of a target's boxes in pixels, one after the other.
fn corners_of(target: &Target) -> impl Iterator<Item = f64> {
    let [height, width] = target.size.map(f64::from);
    target.boxes.iter().flat_map(move |bbox| {
        let [cx, cy, w, h] = bbox.0.map(f64::from);
        let (half_w, half_h) = (w / 2.0, h / 2.0);
        [
            (cx - half_w) * width,
            (cy - half_h) * height,
            (cx + half_w) * width,
            (cy + half_h) * height,
        ]
    })
}

/// The boxes of each image on the device, `[T, 4]`: corners in pixels.
pub(super) fn truth(targets: &[Target], (kind, device): (Kind, Device)) -> Vec<Tensor> {
    let of = |target| {
        let corners: Vec<f64> = corners_of(target).collect();
        let corners = Tensor::from_slice(&corners).view([-1, 4]);
        torch_ext::upload(&corners.to_kind(kind), device)
    };
    targets.iter().map(of).collect()
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
