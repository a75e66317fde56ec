//! From the detector's space into CLIP's: what class heads and the semantic branch compare with
//! text.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{
    layers::{Linear, Mlp},
    parameters::{Init, Scope},
};

/// How features are projected into the space of text embeddings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectionKind {
    /// One linear layer without bias.
    #[default]
    Linear,
    /// One linear layer with a bias, as Detic has it.
    Affine,
    /// Four linear layers with ReLU between them. The inner ones are D wide.
    Mlp,
}

/// From features `[D]` to the space of text embeddings `[D_text]`. The last layer starts at N(0, 1
/// / D_text) in variance, as CLIP's own.
#[derive(Debug)]
pub enum Projection {
    /// One linear layer.
    Linear(Linear),
    /// Four linear layers with ReLU between them.
    Mlp(Mlp),
}

impl Projection {
    /// A new projection from `dim` to `width` features.
    #[must_use]
    pub fn new(scope: &Scope, dim: i64, width: i64, kind: ProjectionKind) -> Self {
        let init = Init::Normal((width as f64).powf(-0.5));
        match kind {
            ProjectionKind::Linear => {
                Self::Linear(Linear::with_init(scope, dim, width, init, None))
            }
            ProjectionKind::Affine => {
                let zero = Some(Init::Constant(0.0));
                Self::Linear(Linear::with_init(scope, dim, width, init, zero))
            }
            ProjectionKind::Mlp => {
                let scope = scope.sub("layers");
                let mut layers: Vec<Linear> =
                    (0..3).map(|i| Linear::new(&scope.sub(i), dim, dim)).collect();
                let zero = Some(Init::Constant(0.0));
                layers.push(Linear::with_init(&scope.sub(3), dim, width, init, zero));
                Self::Mlp(Mlp::of(layers))
            }
        }
    }

    /// # Shapes
    /// `[…, D]` → `[…, D_text]`
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Mlp(mlp) => mlp.forward(x),
        }
    }

    /// D_text: number of features that come out.
    #[must_use]
    pub fn width(&self) -> i64 {
        match self {
            Self::Linear(linear) => linear.weight.size()[0],
            Self::Mlp(mlp) => mlp.shapes().last().map_or(0, |shape| shape[0]),
        }
    }

    /// The same parameters under another owner: a step that trains one trains both.
    #[must_use]
    pub fn share(&self) -> Self {
        match self {
            Self::Linear(linear) => Self::Linear(linear.share()),
            Self::Mlp(mlp) => Self::Mlp(mlp.share()),
        }
    }

    /// Takes the values of one of the same form and widths; leaves its own otherwise.
    pub fn start_as(&self, other: &Self) {
        match (self, other) {
            (Self::Linear(own), Self::Linear(other))
                if own.weight.size() == other.weight.size()
                    && own.bias.is_some() == other.bias.is_some() =>
            {
                torch_ext::no_grad(|| {
                    own.weight.shallow_clone().copy_(&other.weight);
                    if let (Some(own), Some(other)) = (&own.bias, &other.bias) {
                        own.shallow_clone().copy_(other);
                    }
                });
            }
            (Self::Mlp(own), Self::Mlp(other)) if own.shapes() == other.shapes() => {
                own.copy_from(other);
            }
            _ => {}
        }
    }
}
