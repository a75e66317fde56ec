//! Connections between rank 0 and each of the others. What a process sends is told apart by kind and number,
//! so that two processes that are not at the same call find out.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::watch::Watch;
use crate::error::{Error, Result};

/// How long one read or write waits before it looks whether a process failed.
const LOOK: Duration = Duration::from_millis(100);

/// What a message is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Call {
    Join = 1,
    Exchange = 2,
    Gather = 3,
    Mean = 4,
    Leave = 5,
}

/// Which call of a process this is.
pub(super) type Number = (Call, u64);

const HEADER: usize = 17;

/// A connection to the process of that rank. Times are of the watch's clock.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    pub(super) rank: u64,
    pub(super) host: String,
}

impl Link {
    pub(super) fn new(stream: TcpStream, rank: u64, host: String) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        Ok(Self { stream, rank, host })
    }

    pub(super) fn send(
        &mut self,
        watch: &Watch,
        (call, number): Number,
        bytes: &[u8],
        until: Duration,
    ) -> Result<()> {
        let mut header = [0; HEADER];
        header[0] = call as u8;
        header[1..9].copy_from_slice(&number.to_le_bytes());
        header[9..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.write(watch, &header, until)?;
        self.write(watch, bytes, until)
    }

    pub(super) fn receive(
        &mut self,
        watch: &Watch,
        (call, number): Number,
        until: Duration,
    ) -> Result<Vec<u8>> {
        let mut header = [0; HEADER];
        self.read(watch, &mut header, until)?;
        let word =
            |at: usize| header[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        if header[0] != call as u8 || word(1) != number {
            let problem = format!(
                "it is at another call than rank {} ({} {}, not {} {number}): their programs or settings \
                 differ",
                watch.rank,
                header[0],
                word(1),
                call as u8
            );
            return Err(watch.fail(self.rank, &self.host, &problem));
        }
        let mut bytes = vec![0; word(9) as usize];
        self.read(watch, &mut bytes, until)?;
        Ok(bytes)
    }

    fn write(&mut self, watch: &Watch, mut bytes: &[u8], until: Duration) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => return Err(watch.gone(self.rank, &self.host)),
                Ok(count) => bytes = &bytes[count..],
                Err(error) => self.after(watch, &error, until)?,
            }
        }
        Ok(())
    }

    fn read(&mut self, watch: &Watch, bytes: &mut [u8], until: Duration) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.stream.read(&mut bytes[done..]) {
                Ok(0) => return Err(watch.gone(self.rank, &self.host)),
                Ok(count) => done += count,
                Err(error) => self.after(watch, &error, until)?,
            }
        }
        Ok(())
    }

    /// Whether to go on after a read or write that did not succeed.
    fn after(&self, watch: &Watch, error: &std::io::Error, until: Duration) -> Result<()> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                watch.check()?;
                if watch.now() < until {
                    return Ok(());
                }
                let problem = "it does not answer, though it is alive: it is stuck, or the connection is broken";
                Err(watch.fail(self.rank, &self.host, problem))
            }
            _ => Err(watch.gone(self.rank, &self.host)),
        }
    }
}

/// Connects to an address, trying all that a name has until the time is over.
pub(super) fn connect(watch: &Watch, host: &str, port: u16, until: Duration) -> Result<TcpStream> {
    use std::net::ToSocketAddrs as _;
    loop {
        let tried = (host, port).to_socket_addrs().and_then(|addresses| {
            let mut last = std::io::Error::other("the name has no address");
            for address in addresses {
                match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        });
        match tried {
            Ok(stream) => return Ok(stream),
            Err(error) if watch.now() > until => {
                return Err(Error::other(format!(
                    "no connection to rank 0 at {host}:{port}: {error}"
                )));
            }
            Err(_) => {
                watch.check()?;
                std::thread::sleep(LOOK);
            }
        }
    }
}

impl Link {
    /// What a process says that may be a stranger: nothing is told to the others.
    pub(super) fn hello(&mut self, until: Instant) -> Option<Vec<u8>> {
        const MOST: usize = 1 << 16;
        let mut bytes = Vec::new();
        let mut wanted = HEADER;
        let mut part = [0; 4096];
        while bytes.len() < wanted {
            match self.stream.read(&mut part[..(wanted - bytes.len()).min(4096)]) {
                Ok(0) => return None,
                Ok(count) => bytes.extend(&part[..count]),
                Err(_) if Instant::now() < until => {}
                Err(_) => return None,
            }
            if bytes.len() == HEADER {
                let length = u64::from_le_bytes(*bytes[9..].first_chunk()?) as usize;
                if bytes[0] != Call::Join as u8 || length > MOST {
                    return None;
                }
                wanted = HEADER + length;
            }
        }
        Some(bytes.split_off(HEADER))
    }
}
