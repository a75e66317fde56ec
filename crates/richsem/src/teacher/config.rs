//! Settings of a teacher.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::clip::{Activation, Hints, PromptSet};
use crate::{
    checkpoint_io::weight_names,
    error::{Error, Result},
    precision::Precision,
};

/// Where the text embeddings of the classes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TeacherText {
    /// A file. The weights then need no text encoder.
    Table {
        /// A `.npy` or safetensors file with one row for each class, in the order of the category
        /// ids. Or a larger table: then each category names its row in `lvis_clip_row`. The path is
        /// relative to the settings file.
        table: PathBuf,
    },
    /// CLIP's text encoder. It reads prompts with the class name in them, letter by letter. The
    /// mean over the prompts is kept in `~/.cache/richsem/text`.
    Prompts {
        /// Which prompts: `weights` (the default: those that the file of the weights says it was trained
        /// with, or else `reference`), `reference` (81 prompts), `clip` (80), `single` (1) or `own`.
        #[serde(default)]
        set: PromptSet,
        /// The prompts of `set = "own"`. Each has `{}` where the class name goes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        templates: Vec<String>,
    },
}

impl Default for TeacherText {
    fn default() -> Self {
        Self::Prompts { set: PromptSet::default(), templates: Vec::new() }
    }
}

/// How a vision transformer labels a box. ResNets do not look at it: they pool the box from their
/// feature map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VitLabels {
    /// Each box is cut out of the image, resized to the model's resolution and encoded. This is
    /// what the model was trained for. It takes one pass for each box.
    #[default]
    Crops,
    /// The image is encoded once. A box is the mean of the patches in it. This is cheap. It is less
    /// exact unless the model was tuned for it (CLIPSelf).
    PatchMap,
}

/// The frozen CLIP that labels boxes, and the words that it uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// CLIP's weights, with the keys of OpenAI, open_clip or Hugging Face. A `config.json` or
    /// `open_clip_config.json` beside them is read, too. The path is relative to the settings file.
    /// Needed unless `prepared` is given. Reference: `clip_model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// A folder of labels that `richsem prepare` made (see [`crate::prepared`]). Training then
    /// reads the labels and never opens the weights. The path is relative to the settings file. The
    /// other keys must be absent, or be those that the folder was made with. Default: none; then
    /// the teacher labels at every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PathBuf>,
    /// Where the text embeddings of the classes come from. Default: the weights' text encoder, with
    /// the prompts that their file names, or else with the reference's 81.
    #[serde(default)]
    pub text: TeacherText,
    /// Numbers that the image encoder computes in: `f32` (the default) or `bf16`. Cosines and text
    /// are f32 in both.
    #[serde(default = "f32_precision")]
    pub precision: Precision,
    /// How a vision transformer labels a box: `crops` (the default) or `patch_map`.
    #[serde(default)]
    pub vit: VitLabels,
    /// The activation of its transformers: `gelu` or `quick_gelu`. No tensor tells which. Default:
    /// what the file or the settings beside it say. If they say nothing, training tries both on its
    /// first batches, and takes the one that ranks more labels first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
}

/// Default of `precision`.
fn f32_precision() -> Precision {
    Precision::F32
}

impl TeacherConfig {
    /// Weights and words, with the other defaults.
    #[must_use]
    pub fn of(weights: &Path, text: TeacherText) -> Self {
        Self {
            weights: Some(weights.to_owned()),
            prepared: None,
            text,
            precision: Precision::F32,
            vit: VitLabels::default(),
            activation: None,
        }
    }

    /// The file of the weights.
    pub(crate) fn weights(&self) -> Result<&Path> {
        self.weights.as_deref().ok_or_else(|| {
            Error::config("teacher.weights", "missing: no teacher is given")
                .with_hint("give CLIP's weights")
        })
    }

    /// Whether labelling or encoding text uses a transformer. A ResNet with a given text table uses
    /// none.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub(crate) fn has_transformers(&self) -> Result<bool> {
        if let TeacherText::Prompts { .. } = self.text {
            return Ok(true);
        }
        let (names, _) = weight_names(self.weights()?)?;
        Ok(!names.iter().any(|name| name.contains("visual.attnpool.")))
    }

    /// The activation that is taken where neither the settings nor the weights say with which the transformers
    /// were trained, in a sentence for the user. Training tries both instead.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn assumed_activation(&self) -> Result<Option<String>> {
        let hints = Hints::of(self.weights()?, self.activation)?;
        let unknown = hints.activation.is_none() && self.has_transformers()?;
        Ok(unknown.then(|| {
            let taken = Activation::default().name();
            format!("nothing says with which activation the weights were trained: {taken} is taken")
        }))
    }

    /// # Errors
    /// Neither weights nor prepared labels; prompts that contradict their set or have no place for the class name, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        if self.weights.is_none() && self.prepared.is_none() {
            return Err(Error::config(format!("{key}.weights"), "missing").with_hint(
                "give CLIP's weights, or in teacher.prepared a folder that `richsem prepare` made",
            ));
        }
        let TeacherText::Prompts { set, templates } = &self.text else { return Ok(()) };
        let key = format!("{key}.text.templates");
        match (*set == PromptSet::Own, templates.is_empty()) {
            (true, true) => {
                return Err(Error::config(key, "missing: set = \"own\" needs them")
                    .with_hint("for example templates = [\"a photo of a {}.\"]"));
            }
            (false, false) => {
                let problem = "given, but `set` is not \"own\"";
                return Err(Error::config(key, problem)
                    .with_hint("write set = \"own\", or leave the templates out"));
            }
            _ => {}
        }
        match templates.iter().find(|t| !t.contains("{}")) {
            Some(template) => Err(Error::config(key, format!("no {{}} in {template:?}"))
                .with_hint("{} is where the class name goes")),
            None => Ok(()),
        }
    }
}
