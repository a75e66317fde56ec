//! Settings of a backbone: `kind` says which it is, and so which other settings there are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use toml::{Table, Value};

use super::{ConvnextConfig, FocalnetConfig, Level, ResnetConfig, SwinConfig, VitConfig};
use crate::{
    error::{Error, Result},
    models::padding::Padding,
};

/// A backbone's settings: its `kind` says which it is, and so which settings it has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackboneConfig {
    /// `resnet`, which is also meant where there is no `kind`: ResNet-18 to -101, and CLIP's ResNets.
    Resnet(ResnetConfig),
    /// `swin`: Swin Transformers.
    Swin(SwinConfig),
    /// `focalnet`: FocalNets.
    Focalnet(FocalnetConfig),
    /// `convnext`: ConvNeXts of both versions.
    Convnext(ConvnextConfig),
    /// `vit`: plain vision transformers with a pyramid.
    Vit(VitConfig),
}

/// The name of a kind of backbones, as `kind` has it in files.
#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    Resnet,
    Swin,
    Focalnet,
    Convnext,
    Vit,
}

/// As serde derives it of a tagged enum, but that `kind` may be left out, as in files of before there was
/// another one.
impl<'de> Deserialize<'de> for BackboneConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        fn of<C: serde::de::DeserializeOwned, E: serde::de::Error>(
            table: Table,
        ) -> std::result::Result<C, E> {
            Value::Table(table).try_into().map_err(E::custom)
        }
        let mut table = Table::deserialize(deserializer)?;
        let kind = match table.remove("kind") {
            Some(kind) => kind.try_into().map_err(D::Error::custom)?,
            None => Kind::default(),
        };
        Ok(match kind {
            Kind::Resnet => Self::Resnet(of(table)?),
            Kind::Swin => Self::Swin(of(table)?),
            Kind::Focalnet => Self::Focalnet(of(table)?),
            Kind::Convnext => Self::Convnext(of(table)?),
            Kind::Vit => Self::Vit(of(table)?),
        })
    }
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::Resnet(ResnetConfig::default())
    }
}

impl From<ResnetConfig> for BackboneConfig {
    fn from(config: ResnetConfig) -> Self {
        Self::Resnet(config)
    }
}

impl From<VitConfig> for BackboneConfig {
    fn from(config: VitConfig) -> Self {
        Self::Vit(config)
    }
}

impl From<ConvnextConfig> for BackboneConfig {
    fn from(config: ConvnextConfig) -> Self {
        Self::Convnext(config)
    }
}

impl From<FocalnetConfig> for BackboneConfig {
    fn from(config: FocalnetConfig) -> Self {
        Self::Focalnet(config)
    }
}

impl From<SwinConfig> for BackboneConfig {
    fn from(config: SwinConfig) -> Self {
        Self::Swin(config)
    }
}

impl BackboneConfig {
    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        match self {
            Self::Resnet(config) => config.validate(key),
            Self::Swin(config) => config.validate(key),
            Self::Focalnet(config) => config.validate(key),
            Self::Convnext(config) => config.validate(key),
            Self::Vit(config) => config.validate(key),
        }
    }

    /// The maps that it gives, largest first.
    #[must_use]
    pub fn levels(&self) -> Vec<Level> {
        match self {
            Self::Resnet(config) => config.levels().to_vec(),
            Self::Swin(config) => config.levels(),
            Self::Focalnet(config) => config.levels(),
            Self::Convnext(config) => config.levels(),
            Self::Vit(config) => config.levels(),
        }
    }

    /// Random numbers that a training pass takes for each image, uniform in [0, 1).
    #[must_use]
    pub fn draws(&self) -> usize {
        match self {
            Self::Resnet(_) => 0,
            Self::Swin(config) => config.draws(),
            Self::Focalnet(config) => config.draws(),
            Self::Convnext(config) => config.draws(),
            Self::Vit(config) => config.draws(),
        }
    }

    /// Pixels that the sides of a batch must be a multiple of.
    #[must_use]
    pub fn pad_multiple(&self) -> u32 {
        match self {
            Self::Resnet(_) | Self::Swin(_) | Self::Focalnet(_) => 1,
            Self::Convnext(_) => 32,
            Self::Vit(config) => config.pad_multiple(),
        }
    }

    /// What a detector with this backbone does with padding: the setting, or else `masked`; `official` where the
    /// backbone cannot mask it.
    #[must_use]
    pub fn padding(&self, setting: Option<Padding>) -> Padding {
        setting.unwrap_or(if self.masks_padding() { Padding::Masked } else { Padding::Official })
    }

    /// # Errors
    /// Padding that it cannot mask, named below `key`.
    pub(in crate::models) fn validate_padding(
        &self,
        setting: Option<Padding>,
        key: &str,
    ) -> Result<()> {
        if setting == Some(Padding::Masked) && !self.masks_padding() {
            let problem = format!(
                "masked, and the backbone ({}) has positions of the padded batch",
                self.describe()
            );
            return Err(Error::config(format!("{key}.padding"), problem)
                .with_hint("set it to \"official\", or leave it out"));
        }
        Ok(())
    }

    /// Whether the padding of a batch can be left unseen. A plain vision transformer has positions of the padded
    /// batch.
    #[must_use]
    pub fn masks_padding(&self) -> bool {
        !matches!(self, Self::Vit(_))
    }

    /// The file of weights to start from, if one is set.
    #[must_use]
    pub fn weights(&self) -> Option<&Path> {
        match self {
            Self::Resnet(config) => config.weights.as_deref(),
            Self::Swin(config) => config.weights.as_deref(),
            Self::Focalnet(config) => config.weights.as_deref(),
            Self::Convnext(config) => config.weights.as_deref(),
            Self::Vit(config) => config.weights.as_deref(),
        }
    }

    /// Starts from other weights, or from none.
    pub fn set_weights(&mut self, weights: Option<PathBuf>) {
        match self {
            Self::Resnet(config) => config.weights = weights,
            Self::Swin(config) => config.weights = weights,
            Self::Focalnet(config) => config.weights = weights,
            Self::Convnext(config) => config.weights = weights,
            Self::Vit(config) => config.weights = weights,
        }
    }

    /// These sizes, which tensors tell, with what the `other` settings say of training and of what no tensor tells,
    /// if they are of the same kind.
    #[must_use]
    pub fn with_training_of(self, other: &Self) -> Self {
        macro_rules! trained_as {
            ($own:ident, $other:ident) => {{
                $own.drop_path = $other.drop_path;
                $own.frozen_stages = $other.frozen_stages;
                $own.checkpointing = $other.checkpointing;
                $own.weights.clone_from(&$other.weights);
            }};
        }
        let mut own = self;
        match (&mut own, other) {
            (Self::Swin(own), Self::Swin(other)) => trained_as!(own, other),
            (Self::Focalnet(own), Self::Focalnet(other)) => trained_as!(own, other),
            (Self::Convnext(own), Self::Convnext(other)) => trained_as!(own, other),
            (Self::Vit(own), Self::Vit(other)) => {
                *own = std::mem::take(own).with_untold_of(other);
                own.drop_path = other.drop_path;
                own.frozen_blocks = other.frozen_blocks.min(own.depth());
                own.checkpointing = other.checkpointing;
                own.weights.clone_from(&other.weights);
            }
            _ => {}
        }
        own
    }

    /// What it is, in a few words: `resnet50, frozen_bn`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Resnet(config) => config.describe(),
            Self::Swin(config) => config.describe(),
            Self::Focalnet(config) => config.describe(),
            Self::Convnext(config) => config.describe(),
            Self::Vit(config) => config.describe(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::models::backbone::{ResnetName, SwinName};

    fn read(text: &str) -> std::result::Result<BackboneConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_kind_says_which_settings_there_are() {
        let swin = SwinConfig { name: SwinName::SwinL, drop_path: 0.1, ..SwinConfig::default() };
        let text = "kind = \"swin\"\nname = \"swin_l\"\ndrop_path = 0.1";
        assert_eq!(read(text).unwrap(), BackboneConfig::Swin(swin));
        let error = read("kind = \"swin\"\nnorm = \"frozen_bn\"").unwrap_err();
        assert!(error.contains("unknown field `norm`"), "{error}");
        let error = read("kind = \"swim\"").unwrap_err();
        assert!(error.contains("unknown variant `swim`"), "{error}");
    }

    #[test]
    fn without_a_kind_it_is_a_resnet() {
        let resnet = ResnetConfig { name: ResnetName::Resnet34, ..ResnetConfig::default() };
        assert_eq!(read("name = \"resnet34\"").unwrap(), BackboneConfig::Resnet(resnet));
        assert_eq!(read("").unwrap(), BackboneConfig::default());
    }

    #[test]
    fn settings_read_back_the_same() {
        for config in [
            BackboneConfig::default(),
            SwinConfig::default().into(),
            FocalnetConfig::default().into(),
            ConvnextConfig::default().into(),
            VitConfig::default().into(),
        ] {
            let text = toml::to_string(&config).unwrap();
            assert!(text.contains("kind = "), "{text}");
            assert_eq!(read(&text).unwrap(), config);
        }
    }
}
