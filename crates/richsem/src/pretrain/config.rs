//! Settings of a pretraining, and the sizes of the model that follow from them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    bounds::{RATE, within},
    config::{ParamGroups, TrainConfig},
    error::{Error, Result},
    models::backbone::{Norm, ResnetConfig, ResnetName},
    precision::Precision,
    settings,
    teacher::clip::{ClipConfig, HEAD_WIDTH, RESNET_STRIDE, TextConfig, Tokenizer, VisualConfig},
};

/// All settings of `richsem pretrain-teacher`. The defaults are a model that two CPU cores train in
/// a minute or two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Version of the file's format. Every settings file must have it. Only 1 exists.
    pub version: u32,
    /// Seed of initial weights, order of images and augmentation. Default: 0.
    #[serde(default)]
    pub seed: u64,
    /// Batches, and how images are changed at random.
    #[serde(default)]
    pub data: PretrainData,
    /// Sizes of the image encoder and the text encoder.
    #[serde(default)]
    pub model: PretrainModel,
    /// Optimizer, schedule and logging.
    #[serde(default)]
    pub train: PretrainSchedule,
}

/// Batches, and how images are changed at random.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainData {
    /// Images in a batch. The loss compares each with all others of its batch. Default: 64; 2 to 1,048,576.
    pub batch_size: usize,
    /// Share of the images that is not trained on, but evaluated at the end: at most 2,048 images.
    /// Default: 0.05; 0 to 0.9.
    pub held_out: f64,
    /// Each step resizes its images to a square with one of these sides, in pixels. Choose about
    /// the sizes that objects have in the detector's images. Default: 48, 64, 80, 96; multiples of
    /// 16 up to 2048.
    pub sides: Vec<i64>,
    /// Smallest share of an image's area that is shown. A part of the image is cut out, with about
    /// the image's proportions (up to a third off). Default: 0.5; 0.01 to 1. 1 always shows the
    /// whole image.
    pub least_area: f64,
    /// Probability that an image is mirrored. Leave it at 0 where captions speak of left and right,
    /// or of letters. Default: 0; 0 to 1.
    pub flip: f64,
    /// The caption of a box of an annotation file. `{}` is the class name. Default: `a photo of a
    /// {}.`
    pub template: String,
}

impl Default for PretrainData {
    fn default() -> Self {
        Self {
            batch_size: 64,
            held_out: 0.05,
            sides: vec![48, 64, 80, 96],
            least_area: 0.5,
            flip: 0.0,
            template: "a photo of a {}.".into(),
        }
    }
}

/// Sizes of the model, a small CLIP: a ResNet for images, a transformer for text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainModel {
    /// Channels of the ResNet's first stage. Default: 16; an even number from 2 to 4096. CLIP's
    /// RN50 has 64.
    pub width: i64,
    /// Number of blocks of the ResNet's four stages, each from 1 to 1000. Default: 1, 1, 1, 1.
    /// CLIP's RN50 has 3, 4, 6, 3.
    pub layers: Vec<i64>,
    /// Side of the images that the attention pool is made for, in pixels. Default: 64; a multiple
    /// of 32 up to 2048. CLIP's RN50 has 224.
    pub resolution: i64,
    /// Number of features of an embedding, of an image or a text. Default: 64; 1 to 16,384. CLIP's
    /// RN50 has 1024.
    pub embed_dim: i64,
    /// Number of features of the text transformer. Default: 64; 1 to 64, or a multiple of 64 up to
    /// 16,384. CLIP's RN50 has 512.
    pub text_width: i64,
    /// Number of blocks of the text transformer. Default: 2; 1 to 1000. CLIP's RN50 has 12.
    pub text_layers: i64,
    /// Tokens of a caption that are read; further ones are cut off. Default: 77, as in every
    /// published model; 3 to 4096.
    pub context_length: i64,
}

impl Default for PretrainModel {
    fn default() -> Self {
        Self {
            width: 16,
            layers: vec![1, 1, 1, 1],
            resolution: 64,
            embed_dim: 64,
            text_width: 64,
            text_layers: 2,
            context_length: 77,
        }
    }
}

/// Optimizer and schedule: AdamW, whose learning rate rises linearly, then falls to zero along half
/// a cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainSchedule {
    /// Number of steps, each an update of the weights. Default: 500; 1 to 1,000,000,000.
    pub steps: u64,
    /// Highest learning rate, after the rise. Default: 0.002; above 0, at most 1.
    pub lr: f64,
    /// Steps over which the learning rate rises from near 0. Default: 50.
    pub warmup_steps: u64,
    /// Decoupled weight decay of AdamW. Default: 0.05; 0 to 100.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; a longer gradient is scaled down to it. Default: 1; 0 to
    /// 1e9. 0 means that gradients are not clipped.
    pub clip_max_norm: f64,
    /// Numbers that both encoders compute in: `f32` (the default) or `bf16`. Cosines and the loss
    /// are f32 in both.
    pub precision: Precision,
    /// Steps between two lines of progress, which are also the rows of the metrics. Default: 25; 1
    /// to 1,000,000.
    pub log_every: u64,
}

impl Default for PretrainSchedule {
    fn default() -> Self {
        Self {
            steps: 500,
            lr: 2e-3,
            warmup_steps: 50,
            weight_decay: 0.05,
            clip_max_norm: 1.0,
            precision: Precision::F32,
            log_every: 25,
        }
    }
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Self {
            version: settings::VERSION,
            seed: 0,
            data: PretrainData::default(),
            model: PretrainModel::default(),
            train: PretrainSchedule::default(),
        }
    }
}

/// Twice a side must fill whole cells of the backbone's last map.
const SIDE_STEP: i64 = RESNET_STRIDE / 2;

impl PretrainConfig {
    /// Reads a file (none: the defaults), the files it extends, and assignments.
    ///
    /// # Errors
    /// As [`crate::config::Config::load`].
    pub fn load(path: Option<&Path>, assignments: &[String]) -> Result<Self> {
        settings::load(path, assignments, Self::validate)
    }

    /// # Errors
    /// [`Error::Config`] naming the key, what is expected and what was given.
    pub fn validate(&self) -> Result<()> {
        let Self { data, model, train, .. } = self;
        settings::check_version(self.version)?;
        within("data.batch_size", data.batch_size, 2..=1 << 20)?;
        for (key, value, range) in [
            ("model.embed_dim", model.embed_dim, 1..=1 << 14),
            ("model.text_layers", model.text_layers, 1..=1000),
            ("model.context_length", model.context_length, 3..=1 << 12),
        ] {
            within(key, value, range)?;
        }
        within("train.steps", train.steps, 1..=1_000_000_000)?;
        within("train.log_every", train.log_every, 1..=1_000_000)?;
        for (key, value, range) in [
            ("data.held_out", data.held_out, 0.0..=0.9),
            ("data.least_area", data.least_area, 0.01..=1.0),
            ("data.flip", data.flip, 0.0..=1.0),
            ("train.lr", train.lr, RATE),
            ("train.weight_decay", train.weight_decay, 0.0..=100.0),
            ("train.clip_max_norm", train.clip_max_norm, 0.0..=1e9),
        ] {
            within(key, value, range)?;
        }
        if train.lr == 0.0 {
            return Err(Error::config("train.lr", "0: no weight would change"));
        }
        let fits = |side: &i64, step: i64| (step..=2048).contains(side) && side % step == 0;
        if data.sides.is_empty() || !data.sides.iter().all(|side| fits(side, SIDE_STEP)) {
            let problem =
                format!("expected multiples of {SIDE_STEP} up to 2048, got {:?}", data.sides);
            return Err(Error::config("data.sides", problem));
        }
        if !fits(&model.resolution, RESNET_STRIDE) {
            let problem = format!(
                "expected a multiple of {RESNET_STRIDE} up to 2048, got {}",
                model.resolution
            );
            return Err(Error::config("model.resolution", problem));
        }
        let width = model.text_width;
        if !(1..=1 << 14).contains(&width) || (width > HEAD_WIDTH && width % HEAD_WIDTH != 0) {
            let problem =
                format!("expected 1 to {HEAD_WIDTH}, or a multiple of {HEAD_WIDTH}, got {width}");
            return Err(Error::config("model.text_width", problem));
        }
        if !data.template.contains("{}") {
            let problem = format!("no {{}} in {:?}", data.template);
            return Err(Error::config("data.template", problem)
                .with_hint("{} is where the class name goes"));
        }
        // The backbone's own rules, under this file's names.
        self.backbone().validate("model")
    }

    fn backbone(&self) -> ResnetConfig {
        ResnetConfig {
            name: ResnetName::ClipResnet,
            width: self.model.width,
            layers: self.model.layers.clone(),
            norm: Norm::BatchNorm,
            frozen_stages: -1,
            ..ResnetConfig::default()
        }
    }

    /// Sizes of the model in training: its batch norms are trained. A file of its weights gives the
    /// same sizes ([`ClipConfig::from_weights`]), with the norms frozen.
    #[must_use]
    pub fn clip(&self) -> ClipConfig {
        let model = &self.model;
        let heads = |width: i64| (width / HEAD_WIDTH).max(1);
        let backbone = self.backbone();
        ClipConfig {
            visual: VisualConfig::Resnet {
                heads: heads(backbone.levels()[3].channels),
                backbone,
                resolution: model.resolution,
            },
            text: Some(TextConfig {
                context_length: model.context_length,
                vocabulary: Tokenizer::VOCABULARY,
                width: model.text_width,
                layers: model.text_layers,
                heads: heads(model.text_width),
                hidden: 4 * model.text_width,
                activation: Default::default(),
            }),
            embed_dim: model.embed_dim,
        }
    }

    /// What the optimizer wants to know.
    pub(super) fn optimizer(&self) -> TrainConfig {
        TrainConfig {
            lr: self.train.lr,
            lr_backbone: self.train.lr,
            weight_decay: self.train.weight_decay,
            clip_max_norm: self.train.clip_max_norm,
            param_groups: ParamGroups::Default,
            ema: None,
            ..TrainConfig::default()
        }
    }

    /// Factor on the rate at update `step`, from 0.
    pub(super) fn lr_factor(&self, step: u64) -> f64 {
        let PretrainSchedule { steps, warmup_steps, .. } = self.train;
        if step < warmup_steps {
            return (step + 1) as f64 / (warmup_steps + 1) as f64;
        }
        let done = (step - warmup_steps) as f64 / (steps - warmup_steps) as f64;
        0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}
