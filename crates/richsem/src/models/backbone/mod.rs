//! Convolutional backbones: images in, feature maps C2–C5 out.

mod clip_resnet;
mod norm;
mod resnet;
mod stages;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::{
    error::{Error, Result},
    models::{
        padding::{Extent, PaddingPyramid},
        parameters::Scope,
    },
};

pub use norm::Norm;

/// Which backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResnetName {
    /// torchvision's ResNet-18 (basic blocks 2-2-2-2).
    Resnet18,
    /// ResNet-34 (basic blocks 3-4-6-3).
    Resnet34,
    /// ResNet-50 (bottlenecks 3-4-6-3).
    Resnet50,
    /// ResNet-101 (bottlenecks 3-4-23-3).
    Resnet101,
    /// CLIP's ModifiedResNet without its attention pool: three-convolution stem, average pooling
    /// before strided convolutions (3-4-6-3 unless `layers` says otherwise).
    ClipResnet,
}

impl ResnetName {
    /// Blocks of each stage of the published model.
    #[must_use]
    pub fn blocks(self) -> [i64; 4] {
        match self {
            Self::Resnet18 => [2, 2, 2, 2],
            Self::Resnet34 | Self::Resnet50 | Self::ClipResnet => [3, 4, 6, 3],
            Self::Resnet101 => [3, 4, 23, 3],
        }
    }
}

/// The backbone's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackboneConfig {
    /// Which backbone.
    pub name: ResnetName,
    /// Channels of the first stage; 64 in every published model.
    pub width: i64,
    /// Blocks of the four stages; empty for the backbone's own.
    pub layers: Vec<i64>,
    /// What normalises. From scratch, `frozen_bn` does not normalise at all: choose another.
    pub norm: Norm,
    /// Groups of `group_norm`.
    pub groups: i64,
    /// Stages that are not trained: −1 none, 0 the stem, 1 the stem and `layer1`, … 4 everything.
    pub frozen_stages: i64,
    /// Weights to start from (safetensors, or PyTorch's `.pt` or `.pth`), relative to the config
    /// file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<std::path::PathBuf>,
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self {
            name: ResnetName::Resnet50,
            width: 64,
            layers: Vec::new(),
            norm: Norm::FrozenBn,
            groups: 32,
            frozen_stages: 1,
            weights: None,
        }
    }
}

impl BackboneConfig {
    /// # Errors
    /// A setting outside its range, named below `key`.
    pub fn validate(&self, key: &str) -> Result<()> {
        if !self.layers.is_empty()
            && (self.layers.len() != 4 || self.layers.iter().any(|n| !(1..=1000).contains(n)))
        {
            return Err(Error::config(
                format!("{key}.layers"),
                format!("expected four block counts from 1 to 1000, got {:?}", self.layers),
            ));
        }
        if !(-1..=4).contains(&self.frozen_stages) {
            return Err(Error::config(
                format!("{key}.frozen_stages"),
                format!("expected -1 (train everything) to 4, got {}", self.frozen_stages),
            ));
        }
        if !(2..=4096).contains(&self.width) || self.width % 2 != 0 {
            return Err(Error::config(
                format!("{key}.width"),
                format!("expected an even number from 2 to 4096, got {}", self.width),
            ));
        }
        if self.norm == Norm::GroupNorm && (self.groups < 1 || (self.width / 2) % self.groups != 0)
        {
            return Err(Error::config(
                format!("{key}.groups"),
                format!(
                    "expected a divisor of {} (half the width), got {}",
                    self.width / 2,
                    self.groups
                ),
            )
            .with_hint(
                "the narrowest normalised layer of a backbone has half its width in channels",
            ));
        }
        Ok(())
    }

    /// Blocks of each stage.
    fn blocks(&self) -> [i64; 4] {
        match *self.layers {
            [a, b, c, d] => [a, b, c, d],
            _ => self.name.blocks(),
        }
    }

    /// Whether a stage, 0 being the stem, is not trained.
    fn is_frozen(&self, stage: i64) -> bool {
        self.frozen_stages >= stage
    }

    fn expansion(&self) -> i64 {
        if matches!(self.name, ResnetName::Resnet18 | ResnetName::Resnet34) { 1 } else { 4 }
    }

    /// Channels of C2, C3, C4, C5.
    #[must_use]
    pub fn channels(&self) -> [i64; 4] {
        [1, 2, 4, 8].map(|m| m * self.width * self.expansion())
    }
}

/// A backbone with its weights.
#[derive(Debug)]
pub enum Backbone {
    /// torchvision's ResNets.
    Resnet(resnet::Resnet),
    /// CLIP's.
    ClipResnet(clip_resnet::ClipResnet),
}

impl Backbone {
    /// How often the images' sides are halved in C5.
    pub const HALVINGS: usize = 5;

    /// Key names are torchvision's or OpenAI CLIP's, below `scope`.
    #[must_use]
    pub fn new(scope: &Scope, config: &BackboneConfig) -> Self {
        match config.name {
            ResnetName::ClipResnet => Self::ClipResnet(clip_resnet::ClipResnet::new(scope, config)),
            _ => Self::Resnet(resnet::Resnet::new(scope, config)),
        }
    }

    /// `train` makes trainable batch norms use the batch's statistics and update their own. With the
    /// `padding` of the images, at least [`Self::HALVINGS`] deep, an image's maps are those of the image
    /// alone, and zero in the padding, as the images are; without, all of it is image.
    ///
    /// # Shapes
    /// `[B, 3, H, W]` → C2 to C5, `[B, channels, ⌈H / 4⌉ … ⌈H / 32⌉, …]`
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn forward(
        &self,
        images: &Tensor,
        padding: Option<&PaddingPyramid>,
        train: bool,
    ) -> Result<[Tensor; 4]> {
        let extent = Extent::of_images(padding);
        match self {
            Self::Resnet(backbone) => backbone.forward(images, extent, train),
            Self::ClipResnet(backbone) => backbone.forward(images, extent, train),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::parameters::{ParameterStore, Role};
    use crate::testing::{normal, uniform};
    use tch::{Device, Kind};

    fn build(config: &BackboneConfig) -> (ParameterStore, Backbone) {
        let store = ParameterStore::new(Device::Cpu, 0);
        let backbone = Backbone::new(&store.root(), config);
        (store, backbone)
    }

    #[test]
    fn strides_and_channels_are_the_published_ones() {
        for name in [
            ResnetName::Resnet18,
            ResnetName::Resnet34,
            ResnetName::Resnet50,
            ResnetName::Resnet101,
            ResnetName::ClipResnet,
        ] {
            let config = BackboneConfig { name, width: 8, groups: 4, ..BackboneConfig::default() };
            let (_, backbone) = build(&config);
            let images = normal(1, &[1, 3, 64, 96]);
            let maps = backbone.forward(&images, None, false).unwrap();
            for (level, (map, channels)) in maps.iter().zip(config.channels()).enumerate() {
                let stride = 4 << level;
                assert_eq!(map.size(), [1, channels, 64 / stride, 96 / stride], "{name:?}");
            }
        }
    }

    /// torchvision 0.26: `sum(p.numel() for p in resnet50().parameters())` less the 2,049,000 of
    /// `fc`, and less batch norm's 53,120 affine terms, which are buffers here.
    #[test]
    fn resnet50_has_torchvisions_parameters() {
        let (store, _) = build(&BackboneConfig { frozen_stages: -1, ..BackboneConfig::default() });
        assert_eq!(store.trainable_count(), 25_557_032 - 2_049_000 - 53_120);
        let names: Vec<String> = store.parameters().into_iter().map(|p| p.name).collect();
        for key in
            ["conv1.weight", "bn1.running_var", "layer1.0.downsample.0.weight", "layer4.2.bn3.bias"]
        {
            assert!(names.iter().any(|n| n == key), "{key}");
        }
    }

    #[test]
    fn frozen_stages_are_not_trained() {
        for (stages, frozen) in [(-1, vec![]), (0, vec!["conv1"]), (1, vec!["conv1", "layer1"])] {
            let config = BackboneConfig {
                name: ResnetName::Resnet18,
                frozen_stages: stages,
                ..BackboneConfig::default()
            };
            let (store, _) = build(&config);
            for p in store.parameters().iter().filter(|p| p.role != Role::Buffer) {
                let expected = frozen.iter().any(|f| p.name.starts_with(f));
                assert_eq!(p.role == Role::Frozen, expected, "{stages} {}", p.name);
                assert_eq!(p.tensor.requires_grad(), !expected);
            }
        }
    }

    /// A frozen batch norm folded into its convolution is the norm applied after it; also when what it
    /// is made of is loaded after it was folded, whether the convolution is trained or not.
    #[test]
    fn a_folded_norm_is_the_norm() {
        for frozen in [false, true] {
            let store = ParameterStore::new(Device::Cpu, 0);
            let block = norm::ConvNorm::new(
                &store.root().frozen(frozen),
                ("conv1", "bn1"),
                (3, 6, 3, 2),
                &BackboneConfig::default(),
            );
            let x = normal(3, &[2, 3, 9, 11]);
            let mut values = store.named_tensors();
            for round in 0..2 {
                for (key, (name, value)) in (2 + 10 * round..).zip(&mut values) {
                    let random = uniform(key, &value.size());
                    *value =
                        if name.ends_with("conv1.weight") { random - 0.5 } else { random + 0.1 };
                }
                store.load(&values, "test".as_ref()).unwrap();
                let shaped = |name: &str| values[name].view([1, -1, 1, 1]);
                let weight = &values["conv1.weight"];
                let convolved = x.conv2d(weight, None::<&Tensor>, [2], [1], [1], 1);
                let expected = (convolved - shaped("bn1.running_mean"))
                    / (shaped("bn1.running_var") + 1e-5).sqrt()
                    * shaped("bn1.weight")
                    + shaped("bn1.bias");
                let close = |got: Tensor, expected: &Tensor| {
                    assert!((got - expected).abs().max().double_value(&[]) < 1e-5, "{frozen}");
                };
                close(
                    block.forward(&x, Extent::of_images(None), true, None).unwrap(),
                    &expected.relu(),
                );
                let shortcut = block.shortcut(&x, Extent::of_images(None), true).unwrap();
                let sum =
                    block.forward(&x, Extent::of_images(None), true, Some(&shortcut)).unwrap();
                close(sum, &(&expected * 2.0).relu());
            }
        }
    }

    fn trained_batch_norm() -> BackboneConfig {
        BackboneConfig {
            name: ResnetName::Resnet18,
            norm: Norm::BatchNorm,
            frozen_stages: -1,
            width: 8,
            ..BackboneConfig::default()
        }
    }

    #[test]
    fn batch_norm_normalises_in_training_and_remembers() {
        let config = trained_batch_norm();
        let (store, backbone) = build(&config);
        let images = normal(4, &[2, 3, 64, 64]) * 5.0 + 3.0;
        let before = store.named_tensors()["bn1.running_mean"].copy();
        let _ = backbone.forward(&images, None, false).unwrap();
        assert_eq!(before, store.named_tensors()["bn1.running_mean"]);
        let _ = backbone.forward(&images, None, true).unwrap();
        assert_ne!(before, store.named_tensors()["bn1.running_mean"]);
    }

    /// Without any padding the batch's own statistics are libtorch's, and so is all that follows.
    #[test]
    fn batch_norm_of_images_without_padding_is_libtorchs() {
        let config = trained_batch_norm();
        let images = (normal(4, &[2, 3, 61, 90]) * 5.0 + 3.0).to_kind(Kind::Double);
        let run = |padding: Option<&PaddingPyramid>| {
            let (store, backbone) = build(&config);
            for mut parameter in store.parameters() {
                let double = parameter.tensor.detach().to_kind(Kind::Double);
                parameter.tensor.set_data(&double);
            }
            let maps = backbone.forward(&images, padding, true).unwrap();
            maps.iter().map(|map| map.sin().sum(Kind::Double)).sum::<Tensor>().backward();
            let mut all: Vec<(String, Tensor)> =
                maps.into_iter().map(|map| ("map".to_owned(), map)).collect();
            for p in store.parameters() {
                let value = match p.role {
                    Role::Trainable => p.tensor.grad(),
                    _ => p.tensor.shallow_clone(),
                };
                all.push((p.name, value));
            }
            all
        };
        let mask = Tensor::zeros([2, 61, 90], (Kind::Bool, Device::Cpu));
        let pyramid = PaddingPyramid::new(&mask, Backbone::HALVINGS);
        for ((name, got), (_, expected)) in run(Some(&pyramid)).into_iter().zip(run(None)) {
            let most = expected.abs().max().double_value(&[]).max(1e-3);
            let off = (got - expected).abs().max().double_value(&[]) / most;
            assert!(off < 1e-9, "{name}: {off}");
        }
    }
}
