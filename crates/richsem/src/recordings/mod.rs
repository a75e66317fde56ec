//! Which passes of a network are recorded as CUDA graphs, and what they hold.
//!
//! A recording is for images of one size, and takes some 0.2 s: cuDNN plans convolutions anew for
//! each. Batches come in hundreds of sizes. Where padding changes nothing of a result
//! (`padding = "masked"`) a batch is padded up to a size that was recorded, so that few
//! recordings serve all: those of [`buckets`] first, and what [`RecordedSizes`] adds to them.

pub(crate) mod buckets;
mod sizes;

use std::collections::HashMap;

use tch::{Device, Tensor};
use torch_ext::{GraphPool, Recording, Replay};

use self::sizes::{Key, RecordedSizes};
use crate::error::{Result, guarded};
use crate::plural::counted;

pub(crate) use sizes::{At, Size};

/// Most recordings of one network. A new one then replaces the one that was unused for longest.
const MOST_RECORDINGS: usize = 256;

/// The recordings of one network.
#[derive(Debug)]
pub(crate) struct Recordings {
    device: Device,
    sizes: RecordedSizes,
    pool: Option<GraphPool>,
    kept: HashMap<Key, Recording>,
    /// Most bytes that recordings may take beyond the first of them.
    budget: u64,
    /// Bytes of the device's memory that the first recording took, and all others together.
    taken: [u64; 2],
    /// Whether passes may be recorded at all.
    on: bool,
    /// Whether further passes may be recorded.
    more: bool,
    /// A message for the user, given once.
    news: Option<String>,
}

impl Recordings {
    /// `on`: whether there are to be any; none on devices without graphs. `padded`: whether a batch may be
    /// padded up to another size. `budget`: most bytes that they may take beyond the first of them.
    pub(crate) fn new(device: Device, on: bool, padded: bool, budget: u64) -> Self {
        let on = on && device.is_cuda();
        Self {
            device,
            sizes: RecordedSizes::new(padded),
            pool: None,
            kept: HashMap::new(),
            budget,
            taken: [0; 2],
            on,
            more: on,
            news: None,
        }
    }

    /// Whether passes may be recorded at all.
    pub(crate) fn on(&self) -> bool {
        self.on
    }

    /// What happened that a user should know, once.
    pub(crate) fn take_news(&mut self) -> Option<String> {
        self.news.take()
    }

    /// The size at which a pass of images of `size` runs. `of` is all else that a recording depends on.
    pub(crate) fn at(&mut self, of: &[i64], size: Size) -> At {
        if self.on { self.sizes.at(of, size, self.more) } else { At::Own }
    }

    /// Has this size recorded when the first pass comes that it covers.
    pub(crate) fn plan(&mut self, of: &[i64], size: Size) {
        if self.on {
            self.sizes.plan(Key { of: of.to_vec(), size });
        }
    }

    /// Whether nothing is recorded yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// From now on a size without a fitting recording gets one at once.
    pub(crate) fn at_once(&mut self) {
        self.sizes.at_once();
    }

    /// Records `run` for tensors like `inputs`, images of `size`. If that fails, no further passes are
    /// recorded, and passes run without recordings.
    pub(crate) fn record(
        &mut self,
        of: &[i64],
        size: Size,
        inputs: &[&Tensor],
        parameters: &[Tensor],
        run: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) {
        if !self.more {
            return;
        }
        let key = Key { of: of.to_vec(), size };
        if let Err(error) = self.try_record(key, inputs, parameters, run) {
            self.more = false;
            let error = error.to_string();
            let [height, width] = size;
            self.news = Some(format!(
                "a pass on images of {height} × {width} could not be recorded as a CUDA graph: {}. No further \
                 passes are recorded, and passes without a recording take longer (train.cuda_graphs = \
                 false switches recordings off)",
                error.lines().next().unwrap_or_default()
            ));
        } else if self.taken[1] > self.budget {
            self.more = false;
            self.news = Some(format!(
                "{}; train.cuda_graphs_mib allows no more",
                self.describe().unwrap_or_default()
            ));
        }
    }

    fn try_record(
        &mut self,
        key: Key,
        inputs: &[&Tensor],
        parameters: &[Tensor],
        run: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<()> {
        // The recording takes once more what passes before it have used, in memory of its own; and what
        // libtorch merely keeps would hide what that is.
        let left = |device| -> Result<u64> {
            torch_ext::empty_cache(device)?;
            Ok(torch_ext::memory_left(device).unwrap_or(0))
        };
        let before = left(self.device)?;
        if self.sizes.len() >= MOST_RECORDINGS
            && let Some(oldest) = self.sizes.remove_oldest()
        {
            self.kept.remove(&oldest);
        }
        let pool = match &mut self.pool {
            Some(pool) => pool,
            none => none.insert(GraphPool::new(self.device)?),
        };
        let recording = guarded(|| pool.record(inputs, parameters, run))?;
        let others = usize::from(!self.kept.is_empty());
        self.taken[others] += before.saturating_sub(left(self.device)?);
        self.sizes.add(key.clone());
        self.kept.insert(key, recording);
        Ok(())
    }

    /// Runs the recording of exactly this size and kind; none if there is none.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub(crate) fn replay(
        &mut self,
        of: &[i64],
        size: Size,
        inputs: &[&Tensor],
    ) -> Result<Option<Replay<'_>>> {
        let kept = self.kept.get(&Key { of: of.to_vec(), size });
        let (Some(recording), Some(pool)) = (kept, &mut self.pool) else { return Ok(None) };
        Ok(Some(pool.replay(recording, inputs)?))
    }

    /// How many recordings there are and how much memory they take; none if there are none.
    pub(crate) fn describe(&self) -> Option<String> {
        let mib = |bytes: u64| bytes >> 20;
        let ([first, others], count) = (self.taken, self.kept.len());
        (count > 0).then(|| {
            format!(
                "batches recorded as CUDA graphs: {}, {} MiB for a pass, {} MiB for further sizes",
                counted(count, "size"),
                mib(first),
                mib(others)
            )
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn without_graphs_nothing_is_recorded() {
        for (device, on) in [(Device::Cpu, true), (Device::Cuda(0), false)] {
            let mut recordings = Recordings::new(device, on, true, 0);
            assert!(!recordings.on() && recordings.describe().is_none());
            assert!((0..5).all(|_| recordings.at(&[2], [64, 64]) == At::Own));
            recordings.record(&[2], [64, 64], &[], &[], |_| panic!("it is off"));
            assert!(recordings.replay(&[2], [64, 64], &[]).unwrap().is_none());
            assert_eq!(recordings.take_news(), None);
        }
    }

    #[test]
    fn a_recording_that_fails_is_told_once_and_is_the_last() {
        let mut recordings = Recordings::new(Device::Cuda(0), true, true, 1 << 30);
        // On a machine without a GPU it fails before it asks for this.
        recordings.record(&[2], [64, 64], &[], &[], |_| Err(Error::other("no room\nat all")));
        let news = recordings.take_news().unwrap();
        assert!(news.contains("64 × 64") && news.contains("cuda_graphs = false"), "{news}");
        assert!(!news.contains('\n') && recordings.take_news().is_none());
        recordings.record(&[2], [64, 64], &[], &[], |_| panic!("no more are made"));
        assert!((0..5).all(|_| recordings.at(&[2], [64, 64]) == At::Own));
    }
}
