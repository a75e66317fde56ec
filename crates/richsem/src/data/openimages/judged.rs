//! What OpenImages' files say of images and classes by their numbers.

/// A class that somebody looked for in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifiedLabel {
    /// Number of the image.
    pub image: u32,
    /// Position of the class.
    pub class: u32,
    /// Whether it is there.
    pub present: bool,
}

/// A box that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredBox {
    /// Number of the image.
    pub image: u32,
    /// Position of the class.
    pub class: u32,
    /// Confidence.
    pub score: f64,
    /// `[x0, y0, x1, y1]`, in the unit of the boxes that are there.
    pub bbox: [f64; 4],
}
