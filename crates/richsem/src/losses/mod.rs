//! Losses that any family of detectors can use. What is a family's own is in [`crate::families`].

pub(crate) mod boxes;
pub mod classes;
mod config;
pub(crate) mod federated;
pub(crate) mod focal;
pub mod regions;
pub mod semantic;
pub mod terms;

use tch::{Kind, Tensor};

pub use config::{FasterRcnnLossConfig, LossConfig, MatcherConfig, UnknownClasses};
pub use federated::FederatedConfig;

/// Whether the kernels of [`torch_ext::detr_losses`] take this: on CUDA, in f32.
pub(crate) fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cuda() && x.kind() == Kind::Float
}
