//! The training objective: class, L1 and GIoU terms of every decoder layer, of the encoder's
//! proposals and of the denoising queries.

use tch::{Device, Kind, Tensor};
use torch_ext::detr_losses::{FocalTargets, box_losses, focal_sums};

use super::{
    super::Step,
    matcher::{Matching, PaddedTargets, Pair, PendingMatching, hungarian, max_size},
};
use crate::{
    error::Result,
    losses::{
        LossConfig,
        boxes::{generalized_iou, l1},
        classes::ClassChoice,
        focal::sigmoid_focal_loss,
        has_kernels,
        terms::LossTerms,
    },
    models::dino::{LayerOutputs, TrainingOutput, denoising::DenoisingLayout},
    targets::{BoxMatching, Supervision, Target},
};

/// Computes the loss terms from predictions and targets.
#[derive(Debug)]
pub struct Criterion {
    config: LossConfig,
    choice: ClassChoice,
}

/// Sets of queries (decoder layers, proposals), the boxes they answer for, and what their terms
/// are divided by.
#[derive(Debug)]
pub struct Supervised {
    /// Query and box of every pair, by set.
    pub matching: Matching,
    /// Divides every sum.
    pub normalizer: f64,
    /// `[S, W]` the classes that each set's class terms look at; none: all.
    pub classes: Option<Tensor>,
}

/// What was decided on the way to the loss: the semantic branch learns at the same pairs.
#[derive(Debug)]
pub struct Decisions {
    /// Of the decoder layers, then of the proposals.
    pub queries: Supervised,
    /// Of the denoising queries of the decoder layers.
    pub denoising: Option<Supervised>,
}

/// What deciding and scoring both look at.
struct Scored<'a> {
    output: &'a TrainingOutput,
    targets: &'a [Target],
    padded: PaddedTargets,
    /// The decoder layers, then the proposals.
    matched: LayerOutputs,
}

impl<'a> Scored<'a> {
    fn new(output: &'a TrainingOutput, targets: &'a [Target]) -> Self {
        let matched = output.matched();
        let padded = PaddedTargets::new(targets, matched.logits.device());
        Self { output, targets, padded, matched }
    }
}

/// Sums of each set, not yet divided.
struct Sums {
    /// `[S]`
    class: Tensor,
    /// L1 and GIoU, `[2, S]`.
    boxes: Tensor,
}

/// The terms of a step whose matching may not be done yet. Where the host matches, the numbers that it needs
/// are on their way from the device. What is queued before [`Self::wait`] keeps the device busy meanwhile.
pub struct PendingTerms<'a> {
    criterion: &'a Criterion,
    scored: Scored<'a>,
    supervision: &'a Supervision,
    matching: PendingMatching,
    /// The classes of the matched sets.
    classes: Option<Tensor>,
    /// Of the denoising queries: what they answer for needs no matching.
    denoising: Option<(Matching, Option<Tensor>, Sums)>,
}

/// Suffix of a decoder layer's terms, as in the reference: none for the last.
pub(super) fn suffix(layer: usize, layers: usize) -> String {
    if layer + 1 == layers { String::new() } else { format!("_{layer}") }
}

impl Criterion {
    /// `image_counts` of the vocabulary's classes drive the federated loss.
    #[must_use]
    pub fn new(config: LossConfig, image_counts: &[u32]) -> Self {
        let choice = ClassChoice::new(&config, image_counts);
        Self { config, choice }
    }

    /// All terms of one step of one process. Those that `supervision` switches off are computed and reported,
    /// and weigh nothing.
    ///
    /// # Errors
    /// Predictions that are not finite, where the host matches (elsewhere a term is then not finite); what
    /// libtorch refuses.
    pub fn forward(
        &self,
        output: &TrainingOutput,
        step: Step<'_>,
    ) -> Result<(LossTerms, Decisions)> {
        let matched = self.start(output, step)?.wait()?;
        let num_boxes = matched.num_boxes().max(1.0);
        matched.finish(num_boxes)
    }

    /// The first half of [`Self::forward`]: all that does not wait for the device.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn start<'a>(
        &'a self,
        output: &'a TrainingOutput,
        step: Step<'a>,
    ) -> Result<PendingTerms<'a>> {
        let Step { targets, supervision, whole } = step;
        let scored = Scored::new(output, targets);
        let Scored { padded, matched, .. } = &scored;
        let unused = output.unused.as_ref();
        let matching = match supervision.assignment {
            BoxMatching::Hungarian => hungarian(
                (&matched.logits, &matched.boxes),
                unused,
                padded,
                &self.config.matcher,
                self.config.focal_alpha,
            )?,
            BoxMatching::MaxSize => max_size(&matched.boxes, unused, padded)?,
        };
        let sets = matched.logits.size()[0] as usize;
        let sample = |first_term: usize, sets: usize| {
            self.choice
                .sample(&whole, first_term as u64, sets)
                .map(|classes| torch_ext::upload(&classes, matched.logits.device()))
        };
        let denoising = match &output.denoising {
            None => None,
            Some((layout, outputs)) => {
                let pairs =
                    denoising_pairs(*layout, sets - 1, &padded.counts, outputs.logits.device());
                let classes = sample(sets, sets - 1);
                let sums = self.sums(outputs, &pairs, classes.as_ref(), targets, padded)?;
                Some((pairs, classes, sums))
            }
        };
        let classes = sample(0, sets);
        Ok(PendingTerms { criterion: self, scored, supervision, matching, classes, denoising })
    }

    /// All terms, with everything decided already: matching, classes, what sums are divided by.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn terms_of(
        &self,
        output: &TrainingOutput,
        targets: &[Target],
        supervision: &Supervision,
        decisions: &Decisions,
    ) -> Result<LossTerms> {
        let scored = Scored::new(output, targets);
        let of = |outputs: &LayerOutputs, Supervised { matching, classes, .. }: &Supervised| {
            self.sums(outputs, matching, classes.as_ref(), targets, &scored.padded)
        };
        let queries = of(&scored.matched, &decisions.queries)?;
        let denoising = match (&output.denoising, &decisions.denoising) {
            (Some((_, outputs)), Some(supervised)) => Some(of(outputs, supervised)?),
            _ => None,
        };
        Ok(self.weigh(&queries, denoising.as_ref(), supervision, decisions))
    }

    /// Terms of these sums: of the matched sets, and of the denoising queries.
    fn weigh(
        &self,
        queries: &Sums,
        denoising: Option<&Sums>,
        supervision: &Supervision,
        decisions: &Decisions,
    ) -> LossTerms {
        let config = &self.config;
        let layers = queries.class.size()[0] as usize - 1;
        let mut suffixes: Vec<String> = (0..layers).map(|l| suffix(l, layers)).collect();
        suffixes.push("_interm".into());
        let mut weights = vec![1.0; layers];
        weights.push(config.interm);
        let mut normalizers = vec![decisions.queries.normalizer; layers + 1];
        if let (Some(_), Some(supervised)) = (denoising, &decisions.denoising) {
            suffixes.extend((0..layers).map(|l| format!("_dn{}", suffix(l, layers))));
            weights.extend(vec![1.0; layers]);
            normalizers.extend(vec![supervised.normalizer; layers]);
        }
        let kinds = [
            ("loss_ce", config.class, supervision.class),
            ("loss_bbox", config.l1, supervision.l1),
            ("loss_giou", config.giou, supervision.giou),
        ];
        let mut names = Vec::new();
        let mut factors = Vec::new();
        for (kind, weight, on) in kinds {
            for (i, (suffix, own)) in suffixes.iter().zip(&weights).enumerate() {
                let on = on || (i == layers && supervision.interm_exempt);
                names.push(format!("{kind}{suffix}"));
                factors.push(if on { f64::from((weight * own) as f32) } else { 0.0 });
            }
        }
        // One transfer, `[2, 3, sets]`: what each sum is divided by, and what it weighs.
        let sets = suffixes.len() as i64;
        let both: Vec<f64> = normalizers.repeat(kinds.len()).into_iter().chain(factors).collect();
        let both = Tensor::from_slice(&both).view([2, 3, sets]).to_kind(queries.class.kind());
        let both = torch_ext::upload(&both, queries.class.device());
        let mut values: [Vec<Tensor>; 2] = [Vec::new(), Vec::new()];
        let mut totals = Vec::new();
        let mut from = 0;
        for sums in [Some(queries), denoising].into_iter().flatten() {
            let count = sums.class.size()[0];
            let part = |of: i64, kinds: (i64, i64)| {
                both.get(of).narrow(0, kinds.0, kinds.1).narrow(1, from, count)
            };
            let each = [(sums.class.unsqueeze(0), (0, 1)), (sums.boxes.shallow_clone(), (1, 2))];
            for (i, (sums, kinds)) in each.into_iter().enumerate() {
                let own = sums / part(0, kinds);
                totals.push((&own * part(1, kinds)).sum(own.kind()));
                values[i].push(own.detach());
            }
            from += count;
        }
        // By kind: class, L1, GIoU; in each the matched sets, then the denoising queries.
        let values = Tensor::cat(&values.map(|of| Tensor::cat(&of, 1)), 0).flatten(0, -1);
        let total = totals.into_iter().reduce(|sum, more| sum + more);
        let total = total.expect("the matched sets have sums");
        LossTerms { names, values, total }
    }

    /// Class, L1 and GIoU of each set of a group.
    fn sums(
        &self,
        outputs: &LayerOutputs,
        matching: &Matching,
        classes: Option<&Tensor>,
        targets: &[Target],
        padded: &PaddedTargets,
    ) -> Result<Sums> {
        let (sets, images, queries, _) = outputs.logits.size4()?;
        let device = outputs.logits.device();
        let most = padded.boxes.size()[1];
        // One transfer, `[3, N]`: where the queries of a pair's image start, its box, its class.
        let first = |pair: &Pair| (pair.set * images + pair.image) * queries;
        let truth = |pair: &Pair| pair.image * most + pair.target;
        let label =
            |pair: &Pair| i64::from(targets[pair.image as usize].labels[pair.target as usize].0);
        let pairs = || matching.pairs.iter();
        let known: Vec<i64> =
            pairs().map(first).chain(pairs().map(truth)).chain(pairs().map(label)).collect();
        let known = Tensor::from_slice(&known).view([3, matching.len() as i64]);
        let known = torch_ext::upload(&known, device);
        let slots = known.get(0) + &matching.query;
        let truth = padded.boxes.view([images * most, 4]).index_select(0, &known.get(1));
        let pairs = matching.len() as i64 / sets;
        // `[2, pairs of all sets]`
        let losses = match has_kernels(&outputs.boxes) {
            true => box_losses(&outputs.boxes.reshape([-1, 4]), &slots, &truth)?,
            false => {
                let predicted = outputs.boxes.reshape([-1, 4]).index_select(0, &slots);
                let overlaps = 1.0f64 - generalized_iou(&predicted, &truth);
                Tensor::stack(&[l1(&predicted, &truth), overlaps], 0)
            }
        };
        let losses = losses.view([2, sets, pairs]);
        let boxes = losses.sum_dim_intlist([2i64].as_slice(), false, losses.kind());
        let class =
            self.class_sums(outputs, matching, classes, targets, (&slots, &known.get(2)))?;
        let class = match &matching.finite {
            Some(finite) => class + finite,
            None => class,
        };
        Ok(Sums { class, boxes })
    }

    /// Sum of the focal losses of each set, `[S]`. `slots` and `labels`: query and class of each pair.
    fn class_sums(
        &self,
        outputs: &LayerOutputs,
        matching: &Matching,
        chosen: Option<&Tensor>,
        targets: &[Target],
        (slots, labels): (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let logits = &outputs.logits;
        let device = logits.device();
        let (sets, images, queries, classes) = logits.size4()?;
        let known = self.choice.known(targets, classes, device);
        let (alpha, gamma) = (self.config.focal_alpha, self.config.focal_gamma);
        if has_kernels(logits) && !matching.shared {
            // The class of each query, −1 for none.
            let size = [sets * images * queries];
            let of_queries = Tensor::f_full(size, -1, (Kind::Int64, device))?;
            let labels = of_queries.f_scatter(0, slots, labels)?.view([sets, images, queries]);
            let targets = FocalTargets { labels: &labels, classes: chosen, known: known.as_ref() };
            return Ok(focal_sums(logits, targets, alpha, gamma)?);
        }
        // The columns that each set looks at, and where in them each matched label stands.
        let (logits, width, columns, known) = match chosen {
            None => {
                let known = known.map(|k| k.view([1, images, 1, classes]));
                (logits.shallow_clone(), classes, labels.shallow_clone(), known)
            }
            Some(chosen) => {
                let width = chosen.size()[1];
                let set: Vec<i64> = matching.pairs.iter().map(|pair| pair.set).collect();
                let set = torch_ext::upload(&Tensor::from_slice(&set), device);
                // Classes with a box are among those of every set.
                let chosen_there = chosen.index_select(0, &set).eq_tensor(&labels.unsqueeze(1));
                let columns = chosen_there.to_kind(Kind::Int64).argmax(1, false);
                let known = known.map(|k| {
                    k.index_select(1, &chosen.flatten(0, 1))
                        .view([images, sets, width])
                        .permute([1, 0, 2])
                        .unsqueeze(2)
                });
                let chosen = chosen.view([sets, 1, 1, width]);
                let chosen = chosen.expand([sets, images, queries, width], false);
                (logits.gather(-1, &chosen, false), width, columns, known)
            }
        };
        let onehot = Tensor::zeros([sets * images * queries * width], (logits.kind(), device));
        let _ = onehot.shallow_clone().index_fill_(0, &(slots * width + columns), 1.0);
        let onehot = onehot.view([sets, images, queries, width]);
        let mut loss = sigmoid_focal_loss(&logits, &onehot, alpha, gamma);
        if let Some(known) = known {
            // A matched pair counts even where other boxes of its class may be missing.
            loss *= known.maximum(&onehot);
        }
        Ok(loss.sum_dim_intlist([1i64, 2, 3].as_slice(), false, loss.kind()))
    }
}

impl<'a> PendingTerms<'a> {
    /// Waits for the matching, where the host decides it.
    ///
    /// # Errors
    /// Predictions that are not finite, where the host matches (elsewhere a term is then not finite); what
    /// libtorch refuses.
    pub fn wait(self) -> Result<MatchedTerms<'a>> {
        let Self { criterion, scored, supervision, matching, classes, denoising } = self;
        let matching = matching.wait()?;
        Ok(MatchedTerms { criterion, scored, supervision, matching, classes, denoising })
    }
}

/// The terms of a step behind its matching, not yet scored.
pub struct MatchedTerms<'a> {
    criterion: &'a Criterion,
    scored: Scored<'a>,
    supervision: &'a Supervision,
    matching: Matching,
    classes: Option<Tensor>,
    denoising: Option<(Matching, Option<Tensor>, Sums)>,
}

impl<'a> MatchedTerms<'a> {
    /// What the terms are of.
    pub(crate) fn of(&self) -> (&'a TrainingOutput, &'a [Target]) {
        (self.scored.output, self.scored.targets)
    }

    /// Boxes that a query of each set answers for.
    #[must_use]
    pub fn num_boxes(&self) -> f64 {
        (self.matching.len() / self.scored.matched.logits.size()[0] as usize) as f64
    }

    /// Scores what was matched; sums are divided by `num_boxes`.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn finish(self, num_boxes: f64) -> Result<(LossTerms, Decisions)> {
        let Self { criterion, scored, supervision, matching, classes, denoising } = self;
        let Scored { output, targets, padded, matched } = &scored;
        let sums = criterion.sums(matched, &matching, classes.as_ref(), targets, padded)?;
        let queries = Supervised { matching, normalizer: num_boxes, classes };
        let (of_denoising, denoising) = match (denoising, &output.denoising) {
            (Some((matching, classes, sums)), Some((layout, _))) => {
                let normalizer = num_boxes * layout.groups as f64;
                (Some(sums), Some(Supervised { matching, normalizer, classes }))
            }
            _ => (None, None),
        };
        let decisions = Decisions { queries, denoising };
        let terms = criterion.weigh(&sums, of_denoising.as_ref(), supervision, &decisions);
        Ok((terms, decisions))
    }
}

/// Every positive denoising query with the box it is a copy of, the same in each layer.
fn denoising_pairs(
    layout: DenoisingLayout,
    layers: usize,
    counts: &[usize],
    device: Device,
) -> Matching {
    let mut pairs = Vec::new();
    for layer in 0..layers as i64 {
        for (image, &count) in (0..).zip(counts) {
            for group in 0..layout.groups {
                let queries = (0..count as i64).map(|i| (layout.positive(group, i), i));
                pairs.extend(queries.map(|(query, target)| [layer, image, query, target]));
            }
        }
    }
    Matching::new(&pairs, device)
}

#[cfg(test)]
#[path = "criterion_tests.rs"]
mod tests;
