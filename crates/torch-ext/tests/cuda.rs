//! The CUDA kernels against the CPU ones. Skipped, with a line that says so, where there is no CUDA
//! device; `cargo run --release -p torch-ext --example ops_check` checks more and measures.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, LEVELS, close, cuda, random_case, seeded, to};
use tch::{Device, Kind, Tensor};
use torch_ext::detr_losses::{CostWeights, FocalTargets, box_losses, focal_sums, matching_cost};
use torch_ext::{
    LevelBoxes, add_layer_norm, ms_deform_attn_around, nms, roi_align, roi_align_levels,
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
