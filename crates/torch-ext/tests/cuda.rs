//! The CUDA kernels against the CPU ones. Skipped, with a line that says so, where there is no CUDA
//! device; `cargo run --release -p torch-ext --example ops_check` checks more and measures.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, Case, LEVELS, close, gradients, random_case, seeded};
use tch::{Device, Kind, Tensor};
use torch_ext::{DeviceChoice, channel_affine, channel_affine_naive, ms_deform_attn, roi_align};

fn device() -> Option<Device> {
    match DeviceChoice::Cuda(None).resolve() {
        Ok(device) => Some(device),
        Err(problem) => {
            println!("skipped, there is no CUDA device: {problem}");
            None
        }
    }
}

fn to(case: &Case, device: Device, kind: Kind) -> Case {
    Case {
        value: case.value.to_device(device).to_kind(kind),
        levels: case.levels.clone(),
        locations: case.locations.to_device(device),
        weights: case.weights.to_device(device),
        grad: case.grad.to_device(device).to_kind(kind),
    }
}

#[test]
fn deformable_attention_agrees_with_the_cpu() {
    let Some(device) = device() else { return };
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
fn roi_align_agrees_with_the_cpu() {
    let Some(device) = device() else { return };
    let held = seeded(3);
    let features = Tensor::randn([2, 5, 20, 30], (Kind::Float, Device::Cpu));
    let corner = Tensor::rand([40, 2], (Kind::Float, Device::Cpu)) * 200.0 - 10.0;
    let size = Tensor::rand([40, 2], (Kind::Float, Device::Cpu)) * 90.0;
    let image = Tensor::randint(2, [40, 1], (Kind::Float, Device::Cpu));
    drop(held);
    let boxes = Tensor::cat(&[image, corner.shallow_clone(), corner + size], 1);
    for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::Half, 2e-3), (Kind::BFloat16, 1.6e-2)] {
        for (ratio, aligned) in [(0, true), (2, false)] {
            let run = |device: Device, kind: Kind| {
                let features = features.to_kind(kind).to_device(device).detach();
                let features = features.set_requires_grad(true);
                let boxes = boxes.to_device(device);
                let output = roi_align(&features, &boxes, (7, 5), 0.125, ratio, aligned).unwrap();
                output.backward_with(&output.detach().tanh());
                (output.detach(), features.grad())
            };
            let (expected, expected_grad) = run(Device::Cpu, kind);
            let (got, got_grad) = run(device, kind);
            close("output", &got, &expected, tolerance);
            close("features", &got_grad, &expected_grad, tolerance);
        }
    }
}

#[test]
fn channel_affine_agrees_with_its_composition() {
    let Some(device) = device() else { return };
    for (kind, tolerance) in [(Kind::Float, 2e-6), (Kind::Half, 2e-3), (Kind::BFloat16, 1.6e-2)] {
        for channels in [3, 36, 64] {
            for (relu, with_residual) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let held = seeded(channels);
                let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device));
                let shape = [2, channels, 9, 7];
                let (x, residual) = (random(&shape).to_kind(kind), random(&shape).to_kind(kind));
                let (scale, shift) = (random(&[channels]), random(&[channels]));
                let grad = random(&shape).to_kind(kind);
                drop(held);
                let run = |f: fn(&_, &_, &_, Option<&_>, bool) -> torch_ext::Result<Tensor>| {
                    let x = x.detach().set_requires_grad(true);
                    let residual = residual.detach().set_requires_grad(true);
                    let given = with_residual.then_some(&residual);
                    let output = f(&x, &scale, &shift, given, relu).unwrap();
                    assert_eq!(output.kind(), kind);
                    output.backward_with(&grad);
                    (output.detach(), x.grad(), residual.grad())
                };
                let (got, expected) = (run(channel_affine), run(channel_affine_naive));
                close("output", &got.0, &expected.0, tolerance);
                close("x", &got.1, &expected.1, tolerance);
                if with_residual {
                    close("residual", &got.2, &expected.2, tolerance);
                }
            }
        }
    }
}
