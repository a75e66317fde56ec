//! Soft labels computed once and kept on disk: what a frozen teacher says of a box depends on the
//! pixels alone, and without crops and mosaics there are only so many pictures that training can
//! show. Each is a *view*: (picture, shorter side, mirrored). [`prepare()`] asks the teacher about
//! every view; training then reads the answers ([`Prepared`]) and never loads the teacher.
//!
//! What is kept of a box are its features, of length one, in 16 bits: the logits over the whole
//! vocabulary follow from them and the text table, which is kept beside them.
//!
//! ```text
//! FOLDER/prepared.json                    what it was made of: see `Manifest`
//! FOLDER/text.safetensors                 text_table [C, D], logit_scale [] f32
//! FOLDER/train/shard-00000.safetensors    rows [pictures, views] i32, features [Σ rows, D] f16
//! FOLDER/extra.NAME/…                     the same of an extra set of single pictures
//! ```
//!
//! **Precision.** A picture is shown to the teacher as the learner would in a batch of its own (its
//! two mirror images side by side), padded to `data.pad_multiple`. On the CPU, in f32, against the
//! labels of the same batch computed on the fly: features differ by less than 5e-4 of their length
//! (the rounding to 16 bits; 2.2e-4 measured), logits by less than 0.01 (0.0013 measured), a step's
//! `loss_semantic` by less than 1 % of itself (0.23 % measured). The same holds for batches of
//! pictures of one size. In a batch of pictures of different sizes, training on the fly pads the
//! smaller ones further, and a teacher that convolves sees that near the border, so that its labels
//! depend on the company; prepared ones do not. On pairs of pictures of 64 to 128 pixels, a random
//! CLIP-ResNet's features differ by up to 0.16 of their length for that, logits by up to 1.1: the
//! larger the pictures against the padding, the less. The tests of this module measure all of this.
//!
//! **Room.** Two bytes a number: LVIS's 1.27 million boxes in 22 views (11 scales, mirrored or not) of
//! width 1,024 are 57 GB on disk. In memory are four bytes a view, 9 MB of them; a step reads its own
//! rows. Whether labels belong to a run is seen from ids, classes, boxes and settings; what is in the
//! picture files is not looked at again.
//!
//! **What cannot be prepared** is refused by key: crops and mosaics (random places: no view is ever
//! seen twice), and `semantic.target_boxes` other than the annotated boxes (they are what a step
//! predicts).

mod manifest;
mod plan;
mod read;
mod shard;
mod write;

use crate::{
    config::Config,
    data::extra::FormConfig,
    error::{Error, Result},
    models::class_head::TextTable,
    semantic_branch::TargetBoxes,
    teacher::Teacher,
};

pub use read::Prepared;
pub(crate) use read::{activation, check_data};
pub use write::{PrepareObserver, PrepareReport, prepare};

/// What says of a folder of prepared labels what it was made of.
pub(crate) fn manifest_file(folder: &std::path::Path) -> std::path::PathBuf {
    manifest::Manifest::path(folder)
}

/// Where a run's soft labels come from.
#[derive(Debug)]
pub enum LabelSource {
    /// The teacher itself, asked at every step.
    Teacher(Box<dyn Teacher>),
    /// What it said before.
    Prepared(Box<Prepared>),
}

impl LabelSource {
    /// The vocabulary's embeddings, and the logarithm of the factor between cosines and logits.
    #[must_use]
    pub fn text(&self) -> (&TextTable, f64) {
        match self {
            Self::Teacher(teacher) => (teacher.text(), teacher.logit_scale()),
            Self::Prepared(prepared) => (prepared.text(), prepared.logit_scale()),
        }
    }
}

/// Refuses settings with which training shows pictures that no folder can hold.
///
/// # Errors
/// [`Error::Config`] naming the first such key.
pub(crate) fn check_settings(config: &Config) -> Result<()> {
    let refuse = |key: &str, problem: &str, hint: &str| {
        Err(Error::config(key, format!("soft labels cannot be prepared: {problem}"))
            .with_hint(format!("{hint}; or let the teacher label at every step (teacher.weights)")))
    };
    let boxes = config.semantic.as_ref().map(|s| s.target_boxes).unwrap_or_default();
    if boxes != TargetBoxes::GroundTruth {
        let problem = "the boxes are those that a training step predicts";
        return refuse("semantic.target_boxes", problem, "set it to \"ground_truth\"");
    }
    const CROPS: &str = "crops are random, no part of a picture comes twice";
    const NO_CROPS: &str = "set it to 0";
    if config.data.augment.crop.probability > 0.0 {
        return refuse("data.augment.crop.probability", CROPS, NO_CROPS);
    }
    for (name, extra) in labelled(config) {
        if let FormConfig::Mosaic { .. } = extra.form {
            let problem = "mosaics are random, no canvas comes twice";
            let hint = "set it to { kind = \"single\" }";
            return refuse(&format!("data.extra.{name}.form"), problem, hint);
        }
        if extra.augment.as_ref().is_some_and(|a| a.crop.probability > 0.0) {
            let key = format!("data.extra.{name}.augment.crop.probability");
            return refuse(&key, CROPS, NO_CROPS);
        }
    }
    Ok(())
}

/// Extra sets that the semantic branch learns from.
fn labelled(config: &Config) -> impl Iterator<Item = (&String, &crate::data::extra::ExtraConfig)> {
    config.data.extra_sets().filter(|(_, extra)| extra.supervision.semantic)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
