//! The learning rate over time: a linear rise, then drops.

use crate::config::TrainConfig;

/// Factor on the configured rates at update `step` (from 0) of epoch `epoch` (from 0).
#[must_use]
pub fn lr_factor(config: &TrainConfig, epoch: u64, step: u64) -> f64 {
    let drops = config.lr_drop.iter().filter(|&&at| epoch >= at).count();
    let dropped = config.lr_gamma.powi(drops as i32);
    if step >= config.warmup_steps {
        return dropped;
    }
    let all = config.warmup_steps as f64;
    dropped
        * match config.warmup_factor {
            Some(first) => first + (1.0 - first) * step as f64 / all,
            None => (step + 1) as f64 / (all + 1.0),
        }
}

/// Whether a row of `metrics.jsonl` is due after `updates` updates of the run: at every `every`-th,
/// and, so that no epoch goes untold, at the last of an epoch (then `of_epoch` says how many it
/// had) in which none was.
pub(super) fn row_due(updates: u64, every: u64, of_epoch: Option<u64>) -> bool {
    let none_in = |count: u64| (updates - count) / every == updates / every;
    updates.is_multiple_of(every) || of_epoch.is_some_and(none_in)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_a_row_however_short_it_is() {
        let rows = |of_epoch: u64, epochs: u64, every| -> Vec<u64> {
            let last = |step: u64| step.is_multiple_of(of_epoch).then_some(of_epoch);
            (1..=of_epoch * epochs).filter(|&step| row_due(step, every, last(step))).collect()
        };
        assert_eq!(rows(6, 2, 4), [4, 8, 12]);
        assert_eq!(rows(6, 1, 20), [6]);
        assert_eq!(rows(5, 6, 20), [5, 10, 15, 20, 25, 30]);
        assert_eq!(rows(6, 4, 10), [6, 10, 18, 20]);
        assert_eq!(rows(3, 2, 1), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn the_rate_rises_then_falls_at_its_epochs() {
        let config = TrainConfig {
            lr_drop: vec![2, 4],
            lr_gamma: 0.1,
            warmup_steps: 3,
            ..TrainConfig::default()
        };
        let at = |epoch, step| (lr_factor(&config, epoch, step) * 1e6).round() / 1e6;
        assert_eq!([at(0, 0), at(0, 1), at(0, 2), at(0, 3)], [0.25, 0.5, 0.75, 1.0]);
        assert_eq!([at(1, 99), at(2, 100), at(3, 1), at(4, 500)], [1.0, 0.1, 0.05, 0.01]);
        // detectron2's: 0.001 · (1 − k / 1000) + k / 1000.
        let config =
            TrainConfig { warmup_steps: 1000, warmup_factor: Some(0.001), ..config.clone() };
        for (step, factor) in [(0, 0.001), (250, 0.25075), (999, 0.999_001), (1000, 1.0)] {
            assert!((lr_factor(&config, 0, step) - factor).abs() < 1e-12, "{step}");
        }
    }
}
