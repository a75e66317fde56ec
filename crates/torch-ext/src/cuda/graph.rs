//! CUDA graphs: work that was recorded once is queued again as one piece. A step of a detector is
//! thousands of small kernels, and the host needs longer to start one than the GPU to run it.

use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Tensor};

use super::zeros::InPieces;
use crate::{Error, Result, backward, ffi, no_grad};

/// The recordings of one owner, and the memory that they share.
///
/// A recording's inputs, its results and everything between them lie in the pool's memory. All recordings of a
/// pool use the same places, so a pool is about as large as its largest recording. Until the results of a
/// replay are used, no other recording of the pool may run. The borrow checker sees to that:
/// [`GraphPool::replay`] borrows the pool for as long as its [`Replay`] lives. Pools are independent of each
/// other, and may be used on different threads.
///
/// ```no_run
/// # use torch_ext::{GraphPool, Recording};
/// # use tch::Tensor;
/// fn one_after_the_other(pool: &mut GraphPool, a: &Recording, b: &Recording, x: &Tensor) {
///     let first = pool.replay(a, &[x]).unwrap();
///     first.backward().unwrap();
///     let second = pool.replay(b, &[x]).unwrap();
///     second.backward().unwrap();
/// }
/// ```
///
/// ```compile_fail,E0499
/// # use torch_ext::{GraphPool, Recording};
/// # use tch::Tensor;
/// fn two_at_once(pool: &mut GraphPool, a: &Recording, b: &Recording, x: &Tensor) {
///     let first = pool.replay(a, &[x]).unwrap();
///     let second = pool.replay(b, &[x]).unwrap(); // the pool is borrowed
///     first.backward().unwrap();
///     second.backward().unwrap();
/// }
/// ```
#[derive(Debug)]
pub struct GraphPool {
    pool: Arc<Pool>,
    device: Device,
    /// A recording ended in the middle. libtorch's allocator cannot record after that.
    stuck: Cell<bool>,
}

#[derive(Debug)]
struct Pool(*mut ffi::Pool);

// SAFETY: the pool is behind a unique pointer and guards what changes in it with a mutex.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: made by `ext_graph_pool_new`; each graph holds this pool, so none is left.
        let _ = ffi::check(unsafe { ffi::ext_graph_pool_free(self.0) });
    }
}

/// What a pool recorded: a computation on tensors of given shapes.
#[derive(Debug)]
pub struct Recording {
    // Fields are dropped in their order: views of the pool's memory before the graphs that keep it.
    inputs: Vec<Tensor>,
    results: Vec<Tensor>,
    /// Gradients of the results that something is learned from; none for the other results.
    grads: Vec<Option<Tensor>>,
    /// Shared with the results of a replay, which need the memory.
    forward: Arc<Graph>,
    backward: Option<Graph>,
}

/// One run of a [`Recording`]. The pool is borrowed until it is dropped or its backward pass is queued.
#[derive(Debug)]
pub struct Replay<'a> {
    recording: &'a Recording,
    results: Vec<Tensor>,
    pool: PhantomData<&'a mut GraphPool>,
}

/// libtorch knows one recording of a stream at a time, and streams are handed out in a circle.
static RECORDING: Mutex<()> = Mutex::new(());

impl GraphPool {
    /// Without recordings, and without memory.
    ///
    /// # Errors
    /// A device without graphs (the CPU).
    pub fn new(device: Device) -> Result<Self> {
        let Device::Cuda(index) = device else {
            let problem = format!("graphs are recorded on CUDA devices, not on {device:?}");
            return Err(Error::Cuda(problem));
        };
        let mut pool = std::ptr::null_mut();
        // SAFETY: `pool` outlives the call.
        ffi::check(unsafe { ffi::ext_graph_pool_new(index as i32, &raw mut pool) })?;
        Ok(Self { pool: Arc::new(Pool(pool)), device, stuck: Cell::new(false) })
    }

    /// Records what `run` does with tensors like `inputs`, without running it. If results have a history, their
    /// backward pass is recorded too. It adds to the gradients of `parameters`, which must exist, and must
    /// stay in their place.
    ///
    /// `run` must neither wait for the device nor copy from the host. Something like it must have run before,
    /// since the first run loads kernels and starts libraries. Tensors that it keeps besides its results are
    /// overwritten by the next replay.
    ///
    /// # Errors
    /// What `run` returns; no room; something that cannot be recorded: the pool then records nothing more, and
    /// earlier recordings can still be used.
    pub fn record<E: From<Error>>(
        &mut self,
        inputs: &[&Tensor],
        parameters: &[Tensor],
        run: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>, E>,
    ) -> Result<Recording, E> {
        let _one_at_a_time = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
        let (forward, (places, results)) = self.capture(|| {
            let places = inputs.iter().map(|x| like(x)).collect::<Result<Vec<_>>>()?;
            let results = run(&places)?;
            Ok::<_, E>((places, results))
        })?;
        let learns_from = |x: &Tensor| !parameters.is_empty() && x.requires_grad();
        let mut grads = Vec::new();
        let mut back = None;
        if results.iter().any(learns_from) {
            let (graph, own) = self.capture(|| {
                let own: Result<Vec<_>> =
                    results.iter().map(|x| learns_from(x).then(|| like(x)).transpose()).collect();
                let own = own?;
                let pairs = results.iter().zip(&own);
                let (outputs, of): (Vec<_>, Vec<_>) = pairs
                    .filter_map(|(x, grad)| {
                        Some((x.shallow_clone(), grad.as_ref()?.shallow_clone()))
                    })
                    .unzip();
                backward(&outputs, &of, parameters)?;
                Ok::<_, E>(own)
            })?;
            (grads, back) = (own, Some(graph));
        }
        // The tensors go, and with them their claim: the next recording uses the same memory.
        let grads = match back {
            Some(_) => grads.iter().map(|grad| grad.as_ref().map(place).transpose()).collect(),
            None => Ok(results.iter().map(|_| None).collect()),
        };
        Ok(Recording {
            inputs: places.iter().map(place).collect::<Result<_>>()?,
            results: results.iter().map(place).collect::<Result<_>>()?,
            grads: grads?,
            forward: Arc::new(forward),
            backward: back,
        })
    }

    /// Queues a recording of this pool for inputs of the recorded shapes.
    ///
    /// # Errors
    /// A recording of another pool, other inputs than recorded; what libtorch refuses.
    pub fn replay<'a>(
        &'a mut self,
        recording: &'a Recording,
        inputs: &[&Tensor],
    ) -> Result<Replay<'a>> {
        let wrong = |what, expected: String, got| Error::argument("replay", what, expected, got);
        if !Arc::ptr_eq(&self.pool, &recording.forward.pool) {
            return Err(wrong("recording", "one of this pool".into(), "another pool's".into()));
        }
        if inputs.len() != recording.inputs.len() {
            let expected = format!("{} tensors", recording.inputs.len());
            return Err(wrong("inputs", expected, inputs.len().to_string()));
        }
        no_grad(|| -> Result<()> {
            for (place, value) in recording.inputs.iter().zip(inputs) {
                if place.size() != value.size() {
                    let expected = format!("{:?}", place.size());
                    return Err(wrong("inputs", expected, format!("{:?}", value.size())));
                }
                place.shallow_clone().f_copy_(value)?;
            }
            Ok(())
        })?;
        recording.forward.replay()?;
        let results = recording.results.iter().zip(&recording.grads).map(|(place, grad)| {
            let result = claim(place, &recording.forward)?;
            Ok(match grad {
                Some(_) => result.f_set_requires_grad(true)?,
                None => result,
            })
        });
        let results = results.collect::<Result<_>>()?;
        Ok(Replay { recording, results, pool: PhantomData })
    }

    fn capture<T, E: From<Error>>(
        &self,
        record: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Graph, T), E> {
        if self.stuck.get() {
            let problem = "a recording of this pool failed in its middle: it takes no more";
            return Err(Error::Cuda(problem.into()).into());
        }
        let mut graph = std::ptr::null_mut();
        // SAFETY: `graph` outlives the call, and the pool outlives the graph.
        ffi::check(unsafe { ffi::ext_graph_begin(self.pool.0, &raw mut graph) })?;
        let graph = Graph { graph, pool: Arc::clone(&self.pool) };
        let mut capture = Capture { graph: graph.graph, stuck: &self.stuck };
        let in_pieces = InPieces::new(self.device)?;
        let result = record();
        drop(in_pieces);
        let ended = capture.end();
        let result = result?;
        ended?;
        Ok((graph, result))
    }

    /// The device that it records on.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }
}

impl Replay<'_> {
    /// The results, without a history. Those that something is learned from are leaves:
    /// [`Self::backward`] goes on with the gradients that they get. They lie in the pool's memory, which the
    /// next replay of any of its recordings writes over: copy what you need for longer.
    pub fn results(&self) -> &[Tensor] {
        &self.results
    }

    /// Adds to the gradients of the parameters, given those of the results. A result without a gradient has no
    /// part in the loss.
    ///
    /// # Errors
    /// A recording without a backward pass; what libtorch refuses.
    pub fn backward(self) -> Result<()> {
        let Some(graph) = &self.recording.backward else {
            let got = "one whose results have no history".to_owned();
            let expected = "a recording with a backward pass";
            return Err(Error::argument("backward", "recording", expected, got));
        };
        no_grad(|| -> Result<()> {
            for (place, result) in self.recording.grads.iter().zip(&self.results) {
                let Some(place) = place else { continue };
                let (mut place, grad) = (place.shallow_clone(), result.grad());
                if grad.defined() {
                    place.f_copy_(&grad)?;
                } else {
                    let _ = place.f_zero_()?;
                }
            }
            Ok(())
        })?;
        graph.replay()
    }
}

/// A tensor of the same shape, kind and order in memory; its values are not set.
fn like(x: &Tensor) -> Result<Tensor> {
    Ok(x.detach().f_empty_like()?)
}

/// The memory of a tensor of a pool, without a claim to it.
fn place(x: &Tensor) -> Result<Tensor> {
    if x.numel() == 0 {
        return Ok(x.detach());
    }
    // SAFETY: the memory is the pool's, which gives none back while it has a graph: libtorch keeps a
    // pool's segments mapped until its last graph is freed, and a `Recording` drops its graphs last.
    Ok(unsafe {
        Tensor::f_from_blob(x.data_ptr().cast(), &x.size(), &x.stride(), x.kind(), x.device())?
    })
}

/// The memory of a tensor of a pool, which `graph` keeps for as long as this is used.
fn claim(x: &Tensor, graph: &Arc<Graph>) -> Result<Tensor> {
    extern "C" fn release(owner: *mut c_void) {
        // No panic passes C++. SAFETY: from `Arc::into_raw` below, and released once.
        let owner = unsafe { Arc::from_raw(owner.cast::<Graph>()) };
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(owner)));
    }
    if x.numel() == 0 {
        return Ok(x.detach());
    }
    let result = Tensor::new();
    let owner = Arc::into_raw(Arc::clone(graph)).cast_mut().cast();
    // SAFETY: live tensors, of which the shim fills the second; a pool's memory stays mapped while it has a
    // graph, and the owner is one.
    ffi::check(unsafe { ffi::ext_claim(x.as_ptr(), owner, release, result.as_ptr().cast_mut()) })?;
    Ok(result)
}

/// A recorded part. It keeps its pool.
#[derive(Debug)]
struct Graph {
    graph: *mut ffi::Graph,
    pool: Arc<Pool>,
}

// SAFETY: the graph is behind a unique pointer, and CUDA's handles may be used from any thread.
unsafe impl Send for Graph {}
// SAFETY: what others than the recording share keeps it, and nothing else; the recording is replayed by who
// has borrowed its pool for himself.
unsafe impl Sync for Graph {}

impl Graph {
    /// Queues the recorded work on libtorch's current stream.
    fn replay(&self) -> Result<()> {
        // SAFETY: made by `ext_graph_begin`, freed by `drop` alone.
        ffi::check(unsafe { ffi::ext_graph_replay(self.graph) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: as above, and this is the end of it. Nobody is left to hear of a failure.
        let _ = ffi::check(unsafe { ffi::ext_graph_free(self.graph) });
    }
}

/// A recording that is going on.
struct Capture<'a> {
    /// Null when it has ended.
    graph: *mut ffi::Graph,
    /// Set where it does not end well.
    stuck: &'a Cell<bool>,
}

impl Capture<'_> {
    fn end(&mut self) -> Result<()> {
        let graph = std::mem::replace(&mut self.graph, std::ptr::null_mut());
        // SAFETY: begun, not yet ended, and freed by nobody before this is dropped.
        let ended = ffi::check(unsafe { ffi::ext_graph_end(graph) });
        self.stuck.set(self.stuck.get() || ended.is_err());
        ended
    }
}

impl Drop for Capture<'_> {
    /// When the recorded code panics.
    fn drop(&mut self) {
        if !self.graph.is_null() {
            let _ = self.end();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_records_nothing() {
        let error = GraphPool::new(Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("CUDA devices"), "{error}");
    }
}
