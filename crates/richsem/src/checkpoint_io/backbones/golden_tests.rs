//! Backbones against published implementations, in f64: maps, and the gradient of every parameter, of weights
//! under the names of these implementations. `reference/backbones` makes the fixtures.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, hash::Hasher as _};

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use super::{Layout, Names, Sorted, is_new};
use crate::{
    hash::Fnv,
    models::{
        backbone::{Backbone, BackboneConfig},
        parameters::{ParameterStore, Role},
    },
};

/// The dot product with a random direction, and the squared norm.
type Numbers = [f64; 2];

#[derive(Deserialize)]
struct Map {
    shape: Vec<i64>,
    numbers: Numbers,
}

#[derive(Deserialize)]
struct Case {
    size: [i64; 2],
    maps: Vec<Map>,
}

#[derive(Deserialize)]
struct Parameter {
    /// With the prefix, which counts in [`uniform`].
    #[serde(skip)]
    full: String,
    shape: Vec<i64>,
    gradient: Numbers,
}

/// What an implementation computes; `record.py` says how.
#[derive(Deserialize)]
struct Fixture {
    settings: String,
    cases: Vec<Case>,
    parameters: BTreeMap<String, Parameter>,
}

impl Fixture {
    /// `prefix` is that of the names in the file.
    fn read(name: &str, prefix: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/backbones");
        let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
        let fixture: Self = serde_json::from_str(&text).unwrap();
        let parameters = fixture.parameters.into_iter().map(|(full, parameter)| {
            let name = full.strip_prefix(prefix).unwrap().to_owned();
            (name, Parameter { full, ..parameter })
        });
        Self { parameters: parameters.collect(), ..fixture }
    }

    fn config(&self) -> BackboneConfig {
        let config: BackboneConfig = toml::from_str(&self.settings).unwrap();
        config.validate("backbone").unwrap();
        config
    }

    /// The weights, under the names of the implementation.
    fn weights(&self) -> BTreeMap<String, Tensor> {
        let all = self.parameters.iter();
        all.map(|(name, p)| (name.clone(), value(&p.full, &p.shape))).collect()
    }

    /// For each of our parameters, the sum of such numbers of the tensors that it is made of.
    fn by_our_names(
        &self,
        layout: Layout,
        of: impl Fn(&Parameter) -> f64,
    ) -> BTreeMap<String, f64> {
        let spread = |(name, p): (&String, &Parameter)| {
            let count: i64 = p.shape.iter().product();
            let each = of(p) / count as f64;
            (name.clone(), Tensor::full(&p.shape, each, (Kind::Double, Device::Cpu)))
        };
        let sorted = layout.sort(self.parameters.iter().map(spread).collect());
        let sum = |(name, t): (String, Tensor)| (name, t.sum(Kind::Double).double_value(&[]));
        sorted.tensors.into_iter().map(sum).collect()
    }
}

/// Numbers in [−1, 1) that the name decides: SplitMix64 of each place, after FNV-1a of the name.
fn uniform(name: &str, shape: &[i64]) -> Tensor {
    let mut hasher = Fnv::default();
    hasher.write(name.as_bytes());
    let key = hasher.finish();
    let number = |place: u64| {
        let mut x = key.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        2.0 * ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64 - 1.0
    };
    let count: i64 = shape.iter().product();
    let values: Vec<f64> = (1..=count as u64).map(number).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// The value of a parameter, as `record.py` has it.
fn value(name: &str, shape: &[i64]) -> Tensor {
    let u = uniform(name, shape);
    match shape.len() {
        1 if name.ends_with("weight") => u * 0.3 + 1.0,
        0 | 1 => u * 0.2,
        _ => u * (3.0 / shape[1..].iter().product::<i64>() as f64).sqrt(),
    }
}

fn numbers(tensor: &Tensor, direction: &Tensor) -> Numbers {
    let sum = |t: Tensor| t.sum(Kind::Double).double_value(&[]);
    [sum(tensor * direction), sum(tensor * tensor)]
}

fn close(what: &str, got: Numbers, expected: Numbers, direction: f64) {
    // Of dots, relative to what they could be.
    let most = [(expected[1] * direction).sqrt(), expected[1]].map(|most| most.max(1e-9));
    for i in 0..2 {
        let off = (got[i] - expected[i]).abs() / most[i];
        assert!(off < 1e-9, "{what}: {got:?}, expected {expected:?}: off by {off:e}");
    }
}

struct Model {
    store: ParameterStore,
    backbone: Backbone,
}

/// A backbone in f64 with these weights. Norms of outputs that a file does not have start anew.
fn model(config: &BackboneConfig, weights: &BTreeMap<String, Tensor>) -> Model {
    let store = ParameterStore::new(Device::Cpu, 0);
    let levels: Vec<usize> = (0..config.levels().len()).collect();
    let backbone = Backbone::new(&store.root(), config, &levels);
    for mut parameter in store.parameters() {
        let value = weights.get(&parameter.name);
        assert!(value.is_some() || is_new(&parameter.name), "missing {}", parameter.name);
        let value = value.map_or_else(|| parameter.tensor.detach(), Tensor::shallow_clone);
        assert_eq!(value.size(), parameter.tensor.size(), "{}", parameter.name);
        parameter.tensor.set_data(&value.to_kind(Kind::Double));
    }
    let known: Vec<String> = store.parameters().into_iter().map(|p| p.name).collect();
    for name in weights.keys() {
        assert!(known.contains(name), "unexpected {name}");
    }
    Model { store, backbone }
}

/// The maps and all gradients are those of the fixture, and the sizes that the tensors tell are the settings.
fn agrees(name: &str, prefix: &str, layout: Layout) {
    let fixture = Fixture::read(name, prefix);
    let config = fixture.config();
    let weights = fixture.weights();
    assert_eq!(Layout::of(&weights), Some(layout), "{name}");
    let Sorted { tensors, .. } = layout.sort(weights);
    if let Some(read) = layout.config(&tensors) {
        assert_eq!(read.with_training_of(&config).describe(), config.describe(), "{name}");
    }
    let Model { store, backbone } = model(&config, &tensors);
    let mut loss = Tensor::zeros([], (Kind::Double, Device::Cpu));
    for Case { size: [h, w], maps } in &fixture.cases {
        let images = uniform(&format!("images {h} {w}"), &[2, 3, *h, *w]);
        let found = backbone.forward(&images, None, (true, None)).unwrap();
        assert_eq!(found.len(), maps.len());
        for (level, (found, map)) in found.iter().zip(maps).enumerate() {
            let what = format!("{name} {h}×{w} map {level}");
            assert_eq!(found.size(), map.shape, "{what}");
            let direction = uniform(&format!("map {level}"), &map.shape);
            let squares = numbers(&direction, &direction)[1];
            close(&what, numbers(found, &direction), map.numbers, squares);
            loss += (found * direction).sum(Kind::Double);
        }
    }
    loss.backward();
    let directions = fixture
        .parameters
        .iter()
        .map(|(name, p)| (name.clone(), uniform(&format!("gradient {}", p.full), &p.shape)));
    let directions = layout.sort(directions.collect()).tensors;
    // A place that the file has no value for has no gradient there, either: a class token's position that is added up.
    let ones = |(name, p): (&String, &Parameter)| {
        (name.clone(), Tensor::ones(&p.shape, (Kind::Double, Device::Cpu)))
    };
    let given = layout.sort(fixture.parameters.iter().map(ones).collect()).tensors;
    let dots = fixture.by_our_names(layout, |p| p.gradient[0]);
    let norms = fixture.by_our_names(layout, |p| p.gradient[1]);
    let trained = store.parameters().into_iter().filter(|p| p.role == Role::Trainable);
    for parameter in trained.filter(|p| directions.contains_key(&p.name)) {
        let own = &parameter.name;
        let gradient = parameter.tensor.grad() * &given[own];
        let direction = &directions[own];
        let squares = numbers(direction, direction)[1];
        let what = format!("{name}, gradient of {own}");
        close(&what, numbers(&gradient, direction), [dots[own], norms[own]], squares);
    }
}

mod swin {
    use super::*;

    #[test]
    fn as_transformers_computes_it_at_any_size() {
        agrees("swin_huggingface", "", Layout::Swin(Names::HuggingFace));
    }

    #[test]
    fn as_timm_computes_it() {
        agrees("swin_timm", "", Layout::Swin(Names::Timm));
    }

    #[test]
    fn as_torchvision_computes_it() {
        agrees("swin_torchvision", "", Layout::Swin(Names::Torchvision));
    }
}

mod focalnet {
    use super::*;

    #[test]
    fn as_transformers_computes_it_at_any_size() {
        for form in ["small", "large", "huge"] {
            let name = format!("focalnet_huggingface_{form}");
            agrees(&name, "focalnet.", Layout::Focalnet(Names::HuggingFace));
        }
    }

    #[test]
    fn as_timm_computes_it() {
        for form in ["small", "huge"] {
            agrees(&format!("focalnet_timm_{form}"), "", Layout::Focalnet(Names::Timm));
        }
    }
}

mod convnext {
    use super::*;

    #[test]
    fn as_transformers_computes_it_at_any_size() {
        for version in ["convnext", "convnext_v2"] {
            let name = format!("{version}_huggingface");
            agrees(&name, "", Layout::Convnext(Names::HuggingFace));
        }
    }

    #[test]
    fn as_timm_computes_it() {
        for version in ["convnext", "convnext_v2"] {
            agrees(&format!("{version}_timm"), "", Layout::Convnext(Names::Timm));
        }
    }

    #[test]
    fn as_torchvision_computes_it() {
        agrees("convnext_torchvision", "", Layout::Convnext(Names::Torchvision));
    }
}

mod vit {
    use super::*;
    use crate::models::backbone::VitFamily;

    fn agree(family: VitFamily, names: Names, fixtures: &[&str]) {
        for name in fixtures {
            agrees(name, "", Layout::Vit(family, names));
        }
    }

    #[test]
    fn vitdet_as_transformers_computes_it_at_any_size() {
        agree(VitFamily::Vitdet, Names::HuggingFace, &["vitdet_huggingface"]);
    }

    /// Without registers positions are resized by a factor that is 0.1 off; with them to the size, antialiased.
    #[test]
    fn dinov2_as_its_own_code_computes_it() {
        let fixtures = ["dinov2_official", "dinov2_official_gated"];
        agree(VitFamily::Dinov2, Names::Official, &fixtures);
    }

    #[test]
    fn dinov2_with_registers_as_transformers_computes_it_at_any_size() {
        agree(VitFamily::Dinov2, Names::HuggingFace, &["dinov2_huggingface"]);
    }

    /// The class token's position is in the token.
    #[test]
    fn dinov2_with_registers_as_timm_computes_it() {
        agree(VitFamily::Dinov2, Names::Timm, &["dinov2_timm"]);
    }

    #[test]
    fn dinov3_as_transformers_computes_it_at_any_size() {
        let fixtures = ["dinov3_huggingface", "dinov3_huggingface_gated"];
        agree(VitFamily::Dinov3, Names::HuggingFace, &fixtures);
    }

    #[test]
    fn dinov3_as_timm_computes_it() {
        agree(VitFamily::Dinov3, Names::Timm, &["dinov3_timm_gated"]);
    }

    /// In the whole image and in windows, which have positions of their own.
    #[test]
    fn eva02_as_blocks_of_timm_compute_it() {
        let fixtures = ["eva02_timm", "eva02_timm_windows", "eva02_timm_small"];
        agree(VitFamily::Eva02, Names::Timm, &fixtures);
    }

    #[test]
    fn clip_as_transformers_computes_it_at_any_size() {
        let fixtures = ["clip_huggingface_quick_gelu", "clip_huggingface_gelu"];
        agree(VitFamily::Clip, Names::HuggingFace, &fixtures);
    }
}
