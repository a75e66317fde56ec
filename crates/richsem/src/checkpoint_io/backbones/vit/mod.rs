//! Vision transformers under the names of their own code, detectron2, timm, OpenAI and Hugging Face: which one a
//! file holds, and its sizes.

mod names;

use std::collections::BTreeMap;

use tch::Tensor;

use super::{Layout, Names, count, side};
use crate::models::backbone::{VitConfig, VitFamily, VitName};

pub(super) use names::place;

/// Names of tensors that only such backbones have. Where positions are a table, other tensors tell the family
/// ([`refined`]). A name that ends in another one comes first.
pub(super) const SIGNS: [(&str, Layout); 10] = [
    ("net.pos_embed", Layout::Vit(VitFamily::Vitdet, Names::Official)),
    ("pos_embed", Layout::Vit(VitFamily::Vitdet, Names::Timm)),
    ("embeddings.position_embeddings", Layout::Vit(VitFamily::Vitdet, Names::HuggingFace)),
    ("net.cls_token", Layout::Vit(VitFamily::Dinov3, Names::Official)),
    ("storage_tokens", Layout::Vit(VitFamily::Dinov3, Names::Official)),
    ("reg_token", Layout::Vit(VitFamily::Dinov3, Names::Timm)),
    ("embeddings.register_tokens", Layout::Vit(VitFamily::Dinov3, Names::HuggingFace)),
    ("net.ln_pre.weight", Layout::Vit(VitFamily::Clip, Names::Official)),
    ("ln_pre.weight", Layout::Vit(VitFamily::Clip, Names::Official)),
    ("pre_layrnorm.weight", Layout::Vit(VitFamily::Clip, Names::HuggingFace)),
];

/// The family, and whose the names are, of a file with a table of positions.
pub(super) fn refined(names: Names, tensors: &BTreeMap<String, Tensor>) -> Layout {
    let has = |name: &str| tensors.contains_key(name);
    let (family, names) = match names {
        Names::HuggingFace if has("encoder.layer.0.layer_scale1.lambda1") => {
            (VitFamily::Dinov2, names)
        }
        Names::HuggingFace => (VitFamily::Vitdet, names),
        _ => {
            let net = if names == Names::Official { "net." } else { "" };
            let within = |name: &str| has(&format!("{net}blocks.0.{name}"));
            let gated = is_gated(tensors);
            let timm = |theirs: bool| match (names, theirs) {
                (Names::Timm, false) => Names::Official,
                _ => names,
            };
            if has("norm_pre.weight") || has("net.ln_pre.weight") {
                (VitFamily::Clip, names)
            } else if within("ls1.gamma") {
                (VitFamily::Dinov2, timm(has("reg_token")))
            } else if gated {
                let theirs = within("mlp.fc1_g.weight") || within("mlp.fc1.weight");
                (VitFamily::Eva02, timm(theirs))
            } else {
                (VitFamily::Vitdet, names)
            }
        }
    };
    Layout::Vit(family, names)
}

/// In words, as `DINOv2 with timm's names`.
pub(super) fn describe(family: VitFamily, names: Names) -> String {
    let what = match family {
        VitFamily::Vitdet => "ViTDet",
        VitFamily::Dinov2 => "DINOv2",
        VitFamily::Dinov3 => "DINOv3",
        VitFamily::Eva02 => "EVA-02",
        VitFamily::Clip => "CLIP's vision transformer",
    };
    match (family, names) {
        (VitFamily::Vitdet, Names::Official) => "ViTDet with detectron2's names".into(),
        (VitFamily::Vitdet, Names::Timm) => "a vision transformer with MAE's names".into(),
        (_, names) => format!("{what} with {} names", names.whose()),
    }
}

/// Whether MLPs are gated: by a name that only such have, or by a first layer of twice the features that the second
/// takes.
pub(super) fn is_gated(tensors: &BTreeMap<String, Tensor>) -> bool {
    let signs = ["w12", "w1", "fc1_g", "gate_proj", "weights_in"];
    tensors.keys().any(|name| {
        let Some(layer) = name.strip_suffix(".weight") else { return false };
        let Some((block, layer)) = layer.rsplit_once(".mlp.") else { return false };
        if layer != "fc1" {
            return signs.contains(&layer);
        }
        let second = side(tensors, &format!("{block}.mlp.fc2.weight"), 1);
        second.is_some_and(|features| side(tensors, name, 0) == Some(2 * features))
    })
}

/// Whether that part of a joined parameter may be missing: it is zero then.
pub(super) fn is_zero(family: VitFamily, own: &str, part: usize) -> bool {
    !family.key_bias() && own.ends_with(".attn.qkv.bias") && part == 1
}

/// A tensor as our parameter of that name has it: tokens and positions with an axis for images, a position for the
/// class token where the file has added it up, and no bias of keys where a mask hides it.
pub(super) fn turned(family: VitFamily, own: &str, tensor: Tensor) -> Tensor {
    let size = tensor.size();
    match (own, &*size) {
        ("net.cls_token", [width]) => tensor.view([1, 1, *width]),
        ("net.pos_embed", [_, _]) => turned(family, own, tensor.unsqueeze(0)),
        ("net.pos_embed", [1, count, width]) if count.isqrt().pow(2) == *count => Tensor::cat(
            &[Tensor::zeros([1, 1, *width], (tensor.kind(), tensor.device())), tensor],
            1,
        ),
        (own, [rows]) if is_zero(family, own, 1) && rows % 3 == 0 => {
            let parts = tensor.chunk(3, 0);
            Tensor::cat(&[&parts[0], &parts[1].zeros_like(), &parts[2]], 0)
        }
        _ => tensor,
    }
}

/// Whether such a parameter is one that pretraining does not have.
pub(super) fn is_new(name: &str) -> bool {
    name.starts_with("simfp_") || name.ends_with(".rel_pos_h") || name.ends_with(".rel_pos_w")
}

/// Sizes, of tensors under our names. What no tensor tells is as published.
pub(super) fn config(family: VitFamily, tensors: &BTreeMap<String, Tensor>) -> Option<VitConfig> {
    let width = side(tensors, "net.patch_embed.proj.weight", 0)?;
    let patch = side(tensors, "net.patch_embed.proj.weight", 3)?;
    let depth = count(tensors, "net.blocks.");
    let within = |name: &str| format!("net.blocks.0.{name}");
    let gated = tensors.contains_key(&within("mlp.w12.weight"));
    let normed = tensors.contains_key(&within("mlp.ffn_ln.weight"));
    let hidden = match gated {
        true => side(tensors, &within("mlp.w12.weight"), 0)? / 2,
        false => side(tensors, &within("mlp.fc1.weight"), 0)?,
    };
    let alike = |name: &&VitName| {
        name.family() == family && name.gated() == gated && name.normed_mlp() == normed
    };
    // The one with most in common.
    let common = |name: &&VitName| {
        let sizes = name.sizes()[..2] == [width, depth];
        u32::from(sizes) * 4
            + u32::from(name.hidden(width) == hidden) * 2
            + u32::from(name.patch() == patch)
    };
    let name = VitName::ALL.iter().filter(alike).rev().max_by_key(common).copied()?;
    let [own_width, own_depth, own_heads] = name.sizes();
    let own = |value: i64, published: i64| (value != published).then_some(value);
    let mut config = VitConfig {
        name,
        width: own(width, own_width),
        depth: own(depth, own_depth),
        // As wide as those of every published one but the largest.
        heads: if width == own_width { None } else { own((width / 64).max(1), own_heads) },
        hidden: own(hidden, name.hidden(width)),
        patch: own(patch, name.patch()),
        ..VitConfig::default()
    };
    let registers = side(tensors, "net.register_tokens", 1).unwrap_or(0);
    config.registers = own(registers, config.registers());
    let qkv_bias = tensors.contains_key(&within("attn.qkv.bias"));
    config.qkv_bias = (qkv_bias != config.qkv_bias()).then_some(qkv_bias);
    config.pyramid_width = side(tensors, "simfp_4.0.weight", 0).unwrap_or(config.pyramid_width);
    if let Some(positions) = side(tensors, "net.pos_embed", 1) {
        config.position_grid = own((positions - 1).max(1).isqrt(), config.position_grid());
    }
    if family == VitFamily::Vitdet {
        relative_positions(&mut config, tensors);
    }
    Some(config)
}

/// What the tables of ViTDet's relative positions tell; MAE's files have none.
fn relative_positions(config: &mut VitConfig, tensors: &BTreeMap<String, Tensor>) {
    let depth = config.depth();
    let table = |block: i64| format!("net.blocks.{block}.attn.rel_pos_h");
    let places: Vec<i64> = (0..depth)
        .filter_map(|block| side(tensors, &table(block), 0))
        .map(|places| (places + 1) / 2)
        .collect();
    if let Some(each) = side(tensors, &table(0), 1) {
        let heads = config.width() / each;
        config.heads = (heads != config.name.sizes()[2]).then_some(heads);
    }
    let Some(&window) = places.iter().min() else { return };
    config.window = (Some(window) != config.window()).then_some(window);
    config.relative_grid =
        places.iter().max().copied().filter(|grid| *grid != config.relative_grid());
    if places.len() as i64 == depth {
        let global: Vec<i64> =
            (0..depth).filter(|&block| places[block as usize] != window).collect();
        if global != config.global_blocks() {
            config.global_blocks = Some(global);
        }
    }
}
