//! Match predictions to ground truth, then supervise each pair.

mod boxes;
mod config;
pub mod criterion;
pub mod distillation;
mod federated;
mod focal;
mod known;
pub mod matcher;

use tch::{Kind, Tensor};

pub use config::{LossConfig, UnknownClasses};
pub use criterion::{Criterion, LossTerms};
pub use federated::FederatedConfig;

/// Whether the kernels of [`torch_ext::detr_losses`] take this: on CUDA, in f32.
fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cuda() && x.kind() == Kind::Float
}
