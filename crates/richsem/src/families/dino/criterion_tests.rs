//! The criterion against plain loops over its definition.

use tch::{Device, Kind};

use super::*;
use crate::{
    losses::{
        FederatedConfig, MatcherConfig, UnknownClasses,
        federated::Rates,
        terms::{StepKey, WholeBatch},
    },
    random::{Random, Stream},
    targets::LabelKnowledge,
    testing::target,
    vocabulary::ClassIndex,
};

const CLASSES: i64 = 6;
const KEY: StepKey = StepKey { seed: 1, micro_step: 2 };

fn step<'a>(targets: &'a [Target], supervision: &'a Supervision) -> Step<'a> {
    Step { targets, supervision, whole: WholeBatch::of(KEY, targets) }
}

fn some_targets() -> Vec<Target> {
    vec![
        target(&[(1, [0.4, 0.4, 0.3, 0.3]), (2, [0.6, 0.5, 0.2, 0.2]), (2, [0.3, 0.5, 0.2, 0.4])]),
        target(&[(5, [0.5, 0.6, 0.4, 0.2])]),
    ]
}

/// Fixed values, so that no run lands on a kink of L1 or IoU that another one missed.
fn leaf(shape: &[i64], low: f64, high: f64, item: u64) -> Tensor {
    let mut random = Random::new(5, Stream::Test, 0, item);
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| random.range(low, high) as f32).collect();
    Tensor::from_slice(&values).view(shape).set_requires_grad(true)
}

fn layers(n: i64, b: i64, q: i64) -> LayerOutputs {
    let item = (n * 100 + q) as u64;
    LayerOutputs {
        logits: leaf(&[n, b, q, CLASSES], -3.0, 3.0, item),
        boxes: leaf(&[n, b, q, 4], 0.2, 0.6, item + 50),
    }
}

fn output(batch: i64, denoising: Option<DenoisingLayout>) -> TrainingOutput {
    let none = || Tensor::zeros([0], (Kind::Float, Device::Cpu));
    TrainingOutput {
        decoder: layers(2, batch, 7),
        interm: layers(1, batch, 7),
        denoising: denoising.map(|layout| (layout, layers(2, batch, layout.len()))),
        matched: None,
        region_features: none(),
        input_references: none(),
        unused: None,
    }
}

fn giou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let corners =
        |v: [f64; 4]| [v[0] - v[2] / 2.0, v[1] - v[3] / 2.0, v[0] + v[2] / 2.0, v[1] + v[3] / 2.0];
    let (p, q) = (corners(a), corners(b));
    let overlap = |lo: usize, hi: usize| (p[hi].min(q[hi]) - p[lo].max(q[lo])).max(0.0);
    let hull = (p[2].max(q[2]) - p[0].min(q[0])) * (p[3].max(q[3]) - p[1].min(q[1]));
    let inter = overlap(0, 2) * overlap(1, 3);
    let union = a[2] * a[3] + b[2] * b[3] - inter;
    inter / union - (hull - union) / hull
}

/// One set's class, L1 and GIoU sums over `columns` of the logits.
fn plain(
    outputs: &LayerOutputs,
    set: i64,
    pairs: &[(i64, i64, usize)],
    targets: &[Target],
    columns: &[i64],
    counts: impl Fn(usize, i64, bool) -> bool,
) -> [f64; 3] {
    let size = outputs.logits.size();
    let mut sums = [0.0; 3];
    for image in 0..size[1] {
        for query in 0..size[2] {
            for &class in columns {
                let positive = pairs.iter().any(|&(b, q, t)| {
                    (b, q) == (image, query) && i64::from(targets[b as usize].labels[t].0) == class
                });
                if !counts(image as usize, class, positive) {
                    continue;
                }
                let x = outputs.logits.double_value(&[set, image, query, class]);
                let p = 1.0 / (1.0 + (-x).exp());
                sums[0] += if positive {
                    -0.25 * (1.0 - p).powi(2) * p.ln()
                } else {
                    -0.75 * p.powi(2) * (1.0 - p).ln()
                };
            }
        }
    }
    for &(image, query, t) in pairs {
        let predicted: [f64; 4] =
            std::array::from_fn(|k| outputs.boxes.double_value(&[set, image, query, k as i64]));
        let truth = targets[image as usize].boxes[t].0.map(f64::from);
        sums[1] += predicted.iter().zip(truth).map(|(a, b)| (a - b).abs()).sum::<f64>();
        sums[2] += 1.0 - giou(predicted, truth);
    }
    sums
}

fn value(terms: &LossTerms, name: &str) -> f64 {
    let at = terms.names.iter().position(|n| n == name).unwrap_or_else(|| panic!("no {name}"));
    terms.values.double_value(&[at as i64])
}

fn matched(outputs: &LayerOutputs, set: i64, targets: &[Target]) -> Vec<(i64, i64, usize)> {
    let one = |x: &Tensor| x.narrow(0, set, 1);
    let padded = PaddedTargets::new(targets, Device::Cpu);
    let m = hungarian(
        (&one(&outputs.logits), &one(&outputs.boxes)),
        None,
        &padded,
        &MatcherConfig::default(),
        0.25,
    )
    .unwrap()
    .wait()
    .unwrap();
    m.list()
        .unwrap()
        .iter()
        .map(|&[_, image, query, target]| (image, query, target as usize))
        .collect()
}

fn close(got: f64, expected: f64, what: &str) {
    assert!((got - expected).abs() < 2e-5 * expected.abs().max(1.0), "{what}: {got} {expected}");
}

#[test]
fn every_term_equals_plain_loops() {
    let targets = some_targets();
    let layout = DenoisingLayout::new(2, 3);
    let output = output(2, Some(layout));
    let criterion = Criterion::new(LossConfig::default(), &[1; CLASSES as usize]);
    let terms = criterion.forward(&output, step(&targets, &Supervision::default())).unwrap().0;
    assert_eq!(terms.names.len(), 3 * (3 + 2));
    let all: Vec<i64> = (0..CLASSES).collect();
    let mut total = 0.0;
    let mut check = |suffix: &str, sums: [f64; 3], normalizer: f64| {
        for ((kind, sum), weight) in
            ["loss_ce", "loss_bbox", "loss_giou"].iter().zip(sums).zip([1.0, 5.0, 2.0])
        {
            close(value(&terms, &format!("{kind}{suffix}")), sum / normalizer, suffix);
            total += weight * sum / normalizer;
        }
    };
    for (outputs, set, suffix) in
        [(&output.decoder, 0, "_0"), (&output.decoder, 1, ""), (&output.interm, 0, "_interm")]
    {
        let pairs = matched(outputs, set, &targets);
        assert_eq!(pairs.len(), 4);
        check(suffix, plain(outputs, set, &pairs, &targets, &all, |_, _, _| true), 4.0);
    }
    let (_, dn) = output.denoising.as_ref().unwrap();
    // Image 0 has boxes in slots 0, 1, 2 of each group's positives; a group is 6 slots long.
    let mut pairs = vec![(1, 0, 0), (1, 6, 0)];
    pairs.extend([0, 6].iter().flat_map(|g| (0..3).map(move |i| (0, g + i, i as usize))));
    for (set, suffix) in [(0, "_dn_0"), (1, "_dn")] {
        check(suffix, plain(dn, set, &pairs, &targets, &all, |_, _, _| true), 8.0);
    }
    close(terms.total.double_value(&[]), total, "total");
}

#[test]
fn federated_terms_look_at_their_own_classes_only() {
    let targets = some_targets();
    let output = output(2, None);
    let counts = vec![9, 4, 4, 1, 0, 25];
    let federated = FederatedConfig { classes: 4, power: 0.5 };
    let config = LossConfig { federated: Some(federated.clone()), ..LossConfig::default() };
    let terms = Criterion::new(config, &counts)
        .forward(&output, step(&targets, &Supervision::default()))
        .unwrap()
        .0;
    let mut drawn = Vec::new();
    for (outputs, set, term, suffix) in [
        (&output.decoder, 0, 0, "_0"),
        (&output.decoder, 1, 1, ""),
        (&output.interm, 0, 2, "_interm"),
    ] {
        let mut random = Random::new(KEY.seed, Stream::Federated, KEY.micro_step, term);
        let columns = Rates::new(&counts, &federated).sample(&[1, 2, 5], &mut random);
        assert_eq!(columns[..3], [1, 2, 5]);
        assert_eq!(columns.len(), 4);
        let pairs = matched(outputs, set, &targets);
        let sums = plain(outputs, set, &pairs, &targets, &columns, |_, _, _| true);
        close(value(&terms, &format!("loss_ce{suffix}")), sums[0] / 4.0, suffix);
        drawn.push((outputs, set, columns));
    }
    terms.total.backward();
    for (outputs, set, columns) in drawn {
        let by_class = outputs.logits.grad().get(set).abs().sum_dim_intlist(
            [0i64, 1].as_slice(),
            false,
            Kind::Float,
        );
        for class in 0..CLASSES {
            assert_eq!(by_class.double_value(&[class]) > 0.0, columns.contains(&class));
        }
    }
}

#[test]
fn classes_an_image_says_nothing_about_can_be_left_out() {
    let mut targets = some_targets();
    // Image 0 says 4 is absent and that some boxes of 2 are missing; 0, 3 and 5 are unknown.
    targets[0].knowledge = LabelKnowledge {
        present: vec![ClassIndex(1), ClassIndex(2)],
        absent: vec![ClassIndex(4)],
        not_exhaustive: vec![ClassIndex(2)],
        exhaustive: Default::default(),
    };
    targets[1].knowledge = LabelKnowledge {
        exhaustive: (0..CLASSES as u32).map(ClassIndex).collect(),
        ..LabelKnowledge::default()
    };
    let output = output(2, None);
    let config = LossConfig { unknown_classes: UnknownClasses::Ignore, ..LossConfig::default() };
    let counts = |image: usize, class: i64, positive: bool| {
        image == 1 || positive || [1, 4].contains(&class)
    };
    let all: Vec<i64> = (0..CLASSES).collect();
    let pairs = matched(&output.decoder, 1, &targets);
    let expected = plain(&output.decoder, 1, &pairs, &targets, &all, counts)[0] / 4.0;
    for federated in [None, Some(FederatedConfig { classes: 6, power: 0.5 })] {
        let config = LossConfig { federated, ..config.clone() };
        let criterion = Criterion::new(config, &[1; CLASSES as usize]);
        let terms = criterion.forward(&output, step(&targets, &Supervision::default())).unwrap().0;
        close(value(&terms, "loss_ce"), expected, "loss_ce");
    }
}

#[test]
fn a_batch_without_boxes_trains() {
    let targets = vec![target(&[]), target(&[])];
    let output = output(2, None);
    for federated in [None, Some(FederatedConfig { classes: 3, power: 0.5 })] {
        let config = LossConfig { federated, ..LossConfig::default() };
        let criterion = Criterion::new(config, &[1; CLASSES as usize]);
        let terms = criterion.forward(&output, step(&targets, &Supervision::default())).unwrap().0;
        assert_eq!(value(&terms, "loss_bbox"), 0.0);
        assert!(value(&terms, "loss_ce") > 0.0);
        terms.total.backward();
        assert!(output.decoder.logits.grad().isfinite().all().int64_value(&[]) != 0);
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let targets = some_targets();
    let output = output(2, Some(DenoisingLayout::new(1, 3)));
    let criterion = Criterion::new(LossConfig::default(), &[1; CLASSES as usize]);
    let total = || {
        criterion
            .forward(&output, step(&targets, &Supervision::default()))
            .unwrap()
            .0
            .total
            .double_value(&[])
    };
    criterion.forward(&output, step(&targets, &Supervision::default())).unwrap().0.total.backward();
    let dn = &output.denoising.as_ref().unwrap().1;
    let mut random = Random::new(0, Stream::Test, 0, 0);
    for tensor in [&output.decoder.logits, &output.decoder.boxes, &output.interm.boxes, &dn.boxes] {
        let flat = tensor.detach().view([-1]);
        let grad = tensor.grad().view([-1]);
        for _ in 0..12 {
            let at = random.below(flat.numel()) as i64;
            let original = flat.double_value(&[at]);
            let set = |x: f64| flat.get(at).fill_(x);
            let eps = 1e-3;
            let _ = set(original + eps);
            let high = total();
            let _ = set(original - eps);
            let low = total();
            let _ = set(original);
            let numeric = (high - low) / (2.0 * eps);
            let got = grad.double_value(&[at]);
            assert!((got - numeric).abs() < 2e-2 * numeric.abs().max(1.0), "{got} {numeric}");
        }
    }
}

#[test]
fn what_is_switched_off_weighs_nothing() {
    let (targets, layout) = (some_targets(), DenoisingLayout::new(2, 3));
    let output = output(2, Some(layout));
    let criterion = Criterion::new(LossConfig::default(), &[1; CLASSES as usize]);
    let total = |supervision: &Supervision| {
        let (terms, _) = criterion.forward(&output, step(&targets, supervision)).unwrap();
        let values = Vec::<f32>::try_from(&terms.values).unwrap();
        (terms.names, values, terms.total.double_value(&[]))
    };
    let (names, values, _) = total(&Supervision::default());
    let weight = |name: &str| match name {
        n if n.starts_with("loss_ce") => 1.0,
        n if n.starts_with("loss_bbox") => 5.0,
        _ => 2.0,
    };
    let sum = |keep: &dyn Fn(&str) -> bool| -> f64 {
        let all = names.iter().zip(&values);
        all.filter(|(n, _)| keep(n)).map(|(n, v)| weight(n) * f64::from(*v)).sum()
    };
    let off = Supervision { l1: false, giou: false, ..Supervision::default() };
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-4 * b, "{a} {b}");
    close(total(&off).2, sum(&|n| n.starts_with("loss_ce")));
    let exempt = Supervision { interm_exempt: true, ..off };
    close(total(&exempt).2, sum(&|n| n.starts_with("loss_ce") || n.ends_with("_interm")));
    let no_class = Supervision { class: false, ..Supervision::default() };
    close(total(&no_class).2, sum(&|n| !n.starts_with("loss_ce")));
}
