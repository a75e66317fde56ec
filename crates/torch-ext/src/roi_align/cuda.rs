//! RoIAlign on CUDA: f32, bf16 and f16 features, channels last, boxes and sums in f32; all levels in one launch, so
//! that the host need not know which box is of which. The gradient is summed by atomic additions, in no fixed
//! order.

use tch::{Kind, Tensor};

use super::{Geometry, LEVELS, OP};
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, aligned, launch, widest_vector};
use crate::{Error, Result};

/// The kernels for features of a kind with that many channels.
///
/// # Errors
/// For a kind that there are no kernels for.
pub(crate) fn program(kind: Kind, channels: i64) -> Result<Program> {
    Ok(Program {
        name: "roi_align",
        source: with_values!("kernels.cu"),
        defines: vec![("KIND", kind_number(kind)?), ("VECTOR", widest_vector(kind, channels))],
    })
}

/// Where the boxes are, and on which of the maps.
#[derive(Clone, Copy)]
pub(super) struct Boxes<'a> {
    /// `[N, 5]` f32, contiguous.
    pub(super) boxes: &'a Tensor,
    /// `[N]` i64, contiguous; none where there is one map.
    pub(super) levels: Option<&'a Tensor>,
    /// `[B, 2]` f32, contiguous: height and width of the images in image pixels; none: maps end with them.
    pub(super) sizes: Option<&'a Tensor>,
}

impl<'a> Boxes<'a> {
    /// Of these tensors in the fields' order.
    pub(super) fn new(of: &'a [Tensor]) -> Self {
        Self { boxes: &of[0], levels: of.get(1), sizes: of.get(2) }
    }
}

/// One launch over all outputs: a thread for each bin and `VECTOR` channels. `maps` are `[B, H_l, W_l, C]`, what
/// the bins read or add to; `bins` `[N, h, w, C]`.
fn run(
    entry: &'static str,
    geometries: &[Geometry],
    maps: &[Tensor],
    of: Boxes<'_>,
    bins: &Tensor,
) -> Result<()> {
    let Geometry { b, c, n, bins: (down, across), ratio, aligned, .. } = geometries[0];
    let kind = bins.kind();
    let outputs = n * c * down * across / widest_vector(kind, c);
    let mut sizes = vec![0i32; 3 * LEVELS + 1];
    for (level, geometry) in geometries.iter().enumerate() {
        for (place, side) in [geometry.height, geometry.width].into_iter().enumerate() {
            sizes[place * LEVELS + level] = i32::try_from(side).map_err(|_| {
                Error::argument(OP, "features", "sides below 2³¹", side.to_string())
            })?;
        }
        sizes[2 * LEVELS + level] = (geometry.scale as f32).to_bits().cast_signed();
    }
    sizes[3 * LEVELS] = geometries.len() as i32;
    let mut args = Args::default().tensors(maps, LEVELS).ints(&sizes);
    args = args.tensor(of.boxes).tensor(of.levels).tensor(of.sizes).tensor(bins);
    for number in [outputs, b, c, down, across, ratio, i64::from(aligned)] {
        args = args.int(number)?;
    }
    // SAFETY: the kernel's parameters in order; the callers have checked the tensors' sizes.
    unsafe { launch(bins.device(), &program(kind, c)?, entry, outputs as usize, &mut args) }
}

/// `maps` `[B, H_l, W_l, C]`, contiguous; returns `[N, h, w, C]`.
pub(super) fn forward(
    geometries: &[Geometry],
    maps: &[Tensor],
    boxes: Boxes<'_>,
) -> Result<Tensor> {
    let Geometry { c, n, bins, .. } = geometries[0];
    let maps = maps.iter().map(aligned).collect::<Result<Vec<_>>>()?;
    let output = Tensor::f_zeros([n, bins.0, bins.1, c], (maps[0].kind(), maps[0].device()))?;
    if output.numel() > 0 && maps.iter().all(|map| map.numel() > 0) {
        run("roi_align_forward", geometries, &maps, boxes, &output)?;
    }
    Ok(output)
}

/// `grad` `[N, h, w, C]`; returns `[B, H_l, W_l, C]` of each level.
pub(super) fn backward(
    geometries: &[Geometry],
    grad: &Tensor,
    boxes: Boxes<'_>,
) -> Result<Vec<Tensor>> {
    let grad = aligned(grad)?;
    let options = (Kind::Float, grad.device());
    let maps = geometries
        .iter()
        .map(|&Geometry { b, c, height, width, .. }| {
            Ok(Tensor::f_zeros([b, height, width, c], options)?)
        })
        .collect::<Result<Vec<_>>>()?;
    if grad.numel() > 0 && maps.iter().all(|map| map.numel() > 0) {
        run("roi_align_backward", geometries, &maps, boxes, &grad)?;
    }
    maps.iter().map(|map| Ok(map.f_to_kind(grad.kind())?)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        for channels in [256, 12, 7] {
            let kinds = [Kind::Float, Kind::BFloat16, Kind::Half];
            all_compile(kinds.map(|kind| program(kind, channels).unwrap()));
        }
    }
}
