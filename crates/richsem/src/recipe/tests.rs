//! Situations, and what is written for them.

use std::path::Path;

use super::*;
use crate::{
    config::Config,
    models::backbone::{
        ConvnextConfig, FocalnetConfig, ResnetConfig, ResnetName, SwinConfig, VitConfig, VitName,
    },
};

fn situation(beginning: Beginning, machine: Machine) -> Situation {
    let place = |key: &str, split: &str| Place {
        key: key.to_owned(),
        settings: vec![
            ("annotations".to_owned(), "cells".into()),
            ("split".to_owned(), split.into()),
        ],
    };
    let sampler = "v = { kind = \"repeat_factor\", threshold = 0.4 }".parse::<toml::Table>();
    Situation {
        places: vec![place("data.train", "train"), place("data.val", "valid")],
        images: 205,
        drawn: 205,
        tile: None,
        judged: 87,
        advice: vec![Advice {
            key: "data.sampler".to_owned(),
            value: sampler.unwrap().remove("v"),
            why: "one of 3 classes is rare".to_owned(),
            source: "a paper",
        }],
        beginning,
        machine,
        sizes: Vec::new(),
    }
}

const CPU: Machine = Machine::Cpu { cores: 2 };

fn gpu() -> Machine {
    Machine::Gpu { name: "H200".to_owned() }
}

fn backbone() -> Beginning {
    let backbone = ResnetConfig { name: ResnetName::Resnet18, ..ResnetConfig::default() };
    Beginning::Backbone { weights: "resnet18.pth".to_owned(), backbone: Box::new(backbone.into()) }
}

/// Backbones of the other kinds, as published and with sizes of their own.
fn others() -> Vec<BackboneConfig> {
    let vit = |name| VitConfig { name, ..VitConfig::default() };
    vec![
        SwinConfig::default().into(),
        SwinConfig { window: Some(4), layers: vec![1; 4], ..SwinConfig::default() }.into(),
        FocalnetConfig { focal_levels: Some(2), ..FocalnetConfig::default() }.into(),
        ConvnextConfig::default().into(),
        VitConfig { depth: Some(8), ..vit(VitName::VitdetB) }.into(),
        VitConfig { registers: Some(4), ..vit(VitName::Dinov2S) }.into(),
        vit(VitName::Dinov3S).into(),
        vit(VitName::ClipVitB32).into(),
        ResnetConfig { name: ResnetName::Resnet34, ..ResnetConfig::default() }.into(),
        ResnetConfig {
            name: ResnetName::ClipResnet,
            width: 32,
            layers: vec![2; 4],
            ..ResnetConfig::default()
        }
        .into(),
    ]
}

fn published(backbone: BackboneConfig) -> Beginning {
    Beginning::Backbone { weights: "weights.pth".to_owned(), backbone: Box::new(backbone) }
}

fn written(situation: &Situation, seconds: Option<f64>) -> (String, Config) {
    let pace = Pace { step: 0.6, judged: 0.05 };
    let batch = situation.batch();
    let (length, why) = situation.length(batch, pace, seconds);
    let mut recipe = situation.recipe();
    recipe.set_length((batch, "as the preset has it"), length, &why);
    let text = recipe.to_toml("Written by a test.\nIt has two lines.");
    let config = Config::parse(&text, Path::new("/here/mine.toml")).unwrap();
    (text, config)
}

/// Whatever the situation, the file is read, and nothing in it contradicts the situation.
#[test]
fn every_situation_gives_settings_without_a_warning() {
    let detector = Beginning::Detector {
        weights: "other.safetensors".to_owned(),
        settings: vec![("model.dino.transformer.hidden_dim".to_owned(), 128.into())],
    };
    let official = Beginning::Official { weights: "checkpoint0011_4scale.pth".to_owned() };
    let others = others().into_iter().map(published);
    for beginning in [Beginning::Scratch, backbone(), detector, official].into_iter().chain(others)
    {
        for machine in [CPU, gpu()] {
            for images in [1, 3, 205, 100_000] {
                let situation = Situation {
                    images,
                    drawn: images,
                    tile: None,
                    ..situation(beginning.clone(), machine.clone())
                };
                let (text, config) = written(&situation, None);
                assert_eq!(config.warnings(), [""; 0], "{text}");
                assert!(config.data.batch_size <= images.max(1));
            }
        }
    }
}

#[test]
fn rates_follow_from_what_is_trained_already() {
    let rates = |beginning, machine| {
        let (text, config) = written(&situation(beginning, machine), None);
        assert!(text.contains("lr_backbone"), "{text}");
        (config.train.lr, config.train.lr_backbone)
    };
    assert_eq!(rates(Beginning::Scratch, CPU), (1e-3, 1e-3));
    assert_eq!(rates(Beginning::Scratch, gpu()), (2e-4, 2e-4));
    assert_eq!(rates(backbone(), CPU), (1e-3, 1e-4));
    assert_eq!(rates(backbone(), gpu()), (1e-4, 1e-5));
    let (_, config) = written(&situation(backbone(), CPU), None);
    assert_eq!(config.model.backbone().describe(), "resnet18, frozen_bn");
    assert_eq!(config.model.backbone().weights(), Some(Path::new("/here/resnet18.pth")));
}

#[test]
fn a_run_is_as_long_as_it_must_be_or_as_time_allows() {
    let (text, config) = written(&situation(Beginning::Scratch, CPU), None);
    // 205 images in batches of 8: 25 steps an epoch, 3000 in all.
    assert_eq!((config.train.epochs, &*config.train.lr_drop), (120, &[102][..]));
    assert_eq!(config.train.eval_every, 20);
    assert!(text.contains("[data.train]\nannotations = \"cells\"\nsplit = \"train\"\n"), "{text}");
    assert!(text.contains("# one of 3 classes is rare (a paper)\nsampler = {"), "{text}");
    assert!(text.starts_with("# Written by a test.\n# It has two lines.\nversion = 1\n"), "{text}");
    // 600 seconds: an epoch takes 15, each evaluation 4.35.
    let (text, config) = written(&situation(Beginning::Scratch, CPU), Some(600.0));
    let evaluations = config.train.epochs.div_ceil(config.train.eval_every);
    let seconds = config.train.epochs as f64 * 15.0 + evaluations as f64 * 4.35;
    assert!((580.0..=600.0).contains(&seconds), "{seconds}: {text}");
    assert!(text.contains("what fits into 10 minutes here; 120 epochs would be better"), "{text}");
    let (text, config) = written(&situation(Beginning::Scratch, CPU), Some(12.0));
    assert_eq!((config.train.epochs, &*config.train.lr_drop), (1, &[][..]));
    assert!(text.contains("what fits into 12 seconds here"), "{text}");
    assert!(text.contains("the rate does not drop\nlr_drop = []\n"), "{text}");
}

/// Whatever the kind and the sizes, the settings are those of the weights, on the CPU and on a GPU.
#[test]
fn a_backbone_of_any_kind_is_written_as_it_is() {
    for backbone in others() {
        for machine in [CPU, gpu()] {
            let (text, config) = written(&situation(published(backbone.clone()), machine), None);
            let mut own = config.model.backbone().clone();
            assert_eq!(own.weights(), Some(Path::new("/here/weights.pth")), "{text}");
            own.set_weights(None);
            assert_eq!(own, backbone, "{text}");
            assert_eq!(config.data.pad_multiple % backbone.pad_multiple(), 0, "{text}");
        }
    }
    for clip in [7, 9] {
        let (_, config) = written(&situation(published(others().swap_remove(clip)), gpu()), None);
        assert!((config.model.pixel_mean[0] - 0.4815).abs() < 1e-4);
    }
    let (_, config) = written(&situation(published(others().swap_remove(7)), gpu()), None);
    assert!((config.train.lr_backbone_layer_decay - 0.7).abs() < 1e-9);
}

#[test]
fn sizes_that_memory_asks_for_take_the_place_of_others() {
    let settings = vec![("data.resize.size".to_owned(), 800.into())];
    let detector = Beginning::Detector { weights: "other.safetensors".to_owned(), settings };
    let size = |value: i64| Choice {
        key: "data.resize.size".to_owned(),
        value: value.into(),
        why: "memory".to_owned(),
    };
    let situation = Situation { sizes: vec![size(320)], ..situation(detector, CPU) };
    let (text, config) = written(&situation, None);
    assert_eq!(config.data.resize.size, 320, "{text}");
    assert!(text.contains("# memory\nsize = 320\n"), "{text}");
}

/// Whatever the weights bring and the set's numbers ask for, the file has one value a key.
#[test]
fn weights_and_numbers_that_disagree_give_one_value_a_key() {
    let value = |text: &str| format!("v = {text}").parse::<toml::Table>().unwrap().remove("v");
    let advice = |key: &str, text: &str| Advice {
        key: key.to_owned(),
        value: value(text),
        why: format!("numbers of {key}"),
        source: "a paper",
    };
    let all = vec![
        advice("data.resize", "{ size = 320, max_size = 533 }"),
        advice("data.augment", "{ scales = [288, 320], max_size = 533 }"),
        advice("data.sampler", "{ kind = \"repeat_factor\", threshold = 0.4 }"),
        advice("loss.federated", "{ classes = 50, power = 0.5 }"),
        advice("model.dino.transformer.num_queries", "1000"),
        advice("eval.max_detections", "400"),
    ];
    let of_weights = [
        ("data.resize.size", "160"),
        ("data.resize.max_size", "266"),
        ("data.augment.scales", "[128, 160]"),
        ("data.augment.max_size", "266"),
        ("model.dino.transformer.num_queries", "30"),
    ];
    let settings = of_weights.map(|(key, text)| (key.to_owned(), value(text).unwrap())).to_vec();
    let detector = Beginning::Detector { weights: "other.safetensors".to_owned(), settings };
    let official = Beginning::Official { weights: "checkpoint0011_4scale.pth".to_owned() };
    let memory = Choice {
        key: "data.augment.scales".to_owned(),
        value: value("[256]").unwrap(),
        why: "memory".to_owned(),
    };
    for beginning in [Beginning::Scratch, backbone(), detector, official] {
        let whole = matches!(beginning, Beginning::Detector { .. } | Beginning::Official { .. });
        for (machine, sizes) in [(CPU, vec![memory.clone()]), (gpu(), Vec::new())] {
            let usual = situation(beginning.clone(), machine);
            let situation = Situation { advice: all.clone(), sizes: sizes.clone(), ..usual };
            let (text, config) = written(&situation, None);
            assert_eq!((config.data.resize.size, config.data.resize.max_size), (320, 533));
            let scales: &[u32] = if sizes.is_empty() { &[288, 320] } else { &[256] };
            assert_eq!((&*config.data.augment.scales, config.data.augment.max_size), (scales, 533));
            let queries = config.model.as_dino().unwrap().transformer.num_queries;
            let told = "Not set: model.dino.transformer.num_queries = 1000.";
            assert_eq!(text.contains(told), whole, "{text}");
            assert_eq!(queries == 1000, !whole, "{text}");
            if let Beginning::Detector { .. } = situation.beginning {
                assert_eq!(queries, 30);
                let told = "in place of 160, the weights' own";
                assert!(text.replace("\n# ", " ").contains(told), "{text}");
            }
        }
    }
}
