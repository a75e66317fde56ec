//! PyTorch's own place for processes to find each other: keys and values, kept by one process and reached by
//! all over TCP (`c10d::TCPStore`). `torchrun` has such a store, too.

use std::ffi::{CString, c_char};
use std::time::Duration;

use crate::{Error, Result, ffi};

/// A connection to a store, or the store itself with a connection to it.
///
/// Calls of one connection wait for each other; a thread that must not wait has one of its own.
#[derive(Debug)]
pub struct Store(*mut ffi::Store);

// SAFETY: the C++ object guards its connection with a mutex.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: made by `ext_store_open`, and freed once.
        unsafe { ffi::ext_store_free(self.0) };
    }
}

/// A key or host as C++ takes it.
fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::Libtorch(format!("a nul in `{text}`")))
}

fn in_ms(time: Duration) -> i64 {
    // 0 would mean without end.
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// This machine. By its name it would be looked for in IPv6, too: where `/etc/hosts` has the IPv4 address alone, that
/// is a question to a name server, which may take all of the time to answer, or never do.
const HERE: &str = "127.0.0.1";

impl Store {
    /// Starts a store in this process, which listens on all of the machine's addresses; with port 0, on a port
    /// that the system chooses.
    ///
    /// # Errors
    /// A port that another process has.
    pub fn serve(port: u16, timeout: Duration) -> Result<Self> {
        Self::open("localhost", port, true, timeout)
    }

    /// Connects to a store, trying again until the time is over.
    ///
    /// # Errors
    /// No store answers there in time.
    pub fn connect(host: &str, port: u16, timeout: Duration) -> Result<Self> {
        Self::open(host, port, false, timeout)
    }

    fn open(host: &str, port: u16, server: bool, timeout: Duration) -> Result<Self> {
        let host = text(if host == "localhost" { HERE } else { host })?;
        // Whoever sets the level wants to see it.
        let quiet = std::env::var_os("TORCH_CPP_LOG_LEVEL").is_none();
        let mut store = std::ptr::null_mut();
        // SAFETY: the host is a live string; the store's place is live.
        ffi::check(unsafe {
            ffi::ext_store_open(
                host.as_ptr(),
                port,
                server.into(),
                in_ms(timeout),
                quiet.into(),
                &raw mut store,
            )
        })?;
        Ok(Self(store))
    }

    /// The port that the store listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        // SAFETY: a live store.
        unsafe { ffi::ext_store_port(self.0) }
    }

    /// Sets a key.
    ///
    /// # Errors
    /// The store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = text(key)?;
        // SAFETY: live strings and bytes.
        ffi::check(unsafe { ffi::ext_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Sets a key that nobody has set yet. Gives what it has then: this value, or that of whoever was first.
    ///
    /// # Errors
    /// The store is gone.
    pub fn set_once(&self, key: &str, value: &[u8]) -> Result<Vec<u8>> {
        let key = text(key)?;
        received(|data, size| {
            // SAFETY: live strings, bytes and places.
            unsafe {
                ffi::ext_store_set_once(
                    self.0,
                    key.as_ptr(),
                    value.as_ptr(),
                    value.len(),
                    data,
                    size,
                )
            }
        })
    }

    /// Adds to the number of a key, which is 0 where it is not set. Gives what it is then.
    ///
    /// # Errors
    /// The store is gone.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let key = text(key)?;
        let mut sum = 0;
        // SAFETY: a live string and place.
        ffi::check(unsafe { ffi::ext_store_add(self.0, key.as_ptr(), amount, &raw mut sum) })?;
        Ok(sum)
    }

    /// Whether a key is set.
    ///
    /// # Errors
    /// The store is gone.
    pub fn has(&self, key: &str) -> Result<bool> {
        let key = text(key)?;
        let mut has = 0;
        // SAFETY: a live string and place.
        ffi::check(unsafe { ffi::ext_store_has(self.0, key.as_ptr(), &raw mut has) })?;
        Ok(has != 0)
    }

    /// Waits for a key, and gives its value.
    ///
    /// # Errors
    /// The time is over; the store is gone.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let key = text(key)?;
        received(|data, size| {
            // SAFETY: a live string and places.
            unsafe { ffi::ext_store_get(self.0, key.as_ptr(), in_ms(timeout), data, size) }
        })
    }
}

/// Bytes that the shim hands out.
fn received(call: impl FnOnce(*mut *mut c_char, *mut usize) -> *mut c_char) -> Result<Vec<u8>> {
    let (mut data, mut size) = (std::ptr::null_mut(), 0);
    ffi::check(call(&raw mut data, &raw mut size))?;
    // SAFETY: set where there was no error.
    Ok(unsafe { ffi::take_bytes(data, size) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn what_one_sets_another_gets() {
        let server = Store::serve(0, SOON).unwrap();
        let client = Store::connect("localhost", server.port(), SOON).unwrap();
        assert!(!client.has("a").unwrap());
        server.set("a", &[1, 0, 2]).unwrap();
        // Setting does not wait until the server has it; getting does.
        assert_eq!(client.get("a", SOON).unwrap(), [1, 0, 2]);
        assert!(client.has("a").unwrap());
        // Numbers count from nothing.
        assert_eq!(client.add("n", 0).unwrap(), 0);
        assert_eq!(server.add("n", 3).unwrap(), 3);
        assert_eq!(client.add("n", i64::MIN / 2).unwrap(), i64::MIN / 2 + 3);
        // Of two, the first counts.
        assert_eq!(client.set_once("b", b"first").unwrap(), b"first");
        assert_eq!(server.set_once("b", b"second").unwrap(), b"first");
    }

    #[test]
    fn waiting_ends_and_a_port_is_had_once() {
        let server = Store::serve(0, SOON).unwrap();
        assert!(server.get("never", Duration::from_millis(50)).is_err());
        assert!(Store::serve(server.port(), SOON).is_err());
        let port = server.port();
        drop(server);
        assert!(Store::connect("localhost", port, Duration::from_millis(300)).is_err());
    }
}
