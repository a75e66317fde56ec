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
    dropped * (step + 1) as f64 / (config.warmup_steps + 1) as f64
}

/// A warning where drops lie beyond the end. No error: whoever shortens a run for a try would have
/// to change both.
pub(super) fn drops_not_reached(config: &TrainConfig) -> Option<String> {
    let beyond: Vec<u64> =
        config.lr_drop.iter().copied().filter(|&at| at >= config.epochs).collect();
    (!beyond.is_empty()).then(|| {
        format!(
            "train.lr_drop: {beyond:?} is never reached: train.epochs is {}, and they count from 0",
            config.epochs
        )
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn drops_that_are_never_reached_are_told() {
        let told = |lr_drop: &[u64], epochs| {
            let lr_drop = lr_drop.to_vec();
            drops_not_reached(&TrainConfig { lr_drop, epochs, ..TrainConfig::default() })
        };
        assert_eq!(told(&[], 3).or(told(&[1, 2], 3)), None);
        let text = told(&[2, 3, 4], 3).unwrap();
        assert!(text.contains("[3, 4] is never reached: train.epochs is 3"), "{text}");
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
    }
}
