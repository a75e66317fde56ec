//! Ctrl-C and `kill`.

use std::{
    io::Read as _,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ},
    flag, low_level,
};

use crate::{exit, output};

/// SIGINT, SIGTERM and SIGHUP (the terminal is gone) ask to stop in good order; a second one says so and ends the
/// process at once; a third one ends it should the words not come through. A process that was started to ignore SIGHUP, as by `nohup`, goes on ignoring it.
pub(crate) struct Signals {
    /// Set by the first signal.
    pub(crate) stop: Arc<AtomicBool>,
    /// Number of the signal that was received.
    which: Arc<AtomicUsize>,
}

impl Signals {
    /// Starts to catch signals.
    pub(crate) fn catch() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let which = Arc::new(AtomicUsize::new(SIGINT as usize));
        let ending = Arc::new(AtomicBool::new(false));
        let (mut heard, told) = UnixStream::pair()?;
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&ending))?;
            flag::register_usize(signal, Arc::clone(&which), signal as usize)?;
            flag::register(signal, Arc::clone(&stop))?;
            // A handler may not write to the terminal: a thread does, which it wakes.
            low_level::pipe::register(signal, told.try_clone()?)?;
        }
        let last = Arc::clone(&which);
        let listen = move || {
            // One byte a signal.
            if heard.read_exact(&mut [0; 2]).is_ok() {
                ending.store(true, Ordering::Relaxed);
                output::note("ended at once: what was not saved yet is lost");
                low_level::exit(128 + last.load(Ordering::Relaxed) as i32);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
        Ok(Self { stop, which })
    }

    /// The signal that was received, if one was.
    pub(crate) fn received(&self) -> Option<i32> {
        let which = || self.which.load(Ordering::Relaxed) as i32;
        self.stop.load(Ordering::Relaxed).then(which)
    }

    /// The exit code of a process that this signal ended.
    pub(crate) fn exit_code(&self) -> u8 {
        exit::signal(self.which.load(Ordering::Relaxed))
    }

    /// Tells the user that nothing is left of what was begun, and gives the exit code.
    pub(crate) fn tell_undone(&self, output: &Path) -> u8 {
        output::note(format!("stopped: `{}` is as it was", output.display()));
        self.exit_code()
    }
}

/// Lets a file that grows beyond the limit of the system (`ulimit -f`) be an error of writing, as a full disk is: the
/// signal would end the process and leave what is half written.
pub(crate) fn outlive_limits() -> Result<()> {
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// Whether this process ignores a signal, from Linux's record. Without such a record: no.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
