//! Layers on CUDA against the operations of libtorch that they are composed of. Skipped, with a line that says
//! so, where there is no CUDA device.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, close, cuda, seeded};
use tch::{Kind, Tensor};
use torch_ext::{
    Conv2dRelu, Epilogue, add_layer_norm, add_layer_norm_naive, autocast, conv2d_relu,
    conv2d_relu_naive, group_norm, group_norm_naive, linear, linear_naive,
};

#[test]
fn conv2d_relu_agrees_with_its_composition() {
    let Some(device) = cuda() else { return };
    torch_ext::set_tf32(false).unwrap();
    type Conv = fn(&Tensor, &Conv2dRelu) -> torch_ext::Result<Tensor>;
    let shapes = [
        (3, 64, 7, 2),
        (64, 64, 1, 1),
        (64, 128, 1, 2),
        (64, 64, 3, 2),
        (36, 24, 3, 1),
        (5, 7, 1, 2),
        (1, 1, 3, 1),
    ];
    for (kind, tolerance) in [(None, 1e-5), (Some(Kind::Half), 6e-3), (Some(Kind::BFloat16), 4e-2)]
    {
        for ((input, out, k, stride), with) in
            shapes.into_iter().flat_map(|shape| (0..8).map(move |with| (shape, with)))
        {
            let [with_residual, with_scale, with_outside] =
                [0, 1, 2].map(|bit| with >> bit & 1 == 1);
            let held = seeded(input * out + k);
            let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device));
            let x = random(&[2, input, 19, 13]);
            let weight = random(&[out, input, k, k]) / ((input * k * k) as f64).sqrt();
            let (scale, shift) = (random(&[out]), random(&[out]));
            let size = [2, out, (19 - 1) / stride + 1, (13 - 1) / stride + 1];
            let (residual, grad) = (random(&size), random(&size));
            let outside = random(&[size[0], size[2], size[3]]).gt(0.3);
            drop(held);
            // Both from values that the kind has, the composition in f32.
            let round = |x: &Tensor| x.to_kind(kind.unwrap_or(Kind::Float)).to_kind(Kind::Float);
            let [x, residual, grad] = [&x, &residual, &grad].map(round);
            // What lies near zero may pass ReLU in one and not in the other: it gets no gradient.
            let scaled =
                if with_scale { &weight * scale.view([-1, 1, 1, 1]) } else { weight.copy() };
            let before = x.conv2d(&scaled, Some(&shift), [stride], [k / 2], [1], 1);
            let before = if with_residual { before + &residual } else { before };
            let grad = grad.masked_fill(&before.abs().lt(0.05), 0.0);
            let run = |f: Conv, kind| {
                let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
                let [x, weight, residual] = [&x, &weight, &residual].map(leaf);
                let op = Conv2dRelu {
                    weight: &weight,
                    scale: with_scale.then_some(&scale),
                    shift: &shift,
                    residual: with_residual.then_some(&residual),
                    outside: with_outside.then_some(&outside),
                    stride,
                    padding: k / 2,
                };
                let output = autocast(device, kind, || f(&x, &op).unwrap());
                output.backward_with(&grad.to_kind(output.kind()));
                (output.detach(), [x.grad(), weight.grad(), residual.grad()])
            };
            let (got, expected) = (run(conv2d_relu, kind), run(conv2d_relu_naive, None));
            assert_eq!(got.0.kind(), kind.unwrap_or(Kind::Float));
            close("output", &got.0, &expected.0, tolerance);
            for ((name, got), expected) in
                ["x", "weight", "residual"].iter().zip(&got.1).zip(&expected.1)
            {
                if *name != "residual" || with_residual {
                    close(name, got, expected, tolerance);
                }
            }
        }
    }
}

/// libtorch gives cuDNN the result's own memory as a map to add, times zero.
#[test]
fn what_a_results_memory_held_before_is_not_read() {
    let Some(device) = cuda() else { return };
    for kind in [Kind::Half, Kind::BFloat16] {
        // All above zero, in the kind and layout that nothing is copied for.
        let positive =
            |shape: &[i64]| Tensor::rand(shape, (Kind::Float, device)).to_kind(kind) + 0.1;
        let (x, weight) = (positive(&[2, 33, 17, 64]), positive(&[64, 3, 3, 64]));
        let [x, weight] = [x, weight].map(|t| t.permute([0, 3, 1, 2]));
        let (rows, square) = (positive(&[2 * 33 * 17, 64]), positive(&[64, 64]));
        let shift = positive(&[64]);
        for _ in 0..3 {
            drop(Tensor::full(x.size(), f64::NAN, (kind, device)));
            let op = Conv2dRelu {
                weight: &weight,
                scale: None,
                shift: &shift,
                residual: None,
                outside: None,
                stride: 1,
                padding: 1,
            };
            let map = conv2d_relu(&x, &op).unwrap();
            assert_eq!(map.gt(0.0).all().int64_value(&[]), 1, "conv2d_relu, {kind:?}");
            drop(map);
            drop(Tensor::full(x.size(), f64::NAN, (kind, device)));
            let result = linear(&rows, &square, Some(&shift), Epilogue::Relu).unwrap();
            assert_eq!(result.gt(0.0).all().int64_value(&[]), 1, "linear, {kind:?}");
        }
    }
}

#[test]
fn linear_agrees_with_its_composition() {
    let Some(device) = cuda() else { return };
    type Linear = fn(&Tensor, &Tensor, Option<&Tensor>, Epilogue<'_>) -> torch_ext::Result<Tensor>;
    for (kind, tolerance) in [(None, 1e-4), (Some(Kind::Half), 4e-3), (Some(Kind::BFloat16), 3e-2)]
    {
        for (rows, input, out) in [(3, 8, 1), (1, 36, 36), (700, 64, 256), (5000, 24, 40)] {
            let zero = Tensor::arange(2 * rows, (Kind::Int64, device)).remainder(3).eq(1);
            let zero = zero.view([2, rows]);
            for epilogue in [Epilogue::None, Epilogue::Relu, Epilogue::ZeroRows(&zero)] {
                let held = seeded(rows);
                let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device));
                let x = random(&[2, rows, input]);
                let weight = random(&[out, input]) / (input as f64).sqrt();
                let (bias, grad) = (random(&[out]), random(&[2, rows, out]));
                drop(held);
                let run = |f: Linear, kind: Option<Kind>| {
                    let inputs = [&x, &weight, &bias].map(|t| t.detach().set_requires_grad(true));
                    let [x, weight, bias] = &inputs;
                    let output =
                        autocast(device, kind, || f(x, weight, Some(bias), epilogue).unwrap());
                    assert_eq!(output.kind(), kind.unwrap_or(Kind::Float));
                    output.to_kind(Kind::Float).backward_with(&grad);
                    let grads = inputs.iter().map(Tensor::grad).collect::<Vec<_>>();
                    (output.detach(), grads)
                };
                // In the same kind: a value near zero may pass ReLU in one and not in another.
                let (expected, expected_grads) = run(linear_naive, kind);
                let (got, got_grads) = run(linear, kind);
                close("output", &got, &expected, tolerance);
                let names = ["x", "weight", "bias"];
                for ((name, got), expected) in names.iter().zip(&got_grads).zip(&expected_grads) {
                    assert_eq!(got.kind(), Kind::Float);
                    close(name, got, expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn add_layer_norm_agrees_with_its_composition() {
    let Some(device) = cuda() else { return };
    let both = |kind| (kind, kind);
    for ((kind, other), tolerance) in [
        (both(Kind::Float), 1e-5),
        (both(Kind::Half), 4e-3),
        (both(Kind::BFloat16), 3e-2),
        ((Kind::Float, Kind::Half), 4e-3),
        ((Kind::Float, Kind::BFloat16), 3e-2),
    ] {
        for (rows, d) in [(1, 7), (33, 36), (3000, 256), (5, 1024)] {
            for with_residual in [false, true] {
                let held = seeded(rows);
                let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device));
                let given =
                    [random(&[rows, d]), random(&[rows, d]) + 3.0, random(&[d]), random(&[d])];
                let grad = random(&[rows, d]);
                drop(held);
                type Norm = fn(
                    &Tensor,
                    Option<&Tensor>,
                    &Tensor,
                    &Tensor,
                    f64,
                ) -> torch_ext::Result<Tensor>;
                let run = |f: Norm, kind: Kind, other: Kind| {
                    let inputs = given.each_ref().map(|t| t.detach().set_requires_grad(true));
                    let [x, residual, weight, bias] = &inputs;
                    let (x, residual) = (x.to_kind(kind), residual.to_kind(other));
                    let residual = with_residual.then_some(&residual);
                    let output = f(&x, residual, weight, bias, 1e-5).unwrap();
                    assert_eq!(output.kind(), kind);
                    output.to_kind(Kind::Float).backward_with(&grad);
                    (output.detach(), inputs.map(|input| input.grad()))
                };
                let (expected, expected_grads) =
                    run(add_layer_norm_naive, Kind::Float, Kind::Float);
                let (got, got_grads) = run(add_layer_norm, kind, other);
                close("output", &got, &expected, tolerance);
                for (i, name) in ["x", "residual", "weight", "bias"].iter().enumerate() {
                    if *name != "residual" || with_residual {
                        close(name, &got_grads[i], &expected_grads[i], tolerance);
                    }
                }
            }
        }
    }
}

#[test]
fn group_norm_agrees_with_its_composition() {
    let Some(device) = cuda() else { return };
    type Norm =
        fn(&Tensor, i64, &Tensor, &Tensor, f64, Option<&Tensor>) -> torch_ext::Result<Tensor>;
    for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::Half, 4e-3), (Kind::BFloat16, 3e-2)] {
        // One channel a group, vectors of two, of four and of eight; more vectors than a block has
        // threads; maps of one block and of many.
        for (size @ [b, c, h, w], groups) in [
            ([3, 32, 5, 7], 32),
            ([3, 6, 5, 7], 3),
            ([4, 36, 13, 11], 1),
            ([4, 256, 100, 76], 32),
            ([4, 64, 60, 61], 8),
            ([3, 2056, 3, 3], 1),
            ([3, 515, 9, 5], 5),
        ] {
            let held = seeded(c);
            let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device));
            let x = random(&size) * 2.0 + 3.0;
            let (weight, bias, grad) = (random(&[c]), random(&[c]), random(&size));
            drop(held);
            // Both from values that the kind has, the composition in f32.
            let [x, grad] = [x, grad].map(|t| t.to_kind(kind).to_kind(Kind::Float));
            // An image in its corner, one of padding alone, one with single pixels missing and one
            // without padding.
            let padding = Tensor::ones([b, h, w], (Kind::Bool, device));
            let _ = padding.get(0).narrow(0, 1, h - 1).narrow(1, 0, w / 2).fill_(0.0);
            let holes = Tensor::arange(h * w, (Kind::Int64, device)).remainder(5).lt(2);
            padding.get(2).copy_(&holes.view([h, w]));
            if b > 3 {
                let _ = padding.get(3).fill_(0.0);
            }
            let outside = padding.unsqueeze(1);
            let last = |t: &Tensor| t.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
            for (padded, channels_last) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let padding = padded.then_some(&padding);
                let run = |f: Norm, kind: Kind| {
                    let laid = |t: &Tensor| if channels_last { last(t) } else { t.contiguous() };
                    let (mut x, mut grad) = (x.copy(), grad.copy());
                    if padded {
                        x = x.masked_fill(&outside, f64::NAN);
                        grad = grad.masked_fill(&outside, 1e3);
                    }
                    let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
                    let x = leaf(&laid(&x.to_kind(kind)));
                    let [weight, bias] = [&weight, &bias].map(leaf);
                    let output = f(&x, groups, &weight, &bias, 1e-5, padding).unwrap();
                    assert_eq!((output.kind(), output.size()), (kind, size.to_vec()));
                    (&output * laid(&grad.to_kind(kind))).sum(Kind::Float).backward();
                    [output.detach(), x.grad(), weight.grad(), bias.grad()]
                };
                let expected = run(group_norm_naive, Kind::Float);
                let got = run(group_norm, kind);
                assert_eq!(
                    got[0],
                    run(group_norm, kind)[0],
                    "the forward pass adds up in one order"
                );
                for (i, name) in ["output", "x", "weight", "bias"].into_iter().enumerate() {
                    close(&format!("{name} {size:?} {kind:?}"), &got[i], &expected[i], tolerance);
                }
                if padded {
                    for map in &got[..2] {
                        let zero = map.masked_select(&outside);
                        assert_eq!(zero.count_nonzero(None::<i64>).int64_value(&[]), 0);
                    }
                }
            }
        }
    }
}

/// Padding that comes first in memory must not take the digits of a large mean.
#[test]
fn group_norm_keeps_a_small_deviation_from_a_large_mean() {
    let Some(device) = cuda() else { return };
    let held = seeded(8);
    let x = Tensor::randn([2, 16, 20, 30], (Kind::Float, device)) * 0.1 + 1e4;
    drop(held);
    let padding = Tensor::zeros([2, 20, 30], (Kind::Bool, device));
    let _ = padding.narrow(1, 0, 4).fill_(1.0);
    let x = x.masked_fill(&padding.unsqueeze(1), 0.0);
    let [ones, zeros] = [1.0, 0.0].map(|v| Tensor::full([16], v, (Kind::Float, device)));
    let got = group_norm(&x, 4, &ones, &zeros, 1e-5, Some(&padding)).unwrap();
    let double = |t: &Tensor| t.to_kind(Kind::Double);
    let (x, ones, zeros) = (double(&x), double(&ones), double(&zeros));
    let expected = group_norm_naive(&x, 4, &ones, &zeros, 1e-5, Some(&padding)).unwrap();
    close("output", &got, &expected, 1e-4);
}
