//! Whether this process does anything at all, by what the system counts of its threads. One that waits for a file,
//! a lock or a device that never answers does nothing: no thread of it computes, none is woken, and no byte comes
//! from a disk.

use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Looks at the threads of this process.
#[derive(Debug)]
pub(super) struct Work {
    process: i32,
    last: Option<Done>,
    looked: Duration,
    idle: Duration,
}

/// What the threads of a process have done up to now, all together.
#[derive(Debug, Clone, Copy)]
struct Done {
    /// Time of processors.
    time: Duration,
    /// How often one of them had waited for something that came.
    wakeups: u64,
    /// Read from disks, or written.
    bytes: u64,
    /// One of them computes, or waits for a disk, at this moment.
    busy: bool,
}

impl Work {
    pub(super) fn of_this_process() -> Self {
        Self::of(std::process::id() as i32)
    }

    fn of(process: i32) -> Self {
        Self { process, last: None, looked: Duration::ZERO, idle: Duration::ZERO }
    }

    /// For how long the process has done nothing. To be asked often; `now` is the time of one clock. Where the
    /// system does not count, it is never idle.
    pub(super) fn idle(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.looked);
        if passed < EVERY {
            return self.idle;
        }
        let done = done(self.process);
        let is_idle = match (self.last, done) {
            (Some(before), Some(done)) => done.is_nothing_since(&before, passed),
            _ => false,
        };
        self.idle = if is_idle { self.idle + passed } else { Duration::ZERO };
        (self.last, self.looked) = (done, now);
        self.idle
    }
}

impl Done {
    /// Threads that only keep watch wake up now and then, and take next to no time.
    fn is_nothing_since(&self, before: &Self, passed: Duration) -> bool {
        let wakeups = self.wakeups.saturating_sub(before.wakeups) as f64;
        !self.busy
            && self.bytes == before.bytes
            && self.time.saturating_sub(before.time) <= passed.mul_f64(0.03)
            && wakeups <= 50.0 * passed.as_secs_f64()
    }
}

/// The threads of [`super::pulse`], [`super::watch`] and PyTorch's store.
#[cfg(target_os = "linux")]
const KEEPERS: [&str; 3] = ["pulse", "watch", "pt_tcpstore"];

#[cfg(target_os = "linux")]
fn done(process: i32) -> Option<Done> {
    use procfs::process::Process;

    let process = Process::new(process).ok()?;
    let io = process.io().ok()?;
    let (mut ticks, mut wakeups, mut busy) = (0, 0, false);
    // A thread that ended meanwhile has nothing to say.
    for task in process.tasks().ok()?.flatten() {
        let (Ok(stat), Ok(status)) = (task.stat(), task.status()) else { continue };
        if KEEPERS.iter().any(|name| stat.comm.starts_with(name)) {
            continue;
        }
        ticks += stat.utime + stat.stime;
        wakeups += status.voluntary_ctxt_switches.unwrap_or_default();
        busy |= matches!(stat.state, 'R' | 'D');
    }
    let time = Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64);
    Some(Done { time, wakeups, bytes: io.read_bytes + io.write_bytes, busy })
}

#[cfg(not(target_os = "linux"))]
fn done(_process: i32) -> Option<Done> {
    None
}

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        process::{Command, Stdio},
        time::Instant,
    };

    use super::*;

    /// How long a command has been idle after some seconds.
    fn idle_of(script: &str) -> Duration {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (started, mut work) = (Instant::now(), Work::of(child.id() as i32));
        let mut idle = Duration::ZERO;
        while started.elapsed() < Duration::from_secs(5) {
            idle = work.idle(started.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        idle
    }

    #[test]
    fn one_that_waits_is_idle_and_one_that_works_is_not() {
        let waits = std::thread::spawn(|| idle_of("exec sleep 60"));
        let works = std::thread::spawn(|| idle_of("while :; do :; done"));
        assert!(waits.join().unwrap() > Duration::from_secs(2));
        assert!(works.join().unwrap() < Duration::from_secs(2));
    }

    #[test]
    fn one_that_is_gone_is_not_idle() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let mut work = Work::of(child.id() as i32);
        let idle = [1, 3, 9].map(|seconds| work.idle(Duration::from_secs(seconds)));
        assert_eq!(idle, [Duration::ZERO; 3]);
    }
}
