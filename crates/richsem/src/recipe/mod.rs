//! From a situation to settings: what `richsem init` writes.
//!
//! A pure function: a [`Situation`] in, a [`Recipe`] out. Each setting stands below the reason for it. What the
//! set's own numbers say comes from [`crate::doctor::scheme`]; here is what depends on where a run starts (from
//! nothing, from a backbone, from a detector) and on the machine.

mod backbone;
mod settle;
mod write;

use toml::Value;

use crate::{
    doctor::scheme::{Advice, Place},
    models::backbone::BackboneConfig,
    plural::{self, counted},
};

/// Where a run's weights come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Beginning {
    /// Initial values alone.
    Scratch,
    /// A trained backbone.
    Backbone {
        /// The file.
        weights: String,
        /// Its sizes.
        backbone: Box<BackboneConfig>,
    },
    /// A whole detector of other classes, with the settings that it must keep: dotted keys and values.
    Detector {
        /// The file.
        weights: String,
        /// What is different of it from the defaults.
        settings: Vec<(String, Value)>,
    },
    /// An official checkpoint of DINO, trained on COCO.
    Official {
        /// The file.
        weights: String,
    },
}

/// What computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Machine {
    /// The CPU, with so many cores.
    Cpu {
        /// Cores that may be used.
        cores: usize,
    },
    /// A GPU of that name.
    Gpu {
        /// As the driver calls it.
        name: String,
    },
}

/// What is known before settings are written.
#[derive(Debug, Clone, PartialEq)]
pub struct Situation {
    /// Where the data is.
    pub places: Vec<Place>,
    /// Training images.
    pub images: usize,
    /// Images of an epoch: more where the sampler repeats some.
    pub drawn: usize,
    /// Side of the tiles of classification images, where there are some: a batch of their mosaics follows each batch
    /// of detection images.
    pub tile: Option<u32>,
    /// Validation images; 0 without a validation set.
    pub judged: usize,
    /// What the set's numbers say.
    pub advice: Vec<Advice>,
    /// Where the weights come from.
    pub beginning: Beginning,
    /// What computes.
    pub machine: Machine,
    /// Sizes of images in place of the recipe's, where memory asks for smaller ones; else empty.
    pub sizes: Vec<Choice>,
}

/// How long steps take on this machine, as measured with the recipe's model and sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Seconds of a step of training, its images read: the mean of all kinds of batches.
    pub step: f64,
    /// Seconds of the evaluation of an image.
    pub judged: f64,
}

/// A setting, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The dotted key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Why, in words; empty where the setting speaks for itself.
    pub why: String,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// Passes over the training images.
    pub epochs: u64,
    /// Steps of each.
    pub steps: u64,
    /// Epochs between two evaluations.
    pub eval_every: u64,
}

/// Settings for a situation.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The preset that they extend; none where the defaults fit.
    pub preset: Option<&'static str>,
    /// Why that one.
    pub preset_why: &'static str,
    /// The settings over it, each key once.
    pub choices: Vec<Choice>,
    /// What the set's numbers ask for, and is not done: the weights would not fit.
    pub left_out: Vec<Choice>,
}

/// Steps that a detector needs, about, and the fewest epochs.
struct Need {
    steps: u64,
    epochs: u64,
    why: &'static str,
}

/// Images of a batch of the presets and defaults that recipes start from.
const BATCH_OF_PRESETS: usize = 8;
const BATCH_OF_DINO: usize = 2;

/// Steps that an epoch should have, for the order of images to matter.
const STEPS_OF_AN_EPOCH: usize = 8;

/// Evaluations of a run, about.
const EVALUATIONS: u64 = 6;

/// Share of the epochs after which the learning rate drops.
const DROP_AT: f64 = 0.85;

impl Situation {
    fn is_cpu(&self) -> bool {
        matches!(self.machine, Machine::Cpu { .. })
    }

    fn preset(&self) -> (Option<&'static str>, &'static str) {
        match (&self.beginning, self.is_cpu()) {
            (Beginning::Scratch | Beginning::Backbone { .. }, true) => {
                (Some("tiny"), "a detector small enough for the CPU")
            }
            (Beginning::Scratch, false) => {
                (Some("bccd"), "a ResNet-18 with group norm, which learns from scratch")
            }
            (Beginning::Backbone { .. }, false) => (None, "DINO, as its authors have it"),
            (Beginning::Official { .. }, _) => {
                (Some("finetune_r50"), "the checkpoint's network, at small rates")
            }
            (Beginning::Detector { .. }, _) => (None, "the network is the weights' own"),
        }
    }

    fn need(&self) -> Need {
        match self.beginning {
            Beginning::Scratch => Need {
                steps: 3000,
                epochs: 36,
                why: "from scratch a detector of this kind needs some 3,000 steps, as the preset bccd",
            },
            Beginning::Backbone { .. } => Need {
                steps: 2000,
                epochs: 24,
                why: "the backbone is trained, the rest needs some 2,000 steps; DINO has 12 to 36 epochs",
            },
            Beginning::Detector { .. } | Beginning::Official { .. } => Need {
                steps: 1000,
                epochs: 12,
                why: "a trained detector needs some 1,000 steps to know other classes",
            },
        }
    }

    /// Images of a batch before memory is looked at: the preset's, or fewer where an epoch would have too few
    /// steps.
    #[must_use]
    pub fn batch(&self) -> usize {
        let usual = match self.preset().0 {
            Some("tiny" | "bccd") => BATCH_OF_PRESETS,
            _ => BATCH_OF_DINO,
        };
        usual.min((self.images / STEPS_OF_AN_EPOCH).max(1))
    }

    /// The settings without those that depend on how fast the machine is.
    #[must_use]
    pub fn recipe(&self) -> Recipe {
        let (preset, preset_why) = self.preset();
        let mut settled = settle::Settled::default();
        for place in &self.places {
            let of = |(name, value): &(String, Value)| Choice {
                key: format!("{}.{name}", place.key),
                value: value.clone(),
                why: String::new(),
            };
            settled.put(place.settings.iter().map(of), "");
        }
        settled.put(self.weights(), "");
        settled.put(self.rates(), "");
        settled.follow(&self.advice, &self.beginning);
        settled.put(self.sizes.iter().cloned(), "");
        let settle::Settled { choices, left_out } = settled;
        Recipe { preset, preset_why, choices, left_out }
    }

    /// The backbone, or the detector, that training starts from.
    fn weights(&self) -> Vec<Choice> {
        let choice = |key: &str, value: Value, why: &str| Choice {
            key: key.to_owned(),
            value,
            why: why.to_owned(),
        };
        match &self.beginning {
            Beginning::Scratch => Vec::new(),
            Beginning::Backbone { weights, backbone } => {
                let of = |setting: &str| format!("model.dino.backbone.{setting}");
                let mut why = "the backbone of the weights";
                let mut choices = Vec::new();
                for (setting, value) in backbone::settings(backbone) {
                    choices.push(choice(&of(&setting), value, std::mem::take(&mut why)));
                }
                choices.push(choice(&of("weights"), weights.as_str().into(), ""));
                choices.extend(backbone::around(backbone));
                if let (true, BackboneConfig::Resnet(own)) = (self.is_cpu(), &**backbone) {
                    // The preset's own backbone is another one.
                    let trained =
                        "as it was trained: its width, its norms frozen, its first stages kept";
                    choices.retain(|choice| ![of("width"), of("layers")].contains(&choice.key));
                    let layers = own.layers.iter().map(|&blocks| blocks.into()).collect();
                    choices.push(choice(&of("width"), own.width.into(), trained));
                    choices.push(choice(&of("layers"), Value::Array(layers), ""));
                    choices.push(choice(&of("norm"), "frozen_bn".into(), ""));
                    choices.push(choice(&of("groups"), 32.into(), ""));
                    choices.push(choice(&of("frozen_stages"), 1.into(), ""));
                }
                choices
            }
            Beginning::Detector { weights, settings } => {
                let mut choices: Vec<Choice> =
                    settings.iter().map(|(key, value)| choice(key, value.clone(), "")).collect();
                choices.push(choice(
                    "init.weights",
                    weights.as_str().into(),
                    "rows of classes with the same name are kept, the others start anew",
                ));
                choices
            }
            Beginning::Official { weights } => vec![choice(
                "init.weights",
                weights.as_str().into(),
                "rows of classes that COCO has, too, are kept, by name; the others start anew",
            )],
        }
    }

    /// Learning rates.
    fn rates(&self) -> Vec<Choice> {
        let (lr, lr_backbone, why) = match (&self.beginning, self.preset().0) {
            (Beginning::Scratch, Some("tiny")) => (
                1e-3,
                1e-3,
                "so small a detector learns at ten times DINO's rate, and an untrained backbone as fast as the \
                 rest: at DINO's 1e-5, which is for a trained one, it hardly learns",
            ),
            (Beginning::Scratch, _) => (
                2e-4,
                2e-4,
                "an untrained backbone learns as fast as the rest (DINO's 1e-5 is for a trained one)",
            ),
            (Beginning::Backbone { .. }, Some("tiny")) => {
                (1e-3, 1e-4, "the backbone is trained: a tenth of the rest's rate, as in DINO")
            }
            (Beginning::Backbone { backbone, .. }, _) if backbone::decays(backbone) => {
                (1e-4, 1e-4, "DINO's; the backbone's fall from layer to layer")
            }
            (Beginning::Backbone { .. }, _) => (1e-4, 1e-5, "DINO's: the backbone is trained"),
            (Beginning::Detector { .. }, _) => {
                (1e-4, 1e-5, "the detector is trained: DINO's rates, and few epochs")
            }
            (Beginning::Official { .. }, _) => {
                (5e-5, 5e-6, "half of DINO's: batches are an eighth of its 16 images")
            }
        };
        let choice = |key: &str, value: f64, why: &str| Choice {
            key: key.to_owned(),
            value: value.into(),
            why: why.to_owned(),
        };
        let mut rates =
            vec![choice("train.lr", lr, why), choice("train.lr_backbone", lr_backbone, "")];
        if let Beginning::Backbone { backbone, .. } = &self.beginning
            && backbone::decays(backbone)
        {
            let why =
                "a vision transformer's first layers change least, as ViTDet's authors have it";
            rates.push(choice("train.lr_backbone_layer_decay", 0.7, why));
        }
        rates
    }

    /// How long to train: what the beginning needs, or what fits into `seconds`.
    #[must_use]
    pub fn length(&self, batch: usize, pace: Pace, seconds: Option<f64>) -> (Length, String) {
        let Need { steps: needed, epochs: least, why } = self.need();
        let detection = (self.drawn / batch.max(1)).max(1) as u64;
        let steps = if self.tile.is_some() { 2 * detection } else { detection };
        let wanted = needed.div_ceil(detection).max(least);
        let wanted = Length { epochs: wanted, steps, eval_every: self.eval_every(wanted) };
        let Some(seconds) = seconds.filter(|&seconds| self.time(wanted, pace) > seconds) else {
            return (wanted, why.to_owned());
        };
        let fits = |epochs: &u64| {
            let length = Length { epochs: *epochs, steps, eval_every: self.eval_every(*epochs) };
            self.time(length, pace) <= seconds
        };
        let epochs = (1..wanted.epochs).rev().find(fits).unwrap_or(1);
        let (time, unit) = match seconds {
            90.0.. => (format!("{:.0}", seconds / 60.0), "minute"),
            _ => (format!("{:.0}", seconds.max(1.0)), "second"),
        };
        let why = format!(
            "what fits into {time} {} here; {} {} would be better: {why}",
            plural::of(&time, unit),
            wanted.epochs,
            plural::of(wanted.epochs, "epoch")
        );
        (Length { epochs, steps, eval_every: self.eval_every(epochs) }, why)
    }

    fn eval_every(&self, epochs: u64) -> u64 {
        // The last epoch is always evaluated.
        (epochs / EVALUATIONS).max(1)
    }

    /// Seconds that a run of that length takes, about.
    #[must_use]
    pub fn time(&self, length: Length, pace: Pace) -> f64 {
        let Length { epochs, steps, eval_every } = length;
        let evaluations = if self.judged > 0 { epochs.div_ceil(eval_every) } else { 0 };
        (epochs * steps) as f64 * pace.step
            + (evaluations * self.judged as u64) as f64 * pace.judged
    }
}

impl Recipe {
    /// Adds batch size and length.
    pub fn set_length(&mut self, batch: (usize, &str), length: Length, why: &str) {
        let Length { epochs, steps, eval_every } = length;
        let number = |n: u64| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
        let drop = ((epochs as f64 * DROP_AT).round() as u64).min(epochs.saturating_sub(1)).max(1);
        let (drops, why_drop) = match epochs {
            3.. => (vec![number(drop)], "the rate drops to a tenth near the end"),
            _ => (Vec::new(), "in so few epochs the rate does not drop"),
        };
        let all = epochs * steps;
        for (key, value, why) in [
            ("data.batch_size", number(batch.0 as u64), batch.1.to_owned()),
            (
                "train.epochs",
                number(epochs),
                format!("{why}. {} each", counted(steps as usize, "step")),
            ),
            ("train.lr_drop", Value::Array(drops), why_drop.to_owned()),
            (
                "train.warmup_steps",
                number((all / 20).min(100)),
                "the rate rises in the first steps".to_owned(),
            ),
            ("train.eval_every", number(eval_every), String::new()),
        ] {
            self.choices.push(Choice { key: key.to_owned(), value, why });
        }
    }

    /// The settings as assignments, for a trial: without the data.
    #[must_use]
    pub fn assignments(&self) -> Vec<String> {
        let of_data = |key: &str| {
            ["data.train.", "data.val.", "data.extra."].iter().any(|p| key.starts_with(p))
        };
        let of_weights = |key: &str| key == "init.weights" || key.ends_with("backbone.weights");
        self.choices
            .iter()
            .filter(|choice| !of_data(&choice.key) && !of_weights(&choice.key))
            .map(|choice| format!("{}={}", choice.key, choice.value))
            .collect()
    }

    /// The text of the settings file. `head` is written above them, as a comment.
    #[must_use]
    pub fn to_toml(&self, head: &str) -> String {
        write::toml(self, head)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
