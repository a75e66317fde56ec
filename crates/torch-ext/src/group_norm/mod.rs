//! Group normalisation (Wu and He, arXiv 1803.08494) whose statistics are those of the image alone: padding and
//! the other images of the batch change nothing. In libtorch's, padding counts.

mod cpu;
pub(crate) mod cuda;
mod sums;

use tch::{Device, Kind, Tensor};

use crate::autocast::no_autocast;
use crate::function::custom_function;
use crate::real::Real;
use crate::{Error, Result};

const OP: &str = "group_norm";

/// `(x - mean) / sqrt(variance + eps) · weight + bias`, with mean and (biased) variance over the pixels of an
/// image and the channels of a group, which are neighbours. Where `padding` is true, a pixel is not part of
/// the image: it counts in no statistic, and its result and its gradient are zero. Without `padding` every
/// pixel counts. An image of padding alone becomes zeros.
///
/// Statistics are f64 for f64 and f32 for other kinds; the result is of the kind of `x`, whether
/// autocast is on or not.
///
/// On CUDA there are kernels for f32, bf16 and f16. Their result has channels last in memory, and so should
/// `x`: it is copied otherwise. On the CPU there are kernels for f32 and f64; other kinds are computed in
/// f32. There, the result of an image has the same bits whatever the padding, the batch and the threads, and
/// its gradient whatever the batch and the threads. Elsewhere it is [`group_norm_naive`].
///
/// # Shapes
/// - `x` `[B, C, H, W]`, of a floating kind
/// - `weight`, `bias` `[C]`, f32 (f64 where `x` is)
/// - `padding` `[B, H, W]`, bool
/// - returns `[B, C, H, W]`
///
/// # Errors
/// When shapes, kinds or devices disagree, and when `groups` does not divide C.
pub fn group_norm(
    x: &Tensor,
    groups: i64,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    padding: Option<&Tensor>,
) -> Result<Tensor> {
    let (kind, device) = (x.kind(), x.device());
    let wide = check(x, groups, weight, bias, padding)?;
    let kernels = match device {
        Device::Cpu => true,
        Device::Cuda(_) => kind != Kind::Double,
        _ => false,
    };
    if !kernels || x.numel() == 0 {
        return group_norm_naive(x, groups, weight, bias, eps, padding);
    }
    let padding = padding.map(Tensor::f_contiguous).transpose()?;
    if device.is_cuda() {
        return on_cuda(x, groups, weight, bias, eps, padding);
    }
    // The conversion lies outside the function, where libtorch differentiates it.
    let x = x.f_to_kind(wide)?.f_contiguous()?;
    let output = match wide {
        Kind::Double => on_cpu::<f64>(&x, groups, weight, bias, eps, padding.as_ref()),
        _ => on_cpu::<f32>(&x, groups, weight, bias, eps, padding.as_ref()),
    }?;
    Ok(output.f_to_kind(kind)?)
}

fn on_cpu<T: Real>(
    x: &Tensor,
    groups: i64,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    padding: Option<&Tensor>,
) -> Result<Tensor> {
    let shape = cpu::Shape::<T>::new(x, groups, padding);
    let cpu::Forward { output, statistics } =
        crate::no_grad(|| cpu::forward::<T>(&shape, x, weight, bias, eps))?;
    custom_function(
        OP,
        &[x, weight, bias],
        &[x, weight, &statistics],
        || Ok(output),
        move |args| {
            let [x, weight, statistics] = args.saved else {
                unreachable!("group_norm saves three tensors on the CPU");
            };
            let &[of_x, of_weight, of_bias] = args.needs else {
                unreachable!("group_norm has three inputs");
            };
            let cpu::Backward { x, weight, bias } =
                cpu::backward::<T>(&shape, args.grad, x, weight, statistics, of_x)?;
            Ok(vec![x, of_weight.then_some(weight), of_bias.then_some(bias)])
        },
    )
}

fn on_cuda(
    x: &Tensor,
    groups: i64,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    padding: Option<Tensor>,
) -> Result<Tensor> {
    let x = cuda::channels_last(x)?;
    let cuda::Forward { output, image } = crate::no_grad(|| {
        let padding = padding.as_ref();
        cuda::forward(&x, cuda::Norm { groups, weight, eps, padding }, bias)
    })?;
    let mut saved = vec![&x, weight, &image.sums];
    saved.extend(&image.pixels);
    saved.extend(&padding);
    custom_function(
        OP,
        &[&x, weight, bias],
        &saved,
        || Ok(output),
        move |args| {
            let [x, weight, sums, rest @ ..] = args.saved else {
                unreachable!("group_norm saves three or five tensors on CUDA");
            };
            let &[of_x, of_weight, of_bias] = args.needs else {
                unreachable!("group_norm has three inputs");
            };
            let image = cuda::Image {
                sums: sums.shallow_clone(),
                pixels: rest.first().map(Tensor::shallow_clone),
            };
            let norm = cuda::Norm { groups, weight, eps, padding: rest.get(1) };
            let cuda::Backward { x, weight, bias } =
                cuda::backward(args.grad, x, norm, &image, of_x)?;
            Ok(vec![x, of_weight.then_some(weight), of_bias.then_some(bias)])
        },
    )
}

/// [`group_norm`] from libtorch's own operations.
///
/// # Shapes
/// `x` `[B, C, H, W]`, `weight`, `bias` `[C]`, `padding` `[B, H, W]` → `[B, C, H, W]`
///
/// # Errors
/// As [`group_norm`], and what libtorch refuses.
pub fn group_norm_naive(
    x: &Tensor,
    groups: i64,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    padding: Option<&Tensor>,
) -> Result<Tensor> {
    let wide = check(x, groups, weight, bias, padding)?;
    let &[b, c, h, w] = x.size().as_slice() else {
        unreachable!("checked: x has four dimensions");
    };
    let padding = match padding {
        Some(padding) => padding.f_unsqueeze(1)?, // [B, 1, H, W]
        None => Tensor::f_zeros([b, 1, h, w], (Kind::Bool, x.device()))?,
    };
    no_autocast(x.device(), || {
        let counts = padding.f_logical_not()?.f_to_kind(wide)?; // [B, 1, H, W]
        let over = Some([2i64, 3, 4].as_slice());
        let grouped = |x: &Tensor| x.f_view([b, groups, c / groups, h, w]);
        let number = counts.f_sum_dim_intlist([1i64, 2, 3].as_slice(), true, wide)?;
        // At least one, for images of padding alone.
        let number = (number * (c / groups)).f_clamp_min(1.0)?.f_unsqueeze(-1)?; // [B, 1, 1, 1, 1]
        let values = x.f_to_kind(wide)?.f_contiguous()?.f_masked_fill(&padding, 0.0)?;
        let values = grouped(&values)?;
        let mean = values.f_sum_dim_intlist(over, true, wide)?.f_div(&number)?;
        let deviation = values.f_sub(&mean)?.f_mul(&counts.f_unsqueeze(1)?)?;
        let variance = deviation.f_square()?.f_sum_dim_intlist(over, true, wide)?.f_div(&number)?;
        let normed = deviation.f_mul(&variance.f_add_scalar(eps)?.f_rsqrt()?)?;
        let [weight, bias] = [weight, bias].map(|t| t.f_view([-1, 1, 1]));
        let output = normed.f_view([b, c, h, w])?.f_mul(&weight?)?.f_add(&bias?)?;
        Ok(output.f_masked_fill(&padding, 0.0)?.f_to_kind(x.kind())?)
    })
}

/// Returns the kind of the statistics.
fn check(
    x: &Tensor,
    groups: i64,
    weight: &Tensor,
    bias: &Tensor,
    padding: Option<&Tensor>,
) -> Result<Kind> {
    let wrong =
        |argument, expected: String, got: String| Err(Error::argument(OP, argument, expected, got));
    let shown = |t: &Tensor| format!("{:?} {:?} on {:?}", t.size(), t.kind(), t.device());
    let &[b, c, h, w] = x.size().as_slice() else {
        return wrong("x", "[B, C, H, W]".into(), shown(x));
    };
    let wide = match x.kind() {
        Kind::Double => Kind::Double,
        Kind::Float | Kind::Half | Kind::BFloat16 => Kind::Float,
        _ => return wrong("x", "a floating kind".into(), shown(x)),
    };
    if groups < 1 || c % groups != 0 {
        return wrong("groups", format!("a divisor of {c} channels"), groups.to_string());
    }
    let device = x.device();
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.size() != [c] || tensor.kind() != wide || tensor.device() != device {
            return wrong(name, format!("[{c}] {wide:?} on {device:?}"), shown(tensor));
        }
    }
    if let Some(padding) = padding
        && (padding.size() != [b, h, w]
            || padding.kind() != Kind::Bool
            || padding.device() != device)
    {
        return wrong("padding", format!("[{b}, {h}, {w}] Bool on {device:?}"), shown(padding));
    }
    Ok(wide)
}
