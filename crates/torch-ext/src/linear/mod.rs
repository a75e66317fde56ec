//! A linear layer with a shorter backward pass. In libtorch it is four passes over the gradient. The kernel
//! that sums a bias's gradient reaches a fifth of the memory's speed if there are many rows (an encoder's
//! tokens). What follows the layer (ReLU, or padding that becomes zero) and its gradient are passes of their
//! own.

pub(crate) mod cuda;

use tch::{Kind, Tensor};

use crate::autocast::{autocast_kind, converted, no_autocast};
use crate::cuda::cublas_lt::relu_product;
use crate::function::custom_function;
use crate::{Error, Result};

const OP: &str = "linear";

/// What follows the product and its bias.
#[derive(Debug, Clone, Copy)]
pub enum Epilogue<'a> {
    /// Nothing: the result is `x Wᵀ + b`.
    None,
    /// ReLU: the result is `max(x Wᵀ + b, 0)`.
    Relu,
    /// Rows become zero where this is true, `[…]` bool, one for each row of `x`: padding.
    ZeroRows(&'a Tensor),
}

impl Epilogue<'_> {
    /// As the kernels number them.
    fn mode(self) -> Mode {
        match self {
            Self::None => Mode::Plain,
            Self::Relu => Mode::Relu,
            Self::ZeroRows(_) => Mode::ZeroRows,
        }
    }
}

/// An [`Epilogue`] without its tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain = 0,
    Relu = 1,
    ZeroRows = 2,
}

/// `x Wᵀ + b`, and what follows. Under autocast it computes in autocast's kind, and the gradients of
/// an f32 weight and bias are f32.
///
/// On CUDA the bias is the matrix product's epilogue, and ReLU too in 16 bits. In the backward pass, one kernel
/// does bias and epilogue. Elsewhere it is [`linear_naive`].
///
/// # Shapes
/// `x` `[…, in]`, `weight` `[out, in]`, `bias` `[out]` → `[…, out]`
///
/// # Errors
/// When shapes or devices disagree.
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epilogue: Epilogue<'_>,
) -> Result<Tensor> {
    check_rows(x, epilogue)?;
    let device = x.device();
    let kind = autocast_kind(device).unwrap_or(x.kind());
    let kernels = matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half);
    let (true, true, Some(bias)) = (device.is_cuda(), kernels, bias) else {
        return linear_naive(x, weight, bias, epilogue);
    };
    let [out, input] = sizes(x, weight, bias)?;
    let mut shape = x.size();
    shape.pop();
    shape.push(out);
    // The conversion and the flattening are libtorch's to differentiate.
    let rows = x.f_to_kind(kind)?.f_reshape([-1, input])?.f_contiguous()?;
    if rows.numel() == 0 {
        return linear_naive(x, weight, Some(bias), epilogue);
    }
    let (w, output) = crate::no_grad(|| -> Result<_> {
        let (w, b) = (converted(weight, kind)?, converted(bias, kind)?);
        let output = no_autocast(device, || match epilogue {
            Epilogue::Relu => relu(&rows, &w, &b),
            Epilogue::None | Epilogue::ZeroRows(_) => Ok(b.f_addmm(&rows, &w.f_tr()?)?),
        })?;
        Ok((w, output))
    })?;
    let mut saved = vec![rows.detach(), w];
    match epilogue {
        Epilogue::None => {}
        // ReLU's gradient is where the result is positive.
        Epilogue::Relu => saved.push(output.detach()),
        Epilogue::ZeroRows(zero) => {
            let zero = zero.f_contiguous()?;
            cuda::zero_rows(&output, &zero)?;
            saved.push(zero);
        }
    }
    let saved: Vec<&Tensor> = saved.iter().collect();
    let (kinds, mode) = ([weight.kind(), bias.kind()], epilogue.mode());
    let output = custom_function(
        OP,
        &[&rows, weight, bias],
        &saved,
        || Ok(output),
        move |args| {
            let (x, w) = (&args.saved[0], &args.saved[1]);
            let (grad, bias) = cuda::backward(args.grad, mode, args.saved.get(2), args.needs[2])?;
            let grad_x = args.needs[0].then(|| grad.f_mm(w)).transpose()?;
            let grad_weight = args.needs[1].then(|| product(&grad.f_tr()?, x, kinds[0]));
            let bias = bias.map(|bias| bias.f_to_kind(kinds[1])).transpose()?;
            Ok(vec![grad_x, grad_weight.transpose()?, bias])
        },
    )?;
    Ok(output.f_view(shape.as_slice())?)
}

/// Checks the rows that become zero.
fn check_rows(x: &Tensor, epilogue: Epilogue<'_>) -> Result<()> {
    if let Epilogue::ZeroRows(rows) = epilogue
        && (Some(rows.size().as_slice()) != x.size().split_last().map(|(_, rows)| rows)
            || rows.kind() != Kind::Bool
            || rows.device() != x.device())
    {
        let got = format!("{:?} {:?} on {:?}", rows.size(), rows.kind(), rows.device());
        let expected = format!("[…] Bool, the rows of x {:?} on {:?}", x.size(), x.device());
        return Err(Error::argument(OP, "epilogue", expected, got));
    }
    Ok(())
}

/// Checks the other arguments. Returns the numbers of outputs and inputs.
fn sizes(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<[i64; 2]> {
    let (&[out, input], true) = (weight.size().as_slice(), x.dim() > 0) else {
        return wrong("weight", "[out, in], and x […, in]".into(), weight);
    };
    if x.size().last() != Some(&input) {
        return wrong("x", format!("[…, {input}]"), x);
    }
    if bias.size() != [out] {
        return wrong("bias", format!("[{out}]"), bias);
    }
    Ok([out, input])
}

/// `relu(x Wᵀ + b)`. In 16 bits ReLU is the product's epilogue, and a NaN may come out as zero. (libtorch's
/// `_addmm_activation` leaves the bias to a pass of its own, and failed this operation's test.)
fn relu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if x.kind() != Kind::Float
        && let Some(y) = relu_product(x, weight, bias, None)?
    {
        return Ok(y);
    }
    Ok(bias.f_addmm(x, &weight.f_tr()?)?.f_relu_()?)
}

/// A product of two matrices, in f32 from 16 bits where that is the kind wanted.
pub(crate) fn product(a: &Tensor, b: &Tensor, kind: Kind) -> Result<Tensor> {
    Ok(match (a.kind(), kind) {
        (Kind::BFloat16 | Kind::Half, Kind::Float) => a.f_mm_dtype(b, kind)?,
        _ => a.f_mm(b)?.f_to_kind(kind)?,
    })
}

/// [`linear`] from libtorch's own operations.
///
/// # Shapes
/// `x` `[…, in]`, `weight` `[out, in]`, `bias` `[out]`, rows that become zero `[…]` → `[…, out]`
///
/// # Errors
/// What libtorch refuses.
pub fn linear_naive(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epilogue: Epilogue<'_>,
) -> Result<Tensor> {
    // Of rows that are not next to each other (one set of rows for all images of a batch) libtorch makes one
    // product or one an image, by whether the weight requires a gradient. Those round apart.
    let y = x.f_contiguous()?.f_linear(weight, bias)?;
    Ok(match epilogue {
        Epilogue::None => y,
        Epilogue::Relu => y.f_relu()?,
        Epilogue::ZeroRows(rows) => y.f_masked_fill(&rows.f_unsqueeze(-1)?, 0.0)?,
    })
}

fn wrong<T>(argument: &'static str, expected: String, got: &Tensor) -> Result<T> {
    Err(Error::argument(OP, argument, expected, format!("{:?}", got.size())))
}
