//! What residual networks with frozen norms are made of: a convolution, a scale and a shift of its
//! channels, the shortcut added, ReLU. It is one kernel of cuDNN's, which writes each map once. A
//! convolution of one pixel in 16 bits is computed as the product of matrices that it is.

pub(crate) mod cuda;

use tch::{Kind, Tensor};

use crate::autocast::{autocast_kind, no_autocast};
use crate::cuda::cublas_lt::relu_product;
use crate::function::{BackwardArgs, Gradients, custom_function};
use crate::linear::product;
use crate::{Error, Result, ffi};

const OP: &str = "conv2d_relu";

/// A convolution's weight, and what follows the convolution.
#[derive(Debug, Clone, Copy)]
pub struct Conv2dRelu<'a> {
    /// `[out, in, k, k]`, a square kernel.
    pub weight: &'a Tensor,
    /// `[out]`, a constant without a gradient, folded into the weight.
    pub scale: Option<&'a Tensor>,
    /// `[out]`, a constant without a gradient.
    pub shift: &'a Tensor,
    /// `[B, out, H', W']`, as what is returned; added before ReLU.
    pub residual: Option<&'a Tensor>,
    /// `[B, H', W']` bool: where the result is zero, whatever it would be, and nothing is learned.
    pub outside: Option<&'a Tensor>,
    /// Pixels from one window to the next.
    pub stride: i64,
    /// Zeros at each border of `x`.
    pub padding: i64,
}

/// `relu(conv2d(x, weight) [· scale] + shift [+ residual])`, zero `outside`. Under autocast it computes in
/// autocast's kind, and the gradient of an f32 weight is f32.
///
/// On CUDA maps have channels last in memory (others are copied first), and a kernel's ReLU may make a NaN
/// zero, where libtorch's own keeps it; elsewhere [`conv2d_relu_naive`].
///
/// # Shapes
/// `x` `[B, in, H, W]` → `[B, out, H', W']`
///
/// # Errors
/// When shapes, kinds or devices disagree; what cuDNN or cuBLASLt refuses.
pub fn conv2d_relu(x: &Tensor, op: &Conv2dRelu) -> Result<Tensor> {
    let size = check(x, op)?;
    let Conv2dRelu { weight, scale, shift, residual, outside, stride, padding } = *op;
    let device = x.device();
    let kind = autocast_kind(device).unwrap_or(x.kind());
    let kernels = matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half);
    // cuDNN counts in 32 bits.
    let fits = (x.numel() as i64).max(size.iter().product()) <= i64::from(i32::MAX);
    if !(device.is_cuda() && kernels && fits) || x.numel() == 0 || size.contains(&0) {
        return conv2d_relu_naive(x, op);
    }
    // The conversions are libtorch's to differentiate.
    let map = |x: &Tensor| channels_last(&x.f_to_kind(kind)?);
    let (x, residual) = (map(x)?, residual.map(map).transpose()?);
    let weight_kind = weight.kind();
    let scale = scale.map(|scale| scale.f_view([-1, 1, 1, 1])).transpose()?;
    let (folded, output) = crate::no_grad(|| -> Result<_> {
        let folded = match &scale {
            Some(scale) => fold(weight, scale, kind)?,
            None => map(weight)?,
        };
        let bias = shift.f_to_kind(kind)?;
        let output = no_autocast(device, || {
            convolution(&x, &folded, &bias, residual.as_ref(), stride, padding)
        })?;
        if let Some(outside) = outside {
            cuda::zero_outside(&output, outside)?;
        }
        Ok((folded, output))
    })?;
    let mut inputs = vec![&x, weight];
    inputs.extend(&residual);
    let (x_detached, result) = (x.detach(), output.detach());
    let mut saved = vec![&x_detached, &folded, &result];
    saved.extend(&scale);
    custom_function(
        OP,
        &inputs,
        &saved,
        || Ok(output),
        move |args| backward(args, stride, padding, weight_kind),
    )
}

/// `relu(conv2d(x, weight) + bias [+ residual])` by a kernel of cuDNN's or cuBLASLt's.
fn convolution(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    stride: i64,
    padding: i64,
) -> Result<Tensor> {
    if of_a_pixel(weight, padding)
        && let Some(y) = as_product(x, weight, bias, residual, stride)?
    {
        return Ok(y);
    }
    let (bias, stride, padding, dilation) = (Some(bias), [stride; 2], [padding; 2], [1, 1]);
    Ok(match residual {
        Some(residual) => x.f_cudnn_convolution_add_relu(
            weight, residual, 1.0, bias, stride, padding, dilation, 1,
        )?,
        None => x.f_cudnn_convolution_relu(weight, bias, stride, padding, dilation, 1)?,
    })
}

/// Gradients of the input, the weight and, if there is one, the residual.
fn backward(
    args: &BackwardArgs<'_>,
    stride: i64,
    padding: i64,
    weight_kind: Kind,
) -> Result<Gradients> {
    let [x, folded, output, scale @ ..] = args.saved else {
        unreachable!("conv2d_relu saves three or four tensors");
    };
    // ReLU's gradient is where the result is positive: not outside, where it is zero.
    let grad = output.f_threshold_backward(&channels_last(args.grad)?, 0.0)?;
    let needs = [args.needs[0], args.needs[1]];
    let [grad_x, of_folded] = if of_a_pixel(folded, padding) {
        product_backward(&grad, x, folded, stride, weight_kind, needs)?
    } else {
        convolution_backward(&grad, x, folded, stride, padding, needs)?
    };
    let grad_weight = of_folded.map(|grad| -> Result<_> {
        // In the weight's own layout, as gradients are added up in.
        let mut place = Tensor::f_empty(grad.size(), (weight_kind, grad.device()))?;
        Ok(match scale.first() {
            Some(scale) => grad.f_mul_out(&place, scale)?,
            None => {
                place.f_copy_(&grad)?;
                place
            }
        })
    });
    let mut grads = vec![grad_x, grad_weight.transpose()?];
    grads.extend((args.needs.len() > 2).then_some(Some(grad)));
    Ok(grads)
}

/// [`conv2d_relu`] from libtorch's own operations. The shapes are those of [`conv2d_relu`].
///
/// # Errors
/// What libtorch refuses.
pub fn conv2d_relu_naive(x: &Tensor, op: &Conv2dRelu) -> Result<Tensor> {
    let Conv2dRelu { weight, scale, shift, residual, outside, stride, padding } = *op;
    let folded = match scale {
        Some(scale) => weight.f_mul(&scale.f_view([-1, 1, 1, 1])?)?,
        None => weight.shallow_clone(),
    };
    let y = x.f_conv2d(&folded, Some(shift), [stride], [padding], [1], 1)?;
    let y = match residual {
        Some(residual) => y.f_add(residual)?,
        None => y,
    };
    let y = y.f_relu()?;
    Ok(match outside {
        Some(outside) => y.f_masked_fill(&outside.f_unsqueeze(1)?, 0.0)?,
        None => y,
    })
}

/// `weight · scale` in another kind, with channels last: one pass.
fn fold(weight: &Tensor, scale: &Tensor, kind: Kind) -> Result<Tensor> {
    let &[out, input, k, l] = weight.size().as_slice() else {
        unreachable!("checked: a weight has four dimensions");
    };
    let place = Tensor::f_empty([out, k, l, input], (kind, weight.device()))?;
    Ok(weight.f_mul_out(&place.f_permute([0, 3, 1, 2])?, scale)?)
}

fn channels_last(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

/// Whether a convolution looks at single pixels, in 16 bits.
fn of_a_pixel(weight: &Tensor, padding: i64) -> bool {
    weight.size()[2] == 1 && padding == 0 && weight.kind() != Kind::Float
}

/// The pixels of maps with channels last, as rows `[B · H · W, C]`.
fn pixels(maps: &Tensor) -> Result<Tensor> {
    Ok(maps.f_permute([0, 2, 3, 1])?.f_reshape([-1, maps.size()[1]])?)
}

/// Rows as maps `[B, C, H, W]` with channels last.
fn maps(pixels: &Tensor, [b, h, w]: [i64; 3]) -> Result<Tensor> {
    Ok(pixels.f_view([b, h, w, -1])?.f_permute([0, 3, 1, 2])?)
}

/// The pixels that a convolution of that stride looks at.
fn strided(maps: &Tensor, stride: i64) -> Result<Tensor> {
    Ok(maps.f_slice(2, 0, None, stride)?.f_slice(3, 0, None, stride)?)
}

/// The convolution of single pixels; none where cuBLASLt has no kernel for it.
fn as_product(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    stride: i64,
) -> Result<Option<Tensor>> {
    let x = strided(x, stride)?;
    let (b, _, h, w) = x.size4()?;
    let weight = weight.f_flatten(1, 3)?;
    let residual = residual.map(pixels).transpose()?;
    let y = relu_product(&pixels(&x)?, &weight, bias, residual.as_ref())?;
    y.map(|y| maps(&y, [b, h, w])).transpose()
}

/// [`convolution_backward`] of single pixels; the weight's gradient in `kind`.
fn product_backward(
    grad: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    stride: i64,
    kind: Kind,
    needs: [bool; 2],
) -> Result<[Option<Tensor>; 2]> {
    let (b, _, h, w) = grad.size4()?;
    let grad = pixels(grad)?;
    let grad_x = needs[0].then(|| -> Result<_> {
        let looked_at = maps(&grad.f_mm(&weight.f_flatten(1, 3)?)?, [b, h, w])?;
        if stride == 1 {
            return Ok(looked_at);
        }
        let all = x.f_zeros_like()?;
        strided(&all, stride)?.f_copy_(&looked_at)?;
        Ok(all)
    });
    let grad_weight = needs[1].then(|| -> Result<_> {
        let x = pixels(&strided(x, stride)?)?;
        Ok(product(&grad.f_tr()?, &x, kind)?.f_view_as(weight)?)
    });
    Ok([grad_x.transpose()?, grad_weight.transpose()?])
}

/// Gradients of a convolution's input and weight, where needed.
fn convolution_backward(
    grad: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    stride: i64,
    padding: i64,
    needs: [bool; 2],
) -> Result<[Option<Tensor>; 2]> {
    let [mut grad_x, mut grad_weight] = [Tensor::new(), Tensor::new()];
    // SAFETY: live tensors; the two results are assigned to.
    ffi::check(unsafe {
        ffi::ext_convolution_backward(
            grad.as_ptr(),
            x.as_ptr(),
            weight.as_ptr(),
            stride,
            padding,
            needs.as_ptr(),
            grad_x.as_mut_ptr(),
            grad_weight.as_mut_ptr(),
        )
    })?;
    Ok([needs[0].then_some(grad_x), needs[1].then_some(grad_weight)])
}

/// Returns the size of the result.
fn check(x: &Tensor, op: &Conv2dRelu) -> Result<[i64; 4]> {
    let Conv2dRelu { weight, scale, shift, residual, outside, stride, padding } = *op;
    let wrong =
        |argument, expected: String, got: String| Err(Error::argument(OP, argument, expected, got));
    let shape = |t: &Tensor| format!("{:?} on {:?}", t.size(), t.device());
    let &[b, input, h, w] = x.size().as_slice() else {
        return wrong("x", "[B, in, H, W]".into(), shape(x));
    };
    let device = x.device();
    let out = match weight.size().as_slice() {
        &[out, i, k, l] if i == input && k == l && k > 0 && weight.device() == device => out,
        _ => return wrong("weight", format!("[out, {input}, k, k] on {device:?}"), shape(weight)),
    };
    for (name, tensor) in [("scale", scale), ("shift", Some(shift))] {
        let Some(tensor) = tensor else { continue };
        if tensor.size() != [out] || tensor.device() != device {
            return wrong(name, format!("[{out}] on {device:?}"), shape(tensor));
        }
    }
    if stride < 1 || padding < 0 {
        let got = format!("{stride} and {padding}");
        return wrong("stride", "at least 1, and a padding of at least 0".into(), got);
    }
    let k = weight.size()[2];
    let along = |n: i64| (n + 2 * padding - k).div_euclid(stride) + 1;
    let size = [b, out, along(h).max(0), along(w).max(0)];
    if let Some(r) = residual
        && (r.size() != size || r.device() != device)
    {
        return wrong("residual", format!("{size:?} on {device:?}"), shape(r));
    }
    if let Some(o) = outside {
        let of_maps = [size[0], size[2], size[3]];
        if o.size() != of_maps || o.device() != device || o.kind() != Kind::Bool {
            let got = format!("{:?} {}", o.kind(), shape(o));
            return wrong("outside", format!("Bool {of_maps:?} on {device:?}"), got);
        }
    }
    Ok(size)
}
