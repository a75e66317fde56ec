//! All epochs of a run as one sequence of batches, so that reading ahead does not stop at the end of
//! an epoch.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{batch::Batch, detection_source::DetectionSource, loader::BatchSource};
use crate::error::Result;

/// Epochs that are kept at a time. Readers are less than one epoch ahead, or epochs are short.
const KEPT: usize = 3;

type Make = Box<dyn Fn(u64) -> Result<DetectionSource> + Send + Sync>;

/// The batches of epoch 0, then of epoch 1, and so on. Positions count from the start of the run.
pub struct Epochs {
    make: Make,
    /// Position of each epoch's first batch, and of the end.
    starts: Vec<u64>,
    recent: Mutex<VecDeque<(usize, Arc<DetectionSource>)>>,
}

impl Epochs {
    /// `make` gives the source of an epoch. The number of batches that are used is a multiple of
    /// `multiple`; the rest of the epoch is left out.
    ///
    /// # Errors
    /// What `make` returns; an epoch with fewer batches than `multiple`.
    pub fn new(
        epochs: u64,
        multiple: u64,
        make: impl Fn(u64) -> Result<DetectionSource> + Send + Sync + 'static,
    ) -> Result<Self> {
        let mut starts = vec![0];
        let mut end = 0;
        for epoch in 0..epochs {
            let batches = make(epoch)?.batches()?;
            if batches < multiple {
                let problem =
                    format!("expected at most the {batches} batches of an epoch, got {multiple}");
                return Err(crate::Error::config("train.accumulate", problem).with_hint(
                    "lower it, or data.batch_size, or add images; with extra data it counts \
                         times data.weight",
                ));
            }
            end += batches / multiple * multiple;
            starts.push(end);
        }
        Ok(Self { make: Box::new(make), starts, recent: Mutex::default() })
    }

    /// Number of batches of all epochs together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Position of an epoch's first batch; the end, for epochs beyond the last.
    #[must_use]
    pub fn start(&self, epoch: u64) -> u64 {
        self.starts.get(epoch as usize).copied().unwrap_or_else(|| self.total())
    }

    /// Number of batches of one epoch, from 0; 0 for epochs beyond the last.
    #[must_use]
    pub fn batches(&self, epoch: u64) -> u64 {
        let epoch = epoch as usize;
        match (self.starts.get(epoch), self.starts.get(epoch + 1)) {
            (Some(start), Some(end)) => end - start,
            _ => 0,
        }
    }

    fn source(&self, epoch: usize) -> Result<Arc<DetectionSource>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, source)) = recent.iter().find(|(e, _)| *e == epoch) {
            return Ok(Arc::clone(source));
        }
        let source = Arc::new((self.make)(epoch as u64)?);
        recent.push_back((epoch, Arc::clone(&source)));
        if recent.len() > KEPT {
            recent.pop_front();
        }
        Ok(source)
    }
}

impl BatchSource for Epochs {
    fn build(&self, position: u64) -> Result<Batch> {
        let epoch = self.starts.partition_point(|&start| start <= position) - 1;
        self.source(epoch)?.build(position - self.starts[epoch])
    }

    fn shape(&self, position: u64) -> Option<[i64; 3]> {
        let epoch = self.starts.partition_point(|&start| start <= position) - 1;
        self.source(epoch).ok()?.shape(position - self.starts[epoch])
    }
}
