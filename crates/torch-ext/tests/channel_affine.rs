//! `channel_affine` against its definition. On CUDA: tests/cuda.rs.
#![allow(clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};
use torch_ext::channel_affine;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn scale_shift_shortcut_and_relu() {
    let x =
        Tensor::from_slice(&[1.0f32, -2.0, 3.0, 4.0]).view([1, 2, 1, 2]).set_requires_grad(true);
    let shortcut = Tensor::from_slice(&[0.5f32, 0.5, -9.0, 1.0]).view([1, 2, 1, 2]);
    let (scale, shift) = (Tensor::from_slice(&[2.0f32, 0.5]), Tensor::from_slice(&[1.0f32, -1.0]));
    let run = |residual, relu| channel_affine(&x, &scale, &shift, residual, relu).unwrap();
    let values = |x: Tensor| Vec::<f32>::try_from(x.detach().flatten(0, -1)).unwrap();
    assert_eq!(values(run(None, false)), [3.0, -3.0, 0.5, 1.0]);
    assert_eq!(values(run(None, true)), [3.0, 0.0, 0.5, 1.0]);
    let y = run(Some(&shortcut), true);
    assert_eq!(values(y.shallow_clone()), [3.5, 0.0, 0.0, 2.0]);
    y.sum(Kind::Float).backward();
    assert_eq!(values(x.grad()), [2.0, 0.0, 0.0, 0.5]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let x = Tensor::zeros([1, 2, 3, 3], CPU);
    let (two, three) = (Tensor::zeros([2], CPU), Tensor::zeros([3], CPU));
    let error = |x: &Tensor, scale: &Tensor, shift: &Tensor, residual: Option<&Tensor>| {
        channel_affine(x, scale, shift, residual, true).unwrap_err().to_string()
    };
    assert!(error(&x.get(0), &two, &two, None).contains("x: expected [B, C, H, W]"));
    assert!(error(&x, &three, &two, None).contains("scale: expected [2]"));
    assert!(
        error(&x, &two, &two.to_kind(Kind::Double), None).contains("shift: expected [2] Float")
    );
    let narrow = x.narrow(2, 0, 2);
    assert!(error(&x, &two, &two, Some(&narrow)).contains("residual: expected [1, 2, 3, 3]"));
}
