//! What holds for every backbone after the ResNets: sizes, padding, drop path, checkpointing, tags.

#![allow(clippy::unwrap_used)]

use std::hash::Hasher as _;

use tch::{Device, Kind};

use super::*;
use crate::{
    hash::Fnv,
    models::parameters::{Parameter, ParameterStore, Role},
    testing::{normal, uniform},
};

/// One small backbone of each form.
fn all() -> Vec<(&'static str, BackboneConfig)> {
    let layers = vec![1, 2, 2, 1];
    let swin = |window| SwinConfig {
        window: Some(window),
        width: Some(8),
        head_width: 4,
        layers: layers.clone(),
        ..SwinConfig::default()
    };
    let focalnet = |name| FocalnetConfig {
        name,
        width: Some(8),
        focal_levels: Some(2),
        layers: layers.clone(),
        ..FocalnetConfig::default()
    };
    let convnext = |name| ConvnextConfig {
        name,
        width: Some(8),
        layers: layers.clone(),
        ..ConvnextConfig::default()
    };
    let vit = VitConfig {
        width: Some(16),
        depth: Some(4),
        heads: Some(2),
        window: Some(3),
        global_blocks: Some(vec![1, 3]),
        position_grid: Some(5),
        relative_grid: Some(6),
        pyramid_width: 8,
        ..VitConfig::default()
    };
    let like = |name| VitConfig {
        name,
        global_blocks: None,
        window: None,
        relative_grid: None,
        ..vit.clone()
    };
    let dinov2 = like(VitName::Dinov2S);
    let dinov3 = VitConfig { position_grid: None, ..like(VitName::Dinov3S) };
    let eva02 = VitConfig { name: VitName::Eva02B, relative_grid: None, ..vit.clone() };
    vec![
        ("swin", swin(3).into()),
        ("swin whose windows are larger than its maps", swin(12).into()),
        ("small focalnet", focalnet(FocalnetName::FocalnetT).into()),
        ("large focalnet", focalnet(FocalnetName::FocalnetH).into()),
        ("convnext", convnext(ConvnextName::ConvnextT).into()),
        ("convnext of version 2", convnext(ConvnextName::ConvnextV2T).into()),
        ("vit", vit.clone().into()),
        ("dinov2 with registers", VitConfig { registers: Some(2), ..dinov2.clone() }.into()),
        ("dinov2", dinov2.into()),
        ("gated dinov2", like(VitName::Dinov2G).into()),
        ("dinov3", dinov3.clone().into()),
        ("gated dinov3", VitConfig { name: VitName::Dinov3SPlus, ..dinov3.clone() }.into()),
        ("dinov3 without biases", VitConfig { name: VitName::Dinov3_7b, ..dinov3 }.into()),
        ("eva02", eva02.clone().into()),
        ("small eva02", VitConfig { name: VitName::Eva02T, ..eva02 }.into()),
        ("clip", like(VitName::ClipVitB16).into()),
    ]
}

/// The same with other settings of training.
fn with(config: &BackboneConfig, drop: f64, again: bool, frozen: i64) -> BackboneConfig {
    macro_rules! set {
        ($config:ident) => {{
            $config.drop_path = drop;
            $config.checkpointing = again;
            $config.frozen_stages = frozen;
        }};
    }
    let mut config = config.clone();
    match &mut config {
        BackboneConfig::Resnet(_) => unreachable!("none of these"),
        BackboneConfig::Swin(config) => set!(config),
        BackboneConfig::Focalnet(config) => set!(config),
        BackboneConfig::Convnext(config) => set!(config),
        // It has no stages.
        BackboneConfig::Vit(config) => {
            config.drop_path = drop;
            config.checkpointing = again;
            config.frozen_blocks = frozen;
        }
    }
    config.validate("backbone").unwrap();
    config
}

/// Those that can leave padding unseen.
fn all_that_mask() -> Vec<(&'static str, BackboneConfig)> {
    all().into_iter().filter(|(_, config)| config.masks_padding()).collect()
}

/// In f64, every value of it doing something.
fn build(config: &BackboneConfig, outputs: &[usize]) -> (Vec<Parameter>, Backbone) {
    let store = ParameterStore::new(Device::Cpu, 3);
    let backbone = Backbone::new(&store.root(), config, outputs);
    let parameters = store.parameters();
    for Parameter { name, tensor, .. } in &parameters {
        let mut key = Fnv::default();
        key.write(name.as_bytes());
        let shaken = tensor.detach() + (uniform(key.finish(), &tensor.size()) - 0.5) * 0.4;
        tensor.shallow_clone().set_data(&shaken.to_kind(Kind::Double));
    }
    (parameters, backbone)
}

fn image(key: u64, b: i64, h: i64, w: i64) -> Tensor {
    normal(key, &[b, 3, h, w]).to_kind(Kind::Double)
}

/// A side as batches have it.
fn canvas(config: &BackboneConfig, side: i64) -> i64 {
    let multiple = i64::from(config.pad_multiple());
    (side + multiple - 1) / multiple * multiple
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).double_value(&[])
}

#[test]
fn maps_of_any_image_have_the_sizes_that_the_levels_say() {
    for (what, config) in all() {
        let (_, backbone) = build(&config, &[0, 1, 2, 3]);
        let (_, some) = build(&config, &[1, 2]);
        for sides in [[32, 32], [31, 997], [1, 1], [61, 83]] {
            let [h, w] = sides.map(|side| canvas(&config, side));
            let images = image(1, 1, h, w);
            let maps = backbone.forward(&images, None, (false, None)).unwrap();
            assert_eq!(maps.len(), 4);
            for (map, level) in maps.iter().zip(config.levels()) {
                let size = [h, w].map(|side| (side as f64 / level.stride).ceil() as i64);
                assert_eq!(map.size(), [1, level.channels, size[0], size[1]], "{what} {h}×{w}");
                assert!(map.isfinite().all().int64_value(&[]) == 1, "{what} {h}×{w}");
            }
            let chosen = some.forward(&images, None, (false, None)).unwrap();
            assert_eq!(chosen, [1, 2].map(|i: usize| maps[i].shallow_clone()), "{what}");
        }
    }
}

/// An image beside a larger one: the maps that it has alone, and zero around them.
#[test]
fn padding_changes_nothing_where_it_is_masked() {
    for (what, config) in all_that_mask() {
        let (_, backbone) = build(&config, &[0, 1, 2, 3]);
        for ((h, w), (more_h, more_w)) in
            [((61, 83), (90, 97)), ((32, 33), (32, 200)), ((5, 90), (64, 90))]
        {
            let own = image(2, 1, h, w);
            let mask = |height: i64, width: i64| {
                let mask = Tensor::ones([1, height, width], (Kind::Bool, Device::Cpu));
                let _ = mask.narrow(1, 0, h).narrow(2, 0, w).fill_(0);
                mask
            };
            let [least_h, least_w] = [h, w].map(|side| canvas(&config, side));
            let [more_h, more_w] = [more_h, more_w].map(|side| canvas(&config, side));
            let within = |height, width| own.constant_pad_nd([0, width - w, 0, height - h]);
            let alone = PaddingPyramid::new(&mask(least_h, least_w), 5);
            let alone =
                backbone.forward(&within(least_h, least_w), Some(&alone), (false, None)).unwrap();
            let padded = within(more_h, more_w);
            let other = Tensor::zeros([1, more_h, more_w], (Kind::Bool, Device::Cpu));
            let masks = Tensor::cat(&[mask(more_h, more_w), other], 0);
            let both = Tensor::cat(&[padded, image(3, 1, more_h, more_w)], 0);
            let pyramid = PaddingPyramid::new(&masks, 5);
            let maps = backbone.forward(&both, Some(&pyramid), (false, None)).unwrap();
            for (level, (map, alone)) in maps.iter().zip(&alone).enumerate() {
                let what = format!("{what}, {h}×{w} in {more_h}×{more_w}, level {level}");
                let [_, _, own_h, own_w] = alone.size()[..] else { panic!() };
                let own = map.narrow(0, 0, 1).narrow(2, 0, own_h).narrow(3, 0, own_w);
                assert!(off(&own, alone) < 1e-10, "{what}: {}", off(&own, alone));
                let padding = pyramid.at(level + 2).unsqueeze(1);
                let around = map.masked_select(&padding.expand_as(map));
                assert_eq!(around.abs().sum(Kind::Double).double_value(&[]), 0.0, "{what}");
            }
        }
    }
}

/// Alone, an image without padding is what it is without a mask.
#[test]
fn without_padding_a_mask_changes_nothing() {
    for (what, config) in all_that_mask() {
        let (_, backbone) = build(&config, &[0, 1, 2, 3]);
        let [h, w] = [61, 83].map(|side| canvas(&config, side));
        let images = image(2, 2, h, w);
        let pyramid = PaddingPyramid::new(&Tensor::zeros([2, h, w], (Kind::Bool, Device::Cpu)), 5);
        let masked = backbone.forward(&images, Some(&pyramid), (false, None)).unwrap();
        let plain = backbone.forward(&images, None, (false, None)).unwrap();
        for (masked, plain) in masked.iter().zip(&plain) {
            assert!(off(masked, plain) < 1e-12, "{what}");
        }
    }
}

/// Maps, and all gradients, of one pass with these draws.
fn pass(config: &BackboneConfig, images: &Tensor, draws: Option<&Tensor>) -> Vec<(String, Tensor)> {
    let (parameters, backbone) = build(config, &[0, 1, 2, 3]);
    let maps = backbone.forward(images, None, (true, draws)).unwrap();
    maps.iter().map(|map| map.sin().sum(Kind::Double)).sum::<Tensor>().backward();
    let of_maps = maps.into_iter().map(|map| ("map".to_owned(), map.detach()));
    let trained = parameters.into_iter().filter(|p| p.role == Role::Trainable);
    of_maps.chain(trained.map(|p| (p.name, p.tensor.grad()))).collect()
}

fn draws(config: &BackboneConfig, images: i64) -> Tensor {
    uniform(9, &[config.draws() as i64, images])
}

#[test]
fn checkpointing_changes_no_number() {
    let images = image(4, 2, 61, 83);
    for (what, config) in all() {
        for frozen in [-1, 2] {
            let [plain, again] = [false, true]
                .map(|again| with(&config, 0.5, again, frozen))
                .map(|config| pass(&config, &images, Some(&draws(&config, 2))));
            assert_eq!(plain.len(), again.len());
            for ((name, a), (_, b)) in plain.iter().zip(&again) {
                assert!(off(b, a) < 1e-12, "{what} {name}: {}", off(b, a));
            }
        }
    }
}

/// What names of a block's parameters begin with.
fn block_name(config: &BackboneConfig, stage: i64, block: i64) -> String {
    match config {
        BackboneConfig::Convnext(_) => format!("stages.{stage}.{block}."),
        BackboneConfig::Vit(_) => format!("net.blocks.{stage}."),
        _ => format!("layers.{stage}.blocks.{block}."),
    }
}

/// Draws of 0 drop every branch whose rate is not 0: the first block's is. Other draws drop nothing.
#[test]
fn a_dropped_block_learns_nothing() {
    let images = image(5, 1, 40, 40);
    for (what, config) in all() {
        let config = with(&config, 0.5, false, -1);
        let kind = (Kind::Float, Device::Cpu);
        let of = |value: f64| Tensor::full([config.draws() as i64, 1], value, kind);
        let norm = |pass: &[(String, Tensor)], prefix: &str| -> f64 {
            let own = pass.iter().filter(|(name, _)| name.starts_with(prefix));
            own.map(|(_, t)| t.abs().sum(Kind::Double).double_value(&[])).sum()
        };
        let dropped = pass(&config, &images, Some(&of(0.0)));
        let kept = pass(&config, &images, Some(&of(0.99)));
        // Of DINOv3 every block has the rate.
        let uniform =
            matches!(&config, BackboneConfig::Vit(vit) if vit.name.family() == VitFamily::Dinov3);
        for (stage, block, learns) in [(0, 0, !uniform), (1, 0, false), (3, 0, false)] {
            let prefix = block_name(&config, stage, block);
            assert_eq!(norm(&dropped, &prefix) > 0.0, learns, "{what} {prefix}");
            assert!(norm(&kept, &prefix) > 0.0, "{what} {prefix}");
        }
    }
}

/// Each image has draws of its own, and sees no other image.
#[test]
fn an_image_of_a_batch_is_the_image_alone() {
    let images = image(6, 3, 45, 70);
    for (what, config) in all() {
        let config = with(&config, 0.5, false, -1);
        let draws = draws(&config, 3);
        let (_, backbone) = build(&config, &[0, 3]);
        let batch = backbone.forward(&images, None, (true, Some(&draws))).unwrap();
        for i in 0..3 {
            let (image, draws) = (images.narrow(0, i, 1), draws.narrow(1, i, 1));
            let alone = backbone.forward(&image, None, (true, Some(&draws))).unwrap();
            for (batch, alone) in batch.iter().zip(&alone) {
                assert!(off(&batch.narrow(0, i, 1), alone) < 1e-12, "{what}");
            }
        }
        let plain = backbone.forward(&images, None, (false, None)).unwrap();
        assert!(off(&plain[1], &batch[1]) > 1e-6, "{what}: the draws do nothing");
    }
}

#[test]
fn layers_rise_from_the_image_on_and_vectors_do_not_decay() {
    for (what, config) in all() {
        let (parameters, _) = build(&config, &[0, 1, 2, 3]);
        for Parameter { name, tensor, tags, .. } in &parameters {
            let vector = tensor.dim() <= 1
                || name.ends_with("relative_position_bias_table")
                || name.contains(".grn.")
                || ["net.pos_embed", "net.cls_token", "net.register_tokens"]
                    .contains(&name.as_str());
            assert_eq!(tags.no_decay, vector, "{what} {name}");
        }
        let of = |start: &str| {
            let found = parameters.iter().find(|p| p.name.starts_with(start));
            found.unwrap_or_else(|| panic!("{what}: no {start}")).tags.layer
        };
        let block = |stage, i| of(&block_name(&config, stage, i));
        if let BackboneConfig::Vit(_) = config {
            let blocks = [0, 1, 2, 3].map(|i| block(i, 0));
            assert_eq!((of("net.patch_embed."), blocks), (0, [1, 2, 3, 4]), "{what}");
            assert_eq!([of("simfp_2."), of("simfp_5.")], [5; 2], "{what}");
            // What runs with the patches is of the layer that sees the image, the last norm of the last.
            for Parameter { name, tags, .. } in &parameters {
                let first = ["net.pos_embed", "net.cls_token", "net.register_tokens"];
                if first.contains(&name.as_str()) || name.starts_with("net.ln_pre.") {
                    assert_eq!(tags.layer, 0, "{what} {name}");
                } else if name.starts_with("net.norm.") {
                    assert_eq!(tags.layer, 5, "{what} {name}");
                }
            }
            continue;
        }
        let blocks = [block(0, 0), block(1, 1), block(2, 1), block(3, 0)];
        let (embed, down, expected, top) = match &config {
            // The reference's: three blocks of the third stage are one layer.
            BackboneConfig::Convnext(_) => {
                ("downsample_layers.0.", of("downsample_layers.2."), [1, 2, 3, 4], 5)
            }
            _ => ("patch_embed.", of("layers.1.downsample."), [1, 3, 5, 6], 7),
        };
        assert_eq!((of(embed), down, blocks), (0, 3, expected), "{what}");
        assert_eq!([of("norm0."), of("norm3.")], [top; 2], "{what}");
    }
}

#[test]
fn frozen_stages_are_not_trained_and_norms_of_outputs_are() {
    for (what, config) in all_that_mask() {
        // In the order of freezing.
        let places: [&[&str]; 6] = match &config {
            BackboneConfig::Convnext(_) => [
                &["downsample_layers.0."],
                &["stages.0."],
                &["downsample_layers.1.", "stages.1."],
                &["downsample_layers.2.", "stages.2."],
                &["downsample_layers.3.", "stages.3."],
                &["norm"],
            ],
            _ => [
                &["patch_embed."],
                &["layers.0."],
                &["layers.1."],
                &["layers.2."],
                &["layers.3."],
                &["norm"],
            ],
        };
        for frozen in [-1, 0, 2, 4] {
            let (parameters, _) = build(&with(&config, 0.2, false, frozen), &[1, 2, 3]);
            for Parameter { name, role, .. } in parameters {
                let place =
                    places.iter().position(|starts| starts.iter().any(|s| name.starts_with(s)));
                let expected =
                    if place.unwrap() as i64 > frozen { Role::Trainable } else { Role::Frozen };
                assert_eq!(role, expected, "{what} {frozen} {name}");
            }
        }
    }
}

#[test]
fn frozen_blocks_are_not_trained_and_the_pyramid_is() {
    for (what, config) in all().into_iter().filter(|(_, config)| !config.masks_padding()) {
        for frozen in [-1, 0, 2, 4] {
            let (parameters, _) = build(&with(&config, 0.2, false, frozen), &[1, 2, 3]);
            for Parameter { name, role, .. } in parameters {
                let block = name
                    .strip_prefix("net.blocks.")
                    .map(|rest| rest.split('.').next().unwrap().parse::<i64>().unwrap() + 1);
                let place = match block {
                    Some(place) => place,
                    None if name.starts_with("simfp_") => i64::MAX,
                    None if name.starts_with("net.norm.") => 4,
                    None => 0,
                };
                let expected = if place > frozen { Role::Trainable } else { Role::Frozen };
                assert_eq!(role, expected, "{what} {frozen} {name}");
            }
        }
    }
}

/// Keys had no bias in pretraining, and get none: it would not be lost in softmax, as keys turn.
#[test]
fn keys_without_bias_learn_none() {
    for (what, config) in all() {
        let BackboneConfig::Vit(vit) = &config else { continue };
        let gradients = pass(&config, &image(7, 1, 64, 64), None);
        for (name, gradient) in gradients.iter().filter(|(n, _)| n.ends_with("attn.qkv.bias")) {
            let [q, k, v] =
                [0, 1, 2].map(|i| gradient.chunk(3, 0)[i].abs().max().double_value(&[]));
            assert!(q > 0.0 && v > 0.0, "{what} {name}");
            let family = vit.name.family();
            if matches!(family, VitFamily::Dinov3 | VitFamily::Eva02) {
                assert_eq!(k, 0.0, "{what} {name}");
            }
        }
    }
}

/// A batch is padded to whole pairs of patches: what lies beyond is image to the network, as in the references.
#[test]
fn vision_transformers_take_whole_pairs_of_patches() {
    let of = |name| BackboneConfig::from(VitConfig { name, ..VitConfig::default() });
    for (name, multiple, strides) in [
        (VitName::VitdetB, 32, [4.0, 8.0, 16.0, 32.0]),
        (VitName::Dinov2B, 28, [3.5, 7.0, 14.0, 28.0]),
        (VitName::Dinov3B, 32, [4.0, 8.0, 16.0, 32.0]),
        (VitName::Eva02L, 32, [4.0, 8.0, 16.0, 32.0]),
        (VitName::ClipVitB32, 64, [8.0, 16.0, 32.0, 64.0]),
        (VitName::ClipVitL14, 28, [3.5, 7.0, 14.0, 28.0]),
    ] {
        let config = of(name);
        let found: Vec<f64> = config.levels().iter().map(|level| level.stride).collect();
        assert_eq!((config.pad_multiple(), &*found), (multiple, &strides[..]), "{}", name.name());
    }
}

/// The official configurations: `srf` and `lrf` of T, S and B, `fl3` and `fl4` of the large ones. Only L's with four
/// levels divides the sum of its contexts.
#[test]
fn published_focalnets_have_the_published_contexts() {
    use FocalnetName::{FocalnetB, FocalnetH, FocalnetL, FocalnetT, FocalnetXl};
    for (name, levels, expected) in [
        (FocalnetT, None, (3, 3, false)),
        (FocalnetB, Some(2), (2, 3, false)),
        (FocalnetL, Some(3), (3, 5, false)),
        (FocalnetL, None, (4, 3, true)),
        (FocalnetXl, Some(3), (3, 5, false)),
        (FocalnetXl, None, (4, 3, false)),
        (FocalnetH, Some(3), (3, 3, false)),
        (FocalnetH, None, (4, 3, false)),
    ] {
        let config = FocalnetConfig { name, focal_levels: levels, ..FocalnetConfig::default() };
        let got = (config.focal_levels(), config.focal_window(), config.normalize_modulator());
        assert_eq!(got, expected, "{name:?} {levels:?}");
    }
}

/// timm 1.0.31: `sum(p.numel())` of `swin_tiny_patch4_window7_224` and `focalnet_tiny_lrf`, without their last
/// norm and classifier.
#[test]
fn published_models_have_the_published_numbers_of_parameters() {
    let count = |config: BackboneConfig| {
        let store = ParameterStore::to_be_loaded(Device::Cpu);
        let _ = Backbone::new(&store.root(), &config, &[]);
        store.trainable_count()
    };
    assert_eq!(count(SwinConfig::default().into()), 27_517_818);
    assert_eq!(count(FocalnetConfig::default().into()), 27_877_392);
    // `sum(p.numel())` of timm 1.0.31's `vit_small_patch14_dinov2`, `vit_small_patch16_dinov3_qkvb`,
    // `vit_small_plus_patch16_dinov3_qkvb`, `eva02_small_patch14_224` and `eva02_base_patch14_224` (these without class
    // token and last norm), and of transformers' CLIPVisionModel of ViT-B/32's sizes, without its last norm. Where
    // keys have no bias there, they have one here that stays zero.
    for (name, published) in [
        (VitName::Dinov2S, 22_056_192),
        (VitName::Dinov3S, 21_596_160),
        (VitName::Dinov3SPlus, 28_692_480),
        (VitName::Eva02S, 21_619_968),
        (VitName::Eva02B, 85_756_416),
        (VitName::ClipVitB32, 87_454_464),
    ] {
        let eva02 = name.family() == VitFamily::Eva02;
        let vit = VitConfig { name, patch: eva02.then_some(14), ..VitConfig::default() };
        let zeros = if name.family().key_bias() { 0 } else { vit.width() * vit.depth() };
        assert_eq!(count(vit.into()), published + zeros as usize, "{}", name.name());
    }
}
