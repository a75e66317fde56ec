//! Sigmoid focal loss (RetinaNet, arXiv 1708.02002, equation 5).

use tch::{Reduction, Tensor};

/// Elementwise loss, before any normalisation.
///
/// # Shapes
/// `logits`, `targets` (0 or 1) `[…]` → `[…]`
pub(crate) fn sigmoid_focal_loss(
    logits: &Tensor,
    targets: &Tensor,
    alpha: f64,
    gamma: f64,
) -> Tensor {
    let prob = logits.sigmoid();
    let none = None::<&Tensor>;
    let ce = logits.binary_cross_entropy_with_logits(targets, none, none, Reduction::None);
    let absent = 1.0f64 - targets;
    let p_t = &prob * targets + (1.0f64 - prob) * &absent;
    let alpha_t = targets * alpha + absent * (1.0 - alpha);
    alpha_t * ce * (1.0f64 - p_t).pow_tensor_scalar(gamma)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_the_formula() {
        for (logit, target) in [(0.3f64, 1.0), (0.3, 0.0), (-4.0, 1.0), (40.0, 0.0)] {
            let got = sigmoid_focal_loss(
                &Tensor::from_slice(&[logit]),
                &Tensor::from_slice(&[target]),
                0.25,
                2.0,
            )
            .double_value(&[0]);
            let p = 1.0 / (1.0 + (-logit).exp());
            // log(1 - p) through softplus: 1 - p underflows at large logits.
            let softplus = |x: f64| if x > 30.0 { x } else { x.exp().ln_1p() };
            let expected = if target == 1.0 {
                0.25 * (1.0 - p).powi(2) * softplus(-logit)
            } else {
                0.75 * p.powi(2) * softplus(logit)
            };
            assert!((got - expected).abs() < 1e-9 * expected.max(1.0), "{logit} {target}");
        }
    }
}
