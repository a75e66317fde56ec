//! The CUDA kernels: f32, bf16 and f16 maps with channels last, arithmetic in f32.

use tch::{Kind, Tensor};

use super::OP;
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, launch, widest_vector};
use crate::{Error, Result};

/// The kernels for maps of a kind and a number of channels.
///
/// # Errors
/// For a kind that there are no kernels for.
pub(crate) fn program(kind: Kind, channels: i64, relu: bool) -> Result<Program> {
    Ok(Program {
        name: OP,
        source: with_values!("kernels.cu"),
        defines: vec![
            ("KIND", kind_number(kind)?),
            ("VEC", widest_vector(kind, channels)),
            ("RELU", i64::from(relu)),
        ],
    })
}

/// Chunks of a map, which the kernels count in 32 bits, and those of a pixel.
fn chunks(x: &Tensor) -> Result<(usize, i64)> {
    let channels = x.size()[1];
    let vector = widest_vector(x.kind(), channels);
    let chunks = x.numel() as i64 / vector;
    match i32::try_from(chunks) {
        Ok(chunks) => Ok((chunks as usize, channels / vector)),
        Err(_) => Err(Error::argument(OP, "x", "fewer than 2³¹ chunks", chunks.to_string())),
    }
}

/// All maps have channels last in memory.
pub(super) fn forward(
    x: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    residual: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let output = x.f_empty_like()?;
    let (chunks, width) = chunks(x)?;
    let args = Args::default().tensor(x).tensor(scale).tensor(shift).tensor(residual);
    let mut args = args.tensor(&output).int(chunks as i64)?.int(width)?;
    let program = program(x.kind(), x.size()[1], relu)?;
    // SAFETY: the kernel's parameters in order; `channel_affine` has checked the tensors.
    unsafe { launch(x.device(), &program, "channel_affine_forward", chunks, &mut args)? };
    Ok(output)
}

/// Gradients of `x` and of the residual, where wanted.
pub(super) fn backward(
    grad: &Tensor,
    output: &Tensor,
    scale: &Tensor,
    needs: [bool; 2],
    relu: bool,
) -> Result<[Option<Tensor>; 2]> {
    let made = |needed: bool| match needed {
        true => grad.f_empty_like().map(Some),
        false => Ok(None),
    };
    let [x, residual] = [made(needs[0])?, made(needs[1])?];
    let (chunks, width) = chunks(grad)?;
    let args = Args::default().tensor(grad).tensor(output).tensor(scale);
    let args = args.tensor(x.as_ref()).tensor(residual.as_ref());
    let mut args = args.int(chunks as i64)?.int(width)?;
    let program = program(grad.kind(), grad.size()[1], relu)?;
    // SAFETY: as above.
    unsafe { launch(grad.device(), &program, "channel_affine_backward", chunks, &mut args)? };
    Ok([x, residual])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for relu in [false, true] {
                all_compile([3, 36, 64].map(|channels| program(kind, channels, relu).unwrap()));
            }
        }
    }
}
