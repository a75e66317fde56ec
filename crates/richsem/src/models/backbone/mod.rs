//! Backbones: images in, feature maps out, each smaller than the one before.

mod config;
mod convnext;
mod focalnet;
mod parts;
mod resnet;
mod swin;
mod vit;

use tch::Tensor;

use crate::{
    error::Result,
    models::{padding::PaddingPyramid, parameters::Scope},
};

pub use config::BackboneConfig;
pub use convnext::{Convnext, ConvnextConfig, ConvnextName};
pub use focalnet::{Focalnet, FocalnetConfig, FocalnetName};
pub use resnet::{Norm, Resnet, ResnetConfig, ResnetName};
pub use swin::{Swin, SwinConfig, SwinName};
pub use vit::{Vit, VitActivation, VitConfig, VitFamily, VitName};

/// A feature map of a backbone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// C: channels of the map.
    pub channels: i64,
    /// Pixels of the image from one cell to the next: twice those of the level before. A power of two where the
    /// padding of a batch can be masked; of patches of 14 pixels 3.5, 7, 14 and 28.
    pub stride: f64,
}

/// A backbone with its weights.
#[derive(Debug)]
pub struct Backbone {
    network: Network,
    /// Levels that are asked for, ascending.
    outputs: Vec<usize>,
}

#[derive(Debug)]
enum Network {
    Resnet(Resnet),
    Swin(Swin),
    Focalnet(Focalnet),
    Convnext(Convnext),
    Vit(Vit),
}

impl Backbone {
    /// Key names are those of the published model, below `scope`; of a ResNet below `body` there, as
    /// official checkpoints have it. `outputs` are the levels that are asked for, ascending.
    #[must_use]
    pub fn new(scope: &Scope, config: &BackboneConfig, outputs: &[usize]) -> Self {
        let network = match config {
            BackboneConfig::Resnet(config) => {
                Network::Resnet(Resnet::new(&scope.sub("body"), config))
            }
            BackboneConfig::Swin(config) => Network::Swin(Swin::new(scope, config, outputs)),
            BackboneConfig::Focalnet(config) => {
                Network::Focalnet(Focalnet::new(scope, config, outputs))
            }
            BackboneConfig::Convnext(config) => {
                Network::Convnext(Convnext::new(scope, config, outputs))
            }
            BackboneConfig::Vit(config) => Network::Vit(Vit::new(scope, config, outputs)),
        };
        Self { network, outputs: outputs.to_vec() }
    }

    /// `train` makes trainable batch norms use the batch's statistics and update their own. With the
    /// `padding` of the images, at least as deep as its last level, an image's maps are those of the image
    /// alone, and zero in the padding, as the images are; without, all of it is image. (There can be none where
    /// [`BackboneConfig::masks_padding`] says so.)
    ///
    /// `draws` are the random numbers of a training pass, as many as [`BackboneConfig::draws`] says; none
    /// where nothing is to be random.
    ///
    /// # Shapes
    /// `[B, 3, H, W]`, draws `[draws, B]` → a map `[B, channels, ⌈H / stride⌉, ⌈W / stride⌉]` for each of
    /// [`BackboneConfig::levels`] that is asked for. Where H and W are no multiples of
    /// [`BackboneConfig::pad_multiple`], sides of maps may be smaller, and there can be no `padding`.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(
        &self,
        images: &Tensor,
        padding: Option<&PaddingPyramid>,
        (train, draws): (bool, Option<&Tensor>),
    ) -> Result<Vec<Tensor>> {
        match &self.network {
            Network::Resnet(resnet) => {
                debug_assert!(draws.is_none(), "nothing is random in a ResNet");
                let maps = resnet.forward(images, padding, train)?;
                Ok(self.outputs.iter().map(|&level| maps[level].shallow_clone()).collect())
            }
            Network::Swin(swin) => swin.forward(images, padding, draws),
            Network::Focalnet(focalnet) => focalnet.forward(images, padding, draws),
            Network::Convnext(convnext) => convnext.forward(images, padding, draws),
            Network::Vit(vit) => {
                debug_assert!(padding.is_none(), "a plain transformer sees its padding");
                vit.forward(images, draws)
            }
        }
    }
}

#[cfg(test)]
mod tests;
