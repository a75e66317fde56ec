//! What a block does to each token by itself.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{super::parts::linear, VitConfig};
use crate::models::{
    layers::{LayerNorm, Linear},
    parameters::Scope,
};

/// What lies between the two layers of a block's MLP that is not gated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VitActivation {
    /// x · Φ(x), exactly.
    Gelu,
    /// x · σ(1.702 x), of OpenAI's CLIP.
    QuickGelu,
}

impl VitActivation {
    fn forward(self, x: &Tensor) -> Tensor {
        match self {
            Self::Gelu => x.gelu("none"),
            Self::QuickGelu => x * (x * 1.702).sigmoid(),
        }
    }
}

/// The MLP of a block.
#[derive(Debug)]
pub(super) enum Mlp {
    /// `fc1`, an activation, `fc2`.
    Plain { fc1: Linear, fc2: Linear, activation: VitActivation },
    /// SwiGLU: of `w12` the first half gates the second; EVA-02 has a norm, `ffn_ln`, before `w3`.
    Gated { w12: Linear, norm: Option<LayerNorm>, w3: Linear },
}

impl Mlp {
    pub(super) fn new(scope: &Scope, config: &VitConfig) -> Self {
        let (dim, hidden) = (config.width(), config.hidden());
        if !config.name.gated() {
            return Self::Plain {
                fc1: linear(&scope.sub("fc1"), dim, hidden),
                fc2: linear(&scope.sub("fc2"), hidden, dim),
                activation: config.activation(),
            };
        }
        let eps = config.name.family().eps();
        let norm = || LayerNorm::with_eps(&scope.sub("ffn_ln"), hidden, eps);
        Self::Gated {
            w12: linear(&scope.sub("w12"), dim, 2 * hidden),
            norm: config.name.normed_mlp().then(norm),
            w3: linear(&scope.sub("w3"), hidden, dim),
        }
    }

    /// # Shapes
    /// `[…, C]` → `[…, C]`
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Plain { fc1, fc2, activation } => {
                fc2.forward(&activation.forward(&fc1.forward(x)))
            }
            Self::Gated { w12, norm, w3 } => {
                let halves = w12.forward(x).chunk(2, -1);
                let x = halves[0].silu() * &halves[1];
                w3.forward(
                    &norm.as_ref().map_or_else(|| x.shallow_clone(), |norm| norm.forward(&x)),
                )
            }
        }
    }
}
