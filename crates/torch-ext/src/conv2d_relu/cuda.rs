//! What cuDNN does not do: maps zero outside their images.

use tch::{Kind, Tensor};

use super::OP;
use crate::Result;
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, launch, widest_vector};

/// The kernel for maps of a kind and `c` channels.
///
/// # Errors
/// For a kind that there is no kernel for.
pub(crate) fn program(kind: Kind, c: i64) -> Result<Program> {
    Ok(Program {
        name: OP,
        source: with_values!("kernels.cu"),
        defines: vec![("KIND", kind_number(kind)?), ("C", c), ("VEC", widest_vector(kind, c))],
    })
}

/// Writes zeros into fresh `maps`, `[B, C, H, W]`, where `outside`, `[B, H, W]` bool, is true.
pub(super) fn zero_outside(maps: &Tensor, outside: &Tensor) -> Result<()> {
    // Of one channel or pixel the layout of the input does not say how the result lies in memory.
    if !maps.f_permute([0, 2, 3, 1])?.is_contiguous() {
        let _ = maps.shallow_clone().f_masked_fill_(&outside.f_unsqueeze(1)?, 0.0)?;
        return Ok(());
    }
    let pixels = outside.numel();
    let outside = outside.f_contiguous()?;
    let mut args = Args::default().tensor(&outside).tensor(maps).int(pixels as i64)?;
    let program = program(maps.kind(), maps.size()[1])?;
    // SAFETY: the kernel's parameters in order; `conv2d_relu` has checked the tensors.
    unsafe { launch(maps.device(), &program, "zero_outside", pixels, &mut args) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            all_compile([1, 36, 64, 2048].map(|c| program(kind, c).unwrap()));
        }
    }
}
