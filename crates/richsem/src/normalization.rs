//! What pixels become before a network sees them.

use tch::{Device, Kind, Tensor};

/// Per-channel mean and standard deviation of pixels scaled to [0, 1], in RGB order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Subtracted.
    pub mean: [f32; 3],
    /// Divided by, after the mean is subtracted.
    pub std: [f32; 3],
}

impl Normalization {
    /// Of ImageNet: what torchvision's ResNets, and so DETR and DINO, were trained with.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// Mean and standard deviation, each `[1, 3, 1, 1]`.
    pub fn tensors(&self, device: Device) -> (Tensor, Tensor) {
        let channels = |values: &[f32; 3]| {
            torch_ext::constant(&values.map(f64::from), &[1, 3, 1, 1], (Kind::Float, device))
        };
        (channels(&self.mean), channels(&self.std))
    }

    /// The pixels of normalised images, in [0, 1]; padding, which is zero there, becomes the mean colour.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` → `[B, 3, H, W]`
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn pixels(&self, images: &Tensor) -> crate::Result<Tensor> {
        let (mean, std) = self.tensors(images.device());
        Ok(images.f_mul(&std)?.f_add(&mean)?)
    }
}
