//! Padding changes nothing: detections, losses and gradients of a batch are those of the batch without any.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::{
    losses::terms::{StepKey, WholeBatch},
    models::{
        backbone::{Norm, ResnetConfig, ResnetName},
        class_head::ClassSpace,
        faster_rcnn::{BoxHeadKind, Classifier, RoiConfig, RpnConfig, Variant, postprocess},
        padded_batch::{batch, in_double, same_detections, shake},
        padding::Padding,
        parameters::{ParameterStore, Role},
        scored_box::ScoredBox,
    },
    targets::{Supervision, Target},
    testing::{normal, target},
};

fn plain(norm: Norm) -> FasterRcnnConfig {
    let backbone = ResnetConfig {
        name: ResnetName::Resnet18,
        width: 8,
        norm,
        groups: 4,
        frozen_stages: -1,
        ..ResnetConfig::default()
    };
    FasterRcnnConfig {
        backbone: backbone.into(),
        fpn_dim: 8,
        rpn: RpnConfig {
            sizes: vec![8.0, 16.0, 32.0, 64.0, 128.0],
            pre_nms_train: 60,
            pre_nms_test: 60,
            post_nms_train: 40,
            post_nms_test: 40,
            batch_per_image: 48,
            ..RpnConfig::default()
        },
        roi: RoiConfig { dim: 16, pool: 3, batch_per_image: 24, ..RoiConfig::default() },
        ..FasterRcnnConfig::default()
    }
}

/// Both variants, every head, one stage and three.
fn configs() -> [FasterRcnnConfig; 3] {
    let plain_roi = plain(Norm::FrozenBn).roi;
    [
        FasterRcnnConfig { variant: Variant::Torchvision, ..plain(Norm::FrozenBn) },
        plain(Norm::GroupNorm),
        FasterRcnnConfig {
            classifier: Classifier::Sigmoid,
            fpn_dim: 32,
            roi: RoiConfig {
                iou: vec![0.3, 0.4, 0.5],
                class_agnostic: true,
                head: BoxHeadKind::FourConvOneFc,
                ..plain_roi
            },
            ..plain(Norm::BatchNorm)
        },
    ]
}

/// In f64, with proposals that differ in their scores.
fn build(config: &FasterRcnnConfig) -> (ParameterStore, FasterRcnn) {
    let store = ParameterStore::new(Device::Cpu, 3);
    let network = FasterRcnn::new(&store, config, ClassSpace::Classes(5)).unwrap();
    shake(&store);
    for p in store.parameters().iter().filter(|p| p.name.starts_with("rpn.")) {
        let _ = torch_ext::no_grad(|| p.tensor.shallow_clone().g_mul_scalar_(10.0));
    }
    in_double(&store);
    (store, network)
}

fn images() -> [Tensor; 2] {
    [(61, 83), (90, 47)].map(|(h, w)| normal(h as u64, &[1, 3, h, w]).to_kind(Kind::Double))
}

/// Detections of a [`batch`]: logit, class and box of each, best first.
fn detect(network: &FasterRcnn, of: &[&Tensor], extra: (i64, i64)) -> Vec<Vec<[f64; 6]>> {
    let (pixels, mask, sizes) = batch(of, extra);
    let output = network.infer(Images::new(&pixels, &mask), None).unwrap();
    let output = (&output.scores, &output.boxes, &output.sizes);
    let found = postprocess::postprocess(output, network.config(), &sizes, 300).unwrap();
    let row = |d: ScoredBox| {
        let [x0, y0, x1, y1] = d.bbox.0.map(f64::from);
        let score = f64::from(d.score);
        [(score / (1.0 - score)).ln(), f64::from(d.class.0), x0, y0, x1, y1]
    };
    found.into_iter().map(|image| image.into_iter().map(row).collect()).collect()
}

#[test]
fn padding_and_batch_mates_change_no_detection() {
    for config in configs() {
        let (_store, network) = build(&config);
        let images = images();
        let alone = images.each_ref().map(|image| detect(&network, &[image], (0, 0)));
        assert!(alone.iter().all(|found| found[0].len() > 10));
        for extra in [(0, 0), (3, 37), (64, 1)] {
            let together = detect(&network, &[&images[0], &images[1]], extra);
            for (i, alone) in alone.iter().enumerate() {
                let padded = detect(&network, &[&images[i]], extra);
                for (what, got) in [("padded", &padded[0]), ("together", &together[i])] {
                    same_detections(&format!("{config:?} {what} {extra:?}"), got, &alone[0]);
                }
            }
        }
        // As the references have it, it does change them.
        let official = FasterRcnnConfig { padding: Some(Padding::Official), ..config };
        let (_store, network) = build(&official);
        let of = |extra| detect(&network, &[&images[0]], extra).remove(0);
        assert_ne!(of((0, 0)), of((64, 1)));
    }
}

/// Every loss term of a step, and after it each parameter's gradient and each buffer.
fn step(
    config: &FasterRcnnConfig,
    extra: (i64, i64),
    (common, ignore_inside): (bool, bool),
) -> (BTreeMap<String, f64>, BTreeMap<String, Tensor>) {
    let (store, network) = build(config);
    let images = images();
    let (pixels, mask, sizes) = batch(&[&images[0], &images[1]], extra);
    let objects: [&[(u32, [f32; 4])]; 2] =
        [&[(0, [0.3, 0.3, 0.4, 0.4]), (1, [0.85, 0.8, 0.3, 0.4])], &[(3, [0.5, 0.9, 0.9, 0.2])]];
    let targets: Vec<Target> = sizes
        .iter()
        .zip(objects)
        .map(|(&size, objects)| Target { size, original_size: size, ..target(objects) })
        .collect();
    let supervision = Supervision { ignore_inside, ..Supervision::default() };
    let key = StepKey { seed: 1, micro_step: 0 };
    let whole = WholeBatch::of(key, &targets);
    let step = Step { targets: &targets, supervision: &supervision, whole };
    let objective = Objective::new(config, &LossConfig::default(), &[1; 5], false);
    let input = objective.input(&step, Device::Cpu, common);
    let images = Images { learns: true, ..Images::new(&pixels, &mask) };
    let output = TrainingOutput::from_list(&objective.run(&network, images, None, &input).unwrap());
    let pending = objective.criterion.start(&output, step).unwrap();
    let (terms, _) = pending.wait().unwrap().finish(1.0, None);
    terms.total.backward();
    let values = Vec::<f64>::try_from(terms.values.to_kind(Kind::Double)).unwrap();
    let after = store.parameters().into_iter().map(|p| match p.role {
        Role::Trainable => (p.name, p.tensor.grad()),
        _ => (p.name, p.tensor.detach()),
    });
    (terms.names.into_iter().zip(values).collect(), after.collect())
}

#[test]
fn padding_changes_no_loss_no_gradient_and_no_statistic() {
    for config in configs() {
        for how in [(true, false), (false, true)] {
            let (terms, after) = step(&config, (0, 0), how);
            assert!(terms.values().all(|term| term.is_finite() && *term > 0.0), "{terms:?}");
            for extra in [(3, 37), (64, 1)] {
                let (padded_terms, padded_after) = step(&config, extra, how);
                let what = format!("{config:?} {how:?} {extra:?}");
                for (name, term) in &terms {
                    let got = padded_terms[name];
                    assert!((got - term).abs() < 1e-9, "{what} {name}: {got} {term}");
                }
                for (name, value) in &after {
                    let got = &padded_after[name];
                    assert_eq!(got.defined(), value.defined(), "{what} {name}");
                    if value.defined() {
                        let most = value.abs().max().double_value(&[]).max(1e-3);
                        let off = (got - value).abs().max().double_value(&[]) / most;
                        assert!(off < 1e-8, "{what} {name}: {off}");
                    }
                }
            }
        }
    }
}
