//! What follows a convolution in a residual network with frozen norms: a scale and a shift of each
//! channel, the shortcut added, ReLU. As one pass over the map instead of up to four.

pub(crate) mod cuda;

use tch::{Kind, Tensor};

use crate::function::custom_function;
use crate::{Error, Result};

const OP: &str = "channel_affine";

/// `x · scale + shift [+ residual]`, then ReLU if asked for. Arithmetic is in f32; `scale` and
/// `shift` are constants without gradients.
///
/// On CUDA one kernel, for maps with channels last in memory (others are copied first); elsewhere
/// [`channel_affine_naive`].
///
/// # Shapes
/// - `x`, `residual`: `[B, C, H, W]`, of one kind
/// - `scale`, `shift`: `[C]`, f32
/// - returns `[B, C, H, W]` in the kind of `x`
///
/// # Errors
/// When shapes, kinds or devices disagree.
pub fn channel_affine(
    x: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    check(x, scale, shift, residual)?;
    let kernels = matches!(x.kind(), Kind::Float | Kind::BFloat16 | Kind::Half);
    if !(x.device().is_cuda() && kernels) || x.numel() == 0 {
        return channel_affine_naive(x, scale, shift, residual, relu);
    }
    let channels_last = |x: &Tensor| -> Result<Tensor> {
        Ok(x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
    };
    let x = channels_last(x)?;
    let residual = residual.map(channels_last).transpose()?;
    let (scale, shift) = (scale.f_contiguous()?, shift.f_contiguous()?);
    let inputs: Vec<&Tensor> = [Some(&x), residual.as_ref()].into_iter().flatten().collect();
    let output = tch::no_grad(|| cuda::forward(&x, &scale, &shift, residual.as_ref(), relu))?;
    custom_function(
        OP,
        &inputs,
        // ReLU's gradient is where the result is positive.
        &[&output.detach(), &scale],
        || Ok(output),
        move |args| {
            let grad = channels_last(args.grad)?;
            let [output, scale] = args.saved else {
                unreachable!("channel_affine saves two tensors");
            };
            let needs = [args.needs[0], args.needs.get(1).copied().unwrap_or(false)];
            let grads = cuda::backward(&grad, output, scale, needs, relu)?;
            Ok(grads.into_iter().take(args.needs.len()).collect())
        },
    )
}

/// The same from libtorch's own operations.
///
/// # Errors
/// What libtorch refuses.
pub fn channel_affine_naive(
    x: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let channels = |v: &Tensor| v.f_view([1, -1, 1, 1]);
    let wide = match x.kind() {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    };
    let mut y = x.f_to_kind(wide)?.f_mul(&channels(scale)?)?.f_add(&channels(shift)?)?;
    if let Some(residual) = residual {
        y = y.f_add(residual)?;
    }
    if relu {
        y = y.f_relu()?;
    }
    Ok(y.f_to_kind(x.kind())?)
}

fn check(x: &Tensor, scale: &Tensor, shift: &Tensor, residual: Option<&Tensor>) -> Result<()> {
    let wrong =
        |argument, expected: String, got: String| Err(Error::argument(OP, argument, expected, got));
    let &[_, c, _, _] = x.size().as_slice() else {
        return wrong("x", "[B, C, H, W]".into(), format!("{:?}", x.size()));
    };
    for (name, tensor) in [("scale", scale), ("shift", shift)] {
        if tensor.size() != [c] || tensor.device() != x.device() || tensor.kind() != Kind::Float {
            let got = format!("{:?} {:?} on {:?}", tensor.size(), tensor.kind(), tensor.device());
            return wrong(name, format!("[{c}] Float on {:?}", x.device()), got);
        }
    }
    if let Some(r) = residual
        && (r.size() != x.size() || r.kind() != x.kind() || r.device() != x.device())
    {
        let describe = |t: &Tensor| format!("{:?} {:?} on {:?}", t.size(), t.kind(), t.device());
        return wrong("residual", describe(x), describe(r));
    }
    Ok(())
}
