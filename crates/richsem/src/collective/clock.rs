//! A clock that stands still while the process does: stopped (SIGSTOP), or on a machine that sleeps. Time that a
//! process did not have counts against nobody.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The most that passes between two ticks: whoever ticks was not awake for longer.
const MOST: Duration = Duration::from_secs(1);

/// Time since the first tick.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    /// What has passed, in whole microseconds.
    pub(super) fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// Lets the time pass since `last`, and sets that to now. For one thread, many times a second.
    pub(super) fn tick(&self, last: &mut Instant) {
        let passed = last.elapsed();
        *last += passed;
        self.0.fetch_add(passed.min(MOST).as_micros() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_slept_through_does_not_count() {
        let clock = Clock::default();
        let now = Instant::now();
        let (hour, soon) = (Duration::from_secs(3600), Duration::from_millis(300));
        let Some(mut last) = now.checked_sub(hour) else { return };
        clock.tick(&mut last);
        assert_eq!(clock.now(), MOST);
        let Some(mut last) = Instant::now().checked_sub(soon) else { return };
        clock.tick(&mut last);
        let passed = clock.now() - MOST;
        assert!(passed >= soon && passed <= MOST, "{passed:?}");
    }
}
