//! A linear layer whose backward pass is not four passes over its gradient. libtorch sums a bias's
//! gradient over the rows with a kernel that reaches a fifth of the memory's speed where rows are
//! many (an encoder's tokens), and ReLU and its gradient are passes of their own.

pub(crate) mod cuda;

use tch::{Kind, Tensor};

use crate::autocast::{autocast_kind, no_autocast};
use crate::function::custom_function;
use crate::{Error, Result};

const OP: &str = "linear";

/// `x Wᵀ + b`, then ReLU if asked for. Under autocast it computes in autocast's kind, and the
/// gradients of an f32 weight and bias are f32.
///
/// On CUDA the bias is the matrix product's epilogue, and with ReLU one kernel of the backward pass;
/// elsewhere [`linear_naive`].
///
/// # Shapes
/// `x` `[…, in]`, `weight` `[out, in]`, `bias` `[out]` → `[…, out]`
///
/// # Errors
/// When shapes or devices disagree.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor> {
    let device = x.device();
    let kind = autocast_kind(device).unwrap_or(x.kind());
    let kernels = matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half);
    let (true, true, Some(bias)) = (device.is_cuda(), kernels, bias) else {
        return linear_naive(x, weight, bias, relu);
    };
    let (&[out, input], true) = (weight.size().as_slice(), x.dim() > 0) else {
        return wrong("weight", "[out, in], and x […, in]".into(), weight);
    };
    if x.size().last() != Some(&input) {
        return wrong("x", format!("[…, {input}]"), x);
    }
    if bias.size() != [out] {
        return wrong("bias", format!("[{out}]"), bias);
    }
    let mut shape = x.size();
    shape.pop();
    shape.push(out);
    // The conversion and the flattening are libtorch's to differentiate.
    let rows = x.f_to_kind(kind)?.f_reshape([-1, input])?.f_contiguous()?;
    if rows.numel() == 0 {
        return linear_naive(x, weight, Some(bias), relu);
    }
    let (w, output) = tch::no_grad(|| -> Result<_> {
        let (w, b) = (weight.f_to_kind(kind)?, bias.f_to_kind(kind)?);
        let output = no_autocast(device, || match relu {
            true => b.f_addmm(&rows, &w.f_tr()?)?.f_relu_(),
            false => b.f_addmm(&rows, &w.f_tr()?),
        })?;
        Ok((w, output))
    })?;
    let mut saved = vec![rows.detach(), w];
    if relu {
        // ReLU's gradient is where the result is positive.
        saved.push(output.detach());
    }
    let saved: Vec<&Tensor> = saved.iter().collect();
    let kinds = [weight.kind(), bias.kind()];
    let output = custom_function(
        OP,
        &[&rows, weight, bias],
        &saved,
        || Ok(output),
        move |args| {
            let (x, w) = (&args.saved[0], &args.saved[1]);
            let (grad, bias) = cuda::backward(args.grad, args.saved.get(2), args.needs[2])?;
            let grad_x = args.needs[0].then(|| grad.f_mm(w)).transpose()?;
            let grad_weight = args.needs[1].then(|| product(&grad.f_tr()?, x, kinds[0]));
            let bias = bias.map(|bias| bias.f_to_kind(kinds[1])).transpose()?;
            Ok(vec![grad_x, grad_weight.transpose()?, bias])
        },
    )?;
    Ok(output.f_view(shape.as_slice())?)
}

/// A product of two matrices, in f32 from 16 bits where that is the kind wanted.
fn product(a: &Tensor, b: &Tensor, kind: Kind) -> Result<Tensor> {
    Ok(match (a.kind(), kind) {
        (Kind::BFloat16 | Kind::Half, Kind::Float) => a.f_mm_dtype(b, kind)?,
        _ => a.f_mm(b)?.f_to_kind(kind)?,
    })
}

/// The same from libtorch's own operations.
///
/// # Errors
/// What libtorch refuses.
pub fn linear_naive(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let y = x.f_linear(weight, bias)?;
    Ok(if relu { y.f_relu()? } else { y })
}

fn wrong<T>(argument: &'static str, expected: String, got: &Tensor) -> Result<T> {
    Err(Error::argument(OP, argument, expected, format!("{:?}", got.size())))
}
