//! Automatic mixed precision: inside, matrix products and convolutions run in a low-precision kind
//! while sums and losses stay in f32 (libtorch's own lists decide).

use std::cell::RefCell;

use tch::{Device, Kind, Tensor};

use crate::{
    Result,
    ffi::{self, AutocastState},
};

/// Restores the state it found, also when the code inside panics.
struct Guard {
    cuda: std::ffi::c_int,
    previous: AutocastState,
}

impl Guard {
    fn enter(device: Device, kind: Option<Kind>) -> Self {
        let cuda = ffi::is_cuda(device);
        let dtype = match kind {
            Some(kind) => ffi::scalar_type(kind)
                .unwrap_or_else(|| panic!("autocast: expected a floating kind, got {kind:?}")),
            None => 0,
        };
        let mut previous = AutocastState::default();
        // SAFETY: `previous` outlives the call.
        let message = unsafe {
            ffi::ext_autocast_enter(cuda, i32::from(kind.is_some()), dtype, &raw mut previous)
        };
        // Only flags are set; the sole failure is a device type without autocast.
        ffi::check(message).expect("CPU and CUDA have autocast");
        Self { cuda, previous }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: `previous` was filled by `enter`.
        let message = unsafe { ffi::ext_autocast_leave(self.cuda, &raw const self.previous) };
        debug_assert!(ffi::check(message).is_ok());
    }
}

/// Runs `f` with autocast to `kind` on the device's type, or as it is when `kind` is `None`.
///
/// The low-precision copies of the weights are cached until the outermost call returns, so a
/// parameter used twice is converted once, and an optimizer step must lie outside.
///
/// # Panics
/// When `kind` is not a floating kind.
pub fn autocast<T>(device: Device, kind: Option<Kind>, f: impl FnOnce() -> T) -> T {
    let _guard = kind.map(|kind| Guard::enter(device, Some(kind)));
    f()
}

thread_local! {
    /// The converted buffers: address of the f32 buffer, its number of values, and the copy.
    static CONVERTED: RefCell<Vec<(usize, usize, Tensor)>> = const { RefCell::new(Vec::new()) };
}

/// Removes the buffers that it added, also when the code inside panics.
struct Converted(usize);

impl Drop for Converted {
    fn drop(&mut self) {
        CONVERTED.with_borrow_mut(|all| all.truncate(self.0));
    }
}

/// As [`autocast`]. It also converts each of the f32 `buffers` once, as a whole. A weight of
/// [`crate::linear()`] that lies in a buffer is then a part of the converted one. A detector has some two
/// hundred such weights, and a kernel for each is mostly waiting. (Other operations convert for themselves.)
/// The buffers must not change inside.
///
/// # Errors
/// No room for the copies.
///
/// # Panics
/// As [`autocast`].
pub fn autocast_of<T>(
    device: Device,
    kind: Option<Kind>,
    buffers: &[Tensor],
    f: impl FnOnce() -> T,
) -> Result<T> {
    let _converted = Converted(CONVERTED.with_borrow(Vec::len));
    if let Some(kind) = kind {
        for buffer in buffers.iter().filter(|b| b.kind() == Kind::Float && b.is_contiguous()) {
            let copy = crate::no_grad(|| buffer.detach().f_to_kind(kind))?;
            let place = (buffer.data_ptr() as usize, buffer.numel(), copy);
            CONVERTED.with_borrow_mut(|all| all.push(place));
        }
    }
    Ok(autocast(device, kind, f))
}

/// A weight in another kind, without a gradient. If it lies in a converted buffer, it is a part of that.
pub(crate) fn converted(weight: &Tensor, kind: Kind) -> Result<Tensor> {
    let from = weight.data_ptr() as usize;
    let found = CONVERTED.with_borrow(|all| {
        let within = |&&(first, count, ref copy): &&(usize, usize, Tensor)| {
            weight.kind() == Kind::Float
                && copy.kind() == kind
                && (first..first + count * size_of::<f32>()).contains(&from)
        };
        let (first, _, copy) = all.iter().find(within)?;
        let offset = (from - first) / size_of::<f32>();
        Some((copy.shallow_clone(), offset as i64))
    });
    Ok(match found {
        Some((copy, offset)) => copy.f_as_strided(weight.size(), weight.stride(), offset)?,
        None => weight.detach().f_to_kind(kind)?,
    })
}

/// Runs `f` with autocast switched off on the device's type: what `f` computes on f32 tensors
/// stays f32.
pub fn no_autocast<T>(device: Device, f: impl FnOnce() -> T) -> T {
    let _guard = Guard::enter(device, None);
    f()
}

/// What autocast computes in on the device's type; `None` where it is off.
pub fn autocast_kind(device: Device) -> Option<Kind> {
    let mut dtype = 0;
    // SAFETY: `dtype` outlives the call.
    let message = unsafe { ffi::ext_autocast_dtype(ffi::is_cuda(device), &raw mut dtype) };
    ffi::check(message).expect("CPU and CUDA have autocast");
    match dtype {
        5 => Some(Kind::Half),
        15 => Some(Kind::BFloat16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;

    fn product() -> Kind {
        let a = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        a.matmul(&a).kind()
    }

    #[test]
    fn autocast_holds_inside_and_is_restored() {
        assert_eq!(product(), Kind::Float);
        autocast(Device::Cpu, Some(Kind::BFloat16), || {
            assert_eq!(product(), Kind::BFloat16);
            assert_eq!(autocast_kind(Device::Cpu), Some(Kind::BFloat16));
            no_autocast(Device::Cpu, || assert_eq!(product(), Kind::Float));
            no_autocast(Device::Cpu, || assert_eq!(autocast_kind(Device::Cpu), None));
            assert_eq!(product(), Kind::BFloat16);
            autocast(Device::Cpu, None, || assert_eq!(product(), Kind::BFloat16));
        });
        assert_eq!(product(), Kind::Float);
    }

    #[test]
    fn weights_of_a_buffer_are_views_of_its_copy() {
        let buffer = Tensor::from_slice(&(0..24).map(|i| i as f32 / 3.0).collect::<Vec<_>>());
        let weight = buffer.narrow(0, 4, 12).view([3, 4]);
        let (part, other) = (weight.narrow(0, 1, 2), Tensor::from_slice(&[0.1f32]));
        let kind = Kind::BFloat16;
        autocast_of(Device::Cpu, Some(kind), std::slice::from_ref(&buffer), || {
            let places = [&weight, &weight.tr(), &part].map(|x| {
                let got = converted(x, kind).unwrap();
                assert!(got.equal(&x.to_kind(kind)) && got.stride() == x.stride());
                got.data_ptr() as usize
            });
            assert_eq!(places[1], places[0]);
            assert_eq!(places[2], places[0] + 8);
            // Elsewhere, or in another kind, a copy of its own.
            assert!(converted(&other, kind).unwrap().equal(&other.to_kind(kind)));
            assert_eq!(converted(&weight, Kind::Half).unwrap().kind(), Kind::Half);
        })
        .unwrap();
        assert!(CONVERTED.with_borrow(Vec::is_empty));
    }

    #[test]
    fn a_panic_inside_restores_the_state() {
        let panicked = std::panic::catch_unwind(|| {
            autocast(Device::Cpu, Some(Kind::BFloat16), || panic!("inside"));
        });
        assert!(panicked.is_err());
        assert_eq!(product(), Kind::Float);
    }

    #[test]
    fn the_cache_of_weights_ends_with_the_outermost_call() {
        // A cached copy of the old weight would give 4 again.
        let mut weight = Tensor::ones([4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let x = Tensor::ones([1, 4], (Kind::Float, Device::Cpu));
        let run = |weight: &Tensor| {
            autocast(Device::Cpu, Some(Kind::BFloat16), || x.matmul(weight).double_value(&[0, 0]))
        };
        assert_eq!(run(&weight), 4.0);
        crate::no_grad(|| {
            let _ = weight.fill_(2.0);
        });
        assert_eq!(run(&weight), 8.0);
    }
}
