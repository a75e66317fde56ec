//! Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, equation 3).
//!
//! Each query, in each head, reads `L·P` points of the feature pyramid by bilinear interpolation
//! and sums them with the attention weights. Three twins compute it: a composition of libtorch's
//! operations to check against, Rust on the CPU and CUDA kernels.

mod around;
mod cpu;
pub(crate) mod cuda;
mod naive;

use tch::{Device, Kind, Tensor};

pub use self::{
    around::{ms_deform_attn_around, ms_deform_attn_around_naive},
    naive::ms_deform_attn_naive,
};
use crate::function::{BackwardArgs, Gradients, custom_function};
use crate::{Error, Result};

const OP: &str = "ms_deform_attn";

/// Sizes of the arguments, checked against each other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shapes {
    /// B, images of the batch.
    pub(crate) b: i64,
    /// S, positions of the pyramid, all levels together.
    pub(crate) s: i64,
    /// M, heads of the attention.
    pub(crate) m: i64,
    /// D, features of a head.
    pub(crate) d: i64,
    /// Q, queries of an image.
    pub(crate) q: i64,
    /// L, levels of the pyramid.
    pub(crate) l: i64,
    /// P, points of a query, in a head and on a level.
    pub(crate) p: i64,
}

impl Shapes {
    fn check(
        value: &Tensor,
        spatial_shapes: &[(i64, i64)],
        locations: &Tensor,
        weights: &Tensor,
    ) -> Result<Self> {
        let wrong = |argument, expected: &str, tensor: &Tensor| {
            Error::argument(OP, argument, expected, format!("{:?}", tensor.size()))
        };
        let &[b, s, m, d] = value.size().as_slice() else {
            return Err(wrong("value", "[B, S, M, D]", value));
        };
        let &[_, q, _, _, p, _] = locations.size().as_slice() else {
            return Err(wrong("sampling_locations", "[B, Q, M, L, P, 2]", locations));
        };
        let l = spatial_shapes.len() as i64;
        if m < 1 || d < 1 {
            return Err(wrong("value", "[B, S, M, D] with at least one head and feature", value));
        }
        if p < 1 {
            return Err(wrong("sampling_locations", "at least one point", locations));
        }
        if spatial_shapes.iter().any(|&(h, w)| h < 1 || w < 1)
            || l == 0
            || spatial_shapes.iter().map(|&(h, w)| h.saturating_mul(w)).fold(0, i64::saturating_add)
                != s
        {
            return Err(Error::argument(
                OP,
                "spatial_shapes",
                format!("positive (H, W) whose areas add up to S = {s}"),
                format!("{spatial_shapes:?}"),
            ));
        }
        if locations.size() != [b, q, m, l, p, 2] {
            let expected = format!("[{b}, {q}, {m}, {l}, {p}, 2]");
            return Err(wrong("sampling_locations", &expected, locations));
        }
        if weights.size() != [b, q, m, l, p] {
            let expected = format!("[{b}, {q}, {m}, {l}, {p}]");
            return Err(wrong("attention_weights", &expected, weights));
        }
        for (argument, tensor) in
            [("sampling_locations", locations), ("attention_weights", weights)]
        {
            if tensor.device() != value.device() {
                return Err(Error::argument(
                    OP,
                    argument,
                    format!("{:?}, where value is", value.device()),
                    format!("{:?}", tensor.device()),
                ));
            }
        }
        Ok(Self { b, s, m, d, q, l, p })
    }
}

/// Multi-scale deformable attention.
///
/// A location is a fraction of the level's size, so that `(0, 0)` is the outer corner of the first
/// pixel and pixel centres lie at `(i + 0.5) / size`; what falls outside reads zeros.
///
/// # Shapes
/// - `value`: `[B, S, M, D]`, the levels' positions one after the other, row by row
/// - `spatial_shapes`: `(H, W)` of each level
/// - `sampling_locations`: `[B, Q, M, L, P, 2]`, x then y
/// - `attention_weights`: `[B, Q, M, L, P]`
/// - returns `[B, Q, M·D]` in the kind of `value`
///
/// # Errors
/// When shapes, kinds or devices disagree.
pub fn ms_deform_attn(
    value: &Tensor,
    spatial_shapes: &[(i64, i64)],
    sampling_locations: &Tensor,
    attention_weights: &Tensor,
) -> Result<Tensor> {
    let shapes = Shapes::check(value, spatial_shapes, sampling_locations, attention_weights)?;
    let kind = value.kind();
    let wide = match kind {
        Kind::Double => Kind::Double,
        Kind::Float | Kind::Half | Kind::BFloat16 => Kind::Float,
        _ => {
            return Err(Error::argument(OP, "value", "a floating kind", format!("{kind:?}")));
        }
    };
    if value.device() != Device::Cpu && kind == Kind::Double {
        // Only checks want f64 on a GPU.
        return ms_deform_attn_naive(value, spatial_shapes, sampling_locations, attention_weights);
    }
    // Conversions lie outside the function, where libtorch differentiates them. On the CPU the
    // low-precision kinds are computed in f32; the CUDA kernels read them as they are.
    let read = if value.device() == Device::Cpu { wide } else { kind };
    let value = value.f_to_kind(read)?.f_contiguous()?;
    let locations = sampling_locations.f_to_kind(wide)?.f_contiguous()?;
    let weights = attention_weights.f_to_kind(wide)?.f_contiguous()?;
    let levels = spatial_shapes.to_vec();
    let output = custom_function(
        OP,
        &[&value, &locations, &weights],
        &[&value, &locations, &weights],
        || forward(shapes, spatial_shapes, &value, &locations, &weights),
        move |args| backward(shapes, &levels, args),
    )?;
    Ok(output.f_to_kind(kind)?)
}

fn forward(
    shapes: Shapes,
    spatial_shapes: &[(i64, i64)],
    value: &Tensor,
    locations: &Tensor,
    weights: &Tensor,
) -> Result<Tensor> {
    let f = match (value.device(), value.kind()) {
        (Device::Cpu, Kind::Double) => cpu::forward::<f64>,
        (Device::Cpu, _) => cpu::forward::<f32>,
        _ => {
            let points = cuda::Points { locations, weights, references: None, unread: None };
            return cuda::forward(shapes, spatial_shapes, value, points);
        }
    };
    f(shapes, cpu::Read { spatial_shapes, value, locations, weights })
}

fn backward(
    shapes: Shapes,
    spatial_shapes: &[(i64, i64)],
    args: &BackwardArgs<'_>,
) -> Result<Gradients> {
    let [value, locations, weights] = args.saved else {
        unreachable!("ms_deform_attn saves three tensors");
    };
    let grad = args.grad.f_contiguous()?;
    let f = match (value.device(), value.kind()) {
        (Device::Cpu, Kind::Double) => cpu::backward::<f64>,
        (Device::Cpu, _) => cpu::backward::<f32>,
        _ => {
            let points = cuda::Points { locations, weights, references: None, unread: None };
            return cuda::backward(shapes, spatial_shapes, &grad, value, points, args.needs);
        }
    };
    f(shapes, &grad, cpu::Read { spatial_shapes, value, locations, weights }, args.needs)
}
