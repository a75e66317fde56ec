//! Settings of the training objective.

use serde::{Deserialize, Serialize};

use super::federated::FederatedConfig;
use crate::{
    bounds::{WEIGHT, within},
    error::{Error, Result},
};

/// What counts for a class of which an image says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownClasses {
    /// The class counts as absent, as in the reference.
    Negative,
    /// The class has no loss in that image. In LVIS these are the classes that are neither
    /// annotated nor verified.
    Ignore,
}

/// Weights of the costs by which queries are matched to boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MatcherConfig {
    /// Weight of the class cost (focal). Default: 2; 0 to 10,000. Reference: `set_cost_class`.
    pub class: f64,
    /// Weight of the L1 distance of the boxes. Default: 5; 0 to 10,000. Reference: `set_cost_bbox`.
    pub l1: f64,
    /// Weight of the generalised IoU, which counts negatively. Default: 2; 0 to 10,000. Reference:
    /// `set_cost_giou`.
    pub giou: f64,
}

impl Default for MatcherConfig {
    fn default() -> Self {
        Self { class: 2.0, l1: 5.0, giou: 2.0 }
    }
}

/// Weights of Faster R-CNN's loss terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FasterRcnnLossConfig {
    /// Weight of the proposal network's class loss. Default: 1; 0 to 10,000.
    pub rpn_class: f64,
    /// Weight of the proposal network's box loss. Default: 1; 0 to 10,000.
    pub rpn_bbox: f64,
    /// Weight of the class loss of each stage. Default: 1; 0 to 10,000.
    pub class: f64,
    /// Weight of the box loss of each stage. Default: 1; 0 to 10,000.
    pub bbox: f64,
}

impl Default for FasterRcnnLossConfig {
    fn default() -> Self {
        Self { rpn_class: 1.0, rpn_bbox: 1.0, class: 1.0, bbox: 1.0 }
    }
}

/// Weights of the loss terms, and variants of the loss. What is not in `faster_rcnn` is DINO's, but for
/// `federated` and `unknown_classes`, which both have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Weight of the class loss (focal). Default: 1; 0 to 10,000. Reference: `cls_loss_coef`.
    pub class: f64,
    /// Weight of the boxes' L1 loss. Default: 5; 0 to 10,000. Reference: `bbox_loss_coef`.
    pub l1: f64,
    /// Weight of the boxes' GIoU loss. Default: 2; 0 to 10,000. Reference: `giou_loss_coef`.
    pub giou: f64,
    /// Factor on all losses of the encoder's proposals, besides the weights above. Default: 1; 0 to
    /// 10,000. Reference: `interm_loss_coef`.
    pub interm: f64,
    /// Weight of positives in the focal loss; negatives have 1 minus it. Default: 0.25; 0 to 1.
    /// Reference: `focal_alpha`.
    pub focal_alpha: f64,
    /// Exponent of the focal loss: how much less easy examples count. Default: 2; 0 to 10. The
    /// reference has 2 in its code.
    pub focal_gamma: f64,
    /// Weights of the costs by which queries are matched to boxes.
    pub matcher: MatcherConfig,
    /// Federated loss: each class loss looks at a sample of the classes. Default: none; then all
    /// classes count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federated: Option<FederatedConfig>,
    /// Whether a class of which an image says nothing counts as absent there: `negative` (the
    /// default) or `ignore`.
    pub unknown_classes: UnknownClasses,
    /// Weights of Faster R-CNN's loss terms.
    pub faster_rcnn: FasterRcnnLossConfig,
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
            faster_rcnn: FasterRcnnLossConfig::default(),
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
            ("faster_rcnn.rpn_class", self.faster_rcnn.rpn_class, WEIGHT),
            ("faster_rcnn.rpn_bbox", self.faster_rcnn.rpn_bbox, WEIGHT),
            ("faster_rcnn.class", self.faster_rcnn.class, WEIGHT),
            ("faster_rcnn.bbox", self.faster_rcnn.bbox, WEIGHT),
            ("focal_alpha", self.focal_alpha, 0.0..=1.0),
            ("focal_gamma", self.focal_gamma, 0.0..=10.0),
        ] {
            within(format!("{key}.{name}"), value, range)?;
        }
        if [class, l1, giou] == [0.0; 3] {
            let problem = "expected class, l1 or giou above 0, got 0 for all three: there is nothing to learn";
            return Err(Error::config(format!("{key}.class"), problem));
        }
        if [matcher.class, matcher.l1, matcher.giou] == [0.0; 3] {
            let problem = "expected class, l1 or giou above 0, got 0 for all three: all matchings cost the same";
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
                "{key}.focal_alpha is {}: the class loss ignores all {side}",
                self.focal_alpha
            ));
        }
        warnings
    }
}
