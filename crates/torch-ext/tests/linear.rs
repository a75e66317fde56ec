//! `linear` and what follows it, against its definition. On CUDA: tests/cuda.rs.
#![allow(clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};
use torch_ext::{Epilogue, linear};

#[test]
fn product_bias_and_what_follows() {
    let x = Tensor::from_slice(&[1.0f32, 2.0, -1.0, 0.5, 3.0, -2.0]).view([1, 3, 2]);
    let weight = Tensor::from_slice(&[1.0f32, -1.0]).view([1, 2]).set_requires_grad(true);
    let bias = Tensor::from_slice(&[0.5f32]);
    let zero = Tensor::from_slice(&[false, false, true]).view([1, 3]);
    let run = |epilogue| linear(&x, &weight, Some(&bias), epilogue).unwrap();
    let values = |x: Tensor| Vec::<f32>::try_from(x.detach().flatten(0, -1)).unwrap();
    assert_eq!(values(run(Epilogue::None)), [-0.5, -1.0, 5.5]);
    assert_eq!(values(run(Epilogue::Relu)), [0.0, 0.0, 5.5]);
    let zeroed = run(Epilogue::ZeroRows(&zero));
    assert_eq!(values(zeroed.shallow_clone()), [-0.5, -1.0, 0.0]);
    zeroed.sum(Kind::Float).backward();
    // Of the first two rows alone.
    assert_eq!(values(weight.grad()), [0.0, 2.5]);
}

/// The same bits for one set of rows that all images share, for copies of it, and for weights in whatever state
/// training or loading leaves them.
#[test]
fn shared_rows_are_as_copies_of_them() {
    tch::manual_seed(3);
    let options = (Kind::Float, Device::Cpu);
    let shared = Tensor::randn([10, 32], options).expand([2, 10, 32], false);
    let copied = shared.contiguous();
    let values = Tensor::randn([96 * 32], options);
    let bias = Tensor::randn([32], options);
    let whole = || values.copy().view([96, 32]);
    for (state, weight) in [
        ("a view", whole()),
        ("a view that learns", whole().set_requires_grad(true)),
        ("its own", whole().copy()),
        ("its own, and learns", whole().copy().set_requires_grad(true)),
    ] {
        // As attention takes the values' part of its projections.
        let run = |x: &Tensor| {
            let part = weight.narrow(0, 64, 32);
            linear(x, &part, Some(&bias), Epilogue::None).unwrap()
        };
        let expected = torch_ext::no_grad(|| run(&copied));
        assert_eq!(torch_ext::no_grad(|| run(&shared)), expected, "{state}");
        assert_eq!(run(&shared).detach(), expected, "{state}, with gradients");
    }
}

#[test]
fn rows_that_are_not_those_of_x_are_refused() {
    let options = (Kind::Float, Device::Cpu);
    let (x, weight) = (Tensor::zeros([2, 3, 4], options), Tensor::zeros([5, 4], options));
    let bools = |shape: &[i64]| Tensor::zeros(shape, (Kind::Bool, Device::Cpu));
    let error = |zero: &Tensor| {
        linear(&x, &weight, None, Epilogue::ZeroRows(zero)).unwrap_err().to_string()
    };
    assert!(
        error(&bools(&[3, 2])).contains("epilogue: expected […] Bool, the rows of x [2, 3, 4]")
    );
    assert!(error(&bools(&[2, 3]).to_kind(Kind::Float)).contains("Float"));
}
