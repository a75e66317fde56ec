//! Where the points of an image lie in a view of it.

use crate::boxes::Xyxy;

/// What all flips, crops and resizes of an image do together: a point (x, y) of the file lies at
/// `scale · (x, y) + offset` in the view, in pixels. A mirrored view has a negative scale of x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Factors of x and of y.
    pub scale: [f64; 2],
    /// Offsets of x and of y, in pixels of the view.
    pub offset: [f64; 2],
}

impl Default for Geometry {
    fn default() -> Self {
        Self::IDENTITY
    }
}

impl Geometry {
    /// The geometry of an image as its file has it.
    pub const IDENTITY: Self = Self { scale: [1.0; 2], offset: [0.0; 2] };

    /// After mirroring left for right. The view was `width` pixels wide.
    #[must_use]
    pub fn flipped(self, width: u32) -> Self {
        let ([sx, sy], [ox, oy]) = (self.scale, self.offset);
        Self { scale: [-sx, sy], offset: [f64::from(width) - ox, oy] }
    }

    /// After a crop that begins at (left, top).
    #[must_use]
    pub fn cropped(self, left: u32, top: u32) -> Self {
        let [ox, oy] = self.offset;
        Self { offset: [ox - f64::from(left), oy - f64::from(top)], ..self }
    }

    /// After a resize by these factors of width and height.
    #[must_use]
    pub fn resized(self, factors: [f64; 2]) -> Self {
        let times = |of: [f64; 2]| [of[0] * factors[0], of[1] * factors[1]];
        Self { scale: times(self.scale), offset: times(self.offset) }
    }

    /// Where a box of the file lies in the view. Parts of it may lie outside.
    #[must_use]
    pub fn to_view(&self, bbox: Xyxy) -> Xyxy {
        self.map(bbox, |axis, at| self.scale[axis] * at + self.offset[axis])
    }

    /// Where a box of the view lies in the file. Followed by [`Self::to_view`] of another view of the same
    /// image, it moves a box from one view to the other.
    #[must_use]
    pub fn to_file(&self, bbox: Xyxy) -> Xyxy {
        self.map(bbox, |axis, at| (at - self.offset[axis]) / self.scale[axis])
    }

    fn map(&self, Xyxy(corners): Xyxy, map: impl Fn(usize, f64) -> f64) -> Xyxy {
        let [x0, y0, x1, y1] = std::array::from_fn(|i| map(i % 2, f64::from(corners[i])) as f32);
        // Mirrored, left is right.
        Xyxy([x0.min(x1), y0, x0.max(x1), y1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_comes_from_one_view_into_another() {
        // 100 pixels wide: mirrored, cut, and made twice as large.
        let weak = Geometry::IDENTITY.resized([0.5, 0.5]);
        let strong = Geometry::IDENTITY.flipped(100).cropped(10, 5).resized([2.0, 2.0]);
        let in_file = Xyxy([20.0, 10.0, 40.0, 30.0]);
        assert_eq!(strong.to_view(in_file), Xyxy([100.0, 10.0, 140.0, 50.0]));
        let carried = strong.to_view(weak.to_file(weak.to_view(in_file)));
        assert_eq!(carried, strong.to_view(in_file));
        assert_eq!(strong.to_file(strong.to_view(in_file)), in_file);
    }
}
