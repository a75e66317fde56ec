//! Settings of the training objective.

use serde::{Deserialize, Serialize};

use super::{federated::FederatedConfig, matcher::MatcherConfig};
use crate::error::{Error, Result};

/// What a class means in an image that says nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownClasses {
    /// It counts as absent, as in the reference.
    Negative,
    /// It takes no part in the class loss of that image (LVIS: neither annotated nor verified).
    Ignore,
}

/// Weights and variants of the objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Weight of the class terms.
    pub class: f64,
    /// Weight of the L1 terms.
    pub l1: f64,
    /// Weight of the GIoU terms.
    pub giou: f64,
    /// Further weight of the encoder's terms.
    pub interm: f64,
    /// Focal loss's weight of positives.
    pub focal_alpha: f64,
    /// Focal loss's exponent.
    pub focal_gamma: f64,
    /// Costs of the matching.
    pub matcher: MatcherConfig,
    /// Class terms on a sample of the classes; absent: on all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federated: Option<FederatedConfig>,
    /// Classes that an image says nothing about.
    pub unknown_classes: UnknownClasses,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            class: 1.0,
            l1: 5.0,
            giou: 2.0,
            interm: 1.0,
            focal_alpha: 0.25,
            focal_gamma: 2.0,
            matcher: MatcherConfig::default(),
            federated: None,
            unknown_classes: UnknownClasses::Negative,
        }
    }
}

impl LossConfig {
    /// # Errors
    /// A weight that is negative or not a number, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        let weights = [
            ("class", self.class),
            ("l1", self.l1),
            ("giou", self.giou),
            ("interm", self.interm),
            ("focal_alpha", self.focal_alpha),
            ("focal_gamma", self.focal_gamma),
            ("matcher.class", self.matcher.class),
            ("matcher.l1", self.matcher.l1),
            ("matcher.giou", self.matcher.giou),
        ];
        for (name, value) in weights {
            if !(value.is_finite() && value >= 0.0) {
                let problem = format!("expected a number of at least 0, got {value}");
                return Err(Error::config(format!("{key}.{name}"), problem));
            }
        }
        if self.federated.as_ref().is_some_and(|f| f.classes == 0) {
            return Err(Error::config(
                format!("{key}.federated.classes"),
                "expected at least 1, got 0",
            )
            .with_hint("to use all classes, leave the [loss.federated] table out"));
        }
        if let Some(FederatedConfig { power, .. }) = &self.federated
            && !(power.is_finite() && *power >= 0.0)
        {
            let problem = format!("expected a number of at least 0, got {power}");
            return Err(Error::config(format!("{key}.federated.power"), problem));
        }
        Ok(())
    }
}
