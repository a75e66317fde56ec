//! Hungarian matching of predictions to ground truth (DETR, arXiv 2005.12872, section 3.1).

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use torch_ext::{
    Download,
    assign::assign,
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

/// A box, and the set of predictions (decoder layer, proposals) of which a query answers for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Which set.
    pub set: i64,
    /// Which image.
    pub image: i64,
    /// Which of the image's boxes.
    pub target: i64,
}

/// Matched pairs of several sets of predictions, by set, image and box. Every set has the same number of
/// pairs. Which boxes are matched the host knows; which query each has, the device may have decided, and the
/// host has not waited to see it.
#[derive(Debug)]
pub struct Matching {
    /// The boxes.
    pub pairs: Vec<Pair>,
    /// The query of each, `[N]` i64, where the predictions are.
    pub query: Tensor,
    /// Whether a query answers for several boxes.
    pub shared: bool,
    /// `[S]` f32, NaN for a set whose costs were not finite, else zero; none where the host has looked.
    pub finite: Option<Tensor>,
}

impl Matching {
    /// Of pairs `[set, image, query, target]` that the host knows, in order.
    #[must_use]
    pub fn new(pairs: &[[i64; 4]], device: Device) -> Self {
        let query: Vec<i64> = pairs.iter().map(|pair| pair[2]).collect();
        let pair = |&[set, image, _, target]: &[i64; 4]| Pair { set, image, target };
        let mut queries: Vec<_> = pairs.iter().map(|pair| &pair[..3]).collect();
        queries.sort_unstable();
        Self {
            pairs: pairs.iter().map(pair).collect(),
            query: torch_ext::upload(&Tensor::from_slice(&query), device),
            shared: queries.windows(2).any(|two| two[0] == two[1]),
            finite: None,
        }
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// No pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// `[set, image, query, target]` of each pair. Waits for the device.
    ///
    /// # Errors
    /// What an earlier kernel failed with.
    pub fn list(&self) -> Result<Vec<[i64; 4]>> {
        let query = Vec::<i64>::try_from(self.query.f_to_device(Device::Cpu)?)?;
        let pairs = self.pairs.iter().zip(query);
        Ok(pairs.map(|(pair, query)| [pair.set, pair.image, query, pair.target]).collect())
    }
}

/// Every box of every set's images.
fn all_pairs(sets: usize, counts: &[usize]) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for set in 0..sets as i64 {
        for (image, &count) in (0..).zip(counts) {
            pairs.extend((0..count as i64).map(|target| Pair { set, image, target }));
        }
    }
    pairs
}

/// A matching, made by the device, or whose numbers are on their way to the host: what is queued before
/// [`Self::wait`], the device works on while the host matches.
#[derive(Debug)]
pub struct PendingMatching {
    arriving: Arriving,
    /// Boxes of each image.
    counts: Vec<usize>,
    device: Device,
}

#[derive(Debug)]
enum Arriving {
    /// It is there.
    Matched(Matching),
    /// Costs `[S, B, T, Q]`; those from `too_much` on are of what must not be.
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
    let (most, device) = (targets.most(), boxes.device());
    if most == 0 {
        return Ok(PendingMatching::nothing(device));
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
    let arriving = Arriving::Queries { chosen, sets, most };
    Ok(PendingMatching { arriving, counts: targets.counts.clone(), device })
}

/// The cost of what must not be: far above every other, far from what a sum in f64 would round.
const NEVER: f32 = 1e9;

/// Matches all sets and images: one cost tensor, and one assignment problem a set and image. CUDA solves
/// them itself, and nobody waits. Elsewhere, and where it is not known how many pairs there will be, the host
/// does, after one transfer: where queries are `unused`, which match nothing, and where an image has more boxes
/// than there are queries.
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
    let (counts, device) = (targets.counts.clone(), logits.device());
    if targets.most() == 0 {
        return Ok(PendingMatching::nothing(device));
    }
    let cost = torch_ext::no_grad(|| match has_kernels(logits) {
        true => {
            let MatcherConfig { class, l1, giou } = *config;
            let weights = CostWeights { class, l1, giou, alpha: focal_alpha };
            Ok(matching_cost(logits, boxes, &targets.labels, &targets.boxes, weights)?)
        }
        false => Ok::<_, Error>(cost(logits, boxes, targets, config, focal_alpha)),
    })?;
    let (s, b, t, q) = cost.size4()?;
    if has_kernels(&cost) && unused.is_none() && t <= q {
        let of_images: Vec<i64> = counts.iter().map(|&count| count as i64).collect();
        let of_images = torch_ext::upload(&Tensor::from_slice(&of_images), device);
        let (query, finite) = assign(&cost, &of_images)?; // [S, B, T], [S, B]
        let pairs = all_pairs(s as usize, &counts);
        let place = |pair: &Pair| (pair.set * b + pair.image) * t + pair.target;
        let places: Vec<i64> = pairs.iter().map(place).collect();
        let places = torch_ext::upload(&Tensor::from_slice(&places), device);
        let query = query.flatten(0, -1).index_select(0, &places);
        let finite = finite.sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        let matching = Matching { pairs, query, shared: false, finite: Some(finite) };
        return Ok(PendingMatching { arriving: Arriving::Matched(matching), counts, device });
    }
    let cost = match unused {
        Some(unused) => cost.masked_fill(&unused.unsqueeze(1), f64::from(NEVER)),
        None => cost,
    };
    let too_much = if unused.is_some() { NEVER } else { f32::INFINITY };
    let size = [s, b, t, q].map(|n| n as usize);
    let cost = torch_ext::download(&cost)?;
    Ok(PendingMatching { arriving: Arriving::Costs { cost, size, too_much }, counts, device })
}

impl PendingMatching {
    /// Where no image has a box.
    fn nothing(device: Device) -> Self {
        let arriving = Arriving::Matched(Matching::new(&[], device));
        Self { arriving, counts: Vec::new(), device }
    }

    /// The matching.
    ///
    /// # Errors
    /// Costs that are not finite, with the set and image, where the host looks at them (else see
    /// [`Matching::finite`]); what libtorch refuses.
    pub fn wait(self) -> Result<Matching> {
        let Self { arriving, counts, device } = self;
        match arriving {
            Arriving::Matched(matching) => Ok(matching),
            Arriving::Costs { cost, size, too_much } => {
                let cost = Vec::<f32>::try_from(cost.wait()?.flatten(0, -1))?;
                Ok(Matching::new(&solve(&cost, size, too_much, &counts)?, device))
            }
            Arriving::Queries { chosen, sets, most } => {
                let chosen = Vec::<i64>::try_from(chosen.wait()?.flatten(0, -1))?;
                let pairs = all_pairs(sets, &counts).into_iter().map(|pair| {
                    let Pair { set, image, target } = pair;
                    let place = (set * counts.len() as i64 + image) * most as i64 + target;
                    [set, image, chosen[place as usize], target]
                });
                Ok(Matching::new(&pairs.collect::<Vec<_>>(), device))
            }
        }
    }
}

/// Solves the assignment of each set and image: `[set, image, query, target]`.
fn solve(
    cost: &[f32],
    [sets, images, t, q]: [usize; 4],
    too_much: f32,
    counts: &[usize],
) -> Result<Vec<[i64; 4]>> {
    let problems: Vec<(usize, usize)> =
        (0..sets).flat_map(|set| (0..images).map(move |image| (set, image))).collect();
    let solved = problems
        .par_iter()
        .map(|&(set, image)| {
            let count = counts[image];
            let block = &cost[(set * images + image) * t * q..][..count * q];
            let own: Vec<f64> = block.iter().map(|&c| f64::from(c)).collect();
            let (targets, queries) = lsap::solve(count, q, &own, false).map_err(|_| {
                Error::NonFinite(format!(
                    "the matching cost of prediction set {set}, image {image} is not finite"
                ))
            })?;
            // More boxes than queries that are used: the others' pairs are none.
            let pairs = targets.into_iter().zip(queries);
            let pairs = pairs.filter(|(target, query)| block[target * q + query] < too_much);
            let pairs = pairs.map(|(target, query)| [set, image, query, target].map(|n| n as i64));
            let mut pairs: Vec<_> = pairs.collect();
            pairs.sort_unstable_by_key(|pair| pair[3]);
            Ok(pairs)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(solved.concat())
}

/// `[S, B, T, Q]`
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
    let cost = (positive - negative) * config.class + l1(&boxes, &truth) * config.l1
        - generalized_iou(&boxes, &truth) * config.giou;
    cost.transpose(2, 3).contiguous()
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
        assert_eq!(got.list().unwrap(), [[0, 0, 2, 0], [0, 0, 0, 1], [0, 1, 1, 0]]);
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
        let all = all.list().unwrap();
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
                let batched = all.iter().filter(|pair| pair[..2] == [set, image]);
                let alone = single.list().unwrap();
                assert!(batched.map(|pair| &pair[2..]).eq(alone.iter().map(|pair| &pair[2..])));
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
                .and_then(|matching| matching.list())
                .unwrap()
        };
        let got = solve(&logits, &boxes, Some(&unused));
        let mut expected = solve(&only(&logits), &only(&boxes), None);
        expected.iter_mut().for_each(|pair| pair[2] *= 2);
        assert_eq!(got.len(), 4);
        assert_eq!(got, expected);
        let largest = |boxes: &Tensor, unused: Option<&Tensor>| {
            let matching = max_size(boxes, unused, &three).and_then(PendingMatching::wait);
            matching.and_then(|matching| matching.list()).unwrap()
        };
        let got = largest(&boxes, Some(&unused));
        let mut expected = largest(&only(&boxes), None);
        expected.iter_mut().for_each(|pair| pair[2] *= 2);
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
        let pairs = [[0, 0, 0, 0], [0, 0, 2, 1], [0, 1, 1, 0], [0, 1, 1, 1]];
        assert_eq!(got.list().unwrap(), pairs);
        assert!(got.shared);
        let none = PaddedTargets::new(&[target(&[])], Device::Cpu);
        assert!(max_size(&boxes, None, &none).and_then(PendingMatching::wait).unwrap().is_empty());
    }
}
