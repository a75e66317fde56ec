//! Vision transformers under the names of their own code, which no fixture has.

use super::*;
use crate::models::backbone::VitName;

/// Small ones of each family and form.
fn vits() -> Vec<VitConfig> {
    let small = |name| VitConfig {
        name,
        width: Some(16),
        depth: Some(2),
        heads: Some(2),
        pyramid_width: 8,
        ..VitConfig::default()
    };
    let table = |name| VitConfig { position_grid: Some(3), ..small(name) };
    vec![
        VitConfig { registers: Some(2), ..table(VitName::Dinov2S) },
        table(VitName::Dinov2G),
        small(VitName::Dinov3S),
        small(VitName::Dinov3SPlus),
        VitConfig { qkv_bias: Some(false), ..small(VitName::Dinov3SPlus) },
        table(VitName::Eva02B),
        table(VitName::Eva02T),
        table(VitName::ClipVitB16),
    ]
}

/// The transformer, as a file of pretraining has it, every number of it another; keys without bias.
fn transformer(config: &VitConfig) -> Tensors {
    let all = published(&config.clone().into(), 1);
    let shaken = |(name, t): (String, Tensor)| {
        let mut t = t + crate::testing::uniform(name.len() as u64, &[1]);
        if name.ends_with("attn.qkv.bias") && !config.name.family().key_bias() {
            let _ = t.narrow(0, 16, 16).fill_(0.0);
            t = t.copy();
        }
        (name, t)
    };
    all.into_iter().filter(|(name, _)| !is_new(name)).map(shaken).collect()
}

/// Under the names of the family's own code: OpenAI's for CLIP, EVA-02's in parts, DINOv3's with its mask.
fn as_published(config: &VitConfig) -> Tensors {
    let mut theirs = Tensors::new();
    for (name, tensor) in transformer(config) {
        let name = name.strip_prefix("net.").unwrap().to_owned();
        let parts = |of: &[&str]| -> Vec<(String, Tensor)> {
            let parts = tensor.chunk(of.len() as i64, 0);
            let name = |part: &str| match name.ends_with("qkv.bias") {
                true => name.replace("qkv.bias", part),
                false => name.replace("qkv", part).replace("w12", part),
            };
            of.iter().zip(parts).map(|(part, t)| (name(part), t)).collect()
        };
        match config.name.family() {
            VitFamily::Eva02 if name.ends_with("attn.qkv.weight") && config.name.normed_mlp() => {
                theirs.extend(parts(&["q_proj", "k_proj", "v_proj"]));
            }
            VitFamily::Eva02 if name.ends_with("attn.qkv.bias") => {
                theirs.extend(parts(&["q_bias", "no", "v_bias"]));
                theirs.retain(|name, _| !name.ends_with("no"));
            }
            VitFamily::Eva02 if name.contains("w12") && config.name.normed_mlp() => {
                theirs.extend(parts(&["w1", "w2"]));
            }
            VitFamily::Dinov3 if name.contains("w12") => theirs.extend(parts(&["w1", "w2"])),
            VitFamily::Dinov3 if name.ends_with("attn.qkv.bias") => {
                theirs.insert(name.replace("bias", "bias_mask"), tensor.ones_like());
                // What the mask hides may be anything.
                let hidden = tensor.copy();
                let _ = hidden.narrow(0, 16, 16).fill_(7.0);
                theirs.insert(name, hidden);
            }
            VitFamily::Clip => {
                let tensor = match &*name {
                    "cls_token" => tensor.view([-1]),
                    "pos_embed" => tensor.squeeze_dim(0),
                    _ => tensor,
                };
                let name = name
                    .replace("cls_token", "class_embedding")
                    .replace("pos_embed", "positional_embedding")
                    .replace("patch_embed.proj", "conv1")
                    .replace("blocks.", "transformer.resblocks.")
                    .replace("attn.qkv.", "attn.in_proj_")
                    .replace("attn.proj", "attn.out_proj")
                    .replace("norm1", "ln_1")
                    .replace("norm2", "ln_2")
                    .replace("mlp.fc1", "mlp.c_fc")
                    .replace("mlp.fc2", "mlp.c_proj");
                theirs.insert(name, tensor);
            }
            _ => drop(theirs.insert(name.replace("register_tokens", registers(config)), tensor)),
        }
    }
    theirs
}

fn registers(config: &VitConfig) -> &'static str {
    if config.name.family() == VitFamily::Dinov3 { "storage_tokens" } else { "register_tokens" }
}

/// What such files have beside the transformer, below the names in front of it.
fn beside(config: &VitConfig) -> Tensors {
    let names: &[&str] = match config.name.family() {
        VitFamily::Vitdet => unreachable!("none of these"),
        VitFamily::Dinov2 => &["mask_token"],
        VitFamily::Dinov3 => &["mask_token", "rope_embed.periods", "local_cls_norm.weight"],
        VitFamily::Eva02 => &[
            "cls_token",
            "mask_token",
            "norm.weight",
            "lm_head.weight",
            "rope.freqs_cos",
            "blocks.0.attn.rope.freqs_sin",
            "rope_glb.freqs_cos",
        ],
        VitFamily::Clip => &["ln_post.weight", "proj"],
    };
    let one = |name: &&str| ((*name).to_owned(), Tensor::ones([1, 16], (Kind::Float, Device::Cpu)));
    names.iter().map(one).collect()
}

#[test]
fn vision_transformers_start_from_the_files_of_their_own_code() {
    for config in vits() {
        let name = config.describe();
        let transformer = transformer(&config);
        for prefix in ["", "backbone.", "visual."] {
            let theirs = as_published(&config).into_iter().chain(beside(&config));
            let mut theirs: Tensors = theirs.map(|(n, t)| (format!("{prefix}{n}"), t)).collect();
            if prefix == "visual." {
                // CLIP's text encoder, which has blocks of the same names.
                for name in ["token_embedding.weight", "transformer.resblocks.0.ln_1.weight"] {
                    theirs.insert(name.to_owned(), theirs.first_key_value().unwrap().1.copy());
                }
            }
            let (started, loaded) = start(&config.clone().into(), &theirs);
            let loaded = loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(loaded.what.ends_with("the official code's names"), "{name}: {}", loaded.what);
            assert_eq!(loaded.prefix, prefix, "{name}");
            assert!(loaded.anew.iter().all(|name| name.starts_with("simfp_")), "{name}");
            let got = started.named_tensors();
            for (own, value) in &transformer {
                assert_eq!(&got[&format!("backbone.0.{own}")], value, "{name}: {own}");
            }
        }
        // As this program writes it.
        let (_, loaded) = start(&config.clone().into(), &transformer);
        assert!(loaded.is_ok(), "{name}: {loaded:?}");
        // The sizes that its tensors tell.
        let layout = Layout::of(&transformer).unwrap();
        let BackboneConfig::Vit(read) = layout.config(&transformer).unwrap() else {
            panic!("{name}")
        };
        assert_eq!(read.with_untold_of(&config), VitConfig { pyramid_width: 256, ..config });
    }
}

/// Nothing of a file is dropped without being told.
#[test]
fn what_is_no_part_of_a_vision_transformer_is_left_by_name() {
    for config in vits() {
        let (theirs, beside) = (as_published(&config), beside(&config));
        let layout = Layout::of(&theirs).unwrap();
        let all = theirs.into_iter().chain(beside.iter().map(|(n, t)| (n.clone(), t.copy())));
        let sorted = layout.sort(all.collect());
        let left = sorted.left.keys().filter(|name| !name.ends_with("bias_mask"));
        let expected: Vec<&String> = beside.keys().collect();
        assert_eq!(left.collect::<Vec<_>>(), expected, "{}", config.describe());
    }
}

/// DINOv2's gated layer in Hugging Face's files is one tensor, the gate first; timm's too.
#[test]
fn gated_layers_of_dinov2_have_several_names() {
    let config = VitConfig { position_grid: Some(3), ..vits().remove(1) };
    let own = transformer(&config);
    let plain = renamed(&own, |name| name.strip_prefix("net.").unwrap().to_owned());
    let timm = renamed(&plain, |n| n.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"));
    assert_eq!(Layout::of(&timm), Some(Layout::Vit(VitFamily::Dinov2, Names::Official)));
    let mut theirs = Tensors::new();
    for (name, tensor) in plain {
        let name = name
            .replace("blocks.", "encoder.layer.")
            .replace("mlp.w12", "mlp.weights_in")
            .replace("mlp.w3", "mlp.weights_out")
            .replace("attn.proj", "attention.output.dense")
            .replace("ls1.gamma", "layer_scale1.lambda1")
            .replace("ls2.gamma", "layer_scale2.lambda1")
            .replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
            .replace("cls_token", "embeddings.cls_token")
            .replace("pos_embed", "embeddings.position_embeddings");
        let name = if name.starts_with("norm.") { format!("layer{name}") } else { name };
        if name.contains("attn.qkv") {
            for (part, tensor) in ["query", "key", "value"].into_iter().zip(tensor.chunk(3, 0)) {
                let part = format!("attention.attention.{part}");
                theirs.insert(name.replace("attn.qkv", &part), tensor);
            }
        } else {
            theirs.insert(name, tensor);
        }
    }
    for (file, names) in [(timm, Names::Official), (theirs, Names::HuggingFace)] {
        let layout = Layout::Vit(VitFamily::Dinov2, names);
        assert_eq!(Layout::of(&file), Some(layout));
        equal(&layout.sort(file).tensors, &own);
    }
}

#[test]
fn another_vision_transformer_is_refused_with_both() {
    let dinov2 = vits().remove(0);
    let file = as_published(&dinov2);
    for (config, expected) in [
        (
            VitConfig { registers: None, ..dinov2.clone() },
            "2 registers, and the model's backbone is dinov2_s, width 16, depth 2, heads 2, position grid 3",
        ),
        (
            VitConfig { patch: Some(16), ..dinov2.clone() },
            "and the model's backbone is dinov2_s, width 16, depth 2, heads 2, patch 16",
        ),
        (
            vits().remove(2),
            "dinov2_s, width 16, depth 2, heads 1, position grid 3, 2 registers, and",
        ),
        (vits().remove(2), "is dinov3_s, width 16, depth 2, heads 2"),
    ] {
        let message = start(&config.into(), &file).1.unwrap_err().to_string();
        assert!(message.contains(expected), "no `{expected}` in {message}");
    }
    // Two layouts in one file.
    let mut mixed = as_published(&vits().remove(5));
    let taken = mixed.remove("blocks.1.attn.v_proj.weight").unwrap();
    mixed.insert("blocks.1.attn.value.weight".to_owned(), taken);
    let message = start(&vits().remove(5).into(), &mixed).1.unwrap_err().to_string();
    for part in ["missing backbone.0.net.blocks.1.attn.qkv.weight", "unexpected backbone.0.", "v"] {
        assert!(message.contains(part), "no `{part}` in {message}");
    }
}
