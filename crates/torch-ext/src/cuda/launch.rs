//! Loading compiled kernels on a device, and starting them on libtorch's current stream.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Mutex;

use cudarc::driver::{result as driver, sys};
use tch::{Device, Kind, Tensor};

use super::compile::{self, Compiled, Program};
use super::libraries;
use crate::{Error, Result, ffi};

/// Threads of a block, in all kernels here.
pub(crate) const BLOCK: usize = 256;

fn cuda(what: &str) -> impl Fn(driver::DriverError) -> Error + '_ {
    move |error| Error::Cuda(format!("{what}: {error:?}"))
}

/// One device, with libtorch's context (the primary one).
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) context: sys::CUcontext,
    capability: (i32, i32),
}

// SAFETY: driver handles may be used from any thread.
unsafe impl Send for Context {}

#[derive(Clone, Copy)]
struct Module(sys::CUmodule);

// SAFETY: as above.
unsafe impl Send for Module {}

pub(super) fn context(index: usize) -> Result<Context> {
    static CONTEXTS: Mutex<Option<HashMap<usize, Context>>> = Mutex::new(None);
    let mut contexts = CONTEXTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let contexts = contexts.get_or_insert_default();
    if let Some(context) = contexts.get(&index) {
        return Ok(*context);
    }
    // libtorch's CUDA half is open where a CUDA device is known, and the driver with it.
    libraries::open_cuda_half()?;
    driver::init().map_err(cuda("starting the driver"))?;
    let device = driver::device::get(index as i32).map_err(cuda("finding the device"))?;
    let capability = capability(device)?;
    // SAFETY: a device of this machine; the context is never released, as libtorch's is not.
    let context = unsafe { driver::primary_ctx::retain(device) }
        .map_err(cuda("taking the device's context"))?;
    let context = Context { context, capability };
    contexts.insert(index, context);
    Ok(context)
}

/// Compute capability, as `(9, 0)`.
pub(crate) fn capability(device: sys::CUdevice) -> Result<(i32, i32)> {
    use sys::CUdevice_attribute_enum as Attribute;
    let attribute = |which| {
        // SAFETY: `device` is a device of this machine.
        unsafe { driver::device::get_attribute(device, which) }
            .map_err(cuda("reading the compute capability"))
    };
    Ok((
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    ))
}

/// Makes a context current on this thread, and puts back the one before: autograd's threads have
/// their own idea of the current device.
pub(super) struct Current(Option<sys::CUcontext>);

impl Current {
    pub(super) fn set(context: sys::CUcontext) -> Result<Self> {
        let before = driver::ctx::get_current().map_err(cuda("reading the current context"))?;
        if before == Some(context) {
            return Ok(Self(None));
        }
        // SAFETY: a live context.
        unsafe { driver::ctx::set_current(context) }.map_err(cuda("setting the context"))?;
        Ok(Self(Some(before.unwrap_or(std::ptr::null_mut()))))
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            // SAFETY: what was current before.
            let _ = unsafe { driver::ctx::set_current(before) };
        }
    }
}

/// Loads the program on the device, compiling it if this process has not yet.
fn module(index: usize, context: Context, program: &Program) -> Result<Module> {
    static MODULES: Mutex<Option<HashMap<(usize, String), Module>>> = Mutex::new(None);
    // Held while compiling: two threads that want the same program wait for one compilation.
    let mut modules = MODULES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let modules = modules.get_or_insert_default();
    let key = (index, program.key());
    if let Some(module) = modules.get(&key) {
        return Ok(*module);
    }
    let Compiled { mut code, .. } = compile::compile(program, context.capability)?;
    // PTX is text that ends with a nul; machine code does not mind.
    code.push(0);
    // SAFETY: a whole image, and the device's context is current.
    let module = unsafe { driver::module::load_data(code.as_ptr().cast()) }
        .map_err(cuda(&format!("loading the kernels of {}", program.name)))?;
    modules.insert(key, Module(module));
    Ok(Module(module))
}

/// Compiles (or finds in the cache) and loads a program, for the report.
///
/// # Errors
/// What stands in the way.
pub(crate) fn prepare(index: usize, program: &Program) -> Result<Compiled> {
    let context = context(index)?;
    let _current = Current::set(context.context)?;
    let compiled = compile::compile(program, context.capability)?;
    module(index, context, program)?;
    Ok(compiled)
}

/// Bytes of the device's memory that nobody has taken.
///
/// # Errors
/// What the driver refuses.
pub(crate) fn memory_left(index: usize) -> Result<u64> {
    let _current = Current::set(context(index)?.context)?;
    let (left, _) = driver::mem_get_info().map_err(cuda("reading the memory's state"))?;
    Ok(left as u64)
}

/// libtorch's current stream of a device.
pub(super) fn stream(index: usize) -> Result<*mut c_void> {
    let mut stream = std::ptr::null_mut();
    // SAFETY: `stream` is live; the device exists.
    ffi::check(unsafe { ffi::ext_cuda_stream(index as i32, &raw mut stream) })?;
    Ok(stream)
}

/// Arguments of a kernel, in its order.
#[derive(Default)]
pub(crate) struct Args {
    /// Each in 8-byte words of its own, which keep their place while the vector grows.
    values: Vec<Box<[u64]>>,
}

impl Args {
    /// Adds the device address of a tensor's first element; null for `None`.
    pub(crate) fn tensor<'a>(mut self, tensor: impl Into<Option<&'a Tensor>>) -> Self {
        let address = tensor.into().map_or(0, |tensor| tensor.data_ptr() as u64);
        self.values.push(Box::new([address]));
        self
    }

    /// Adds a structure of `room` addresses: of these tensors, then null.
    pub(crate) fn tensors(mut self, tensors: &[Tensor], room: usize) -> Self {
        let mut addresses: Box<[u64]> = vec![0; room].into();
        for (address, tensor) in addresses.iter_mut().zip(tensors) {
            *address = tensor.data_ptr() as u64;
        }
        self.values.push(addresses);
        self
    }

    /// Adds an `int`.
    ///
    /// # Errors
    /// When it does not fit.
    pub(crate) fn int(mut self, value: i64) -> Result<Self> {
        let value = i32::try_from(value).map_err(|_| {
            Error::Cuda(format!("a size of {value} is beyond the kernels' 32 bits"))
        })?;
        self.values.push(Box::new([u64::from(value.cast_unsigned())]));
        Ok(self)
    }

    /// Adds a `float`, in a word of its own.
    pub(crate) fn float(mut self, value: f32) -> Self {
        self.values.push(Box::new([u64::from(value.to_bits())]));
        self
    }

    /// Adds a structure of `int`s.
    pub(crate) fn ints(mut self, values: &[i32]) -> Self {
        let words = values.chunks(2).map(|pair| {
            let high = pair.get(1).copied().unwrap_or(0);
            u64::from(pair[0].cast_unsigned()) | u64::from(high.cast_unsigned()) << 32
        });
        self.values.push(words.collect());
        self
    }
}

/// Starts `entry` of `program` on libtorch's current stream of the device with at least `threads`
/// threads in all. The device's memory allocator works in the order of that stream, so temporary
/// tensors may be dropped right after.
///
/// # Safety
/// `args` must be what the kernel takes, and its tensors as large as the kernel reads and writes.
///
/// # Errors
/// When the program can't be compiled, loaded or started.
pub(crate) unsafe fn launch(
    device: Device,
    program: &Program,
    entry: &'static str,
    threads: usize,
    args: &mut Args,
) -> Result<()> {
    let Device::Cuda(index) = device else {
        return Err(Error::Cuda(format!("{entry} runs on CUDA devices, not on {device:?}")));
    };
    if threads == 0 {
        return Ok(());
    }
    let context = context(index)?;
    let _current = Current::set(context.context)?;
    let module = module(index, context, program)?;
    let name = CString::new(entry).map_err(|_| Error::Cuda("a kernel name with a nul".into()))?;
    // SAFETY: a loaded module of the current context.
    let function = unsafe { driver::module::get_function(module.0, name) }
        .map_err(cuda(&format!("finding the kernel {entry}")))?;
    let blocks = blocks(threads)
        .ok_or_else(|| Error::Cuda(format!("{entry}: {threads} threads are too many")))?;
    let stream = stream(index)?;
    let mut pointers: Vec<*mut c_void> =
        args.values.iter_mut().map(|value| value.as_mut_ptr().cast()).collect();
    // SAFETY: the caller vouches for the arguments; the driver copies them before it returns.
    unsafe {
        driver::launch_kernel(
            function,
            (blocks, 1, 1),
            (BLOCK as u32, 1, 1),
            0,
            stream.cast(),
            &mut pointers,
        )
    }
    .map_err(cuda(&format!("starting the kernel {entry}")))
}

/// Blocks for that many threads; `None` beyond what the kernels number them with: an `int`, in which the
/// threads of the last block that have nothing to do must fit too.
fn blocks(threads: usize) -> Option<u32> {
    let whole = threads.checked_next_multiple_of(BLOCK)?;
    i32::try_from(whole).is_ok().then_some((whole / BLOCK) as u32)
}

/// A point in the work queued on libtorch's current stream of a device, to be waited for.
#[derive(Debug)]
pub(crate) struct Event {
    event: sys::CUevent,
    context: sys::CUcontext,
}

// SAFETY: driver handles may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// Behind everything that is queued now.
    ///
    /// # Errors
    /// What the driver refuses.
    pub(crate) fn record(device: Device) -> Result<Self> {
        let Device::Cuda(index) = device else {
            return Err(Error::Cuda(format!("there are no events on {device:?}")));
        };
        let Context { context, .. } = context(index)?;
        let _current = Current::set(context)?;
        let flags = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING;
        let event = driver::event::create(flags).map_err(cuda("making an event"))?;
        let event = Self { event, context };
        let mut stream: *mut c_void = std::ptr::null_mut();
        // SAFETY: `stream` is live; the device exists.
        ffi::check(unsafe { ffi::ext_cuda_stream(index as i32, &raw mut stream) })?;
        // SAFETY: an event and a stream of the current context.
        unsafe { driver::event::record(event.event, stream.cast()) }
            .map_err(cuda("recording an event"))?;
        Ok(event)
    }

    /// Returns when everything before it is done.
    ///
    /// # Errors
    /// What an earlier kernel failed with.
    pub(crate) fn wait(&self) -> Result<()> {
        let _current = Current::set(self.context)?;
        // SAFETY: made by `record`, destroyed by `drop` alone.
        unsafe { driver::event::synchronize(self.event) }.map_err(cuda("waiting for the device"))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: as above, and this is the end of it. Nobody is left to hear of a failure.
        let _ = unsafe { driver::event::destroy(self.event) };
    }
}

/// Neighbouring values of a thread: the largest power of two that divides their number, up to 16
/// bytes.
pub(crate) fn widest_vector(kind: Kind, count: i64) -> i64 {
    let widest = if kind == Kind::Float { 4 } else { 8 };
    (1i64 << count.trailing_zeros()).min(widest)
}

/// The tensor, or a copy of it, at an address that whole vectors can be read from.
pub(crate) fn aligned(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.f_contiguous()?;
    if (tensor.data_ptr() as usize).is_multiple_of(16) {
        return Ok(tensor);
    }
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(&tensor)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_has_a_number_beyond_an_int() {
        assert_eq!([1, 256, 257].map(blocks), [Some(1), Some(1), Some(2)]);
        let most = i32::MAX as usize / BLOCK * BLOCK;
        assert_eq!(blocks(most), Some((most / BLOCK) as u32));
        // The last block's idle threads would be numbered from -2³¹ on, below any count.
        assert_eq!([most + 1, i32::MAX as usize, usize::MAX].map(blocks), [None; 3]);
    }
}
