//! `conv2d_relu` against its definition. On CUDA: tests/cuda.rs.
#![allow(clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};
use torch_ext::conv2d_relu;

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
    let run = |residual| conv2d_relu(&x, &weight, Some(&scale), &shift, residual, 1, 0).unwrap();
    let values = |x: Tensor| Vec::<f32>::try_from(x.detach().flatten(0, -1)).unwrap();
    assert_eq!(values(run(None)), [7.0, 9.0, 0.0, 0.0]);
    let y = run(Some(&shortcut));
    assert_eq!(values(y.shallow_clone()), [7.5, 0.0, 0.0, 0.0]);
    y.sum(Kind::Float).backward();
    // Only the first channel's first pixel is above zero: 2 · x[1].
    assert_eq!(values(x.grad()), [0.0, 0.0, 2.0, 0.0]);
    assert_eq!(values(weight.grad()), [2.0, 6.0, 0.0, 0.0]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (x, weight) = (Tensor::zeros([1, 2, 5, 5], CPU), Tensor::zeros([4, 2, 3, 3], CPU));
    let (four, three) = (Tensor::zeros([4], CPU), Tensor::zeros([3], CPU));
    let error = |x: &Tensor, weight: &Tensor, scale: &Tensor, residual: Option<&Tensor>, stride| {
        conv2d_relu(x, weight, Some(scale), &four, residual, stride, 1).unwrap_err().to_string()
    };
    assert!(error(&x.get(0), &weight, &four, None, 1).contains("x: expected [B, in, H, W]"));
    let flat = weight.narrow(2, 0, 1);
    assert!(error(&x, &flat, &four, None, 1).contains("weight: expected [out, 2, k, k]"));
    assert!(error(&x, &weight, &three, None, 1).contains("scale: expected [4]"));
    assert!(error(&x, &weight, &four, None, 0).contains("stride: expected at least 1"));
    let residual = Tensor::zeros([1, 4, 5, 5], CPU);
    assert!(
        error(&x, &weight, &four, Some(&residual), 2).contains("residual: expected [1, 4, 3, 3]")
    );
    assert!(conv2d_relu(&x, &weight, None, &four, Some(&residual), 1, 1).is_ok());
}
