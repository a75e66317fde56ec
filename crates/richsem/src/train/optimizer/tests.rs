use std::collections::BTreeMap;

use tch::{Device, Kind};

use super::*;
use crate::models::{
    backbone::{Norm, Resnet, ResnetConfig, ResnetName},
    class_head::ClassSpace,
    dino::{Dino, DinoConfig},
    parameters::{Init, ParameterStore},
};

fn setup(config: &TrainConfig) -> (ParameterStore, Tensor, Tensor, Optimizer) {
    let store = ParameterStore::new(Device::Cpu, 0);
    let a = store.root().sub("backbone").backbone().parameter("weight", &[3], Init::Uniform(1.0));
    let b = store.root().sub("head").parameter("bias", &[2, 2], Init::Uniform(1.0));
    let optimizer = Optimizer::new(store.parameters(), config).unwrap();
    (store, a, b, optimizer)
}

fn loss(a: &Tensor, b: &Tensor) -> Tensor {
    (a * a).sum(Kind::Float) * 2.0 + (b - 1.0).pow_tensor_scalar(4).sum(Kind::Float)
}

/// The update of one value, as the paper writes it.
fn adamw(value: &mut f64, grads: &[f64], lr: f64, decay: f64) {
    let (mut m, mut v) = (0.0, 0.0);
    for (t, g) in grads.iter().enumerate() {
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        if t + 1 == grads.len() {
            let t = grads.len() as i32;
            let (mh, vh) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            *value -= lr * decay * *value;
            *value -= lr * mh / (vh.sqrt() + 1e-8);
        }
    }
}

#[test]
fn parameters_share_the_flat_buffer_and_follow_adamw() {
    let config = TrainConfig {
        lr: 0.1,
        lr_backbone: 0.01,
        weight_decay: 0.05,
        clip_max_norm: 0.0,
        ..TrainConfig::default()
    };
    let (_store, a, b, mut optimizer) = setup(&config);
    let (mut ea, mut eb) = (a.double_value(&[1]), b.double_value(&[1, 0]));
    let (mut ga, mut gb) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        optimizer.zero_grad();
        loss(&a, &b).backward();
        ga.push(a.grad().double_value(&[1]));
        gb.push(b.grad().double_value(&[1, 0]));
        let _ = optimizer.clip().unwrap();
        optimizer.step(1.0, None).unwrap();
        adamw(&mut ea, &ga, 0.01, 0.05);
        adamw(&mut eb, &gb, 0.1, 0.05);
    }
    assert!((a.double_value(&[1]) - ea).abs() < 1e-6);
    assert!((b.double_value(&[1, 0]) - eb).abs() < 1e-6);
}

#[test]
fn clipping_scales_the_whole_gradient() {
    let config = TrainConfig { clip_max_norm: 0.1, ..TrainConfig::default() };
    let (_store, a, b, mut optimizer) = setup(&config);
    loss(&a, &b).backward();
    let squares = |x: &Tensor| x.grad().square().sum(Kind::Double).double_value(&[]);
    let before = (squares(&a) + squares(&b)).sqrt();
    let norm = optimizer.clip().unwrap().double_value(&[]);
    assert!((norm - before).abs() < 1e-5);
    assert!(((squares(&a) + squares(&b)).sqrt() - 0.1).abs() < 1e-5);
    // A gradient below the limit stays as it is.
    optimizer.zero_grad();
    let _ = a.grad().fill_(0.01);
    let norm = optimizer.clip().unwrap().double_value(&[]);
    assert!((norm - 0.01 * 3f64.sqrt()).abs() < 1e-6);
    assert!((a.grad().double_value(&[0]) - 0.01).abs() < 1e-9);
}

#[test]
fn the_first_gradient_that_is_not_finite_is_named_also_with_clipping() {
    let config = TrainConfig { clip_max_norm: 0.1, ..TrainConfig::default() };
    let (_store, a, b, mut optimizer) = setup(&config);
    loss(&a, &b).backward();
    let _ = b.grad().get(1).fill_(f64::NAN);
    assert!(optimizer.clip().unwrap().double_value(&[]).is_nan());
    assert_eq!(optimizer.first_non_finite_gradient().as_deref(), Some("head.bias"));
    // And what is told to be skipped changes nothing.
    let values =
        || Vec::<f32>::try_from(Tensor::cat(&[a.flatten(0, -1), b.flatten(0, -1)], 0)).unwrap();
    let before = values();
    optimizer.step(1.0, Some(&Tensor::from(1.0f32))).unwrap();
    assert_eq!(values(), before);
    let _ = b.grad().fill_(0.5);
    optimizer.step(1.0, Some(&Tensor::from(0.0f32))).unwrap();
    assert!(values() != before && values().iter().all(|x| x.is_finite()));
    assert!(optimizer.step(1.0, Some(&Tensor::from_slice(&[0.0f32, 1.0]))).is_err());
}

#[test]
fn the_mean_lags_behind_in_memory_of_its_own() {
    let ema = Some(EmaConfig { decay: 0.5, warmup: false });
    let config = TrainConfig { ema, lr: 0.1, ..TrainConfig::default() };
    let (_store, _a, b, mut optimizer) = setup(&config);
    let start = b.double_value(&[0, 0]);
    let _ = b.grad().fill_(1.0);
    optimizer.step(1.0, None).unwrap();
    let now = b.double_value(&[0, 0]);
    let mean = || optimizer.ema().unwrap()["head.bias"].double_value(&[0, 0]);
    assert!((mean() - (start + now) / 2.0).abs() < 1e-6);
    assert_eq!(b.double_value(&[0, 0]), now);
}

/// By hand in f64, over an interruption: the number of the update is what counts.
#[test]
fn a_warm_mean_forgets_the_first_weights() {
    let ema = EmaConfig { decay: 0.3, warmup: true };
    let config = TrainConfig { ema: Some(ema), lr: 0.1, ..TrainConfig::default() };
    let (_s1, _a, b, mut optimizer) = setup(&config);
    let mut expected = b.double_value(&[0, 0]);
    // 2/11 and 3/12 are below 0.3, 4/13 is not.
    for decay in [2.0 / 11.0, 3.0 / 12.0] {
        let _ = b.grad().fill_(1.0);
        optimizer.step(1.0, None).unwrap();
        expected = decay * expected + (1.0 - decay) * b.double_value(&[0, 0]);
    }
    let saved = optimizer.state().into_iter().map(|(k, v)| (k, v.copy())).collect();
    let (_s2, _a, b, mut resumed) = setup(&config);
    resumed.load_state(&saved, &optimizer.layout(), optimizer.steps(), "s".as_ref()).unwrap();
    for decay in [0.3, 0.3] {
        let _ = b.grad().fill_(1.0);
        resumed.step(1.0, None).unwrap();
        expected = decay * expected + (1.0 - decay) * b.double_value(&[0, 0]);
    }
    let mean = resumed.ema().unwrap()["head.bias"].double_value(&[0, 0]);
    assert!((mean - expected).abs() < 1e-6, "{mean} {expected}");
}

/// The reference goes by substrings of names; ours by what a parameter is.
fn by_name(name: &str, config: &TrainConfig) -> Rule {
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let backbone = has(&["backbone"]);
    let plain = Rule {
        lr: if backbone { config.lr_backbone } else { config.lr },
        weight_decay: config.weight_decay,
    };
    match config.param_groups {
        ParamGroups::DdetrInMmdet
            if !backbone && has(&["reference_points", "sampling_offsets"]) =>
        {
            Rule { lr: config.lr * config.lr_linear_proj_mult, ..plain }
        }
        ParamGroups::LargeWd if has(&["norm", "bias"]) => Rule { weight_decay: 0.0, ..plain },
        _ => plain,
    }
}

#[test]
fn groups_are_the_references() {
    for norm in [Norm::FrozenBn, Norm::BatchNorm, Norm::GroupNorm] {
        let backbone = ResnetConfig { norm, frozen_stages: -1, ..small_backbone() }.into();
        let store = ParameterStore::new(Device::Cpu, 0);
        let config = DinoConfig { backbone, ..DinoConfig::default() };
        let _ = Dino::new(&store, &config, ClassSpace::Text(16)).unwrap();
        let all = store.parameters();
        assert!(all.iter().any(|p| p.tags.sampling) && all.iter().any(|p| p.tags.backbone));
        for param_groups in [ParamGroups::Default, ParamGroups::DdetrInMmdet, ParamGroups::LargeWd]
        {
            let config = TrainConfig { param_groups, ..TrainConfig::default() };
            for p in all.iter().filter(|p| p.role == Role::Trainable) {
                assert_eq!(rule(p.tags, 4, &config), by_name(&p.name, &config), "{}", p.name);
            }
        }
    }
}

fn small_backbone() -> ResnetConfig {
    ResnetConfig { name: ResnetName::Resnet18, width: 64, ..ResnetConfig::default() }
}

#[test]
fn rates_of_the_backbone_fall_from_layer_to_layer_where_they_are_to() {
    let store = ParameterStore::new(Device::Cpu, 0);
    let config = ResnetConfig { frozen_stages: -1, ..small_backbone() };
    let _ = Resnet::new(&store.root().sub("backbone").backbone(), &config);
    let config =
        TrainConfig { lr_backbone: 1.0, lr_backbone_layer_decay: 0.5, ..TrainConfig::default() };
    let lr = |name: &str| {
        let all = store.parameters();
        rule(all.iter().find(|p| p.name == name).unwrap().tags, 4, &config).lr
    };
    assert_eq!(lr("backbone.layer4.0.conv1.weight"), 1.0);
    assert_eq!(lr("backbone.layer3.1.conv2.weight"), 0.5);
    assert_eq!(lr("backbone.conv1.weight"), 0.0625);
}

#[test]
fn state_survives_a_round_trip() {
    let config = TrainConfig { ema: Some(EmaConfig::default()), ..TrainConfig::default() };
    let (_s1, a1, b1, mut first) = setup(&config);
    let (_s2, a2, b2, mut second) = setup(&config);
    let run = |a: &Tensor, b: &Tensor, o: &mut Optimizer| {
        o.zero_grad();
        loss(a, b).backward();
        let _ = o.clip().unwrap();
        o.step(1.0, None).unwrap();
    };
    run(&a1, &b1, &mut first);
    let saved = first.state().into_iter().map(|(k, v)| (k, v.copy())).collect();
    second.load_state(&saved, &first.layout(), first.steps(), "s".as_ref()).unwrap();
    run(&a1, &b1, &mut first);
    run(&a2, &b2, &mut second);
    assert_eq!(a1, a2);
    assert_eq!(b1, b2);
}

/// A run that goes on with other rates has other groups, or one where there were two.
#[test]
fn state_is_known_by_names_whatever_the_groups() {
    let two = TrainConfig { lr: 0.1, lr_backbone: 0.01, ..TrainConfig::default() };
    let one = TrainConfig { lr_backbone: 0.1, ema: Some(EmaConfig::default()), ..two.clone() };
    let (_s1, a1, b1, mut first) = setup(&two);
    loss(&a1, &b1).backward();
    first.step(1.0, None).unwrap();
    let saved: BTreeMap<_, _> = first.state().into_iter().map(|(k, v)| (k, v.copy())).collect();
    let (_s2, a2, b2, mut second) = setup(&one);
    assert_ne!(first.layout(), second.layout());
    second.load_state(&saved, &first.layout(), 1, "s".as_ref()).unwrap();
    assert_eq!((&a1, &b1), (&a2, &b2));
    // The mean begins at the weights, and the moments are those that were saved.
    let mean = second.ema().unwrap();
    assert_eq!((&a1, &b1), (&mean["backbone.weight"], &mean["head.bias"]));
    for optimizer in [&mut first, &mut second] {
        optimizer.zero_grad();
    }
    loss(&a1, &b1).backward();
    loss(&a2, &b2).backward();
    first.step(0.0, None).unwrap();
    second.step(0.0, None).unwrap();
    let moment = |o: &Optimizer, name: &str| {
        let of_group = |g: &Group| {
            let slot = g.flat.slots.iter().find(|slot| slot.name == name)?;
            Some(slot.of(g.moments.named().next()?.1))
        };
        o.groups.iter().find_map(of_group).unwrap()
    };
    for name in ["backbone.weight", "head.bias"] {
        assert_eq!(moment(&first, name), moment(&second, name), "{name}");
    }

    let refused = |layout: &str| {
        let (_s, _a, _b, mut other) = setup(&one);
        other.load_state(&saved, layout, 1, "s".as_ref()).unwrap_err().to_string()
    };
    let layout = first.layout();
    let renamed = layout.replace("head.bias", "head.b");
    assert!(refused(&renamed).contains("s: head.bias: missing"), "{}", refused(&renamed));
    let reshaped = layout.replace("[2, 2]", "[4]");
    assert!(refused(&reshaped).contains("expected shape [2, 2], got [4]"));
    let more = format!("{layout}tail.weight 0 [3]\n");
    assert!(refused(&more).contains("tail.weight: unexpected"), "{}", refused(&more));
    let beyond = layout.replace("head.bias 0 ", "head.bias 1000000 ");
    assert!(refused(&beyond).contains("too few for head.bias of [2, 2]"), "{}", refused(&beyond));
    for damaged in ["", "group\n", "head.bias 0 [2, 2]\n"] {
        assert!(refused(damaged).contains("layout: the record"), "{damaged}");
    }
}

/// Ten steps of two groups in f64 against `torch.optim.SGD` (`reference/sgd.py`), under a schedule; over an
/// interruption, after which the sum of gradients comes from the saved state.
#[test]
fn sgd_is_pytorchs() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/optimizer/sgd.safetensors");
    let (golden, _) = crate::checkpoint_io::safetensors::read(file.as_ref()).unwrap();
    let config = TrainConfig {
        optimizer: OptimizerKind::Sgd,
        lr: 0.02,
        lr_backbone: 0.002,
        weight_decay: 1e-2,
        ..TrainConfig::default()
    };
    let start = || {
        let store = ParameterStore::new(Device::Cpu, 0);
        let backbone = store.root().sub("backbone").backbone();
        let weight = backbone.parameter("weight", &[3, 4], Init::Constant(0.0));
        let bias = store.root().sub("head").parameter("bias", &[5], Init::Constant(0.0));
        let mut tensors = [weight, bias];
        for (tensor, name) in tensors.iter_mut().zip(["weight", "bias"]) {
            tensor.set_data(&golden[&format!("{name}.start")].copy());
        }
        let optimizer = Optimizer::new(store.parameters(), &config).unwrap();
        (tensors, optimizer, store)
    };
    let (mut tensors, mut optimizer, mut _store) = start();
    for step in 0..10 {
        for (tensor, name) in tensors.iter().zip(["weight", "bias"]) {
            tensor.grad().copy_(&golden[&format!("{name}.grads")].get(step));
        }
        let factor = golden["factors"].double_value(&[step]);
        optimizer.step(factor, None).unwrap();
        for (tensor, name) in tensors.iter().zip(["weight", "bias"]) {
            let expected = golden[&format!("{name}.values")].get(step);
            let apart = (tensor.detach() - expected).abs().max().double_value(&[]);
            assert!(apart < 1e-14, "{name}, step {step}: {apart:e}");
        }
        if step == 4 {
            let saved = optimizer.state().into_iter().map(|(k, v)| (k, v.copy())).collect();
            let (layout, steps) = (optimizer.layout(), optimizer.steps());
            (tensors, optimizer, _store) = start();
            optimizer.load_state(&saved, &layout, steps, "s".as_ref()).unwrap();
            // What AdamW saved is none of its own.
            let (_s, _a, _b, mut other) = setup(&TrainConfig::default());
            let error = other.load_state(&saved, &other.layout(), 1, "s".as_ref()).unwrap_err();
            assert!(error.to_string().contains("exp_avg"), "{error}");
        }
    }
}
