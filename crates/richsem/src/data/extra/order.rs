//! Which classification images a batch shows.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use super::OrderConfig;
use crate::{
    Error, Result,
    data::sampler::Share,
    random::{Random, Stream},
};

/// Passes whose permutations are kept: reading ahead needs two neighbours, and small sets pass
/// quickly.
const KEPT: usize = 4;

/// The images of every batch of a run, as indices into the set. They depend on these settings
/// and the batch's position alone.
///
/// Shuffled: images are numbered through the whole run. With t images a sample, B samples a
/// batch, w devices and n images in the set, sample s of batch p on rank r takes the numbers from
/// ((p · w + r) · B + s) · t on; number k is entry k mod n of the permutation of pass k div n.
#[derive(Debug)]
pub struct Order {
    kind: OrderConfig,
    seed: u64,
    /// Images in the set, n.
    items: u32,
    /// t: images of a sample, four for a mosaic.
    images: usize,
    share: Share,
    batches_per_epoch: u64,
    recent: Mutex<VecDeque<(u64, Arc<Vec<u32>>)>>,
}

impl Order {
    /// The order of `items` images, `images` of them in each sample. [`OrderConfig::Official`] begins
    /// again after every `batches_per_epoch` batches; [`OrderConfig::Shuffled`] ignores that.
    ///
    /// # Errors
    /// There are no images, or nothing in a batch or epoch.
    pub fn new(
        kind: OrderConfig,
        seed: u64,
        items: usize,
        images: usize,
        share: Share,
        batches_per_epoch: u64,
    ) -> Result<Self> {
        let wrong = |problem: String| Err(Error::other(format!("extra data: {problem}")));
        if items == 0 || images == 0 {
            return wrong("there are no images to draw from".into());
        }
        let Ok(items) = u32::try_from(items) else {
            return wrong("more than 4,294,967,295 images".into());
        };
        if share.batch_size == 0 || share.rank >= share.world {
            let Share { batch_size, rank, world, .. } = share;
            return wrong(format!(
                "expected a batch of at least 1 image and a rank below {world}, got a batch of \
                 {batch_size} on rank {rank}"
            ));
        }
        if kind == OrderConfig::Official && batches_per_epoch == 0 {
            return wrong("the official order needs epochs of at least one batch".into());
        }
        Ok(Self { kind, seed, items, images, share, batches_per_epoch, recent: Mutex::default() })
    }

    fn permutation(&self, pass: u64) -> Arc<Vec<u32>> {
        // Made while others wait: they would only make the same one.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = recent.iter().find(|(p, _)| *p == pass) {
            return Arc::clone(order);
        }
        let mut order: Vec<u32> = (0..self.items).collect();
        Random::new(self.seed, Stream::ExtraSampler, pass, 0).shuffle(&mut order);
        let order = Arc::new(order);
        recent.push_back((pass, Arc::clone(&order)));
        if recent.len() > KEPT {
            recent.pop_front();
        }
        order
    }

    /// Image number `k` of the run, or of the one fixed order of [`OrderConfig::Official`].
    fn image(&self, k: u64) -> u32 {
        let n = u64::from(self.items);
        let pass = match self.kind {
            OrderConfig::Shuffled => k / n,
            OrderConfig::Official => 0,
        };
        self.permutation(pass)[(k % n) as usize]
    }

    /// Number of samples before this rank's batch `position`, if the ranks' batches are put one
    /// after the other.
    fn start(&self, position: u64) -> u64 {
        let Share { batch_size, rank, world, .. } = self.share;
        (position * world as u64 + rank as u64) * batch_size as u64
    }

    /// The images of one sample, `slot` of batch `position`; what is not decided by the order
    /// comes from `random`.
    #[must_use]
    pub fn sample(&self, position: u64, slot: usize, random: &mut Random) -> Vec<u32> {
        let t = self.images as u64;
        match self.kind {
            OrderConfig::Shuffled => {
                let first = (self.start(position) + slot as u64) * t;
                (first..first + t).map(|k| self.image(k)).collect()
            }
            OrderConfig::Official => {
                let mut sample = vec![self.image(self.official(position, slot))];
                let others = 1..self.images;
                sample.extend(others.map(|_| random.below(self.items as usize) as u32));
                sample
            }
        }
    }

    /// Where in the one permutation a sample's first image stands. Rank r of w has its entries
    /// r, r + w, ..; they are walked in whole batches, again from the start when an epoch begins or
    /// none is left.
    fn official(&self, position: u64, slot: usize) -> u64 {
        let Share { batch_size, rank, world, .. } = self.share;
        let (batch, world) = (batch_size as u64, world as u64);
        let own = u64::from(self.items).div_ceil(world);
        let batches = (own / batch).max(1);
        let within = position % self.batches_per_epoch % batches * batch + slot as u64;
        (within % own) * world + rank as u64
    }

    /// Images that may replace broken images of batch `position`: those after it, each once.
    pub(super) fn spares(&self, position: u64) -> impl Iterator<Item = u32> {
        let from = match self.kind {
            OrderConfig::Shuffled => {
                (self.start(position) + self.share.batch_size as u64) * self.images as u64
            }
            OrderConfig::Official => self.official(position, self.share.batch_size - 1) + 1,
        };
        let range: Range<u64> = from..from + u64::from(self.items);
        range.map(|k| self.image(k))
    }
}

#[cfg(test)]
#[path = "tests/order.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
