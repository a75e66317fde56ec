//! Sine encodings: of feature-map positions for the encoder, of boxes for the decoder's queries.

use std::f64::consts::TAU;

use tch::{Kind, Tensor};

/// Sine and cosine interleaved, at `features` frequencies, in the kind of `position`.
///
/// # Shapes
/// `[…]` → `[…, features]`
fn sine(position: &Tensor, features: i64, temperature: f64) -> Tensor {
    // Powers in f64, and rounded once: in f32 their last digit depends on the instruction set.
    let power = |i: i64| temperature.powf((i / 2 * 2) as f64 / features as f64);
    let divisor: Vec<f64> = (0..features).map(power).collect();
    let options = (position.kind(), position.device());
    let divisor = torch_ext::constant(&divisor, &[features], options);
    let phase = position.unsqueeze(-1) / divisor; // […, features]
    let even = phase.slice(-1, 0, None, 2).sin();
    let odd = phase.slice(-1, 1, None, 2).cos();
    Tensor::stack(&[even, odd], -1).flatten(-2, -1)
}

/// Normalised sine encoding with separate x and y (y first), of the pixels that are not padding, in
/// a floating `kind`.
///
/// # Shapes
/// `mask` `[B, H, W]` (true = padding) → `[B, H, W, D]`
pub fn image_positions(mask: &Tensor, dim: i64, temperature: f64, kind: Kind) -> Tensor {
    let valid = mask.logical_not();
    let along = |axis: i64| {
        let count = valid.cumsum(axis, kind);
        let last = count.narrow(axis, count.size()[axis as usize] - 1, 1);
        count / (last + 1e-6) * TAU
    };
    let y = sine(&along(1), dim / 2, temperature);
    let x = sine(&along(2), dim / 2, temperature);
    Tensor::cat(&[y, x], -1)
}

/// Sine encoding of boxes, temperature 10000, in the order y, x, w, h.
///
/// # Shapes
/// `[…, 4]` (cx, cy, w, h) → `[…, 2 D]`
pub fn box_positions(boxes: &Tensor, dim: i64) -> Tensor {
    let part = |from: i64, count: i64| boxes.narrow(-1, from, count);
    let ordered = Tensor::cat(&[part(1, 1), part(0, 1), part(2, 2)], -1) * TAU;
    sine(&ordered, dim / 2, 10_000.0).flatten(-2, -1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn box_positions_follow_their_formula() {
        let boxes = Tensor::from_slice(&[0.3f32, 0.7, 0.1, 0.2]).view([1, 1, 4]);
        let encoded = box_positions(&boxes, 8); // 4 frequencies a coordinate
        assert_eq!(encoded.size(), [1, 1, 16]);
        for (slot, value) in [0.7f64, 0.3, 0.1, 0.2].into_iter().enumerate() {
            for i in 0..4 {
                let phase = value * TAU / 10_000f64.powf(2.0 * (i / 2) as f64 / 4.0);
                let expected = if i % 2 == 0 { phase.sin() } else { phase.cos() };
                let got = encoded.double_value(&[0, 0, (slot * 4 + i) as i64]);
                assert!((got - expected).abs() < 1e-6, "{slot} {i}: {got} {expected}");
            }
        }
    }

    #[test]
    fn image_positions_ignore_padding() {
        // A 2×3 image alone, and the same padded to 4×5.
        let alone = Tensor::zeros([1, 2, 3], (Kind::Bool, Device::Cpu));
        let padded = Tensor::ones([1, 4, 5], (Kind::Bool, Device::Cpu));
        let _ = padded.narrow(1, 0, 2).narrow(2, 0, 3).fill_(0);
        let a = image_positions(&alone, 8, 20.0, Kind::Float);
        let b = image_positions(&padded, 8, 20.0, Kind::Float).narrow(1, 0, 2).narrow(2, 0, 3);
        assert!((&a - b).abs().max().double_value(&[]) < 1e-6);
        // Second row of two, first frequency: y = 2 / (2 + 1e-6) · 2π.
        let expected = (2.0 / (2.0 + 1e-6) * TAU).sin();
        assert!((a.double_value(&[0, 1, 0, 0]) - expected).abs() < 1e-5);
    }
}
