//! What the processes of one training run tell each other. One process alone tells itself.
//!
//! Every process must make the same calls in the same order: one that leaves early keeps the others
//! waiting. So whether to go on is itself asked here ([`any`]), once a step.

use tch::Tensor;

use crate::error::Result;

/// The processes of a run, as one of them sees them.
pub trait Collective: std::fmt::Debug + Send + Sync {
    /// This process, 0 to `world` − 1.
    fn rank(&self) -> u64;

    /// Number of processes.
    fn world(&self) -> u64;

    /// Starts the mean of each number over the processes; they may compute until it is asked for.
    ///
    /// # Errors
    /// A process that is gone.
    fn begin_mean(&self, values: &[f64]) -> Result<Box<dyn PendingMean>>;

    /// What the process `root` has, for all.
    ///
    /// # Errors
    /// A process that is gone.
    fn broadcast(&self, bytes: Vec<u8>, root: u64) -> Result<Vec<u8>>;

    /// What each process has, by rank; for the process of rank 0 alone.
    ///
    /// # Errors
    /// A process that is gone.
    fn gather(&self, bytes: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>>;

    /// Replaces these buffers by their means over the processes, queued behind what the device has to do.
    ///
    /// # Errors
    /// A process that is gone; what libtorch refuses.
    fn mean_gradients(&self, buffers: &[Tensor]) -> Result<()>;
}

/// Means on their way.
pub trait PendingMean {
    /// The means, in the order of the values.
    ///
    /// # Errors
    /// A process that is gone.
    fn wait(self: Box<Self>) -> Result<Vec<f64>>;
}

/// Of each question, whether any process says yes.
///
/// # Errors
/// A process that is gone.
pub fn any<const N: usize>(collective: &dyn Collective, answers: [bool; N]) -> Result<[bool; N]> {
    let values = answers.map(|yes| f64::from(u8::from(yes)));
    let means = collective.begin_mean(&values)?.wait()?;
    Ok(std::array::from_fn(|i| means[i] > 0.0))
}

/// One process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Single;

/// Means of one process.
struct Own(Vec<f64>);

impl PendingMean for Own {
    fn wait(self: Box<Self>) -> Result<Vec<f64>> {
        Ok(self.0)
    }
}

impl Collective for Single {
    fn rank(&self) -> u64 {
        0
    }

    fn world(&self) -> u64 {
        1
    }

    fn begin_mean(&self, values: &[f64]) -> Result<Box<dyn PendingMean>> {
        Ok(Box::new(Own(values.to_vec())))
    }

    fn broadcast(&self, bytes: Vec<u8>, _root: u64) -> Result<Vec<u8>> {
        Ok(bytes)
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>> {
        Ok(Some(vec![bytes]))
    }

    fn mean_gradients(&self, _buffers: &[Tensor]) -> Result<()> {
        Ok(())
    }
}
