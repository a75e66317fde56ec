//! Boxes relative to other boxes: what the network predicts (R-CNN, arXiv 1311.2524, appendix C).

use tch::Tensor;

/// Largest logarithm of a growth in width or height: from 16 pixels to 1000.
const LARGEST: f64 = 1000.0 / 16.0;

/// Codes a box as its distance from another: (dx, dy, dw, dh), each times a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxCoder {
    /// Of x, y, width and height.
    pub weights: [f64; 4],
}

/// Centre and size of corners, each `[…, 2]`.
fn centre(boxes: &Tensor) -> (Tensor, Tensor) {
    let (low, high) = (boxes.narrow(-1, 0, 2), boxes.narrow(-1, 2, 2));
    let size = high - &low;
    (low + &size * 0.5, size)
}

impl BoxCoder {
    fn weights(&self, like: &Tensor) -> (Tensor, Tensor) {
        let all = torch_ext::constant(&self.weights, &[4], (like.kind(), like.device()));
        (all.narrow(0, 0, 2), all.narrow(0, 2, 2))
    }

    /// `boxes` as seen from `reference`, both in corners and with an inside.
    ///
    /// # Shapes
    /// `[…, 4]`, `[…, 4]` → `[…, 4]`
    pub fn encode(&self, reference: &Tensor, boxes: &Tensor) -> Tensor {
        let ((at, size), (to, wanted)) = (centre(reference), centre(boxes));
        let (shift, growth) = self.weights(reference);
        Tensor::cat(&[(to - at) / &size * shift, (wanted / size).log() * growth], -1)
    }

    /// The boxes, in corners, that these codes stand for, seen from `reference`. A box grows 62.5 times at most;
    /// how far it shrinks is not limited.
    ///
    /// # Shapes
    /// `[…, 4]`, `[…, 4]` → `[…, 4]`
    pub fn decode(&self, codes: &Tensor, reference: &Tensor) -> Tensor {
        let (at, size) = centre(reference);
        let (shift, growth) = self.weights(codes);
        let to = codes.narrow(-1, 0, 2) / shift * &size + at;
        let half = (codes.narrow(-1, 2, 2) / growth).clamp_max(LARGEST.ln()).exp() * size * 0.5;
        Tensor::cat(&[&to - &half, to + half], -1)
    }
}

/// The parts of boxes that lie in their images.
///
/// # Shapes
/// `boxes` `[B, …, 4]`, `sizes` `[B, 2]` (height, width) → `[B, …, 4]`
pub(crate) fn clip(boxes: &Tensor, sizes: &Tensor) -> Tensor {
    let most = sizes.flip([1i64]).repeat([1, 2]);
    let mut shape = vec![1i64; boxes.dim()];
    (shape[0], shape[boxes.dim() - 1]) = (most.size()[0], 4);
    boxes.clamp_min(0.0).minimum(&most.view(shape.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODER: BoxCoder = BoxCoder { weights: [10.0, 10.0, 5.0, 5.0] };

    fn row(of: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(of.flatten(0, -1)).unwrap()
    }

    /// From (0, 0)–(10, 20) to (5, 5)–(25, 15): centres (5, 10) and (15, 10), sizes (10, 20) and (20, 10).
    #[test]
    fn codes_are_weighted_distances_without_a_plus_one() {
        let from = Tensor::from_slice(&[0f64, 0.0, 10.0, 20.0]).view([1, 4]);
        let to = Tensor::from_slice(&[5f64, 5.0, 25.0, 15.0]).view([1, 4]);
        let codes = CODER.encode(&from, &to);
        let expected = [10.0, 0.0, 5.0 * 2f64.ln(), -5.0 * 2f64.ln()];
        for (got, expected) in row(&codes).iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12);
        }
        for (got, expected) in row(&CODER.decode(&codes, &from)).iter().zip(row(&to)) {
            assert!((got - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn growth_is_limited_above_alone() {
        let from = Tensor::from_slice(&[0f64, 0.0, 16.0, 16.0]).view([1, 4]);
        let codes = Tensor::from_slice(&[0f64, 0.0, 100.0, -100.0]).view([1, 4]);
        let got = row(&CODER.decode(&codes, &from));
        assert!((got[2] - got[0] - 1000.0).abs() < 1e-9);
        assert!((got[3] - got[1] - 16.0 * (-20f64).exp()).abs() < 1e-12);
    }

    /// Each image's boxes by its own size, not by that of the batch.
    #[test]
    fn boxes_are_clipped_to_their_image() {
        let boxes = Tensor::from_slice(&[-5f64, -5.0, 50.0, 50.0].repeat(2)).view([2, 1, 4]);
        let sizes = Tensor::from_slice(&[10f64, 20.0, 40.0, 30.0]).view([2, 2]);
        assert_eq!(row(&clip(&boxes, &sizes)), [0.0, 0.0, 20.0, 10.0, 0.0, 0.0, 30.0, 40.0]);
    }
}
