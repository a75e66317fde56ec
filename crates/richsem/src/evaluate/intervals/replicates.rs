//! Every metric with all images, and without each group of them.

use rayon::prelude::*;

use super::super::{
    Matches, RankedClass,
    class_matches::ClassMatches,
    curve::{LeftOut, Scratch, Selection},
    metrics,
};
use crate::vocabulary::Frequency;

/// Position of IoU 0.75 among the overlaps.
const AT_75: usize = 5;

/// An AP of a class, and what it rests on.
pub(super) struct Member {
    left: LeftOut,
    /// Which groups have boxes of it. Empty without groups.
    has: Vec<bool>,
    boxes: usize,
}

/// A class's APs that metrics are means of.
struct ClassValues {
    ap: Member,
    /// AP50, AP75, APs, APm, APl.
    others: [Member; 5],
}

/// A value, and how far it moves when a group is left out.
pub(super) struct Moved {
    pub(super) value: Option<f64>,
    /// By group. Empty without a value.
    pub(super) moves: Vec<f64>,
    /// Number of groups that have boxes.
    pub(super) filled: usize,
}

/// A metric with all images, and how far it moves.
pub(super) struct MetricValues {
    pub(super) name: &'static str,
    pub(super) moved: Moved,
    /// Values of the classes that it is the mean of.
    pub(super) of_classes: Vec<f64>,
    pub(super) boxes: usize,
}

pub(super) struct Replicates {
    pub(super) per_class: Vec<Moved>,
    pub(super) metrics: Vec<MetricValues>,
}

/// A metric: its name, what it is the mean of, and over which classes.
type Metric = (&'static str, fn(&ClassValues) -> &Member, Option<Frequency>);

const METRICS: [Metric; 9] = [
    ("AP", |c| &c.ap, None),
    ("AP50", |c| &c.others[0], None),
    ("AP75", |c| &c.others[1], None),
    ("APs", |c| &c.others[2], None),
    ("APm", |c| &c.others[3], None),
    ("APl", |c| &c.others[4], None),
    ("APr", |c| &c.ap, Some(Frequency::Rare)),
    ("APc", |c| &c.ap, Some(Frequency::Common)),
    ("APf", |c| &c.ap, Some(Frequency::Frequent)),
];

impl Replicates {
    /// With `groups` of 0 nothing is left out.
    pub(super) fn of(matches: &Matches, groups: usize) -> Self {
        let values = |scratch: &mut Scratch, class: &ClassMatches| {
            let mut of = |area: usize, overlaps| {
                let boxes = class.truths.iter().map(|(image, boxes)| (*image, boxes[area]));
                let left = scratch.left_out(class, &Selection { area, overlaps }, groups);
                Member::of(left, boxes, groups)
            };
            let every = 0..matches.overlaps;
            ClassValues {
                ap: of(0, every.clone()),
                others: [
                    of(0, 0..1),
                    of(0, AT_75..AT_75 + 1),
                    of(1, every.clone()),
                    of(2, every.clone()),
                    of(3, every.clone()),
                ],
            }
        };
        let values: Vec<ClassValues> =
            matches.classes.par_iter().map_init(Scratch::default, values).collect();
        let metrics = METRICS.iter().map(|&(name, of, group)| {
            let classes = matches.classes.iter().zip(&values);
            let members = classes.filter(|(class, _)| group.is_none() || class.frequency == group);
            mean(name, members.map(|(_, values)| of(values)), groups)
        });
        let per_class = values.iter().map(|class| class.ap.moved()).collect();
        Self { per_class, metrics: metrics.collect() }
    }
}

impl Member {
    /// `boxes`: the images that have some, and how many.
    fn of(left: LeftOut, boxes: impl Iterator<Item = (u32, u32)>, groups: usize) -> Self {
        let (mut has, mut all) = (vec![false; groups], 0);
        for (image, count) in boxes.filter(|(_, count)| *count > 0) {
            all += count as usize;
            if groups > 0 {
                has[image as usize % groups] = true;
            }
        }
        Self { left, has, boxes: all }
    }

    /// The APs of classes that are ranked at one overlap.
    pub(super) fn of_ranked(classes: &[RankedClass], groups: usize) -> Vec<Self> {
        let of_class = |scratch: &mut Scratch, class: &RankedClass| {
            let left = scratch.left_out_ranked(class, groups);
            Self::of(left, class.truths.iter().copied(), groups)
        };
        classes.par_iter().map_init(Scratch::default, of_class).collect()
    }

    fn filled(&self) -> usize {
        self.has.iter().filter(|has| **has).count()
    }

    /// How far it moves. Where n groups have boxes of the class, each move is multiplied by √((n − 1)/n): this
    /// is the jackknife's factor for a sample of n.
    pub(super) fn moved(&self) -> Moved {
        let filled = self.filled();
        let factor = ((filled.max(1) - 1) as f64 / filled.max(1) as f64).sqrt();
        let moves = self.left.all.map_or_else(Vec::new, |all| {
            let without = self.left.without.iter();
            without.map(|left| left.map_or(0.0, |left| factor * (left - all))).collect()
        });
        Moved { value: self.left.all, moves, filled }
    }
}

/// The mean over classes that have a value. Without a group, it is the mean over those that still have boxes.
pub(super) fn mean<'a>(
    name: &'static str,
    members: impl Iterator<Item = &'a Member>,
    groups: usize,
) -> MetricValues {
    let members: Vec<&Member> = members.filter(|member| member.left.all.is_some()).collect();
    let of_classes: Vec<f64> = members.iter().filter_map(|member| member.left.all).collect();
    let value = metrics::mean(of_classes.iter().copied());
    let mut moves = vec![0.0; if value.is_some() { groups } else { 0 }];
    let mut left = vec![0usize; moves.len()];
    let mut has = vec![false; groups];
    for member in &members {
        let class = member.moved();
        for (g, without) in member.left.without.iter().enumerate() {
            has[g] |= member.has[g];
            match (without, value, class.value) {
                (Some(_), ..) => {
                    moves[g] += class.moves[g];
                    left[g] += 1;
                }
                // The class leaves the mean, which moves away from the class's value.
                (None, Some(mean), Some(own)) => moves[g] += mean - own,
                _ => {}
            }
        }
    }
    moves.iter_mut().zip(&left).for_each(|(sum, &left)| *sum /= left.max(1) as f64);
    MetricValues {
        name,
        moved: Moved { value, moves, filled: has.into_iter().filter(|&has| has).count() },
        of_classes,
        boxes: members.iter().map(|member| member.boxes).sum(),
    }
}
