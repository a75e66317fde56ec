//! Stand-in until the operation is merged.
use tch::{Kind, Tensor};
use crate::Result;
/// Stand-in.
///
/// # Errors
/// What libtorch refuses.
pub fn group_norm(x: &Tensor, groups: i64, weight: &Tensor, bias: &Tensor, eps: f64, padding: Option<&Tensor>) -> Result<Tensor> {
    let Some(padding) = padding else { return Ok(x.f_group_norm(groups, Some(weight), Some(bias), eps, true)?); };
    let (b, c, h, w) = x.size4()?;
    let kind = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let y = x.f_to_kind(kind)?.f_reshape([b, groups, c / groups, h, w])?;
    let m = padding.logical_not().to_kind(kind).view([b, 1, 1, h, w]);
    let n = (m.sum_dim_intlist([1i64, 2, 3, 4].as_slice(), true, kind) * (c / groups) as f64).clamp_min(1.0);
    let mean = (&y * &m).sum_dim_intlist([2i64, 3, 4].as_slice(), true, kind) / &n;
    let d = (y - mean) * &m;
    let var = d.square().sum_dim_intlist([2i64, 3, 4].as_slice(), true, kind) / &n;
    let y = (d * (var + eps).rsqrt()).view([b, c, h, w]);
    Ok((y * weight.view([1, -1, 1, 1]) + bias.view([1, -1, 1, 1])) * m.view([b, 1, h, w]))
}
