//! Box distances on tensors that broadcast against each other.

use tch::Tensor;

use crate::models::layers::to_xyxy;

/// Keeps the divisions of IoU and GIoU finite, as the reference does (`util/box_ops.py`).
const EPS: f64 = 1e-6;

/// Generalised IoU (arXiv 1902.09630) of boxes that broadcast.
///
/// # Shapes
/// `a`, `b` `[…, 4]`, cxcywh → `[…]`, in (−1, 1]
pub(crate) fn generalized_iou(a: &Tensor, b: &Tensor) -> Tensor {
    let (a, b) = (to_xyxy(a), to_xyxy(b));
    let low = |x: &Tensor| x.narrow(-1, 0, 2);
    let high = |x: &Tensor| x.narrow(-1, 2, 2);
    let product = |wh: Tensor| wh.select(-1, 0) * wh.select(-1, 1);
    let area = |x: &Tensor| product(high(x) - low(x));
    let intersection =
        product((high(&a).minimum(&high(&b)) - low(&a).maximum(&low(&b))).clamp_min(0.0));
    let union = area(&a) + area(&b) - &intersection;
    let hull = product((high(&a).maximum(&high(&b)) - low(&a).minimum(&low(&b))).clamp_min(0.0));
    let iou = intersection / (&union + EPS);
    iou - (&hull - union) / (hull + EPS)
}

/// Sum of absolute differences.
///
/// # Shapes
/// `a`, `b` `[…, 4]` → `[…]`
pub(crate) fn l1(a: &Tensor, b: &Tensor) -> Tensor {
    (a - b).abs().sum_dim_intlist([-1i64].as_slice(), false, a.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giou_of_known_boxes() {
        let pair = |a: [f64; 4], b: [f64; 4]| {
            generalized_iou(&Tensor::from_slice(&a), &Tensor::from_slice(&b)).double_value(&[])
        };
        let unit = [0.5, 0.5, 1.0, 1.0];
        assert!((pair(unit, unit) - 1.0).abs() < 1e-5);
        // Half covered: IoU 1/2, the hull is the union.
        assert!((pair(unit, [0.25, 0.5, 0.5, 1.0]) - 0.5).abs() < 1e-5);
        // Unit squares two apart: IoU 0, hull 3, union 2.
        assert!((pair(unit, [2.5, 0.5, 1.0, 1.0]) + 1.0 / 3.0).abs() < 1e-5);
        // A point: everything stays finite.
        assert!(pair([0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]).is_finite());
    }
}
