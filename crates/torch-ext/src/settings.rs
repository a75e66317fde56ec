//! Process-wide numerical settings, gradients, waiting and memory.

use tch::{Device, Tensor};

use crate::{Error, Result, ffi};

/// Makes `grad` the gradient of `parameter`, so that backward passes accumulate into it: the
/// gradients of a group of parameters can be views of one flat buffer.
///
/// # Errors
/// When shape, kind or device differ, or when `parameter` is not a leaf.
pub fn set_grad(parameter: &Tensor, grad: &Tensor) -> Result<()> {
    // SAFETY: both tensors outlive the call; the shim changes only the gradient slot, which
    // libtorch keeps behind the tensor handle.
    ffi::check(unsafe { ffi::ext_set_grad(parameter.as_ptr().cast_mut(), grad.as_ptr()) })
}

/// Gradients of everything that `outputs` came from, given their own.
///
/// # Errors
/// What a backward pass can fail with; another number of gradients than of outputs.
pub fn backward(outputs: &[Tensor], grads: &[Tensor]) -> Result<()> {
    if outputs.len() != grads.len() {
        let expected = format!("{} gradients", outputs.len());
        return Err(Error::argument("backward", "grads", expected, grads.len().to_string()));
    }
    let (of, given) = (ffi::pointers(outputs), ffi::pointers(grads));
    // SAFETY: arrays of live tensors, both of that length.
    ffi::check(unsafe { ffi::ext_backward(of.as_ptr(), given.as_ptr(), of.len()) })
}

/// Allows or forbids TensorFloat-32 (f32 products with 10-bit mantissas) in cuBLAS and cuDNN.
///
/// # Errors
/// When libtorch refuses.
pub fn set_tf32(on: bool) -> Result<()> {
    // SAFETY: sets flags of libtorch's global context.
    ffi::check(unsafe { ffi::ext_set_tf32(i32::from(on)) })
}

/// Lets cuDNN time its algorithms for every new input shape and keep the fastest. Pays off with
/// few shapes, costs with many.
///
/// # Errors
/// When libtorch refuses.
pub fn set_cudnn_benchmark(on: bool) -> Result<()> {
    // SAFETY: sets flags of libtorch's global context.
    ffi::check(unsafe { ffi::ext_set_cudnn_benchmark(i32::from(on)) })
}

/// Asks libtorch for deterministic algorithms where it has them; where it has none it warns on
/// stderr and goes on. On CUDA, cuBLAS also wants `CUBLAS_WORKSPACE_CONFIG=:4096:8` in the
/// environment, and this crate's own backward kernels add in no fixed order.
///
/// # Errors
/// When libtorch refuses.
pub fn set_deterministic(on: bool) -> Result<()> {
    // SAFETY: sets flags of libtorch's global context.
    ffi::check(unsafe { ffi::ext_set_deterministic(i32::from(on)) })
}

/// Whether [`set_deterministic`] is on.
pub fn is_deterministic() -> bool {
    // SAFETY: reads a flag of libtorch's global context.
    unsafe { ffi::ext_is_deterministic() != 0 }
}

/// Waits until everything queued on the device is done. The CPU has no queue.
///
/// # Errors
/// When a kernel queued before has failed.
pub fn synchronize(device: Device) -> Result<()> {
    match device {
        // SAFETY: plain values.
        Device::Cuda(index) => ffi::check(unsafe { ffi::ext_cuda_synchronize(index as i32) }),
        _ => Ok(()),
    }
}

/// Bytes held by libtorch's caching allocator on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Bytes in live tensors.
    pub allocated: u64,
    /// Bytes taken from the driver, in live tensors or kept for later ones.
    pub reserved: u64,
    /// The most `allocated` has been since the start or [`reset_peak_memory`].
    pub peak_allocated: u64,
    /// The most `reserved` has been, likewise.
    pub peak_reserved: u64,
}

/// Memory that libtorch holds on a CUDA device. `None` on the CPU, and before CUDA was first used.
pub fn memory(device: Device) -> Option<Memory> {
    let Device::Cuda(index) = device else { return None };
    let mut state = ffi::MemoryState::default();
    // SAFETY: `state` outlives the call.
    ffi::check(unsafe { ffi::ext_cuda_memory(index as i32, &raw mut state) }).ok()?;
    let bytes = |n: i64| u64::try_from(n).unwrap_or(0);
    Some(Memory {
        allocated: bytes(state.allocated),
        reserved: bytes(state.reserved),
        peak_allocated: bytes(state.peak_allocated),
        peak_reserved: bytes(state.peak_reserved),
    })
}

/// Starts a new measurement of the peaks in [`Memory`]. Nothing happens on the CPU.
///
/// # Errors
/// When CUDA was never used.
pub fn reset_peak_memory(device: Device) -> Result<()> {
    match device {
        // SAFETY: plain values.
        Device::Cuda(index) => ffi::check(unsafe { ffi::ext_cuda_reset_peak_memory(index as i32) }),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn gradients_accumulate_into_a_view_of_a_flat_buffer() {
        let flat = Tensor::zeros([5], (Kind::Float, Device::Cpu));
        let a = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let b = Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        set_grad(&a, &flat.narrow(0, 0, 2)).unwrap();
        set_grad(&b, &flat.narrow(0, 2, 3)).unwrap();
        for _ in 0..2 {
            ((&a * 2.0).sum(Kind::Float) + (&b * 3.0).sum(Kind::Float)).backward();
        }
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), [4.0, 4.0, 6.0, 6.0, 6.0]);
    }

    #[test]
    fn a_gradient_of_another_shape_is_refused() {
        let a = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let error = set_grad(&a, &Tensor::zeros([3], (Kind::Float, Device::Cpu))).unwrap_err();
        assert!(error.to_string().contains("[2]") && error.to_string().contains("[3]"), "{error}");
    }

    #[test]
    fn settings_hold() {
        set_tf32(true).unwrap();
        set_cudnn_benchmark(false).unwrap();
        set_deterministic(true).unwrap();
        assert!(is_deterministic());
        set_deterministic(false).unwrap();
        assert!(!is_deterministic());
    }

    #[test]
    fn the_cpu_has_no_allocator_statistics_and_no_queue() {
        assert_eq!(memory(Device::Cpu), None);
        reset_peak_memory(Device::Cpu).unwrap();
        synchronize(Device::Cpu).unwrap();
    }
}
