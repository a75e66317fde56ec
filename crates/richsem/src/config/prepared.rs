//! Which settings allow soft labels that were computed before (see [`crate::prepared`]).

use std::path::{Path, PathBuf};

use super::Config;
use crate::{
    data::extra::{ExtraConfig, FormConfig},
    error::{Error, Result},
    semantic_branch::TargetBoxes,
};

/// The file in a folder of prepared labels that says what the labels were made from.
pub(crate) fn manifest_file(folder: &Path) -> PathBuf {
    folder.join("prepared.json")
}

/// Refuses settings with random views of images, because no folder can hold labels for all of them.
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
        let problem = "each training step predicts its own boxes";
        return refuse("semantic.target_boxes", problem, "set it to \"ground_truth\"");
    }
    const CROPS_ARE_RANDOM: &str = "crops are random, and no crop comes twice";
    const SET_TO_ZERO: &str = "set it to 0";
    if config.data.augment.crop.probability > 0.0 {
        return refuse("data.augment.crop.probability", CROPS_ARE_RANDOM, SET_TO_ZERO);
    }
    for (name, extra) in labelled(config) {
        if let FormConfig::Mosaic { .. } = extra.form {
            let problem = "mosaics are random, and no mosaic comes twice";
            let hint = "set it to { kind = \"single\" }";
            return refuse(&format!("data.extra.{name}.form"), problem, hint);
        }
        if extra.augment.as_ref().is_some_and(|a| a.crop.probability > 0.0) {
            let key = format!("data.extra.{name}.augment.crop.probability");
            return refuse(&key, CROPS_ARE_RANDOM, SET_TO_ZERO);
        }
    }
    Ok(())
}

/// The extra sets whose images the teacher labels.
pub(crate) fn labelled(config: &Config) -> impl Iterator<Item = (&String, &ExtraConfig)> {
    config.data.extra_sets().filter(|(_, extra)| extra.supervision.semantic)
}
