//! Names of vision transformers in files, and which parameter of ours each is.

use super::super::{CLASSIFIER, Names, Place};
use crate::models::backbone::VitFamily;

const PRETRAINING: Place = Place::Left("of pretraining");
const COMPUTED: Place = Place::Left("follows from the sizes");
const EMBEDDING: Place = Place::Left("for the embedding of a whole image");
const NO_CLASS: Place = Place::Left("the class token, which this detector does not have");

/// Our name for a file's; none if it is not known. A `gated` MLP may have the names of another.
pub(in super::super) fn place(
    (family, names): (VitFamily, Names),
    name: &[&str],
    gated: bool,
) -> Option<Place> {
    if let Some(place) = everywhere(family, name) {
        return Some(place);
    }
    match (family, names) {
        (VitFamily::Vitdet, Names::HuggingFace) => vitdet_hugging_face(name),
        (VitFamily::Dinov2, Names::HuggingFace) => dinov2_hugging_face(name),
        (VitFamily::Dinov3, Names::HuggingFace) => dinov3_hugging_face(name, gated),
        (VitFamily::Clip, Names::HuggingFace) => clip_hugging_face(name),
        (VitFamily::Clip, Names::Official) if name[0] != "net" => openai(name),
        // detectron2's, and ours, begin with the network; those that it starts from do not.
        _ => plain(family, name.strip_prefix(&["net"]).unwrap_or(name), gated),
    }
}

fn is(name: String) -> Option<Place> {
    Some(Place::Is(name))
}

/// What is of no use, whoever names it.
fn everywhere(family: VitFamily, name: &[&str]) -> Option<Place> {
    Some(match name {
        [.., "mask_token"] | ["lm_head" | "local_cls_norm" | "dino_head" | "ibot_head", ..] => {
            PRETRAINING
        }
        [.., "bias_mask"] => Place::Left("says that keys have no bias"),
        [.., "position_ids"] => COMPUTED,
        _ if name.iter().any(|part| *part == "rope" || part.starts_with("rope_")) => COMPUTED,
        ["head" | "fc_norm" | "classifier", ..] if family != VitFamily::Clip => CLASSIFIER,
        [first, ..] if first.starts_with("decoder_") => PRETRAINING,
        _ => return None,
    })
}

/// Names as the first vision transformers of PyTorch had them: MAE's, DINOv2's, DINOv3's, EVA-02's, timm's of all.
fn plain(family: VitFamily, name: &[&str], gated: bool) -> Option<Place> {
    let with_class = !matches!(family, VitFamily::Vitdet | VitFamily::Eva02);
    match name {
        ["cls_token"] if !with_class => Some(NO_CLASS),
        ["norm", ..] if family == VitFamily::Clip => Some(EMBEDDING),
        ["head", ..] => Some(EMBEDDING),
        ["norm", ..] if !with_class => Some(CLASSIFIER),
        ["storage_tokens" | "reg_token"] => is("net.register_tokens".into()),
        ["norm_pre", kind] => is(format!("net.ln_pre.{kind}")),
        ["blocks", block, rest @ ..] => in_block(&format!("net.blocks.{block}"), rest, gated),
        ["pos_embed" | "cls_token" | "register_tokens"]
        | ["patch_embed", "proj", _]
        | ["norm" | "ln_pre", _] => is(format!("net.{}", name.join("."))),
        _ => None,
    }
}

fn in_block(block: &str, name: &[&str], gated: bool) -> Option<Place> {
    let bias = |i| Some(Place::Part(format!("{block}.attn.qkv.bias"), i, 3));
    let half = |kind: &str, i| Some(Place::Part(format!("{block}.mlp.w12.{kind}"), i, 2));
    match name {
        ["attn", "k_proj", "bias"] => None,
        ["attn", part @ ("q_proj" | "k_proj" | "v_proj"), kind] => apart(block, part, kind),
        ["attn", "q_bias"] => bias(0),
        ["attn", "k_bias"] => Some(Place::Left("zero: keys have no bias")),
        ["attn", "v_bias"] => bias(2),
        ["mlp", "w1" | "fc1_g", kind] => half(kind, 0),
        ["mlp", "w2" | "fc1_x", kind] => half(kind, 1),
        ["mlp", "norm", kind] => is(format!("{block}.mlp.ffn_ln.{kind}")),
        ["mlp", "fc1", kind] if gated => is(format!("{block}.mlp.w12.{kind}")),
        ["mlp", "fc2", kind] if gated => is(format!("{block}.mlp.w3.{kind}")),
        ["gamma_1"] => is(format!("{block}.ls1.gamma")),
        ["gamma_2"] => is(format!("{block}.ls2.gamma")),
        _ => is(format!("{block}.{}", name.join("."))),
    }
}

fn openai(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["class_embedding"] => "net.cls_token".to_owned(),
        ["positional_embedding"] => "net.pos_embed".to_owned(),
        ["conv1", kind] => format!("net.patch_embed.proj.{kind}"),
        ["ln_pre", kind] => format!("net.ln_pre.{kind}"),
        ["ln_post", ..] | ["proj"] => return Some(EMBEDDING),
        ["transformer", "resblocks", block, rest @ ..] => {
            let rest = match rest {
                ["attn", "in_proj_weight"] => "attn.qkv.weight".to_owned(),
                ["attn", "in_proj_bias"] => "attn.qkv.bias".to_owned(),
                ["attn", "out_proj", kind] => format!("attn.proj.{kind}"),
                ["ln_1", kind] => format!("norm1.{kind}"),
                ["ln_2", kind] => format!("norm2.{kind}"),
                ["mlp", "c_fc", kind] => format!("mlp.fc1.{kind}"),
                ["mlp", "c_proj", kind] => format!("mlp.fc2.{kind}"),
                _ => return None,
            };
            format!("net.blocks.{block}.{rest}")
        }
        _ => return None,
    };
    is(own)
}

/// One of queries, keys and values, of layers that Hugging Face has apart.
fn apart(block: &str, part: &str, kind: &str) -> Option<Place> {
    let i =
        ["query", "key", "value", "q_proj", "k_proj", "v_proj"].iter().position(|p| *p == part)?;
    Some(Place::Part(format!("{block}.attn.qkv.{kind}"), i % 3, 3))
}

fn clip_hugging_face(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["embeddings", "class_embedding"] => "net.cls_token".to_owned(),
        ["embeddings", "position_embedding", "weight"] => "net.pos_embed".to_owned(),
        ["embeddings", "patch_embedding", kind] => format!("net.patch_embed.proj.{kind}"),
        ["pre_layrnorm", kind] => format!("net.ln_pre.{kind}"),
        ["post_layernorm", ..] => return Some(EMBEDDING),
        ["encoder", "layers", block, rest @ ..] => {
            let block = format!("net.blocks.{block}");
            match rest {
                ["self_attn", "out_proj", kind] => format!("{block}.attn.proj.{kind}"),
                ["self_attn", part, kind] => return apart(&block, part, kind),
                ["layer_norm1", kind] => format!("{block}.norm1.{kind}"),
                ["layer_norm2", kind] => format!("{block}.norm2.{kind}"),
                ["mlp", ..] => format!("{block}.{}", rest.join(".")),
                _ => return None,
            }
        }
        _ => return None,
    };
    is(own)
}

fn vitdet_hugging_face(name: &[&str]) -> Option<Place> {
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
    is(own)
}

fn dinov2_hugging_face(name: &[&str]) -> Option<Place> {
    let own = match name {
        ["embeddings", "cls_token"] => "net.cls_token".to_owned(),
        ["embeddings", "register_tokens"] => "net.register_tokens".to_owned(),
        ["embeddings", "position_embeddings"] => "net.pos_embed".to_owned(),
        ["embeddings", "patch_embeddings", "projection", kind] => {
            format!("net.patch_embed.proj.{kind}")
        }
        ["layernorm", kind] => format!("net.norm.{kind}"),
        ["encoder", "layer", block, rest @ ..] => {
            let block = format!("net.blocks.{block}");
            match rest {
                ["attention", "attention", part, kind] => return apart(&block, part, kind),
                ["attention", "output", "dense", kind] => format!("{block}.attn.proj.{kind}"),
                ["layer_scale1", "lambda1"] => format!("{block}.ls1.gamma"),
                ["layer_scale2", "lambda1"] => format!("{block}.ls2.gamma"),
                ["mlp", "weights_in", kind] => format!("{block}.mlp.w12.{kind}"),
                ["mlp", "weights_out", kind] => format!("{block}.mlp.w3.{kind}"),
                ["norm1" | "norm2" | "mlp", ..] => format!("{block}.{}", rest.join(".")),
                _ => return None,
            }
        }
        _ => return None,
    };
    is(own)
}

fn dinov3_hugging_face(name: &[&str], gated: bool) -> Option<Place> {
    let own = match name {
        ["embeddings", "cls_token"] => "net.cls_token".to_owned(),
        ["embeddings", "register_tokens"] => "net.register_tokens".to_owned(),
        ["embeddings", "patch_embeddings", kind] => format!("net.patch_embed.proj.{kind}"),
        ["norm", kind] => format!("net.norm.{kind}"),
        ["layer", block, rest @ ..] | ["model", "layer", block, rest @ ..] => {
            let block = format!("net.blocks.{block}");
            let half = |kind: &str, i| Some(Place::Part(format!("{block}.mlp.w12.{kind}"), i, 2));
            match rest {
                ["attention", "o_proj", kind] => format!("{block}.attn.proj.{kind}"),
                ["attention", "k_proj", "bias"] => return None,
                ["attention", part, kind] => return apart(&block, part, kind),
                ["layer_scale1", "lambda1"] => format!("{block}.ls1.gamma"),
                ["layer_scale2", "lambda1"] => format!("{block}.ls2.gamma"),
                ["mlp", "gate_proj", kind] => return half(kind, 0),
                ["mlp", "up_proj", kind] if gated => return half(kind, 1),
                ["mlp", "up_proj", kind] => format!("{block}.mlp.fc1.{kind}"),
                ["mlp", "down_proj", kind] if gated => format!("{block}.mlp.w3.{kind}"),
                ["mlp", "down_proj", kind] => format!("{block}.mlp.fc2.{kind}"),
                ["norm1" | "norm2", kind] => format!("{block}.{}.{kind}", rest[0]),
                _ => return None,
            }
        }
        _ => return None,
    };
    is(own)
}
