//! Settings of the optimisation.

use serde::{Deserialize, Serialize};

use crate::{
    bounds::{RATE, within},
    error::{Error, Result},
    precision::Precision,
};

/// How parameters are grouped for the optimizer: the reference's `param_dict_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamGroups {
    /// The backbone at `lr_backbone`, everything else at `lr`.
    Default,
    /// As above, and sampling offsets and reference points at `lr · lr_linear_proj_mult`.
    DdetrInMmdet,
    /// As `default`, without weight decay on norms and biases.
    LargeWd,
}

/// An exponential moving average (EMA) of the weights, used for evaluation and prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// Share of the mean that stays at each update.
    pub decay: f64,
    /// At update n, from 1, that share is (1 + n) / (10 + n) while this is the smaller: otherwise the
    /// mean of a short run is mostly of the weights that it began with. The formula is that of
    /// `tf.train.ExponentialMovingAverage` with `num_updates`.
    pub warmup: bool,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.9997, warmup: true }
    }
}

impl EmaConfig {
    /// Share of the mean that stays at update `n`, from 1.
    pub(crate) fn decay_at(&self, n: i64) -> f64 {
        let n = n as f64;
        if self.warmup { self.decay.min((1.0 + n) / (10.0 + n)) } else { self.decay }
    }
}

/// The optimisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the data.
    pub epochs: u64,
    /// AdamW's learning rate.
    pub lr: f64,
    /// AdamW's learning rate of the backbone. Default: 1e-5.
    pub lr_backbone: f64,
    /// Factor of the backbone's rate from each of its layers to the one before, from 0 to 1: the deepest
    /// learns at `lr_backbone`. Default: 1, all alike. ViTs take 0.7 to 0.9.
    pub lr_backbone_layer_decay: f64,
    /// Factor of `ddetr_in_mmdet` groups.
    pub lr_linear_proj_mult: f64,
    /// Grouping.
    pub param_groups: ParamGroups,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; 0: not clipped.
    pub clip_max_norm: f64,
    /// Epochs, counted from 0, at whose start the rate falls by `lr_gamma`.
    pub lr_drop: Vec<u64>,
    /// Factor of each drop.
    pub lr_gamma: f64,
    /// Steps over which the rate rises from 0.
    pub warmup_steps: u64,
    /// Batches whose gradients are averaged before each step.
    pub accumulate: u64,
    /// Numbers that the network computes in.
    pub precision: Precision,
    /// Records the network's passes as CUDA graphs, at few sizes of images: a GPU then need not wait for the
    /// host. On the CPU it changes nothing.
    pub cuda_graphs: bool,
    /// Most memory that recordings may take beyond the first of them, in MiB of the GPU's.
    pub cuda_graphs_mib: u64,
    /// EMA of the weights; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// Steps between two rows of `metrics.jsonl`; an epoch of fewer has one at its end.
    pub log_every: u64,
    /// Steps between two saves of `last`, besides one before each evaluation and one at the end;
    /// 0: only those.
    pub checkpoint_every: u64,
    /// Evaluated epochs whose number divides by this keep their checkpoint; 0: only `last` and `best`.
    pub keep_every: u64,
    /// Epochs between evaluations; the last epoch is always evaluated. 0: only the last.
    pub eval_every: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 24,
            lr: 1e-4,
            lr_backbone: 1e-5,
            lr_backbone_layer_decay: 1.0,
            lr_linear_proj_mult: 0.1,
            param_groups: ParamGroups::Default,
            weight_decay: 1e-4,
            clip_max_norm: 0.1,
            lr_drop: vec![20],
            lr_gamma: 0.1,
            warmup_steps: 0,
            accumulate: 1,
            precision: Precision::F32,
            cuda_graphs: true,
            cuda_graphs_mib: 4096,
            ema: None,
            log_every: 20,
            checkpoint_every: 1000,
            keep_every: 0,
            eval_every: 1,
        }
    }
}

impl TrainConfig {
    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        for (name, value, most) in [
            ("epochs", self.epochs, 100_000),
            ("accumulate", self.accumulate, 100_000),
            ("log_every", self.log_every, 1_000_000),
        ] {
            within(format!("{key}.{name}"), value, 1..=most)?;
        }
        within(format!("{key}.cuda_graphs_mib"), self.cuda_graphs_mib, 0..=1_000_000)?;
        for (name, value, range) in [
            ("lr", self.lr, RATE),
            ("lr_backbone", self.lr_backbone, RATE),
            ("lr_backbone_layer_decay", self.lr_backbone_layer_decay, 0.0..=1.0),
            ("lr_linear_proj_mult", self.lr_linear_proj_mult, 0.0..=1000.0),
            ("weight_decay", self.weight_decay, 0.0..=100.0),
            ("clip_max_norm", self.clip_max_norm, 0.0..=1e9),
            ("lr_gamma", self.lr_gamma, 0.0..=1.0),
        ] {
            within(format!("{key}.{name}"), value, range)?;
        }
        if let Some(pair) = self.lr_drop.windows(2).find(|pair| pair[0] >= pair[1]) {
            let problem =
                format!("expected ascending epochs, each once, got {} after {}", pair[1], pair[0]);
            return Err(Error::config(format!("{key}.lr_drop"), problem));
        }
        if let Some(ema) = &self.ema
            && !(0.0..1.0).contains(&ema.decay)
        {
            let problem = format!("expected a number from 0 to below 1, got {}", ema.decay);
            return Err(Error::config(format!("{key}.ema.decay"), problem));
        }
        Ok(())
    }

    /// Drops that lie beyond the end are no error: whoever shortens a run for a try would have to
    /// change both.
    pub(super) fn warnings(&self, key: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        let beyond: Vec<u64> =
            self.lr_drop.iter().copied().filter(|&at| at >= self.epochs).collect();
        if !beyond.is_empty() {
            warnings.push(format!(
                "{key}.lr_drop: {beyond:?} is never reached: {key}.epochs is {}, and they count \
                 from 0",
                self.epochs
            ));
        }
        match (self.lr, self.lr_backbone) {
            (0.0, 0.0) => warnings
                .push(format!("{key}.lr and {key}.lr_backbone are 0: no weight will change")),
            (0.0, _) => warnings.push(format!("{key}.lr is 0: only the backbone learns")),
            _ => {}
        }
        if self.lr_gamma == 0.0 && self.lr_drop.iter().any(|&at| at < self.epochs) {
            warnings.push(format!("{key}.lr_gamma is 0: after the first drop nothing learns"));
        }
        warnings
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hardly_meant_is_told() {
        let told = |config: TrainConfig| config.warnings("train");
        let drops = |lr_drop: &[u64], epochs| {
            told(TrainConfig { lr_drop: lr_drop.to_vec(), epochs, ..TrainConfig::default() })
        };
        assert!(drops(&[], 3).is_empty() && drops(&[1, 2], 3).is_empty());
        let text = drops(&[2, 3, 4], 3).join("");
        assert!(text.contains("[3, 4] is never reached: train.epochs is 3"), "{text}");
        let still = TrainConfig { lr: 0.0, lr_gamma: 0.0, ..TrainConfig::default() };
        let text = told(still.clone()).join("\n");
        assert!(text.contains("only the backbone") && text.contains("nothing learns"), "{text}");
        let text = told(TrainConfig { lr_backbone: 0.0, ..still }).join("\n");
        assert!(text.contains("no weight will change"), "{text}");
    }
}
