//! What the padding of a batch may change: nothing, or what it changes in the official code.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What the padding of an image may change of its result. Images of a batch are padded to one size,
/// so this is also what the other images of the batch may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Nothing. Maps are zero in the padding, norms go by the pixels of the image alone, and boxes
    /// are encoded relative to the image.
    #[default]
    Masked,
    /// What it changes in the official code. The backbone's padding is not zero after the first
    /// norm's bias, group norms average over it, and the decoder encodes boxes relative to the
    /// padded batch.
    Official,
}

impl std::fmt::Display for Padding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Masked => "masked",
            Self::Official => "official",
        })
    }
}

/// The padding of a batch at strides 1, 2, 4, …; an image keeps the ⌈side / stride⌉ cells that it has alone.
#[derive(Debug)]
pub struct PaddingPyramid {
    /// `[B, ⌈H / 2^k⌉, ⌈W / 2^k⌉]` bool, true = padding.
    levels: Vec<Tensor>,
}

impl PaddingPyramid {
    /// The pyramid of a mask `[B, H, W]`, true = padding, down to a stride of 2^`halvings`.
    #[must_use]
    pub fn new(mask: &Tensor, halvings: usize) -> Self {
        let mut levels = vec![mask.shallow_clone()];
        for level in 0..halvings {
            let half = levels[level].slice(1, 0, None, 2).slice(2, 0, None, 2).contiguous();
            levels.push(half);
        }
        Self { levels }
    }

    /// The mask at a stride of 2^`halvings`: `[B, ⌈H / stride⌉, ⌈W / stride⌉]`, true = padding.
    ///
    /// # Panics
    /// Beyond the stride that it was made for.
    pub fn at(&self, halvings: usize) -> &Tensor {
        &self.levels[halvings]
    }
}

/// Maps with zero in the padding, in their own order in memory.
///
/// # Shapes
/// `[B, C, H, W]`, `padding` `[B, H, W]` bool → `[B, C, H, W]`
pub(super) fn hide(maps: &Tensor, padding: &Tensor) -> Tensor {
    // libtorch's `masked_fill` would lay channels first, and convolutions be slow then.
    let zero = Tensor::zeros([0i64; 0], (maps.kind(), maps.device()));
    maps.where_self(&padding.logical_not().unsqueeze(1), &zero)
}

/// Where the images lie in a batch of maps.
#[derive(Debug, Clone, Copy)]
pub struct Extent<'a> {
    pyramid: Option<&'a PaddingPyramid>,
    halvings: usize,
}

impl<'a> Extent<'a> {
    /// The extent of the images themselves. `None` if padding is treated as image.
    #[must_use]
    pub fn of_images(pyramid: Option<&'a PaddingPyramid>) -> Self {
        Self { pyramid, halvings: 0 }
    }

    /// The extent in maps of that stride, 2^`halvings` pixels. `None` if padding is treated as image.
    #[must_use]
    pub fn at(pyramid: Option<&'a PaddingPyramid>, halvings: usize) -> Self {
        Self { pyramid, halvings }
    }

    /// The extent after a layer of that stride, 1 or 2.
    #[must_use]
    pub fn strided(self, stride: i64) -> Self {
        Self { halvings: self.halvings + usize::from(stride == 2), ..self }
    }

    /// `[B, H, W]` of the maps here, true = padding; none where padding is treated as image.
    #[must_use]
    pub fn padding(self) -> Option<&'a Tensor> {
        self.pyramid.map(|pyramid| pyramid.at(self.halvings))
    }

    /// The maps with zero in the padding.
    ///
    /// # Shapes
    /// `[B, C, H, W]` → `[B, C, H, W]`
    pub fn hide(self, maps: &Tensor) -> Tensor {
        match self.padding() {
            Some(padding) => hide(maps, padding),
            None => maps.shallow_clone(),
        }
    }

    /// 1 in the images, 0 in the padding, `[B, 1, H, W]`.
    #[must_use]
    pub fn weights(self, kind: Kind) -> Option<Tensor> {
        self.padding().map(|padding| padding.logical_not().unsqueeze(1).to_kind(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn hidden_maps_keep_their_order_in_memory() {
        let mask = Tensor::zeros([2, 4, 5], (Kind::Bool, Device::Cpu));
        let _ = mask.narrow(1, 3, 1).fill_(1);
        let channels_last = Tensor::ones([2, 4, 5, 3], (Kind::Float, Device::Cpu));
        let maps = channels_last.permute([0, 3, 1, 2]);
        let hidden = hide(&maps, &mask);
        assert_eq!(hidden.stride(), maps.stride());
        assert_eq!(hidden.sum(Kind::Float).double_value(&[]), 2.0 * 3.0 * 3.0 * 5.0);
        assert_eq!(hidden.narrow(2, 3, 1).abs().max().double_value(&[]), 0.0);
    }

    /// 13 × 10 pixels in 16 × 20: 7 × 5, 4 × 3, 2 × 2 and 1 × 1 cells.
    #[test]
    fn an_image_keeps_the_cells_that_it_has_alone() {
        let mask = Tensor::ones([1, 16, 20], (Kind::Bool, Device::Cpu));
        let _ = mask.narrow(1, 0, 13).narrow(2, 0, 10).fill_(0);
        let pyramid = PaddingPyramid::new(&mask, 4);
        let mut extent = Extent::of_images(Some(&pyramid));
        for (h, w) in [(13, 10), (7, 5), (4, 3), (2, 2), (1, 1)] {
            let valid = extent.padding().unwrap().logical_not();
            assert_eq!(valid.sum(Kind::Int64).int64_value(&[]), h * w);
            let image = valid.narrow(1, 0, h).narrow(2, 0, w);
            assert_eq!(image.sum(Kind::Int64).int64_value(&[]), h * w);
            extent = if h > 1 { extent.strided(2) } else { extent };
        }
    }
}
