//! Group normalisation of the image alone: the CPU kernels against their composition, libtorch's own and
//! differences.

#![allow(clippy::unwrap_used)]

mod common;

use common::{BackwardWith as _, close, seeded, values};
use tch::{Device, Kind, Tensor};
use torch_ext::{autocast, group_norm, group_norm_naive};

const CPU: Device = Device::Cpu;
const EPS: f64 = 1e-5;

type Norm = fn(&Tensor, i64, &Tensor, &Tensor, f64, Option<&Tensor>) -> torch_ext::Result<Tensor>;

/// Arguments, and the gradient of the output.
struct Case {
    x: Tensor,
    groups: i64,
    weight: Tensor,
    bias: Tensor,
    grad: Tensor,
}

fn case(kind: Kind, size: [i64; 4], groups: i64) -> Case {
    let _held = seeded(size.iter().sum::<i64>() + groups);
    let random = |shape: &[i64]| Tensor::randn(shape, (kind, CPU));
    let [_, c, ..] = size;
    Case {
        x: random(&size) * 2.0 + 0.7,
        groups,
        weight: random(&[c]),
        bias: random(&[c]),
        grad: random(&size),
    }
}

/// Output, and the gradients of x, weight and bias.
fn run(case: &Case, padding: Option<&Tensor>, f: Norm) -> [Tensor; 4] {
    let inputs = [&case.x, &case.weight, &case.bias].map(|t| t.detach().set_requires_grad(true));
    let [x, weight, bias] = &inputs;
    let output = f(x, case.groups, weight, bias, EPS, padding).unwrap();
    output.backward_with(&case.grad);
    let [x, weight, bias] = inputs.map(|input| input.grad());
    [output.detach(), x, weight, bias]
}

fn all_close(got: &[Tensor; 4], expected: &[Tensor; 4], tolerance: f64) {
    for (name, (got, expected)) in
        ["output", "x", "weight", "bias"].iter().zip(got.iter().zip(expected))
    {
        assert_eq!((got.kind(), got.size()), (expected.kind(), expected.size()), "{name}");
        close(name, got, expected, tolerance);
    }
}

/// libtorch's, which knows no padding.
fn of_libtorch(
    x: &Tensor,
    groups: i64,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    _: Option<&Tensor>,
) -> torch_ext::Result<Tensor> {
    Ok(x.f_group_norm(groups, Some(weight), Some(bias), eps, false)?)
}

/// A whole image, one with an image in its corner, one with single pixels missing, one of padding
/// alone, and so on in turn.
fn padding(b: i64, h: i64, w: i64) -> Tensor {
    let padding = Tensor::zeros([b, h, w], (Kind::Bool, CPU));
    for image in 0..b {
        let mut own = padding.get(image);
        match image % 4 {
            0 => {}
            1 => {
                let _ = own.fill_(1.0);
                let _ =
                    own.narrow(0, 0, (h * 2 / 3).max(1)).narrow(1, 0, (w / 2).max(1)).fill_(0.0);
            }
            2 => {
                let holes = Tensor::arange(h * w, (Kind::Int64, CPU)).remainder(5).lt(2);
                own.copy_(&holes.view([h, w]));
            }
            _ => {
                let _ = own.fill_(1.0);
            }
        }
    }
    padding
}

/// One group, several, one for each channel; maps of less than a lane, of more than a block, and enough
/// of them for several threads.
const SIZES: [([i64; 4], i64); 7] = [
    ([4, 6, 5, 7], 1),
    ([4, 6, 5, 7], 3),
    ([5, 6, 5, 7], 6),
    ([2, 2, 1, 1], 1),
    ([8, 64, 17, 16], 8),
    ([3, 4, 50, 61], 2),
    ([4, 64, 5, 5], 32),
];

#[test]
fn without_padding_it_is_libtorch_s() {
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::Double, 1e-13)] {
        for (size, groups) in SIZES {
            let case = case(kind, size, groups);
            let expected = run(&case, None, of_libtorch);
            all_close(&run(&case, None, group_norm), &expected, tolerance);
            all_close(&run(&case, None, group_norm_naive), &expected, tolerance);
            let [_, _, h, w] = size;
            let no_padding = Tensor::zeros([size[0], h, w], (Kind::Bool, CPU));
            all_close(&run(&case, Some(&no_padding), group_norm), &expected, tolerance);
        }
    }
}

#[test]
fn with_padding_it_is_its_composition() {
    for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::Double, 1e-13)] {
        for (size @ [b, _, h, w], groups) in SIZES {
            let case = case(kind, size, groups);
            let padding = padding(b, h, w);
            let expected = run(&case, Some(&padding), group_norm_naive);
            all_close(&run(&case, Some(&padding), group_norm), &expected, tolerance);
        }
    }
}

#[test]
fn the_gradient_is_that_of_differences() {
    let case = case(Kind::Double, [3, 4, 3, 3], 2);
    let padding = padding(3, 3, 3);
    let [_, grads @ ..] = run(&case, Some(&padding), group_norm);
    let inputs = [&case.x, &case.weight, &case.bias];
    for (input, grad) in grads.iter().enumerate() {
        for (i, got) in values(grad).into_iter().enumerate() {
            let at = |step: f64| {
                let moved: [Tensor; 3] = std::array::from_fn(|other| {
                    let moved = inputs[other].copy();
                    if other == input {
                        let _ = moved.view(-1).get(i as i64).g_add_scalar_(step);
                    }
                    moved
                });
                let [x, weight, bias] = &moved;
                let output = group_norm(x, case.groups, weight, bias, EPS, Some(&padding)).unwrap();
                (output * &case.grad).sum(Kind::Double).double_value(&[])
            };
            let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((got - expected).abs() < 1e-7, "input {input}[{i}]: {got} {expected}");
        }
    }
}

/// The kernels' result has the same bits, whatever lies in the padding and beside the image in the batch.
#[test]
fn an_image_s_result_does_not_depend_on_its_padding_and_its_batch() {
    for (h, w, rows, columns) in [(16, 18, 11, 13), (60, 70, 60, 41), (50, 44, 37, 44)] {
        for groups in [1, 4, 8] {
            let big = case(Kind::Float, [3, 8, h, w], groups);
            let inside = |t: &Tensor| t.narrow(2, 0, rows).narrow(3, 0, columns);
            let alone = Case {
                x: inside(&big.x.narrow(0, 1, 1)).contiguous(),
                grad: inside(&big.grad.narrow(0, 1, 1)).contiguous(),
                weight: big.weight.copy(),
                bias: big.bias.copy(),
                groups,
            };
            let [output, grad, ..] = run(&alone, None, group_norm);
            let padding = Tensor::ones([3, h, w], (Kind::Bool, CPU));
            let _ = padding.narrow(1, 0, rows).narrow(2, 0, columns).fill_(0.0);
            let everywhere = padding.unsqueeze(1);
            for garbage in [f64::NAN, 1e3, f64::INFINITY] {
                for (f, exact) in [(group_norm as Norm, true), (group_norm_naive, false)] {
                    let padded = Case {
                        x: big.x.masked_fill(&everywhere, garbage),
                        grad: big.grad.masked_fill(&everywhere, 3.0),
                        weight: big.weight.copy(),
                        bias: big.bias.copy(),
                        groups,
                    };
                    let [got, got_grad, of_weight, of_bias] = run(&padded, Some(&padding), f);
                    assert!(!exact || inside(&got.narrow(0, 1, 1)).equal(&output), "{h}x{w}");
                    for (got, expected) in [(&got, &output), (&got_grad, &grad)] {
                        let zero = got.masked_select(&everywhere);
                        assert_eq!(zero.count_nonzero(None::<i64>).int64_value(&[]), 0);
                        let own = inside(&got.narrow(0, 1, 1));
                        close("inside", &own, expected, 1e-5);
                    }
                    assert!(of_weight.isfinite().all().int64_value(&[]) == 1);
                    assert!(of_bias.isfinite().all().int64_value(&[]) == 1);
                }
            }
        }
    }
}

#[test]
fn padding_alone_gives_zeros() {
    let case = case(Kind::Float, [2, 6, 5, 7], 3);
    let _ = case.x.shallow_clone().fill_(f64::NAN);
    let padding = Tensor::ones([2, 5, 7], (Kind::Bool, CPU));
    for f in [group_norm as Norm, group_norm_naive] {
        for result in run(&case, Some(&padding), f) {
            assert!(values(&result).iter().all(|&x| x == 0.0));
        }
    }
}

/// It is its own mean: 1 / sqrt(eps) times nothing but roundings is added to the bias.
#[test]
fn a_number_alone_becomes_the_bias() {
    let case = case(Kind::Float, [3, 2, 1, 1], 2);
    let [output, x, weight, bias] = run(&case, None, group_norm);
    assert!(output.equal(&case.bias.view([1, 2, 1, 1]).expand([3, 2, 1, 1], false)));
    close("x", &x, &x.zeros_like(), 1e-4);
    assert_eq!(values(&weight), [0.0; 2]);
    close(
        "bias",
        &bias,
        &case.grad.sum_dim_intlist([0i64, 2, 3].as_slice(), false, Kind::Float),
        1e-6,
    );
}

#[test]
fn an_empty_batch_and_empty_maps() {
    for size in [[0, 4, 3, 3], [2, 4, 0, 3]] {
        let case = case(Kind::Float, size, 2);
        let padding = Tensor::zeros([size[0], size[2], size[3]], (Kind::Bool, CPU));
        for padding in [None, Some(&padding)] {
            let [output, x, weight, bias] = run(&case, padding, group_norm);
            assert!(output.size() == size && x.size() == size);
            assert_eq!(values(&weight), [0.0; 4]);
            assert_eq!(values(&bias), [0.0; 4]);
        }
    }
}

#[test]
fn any_layout_is_read() {
    let mut case = case(Kind::Float, [4, 6, 8, 8], 3);
    let padding = padding(4, 8, 8);
    let expected = run(&case, Some(&padding), group_norm);
    let last = |t: &Tensor| t.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    (case.x, case.grad) = (last(&case.x), last(&case.grad));
    let apart = |t: &Tensor| Tensor::stack(&[t, t], -1).select(-1, 0);
    (case.weight, case.bias) = (apart(&case.weight), apart(&case.bias));
    assert!(!case.x.is_contiguous() && !case.weight.is_contiguous());
    let got = run(&case, Some(&apart(&padding)), group_norm);
    for (got, expected) in got.iter().zip(&expected) {
        assert!(got.equal(expected));
    }
}

#[test]
fn only_wanted_gradients_are_there() {
    let case = case(Kind::Float, [2, 6, 5, 7], 3);
    let [_, of_x, of_weight, _] = run(&case, None, group_norm);
    for wanted in [[true, false, false], [false, true, false], [false, false, true]] {
        let [x, weight, bias] =
            [(&case.x, wanted[0]), (&case.weight, wanted[1]), (&case.bias, wanted[2])]
                .map(|(t, wanted)| t.detach().set_requires_grad(wanted));
        group_norm(&x, 3, &weight, &bias, EPS, None).unwrap().backward_with(&case.grad);
        assert_eq!([&x, &weight, &bias].map(|t| t.grad().defined()), wanted);
        assert!(!wanted[0] || x.grad().equal(&of_x));
        assert!(!wanted[1] || weight.grad().equal(&of_weight));
    }
}

#[test]
fn the_same_bits_whatever_the_threads() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            run(&case(Kind::Float, [4, 64, 30, 21], 8), Some(&padding(4, 30, 21)), group_norm)
        })
    };
    let one = run(1);
    for threads in [2, 4] {
        for (got, expected) in run(threads).iter().zip(&one) {
            assert!(got.equal(expected));
        }
    }
}

/// What f32 can hold of a small deviation from a large mean is not lost.
#[test]
fn a_mean_far_from_zero_costs_no_digits() {
    for padded in [false, true] {
        let mut case = case(Kind::Float, [4, 8, 40, 40], 2);
        case.x = (&case.x - 0.7) * 0.05 + 1e4;
        // The kernel's first numbers are not near the mean either.
        let _ = case.x.narrow(1, 0, 1).narrow(2, 0, 1).g_add_scalar_(5.0);
        let padding = padding(4, 40, 40);
        let padding = padded.then_some(&padding);
        let double = |t: &Tensor| t.to_kind(Kind::Double);
        let exact = Case {
            x: double(&case.x),
            weight: double(&case.weight),
            bias: double(&case.bias),
            grad: double(&case.grad),
            groups: case.groups,
        };
        let expected = run(&exact, padding, group_norm_naive).map(|t| t.to_kind(Kind::Float));
        all_close(&run(&case, padding, group_norm), &expected, 2e-6);
    }
}

#[test]
fn low_precision_is_computed_in_f32_and_autocast_changes_nothing() {
    let mut case = case(Kind::Float, [4, 6, 5, 7], 3);
    let padding = padding(4, 5, 7);
    for kind in [Kind::BFloat16, Kind::Half] {
        case.x = case.x.to_kind(kind);
        let [x, weight, bias] = [&case.x, &case.weight, &case.bias];
        for f in [group_norm as Norm, group_norm_naive] {
            let got = f(x, 3, weight, bias, EPS, Some(&padding)).unwrap();
            let full = f(&x.to_kind(Kind::Float), 3, weight, bias, EPS, Some(&padding)).unwrap();
            assert!(got.equal(&full.to_kind(kind)));
            let inside = autocast(CPU, Some(Kind::BFloat16), || {
                [x, &x.to_kind(Kind::Float)]
                    .map(|x| f(x, 3, weight, bias, EPS, Some(&padding)).unwrap())
            });
            assert!(inside[0].equal(&got) && inside[1].equal(&full));
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let options = (Kind::Float, CPU);
    let x = Tensor::ones([2, 6, 5, 7], options);
    let six = Tensor::ones([6], options);
    let padding = Tensor::zeros([2, 5, 7], (Kind::Bool, CPU));
    let message = |x: &Tensor, groups, weight: &Tensor, bias: &Tensor, padding: &Tensor| {
        let [kernels, naive] = [group_norm as Norm, group_norm_naive]
            .map(|f| f(x, groups, weight, bias, EPS, Some(padding)).unwrap_err().to_string());
        assert_eq!(kernels, naive);
        kernels
    };
    let contains = |message: String, what: &[&str]| {
        assert!(what.iter().all(|what| message.contains(what)), "{message}");
    };
    contains(message(&x.get(0), 3, &six, &six, &padding), &["x:", "[B, C, H, W]", "[6, 5, 7]"]);
    let integers = x.to_kind(Kind::Int64);
    contains(message(&integers, 3, &six, &six, &padding), &["x:", "floating", "Int64"]);
    for groups in [0, -1, 4, 12] {
        let got = format!("got {groups}");
        contains(message(&x, groups, &six, &six, &padding), &["groups:", "divisor of 6", &got]);
    }
    let five = six.narrow(0, 0, 5);
    contains(message(&x, 3, &five, &six, &padding), &["weight:", "[6]", "[5]"]);
    contains(message(&x, 3, &six, &five, &padding), &["bias:", "[6]", "[5]"]);
    let double = six.to_kind(Kind::Double);
    contains(message(&x, 3, &double, &six, &padding), &["weight:", "Float", "Double"]);
    contains(message(&x, 3, &six, &double, &padding), &["bias:", "Float", "Double"]);
    let xs = x.to_kind(Kind::Double);
    contains(message(&xs, 3, &six, &double, &padding), &["weight:", "Double", "Float"]);
    let bytes = padding.to_kind(Kind::Uint8);
    contains(message(&x, 3, &six, &six, &bytes), &["padding:", "Bool", "Uint8"]);
    let small = padding.narrow(1, 0, 4);
    contains(message(&x, 3, &six, &six, &small), &["padding:", "[2, 5, 7]", "[2, 4, 7]"]);
}
