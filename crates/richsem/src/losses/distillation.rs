//! The semantic branch's loss (RichSem, section 3.3): what the frozen teacher says of a box, taught
//! to the queries that answer for it.

use tch::{Device, Kind, Tensor};

use super::{
    LossTerms,
    criterion::{Decisions, Supervised, suffix},
    matcher::Pair,
};
use crate::{
    error::Result,
    models::dino::TrainingOutput,
    semantic_branch::{
        Assignments, Objective, Prediction, RegionFeatures, SemanticBranch, SemanticConfig,
        TargetBoxes,
    },
    targets::Target,
    teacher::SoftLabels,
};

/// Gives the soft labels of boxes `[N, 5]`: batch index and x0, y0, x1, y1 in pixels of the batch.
pub type Labeller<'a> = dyn FnMut(&Tensor) -> Result<SoftLabels> + 'a;

/// One term: a decoder layer's queries, or its denoising queries.
struct Term<'a> {
    name: String,
    layer: usize,
    supervised: &'a Supervised,
    /// Denoising queries.
    noised: bool,
    /// Its queries within each image's: first and count.
    queries: (i64, i64),
}

/// The branch's terms of one step: `loss_semantic` of the last layer and of its denoising queries,
/// and of all layers if so configured.
///
/// # Errors
/// What the teacher or libtorch refuses.
pub fn semantic_terms(
    config: &SemanticConfig,
    branch: &SemanticBranch,
    output: &TrainingOutput,
    targets: &[Target],
    decisions: &Decisions,
    label: &mut Labeller,
) -> Result<LossTerms> {
    let device = output.region_features.device();
    let (layers, images, queries, dim) = output.region_features.size4()?;
    let layers = layers as usize;
    let taught: Vec<usize> =
        if config.aux_layers { (0..layers).collect() } else { vec![layers - 1] };
    // Denoising queries and slots come first, also where no image has a box.
    let noised = queries - output.decoder.boxes.size()[2];
    let mut terms = Vec::new();
    for (tag, supervised, span) in [
        ("", Some(&decisions.queries), (noised, queries - noised)),
        ("_dn", decisions.denoising.as_ref(), (0, noised)),
    ] {
        let Some(supervised) = supervised else { continue };
        terms.extend(taught.iter().map(|&layer| Term {
            name: format!("loss_semantic{tag}{}", suffix(layer, layers)),
            layer,
            supervised,
            noised: !tag.is_empty(),
            queries: span,
        }));
    }
    // Every pair of every term: its region, the image, and the box that the teacher labels.
    let mut first_target = vec![0i64];
    first_target.extend(targets.iter().scan(0, |sum, t| {
        *sum += t.boxes.len() as i64;
        Some(*sum)
    }));
    // Few images have such queries: the transfer is rare.
    let unused = match &output.unused {
        Some(unused) if config.target_boxes == TargetBoxes::All => {
            Vec::<bool>::try_from(unused.to_device(Device::Cpu).flatten(0, -1))?
        }
        _ => Vec::new(),
    };
    let index = |values: &[i64]| torch_ext::upload(&Tensor::from_slice(values), device);
    let count = queries - noised;
    let used =
        |image: i64, query: i64| !unused.get((image * count + query) as usize).is_some_and(|u| *u);
    // A region is an image's first, which the host knows, and a query, which it may not.
    let (mut first, mut query) = (Vec::new(), Vec::new());
    let (mut image_of, mut boxes) = (Vec::new(), Vec::new());
    let mut spans = Vec::new();
    for term in &terms {
        let before = first.len();
        let region = |image: i64| (term.layer as i64 * images + image) * queries + term.queries.0;
        if all_queries(config, term) {
            let mut known = Vec::new();
            for image in 0..images {
                known.extend((0..term.queries.1).filter(|query| used(image, *query)));
                image_of.resize(before + known.len(), image);
                first.resize(before + known.len(), region(image));
            }
            query.push(index(&known));
        } else {
            let matching = &term.supervised.matching;
            // A set's pairs are neighbours.
            let layer = |pair: &&Pair| pair.set == term.layer as i64;
            let from = matching.pairs.iter().take_while(|pair| !layer(pair)).count();
            for pair in matching.pairs.iter().filter(layer) {
                first.push(region(pair.image));
                image_of.push(pair.image);
                boxes.push(first_target[pair.image as usize] + pair.target);
            }
            let count = (first.len() - before) as i64;
            query.push(matching.query.narrow(0, from as i64, count));
        }
        spans.push((before as i64, (first.len() - before) as i64));
    }
    let names = terms.iter().map(|t| t.name.clone()).collect();
    if first.is_empty() {
        let zero = || Tensor::zeros([], (Kind::Float, device));
        let values = Tensor::zeros([terms.len() as i64], (Kind::Float, device));
        return Ok(LossTerms { names, values, total: zero() });
    }
    let region = index(&first) + Tensor::cat(&query, 0);
    let (soft, target) = match config.target_boxes {
        TargetBoxes::GroundTruth => {
            (label(&torch_ext::upload(&target_boxes(targets), device))?, index(&boxes))
        }
        TargetBoxes::Matched | TargetBoxes::All => {
            let references = output.input_references.detach().view([-1, 4]);
            let rows = pixel_boxes(&references.index_select(0, &region), &image_of, targets);
            let all = Tensor::arange(first.len() as i64, (Kind::Int64, device));
            (label(&rows)?, all)
        }
    };
    let features = RegionFeatures(output.region_features.reshape([-1, dim]));
    let assignments = Assignments { region, target };
    let student = branch.predict(&features, &assignments);
    let classes = match (config.federated, decisions.queries.classes.is_some()) {
        (true, true) => {
            let rows = terms.iter().zip(&spans).filter_map(|(term, &(_, count))| {
                let own = term.supervised.classes.as_ref()?.get(term.layer as i64);
                Some(own.unsqueeze(0).expand([count, -1], false))
            });
            Some(Tensor::cat(&rows.collect::<Vec<_>>(), 0))
        }
        _ => None,
    };
    let losses = losses(config, &student, &soft, &assignments.target, classes.as_ref());
    let values: Vec<Tensor> = terms
        .iter()
        .zip(&spans)
        .map(|(term, &(from, count))| {
            let normalizer = match all_queries(config, term) {
                true => count as f64,
                false => term.supervised.normalizer,
            };
            losses.narrow(0, from, count).sum(losses.kind()) / normalizer
        })
        .collect();
    let values = Tensor::stack(&values, 0);
    let total = values.sum(values.kind()) * config.weight;
    Ok(LossTerms { names, values: values.detach(), total })
}

/// Whether a term teaches queries without a box too. Of the denoising queries only the positive ones
/// learn (method, part 6): the others are made to be wrong, or fill up.
fn all_queries(config: &SemanticConfig, term: &Term) -> bool {
    config.target_boxes == TargetBoxes::All && !term.noised
}

/// Of each pair, `[M]`.
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

#[cfg(test)]
#[path = "distillation_tests.rs"]
mod tests;
