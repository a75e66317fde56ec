//! Several processes, on one machine or many. They find each other through PyTorch's store. Rank 0 has a
//! connection to each of the others; small things go through it. Gradients go the same way on the CPU, and
//! through NCCL on GPUs.

use std::{
    io::ErrorKind,
    net::TcpListener,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use torch_ext::{Communicator, Store};

pub use super::watch::LastResort;
use super::{
    Collective, Pace,
    links::{Call, Link, connect},
    pack,
    place::Place,
    pulse, unpack,
    watch::{Failure, Watch},
};
use crate::error::{Error, Result};

/// What rank 0 waits longer than a process that finds out itself that it is stuck, so that this one can tell.
const LATER: Duration = Duration::from_secs(5);
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

/// Of rank 0 to the others by rank, of the others to rank 0.
#[derive(Debug)]
struct Links {
    all: Vec<Link>,
    /// Calls so far.
    calls: u64,
}

/// Where rank 0 listens, as it says in the store.
#[derive(Serialize, Deserialize)]
struct Hub {
    port: u16,
    /// What the others must say, so that no stranger joins.
    token: String,
}

/// What a process says of itself.
#[derive(Serialize, Deserialize)]
struct Hello {
    rank: u64,
    host: String,
    program: String,
    token: String,
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
}

/// Tells the others why this process ends.
fn tell(place: &Place, watch: &Watch, problem: &str) {
    watch.fail(watch.rank, &watch.host, problem);
    if place.keeps_store() {
        // It ends with this process; the others look twice a second.
        std::thread::sleep(SOON);
    }
}

/// The store, which rank 0 keeps where nobody else does.
fn open_store(place: &Place, patience: Duration) -> Result<Store> {
    let Place { host, port, .. } = place;
    if place.keeps_store() {
        return Store::serve(*port, patience).map_err(|error| {
            Error::other(format!("port {port} of this machine cannot be had: {error}")).with_hint(
                "another program has it: set MASTER_PORT to another one, for all processes",
            )
        });
    }
    Store::connect(host, *port, patience).map_err(|_| {
        let problem = format!(
            "rank {} of {} found no store at {host}:{port} within {} s",
            place.rank,
            place.world,
            patience.as_secs()
        );
        Error::other(problem).with_hint(
            "does the process of rank 0 run there, and is MASTER_ADDR its machine's name? A firewall may \
             be between the machines",
        )
    })
}

/// Rank 0 waits for the others.
fn welcome(
    place: &Place,
    watch: &Watch,
    store: &Store,
    program: &str,
    until: Duration,
) -> Result<Links> {
    let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let token = token()?;
    let hub = serde_json::to_vec(&Hub { port, token: token.clone() })
        .map_err(|error| Error::other(error.to_string()))?;
    store.set(&watch.key("hub"), &hub)?;
    let mut links: Vec<Option<Link>> = (1..place.world).map(|_| None).collect();
    while links.iter().any(Option::is_none) {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                watch.check()?;
                if watch.now() > until {
                    return Err(absent(place, watch, &links));
                }
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut link = Link::new(stream, place.world, "?".to_owned())?;
        // A stranger says something else, or nothing.
        let soon = Instant::now() + Duration::from_secs(2);
        let Some(hello) = link
            .hello(soon)
            .and_then(|text| serde_json::from_slice::<Hello>(&text).ok())
            .filter(|hello| hello.token == token)
        else {
            continue;
        };
        if hello.program != program {
            let problem = format!(
                "its program is another one than rank 0's ({} there, {program} here)",
                hello.program
            );
            return Err(watch.fail(hello.rank, &hello.host, &problem));
        }
        let at = hello.rank.checked_sub(1).map(|at| at as usize);
        match at.and_then(|at| links.get_mut(at)) {
            Some(free @ None) => {
                (link.rank, link.host) = (hello.rank, hello.host);
                *free = Some(link);
            }
            _ => {
                let problem = format!("a second process has rank {}", hello.rank);
                return Err(watch.fail(hello.rank, &hello.host, &problem));
            }
        }
    }
    let mut all: Vec<Link> = links.into_iter().flatten().collect();
    for link in &mut all {
        link.send(watch, (Call::Join, 0), watch.host.as_bytes(), until)?;
    }
    Ok(Links { all, calls: 0 })
}

/// The error of processes that did not come.
fn absent(place: &Place, watch: &Watch, links: &[Option<Link>]) -> Error {
    let missing: Vec<String> = (1..place.world)
        .zip(links)
        .filter(|(_, link)| link.is_none())
        .map(|(rank, _)| rank.to_string())
        .collect();
    Error::other(format!(
        "{} of {} processes did not come within {} s: rank {}",
        missing.len(),
        place.world,
        watch.patience.as_secs(),
        missing.join(", ")
    ))
    .with_hint("start all of them; see what those say that ended at once")
}

/// The others go to rank 0.
fn knock(
    place: &Place,
    watch: &Watch,
    store: &Store,
    program: String,
    until: Duration,
) -> Result<Links> {
    let key = watch.key("hub");
    while !store.has(&key)? {
        watch.check()?;
        if watch.now() > until {
            let patience = watch.patience.as_secs();
            let problem = format!("the process of rank 0 did not come within {patience} s");
            return Err(Error::other(problem).with_hint("start all processes"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = store.get(&key, watch.patience)?;
    let Hub { port, token } =
        serde_json::from_slice(&text).map_err(|error| Error::other(error.to_string()))?;
    let stream = connect(watch, &place.host, port, until)?;
    let mut link = Link::new(stream, 0, place.host.clone())?;
    let hello = Hello { rank: place.rank, host: watch.host.clone(), program, token };
    let hello = serde_json::to_vec(&hello).map_err(|error| Error::other(error.to_string()))?;
    link.send(watch, (Call::Join, 0), &hello, until)?;
    // Rank 0 answers when all have come, or tells who has not.
    let host = link.receive(watch, (Call::Join, 0), until + LATER)?;
    link.host = String::from_utf8_lossy(&host).into_owned();
    Ok(Links { all: vec![link], calls: 0 })
}

/// A secret of this run.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut fs_err::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
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
