//! A convolution and what follows it, as one piece: the norm, a shortcut, ReLU. A frozen norm is a
//! scale and a shift, and is folded into its convolution.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::ResnetConfig;
use crate::{
    error::Result,
    models::{
        layers::{Conv2d, GroupNorm, Scaled, at_least_f32},
        padding::Extent,
        parameters::{Init, Scope},
    },
};

const EPS: f64 = 1e-5;
/// Share of a batch's own statistics in the running ones of a batch norm.
const MOMENTUM: f64 = 0.1;

/// Normalisation after each convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// Batch norm that keeps the statistics, weights and biases that were loaded.
    FrozenBn,
    /// Batch norm: statistics, weights and biases are trained.
    BatchNorm,
    /// Group norm: weights and biases are trained.
    GroupNorm,
}

#[derive(Debug)]
enum NormState {
    Frozen(FrozenNorm),
    Batch { affine: [Tensor; 2], running: [Tensor; 2], trained: bool },
    Group(GroupNorm),
}

/// A frozen batch norm: weight, bias, running mean, running variance.
#[derive(Debug)]
struct FrozenNorm {
    buffers: [Tensor; 4],
    /// What the buffers become for each kind that was computed in. An entry is kept as long as the
    /// buffers are unchanged, because recorded graphs read it.
    folded: RefCell<Vec<Folded>>,
}

/// What a frozen norm does, as a scale and a shift of its convolution.
#[derive(Debug)]
struct Folded {
    /// Version of the buffers when this was computed, and of the convolution's weight if it is not
    /// trained.
    version: i64,
    kind: Kind,
    /// `[C]`: factor of each output channel.
    scale: Tensor,
    /// `[C]`: shift of each output channel, in f32.
    shift: Tensor,
    /// `[C]`: the same shift, in `kind`.
    bias: Tensor,
    /// The scaled weight in `kind`, if the weight is not trained. (A trained one's version says nothing:
    /// it is a view of the optimizer's buffer.)
    weight: Option<Tensor>,
}

impl FrozenNorm {
    /// Calls `f` with what it is to `conv` in a kind.
    fn folded<T>(
        &self,
        conv: &Conv2d,
        kind: Kind,
        f: impl FnOnce(&Folded) -> Result<T>,
    ) -> Result<T> {
        let constant = !conv.weight.requires_grad();
        let version = |t: &Tensor| t.f_internal_version();
        let mut now = self.buffers.iter().map(version).sum::<Result<i64, _>>()?;
        if constant {
            now += version(&conv.weight)?;
        }
        let mut made = self.folded.borrow_mut();
        made.retain(|folded| folded.version == now && folded.weight.is_some() == constant);
        let at = made.iter().position(|folded| folded.kind == kind).unwrap_or_else(|| {
            made.push(torch_ext::no_grad(|| {
                let [weight, bias, mean, var] = &self.buffers;
                let scale = weight * (var + EPS).rsqrt();
                let shift = bias - mean * &scale;
                let weight = constant.then(|| {
                    let scaled = (&conv.weight * scale.view([-1, 1, 1, 1])).to_kind(kind);
                    if scaled.device().is_cuda() {
                        // In memory as the kernels there want it.
                        scaled.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
                    } else {
                        scaled
                    }
                });
                let bias = shift.to_kind(kind);
                Folded { version: now, kind, scale, shift, bias, weight }
            }));
            made.len() - 1
        });
        f(&made[at])
    }
}

/// What a block's last convolution adds.
#[derive(Debug)]
pub(super) struct Shortcut {
    map: Tensor,
    /// `[C]`: a shift of its channels that is not added yet. Added together with the map it is free; here
    /// it would be a pass of its own.
    shift: Option<Tensor>,
}

impl Shortcut {
    /// The block's input as it is.
    pub(super) fn identity(x: &Tensor) -> Self {
        Self { map: x.shallow_clone(), shift: None }
    }
}

/// The kind that a convolution of `x` computes in.
fn computed_in(x: &Tensor) -> Kind {
    torch_ext::autocast_kind(x.device()).unwrap_or(x.kind())
}

/// A convolution with its norm.
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
        config: &ResnetConfig,
    ) -> Self {
        let (input, output, kernel, stride) = shape;
        let conv = Conv2d::new(&scope.sub(names.0), input, output, kernel, stride);
        let scope = scope.sub(names.1);
        let norm = match config.norm {
            Norm::FrozenBn => {
                let buffer = |name, value| scope.buffer(name, &[output], value);
                NormState::Frozen(FrozenNorm {
                    buffers: [
                        buffer("weight", 1.0),
                        buffer("bias", 0.0),
                        buffer("running_mean", 0.0),
                        buffer("running_var", 1.0),
                    ],
                    folded: RefCell::default(),
                })
            }
            Norm::BatchNorm => NormState::Batch {
                affine: [
                    scope.parameter("weight", &[output], Init::Constant(1.0)),
                    scope.parameter_without_decay("bias", &[output], Init::Constant(0.0)),
                ],
                running: [
                    scope.statistics("running_mean", &[output], 0.0),
                    scope.statistics("running_var", &[output], 1.0),
                ],
                trained: !scope.is_frozen(),
            },
            Norm::GroupNorm => NormState::Group(GroupNorm::new(&scope, config.groups, output)),
        };
        Self { conv, norm }
    }

    /// Pixels from one window of the convolution to the next.
    pub(super) fn stride(&self) -> i64 {
        self.conv.stride()
    }

    /// Convolution and norm, the shortcut added if there is one, ReLU. `extent` is where the images
    /// lie in `x`, which is zero in the padding, as the result is.
    ///
    /// # Shapes
    /// `[B, in, H, W]` → `[B, out, ⌈H / stride⌉, ⌈W / stride⌉]`; so is `shortcut`
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        extent: Extent,
        train: bool,
        shortcut: Option<&Shortcut>,
    ) -> Result<Tensor> {
        let (map, later) = match shortcut {
            Some(Shortcut { map, shift }) => (Some(map), shift.as_ref()),
            None => (None, None),
        };
        if let NormState::Frozen(norm) = &self.norm {
            let padding = extent.strided(self.conv.stride()).padding();
            return norm.folded(&self.conv, computed_in(x), |folded| {
                let weight = match &folded.weight {
                    Some(weight) => Scaled::Before(weight),
                    None => Scaled::By(&folded.scale),
                };
                match later {
                    Some(later) => {
                        self.conv.relu(x, weight, &(&folded.shift + later), map, padding)
                    }
                    None => self.conv.relu(x, weight, &folded.bias, map, padding),
                }
            });
        }
        // A backbone has one kind of norm, and other kinds leave nothing to be added.
        debug_assert!(later.is_none());
        let y = self.normalized(x, extent, train)?;
        Ok(match map {
            Some(map) => y + map,
            None => y,
        }
        .relu())
    }

    /// As a block's shortcut.
    ///
    /// # Shapes
    /// As [`Self::forward`].
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(super) fn shortcut(&self, x: &Tensor, extent: Extent, train: bool) -> Result<Shortcut> {
        Ok(match &self.norm {
            NormState::Frozen(norm) => norm.folded(&self.conv, computed_in(x), |folded| {
                let map = match &folded.weight {
                    Some(weight) => self.conv.with(x, weight),
                    None => {
                        self.conv.with(x, &(&self.conv.weight * folded.scale.view([-1, 1, 1, 1])))
                    }
                };
                Ok(Shortcut { map, shift: Some(folded.shift.shallow_clone()) })
            })?,
            _ => Shortcut { map: self.normalized(x, extent, train)?, shift: None },
        })
    }

    /// Convolution and a norm that is not frozen: zero in the padding, as `x` is.
    fn normalized(&self, x: &Tensor, extent: Extent, train: bool) -> Result<Tensor> {
        let x = self.conv.forward(x);
        let extent = extent.strided(self.conv.stride());
        Ok(match &self.norm {
            NormState::Frozen(_) => unreachable!("a frozen norm is folded into its convolution"),
            NormState::Batch { affine, running, trained } => {
                extent.hide(&batch_norm(&x, extent, affine, running, train && *trained))
            }
            NormState::Group(norm) => norm.forward(&x, extent.padding()),
        })
    }
}

/// Batch norm. `train` makes it go by the batch's statistics, those of its images alone, and update the
/// running ones.
fn batch_norm(
    x: &Tensor,
    extent: Extent,
    [weight, bias]: &[Tensor; 2],
    [mean, var]: &[Tensor; 2],
    train: bool,
) -> Tensor {
    let weights = if train { extent.weights(x.kind()) } else { None };
    let Some(weights) = weights else {
        let (w, b, m, v) = (Some(weight), Some(bias), Some(mean), Some(var));
        return x.batch_norm(w, b, m, v, train, MOMENTUM, EPS, true);
    };
    let kind = at_least_f32(&weights).kind();
    let count = weights.sum(kind);
    let over_images = |x: &Tensor| x.sum_dim_intlist([0i64, 2, 3].as_slice(), true, kind) / &count;
    let own_mean = over_images(&(x * &weights)); // [1, C, 1, 1]
    let centred = x - &own_mean;
    let own_var = over_images(&(&centred * &weights).square());
    torch_ext::no_grad(|| {
        // libtorch's running variance is the unbiased one.
        let unbiased = &own_var * (&count / (&count - 1.0).clamp_min(1.0));
        for (running, own) in [(mean, &own_mean), (var, &unbiased)] {
            let _ = running.shallow_clone().lerp_(&own.flatten(0, 3), MOMENTUM);
        }
    });
    let channels = |x: &Tensor| x.view([1, -1, 1, 1]);
    let normed = centred * (own_var + EPS).rsqrt() * channels(weight) + channels(bias);
    normed.to_kind(x.kind())
}
