//! The semantic branch's loss (RichSem, section 3.3): what the frozen teacher says of a box, taught
//! to the queries that answer for it.

use tch::{Kind, Tensor};

use super::{
    regions::{Regions, Wanted},
    terms::LossTerms,
};
use crate::{
    error::Result,
    semantic_branch::{
        Assignments, Objective, Prediction, SemanticBranch, SemanticConfig, TargetBoxes,
    },
    targets::Target,
    teacher::SoftLabels,
};

/// Gives the soft labels of boxes `[N, 5]`: batch index and x0, y0, x1, y1 in pixels of the batch.
pub type Labeller<'a> = dyn FnMut(&Tensor) -> Result<SoftLabels> + 'a;

impl SemanticConfig {
    /// The regions that [`semantic_terms`] takes.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted { every_layer: self.aux_layers, unmatched: self.target_boxes == TargetBoxes::All }
    }
}

/// The branch's terms of one step, one for each set of regions: `loss_semantic` and the set's suffix.
/// `regions` are those of [`SemanticConfig::wanted`].
///
/// # Errors
/// What the teacher or libtorch refuses.
pub fn semantic_terms(
    config: &SemanticConfig,
    branch: &SemanticBranch,
    regions: &Regions,
    targets: &[Target],
    label: &mut Labeller,
) -> Result<LossTerms> {
    let device = regions.rows.device();
    let names = regions.sets.iter().map(|set| format!("loss_semantic{}", set.suffix)).collect();
    if regions.images.is_empty() {
        let total = Tensor::zeros([], (Kind::Float, device));
        let values = Tensor::zeros([regions.sets.len() as i64], (Kind::Float, device));
        return Ok(LossTerms { names, values, total });
    }
    let (soft, target) = match config.target_boxes {
        TargetBoxes::GroundTruth => {
            let target = torch_ext::upload(&Tensor::from_slice(&regions.targets), device);
            (label(&torch_ext::upload(&target_boxes(targets), device))?, target)
        }
        TargetBoxes::Matched | TargetBoxes::All => {
            let seen = regions.boxes.index_select(0, &regions.rows);
            let all = Tensor::arange(regions.images.len() as i64, (Kind::Int64, device));
            (label(&pixel_boxes(&seen, &regions.images, targets))?, all)
        }
    };
    let assignments = Assignments { region: regions.rows.shallow_clone(), target };
    let student = branch.predict(&regions.features, &assignments);
    let classes = if config.federated { classes_of(regions) } else { None };
    let losses = losses(config, &student, &soft, &assignments.target, classes.as_ref());
    let mut from = 0;
    let values = regions.sets.iter().map(|set| {
        let own = losses.narrow(0, from, set.count as i64).sum(losses.kind()) / set.normalizer;
        from += set.count as i64;
        own
    });
    let values = Tensor::stack(&values.collect::<Vec<_>>(), 0);
    let total = values.sum(values.kind()) * config.weight;
    Ok(LossTerms { names, values: values.detach(), total })
}

/// The classes that the federated loss looks at for each region, `[M, W]`; none: all.
fn classes_of(regions: &Regions) -> Option<Tensor> {
    let rows: Option<Vec<Tensor>> = regions
        .sets
        .iter()
        .map(|set| Some(set.classes.as_ref()?.unsqueeze(0).expand([set.count as i64, -1], false)))
        .collect();
    rows.map(|rows| Tensor::cat(&rows, 0))
}

/// `[M]`: the loss of each pair of a region and a soft label.
fn losses(
    config: &SemanticConfig,
    student: &Prediction,
    soft: &SoftLabels,
    target: &Tensor,
    classes: Option<&Tensor>,
) -> Tensor {
    let kind = student.logits.kind();
    let sum = |x: Tensor| x.sum_dim_intlist([-1i64].as_slice(), false, kind);
    if config.objective == Objective::L1 {
        return sum((&student.features - soft.features.index_select(0, target)).abs());
    }
    let teacher = soft.logits.index_select(0, target);
    let subset = |x: &Tensor| match classes {
        Some(classes) => x.gather(-1, classes, false),
        None => x.shallow_clone(),
    };
    let wanted = subset(&teacher).log_softmax(-1, kind);
    let given = subset(&student.logits).log_softmax(-1, kind);
    let divergence = sum(wanted.exp() * (&wanted - given));
    if !config.entropy_weight {
        return divergence;
    }
    if teacher.size()[1] < 2 {
        // Of one class everything is certain.
        return divergence * 0.0;
    }
    let log = teacher.log_softmax(-1, kind);
    let entropy = -sum(log.exp() * &log);
    divergence * entropy * (2.0 / (teacher.size()[1] as f64).ln())
}

/// Every box of the batch in pixels, `[ΣT, 5]`, image by image.
pub fn target_boxes(targets: &[Target]) -> Tensor {
    let mut rows = Vec::new();
    for (image, target) in targets.iter().enumerate() {
        let [h, w] = target.size.map(|n| n as f32);
        for bbox in &target.boxes {
            let [cx, cy, bw, bh] = bbox.0;
            let (half_w, half_h) = (bw / 2.0, bh / 2.0);
            rows.extend([
                image as f32,
                (cx - half_w) * w,
                (cy - half_h) * h,
                (cx + half_w) * w,
                (cy + half_h) * h,
            ]);
        }
    }
    Tensor::from_slice(&rows).view([-1, 5])
}

/// Relative cxcywh boxes `[M, 4]` of the given images as `[M, 5]` in pixels, clipped to them.
fn pixel_boxes(relative: &Tensor, image_of: &[i64], targets: &[Target]) -> Tensor {
    let device = relative.device();
    let sizes: Vec<f32> = image_of
        .iter()
        .flat_map(|&image| {
            let [h, w] = targets[image as usize].size.map(|n| n as f32);
            [w, h]
        })
        .collect();
    let sizes = torch_ext::upload(&Tensor::from_slice(&sizes).view([-1, 2]), device);
    let image = Tensor::from_slice(image_of).to_kind(Kind::Float).unsqueeze(1);
    let image = torch_ext::upload(&image, device);
    let centre = relative.narrow(1, 0, 2);
    let half = relative.narrow(1, 2, 2) / 2.0;
    let corner = |at: Tensor| at.clamp(0.0, 1.0) * &sizes;
    Tensor::cat(&[&image, &corner(&centre - &half), &corner(&centre + &half)], 1)
}
