//! Which images an epoch shows, in which order, and which of them each device takes.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    collective::Collective,
    plural::{clause, counted},
    random::{Random, Stream},
    vocabulary::ClassIndex,
};

/// Which images an epoch shows, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SamplerConfig {
    /// Every image once, in random order.
    Uniform {},
    /// Images of rare classes several times (LVIS, arXiv 1908.03195, appendix B.2).
    RepeatFactor {
        /// A class is repeated if a smaller share of the images shows it: the paper's t. Default:
        /// 0.001; 0 to 1. detectron2 calls it `REPEAT_THRESHOLD`.
        #[serde(default = "default_threshold")]
        threshold: f64,
    },
    /// Every class equally often (arXiv 1512.05830, section 3.1). Each position takes the next
    /// class, then the next image that shows it. There are as many positions as images. Images
    /// without any class never appear.
    ClassAware {},
}

fn default_threshold() -> f64 {
    0.001
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self::Uniform {}
    }
}

impl SamplerConfig {
    /// `key` is this section's dotted name.
    ///
    /// # Errors
    /// [`Error::Config`] if the threshold is not a share of images.
    pub fn validate(&self, key: &str) -> Result<()> {
        match *self {
            Self::RepeatFactor { threshold } if !(0.0..=1.0).contains(&threshold) => {
                Err(Error::config(
                    format!("{key}.threshold"),
                    format!("expected a share of images, 0 to 1, got {threshold}"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// The images of one epoch, as indices into `image_classes` (the classes each image shows; a
    /// class may stand there more than once). Depends on the arguments alone.
    ///
    /// # Errors
    /// There are no images, or, for the class-aware sampler, none shows a class.
    pub fn epoch_order<T: AsRef<[ClassIndex]>>(
        &self,
        image_classes: &[T],
        seed: u64,
        epoch: u64,
    ) -> Result<Vec<u32>> {
        let count = u32::try_from(image_classes.len())
            .map_err(|_| Error::other("more than 4,294,967,295 images"))?;
        if count == 0 {
            return Err(Error::other("the dataset has no images to draw from"));
        }
        let mut random = Random::new(seed, Stream::Sampler, epoch, 0);
        let mut order: Vec<u32> = match *self {
            Self::Uniform {} => (0..count).collect(),
            Self::RepeatFactor { threshold } => {
                let factors = repeat_factors(image_classes, threshold);
                std::iter::zip(0..count, factors)
                    .flat_map(|(image, factor)| {
                        // Rounded at random, so that the mean over epochs is the factor itself.
                        let whole = factor.floor();
                        let times = whole as usize + usize::from(random.chance(factor - whole));
                        std::iter::repeat_n(image, times)
                    })
                    .collect()
            }
            Self::ClassAware {} => return class_aware(image_classes, &mut random),
        };
        random.shuffle(&mut order);
        Ok(order)
    }
}

/// How often each image appears per epoch on average: with f(c) the share of images that show
/// class c, r(c) = max(1, √(t / f(c))), the largest r(c) of its classes; 1 without any.
#[must_use]
pub fn repeat_factors<T: AsRef<[ClassIndex]>>(image_classes: &[T], threshold: f64) -> Vec<f64> {
    let total = image_classes.len() as f64;
    let class_factors: Vec<f64> = images_by_class(image_classes)
        .iter()
        .map(|images| (threshold * total / images.len() as f64).sqrt().max(1.0))
        .collect();
    image_classes
        .iter()
        .map(|classes| {
            classes.as_ref().iter().map(|c| class_factors[c.0 as usize]).fold(1.0, f64::max)
        })
        .collect()
}

/// For each class up to the largest that occurs, the images that show it, each once.
fn images_by_class<T: AsRef<[ClassIndex]>>(image_classes: &[T]) -> Vec<Vec<u32>> {
    let mut lists: Vec<Vec<u32>> = Vec::new();
    for (image, classes) in (0..).zip(image_classes) {
        for class in classes.as_ref() {
            let class = class.0 as usize;
            if lists.len() <= class {
                lists.resize_with(class + 1, Vec::new);
            }
            if lists[class].last() != Some(&image) {
                lists[class].push(image);
            }
        }
    }
    lists
}

/// Goes through a list in random order, again and again, each time in a new one.
struct Cycle {
    items: Vec<u32>,
    next: usize,
}

impl Cycle {
    /// `items` must not be empty.
    fn new(items: Vec<u32>) -> Self {
        Self { next: items.len(), items }
    }

    fn draw(&mut self, random: &mut Random) -> u32 {
        if self.next >= self.items.len() {
            random.shuffle(&mut self.items);
            self.next = 0;
        }
        self.next += 1;
        self.items[self.next - 1]
    }
}

fn class_aware<T: AsRef<[ClassIndex]>>(
    image_classes: &[T],
    random: &mut Random,
) -> Result<Vec<u32>> {
    let mut images: Vec<Cycle> = images_by_class(image_classes)
        .into_iter()
        .filter(|list| !list.is_empty())
        .map(Cycle::new)
        .collect();
    if images.is_empty() {
        return Err(Error::other("class-aware sampling needs images with boxes; no image has one"));
    }
    let mut classes = Cycle::new((0..images.len() as u32).collect());
    Ok((0..image_classes.len())
        .map(|_| {
            let class = classes.draw(random);
            images[class as usize].draw(random)
        })
        .collect())
}

/// What happens when an epoch's images do not divide among all devices' batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastBatch {
    /// Training: the remainder is dropped, every batch is full.
    Drop,
    /// The order starts over until every device's batch is full; no image is missed.
    Wrap,
    /// Evaluation: every image exactly once. The last batch may be short, and the last ranks may
    /// have one batch less.
    Short,
}

/// One device's share of an epoch: position p of rank r among w takes the B items from
/// (p · w + r) · B on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Images a batch on one device, B.
    pub batch_size: usize,
    /// Which device this is, r.
    pub rank: usize,
    /// Number of devices, w, at least 1.
    pub world: usize,
    /// What becomes of the remainder.
    pub last: LastBatch,
}

impl Share {
    /// The share that a process has among others.
    #[must_use]
    pub fn of_process(self, collective: &dyn Collective) -> Self {
        let (rank, world) = (collective.rank() as usize, collective.world() as usize);
        Self { rank, world, ..self }
    }

    /// Batches of this rank in an epoch of `items` images. The same for every rank, except with
    /// [`LastBatch::Short`].
    ///
    /// # Errors
    /// The batch size is 0, the rank is not of this world, there are no images, or (with
    /// [`LastBatch::Drop`]) fewer than all devices' batches hold.
    pub fn batches_per_epoch(&self, items: usize) -> Result<u64> {
        let Self { batch_size, rank, world, last } = *self;
        if batch_size == 0 {
            return Err(Error::config("data.batch_size", "expected at least 1, got 0"));
        }
        if rank >= world {
            let problem =
                format!("expected less than the number of processes, {world}, got {rank}");
            return Err(Error::config("rank", problem));
        }
        if items == 0 {
            return Err(Error::other("the dataset has no images to make a batch of"));
        }
        let round = batch_size * world;
        let batches = match last {
            LastBatch::Drop if items < round => {
                let problem = format!(
                    "{} not fill one batch of {} on each of {}",
                    clause(items, "image", ["does", "do"]),
                    counted(batch_size, "image"),
                    counted(world, "device")
                );
                return Err(Error::config("data.batch_size", problem)
                    .with_hint(format!("use at most {}, or add images", (items / world).max(1))));
            }
            LastBatch::Drop => items / round,
            LastBatch::Wrap => items.div_ceil(round),
            LastBatch::Short => items.saturating_sub(rank * batch_size).div_ceil(round),
        };
        Ok(batches as u64)
    }

    /// The items of one batch, numbered along the epoch's order. With [`LastBatch::Wrap`] numbers
    /// from `items` on mean the order's start again (modulo `items`).
    #[must_use]
    pub fn slots(&self, position: u64, items: usize) -> std::ops::Range<usize> {
        let start = (position as usize * self.world + self.rank) * self.batch_size;
        let end = start + self.batch_size;
        match self.last {
            LastBatch::Short => start.min(items)..end.min(items),
            LastBatch::Drop | LastBatch::Wrap => start..end,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn classes(lists: &[&[u32]]) -> Vec<Vec<ClassIndex>> {
        lists.iter().map(|l| l.iter().map(|&c| ClassIndex(c)).collect()).collect()
    }

    fn counts(order: &[u32], images: usize) -> Vec<u32> {
        let mut counts = vec![0; images];
        for &image in order {
            counts[image as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_is_a_permutation_that_changes_with_epoch_and_seed() {
        let images = vec![Vec::<ClassIndex>::new(); 100];
        let order =
            |seed, epoch| SamplerConfig::default().epoch_order(&images, seed, epoch).unwrap();
        assert_eq!(counts(&order(1, 2), 100), vec![1; 100]);
        assert_eq!(order(1, 2), order(1, 2));
        assert_ne!(order(1, 2), order(1, 3));
        assert_ne!(order(1, 2), order(2, 2));
        assert_ne!(order(1, 2), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn repeat_factors_of_three_images_by_hand() {
        // Class 0 in 3 of 3 images, class 1 in 2, class 2 in 1 (with two boxes there).
        let images = classes(&[&[0], &[0, 1], &[2, 0, 1, 2]]);
        let factors = repeat_factors(&images, 0.5);
        assert_eq!(factors[..2], [1.0, 1.0]);
        assert!((factors[2] - 1.5f64.sqrt()).abs() < 1e-12, "√(0.5 / (1/3)): {factors:?}");
        // t = 1: √(1 / (2/3)) and √3.
        let factors = repeat_factors(&images, 1.0);
        assert_eq!(factors[0], 1.0);
        assert!(
            (factors[1] - 1.5f64.sqrt()).abs() < 1e-12 && (factors[2] - 3f64.sqrt()).abs() < 1e-12
        );
        // An image without any class, and class indices with holes.
        assert_eq!(repeat_factors(&classes(&[&[], &[7]]), 1.0), [1.0, 2f64.sqrt()]);
    }

    #[test]
    fn repeat_factor_rounding_has_the_factor_as_its_mean() {
        let images = classes(&[&[0], &[0, 1], &[0, 1, 2], &[]]);
        let config = SamplerConfig::RepeatFactor { threshold: 1.0 };
        let factors = repeat_factors(&images, 1.0);
        const EPOCHS: u64 = 4000;
        let mut sums = [0; 4];
        for epoch in 0..EPOCHS {
            let counts = counts(&config.epoch_order(&images, 0, epoch).unwrap(), 4);
            for ((sum, count), factor) in sums.iter_mut().zip(counts).zip(&factors) {
                let count = f64::from(count);
                assert!(count == factor.floor() || count == factor.ceil(), "{count} {factor}");
                *sum += count as u64;
            }
        }
        for (sum, factor) in sums.iter().zip(&factors) {
            // A coin's standard deviation is at most 0.5; five of the mean's: 0.04.
            let mean = *sum as f64 / EPOCHS as f64;
            assert!((mean - factor).abs() < 0.04, "{mean} {factor}");
        }
        assert_eq!(factors[2], 2.0, "4 images, 1 shows class 2: √(1 / (1/4))");
    }

    #[test]
    fn class_aware_draws_every_class_equally_and_its_images_in_turn() {
        // 97 images of class 0, 2 of class 1, one of class 3, and one without any.
        let mut images = vec![vec![ClassIndex(0)]; 97];
        images.extend(classes(&[&[1], &[1], &[3], &[]]));
        let order = SamplerConfig::ClassAware {}.epoch_order(&images, 0, 0).unwrap();
        assert_eq!(order.len(), 101);
        let counts = counts(&order, 101);
        // 101 draws over 3 classes: 33 or 34 each.
        let of_class: Vec<u32> = [0..97, 97..99, 99..100].map(|r| counts[r].iter().sum()).to_vec();
        assert!(of_class.iter().all(|n| (33..=34).contains(n)), "{of_class:?}");
        assert!(counts[97].abs_diff(counts[98]) <= 1, "taken in turn");
        assert!(counts[..97].iter().all(|&n| n <= 1), "no image twice before all once");
        assert_eq!(counts[100], 0, "no class, no appearance");
        let none = SamplerConfig::ClassAware {}.epoch_order(&classes(&[&[], &[]]), 0, 0);
        assert!(none.unwrap_err().to_string().contains("no image has one"));
    }

    #[test]
    fn empty_datasets_are_refused() {
        let none: [Vec<ClassIndex>; 0] = [];
        assert!(SamplerConfig::default().epoch_order(&none, 0, 0).is_err());
        let share = Share { batch_size: 2, rank: 0, world: 1, last: LastBatch::Short };
        assert!(share.batches_per_epoch(0).is_err());
    }

    fn epoch(items: usize, batch_size: usize, world: usize, last: LastBatch) -> Vec<usize> {
        let mut seen = Vec::new();
        for rank in 0..world {
            let share = Share { batch_size, rank, world, last };
            for position in 0..share.batches_per_epoch(items).unwrap() {
                let slots = share.slots(position, items);
                assert!(!slots.is_empty());
                assert!(last == LastBatch::Short || slots.len() == batch_size);
                seen.extend(slots);
            }
        }
        seen.sort_unstable();
        seen
    }

    #[test]
    fn ranks_share_an_epoch_without_overlap() {
        for (items, batch, world) in [(24, 2, 3), (23, 2, 3), (25, 4, 2), (7, 3, 2), (6, 6, 1)] {
            let round = batch * world;
            let dropped: Vec<_> = (0..items / round * round).collect();
            assert_eq!(epoch(items, batch, world, LastBatch::Drop), dropped);
            let wrapped: Vec<_> = (0..items.div_ceil(round) * round).collect();
            assert_eq!(epoch(items, batch, world, LastBatch::Wrap), wrapped);
            let all: Vec<_> = (0..items).collect();
            assert_eq!(epoch(items, batch, world, LastBatch::Short), all);
        }
        let share = Share { batch_size: 4, rank: 1, world: 3, last: LastBatch::Drop };
        assert_eq!(share.slots(2, 100), 28..32, "(2 · 3 + 1) · 4");
    }

    #[test]
    fn impossible_shares_are_refused_with_a_hint() {
        let share = Share { batch_size: 8, rank: 0, world: 2, last: LastBatch::Drop };
        let text = share.batches_per_epoch(10).unwrap_err().to_string();
        assert!(text.contains("10 images") && text.contains("use at most 5"), "{text}");
        assert!(Share { batch_size: 0, ..share }.batches_per_epoch(10).is_err());
        assert!(Share { rank: 2, ..share }.batches_per_epoch(100).is_err());
        assert_eq!(Share { last: LastBatch::Wrap, ..share }.batches_per_epoch(10).unwrap(), 1);
    }

    #[test]
    fn configuration_is_read_and_checked() {
        let read = toml::from_str::<SamplerConfig>;
        assert_eq!(read("kind = 'uniform'").unwrap(), SamplerConfig::Uniform {});
        assert_eq!(read("kind = 'class_aware'").unwrap(), SamplerConfig::ClassAware {});
        let repeat = SamplerConfig::RepeatFactor { threshold: 0.001 };
        assert_eq!(read("kind = 'repeat_factor'").unwrap(), repeat);
        assert!(read("kind = 'uniform'\nthreshold = 0.1").is_err());
        assert!(read("kind = 'repeat_factor'\ntreshold = 0.1").is_err());
        assert!(repeat.validate("data.sampler").is_ok());
        for threshold in [-1.0, 2.0, f64::NAN] {
            let text = SamplerConfig::RepeatFactor { threshold }.validate("data.sampler");
            assert!(text.unwrap_err().to_string().contains("data.sampler.threshold"));
        }
    }
}
