//! Settings of a detector's network.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    backbone::BackboneConfig, dino::DinoConfig, padding::Padding, projection::ProjectionKind,
};
use crate::{
    bounds::within,
    error::{Error, Result},
    normalization::Normalization,
};

/// How class logits are computed from a query's features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClassHeadConfig {
    /// A linear layer with one row of weights for each class.
    // With braces: of a variant without them serde takes any keys.
    Linear {},
    /// Cosines between projected features and text embeddings of the class names. Reference:
    /// `use_language`.
    Text {
        /// The text embeddings: a `.npy` or safetensors file with one row for each class, in the
        /// order of the category ids. Or a larger table: then each category names its row in
        /// `lvis_clip_row`. The path is relative to the settings file. Default: the embeddings that
        /// the teacher has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        table: Option<PathBuf>,
    },
}

impl Default for ClassHeadConfig {
    fn default() -> Self {
        Self::Linear {}
    }
}

/// The families of detectors, each with its settings: `model.kind` names the family, the section of
/// that name has the settings.
#[derive(Debug, Clone, PartialEq)]
pub enum FamilyConfig {
    /// `dino`: DINO-4scale (arXiv 2203.03605), as RichSem trains it.
    Dino(DinoConfig),
}

impl Default for FamilyConfig {
    fn default() -> Self {
        Self::Dino(DinoConfig::default())
    }
}

/// The detector's network: its family (`kind = "dino"`), how it tells classes apart, and the
/// family's own settings in a section of that name (`[model.dino]`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "ModelTables", into = "ModelTables")]
pub struct ModelConfig {
    /// Mean of the red, green and blue channel, for pixels from 0 to 1. It is subtracted from
    /// images. Each 0 to 1. Default: ImageNet's, 0.485, 0.456, 0.406.
    pub pixel_mean: [f32; 3],
    /// Standard deviation of the red, green and blue channel, for pixels from 0 to 1. Images are
    /// divided by it. Each 0.001 to 1. Default: ImageNet's, 0.229, 0.224, 0.225.
    pub pixel_std: [f32; 3],
    /// How class logits are computed: `{ kind = "linear" }` (the default) or `{ kind = "text" }`.
    pub class_head: ClassHeadConfig,
    /// The family of the detector, with its settings. In files this is `kind` and a section of that
    /// name.
    pub family: FamilyConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        let Normalization { mean, std } = Normalization::IMAGENET;
        Self {
            pixel_mean: mean,
            pixel_std: std,
            class_head: ClassHeadConfig::default(),
            family: FamilyConfig::default(),
        }
    }
}

/// The name of a family, as `kind` has it in files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FamilyName {
    #[default]
    Dino,
}

/// [`ModelConfig`] as files have it: one section for each family.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ModelTables {
    kind: FamilyName,
    pixel_mean: [f32; 3],
    pixel_std: [f32; 3],
    class_head: ClassHeadConfig,
    dino: DinoConfig,
}

impl Default for ModelTables {
    fn default() -> Self {
        ModelConfig::default().into()
    }
}

impl From<ModelTables> for ModelConfig {
    fn from(tables: ModelTables) -> Self {
        let ModelTables { kind, pixel_mean, pixel_std, class_head, dino } = tables;
        let family = match kind {
            FamilyName::Dino => FamilyConfig::Dino(dino),
        };
        Self { pixel_mean, pixel_std, class_head, family }
    }
}

impl From<ModelConfig> for ModelTables {
    fn from(config: ModelConfig) -> Self {
        let ModelConfig { pixel_mean, pixel_std, class_head, family } = config;
        let FamilyConfig::Dino(dino) = family;
        Self { kind: FamilyName::Dino, pixel_mean, pixel_std, class_head, dino }
    }
}

impl ModelConfig {
    /// What the images are normalised with.
    #[must_use]
    pub fn normalization(&self) -> Normalization {
        Normalization { mean: self.pixel_mean, std: self.pixel_std }
    }

    /// DINO's settings, if it is one.
    #[must_use]
    pub fn as_dino(&self) -> Option<&DinoConfig> {
        let FamilyConfig::Dino(dino) = &self.family;
        Some(dino)
    }

    /// DINO's settings, to be changed, if it is one.
    pub fn as_dino_mut(&mut self) -> Option<&mut DinoConfig> {
        let FamilyConfig::Dino(dino) = &mut self.family;
        Some(dino)
    }

    /// The dotted key of a setting of the family, for messages: `model.dino.backbone.weights`.
    #[must_use]
    pub fn family_key(&self, setting: &str) -> String {
        let FamilyConfig::Dino(_) = self.family;
        format!("model.dino.{setting}")
    }

    /// Settings of the backbone, whatever the family.
    #[must_use]
    pub fn backbone(&self) -> &BackboneConfig {
        let FamilyConfig::Dino(dino) = &self.family;
        &dino.backbone
    }

    /// The backbone's settings, to be changed.
    pub fn backbone_mut(&mut self) -> &mut BackboneConfig {
        let FamilyConfig::Dino(dino) = &mut self.family;
        &mut dino.backbone
    }

    /// What an image's padding may change of its result.
    #[must_use]
    pub fn padding(&self) -> Padding {
        let FamilyConfig::Dino(dino) = &self.family;
        dino.padding()
    }

    /// As [`Self::padding`]; none where the settings leave it open.
    #[must_use]
    pub fn padding_setting(&self) -> Option<Padding> {
        let FamilyConfig::Dino(dino) = &self.family;
        dino.padding
    }

    /// Decides what the settings may have left open.
    pub fn set_padding(&mut self, padding: Option<Padding>) {
        let FamilyConfig::Dino(dino) = &mut self.family;
        dino.padding = padding;
    }

    /// D: width of the features that the class head and the semantic branch see of a region.
    #[must_use]
    pub fn region_dim(&self) -> i64 {
        let FamilyConfig::Dino(dino) = &self.family;
        dino.transformer.hidden_dim
    }

    /// Most objects that it can find in an image, and the setting that says so; none: no limit that
    /// a data set reaches.
    #[must_use]
    pub fn most_objects(&self) -> Option<(usize, String)> {
        let FamilyConfig::Dino(dino) = &self.family;
        let queries = dino.transformer.num_queries as usize;
        Some((queries, self.family_key("transformer.num_queries")))
    }

    /// What makes a network of this family smaller, for messages about memory.
    #[must_use]
    pub fn smaller(&self) -> &'static str {
        let FamilyConfig::Dino(_) = &self.family;
        "lower the sizes in model.dino: backbone, hidden_dim, dim_feedforward, enc_layers, dec_layers"
    }

    /// Names and values of the family's sizes, in the order to be read.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let FamilyConfig::Dino(dino) = &self.family;
        dino.facts()
    }

    /// # Errors
    /// The first setting that is out of range or contradicts another, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        for (name, values, range) in
            [("pixel_mean", self.pixel_mean, 0.0..=1.0), ("pixel_std", self.pixel_std, 1e-3..=1.0)]
        {
            for (channel, value) in values.into_iter().enumerate() {
                within(format!("{key}.{name}[{channel}]"), value, range.clone()).map_err(
                    |error| {
                        error
                            .with_hint("pixels are 0 to 1 here: divide what is for 0 to 255 by 255")
                    },
                )?;
            }
        }
        let FamilyConfig::Dino(dino) = &self.family;
        dino.validate(&format!("{key}.dino"))?;
        if self.class_head == (ClassHeadConfig::Linear {})
            && dino.class_projection != ProjectionKind::Linear
        {
            let problem = "a linear class head has no projection";
            return Err(Error::config(format!("{key}.dino.class_projection"), problem)
                .with_hint("leave it out, or set model.class_head to kind = \"text\""));
        }
        Ok(())
    }
}
