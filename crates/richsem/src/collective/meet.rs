//! How the processes of a run find each other: the store, then a connection of each to rank 0.

use std::{
    io::ErrorKind,
    net::TcpListener,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use torch_ext::Store;

use super::{
    links::{Call, Link, connect},
    place::Place,
    watch::Watch,
};
use crate::error::{Error, Result};

/// What rank 0 waits longer than a process that finds out itself that it is stuck, so that this one can tell.
pub(super) const LATER: Duration = Duration::from_secs(5);

/// Of rank 0 to the others by rank, of the others to rank 0.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) all: Vec<Link>,
    /// Calls so far.
    pub(super) calls: u64,
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

/// The store, which rank 0 keeps where nobody else does.
pub(super) fn open_store(place: &Place, patience: Duration) -> Result<Store> {
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
pub(super) fn welcome(
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
pub(super) fn knock(
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
