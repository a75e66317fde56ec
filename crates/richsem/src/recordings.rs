//! Which shapes of a computation are recorded as CUDA graphs, and when.

use std::{collections::HashMap, fmt};

use crate::error::{Error, Result, guarded};

/// Calls of a shape before it is recorded: kernels are compiled and algorithms chosen by then, and a
/// shape that comes once is not worth a recording.
const BEFORE: u64 = 2;
/// Most recordings that are kept. Each holds a few megabytes of the device's memory, and its inputs
/// and results.
const MOST: usize = 64;

/// Recordings by the shapes that they are for.
pub(crate) struct Recordings<R> {
    entries: HashMap<Vec<i64>, Entry<R>>,
    calls: u64,
}

struct Entry<R> {
    seen: u64,
    last: u64,
    recording: Option<R>,
}

impl<R> Default for Recordings<R> {
    fn default() -> Self {
        Self { entries: HashMap::new(), calls: 0 }
    }
}

impl<R> fmt::Debug for Recordings<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recordings").field("shapes", &self.entries.keys()).finish_non_exhaustive()
    }
}

impl<R> Recordings<R> {
    /// The recording for this key, made by `record` at its third call; none before.
    ///
    /// # Errors
    /// What `record` returns, and how to go without recordings.
    pub(crate) fn get(
        &mut self,
        key: Vec<i64>,
        record: impl FnOnce() -> Result<R>,
    ) -> Result<Option<&R>> {
        self.calls += 1;
        let entry =
            self.entries.entry(key.clone()).or_insert(Entry { seen: 0, last: 0, recording: None });
        entry.seen += 1;
        entry.last = self.calls;
        if entry.recording.is_none() && entry.seen > BEFORE {
            let recording = guarded(record).map_err(|error| {
                let problem = format!("a pass could not be recorded as a CUDA graph: {error}");
                Error::config("train.cuda_graphs", problem)
                    .with_hint("--set train.cuda_graphs=false goes without")
            })?;
            self.make_room();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.recording = Some(recording);
            }
        }
        Ok(self.entries.get(&key).and_then(|entry| entry.recording.as_ref()))
    }

    /// Drops the recording that was not asked for the longest, where there are too many.
    fn make_room(&mut self) {
        let kept = self.entries.iter().filter(|(_, entry)| entry.recording.is_some());
        if kept.clone().count() < MOST {
            return;
        }
        if let Some(oldest) = kept.min_by_key(|(_, entry)| entry.last).map(|(key, _)| key.clone()) {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_recorded_at_its_third_call() {
        let mut recordings = Recordings::default();
        let mut made = 0;
        for call in 0..5 {
            let got = recordings.get(vec![1, 2], || {
                made += 1;
                Ok(call)
            });
            assert_eq!(got.unwrap().copied(), (call >= 2).then_some(2));
        }
        assert_eq!(made, 1);
        assert_eq!(recordings.get(vec![2, 1], || Ok(9)).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_recorded_is_explained() {
        let mut recordings = Recordings::<()>::default();
        let mut ask = || {
            let made = recordings.get(vec![1], || Err(Error::Other("no room".into())));
            made.map(|recording| recording.is_none())
        };
        assert!(ask().unwrap() && ask().unwrap());
        let error = ask().unwrap_err().to_string();
        assert!(error.contains("no room") && error.contains("cuda_graphs=false"), "{error}");
    }

    #[test]
    fn the_one_that_was_not_asked_for_the_longest_goes() {
        let mut recordings = Recordings::default();
        let mut ask = |shape: i64| {
            let mut last = None;
            for _ in 0..3 {
                last = recordings.get(vec![shape], || Ok(shape)).unwrap().copied();
            }
            last
        };
        for shape in 0..MOST as i64 {
            assert_eq!(ask(shape), Some(shape));
        }
        // Shape 0 is asked for again, so shape 1 makes room for the next.
        assert_eq!(ask(0), Some(0));
        assert_eq!(ask(1000), Some(1000));
        assert_eq!(recordings.get(vec![0], || Ok(-1)).unwrap(), Some(&0));
        assert_eq!(recordings.get(vec![1], || Ok(-1)).unwrap(), None);
    }
}
