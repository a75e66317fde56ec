//! What a network takes.

use tch::Tensor;

/// Images as a network sees them.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// `[B, 3, H, W]`, normalised, zero in the padding.
    pub pixels: &'a Tensor,
    /// `[B, H, W]`, true = padding, at the right and below.
    pub mask: &'a Tensor,
    /// `[draws, B]`, uniform in [0, 1): what is random in the backbone in training (drop path), as an input, so
    /// that a recorded pass draws anew each time. None in inference, and where nothing is random.
    pub draws: Option<&'a Tensor>,
    /// Whether trainable batch norms go by the batch's statistics in a training pass, and update their own.
    /// False for a training pass that only measures. Inference goes by the running statistics either way.
    pub learns: bool,
}

impl<'a> Images<'a> {
    /// Nothing random; a training pass learns from them.
    #[must_use]
    pub fn new(pixels: &'a Tensor, mask: &'a Tensor) -> Self {
        Self { pixels, mask, draws: None, learns: true }
    }
}
