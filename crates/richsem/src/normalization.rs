//! Normalisation of pixels, before a network sees them.

use tch::{Device, Kind, Tensor};

/// Per-channel mean and standard deviation of pixels scaled to [0, 1], in RGB order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Mean of each channel. It is subtracted from the pixels.
    pub mean: [f32; 3],
    /// Standard deviation of each channel. After the subtraction, pixels are divided by it.
    pub std: [f32; 3],
}

impl Normalization {
    /// ImageNet's: torchvision's ResNets were trained with it, and so were DETR and DINO.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// Mean and standard deviation, each `[1, 3, 1, 1]`.
    pub fn tensors(&self, device: Device) -> (Tensor, Tensor) {
        let channels = |values: &[f32; 3]| {
            torch_ext::constant(&values.map(f64::from), &[1, 3, 1, 1], (Kind::Float, device))
        };
        (channels(&self.mean), channels(&self.std))
    }

    /// Undoes the normalisation: gives pixels in [0, 1]. Padding, which is zero before, becomes the
    /// mean colour.
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
