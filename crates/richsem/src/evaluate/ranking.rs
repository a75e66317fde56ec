//! What OpenImages' and Visual Genome's metrics share: their records, the order of ties, and average
//! precision at one threshold.

use hotcoco::metrics::counts::average_precision_all_points;

use crate::error::{Error, Result};

/// A box that is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrueBox {
    /// Number of the image. Ties of scores are decided by it: the lower one comes first.
    pub image: u32,
    /// Position of the class.
    pub class: u32,
    /// `[x0, y0, x1, y1]`, in the unit of the detections.
    pub bbox: [f64; 4],
    /// Whether the box is around a group of objects. Visual Genome has none.
    pub group_of: bool,
}

/// A detection that counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// Its score.
    pub score: f64,
    /// Its image.
    pub image: u32,
    /// Whether it is a true positive.
    pub correct: bool,
}

/// What was measured of a class.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RankedClass {
    /// Average precision, 0 to 1. None without a box to be found.
    pub ap: Option<f64>,
    /// Number of boxes to be found.
    pub num_gt: usize,
    /// Boxes to be found, by image: its number, and how many. In order; images without any are left out.
    pub truths: Vec<(u32, u32)>,
    /// The detections that count, best first.
    pub ranked: Vec<Ranked>,
}

impl RankedClass {
    /// Sorts what was found and measures it. `found` has the images in order, and each image's detections in
    /// the order in which ties are decided. `truths` are the images of the boxes to be found, in order.
    pub(super) fn new(mut found: Vec<Ranked>, truths: impl Iterator<Item = u32>) -> Self {
        let mut by_image: Vec<(u32, u32)> = Vec::new();
        for image in truths {
            match by_image.last_mut() {
                Some((last, count)) if *last == image => *count += 1,
                _ => by_image.push((image, 1)),
            }
        }
        let num_gt = by_image.iter().map(|(_, count)| *count as usize).sum();
        found.sort_by(|a, b| descending(a.score, b.score));
        let (mut right, mut wrong) = (0.0, 0.0);
        let (right, wrong): (Vec<f64>, Vec<f64>) = found
            .iter()
            .map(|detection| {
                *(if detection.correct { &mut right } else { &mut wrong }) += 1.0;
                (right, wrong)
            })
            .unzip();
        let ap = (num_gt > 0).then(|| average_precision_all_points(&right, &wrong, num_gt));
        Self { ap, num_gt, truths: by_image, ranked: found }
    }
}

/// The order of scores, best first. 0 and -0 are the same.
pub(super) fn descending(a: f64, b: f64) -> std::cmp::Ordering {
    (b + 0.0).total_cmp(&(a + 0.0))
}

/// Items by class, each class's in the order of the list.
pub(super) struct ByClass {
    ends: Vec<usize>,
    items: Vec<u32>,
}

impl ByClass {
    /// Sorts the numbers below `len` into `classes` classes; `of` says the classes of one.
    pub(super) fn new<I: IntoIterator<Item = u32>>(
        len: usize,
        classes: usize,
        of: impl Fn(usize) -> I,
    ) -> Self {
        let mut ends = vec![0; classes];
        for class in (0..len).flat_map(&of) {
            ends[class as usize] += 1;
        }
        let mut total = 0;
        for end in &mut ends {
            // For now, where the class begins.
            (*end, total) = (total, total + *end);
        }
        let mut items = vec![0; total];
        for item in 0..len {
            for class in of(item) {
                let place = &mut ends[class as usize];
                items[*place] = item as u32;
                *place += 1;
            }
        }
        Self { ends, items }
    }

    pub(super) fn of(&self, class: usize) -> &[u32] {
        let start = class.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[start..self.ends[class]]
    }
}

/// The runs of equal images in a list that is sorted by image.
pub(super) fn by_image<T>(items: &[T], image: impl Fn(&T) -> u32) -> impl Iterator<Item = &[T]> {
    items.chunk_by(move |a, b| image(a) == image(b))
}

/// The first record whose class there is not, or that is not finite.
pub(super) fn check_one(
    what: &str,
    records: impl Iterator<Item = (u32, bool)>,
    classes: usize,
) -> Result<()> {
    for (i, (class, finite)) in records.enumerate() {
        if class as usize >= classes {
            let problem = format!("{what} {i} has class {class}, and there are {classes} classes");
            return Err(Error::other(problem));
        }
        if !finite {
            return Err(Error::non_finite(format!("{what} {i} has a number that is not finite")));
        }
    }
    Ok(())
}
