//! Federated loss: each loss term looks at the classes that are in the batch and at a few others,
//! drawn by how common they are (Detic, arXiv 2201.02605, and RichSem section 4.1).

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// How many classes each class loss looks at, and how they are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FederatedConfig {
    /// Number of classes: those of the batch, and others up to this number. Default: 50; at least
    /// 1. detectron2 calls it `FED_LOSS_NUM_CLASSES`.
    pub classes: usize,
    /// The others are drawn with a probability proportional to `image_count` to this power.
    /// Default: 0.5; 0 to 10. detectron2 calls it `FED_LOSS_FREQ_WEIGHT_POWER`.
    pub power: f64,
}

impl Default for FederatedConfig {
    fn default() -> Self {
        Self { classes: 50, power: 0.5 }
    }
}

/// How often each class is drawn: made once from the image counts.
#[derive(Debug)]
pub(crate) struct Rates {
    /// 0 for a class that no training image shows.
    rates: Vec<f64>,
    /// Number of classes of a term, those of the batch included.
    classes: usize,
}

impl Rates {
    pub(crate) fn new(image_counts: &[u32], config: &FederatedConfig) -> Self {
        let rate = |&count: &u32| match count {
            0 => 0.0,
            count => f64::from(count).powf(config.power),
        };
        Self { rates: image_counts.iter().map(rate).collect(), classes: config.classes }
    }

    /// The classes of one term: `present` (sorted, unique), then others without replacement, never
    /// one that no training image shows.
    pub(crate) fn sample(&self, present: &[u32], random: &mut Random) -> Vec<i64> {
        let mut classes: Vec<i64> = present.iter().map(|&c| i64::from(c)).collect();
        let wanted = self.classes.saturating_sub(classes.len());
        // The smallest of independent exponential waiting times with these rates: a draw without
        // replacement in proportion to the weights.
        let mut waiting: Vec<(f64, i64)> = Vec::with_capacity(self.rates.len());
        let mut present = present.iter().peekable();
        for (class, &rate) in self.rates.iter().enumerate() {
            // Each class draws, wanted or not, so that a draw does not depend on who is present.
            let u = 1.0 - random.uniform();
            let is_present = present.next_if(|&&next| next as usize == class).is_some();
            if rate > 0.0 && !is_present {
                waiting.push((-u.ln() / rate, class as i64));
            }
        }
        let order = |a: &(f64, i64), b: &(f64, i64)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        if wanted < waiting.len() {
            waiting.select_nth_unstable_by(wanted, order);
            waiting.truncate(wanted);
        }
        waiting.sort_unstable_by(order);
        classes.extend(waiting.iter().map(|&(_, class)| class));
        classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    fn sample(present: &[u32], counts: &[u32], classes: usize, item: u64) -> Vec<i64> {
        let config = FederatedConfig { classes, power: 0.5 };
        let mut random = Random::new(0, Stream::Test, 0, item);
        Rates::new(counts, &config).sample(present, &mut random)
    }

    #[test]
    fn present_classes_are_kept_and_others_fill_up() {
        let counts = [5, 5, 0, 5, 5, 5];
        let got = sample(&[1, 4], &counts, 4, 0);
        assert_eq!(got[..2], [1, 4]);
        assert_eq!(got.len(), 4);
        let mut unique = got.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), 4);
        // A class without images is never drawn, however many are wanted.
        assert_eq!(sample(&[1], &counts, 50, 0).len(), 5);
        // More present than wanted: all stay.
        assert_eq!(sample(&[0, 1, 3], &counts, 2, 0), [0, 1, 3]);
    }

    #[test]
    fn draws_follow_the_square_root_of_the_counts() {
        // Rates 1 : 2 : 10; one class is drawn.
        let counts = [1, 4, 100];
        let mut seen = [0usize; 3];
        for item in 0..20_000 {
            seen[sample(&[], &counts, 1, item)[0] as usize] += 1;
        }
        for (seen, rate) in seen.iter().zip([1.0, 2.0, 10.0]) {
            let got = *seen as f64 / 20_000.0;
            assert!((got - rate / 13.0).abs() < 0.015, "{got} {rate}");
        }
    }
}
