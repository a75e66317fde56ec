//! CLIP's dense features to soft labels of boxes, and what the semantic branch learns from them.

use richsem::{
    families::dino::{criterion::Decisions, regions},
    losses::semantic::{semantic_terms, target_boxes},
    normalization::Normalization,
    precision::Precision,
    semantic_branch::{Objective, SemanticConfig, TargetBoxes},
    targets::Supervision,
    teacher::{ClipTeacher, SoftLabels, Teacher, VitLabels, clip},
};
use tch::{Device, Kind, Tensor};

use crate::{
    losses::{criterion, step},
    support::*,
};

/// The detector's own padded batch, seen through the teacher's mean and deviation; boxes of the whole
/// batch, RoIAligned from its dense map, through the attention pool, against the text.
#[test]
fn dense_features_and_soft_labels() {
    let (golden, model) = (tensors("text"), Model::new("text", Kind::Float));
    let (_store, sizes, clip) =
        clip::load(&file("teacher.safetensors"), &clip::Hints::default(), Device::Cpu).unwrap();
    let teacher = ClipTeacher::new(
        clip,
        sizes,
        model.text.unwrap(),
        Device::Cpu,
        Precision::F32,
        VitLabels::default(),
    )
    .unwrap();
    let (mean, std) = Normalization::IMAGENET.tensors(Device::Cpu);
    let map = teacher.encode(&(&golden["images"] * std + mean)).unwrap();
    assert_eq!(map.stride, 32);
    close("dense map", &map.features, &golden["dense"], 1e-5);
    let soft = teacher.label(&map, &target_boxes(&targets(&golden, ""))).unwrap();
    close("features", &soft.features, &golden["soft.features"], 1e-5);
    close("logits", &soft.logits, &golden["soft.logits"], 1e-5);
}

/// The soft labels of the queries that a configuration teaches, in the order in which they are asked
/// for: the decoder's, then the denoising ones, layer by layer.
fn predicted_boxes(
    golden: &Tensors,
    decisions: &Decisions,
    noised: i64,
    layers: &[i64],
    all: bool,
) -> SoftLabels {
    let (mut at, queries) = (Vec::new(), golden["soft.layer.logits"].size()[2]);
    for (supervised, first, all) in
        [(&decisions.queries, noised, all), (decisions.denoising.as_ref().unwrap(), 0, false)]
    {
        for &layer in layers {
            if all {
                let own = |image: i64| (noised..queries).map(move |q| (image, q));
                at.extend((0..2).flat_map(own).map(|(b, q)| (layer * 2 + b) * queries + q));
                continue;
            }
            let pairs = supervised.matching.list().unwrap();
            let own = pairs.iter().filter(|pair| pair[0] == layer);
            at.extend(
                own.map(|[_, image, query, _]| (layer * 2 + image) * queries + first + query),
            );
        }
    }
    let at = Tensor::from_slice(&at);
    let rows =
        |name: &str| golden[&format!("soft.layer.{name}")].flatten(0, 2).index_select(0, &at);
    SoftLabels { logits: rows("logits"), features: rows("features") }
}

/// The paper's loss and what its study varies, in f64, on the official queries and soft labels.
///
/// Of the denoising queries only the positive ones learn. With the teacher at every predicted box the
/// official code teaches the negatives and the slots of padding too: that term is not compared.
#[test]
fn the_semantic_loss_and_its_variants() {
    let (golden, paper) = (tensors("text"), json::<Facts>("text"));
    let model = Model::new("text", Kind::Double);
    let output = official_output(&golden, &paper);
    let targets = targets(&golden, "");
    let (kl, gt) = (Objective::Kl, TargetBoxes::GroundTruth);
    for (name, objective, target_boxes, entropy_weight, federated, aux_layers) in [
        ("", kl, gt, false, false, false),
        ("l1", Objective::L1, gt, false, false, false),
        ("entropy", kl, gt, true, false, false),
        ("federated", kl, gt, false, true, false),
        ("aux_layers", kl, gt, false, false, true),
        ("matched", kl, TargetBoxes::Matched, false, false, true),
        ("all", kl, TargetBoxes::All, false, false, false),
        ("all_l1", Objective::L1, TargetBoxes::All, false, false, false),
    ] {
        let facts = if name.is_empty() { &paper } else { &paper.variants[name] };
        let config = SemanticConfig {
            objective,
            target_boxes,
            entropy_weight,
            federated,
            aux_layers,
            ..SemanticConfig::default()
        };
        let (_, mut decisions) =
            criterion(true).forward(&output, step(&targets, &Supervision::default())).unwrap();
        facts.decide(&mut decisions);
        let layers: &[i64] = if aux_layers { &[0, 1] } else { &[1] };
        let all = target_boxes == TargetBoxes::All;
        let noised = golden["noised.labels"].size()[1];
        let mut label = |_: &Tensor| {
            Ok(match target_boxes {
                TargetBoxes::GroundTruth => SoftLabels {
                    logits: golden["soft.logits"].shallow_clone(),
                    features: golden["soft.features"].shallow_clone(),
                },
                _ => predicted_boxes(&golden, &decisions, noised, layers, all),
            })
        };
        let branch = model.branch(&config);
        let regions = regions(&output, &targets, &decisions, config.wanted()).unwrap();
        let terms = semantic_terms(&config, &branch, &regions, &targets, &mut label).unwrap();
        let mut expected = facts.losses.clone();
        expected.retain(|term, _| term.contains("distill"));
        let (mut names, mut values) = (terms.names.clone(), terms.values.shallow_clone());
        if all {
            expected.retain(|term, _| !term.contains("_dn"));
            let kept = names.iter().position(|n| n == "loss_semantic").unwrap();
            (names, values) = (vec![names[kept].clone()], values.narrow(0, kept as i64, 1));
        }
        close_terms(name, &names, &values, &expected, 1e-6);
        assert_eq!(values.kind(), Kind::Double);
    }
}
