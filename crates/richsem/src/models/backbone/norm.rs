//! A convolution and what follows it, as one piece: the norm, a shortcut, ReLU. A frozen norm is a scale
//! and a shift: on the CPU they are folded into the convolution, on CUDA they take one pass together
//! with the shortcut and ReLU.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::BackboneConfig;
use crate::{
    error::Result,
    models::{
        layers::{Conv2d, GroupNorm},
        parameters::{Init, Scope},
    },
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
    Frozen(FrozenNorm),
    Batch { affine: [Tensor; 2], running: [Tensor; 2], trained: bool },
    Group(GroupNorm),
}

/// Buffers: weight, bias, running mean, running variance.
#[derive(Debug)]
struct FrozenNorm {
    buffers: [Tensor; 4],
    /// Made of them when they were last changed: their version then, scale and shift.
    affine: RefCell<Option<(i64, [Tensor; 2])>>,
}

impl FrozenNorm {
    /// Scale and shift, each `[C]`.
    fn affine(&self) -> Result<[Tensor; 2]> {
        let version =
            self.buffers.iter().map(Tensor::f_internal_version).sum::<Result<i64, _>>()?;
        let mut kept = self.affine.borrow_mut();
        let [scale, shift] = match &mut *kept {
            Some((of, affine)) if *of == version => affine,
            outdated => {
                let [weight, bias, mean, var] = &self.buffers;
                let scale = weight * (var + EPS).rsqrt();
                let shift = bias - mean * &scale;
                &mut outdated.insert((version, [scale, shift])).1
            }
        };
        Ok([scale.shallow_clone(), shift.shallow_clone()])
    }
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
                NormState::Frozen(FrozenNorm {
                    buffers: [weight, bias, mean, var],
                    affine: RefCell::default(),
                })
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

    /// Convolution and norm, the shortcut added if there is one, and ReLU if asked for.
    ///
    /// # Shapes
    /// `[B, in, H, W]` → `[B, out, ⌈H / stride⌉, ⌈W / stride⌉]`; so is `shortcut`
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        train: bool,
        shortcut: Option<&Tensor>,
        relu: bool,
    ) -> Result<Tensor> {
        let y = match &self.norm {
            NormState::Frozen(norm) => {
                let [scale, shift] = norm.affine()?;
                if x.device().is_cuda() {
                    let y = self.conv.forward(x);
                    let shortcut = shortcut.map(|s| s.to_kind(y.kind()));
                    let shortcut = shortcut.as_ref();
                    return Ok(torch_ext::channel_affine(&y, &scale, &shift, shortcut, relu)?);
                }
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
        };
        let y = match shortcut {
            Some(shortcut) => y + shortcut,
            None => y,
        };
        Ok(if relu { y.relu() } else { y })
    }
}
