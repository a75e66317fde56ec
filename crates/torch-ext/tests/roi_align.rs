//! RoIAlign against ONNX Runtime's, and its gradient against differences.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, close, values};
use tch::{Device, Kind, Tensor};
use torch_ext::{LevelBoxes, roi_align, roi_align_levels};

/// `sin(0.37 i)` over `[2, 2, 6, 8]`.
fn features() -> Tensor {
    (Tensor::arange(192, (Kind::Float, Device::Cpu)) * 0.37).sin().view([2, 2, 6, 8])
}

/// Inside; at the corner; across the upper left border; across the lower right; very small.
fn boxes() -> Tensor {
    #[rustfmt::skip]
    let boxes = [
        0.0, 4.0, 3.0, 40.0, 33.0,
        1.0, 0.0, 0.0, 16.0, 16.0,
        0.0, -10.0, -6.0, 30.0, 20.0,
        1.0, 50.0, 35.0, 90.0, 60.0,
        1.0, 12.0, 12.0, 13.0, 13.5f32,
    ];
    Tensor::from_slice(&boxes).view([5, 5])
}

/// Bins 0, 4 and 11 (of 2 channels × 2 × 3) of each box, as ONNX Runtime 1.x computes them:
/// ```python
/// node = onnx.helper.make_node("RoiAlign", ["x", "rois", "batch"], ["y"], mode="avg",
///     output_height=2, output_width=3, sampling_ratio=ratio, spatial_scale=0.125,
///     coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel")
/// y = onnxruntime.InferenceSession(model(node)).run(None, inputs)[0]
/// y.reshape(5, -1)[:, [0, 4, 11]]
/// ```
#[test]
fn agrees_with_onnx_runtime() {
    #[rustfmt::skip]
    let known: [(bool, i64, [f64; 15]); 4] = [
        (true, 0, [0.026411, 0.03347, 0.070356, -0.820612, 0.808519, 0.120759, 0.0, -0.050997, 0.039399, 0.21375, 0.119214, 0.0, 0.833232, 0.672066, 0.096107]),
        (true, 2, [0.026411, 0.03347, 0.070356, -0.630047, 0.407583, 0.060876, 0.0, -0.050997, 0.039399, 0.21375, 0.119214, 0.0, 0.833232, 0.672066, 0.096107]),
        (false, 0, [-0.072126, -0.060798, -0.028834, -0.048669, 0.04432, 0.087187, 0.042327, -0.035969, -0.120012, 0.42033, 0.0, 0.0, -0.450231, -0.501022, -0.222079]),
        (false, 2, [-0.072126, -0.060798, -0.028834, -0.048669, 0.04382, 0.087187, 0.042327, -0.035969, -0.120012, 0.42033, 0.0, 0.0, -0.450231, -0.498196, -0.222079]),
    ];
    for (aligned, ratio, expected) in known {
        let output = roi_align(&features(), &boxes(), (2, 3), 0.125, ratio, aligned).unwrap();
        assert_eq!(output.size(), [5, 2, 2, 3]);
        let bins = Tensor::from_slice(&[0i64, 4, 11]);
        let got = values(&output.view([5, 12]).index_select(1, &bins));
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 2e-6, "{aligned} {ratio}: {got} {expected}");
        }
    }
}

#[test]
fn the_gradient_is_that_of_differences() {
    for (ratio, aligned) in [(0, true), (2, false)] {
        let features = features().to_kind(Kind::Double).set_requires_grad(true);
        let boxes = boxes().to_kind(Kind::Double);
        let run =
            |features: &Tensor| roi_align(features, &boxes, (2, 3), 0.125, ratio, aligned).unwrap();
        let grad = (Tensor::arange(60, (Kind::Double, Device::Cpu)) * 0.7).cos();
        let grad = grad.view([5, 2, 2, 3]);
        run(&features).backward_with(&grad);
        for (i, got) in values(&features.grad()).into_iter().enumerate() {
            // The operation is linear in the features.
            let unit = features.detach().zeros_like();
            let _ = unit.view(-1).get(i as i64).fill_(1.0);
            let expected = (run(&unit) * &grad).sum(Kind::Double).double_value(&[]);
            assert!((got - expected).abs() < 1e-12, "{i}: {got} {expected}");
        }
    }
}

#[test]
fn the_same_bits_whatever_the_threads() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let features = features().set_requires_grad(true);
            // Many boxes over the same pixels.
            let boxes = Tensor::cat(&[boxes(), boxes(), boxes()], 0);
            roi_align(&features, &boxes, (3, 3), 0.125, 0, true)
                .unwrap()
                .sin()
                .sum(Kind::Float)
                .backward();
            features.grad()
        })
    };
    let one = run(1);
    for threads in [2, 5] {
        assert!(run(threads).equal(&one));
    }
}

#[test]
fn low_precision_features_are_read_in_f32() {
    let low = features().to_kind(Kind::BFloat16);
    let output = roi_align(&low, &boxes(), (2, 2), 0.125, 0, true).unwrap();
    assert_eq!(output.kind(), Kind::BFloat16);
    let full = roi_align(&low.to_kind(Kind::Float), &boxes(), (2, 2), 0.125, 0, true).unwrap();
    close("output", &output, &full.to_kind(Kind::BFloat16), 0.0);
}

#[test]
fn no_boxes_no_numbers_and_boxes_inside_out() {
    let none = boxes().narrow(0, 0, 0);
    let features = features().set_requires_grad(true);
    let output = roi_align(&features, &none, (2, 2), 0.125, 0, true).unwrap();
    assert_eq!(output.size(), [0, 2, 2, 2]);
    output.sum(Kind::Float).backward();
    assert_eq!(features.grad().abs().sum(Kind::Float).double_value(&[]), 0.0);
    let odd = Tensor::from_slice(&[0.0, f32::NAN, 1.0, 2.0, 3.0, 0.0, 30.0, 20.0, 10.0, 5.0]);
    let output = roi_align(&features, &odd.view([2, 5]), (2, 2), 0.125, 0, true).unwrap();
    assert!(values(&output).iter().all(|&x| x == 0.0));
}

#[test]
fn wrong_arguments_are_named() {
    let message = |boxes: &Tensor, size, ratio| {
        roi_align(&features(), boxes, size, 0.125, ratio, true).unwrap_err().to_string()
    };
    let with_image = |image: f32| Tensor::from_slice(&[image, 0.0, 0.0, 8.0, 8.0]).view([1, 5]);
    assert!(message(&boxes().narrow(1, 1, 4), (2, 2), 0).contains("[N, 5]"));
    assert!(message(&with_image(2.0), (2, 2), 0).contains("below 2 in box 0, got 2"));
    assert!(message(&with_image(-1.0), (2, 2), 0).contains("got -1"));
    assert!(message(&boxes(), (0, 2), 0).contains("output_size"));
    assert!(message(&boxes(), (2, 2), -1).contains("sampling_ratio"));
}

/// Two maps of the same channels, the second half as fine.
fn maps(kind: Kind) -> [Tensor; 2] {
    let coarse = (Tensor::arange(48, (Kind::Float, Device::Cpu)) * 0.9).cos().view([2, 2, 3, 4]);
    [features(), coarse].map(|map| map.to_kind(kind).set_requires_grad(true))
}

/// Each box from its own map: what one call for each of them gives, and so do the gradients.
#[test]
fn each_box_is_read_from_its_level() {
    let own = [1i64, 0, 1, 1, 0];
    let boxes = boxes().to_kind(Kind::Double);
    for (ratio, aligned) in [(0, true), (2, false)] {
        let weights = (Tensor::arange(60, (Kind::Double, Device::Cpu)) * 0.7).cos();
        let weights = weights.view([5, 2, 2, 3]);
        let together = maps(Kind::Double);
        let scales = [0.125, 0.0625];
        let levels = Tensor::from_slice(&own);
        let of = LevelBoxes { boxes: &boxes, levels: &levels, sizes: None };
        let got = roi_align_levels(&together, of, (2, 3), &scales, ratio, aligned).unwrap();
        got.backward_with(&weights);
        let apart = maps(Kind::Double);
        let one = |(row, &level): (usize, &i64)| {
            let map = &apart[level as usize];
            let one = boxes.narrow(0, row as i64, 1);
            roi_align(map, &one, (2, 3), scales[level as usize], ratio, aligned).unwrap()
        };
        let expected: Vec<Tensor> = own.iter().enumerate().map(one).collect();
        let expected = Tensor::cat(&expected, 0);
        expected.backward_with(&weights);
        close("output", &got, &expected, 0.0);
        for (got, expected) in together.iter().zip(&apart) {
            close("map", &got.grad(), &expected.grad(), 1e-15);
        }
    }
}

#[test]
fn levels_without_boxes_and_wrong_levels() {
    let maps = maps(Kind::Float);
    let levels = |of: &[i64]| Tensor::from_slice(of);
    let run = |boxes: &Tensor, levels: &Tensor| {
        let of = LevelBoxes { boxes, levels, sizes: None };
        roi_align_levels(&maps, of, (2, 2), &[0.125, 0.0625], 0, true)
    };
    let none = run(&boxes().narrow(0, 0, 0), &levels(&[])).unwrap();
    assert_eq!(none.size(), [0, 2, 2, 2]);
    assert_eq!(run(&boxes(), &levels(&[1; 5])).unwrap().size(), [5, 2, 2, 2]);
    let message = |of: &[i64]| run(&boxes(), &levels(of)).unwrap_err().to_string();
    assert!(message(&[0, 1, 2, 0, 0]).contains("levels: expected below 2, got 2"));
    assert!(message(&[0, -1, 1, 0, 0]).contains("got -1"));
    assert!(message(&[0]).contains("levels: expected [5] Int64"));
    let of = |maps: &[Tensor], scales: &[f64]| {
        let of = LevelBoxes { boxes: &boxes(), levels: &levels(&[0; 5]), sizes: None };
        roi_align_levels(maps, of, (2, 2), scales, 0, true).unwrap_err()
    };
    assert!(of(&maps, &[0.1]).to_string().contains("spatial_scales: expected 2, one for each map"));
    assert!(of(&[], &[]).to_string().contains("1 to 8 maps, got 0"));
    let other = [maps[0].shallow_clone(), maps[1].narrow(1, 0, 1)];
    assert!(of(&other, &[0.1, 0.1]).to_string().contains("maps: expected all [B, C] [2, 2] Float"));
}

/// Images of several sizes in maps that go on beyond them, whatever stands there: what maps that end with their
/// images give, at every border. A size that is none holds nothing.
#[test]
fn maps_may_go_on_beyond_their_images() {
    let options = (Kind::Double, Device::Cpu);
    let scales = [0.25, 0.125];
    let sizes = [[21i64, 34], [40, 9]];
    let rows = [
        [0.0, 0.0, 34.0, 21.0],
        [25.0, 15.0, 34.0, 21.0],
        [0.0, 19.5, 3.0, 21.0],
        [0.0, 0.0, 9.0, 40.0],
        [5.0, 33.0, 9.0, 40.0],
        [-4.0, 20.0, 60.0, 70.0f64],
    ];
    let boxes = Tensor::from_slice(&rows.concat()).view([6, 4]);
    let levels = Tensor::from_slice(&[0i64, 1, 0, 1, 0, 1]);
    for (ratio, aligned) in [(0, true), (2, false)] {
        let padded: Vec<Tensor> = [(13, 14), (7, 7)]
            .map(|(h, w)| (Tensor::arange(2 * 3 * h * w, options) * 0.7).cos().view([2, 3, h, w]))
            .map(|map| map.set_requires_grad(true))
            .into();
        let run = |maps: &[Tensor], image: i64, sizes: Option<&Tensor>| {
            let number = Tensor::full([6, 1], image as f64, options);
            let boxes = Tensor::cat(&[number, boxes.shallow_clone()], 1);
            let of = LevelBoxes { boxes: &boxes, levels: &levels, sizes };
            roi_align_levels(maps, of, (2, 3), &scales, ratio, aligned).unwrap()
        };
        for (image, size) in (0i64..).zip(sizes) {
            let all = Tensor::from_slice(&sizes.concat()).view([2, 2]).to_kind(Kind::Double);
            let got = run(&padded, image, Some(&all));
            let alone = padded.iter().zip(scales).map(|(map, scale)| {
                let [h, w] = size.map(|side| (side as f64 * scale).ceil() as i64);
                map.narrow(0, image, 1).narrow(2, 0, h).narrow(3, 0, w)
            });
            let expected = run(&alone.collect::<Vec<_>>(), 0, None);
            close("output", &got, &expected, 0.0);
            let grad = |output: &Tensor| {
                Tensor::run_backward(&[output.tanh().sum(Kind::Double)], &padded, false, false)
            };
            for (got, expected) in grad(&got).iter().zip(grad(&expected)) {
                close("map", got, &expected, 1e-15);
            }
        }
        for none in [0.0, f64::NAN, -3.0] {
            let sizes = Tensor::full([2, 2], none, options);
            assert_eq!(values(&run(&padded, 0, Some(&sizes)).abs().max()), [0.0]);
        }
        let wrong = Tensor::ones([3, 2], options);
        let of = LevelBoxes {
            boxes: &Tensor::zeros([6, 5], options),
            levels: &levels,
            sizes: Some(&wrong),
        };
        let error = roi_align_levels(&padded, of, (2, 3), &scales, ratio, aligned).unwrap_err();
        assert!(error.to_string().contains("sizes: expected [2, 2]"), "{error}");
    }
}
