//! Match predictions to ground truth, then supervise each pair.

mod boxes;
pub mod criterion;
pub mod distillation;
mod federated;
mod focal;
pub mod matcher;

pub use criterion::{Criterion, LossConfig, LossTerms};
pub use federated::FederatedConfig;
