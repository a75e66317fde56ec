//! Settings that only one family of detectors has: of another they are refused by name, and none is ignored.

use super::Config;
use crate::{
    error::{Error, Result},
    losses::{FasterRcnnLossConfig, LossConfig, UnknownClasses},
    models::{
        config::FamilyConfig,
        faster_rcnn::{Classifier, FasterRcnnConfig},
    },
    settings,
    targets::Supervision,
};

/// # Errors
/// The first setting outside of `[model]` that means nothing to the family.
pub(super) fn check(config: &Config) -> Result<()> {
    match &config.model.family {
        FamilyConfig::Dino(_) => dino(config),
        FamilyConfig::FasterRcnn(rcnn) => faster_rcnn(config, rcnn),
    }
}

fn dino(config: &Config) -> Result<()> {
    const ONLY: &str = "only Faster R-CNN has it, and the detector is a DINO";
    if config.loss.faster_rcnn != FasterRcnnLossConfig::default() {
        return Err(Error::config("loss.faster_rcnn", ONLY));
    }
    let usual = Supervision::default();
    for (name, extra) in &config.data.extra {
        let on = &extra.supervision;
        for (field, same) in [
            ("rpn", on.rpn == usual.rpn),
            ("ignore_inside", on.ignore_inside == usual.ignore_inside),
        ] {
            if !same {
                return Err(Error::config(format!("data.extra.{name}.supervision.{field}"), ONLY));
            }
        }
    }
    Ok(())
}

fn faster_rcnn(config: &Config, rcnn: &FasterRcnnConfig) -> Result<()> {
    const ONLY: &str = "only DINO has it, and the detector is a Faster R-CNN";
    let LossConfig { federated, unknown_classes, faster_rcnn, .. } = &config.loss;
    let usual = LossConfig {
        federated: federated.clone(),
        unknown_classes: *unknown_classes,
        faster_rcnn: faster_rcnn.clone(),
        ..LossConfig::default()
    };
    let (own, usual) = (settings::as_table(&config.loss), settings::as_table(&usual));
    if let Some((name, _)) = own.iter().find(|(name, value)| usual.get(*name) != Some(value)) {
        return Err(Error::config(format!("loss.{name}"), ONLY)
            .with_hint("the weights of its losses are in [loss.faster_rcnn]"));
    }
    if rcnn.classifier == Classifier::Softmax {
        let of_each = [
            ("loss.federated", federated.is_some()),
            ("loss.unknown_classes", *unknown_classes == UnknownClasses::Ignore),
        ];
        if let Some((key, _)) = of_each.iter().find(|(_, on)| *on) {
            let problem =
                "it leaves classes out, and softmax has one distribution over all of them";
            return Err(Error::config(*key, problem)
                .with_hint("set model.faster_rcnn.classifier = \"sigmoid\""));
        }
    }
    let usual = Supervision::default();
    for (name, extra) in &config.data.extra {
        let on = &extra.supervision;
        let key = |field: &str| format!("data.extra.{name}.supervision.{field}");
        if on.interm_exempt {
            return Err(Error::config(key("interm_exempt"), ONLY)
                .with_hint("its first stage has a switch of its own: rpn"));
        }
        if on.assignment != usual.assignment {
            return Err(Error::config(key("assignment"), ONLY));
        }
        if !on.giou {
            let problem = "Faster R-CNN has no GIoU loss to be switched off";
            return Err(Error::config(key("giou"), problem).with_hint("l1 is its box loss"));
        }
    }
    if config.semantic_branch().is_some_and(|semantic| semantic.aux_layers) {
        let problem = "a Faster R-CNN has no decoder layers: the branch sees its last stage";
        return Err(Error::config("semantic.aux_layers", problem).with_hint("leave it out"));
    }
    Ok(())
}
