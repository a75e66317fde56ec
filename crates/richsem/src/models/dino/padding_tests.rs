//! Padding changes nothing: detections, losses and gradients of an image are those that it has alone.

use std::collections::BTreeMap;

use super::tests::{build, target, tiny};
use super::{denoising::DenoisingConfig, transformer::TransformerConfig, *};
use crate::{
    families::{Step, dino::Criterion},
    losses::{
        LossConfig,
        terms::{StepKey, WholeBatch},
    },
    models::{
        backbone::{
            BackboneConfig, FocalnetConfig, FocalnetName, Norm, ResnetConfig, ResnetName,
            SwinConfig,
        },
        padded_batch::{batch, in_double, same_detections, shake},
        parameters::Role,
        scored_box::ScoredBox,
    },
    random::{Random, Stream},
    targets::{BoxMatching, Supervision},
    testing::normal,
};
use tch::Device;

fn tiny_resnet() -> ResnetConfig {
    match tiny(12).backbone {
        BackboneConfig::Resnet(config) => config,
        other => panic!("{other:?}"),
    }
}

/// Norms of every kind that do something, and backbones of every form: from pixels to detections an image
/// alone is the image with any padding around it, and beside any other image.
#[test]
fn padding_and_batch_mates_change_no_detection() {
    let backbones = [
        (ResnetName::Resnet18, Norm::GroupNorm),
        (ResnetName::Resnet18, Norm::FrozenBn),
        (ResnetName::Resnet50, Norm::GroupNorm),
        (ResnetName::Resnet50, Norm::FrozenBn),
        (ResnetName::Resnet50, Norm::BatchNorm),
        (ResnetName::ClipResnet, Norm::GroupNorm),
        (ResnetName::ClipResnet, Norm::FrozenBn),
    ];
    // 200: more queries than the smaller image has tokens.
    for (queries, (name, norm)) in [12, 200].into_iter().flat_map(|q| backbones.map(|t| (q, t))) {
        let sizes = tiny(queries);
        let backbone =
            ResnetConfig { name, norm, groups: 4, layers: vec![1, 2, 1, 1], ..tiny_resnet() }
                .into();
        let config = DinoConfig { backbone, ..sizes };
        let (store, dino) = build(&config, ClassSpace::Classes(5));
        shake(&store);
        let images = [(61, 83), (90, 47)].map(|(h, w)| normal(h as u64, &[1, 3, h, w]));
        let alone = images.each_ref().map(|image| detect(&dino, &[image], (0, 0)));
        for extra in [(0, 0), (3, 37), (64, 1)] {
            let together = detect(&dino, &[&images[0], &images[1]], extra);
            for (i, alone) in alone.iter().enumerate() {
                let padded = detect(&dino, &[&images[i]], extra);
                for (what, got) in [("padded", &padded[0]), ("together", &together[i])] {
                    let what = format!("{name:?} {norm:?} {queries} {what} {extra:?}");
                    same_detections(&what, got, &alone[0]);
                }
            }
        }
    }
}

/// The same of backbones whose windows and sums would see the padding.
#[test]
fn padding_and_batch_mates_change_no_detection_with_other_backbones() {
    let (width, layers) = (Some(8), vec![1, 2, 2, 1]);
    let swin = SwinConfig {
        width,
        head_width: 4,
        layers: layers.clone(),
        window: Some(3),
        ..SwinConfig::default()
    };
    let name = FocalnetName::FocalnetL;
    let focalnet =
        FocalnetConfig { name, width, layers, focal_levels: Some(2), ..FocalnetConfig::default() };
    for backbone in [BackboneConfig::from(swin), focalnet.into()] {
        let what = backbone.describe();
        let (store, dino) = build(&DinoConfig { backbone, ..tiny(12) }, ClassSpace::Classes(5));
        shake(&store);
        let images = [(61, 83), (90, 47)].map(|(h, w)| normal(h as u64, &[1, 3, h, w]));
        let alone = images.each_ref().map(|image| detect(&dino, &[image], (0, 0)));
        for extra in [(0, 0), (3, 37)] {
            let together = detect(&dino, &[&images[0], &images[1]], extra);
            for (i, alone) in alone.iter().enumerate() {
                same_detections(&format!("{what} {extra:?}"), &together[i], &alone[0]);
            }
        }
    }
}

/// Detections of a [`batch`]: logit, class and box of each, best first.
fn detect(dino: &Dino, images: &[&Tensor], extra: (i64, i64)) -> Vec<Vec<[f64; 6]>> {
    let (images, mask, sizes) = batch(images, extra);
    let few_tokens = dino.config().few_tokens(sizes.iter().copied());
    let output = dino.infer(&Input { few_tokens, ..Input::new(&images, &mask) }).unwrap();
    let found =
        postprocess::postprocess(&output.pred_logits, &output.pred_boxes, &sizes, 2000).unwrap();
    let row = |d: ScoredBox| {
        let [x0, y0, x1, y1] = d.bbox.0.map(f64::from);
        let score = f64::from(d.score);
        [(score / (1.0 - score)).ln(), f64::from(d.class.0), x0, y0, x1, y1]
    };
    found.into_iter().map(|image| image.into_iter().map(row).collect()).collect()
}

/// Every choice of the backbone's maps, with as many levels as there may be.
#[test]
fn padding_changes_nothing_whatever_maps_are_used() {
    for chosen in 1..16 {
        let indices: Vec<usize> = (0..4).filter(|i| chosen >> i & 1 == 1).collect();
        for levels in indices.len() as i64..=5 {
            let transformer = TransformerConfig {
                num_feature_levels: levels,
                enc_layers: 1,
                dec_layers: 1,
                ..tiny(12).transformer
            };
            let return_interm_indices = indices.clone();
            let config = DinoConfig { return_interm_indices, transformer, ..tiny(12) };
            let (store, dino) = build(&config, ClassSpace::Classes(5));
            shake(&store);
            let image = normal(3, &[1, 3, 61, 83]);
            let alone = detect(&dino, &[&image], (0, 0));
            let padded = detect(&dino, &[&image], (40, 70));
            same_detections(&format!("{indices:?} {levels}"), &padded[0], &alone[0]);
        }
    }
}

/// Every loss term of a step, and after it each parameter's gradient and each buffer.
fn step(
    config: &DinoConfig,
    image: &Tensor,
    extra: (i64, i64),
    assignment: BoxMatching,
) -> (BTreeMap<String, f64>, BTreeMap<String, Tensor>) {
    let (store, dino) = build(config, ClassSpace::Classes(5));
    shake(&store);
    in_double(&store);
    let (images, mask, _) = batch(&[image], extra);
    let targets = [target(&[0, 3, 3])];
    let random = |image: usize| Random::new(0, Stream::Test, 1, image as u64);
    let denoising = DenoisingConfig { number: 4, ..DenoisingConfig::default() };
    let noised = DenoisingQueries::new(&targets, (&denoising, 5), 3, random, Device::Cpu, |p| p);
    let mut noised = noised.unwrap();
    noised.used = noised.used.to_kind(Kind::Double);
    noised.references = noised.references.to_kind(Kind::Double);
    let input = Input { denoising: Some(&noised), ..Input::new(&images, &mask) };
    let output = dino.forward_train(&input).unwrap();
    let criterion = Criterion::new(LossConfig::default(), &[1; 5]);
    let supervision = Supervision { assignment, ..Supervision::default() };
    let key = StepKey { seed: 1, micro_step: 0 };
    let whole = WholeBatch::of(key, &targets);
    let step = Step { targets: &targets, supervision: &supervision, whole };
    let (terms, _) = criterion.forward(&output, step).unwrap();
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
    for (name, norm) in [
        (ResnetName::Resnet18, Norm::GroupNorm),
        (ResnetName::Resnet50, Norm::BatchNorm),
        (ResnetName::Resnet50, Norm::FrozenBn),
        (ResnetName::ClipResnet, Norm::BatchNorm),
    ] {
        // 200 and 2: more queries than tokens, fewer than boxes.
        for (queries, assignment) in [
            (12, BoxMatching::Hungarian),
            (200, BoxMatching::Hungarian),
            (200, BoxMatching::MaxSize),
            (2, BoxMatching::Hungarian),
        ] {
            let what = format!("{name:?} {norm:?} {queries} {assignment:?}");
            let backbone = ResnetConfig { name, norm, groups: 4, ..tiny_resnet() }.into();
            let config = DinoConfig { backbone, ..tiny(queries) };
            let image = normal(5, &[1, 3, 61, 83]).to_kind(Kind::Double);
            let (terms, after) = step(&config, &image, (0, 0), assignment);
            for extra in [(3, 37), (64, 1)] {
                let (padded_terms, padded_after) = step(&config, &image, extra, assignment);
                for (name, term) in &terms {
                    let got = padded_terms[name];
                    assert!(
                        (got - term).abs() < 1e-6 * term.abs().max(1.0),
                        "{what} {name}: {got} {term}"
                    );
                }
                for (name, value) in &after {
                    let got = &padded_after[name];
                    assert_eq!(got.defined(), value.defined(), "{what} {name}");
                    if value.defined() {
                        let most = value.abs().max().double_value(&[]).max(1e-3);
                        let off = (got - value).abs().max().double_value(&[]) / most;
                        assert!(off < 1e-6, "{what} {extra:?} {name}: {off}");
                    }
                }
            }
        }
    }
}
