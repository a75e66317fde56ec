//! Boxes, each format a type of its own, with named conversions only.

use serde::{Deserialize, Serialize};

/// `[x, y, width, height]` in pixels of the original image, as COCO and LVIS files have it. (x, y)
/// is the top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xywh(pub [f64; 4]);

/// `[x0, y0, x1, y1]` in pixels: the top left and the bottom right corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xyxy(pub [f32; 4]);

/// `[cx, cy, w, h]` relative to the image's (unpadded) size, each in [0, 1]: what the detector
/// predicts and the losses compare.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cxcywh(pub [f32; 4]);

impl Xywh {
    /// The box as two corners, in the same pixels.
    #[must_use]
    pub fn to_xyxy(self) -> Xyxy {
        let [x, y, w, h] = self.0;
        Xyxy([x as f32, y as f32, (x + w) as f32, (y + h) as f32])
    }
}

impl Xyxy {
    /// The box as corner and size, in the same pixels.
    #[must_use]
    pub fn to_xywh(self) -> Xywh {
        let [x0, y0, x1, y1] = self.0.map(f64::from);
        Xywh([x0, y0, x1 - x0, y1 - y0])
    }

    /// The box relative to an image of that size.
    #[must_use]
    pub fn to_cxcywh(self, width: u32, height: u32) -> Cxcywh {
        let [x0, y0, x1, y1] = self.0;
        let (w, h) = (width as f32, height as f32);
        Cxcywh([(x0 + x1) / 2.0 / w, (y0 + y1) / 2.0 / h, (x1 - x0) / w, (y1 - y0) / h])
    }

    /// The part of the box inside an image of that size.
    #[must_use]
    pub fn clipped(self, width: u32, height: u32) -> Self {
        let [x0, y0, x1, y1] = self.0;
        let (w, h) = (width as f32, height as f32);
        Self([x0.clamp(0.0, w), y0.clamp(0.0, h), x1.clamp(0.0, w), y1.clamp(0.0, h)])
    }

    /// Whether the box has no inside: its width or height is zero, negative or NaN.
    #[must_use]
    pub fn is_degenerate(self) -> bool {
        let [x0, y0, x1, y1] = self.0;
        // Written so that NaN counts as degenerate.
        !(x1 > x0 && y1 > y0)
    }
}

impl Cxcywh {
    /// The box in pixels of an image of that size.
    #[must_use]
    pub fn to_xyxy(self, width: u32, height: u32) -> Xyxy {
        let [cx, cy, bw, bh] = self.0;
        let (w, h) = (width as f32, height as f32);
        Xyxy([(cx - bw / 2.0) * w, (cy - bh / 2.0) * h, (cx + bw / 2.0) * w, (cy + bh / 2.0) * h])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_convert_to_each_other() {
        let file = Xywh([10.0, 20.0, 30.0, 40.0]);
        let corners = file.to_xyxy();
        assert_eq!(corners, Xyxy([10.0, 20.0, 40.0, 60.0]));
        assert_eq!(corners.to_xywh(), file);
        let relative = corners.to_cxcywh(100, 200);
        assert_eq!(relative, Cxcywh([0.25, 0.2, 0.3, 0.2]));
        for (a, b) in relative.to_xyxy(100, 200).0.iter().zip(corners.0) {
            assert!((a - b).abs() < 1e-4);
        }
    }

    #[test]
    fn clipping_can_leave_nothing() {
        let outside = Xyxy([-20.0, 5.0, -1.0, 9.0]).clipped(100, 100);
        assert!(outside.is_degenerate());
        assert!(Xyxy([0.0, f32::NAN, 1.0, 1.0]).is_degenerate());
        assert!(!Xyxy([-5.0, -5.0, 5.0, 5.0]).clipped(100, 100).is_degenerate());
    }
}
