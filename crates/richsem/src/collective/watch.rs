//! Who failed, and whether this process is getting on: a thread beside the work, which ends the process where the
//! work cannot end itself. It waits for nothing but time: what may hang is in [`super::pulse`], which it watches
//! too.

use std::{
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{Pace, clock::Clock, work::Work};
use crate::error::{Error, Result};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(100);
/// Time that the work of this process has to end by itself once a process failed.
const GRACE: Duration = Duration::from_secs(10);
/// How long the others are waited for where none of them can tell whether it is getting on.
const LONG: Duration = Duration::from_secs(30 * 60);
/// How long they are waited for where each tells it of itself.
const EVER: Duration = Duration::from_secs(30 * 24 * 3600);
/// How many times as long as the step before it a step may take, if that is more than the patience.
const SLOWER: u32 = 4;
/// How long the store is waited for that is to hear of a failure, and whoever is about to tell one.
const SOON: Duration = Duration::from_secs(3);

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

/// Times are of the watch's clock.
#[derive(Debug)]
pub(super) struct State {
    pace: Pace,
    /// Since when the process is at work on the same, or waits for the others.
    since: Duration,
    /// When it last said that it is getting on, and how long it had taken since it said so before.
    said: Option<Duration>,
    before: Duration,
    waits: bool,
    /// In all, up to the last time that it began to work.
    waited: Duration,
    /// When the store last answered.
    answered: Duration,
    /// Nothing more comes from the store.
    silent: bool,
    pub(super) to_tell: Option<Failure>,
    pub(super) over: bool,
    /// It ends because its work is done.
    pub(super) leaves: bool,
}

type OnFailure = Box<dyn FnOnce() + Send>;

/// What a process knows of the others' failures, and they of its own.
pub(super) struct Watch {
    pub(super) rank: u64,
    pub(super) host: String,
    pub(super) patience: Duration,
    /// Before every key of this run.
    pub(super) prefix: String,
    /// Where the store is, for messages.
    at: String,
    clock: Clock,
    failure: OnceLock<Failure>,
    state: Mutex<State>,
    pub(super) changed: Condvar,
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
        (prefix, at): (String, String),
        patience: Duration,
    ) -> Self {
        let state = State {
            pace: Pace::Long,
            since: Duration::ZERO,
            said: None,
            before: Duration::ZERO,
            waits: false,
            waited: Duration::ZERO,
            answered: Duration::ZERO,
            silent: false,
            to_tell: None,
            over: false,
            leaves: false,
        };
        Self {
            rank,
            host,
            patience,
            prefix,
            at,
            clock: Clock::default(),
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time that this process has had.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    pub(super) fn pace(&self, pace: Pace) {
        let now = self.now();
        let mut state = self.state();
        state.pace = pace;
        state.before = state.said.map_or(Duration::ZERO, |said| now.saturating_sub(said));
        (state.said, state.since) = (Some(now), now);
    }

    /// How long another process may be at work before this one gives it up.
    pub(super) fn limit(&self) -> Duration {
        let state = self.state();
        match state.pace {
            Pace::Long => LONG,
            Pace::Share => EVER,
            Pace::Steps => self.longest(&state),
        }
    }

    /// How long a step may take.
    fn longest(&self, state: &State) -> Duration {
        self.patience.max(state.before * SLOWER)
    }

    /// Whether this process waits for others from now on, or is at work itself.
    pub(super) fn waits(&self, waits: bool) {
        let now = self.now();
        let mut state = self.state();
        if state.waits {
            let more = now.saturating_sub(state.since);
            state.waited += more;
        }
        state.waits = waits;
        state.since = now;
    }

    /// Time that this process has waited for others in all.
    pub(super) fn waited(&self) -> Duration {
        self.state().waited
    }

    /// What is to be done at once when a process fails, from a thread beside the work.
    pub(super) fn on_failure(&self, act: OnFailure) {
        *self.on_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(act);
    }

    /// Nothing is watched any more, and nobody is to look at this process if it `leaves` with its work done.
    pub(super) fn end(&self, leaves: bool) {
        let mut state = self.state();
        if !state.over {
            (state.over, state.leaves) = (true, leaves);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// # Errors
    /// A process failed.
    pub(super) fn check(&self) -> Result<()> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Notes the failure that counts.
    pub(super) fn failed(&self, failure: Failure) {
        drop(self.failure.set(failure));
        // Not between someone's look and wait.
        drop(self.state());
        self.changed.notify_all();
    }

    /// Waits a little for a failure.
    fn await_failure(&self, state: MutexGuard<'_, State>) {
        let waited = self
            .changed
            .wait_timeout_while(state, SOON, |state| !state.silent && self.failure.get().is_none());
        drop(waited);
    }

    /// Tells all that a process failed. Gives the failure that counts: the first that was told.
    pub(super) fn fail(&self, rank: u64, host: &str, problem: &str) -> Error {
        let failure = Failure { rank, host: host.to_owned(), problem: problem.to_owned() };
        let mut state = self.state();
        if self.failure.get().is_none() {
            state.to_tell.get_or_insert_with(|| failure.clone());
            self.changed.notify_all();
            self.await_failure(state);
        } else {
            drop(state);
        }
        self.failure.get_or_init(|| failure).error()
    }

    /// The other end of a connection is closed. Whoever closed it, or who started it, may be about to say why.
    pub(super) fn gone(&self, rank: u64, host: &str) -> Error {
        self.await_failure(self.state());
        match self.check() {
            Err(error) => error,
            Ok(()) => self.fail(rank, host, "its process ended without a word: was it killed?"),
        }
    }

    /// The store has answered.
    pub(super) fn answered(&self) {
        let now = self.now();
        self.state().answered = now;
    }

    /// The store is not asked any more, with an error because it is gone.
    pub(super) fn silent(&self, error: Option<Error>) {
        if let Some(error) = error {
            self.lost(&format!("the store of the run is gone ({error})"));
        }
        self.state().silent = true;
        self.changed.notify_all();
    }

    /// The store was rank 0's, or that of the program which started the processes: it is gone with it.
    fn lost(&self, problem: &str) {
        let (host, problem) = (self.at.clone(), problem.to_owned());
        self.failed(Failure { rank: 0, host, problem });
    }

    /// Watches until [`Self::end`].
    pub(super) fn run(&self, last_resort: &LastResort) {
        let mut last = Instant::now();
        let mut failed: Option<Duration> = None;
        let mut work = Work::of_this_process();
        loop {
            let waited = self.changed.wait_timeout_while(self.state(), EVERY, |state| !state.over);
            drop(waited);
            self.clock.tick(&mut last);
            let now = self.now();
            if self.failure.get().is_none() {
                self.judge(now, &mut work);
            }
            if self.state().over {
                return;
            }
            let Some(failure) = self.failure.get() else { continue };
            let since = *failed.get_or_insert_with(|| {
                let act = self.on_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                // It may hang: this thread must not.
                act.into_iter().for_each(|act| drop(std::thread::spawn(act)));
                now
            });
            if now - since > GRACE {
                last_resort(&failure.error());
                return;
            }
        }
    }

    /// Whether this process is stuck, or the store is.
    fn judge(&self, now: Duration, work: &mut Work) {
        let state = self.state();
        if state.over {
            return;
        }
        let silence = now.saturating_sub(state.answered);
        let time = now.saturating_sub(state.since);
        let (pace, waits, longest) = (state.pace, state.waits, self.longest(&state));
        drop(state);
        let stuck = match pace {
            _ if waits => None,
            // It is given time for as long as anything is done.
            Pace::Long => {
                let idle = work.idle(now).min(time);
                (idle > self.patience).then(|| {
                    format!(
                        "nothing done for {} s: a file, a lock or the device does not answer",
                        idle.as_secs()
                    )
                })
            }
            Pace::Share | Pace::Steps if time <= longest => None,
            Pace::Share | Pace::Steps => {
                let what = if pace == Pace::Steps { "training step" } else { "batch" };
                Some(format!(
                    "no {what} for {} s: reading images, the device, or other processes hold it up",
                    time.as_secs()
                ))
            }
        };
        // The others see a process that stands still a little earlier than they see that its store does.
        if silence > self.patience + EVERY {
            self.lost(&format!("the store of the run does not answer for {} s", silence.as_secs()));
        } else if let Some(problem) = stuck {
            self.fail(self.rank, &self.host, &problem);
        }
    }
}
