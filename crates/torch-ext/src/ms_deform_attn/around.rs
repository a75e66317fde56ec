//! Deformable attention as a detector's layers have it: points given as offsets around a reference,
//! weights as logits.

use tch::{Kind, Tensor};

use super::{OP, Shapes, cuda, ms_deform_attn};
use crate::function::custom_function;
use crate::{Error, Result};

/// [`ms_deform_attn`] at offsets around references, weighted by the softmax of `logits`.
///
/// The unit of an offset is a pixel of the level around a point (x, y), and half a box over the number of
/// points around a box (cx, cy, w, h). On CUDA locations and weights are computed where they are used, if the
/// references have no gradient. Elsewhere it is [`ms_deform_attn_around_naive`].
///
/// The result of a query that is `unread` is zero, and it has no gradient. On CUDA it takes hardly any
/// time, which matters: padding is a quarter of a batch's tokens, and more in larger batches.
///
/// # Shapes
/// - `value`, `spatial_shapes`: as for [`ms_deform_attn`]
/// - `reference_points`: `[B, Q, L, 2 | 4]`, in [0, 1] of each level
/// - `offsets`: `[B, Q, M, L, P, 2]`
/// - `logits`: `[B, Q, M, L, P]`
/// - `unread`: `[B, Q]` bool
/// - returns `[B, Q, M·D]` in the kind of `value`
///
/// # Errors
/// When shapes, kinds or devices disagree.
pub fn ms_deform_attn_around(
    value: &Tensor,
    spatial_shapes: &[(i64, i64)],
    reference_points: &Tensor,
    offsets: &Tensor,
    logits: &Tensor,
    unread: Option<&Tensor>,
) -> Result<Tensor> {
    let shapes = Shapes::check(value, spatial_shapes, offsets, logits)?;
    check(value, shapes, reference_points, unread)?;
    let kind = value.kind();
    let kernels = matches!(kind, Kind::Float | Kind::BFloat16 | Kind::Half);
    if !(value.device().is_cuda() && kernels) || reference_points.requires_grad() {
        return ms_deform_attn_around_naive(
            value,
            spatial_shapes,
            reference_points,
            offsets,
            logits,
            unread,
        );
    }
    let value = value.f_contiguous()?;
    let references = reference_points.f_to_kind(Kind::Float)?.f_contiguous()?;
    let offsets = offsets.f_to_kind(Kind::Float)?.f_contiguous()?;
    let logits = logits.f_to_kind(kind)?.f_contiguous()?;
    let unread = unread.map(Tensor::f_contiguous).transpose()?;
    let levels = spatial_shapes.to_vec();
    let saved = [&value, &offsets, &logits, &references];
    let saved: Vec<&Tensor> = saved.into_iter().chain(&unread).collect();
    custom_function(
        OP,
        &[&value, &offsets, &logits],
        &saved,
        || {
            let (references, unread) = (Some(&references), unread.as_ref());
            let points = cuda::Points { locations: &offsets, weights: &logits, references, unread };
            cuda::forward(shapes, spatial_shapes, &value, points)
        },
        move |args| {
            let [value, locations, weights, references, unread @ ..] = args.saved else {
                unreachable!("ms_deform_attn_around saves four tensors, and what is unread");
            };
            let grad = args.grad.f_contiguous()?;
            let (references, unread) = (Some(references), unread.first());
            let points = cuda::Points { locations, weights, references, unread };
            cuda::backward(shapes, &levels, &grad, value, points, args.needs)
        },
    )
}

/// Checks what [`Shapes`] does not.
fn check(
    value: &Tensor,
    shapes: Shapes,
    reference_points: &Tensor,
    unread: Option<&Tensor>,
) -> Result<()> {
    let Shapes { b, q, l, .. } = shapes;
    let numbers = reference_points.size().last().copied().unwrap_or(0);
    if !matches!(numbers, 2 | 4) || reference_points.size() != [b, q, l, numbers] {
        let expected = format!("[{b}, {q}, {l}, 2 or 4]");
        let got = format!("{:?}", reference_points.size());
        return Err(Error::argument(OP, "reference_points", expected, got));
    }
    if reference_points.device() != value.device() {
        let expected = format!("{:?}, where value is", value.device());
        let got = format!("{:?}", reference_points.device());
        return Err(Error::argument(OP, "reference_points", expected, got));
    }
    if let Some(unread) = unread
        && (unread.size() != [b, q]
            || unread.kind() != Kind::Bool
            || unread.device() != value.device())
    {
        let expected = format!("[{b}, {q}] Bool on {:?}", value.device());
        let got = format!("{:?} {:?} on {:?}", unread.size(), unread.kind(), unread.device());
        return Err(Error::argument(OP, "unread", expected, got));
    }
    Ok(())
}

/// [`ms_deform_attn_around`] from libtorch's own operations around [`ms_deform_attn`]. The shapes are those of
/// [`ms_deform_attn_around`].
///
/// # Errors
/// When shapes, kinds or devices disagree.
pub fn ms_deform_attn_around_naive(
    value: &Tensor,
    spatial_shapes: &[(i64, i64)],
    reference_points: &Tensor,
    offsets: &Tensor,
    logits: &Tensor,
    unread: Option<&Tensor>,
) -> Result<Tensor> {
    let Shapes { b, q, m, l, p, .. } = Shapes::check(value, spatial_shapes, offsets, logits)?;
    let wide = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let weights = logits.f_view([b, q, m, l * p])?.f_softmax(-1, wide)?;
    let weights = weights.f_view([b, q, m, l, p])?;
    let reference = reference_points.f_view([b, q, 1, l, 1, -1])?;
    let locations = if reference_points.size()[3] == 2 {
        let sizes: Vec<f64> =
            spatial_shapes.iter().flat_map(|&(h, w)| [w as f64, h as f64]).collect();
        let sizes = crate::constant(&sizes, &[l, 1, 2], (offsets.kind(), offsets.device()));
        reference + offsets.f_div(&sizes)?
    } else {
        let half = reference.f_narrow(-1, 2, 2)? * (0.5 / p as f64);
        reference.f_narrow(-1, 0, 2)? + offsets.f_mul(&half)?
    };
    let output = ms_deform_attn(value, spatial_shapes, &locations, &weights)?;
    Ok(match unread {
        Some(unread) => output.f_masked_fill(&unread.f_unsqueeze(-1)?, 0.0)?,
        None => output,
    })
}
