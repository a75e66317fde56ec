//! ConvNeXts under the names of Meta's code, timm, torchvision, mmdetection and Hugging Face.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{CLASSIFIER, Names, Place, count, side};
use crate::models::backbone::{ConvnextConfig, ConvnextName};

/// Our name for a file's; none if it is not known.
pub(super) fn place(names: Names, name: &[&str]) -> Option<Place> {
    if let ["norm" | "head" | "layernorm" | "classifier", ..] = name {
        return Some(CLASSIFIER);
    }
    match names {
        Names::Official => None,
        Names::Timm => timm(name),
        Names::Torchvision => torchvision(name),
        Names::Mmdet => mmdet(name),
        Names::HuggingFace => hugging_face(name),
    }
}

fn timm(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["stem", rest @ ..] => format!("downsample_layers.0.{}", rest.join(".")),
        ["stages", stage, "downsample", rest @ ..] => {
            format!("downsample_layers.{stage}.{}", rest.join("."))
        }
        ["stages", stage, "blocks", block, rest @ ..] => {
            let rest = match rest {
                ["conv_dw", kind] => format!("dwconv.{kind}"),
                ["mlp", "fc1", kind] => format!("pwconv1.{kind}"),
                ["mlp", "fc2", kind] => format!("pwconv2.{kind}"),
                ["mlp", "grn", "weight"] => "grn.gamma".to_owned(),
                ["mlp", "grn", "bias"] => "grn.beta".to_owned(),
                other => other.join("."),
            };
            format!("stages.{stage}.{block}.{rest}")
        }
        _ => return None,
    };
    Some(Place::Is(own))
}

fn torchvision(name: &[&str]) -> Option<Place> {
    let ["features", i, rest @ ..] = name else { return None };
    let i = i.parse::<u32>().ok()?;
    let own = match rest {
        [block, "layer_scale"] => format!("stages.{}.{block}.gamma", i / 2),
        [block, "block", part, kind] => {
            let part = match *part {
                "0" => "dwconv",
                "2" => "norm",
                "3" => "pwconv1",
                "5" => "pwconv2",
                _ => return None,
            };
            format!("stages.{}.{block}.{part}.{kind}", i / 2)
        }
        [part, kind] => format!("downsample_layers.{}.{part}.{kind}", i / 2),
        _ => return None,
    };
    Some(Place::Is(own))
}

fn mmdet(name: &[&str]) -> Option<Place> {
    let ["stages", stage, block, rest @ ..] = name else { return None };
    let rest = match rest {
        ["depthwise_conv", kind] => format!("dwconv.{kind}"),
        ["pointwise_conv1", kind] => format!("pwconv1.{kind}"),
        ["pointwise_conv2", kind] => format!("pwconv2.{kind}"),
        other => other.join("."),
    };
    Some(Place::Is(format!("stages.{stage}.{block}.{rest}")))
}

fn hugging_face(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["embeddings", "patch_embeddings", kind] => format!("downsample_layers.0.0.{kind}"),
        ["embeddings", "layernorm", kind] => format!("downsample_layers.0.1.{kind}"),
        ["hidden_states_norms", stage, kind] => {
            let stage = stage.strip_prefix("stage")?.parse::<u32>().ok()?.checked_sub(1)?;
            format!("norm{stage}.{kind}")
        }
        ["encoder", "stages", stage, "downsampling_layer", part, kind] => {
            format!("downsample_layers.{stage}.{part}.{kind}")
        }
        ["encoder", "stages", stage, "layers", block, rest @ ..] => {
            let rest = match rest {
                ["layernorm", kind] => format!("norm.{kind}"),
                ["layer_scale_parameter"] => "gamma".to_owned(),
                ["grn", "weight"] => "grn.gamma".to_owned(),
                ["grn", "bias"] => "grn.beta".to_owned(),
                other => other.join("."),
            };
            format!("stages.{stage}.{block}.{rest}")
        }
        _ => return None,
    };
    Some(Place::Is(own))
}

/// The same values in the shape that ours have: 1×1 convolutions as matrices, layer scale as a vector.
pub(super) fn turned(own: &str, tensor: Tensor) -> Tensor {
    let size = tensor.size();
    match (own.rsplit('.').nth(1), &size[..]) {
        (Some("pwconv1" | "pwconv2"), &[out, input, 1, 1]) => tensor.reshape([out, input]),
        (Some("grn"), &[c]) => tensor.reshape([1, 1, 1, c]),
        (_, &[c, 1, 1]) if own.ends_with(".gamma") => tensor.reshape([c]),
        _ => tensor,
    }
}

/// Sizes, of tensors under our names.
pub(super) fn config(tensors: &BTreeMap<String, Tensor>) -> Option<ConvnextConfig> {
    let width = side(tensors, "downsample_layers.0.0.weight", 0)?;
    let layers: Vec<i64> =
        (0..4).map(|stage| count(tensors, &format!("stages.{stage}."))).collect();
    let v2 = tensors.contains_key("stages.0.0.grn.gamma");
    let published = |name: &&ConvnextName| {
        name.width() == width && name.blocks() == *layers && name.is_v2() == v2
    };
    let known = ConvnextName::ALL.iter().find(published).copied();
    let other = if v2 { ConvnextName::ConvnextV2T } else { ConvnextName::ConvnextT };
    let name = known.unwrap_or(other);
    Some(ConvnextConfig {
        name,
        width: (width != name.width()).then_some(width),
        layers: if *layers == name.blocks() { Vec::new() } else { layers },
        ..ConvnextConfig::default()
    })
}
