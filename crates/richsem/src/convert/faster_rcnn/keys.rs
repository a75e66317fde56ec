//! Names of torchvision's and detectron2's Faster R-CNN, and ours, which are torchvision's.

/// Whose names a checkpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `torchvision.models.detection`.
    Torchvision,
    /// detectron2 and what is made with it, as Detic.
    Detectron2,
    /// The names of Caffe2 in the older files of detectron2's model zoo.
    Caffe2,
}

impl Origin {
    /// What messages call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchvision => "torchvision",
            Self::Detectron2 => "detectron2",
            Self::Caffe2 => "detectron2's older model zoo",
        }
    }

    /// By the names of a checkpoint; none if it is no Faster R-CNN with a feature pyramid.
    pub(in crate::convert) fn of<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<Self> {
        names.find_map(|name| match name {
            "rpn.head.cls_logits.weight" => Some(Self::Torchvision),
            "proposal_generator.rpn_head.objectness_logits.weight" => Some(Self::Detectron2),
            "conv_rpn_fpn2_w" => Some(Self::Caffe2),
            _ => None,
        })
    }
}

/// What a name of a checkpoint is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A parameter or buffer of the detector, by our name.
    Parameter(String),
    /// The text of the classes, as Detic keeps it in each stage: columns of length one, then one of zeros.
    Text,
    /// Not needed; why.
    Left(&'static str),
    /// Nothing that is known.
    Unknown,
}

/// Whether a name is of proposals that are not those of a region proposal network: CenterNet2's, which Detic's
/// released models have.
pub(in crate::convert) fn is_centernet(name: &str) -> bool {
    name.starts_with("proposal_generator.centernet_head.")
}

/// Whether a name is that of the classes' text.
fn is_text(name: &str) -> bool {
    name.starts_with("roi_heads.box_predictor.") && name.ends_with(".cls_score.zs_weight")
}

/// What a name of a checkpoint of that origin is here.
pub(super) fn place(origin: Origin, name: &str) -> Place {
    if name.ends_with("num_batches_tracked") {
        return Place::Left("counts batches");
    }
    for (part, why) in [
        ("roi_heads.mask", "masks, which this program does not find"),
        ("roi_heads.keypoint", "keypoints, which this program does not find"),
        ("proposal_generator.anchor_generator.", "anchors, which the settings say"),
        ("pixel_mean", "the settings say it"),
        ("pixel_std", "the settings say it"),
    ] {
        if name.starts_with(part) {
            return Place::Left(why);
        }
    }
    if is_text(name) {
        return Place::Text;
    }
    let ours = match origin {
        Origin::Torchvision => Some(of_torchvision(name)),
        Origin::Detectron2 => of_detectron2(name),
        Origin::Caffe2 if name.ends_with("_momentum") || !name.contains('_') => {
            return Place::Left("the optimizer's");
        }
        Origin::Caffe2 => of_caffe2(name).and_then(|name| of_detectron2(&name)),
    };
    ours.map_or(Place::Unknown, Place::Parameter)
}

/// Since 0.14 convolutions lie in a sequence of their own.
fn of_torchvision(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["backbone", "fpn", list @ ("inner_blocks" | "layer_blocks"), level, leaf] => {
            format!("backbone.fpn.{list}.{level}.0.{leaf}")
        }
        ["rpn", "head", "conv", leaf] => format!("rpn.head.conv.0.0.{leaf}"),
        _ => name.to_owned(),
    }
}

fn of_detectron2(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    Some(match parts[..] {
        ["backbone", "bottom_up", ref rest @ ..] => format!("backbone.body.{}", of_trunk(rest)?),
        ["backbone", block, leaf] => {
            let (list, level) =
                match (block.strip_prefix("fpn_lateral"), block.strip_prefix("fpn_output")) {
                    (Some(level), _) => ("inner_blocks", level),
                    (_, Some(level)) => ("layer_blocks", level),
                    _ => return None,
                };
            let level = level.parse::<usize>().ok()?.checked_sub(2)?;
            format!("backbone.fpn.{list}.{level}.0.{leaf}")
        }
        ["proposal_generator", "rpn_head", part, leaf] => {
            let part = match part {
                "conv" => "conv.0.0",
                "objectness_logits" => "cls_logits",
                "anchor_deltas" => "bbox_pred",
                _ => return None,
            };
            format!("rpn.head.{part}.{leaf}")
        }
        ["roi_heads", "box_head", ref rest @ ..] => {
            let renamed = rest.iter().map(|part| match *part {
                "fc1" => "fc6",
                "fc2" => "fc7",
                other => other,
            });
            format!("roi_heads.box_head.{}", renamed.collect::<Vec<_>>().join("."))
        }
        ["roi_heads", "box_predictor", ..] => name.to_owned(),
        _ => return None,
    })
}

/// Names of detectron2's ResNet, behind `bottom_up`, as torchvision's.
fn of_trunk(parts: &[&str]) -> Option<String> {
    let (block, rest) = match parts {
        ["stem", rest @ ..] => (String::new(), rest),
        [stage, block, rest @ ..] => {
            let stage: usize = stage.strip_prefix("res")?.parse().ok()?;
            (format!("layer{}.{block}.", stage.checked_sub(1)?), rest)
        }
        _ => return None,
    };
    let own = match *rest {
        ["shortcut", leaf] => format!("downsample.0.{leaf}"),
        ["shortcut", "norm", leaf] => format!("downsample.1.{leaf}"),
        [conv, leaf] => format!("{conv}.{leaf}"),
        [conv, "norm", leaf] => format!("bn{}.{leaf}", conv.strip_prefix("conv")?),
        _ => return None,
    };
    Some(block + &own)
}

/// The name of one of our parameters in a checkpoint of that origin.
pub(super) fn theirs(origin: Origin, name: &str) -> String {
    if origin == Origin::Torchvision {
        return name.to_owned();
    }
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["backbone", "body", ref rest @ ..] => {
            let (stage, rest) = match rest {
                [stage, block, rest @ ..] if stage.starts_with("layer") => {
                    let stage = stage.trim_start_matches("layer").parse::<usize>().unwrap_or(0);
                    (format!("res{}.{block}", stage + 1), rest)
                }
                rest => ("stem".to_owned(), rest),
            };
            let own = match *rest {
                ["downsample", "0", leaf] => format!("shortcut.{leaf}"),
                ["downsample", "1", leaf] => format!("shortcut.norm.{leaf}"),
                [norm, leaf] if norm.starts_with("bn") => {
                    format!("conv{}.norm.{leaf}", norm.trim_start_matches("bn"))
                }
                _ => rest.join("."),
            };
            format!("backbone.bottom_up.{stage}.{own}")
        }
        ["backbone", "fpn", list, level, "0", leaf] => {
            let list = if list == "inner_blocks" { "fpn_lateral" } else { "fpn_output" };
            format!("backbone.{list}{}.{leaf}", level.parse::<usize>().unwrap_or(0) + 2)
        }
        ["rpn", "head", ref rest @ ..] => {
            let own = rest.join(".").replace("conv.0.0", "conv");
            let own = own.replace("cls_logits", "objectness_logits");
            format!("proposal_generator.rpn_head.{}", own.replace("bbox_pred", "anchor_deltas"))
        }
        _ => name.replace(".fc6.", ".fc1.").replace(".fc7.", ".fc2."),
    }
}

/// A name of Caffe2's, as in the model zoo's older `.pkl`, as detectron2's; none of what is no weight.
/// (detectron2's `checkpoint/c2_model_loading.py` says which is which.)
fn of_caffe2(name: &str) -> Option<String> {
    let (body, leaf) = match name.rsplit_once('_')? {
        (body, "w") => (body, "weight"),
        (body, "b") => (body, "bias"),
        (body, "s") => (body, "norm.weight"),
        _ => return None,
    };
    // `res2_0_branch2a_bn_s`: the norm's scale, `…_bn_b` its shift.
    let (body, leaf) = match (body.strip_suffix("_bn"), leaf) {
        (Some(body), "bias") => (body, "norm.bias"),
        (Some(body), "norm.weight") => (body, "norm.weight"),
        (None, "norm.weight") => return None,
        _ => (body, leaf),
    };
    let parts: Vec<&str> = body.split('_').collect();
    Some(match parts[..] {
        ["conv1"] | ["res", "conv1"] => format!("backbone.bottom_up.stem.conv1.{leaf}"),
        [stage, block, branch] if stage.starts_with("res") => {
            let conv = match branch {
                "branch1" => "shortcut",
                "branch2a" => "conv1",
                "branch2b" => "conv2",
                "branch2c" => "conv3",
                _ => return None,
            };
            format!("backbone.bottom_up.{stage}.{block}.{conv}.{leaf}")
        }
        // `fpn_inner_res4_5_sum_lateral`, of the last one `fpn_inner_res5_2_sum`.
        ["fpn", "inner", stage, ..] => {
            format!("backbone.fpn_lateral{}.{leaf}", stage.strip_prefix("res")?)
        }
        ["fpn", stage, _, "sum"] => {
            format!("backbone.fpn_output{}.{leaf}", stage.strip_prefix("res")?)
        }
        ["conv", "rpn", "fpn2"] => format!("proposal_generator.rpn_head.conv.{leaf}"),
        ["rpn", "cls", "logits", "fpn2"] => {
            format!("proposal_generator.rpn_head.objectness_logits.{leaf}")
        }
        ["rpn", "bbox", "pred", "fpn2"] => {
            format!("proposal_generator.rpn_head.anchor_deltas.{leaf}")
        }
        ["fc6"] => format!("roi_heads.box_head.fc1.{leaf}"),
        ["fc7"] => format!("roi_heads.box_head.fc2.{leaf}"),
        ["cls", "score"] => format!("roi_heads.box_predictor.cls_score.{leaf}"),
        ["bbox", "pred"] => format!("roi_heads.box_predictor.bbox_pred.{leaf}"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `docs/weights.md` and detectron2's own conversion (`tools/convert-torchvision-to-d2.py`).
    const PAIRS: [(&str, &str); 13] = [
        ("backbone.bottom_up.stem.conv1.weight", "backbone.body.conv1.weight"),
        ("backbone.bottom_up.stem.conv1.norm.running_mean", "backbone.body.bn1.running_mean"),
        ("backbone.bottom_up.res2.0.conv3.weight", "backbone.body.layer1.0.conv3.weight"),
        ("backbone.bottom_up.res5.2.conv2.norm.bias", "backbone.body.layer4.2.bn2.bias"),
        ("backbone.bottom_up.res3.0.shortcut.weight", "backbone.body.layer2.0.downsample.0.weight"),
        (
            "backbone.bottom_up.res3.0.shortcut.norm.weight",
            "backbone.body.layer2.0.downsample.1.weight",
        ),
        ("backbone.fpn_lateral2.weight", "backbone.fpn.inner_blocks.0.0.weight"),
        ("backbone.fpn_output5.bias", "backbone.fpn.layer_blocks.3.0.bias"),
        ("proposal_generator.rpn_head.conv.weight", "rpn.head.conv.0.0.weight"),
        ("proposal_generator.rpn_head.objectness_logits.bias", "rpn.head.cls_logits.bias"),
        ("proposal_generator.rpn_head.anchor_deltas.bias", "rpn.head.bbox_pred.bias"),
        ("roi_heads.box_head.2.fc1.weight", "roi_heads.box_head.2.fc6.weight"),
        (
            "roi_heads.box_predictor.cls_score.linear.weight",
            "roi_heads.box_predictor.cls_score.linear.weight",
        ),
    ];

    #[test]
    fn detectron2_names_go_there_and_back() {
        for (theirs_name, ours) in PAIRS {
            let place = place(Origin::Detectron2, theirs_name);
            assert_eq!(place, Place::Parameter(ours.into()), "{theirs_name}");
            assert_eq!(theirs(Origin::Detectron2, ours), theirs_name);
        }
        assert_eq!(
            place(Origin::Detectron2, "backbone.net.blocks.0.attn.qkv.weight"),
            Place::Unknown
        );
    }

    #[test]
    fn older_names_of_torchvision_are_known() {
        for (old, new) in [
            ("backbone.fpn.inner_blocks.0.weight", "backbone.fpn.inner_blocks.0.0.weight"),
            ("rpn.head.conv.bias", "rpn.head.conv.0.0.bias"),
            ("roi_heads.box_head.fc6.weight", "roi_heads.box_head.fc6.weight"),
        ] {
            assert_eq!(place(Origin::Torchvision, old), Place::Parameter(new.into()));
            assert_eq!(place(Origin::Torchvision, new), Place::Parameter(new.into()));
        }
    }

    #[test]
    fn caffe2_names_are_those_of_the_model_zoo() {
        for (old, new) in [
            ("conv1_w", "backbone.bottom_up.stem.conv1.weight"),
            ("res_conv1_bn_s", "backbone.bottom_up.stem.conv1.norm.weight"),
            ("res_conv1_bn_b", "backbone.bottom_up.stem.conv1.norm.bias"),
            ("res2_0_branch1_w", "backbone.bottom_up.res2.0.shortcut.weight"),
            ("res4_5_branch2c_bn_b", "backbone.bottom_up.res4.5.conv3.norm.bias"),
            ("fpn_inner_res2_2_sum_lateral_w", "backbone.fpn_lateral2.weight"),
            ("fpn_inner_res5_2_sum_b", "backbone.fpn_lateral5.bias"),
            ("fpn_res3_3_sum_w", "backbone.fpn_output3.weight"),
            ("conv_rpn_fpn2_w", "proposal_generator.rpn_head.conv.weight"),
            ("rpn_bbox_pred_fpn2_b", "proposal_generator.rpn_head.anchor_deltas.bias"),
            ("fc6_w", "roi_heads.box_head.fc1.weight"),
            ("cls_score_b", "roi_heads.box_predictor.cls_score.bias"),
        ] {
            assert_eq!(of_caffe2(old).as_deref(), Some(new), "{old}");
        }
        for text in ["box_predictor.cls_score.zs_weight", "box_predictor.2.cls_score.zs_weight"] {
            assert_eq!(place(Origin::Detectron2, &format!("roi_heads.{text}")), Place::Text);
        }
        for left in ["conv1_w_momentum", "fc1000_w_momentum", "lr"] {
            assert_eq!(place(Origin::Caffe2, left), Place::Left("the optimizer's"), "{left}");
        }
        assert_eq!(place(Origin::Caffe2, "mask_fcn_logits_w"), Place::Unknown);
    }
}
