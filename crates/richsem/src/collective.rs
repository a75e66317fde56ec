//! What the processes of one training run tell each other.

/// Sums and means over the processes of a run. One process alone is the identity.
pub trait Collective: std::fmt::Debug + Send + Sync {
    /// This process, 0 to `world` − 1.
    fn rank(&self) -> u64;
    /// Number of processes.
    fn world(&self) -> u64;
    /// Mean of a number over the processes.
    fn mean(&self, value: f64) -> f64;
}

/// One process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

impl Collective for Single {
    fn rank(&self) -> u64 {
        0
    }

    fn world(&self) -> u64 {
        1
    }

    fn mean(&self, value: f64) -> f64 {
        value
    }
}
