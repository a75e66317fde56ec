//! Boxes of the last stage as regions that the semantic branch may look at.

use tch::Tensor;

use super::input::TrainingOutput;
use crate::{
    losses::regions::{RegionSet, Regions, Wanted},
    semantic_branch::RegionFeatures,
    targets::Target,
};

/// The boxes that are objects, the objects' own boxes among them; or all boxes that learn.
///
/// `objects` says what each box of the last stage is: the object, −1 for background, −2 where there is none.
pub(super) fn regions(
    (output, targets): (&TrainingOutput, &[Target]),
    objects: &[i64],
    classes: Option<&Tensor>,
    num_boxes: f64,
    wanted: Wanted,
) -> Regions {
    let stage = &output.stages[output.stages.len() - 1];
    let device = output.features.device();
    let places = stage.boxes.size()[1];
    let least = if wanted.unmatched { -1 } else { 0 };
    let learning = (0i64..).zip(objects.iter().copied()).filter(|&(_, object)| object >= least);
    let (rows, objects): (Vec<i64>, Vec<i64>) = learning.unzip();
    let sizes: Vec<f64> = targets
        .iter()
        .flat_map(|target| {
            let [height, width] = target.size.map(f64::from);
            [width, height]
        })
        .collect();
    let options = (stage.boxes.kind(), device);
    let sizes = torch_ext::upload(&Tensor::from_slice(&sizes).to_kind(options.0), device);
    let corners =
        stage.boxes.detach().view([targets.len() as i64, places, 2, 2]) / sizes.view([-1, 1, 1, 2]);
    let (low, high) = (corners.select(2, 0), corners.select(2, 1));
    let boxes = Tensor::cat(&[(&low + &high) / 2.0, high - low], -1).view([-1, 4]);
    let count = rows.len();
    Regions {
        features: RegionFeatures(output.features.shallow_clone()),
        boxes,
        images: rows.iter().map(|row| row / places).collect(),
        rows: torch_ext::upload(&Tensor::from_slice(&rows), device),
        targets: if wanted.unmatched { Vec::new() } else { objects },
        sets: vec![RegionSet {
            suffix: String::new(),
            count,
            matched: !wanted.unmatched,
            normalizer: if wanted.unmatched { (count as f64).max(1.0) } else { num_boxes },
            classes: classes.map(Tensor::shallow_clone),
        }],
    }
}
