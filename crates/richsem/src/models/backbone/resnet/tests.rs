//! The backbone against torchvision's facts, and its norms.

use super::*;
use crate::models::parameters::{ParameterStore, Role};
use crate::testing::{normal, uniform};
use tch::{Device, Kind};

fn build(config: &ResnetConfig) -> (ParameterStore, Resnet) {
    let store = ParameterStore::new(Device::Cpu, 0);
    let backbone = Resnet::new(&store.root(), config);
    (store, backbone)
}

#[test]
fn strides_and_channels_are_the_published_ones() {
    for name in [
        ResnetName::Resnet18,
        ResnetName::Resnet34,
        ResnetName::Resnet50,
        ResnetName::Resnet101,
        ResnetName::ClipResnet,
    ] {
        let config = ResnetConfig { name, width: 8, groups: 4, ..ResnetConfig::default() };
        let (_, backbone) = build(&config);
        let images = normal(1, &[1, 3, 64, 96]);
        let maps = backbone.forward(&images, None, false).unwrap();
        let published = [(32, 4), (64, 8), (128, 16), (256, 32)];
        for ((map, level), (channels, stride)) in maps.iter().zip(config.levels()).zip(published) {
            let channels = if config.expansion() == 1 { channels / 4 } else { channels };
            assert_eq!(level, Level { channels, stride: f64::from(stride) }, "{name:?}");
            let [h, w] = [64, 96].map(|side| side / i64::from(stride));
            assert_eq!(map.size(), [1, channels, h, w], "{name:?}");
        }
    }
}

/// torchvision 0.26: `sum(p.numel() for p in resnet50().parameters())` less the 2,049,000 of
/// `fc`, and less batch norm's 53,120 affine terms, which are buffers here.
#[test]
fn resnet50_has_torchvisions_parameters() {
    let (store, _) = build(&ResnetConfig { frozen_stages: -1, ..ResnetConfig::default() });
    assert_eq!(store.trainable_count(), 25_557_032 - 2_049_000 - 53_120);
    let names: Vec<String> = store.parameters().into_iter().map(|p| p.name).collect();
    for key in
        ["conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias"]
    {
        assert!(names.iter().any(|n| n == key), "{key}");
    }
}

#[test]
fn frozen_stages_are_not_trained() {
    for (stages, frozen) in [(-1, vec![]), (0, vec!["conv1"]), (1, vec!["conv1", "layer1"])] {
        let config = ResnetConfig {
            name: ResnetName::Resnet18,
            frozen_stages: stages,
            ..ResnetConfig::default()
        };
        let (store, _) = build(&config);
        for p in store.parameters().iter().filter(|p| !p.role.is_buffer()) {
            let expected = frozen.iter().any(|f| p.name.starts_with(f));
            assert_eq!(p.role == Role::Frozen, expected, "{stages} {}", p.name);
            assert_eq!(p.tensor.requires_grad(), !expected);
        }
    }
}

/// A frozen batch norm folded into its convolution is the norm applied after it; also when what it
/// is made of is loaded after it was folded, whether the convolution is trained or not.
#[test]
fn a_folded_norm_is_the_norm() {
    for frozen in [false, true] {
        let store = ParameterStore::new(Device::Cpu, 0);
        let block = norm::ConvNorm::new(
            &store.root().frozen(frozen),
            ("conv1", "bn1"),
            (3, 6, 3, 2),
            &ResnetConfig::default(),
        );
        let x = normal(3, &[2, 3, 9, 11]);
        let mut values = store.named_tensors();
        for round in 0..2 {
            for (key, (name, value)) in (2 + 10 * round..).zip(&mut values) {
                let random = uniform(key, &value.size());
                *value = if name.ends_with("conv1.weight") { random - 0.5 } else { random + 0.1 };
            }
            store.load(&values, "test".as_ref()).unwrap();
            let shaped = |name: &str| values[name].view([1, -1, 1, 1]);
            let weight = &values["conv1.weight"];
            let convolved = x.conv2d(weight, None::<&Tensor>, [2], [1], [1], 1);
            let expected = (convolved - shaped("bn1.running_mean"))
                / (shaped("bn1.running_var") + 1e-5).sqrt()
                * shaped("bn1.weight")
                + shaped("bn1.bias");
            let close = |got: Tensor, expected: &Tensor| {
                assert!((got - expected).abs().max().double_value(&[]) < 1e-5, "{frozen}");
            };
            close(
                block.forward(&x, Extent::of_images(None), true, None).unwrap(),
                &expected.relu(),
            );
            let shortcut = block.shortcut(&x, Extent::of_images(None), true).unwrap();
            let sum = block.forward(&x, Extent::of_images(None), true, Some(&shortcut)).unwrap();
            close(sum, &(&expected * 2.0).relu());
        }
    }
}

fn trained_batch_norm() -> ResnetConfig {
    ResnetConfig {
        name: ResnetName::Resnet18,
        norm: Norm::BatchNorm,
        frozen_stages: -1,
        width: 8,
        ..ResnetConfig::default()
    }
}

#[test]
fn batch_norm_normalises_in_training_and_remembers() {
    let config = trained_batch_norm();
    let (store, backbone) = build(&config);
    let images = normal(4, &[2, 3, 64, 64]) * 5.0 + 3.0;
    let before = store.named_tensors()["bn1.running_mean"].copy();
    let _ = backbone.forward(&images, None, false).unwrap();
    assert_eq!(before, store.named_tensors()["bn1.running_mean"]);
    let _ = backbone.forward(&images, None, true).unwrap();
    assert_ne!(before, store.named_tensors()["bn1.running_mean"]);
}

/// Without any padding the batch's own statistics are libtorch's, and so is all that follows.
#[test]
fn batch_norm_of_images_without_padding_is_libtorchs() {
    let config = trained_batch_norm();
    let images = (normal(4, &[2, 3, 61, 90]) * 5.0 + 3.0).to_kind(Kind::Double);
    let run = |padding: Option<&PaddingPyramid>| {
        let (store, backbone) = build(&config);
        for mut parameter in store.parameters() {
            let double = parameter.tensor.detach().to_kind(Kind::Double);
            parameter.tensor.set_data(&double);
        }
        let maps = backbone.forward(&images, padding, true).unwrap();
        maps.iter().map(|map| map.sin().sum(Kind::Double)).sum::<Tensor>().backward();
        let mut all: Vec<(String, Tensor)> =
            maps.into_iter().map(|map| ("map".to_owned(), map)).collect();
        for p in store.parameters() {
            let value = match p.role {
                Role::Trainable => p.tensor.grad(),
                _ => p.tensor.shallow_clone(),
            };
            all.push((p.name, value));
        }
        all
    };
    let mask = Tensor::zeros([2, 61, 90], (Kind::Bool, Device::Cpu));
    let pyramid = PaddingPyramid::new(&mask, 5);
    for ((name, got), (_, expected)) in run(Some(&pyramid)).into_iter().zip(run(None)) {
        let most = expected.abs().max().double_value(&[]).max(1e-3);
        let off = (got - expected).abs().max().double_value(&[]) / most;
        assert!(off < 1e-9, "{name}: {off}");
    }
}
