//! Being told to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use anyhow::Result;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::exit;

/// SIGINT and SIGTERM ask to save and stop; a second one ends the process at once.
pub(crate) struct Signals {
    /// Set by the first signal.
    pub(crate) stop: Arc<AtomicBool>,
    /// Number of the signal that came.
    which: Arc<AtomicUsize>,
}

impl Signals {
    pub(crate) fn catch() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let which = Arc::new(AtomicUsize::new(SIGINT as usize));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset and sets it.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
            flag::register_usize(signal, Arc::clone(&which), signal as usize)?;
            flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self { stop, which })
    }

    /// Of a process that one of them stopped.
    pub(crate) fn exit_code(&self) -> u8 {
        exit::signal(self.which.load(Ordering::Relaxed))
    }
}
