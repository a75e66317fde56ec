//! Intervals of metrics that rank each class at one overlap: OpenImages'.

use super::{
    ClassInterval, GROUPS, Intervals, MetricInterval,
    replicates::{Member, mean},
};
use crate::{evaluate::RankedClass, vocabulary::CategoryId};

/// The APs of classes that are ranked at one overlap, with all images and without each group of them.
pub(in crate::evaluate) struct RankedIntervals {
    groups: usize,
    members: Vec<Member>,
}

impl RankedIntervals {
    /// `images`: their number. Their numbers are in order of their ids.
    pub(in crate::evaluate) fn of(classes: &[RankedClass], images: usize) -> Self {
        let groups = images.min(GROUPS);
        Self { groups, members: Member::of_ranked(classes, groups) }
    }

    /// The mean over the classes at these positions.
    pub(in crate::evaluate) fn mean(
        &self,
        name: &'static str,
        chosen: impl Fn(usize) -> bool,
    ) -> MetricInterval {
        let members = self.members.iter().enumerate();
        let members = members.filter(|(at, _)| chosen(*at)).map(|(_, member)| member);
        MetricInterval::of(&mean(name, members, self.groups))
    }

    /// All intervals, with those of each class. `ids` are the classes' ids.
    pub(in crate::evaluate) fn with(
        &self,
        metrics: Vec<MetricInterval>,
        ids: impl Iterator<Item = CategoryId>,
    ) -> Intervals {
        let per_class = ids.zip(&self.members).map(|(id, m)| ClassInterval::of(id, &m.moved()));
        Intervals { groups: self.groups, metrics, per_class: per_class.collect() }
    }
}
