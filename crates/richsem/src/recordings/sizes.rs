//! The size at which a pass runs, and which sizes get recordings.

use std::collections::HashMap;

/// Height and width, in pixels.
pub(crate) type Size = [i64; 2];

/// Time to make a recording, in passes of its kind.
const COST: f64 = 16.0;
/// Extra time of a pass that is not recorded, in recorded passes.
const EAGER: f64 = 2.0;
/// A size gets a recording after this many passes without a fitting one. What comes once or twice
/// is not worth it.
const BEFORE: u32 = 2;

pub(super) fn area([height, width]: Size) -> f64 {
    height as f64 * width as f64
}

pub(super) fn covers(large: Size, small: Size) -> bool {
    large[0] >= small[0] && large[1] >= small[1]
}

/// The size that a pass runs at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// The batch's own size, not recorded.
    Own,
    /// The size of a recording.
    Kept(Size),
    /// This size, which is now to be recorded.
    New(Size),
}

impl At {
    /// Height and width of the network's input, for a batch of `size`.
    pub(crate) fn size(self, size: Size) -> Size {
        match self {
            Self::Own => size,
            Self::Kept(at) | Self::New(at) => at,
        }
    }
}

/// What a recording is for: images of a size, and all else that it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) of: Vec<i64>,
    pub(super) size: Size,
}

/// The sizes that have recordings, and those that wait for one.
#[derive(Debug, Default)]
pub(super) struct RecordedSizes {
    /// Whether a batch may be padded up to another size.
    padded: bool,
    /// Each recorded size, with the number of the call that used it last.
    kept: HashMap<Key, u64>,
    waiting: HashMap<Key, Waiting>,
    calls: u64,
    /// Passes without any recording that fits, before a size gets one.
    before: u32,
    /// RecordedSizes that are recorded when they are first needed.
    planned: Vec<Key>,
}

/// A size without a recording of its own.
#[derive(Debug, Default)]
struct Waiting {
    calls: u32,
    /// Time that was lost without a recording, in passes.
    lost: f64,
}

impl RecordedSizes {
    pub(super) fn new(padded: bool) -> Self {
        Self { padded, before: BEFORE, ..Self::default() }
    }

    /// The size at which a pass of images of `size` runs. New sizes are recorded only with `more`.
    ///
    /// Without a recording of its own a size loses time: by padding to a larger one, or by passes that are
    /// not recorded. It gets a recording when it has lost as much time as a recording takes. So the loss is
    /// at most twice the smallest possible one (the ski rental problem).
    pub(super) fn at(&mut self, of: &[i64], size: Size, more: bool) -> At {
        self.calls += 1;
        let fits = |key: &Key| {
            key.of == of && if self.padded { covers(key.size, size) } else { key.size == size }
        };
        let best = self.kept.iter_mut().filter(|(key, _)| fits(key));
        let best = best.min_by(|a, b| area(a.0.size).total_cmp(&area(b.0.size)));
        let best = best.map(|(key, last)| {
            *last = self.calls;
            key.size
        });
        let otherwise = best.map_or(At::Own, At::Kept);
        if best == Some(size) || !more {
            return otherwise;
        }
        let planned = self.planned.iter().filter(|key| fits(key)).map(|key| key.size);
        let planned = planned.min_by(|a, b| area(*a).total_cmp(&area(*b)));
        if let Some(planned) = planned
            && best.is_none_or(|best| area(planned) < area(best))
        {
            return At::New(planned);
        }
        // What else differs is rare: it takes the sizes that there are, or each batch would be alone.
        let others = self.kept.keys().map(|key| key.size).filter(|&kept| covers(kept, size));
        let others = others.min_by(|a, b| area(*a).total_cmp(&area(*b)));
        let new = others.filter(|_| best.is_none() && self.padded).unwrap_or(size);
        let before = if self.kept.keys().any(|key| key.of == of) { self.before } else { BEFORE };
        let key = Key { of: of.to_vec(), size: new };
        let waiting = self.waiting.entry(key.clone()).or_default();
        if waiting.lost >= COST || best.is_none() && waiting.calls >= before {
            self.waiting.remove(&key);
            return At::New(new);
        }
        waiting.calls += 1;
        waiting.lost += best.map_or(EAGER, |best| area(best) / area(size) - 1.0);
        otherwise
    }

    /// Has a size recorded when the first pass comes that it covers.
    pub(super) fn plan(&mut self, key: Key) {
        if !self.kept.contains_key(&key) && !self.planned.contains(&key) {
            self.planned.push(key);
        }
    }

    /// From now on a size that no recording covers gets one at once, if there is a recording with the same
    /// `of`. A pass that is not recorded takes memory of its own, beside that of the recordings.
    pub(super) fn at_once(&mut self) {
        self.before = 0;
    }

    /// Notes that there is a recording of this key now.
    pub(super) fn add(&mut self, key: Key) {
        self.calls += 1;
        self.planned.retain(|planned| *planned != key);
        self.kept.insert(key, self.calls);
    }

    /// Takes out the size that was unused for longest.
    pub(super) fn remove_oldest(&mut self) -> Option<Key> {
        let oldest = self.kept.iter().min_by_key(|(_, last)| **last).map(|(key, _)| key.clone())?;
        self.kept.remove(&oldest);
        Some(oldest)
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(sizes: &mut RecordedSizes, size: Size) {
        sizes.add(Key { of: vec![2], size });
    }

    /// Calls until a size is to be recorded, and where the passes before that run.
    fn until_new(sizes: &mut RecordedSizes, size: Size) -> (usize, At) {
        let first = sizes.at(&[2], size, true);
        let mut calls = 1;
        loop {
            match sizes.at(&[2], size, true) {
                At::New(at) => {
                    assert_eq!(at, size);
                    return (calls, first);
                }
                other => assert_eq!(other, first),
            }
            calls += 1;
        }
    }

    #[test]
    fn a_size_is_recorded_at_its_third_call() {
        for padded in [false, true] {
            let mut sizes = RecordedSizes::new(padded);
            assert_eq!(until_new(&mut sizes, [64, 96]), (2, At::Own));
            add(&mut sizes, [64, 96]);
            assert_eq!(sizes.at(&[2], [64, 96], true), At::Kept([64, 96]));
            // Other inputs need their own.
            assert_eq!(sizes.at(&[3], [64, 96], true), At::Own);
        }
    }

    #[test]
    fn a_batch_is_padded_to_the_least_that_covers_it_if_it_may_be() {
        for padded in [false, true] {
            let mut sizes = RecordedSizes::new(padded);
            for size in [[128, 128], [96, 128], [128, 64]] {
                add(&mut sizes, size);
            }
            let expected = if padded { At::Kept([96, 128]) } else { At::Own };
            assert_eq!(sizes.at(&[2], [64, 96], true), expected);
            assert_eq!(sizes.at(&[2], [160, 32], true), At::Own);
        }
    }

    #[test]
    fn what_is_planned_is_recorded_when_it_is_first_needed() {
        let mut sizes = RecordedSizes::new(true);
        let plan = |sizes: &mut RecordedSizes, size| sizes.plan(Key { of: vec![2], size });
        plan(&mut sizes, [128, 128]);
        plan(&mut sizes, [96, 128]);
        assert_eq!(sizes.at(&[2], [64, 64], true), At::New([96, 128]));
        // Not where there may be no more, nor for other inputs.
        assert_eq!(sizes.at(&[2], [64, 64], false), At::Own);
        assert_eq!(sizes.at(&[3], [64, 64], true), At::Own);
        add(&mut sizes, [96, 128]);
        assert_eq!(sizes.at(&[2], [64, 64], true), At::Kept([96, 128]));
        assert_eq!(sizes.at(&[2], [128, 64], true), At::New([128, 128]));
        add(&mut sizes, [128, 128]);
        plan(&mut sizes, [128, 128]);
        assert_eq!(sizes.at(&[2], [128, 64], true), At::Kept([128, 128]));
    }

    #[test]
    fn what_nothing_covers_is_recorded_at_once_if_told_so() {
        let mut sizes = RecordedSizes::new(true);
        add(&mut sizes, [96, 96]);
        sizes.at_once();
        assert_eq!(sizes.at(&[2], [128, 64], true), At::New([128, 64]));
        assert_eq!(sizes.at(&[2], [64, 96], true), At::Kept([96, 96]));
        // Of other inputs what comes once is not worth it, and few sizes serve all.
        assert_eq!(sizes.at(&[3], [64, 96], true), At::Own);
        assert_eq!(sizes.at(&[3], [96, 64], true), At::Own);
        assert_eq!(sizes.at(&[3], [32, 32], true), At::New([96, 96]));
    }

    #[test]
    fn what_is_lost_by_padding_pays_for_a_recording_in_the_end() {
        let mut sizes = RecordedSizes::new(true);
        add(&mut sizes, [100, 110]);
        // A tenth a pass: a recording costs 16 passes.
        let (calls, at) = until_new(&mut sizes, [100, 100]);
        assert_eq!(at, At::Kept([100, 110]));
        assert!((160..=162).contains(&calls), "{calls}");
        // With four times the pixels it pays soon, and never where there may be no more.
        assert_eq!(until_new(&mut sizes, [50, 55]).0, 6);
        assert!((0..500).all(|_| sizes.at(&[2], [50, 50], false) == At::Kept([100, 110])));
        assert_eq!(sizes.at(&[2], [200, 200], false), At::Own);
    }

    #[test]
    fn the_one_that_was_not_asked_for_the_longest_goes() {
        let mut sizes = RecordedSizes::new(false);
        for side in 1..4 {
            add(&mut sizes, [side, side]);
        }
        sizes.at(&[2], [1, 1], true);
        assert_eq!(sizes.remove_oldest().map(|key| key.size), Some([2, 2]));
        assert_eq!(sizes.len(), 2);
        assert_eq!(sizes.at(&[2], [2, 2], true), At::Own);
    }
}
