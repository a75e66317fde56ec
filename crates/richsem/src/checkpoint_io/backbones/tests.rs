//! Names and layouts that no fixture has, and starting a detector's backbone.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::*;
use crate::{
    checkpoint_io::safetensors::{self, Metadata},
    error::Result,
    models::{
        backbone::{
            Backbone, ConvnextConfig, FocalnetConfig, FocalnetName, ResnetConfig, SwinConfig,
            VitConfig,
        },
        parameters::ParameterStore,
    },
};

mod vit;

type Tensors = BTreeMap<String, Tensor>;

fn swin() -> SwinConfig {
    SwinConfig {
        window: Some(3),
        width: Some(8),
        head_width: 4,
        layers: vec![1, 2, 1, 1],
        ..SwinConfig::default()
    }
}

fn focalnet(window: i64) -> FocalnetConfig {
    FocalnetConfig {
        name: FocalnetName::FocalnetT,
        width: Some(8),
        focal_levels: Some(2),
        focal_window: Some(window),
        layers: vec![1, 1, 1, 1],
        ..FocalnetConfig::default()
    }
}

fn convnext() -> ConvnextConfig {
    ConvnextConfig { width: Some(8), layers: vec![1, 2, 1, 1], ..ConvnextConfig::default() }
}

/// A detector's backbone, where detectors have it.
fn store(config: &BackboneConfig, seed: u64, outputs: &[usize]) -> ParameterStore {
    let store = ParameterStore::new(Device::Cpu, seed);
    drop(Backbone::new(&store.root().sub("backbone").sub(0), config, outputs));
    let _ = store.root().sub("head").buffer("weight", &[1], seed as f64);
    store
}

/// The parameters without prefix.
fn published(config: &BackboneConfig, seed: u64) -> Tensors {
    let all = store(config, seed, &[]).named_tensors();
    let own = |(name, t): (String, Tensor)| Some((name.strip_prefix("backbone.0.")?.to_owned(), t));
    all.into_iter().filter_map(own).collect()
}

fn start(config: &BackboneConfig, tensors: &Tensors) -> (ParameterStore, Result<LoadedBackbone>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    safetensors::write(&path, tensors, &Metadata::new()).unwrap();
    let store = store(config, 2, &[1, 2, 3]);
    let loaded = load_backbone(&store, config, &path);
    (store, loaded)
}

fn equal(a: &Tensors, b: &Tensors) {
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, a) in a {
        assert_eq!(a, &b[name], "{name}");
    }
}

fn renamed(tensors: &Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(name, t)| (rename(name), t.shallow_clone())).collect()
}

/// mmdetection[o, 4c + j] = official[o, p(j)·C + c], p = 0, 2, 1, 3, and the norm likewise
/// (mmdetection's `swin_converter`: `unfold` has the neighbours of a channel side by side).
#[test]
fn mmdetections_merges_are_put_in_order() {
    let own = published(&swin().into(), 1);
    let mut theirs = renamed(&own, |name| {
        name.replace("layers.", "stages.")
            .replace("patch_embed.proj", "patch_embed.projection")
            .replace(".attn.", ".attn.w_msa.")
            .replace(".mlp.fc1.", ".ffn.layers.0.0.")
            .replace(".mlp.fc2.", ".ffn.layers.1.")
    });
    for (name, tensor) in &mut theirs {
        if name.contains(".downsample.") {
            let columns = tensor.size()[tensor.dim() - 1];
            let c = columns / 4;
            let places: Vec<i64> = (0..columns)
                .map(|place| [0, 2, 1, 3][(place % 4) as usize] * c + place / 4)
                .collect();
            *tensor = tensor.index_select(-1, &Tensor::from_slice(&places));
        }
    }
    assert_eq!(Layout::of(&theirs), Some(Layout::Swin(Names::Mmdet)));
    equal(&Layout::Swin(Names::Mmdet).sort(theirs).tensors, &own);
}

#[test]
fn mmdetections_convnext_has_other_names_alone() {
    let own = published(&convnext().into(), 1);
    let theirs = renamed(&own, |name| {
        let name = name.replace(".dwconv.", ".depthwise_conv.");
        name.replace(".pwconv1.", ".pointwise_conv1.").replace(".pwconv2.", ".pointwise_conv2.")
    });
    assert_eq!(Layout::of(&theirs), Some(Layout::Convnext(Names::Mmdet)));
    equal(&Layout::Convnext(Names::Mmdet).sort(theirs).tensors, &own);
}

/// Of each kind, as it is published and as a part of another model, with what else is in the file.
#[test]
fn a_backbone_starts_from_its_file_and_new_norms_start_anew() {
    for config in [swin().into(), focalnet(3).into(), convnext().into()] {
        let weights: Tensors = published(&config, 1);
        for prefix in ["", "backbone.", "module.model.backbone.0."] {
            let mut file = renamed(&weights, |name| format!("{prefix}{name}"));
            file.insert(
                format!("{prefix}head.weight"),
                Tensor::zeros([3], (Kind::Float, Device::Cpu)),
            );
            let (store, loaded) = start(&config, &file);
            let loaded = loaded.unwrap();
            assert_eq!(loaded.prefix, prefix.replace("module.", ""));
            assert!(loaded.what.ends_with("the official code's names"), "{}", loaded.what);
            let mut anew: Vec<&str> = loaded.anew.iter().map(String::as_str).collect();
            anew.sort_unstable();
            let norms = ["norm1.bias", "norm1.weight", "norm2.bias", "norm2.weight"];
            assert_eq!(anew[..4], norms);
            let all = store.named_tensors();
            for (name, value) in &weights {
                assert_eq!(&all[&format!("backbone.0.{name}")], value, "{name}");
            }
            assert_eq!(all["backbone.0.norm2.weight"].min().double_value(&[]), 1.0);
            // What is not of the backbone stays as it is.
            assert_eq!(all["head.weight"].double_value(&[0]), 2.0);
        }
    }
}

#[test]
fn another_backbone_or_size_is_refused_with_both() {
    let refused = |config: BackboneConfig, tensors: &Tensors, parts: &[&str]| {
        let message = start(&config, tensors).1.unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "no `{part}` in {message}");
        }
    };
    let own = published(&swin().into(), 1);
    refused(
        focalnet(3).into(),
        &own,
        &[
            "w.safetensors: weights: a Swin Transformer with the official code's names, and the model's \
           backbone is focalnet_t, 2 levels, window 3, width 8",
            "hint: set the model's backbone as",
        ],
    );
    refused(
        ResnetConfig { width: 8, ..ResnetConfig::default() }.into(),
        &own,
        &["a Swin Transformer with", "and the model's backbone is resnet50, frozen_bn"],
    );
    let window = SwinConfig { window: Some(5), ..swin() };
    refused(
        window.into(),
        &own,
        &["swin_t, window 3, width 8, layers [1, 2, 1, 1], and", "is swin_t, window 5, width 8"],
    );
    let wide = SwinConfig { width: Some(16), ..swin() };
    refused(wide.into(), &own, &["window 3, width 8", "is swin_t, window 3, width 16"]);
    // Kernels do not shrink.
    refused(focalnet(3).into(), &published(&focalnet(5).into(), 1), &["window 5", "window 3"]);
}

fn vit() -> VitConfig {
    VitConfig {
        width: Some(16),
        depth: Some(4),
        heads: Some(2),
        window: Some(3),
        position_grid: Some(5),
        relative_grid: Some(6),
        pyramid_width: 8,
        ..VitConfig::default()
    }
}

/// MAE's file has neither relative positions nor a pyramid; a detector's has all.
#[test]
fn vitdet_starts_from_maes_weights_and_from_its_own() {
    let config = BackboneConfig::from(VitConfig { heads: Some(1), width: Some(16), ..vit() });
    let all = store(&config, 1, &[1, 2, 3]).named_tensors();
    let own = |name: &str| name.strip_prefix("backbone.0.").map(str::to_owned);
    let vit: Tensors = all
        .iter()
        .filter_map(|(name, t)| Some((own(name)?, t.shallow_clone())))
        .filter(|(name, _)| !is_new(name))
        .collect();
    let mut mae = renamed(&vit, |name| name.strip_prefix("net.").unwrap().to_owned());
    for name in ["cls_token", "norm.weight", "decoder_pos_embed", "mask_token"] {
        mae.insert(name.to_owned(), Tensor::zeros([1, 16], (Kind::Float, Device::Cpu)));
    }
    let (started, loaded) = start(&config, &mae);
    let loaded = loaded.unwrap();
    assert_eq!(loaded.what, "a vision transformer with MAE's names");
    assert!(loaded.anew.iter().any(|name| name == "simfp_3.1.weight"));
    assert!(loaded.anew.iter().any(|name| name == "net.blocks.0.attn.rel_pos_h"));
    let got = started.named_tensors();
    for (name, value) in &vit {
        assert_eq!(&got[&format!("backbone.0.{name}")], value, "{name}");
    }
    // detectron2's, as a part of its detector.
    let theirs = all.iter().filter_map(|(name, t)| Some((own(name)?, t.shallow_clone())));
    let theirs: Tensors = theirs.collect();
    let theirs = renamed(&theirs, |name| format!("backbone.{name}"));
    let (started, loaded) = start(&config, &theirs);
    let loaded = loaded.unwrap();
    assert_eq!((&*loaded.what, loaded.anew.len()), ("ViTDet with detectron2's names", 0));
    let got = started.named_tensors();
    for (name, value) in all.iter().filter(|(name, _)| name.starts_with("backbone.")) {
        assert_eq!(&got[name], value, "{name}");
    }
}

/// A layout's names half way: all that is missing or unknown is named.
#[test]
fn a_file_of_mixed_names_is_refused_by_name() {
    let mut mixed = published(&swin().into(), 1);
    let taken = mixed.remove("layers.1.blocks.1.mlp.fc1.weight").unwrap();
    mixed.insert("layers.1.blocks.1.ffn.layers.0.0.weight".to_owned(), taken);
    let message = start(&swin().into(), &mixed).1.unwrap_err().to_string();
    for part in [
        "missing backbone.0.layers.1.blocks.1.mlp.fc1.weight",
        "unexpected backbone.0.layers.1.blocks.1.ffn.layers.0.0.weight",
    ] {
        assert!(message.contains(part), "no `{part}` in {message}");
    }
}

/// Query and value without the key stay what they are, and are named.
#[test]
fn a_part_of_a_joined_layer_alone_is_not_taken() {
    let name = |part: &str| format!("encoder.layers.0.blocks.0.attention.self.{part}.weight");
    let one = || Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
    let tensors = Tensors::from([(name("query"), one()), (name("value"), one())]);
    let sorted = Layout::Swin(Names::HuggingFace).sort(tensors);
    assert_eq!(sorted.tensors.keys().cloned().collect::<Vec<_>>(), [name("query"), name("value")]);
}

#[test]
fn kernels_of_a_narrower_focalnet_start_in_the_middle() {
    let narrow = published(&focalnet(3).into(), 1);
    let (store, loaded) = start(&focalnet(9).into(), &narrow);
    loaded.unwrap();
    let all = store.named_tensors();
    for (level, side) in [(0, 3), (1, 5)] {
        let name = format!("layers.2.blocks.0.modulation.focal_layers.{level}.0.weight");
        let wide = &all[&format!("backbone.0.{name}")];
        assert_eq!(wide.size()[2..], [9 + 2 * level, 9 + 2 * level]);
        assert_eq!(wide.narrow(2, 3, side).narrow(3, 3, side), narrow[&name]);
        let sum = |t: &Tensor| t.abs().sum(Kind::Double).double_value(&[]);
        assert!((sum(wide) - sum(&narrow[&name])).abs() < 1e-6);
    }
}

#[test]
fn a_value_that_is_no_number_is_named() {
    let mut weights = published(&swin().into(), 1);
    let name = "layers.0.blocks.0.norm1.weight";
    let broken = &weights[name] * f64::NAN;
    weights.insert(name.to_owned(), broken);
    let message = start(&swin().into(), &weights).1.unwrap_err().to_string();
    assert!(message.contains(&format!("backbone.0.{name}: holds NaN")), "{message}");
}
