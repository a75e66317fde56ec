//! Signs of life. Each process counts up a number in the store, twice a second, and looks at the numbers of
//! others: rank 0 at those of all, all at that of rank 0. A number that stands still is that of a process that is
//! stopped, or on a machine that is gone, whatever it was at. A call of the store may never return (its machine
//! is gone): this thread alone makes such calls, and [`super::watch`] beside it sees that it hangs.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use torch_ext::Store;

use super::watch::{Failure, LastResort, Watch};
use crate::error::{Error, Result};

/// Time between two signs of life, at most.
const EVERY: Duration = Duration::from_millis(500);
/// How long a value that is there may take to come.
const STORE: Duration = Duration::from_secs(10);
/// Added to the number of a process that leaves in good order: it is below zero from then on.
const LEFT: i64 = i64::MIN / 2;

/// Gives signs of life and watches, in threads of their own, until [`Watch::end`]. `store` is a connection for this
/// alone.
///
/// # Errors
/// The store is gone.
pub(super) fn start(
    watch: &Arc<Watch>,
    store: Store,
    world: u64,
    last_resort: LastResort,
) -> Result<Vec<JoinHandle<()>>> {
    let pulse = Pulse::new(Arc::clone(watch), store, world)?;
    let watch = Arc::clone(watch);
    let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
        let named = std::thread::Builder::new().name(name.to_owned());
        // As of `std::thread::spawn`: a machine that has no thread left has no process for training.
        named.spawn(run).expect("the system starts a thread")
    };
    Ok(vec![
        start("pulse", Box::new(move || pulse.run())),
        start("watch", Box::new(move || watch.run(&last_resort))),
    ])
}

/// What was last seen of another process.
#[derive(Debug, Default)]
struct Seen {
    count: i64,
    /// Since when that has not changed.
    standing: Duration,
}

struct Pulse {
    watch: Arc<Watch>,
    /// A connection of this thread's own.
    store: Store,
    /// Those that this process looks at.
    others: BTreeMap<u64, Seen>,
    looked: Duration,
}

impl Pulse {
    /// Gives the first sign of life: whoever has met the others has given one.
    ///
    /// # Errors
    /// The store is gone.
    fn new(watch: Arc<Watch>, store: Store, world: u64) -> Result<Self> {
        let others = if watch.rank == 0 { 1..world } else { 0..1 };
        let others = others.map(|rank| (rank, Seen::default())).collect();
        let looked = watch.now();
        let pulse = Self { watch, store, others, looked };
        let rank = pulse.watch.rank;
        pulse.store.set(&pulse.host(rank), pulse.watch.host.as_bytes())?;
        pulse.store.add(&pulse.count(rank), 1)?;
        Ok(pulse)
    }

    /// Time between two signs of life: many fit into the group's patience.
    fn every(&self) -> Duration {
        EVERY.min(self.watch.patience / 20)
    }

    /// Until the process leaves, or fails, or the store is gone.
    fn run(mut self) {
        let mut result = Ok(());
        while result.is_ok() {
            let (told, ends) = self.wait();
            result = self.beat(told).and_then(|()| if ends { self.leave() } else { Ok(()) });
            if ends {
                break;
            }
        }
        self.watch.silent(result.err());
    }

    /// Sleeps until the next sign is due, or there is something to do: what to tell, and whether it is the last.
    fn wait(&self) -> (Option<Failure>, bool) {
        let state = self.watch.state();
        let waited = self.watch.changed.wait_timeout_while(state, self.every(), |state| {
            !state.over && state.to_tell.is_none()
        });
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (state.to_tell.take(), state.over)
    }

    fn beat(&mut self, told: Option<Failure>) -> Result<()> {
        let key = Watch::key_of_failure(&self.watch.prefix);
        if let Some(failure) = told {
            let text = serde_json::to_vec(&failure).map_err(|e| Error::other(e.to_string()))?;
            let first = self.store.set_once(&key, &text)?;
            self.watch.failed(serde_json::from_slice(&first).unwrap_or(failure));
        } else if self.store.has(&key)? {
            let text = self.store.get(&key, STORE)?;
            let failure = serde_json::from_slice(&text).map_err(|e| Error::other(e.to_string()))?;
            self.watch.failed(failure);
        }
        self.store.add(&self.count(self.watch.rank), 1)?;
        self.look()?;
        self.watch.answered();
        Ok(())
    }

    /// The key of a process's machine.
    fn host(&self, rank: u64) -> String {
        self.watch.key(&format!("host/{rank}"))
    }

    /// The key of a process's number.
    fn count(&self, rank: u64) -> String {
        self.watch.key(&format!("alive/{rank}"))
    }

    /// Looks whether the others are alive.
    fn look(&mut self) -> Result<()> {
        // No more than was looked at: while this process did not look, the others may not have been able to tell.
        let now = self.watch.now();
        let passed = (now - self.looked).min(4 * EVERY);
        self.looked = now;
        let mut gone = None;
        let ranks: Vec<u64> = self.others.keys().copied().collect();
        for rank in ranks {
            let count = self.store.add(&self.count(rank), 0)?;
            let Some(seen) = self.others.get_mut(&rank) else { continue };
            if seen.count != count {
                *seen = Seen { count, standing: Duration::ZERO };
                continue;
            }
            seen.standing += passed;
            // At 0 it has not come yet, below it has left.
            if count > 0 && seen.standing > self.watch.patience && gone.is_none() {
                gone = Some((rank, seen.standing));
            }
        }
        let Some((rank, standing)) = gone.filter(|_| self.watch.check().is_ok()) else {
            return Ok(());
        };
        let host = self.store.get(&self.host(rank), STORE)?;
        let problem = format!(
            "no sign of life for {} s: its process is stopped, or its machine is down or out of reach",
            standing.as_secs()
        );
        let host = String::from_utf8_lossy(&host).into_owned();
        self.beat(Some(Failure { rank, host, problem }))
    }

    /// Nobody is to look at this process any more.
    fn leave(&self) -> Result<()> {
        if self.watch.state().leaves {
            self.store.add(&self.count(self.watch.rank), LEFT)?;
        }
        Ok(())
    }
}
