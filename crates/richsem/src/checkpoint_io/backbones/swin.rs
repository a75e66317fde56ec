//! Swin Transformers under the names of Microsoft's code, timm, torchvision, mmdetection and Hugging Face.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{CLASSIFIER, Names, Place, count, side};
use crate::models::backbone::{SwinConfig, SwinName};

const COMPUTED: Place = Place::Left("follows from the sizes");

/// timm's names since 0.9 and Microsoft's differ in merges alone: whether the last stage has one.
pub(super) fn is_timm(tensors: &BTreeMap<String, Tensor>) -> bool {
    tensors.contains_key("layers.3.downsample.reduction.weight")
}

/// Our name for a file's; none if it is not known.
pub(super) fn place(names: Names, name: &[&str]) -> Option<Place> {
    match name {
        [.., "relative_position_index" | "attn_mask"] => return Some(COMPUTED),
        ["norm" | "head" | "layernorm" | "classifier" | "pooler", ..] => return Some(CLASSIFIER),
        _ => {}
    }
    match names {
        Names::Official => None,
        Names::Timm => timm(name),
        Names::Torchvision => torchvision(name),
        Names::Mmdet => mmdet(name),
        Names::HuggingFace => hugging_face(name),
    }
}

/// mmdetection has the four neighbours of a channel side by side, and the second and third the other way
/// round; Microsoft's code has all channels of a neighbour side by side.
pub(super) fn turned(names: Names, own: &str, tensor: Tensor) -> Tensor {
    let size = tensor.size();
    let Some(&columns) = size.last().filter(|columns| **columns % 4 == 0) else { return tensor };
    if names != Names::Mmdet || !own.contains(".downsample.") {
        return tensor;
    }
    let order = Tensor::from_slice(&[0i64, 2, 1, 3]);
    let neighbours = tensor.reshape([-1, columns / 4, 4]).index_select(2, &order);
    neighbours.transpose(1, 2).reshape(size)
}

fn timm(name: &[&str]) -> Option<Place> {
    let ["layers", stage, "downsample", rest @ ..] = name else { return None };
    let before = stage.parse::<u32>().ok()?.checked_sub(1)?;
    Some(Place::Is(format!("layers.{before}.downsample.{}", rest.join("."))))
}

fn torchvision(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["features", "0", "0", kind] => format!("patch_embed.proj.{kind}"),
        ["features", "0", "2", kind] => format!("patch_embed.norm.{kind}"),
        ["features", i, rest @ ..] => {
            let i = i.parse::<u32>().ok()?;
            match rest {
                [part @ ("norm" | "reduction"), kind] if i >= 2 => {
                    format!("layers.{}.downsample.{part}.{kind}", i / 2 - 1)
                }
                [block, "mlp", layer @ ("0" | "3"), kind] => {
                    let layer = if *layer == "0" { "fc1" } else { "fc2" };
                    format!("layers.{}.blocks.{block}.mlp.{layer}.{kind}", i / 2)
                }
                [block, rest @ ..] => format!("layers.{}.blocks.{block}.{}", i / 2, rest.join(".")),
                [] => return None,
            }
        }
        _ => return None,
    };
    Some(Place::Is(own))
}

fn mmdet(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["patch_embed", "projection", kind] => format!("patch_embed.proj.{kind}"),
        ["stages", stage, "blocks", block, rest @ ..] => {
            let rest = match rest {
                ["attn", "w_msa", rest @ ..] => format!("attn.{}", rest.join(".")),
                ["ffn", "layers", "0", "0", kind] => format!("mlp.fc1.{kind}"),
                ["ffn", "layers", "1", kind] => format!("mlp.fc2.{kind}"),
                other => other.join("."),
            };
            format!("layers.{stage}.blocks.{block}.{rest}")
        }
        ["stages", rest @ ..] => format!("layers.{}", rest.join(".")),
        _ => return None,
    };
    Some(Place::Is(own))
}

fn hugging_face(name: &[&str]) -> Option<Place> {
    let own = match name {
        // Of a backbone's file the last norm alone keeps the model's prefix.
        ["swin", "layernorm", ..] => return Some(CLASSIFIER),
        ["embeddings", "mask_token"] => return Some(Place::Left("of pretraining")),
        ["embeddings", "patch_embeddings", "projection", kind] => {
            format!("patch_embed.proj.{kind}")
        }
        ["embeddings", "norm", kind] => format!("patch_embed.norm.{kind}"),
        ["hidden_states_norms", stage, kind] => {
            let stage = stage.strip_prefix("stage")?.parse::<u32>().ok()?.checked_sub(1)?;
            format!("norm{stage}.{kind}")
        }
        ["encoder", "layers", stage, "blocks", block, rest @ ..] => {
            let block = format!("layers.{stage}.blocks.{block}");
            match rest {
                ["attention", "self", part @ ("query" | "key" | "value"), kind] => {
                    let i = ["query", "key", "value"].iter().position(|p| p == part)?;
                    return Some(Place::Part(format!("{block}.attn.qkv.{kind}"), i, 3));
                }
                ["attention", "self", "relative_position_bias_table"] => {
                    format!("{block}.attn.relative_position_bias_table")
                }
                ["attention", "output", "dense", kind] => format!("{block}.attn.proj.{kind}"),
                ["intermediate", "dense", kind] => format!("{block}.mlp.fc1.{kind}"),
                ["output", "dense", kind] => format!("{block}.mlp.fc2.{kind}"),
                ["layernorm_before", kind] => format!("{block}.norm1.{kind}"),
                ["layernorm_after", kind] => format!("{block}.norm2.{kind}"),
                _ => return None,
            }
        }
        ["encoder", rest @ ..] => rest.join("."),
        _ => return None,
    };
    Some(Place::Is(own))
}

/// Sizes, of tensors under our names.
pub(super) fn config(tensors: &BTreeMap<String, Tensor>) -> Option<SwinConfig> {
    let width = side(tensors, "patch_embed.proj.weight", 0)?;
    let layers: Vec<i64> =
        (0..4).map(|stage| count(tensors, &format!("layers.{stage}.blocks."))).collect();
    let table = "layers.0.blocks.0.attn.relative_position_bias_table";
    let (rows, heads) = (side(tensors, table, 0)?, side(tensors, table, 1)?);
    let offsets = rows.isqrt();
    if offsets * offsets != rows || offsets % 2 == 0 || width % heads != 0 {
        return None;
    }
    let published = |name: &&SwinName| name.width() == width && name.blocks() == *layers;
    let known = SwinName::ALL.iter().find(published).copied();
    let name = known.unwrap_or(SwinName::SwinT);
    let window = (offsets + 1) / 2;
    Some(SwinConfig {
        name,
        window: (window != name.window()).then_some(window),
        width: (width != name.width()).then_some(width),
        layers: if *layers == name.blocks() { Vec::new() } else { layers },
        head_width: width / heads,
        ..SwinConfig::default()
    })
}
