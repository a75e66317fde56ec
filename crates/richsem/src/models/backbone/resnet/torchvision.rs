//! ResNet (arXiv 1512.03385) as torchvision has it: the stride sits on the 3×3 convolution. As MSRA has it, it
//! sits on the 1×1 before.

use tch::Tensor;

use super::{
    ResnetConfig,
    norm::{ConvNorm, Shortcut},
    stages::Stages,
};
use crate::{
    error::Result,
    models::{padding::Extent, parameters::Scope},
};

#[derive(Debug)]
struct Block {
    /// Two 3×3 convolutions, or 1×1, 3×3, 1×1.
    convs: Vec<ConvNorm>,
    downsample: Option<ConvNorm>,
}

impl Block {
    fn new(scope: &Scope, input: i64, planes: i64, stride: i64, config: &ResnetConfig) -> Self {
        let output = planes * config.expansion();
        let conv = |i: i64, shape| {
            ConvNorm::new(scope, (&format!("conv{i}"), &format!("bn{i}")), shape, config)
        };
        let convs = if config.expansion() == 1 {
            vec![conv(1, (input, planes, 3, stride)), conv(2, (planes, planes, 3, 1))]
        } else {
            let (first, second) = if config.stride_in_1x1 { (stride, 1) } else { (1, stride) };
            vec![
                conv(1, (input, planes, 1, first)),
                conv(2, (planes, planes, 3, second)),
                conv(3, (planes, output, 1, 1)),
            ]
        };
        let downsample = (stride != 1 || input != output).then(|| {
            ConvNorm::new(&scope.sub("downsample"), ("0", "1"), (input, output, 1, stride), config)
        });
        Self { convs, downsample }
    }

    fn forward(&self, x: &Tensor, extent: Extent, train: bool) -> Result<Tensor> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.shortcut(x, extent, train)?,
            None => Shortcut::identity(x),
        };
        let (mut y, mut extent) = (x.shallow_clone(), extent);
        for (i, conv) in self.convs.iter().enumerate() {
            let last = i + 1 == self.convs.len();
            y = conv.forward(&y, extent, train, last.then_some(&shortcut))?;
            extent = extent.strided(conv.stride());
        }
        Ok(y)
    }
}

/// The backbone up to `layer4`.
#[derive(Debug)]
pub struct Resnet {
    stem: ConvNorm,
    stages: Stages<Block>,
}

impl Resnet {
    pub(super) fn new(scope: &Scope, config: &ResnetConfig) -> Self {
        let stem_scope = scope.clone().frozen(config.is_frozen(0));
        let stem = ConvNorm::new(&stem_scope, ("conv1", "bn1"), (3, config.width, 7, 2), config);
        Self { stem, stages: Stages::new(scope, config, Block::new) }
    }

    pub(super) fn forward(
        &self,
        images: &Tensor,
        extent: Extent,
        train: bool,
    ) -> Result<[Tensor; 4]> {
        let x = self.stem.forward(images, extent, train, None)?;
        let extent = extent.strided(2);
        // After ReLU a zero changes no maximum; the window of a padding pixel may reach into the image.
        let x = x.max_pool2d([3], [2], [1], [1], false);
        let extent = extent.strided(2);
        let x = extent.hide(&x);
        self.stages.forward(x, extent, |block, x, extent| block.forward(x, extent, train))
    }
}
