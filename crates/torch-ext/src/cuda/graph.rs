//! CUDA graphs: work that was queued once, queued again as one piece. A step of a detector is
//! thousands of small kernels, and a host needs longer to start one than a GPU to run it.

use tch::Device;

use crate::{Error, Result, ffi};

/// Work of one device, recorded. What it reads and writes are the memory places of the recording:
/// new inputs are copied into the tensors that were read, and the results of a replay lie in the
/// tensors that the recording gave.
///
/// All graphs of a process use one pool of memory: only the tensors that are still held when a
/// recording ends keep their values, and only until another graph is recorded or replayed that may
/// use the rest.
#[derive(Debug)]
pub struct CudaGraph(*mut ffi::Graph);

// SAFETY: the graph is behind a unique pointer, and CUDA's handles may be used from any thread.
unsafe impl Send for CudaGraph {}

impl CudaGraph {
    /// Records what `record` queues on the device; none of it runs. It must have run before with
    /// tensors of the same shapes (kernels are loaded and libraries started by the first run), and
    /// must neither wait for the device nor copy from the host.
    ///
    /// # Errors
    /// What `record` returns; a device without graphs (the CPU), something that cannot be recorded.
    pub fn record<T, E: From<Error>>(
        device: Device,
        record: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        let Device::Cuda(index) = device else {
            let problem = format!("graphs are recorded on CUDA devices, not on {device:?}");
            return Err(Error::Cuda(problem).into());
        };
        let mut graph = std::ptr::null_mut();
        // SAFETY: `graph` outlives the call.
        ffi::check(unsafe { ffi::ext_graph_begin(index as i32, &raw mut graph) })?;
        let graph = Self(graph);
        let mut recording = Recording(graph.0);
        let result = record();
        let ended = recording.end();
        let result = result?;
        ended?;
        Ok((graph, result))
    }

    /// Queues the recorded work.
    ///
    /// # Errors
    /// What an earlier kernel failed with.
    pub fn replay(&self) -> Result<()> {
        // SAFETY: made by `ext_graph_begin`, freed by `drop` alone.
        ffi::check(unsafe { ffi::ext_graph_replay(self.0) })
    }
}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: as above, and this is the end of it. Nobody is left to hear of a failure.
        let _ = ffi::check(unsafe { ffi::ext_graph_free(self.0) });
    }
}

/// A recording that is going on; null when it has ended.
struct Recording(*mut ffi::Graph);

impl Recording {
    fn end(&mut self) -> Result<()> {
        let graph = std::mem::replace(&mut self.0, std::ptr::null_mut());
        // SAFETY: begun, not yet ended, and freed by nobody before this is dropped.
        ffi::check(unsafe { ffi::ext_graph_end(graph) })
    }
}

impl Drop for Recording {
    /// When the recorded code panics.
    fn drop(&mut self) {
        if !self.0.is_null() {
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
        let error = CudaGraph::record(Device::Cpu, || Ok::<_, Error>(())).unwrap_err();
        assert!(error.to_string().contains("CUDA devices"), "{error}");
    }
}
