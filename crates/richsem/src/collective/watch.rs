//! Who failed, and whether this process is getting on: a thread beside the work, which asks the store twice a
//! second and ends the process where the work cannot end itself.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use torch_ext::Store;

use super::Pace;
use crate::error::{Error, Result};

/// Time between two looks at the store.
const EVERY: Duration = Duration::from_millis(500);
/// Time that the work of this process has to end by itself once a process failed.
const GRACE: Duration = Duration::from_secs(10);
/// How long whatever is no training step may take.
const LONG: Duration = Duration::from_secs(30 * 60);
/// How long a call of the store may take: it answers at once, or is gone.
const STORE: Duration = Duration::from_secs(10);

/// Which process failed first, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) rank: u64,
    pub(super) host: String,
    pub(super) problem: String,
}

impl Failure {
    pub(super) fn error(&self) -> Error {
        let Self { rank, host, problem } = self.clone();
        Error::Process { rank, host, problem }
    }
}

/// Ends the process with an error, from a thread beside the work.
pub type LastResort = Box<dyn Fn(&Error) + Send>;

#[derive(Debug)]
struct State {
    pace: Pace,
    /// Since when the process is at work, or waits for the others.
    since: Instant,
    waits: bool,
    over: bool,
}

type OnFailure = Box<dyn FnOnce() + Send>;

/// What a process knows of the others' failures, and they of its own.
pub(super) struct Watch {
    pub(super) rank: u64,
    pub(super) host: String,
    pub(super) patience: Duration,
    pub(super) store: Store,
    /// Before every key of this run.
    prefix: String,
    /// Where the store is, for messages.
    at: String,
    failure: OnceLock<Failure>,
    state: Mutex<State>,
    changed: Condvar,
    on_failure: Mutex<Option<OnFailure>>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("rank", &self.rank).field("host", &self.host).finish()
    }
}

impl Watch {
    pub(super) fn new(
        (rank, host): (u64, String),
        store: Store,
        (prefix, at): (String, String),
        patience: Duration,
    ) -> Self {
        let state = State { pace: Pace::Long, since: Instant::now(), waits: false, over: false };
        Self {
            rank,
            host,
            patience,
            store,
            prefix,
            at,
            failure: OnceLock::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            on_failure: Mutex::default(),
        }
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    pub(super) fn key_of_failure(prefix: &str) -> String {
        format!("{prefix}/failure")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pace(&self, pace: Pace) {
        let mut state = self.state();
        state.pace = pace;
        state.since = Instant::now();
    }

    /// How long another process may be at work before this one gives it up.
    pub(super) fn limit(&self) -> Duration {
        match self.state().pace {
            Pace::Long => LONG,
            Pace::Steps => self.patience,
        }
    }

    /// Whether this process waits for others from now on, or is at work itself.
    pub(super) fn waits(&self, waits: bool) {
        let mut state = self.state();
        state.waits = waits;
        state.since = Instant::now();
    }

    /// What is to be done at once when a process fails, from the thread beside the work.
    pub(super) fn on_failure(&self, act: OnFailure) {
        *self.on_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(act);
    }

    /// Nothing is watched any more.
    pub(super) fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    /// # Errors
    /// A process failed.
    pub(super) fn check(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Tells all that a process failed. Gives the failure that counts: the first that was told.
    pub(super) fn fail(&self, rank: u64, host: &str, problem: &str) -> Error {
        let failure = Failure { rank, host: host.to_owned(), problem: problem.to_owned() };
        let told = serde_json::to_vec(&failure)
            .ok()
            .and_then(|text| self.store.set_once(&Self::key_of_failure(&self.prefix), &text).ok())
            .and_then(|text| serde_json::from_slice(&text).ok());
        self.failure.get_or_init(|| told.unwrap_or(failure)).error()
    }

    /// Asks whether a process failed.
    fn look(&self, store: &Store) {
        let key = Self::key_of_failure(&self.prefix);
        let found = || -> Result<Option<Failure>> {
            if !store.has(&key)? {
                return Ok(None);
            }
            let text = store.get(&key, STORE)?;
            serde_json::from_slice(&text).map(Some).map_err(|e| Error::other(e.to_string()))
        };
        match found() {
            Ok(None) => {}
            Ok(Some(failure)) => drop(self.failure.set(failure)),
            Err(error) => {
                // Rank 0's, or that of the program which started the processes: it is gone with it.
                let problem = format!("the store of the run is gone ({error})");
                let host = self.at.clone();
                drop(self.failure.set(Failure { rank: 0, host, problem }));
            }
        }
    }

    /// The other end of a connection is closed. Whoever closed it, or who started it, may be about to say why.
    pub(super) fn gone(&self, rank: u64, host: &str) -> Error {
        for _ in 0..4 {
            if self.failure.get().is_some() {
                break;
            }
            std::thread::sleep(EVERY);
            self.look(&self.store);
        }
        match self.check() {
            Err(error) => error,
            Ok(()) => self.fail(rank, host, "its process ended without a word: was it killed?"),
        }
    }

    /// Watches until [`Self::end`]. `store` is a connection of this thread's own.
    pub(super) fn start(self: &Arc<Self>, store: Store, last_resort: LastResort) -> JoinHandle<()> {
        let watch = Arc::clone(self);
        std::thread::spawn(move || {
            let mut failed: Option<Instant> = None;
            loop {
                let state = watch.state();
                let unless_over = |state: &mut State| !state.over;
                let waited = watch.changed.wait_timeout_while(state, EVERY, unless_over);
                let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                if state.over {
                    return;
                }
                let stuck = (!state.waits && state.pace == Pace::Steps)
                    .then(|| state.since.elapsed())
                    .filter(|time| *time > watch.patience);
                drop(state);
                if let (Some(time), None) = (stuck, watch.failure.get()) {
                    let problem = format!(
                        "no training step for {} s: reading images, the device, or other processes hold \
                         it up",
                        time.as_secs()
                    );
                    watch.fail(watch.rank, &watch.host, &problem);
                }
                if watch.failure.get().is_none() {
                    watch.look(&store);
                }
                let Some(failure) = watch.failure.get() else { continue };
                let since = *failed.get_or_insert_with(|| {
                    let act =
                        watch.on_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                    act.into_iter().for_each(|act| act());
                    Instant::now()
                });
                if since.elapsed() > GRACE {
                    last_resort(&failure.error());
                    return;
                }
            }
        })
    }
}
