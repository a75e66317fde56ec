//! NCCL: sums over the GPUs of several processes. Its C API is looked up when it is first used; libtorch's CUDA
//! half brings the library. Communicators are non-blocking: no call waits for another process without being
//! asked every few milliseconds whether to go on.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use tch::{Device, Kind, Tensor};

use super::launch::{Current, context, stream};
use crate::version::torch_folder;
use crate::{Error, Result};

/// A communicator, behind a pointer.
type Comm = *mut c_void;
type Status = c_int;

// Numbers of nccl.h 2.28, which no machine needs for building.
const SUCCESS: Status = 0;
const IN_PROGRESS: Status = 7;
const FLOAT32: c_int = 7;
const FLOAT64: c_int = 8;
const AVERAGE: c_int = 4;
const UNDEFINED: c_int = c_int::MIN;
const MAGIC: u32 = 0xcafe_beef;
/// The release whose settings these are; newer ones fill up what came later.
const CONFIG_VERSION: u32 = 21_800;

/// Time between two questions whether a call is done.
const PAUSE: Duration = Duration::from_millis(1);

/// What all processes of a communicator must have in common: `ncclUniqueId`.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([c_char; Communicator::ID]);

/// `ncclConfig_t`, as it was in 2.18.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

struct Functions {
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> Status,
    init: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int, *mut Config) -> Status,
    async_error: unsafe extern "C" fn(Comm, *mut Status) -> Status,
    abort: unsafe extern "C" fn(Comm) -> Status,
    all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Comm,
        *mut c_void,
    ) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
    last_error: unsafe extern "C" fn(Comm) -> *const c_char,
}

const NAME: &str = "libnccl.so.2";

/// Where the library may be: what is open already, else beside libtorch, else where the system looks.
fn open() -> Result<Library, String> {
    let this = Library::this();
    // SAFETY: only looked up.
    if unsafe { this.get::<unsafe extern "C" fn() -> Status>(b"ncclGroupStart") }.is_ok() {
        return Ok(this);
    }
    let beside = torch_folder().map(|folder| folder.join("../../nvidia/nccl/lib").join(NAME));
    let file = beside.filter(|file| file.exists()).unwrap_or_else(|| PathBuf::from(NAME));
    // SAFETY: runs the library's initialisers; it is NVIDIA's.
    unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_GLOBAL) }.map_err(|error| {
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        format!(
            "NCCL, which several GPUs need, can't be opened: {reason}\n  hint: run `make libtorch-cuda`, or \
             install the package `nvidia-nccl-cu13` beside PyTorch"
        )
    })
}

impl Functions {
    fn load() -> Result<Self, String> {
        let library = open()?;
        macro_rules! find {
            ($name:literal) => {
                // SAFETY: the types are those of nccl.h.
                *unsafe { library.get($name) }.map_err(|error| format!("NCCL: {error}"))?
            };
        }
        let functions = Self {
            get_unique_id: find!(b"ncclGetUniqueId"),
            init: find!(b"ncclCommInitRankConfig"),
            async_error: find!(b"ncclCommGetAsyncError"),
            abort: find!(b"ncclCommAbort"),
            all_reduce: find!(b"ncclAllReduce"),
            group_start: find!(b"ncclGroupStart"),
            group_end: find!(b"ncclGroupEnd"),
            error_string: find!(b"ncclGetErrorString"),
            last_error: find!(b"ncclGetLastError"),
        };
        // Never closed: it has threads of its own.
        std::mem::forget(library);
        Ok(functions)
    }

    fn get() -> Result<&'static Self> {
        static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();
        FUNCTIONS.get_or_init(Self::load).as_ref().map_err(|problem| Error::Device(problem.clone()))
    }

    /// An error of a call; `comm` may be null.
    fn check(&self, status: Status, what: &str, comm: Comm) -> Result<()> {
        if status == SUCCESS || status == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: both give strings that live as long as the library, or null.
        let [kind, last] =
            unsafe { [(self.error_string)(status), (self.last_error)(comm)] }.map(|text| {
                match text.is_null() {
                    true => String::new(),
                    // SAFETY: as above.
                    false => unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned(),
                }
            });
        let last = if last.is_empty() { last } else { format!(" ({last})") };
        Err(Error::Cuda(format!("NCCL: {what}: {kind}{last}")))
    }
}

/// The GPUs of several processes, one each.
pub struct Communicator {
    comm: Mutex<Handle>,
    device: usize,
}

/// Null once it was given up.
struct Handle(Comm);

// SAFETY: a communicator may be used from any thread, by one at a time.
unsafe impl Send for Handle {}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Communicator").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Communicator {
    /// Bytes of what [`Self::unique_id`] gives.
    pub const ID: usize = 128;

    /// What one process makes and all others must be given.
    ///
    /// # Errors
    /// NCCL is missing, or finds no network.
    pub fn unique_id() -> Result<Vec<u8>> {
        let functions = Functions::get()?;
        let mut id = UniqueId([0; Self::ID]);
        // SAFETY: a live place.
        let status = unsafe { (functions.get_unique_id)(&raw mut id) };
        functions.check(status, "an id", std::ptr::null_mut())?;
        Ok(id.0.map(c_char::cast_unsigned).to_vec())
    }

    /// Meets the others: `rank` of `world`, with the same `id` in all. While it waits, `go_on` is asked.
    ///
    /// # Errors
    /// A device that is no GPU, an id of another length, what NCCL refuses, a `go_on` that says no.
    pub fn new(
        device: Device,
        (rank, world): (u64, u64),
        id: &[u8],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Self> {
        let Device::Cuda(index) = device else {
            let got = crate::device_name(device);
            return Err(Error::argument("Communicator::new", "device", "a CUDA device", got));
        };
        let Ok(id) = <[u8; Self::ID]>::try_from(id) else {
            let (expected, got) = (format!("{} bytes", Self::ID), format!("{} bytes", id.len()));
            return Err(Error::argument("Communicator::new", "id", expected, got));
        };
        if rank >= world || world > u64::from(u16::MAX) {
            let (expected, got) =
                ("a rank below the number of processes", format!("{rank} of {world}"));
            return Err(Error::argument("Communicator::new", "rank", expected, got));
        }
        let functions = Functions::get()?;
        let _current = Current::set(context(index)?.context)?;
        let mut config = Config {
            size: size_of::<Config>(),
            magic: MAGIC,
            version: CONFIG_VERSION,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
            split_share: UNDEFINED,
        };
        let mut comm = std::ptr::null_mut();
        let id = UniqueId(id.map(u8::cast_signed));
        // SAFETY: live places; the device's context is current.
        let status = unsafe {
            (functions.init)(&raw mut comm, world as c_int, id, rank as c_int, &raw mut config)
        };
        // Dropped, it is given up.
        let this = Self { comm: Mutex::new(Handle(comm)), device: index };
        functions.check(status, "meeting the other processes", std::ptr::null_mut())?;
        this.finish(functions, "meeting the other processes", go_on)?;
        Ok(this)
    }

    fn comm(&self) -> MutexGuard<'_, Handle> {
        self.comm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until what was begun is queued.
    fn finish(
        &self,
        functions: &Functions,
        what: &str,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        loop {
            let comm = self.comm();
            if comm.0.is_null() {
                return Err(given_up());
            }
            let mut state = SUCCESS;
            // SAFETY: a live communicator, which nobody else uses now.
            let status = unsafe { (functions.async_error)(comm.0, &raw mut state) };
            functions.check(status, what, comm.0)?;
            functions.check(state, what, comm.0)?;
            drop(comm);
            if state == SUCCESS {
                return Ok(());
            }
            if !go_on() {
                self.abort();
                return Err(given_up());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Replaces each tensor by its mean over the processes, queued on libtorch's current stream. All of them
    /// have tensors of the same sizes, in the same order. While NCCL sets up its connections, at the first call,
    /// `go_on` is asked.
    ///
    /// # Errors
    /// Tensors that are not contiguous, in f32 or f64, on the communicator's device; what NCCL refuses; a
    /// communicator that was given up, a `go_on` that says no.
    pub fn mean(&self, tensors: &[Tensor], go_on: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut all = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let kind = match tensor.kind() {
                Kind::Float => FLOAT32,
                Kind::Double => FLOAT64,
                other => {
                    let got = format!("{other:?}");
                    return Err(Error::argument(
                        "Communicator::mean",
                        "tensors",
                        "f32 or f64",
                        got,
                    ));
                }
            };
            if tensor.device() != Device::Cuda(self.device) || !tensor.is_contiguous() {
                let expected = format!("contiguous ones on cuda:{}", self.device);
                let got = crate::device_name(tensor.device());
                return Err(Error::argument("Communicator::mean", "tensors", expected, got));
            }
            all.push((tensor.data_ptr(), tensor.numel(), kind));
        }
        let functions = Functions::get()?;
        let _current = Current::set(context(self.device)?.context)?;
        let stream = stream(self.device)?;
        let what = "a mean over the processes";
        let comm = self.comm();
        if comm.0.is_null() {
            return Err(given_up());
        }
        // SAFETY: takes nothing.
        functions.check(unsafe { (functions.group_start)() }, what, comm.0)?;
        let mut begun = Ok(());
        for (data, count, kind) in all {
            // SAFETY: the tensors live on the device, and what comes after on this stream waits.
            let status =
                unsafe { (functions.all_reduce)(data, data, count, kind, AVERAGE, comm.0, stream) };
            begun = functions.check(status, what, comm.0);
            if begun.is_err() {
                break;
            }
        }
        // SAFETY: takes nothing; ends what was started, whatever happened in between.
        let ended = unsafe { (functions.group_end)() };
        begun?;
        functions.check(ended, what, comm.0)?;
        drop(comm);
        self.finish(functions, what, go_on)
    }

    /// Gives it up, from any thread: kernels that wait for other processes end, with what they have.
    pub fn abort(&self) {
        let comm = std::mem::replace(&mut self.comm().0, std::ptr::null_mut());
        if let (false, Ok(functions)) = (comm.is_null(), Functions::get()) {
            let _current = context(self.device).and_then(|context| Current::set(context.context));
            // SAFETY: a communicator that nobody can reach any more.
            unsafe { (functions.abort)(comm) };
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.abort();
    }
}

fn given_up() -> Error {
    Error::Cuda("NCCL: the connection to the other processes was given up".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_gpu_and_no_id_is_refused() {
        let mut go_on = || true;
        let error = Communicator::new(Device::Cpu, (0, 2), &[0; 128], &mut go_on).unwrap_err();
        assert!(error.to_string().contains("expected a CUDA device, got cpu"), "{error}");
        let error = Communicator::new(Device::Cuda(0), (0, 2), &[0; 3], &mut go_on).unwrap_err();
        assert!(error.to_string().contains("expected 128 bytes, got 3 bytes"), "{error}");
        let error = Communicator::new(Device::Cuda(0), (2, 2), &[0; 128], &mut go_on).unwrap_err();
        assert!(error.to_string().contains("2 of 2"), "{error}");
    }

    /// Where the library is, as on a machine with a GPU, it gives an id; elsewhere it says what to do.
    #[test]
    fn the_library_is_found_or_its_absence_explained() {
        match Communicator::unique_id() {
            Ok(id) => assert!(id.len() == Communicator::ID && id.iter().any(|byte| *byte != 0)),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("NCCL"), "{text}");
                assert!(text.contains("make libtorch-cuda") || text.contains("an id"), "{text}");
            }
        }
    }
}
