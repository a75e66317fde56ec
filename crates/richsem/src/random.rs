//! The one source of randomness: a counter-based generator keyed by (seed, stream, step, item).
//!
//! A draw depends on its key alone, never on which thread asks, in what order, or how often the
//! run was interrupted, so no generator state is ever saved. ChaCha8 is the block function: its
//! 256-bit key holds the four numbers as they are.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng as _},
};

/// What the numbers are for. Streams never overlap: each is part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Initial values of parameters.
    Init = 1,
    /// Order of an epoch (permutation, repeat-factor rounding, class-aware draws).
    Sampler = 2,
    /// Random transforms of one sample.
    Transform = 3,
    /// Contrastive denoising queries (label flips, box noise).
    Denoising = 4,
    /// Classes of the federated loss.
    Federated = 5,
    /// The drawn set of `richsem synth`.
    Synth = 6,
    /// Random inputs of tests and benchmarks.
    Test = 7,
    /// Order of the classification images.
    ExtraSampler = 8,
    /// Augmentation and mosaics of classification images.
    ExtraTransform = 9,
    /// Order and augmentation of captioned images.
    Pretrain = 10,
    /// What is random in a backbone in training.
    Backbone = 11,
    /// Which part of a set an image goes to.
    Split = 12,
    /// Which anchors and boxes of a two-stage detector learn.
    Regions = 13,
}

/// Random numbers of one (seed, stream, step, item).
#[derive(Debug, Clone)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The generator of that key. `step` is an epoch or an iteration, `item` a sample, layer or
    /// parameter within it.
    #[must_use]
    pub fn new(seed: u64, stream: Stream, step: u64, item: u64) -> Self {
        let mut key = [0u8; 32];
        for (chunk, word) in key.chunks_exact_mut(8).zip([seed, stream as u64, step, item]) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high), a number with 53 random bits.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform integer in [0, n), without bias (Lemire's method). 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let mut product = u128::from(self.bits()) * u128::from(n);
        if (product as u64) < n {
            let threshold = n.wrapping_neg() % n.max(1);
            while (product as u64) < threshold {
                product = u128::from(self.bits()) * u128::from(n);
            }
        }
        (product >> 64) as usize
    }

    /// Uniform integer in [low, high], both ends included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True with probability `p`, in [0, 1].
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Standard normal (Box–Muller, cosine half).
    pub fn normal(&mut self) -> f64 {
        let u = 1.0 - self.uniform();
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Puts the items into a random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// One element, or none of an empty slice.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_its_key_alone() {
        let draw = |seed, stream, step, item| Random::new(seed, stream, step, item).bits();
        assert_eq!(draw(1, Stream::Test, 2, 3), draw(1, Stream::Test, 2, 3));
        let base = draw(1, Stream::Test, 2, 3);
        for other in [
            draw(2, Stream::Test, 2, 3),
            draw(1, Stream::Init, 2, 3),
            draw(1, Stream::Test, 3, 3),
            draw(1, Stream::Test, 2, 4),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn below_is_uniform_and_in_range() {
        let mut random = Random::new(0, Stream::Test, 0, 0);
        let mut counts = [0usize; 6];
        for _ in 0..60_000 {
            counts[random.below(6)] += 1;
        }
        // Five standard deviations of a binomial(60000, 1/6) is 456.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 456), "{counts:?}");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut random = Random::new(0, Stream::Test, 0, 1);
        let draws: Vec<f64> = (0..100_000).map(|_| random.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.016 && (variance - 1.0).abs() < 0.023, "{mean} {variance}");
    }
}
