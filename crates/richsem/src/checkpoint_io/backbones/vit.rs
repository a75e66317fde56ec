//! ViTDet under the names of detectron2 and Hugging Face, and vision transformers of MAE, from which it starts.

use std::collections::BTreeMap;

use tch::Tensor;

use super::{CLASSIFIER, Names, Place, count, side};
use crate::models::backbone::{VitConfig, VitName};

/// Our name for a file's; none if it is not known.
pub(super) fn place(names: Names, name: &[&str]) -> Option<Place> {
    match names {
        Names::Timm => mae(name),
        Names::HuggingFace => hugging_face(name),
        Names::Official | Names::Torchvision | Names::Mmdet => None,
    }
}

fn mae(name: &[&str]) -> Option<Place> {
    match name {
        ["norm" | "fc_norm" | "head", ..] => Some(CLASSIFIER),
        ["cls_token"] => Some(Place::Left("the class token, which a detector does not have")),
        ["mask_token"] => Some(Place::Left("of pretraining")),
        [first, ..] if first.starts_with("decoder_") => Some(Place::Left("of pretraining")),
        ["pos_embed" | "patch_embed" | "blocks", ..] => {
            Some(Place::Is(format!("net.{}", name.join("."))))
        }
        _ => None,
    }
}

fn hugging_face(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["embeddings", "position_embeddings"] => "net.pos_embed".to_owned(),
        ["embeddings", "projection", kind] => format!("net.patch_embed.proj.{kind}"),
        ["encoder", "layer", block, "attention", rest @ ..] => {
            format!("net.blocks.{block}.attn.{}", rest.join("."))
        }
        ["encoder", "layer", block, rest @ ..] => {
            format!("net.blocks.{block}.{}", rest.join("."))
        }
        _ => return None,
    };
    Some(Place::Is(own))
}

/// Whether such a parameter is one that pretraining does not have.
pub(super) fn is_new(name: &str) -> bool {
    name.starts_with("simfp_") || name.ends_with(".rel_pos_h") || name.ends_with(".rel_pos_w")
}

/// Sizes, of tensors under our names. What no tensor tells is as published.
pub(super) fn config(tensors: &BTreeMap<String, Tensor>) -> Option<VitConfig> {
    let width = side(tensors, "net.patch_embed.proj.weight", 0)?;
    let depth = count(tensors, "net.blocks.");
    let plain = VitConfig::default();
    let table = |block: i64| format!("net.blocks.{block}.attn.rel_pos_h");
    let places: Vec<i64> = (0..depth)
        .filter_map(|block| side(tensors, &table(block), 0))
        .map(|places| (places + 1) / 2)
        .collect();
    let published = |name: &&VitName| name.sizes()[..2] == [width, depth];
    let known = VitName::ALL.iter().find(published).copied();
    let heads = match (side(tensors, &table(0), 1), known) {
        (Some(each), _) => width / each,
        (None, Some(name)) => name.sizes()[2],
        // As wide as those of every published one.
        (None, None) => (width / 64).max(1),
    };
    let name = known.unwrap_or(VitName::VitdetB);
    let window = places.iter().copied().min().unwrap_or(plain.window);
    let global: Vec<i64> = match places.len() as i64 == depth {
        true => (0..depth).filter(|&block| places[block as usize] != window).collect(),
        false => Vec::new(),
    };
    let positions = side(tensors, "net.pos_embed", 1)? - 1;
    let [own_width, own_depth, own_heads] = name.sizes();
    let mut config = VitConfig {
        name,
        width: (width != own_width).then_some(width),
        depth: (depth != own_depth).then_some(depth),
        heads: (heads != own_heads).then_some(heads),
        window,
        position_grid: positions.max(1).isqrt(),
        relative_grid: places.iter().copied().max().unwrap_or(plain.relative_grid),
        pyramid_width: side(tensors, "simfp_4.0.weight", 0).unwrap_or(plain.pyramid_width),
        ..plain
    };
    if !places.is_empty() && global != config.global_blocks() {
        config.global_blocks = Some(global);
    }
    Some(config)
}
