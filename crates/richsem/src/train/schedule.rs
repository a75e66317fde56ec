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

#[cfg(test)]
mod tests {
    use super::*;

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
