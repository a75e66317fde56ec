//! The CUDA kernels against the CPU ones. Skipped, with a line that says so, where there is no CUDA
//! device; `cargo run --release -p torch-ext --example ops_check` checks more and measures.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, LEVELS, close, cuda, random_case, seeded, to};
use tch::{Device, Kind, Tensor};
use torch_ext::detr_losses::{CostWeights, FocalTargets, box_losses, focal_sums, matching_cost};
use torch_ext::{
    Conv2dRelu, Epilogue, LevelBoxes, add_layer_norm, add_layer_norm_naive, autocast, conv2d_relu,
    conv2d_relu_naive, group_norm, group_norm_naive, linear, linear_naive, ms_deform_attn_around,
    nms, roi_align, roi_align_levels,
};

#[test]
fn tensors_of_another_device_are_refused() {
    let Some(device) = cuda() else { return };
    let case = to(&random_case(1, Kind::Float, (1, 2, 8, 5, 4), LEVELS, 0.0), device, Kind::Float);
    let references = Tensor::rand([1, 5, 4, 2], (Kind::Float, Device::Cpu));
    let error = ms_deform_attn_around(
        &case.value,
        LEVELS,
        &references,
        &case.locations,
        &case.weights,
        None,
    )
    .unwrap_err();
    assert!(error.to_string().contains("reference_points"), "{error}");
    let x = Tensor::rand([3, 8], (Kind::Float, device));
    let ones = |device| Tensor::ones([8], (Kind::Float, device));
    let error = add_layer_norm(&x, None, &ones(device), &ones(Device::Cpu), 1e-5).unwrap_err();
    assert!(error.to_string().contains("bias"), "{error}");
}

#[test]
fn roi_align_agrees_with_the_cpu() {
    let Some(device) = cuda() else { return };
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

/// Levels, channels of odd numbers, several kinds; a box of no level or image reads zeros.
#[test]
fn roi_align_of_levels_agrees_with_the_cpu() {
    let Some(device) = cuda() else { return };
    for channels in [16, 6, 5] {
        let held = seeded(channels);
        let options = (Kind::Float, Device::Cpu);
        let maps: Vec<Tensor> = [(40, 60), (20, 30), (10, 15)]
            .map(|(h, w)| Tensor::randn([2, channels, h, w], options))
            .into();
        let corner = Tensor::rand([60, 2], options) * 200.0 - 10.0;
        let size = Tensor::rand([60, 2], options) * 90.0;
        let image = Tensor::randint(2, [60, 1], options);
        let levels = Tensor::randint(3, [60], (Kind::Int64, Device::Cpu));
        drop(held);
        let boxes = Tensor::cat(&[image, corner.shallow_clone(), corner + size], 1);
        let scales = [0.25, 0.125, 0.0625];
        for (kind, tolerance) in [(Kind::Float, 2e-5), (Kind::Half, 2e-3), (Kind::BFloat16, 1.6e-2)]
        {
            let run = |device: Device, sizes: Option<&Tensor>| {
                let maps: Vec<Tensor> = maps
                    .iter()
                    // A leaf of its own, also where nothing is converted.
                    .map(|map| map.to_kind(kind).to_device(device).detach().set_requires_grad(true))
                    .collect();
                let (boxes, levels) = (boxes.to_device(device), levels.to_device(device));
                let sizes = sizes.map(|sizes| sizes.to_device(device));
                let of = LevelBoxes { boxes: &boxes, levels: &levels, sizes: sizes.as_ref() };
                let output = roi_align_levels(&maps, of, (7, 5), &scales, 0, true).unwrap();
                output.backward_with(&output.detach().tanh());
                (output.detach(), maps.iter().map(Tensor::grad).collect::<Vec<_>>())
            };
            // Maps that end with their images, and maps that go on.
            let sizes = Tensor::from_slice(&[101.0, 240.0, 160.0, 33.0f32]).view([2, 2]);
            for sizes in [None, Some(&sizes)] {
                let (expected, expected_grads) = run(Device::Cpu, sizes);
                let (got, got_grads) = run(device, sizes);
                close("output", &got, &expected, tolerance);
                for (got, expected) in got_grads.iter().zip(&expected_grads) {
                    close("map", got, expected, tolerance);
                }
            }
        }
        let maps: Vec<Tensor> = maps.iter().map(|map| map.to_device(device)).collect();
        let rows = Tensor::from_slice(&[0.0, 5.0, 5.0, 50.0, 50.0f32]).repeat([5, 1]);
        let _ = rows.get(3).get(0).fill_(2.0);
        let levels = Tensor::from_slice(&[0, -1, 1 << 40, 0, 2i64]).to_device(device);
        let rows = rows.to_device(device);
        let of = LevelBoxes { boxes: &rows, levels: &levels, sizes: None };
        let read = roi_align_levels(&maps, of, (2, 2), &scales, 0, true).unwrap();
        let read = read.abs().sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float);
        let read = Vec::<bool>::try_from(read.ne(0.0)).unwrap();
        assert_eq!(read, [true, false, false, false, true]);
    }
}

/// Bit by bit what the host decides: many groups and one, long chains, equal boxes, boxes without an inside and
/// of no numbers, groups with more boxes than looked at; the same each time.
#[test]
fn nms_agrees_with_the_cpu() {
    let Some(device) = cuda() else { return };
    for kind in [Kind::Float, Kind::Double] {
        for (count, groups, span) in [
            (1, 1, 9.0),
            (63, 1, 20.0),
            (64, 2, 30.0),
            (65, 1, 60.0),
            (4000, 1, 400.0),
            (9000, 10, 200.0),
            (4096, 1203, 50.0),
            (3000, 1, 5.0),
        ] {
            let held = seeded(count + groups);
            let options = (kind, Device::Cpu);
            let corner = Tensor::rand([count, 2], options) * span;
            let size = Tensor::rand([count, 2], options) * 30.0;
            // Some boxes have no inside, and a few numbers are none.
            let size = &size * Tensor::rand([count, 1], options).gt(0.02).to_kind(kind);
            let boxes = Tensor::cat(&[corner.shallow_clone(), corner + size], 1);
            let odd = Tensor::rand([count, 4], options).lt(0.001);
            let boxes = boxes.masked_fill(&odd, f64::NAN);
            // Whole pixels, so that overlaps come that are exactly a threshold.
            let boxes = if count % 2 == 0 { boxes.round() } else { boxes };
            let groups = Tensor::randint_low(-1, groups, [count], (Kind::Int64, Device::Cpu));
            drop(held);
            for threshold in [0.0, 0.3, 0.5, 0.7, 1.0] {
                for largest in [count, 100] {
                    let run = |device: Device| {
                        let (boxes, groups) = (boxes.to_device(device), groups.to_device(device));
                        nms(&boxes, &groups, threshold, largest).unwrap().to_device(Device::Cpu)
                    };
                    let (expected, got) = (run(Device::Cpu), run(device));
                    let what = format!("{kind:?} {count} boxes, {threshold}, {largest}");
                    assert!(got.equal(&expected), "{what}");
                    assert!(run(device).equal(&got), "{what}, again");
                }
            }
        }
        let none = Tensor::zeros([0, 4], (kind, device));
        let stays = nms(&none, &Tensor::zeros([0], (Kind::Int64, device)), 0.5, 10).unwrap();
        assert_eq!(stays.size(), [0]);
    }
}

/// A chain of boxes of which each overlaps the next: every second one stays, however long it is.
#[test]
fn nms_follows_a_chain_to_its_end() {
    let Some(device) = cuda() else { return };
    let at = Tensor::arange(1000, (Kind::Float, Device::Cpu)) * 4.0;
    let zero = at.zeros_like();
    let boxes = Tensor::stack(&[&at, &zero, &(&at + 10.0), &(&zero + 10.0)], 1).to_device(device);
    let groups = Tensor::zeros([1000], (Kind::Int64, device));
    // Neighbours overlap by 6/14, the next but one by 2/18.
    let stays = nms(&boxes, &groups, 0.3, 1000).unwrap();
    let expected: Vec<bool> = (0..1000).map(|i| i % 2 == 0).collect();
    assert_eq!(Vec::<bool>::try_from(stays).unwrap(), expected);
}

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

/// Indices of the device's memory, which the host has not looked at.
#[test]
fn an_index_out_of_range_is_not_a_number_and_nothing_is_touched() {
    let Some(device) = cuda() else { return };
    let floats = |shape: &[i64]| Tensor::rand(shape, (Kind::Float, device));
    let indices = |values: &[i64]| Tensor::from_slice(values).to_device(device);
    // Far enough to be a fault of memory where it is read or written.
    const FAR: i64 = 1 << 40;
    let weights = CostWeights { class: 2.0, l1: 5.0, giou: 2.0, alpha: 0.25 };
    for wrong in [-1, 3, FAR, -FAR] {
        let cost = matching_cost(
            &floats(&[1, 1, 2, 3]),
            &floats(&[1, 1, 2, 4]),
            &indices(&[2, wrong]).view([1, 2]),
            &floats(&[1, 2, 4]),
            weights,
        );
        let nan = Vec::<bool>::try_from(cost.unwrap().isnan().flatten(0, -1)).unwrap();
        assert_eq!(nan, [false, false, true, true], "a label of {wrong}");
    }
    for wrong in [-1, 5, FAR, -FAR] {
        let boxes = floats(&[5, 4]).set_requires_grad(true);
        let losses = box_losses(&boxes, &indices(&[4, wrong]), &floats(&[2, 4])).unwrap();
        let nan = Vec::<bool>::try_from(losses.isnan().flatten(0, -1)).unwrap();
        assert_eq!(nan, [false, true, false, true], "a slot of {wrong}");
        losses.sum(Kind::Float).backward();
        let touched = boxes.grad().abs().sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        let touched = Vec::<bool>::try_from(touched.ne(0.0)).unwrap();
        assert_eq!(touched, [false, false, false, false, true]);
    }
    let sums = |labels: &[i64], classes: &[i64]| {
        let logits = floats(&[2, 1, 2, 3]).set_requires_grad(true);
        let (labels, classes) = (indices(labels).view([2, 1, 2]), indices(classes).view([2, 2]));
        let known = Tensor::ones([1, 3], (Kind::Float, device));
        let targets =
            FocalTargets { labels: &labels, classes: Some(&classes), known: Some(&known) };
        let sums = focal_sums(&logits, targets, 0.25, 2.0).unwrap();
        sums.sum(Kind::Float).backward();
        let seen = |x: Tensor| Vec::<bool>::try_from(x.isnan().flatten(0, -1)).unwrap();
        (seen(sums), seen(logits.grad()))
    };
    assert_eq!(sums(&[-1, 0, 2, -1], &[0, 1, 1, 2]), (vec![false; 2], vec![false; 12]));
    for wrong in [-1, 3, FAR, -FAR] {
        let (sums, grad) = sums(&[-1, 0, 2, -1], &[0, 1, 1, wrong]);
        assert_eq!(sums, [false, true], "a class of {wrong}");
        // Its logit is none that there is.
        assert!(!grad.contains(&true), "a class of {wrong}");
    }
    for wrong in [-2, 3, FAR, -FAR] {
        let (sums, grad) = sums(&[-1, 0, wrong, -1], &[0, 1, 1, 2]);
        assert_eq!(sums, [false, true], "a label of {wrong}");
        assert_eq!(grad.iter().position(|&nan| nan), Some(7), "a label of {wrong}");
    }
    torch_ext::synchronize(device).unwrap();
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
