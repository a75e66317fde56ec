//! Non-maximum suppression on CUDA: nothing waits for the device, so that it can be recorded. The results are the
//! CPU's, bit by bit.
//!
//! The floor: a group of m boxes has m² / 2 pairs of some 20 operations each, and m² / 128 words of 8 bytes, which
//! are written and read once. In training, two images have ten groups of at most 2,000 proposals: 0.4 GFLOP and
//! 5 MB, some microseconds. Above it lie the sort by groups, and the decision: 64 boxes wait for the 64 before.

use tch::{Kind, Tensor};

use super::OP;
use crate::cuda::compile::Program;
use crate::cuda::launch::{Args, launch};
use crate::{Error, Result};

/// The kernels for boxes of a kind, f32 or f64.
pub(crate) fn program(kind: Kind) -> Program {
    Program {
        name: OP,
        source: include_str!("kernels.cu"),
        defines: vec![("REAL", i64::from(kind == Kind::Double))],
    }
}

/// The largest number of f32 that is at most `threshold`: an overlap in f32 is above both or neither.
fn lowered(threshold: f64) -> f32 {
    let near = threshold as f32;
    if f64::from(near) > threshold { near.next_down() } else { near }
}

/// `boxes` `[N, 4]`, `groups` `[N]` i64, as [`super::nms`] takes them.
pub(super) fn stays(
    boxes: &Tensor,
    groups: &Tensor,
    threshold: f64,
    largest: i64,
) -> Result<Tensor> {
    let (device, kind) = (boxes.device(), boxes.kind());
    let count = groups.size()[0];
    let stays = Tensor::f_empty([count], (Kind::Bool, device))?;
    if count == 0 {
        return Ok(stays);
    }
    let words = (largest + 63) / 64;
    let threads = count.checked_mul(words).filter(|&threads| i32::try_from(threads).is_ok());
    let Some(threads) = threads else {
        let expected = format!("fewer than 2³¹ / {words} for groups of up to {largest}");
        return Err(Error::argument(OP, "boxes", expected, count.to_string()));
    };
    // In a group the order stays.
    let (groups, rows) = groups.f_sort_stable(true, 0, false)?;
    // New memory, from which whole boxes can be read.
    let boxes = boxes.f_index_select(0, &rows)?;
    let starts = groups.f_searchsorted(&groups, true, false, "left", None::<Tensor>)?;
    let limit = match kind {
        Kind::Double => threshold,
        _ => lowered(threshold).into(),
    };
    let limit = crate::constant(&[limit], &[1], (kind, device));
    let held = Tensor::f_empty([words, count], (Kind::Int64, device))?;
    let kept = Tensor::f_empty([count], (Kind::Int64, device))?;
    let program = program(kind);
    let args = Args::default().tensor(&boxes).tensor(&groups).tensor(&starts).tensor(&limit);
    let mut args = args.tensor(&held).int(count)?.int(words)?.int(largest)?;
    // SAFETY: the kernel's parameters in order; `nms` has checked the tensors' sizes, and the sort's results
    // have them too. A place in a group is below its number, so that no other is read or written.
    unsafe { launch(device, &program, "nms_overlaps", threads as usize, &mut args)? };
    let args = Args::default().tensor(&groups).tensor(&starts).tensor(&held).tensor(&rows);
    let mut args = args.tensor(&kept).tensor(&stays).int(count)?.int(largest)?;
    // SAFETY: as above; the first kernel has written all words that this one reads.
    unsafe { launch(device, &program, "nms_decide", count as usize, &mut args)? };
    Ok(stays)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        all_compile([Kind::Float, Kind::Double].map(program));
    }

    #[test]
    fn a_threshold_in_f32_divides_overlaps_as_its_f64_does() {
        for threshold in [0.0, 0.3, 0.5, 0.7, 0.9, 1.0] {
            let limit = lowered(threshold);
            for overlap in [limit.next_down(), limit, limit.next_up()] {
                assert_eq!(overlap > limit, f64::from(overlap) > threshold, "{overlap}");
            }
        }
    }
}
