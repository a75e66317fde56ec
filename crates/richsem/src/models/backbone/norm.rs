//! A convolution and the norm that follows it, as one piece: a frozen norm is folded into the
//! convolution's weight, one pass over the feature map instead of three.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::BackboneConfig;
use crate::models::{
    layers::{Conv2d, GroupNorm},
    parameters::{Init, Scope},
};

const EPS: f64 = 1e-5;

/// What normalises the trunk's feature maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Batch norm whose statistics and affine terms stay as loaded.
    FrozenBn,
    /// Batch norm, trained.
    BatchNorm,
    /// Group norm, trained.
    GroupNorm,
}

#[derive(Debug)]
enum NormState {
    /// Buffers: weight, bias, running mean, running variance.
    Frozen([Tensor; 4]),
    Batch {
        affine: [Tensor; 2],
        running: [Tensor; 2],
        trained: bool,
    },
    Group(GroupNorm),
}

/// Convolution + norm.
#[derive(Debug)]
pub(super) struct ConvNorm {
    conv: Conv2d,
    norm: NormState,
}

impl ConvNorm {
    /// `names` of convolution and norm below `scope`; `shape` is (in, out, kernel, stride).
    pub(super) fn new(
        scope: &Scope,
        names: (&str, &str),
        shape: (i64, i64, i64, i64),
        config: &BackboneConfig,
    ) -> Self {
        let (input, output, kernel, stride) = shape;
        let conv = Conv2d::new(&scope.sub(names.0), input, output, kernel, stride);
        let scope = scope.sub(names.1);
        let running = |scope: &Scope| {
            [
                scope.buffer("running_mean", &[output], 0.0),
                scope.buffer("running_var", &[output], 1.0),
            ]
        };
        let norm = match config.norm {
            Norm::FrozenBn => {
                let [weight, bias] =
                    [scope.buffer("weight", &[output], 1.0), scope.buffer("bias", &[output], 0.0)];
                let [mean, var] = running(&scope);
                NormState::Frozen([weight, bias, mean, var])
            }
            Norm::BatchNorm => NormState::Batch {
                affine: [
                    scope.parameter("weight", &[output], Init::Constant(1.0)),
                    scope.parameter("bias", &[output], Init::Constant(0.0)),
                ],
                running: running(&scope),
                trained: !scope.is_frozen(),
            },
            Norm::GroupNorm => NormState::Group(GroupNorm::new(&scope, config.groups, output)),
        };
        Self { conv, norm }
    }

    /// # Shapes
    /// `[B, in, H, W]` → `[B, out, ⌈H / stride⌉, ⌈W / stride⌉]`
    pub(super) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        match &self.norm {
            NormState::Frozen([weight, bias, mean, var]) => {
                let scale = weight * (var + EPS).rsqrt();
                let shift = bias - mean * &scale;
                let folded = &self.conv.weight * scale.view([-1, 1, 1, 1]);
                self.conv.with(x, &folded, Some(&shift))
            }
            NormState::Batch { affine: [weight, bias], running: [mean, var], trained } => {
                let x = self.conv.forward(x);
                x.batch_norm(
                    Some(weight),
                    Some(bias),
                    Some(mean),
                    Some(var),
                    train && *trained,
                    0.1,
                    EPS,
                    true,
                )
            }
            NormState::Group(norm) => norm.forward(&self.conv.forward(x)),
        }
    }
}
