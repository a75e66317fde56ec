//! Settings of a teacher.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::clip::{Activation, PromptSet};
use crate::{
    checkpoint_io::weight_names,
    error::{Error, Result},
    precision::Precision,
};

/// Where the vocabulary's embeddings come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TeacherText {
    /// A given table; the weights then need no text encoder.
    Table {
        /// `.npy` or safetensors with one row a class, in order of category ids, or a larger table
        /// that the categories' `lvis_clip_row` point into. Relative to the file that says so.
        table: PathBuf,
    },
    /// The weights' text encoder, over prompts that hold each class's name verbatim; the mean over
    /// the prompts is kept in `~/.cache/richsem/text`.
    Prompts {
        /// Which prompts.
        #[serde(default)]
        set: PromptSet,
        /// The prompts of `set = "own"`, each with `{}` where the class name goes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        templates: Vec<String>,
    },
}

impl Default for TeacherText {
    fn default() -> Self {
        Self::Prompts { set: PromptSet::default(), templates: Vec::new() }
    }
}

/// How a vision transformer sees a box; ResNets align the box on their dense map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VitLabels {
    /// Each box is cut out, resized to the model's resolution and encoded: one pass a box, what
    /// the model was trained for.
    #[default]
    Crops,
    /// One pass an image; boxes are means over the map of patches. Cheap, and less exact unless
    /// the model was tuned for it (CLIPSelf).
    PatchMap,
}

/// Which frozen model labels boxes, and with what words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// CLIP's weights, with OpenAI's, open_clip's or Hugging Face's keys; a `config.json` or
    /// `open_clip_config.json` beside them is read, too. Relative to the file that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// A folder of labels that `richsem prepare` made, see [`crate::prepared`]: training then reads
    /// them and the text, and never the weights, which need not be there. Relative likewise. What
    /// the other keys say, if anything, must be what the folder was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PathBuf>,
    /// The vocabulary's embeddings.
    #[serde(default)]
    pub text: TeacherText,
    /// Numbers that the image encoder computes in; cosines and text are f32.
    #[serde(default = "f32_precision")]
    pub precision: Precision,
    /// How a vision transformer sees a box.
    #[serde(default)]
    pub vit: VitLabels,
    /// The activation of its transformers, which no tensor tells. Absent: what the file or its
    /// settings say; where nothing does, training tries both on its first batches and takes the one
    /// that ranks more labels first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
}

fn f32_precision() -> Precision {
    Precision::F32
}

impl TeacherConfig {
    /// The weights that are named.
    pub(crate) fn weights(&self) -> Result<&Path> {
        self.weights.as_deref().ok_or_else(|| {
            Error::config("teacher.weights", "missing: there is no teacher to ask")
                .with_hint("give CLIP's weights")
        })
    }

    /// Whether anything that it is asked for runs through a transformer: a ResNet with a given text
    /// table has none.
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
