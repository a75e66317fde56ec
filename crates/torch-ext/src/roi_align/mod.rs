//! RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3), as torchvision and detectron2 compute it:
//! each box is cut into `h·w` bins, each bin is the mean of bilinear reads at regular points.

mod cpu;
pub(crate) mod cuda;

use tch::{Device, Kind, Tensor};

use crate::function::{BackwardArgs, Gradients, custom_function};
use crate::{Error, Result};

const OP: &str = "roi_align";

/// Sizes and settings, checked against each other.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    /// Images, channels, height and width of the features.
    b: i64,
    c: i64,
    height: i64,
    width: i64,
    /// N, boxes of all images together.
    n: i64,
    /// Bins of a box, down and across: (h, w) of the output.
    bins: (i64, i64),
    /// Feature pixels per image pixel.
    scale: f64,
    /// Points of a bin down and across; 0 for as many as it has pixels.
    ratio: i64,
    /// Whether pixel centres lie at half-integers.
    aligned: bool,
}

/// Region features by bilinear reads.
///
/// With `aligned`, a pixel's centre lies at `(i + 0.5, j + 0.5)` (detectron2's ROIAlignV2, the one to use).
/// Without it, boxes are read half a pixel off and are at least one feature pixel large, as in the first
/// Caffe2 version. A box that lies outside reads zeros. With `sampling_ratio` 0 a bin is read at every pixel
/// it covers, so boxes should have been clipped to the image.
///
/// # Shapes
/// - `features`: `[B, C, H, W]`
/// - `boxes`: `[N, 5]`: index of the image, then x0, y0, x1, y1 in image pixels; no gradient
/// - returns `[N, C, h, w]` with `(h, w) = output_size`, in the kind of `features`
///
/// # Errors
/// When shapes, kinds or devices disagree, and on the CPU when a box names an image that is not
/// there (CUDA does not look, to avoid waiting for the device: such a box reads zeros).
pub fn roi_align(
    features: &Tensor,
    boxes: &Tensor,
    output_size: (i64, i64),
    spatial_scale: f64,
    sampling_ratio: i64,
    aligned: bool,
) -> Result<Tensor> {
    let wrong = |argument, expected, got: String| Err(Error::argument(OP, argument, expected, got));
    let &[b, c, height, width] = features.size().as_slice() else {
        return wrong("features", "[B, C, H, W]", format!("{:?}", features.size()));
    };
    let &[n, 5] = boxes.size().as_slice() else {
        return wrong("boxes", "[N, 5]", format!("{:?}", boxes.size()));
    };
    if output_size.0 < 1 || output_size.1 < 1 {
        return wrong("output_size", "positive (h, w)", format!("{output_size:?}"));
    }
    if sampling_ratio < 0 {
        return wrong("sampling_ratio", "0 or more", sampling_ratio.to_string());
    }
    if boxes.device() != features.device() {
        return wrong("boxes", "where features are", format!("{:?}", boxes.device()));
    }
    let kind = features.kind();
    let wide = match kind {
        Kind::Double => Kind::Double,
        Kind::Float | Kind::Half | Kind::BFloat16 => Kind::Float,
        _ => return wrong("features", "a floating kind", format!("{kind:?}")),
    };
    let on_cpu = features.device() == Device::Cpu;
    if !on_cpu && kind == Kind::Double {
        return wrong("features", "f32, bf16 or f16 on CUDA", format!("{kind:?}"));
    }
    // The conversion lies outside the function, where libtorch differentiates it.
    let features = features.f_to_kind(if on_cpu { wide } else { kind })?.f_contiguous()?;
    let boxes = boxes.detach().f_to_kind(wide)?.f_contiguous()?;
    let geometry = Geometry {
        b,
        c,
        height,
        width,
        n,
        bins: output_size,
        scale: spatial_scale,
        ratio: sampling_ratio,
        aligned,
    };
    let output = custom_function(
        OP,
        &[&features],
        &[&boxes],
        || match (on_cpu, wide) {
            (true, Kind::Double) => cpu::forward::<f64>(geometry, &features, &boxes),
            (true, _) => cpu::forward::<f32>(geometry, &features, &boxes),
            (false, _) => cuda::forward(geometry, &features, &boxes),
        },
        move |args| backward(geometry, args),
    )?;
    Ok(output.f_to_kind(kind)?)
}

fn backward(geometry: Geometry, args: &BackwardArgs<'_>) -> Result<Gradients> {
    let boxes = &args.saved[0];
    let grad = args.grad.f_contiguous()?;
    let grad = match (grad.device(), grad.kind()) {
        (Device::Cpu, Kind::Double) => cpu::backward::<f64>(geometry, &grad, boxes)?,
        (Device::Cpu, _) => cpu::backward::<f32>(geometry, &grad, boxes)?,
        _ => cuda::backward(geometry, &grad, boxes)?,
    };
    Ok(vec![Some(grad)])
}
