//! RoIAlign on CUDA: f32, bf16 and f16 features, boxes and sums in f32. The gradient is summed by
//! atomic additions, in no fixed order.

use tch::{Kind, Tensor};

use super::{Geometry, OP};
use crate::cuda::compile::{Program, kind_number, with_values};
use crate::cuda::launch::{Args, launch};
use crate::{Error, Result};

/// The kernels for features of a kind.
///
/// # Errors
/// For a kind that there are no kernels for.
pub(crate) fn program(kind: Kind) -> Result<Program> {
    Ok(Program {
        name: "roi_align",
        source: with_values!("kernels.cu"),
        defines: vec![("KIND", kind_number(kind)?)],
    })
}

/// Threads of a launch: one an output. The kernels count outputs and the pixels of a map in 32
/// bits.
fn threads(geometry: &Geometry) -> Result<usize> {
    let Geometry { c, height, width, n, bins, .. } = *geometry;
    let outputs = n * c * bins.0 * bins.1;
    if [outputs, height * width].into_iter().any(|size| i32::try_from(size).is_err()) {
        return Err(Error::argument(
            OP,
            "boxes",
            "fewer than 2³¹ outputs and pixels of a map",
            format!("{outputs} and {}", height * width),
        ));
    }
    Ok(outputs as usize)
}

/// What both kernels take last.
fn settings(args: Args, geometry: &Geometry, outputs: usize) -> Result<Args> {
    let Geometry { b, c, height, width, bins, scale, ratio, aligned, .. } = *geometry;
    let mut args = args.int(outputs as i64)?;
    for number in [b, c, height, width, bins.0, bins.1, ratio, i64::from(aligned)] {
        args = args.int(number)?;
    }
    Ok(args.float(scale as f32))
}

/// `features` `[B, C, H, W]`, `boxes` `[N, 5]` in f32, both contiguous.
pub(super) fn forward(geometry: Geometry, features: &Tensor, boxes: &Tensor) -> Result<Tensor> {
    let Geometry { c, n, bins, .. } = geometry;
    let kind = features.kind();
    let output = Tensor::f_zeros([n, c, bins.0, bins.1], (kind, features.device()))?;
    if features.numel() == 0 {
        return Ok(output);
    }
    let threads = threads(&geometry)?;
    let args = Args::default().tensor(features).tensor(boxes).tensor(&output);
    let mut args = settings(args, &geometry, threads)?;
    // SAFETY: the kernel's parameters in order; `roi_align` has checked the tensors' sizes.
    unsafe {
        launch(features.device(), &program(kind)?, "roi_align_forward", threads, &mut args)?;
    }
    Ok(output)
}

/// `grad` `[N, C, h, w]`; returns `[B, C, H, W]`.
pub(super) fn backward(geometry: Geometry, grad: &Tensor, boxes: &Tensor) -> Result<Tensor> {
    let Geometry { b, c, height, width, .. } = geometry;
    let kind = grad.kind();
    let grad_features = Tensor::f_zeros([b, c, height, width], (Kind::Float, grad.device()))?;
    if grad_features.numel() == 0 {
        return Ok(grad_features.f_to_kind(kind)?);
    }
    let threads = threads(&geometry)?;
    let args = Args::default().tensor(grad).tensor(boxes).tensor(&grad_features);
    let mut args = settings(args, &geometry, threads)?;
    // SAFETY: the kernel's parameters in order; `roi_align` has checked the tensors' sizes.
    unsafe {
        launch(grad.device(), &program(kind)?, "roi_align_backward", threads, &mut args)?;
    }
    Ok(grad_features.f_to_kind(kind)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cuda::compile::tests::all_compile;

    #[test]
    fn every_variant_compiles() {
        let kinds = [Kind::Float, Kind::BFloat16, Kind::Half];
        all_compile(kinds.map(|kind| program(kind).unwrap()));
    }
}
