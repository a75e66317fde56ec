//! Builds batches ahead of their use, on several threads, in bounded memory.
//!
//! What a batch holds depends on its position alone, never on how many threads there are or which
//! of them was faster: the threads only decide *when* it is built.

use std::{
    any::Any,
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use super::batch::Batch;
use crate::{Error, Result};

/// Makes the batch of a position. Seed, epoch, rank and world are the source's own.
pub trait BatchSource: Send + Sync + 'static {
    /// The batch at `position` of the epoch. It is always the same, on every thread.
    ///
    /// # Errors
    /// The batch cannot be made.
    fn build(&self, position: u64) -> Result<Batch>;

    /// Number of images, height and width of that batch, without reading its images: what it has if all of
    /// them can be read. None if that is not known.
    fn shape(&self, _position: u64) -> Option<[i64; 3]> {
        None
    }
}

/// Iterates over batches in order of position. An error is delivered at its position, and the
/// iteration can go on after it. Dropping the loader stops its threads, each after at most the
/// batch it is building.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    source: Arc<dyn BatchSource>,
    end: u64,
    prefetch: u64,
    state: Mutex<State>,
    /// Signals that a position may be claimed, or that it is time to stop.
    may_claim: Condvar,
    /// Signals that a batch is ready.
    ready: Condvar,
}

struct State {
    next_to_claim: u64,
    next_to_deliver: u64,
    ready: BTreeMap<u64, Result<Batch>>,
    stop: bool,
}

impl Loader {
    /// Starts `workers` threads (at least one) that build the batches of `positions`. At most
    /// `prefetch` batches (at least one) exist, finished or being built, beyond those that the
    /// consumer has taken.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn new(
        source: Arc<dyn BatchSource>,
        positions: Range<u64>,
        workers: usize,
        prefetch: usize,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            source,
            end: positions.end,
            prefetch: prefetch.max(1) as u64,
            state: Mutex::new(State {
                next_to_claim: positions.start,
                next_to_deliver: positions.start,
                ready: BTreeMap::new(),
                stop: false,
            }),
            may_claim: Condvar::new(),
            ready: Condvar::new(),
        });
        // Made first, so that a failing thread stops those before it when this is dropped.
        let mut loader = Self { shared, threads: Vec::new() };
        for i in 0..workers.max(1) {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new()
                .name(format!("loader {i}"))
                .spawn(move || shared.work())?;
            loader.threads.push(thread);
        }
        Ok(loader)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock; if it did, the state is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(position) = self.claim() {
            let batch = catch_unwind(AssertUnwindSafe(|| self.source.build(position)))
                .unwrap_or_else(|panic| Err(panic_error(position, &*panic)));
            self.lock().ready.insert(position, batch);
            self.ready.notify_one();
        }
    }

    fn claim(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.stop || state.next_to_claim >= self.end {
                return None;
            }
            if state.next_to_claim - state.next_to_deliver < self.prefetch {
                state.next_to_claim += 1;
                return Some(state.next_to_claim - 1);
            }
            state = self.may_claim.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn panic_error(position: u64, panic: &(dyn Any + Send)) -> Error {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Error::other(format!(
        "building batch {position} failed because of a bug in this program; please report it: {message}"
    ))
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let shared = &self.shared;
        let mut state = shared.lock();
        let position = state.next_to_deliver;
        if position >= shared.end {
            return None;
        }
        loop {
            if let Some(batch) = state.ready.remove(&position) {
                state.next_to_deliver += 1;
                shared.may_claim.notify_one();
                return Some(batch);
            }
            state = shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let state = self.shared.lock();
        let left = self.shared.end.saturating_sub(state.next_to_deliver) as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Loader {}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.may_claim.notify_all();
        for thread in self.threads.drain(..) {
            // A worker's panics are caught in `work`; there is nothing left to report here.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::{Duration, Instant},
    };

    use image::RgbImage;

    use super::*;
    use crate::{
        random::{Random, Stream},
        targets::Target,
    };

    /// Batches of random pixels, built after random delays.
    struct Noise {
        built: AtomicU64,
        slowest: Duration,
    }

    impl Noise {
        fn new(slowest_ms: u64) -> Arc<Self> {
            let slowest = Duration::from_millis(slowest_ms);
            Arc::new(Self { built: AtomicU64::new(0), slowest })
        }
    }

    impl BatchSource for Noise {
        fn build(&self, position: u64) -> Result<Batch> {
            let number = self.built.fetch_add(1, Ordering::SeqCst);
            // The delay depends on timing; the contents do not.
            let delay = Random::new(number, Stream::Test, 1, 0).uniform();
            std::thread::sleep(self.slowest.mul_f64(delay));
            match position {
                13 => return Err(Error::other("thirteen")),
                17 => panic!("seventeen"),
                _ => {}
            }
            let mut random = Random::new(7, Stream::Test, 0, position);
            let (w, h) = (random.between(1, 9) as u32, random.between(1, 9) as u32);
            let image = RgbImage::from_fn(w, h, |_, _| image::Rgb([random.bits() as u8; 3]));
            let target = Target {
                image_id: position as i64,
                boxes: vec![],
                labels: vec![],
                knowledge: Default::default(),
                size: [h, w],
                original_size: [h, w],
                view: None,
                geometry: None,
            };
            Batch::collate(vec![(image, target)], vec![], 1)
        }
    }

    fn bytes(batch: &Batch) -> (i64, Vec<i64>, Vec<u8>) {
        let pixels = batch.images.contiguous().view([-1]);
        (batch.targets[0].image_id, batch.images.size(), Vec::try_from(&pixels).unwrap())
    }

    #[test]
    fn batches_and_their_order_do_not_depend_on_the_threads() {
        let run = |workers, prefetch| -> Vec<_> {
            let loader = Loader::new(Noise::new(5), 20..60, workers, prefetch).unwrap();
            assert_eq!(loader.len(), 40);
            loader.map(|batch| bytes(&batch.unwrap())).collect()
        };
        let one = run(1, 1);
        assert_eq!(one.iter().map(|b| b.0).collect::<Vec<_>>(), (20..60).collect::<Vec<_>>());
        for (workers, prefetch) in [(2, 3), (7, 4), (7, 20), (0, 0)] {
            assert!(run(workers, prefetch) == one, "{workers} workers, prefetch {prefetch}");
        }
    }

    #[test]
    fn no_more_than_prefetch_batches_are_ahead() {
        let source = Noise::new(1);
        let mut loader = Loader::new(source.clone(), 100..140, 4, 3).unwrap();
        for taken in 0..40 {
            // Time enough for the threads to run ahead, if they did.
            std::thread::sleep(Duration::from_millis(4));
            let ahead = source.built.load(Ordering::SeqCst) - taken;
            assert!(ahead <= 3, "{ahead} ahead of {taken}");
            loader.next().unwrap().unwrap();
        }
        assert!(loader.next().is_none());
        assert!(loader.next().is_none());
        assert_eq!(source.built.load(Ordering::SeqCst), 40);
    }

    #[test]
    fn errors_and_panics_arrive_at_their_positions() {
        let loader = Loader::new(Noise::new(2), 10..20, 3, 4).unwrap();
        let results: Vec<_> = loader.collect();
        assert_eq!(results.len(), 10);
        for (position, result) in (10..).zip(&results) {
            match position {
                13 => assert_eq!(result.as_ref().unwrap_err().to_string(), "thirteen"),
                17 => {
                    let text = result.as_ref().unwrap_err().to_string();
                    assert!(text.contains("batch 17") && text.contains("seventeen"), "{text}");
                }
                _ => assert_eq!(bytes(result.as_ref().unwrap()).0, position),
            }
        }
    }

    #[test]
    fn dropping_early_stops_and_joins_the_threads() {
        let source = Noise::new(20);
        let mut loader = Loader::new(source.clone(), 100..1_000_000, 4, 8).unwrap();
        loader.next().unwrap().unwrap();
        let start = Instant::now();
        drop(loader);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(Arc::strong_count(&source), 1, "every thread has let go of the source");
        assert!(source.built.load(Ordering::SeqCst) <= 9);
    }

    #[test]
    fn no_positions_give_no_batches() {
        assert!(Loader::new(Noise::new(1), 5..5, 2, 2).unwrap().next().is_none());
    }
}
