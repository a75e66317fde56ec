//! Hungarian matching of predictions to ground truth (DETR, arXiv 2005.12872, section 3.1).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use torch_ext::{
    Download,
    detr_losses::{CostWeights, matching_cost},
};

use super::{
    boxes::{generalized_iou, l1},
    has_kernels,
};
use crate::{
    error::{Error, Result},
    targets::Target,
};

/// Weights of the matching cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatcherConfig {
    /// Focal classification cost.
    pub class: f64,
    /// L1 distance of the boxes.
    pub l1: f64,
    /// Minus the generalised IoU.
    pub giou: f64,
}

impl Default for MatcherConfig {
    fn default() -> Self {
        Self { class: 2.0, l1: 5.0, giou: 2.0 }
    }
}

/// Targets of a batch as tensors, padded to T, the most boxes of an image.
#[derive(Debug)]
pub struct PaddedTargets {
    /// `[B, T]`, 0 beyond an image's own.
    pub labels: Tensor,
    /// `[B, T, 4]`, cxcywh.
    pub boxes: Tensor,
    /// Boxes of each image.
    pub counts: Vec<usize>,
}

impl PaddedTargets {
    /// Uploads the targets.
    #[must_use]
    pub fn new(targets: &[Target], device: Device) -> Self {
        let counts: Vec<usize> = targets.iter().map(|t| t.boxes.len()).collect();
        let most = counts.iter().copied().max().unwrap_or(0);
        let mut labels = vec![0i64; targets.len() * most];
        let mut boxes = vec![0f32; targets.len() * most * 4];
        for (b, target) in targets.iter().enumerate() {
            for (i, (label, bbox)) in target.labels.iter().zip(&target.boxes).enumerate() {
                labels[b * most + i] = i64::from(label.0);
                boxes[(b * most + i) * 4..][..4].copy_from_slice(&bbox.0);
            }
        }
        let (b, t) = (targets.len() as i64, most as i64);
        Self {
            labels: torch_ext::upload(&Tensor::from_slice(&labels).view([b, t]), device),
            boxes: torch_ext::upload(&Tensor::from_slice(&boxes).view([b, t, 4]), device),
            counts,
        }
    }

    /// T.
    fn most(&self) -> i64 {
        self.labels.size()[1]
    }
}

/// Matched pairs of several sets of predictions (decoder layers, proposals), by set, then image.
/// Every set has the same number of pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    /// Which set.
    pub set: Vec<i64>,
    /// Which image.
    pub image: Vec<i64>,
    /// Which query of it.
    pub query: Vec<i64>,
    /// Which of the image's boxes.
    pub target: Vec<i64>,
}

impl Matching {
    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// No pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(super) fn push(&mut self, set: usize, image: usize, query: i64, target: i64) {
        self.set.push(set as i64);
        self.image.push(image as i64);
        self.query.push(query);
        self.target.push(target);
    }
}

/// A matching whose numbers are on their way to the host. What is queued before [`Self::wait`], the device
/// works on while the host matches.
#[derive(Debug)]
pub struct PendingMatching {
    arriving: Arriving,
    /// Boxes of each image.
    counts: Vec<usize>,
}

#[derive(Debug)]
enum Arriving {
    /// No image has a box.
    Nothing,
    /// Costs `[S, B, Q, T]`; those from `too_much` on are of what must not be.
    Costs { cost: Download, size: [usize; 4], too_much: f32 },
    /// The query of each box, `[S, B, T]`.
    Queries { chosen: Download, sets: usize, most: usize },
}

/// Gives each box the largest predicted box whose centre lies in it, or, if none does, the largest
/// of its image (Detic's max-size loss). Boxes may share a query. `unused` as for [`hungarian`].
///
/// # Shapes
/// `boxes` `[S, B, Q, 4]`, `unused` `[B, Q]`
///
/// # Errors
/// What libtorch refuses.
pub fn max_size(
    boxes: &Tensor,
    unused: Option<&Tensor>,
    targets: &PaddedTargets,
) -> Result<PendingMatching> {
    let (most, counts) = (targets.most(), targets.counts.clone());
    if most == 0 {
        return Ok(PendingMatching { arriving: Arriving::Nothing, counts });
    }
    let chosen = torch_ext::no_grad(|| {
        let (sets, images, queries, _) = boxes.size4()?;
        let column = |x: &Tensor, i: i64| x.narrow(-1, i, 1); // [S, B, Q, 1]
        let area = column(boxes, 2) * column(boxes, 3);
        let truth = targets.boxes.transpose(1, 2); // [B, 4, T]
        let inside = |centre: i64, size: i64| {
            let from = truth.narrow(1, centre, 1); // [B, 1, T]
            let half = truth.narrow(1, size, 1) / 2.0;
            (column(boxes, centre) - from).abs().le_tensor(&half) // [S, B, Q, T]
        };
        // A box in any target is larger than the largest outside: areas are at most 1.
        let score = area + inside(0, 2).logical_and(&inside(1, 3)).to_kind(Kind::Float) * 2.0;
        let score = score.expand([sets, images, queries, most], false);
        // An image has a token that may propose, so that one of its queries is used.
        let score = match unused {
            Some(unused) => score.masked_fill(&unused.unsqueeze(-1), -1.0),
            None => score,
        };
        let chosen = score.argmax(2, false);
        Ok::<_, Error>(torch_ext::download(&chosen)?)
    })?;
    let (sets, most) = (boxes.size()[0] as usize, most as usize);
    Ok(PendingMatching { arriving: Arriving::Queries { chosen, sets, most }, counts })
}

/// The cost of what must not be: far above every other, far from what a sum in f64 would round.
const NEVER: f32 = 1e9;

/// Matches all sets and images: one cost tensor on the device, one transfer, then one assignment
/// problem a set and image on the host. Queries that are `unused` match nothing.
///
/// # Shapes
/// `logits` `[S, B, Q, C]`, `boxes` `[S, B, Q, 4]`, `unused` `[B, Q]`
///
/// # Errors
/// What libtorch refuses; of [`PendingMatching::wait`]: costs that are not finite, with the set and image.
pub fn hungarian(
    (logits, boxes): (&Tensor, &Tensor),
    unused: Option<&Tensor>,
    targets: &PaddedTargets,
    config: &MatcherConfig,
    focal_alpha: f64,
) -> Result<PendingMatching> {
    let counts = targets.counts.clone();
    if targets.most() == 0 {
        return Ok(PendingMatching { arriving: Arriving::Nothing, counts });
    }
    let cost = torch_ext::no_grad(|| match has_kernels(logits) {
        true => {
            let MatcherConfig { class, l1, giou } = *config;
            let weights = CostWeights { class, l1, giou, alpha: focal_alpha };
            Ok(matching_cost(logits, boxes, &targets.labels, &targets.boxes, weights)?)
        }
        false => Ok::<_, Error>(cost(logits, boxes, targets, config, focal_alpha)),
    })?;
    let cost = match unused {
        Some(unused) => cost.masked_fill(&unused.unsqueeze(-1), f64::from(NEVER)),
        None => cost,
    };
    let too_much = if unused.is_some() { NEVER } else { f32::INFINITY };
    let (s, b, q, t) = cost.size4()?;
    let size = [s, b, q, t].map(|n| n as usize);
    let cost = torch_ext::download(&cost)?;
    Ok(PendingMatching { arriving: Arriving::Costs { cost, size, too_much }, counts })
}

impl PendingMatching {
    /// The matching.
    ///
    /// # Errors
    /// Costs that are not finite, with the set and image; what libtorch refuses.
    pub fn wait(self) -> Result<Matching> {
        let Self { arriving, counts } = self;
        match arriving {
            Arriving::Nothing => Ok(Matching::default()),
            Arriving::Costs { cost, size, too_much } => {
                let cost = Vec::<f32>::try_from(cost.wait()?.flatten(0, -1))?;
                assign(&cost, size, too_much, &counts)
            }
            Arriving::Queries { chosen, sets, most } => {
                let chosen = Vec::<i64>::try_from(chosen.wait()?.flatten(0, -1))?;
                let mut matching = Matching::default();
                for set in 0..sets {
                    for (image, &count) in counts.iter().enumerate() {
                        for target in 0..count {
                            let query = chosen[(set * counts.len() + image) * most + target];
                            matching.push(set, image, query, target as i64);
                        }
                    }
                }
                Ok(matching)
            }
        }
    }
}

/// Solves the assignment of each set and image.
fn assign(
    cost: &[f32],
    [sets, images, q, t]: [usize; 4],
    too_much: f32,
    counts: &[usize],
) -> Result<Matching> {
    let problems: Vec<(usize, usize)> =
        (0..sets).flat_map(|set| (0..images).map(move |image| (set, image))).collect();
    let solved = problems
        .par_iter()
        .map(|&(set, image)| {
            let count = counts[image];
            let block = &cost[(set * images + image) * q * t..][..q * t];
            let own: Vec<f64> =
                block.chunks(t).flat_map(|row| &row[..count]).map(|&c| f64::from(c)).collect();
            let pairs = lsap::solve(q, count, &own, false).map_err(|_| {
                Error::NonFinite(format!(
                    "the matching cost of prediction set {set}, image {image} is not finite"
                ))
            })?;
            let (queries, targets) = pairs;
            // More boxes than queries that are used: the others' pairs are none.
            let pairs = queries.into_iter().zip(targets);
            let pairs = pairs.filter(|(query, target)| block[query * t + target] < too_much);
            Ok(pairs.collect::<Vec<_>>())
        })
        .collect::<Result<Vec<_>>>()?;
    let mut matching = Matching::default();
    for ((set, image), pairs) in problems.into_iter().zip(solved) {
        for (query, target) in pairs {
            matching.push(set, image, query as i64, target as i64);
        }
    }
    Ok(matching)
}

/// `[S, B, Q, T]`
fn cost(
    logits: &Tensor,
    boxes: &Tensor,
    targets: &PaddedTargets,
    config: &MatcherConfig,
    alpha: f64,
) -> Tensor {
    let size = logits.size();
    let (s, b, q, t) = (size[0], size[1], size[2], targets.most());
    let columns = targets.labels.view([1, b, 1, t]).expand([s, b, q, t], false);
    let prob = logits.gather(-1, &columns, false).to_kind(Kind::Float).sigmoid();
    // The reference's focal cost: its gamma is 2 whatever the loss's is.
    let absent = 1.0f64 - &prob;
    let negative = prob.square() * -(&absent + 1e-8).log() * (1.0 - alpha);
    let positive = absent.square() * -(prob + 1e-8).log() * alpha;
    let boxes = boxes.to_kind(Kind::Float).unsqueeze(3); // [S, B, Q, 1, 4]
    let truth = targets.boxes.view([1, b, 1, t, 4]);
    (positive - negative) * config.class + l1(&boxes, &truth) * config.l1
        - generalized_iou(&boxes, &truth) * config.giou
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{normal, target, uniform};

    fn targets(list: &[Target]) -> PaddedTargets {
        PaddedTargets::new(list, Device::Cpu)
    }

    #[test]
    fn cost_of_one_pair_follows_its_formula() {
        let (logit, predicted, truth) = (0.7f64, [0.4f32, 0.5, 0.2, 0.3], [0.5f32, 0.5, 0.4, 0.2]);
        let logits = Tensor::from_slice(&[-1.0f32, logit as f32]).view([1, 1, 1, 2]);
        let boxes = Tensor::from_slice(&predicted).view([1, 1, 1, 4]);
        let got = cost(
            &logits,
            &boxes,
            &targets(&[target(&[(1, truth)])]),
            &MatcherConfig::default(),
            0.25,
        );
        let p = 1.0 / (1.0 + (-logit).exp());
        let class = 0.25 * (1.0 - p).powi(2) * -(p + 1e-8f64).ln()
            - 0.75 * p.powi(2) * -(1.0 - p + 1e-8f64).ln();
        let l1 = 0.1 + 0.0 + 0.2 + 0.1;
        // Corners (0.3, 0.35, 0.5, 0.65) and (0.3, 0.4, 0.7, 0.6): intersection 0.2 × 0.2, union
        // 0.06 + 0.08 − 0.04, hull 0.4 × 0.3.
        let giou = 0.04 / 0.1 - (0.12 - 0.1) / 0.12;
        let expected = 2.0 * class + 5.0 * l1 - 2.0 * giou;
        assert!((got.double_value(&[0, 0, 0, 0]) - expected).abs() < 1e-4);
    }

    #[test]
    fn every_box_gets_its_best_query_once() {
        // Two images, three queries; the second image has one box, the first two.
        let boxes = Tensor::from_slice(&[
            0.1f32, 0.1, 0.1, 0.1, 0.5, 0.5, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5,
            0.5, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1,
        ])
        .view([1, 2, 3, 4]);
        let logits = Tensor::zeros([1, 2, 3, 4], (Kind::Float, Device::Cpu));
        let list = targets(&[
            target(&[(0, [0.9, 0.9, 0.1, 0.1]), (3, [0.1, 0.1, 0.1, 0.1])]),
            target(&[(1, [0.5, 0.5, 0.1, 0.1])]),
        ]);
        let got = hungarian((&logits, &boxes), None, &list, &MatcherConfig::default(), 0.25)
            .and_then(PendingMatching::wait)
            .unwrap();
        let mut pairs: Vec<_> =
            (0..got.len()).map(|i| (got.image[i], got.query[i], got.target[i])).collect();
        pairs.sort_unstable();
        assert_eq!(pairs, [(0, 0, 1), (0, 2, 0), (1, 1, 0)]);
    }

    #[test]
    fn batched_equals_single_and_no_boxes_match_nothing() {
        let logits = normal(1, &[2, 3, 7, 5]);
        let boxes = uniform(1, &[2, 3, 7, 4]) * 0.5 + 0.2;
        let list = [
            target(&[
                (1, [0.4, 0.4, 0.3, 0.3]),
                (2, [0.6, 0.5, 0.2, 0.2]),
                (2, [0.3, 0.5, 0.2, 0.4]),
            ]),
            target(&[]),
            target(&[(4, [0.5, 0.5, 0.4, 0.4]), (0, [0.2, 0.3, 0.1, 0.2])]),
        ];
        let config = MatcherConfig::default();
        let all = hungarian((&logits, &boxes), None, &targets(&list), &config, 0.25)
            .and_then(PendingMatching::wait)
            .unwrap();
        assert_eq!(all.len(), 2 * 5);
        for set in 0..2 {
            for image in 0..3 {
                let one = |x: &Tensor| x.narrow(0, set, 1).narrow(1, image, 1);
                let single = hungarian(
                    (&one(&logits), &one(&boxes)),
                    None,
                    &targets(&list[image as usize..=image as usize]),
                    &config,
                    0.25,
                )
                .and_then(PendingMatching::wait)
                .unwrap();
                let batched: Vec<_> = (0..all.len())
                    .filter(|&i| all.set[i] == set && all.image[i] == image)
                    .map(|i| (all.query[i], all.target[i]))
                    .collect();
                let alone: Vec<_> =
                    (0..single.len()).map(|i| (single.query[i], single.target[i])).collect();
                assert_eq!(batched, alone);
            }
        }
        assert!(
            hungarian(
                (&logits, &boxes),
                None,
                &targets(&[target(&[]), target(&[]), target(&[])]),
                &config,
                0.25
            )
            .and_then(PendingMatching::wait)
            .unwrap()
            .is_empty()
        );
    }

    #[test]
    fn costs_that_are_not_finite_are_an_error() {
        let logits = Tensor::full([1, 1, 2, 2], f64::NAN, (Kind::Float, Device::Cpu));
        let boxes = uniform(2, &[1, 1, 2, 4]);
        let list = targets(&[target(&[(1, [0.5, 0.5, 0.2, 0.2])])]);
        let error = hungarian((&logits, &boxes), None, &list, &MatcherConfig::default(), 0.25)
            .and_then(PendingMatching::wait)
            .unwrap_err();
        assert!(matches!(error, Error::NonFinite(_)), "{error}");
    }

    /// Two of four queries are used, and there are three boxes: two pairs, the same as without the others.
    #[test]
    fn unused_queries_match_nothing() {
        let boxes = uniform(3, &[2, 1, 4, 4]) * 0.5 + 0.2;
        let logits = normal(3, &[2, 1, 4, 5]);
        let unused = Tensor::from_slice(&[false, true, false, true]).view([1, 4]);
        let used = Tensor::from_slice(&[0i64, 2]);
        let only = |x: &Tensor| x.index_select(2, &used);
        let three = targets(&[target(&[
            (1, [0.5, 0.5, 0.2, 0.2]),
            (2, [0.3, 0.5, 0.2, 0.4]),
            (4, [0.5, 0.5, 0.4, 0.4]),
        ])]);
        let config = MatcherConfig::default();
        let solve = |logits: &Tensor, boxes: &Tensor, unused: Option<&Tensor>| {
            hungarian((logits, boxes), unused, &three, &config, 0.25)
                .and_then(PendingMatching::wait)
                .unwrap()
        };
        let got = solve(&logits, &boxes, Some(&unused));
        let mut expected = solve(&only(&logits), &only(&boxes), None);
        expected.query.iter_mut().for_each(|query| *query *= 2);
        assert_eq!(got.len(), 4);
        assert_eq!(got, expected);
        let got = max_size(&boxes, Some(&unused), &three).and_then(PendingMatching::wait).unwrap();
        let mut expected =
            max_size(&only(&boxes), None, &three).and_then(PendingMatching::wait).unwrap();
        expected.query.iter_mut().for_each(|query| *query *= 2);
        assert_eq!(got, expected);
    }

    /// Two tiles side by side: each takes the largest prediction whose centre it holds, and a tile
    /// without any takes the largest of the picture.
    #[test]
    fn a_whole_picture_takes_the_largest_prediction_inside() {
        let left = [0.25, 0.5, 0.5, 1.0];
        let targets = [
            target(&[(0, left), (1, [0.75, 0.5, 0.5, 1.0])]),
            target(&[(2, left), (2, [0.9, 0.5, 0.1, 0.1])]),
        ];
        let boxes: Vec<f32> = [
            // Centre left; larger than the next, also left.
            [0.3, 0.5, 0.4, 0.4],
            [0.2, 0.5, 0.2, 0.2],
            // Centre right, the only one.
            [0.8, 0.5, 0.1, 0.1],
            // Second picture: all left.
            [0.3, 0.5, 0.1, 0.1],
            [0.2, 0.5, 0.3, 0.2],
            [0.1, 0.5, 0.2, 0.2],
        ]
        .concat();
        let boxes = Tensor::from_slice(&boxes).view([1, 2, 3, 4]);
        let padded = PaddedTargets::new(&targets, Device::Cpu);
        let got = max_size(&boxes, None, &padded).and_then(PendingMatching::wait).unwrap();
        assert_eq!(got.image, [0, 0, 1, 1]);
        assert_eq!(got.target, [0, 1, 0, 1]);
        assert_eq!(got.query, [0, 2, 1, 1]);
        let none = PaddedTargets::new(&[target(&[])], Device::Cpu);
        assert!(max_size(&boxes, None, &none).and_then(PendingMatching::wait).unwrap().is_empty());
    }
}
