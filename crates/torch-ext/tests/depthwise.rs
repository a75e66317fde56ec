//! Convolutions with one kernel for each channel, against libtorch's.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, close, cuda, seeded};
use tch::{Device, Kind, Tensor};
use torch_ext::{autocast, depthwise_conv2d};

/// Output and the gradients of x, weight and bias, given a gradient.
fn step(
    [x, weight, bias]: [&Tensor; 3],
    (with_bias, grad): (bool, &Tensor),
    f: impl FnOnce(&Tensor, &Tensor, Option<&Tensor>) -> Tensor,
) -> Vec<Tensor> {
    let leaf = |of: &Tensor| of.detach().copy().set_requires_grad(true);
    let [x, weight, bias] = [x, weight, bias].map(leaf);
    let output = f(&x, &weight, with_bias.then_some(&bias));
    output.backward_with(&grad.to_kind(output.kind()));
    let mut all = vec![output.detach(), x.grad(), weight.grad()];
    all.extend(with_bias.then(|| bias.grad()));
    all
}

fn reference(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let half = weight.size()[2] / 2;
    x.conv2d(weight, bias, [1], [half, half], [1], x.size()[1])
}

fn own(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    depthwise_conv2d(x, weight, bias).unwrap()
}

/// Every side, widths and heights of no multiple and below the kernel's, channels of every vector, several kinds and
/// under autocast: what libtorch gives in f64, to the kind's rounding. Again the same bits.
#[test]
fn kernels_agree_with_libtorch() {
    let Some(device) = cuda() else { return };
    torch_ext::set_tf32(false).unwrap();
    for (side, channels, h, w) in [
        (1, 8, 5, 9),
        (3, 16, 19, 37),
        (5, 6, 3, 2),
        (7, 96, 23, 8),
        (9, 20, 31, 17),
        (11, 5, 6, 40),
    ] {
        let held = seeded(side * channels);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        let x = random(&[2, channels, h, w]);
        let weight = random(&[channels, 1, side, side]) / side as f64;
        let (bias, grad) = (random(&[channels]), random(&[2, channels, h, w]));
        drop(held);
        for with_bias in [false, true] {
            for (kind, tolerance) in
                [(Kind::Float, 2e-5), (Kind::Half, 4e-3), (Kind::BFloat16, 3e-2)]
            {
                // From values that the kind has.
                let rounded = [&x, &grad].map(|of| of.to_kind(kind).to_kind(Kind::Double));
                let [x, grad] = &rounded;
                let weight = weight.to_kind(Kind::Float).to_kind(Kind::Double);
                let bias = bias.to_kind(Kind::Float).to_kind(Kind::Double);
                let expected = step([x, &weight, &bias], (with_bias, grad), reference);
                let on = |of: &Tensor, kind| of.to_kind(kind).to_device(device);
                let masters = [&weight, &bias].map(|of| on(of, Kind::Float));
                let run = |x: &Tensor, automatic: Option<Kind>| {
                    let of = [x, &masters[0], &masters[1]];
                    step(of, (with_bias, &on(grad, kind)), |x, weight, bias| {
                        autocast(device, automatic, || own(x, weight, bias))
                    })
                };
                let got = run(&on(x, kind), None);
                let automatic = run(&on(x, Kind::Float), (kind != Kind::Float).then_some(kind));
                for (i, expected) in expected.iter().enumerate() {
                    let what = format!("{side} {channels} {kind:?} {with_bias} {i}");
                    close(&what, &got[i], expected, tolerance);
                    close(&format!("{what} autocast"), &automatic[i], expected, tolerance);
                }
                let again = run(&on(x, kind), None);
                assert!(got.iter().zip(&again).all(|(a, b)| a.equal(b)), "{side}: other bits");
            }
        }
    }
}

#[test]
fn on_the_cpu_it_is_libtorchs() {
    let x =
        (Tensor::arange(2 * 3 * 5 * 4, (Kind::Double, Device::Cpu)) * 0.7).sin().view([2, 3, 5, 4]);
    let weight = (Tensor::arange(27, (Kind::Double, Device::Cpu)) * 0.3).cos().view([3, 1, 3, 3]);
    let bias = Tensor::from_slice(&[0.1, -0.2, 0.3]);
    let grad = x.cos();
    for with_bias in [false, true] {
        let of = || ([&x, &weight, &bias], (with_bias, &grad));
        let (expected, got) = (step(of().0, of().1, reference), step(of().0, of().1, own));
        assert!(got.iter().zip(&expected).all(|(got, expected)| got.equal(expected)));
    }
}

#[test]
fn wrong_arguments_are_named() {
    let of = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let x = of(&[1, 4, 5, 5]);
    let message = |x: &Tensor, weight: &[i64], bias: Option<i64>| {
        let bias = bias.map(|count| of(&[count]));
        depthwise_conv2d(x, &of(weight), bias.as_ref()).unwrap_err().to_string()
    };
    assert!(message(&of(&[4, 5, 5]), &[4, 1, 3, 3], None).contains("x: expected [B, C, H, W]"));
    for weight in [&[4, 2, 3, 3][..], &[3, 1, 3, 3], &[4, 1, 3, 5], &[4, 1, 4, 4], &[4, 9]] {
        assert!(message(&x, weight, None).contains("weight: expected [4, 1, k, k], k odd"));
    }
    assert!(message(&x, &[4, 1, 3, 3], Some(5)).contains("bias: expected [4], got [5]"));
}
