//! Which part each group of images goes to: iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On
//! the stratification of multi-label data", ECML PKDD 2011), with a floor.
//!
//! Classes are dealt out from the rarest on: each group that shows the class goes to the part that lacks it
//! most, by the part's share of the images that show it. Deviation: a class that enough groups show is wanted
//! in every part, however small the part's share: the paper's shares would leave a class of two images on one
//! side. Classes that come together take each other's places, so what a part still lacks then is moved to it
//! ([`complete`]), and what it has too many of is moved away ([`level`]).

use crate::random::{Random, Stream};

/// Images that stay together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// How many images it has.
    pub(super) images: usize,
    /// How many of them show each class; classes that none shows are left out.
    pub(super) shows: Vec<(usize, usize)>,
}

/// Which of the parts each group goes to. `shares` are the parts' shares of all images, their sum 1.
pub(super) fn assign(groups: &[Group], classes: usize, shares: &[f64], seed: u64) -> Vec<usize> {
    let images: usize = groups.iter().map(|group| group.images).sum();
    let mut with = vec![Vec::new(); classes];
    let mut shown = vec![0.0; classes];
    for (at, group) in groups.iter().enumerate() {
        for &(class, count) in &group.shows {
            with[class].push(at);
            shown[class] += count as f64;
        }
    }
    let mut wanted: Vec<Vec<f64>> = (0..classes)
        .map(|class| {
            let floor = if with[class].len() >= shares.len() { 1.0 } else { 0.0 };
            shares.iter().map(|share| (share * shown[class]).max(floor)).collect()
        })
        .collect();
    let mut room: Vec<f64> = shares.iter().map(|share| share * images as f64).collect();
    let order = shuffled(groups.len(), seed);
    let mut place = vec![0; groups.len()];
    order.iter().enumerate().for_each(|(rank, &group)| place[group] = rank);
    for of_class in &mut with {
        // Groups of many images first: what is small fills the gaps.
        of_class.sort_by_key(|&group| (std::cmp::Reverse(groups[group].images), place[group]));
    }
    let mut rarest: Vec<usize> = (0..classes).collect();
    rarest.sort_by_key(|&class| with[class].len());
    let mut part = vec![usize::MAX; groups.len()];
    let mut deal = |group: usize, to: usize, wanted: &mut [Vec<f64>], room: &mut [f64]| {
        part[group] = to;
        room[to] -= groups[group].images as f64;
        for &(class, count) in &groups[group].shows {
            wanted[class][to] -= count as f64;
        }
    };
    let mut dealt = vec![false; groups.len()];
    for class in rarest {
        for &group in &with[class] {
            if std::mem::replace(&mut dealt[group], true) {
                continue;
            }
            let to = neediest(&wanted[class], &room);
            deal(group, to, &mut wanted, &mut room);
        }
    }
    for &group in &order {
        if !dealt[group] {
            let to = neediest(&room, &room);
            deal(group, to, &mut wanted, &mut room);
        }
    }
    let mut parts = Parts::new(groups, part, (classes, shares.len()));
    complete(&mut parts, &with);
    level(&mut parts, shares, &order);
    parts.of
}

/// Groups dealt out to parts.
struct Parts<'a> {
    groups: &'a [Group],
    /// The part of each group.
    of: Vec<usize>,
    /// Groups that show a class, by part and class.
    holders: Vec<Vec<usize>>,
    /// Images that show it.
    shown: Vec<Vec<usize>>,
    /// Images of each part.
    images: Vec<usize>,
}

impl<'a> Parts<'a> {
    fn new(groups: &'a [Group], of: Vec<usize>, (classes, parts): (usize, usize)) -> Self {
        let none = vec![vec![0; classes]; parts];
        let (holders, shown) = (none.clone(), none);
        let mut all = Self { groups, of, holders, shown, images: vec![0; parts] };
        (0..groups.len()).for_each(|group| all.count(group, true));
        all
    }

    /// Counts a group in, or out.
    fn count(&mut self, group: usize, there: bool) {
        let part = self.of[group];
        let Group { images, shows } = &self.groups[group];
        let change = |of: &mut usize, by: usize| *of = if there { *of + by } else { *of - by };
        change(&mut self.images[part], *images);
        for &(class, images) in shows {
            change(&mut self.holders[part][class], 1);
            change(&mut self.shown[part][class], images);
        }
    }

    fn put(&mut self, group: usize, to: usize) {
        self.count(group, false);
        self.of[group] = to;
        self.count(group, true);
    }

    /// Whether each class that a group shows is left where it is, if it goes away.
    fn is_spare(&self, group: usize) -> bool {
        let holders = &self.holders[self.of[group]];
        self.groups[group].shows.iter().all(|&(class, _)| holders[class] > 1)
    }
}

/// Moves for each part and class that is lacked at first.
const TRIES: usize = 50;

/// Gives every part each class that as many groups show as there are parts: by moves of which each leaves as few
/// classes lacking as it can, until none is, or it has been tried long enough. The best that was seen stays.
fn complete(parts: &mut Parts<'_>, with: &[Vec<usize>]) {
    let count = parts.images.len();
    let mut rarest: Vec<usize> = (0..with.len()).filter(|&c| with[c].len() >= count).collect();
    rarest.sort_by_key(|&class| with[class].len());
    let lacking = |parts: &Parts<'_>| -> Vec<(usize, usize)> {
        let pairs = rarest.iter().flat_map(|&class| (0..count).map(move |part| (class, part)));
        pairs.filter(|&(class, part)| parts.holders[part][class] == 0).collect()
    };
    let mut left = lacking(parts);
    let mut best = (left.len(), parts.of.clone());
    let mut moved = vec![0; parts.groups.len()];
    for step in 1..=TRIES * left.len() {
        let Some(&(class, to)) = left.get(step % left.len().max(1)) else { break };
        let elsewhere = with[class].iter().copied().filter(|&group| parts.of[group] != to);
        let worth = |&group: &usize| {
            let Group { images, shows } = &parts.groups[group];
            let holders = |part: usize, class: usize| parts.holders[part][class];
            let from = parts.of[group];
            let lost = shows.iter().filter(|(class, _)| holders(from, *class) == 1).count();
            let promised = |class: usize| with[class].len() >= count;
            let won = shows.iter().filter(|(c, _)| promised(*c) && holders(to, *c) == 0).count();
            // Not the same again and again.
            (lost as i64 - won as i64, moved[group], *images)
        };
        let Some(group) = elsewhere.min_by_key(worth) else { break };
        moved[group] = step;
        parts.put(group, to);
        left = lacking(parts);
        if left.len() < best.0 {
            best = (left.len(), parts.of.clone());
        }
    }
    for (group, part) in best.1.into_iter().enumerate() {
        if parts.of[group] != part {
            parts.put(group, part);
        }
    }
}

/// Moves groups from parts with too many images to those with too few, as long as every class stays where it is, and
/// no part has fewer images of it than its share, but for one.
fn level(parts: &mut Parts<'_>, shares: &[f64], order: &[usize]) {
    let all: usize = parts.images.iter().sum();
    let classes = parts.shown.first().map_or(0, Vec::len);
    let total: Vec<usize> =
        (0..classes).map(|class| parts.shown.iter().map(|shown| shown[class]).sum()).collect();
    let surplus =
        |parts: &Parts<'_>, part: usize| parts.images[part] as f64 - shares[part] * all as f64;
    for &group in order {
        let from = parts.of[group];
        let images = parts.groups[group].images as f64;
        let least = (0..shares.len())
            .min_by(|&a, &b| surplus(parts, a).total_cmp(&surplus(parts, b)))
            .unwrap_or(from);
        if surplus(parts, from) < images || -surplus(parts, least) < images {
            continue;
        }
        let keeps = |&(class, images): &(usize, usize)| {
            let left = (parts.shown[from][class] - images) as f64;
            left >= shares[from] * total[class] as f64 - 1.0
        };
        if parts.is_spare(group) && parts.groups[group].shows.iter().all(keeps) {
            parts.put(group, least);
        }
    }
}

/// The part that wants most, of equals the one with more room, of equals the first.
fn neediest(wanted: &[f64], room: &[f64]) -> usize {
    (0..wanted.len())
        .max_by(|&a, &b| {
            let by = |values: &[f64]| values[a].total_cmp(&values[b]);
            by(wanted).then(by(room)).then(b.cmp(&a))
        })
        .unwrap_or(0)
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut random = Random::new(seed, Stream::Split, 0, 0);
    let mut order: Vec<usize> = (0..count).collect();
    for end in (1..count).rev() {
        order.swap(end, random.below(end + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` groups of one image that show these classes once.
    fn groups(of: &[(usize, &[usize])]) -> Vec<Group> {
        of.iter()
            .flat_map(|&(count, classes)| {
                let shows = classes.iter().map(|&class| (class, 1)).collect();
                std::iter::repeat_n(Group { images: 1, shows }, count)
            })
            .collect()
    }

    fn counts(groups: &[Group], parts: &[usize], class: usize, of: usize) -> usize {
        let shows = |group: &Group| group.shows.iter().any(|&(c, _)| c == class);
        groups.iter().zip(parts).filter(|(group, part)| **part == of && shows(group)).count()
    }

    #[test]
    fn a_class_of_two_images_is_on_both_sides() {
        let set = groups(&[(90, &[0]), (6, &[0, 1]), (2, &[0, 2]), (1, &[3]), (11, &[])]);
        for seed in 0..20 {
            let parts = assign(&set, 4, &[0.8, 0.2], seed);
            assert!(parts.iter().all(|&part| part < 2));
            assert_eq!([0, 1].map(|part| counts(&set, &parts, 2, part)), [1, 1]);
            assert_eq!([0, 1].map(|part| counts(&set, &parts, 1, part)), [5, 1]);
            assert_eq!(
                [0, 1].map(|part| counts(&set, &parts, 3, part)),
                [1, 0],
                "one image: to train on"
            );
            let val = parts.iter().filter(|&&part| part == 1).count();
            assert!((20..=24).contains(&val), "{val} of 110");
        }
        assert_eq!(assign(&set, 4, &[0.8, 0.2], 3), assign(&set, 4, &[0.8, 0.2], 3));
        assert_ne!(assign(&set, 4, &[0.8, 0.2], 3), assign(&set, 4, &[0.8, 0.2], 4));
    }

    /// Photographs as they are: 150 images that show some of 80 classes each, many of them rare, often together.
    #[test]
    fn classes_that_come_together_are_in_every_part() {
        for (seed, shares) in (0..40).zip([&[0.8, 0.2][..], &[0.7, 0.2, 0.1]].iter().cycle()) {
            let mut random = Random::new(seed, Stream::Split, 1, 0);
            let image = |_| {
                let count = 1 + random.below(6);
                let classes: std::collections::BTreeSet<usize> =
                    (0..count).map(|_| random.below(80) * random.below(80) / 80).collect();
                Group { images: 1, shows: classes.into_iter().map(|class| (class, 1)).collect() }
            };
            let set: Vec<Group> = (0..150).map(image).collect();
            let parts = assign(&set, 80, shares, seed);
            for class in 0..80 {
                let showing = set.iter().filter(|group| group.shows.contains(&(class, 1))).count();
                let held: Vec<usize> =
                    (0..shares.len()).map(|part| counts(&set, &parts, class, part)).collect();
                assert!(showing < shares.len() || !held.contains(&0), "{seed} {class}: {held:?}");
            }
            for (part, share) in shares.iter().enumerate() {
                let images = parts.iter().filter(|&&of| of == part).count() as f64;
                let off = (images - 150.0 * share).abs();
                assert!(off <= 12.0, "{seed}: part {part} of share {share} has {images} images");
            }
        }
    }

    #[test]
    fn a_group_is_never_cut_and_shares_hold() {
        let mut set = groups(&[(40, &[0])]);
        set.push(Group { images: 30, shows: vec![(0, 30), (1, 30)] });
        set.push(Group { images: 10, shows: vec![(1, 10)] });
        let parts = assign(&set, 2, &[0.75, 0.25], 0);
        let images = |part: usize| -> usize {
            set.iter().zip(&parts).filter(|(_, p)| **p == part).map(|(g, _)| g.images).sum()
        };
        assert_eq!((parts[40], parts[41]), (0, 1), "class 1 is on both sides");
        // Class 0 is divided as wanted: 30 and 22 or 23 of its 70 images, which is 0.75 of them.
        assert!([(52, 28), (53, 27)].contains(&(images(0), images(1))), "{parts:?}");
    }

    #[test]
    fn three_parts_and_nothing_at_all() {
        let set = groups(&[(70, &[0]), (30, &[1])]);
        let parts = assign(&set, 2, &[0.7, 0.2, 0.1], 1);
        let sizes = [0, 1, 2].map(|part| parts.iter().filter(|&&p| p == part).count());
        assert_eq!(sizes, [70, 20, 10]);
        assert_eq!([0, 1, 2].map(|part| counts(&set, &parts, 1, part)), [21, 6, 3]);
        assert!(assign(&[], 0, &[0.5, 0.5], 0).is_empty());
    }
}
