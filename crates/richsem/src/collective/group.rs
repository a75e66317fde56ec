//! Several processes, on one machine or many. They find each other through PyTorch's store. Rank 0 has a
//! connection to each of the others; small things go through it. Gradients go the same way on the CPU, and
//! through NCCL on GPUs.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tch::{Device, Kind, Tensor};
use torch_ext::{Communicator, Store};

pub use super::watch::LastResort;
use super::{
    Collective, Pace,
    links::Call,
    meet::{LATER, Links, knock, open_store, welcome},
    pack,
    place::Place,
    pulse, unpack,
    watch::{Failure, Watch},
};
use crate::error::{Error, Result};

/// How long the threads beside the work may take for what is left to them, or the others to look.
const SOON: Duration = Duration::from_secs(2);

/// How a process joins the others.
pub struct Joining {
    /// Which program this is: processes of different ones do not run together.
    pub program: String,
    /// How long processes wait for one another, at the start and in a training step.
    pub patience: Duration,
    /// Ends the process where its work cannot: it is stuck, and another process failed.
    pub last_resort: LastResort,
}

/// The processes of a run.
#[derive(Debug)]
pub struct Group {
    place: Place,
    /// Of rank 0 this may be the store itself.
    _store: Store,
    watch: Arc<Watch>,
    watchers: Mutex<Vec<JoinHandle<()>>>,
    links: Mutex<Links>,
    /// Of the GPUs, where it computes on them.
    gpus: OnceLock<Arc<Communicator>>,
}

/// Before every key of one start of a run.
fn prefix(attempt: &str) -> String {
    format!("richsem/{attempt}")
}

/// Which process failed, as those of one start of a run told their store: for the program that started them.
///
/// # Errors
/// The store is gone.
pub fn told_in(store: &Store, attempt: &str) -> Result<Option<Error>> {
    let key = Watch::key_of_failure(&prefix(attempt));
    if !store.has(&key)? {
        return Ok(None);
    }
    let text = store.get(&key, SOON)?;
    let failure: Failure =
        serde_json::from_slice(&text).map_err(|error| Error::other(error.to_string()))?;
    Ok(Some(failure.error()))
}

/// Tells the processes of a run, through their store, that one of them on this machine failed: for the program
/// that started them.
///
/// # Errors
/// The store is gone.
pub fn tell_of(store: &Store, attempt: &str, rank: u64, problem: &str) -> Result<()> {
    let failure = Failure { rank, host: host_name(), problem: problem.to_owned() };
    let text = serde_json::to_vec(&failure).map_err(|error| Error::other(error.to_string()))?;
    store.set_once(&Watch::key_of_failure(&prefix(attempt)), &text)?;
    Ok(())
}

/// This machine's name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "?".to_owned(),
        name => name.to_owned(),
    }
}

impl Group {
    /// Meets the other processes.
    ///
    /// # Errors
    /// A port that is taken, an address that does not answer, a process that does not come in time or is of
    /// another program.
    pub fn join(place: &Place, joining: Joining) -> Result<Arc<Self>> {
        let Joining { program, patience, last_resort } = joining;
        let store = open_store(place, patience)?;
        // One's own store is on this machine, whatever others call it.
        let host = if place.keeps_store() { "localhost" } else { &place.host };
        let of_watcher = Store::connect(host, store.port(), patience)?;
        let prefix = prefix(&place.attempt);
        let at = format!("{}:{}", place.host, place.port);
        let me = (place.rank, host_name());
        let watch = Arc::new(Watch::new(me, (prefix, at), patience));
        let watchers = pulse::start(&watch, of_watcher, place.world, last_resort)?;
        // Of one that has come and is stopped, its missing signs of life tell more, and a little later.
        let until = watch.now() + patience + SOON;
        let links = match place.rank {
            0 => welcome(place, &watch, &store, &program, until),
            _ => knock(place, &watch, &store, program, until),
        };
        let links = links.inspect_err(|error| {
            if !matches!(error, Error::Process { .. }) {
                tell(place, &watch, &error.to_string());
            }
            watch.end(false);
        })?;
        let (watchers, links) = (Mutex::new(watchers), Mutex::new(links));
        let place = place.clone();
        Ok(Arc::new(Self { place, _store: store, watch, watchers, links, gpus: OnceLock::new() }))
    }

    /// Connects the devices, where these are GPUs.
    ///
    /// # Errors
    /// Processes that compute on devices of different kinds; NCCL is missing, or refuses.
    pub fn compute_on(&self, device: Device) -> Result<()> {
        let kind = if device.is_cuda() { "a GPU" } else { "the CPU" };
        let all = self.exchange(kind.as_bytes().to_vec())?;
        if let Some(other) = all.iter().position(|other| other != kind.as_bytes()) {
            let problem = format!("rank {other} does not compute on {kind}, as this process does");
            return Err(Error::other(problem).with_hint("set --device for all processes alike"));
        }
        if !device.is_cuda() {
            return Ok(());
        }
        let id = if self.leads() { Communicator::unique_id()? } else { Vec::new() };
        let id = self.exchange(id)?.swap_remove(0);
        let _waiting = Waiting::of(&self.watch);
        let until = self.until();
        let mut go_on = || self.watch.check().is_ok() && self.watch.now() < until;
        let place = (self.place.rank, self.place.world);
        let gpus = Arc::new(Communicator::new(device, place, &id, &mut go_on)?);
        let given_up = Arc::clone(&gpus);
        self.watch.on_failure(Box::new(move || given_up.abort()));
        let _ = self.gpus.set(gpus);
        Ok(())
    }

    /// Tells the other processes why this one ends, unless another one failed before.
    pub fn fail(&self, problem: &str) {
        tell(&self.place, &self.watch, problem);
        self.watch.end(false);
    }

    /// The end of a run that went well: rank 0 is the last to leave.
    ///
    /// # Errors
    /// A process that failed or is gone.
    pub fn leave(&self) -> Result<()> {
        self.pace(Pace::Long);
        self.call(Call::Leave, Vec::new(), false)?;
        self.watch.end(true);
        let until = Instant::now() + SOON;
        let watchers =
            std::mem::take(&mut *self.watchers.lock().unwrap_or_else(PoisonError::into_inner));
        // What they still have to do is nothing where the store is gone, and may then not end.
        while Instant::now() < until && !watchers.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when others are waited for, on the watch's clock.
    fn until(&self) -> Duration {
        // The others wait for rank 0, which waits for the slowest: it tells which one that is.
        let steps = if self.place.rank == 0 { 1 } else { 2 };
        self.watch.now() + self.watch.limit() + LATER * steps
    }

    /// Rank 0 gets what each has, by rank; with `back`, all do.
    fn call(&self, call: Call, bytes: Vec<u8>, back: bool) -> Result<Option<Vec<Vec<u8>>>> {
        let mut links = self.links();
        links.calls += 1;
        let Links { all, calls } = &mut *links;
        let (number, until) = ((call, *calls), self.until());
        let watch = &*self.watch;
        watch.check()?;
        let _waiting = Waiting::of(watch);
        if self.place.rank > 0 {
            all[0].send(watch, number, &bytes, until)?;
            if !back {
                return Ok(None);
            }
            let text = all[0].receive(watch, number, until)?;
            return unpack(&text).map(Some);
        }
        let mut each = vec![bytes];
        for link in all.iter_mut() {
            each.push(link.receive(watch, number, until)?);
        }
        if back {
            let text = pack(&each);
            for link in all.iter_mut() {
                link.send(watch, number, &text, until)?;
            }
        }
        Ok(Some(each))
    }

    /// The mean of one buffer on the host, summed in the order of the ranks.
    fn mean_on_host(&self, buffer: &Tensor) -> Result<()> {
        let mut links = self.links();
        links.calls += 1;
        let Links { all, calls } = &mut *links;
        let (number, until) = ((Call::Mean, *calls), self.until());
        let watch = &*self.watch;
        let _waiting = Waiting::of(watch);
        let (size, kind) = (buffer.size(), buffer.kind());
        let mut mean = buffer.shallow_clone();
        let tensor = |bytes: &[u8]| Tensor::f_from_data_size(bytes, &size, kind);
        if self.place.rank > 0 {
            all[0].send(watch, number, &to_bytes(buffer)?, until)?;
            let bytes = all[0].receive(watch, number, until)?;
            mean.f_copy_(&tensor(&bytes)?)?;
            return Ok(());
        }
        for link in all.iter_mut() {
            let bytes = link.receive(watch, number, until)?;
            let _ = mean.f_add_(&tensor(&bytes)?)?;
        }
        let _ = mean.f_div_scalar_(self.place.world as f64)?;
        let bytes = to_bytes(&mean)?;
        for link in all.iter_mut() {
            link.send(watch, number, &bytes, until)?;
        }
        Ok(())
    }
}

/// While it lives, this process waits for others.
struct Waiting<'a>(&'a Watch);

impl<'a> Waiting<'a> {
    fn of(watch: &'a Watch) -> Self {
        watch.waits(true);
        Self(watch)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waits(false);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.watch.end(false);
    }
}

impl Collective for Group {
    fn rank(&self) -> u64 {
        self.place.rank
    }

    fn world(&self) -> u64 {
        self.place.world
    }

    fn exchange(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(self.call(Call::Exchange, bytes, true)?.unwrap_or_default())
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>> {
        self.call(Call::Gather, bytes, false)
    }

    fn mean_gradients(&self, buffers: &[Tensor]) -> Result<()> {
        if let Some(gpus) = self.gpus.get() {
            self.watch.check()?;
            let until = self.until();
            let mut go_on = || self.watch.check().is_ok() && self.watch.now() < until;
            // What another process failed with is the reason of whatever NCCL says then.
            return gpus.mean(buffers, &mut go_on).or_else(|error| {
                self.watch.check()?;
                Err(error.into())
            });
        }
        torch_ext::no_grad(|| buffers.iter().try_for_each(|buffer| self.mean_on_host(buffer)))
    }

    fn pace(&self, pace: Pace) {
        self.watch.pace(pace);
    }

    fn waited(&self) -> Duration {
        self.watch.waited()
    }

    fn host(&self) -> &str {
        &self.watch.host
    }
}

/// Tells the others why this process ends.
fn tell(place: &Place, watch: &Watch, problem: &str) {
    watch.fail(watch.rank, &watch.host, problem);
    if place.keeps_store() {
        // It ends with this process; the others look twice a second.
        std::thread::sleep(SOON);
    }
}

fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let count = tensor.numel();
    let size = match tensor.kind() {
        Kind::Float => 4,
        Kind::Double => 8,
        kind => return Err(Error::other(format!("gradients of kind {kind:?} have no mean"))),
    };
    let mut bytes = vec![0; count * size];
    tensor.f_contiguous()?.f_copy_data_u8(&mut bytes, count)?;
    Ok(bytes)
}
