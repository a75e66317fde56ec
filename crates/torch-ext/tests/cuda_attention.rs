//! Deformable attention's CUDA kernels against the CPU's. Skipped, with a line that says so, where there is
//! no CUDA device.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, LEVELS, close, cuda, gradients, random_case, seeded, to};
use tch::{Device, Kind, Tensor};
use torch_ext::{ms_deform_attn, ms_deform_attn_around};

#[test]
fn deformable_attention_agrees_with_the_cpu() {
    let Some(device) = cuda() else { return };
    for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::Half, 2e-3), (Kind::BFloat16, 1.6e-2)] {
        for (seed, sizes) in [
            (2, 8, 32, 60, 4),
            (1, 3, 7, 33, 2),
            (1, 2, 64, 5, 1),
            (3, 1, 1, 11, 3),
            (1, 2, 36, 9, 4),
            (2, 8, 32, 0, 4),
        ]
        .into_iter()
        .enumerate()
        {
            let case = random_case(seed as i64, Kind::Float, sizes, LEVELS, 0.25);
            // The CPU computes in f32 from the same rounded values.
            let rounded = to(&to(&case, Device::Cpu, kind), Device::Cpu, Kind::Float);
            let (expected, expected_grads) = gradients(&rounded, ms_deform_attn);
            let (got, got_grads) = gradients(&to(&case, device, kind), ms_deform_attn);
            assert_eq!(got.kind(), kind);
            close("output", &got, &expected, tolerance);
            for (i, (got, expected)) in got_grads.iter().zip(&expected_grads).enumerate() {
                assert!(got.device() == device && got.size() == expected.size());
                close(["value", "locations", "weights"][i], got, expected, tolerance);
            }
        }
    }
}

#[test]
fn points_around_references_agree_with_the_cpu() {
    let Some(device) = cuda() else { return };
    for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::Half, 4e-3), (Kind::BFloat16, 1.6e-2)] {
        for (seed, (numbers, (b, m, d, q, p))) in [
            (2, (2, 8, 32, 60, 4)),
            (4, (1, 3, 7, 33, 2)),
            (2, (3, 1, 1, 11, 3)),
            (4, (2, 2, 36, 9, 4)),
        ]
        .into_iter()
        .enumerate()
        {
            let case = random_case(seed as i64, Kind::Float, (b, m, d, q, p), LEVELS, 0.0);
            let held = seeded(seed as i64);
            let random = |shape: &[i64]| Tensor::rand(shape, (Kind::Float, Device::Cpu));
            let references = random(&[b, q, 4, numbers]);
            let offsets = random(&[b, q, m, 4, p, 2]) * 6.0 - 3.0;
            let logits = (random(&[b, q, m, 4, p]) * 6.0).to_kind(kind).to_kind(Kind::Float);
            // Queries alone, and all of an image.
            let unread = random(&[b, q]).lt(0.2).logical_or(&random(&[b, 1]).lt(0.2));
            let unread = (numbers == 2).then_some(unread);
            drop(held);
            let value = case.value.to_kind(kind).to_kind(Kind::Float);
            let grad = case.grad.to_kind(kind).to_kind(Kind::Float);
            let run = |device: Device, kind: Kind| {
                let leaf = |x: &Tensor, kind: Kind| {
                    x.to_device(device).to_kind(kind).detach().set_requires_grad(true)
                };
                let inputs = [leaf(&value, kind), leaf(&offsets, Kind::Float), leaf(&logits, kind)];
                let references = references.to_device(device);
                let unread = unread.as_ref().map(|unread| unread.to_device(device));
                let [value, offsets, logits] = &inputs;
                let unread = unread.as_ref();
                let output =
                    ms_deform_attn_around(value, LEVELS, &references, offsets, logits, unread);
                let output = output.unwrap();
                output.backward_with(&grad.to_device(device).to_kind(kind));
                (output.detach(), inputs.map(|input| input.grad()))
            };
            let (expected, expected_grads) = run(Device::Cpu, Kind::Float);
            let (got, got_grads) = run(device, kind);
            close("output", &got, &expected, tolerance);
            for (i, name) in ["value", "offsets", "logits"].iter().enumerate() {
                close(name, &got_grads[i], &expected_grads[i], tolerance);
            }
        }
    }
}

/// Sixteen-bit sums must not come to rest where one more summand is too small to count.
#[test]
fn many_equal_gradients_add_up() {
    let Some(device) = cuda() else { return };
    // The scale follows the gradient, which f16 alone could not hold.
    let cases =
        [(Kind::Half, 1.0), (Kind::BFloat16, 1e-9), (Kind::BFloat16, 1.0), (Kind::BFloat16, 1e9)];
    for (kind, size) in cases {
        let mut case = random_case(5, Kind::Float, (1, 1, 8, 8000, 4), &[(1, 1)], 0.0);
        case.grad = (case.grad.abs() + 0.5) * size;
        let (_, expected) = gradients(&case, ms_deform_attn);
        let (_, got) = gradients(&to(&case, device, kind), ms_deform_attn);
        let largest = expected[0].abs().max().double_value(&[]);
        assert!(largest > 1000.0 * size, "{largest}: not many that add up");
        close("value", &(&got[0] / largest), &(&expected[0] / largest), 1e-2);
    }
}

#[test]
fn a_gradient_that_is_not_finite_stays_so() {
    let Some(device) = cuda() else { return };
    for number in [f64::NAN, f64::INFINITY] {
        let case =
            to(&random_case(5, Kind::Float, (1, 2, 8, 9, 4), LEVELS, 0.0), device, Kind::BFloat16);
        let _ = case.grad.narrow(1, 3, 1).fill_(number);
        let (_, got) = gradients(&case, ms_deform_attn);
        assert!(got[0].isfinite().logical_not().any().int64_value(&[]) != 0, "{number}");
    }
}

/// Sums in 16 bits are scaled by the largest gradient. That of a query that nobody reads, whatever it is, is
/// none of them: the others would be rounded to nothing.
#[test]
fn what_is_unread_does_not_scale_the_sums() {
    let Some(device) = cuda() else { return };
    let (b, m, d, q, p) = (1, 2, 16, 40, 4);
    let case = random_case(7, Kind::Float, (b, m, d, q, p), LEVELS, 0.0);
    let held = seeded(7);
    let random = |shape: &[i64]| Tensor::rand(shape, (Kind::Float, Device::Cpu));
    let references = random(&[b, q, 4, 2]).to_device(device);
    let offsets = (random(&[b, q, m, 4, p, 2]) * 6.0 - 3.0).to_device(device);
    let logits = random(&[b, q, m, 4, p]).to_device(device).to_kind(Kind::BFloat16);
    drop(held);
    let unread = Tensor::arange(q, (Kind::Int64, device)).ge(q / 2).unsqueeze(0);
    for huge in [1e30, f64::INFINITY, f64::NAN] {
        let run = |of_unread: f64| {
            let value = case.value.to_device(device).to_kind(Kind::BFloat16).detach();
            let value = value.set_requires_grad(true);
            let grad = case.grad.to_device(device).to_kind(Kind::BFloat16).copy();
            let _ = grad.narrow(1, q / 2, q - q / 2).fill_(of_unread);
            let output = ms_deform_attn_around(
                &value,
                LEVELS,
                &references,
                &offsets,
                &logits,
                Some(&unread),
            );
            output.unwrap().backward_with(&grad);
            value.grad()
        };
        let (expected, got) = (run(0.0), run(huge));
        assert!(expected.abs().max().double_value(&[]) > 0.1);
        close("value", &got, &expected, 1e-3);
    }
}
