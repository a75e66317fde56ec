//! Settings of the training objective.

use serde::{Deserialize, Serialize};

use super::federated::FederatedConfig;
use crate::{
    bounds::{WEIGHT, within},
    error::{Error, Result},
};

/// What a class means in an image that says nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownClasses {
    /// It counts as absent, as in the reference.
    Negative,
    /// It takes no part in the class loss of that image (LVIS: neither annotated nor verified).
    Ignore,
}

/// Weights of the matching cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatcherConfig {
    /// Focal classification cost.
    pub class: f64,
    /// L1 distance of the boxes.
    pub l1: f64,
    /// Minus the generalised IoU.
    pub giou: f64,
}

impl Default for MatcherConfig {
    fn default() -> Self {
        Self { class: 2.0, l1: 5.0, giou: 2.0 }
    }
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
        let Self { class, l1, giou, ref matcher, .. } = *self;
        for (name, value, range) in [
            ("class", class, WEIGHT),
            ("l1", l1, WEIGHT),
            ("giou", giou, WEIGHT),
            ("interm", self.interm, WEIGHT),
            ("matcher.class", matcher.class, WEIGHT),
            ("matcher.l1", matcher.l1, WEIGHT),
            ("matcher.giou", matcher.giou, WEIGHT),
            ("focal_alpha", self.focal_alpha, 0.0..=1.0),
            ("focal_gamma", self.focal_gamma, 0.0..=10.0),
        ] {
            within(format!("{key}.{name}"), value, range)?;
        }
        if [class, l1, giou] == [0.0; 3] {
            let problem = "0, and so are l1 and giou: there would be nothing to learn";
            return Err(Error::config(format!("{key}.class"), problem));
        }
        if [matcher.class, matcher.l1, matcher.giou] == [0.0; 3] {
            let problem = "0, and so are l1 and giou: every query would match every box alike";
            return Err(Error::config(format!("{key}.matcher.class"), problem));
        }
        if self.federated.as_ref().is_some_and(|f| f.classes == 0) {
            return Err(Error::config(
                format!("{key}.federated.classes"),
                "expected at least 1, got 0",
            )
            .with_hint("to use all classes, leave the [loss.federated] table out"));
        }
        if let Some(FederatedConfig { power, .. }) = self.federated {
            within(format!("{key}.federated.power"), power, 0.0..=10.0)?;
        }
        Ok(())
    }

    pub(crate) fn warnings(&self, key: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.class == 0.0 {
            warnings.push(format!("{key}.class is 0: classes are not learned"));
        }
        if self.l1 == 0.0 && self.giou == 0.0 {
            warnings.push(format!("{key}.l1 and {key}.giou are 0: boxes are not learned"));
        }
        if [0.0, 1.0].contains(&self.focal_alpha) {
            let side = if self.focal_alpha == 0.0 { "objects" } else { "background" };
            warnings.push(format!(
                "{key}.focal_alpha is {}: the class terms pass over all {side}",
                self.focal_alpha
            ));
        }
        warnings
    }
}
