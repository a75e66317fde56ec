//! The residual sum and the layer norm behind it, as every sublayer of a transformer ends. libtorch's
//! gradient of the norm's weight takes ten times what its bytes would where rows are many.

pub(crate) mod cuda;

use tch::{Kind, Tensor};

use crate::autocast::no_autocast;
use crate::function::custom_function;
use crate::{Error, Result};

const OP: &str = "add_layer_norm";

/// `LayerNorm(x [+ residual])` over the last dimension. Statistics and gradients of weight and bias are
/// f32; the result is of the kind of the sum, whether autocast is on or not.
///
/// On CUDA it is one kernel forward and one backward. They take up to 1024 features, all of one kind or with a
/// residual in 16 bits beside f32. Elsewhere it is [`add_layer_norm_naive`].
///
/// # Shapes
/// `x`, `residual` `[…, D]`, `weight`, `bias` `[D]` → `[…, D]`
///
/// # Errors
/// When shapes or devices disagree.
pub fn add_layer_norm(
    x: &Tensor,
    residual: Option<&Tensor>,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let d = x.size().last().copied().unwrap_or(0);
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.size() != [d] {
            return wrong(name, &[d], tensor);
        }
    }
    if let Some(residual) = residual
        && residual.size() != x.size()
    {
        return wrong("residual", &x.size(), residual);
    }
    for (name, tensor) in [("weight", Some(weight)), ("bias", Some(bias)), ("residual", residual)] {
        if let Some(tensor) = tensor.filter(|tensor| tensor.device() != x.device()) {
            let expected = format!("{:?}, where x is", x.device());
            return Err(Error::argument(OP, name, expected, format!("{:?}", tensor.device())));
        }
    }
    let known = |kind| matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half);
    let other = residual.map_or(x.kind(), Tensor::kind);
    let kernels = other == x.kind() && known(other) || x.kind() == Kind::Float && known(other);
    let f32s = weight.kind() == Kind::Float && bias.kind() == Kind::Float;
    if !(x.device().is_cuda() && kernels && f32s) || x.numel() == 0 || d > 1024 {
        return add_layer_norm_naive(x, residual, weight, bias, eps);
    }
    let x = x.f_contiguous()?;
    let residual = residual.map(Tensor::f_contiguous).transpose()?;
    let cuda::Forward { sum, output, statistics } =
        crate::no_grad(|| cuda::forward(&x, residual.as_ref(), weight, bias, eps))?;
    let inputs: Vec<&Tensor> =
        [Some(&x), residual.as_ref(), Some(weight), Some(bias)].into_iter().flatten().collect();
    let added = residual.is_some();
    custom_function(
        OP,
        &inputs,
        &[&sum, weight, &statistics],
        || Ok(output),
        move |args| {
            let [sum, weight, statistics] = args.saved else {
                unreachable!("add_layer_norm saves three tensors");
            };
            let columns = args.needs.iter().rev().take(2).any(|&needed| needed);
            let cuda::Gradients { sum, residual, columns } =
                cuda::backward(args.grad, sum, weight, statistics, other, columns)?;
            let [weight, bias] = columns.map_or([None, None], |[w, b]| [Some(w), Some(b)]);
            let mut grads = vec![Some(sum.shallow_clone())];
            if added {
                grads.push(Some(residual.unwrap_or(sum)));
            }
            grads.extend([weight, bias]);
            Ok(grads)
        },
    )
}

/// [`add_layer_norm`] from libtorch's own operations.
///
/// # Shapes
/// `x`, `residual` `[…, D]`, `weight`, `bias` `[D]` → `[…, D]`
///
/// # Errors
/// What libtorch refuses.
pub fn add_layer_norm_naive(
    x: &Tensor,
    residual: Option<&Tensor>,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let sum = match residual {
        Some(residual) => x.f_add(residual)?,
        None => x.shallow_clone(),
    };
    let [w, b] = [weight.f_to_kind(sum.kind())?, bias.f_to_kind(sum.kind())?];
    no_autocast(x.device(), || {
        Ok(sum.f_layer_norm(weight.size(), Some(&w), Some(&b), eps, true)?)
    })
}

fn wrong<T>(argument: &'static str, expected: &[i64], got: &Tensor) -> Result<T> {
    Err(Error::argument(OP, argument, format!("{expected:?}"), format!("{:?}", got.size())))
}
