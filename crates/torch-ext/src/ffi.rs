//! The C functions of `shim/shim.cpp`, and what both sides need to agree on.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use crate::{Error, Result};

/// Opaque `std::string` that an error message is written to.
#[repr(C)]
pub(crate) struct CppString {
    _private: [u8; 0],
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct AutocastState {
    pub(crate) enabled: c_int,
    pub(crate) dtype: c_int,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct MemoryState {
    pub(crate) allocated: i64,
    pub(crate) reserved: i64,
    pub(crate) peak_allocated: i64,
    pub(crate) peak_reserved: i64,
}

/// A recorded CUDA graph: `Graph` of `shim/graph.cpp`.
#[repr(C)]
pub(crate) struct Graph {
    _private: [u8; 0],
}

/// Memory that graphs share: `Pool` of `shim/graph.cpp`.
#[repr(C)]
pub(crate) struct Pool {
    _private: [u8; 0],
}

/// A client, or client and server, of c10d's TCPStore: `Store` of `shim/store.cpp`.
#[repr(C)]
pub(crate) struct Store {
    _private: [u8; 0],
}

/// See `Backward` in `shim.cpp`. Nothing unwinds into C++: Rust ends the program where a panic would
/// leave an `extern "C"` function.
pub(crate) type Backward = unsafe extern "C" fn(
    context: *mut c_void,
    grad: *mut C_tensor,
    saved: *const *mut C_tensor,
    saved_count: usize,
    needs: *const bool,
    grads_out: *const *mut C_tensor,
    input_count: usize,
    error: *mut CppString,
) -> c_int;

/// Frees what `context` points to.
pub(crate) type Release = unsafe extern "C" fn(context: *mut c_void);

unsafe extern "C" {
    fn ext_free(message: *mut c_char);
    fn ext_version(text: *mut *mut c_char) -> *mut c_char;
    pub(crate) fn ext_string_set(target: *mut CppString, text: *const u8, length: usize);
    pub(crate) fn ext_assign(target: *mut C_tensor, source: *const C_tensor) -> *mut c_char;
    pub(crate) fn ext_pin_memory(target: *mut C_tensor, source: *const C_tensor) -> *mut c_char;
    pub(crate) fn ext_autocast_enter(
        cuda: c_int,
        enabled: c_int,
        dtype: c_int,
        previous: *mut AutocastState,
    ) -> *mut c_char;
    pub(crate) fn ext_autocast_leave(cuda: c_int, previous: *const AutocastState) -> *mut c_char;
    pub(crate) fn ext_autocast_dtype(cuda: c_int, dtype: *mut c_int) -> *mut c_char;
    pub(crate) fn ext_set_grad(parameter: *mut C_tensor, grad: *const C_tensor) -> *mut c_char;
    pub(crate) fn ext_attach(
        output: *mut C_tensor,
        inputs: *const *const C_tensor,
        input_count: usize,
        saved: *const *const C_tensor,
        saved_count: usize,
        op: *const c_char,
        context: *mut c_void,
        backward: Backward,
        release: Release,
    ) -> *mut c_char;
    pub(crate) fn ext_set_tf32(on: c_int) -> *mut c_char;
    pub(crate) fn ext_set_cudnn_benchmark(on: c_int) -> *mut c_char;
    pub(crate) fn ext_set_deterministic(on: c_int) -> *mut c_char;
    pub(crate) fn ext_is_deterministic(on: *mut c_int) -> *mut c_char;
    pub(crate) fn ext_cuda_expandable_segments() -> *mut c_char;
    pub(crate) fn ext_cuda_synchronize(index: c_int) -> *mut c_char;
    pub(crate) fn ext_cuda_stream(index: c_int, stream: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn ext_cuda_memory(index: c_int, state: *mut MemoryState) -> *mut c_char;
    pub(crate) fn ext_cuda_empty_cache() -> *mut c_char;
    pub(crate) fn ext_cuda_reset_peak_memory(index: c_int) -> *mut c_char;
    pub(crate) fn ext_convolution_backward(
        grad: *const C_tensor,
        x: *const C_tensor,
        weight: *const C_tensor,
        stride: i64,
        padding: i64,
        needs: *const bool,
        grad_x: *mut C_tensor,
        grad_weight: *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn ext_fused_adamw(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        exp_avg_sqs: *const *const C_tensor,
        steps: *const *const C_tensor,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        skip: *const C_tensor,
    ) -> *mut c_char;
    pub(crate) fn ext_fused_sgd(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        momentum_buffers: *const *const C_tensor,
        count: usize,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        skip: *const C_tensor,
    ) -> *mut c_char;
    pub(crate) fn ext_graph_pool_new(index: c_int, pool: *mut *mut Pool) -> *mut c_char;
    pub(crate) fn ext_graph_pool_free(pool: *mut Pool) -> *mut c_char;
    pub(crate) fn ext_graph_begin(pool: *mut Pool, graph: *mut *mut Graph) -> *mut c_char;
    pub(crate) fn ext_graph_end(graph: *mut Graph) -> *mut c_char;
    pub(crate) fn ext_graph_replay(graph: *mut Graph) -> *mut c_char;
    pub(crate) fn ext_graph_free(graph: *mut Graph) -> *mut c_char;
    pub(crate) fn ext_store_open(
        host: *const c_char,
        port: u16,
        server: c_int,
        timeout_ms: i64,
        quiet: c_int,
        store: *mut *mut Store,
    ) -> *mut c_char;
    pub(crate) fn ext_store_free(store: *mut Store);
    pub(crate) fn ext_store_port(store: *const Store) -> u16;
    pub(crate) fn ext_store_set(
        store: *mut Store,
        key: *const c_char,
        data: *const u8,
        size: usize,
    ) -> *mut c_char;
    pub(crate) fn ext_store_set_once(
        store: *mut Store,
        key: *const c_char,
        data: *const u8,
        size: usize,
        result: *mut *mut c_char,
        result_size: *mut usize,
    ) -> *mut c_char;
    pub(crate) fn ext_store_add(
        store: *mut Store,
        key: *const c_char,
        amount: i64,
        sum: *mut i64,
    ) -> *mut c_char;
    pub(crate) fn ext_store_has(
        store: *mut Store,
        key: *const c_char,
        has: *mut c_int,
    ) -> *mut c_char;
    pub(crate) fn ext_store_get(
        store: *mut Store,
        key: *const c_char,
        timeout_ms: i64,
        result: *mut *mut c_char,
        result_size: *mut usize,
    ) -> *mut c_char;
    pub(crate) fn ext_claim(
        like: *const C_tensor,
        owner: *mut c_void,
        release: extern "C" fn(*mut c_void),
        result: *mut C_tensor,
    ) -> *mut c_char;
    pub(crate) fn ext_gradients(
        outputs: *const *const C_tensor,
        grads: *const *const C_tensor,
        count: usize,
        inputs: *const *const C_tensor,
        results: *const *const C_tensor,
        input_count: usize,
    ) -> *mut c_char;
    pub(crate) fn ext_add_all(
        places: *const *const C_tensor,
        added: *const *const C_tensor,
        count: usize,
    ) -> *mut c_char;
}

/// Turns the shim's message, if any, into an error, and frees it.
pub(crate) fn check(message: *mut c_char) -> Result<()> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null message is the shim's.
    Err(Error::Libtorch(unsafe { take(message) }))
}

/// Copies a text of the shim's and frees it.
///
/// # Safety
/// A nul-terminated string that the shim handed out, once.
unsafe fn take(text: *mut c_char) -> String {
    // SAFETY: by this function's contract.
    unsafe {
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        ext_free(text);
        copy
    }
}

/// Copies bytes of the shim's and frees them.
///
/// # Safety
/// `size` bytes that the shim handed out, once.
pub(crate) unsafe fn take_bytes(data: *mut c_char, size: usize) -> Vec<u8> {
    // SAFETY: by this function's contract.
    unsafe {
        let copy = std::slice::from_raw_parts(data.cast::<u8>(), size).to_vec();
        ext_free(data);
        copy
    }
}

/// Version of the libtorch that is loaded; empty if it does not say.
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn libtorch_version() -> Result<String> {
    let mut text = std::ptr::null_mut();
    // SAFETY: `text` outlives the call.
    check(unsafe { ext_version(&raw mut text) })?;
    // SAFETY: set where there was no error.
    Ok(unsafe { take(text) })
}

/// Pointers to the C++ tensors, valid as long as the tensors are.
pub(crate) fn pointers<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*const C_tensor> {
    tensors.into_iter().map(Tensor::as_ptr).collect()
}

/// `c10::ScalarType` of the floating kinds.
pub(crate) fn scalar_type(kind: Kind) -> Option<c_int> {
    match kind {
        Kind::Half => Some(5),
        Kind::Float => Some(6),
        Kind::Double => Some(7),
        Kind::BFloat16 => Some(15),
        _ => None,
    }
}

/// Whether the device is a CUDA device, as the shim wants it.
pub(crate) fn is_cuda(device: Device) -> c_int {
    c_int::from(device.is_cuda())
}
