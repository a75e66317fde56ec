//! The CPU kernel against the composition of libtorch's operations, and both against numerical
//! gradients.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, Case, LEVELS, close, gradients, random_case, seeded, values};
use tch::{Device, Kind, Tensor};
use torch_ext::{ms_deform_attn, ms_deform_attn_naive};

/// Forward and the three gradients of both agree.
fn check_agreement(case: &Case, tolerance: f64) {
    let (expected, expected_grads) = gradients(case, ms_deform_attn_naive);
    let (got, got_grads) = gradients(case, ms_deform_attn);
    assert_eq!(got.size(), expected.size());
    close("output", &got, &expected, tolerance);
    for ((name, got), expected) in
        ["value", "locations", "weights"].iter().zip(&got_grads).zip(&expected_grads)
    {
        close(name, got, expected, tolerance);
    }
}

#[test]
fn agrees_with_the_composition() {
    for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 2e-5)] {
        for (seed, (b, m, d, q, p)) in [
            (2, 8, 32, 60, 4),
            (1, 3, 7, 33, 2),
            (1, 2, 64, 5, 1),
            (3, 1, 1, 11, 3),
            (1, 8, 32, 600, 4),
        ]
        .into_iter()
        .enumerate()
        {
            // A fifth of the points fall outside.
            check_agreement(
                &random_case(seed as i64, kind, (b, m, d, q, p), LEVELS, 0.25),
                tolerance,
            );
        }
    }
}

#[test]
fn low_precision_values_are_computed_in_f32() {
    for kind in [Kind::BFloat16, Kind::Half] {
        let case = random_case(7, Kind::Float, (2, 8, 32, 50, 4), LEVELS, 0.2);
        let value = case.value.to_kind(kind).to_kind(Kind::Float);
        let full = ms_deform_attn(&value, LEVELS, &case.locations, &case.weights).unwrap();
        let low = ms_deform_attn(&case.value.to_kind(kind), LEVELS, &case.locations, &case.weights)
            .unwrap();
        assert_eq!(low.kind(), kind);
        assert!(low.equal(&full.to_kind(kind)));
        let half = Case { value: case.value.to_kind(kind), ..case };
        let (_, grads) = gradients(&half, ms_deform_attn);
        assert_eq!(grads[0].kind(), kind);
        assert_eq!(grads[1].kind(), Kind::Float);
    }
}

#[test]
fn points_on_pixel_centres_edges_and_corners() {
    // Pixel centres, the image's outer edges, the last position that still reads the border pixel
    // and the first that reads nothing; for x and y.
    let levels: &[(i64, i64)] = &[(4, 4)];
    let marks = [-0.125, -0.125 + 1e-7, 0.0, 0.125, 0.375, 0.5, 0.875, 1.0, 1.125 - 1e-7, 1.125];
    let mut locations = vec![];
    for y in marks {
        for x in marks {
            locations.extend([x, y]);
        }
    }
    let q = (locations.len() / 2) as i64;
    let locations = Tensor::from_slice(&locations).view([1, q, 1, 1, 1, 2]);
    let mut case = random_case(1, Kind::Double, (1, 1, 5, q, 1), levels, 0.0);
    case.locations = locations;
    let run = |f: common::Op| f(&case.value, levels, &case.locations, &case.weights).unwrap();
    close("output", &run(ms_deform_attn), &run(ms_deform_attn_naive), 1e-12);
}

#[test]
fn a_known_value_by_hand() {
    // One 2×2 level, one feature: values 1 2 / 3 4. The middle is the mean, 2.5; the centre of
    // the first pixel is 1; the outer corner reads a quarter of it; far outside reads nothing.
    let value = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0]).view([1, 4, 1, 1]);
    let locations =
        Tensor::from_slice(&[0.5, 0.5, 0.25, 0.25, 0.0, 0.0, 9.0, 0.5, f64::NAN, 0.5, 1e30, -1e30])
            .view([1, 6, 1, 1, 1, 2]);
    let weights = Tensor::from_slice(&[2.0, 1.0, 1.0, 1.0, 1.0, 1.0]).view([1, 6, 1, 1, 1]);
    let output = ms_deform_attn(&value, &[(2, 2)], &locations, &weights).unwrap();
    assert_eq!(values(&output), [5.0, 1.0, 0.25, 0.0, 0.0, 0.0]);
}

#[test]
fn one_pixel_levels() {
    let levels: &[(i64, i64)] = &[(1, 1), (3, 1), (1, 5)];
    check_agreement(&random_case(3, Kind::Double, (2, 4, 32, 20, 4), levels, 0.4), 1e-12);
}

#[test]
fn no_queries_and_no_images() {
    for (b, q) in [(2, 0), (0, 5), (0, 0)] {
        let case = random_case(0, Kind::Float, (b, 4, 32, q, 4), LEVELS, 0.0);
        for f in [ms_deform_attn as common::Op, ms_deform_attn_naive] {
            let (output, grads) = gradients(&case, f);
            assert_eq!(output.size(), [b, q, 128]);
            assert_eq!(grads[0].size(), case.value.size());
            assert!(grads.iter().all(|g| g.abs().sum(Kind::Double).double_value(&[]) == 0.0));
        }
    }
}

#[test]
fn gradients_are_those_of_differences() {
    // Locations a tenth of a pixel or more from the kinks at pixel centres.
    let levels: &[(i64, i64)] = &[(5, 4), (2, 3)];
    let mut case = random_case(5, Kind::Double, (1, 2, 3, 4, 2), levels, 0.0);
    let held = seeded(6);
    let whole = Tensor::rand([1, 4, 2, 2, 2, 2], (Kind::Double, Device::Cpu)) * 5.0 - 1.0;
    let sizes = Tensor::from_slice(&[4.0, 5.0, 3.0, 2.0]).view([1, 1, 1, 2, 1, 2]);
    let fraction = Tensor::rand_like(&whole) * 0.8 + 0.1;
    drop(held);
    case.locations = (whole.floor() + fraction + 0.5) / sizes;
    for f in [ms_deform_attn as common::Op, ms_deform_attn_naive] {
        let (_, grads) = gradients(&case, f);
        for (argument, grad) in grads.iter().enumerate() {
            let grad = values(grad);
            for (i, &grad) in grad.iter().enumerate() {
                let loss = |step: f64| {
                    let inputs = [case.value.copy(), case.locations.copy(), case.weights.copy()];
                    let _ = inputs[argument].view(-1).get(i as i64).g_add_scalar_(step);
                    let [value, locations, weights] = inputs;
                    (f(&value, levels, &locations, &weights).unwrap() * &case.grad)
                        .sum(Kind::Double)
                        .double_value(&[])
                };
                let step = 1e-5;
                let numeric = (loss(step) - loss(-step)) / (2.0 * step);
                assert!(
                    (numeric - grad).abs() < 1e-7 * (1.0 + grad.abs()),
                    "{argument}: {numeric} {grad}"
                );
            }
        }
    }
}

#[test]
fn the_same_bits_whatever_the_threads() {
    let run = |threads| {
        let case = random_case(11, Kind::Float, (2, 8, 32, 700, 4), LEVELS, 0.1);
        // The backward pass runs on the calling thread on the CPU, and so in this pool.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(move || gradients(&case, ms_deform_attn))
    };
    let (output, grads) = run(1);
    for threads in [2, 3, 7] {
        let (other_output, other_grads) = run(threads);
        assert!(other_output.equal(&output));
        assert!(other_grads.iter().zip(&grads).all(|(a, b)| a.equal(b)));
    }
}

#[test]
fn only_the_wanted_gradients() {
    let case = random_case(2, Kind::Float, (1, 2, 32, 9, 4), LEVELS, 0.1);
    let (_, all) = gradients(&case, ms_deform_attn);
    for wanted in 0..3 {
        let inputs = [&case.value, &case.locations, &case.weights].map(Tensor::detach);
        let inputs: Vec<Tensor> =
            inputs.into_iter().enumerate().map(|(i, t)| t.set_requires_grad(i == wanted)).collect();
        ms_deform_attn(&inputs[0], LEVELS, &inputs[1], &inputs[2])
            .unwrap()
            .backward_with(&case.grad);
        for (i, input) in inputs.iter().enumerate() {
            assert_eq!(input.grad().defined(), i == wanted);
        }
        assert!(inputs[wanted].grad().equal(&all[wanted]));
    }
}

#[test]
fn non_contiguous_arguments() {
    let case = random_case(4, Kind::Double, (2, 4, 8, 10, 2), LEVELS, 0.1);
    let expected = ms_deform_attn(&case.value, LEVELS, &case.locations, &case.weights).unwrap();
    let strided = |t: &Tensor| t.transpose(0, 1).contiguous().transpose(0, 1);
    let got = ms_deform_attn(
        &strided(&case.value),
        LEVELS,
        &strided(&case.locations),
        &strided(&case.weights),
    )
    .unwrap();
    assert!(got.equal(&expected));
}

#[test]
fn wrong_shapes_are_named() {
    let case = random_case(0, Kind::Float, (1, 2, 4, 3, 2), LEVELS, 0.0);
    let Case { value, locations, weights, .. } = &case;
    let message = |value: &Tensor, levels: &[(i64, i64)], locations: &Tensor, weights: &Tensor| {
        let slow = ms_deform_attn_naive(value, levels, locations, weights).unwrap_err();
        let fast = ms_deform_attn(value, levels, locations, weights).unwrap_err();
        assert_eq!(slow.to_string(), fast.to_string());
        fast.to_string()
    };
    assert!(message(&value.select(0, 0), LEVELS, locations, weights).contains("[B, S, M, D]"));
    let fewer = message(value, &LEVELS[..2], locations, weights);
    assert!(fewer.contains("spatial_shapes") && fewer.contains("S = "), "{fewer}");
    assert!(
        message(value, LEVELS, &locations.narrow(2, 0, 1), weights).contains("[1, 3, 2, 4, 2, 2]")
    );
    let heads = message(value, LEVELS, locations, &weights.narrow(2, 0, 1));
    assert!(
        heads.contains("attention_weights") && heads.contains("got [1, 3, 1, 4, 2]"),
        "{heads}"
    );
    let whole = ms_deform_attn(&value.to_kind(Kind::Int64), LEVELS, locations, weights);
    assert!(whole.unwrap_err().to_string().contains("floating"));
}
