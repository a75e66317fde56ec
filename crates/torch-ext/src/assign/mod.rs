//! The linear assignment problem on CUDA: a detector's matching is decided where its predictions are. On the
//! host, a step would have to wait for it, and the device would have nothing to do.

use tch::{Kind, Tensor};

use crate::cuda::compile::{Program, with_values};
use crate::cuda::launch::{Args, BLOCK, launch};
use crate::{Error, Result};

const OP: &str = "assign";

/// Columns that a thread of the kernel can remember.
const COLUMNS: i64 = 64 * BLOCK as i64;

pub(crate) fn program() -> Program {
    Program { name: OP, source: with_values!("kernels.cu"), defines: vec![("KIND", 0)] }
}

/// Gives each row a column of its own so that the sum of their costs is least. If several assignments have
/// that sum, the result is the same one every time.
///
/// # Shapes
/// `cost` `[S, B, T, Q]` f32, `counts` `[B]` i64: how many of the T rows of each image are used, at most Q →
/// columns `[S, B, T]` i64, −1 for a row that is not used; and `[S, B]` f32: zero, or NaN if a cost is not
/// finite (the columns then mean nothing)
///
/// # Errors
/// Tensors that are not on one CUDA device, or of other shapes and kinds; more rows than columns; more than
/// 16,384 columns.
pub fn assign(cost: &Tensor, counts: &Tensor) -> Result<(Tensor, Tensor)> {
    let device = cost.device();
    let got = |x: &Tensor| format!("{:?} {:?} on {:?}", x.size(), x.kind(), x.device());
    let (&[s, b, t, q], true, Kind::Float) =
        (cost.size().as_slice(), device.is_cuda(), cost.kind())
    else {
        return Err(Error::argument(OP, "cost", "[S, B, T, Q] Float on CUDA", got(cost)));
    };
    if t > q || q > COLUMNS {
        let expected = format!("[S, B, T, Q] with T at most Q, and Q at most {COLUMNS}");
        return Err(Error::argument(OP, "cost", expected, got(cost)));
    }
    if counts.size() != [b] || counts.kind() != Kind::Int64 || counts.device() != device {
        let expected = format!("[{b}] Int64 on {device:?}");
        return Err(Error::argument(OP, "counts", expected, got(counts)));
    }
    let (cost, counts) = (cost.f_contiguous()?, counts.f_contiguous()?);
    // Beyond T the kernel would write elsewhere, and the host does not look.
    let counts = counts.f_clamp(0, t)?;
    let columns = Tensor::f_empty([s, b, t], (Kind::Int64, device))?;
    let finite = Tensor::f_empty([s, b], (Kind::Float, device))?;
    let problems = s * b;
    let scratch = |kind| Tensor::f_empty([problems, 2 * q + t], (kind, device));
    let (doubles, ints) = (scratch(Kind::Double)?, scratch(Kind::Int)?);
    let args = Args::default().tensor(&cost).tensor(&counts).tensor(&columns).tensor(&finite);
    let mut args = args.tensor(&doubles).tensor(&ints).int(b)?.int(t)?.int(q)?;
    // SAFETY: the kernel's parameters in order; shapes, kinds and devices are checked above, counts are cut
    // off at what there is.
    unsafe { launch(device, &program(), OP, problems as usize * BLOCK, &mut args)? };
    Ok((columns, finite))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;
    use tch::Device;

    #[test]
    fn the_kernel_compiles() {
        all_compile([program()]);
    }

    #[test]
    fn the_host_is_refused() {
        let cost = Tensor::zeros([1, 1, 2, 3], (Kind::Float, Device::Cpu));
        let counts = Tensor::from_slice(&[2i64]);
        let error = assign(&cost, &counts).unwrap_err().to_string();
        assert!(error.contains("cost: expected [S, B, T, Q] Float on CUDA"), "{error}");
    }
}
