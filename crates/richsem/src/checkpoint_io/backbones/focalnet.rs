//! FocalNets under the names of Microsoft's code, timm and Hugging Face.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{CLASSIFIER, Names, Place, count, side};
use crate::models::backbone::{FocalnetConfig, FocalnetName};

/// timm's names and Microsoft's differ in a few parts, the stem among them.
pub(super) fn is_timm(tensors: &BTreeMap<String, Tensor>) -> bool {
    tensors.contains_key("stem.proj.weight")
}

/// Our name for a file's; none if it is not known.
pub(super) fn place(names: Names, name: &[&str]) -> Option<Place> {
    if let ["norm" | "head" | "layernorm" | "classifier", ..] = name {
        return Some(CLASSIFIER);
    }
    match names {
        Names::Timm => timm(name),
        Names::HuggingFace => hugging_face(name),
        Names::Official | Names::Torchvision | Names::Mmdet => None,
    }
}

fn timm(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["stem", rest @ ..] => format!("patch_embed.{}", rest.join(".")),
        ["layers", stage, "downsample", rest @ ..] => {
            let before = stage.parse::<u32>().ok()?.checked_sub(1)?;
            format!("layers.{before}.downsample.{}", rest.join("."))
        }
        ["layers", stage, "blocks", block, rest @ ..] => {
            let rest = match rest {
                ["ls1", "gamma"] => "gamma_1".to_owned(),
                ["ls2", "gamma"] => "gamma_2".to_owned(),
                ["norm1_post", kind] => format!("norm1.{kind}"),
                ["norm2_post", kind] => format!("norm2.{kind}"),
                ["modulation", "norm", kind] => format!("modulation.ln.{kind}"),
                other => other.join("."),
            };
            format!("layers.{stage}.blocks.{block}.{rest}")
        }
        _ => return None,
    };
    Some(Place::Is(own))
}

fn hugging_face(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["embeddings", "mask_token"] => return Some(Place::Left("of pretraining")),
        ["embeddings", "patch_embeddings", "projection", kind] => {
            format!("patch_embed.proj.{kind}")
        }
        ["embeddings", "norm", kind] => format!("patch_embed.norm.{kind}"),
        ["encoder", "stages", stage, "downsample", part, kind] => {
            let part = if *part == "projection" { "proj" } else { part };
            format!("layers.{stage}.downsample.{part}.{kind}")
        }
        ["encoder", "stages", stage, "layers", block, rest @ ..] => {
            let rest = match rest {
                ["modulation", "projection_in", kind] => format!("modulation.f.{kind}"),
                ["modulation", "projection_context", kind] => format!("modulation.h.{kind}"),
                ["modulation", "projection_out", kind] => format!("modulation.proj.{kind}"),
                ["modulation", "layernorm", kind] => format!("modulation.ln.{kind}"),
                other => other.join("."),
            };
            format!("layers.{stage}.blocks.{block}.{rest}")
        }
        _ => return None,
    };
    Some(Place::Is(own))
}

/// timm has 1×1 convolutions where ours are matrices.
pub(super) fn turned(own: &str, tensor: Tensor) -> Tensor {
    let of = own.strip_suffix(".weight").and_then(|own| own.rsplit('.').next());
    match (of, &tensor.size()[..]) {
        (Some("f" | "proj" | "fc1" | "fc2"), &[out, input, 1, 1]) => tensor.reshape([out, input]),
        _ => tensor,
    }
}

/// Puts the kernels of a narrower model in the middle of those that a wider one has, zeros around: so the
/// reference's detectors start.
pub(super) fn widen(tensors: &mut BTreeMap<String, Tensor>, config: &FocalnetConfig) {
    for (name, tensor) in tensors {
        let Some((_, layer)) = name.split_once(".modulation.focal_layers.") else { continue };
        let level = layer.split('.').next().and_then(|level| level.parse::<i64>().ok());
        let (Some(level), &[_, 1, h, w]) = (level, &tensor.size()[..]) else { continue };
        let around = (config.focal_window() + 2 * level - h) / 2;
        if h == w && h % 2 == 1 && around > 0 {
            *tensor = tensor.constant_pad_nd([around; 4]);
        }
    }
}

/// Sizes, of tensors under our names.
pub(super) fn config(tensors: &BTreeMap<String, Tensor>) -> Option<FocalnetConfig> {
    let width = side(tensors, "patch_embed.proj.weight", 0)?;
    let layers: Vec<i64> =
        (0..4).map(|stage| count(tensors, &format!("layers.{stage}.blocks."))).collect();
    let first = "layers.0.blocks.0";
    let has = |name: &str| tensors.contains_key(&format!("{first}.{name}"));
    let published = |name: &&FocalnetName| name.width() == width && name.blocks() == *layers;
    let known = FocalnetName::ALL.iter().find(published).copied();
    // Of other sizes: one of its form.
    let name = known.unwrap_or(match (has("modulation.ln.weight"), has("gamma_1")) {
        (true, _) => FocalnetName::FocalnetH,
        (false, true) => FocalnetName::FocalnetL,
        (false, false) => FocalnetName::FocalnetT,
    });
    let focal_levels = count(tensors, &format!("{first}.modulation.focal_layers."));
    let kernel = format!("{first}.modulation.focal_layers.0.0.weight");
    let config = FocalnetConfig {
        name,
        focal_levels: Some(focal_levels),
        focal_window: Some(side(tensors, &kernel, 2)?),
        width: (width != name.width()).then_some(width),
        layers: if *layers == name.blocks() { Vec::new() } else { layers },
        ..FocalnetConfig::default()
    };
    let plain = FocalnetConfig { focal_levels: None, focal_window: None, ..config.clone() };
    let focal_levels = config.focal_levels.filter(|&own| own != plain.focal_levels());
    let window = FocalnetConfig { focal_levels, ..plain }.focal_window();
    Some(FocalnetConfig {
        focal_levels,
        focal_window: config.focal_window.filter(|&own| own != window),
        ..config
    })
}
