//! Every metric with all images, and without each group of them.

use rayon::prelude::*;

use super::super::{
    Matches,
    class_matches::{AREAS, ClassMatches},
    curve::{LeftOut, Scratch, Selection},
    metrics,
};
use crate::vocabulary::Frequency;

/// Position of IoU 0.75 among the overlaps.
const AT_75: usize = 5;

/// A class's APs that metrics are means of.
pub(super) struct ClassValues {
    pub(super) ap: LeftOut,
    /// AP50, AP75, APs, APm, APl.
    others: [LeftOut; 5],
    /// Number of groups that have boxes of it, by size.
    filled: [usize; AREAS],
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

/// A metric: its name, the size of its objects, what it is the mean of, and over which classes.
type Metric = (&'static str, usize, fn(&ClassValues) -> &LeftOut, Option<Frequency>);

const METRICS: [Metric; 9] = [
    ("AP", 0, |c| &c.ap, None),
    ("AP50", 0, |c| &c.others[0], None),
    ("AP75", 0, |c| &c.others[1], None),
    ("APs", 1, |c| &c.others[2], None),
    ("APm", 2, |c| &c.others[3], None),
    ("APl", 3, |c| &c.others[4], None),
    ("APr", 0, |c| &c.ap, Some(Frequency::Rare)),
    ("APc", 0, |c| &c.ap, Some(Frequency::Common)),
    ("APf", 0, |c| &c.ap, Some(Frequency::Frequent)),
];

impl Replicates {
    /// With `groups` of 0 nothing is left out.
    pub(super) fn of(matches: &Matches, groups: usize) -> Self {
        let values = |scratch: &mut Scratch, class: &ClassMatches| {
            let mut of =
                |area, overlaps| scratch.left_out(class, &Selection { area, overlaps }, groups);
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
                filled: std::array::from_fn(|area| filled([class], area, groups)),
            }
        };
        let values: Vec<ClassValues> =
            matches.classes.par_iter().map_init(Scratch::default, values).collect();
        let metrics =
            METRICS.iter().map(|metric| mean((matches, groups), &values, metric)).collect();
        let per_class = values.iter().map(|class| class.moved(&class.ap, 0)).collect();
        Self { per_class, metrics }
    }
}

impl ClassValues {
    /// How far one of its values moves. Where n groups have boxes of the class, each move is multiplied by
    /// √((n − 1)/n): this is the jackknife's factor for a sample of n.
    fn moved(&self, of: &LeftOut, area: usize) -> Moved {
        let filled = self.filled[area];
        let factor = ((filled.max(1) - 1) as f64 / filled.max(1) as f64).sqrt();
        let moves = of.all.map_or_else(Vec::new, |all| {
            let moves =
                of.without.iter().map(|left| left.map_or(0.0, |left| factor * (left - all)));
            moves.collect()
        });
        Moved { value: of.all, moves, filled }
    }
}

/// The mean over the metric's classes. Without a group, it is the mean over those that still have boxes.
fn mean(
    (matches, groups): (&Matches, usize),
    values: &[ClassValues],
    &(name, area, of, group): &Metric,
) -> MetricValues {
    let members: Vec<(&ClassMatches, &ClassValues)> = matches
        .classes
        .iter()
        .zip(values)
        .filter(|(class, values)| {
            (group.is_none() || class.frequency == group) && of(values).all.is_some()
        })
        .collect();
    let of_classes: Vec<f64> = members.iter().filter_map(|(_, values)| of(values).all).collect();
    let value = metrics::mean(of_classes.iter().copied());
    let mut moves = vec![0.0; if value.is_some() { groups } else { 0 }];
    let mut left = vec![0usize; moves.len()];
    for (_, values) in &members {
        let class = values.moved(of(values), area);
        for (g, without) in of(values).without.iter().enumerate() {
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
    let classes = || members.iter().map(|&(class, _)| class);
    MetricValues {
        name,
        moved: Moved { value, moves, filled: filled(classes(), area, groups) },
        of_classes,
        boxes: classes().map(|class| class.boxes(area)).sum(),
    }
}

/// Number of groups that have boxes of these classes and that size.
fn filled<'a>(
    classes: impl IntoIterator<Item = &'a ClassMatches>,
    area: usize,
    groups: usize,
) -> usize {
    if groups == 0 {
        return 0;
    }
    let mut has = vec![false; groups];
    for class in classes {
        for (image, boxes) in &class.truths {
            has[*image as usize % groups] |= boxes[area] > 0;
        }
    }
    has.into_iter().filter(|&has| has).count()
}
