//! Images of different sizes as one tensor, with a mask of the padding.

use image::RgbImage;
use tch::{Device, Kind, Tensor};

use crate::{
    Result,
    normalization::Normalization,
    plural::counted,
    targets::{Supervision, Target},
};

/// A source of batches, by its number among those of a run: see
/// [`Sources`](super::interleaved::Sources).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub usize);

impl SourceId {
    /// The detection data, which every run has.
    pub const DETECTION: Self = Self(0);
}

/// B images padded to one size, H by W. Bytes until [`Batch::normalize`]: a quarter of the upload.
#[derive(Debug)]
pub struct Batch {
    /// `[B, 3, H, W]` u8 on the CPU, RGB, zero in the padding. Channels-last in memory.
    pub images: Tensor,
    /// `[B, H, W]` bool on the CPU, true = padding (right and bottom).
    pub mask: Tensor,
    /// `[B]` what is known of each image.
    pub targets: Vec<Target>,
    /// What was wrong with each image that could not be read, and was replaced or left out.
    pub skipped: Vec<String>,
    /// Which losses the boxes have.
    pub supervision: Supervision,
    /// The run's source that the batch comes from.
    pub source: SourceId,
    /// `[ΣT, D]` f32 on the CPU: a teacher's features of the boxes, image by image, computed before
    /// (see [`crate::prepared`]). None where there are no prepared labels.
    pub soft_features: Option<Tensor>,
    /// The images before any transform, where the source keeps them for drawing. Else empty.
    pub originals: Vec<RgbImage>,
}

impl Batch {
    /// Puts images into one tensor: each at the top left, H and W the largest height and width,
    /// rounded up to a multiple of `pad_multiple` (0 and 1: not rounded).
    ///
    /// No images give an empty batch, `[0, 3, 0, 0]`: in evaluation a broken one is left out.
    ///
    /// # Errors
    /// libtorch cannot allocate the tensors.
    pub fn collate(
        samples: Vec<(RgbImage, Target)>,
        skipped: Vec<String>,
        pad_multiple: u32,
    ) -> Result<Self> {
        let padded = |side: fn(&RgbImage) -> u32| {
            let largest = samples.iter().map(|(image, _)| side(image)).max().unwrap_or(0);
            largest.next_multiple_of(pad_multiple.max(1)) as usize
        };
        let (h, w) = (padded(RgbImage::height), padded(RgbImage::width));
        let b = samples.len();
        let size = [b as i64, h as i64, w as i64];
        let short = |error: torch_ext::Error| {
            crate::Error::from(error).for_work(|| described(&size), SMALLER_BATCH)
        };
        let images = torch_ext::filled(&[size[0], size[1], size[2], 3], Kind::Uint8, |pixels| {
            for (image, _) in &samples {
                for row in image.chunks_exact(image.width() as usize * 3) {
                    pixels.write(row);
                    pixels.repeat(0, w * 3 - row.len());
                }
                pixels.repeat(0, (h - image.height() as usize) * w * 3);
            }
        })
        .map_err(short)?;
        let mask = torch_ext::filled(&size, Kind::Bool, |mask| {
            for (image, _) in &samples {
                let (height, width) = (image.height() as usize, image.width() as usize);
                for _ in 0..height {
                    mask.repeat(0, width);
                    mask.repeat(1, w - width);
                }
                mask.repeat(1, (h - height) * w);
            }
        })
        .map_err(short)?;
        // A view with channels first: planes are only made on the device, in `normalize`.
        let images = images.f_permute([0, 3, 1, 2])?;
        let targets = samples.into_iter().map(|(_, target)| target).collect();
        Ok(Self {
            images,
            mask,
            targets,
            skipped,
            supervision: Supervision::default(),
            source: SourceId::DETECTION,
            soft_features: None,
            originals: Vec::new(),
        })
    }

    /// What it is, in words: number and size of its images.
    pub(crate) fn describe(&self) -> String {
        described(&self.mask.size())
    }

    /// B: number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether the batch has no images: all of them were broken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// `[height, width]` of every image with its padding, in pixels.
    #[must_use]
    pub fn size(&self) -> [i64; 2] {
        let size = self.mask.size();
        [size[1], size[2]]
    }

    /// The model's input: `(x / 255 - mean) / std`, and zero in the padding, as the reference has
    /// it (it pads after normalising).
    ///
    /// # Shapes
    /// Images `[B, 3, H, W]` f32, channels last in memory on CUDA; mask `[B, H, W]` bool, true = padding; both on
    /// `device`.
    ///
    /// # Errors
    /// The device has no room.
    pub fn normalize(
        &self,
        device: Device,
        normalization: &Normalization,
    ) -> Result<(Tensor, Tensor)> {
        self.normalize_to(device, normalization, self.size())
    }

    /// As [`Self::normalize`], with more padding: `[height, width]` at least the batch's own.
    ///
    /// # Errors
    /// The device has no room; a size below the batch's own.
    pub(crate) fn normalize_to(
        &self,
        device: Device,
        normalization: &Normalization,
        [height, width]: [i64; 2],
    ) -> Result<(Tensor, Tensor)> {
        let (mean, std) = normalization.tensors(device);
        let (b, [h, w]) = (self.mask.size()[0], self.size());
        let own_mask = torch_ext::upload(&self.mask, device); // [B, h, w]
        let bytes = torch_ext::upload(&self.images, device); // [B, 3, h, w] u8
        // cuDNN's fast convolutions want channels last in memory, oneDNN's want them first.
        let floats = (Kind::Float, device);
        let images = if device.is_cuda() {
            Tensor::f_empty([b, height, width, 3], floats)?.f_permute([0, 3, 1, 2])?
        } else {
            Tensor::f_empty([b, 3, height, width], floats)?
        };
        let within = |x: &Tensor, dim: i64| x.f_narrow(dim, 0, h)?.f_narrow(dim + 1, 0, w);
        let mut mask = own_mask.shallow_clone();
        if [height, width] != [h, w] {
            let _ = images.shallow_clone().f_zero_()?;
            mask = Tensor::f_ones([b, height, width], (Kind::Bool, device))?;
            within(&mask, 1)?.f_copy_(&own_mask)?;
        }
        let mut own = within(&images, 2)?;
        own.f_copy_(&bytes)?;
        // torchvision's order of operations, so that the result is its, to the bit.
        let _ = own.f_div_scalar_(255.0)?;
        let _ = own.f_sub_(&mean)?;
        let _ = own.f_div_(&std)?;
        let _ = own.f_masked_fill_(&own_mask.f_unsqueeze(1)?, 0.0)?;
        Ok((images, mask))
    }
}

/// What makes a batch smaller, wherever it is used.
const SMALLER_BATCH: &str = "take smaller batches or smaller images; the settings for training are \
                             data.batch_size, data.augment.scales and data.pad_multiple";

/// Number and size of the images, from the shape `[B, H, W]` of the mask.
fn described(size: &[i64]) -> String {
    let [images, height, width] = [size[0], size[1], size[2]];
    let images = counted(images as usize, "image");
    format!("{images} of {height} × {width} pixels")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, first: u8) -> (RgbImage, Target) {
        let pixels = (0..width * height * 3).map(|i| first.wrapping_add(i as u8)).collect();
        let target = Target {
            image_id: i64::from(first),
            boxes: vec![],
            labels: vec![],
            knowledge: Default::default(),
            size: [height, width],
            original_size: [height, width],
            view: None,
            geometry: None,
        };
        (RgbImage::from_raw(width, height, pixels).unwrap(), target)
    }

    fn at(tensor: &Tensor, index: &[i64]) -> f64 {
        tensor.double_value(index)
    }

    #[test]
    fn images_lie_at_the_top_left_and_the_rest_is_masked() {
        let batch = Batch::collate(vec![image(3, 2, 0), image(2, 5, 100)], vec![], 4).unwrap();
        assert_eq!(batch.images.size(), [2, 3, 8, 4]);
        assert_eq!(batch.mask.size(), [2, 8, 4]);
        assert_eq!((batch.images.kind(), batch.mask.kind()), (Kind::Uint8, Kind::Bool));
        assert_eq!(batch.len(), 2);
        // Pixel (x, y) of the first image starts at 3 * (3 y + x).
        assert_eq!(at(&batch.images, &[0, 0, 0, 0]), 0.0);
        assert_eq!(at(&batch.images, &[0, 2, 1, 2]), 17.0);
        assert_eq!(at(&batch.images, &[1, 1, 4, 1]), 100.0 + 28.0);
        for (i, width, height) in [(0, 3, 2), (1, 2, 5)] {
            for y in 0..8 {
                for x in 0..4 {
                    let padding = x >= width || y >= height;
                    assert_eq!(at(&batch.mask, &[i, y, x]) == 1.0, padding, "{i} {y} {x}");
                    if padding {
                        assert_eq!(at(&batch.images, &[i, 2, y, x]), 0.0);
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_that_are_multiples_already_are_kept() {
        let batch = Batch::collate(vec![image(64, 32, 0)], vec![], 32).unwrap();
        assert_eq!(batch.images.size(), [1, 3, 32, 64]);
        assert_eq!(at(&batch.mask.any(), &[]), 0.0);
        let batch = Batch::collate(vec![image(65, 33, 0)], vec![], 1).unwrap();
        assert_eq!(batch.images.size(), [1, 3, 33, 65]);
    }

    #[test]
    fn normalised_values_are_the_references_and_padding_is_zero() {
        let batch = Batch::collate(vec![image(2, 1, 254), image(1, 1, 0)], vec![], 2).unwrap();
        let (images, mask) = batch.normalize(Device::Cpu, &Normalization::IMAGENET).unwrap();
        assert_eq!((images.size(), images.kind()), (vec![2, 3, 2, 2], Kind::Float));
        assert!(images.is_contiguous());
        assert_eq!(mask.size(), [2, 2, 2]);
        // Bytes 254, 255, 0, 1, 2, 3 by hand.
        for (index, expected) in [
            ([0, 0, 0, 0], (254.0 / 255.0 - 0.485) / 0.229),
            ([0, 1, 0, 0], (1.0 - 0.456) / 0.224),
            ([0, 2, 0, 0], -0.406 / 0.225),
            ([0, 0, 0, 1], (1.0 / 255.0 - 0.485) / 0.229),
            ([0, 2, 0, 1], (3.0 / 255.0 - 0.406) / 0.225),
            ([1, 1, 0, 0], (1.0 / 255.0 - 0.456) / 0.224),
            ([0, 0, 1, 0], 0.0),
            ([1, 2, 0, 1], 0.0),
        ] {
            let got = at(&images, &index);
            assert!((got - expected).abs() < 1e-6, "{index:?}: {got}, {expected}");
        }
        // The batch itself is as before.
        assert_eq!(at(&batch.images, &[0, 0, 0, 0]), 254.0);
    }

    #[test]
    fn more_padding_is_zero_too_and_changes_nothing_else() {
        let batch = Batch::collate(vec![image(3, 2, 50), image(1, 4, 0)], vec![], 4).unwrap();
        assert_eq!(batch.size(), [4, 4]);
        let normalize = |size| batch.normalize_to(Device::Cpu, &Normalization::IMAGENET, size);
        let (own, own_mask) = batch.normalize(Device::Cpu, &Normalization::IMAGENET).unwrap();
        let (images, mask) = normalize([8, 6]).unwrap();
        assert_eq!((images.size(), mask.size()), (vec![2, 3, 8, 6], vec![2, 8, 6]));
        assert!(images == own.constant_pad_nd([0, 2, 0, 4]));
        let padding = own_mask.logical_not().to_kind(Kind::Float).constant_pad_nd([0, 2, 0, 4]);
        assert!(mask == padding.eq(0.0));
        assert!(normalize([4, 3]).is_err());
    }

    #[test]
    fn no_images_give_an_empty_batch() {
        let batch = Batch::collate(vec![], vec!["a.jpg: broken".into()], 32).unwrap();
        assert!(batch.is_empty());
        assert_eq!(batch.images.size(), [0, 3, 0, 0]);
        assert_eq!(batch.skipped, ["a.jpg: broken"]);
    }
}
