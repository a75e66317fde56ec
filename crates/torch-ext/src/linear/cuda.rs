//! The CUDA kernel: f32, bf16 and f16 gradients, sums in f32, added up in no fixed order.

use tch::{Kind, Tensor};

use super::{Mode, OP};
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, BLOCK, aligned, launch, widest_vector};
use crate::cuda::zeros::zeros;
use crate::{Error, Result};

/// Blocks that keep a large GPU busy.
const BLOCKS: i64 = 1024;
/// Rows that a block reads at a time.
const ROWS: i64 = 8;

/// The kernels for results of a kind and a number of columns.
///
/// # Errors
/// For a kind that there are no kernels for.
pub(crate) fn program(kind: Kind, columns: i64, mode: Mode) -> Result<Program> {
    Ok(Program {
        name: OP,
        source: with_values!("kernels.cu"),
        defines: vec![
            ("KIND", kind_number(kind)?),
            ("VEC", widest_vector(kind, columns)),
            ("MODE", mode as i64),
        ],
    })
}

/// Sets the rows of `output` `[N, C]`, contiguous, to zero where `rows` (N of them) is true.
pub(super) fn zero_rows(output: &Tensor, rows: &Tensor) -> Result<()> {
    let columns = output.size()[1];
    let chunks = output.numel() as i64 / widest_vector(output.kind(), columns);
    let width = columns / widest_vector(output.kind(), columns);
    let mut args = Args::default().tensor(output).tensor(rows).int(chunks)?.int(width)?;
    let program = program(output.kind(), columns, Mode::ZeroRows)?;
    // SAFETY: the kernel's parameters in order; `linear` has checked the rows and made the output.
    unsafe { launch(output.device(), &program, "zero_rows", chunks as usize, &mut args) }
}

/// The gradient `[N, C]` of the product with the weight (before ReLU, and before rows became zero), from
/// `grad` `[N, C]`, the gradient of the result: zero where ReLU gave zero, or in the rows that became zero.
/// With `sums`, the sums of its columns `[C]`, too: the gradient of the bias. `by` is what ReLU gave, or
/// which rows became zero.
pub(super) fn backward(
    grad: &Tensor,
    mode: Mode,
    by: Option<&Tensor>,
    sums: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let grad = aligned(grad)?;
    let &[rows, columns] = grad.size().as_slice() else {
        return Err(Error::argument(OP, "grad", "[N, C]", format!("{:?}", grad.size())));
    };
    let device = grad.device();
    let passed = by.map(|_| grad.f_empty_like()).transpose()?;
    let sums = sums.then(|| zeros(&[columns], Kind::Float, device)).transpose()?;
    if passed.is_some() || sums.is_some() {
        let program = program(grad.kind(), columns, mode)?;
        let width = columns / widest_vector(grad.kind(), columns);
        let strips = (width + 31) / 32;
        let of_block = (rows * strips / BLOCKS / ROWS * ROWS).max(2 * ROWS);
        let blocks = strips * ((rows + of_block - 1) / of_block);
        let args = Args::default().tensor(&grad).tensor(by).tensor(passed.as_ref());
        let args = args.tensor(sums.as_ref());
        let mut args = args.int(rows)?.int(width)?.int(of_block)?;
        // SAFETY: the kernel's parameters in order; `by` is what the layer's forward pass saved, of
        // the shape of `grad` or of its rows.
        unsafe { launch(device, &program, "column_sums", blocks as usize * BLOCK, &mut args)? };
    }
    Ok((passed.unwrap_or(grad), sums))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for mode in [Mode::Plain, Mode::Relu, Mode::ZeroRows] {
                all_compile([1, 36, 256].map(|columns| program(kind, columns, mode).unwrap()));
            }
        }
    }
}
