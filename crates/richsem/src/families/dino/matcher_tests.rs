//! The cost by its formula, matchings of few boxes by hand, and what matches nothing.

use super::*;
use crate::testing::{normal, target, uniform};

fn targets(list: &[Target]) -> PaddedTargets {
    PaddedTargets::new(list, Device::Cpu)
}

#[test]
fn cost_of_one_pair_follows_its_formula() {
    let (logit, predicted, truth) = (0.7f64, [0.4f32, 0.5, 0.2, 0.3], [0.5f32, 0.5, 0.4, 0.2]);
    let logits = Tensor::from_slice(&[-1.0f32, logit as f32]).view([1, 1, 1, 2]);
    let boxes = Tensor::from_slice(&predicted).view([1, 1, 1, 4]);
    let got =
        cost(&logits, &boxes, &targets(&[target(&[(1, truth)])]), &MatcherConfig::default(), 0.25);
    let p = 1.0 / (1.0 + (-logit).exp());
    let class = 0.25 * (1.0 - p).powi(2) * -(p + 1e-8f64).ln()
        - 0.75 * p.powi(2) * -(1.0 - p + 1e-8f64).ln();
    let l1 = 0.1 + 0.0 + 0.2 + 0.1;
    // Corners (0.3, 0.35, 0.5, 0.65) and (0.3, 0.4, 0.7, 0.6): intersection 0.2 × 0.2, union
    // 0.06 + 0.08 − 0.04, hull 0.4 × 0.3.
    let giou = 0.04 / 0.1 - (0.12 - 0.1) / 0.12;
    let expected = 2.0 * class + 5.0 * l1 - 2.0 * giou;
    assert!((got.double_value(&[0, 0, 0, 0]) - expected).abs() < 1e-4);
}

#[test]
fn every_box_gets_its_best_query_once() {
    // Two images, three queries; the second image has one box, the first two.
    let boxes = Tensor::from_slice(&[
        0.1f32, 0.1, 0.1, 0.1, 0.5, 0.5, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.5,
        0.5, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1,
    ])
    .view([1, 2, 3, 4]);
    let logits = Tensor::zeros([1, 2, 3, 4], (Kind::Float, Device::Cpu));
    let list = targets(&[
        target(&[(0, [0.9, 0.9, 0.1, 0.1]), (3, [0.1, 0.1, 0.1, 0.1])]),
        target(&[(1, [0.5, 0.5, 0.1, 0.1])]),
    ]);
    let got = hungarian((&logits, &boxes), None, &list, &MatcherConfig::default(), 0.25)
        .and_then(PendingMatching::wait)
        .unwrap();
    assert_eq!(got.list().unwrap(), [[0, 0, 2, 0], [0, 0, 0, 1], [0, 1, 1, 0]]);
}

#[test]
fn batched_equals_single_and_no_boxes_match_nothing() {
    let logits = normal(1, &[2, 3, 7, 5]);
    let boxes = uniform(1, &[2, 3, 7, 4]) * 0.5 + 0.2;
    let list = [
        target(&[(1, [0.4, 0.4, 0.3, 0.3]), (2, [0.6, 0.5, 0.2, 0.2]), (2, [0.3, 0.5, 0.2, 0.4])]),
        target(&[]),
        target(&[(4, [0.5, 0.5, 0.4, 0.4]), (0, [0.2, 0.3, 0.1, 0.2])]),
    ];
    let config = MatcherConfig::default();
    let all = hungarian((&logits, &boxes), None, &targets(&list), &config, 0.25)
        .and_then(PendingMatching::wait)
        .unwrap();
    let all = all.list().unwrap();
    assert_eq!(all.len(), 2 * 5);
    for set in 0..2 {
        for image in 0..3 {
            let one = |x: &Tensor| x.narrow(0, set, 1).narrow(1, image, 1);
            let single = hungarian(
                (&one(&logits), &one(&boxes)),
                None,
                &targets(&list[image as usize..=image as usize]),
                &config,
                0.25,
            )
            .and_then(PendingMatching::wait)
            .unwrap();
            let batched = all.iter().filter(|pair| pair[..2] == [set, image]);
            let alone = single.list().unwrap();
            assert!(batched.map(|pair| &pair[2..]).eq(alone.iter().map(|pair| &pair[2..])));
        }
    }
    assert!(
        hungarian(
            (&logits, &boxes),
            None,
            &targets(&[target(&[]), target(&[]), target(&[])]),
            &config,
            0.25
        )
        .and_then(PendingMatching::wait)
        .unwrap()
        .is_empty()
    );
}

#[test]
fn costs_that_are_not_finite_are_an_error() {
    let logits = Tensor::full([1, 1, 2, 2], f64::NAN, (Kind::Float, Device::Cpu));
    let boxes = uniform(2, &[1, 1, 2, 4]);
    let list = targets(&[target(&[(1, [0.5, 0.5, 0.2, 0.2])])]);
    let error = hungarian((&logits, &boxes), None, &list, &MatcherConfig::default(), 0.25)
        .and_then(PendingMatching::wait)
        .unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
}

/// Two of four queries are used, and there are three boxes: two pairs, the same as without the others.
#[test]
fn unused_queries_match_nothing() {
    let boxes = uniform(3, &[2, 1, 4, 4]) * 0.5 + 0.2;
    let logits = normal(3, &[2, 1, 4, 5]);
    let unused = Tensor::from_slice(&[false, true, false, true]).view([1, 4]);
    let used = Tensor::from_slice(&[0i64, 2]);
    let only = |x: &Tensor| x.index_select(2, &used);
    let three = targets(&[target(&[
        (1, [0.5, 0.5, 0.2, 0.2]),
        (2, [0.3, 0.5, 0.2, 0.4]),
        (4, [0.5, 0.5, 0.4, 0.4]),
    ])]);
    let config = MatcherConfig::default();
    let solve = |logits: &Tensor, boxes: &Tensor, unused: Option<&Tensor>| {
        hungarian((logits, boxes), unused, &three, &config, 0.25)
            .and_then(PendingMatching::wait)
            .and_then(|matching| matching.list())
            .unwrap()
    };
    let got = solve(&logits, &boxes, Some(&unused));
    let mut expected = solve(&only(&logits), &only(&boxes), None);
    expected.iter_mut().for_each(|pair| pair[2] *= 2);
    assert_eq!(got.len(), 4);
    assert_eq!(got, expected);
    let largest = |boxes: &Tensor, unused: Option<&Tensor>| {
        let matching = max_size(boxes, unused, &three).and_then(PendingMatching::wait);
        matching.and_then(|matching| matching.list()).unwrap()
    };
    let got = largest(&boxes, Some(&unused));
    let mut expected = largest(&only(&boxes), None);
    expected.iter_mut().for_each(|pair| pair[2] *= 2);
    assert_eq!(got, expected);
}

/// Two tiles side by side: each takes the largest prediction whose centre it holds, and a tile
/// without any takes the largest of the image.
#[test]
fn a_whole_image_takes_the_largest_prediction_inside() {
    let left = [0.25, 0.5, 0.5, 1.0];
    let targets = [
        target(&[(0, left), (1, [0.75, 0.5, 0.5, 1.0])]),
        target(&[(2, left), (2, [0.9, 0.5, 0.1, 0.1])]),
    ];
    let boxes: Vec<f32> = [
        // Centre left; larger than the next, also left.
        [0.3, 0.5, 0.4, 0.4],
        [0.2, 0.5, 0.2, 0.2],
        // Centre right, the only one.
        [0.8, 0.5, 0.1, 0.1],
        // Second image: all left.
        [0.3, 0.5, 0.1, 0.1],
        [0.2, 0.5, 0.3, 0.2],
        [0.1, 0.5, 0.2, 0.2],
    ]
    .concat();
    let boxes = Tensor::from_slice(&boxes).view([1, 2, 3, 4]);
    let padded = PaddedTargets::new(&targets, Device::Cpu);
    let got = max_size(&boxes, None, &padded).and_then(PendingMatching::wait).unwrap();
    let pairs = [[0, 0, 0, 0], [0, 0, 2, 1], [0, 1, 1, 0], [0, 1, 1, 1]];
    assert_eq!(got.list().unwrap(), pairs);
    assert!(got.shared);
    let none = PaddedTargets::new(&[target(&[])], Device::Cpu);
    assert!(max_size(&boxes, None, &none).and_then(PendingMatching::wait).unwrap().is_empty());
}
