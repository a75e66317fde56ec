//! Settings that contradict where a run starts from: told before training.

use super::{Config, OptimizerKind};
use crate::models::backbone::{BackboneConfig, Norm};

/// Share of `lr` below which an untrained backbone hardly learns.
const LEAST_RATE: f64 = 0.5;

/// Rates from which on training fails with an optimizer, and those that are usual, from and to. AdamW: DINO and DETR
/// take 1e-4, this program's small detectors from scratch 1e-3. SGD: detectron2 takes 0.02 for 16 images, 0.1 is
/// usual for classifiers.
fn usual_rates(optimizer: OptimizerKind) -> (&'static str, f64, [f64; 2]) {
    match optimizer {
        OptimizerKind::Adamw => ("AdamW", 5e-3, [1e-5, 1e-3]),
        OptimizerKind::Sgd => ("SGD", 0.3, [1e-3, 0.1]),
    }
}

/// A rate of 0, and the first one that is another optimizer's.
fn rates(config: &Config) -> Vec<String> {
    let train = &config.train;
    if train.lr == 0.0 {
        let what = match train.lr_backbone {
            0.0 => "nothing is learnt",
            _ => "nothing but the backbone learns",
        };
        return vec![format!("train.lr is 0: {what}")];
    }
    let (name, much, [from, to]) = usual_rates(train.optimizer);
    let told = |(key, rate): &(&str, f64)| {
        let other = match train.optimizer {
            OptimizerKind::Adamw if *rate <= 0.3 => {
                ". Such rates are SGD's (train.optimizer = \"sgd\")"
            }
            _ => "",
        };
        format!(
            "train.{key} is {rate}, far above what {name} takes: {from:e} to {to:e} is usual, and so fast the \
             detector hardly learns{other}"
        )
    };
    let rates = [("lr", train.lr), ("lr_backbone", train.lr_backbone)];
    rates.iter().find(|(_, rate)| *rate >= much).map(told).into_iter().collect()
}

/// What probably was not meant, each a sentence.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let (lr, lr_backbone) = (config.train.lr, config.train.lr_backbone);
    let key = config.model.family_key("backbone");
    let backbone = config.model.backbone();
    let mut warnings = rates(config);
    if config.init.is_some() || backbone.weights().is_some() {
        if lr_backbone > lr {
            warnings.push(format!(
                "train.lr_backbone is {lr_backbone:e}, more than train.lr ({lr:e}), and the backbone is \
                 trained already: it would forget what it knows. DINO takes a tenth of train.lr"
            ));
        }
        return warnings;
    }
    // At 0 it says itself that it does not learn.
    if lr_backbone > 0.0 && lr_backbone < LEAST_RATE * lr {
        warnings.push(format!(
            "train.lr_backbone is {lr_backbone:e}, {:.2} of train.lr, and the backbone has no weights to \
             start from: so slowly it hardly learns. Set train.lr_backbone = {lr:e}, or give \
             {key}.weights (`richsem weights` lists some) or init.weights",
            lr_backbone / lr
        ));
    }
    // Other backbones normalise each token by itself, and none of their stages is frozen by itself.
    let BackboneConfig::Resnet(resnet) = backbone else { return warnings };
    if resnet.norm == Norm::FrozenBn {
        warnings.push(format!(
            "{key}.norm is \"frozen_bn\", and the backbone has no weights to start from: it does not \
             normalise then. Set {key}.norm = \"group_norm\", or give {key}.weights"
        ));
    }
    if resnet.frozen_stages >= 0 {
        warnings.push(format!(
            "{key}.frozen_stages is {}, and the backbone has no weights to start from: those stages \
             stay random. Set {key}.frozen_stages = -1, or give {key}.weights",
            resnet.frozen_stages
        ));
    }
    warnings
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(assignments: &[&str]) -> Vec<String> {
        let assignments: Vec<String> = assignments.iter().map(|&a| a.to_owned()).collect();
        warnings(&Config::load_preset("tiny", &assignments).unwrap())
    }

    #[test]
    fn a_rate_of_another_optimizer_is_told() {
        for (assignments, says) in [
            (
                &["train.lr=0.01", "train.lr_backbone=0.01"][..],
                "far above what AdamW takes: 1e-5 to 1e-3",
            ),
            (&["train.lr_backbone=0.5"], "train.lr_backbone is 0.5"),
            (&["train.optimizer=sgd", "train.lr=0.5", "train.lr_backbone=0.5"], "what SGD takes"),
            (&["train.lr=0", "train.lr_backbone=0"], "train.lr is 0: nothing is learnt"),
            (&["train.lr=0"], "nothing but the backbone learns"),
        ] {
            let told = of(assignments).join("\n");
            assert!(told.contains(says), "{told}");
        }
        for fine in [
            &["train.optimizer=sgd", "train.lr=0.02", "train.lr_backbone=0.02"][..],
            &["train.lr=0.002", "train.lr_backbone=0.002"],
        ] {
            assert_eq!(of(fine), [""; 0]);
        }
        for preset in Config::presets() {
            let config = Config::load_preset(preset.name, &[]).unwrap();
            assert_eq!(rates(&config), [""; 0], "{}", preset.name);
        }
    }

    #[test]
    fn an_untrained_backbone_is_to_learn_and_a_trained_one_to_keep_what_it_knows() {
        assert!(of(&[]).is_empty());
        assert!(of(&["train.lr_backbone=0"]).is_empty());
        let slow = of(&["train.lr_backbone=1e-5"]).join("\n");
        assert!(slow.contains("hardly learns") && slow.contains("lr_backbone = 5e-4"), "{slow}");
        for trained in ["model.dino.backbone.weights=r.pth", "init.weights=d.safetensors"] {
            assert!(of(&["train.lr_backbone=1e-5", trained]).is_empty());
            assert!(of(&["train.lr_backbone=1e-3", trained]).join("").contains("forget"));
        }
        let frozen = of(&["model.dino.backbone={ name = \"resnet18\" }"]).join("\n");
        assert!(frozen.contains("frozen_bn") && frozen.contains("frozen_stages is 1"), "{frozen}");
    }
}
