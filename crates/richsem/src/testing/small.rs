//! A run that takes seconds.

use std::{path::Path, sync::atomic::AtomicBool};

use crate::{
    error::Result,
    synth::{self, SynthConfig, SynthReport},
};

/// 4 classes in 14 training and 6 validation images of 64 to 80 pixels, and no classification images.
/// Tests that need others say what differs.
#[must_use]
pub fn small_set() -> SynthConfig {
    SynthConfig {
        classes: 4,
        train_images: 14,
        val_images: 6,
        image_size: (64, 80),
        objects_per_image: (1, 3),
        classification_per_class: 0,
        ..SynthConfig::default()
    }
}

/// Draws a set into a new folder.
///
/// # Errors
/// As [`synth::generate`].
pub fn write_set(config: &SynthConfig, folder: &Path) -> Result<SynthReport> {
    synth::generate(config, folder, false, &AtomicBool::new(false), &|_, _| {})
}

/// Draws the [`small_set`] into a new folder.
///
/// # Errors
/// As [`synth::generate`].
pub fn write_small_set(folder: &Path) -> Result<SynthReport> {
    write_set(&small_set(), folder)
}

/// Settings of a run on such a set. They use all parts of a run's state: running statistics, an EMA of
/// the weights, gradients over two batches, an order and a rate that change with the epoch. An epoch
/// has at least 3 updates. `train` is the end of the table `[train]`: `epochs`, `lr_drop`, `log_every`
/// and so on.
#[must_use]
pub fn small_run(set: &Path, train: &str) -> String {
    let model = r#"
[model.dino]
return_interm_indices = [2, 3]
backbone = { name = "resnet18", width = 8, norm = "batch_norm", frozen_stages = -1 }

[model.dino.transformer]
hidden_dim = 32
nheads = 2
enc_layers = 1
dec_layers = 2
dim_feedforward = 32
num_queries = 10
num_feature_levels = 2

[model.denoising]
number = 4
"#;
    let sampler = "[data.sampler]\nkind = \"repeat_factor\"\nthreshold = 0.5\n";
    small_run_of(set, &format!("{sampler}{model}"), 0.001, train)
}

/// As [`small_run`], of another model: `model` are its tables, and others that the run has of its own; `lr` is
/// the learning rate of all of it.
#[must_use]
pub fn small_run_of(set: &Path, model: &str, lr: f64, train: &str) -> String {
    format!(
        r#"
version = 1
seed = 5

[data]
batch_size = 2
workers = 2
train = {{ annotations = "{0}/train.json", images = "{0}/images" }}
val = {{ annotations = "{0}/val.json", images = "{0}/images" }}
augment = {{ scales = [64, 80], max_size = 128 }}
resize = {{ size = 64, max_size = 128 }}

{model}
[train]
lr = {lr}
lr_backbone = {lr}
accumulate = 2
ema = {{ decay = 0.9, warmup = true }}
checkpoint_every = 2
{train}
"#,
        set.display()
    )
}
