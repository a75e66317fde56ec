//! The CUDA kernels: f32, bf16 and f16 maps, channels last, arithmetic in f32. Sums have a fixed order.

use tch::{Kind, Tensor};

use super::OP;
use crate::Result;
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, aligned, launch, widest_vector};

/// Pixels of a row that a thread has.
const STRIP: i64 = 8;
/// Neighbouring channels of a thread, at most: more would not fit into its registers.
const CHANNELS: i64 = 4;
/// Threads that keep a large GPU busy.
const THREADS: i64 = 1 << 17;

/// The kernels for maps of a kind and so many channels, of convolutions of that side.
///
/// # Errors
/// For a kind that there are no kernels for.
pub(crate) fn program(kind: Kind, channels: i64, side: i64) -> Result<Program> {
    Ok(Program {
        name: OP,
        source: with_values!("kernels.cu"),
        defines: vec![
            ("KIND", kind_number(kind)?),
            ("SIDE", side),
            ("STRIP", STRIP),
            ("VECTOR", vector(kind, channels)),
        ],
    })
}

fn vector(kind: Kind, channels: i64) -> i64 {
    widest_vector(kind, channels).min(CHANNELS)
}

/// `x` `[B, H, W, C]`, `weight` `[side², C]` f32, `bias` `[C]` f32; all contiguous. `flipped`: the kernel is turned by
/// half a turn. Returns `[B, H, W, C]`.
pub(super) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    (side, flipped): (i64, bool),
) -> Result<Tensor> {
    let (x, weight) = (aligned(x)?, aligned(weight)?);
    let (b, h, w, c) = x.size4()?;
    let kind = x.kind();
    let output = x.f_empty_like()?;
    let threads = c / vector(kind, c) * ((w + STRIP - 1) / STRIP) * h * b;
    let mut args = Args::default().tensor(&x).tensor(&weight).tensor(bias).tensor(&output);
    for number in [threads, h, w, c, i64::from(flipped)] {
        args = args.int(number)?;
    }
    let program = program(kind, c, side)?;
    // SAFETY: the kernel's parameters in order; the callers have checked the tensors' sizes.
    unsafe { launch(x.device(), &program, "depthwise_forward", threads as usize, &mut args)? };
    Ok(output)
}

/// Of `x` and the output's gradient, both `[B, H, W, C]`: the gradient of the weight, `[side², C]`, and of the bias,
/// `[1, C]`, f32.
pub(super) fn weight_gradient(x: &Tensor, grad: &Tensor, side: i64) -> Result<(Tensor, Tensor)> {
    let (x, grad) = (aligned(x)?, aligned(grad)?);
    let (b, h, w, c) = x.size4()?;
    let kind = x.kind();
    let of_a_chunk = c / vector(kind, c) * side;
    let wanted = ((THREADS + of_a_chunk - 1) / of_a_chunk).min(b * h);
    let lines = (b * h + wanted - 1) / wanted;
    let chunks = (b * h + lines - 1) / lines;
    let cells = side * side;
    let sums = Tensor::f_empty([chunks, cells + 1, c], (Kind::Float, x.device()))?;
    let threads = of_a_chunk * chunks;
    let mut args = Args::default().tensor(&x).tensor(&grad).tensor(&sums);
    for number in [threads, b, h, w, c, lines] {
        args = args.int(number)?;
    }
    let program = program(kind, c, side)?;
    // SAFETY: as above.
    unsafe { launch(x.device(), &program, "depthwise_weight", threads as usize, &mut args)? };
    let sums = sums.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)?;
    Ok((sums.f_narrow(0, 0, cells)?, sums.f_narrow(0, cells, 1)?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        let kinds = [Kind::Float, Kind::BFloat16, Kind::Half];
        for (channels, side) in [(96, 3), (192, 9), (96, 7), (10, 11), (7, 1)] {
            all_compile(kinds.map(|kind| program(kind, channels, side).unwrap()));
        }
    }
}
