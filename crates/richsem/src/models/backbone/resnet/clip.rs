//! CLIP's ModifiedResNet (arXiv 2103.00020, section 2.4) without the attention pool: a stem of
//! three 3×3 convolutions and an average pool, and average pooling in place of every stride.

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

/// Average pooling with a window of `stride`, 1 or 2. Where padding is masked (`x` is zero there), a
/// window's average is that of its pixels in the image, so that odd sides keep their last pixel, padded or not. Otherwise,
/// as in CLIP, a window that is not whole is left out.
fn pool(x: &Tensor, stride: i64, extent: Extent) -> Tensor {
    if stride == 1 {
        return x.shallow_clone();
    }
    let Some(weights) = extent.weights(x.kind()) else { return average(x) };
    let whole = |x: &Tensor| {
        let size = x.size();
        x.constant_pad_nd([0, size[3] % 2, 0, size[2] % 2])
    };
    let sum = average(&whole(x));
    // At least a quarter, or there is nothing of the image in the window.
    sum / average(&whole(&weights)).clamp_min(0.25)
}

/// Average pooling of windows of 2 × 2.
fn average(x: &Tensor) -> Tensor {
    if x.device().is_cuda() {
        // With channels last libtorch's kernel takes three times as long as a mean.
        average_as_mean(x)
    } else {
        x.avg_pool2d([2], [2], [0], false, true, None)
    }
}

/// Average pooling without overlap, of maps with channels last in memory.
fn average_as_mean(x: &Tensor) -> Tensor {
    let size = x.size();
    let [b, c, h, w] = [size[0], size[1], size[2] / 2, size[3] / 2];
    let cells = x.narrow(2, 0, h * 2).narrow(3, 0, w * 2).permute([0, 2, 3, 1]);
    let cells = cells.reshape([b, h, 2, w, 2, c]);
    cells.mean_dim([2i64, 4].as_slice(), false, None).permute([0, 3, 1, 2])
}

#[derive(Debug)]
struct Bottleneck {
    convs: [ConvNorm; 3],
    downsample: Option<ConvNorm>,
    stride: i64,
}

impl Bottleneck {
    fn new(scope: &Scope, input: i64, planes: i64, stride: i64, config: &ResnetConfig) -> Self {
        let output = planes * 4;
        let conv = |i: i64, shape| {
            ConvNorm::new(scope, (&format!("conv{i}"), &format!("bn{i}")), shape, config)
        };
        let convs = [
            conv(1, (input, planes, 1, 1)),
            conv(2, (planes, planes, 3, 1)),
            conv(3, (planes, output, 1, 1)),
        ];
        let downsample = (stride > 1 || input != output).then(|| {
            ConvNorm::new(&scope.sub("downsample"), ("0", "1"), (input, output, 1, 1), config)
        });
        Self { convs, downsample, stride }
    }

    fn forward(&self, x: &Tensor, extent: Extent, train: bool) -> Result<Tensor> {
        let [conv1, conv2, conv3] = &self.convs;
        let pooled = extent.strided(self.stride);
        let shortcut = match &self.downsample {
            Some(downsample) => {
                downsample.shortcut(&pool(x, self.stride, extent), pooled, train)?
            }
            None => Shortcut::identity(x),
        };
        let y = conv1.forward(x, extent, train, None)?;
        let y = conv2.forward(&y, extent, train, None)?;
        conv3.forward(&pool(&y, self.stride, extent), pooled, train, Some(&shortcut))
    }
}

/// The backbone up to `layer4`.
#[derive(Debug)]
pub struct ClipResnet {
    stem: Box<[ConvNorm; 3]>,
    stages: Stages<Bottleneck>,
}

impl ClipResnet {
    pub(super) fn new(scope: &Scope, config: &ResnetConfig) -> Self {
        let stem_scope = scope.clone().frozen(config.is_frozen(0));
        let half = config.width / 2;
        let conv = |i: i64, shape| {
            ConvNorm::new(&stem_scope, (&format!("conv{i}"), &format!("bn{i}")), shape, config)
        };
        let stem = Box::new([
            conv(1, (3, half, 3, 2)),
            conv(2, (half, half, 3, 1)),
            conv(3, (half, config.width, 3, 1)),
        ]);
        Self { stem, stages: Stages::new(scope, config, Bottleneck::new) }
    }

    pub(super) fn forward(
        &self,
        images: &Tensor,
        extent: Extent,
        train: bool,
    ) -> Result<[Tensor; 4]> {
        let (mut x, mut extent) = (images.shallow_clone(), extent);
        for conv in self.stem.iter() {
            x = conv.forward(&x, extent, train, None)?;
            extent = extent.strided(conv.stride());
        }
        let x = pool(&x, 2, extent);
        self.stages
            .forward(x, extent.strided(2), |block, x, extent| block.forward(x, extent, train))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::normal;

    #[test]
    fn a_mean_of_cells_is_average_pooling() {
        for size in [[2, 5, 6, 8], [1, 3, 7, 5]] {
            let x = normal(1, &size);
            let (got, expected) = (average_as_mean(&x), average(&x));
            assert_eq!(got.size(), expected.size());
            assert!((got - expected).abs().max().double_value(&[]) < 1e-6);
        }
    }
}
