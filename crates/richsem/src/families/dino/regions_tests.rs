//! The branch's terms against plain loops over their definition.

use tch::Kind;

use super::*;
use crate::{
    families::dino::matcher::Matching,
    losses::{
        semantic::{Labeller, semantic_terms},
        terms::LossTerms,
    },
    models::{
        class_head::TextTable,
        dino::{LayerOutputs, denoising::DenoisingLayout},
        layers::l2_normalize,
        parameters::{Init, ParameterStore},
        projection::{Projection, ProjectionKind},
    },
    random::{Random, Stream},
    semantic_branch::{BranchProjection, Objective, SemanticBranch, SemanticConfig, TargetBoxes},
    teacher::SoftLabels,
    testing::target,
};

const LAYERS: i64 = 2;
const QUERIES: i64 = 5;
const DIM: i64 = 6;
const WIDTH: i64 = 4;
const CLASSES: i64 = 7;
const SCALE: f64 = 3.0;

/// Two images with two boxes and one; denoising groups of two pairs.
const LAYOUT: DenoisingLayout = DenoisingLayout { groups: 1, most: 2, slots: 4 };

fn random(shape: &[i64], item: u64) -> Tensor {
    let mut random = Random::new(11, Stream::Test, 0, item);
    let count = shape.iter().product::<i64>();
    let values: Vec<f32> = (0..count).map(|_| random.normal() as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

fn targets() -> Vec<Target> {
    let (first, second) = ([0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.5, 1.0]);
    let of_size = |size, target| Target { size, original_size: size, ..target };
    vec![
        of_size([20, 40], target(&[(0, first), (1, second)])),
        of_size([40, 40], target(&[(0, [0.5, 0.25, 1.0, 0.5])])),
    ]
}

fn output() -> TrainingOutput {
    let p = LAYOUT.len();
    let none = || LayerOutputs {
        logits: Tensor::zeros([LAYERS, 2, QUERIES, CLASSES], (Kind::Float, Device::Cpu)),
        boxes: Tensor::zeros([LAYERS, 2, QUERIES, 4], (Kind::Float, Device::Cpu)),
    };
    TrainingOutput {
        decoder: none(),
        interm: none(),
        denoising: Some((LAYOUT, none())),
        matched: None,
        region_features: random(&[LAYERS, 2, p + QUERIES, DIM], 1).set_requires_grad(true),
        input_references: random(&[LAYERS, 2, p + QUERIES, 4], 2).sigmoid(),
        unused: None,
    }
}

/// (set, image, query, target) of the matching queries, the same pairs in each set but for the
/// queries; set 2 are the proposals, which the branch leaves alone.
const PAIRS: [(i64, i64, i64, i64); 9] = [
    (0, 0, 1, 0),
    (0, 0, 2, 1),
    (0, 1, 0, 0),
    (1, 0, 4, 0),
    (1, 0, 0, 1),
    (1, 1, 3, 0),
    (2, 0, 0, 0),
    (2, 0, 1, 1),
    (2, 1, 1, 0),
];
const NOISED: [(i64, i64, i64, i64); 6] =
    [(0, 0, 0, 0), (0, 0, 1, 1), (0, 1, 0, 0), (1, 0, 0, 0), (1, 0, 1, 1), (1, 1, 0, 0)];

fn matching(pairs: &[(i64, i64, i64, i64)]) -> Matching {
    let pairs = pairs.iter().map(|&(set, image, query, target)| [set, image, query, target]);
    Matching::new(&pairs.collect::<Vec<_>>(), Device::Cpu)
}

/// The classes that each set looks at, where the loss is federated.
fn drawn(sets: i64, item: i64) -> Tensor {
    let rows: Vec<i64> = (0..sets).flat_map(|s| [0, 1, 3 + (s + item) % 4]).collect();
    Tensor::from_slice(&rows).view([sets, 3])
}

fn decisions() -> Decisions {
    let supervised = |pairs: &[_], normalizer, sets, item| Supervised {
        matching: matching(pairs),
        normalizer,
        classes: Some(drawn(sets, item)),
    };
    Decisions {
        queries: supervised(&PAIRS, 3.0, 3, 0),
        denoising: Some(supervised(&NOISED, 3.5, 2, 1)),
    }
}

/// A teacher whose labels depend on the box alone.
fn teacher(boxes: &Tensor) -> SoftLabels {
    let mix = random(&[5, WIDTH], 3) * 0.1;
    let features = l2_normalize(&(boxes.matmul(&mix)).sin());
    let logits = features.matmul(&text().normalized.transpose(0, 1)) * SCALE;
    SoftLabels { logits, features }
}

fn text() -> TextTable {
    TextTable::new(&random(&[CLASSES, WIDTH], 4))
}

fn branch(config: &SemanticConfig) -> (ParameterStore, Projection, SemanticBranch) {
    let store = ParameterStore::new(Device::Cpu, 3);
    let kind = match config.projection {
        BranchProjection::Mlp => ProjectionKind::Mlp,
        _ => ProjectionKind::Linear,
    };
    let head = Projection::new(&store.root().sub("head"), DIM, WIDTH, kind);
    let place = (Device::Cpu, 4);
    let branch = SemanticBranch::new(config, DIM, &text(), SCALE, Some(&head), place).unwrap();
    (store, head, branch)
}

/// From a pass to the branch's terms.
fn terms_of(
    config: &SemanticConfig,
    branch: &SemanticBranch,
    (output, targets): (&TrainingOutput, &[Target]),
    decisions: &Decisions,
    label: &mut Labeller,
) -> Result<LossTerms> {
    let regions = regions(output, targets, decisions, config.wanted())?;
    semantic_terms(config, branch, &regions, targets, label)
}

fn terms(config: &SemanticConfig) -> (Vec<(String, f64)>, f64) {
    let (_store, _head, branch) = branch(config);
    let mut label = |boxes: &Tensor| Ok(teacher(boxes));
    let (output, targets) = (output(), targets());
    let terms = terms_of(config, &branch, (&output, &targets), &decisions(), &mut label).unwrap();
    let values = Vec::<f32>::try_from(&terms.values).unwrap();
    let named = terms.names.into_iter().zip(values.into_iter().map(f64::from)).collect();
    (named, terms.total.double_value(&[]))
}

fn vector(x: &Tensor) -> Vec<f64> {
    Vec::try_from(x.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / sum).collect()
}

/// One pair's loss, by the definition in method part 6.
fn by_hand(config: &SemanticConfig, region: &Tensor, bbox: [f64; 5], classes: &[usize]) -> f64 {
    let (_store, head, _branch) = branch(config);
    let bbox: Vec<f32> = bbox.iter().map(|&v| v as f32).collect();
    let soft = teacher(&Tensor::from_slice(&bbox).view([1, 5]));
    let features = vector(&l2_normalize(&head.forward(region)));
    if config.objective == Objective::L1 {
        return features.iter().zip(vector(&soft.features)).map(|(a, b)| (a - b).abs()).sum();
    }
    let text = text().normalized;
    let student: Vec<f64> = (0..CLASSES)
        .map(|c| {
            SCALE * vector(&text.get(c)).iter().zip(&features).map(|(a, b)| a * b).sum::<f64>()
        })
        .collect();
    let teacher = vector(&soft.logits);
    let all = softmax(&teacher);
    let entropy: f64 = -all.iter().map(|p| p * p.ln()).sum::<f64>();
    let pick = |v: &[f64]| classes.iter().map(|&c| v[c]).collect::<Vec<f64>>();
    let (p, q) = (softmax(&pick(&teacher)), softmax(&pick(&student)));
    let divergence: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum();
    let weight = if config.entropy_weight { 2.0 * entropy / (CLASSES as f64).ln() } else { 1.0 };
    divergence * weight
}

/// All terms, by loops.
fn expected(config: &SemanticConfig) -> Vec<(String, f64)> {
    let (output, targets, decisions) = (output(), targets(), decisions());
    let p = LAYOUT.len();
    let layers = if config.aux_layers { vec![0, 1] } else { vec![1] };
    let mut terms = Vec::new();
    for (tag, supervised, offset, own) in
        [("", &decisions.queries, p, QUERIES), ("_dn", decisions.denoising.as_ref().unwrap(), 0, p)]
    {
        for &layer in &layers {
            let classes: Vec<usize> = if config.federated {
                let drawn = supervised.classes.as_ref().unwrap();
                vector(&drawn.get(layer)).iter().map(|&c| c as usize).collect()
            } else {
                (0..CLASSES as usize).collect()
            };
            let matching = supervised.matching.list().unwrap();
            let every = config.target_boxes == TargetBoxes::All && tag.is_empty();
            let pairs: Vec<(i64, i64, i64)> = match every {
                true => (0..2).flat_map(|b| (0..own).map(move |q| (b, q, 0))).collect(),
                false => {
                    let own = matching.iter().filter(|pair| pair[0] == layer);
                    own.map(|&[_, image, query, target]| (image, query, target)).collect()
                }
            };
            let sum: f64 = pairs
                .iter()
                .map(|&(image, query, target)| {
                    let at = |x: &Tensor| x.get(layer).get(image).get(offset + query);
                    let target_of = &targets[image as usize];
                    let relative: Vec<f64> = match config.target_boxes {
                        TargetBoxes::GroundTruth => {
                            target_of.boxes[target as usize].0.map(f64::from).to_vec()
                        }
                        _ => vector(&at(&output.input_references)),
                    };
                    let [h, w] = target_of.size.map(f64::from);
                    let edge = |i: usize, sign: f64| {
                        (relative[i] + sign * relative[i + 2] / 2.0).clamp(0.0, 1.0)
                    };
                    let bbox = [
                        image as f64,
                        edge(0, -1.0) * w,
                        edge(1, -1.0) * h,
                        edge(0, 1.0) * w,
                        edge(1, 1.0) * h,
                    ];
                    by_hand(config, &at(&output.region_features), bbox, &classes)
                })
                .sum();
            let normalizer = if every { (2 * own) as f64 } else { supervised.normalizer };
            let suffix = if layer == 1 { "" } else { "_0" };
            terms.push((format!("loss_semantic{tag}{suffix}"), sum / normalizer));
        }
    }
    terms
}

fn check(config: SemanticConfig) -> Vec<(String, f64)> {
    let (got, total) = terms(&config);
    let expected = expected(&config);
    assert_eq!(got.len(), expected.len());
    for ((name, value), (expected_name, expected)) in got.iter().zip(&expected) {
        assert_eq!(name, expected_name);
        assert!(
            (value - expected).abs() < 1e-5 * expected.abs().max(0.1),
            "{name} {value} {expected}"
        );
    }
    let sum: f64 = expected.iter().map(|(_, v)| v).sum();
    assert!((total - config.weight * sum).abs() < 1e-4 * sum, "{total}");
    got
}

/// Every variant of method part 6, alone and some together; each gives another number.
#[test]
fn every_variant_is_its_definition() {
    let base = SemanticConfig::default();
    let plain = check(base.clone());
    assert_eq!(
        plain.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
        ["loss_semantic", "loss_semantic_dn"]
    );
    let mut seen = vec![plain[0].1];
    for variant in [
        SemanticConfig { target_boxes: TargetBoxes::Matched, ..base.clone() },
        SemanticConfig { target_boxes: TargetBoxes::All, ..base.clone() },
        SemanticConfig { objective: Objective::L1, ..base.clone() },
        SemanticConfig { entropy_weight: true, ..base.clone() },
        SemanticConfig { federated: true, ..base.clone() },
        SemanticConfig { projection: BranchProjection::Mlp, ..base.clone() },
        SemanticConfig { federated: true, entropy_weight: true, ..base.clone() },
        SemanticConfig {
            target_boxes: TargetBoxes::Matched,
            objective: Objective::L1,
            ..base.clone()
        },
        SemanticConfig { target_boxes: TargetBoxes::All, federated: true, ..base.clone() },
    ] {
        let value = check(variant.clone())[0].1;
        assert!(seen.iter().all(|s| (s - value).abs() > 1e-4), "{variant:?} changes nothing");
        seen.push(value);
    }
    let shared = SemanticConfig { projection: BranchProjection::Shared, ..base.clone() };
    assert_eq!(check(shared)[0].1, seen[0], "at the start the projections are equal");
    let all = check(SemanticConfig { aux_layers: true, ..base });
    assert_eq!(
        all.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
        ["loss_semantic_0", "loss_semantic", "loss_semantic_dn_0", "loss_semantic_dn"]
    );
}

/// A mean over queries is one over those that are used.
#[test]
fn unused_queries_learn_nothing() {
    let config = SemanticConfig { target_boxes: TargetBoxes::All, ..Default::default() };
    let (_store, _head, branch) = branch(&config);
    let of = |used: &[i64]| {
        let unused = Tensor::ones([2 * QUERIES], (Kind::Bool, Device::Cpu));
        let _ = unused.shallow_clone().index_fill_(0, &Tensor::from_slice(used), 0);
        let output = TrainingOutput { unused: Some(unused.view([2, QUERIES])), ..output() };
        let mut label = |boxes: &Tensor| Ok(teacher(boxes));
        terms_of(&config, &branch, (&output, &targets()), &decisions(), &mut label)
            .unwrap()
            .values
            .double_value(&[0])
    };
    let all: Vec<i64> = (0..2 * QUERIES).collect();
    let alone: Vec<f64> = all.iter().map(|&query| of(&[query])).collect();
    for used in [&all[..], &[0, 3], &[1, QUERIES, QUERIES + 2]] {
        let mean = used.iter().map(|&q| alone[q as usize]).sum::<f64>() / used.len() as f64;
        let got = of(used);
        assert!((got - mean).abs() < 1e-5 * mean.abs().max(1.0), "{used:?}: {got} {mean}");
    }
    assert!((alone[0] - alone[1]).abs() > 1e-3, "{alone:?}");
}

#[test]
fn the_projection_and_the_queries_learn_and_the_teacher_boxes_do_not() {
    for projection in [BranchProjection::Linear, BranchProjection::Mlp, BranchProjection::Shared] {
        let config =
            SemanticConfig { projection, target_boxes: TargetBoxes::Matched, ..Default::default() };
        let (store, _head, branch) = branch(&config);
        let mut output = output();
        output.input_references = output.input_references.set_requires_grad(true);
        let mut label = |boxes: &Tensor| Ok(teacher(boxes));
        let terms =
            terms_of(&config, &branch, (&output, &targets()), &decisions(), &mut label).unwrap();
        terms.total.backward();
        let moves = |t: &Tensor| t.grad().defined() && t.grad().abs().max().double_value(&[]) > 0.0;
        assert!(moves(&output.region_features));
        assert!(!output.input_references.grad().defined());
        // Only the last layer learns, and of it the matched queries alone.
        let per_query = output.region_features.grad().abs().sum_dim_intlist(
            [-1i64].as_slice(),
            false,
            Kind::Float,
        );
        assert_eq!(per_query.gt(0.0).sum(Kind::Int64).int64_value(&[]), 6);
        let own = branch.store().parameters();
        let learned = if projection == BranchProjection::Shared {
            assert!(own.is_empty());
            store.parameters()
        } else {
            own
        };
        assert!(learned.iter().filter(|p| p.name.ends_with("weight")).all(|p| moves(&p.tensor)));
    }
}

#[test]
fn without_boxes_there_are_terms_of_zero() {
    let config = SemanticConfig::default();
    let (_store, _head, branch) = branch(&config);
    let nothing = || Supervised { matching: matching(&[]), normalizer: 1.0, classes: None };
    let decisions = Decisions { queries: nothing(), denoising: None };
    let output = TrainingOutput { denoising: None, ..output() };
    let mut label = |_: &Tensor| panic!("no box, no question to the teacher");
    let terms = terms_of(&config, &branch, (&output, &[]), &decisions, &mut label).unwrap();
    assert_eq!(terms.names, ["loss_semantic"]);
    assert_eq!(terms.total.double_value(&[]), 0.0);
}

#[test]
fn a_projection_that_cannot_be_shared_is_refused() {
    let config =
        SemanticConfig { projection: BranchProjection::Shared, ..SemanticConfig::default() };
    let place = (Device::Cpu, 0);
    let store = ParameterStore::new(Device::Cpu, 0);
    let other = Projection::new(&store.root(), DIM, WIDTH + 1, ProjectionKind::Linear);
    for head in [None, Some(&other)] {
        let error = SemanticBranch::new(&config, DIM, &text(), 1.0, head, place).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("semantic.projection") && text.contains("width 4"), "{text}");
    }
}

#[test]
fn the_branch_starts_as_the_class_head() {
    let (store, _, branch) = branch(&SemanticConfig::default());
    let (own, head) = (branch.store().parameters(), store.parameters());
    assert_eq!(own[0].tensor, head[0].tensor);
    // Init is by name and seed, so without the copy they would differ.
    let apart = ParameterStore::new(Device::Cpu, 4);
    let init = Init::Normal(0.5);
    let drawn = apart.root().sub("semantic_branch").parameter("w", &[WIDTH, DIM], init);
    assert_ne!(drawn, head[0].tensor);
}
