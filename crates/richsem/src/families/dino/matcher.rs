//! Hungarian matching of predictions to ground truth (DETR, arXiv 2005.12872, section 3.1).

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};
use torch_ext::{
    Download,
    assign::assign,
    detr_losses::{CostWeights, matching_cost},
};

use crate::{
    error::{Error, Result},
    losses::{
        MatcherConfig,
        boxes::{generalized_iou, l1},
        has_kernels,
    },
    targets::Target,
};

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

/// A matching that the device made, or one for which numbers are on their way to the host. What is queued
/// before [`Self::wait`] keeps the device busy while the host matches.
#[derive(Debug)]
pub struct PendingMatching {
    arriving: Arriving,
    /// Boxes of each image.
    counts: Vec<usize>,
    device: Device,
}

#[derive(Debug)]
enum Arriving {
    /// Nothing has to arrive: the device matched, or there is nothing to match.
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
                Error::non_finite(format!(
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
#[path = "matcher_tests.rs"]
mod tests;
