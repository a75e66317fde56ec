//! What the processes of one run tell each other. One process alone tells itself.
//!
//! Every process makes the same calls in the same order. A process that fails says so to all
//! ([`group::Group::fail`]), and each wait of the others ends then: nobody is left waiting.

mod clock;
pub mod group;
mod links;
mod meet;
pub mod place;
mod pulse;
mod watch;
mod work;

use std::time::Duration;

use tch::Tensor;

use crate::error::{Error, Result};

/// The processes of a run, as one of them sees them.
pub trait Collective: std::fmt::Debug + Send + Sync {
    /// This process, 0 to `world` − 1.
    fn rank(&self) -> u64;

    /// Number of processes.
    fn world(&self) -> u64;

    /// What each process has, by rank, for all of them.
    ///
    /// # Errors
    /// A process that failed or is gone.
    fn exchange(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// What each process has, by rank; for the process of rank 0 alone.
    ///
    /// # Errors
    /// A process that failed or is gone.
    fn gather(&self, bytes: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>>;

    /// Replaces these buffers by their means over the processes, queued behind what the device has to do.
    ///
    /// # Errors
    /// A process that failed or is gone; what libtorch refuses.
    fn mean_gradients(&self, buffers: &[Tensor]) -> Result<()>;

    /// Says that this process is getting on, and how long it may be at work until it says so again or talks to
    /// the others. All of them say it at the same places.
    fn pace(&self, pace: Pace);

    /// Time that the host of this process has waited for the others in all.
    fn waited(&self) -> Duration;

    /// The name of the machine that this process runs on.
    fn host(&self) -> &str;

    /// Whether this is the process of rank 0: the only one that writes the run's folder.
    fn leads(&self) -> bool {
        self.rank() == 0
    }
}

/// How long a process may be at work before it is taken for stuck. A process that is killed or stopped, or whose
/// machine is gone, is found within the group's patience at any pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Files are read or written, kernels compiled: the others wait for half an hour. A process that does nothing
    /// at all for the group's patience is stuck.
    Long,
    /// Each process is at a share of its own, of images to evaluate or to label, and says so at every batch after
    /// the first. A batch takes as long as a step may. The others wait for as long as it takes.
    Share,
    /// Training steps follow each other: the group's patience, or four times the step before, whichever is more.
    Steps,
}

/// Of each question, whether any process says yes.
///
/// # Errors
/// A process that failed or is gone.
pub fn any<const N: usize>(collective: &dyn Collective, answers: [bool; N]) -> Result<[bool; N]> {
    let all = collective.exchange(answers.map(u8::from).to_vec())?;
    Ok(std::array::from_fn(|i| all.iter().any(|of_rank| of_rank.get(i) == Some(&1))))
}

/// The sum of each number over the processes, in the order of their ranks: the same for all of them.
///
/// # Errors
/// A process that failed or is gone, or has other numbers to add.
pub fn sums(collective: &dyn Collective, values: &[f64]) -> Result<Vec<f64>> {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut sums = vec![0.0; values.len()];
    for (rank, bytes) in collective.exchange(bytes)?.into_iter().enumerate() {
        let (chunks, rest) = bytes.as_chunks::<8>();
        if chunks.len() != sums.len() || !rest.is_empty() {
            return Err(Error::other(format!(
                "rank {rank} has {} numbers to add where rank {} has {}",
                chunks.len(),
                collective.rank(),
                sums.len()
            )));
        }
        for (sum, bytes) in sums.iter_mut().zip(chunks) {
            *sum += f64::from_le_bytes(*bytes);
        }
    }
    Ok(sums)
}

/// Several texts as one.
pub(crate) fn pack(each: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(each.iter().map(|text| text.len() + 8).sum());
    for text in each {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text);
    }
    bytes
}

pub(crate) fn unpack(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut each = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
        let length = u64::from_le_bytes(*length) as usize;
        let (text, rest) = rest
            .split_at_checked(length)
            .ok_or_else(|| Error::other("a message of another process is shorter than it says"))?;
        each.push(text.to_vec());
        bytes = rest;
    }
    Ok(each)
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

    fn exchange(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes])
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>> {
        Ok(Some(vec![bytes]))
    }

    fn mean_gradients(&self, _buffers: &[Tensor]) -> Result<()> {
        Ok(())
    }

    fn pace(&self, _pace: Pace) {}

    fn waited(&self) -> Duration {
        Duration::ZERO
    }

    fn host(&self) -> &str {
        ""
    }
}
