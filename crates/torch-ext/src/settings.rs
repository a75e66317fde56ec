//! Process-wide numerical settings, gradients, waiting and memory.

use tch::{Device, Tensor};

use crate::cuda::launch;
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

/// Gradients of `inputs`, given those of `outputs`; none where no output came from an input.
///
/// # Errors
/// What a backward pass can fail with; another number of gradients than of outputs.
pub fn gradients(
    outputs: &[Tensor],
    grads: &[Tensor],
    inputs: &[Tensor],
) -> Result<Vec<Option<Tensor>>> {
    if outputs.len() != grads.len() {
        let expected = format!("{} gradients", outputs.len());
        return Err(Error::argument("gradients", "grads", expected, grads.len().to_string()));
    }
    if inputs.is_empty() {
        // libtorch takes none to mean all.
        return Ok(Vec::new());
    }
    let results: Vec<Tensor> = inputs.iter().map(|_| Tensor::new()).collect();
    let [of, given, to, made] = [outputs, grads, inputs, &results].map(ffi::pointers);
    // SAFETY: arrays of live tensors of the given lengths; the results are this function's own.
    ffi::check(unsafe {
        ffi::ext_gradients(
            of.as_ptr(),
            given.as_ptr(),
            of.len(),
            to.as_ptr(),
            made.as_ptr(),
            to.len(),
        )
    })?;
    Ok(results.into_iter().map(|result| result.defined().then_some(result)).collect())
}

/// Adds to the gradients of `parameters`, given those of `outputs`. All are added in one pass at the end;
/// libtorch's own `backward` adds one by one, in hundreds of small kernels.
///
/// # Errors
/// As [`gradients`]; a parameter that `outputs` came from and that has no gradient to add to.
pub fn backward(outputs: &[Tensor], grads: &[Tensor], parameters: &[Tensor]) -> Result<()> {
    let (mut places, mut added) = (Vec::new(), Vec::new());
    for (i, own) in gradients(outputs, grads, parameters)?.into_iter().enumerate() {
        let (Some(own), place) = (own, parameters[i].grad()) else { continue };
        if !place.defined() {
            let got = format!("none at parameter {i}");
            return Err(Error::argument("backward", "parameters", "gradients to add to", got));
        }
        // Flat: strides that differ, if only of dimensions of size 1, would be added one by one.
        places.push(place.f_view([-1])?);
        added.push(own.f_contiguous()?.f_view([-1])?);
    }
    if places.is_empty() {
        return Ok(());
    }
    let (to, from) = (ffi::pointers(&places), ffi::pointers(&added));
    // SAFETY: arrays of live tensors, both of that length.
    ffi::check(unsafe { ffi::ext_add_all(to.as_ptr(), from.as_ptr(), places.len()) })
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

/// Asks libtorch for deterministic algorithms. If it has none for an operation, it warns on stderr and goes on.
/// On CUDA, cuBLAS also needs `CUBLAS_WORKSPACE_CONFIG=:4096:8` in the environment. Even then, this crate's own
/// backward kernels add in no fixed order, and convolutions with ReLU behind them are chosen by speed.
///
/// # Errors
/// When libtorch refuses.
pub fn set_deterministic(on: bool) -> Result<()> {
    // SAFETY: sets flags of libtorch's global context.
    ffi::check(unsafe { ffi::ext_set_deterministic(i32::from(on)) })
}

/// Whether libtorch's deterministic algorithms are on: [`set_deterministic`].
pub fn is_deterministic() -> bool {
    let mut on = 0;
    // SAFETY: `on` outlives the call.
    let message = unsafe { ffi::ext_is_deterministic(&raw mut on) };
    ffi::check(message).expect("only a flag is read");
    on != 0
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
    /// Bytes that live tensors take.
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

/// Bytes of a CUDA device that nobody has taken, this process or another. `None` on the CPU, and where
/// the driver does not say.
pub fn memory_left(device: Device) -> Option<u64> {
    let Device::Cuda(index) = device else { return None };
    launch::memory_left(index).ok()
}

/// Gives back to the driver what libtorch keeps of CUDA's memory for later tensors. Nothing happens on the
/// CPU.
///
/// # Errors
/// When CUDA was never used.
pub fn empty_cache(device: Device) -> Result<()> {
    match device {
        // SAFETY: takes no arguments.
        Device::Cuda(_) => ffi::check(unsafe { ffi::ext_cuda_empty_cache() }),
        _ => Ok(()),
    }
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
    fn gradients_are_added_to_those_there_are() {
        let ones = |n| Tensor::ones([n], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let parameters = [ones(2), ones(3), ones(4)];
        let flat = Tensor::ones([9], (Kind::Float, Device::Cpu));
        for (parameter, at) in parameters.iter().zip([0, 2, 5]) {
            set_grad(parameter, &flat.narrow(0, at, parameter.size()[0])).unwrap();
        }
        // The last one has no part in it.
        let [a, b, _] = &parameters;
        let outputs = [a * 2.0 + b.narrow(0, 0, 2), b * 3.0];
        let grads = outputs.each_ref().map(Tensor::ones_like);
        backward(&outputs, &grads, &parameters).unwrap();
        let expected = [3.0, 3.0, 5.0, 5.0, 4.0, 1.0, 1.0, 1.0, 1.0];
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), expected);
        let (lone, output) = (ones(1), a * 2.0);
        let error = backward(&[&lone * &output], &grads[..1], &[lone]).unwrap_err();
        assert!(error.to_string().contains("expected gradients to add to"), "{error}");
        let error = backward(&[], &grads, &parameters).unwrap_err();
        assert!(error.to_string().contains("expected 0 gradients, got 2"), "{error}");
        // No parameters are none, and not all that there are.
        backward(&[a * 2.0], &grads[..1], &[]).unwrap();
        assert_eq!(Vec::<f32>::try_from(&flat).unwrap(), expected);
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
        empty_cache(Device::Cpu).unwrap();
        synchronize(Device::Cpu).unwrap();
    }
}
