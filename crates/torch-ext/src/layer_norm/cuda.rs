//! The CUDA kernels: f32, bf16 and f16 maps, arithmetic in f32. The gradients of weight and bias are
//! added up in no fixed order.

use tch::{Kind, Tensor};

use super::OP;
use crate::Result;
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, BLOCK, aligned, launch, widest_vector};
use crate::cuda::zeros::zeros;

/// Blocks that keep a large GPU busy.
const BLOCKS: i64 = 1024;
/// Rows that a block works on at a time.
const ROWS: i64 = 8;

/// The kernels for maps of a kind and `d` features, to which one of kind `other` is added.
///
/// # Errors
/// For a kind that there are no kernels for.
pub(crate) fn program(kind: Kind, other: Kind, d: i64) -> Result<Program> {
    Ok(Program {
        name: OP,
        source: with_values!("kernels.cu"),
        defines: vec![
            ("KIND", kind_number(kind)?),
            ("OTHER", kind_number(other)?),
            ("D", d),
            ("VEC", widest_vector(kind, d)),
        ],
    })
}

/// Numbers of rows and of features, N and D.
fn sizes(x: &Tensor) -> (i64, i64) {
    let d = x.size().last().copied().unwrap_or(1);
    (x.numel() as i64 / d, d)
}

/// What a forward pass leaves.
pub(super) struct Forward {
    /// `x + residual`, which is normalised.
    pub(super) sum: Tensor,
    /// The normalised sum, with weight and bias.
    pub(super) output: Tensor,
    /// `[N, 2]` f32: mean and 1 / standard deviation of each row.
    pub(super) statistics: Tensor,
}

pub(super) fn forward(
    x: &Tensor,
    residual: Option<&Tensor>,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Forward> {
    let x = aligned(&x.detach())?;
    let residual = residual.map(aligned).transpose()?;
    let (rows, d) = sizes(&x);
    let output = x.f_empty_like()?;
    let sum = if residual.is_some() { x.f_empty_like()? } else { x.shallow_clone() };
    let statistics = Tensor::f_empty([rows, 2], (Kind::Float, x.device()))?;
    let (weight, bias) = (weight.f_contiguous()?, bias.f_contiguous()?);
    let args = Args::default().tensor(&x).tensor(residual.as_ref()).tensor(&weight).tensor(&bias);
    let args = args.tensor(&sum).tensor(&output).tensor(&statistics).float(eps as f32);
    let mut args = args.int(rows)?;
    let threads = rows as usize * 32;
    let other = residual.as_ref().map_or(x.kind(), Tensor::kind);
    let program = program(x.kind(), other, d)?;
    // SAFETY: the kernel's parameters in order; `add_layer_norm` has checked the tensors.
    unsafe { launch(x.device(), &program, "add_layer_norm_forward", threads, &mut args)? };
    Ok(Forward { sum, output, statistics })
}

/// What a backward pass leaves.
pub(super) struct Gradients {
    /// Gradient of `x + residual`.
    pub(super) sum: Tensor,
    /// The same in another kind, where the residual is of another.
    pub(super) residual: Option<Tensor>,
    /// Of weight and bias, if wanted.
    pub(super) columns: Option<[Tensor; 2]>,
}

/// `other`: the kind of the residual.
pub(super) fn backward(
    grad: &Tensor,
    sum: &Tensor,
    weight: &Tensor,
    statistics: &Tensor,
    other: Kind,
    columns: bool,
) -> Result<Gradients> {
    let grad = aligned(grad)?;
    let (rows, d) = sizes(&grad);
    let grad_sum = grad.f_empty_like()?;
    let residual = (other != grad.kind())
        .then(|| Tensor::f_empty(grad.size(), (other, grad.device())))
        .transpose()?;
    let weight = weight.f_contiguous()?;
    let sums = || zeros(&[d], Kind::Float, grad.device());
    let columns = if columns { Some([sums()?, sums()?]) } else { None };
    let [w, b] = columns.as_ref().map_or([None, None], |[w, b]| [Some(w), Some(b)]);
    let of_block = (rows / BLOCKS / ROWS * ROWS).max(2 * ROWS);
    let blocks = (rows + of_block - 1) / of_block;
    let args = Args::default().tensor(&grad).tensor(sum).tensor(&weight).tensor(statistics);
    let args = args.tensor(&grad_sum).tensor(residual.as_ref());
    let mut args = args.tensor(w).tensor(b).int(rows)?.int(of_block)?;
    let (program, threads) = (program(grad.kind(), other, d)?, blocks as usize * BLOCK);
    // SAFETY: the kernel's parameters in order; `grad` is of the shape of `sum`, as the result is.
    unsafe { launch(grad.device(), &program, "add_layer_norm_backward", threads, &mut args)? };
    Ok(Gradients { sum: grad_sum, residual, columns })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            all_compile([1, 36, 256, 1024].map(|d| program(kind, kind, d).unwrap()));
        }
        for other in [Kind::BFloat16, Kind::Half] {
            all_compile([1, 36, 256].map(|d| program(Kind::Float, other, d).unwrap()));
        }
    }
}
