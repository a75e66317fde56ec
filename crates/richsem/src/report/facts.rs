//! The settings and circumstances of a run that a reader asks for first, in words.

use serde::Serialize;

use super::thousands;
use crate::{
    config::Config,
    data::sampler::SamplerConfig,
    detector::DetectorConfig,
    models::config::{ClassHeadConfig, ModelConfig},
    train::{EvalRow, Position, TrainRow},
    vocabulary::{Frequency, Vocabulary},
};

/// Names and values, in the order to be read; values that are not known are left out.
#[derive(Debug, Default)]
pub(crate) struct Facts(pub(crate) Vec<(String, String)>);

impl Facts {
    pub(crate) fn add(&mut self, name: &str, value: String) {
        if !value.is_empty() {
            self.0.push((name.to_owned(), value));
        }
    }

    /// What the detector of these settings is.
    pub(crate) fn add_detector(&mut self, model: &ModelConfig) {
        let mut sizes = model.facts().into_iter();
        // What it is comes first, then its backbone.
        if let Some((name, value)) = sizes.next() {
            self.add(name, value);
        }
        self.add("backbone", model.backbone().describe());
        for (name, value) in sizes {
            self.add(name, value);
        }
        self.add(
            "class head",
            match &model.class_head {
                ClassHeadConfig::Linear {} => "linear".to_owned(),
                ClassHeadConfig::Text { table: Some(table) } => {
                    format!("text table {}", table.display())
                }
                ClassHeadConfig::Text { table: None } => "a text table".to_owned(),
            },
        );
        self.add("padding", model.padding().to_string());
    }

    /// What is done to images that are evaluated or predicted on.
    pub(crate) fn add_inference(&mut self, config: &DetectorConfig) {
        let resize = &config.resize;
        self.add("image size in evaluation", sides(&resize.size.to_string(), resize.max_size));
        self.add("precision", word(&config.precision()));
    }

    pub(crate) fn add_classes(&mut self, vocabulary: &Vocabulary) {
        self.add("classes", classes(vocabulary));
    }
}

/// What is known of a run besides its settings.
pub(super) struct Progress<'a> {
    pub(super) position: Option<Position>,
    pub(super) train: Vec<&'a TrainRow>,
    pub(super) best: Option<&'a EvalRow>,
    pub(super) last: Option<&'a EvalRow>,
    /// Trainable values, where a checkpoint tells.
    pub(super) parameters: Option<usize>,
    pub(super) vocabulary: Option<Vocabulary>,
}

/// The facts about a run.
pub(super) fn facts(config: &Config, progress: &Progress<'_>) -> Vec<(String, String)> {
    let Config { seed, data, train, .. } = config;
    let mut facts = Facts::default();
    facts.add_detector(&config.model);
    facts.add(
        "backbone weights",
        match config.model.backbone().weights() {
            Some(weights) => weights.display().to_string(),
            None => "from scratch".to_owned(),
        },
    );
    facts.add("trainable parameters", progress.parameters.map(thousands).unwrap_or_default());
    if let Some(vocabulary) = &progress.vocabulary {
        facts.add_classes(vocabulary);
    }
    for (name, split) in [("training set", &data.train), ("validation set", &data.val)] {
        let value = split.as_ref().map(|split| split.annotations.display().to_string());
        facts.add(name, value.unwrap_or_else(|| "none".to_owned()));
    }
    facts.add(
        "sampling",
        match &data.sampler {
            SamplerConfig::Uniform {} => "every image once".to_owned(),
            SamplerConfig::RepeatFactor { threshold } => format!("repeat factor, t = {threshold}"),
            SamplerConfig::ClassAware {} => "class-aware".to_owned(),
        },
    );
    facts.add("image size in training", {
        let scales = &data.augment.scales;
        let range = match (scales.iter().min(), scales.iter().max()) {
            (Some(low), Some(high)) if low < high => format!("{low} to {high}"),
            (Some(low), _) => low.to_string(),
            _ => String::new(),
        };
        sides(&range, data.augment.max_size)
    });
    facts.add_inference(&config.of_detector());
    facts.add("epochs", train.epochs.to_string());
    facts.add("steps", progress.position.as_ref().map_or_else(String::new, |p| steps(p.updates)));
    facts.add("images a step", (data.batch_size as u64 * train.accumulate).to_string());
    facts.add("learning rate", learning_rate(config));
    facts.add(
        "EMA of weights",
        train.ema.as_ref().map_or_else(String::new, |ema| {
            let warmup = if ema.warmup { ", with warm-up" } else { "" };
            format!("decay {}{warmup}", ema.decay)
        }),
    );
    facts.add("seed", seed.to_string());
    let images_a_step = (data.batch_size as u64 * train.accumulate) as f64;
    let (seconds, images) = time(&progress.train, images_a_step);
    if seconds > 0.0 {
        facts.add("time in training steps", hours(seconds));
        facts.add("images a second", format!("{:.1}", images / seconds));
    }
    let memory = progress.train.iter().map(|row| row.memory_mib).fold(0.0, f64::max);
    facts.add(
        "most GPU memory",
        if memory > 0.0 { format!("{:.1} GiB", memory / 1024.0) } else { String::new() },
    );
    facts.0
}

/// A setting's value as a settings file spells it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn sides(shorter: &str, longer: u32) -> String {
    format!("shorter side {shorter}, longer at most {longer}")
}

fn steps(updates: u64) -> String {
    thousands(usize::try_from(updates).unwrap_or(usize::MAX))
}

fn classes(vocabulary: &Vocabulary) -> String {
    let groups = [
        (Frequency::Frequent, "frequent"),
        (Frequency::Common, "common"),
        (Frequency::Rare, "rare"),
    ];
    let counts = groups.map(|(group, name)| {
        let count = vocabulary.categories().iter().filter(|c| c.frequency == group).count();
        format!("{} {name}", thousands(count))
    });
    format!("{} ({})", thousands(vocabulary.len()), counts.join(", "))
}

fn learning_rate(config: &Config) -> String {
    let train = &config.train;
    let mut text = format!("{:e}, backbone {:e}", train.lr, train.lr_backbone);
    // From 0 in settings; a reader counts finished epochs.
    let drops: Vec<String> = train
        .lr_drop
        .iter()
        .filter(|&&epoch| epoch < train.epochs)
        .map(ToString::to_string)
        .collect();
    if !drops.is_empty() {
        text += &format!("; × {} after epoch {}", train.lr_gamma, drops.join(", "));
    }
    if train.warmup_steps > 0 {
        text += &format!("; {} steps of warm-up", train.warmup_steps);
    }
    text
}

/// Seconds spent in steps, evaluations and pauses left out, and images seen. Rows of older releases do
/// not say how many those were.
fn time(rows: &[&TrainRow], images_a_step: f64) -> (f64, f64) {
    let mut before = 0;
    let (mut seconds, mut images) = (0.0, 0.0);
    for row in rows {
        let seen = match row.images {
            0 => row.step.saturating_sub(before) as f64 * images_a_step,
            images => images as f64,
        };
        before = row.step;
        if row.images_per_second > 0.0 {
            seconds += seen / row.images_per_second;
            images += seen;
        }
    }
    (seconds, images)
}

/// A time as `h:mm:ss`.
fn hours(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(step: u64, images_per_second: f64) -> TrainRow {
        TrainRow {
            step,
            epoch: 0,
            lr: 0.0,
            loss: 0.0,
            grad_norm: 0.0,
            images_per_second,
            images: 0,
            memory_mib: 0.0,
            terms: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn time_is_that_of_the_steps_between_rows() {
        // 10 steps of 4 images at 8 a second, then 10 at 2 a second.
        let rows = [row(10, 8.0), row(20, 2.0)];
        assert_eq!(time(&rows.iter().collect::<Vec<_>>(), 4.0), (5.0 + 20.0, 80.0));
        assert_eq!(time(&[&row(10, 0.0)], 4.0), (0.0, 0.0));
        // Batches of extra sets among them, twice as large.
        let counted = TrainRow { images: 60, ..row(10, 10.0) };
        assert_eq!(time(&[&counted], 4.0), (6.0, 60.0));
        assert_eq!(hours(3_725.4), "1:02:05");
    }

    #[test]
    fn rates_are_short_and_only_drops_that_happen_are_told() {
        let mut config = Config::parse("version = 1", std::path::Path::new("c.toml")).unwrap();
        config.train.lr_drop = vec![16, 18, 30];
        config.train.epochs = 20;
        config.train.warmup_steps = 50;
        let text = "1e-4, backbone 1e-5; × 0.1 after epoch 16, 18; 50 steps of warm-up";
        assert_eq!(learning_rate(&config), text);
        assert_eq!(config.model.backbone().describe(), "resnet50, frozen_bn");
    }
}
