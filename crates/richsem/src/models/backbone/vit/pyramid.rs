//! The simple feature pyramid: maps of four strides from the last one of a plain network.

use tch::Tensor;

use crate::models::{
    layers::LayerNorm,
    parameters::{Init, Scope},
};

const EPS: f64 = 1e-6;
const STD: f64 = 0.02;

/// A convolution without bias, and a norm over the channels.
#[derive(Debug)]
struct ConvNorm {
    weight: Tensor,
    norm: LayerNorm,
}

impl ConvNorm {
    fn new(scope: &Scope, input: i64, output: i64, kernel: i64) -> Self {
        let shape = [output, input, kernel, kernel];
        Self {
            weight: scope.parameter("weight", &shape, Init::KaimingFanOut),
            norm: LayerNorm::with_eps(&scope.sub("norm"), output, EPS),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let padding = self.weight.size()[2] / 2;
        let x = x.conv2d(&self.weight, None::<&Tensor>, [1], [padding], [1], 1);
        normed(&self.norm, &x)
    }
}

/// The norm over the channels of `[B, C, H, W]`.
fn normed(norm: &LayerNorm, x: &Tensor) -> Tensor {
    norm.forward(&x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
}

/// Twice the size: a transposed convolution of 2×2, stride 2.
#[derive(Debug)]
struct Double {
    weight: Tensor,
    bias: Tensor,
}

impl Double {
    fn new(scope: &Scope, input: i64, output: i64) -> Self {
        Self {
            weight: scope.parameter("weight", &[input, output, 2, 2], Init::Normal(STD)),
            bias: scope.parameter_without_decay("bias", &[output], Init::Constant(0.0)),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        x.conv_transpose2d(&self.weight, Some(&self.bias), [2], [0], [0], 1, [1])
    }
}

/// How a level's size comes about.
#[derive(Debug)]
enum Resize {
    Quadruple(Box<(Double, LayerNorm, Double)>),
    Double(Double),
    Same,
    Half,
}

/// One level of the pyramid.
#[derive(Debug)]
pub(super) struct PyramidLevel {
    resize: Resize,
    convs: [ConvNorm; 2],
}

impl PyramidLevel {
    /// Along a side level 0 has four times the cells of the network, level 3 half of them. Key names are detectron2's:
    /// `simfp_2` to `simfp_5`.
    pub(super) fn new(scope: &Scope, level: usize, dim: i64, width: i64) -> Self {
        let scope = scope.sub(format!("simfp_{}", level + 2));
        let (resize, input, first) = match level {
            0 => {
                let parts = (
                    Double::new(&scope.sub(0), dim, dim / 2),
                    LayerNorm::with_eps(&scope.sub(1), dim / 2, EPS),
                    Double::new(&scope.sub(3), dim / 2, dim / 4),
                );
                (Resize::Quadruple(Box::new(parts)), dim / 4, 4)
            }
            1 => (Resize::Double(Double::new(&scope.sub(0), dim, dim / 2)), dim / 2, 1),
            2 => (Resize::Same, dim, 0),
            _ => (Resize::Half, dim, 1),
        };
        let convs = [
            ConvNorm::new(&scope.sub(first), input, width, 1),
            ConvNorm::new(&scope.sub(first + 1), width, width, 3),
        ];
        Self { resize, convs }
    }

    /// # Shapes
    /// `[B, C, H, W]` → `[B, width, H', W']`
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let x = match &self.resize {
            Resize::Quadruple(parts) => {
                let (first, norm, second) = &**parts;
                second.forward(&normed(norm, &first.forward(x)).gelu("none"))
            }
            Resize::Double(double) => double.forward(x),
            Resize::Same => x.shallow_clone(),
            Resize::Half => x.max_pool2d([2], [2], [0], [1], false),
        };
        self.convs.iter().fold(x, |x, conv| conv.forward(&x))
    }
}
