//! `conv2d_relu` against its definition. On CUDA: tests/cuda.rs.
#![allow(clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};
use torch_ext::{Conv2dRelu, conv2d_relu};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn convolution_scale_shift_shortcut_and_relu() {
    let x =
        Tensor::from_slice(&[1.0f32, -2.0, 3.0, 4.0]).view([1, 2, 1, 2]).set_requires_grad(true);
    // The second channel, and the sum of both.
    let weight = Tensor::from_slice(&[0.0f32, 1.0, 1.0, 1.0]).view([2, 2, 1, 1]);
    let weight = weight.set_requires_grad(true);
    let shortcut = Tensor::from_slice(&[0.5f32, -20.0, -9.0, 1.0]).view([1, 2, 1, 2]);
    let (scale, shift) = (Tensor::from_slice(&[2.0f32, 0.5]), Tensor::from_slice(&[1.0f32, -3.0]));
    let plain = Conv2dRelu {
        weight: &weight,
        scale: Some(&scale),
        shift: &shift,
        residual: None,
        outside: None,
        stride: 1,
        padding: 0,
    };
    let run = |residual| conv2d_relu(&x, &Conv2dRelu { residual, ..plain }).unwrap();
    let values = |x: Tensor| Vec::<f32>::try_from(x.detach().flatten(0, -1)).unwrap();
    assert_eq!(values(run(None)), [7.0, 9.0, 0.0, 0.0]);
    let y = run(Some(&shortcut));
    assert_eq!(values(y.shallow_clone()), [7.5, 0.0, 0.0, 0.0]);
    y.sum(Kind::Float).backward();
    // Only the first channel's first pixel is above zero: 2 · x[1].
    assert_eq!(values(x.grad()), [0.0, 0.0, 2.0, 0.0]);
    assert_eq!(values(weight.grad()), [2.0, 6.0, 0.0, 0.0]);
    // The first pixel outside: zero, and it teaches nothing.
    let (mut of_x, mut of_weight) = (x.grad(), weight.grad());
    let (_, _) = (of_x.zero_(), of_weight.zero_());
    let outside = Tensor::from_slice(&[true, false]).view([1, 1, 2]);
    let y = conv2d_relu(&x, &Conv2dRelu { outside: Some(&outside), ..plain }).unwrap();
    assert_eq!(values(y.shallow_clone()), [0.0, 9.0, 0.0, 0.0]);
    y.sum(Kind::Float).backward();
    assert_eq!(values(x.grad()), [0.0, 0.0, 0.0, 2.0]);
    assert_eq!(values(weight.grad()), [-4.0, 8.0, 0.0, 0.0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, weight) = (Tensor::zeros([1, 2, 5, 5], CPU), Tensor::zeros([4, 2, 3, 3], CPU));
    let (four, three) = (Tensor::zeros([4], CPU), Tensor::zeros([3], CPU));
    let fits = Conv2dRelu {
        weight: &weight,
        scale: Some(&four),
        shift: &four,
        residual: None,
        outside: None,
        stride: 1,
        padding: 1,
    };
    let error = |x: &Tensor, op: &Conv2dRelu| conv2d_relu(x, op).unwrap_err().to_string();
    assert!(error(&x.get(0), &fits).contains("x: expected [B, in, H, W]"));
    let flat = weight.narrow(2, 0, 1);
    let with = Conv2dRelu { weight: &flat, ..fits };
    assert!(error(&x, &with).contains("weight: expected [out, 2, k, k]"));
    let with = Conv2dRelu { scale: Some(&three), ..fits };
    assert!(error(&x, &with).contains("scale: expected [4]"));
    let with = Conv2dRelu { stride: 0, ..fits };
    assert!(error(&x, &with).contains("stride: expected at least 1"));
    let residual = Tensor::zeros([1, 4, 5, 5], CPU);
    let with = Conv2dRelu { residual: Some(&residual), stride: 2, ..fits };
    assert!(error(&x, &with).contains("residual: expected [1, 4, 3, 3]"));
    assert!(conv2d_relu(&x, &Conv2dRelu { stride: 1, ..with }).is_ok());
    let outside = Tensor::zeros([1, 5, 5], CPU);
    let with = Conv2dRelu { outside: Some(&outside), ..fits };
    assert!(error(&x, &with).contains("outside: expected Bool [1, 5, 5] on Cpu, got Float"));
    let outside = outside.to_kind(Kind::Bool);
    assert!(conv2d_relu(&x, &Conv2dRelu { outside: Some(&outside), ..fits }).is_ok());
    let with = Conv2dRelu { outside: Some(&outside), stride: 2, ..fits };
    assert!(error(&x, &with).contains("outside: expected Bool [1, 3, 3]"));
}
