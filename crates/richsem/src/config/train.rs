//! Settings of the optimisation.

use serde::{Deserialize, Serialize};

use crate::{
    bounds::{RATE, within},
    error::{Error, Result},
    precision::Precision,
};

/// How parameters are grouped by learning rate and weight decay. Reference: `param_dict_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamGroups {
    /// The backbone learns at `lr_backbone`, everything else at `lr`.
    Default,
    /// As `default`, but sampling offsets and reference points learn at `lr · lr_linear_proj_mult`.
    DdetrInMmdet,
    /// As `default`, but norms and biases have no weight decay.
    LargeWd,
}

/// What makes steps of gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW (arXiv 1711.05101), with 0.9, 0.999 and 1e-8.
    #[default]
    Adamw,
    /// Stochastic gradient descent with momentum, as PyTorch has it.
    Sgd,
}

/// An exponential moving average (EMA) of the weights, used for evaluation and prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// Share of the mean that stays at each update. Default: 0.9997; from 0 to below 1. Reference:
    /// `ema_decay`.
    pub decay: f64,
    /// Lowers that share at the start. At update n, from 1, it is the smaller of `decay` and (1 +
    /// n) / (10 + n). Otherwise the mean of a short run is mostly of its initial weights. The
    /// formula is that of `tf.train.ExponentialMovingAverage` with `num_updates`. Default: true.
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

/// Momentum of SGD where no setting says another.
const MOMENTUM: f64 = 0.9;

/// Optimizer, schedule, checkpoints and logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training set. Default: 24; 1 to 100,000. Reference: `epochs`.
    pub epochs: u64,
    /// What makes steps of gradients: `adamw` or `sgd`. Default: `adamw`. SGD takes other rates, as 0.02 for
    /// Faster R-CNN at 16 images a step, and mostly a warm-up.
    pub optimizer: OptimizerKind,
    /// Share of the sum of former gradients that stays at each step of `sgd`. `adamw` has none. Default: 0.9;
    /// 0 to below 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Learning rate of everything but the backbone. Default: 1e-4; 0 to 1. Reference: `lr`.
    pub lr: f64,
    /// Learning rate of the backbone. Default: 1e-5; 0 to 1. Reference: `lr_backbone`.
    pub lr_backbone: f64,
    /// Factor on the backbone's learning rate from each of its layers to the one before. The
    /// deepest layer learns at `lr_backbone`. Default: 1, so that all layers learn alike; 0 to 1.
    /// ViTs take 0.7 to 0.9.
    pub lr_backbone_layer_decay: f64,
    /// Factor on `lr` for sampling offsets and reference points. It counts only with `param_groups
    /// = "ddetr_in_mmdet"`. Default: 0.1; 0 to 1000. Reference: `lr_linear_proj_mult`.
    pub lr_linear_proj_mult: f64,
    /// How parameters are grouped: `default`, `ddetr_in_mmdet` or `large_wd`. Default: `default`.
    /// Reference: `param_dict_type`.
    pub param_groups: ParamGroups,
    /// Weight decay: of `adamw` decoupled, of `sgd` added to the gradient. Default: 1e-4; 0 to 100. Reference:
    /// `weight_decay`.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; a longer gradient is scaled down to it. Default: 0.1; 0
    /// to 1e9. 0 means that gradients are not clipped. Reference: `clip_max_norm`.
    pub clip_max_norm: f64,
    /// Epochs, counted from 0, at whose start all learning rates are multiplied by `lr_gamma`. They
    /// must ascend. Default: `[20]`. Reference: `lr_drop`, `lr_drop_list`.
    pub lr_drop: Vec<u64>,
    /// Factor on all learning rates at each epoch of `lr_drop`. Default: 0.1; 0 to 1.
    pub lr_gamma: f64,
    /// Steps over which all learning rates rise linearly from near 0. Default: 0.
    pub warmup_steps: u64,
    /// Factor on all learning rates at the first step of the warm-up. Default: 1 / (`warmup_steps` + 1); 0 to 1.
    /// detectron2 calls it `SOLVER.WARMUP_FACTOR`, and has 0.001.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_factor: Option<f64>,
    /// Batches whose gradients are averaged before each step of the optimizer. Default: 1; 1 to
    /// 100,000.
    pub accumulate: u64,
    /// Numbers that the network computes in: `f32` or `bf16`. Default: `f32`. The parameters are
    /// f32 in both.
    pub precision: Precision,
    /// Whether the network's passes are recorded as CUDA graphs, for a few image sizes. The GPU
    /// then does not wait for the host. On the CPU it changes nothing. Default: true.
    pub cuda_graphs: bool,
    /// Most GPU memory, in MiB, that recordings may take beyond the first of them. Default: 4096; 0
    /// to 1,000,000.
    pub cuda_graphs_mib: u64,
    /// An exponential moving average (EMA) of the weights. Default: none. With one, evaluation,
    /// prediction and saved detectors use the average. Reference: `use_ema`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<EmaConfig>,
    /// Steps between two rows of `metrics.jsonl`. An epoch with fewer steps has one row, at its
    /// end. Default: 20; 1 to 1,000,000.
    pub log_every: u64,
    /// Steps between two saves of the checkpoint `last`. It is also saved before each evaluation
    /// and at the end. Default: 1000. 0 means only those.
    pub checkpoint_every: u64,
    /// Evaluated epochs whose number divides by this keep their checkpoint. Default: 0, which keeps
    /// only `last` and `best`. Reference: `save_checkpoint_interval`.
    pub keep_every: u64,
    /// Epochs between two evaluations. The last epoch is always evaluated. Default: 1. 0 means only
    /// the last.
    pub eval_every: u64,
    /// Whether each evaluation also computes the loss of the validation set: the objective of training
    /// without the semantic branch, of the weights that are evaluated, on images as evaluation resizes
    /// them. It takes about as long as the detection. Default: false.
    pub eval_loss: bool,
    /// Epochs without a better AP after which training ends before its last epoch. Only evaluated epochs
    /// count. Default: 0, never; at most 100,000. A run that ends before the last of `lr_drop` misses
    /// what the drop gains.
    pub patience: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 24,
            optimizer: OptimizerKind::default(),
            momentum: None,
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
            warmup_factor: None,
            accumulate: 1,
            precision: Precision::F32,
            cuda_graphs: true,
            cuda_graphs_mib: 4096,
            ema: None,
            log_every: 20,
            checkpoint_every: 1000,
            keep_every: 0,
            eval_every: 1,
            eval_loss: false,
            patience: 0,
        }
    }
}

impl TrainConfig {
    /// Momentum of SGD.
    pub(crate) fn momentum(&self) -> f64 {
        self.momentum.unwrap_or(MOMENTUM)
    }

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
        within(format!("{key}.patience"), self.patience, 0..=100_000)?;
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
        if let Some(momentum) = self.momentum {
            if self.optimizer != OptimizerKind::Sgd {
                let problem = "only sgd has it, and train.optimizer is \"adamw\"";
                return Err(Error::config(format!("{key}.momentum"), problem));
            }
            if !(0.0..1.0).contains(&momentum) {
                let problem = format!("expected a number from 0 to below 1, got {momentum}");
                return Err(Error::config(format!("{key}.momentum"), problem));
            }
        }
        if let Some(factor) = self.warmup_factor {
            within(format!("{key}.warmup_factor"), factor, 0.0..=1.0)?;
            if self.warmup_steps == 0 {
                let problem = format!("there is no warm-up: {key}.warmup_steps is 0");
                return Err(Error::config(format!("{key}.warmup_factor"), problem));
            }
        }
        if let Some(ema) = &self.ema
            && !(0.0..1.0).contains(&ema.decay)
        {
            let problem = format!("expected a number from 0 to below 1, got {}", ema.decay);
            return Err(Error::config(format!("{key}.ema.decay"), problem));
        }
        Ok(())
    }

    /// What is allowed, but probably not meant. A drop after the end is no error: otherwise one would have
    /// to change two settings to shorten a run.
    pub(super) fn warnings(&self, key: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        let beyond: Vec<u64> =
            self.lr_drop.iter().copied().filter(|&at| at >= self.epochs).collect();
        if !beyond.is_empty() {
            warnings.push(format!(
                "{key}.lr_drop: {beyond:?} is never reached: {key}.epochs is {}, and epochs count \
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
        if self.patience > 0 && self.eval_every == 0 {
            warnings.push(format!(
                "{key}.patience has no effect: {key}.eval_every is 0, so only the last epoch is evaluated"
            ));
        }
        if self.lr_gamma == 0.0 && self.lr_drop.iter().any(|&at| at < self.epochs) {
            warnings.push(format!("{key}.lr_gamma is 0: nothing learns after the first drop"));
        }
        warnings
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_only_sgd_or_a_warm_up_has_is_refused_elsewhere() {
        let refused = |config: TrainConfig| config.validate("train").unwrap_err().to_string();
        let plain = TrainConfig { momentum: Some(0.9), ..TrainConfig::default() };
        assert!(refused(plain.clone()).contains("train.momentum: only sgd has it"));
        let sgd = TrainConfig { optimizer: OptimizerKind::Sgd, ..plain };
        sgd.validate("train").unwrap();
        let high = TrainConfig { momentum: Some(1.0), ..sgd.clone() };
        assert!(refused(high).contains("train.momentum: expected a number from 0 to below 1"));
        let cold = TrainConfig { warmup_factor: Some(0.1), ..sgd };
        let text = refused(cold.clone());
        assert!(text.contains("train.warmup_factor: there is no warm-up"), "{text}");
        TrainConfig { warmup_steps: 1, ..cold }.validate("train").unwrap();
    }

    #[test]
    fn what_is_hardly_meant_is_told() {
        let warnings = |config: TrainConfig| config.warnings("train");
        let drops = |lr_drop: &[u64], epochs| {
            warnings(TrainConfig { lr_drop: lr_drop.to_vec(), epochs, ..TrainConfig::default() })
        };
        assert!(drops(&[], 3).is_empty() && drops(&[1, 2], 3).is_empty());
        let text = drops(&[2, 3, 4], 3).join("");
        assert!(text.contains("[3, 4] is never reached: train.epochs is 3"), "{text}");
        let still = TrainConfig { lr: 0.0, lr_gamma: 0.0, ..TrainConfig::default() };
        let text = warnings(still.clone()).join("\n");
        assert!(text.contains("only the backbone") && text.contains("nothing learns"), "{text}");
        let text = warnings(TrainConfig { lr_backbone: 0.0, ..still }).join("\n");
        assert!(text.contains("no weight will change"), "{text}");
    }
}
