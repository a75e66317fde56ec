//! Settings of a detector's network.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    backbone::BackboneConfig,
    dino::DinoConfig,
    faster_rcnn::{Classifier, FasterRcnnConfig},
    padding::Padding,
    projection::ProjectionKind,
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
    /// `faster_rcnn`: Faster R-CNN with a feature pyramid (arXiv 1506.01497, 1612.03144), and Cascade R-CNN.
    FasterRcnn(FasterRcnnConfig),
}

impl Default for FamilyConfig {
    fn default() -> Self {
        Self::Dino(DinoConfig::default())
    }
}

/// The detector's network: its family (`kind = "dino"` or `"faster_rcnn"`), how it tells classes apart, and
/// the family's own settings in a section of that name (`[model.dino]`, `[model.faster_rcnn]`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ModelTables", into = "ModelTables")]
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
    FasterRcnn,
}

/// [`ModelConfig`] as files have it: one section for each family.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ModelTables {
    kind: FamilyName,
    pixel_mean: [f32; 3],
    pixel_std: [f32; 3],
    class_head: ClassHeadConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    dino: Option<DinoConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    faster_rcnn: Option<FasterRcnnConfig>,
}

impl Default for ModelTables {
    fn default() -> Self {
        let mut tables: Self = ModelConfig::default().into();
        // The section of the family may be left out.
        tables.dino = None;
        tables
    }
}

impl TryFrom<ModelTables> for ModelConfig {
    type Error = String;

    fn try_from(tables: ModelTables) -> std::result::Result<Self, String> {
        let ModelTables { kind, pixel_mean, pixel_std, class_head, dino, faster_rcnn } = tables;
        let other = |kind: &str, section: &str| {
            format!(
                "the section `{section}` is of another family: kind = \"{kind}\" reads `{kind}` (take \
                 `{section}` out, or set kind = \"{section}\")"
            )
        };
        let family = match (kind, dino, faster_rcnn) {
            (FamilyName::Dino, _, Some(_)) => return Err(other("dino", "faster_rcnn")),
            (FamilyName::FasterRcnn, Some(_), _) => return Err(other("faster_rcnn", "dino")),
            (FamilyName::Dino, dino, None) => FamilyConfig::Dino(dino.unwrap_or_default()),
            (FamilyName::FasterRcnn, None, rcnn) => {
                FamilyConfig::FasterRcnn(rcnn.unwrap_or_default())
            }
        };
        Ok(Self { pixel_mean, pixel_std, class_head, family })
    }
}

impl From<ModelConfig> for ModelTables {
    fn from(config: ModelConfig) -> Self {
        let ModelConfig { pixel_mean, pixel_std, class_head, family } = config;
        let (kind, dino, faster_rcnn) = match family {
            FamilyConfig::Dino(dino) => (FamilyName::Dino, Some(dino), None),
            FamilyConfig::FasterRcnn(rcnn) => (FamilyName::FasterRcnn, None, Some(rcnn)),
        };
        Self { kind, pixel_mean, pixel_std, class_head, dino, faster_rcnn }
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
        match &self.family {
            FamilyConfig::Dino(dino) => Some(dino),
            FamilyConfig::FasterRcnn(_) => None,
        }
    }

    /// DINO's settings, to be changed, if it is one.
    pub fn as_dino_mut(&mut self) -> Option<&mut DinoConfig> {
        match &mut self.family {
            FamilyConfig::Dino(dino) => Some(dino),
            FamilyConfig::FasterRcnn(_) => None,
        }
    }

    /// Faster R-CNN's settings, if it is one.
    #[must_use]
    pub fn as_faster_rcnn(&self) -> Option<&FasterRcnnConfig> {
        match &self.family {
            FamilyConfig::Dino(_) => None,
            FamilyConfig::FasterRcnn(rcnn) => Some(rcnn),
        }
    }

    /// Faster R-CNN's settings, to be changed, if it is one.
    pub fn as_faster_rcnn_mut(&mut self) -> Option<&mut FasterRcnnConfig> {
        match &mut self.family {
            FamilyConfig::Dino(_) => None,
            FamilyConfig::FasterRcnn(rcnn) => Some(rcnn),
        }
    }

    /// The dotted key of a setting of the family, for messages: `model.dino.backbone.weights`.
    #[must_use]
    pub fn family_key(&self, setting: &str) -> String {
        let family = match self.family {
            FamilyConfig::Dino(_) => "dino",
            FamilyConfig::FasterRcnn(_) => "faster_rcnn",
        };
        format!("model.{family}.{setting}")
    }

    /// Settings of the backbone, whatever the family.
    #[must_use]
    pub fn backbone(&self) -> &BackboneConfig {
        match &self.family {
            FamilyConfig::Dino(dino) => &dino.backbone,
            FamilyConfig::FasterRcnn(rcnn) => &rcnn.backbone,
        }
    }

    /// The backbone's settings, to be changed.
    pub fn backbone_mut(&mut self) -> &mut BackboneConfig {
        match &mut self.family {
            FamilyConfig::Dino(dino) => &mut dino.backbone,
            FamilyConfig::FasterRcnn(rcnn) => &mut rcnn.backbone,
        }
    }

    /// What an image's padding may change of its result.
    #[must_use]
    pub fn padding(&self) -> Padding {
        match &self.family {
            FamilyConfig::Dino(dino) => dino.padding(),
            FamilyConfig::FasterRcnn(rcnn) => rcnn.padding(),
        }
    }

    /// As [`Self::padding`]; none where the settings leave it open.
    #[must_use]
    pub fn padding_setting(&self) -> Option<Padding> {
        match &self.family {
            FamilyConfig::Dino(dino) => dino.padding,
            FamilyConfig::FasterRcnn(rcnn) => rcnn.padding,
        }
    }

    /// Decides what the settings may have left open.
    pub fn set_padding(&mut self, padding: Option<Padding>) {
        match &mut self.family {
            FamilyConfig::Dino(dino) => dino.padding = padding,
            FamilyConfig::FasterRcnn(rcnn) => rcnn.padding = padding,
        }
    }

    /// D: width of the features that the class head and the semantic branch see of a region.
    #[must_use]
    pub fn region_dim(&self) -> i64 {
        match &self.family {
            FamilyConfig::Dino(dino) => dino.transformer.hidden_dim,
            FamilyConfig::FasterRcnn(rcnn) => rcnn.roi.dim,
        }
    }

    /// Most objects that it can find in an image, and the setting that says so; none: no limit that
    /// a data set reaches.
    #[must_use]
    pub fn most_objects(&self) -> Option<(usize, String)> {
        Some(match &self.family {
            FamilyConfig::Dino(dino) => {
                (dino.transformer.num_queries as usize, self.family_key("transformer.num_queries"))
            }
            FamilyConfig::FasterRcnn(rcnn) => {
                (rcnn.rpn.post_nms_test as usize, self.family_key("rpn.post_nms_test"))
            }
        })
    }

    /// What makes a network of this family smaller, for messages about memory.
    #[must_use]
    pub fn smaller(&self) -> &'static str {
        match &self.family {
            FamilyConfig::Dino(_) => {
                "lower the sizes in model.dino: backbone, hidden_dim, dim_feedforward, enc_layers, dec_layers"
            }
            FamilyConfig::FasterRcnn(_) => {
                "lower the sizes in model.faster_rcnn: backbone, fpn_dim, roi.dim, roi.pool"
            }
        }
    }

    /// Names and values of the family's sizes, in the order to be read.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        match &self.family {
            FamilyConfig::Dino(dino) => dino.facts(),
            FamilyConfig::FasterRcnn(rcnn) => rcnn.facts(),
        }
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
        let projection = match &self.family {
            FamilyConfig::Dino(dino) => {
                dino.validate(&format!("{key}.dino"))?;
                if dino.class_projection == ProjectionKind::Affine {
                    let problem = "expected linear or mlp, got affine, which only Faster R-CNN has";
                    return Err(Error::config(format!("{key}.dino.class_projection"), problem));
                }
                dino.class_projection
            }
            FamilyConfig::FasterRcnn(rcnn) => {
                rcnn.validate(&format!("{key}.faster_rcnn"))?;
                self.check_text_boxes(rcnn, &format!("{key}.faster_rcnn"))?;
                rcnn.class_projection
            }
        };
        if self.class_head == (ClassHeadConfig::Linear {}) && projection != ProjectionKind::Linear {
            let problem = "a linear class head has no projection";
            let key = self.family_key("class_projection").replacen("model", key, 1);
            return Err(Error::config(key, problem)
                .with_hint("leave it out, or set model.class_head to kind = \"text\""));
        }
        Ok(())
    }

    /// A class head against text knows classes by their text alone: it has no row for the background, and no
    /// rows of boxes for each class.
    fn check_text_boxes(&self, rcnn: &FasterRcnnConfig, key: &str) -> Result<()> {
        if self.class_head == (ClassHeadConfig::Linear {}) {
            return Ok(());
        }
        if rcnn.classifier == Classifier::Softmax {
            let problem = "softmax needs a row for the background, and text has none";
            return Err(Error::config(format!("{key}.classifier"), problem)
                .with_hint("set classifier = \"sigmoid\" for a class head against text"));
        }
        if !rcnn.roi.class_agnostic {
            let problem = "a class head against text has no boxes for each class";
            return Err(Error::config(format!("{key}.roi.class_agnostic"), problem)
                .with_hint("set roi.class_agnostic = true"));
        }
        Ok(())
    }
}
