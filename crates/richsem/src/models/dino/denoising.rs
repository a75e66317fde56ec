//! Contrastive denoising (DINO, arXiv 2203.03605, section 3.3): noised copies of the ground truth
//! as extra queries, positives to be restored, negatives to be rejected.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{
    bounds::within, error::Result, models::layers::inverse_sigmoid, random::Random, targets::Target,
};

/// Largest number of denoising queries: attention among queries is quadratic, and ten times the
/// paper's number is too much for most memories.
const MOST_QUERIES: i64 = 1000;

/// Denoising queries: how many there are, and how strong their noise is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DenoisingConfig {
    /// Positive queries of an image, about. There are `number` / (most boxes of an image in the
    /// batch) groups, at least one. Each group has one positive and one negative query for each
    /// box. Default: 100; 0 to 1000. 0 switches denoising off. Reference: `dn_number`.
    pub number: i64,
    /// How far box corners move, in halves of the box's size: at most 1 × this for positive
    /// queries, 1 × to 2 × this for negative ones. Default: 1.0; 0 to 10. Reference:
    /// `dn_box_noise_scale`.
    pub box_noise: f64,
    /// Twice the probability that a query gets a random class. Default: 0.5, which is a probability
    /// of 0.25; 0 to 2. Reference: `dn_label_noise_ratio`.
    pub label_noise: f64,
}

impl Default for DenoisingConfig {
    fn default() -> Self {
        Self { number: 100, box_noise: 1.0, label_noise: 0.5 }
    }
}

impl DenoisingConfig {
    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        within(format!("{key}.number"), self.number, 0..=MOST_QUERIES).map_err(|error| {
            error.with_hint("the paper's is 100, for all boxes of an image together; 0: none")
        })?;
        within(format!("{key}.box_noise"), self.box_noise, 0.0..=10.0)?;
        within(format!("{key}.label_noise"), self.label_noise, 0.0..=2.0)
    }
}

impl DenoisingConfig {
    /// Denoising queries of an image in a batch with at most so many boxes in an image.
    pub(crate) fn queries(&self, most: i64) -> i64 {
        if most == 0 || self.number == 0 { 0 } else { self.layout(most).len() }
    }

    fn layout(&self, most: i64) -> DenoisingLayout {
        let groups = if most == 0 { 0 } else { (self.number / most).max(1) };
        DenoisingLayout::new(groups, most)
    }

    /// P for batches whose boxes need `slots` of them, the same for nearly all batches. With the
    /// `queries` that match, a multiple of 8: attention over other numbers pads its mask, in every
    /// layer.
    #[must_use]
    pub fn common_slots(&self, slots: i64, queries: i64) -> i64 {
        // A batch with at most `number` boxes in an image needs at most 2 · number.
        let common = slots.max(1).cast_unsigned().next_multiple_of(2 * self.number.cast_unsigned());
        let common = common.cast_signed();
        (common + queries).cast_unsigned().next_multiple_of(8).cast_signed() - queries
    }
}

/// Where the copies of each ground-truth box sit among the P denoising queries: group `g` holds
/// `most` positives, then `most` negatives; an image's box `i` takes slot `i` of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenoisingLayout {
    /// How many groups of queries there are.
    pub groups: i64,
    /// Most boxes of an image in the batch, or in those of all processes.
    pub most: i64,
    /// P. Those after the groups are there so that batches of different numbers of boxes have
    /// tensors of the same shape: no other query sees them, and no loss does.
    pub slots: i64,
}

impl DenoisingLayout {
    /// A layout without slots after the groups.
    #[must_use]
    pub fn new(groups: i64, most: i64) -> Self {
        Self { groups, most, slots: 2 * groups * most }
    }

    /// Number of denoising queries of an image, at most P.
    #[must_use]
    pub fn len(self) -> i64 {
        2 * self.groups * self.most
    }

    /// Whether there are no denoising queries: no image has a box. There may still be slots.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Query of the positive copy of box `i` in group `g`.
    #[must_use]
    pub fn positive(self, group: i64, i: i64) -> i64 {
        2 * group * self.most + i
    }

    /// `[P]`: the group of each slot; those after the groups are one of their own.
    pub fn groups(self) -> Tensor {
        let group =
            |slot: i64| if slot < self.len() { slot / (2 * self.most) } else { self.groups };
        Tensor::from_slice(&(0..self.slots).map(group).collect::<Vec<_>>())
    }
}

/// Which queries see which. Queries of a group see their group and the matching queries. Matching
/// queries see each other.
///
/// # Shapes
/// `groups` `[P]` i64, as [`DenoisingQueries::groups`] → `[P + queries, P + queries]`, true where a
/// row may see a column
pub fn may_attend(groups: &Tensor, queries: i64) -> Tensor {
    let matching = Tensor::full([queries], -1, (Kind::Int64, groups.device()));
    let group = Tensor::cat(&[groups, &matching], 0);
    let (row, column) = (group.unsqueeze(1), group.unsqueeze(0));
    row.eq_tensor(&column).logical_or(&column.eq(-1))
}

/// Denoising queries of one batch.
#[derive(Debug)]
pub struct DenoisingQueries {
    /// Which slot holds which copy of which box.
    pub layout: DenoisingLayout,
    /// `[B, P]`, 0 in unused slots.
    pub labels: Tensor,
    /// `[B, P, 1]`, 1 where a slot is used.
    pub used: Tensor,
    /// `[B, P, 4]`, before the sigmoid, 0 in unused slots.
    pub references: Tensor,
    /// `[P]`: the group of each slot.
    pub groups: Tensor,
}

impl DenoisingQueries {
    /// Copies of the targets' boxes with random noise, which image i of the batch takes from `random(i)`. `most`
    /// is the most boxes of an image, here or in the batches of other processes. `slots` gets the smallest
    /// possible P and gives the P to use. `None` if P is 0, or denoising is off.
    #[must_use]
    pub fn new(
        targets: &[Target],
        (config, classes): (&DenoisingConfig, i64),
        most: usize,
        random: impl Fn(usize) -> Random,
        device: Device,
        slots: impl FnOnce(i64) -> i64,
    ) -> Option<Self> {
        let mut of_image: Option<(usize, Random)> = None;
        let draw = |copy: Copied| {
            let of_image = match &mut of_image {
                Some((image, random)) if *image == copy.image => random,
                other => &mut other.insert((copy.image, random(copy.image))).1,
            };
            CopyNoise::draw(copy.negative, config, classes, of_image)
        };
        Self::with_noise(targets, config, most, draw, device, slots)
    }

    /// As [`Self::new`], with random numbers that `noise` gives, asked image by image.
    #[must_use]
    pub fn with_noise(
        targets: &[Target],
        config: &DenoisingConfig,
        most: usize,
        mut noise: impl FnMut(Copied) -> CopyNoise,
        device: Device,
        slots: impl FnOnce(i64) -> i64,
    ) -> Option<Self> {
        let most = most as i64;
        if config.number == 0 {
            return None;
        }
        let mut layout = config.layout(most);
        layout.slots = layout.slots.max(slots(layout.slots));
        if layout.slots == 0 {
            return None;
        }
        let (batch, p) = (targets.len(), layout.slots as usize);
        let mut labels = vec![0i64; batch * p];
        let mut used = vec![0f32; batch * p];
        let mut boxes = vec![0f32; batch * p * 4];
        for (b, target) in targets.iter().enumerate() {
            for group in 0..layout.groups {
                for (i, (bbox, label)) in target.boxes.iter().zip(&target.labels).enumerate() {
                    for (negative, shift) in [(false, 0), (true, most)] {
                        let query = layout.positive(group, i as i64) + shift;
                        let slot = b * p + query as usize;
                        let noise = noise(Copied { image: b, group, target: i, negative });
                        used[slot] = 1.0;
                        labels[slot] = noise.label.unwrap_or(i64::from(label.0));
                        let noised = noised_box(bbox.0, noise.moves, config.box_noise);
                        boxes[slot * 4..][..4].copy_from_slice(&noised);
                    }
                }
            }
        }
        let shape = [batch as i64, layout.slots];
        let used = Tensor::from_slice(&used).view([shape[0], shape[1], 1]);
        let boxes = Tensor::from_slice(&boxes).view([shape[0], shape[1], 4]);
        Some(Self {
            layout,
            labels: torch_ext::upload(&Tensor::from_slice(&labels).view(shape), device),
            references: torch_ext::upload(&(inverse_sigmoid(&boxes) * &used), device),
            used: torch_ext::upload(&used, device),
            groups: torch_ext::upload(&layout.groups(), device),
        })
    }
}

/// Which copy of which box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Its image in the batch.
    pub image: usize,
    /// Number of the copy's group, from 0.
    pub group: i64,
    /// Number of the box in its image.
    pub target: usize,
    /// Whether the copy is to be rejected.
    pub negative: bool,
}

/// The random numbers of one copy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CopyNoise {
    /// The class that the label becomes, if it flips.
    pub label: Option<i64>,
    /// How far x0, y0, x1, y1 move, in half box sizes: ±u, u in [0, 1) for positives and [1, 2) for
    /// negatives.
    pub moves: [f64; 4],
}

impl CopyNoise {
    fn draw(negative: bool, config: &DenoisingConfig, classes: i64, random: &mut Random) -> Self {
        let flips = random.chance(config.label_noise / 2.0);
        let label = flips.then(|| random.below(classes as usize) as i64);
        let moves = std::array::from_fn(|_| {
            let u = random.uniform() + f64::from(u8::from(negative));
            if random.chance(0.5) { u } else { -u }
        });
        Self { label, moves }
    }
}

/// Moves each corner coordinate and clamps it to the image.
fn noised_box(bbox: [f32; 4], moves: [f64; 4], noise: f64) -> [f32; 4] {
    let [cx, cy, w, h] = bbox.map(f64::from);
    let corner = |at: f64, half: f64, by: f64| (at + by * half * noise).clamp(0.0, 1.0);
    let x0 = corner(cx - w / 2.0, w / 2.0, moves[0]);
    let y0 = corner(cy - h / 2.0, h / 2.0, moves[1]);
    let x1 = corner(cx + w / 2.0, w / 2.0, moves[2]);
    let y1 = corner(cy + h / 2.0, h / 2.0, moves[3]);
    [(x0 + x1) / 2.0, (y0 + y1) / 2.0, x1 - x0, y1 - y0].map(|v| v as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{boxes::Cxcywh, random::Stream, targets::LabelKnowledge, vocabulary::ClassIndex};

    fn target(boxes: &[[f32; 4]]) -> Target {
        Target {
            image_id: 1,
            boxes: boxes.iter().map(|&b| Cxcywh(b)).collect(),
            labels: (0..boxes.len() as u32).map(ClassIndex).collect(),
            knowledge: LabelKnowledge::default(),
            size: [10, 10],
            original_size: [10, 10],
            view: None,
            geometry: None,
        }
    }

    fn queries(targets: &[Target], config: &DenoisingConfig) -> Option<DenoisingQueries> {
        let most = targets.iter().map(|t| t.boxes.len()).max().unwrap_or(0);
        let random = |image: usize| Random::new(0, Stream::Test, 0, image as u64);
        DenoisingQueries::new(targets, (config, 5), most, random, Device::Cpu, |slots| slots)
    }

    #[test]
    fn groups_fill_the_wanted_number() {
        let one = target(&[[0.5, 0.5, 0.2, 0.2]; 3]);
        let two = target(&[[0.5, 0.5, 0.2, 0.2]]);
        let q = queries(&[one, two], &DenoisingConfig::default()).unwrap();
        assert_eq!(q.layout, DenoisingLayout::new(33, 3));
        assert_eq!(q.labels.size(), [2, 198]);
        assert_eq!(q.used.sum(Kind::Float).double_value(&[]), 33.0 * 2.0 * 4.0);
        let many = vec![[0.5, 0.5, 0.2, 0.2]; 150];
        let q = queries(&[target(&many)], &DenoisingConfig::default()).unwrap();
        assert_eq!(q.layout.groups, 1);
    }

    #[test]
    fn no_boxes_or_no_number_means_no_queries() {
        assert!(queries(&[target(&[])], &DenoisingConfig::default()).is_none());
        let off = DenoisingConfig { number: 0, ..DenoisingConfig::default() };
        assert!(queries(&[target(&[[0.5; 4]])], &off).is_none());
        // Slots that are asked for are there, and nothing is in them.
        let slots = |boxes: &[[f32; 4]], number| {
            let config = DenoisingConfig { number, ..DenoisingConfig::default() };
            let random = |image: usize| Random::new(1, Stream::Denoising, 0, image as u64);
            let (targets, most) = ([target(boxes)], boxes.len());
            DenoisingQueries::new(&targets, (&config, 9), most, random, Device::Cpu, |_| 200)
        };
        let none = slots(&[], 100).unwrap();
        assert!(none.layout.is_empty() && none.layout.slots == 200);
        assert_eq!(none.used.size(), [1, 200, 1]);
        assert_eq!(none.used.sum(Kind::Float).double_value(&[]), 0.0);
        assert!(none.groups == slots(&[[0.5; 4]], 100).unwrap().groups.zeros_like());
        assert!(slots(&[[0.5; 4]], 0).is_none());
    }

    #[test]
    fn positives_stay_near_and_negatives_do_not() {
        let (cx, w) = (0.5f32, 0.1f32);
        let q = queries(&[target(&[[cx, cx, w, w]])], &DenoisingConfig::default()).unwrap();
        let boxes = q.references.sigmoid();
        for query in 0..q.layout.len() {
            let v: Vec<f64> = Vec::try_from(boxes.get(0).get(query).to_kind(Kind::Double)).unwrap();
            let moved = [
                (v[0] - v[2] / 2.0 - 0.45).abs(),
                (v[1] - v[3] / 2.0 - 0.45).abs(),
                (v[0] + v[2] / 2.0 - 0.55).abs(),
                (v[1] + v[3] / 2.0 - 0.55).abs(),
            ];
            let range = if query % 2 == 0 { 0.0..0.051 } else { 0.049..0.101 };
            // A negative's far corners may cross; the width's inverse sigmoid then clamps.
            if query % 2 == 0 || v[2].min(v[3]) > 0.002 {
                assert!(moved.iter().all(|m| range.contains(m)), "{query} {moved:?}");
            }
        }
    }

    #[test]
    fn a_quarter_of_the_labels_flip() {
        let config = DenoisingConfig { number: 20_000, ..DenoisingConfig::default() };
        let q = queries(&[target(&[[0.5, 0.5, 0.2, 0.2]])], &config).unwrap();
        // Label 0 stays in 3/4 + 1/4 · 1/5 of 40,000 slots.
        let kept = q.labels.eq(0).sum(Kind::Float).double_value(&[]) / 40_000.0;
        assert!((kept - 0.8).abs() < 0.01, "{kept}");
    }

    #[test]
    fn the_mask_hides_groups_from_each_other_and_from_matching_queries() {
        let layout = DenoisingLayout { groups: 2, most: 1, slots: 5 };
        let mask = may_attend(&layout.groups(), 2).to_kind(Kind::Int64);
        let rows: Vec<Vec<i64>> = Vec::try_from(mask).unwrap();
        assert_eq!(
            rows,
            [
                [1, 1, 0, 0, 0, 1, 1],
                [1, 1, 0, 0, 0, 1, 1],
                [0, 0, 1, 1, 0, 1, 1],
                [0, 0, 1, 1, 0, 1, 1],
                [0, 0, 0, 0, 1, 1, 1],
                [0, 0, 0, 0, 0, 1, 1],
                [0, 0, 0, 0, 0, 1, 1],
            ]
        );
    }
}
