//! Makes tensors of the host's memory, and copies tensors between host and device without waiting.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::sync::Mutex;

use tch::{Device, Kind, Tensor};

use crate::cuda::launch::Event;
use crate::{Result, device_name, ffi};

/// Bytes of a new tensor, written one after the other.
#[derive(Debug)]
pub struct Bytes<'a>(&'a mut [MaybeUninit<u8>]);

impl Bytes<'_> {
    /// Takes the next `count` places.
    fn next(&mut self, count: usize) -> &mut [MaybeUninit<u8>] {
        let left = self.0.len();
        assert!(count <= left, "{count} bytes for the last {left} of a tensor");
        let (next, rest) = std::mem::take(&mut self.0).split_at_mut(count);
        self.0 = rest;
        next
    }

    /// Writes the next bytes.
    ///
    /// # Panics
    /// Beyond the tensor's end.
    pub fn write(&mut self, bytes: &[u8]) {
        let next = self.next(bytes.len());
        // SAFETY: as many places as there are bytes; what is new does not overlap what is there.
        unsafe {
            next.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        }
    }

    /// Reads all bytes that are left, from a file or the like.
    ///
    /// # Errors
    /// What reading fails with, as an end that comes too early: what was not read is zero.
    pub fn read(&mut self, from: &mut impl std::io::Read) -> std::io::Result<()> {
        let next = self.next(self.0.len());
        next.fill(MaybeUninit::new(0));
        // SAFETY: every place was written just now, and a byte may have any value.
        let next =
            unsafe { std::slice::from_raw_parts_mut(next.as_mut_ptr().cast::<u8>(), next.len()) };
        from.read_exact(next)
    }

    /// Writes the same byte `count` times.
    ///
    /// # Panics
    /// Beyond the tensor's end.
    pub fn repeat(&mut self, byte: u8, count: usize) {
        self.next(count).fill(MaybeUninit::new(byte));
    }
}

/// A tensor of the host whose bytes `fill` writes: row by row, as memory has them. What it leaves at the
/// end is zero. (Of `Bool`, a byte must be 0 or 1.)
///
/// The calling thread does all of it. `Tensor::f_from_data_size` first writes zeros with libtorch's threads,
/// and then copies: threads that read images side by side would wait for each other.
///
/// # Errors
/// No room.
pub fn filled(size: &[i64], kind: Kind, fill: impl FnOnce(&mut Bytes<'_>)) -> Result<Tensor> {
    let tensor = Tensor::f_empty(size, (kind, Device::Cpu))?;
    let count = tensor.numel() * kind.elt_size_in_bytes();
    if count > 0 {
        // SAFETY: a new tensor is contiguous, has that many bytes, and is nobody else's.
        let bytes = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), count) };
        let mut bytes = Bytes(bytes);
        fill(&mut bytes);
        bytes.0.fill(MaybeUninit::new(0));
    }
    Ok(tensor)
}

/// Whether a tensor of the host holds neither NaN nor infinite numbers. The calling thread reads the memory:
/// with many small tensors, libtorch's threads wait for each other longer than they work.
///
/// # Errors
/// What libtorch refuses, of another kind than f32 or of memory with gaps.
pub fn all_finite(tensor: &Tensor) -> Result<bool> {
    match crate::real::data::<f32>("all_finite", tensor) {
        // With an exponent of ones only: infinite or NaN.
        Ok(values) => Ok(values.iter().all(|value| value.is_finite())),
        Err(_) => Ok(bool::try_from(tensor.f_isfinite()?.f_all()?)?),
    }
}

/// From this many bytes on, CUDA copies from memory that is not pinned only when the device comes to the copy.
const TAKEN_OVER: usize = 64 << 10;

/// Copies a tensor of the host to a device, without waiting for what the device still has to do. A plain copy
/// waits, and then the device waits for the host. (The host's tensor may be dropped at once. CUDA has read
/// a small one before it returns. A large one is copied into pinned memory first, which libtorch keeps until
/// the device has read it.)
///
/// # Panics
/// As `tch`'s own operations: the device has no room. A tensor that is not the host's.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    assert_eq!(tensor.device(), Device::Cpu, "upload takes tensors of the host");
    let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
    // Without pinned memory it is slower, and no less right.
    let pinned = if device.is_cuda() && bytes >= TAKEN_OVER { pin(tensor).ok() } else { None };
    pinned.as_ref().unwrap_or(tensor).to_device_(device, tensor.kind(), true, false)
}

fn pin(tensor: &Tensor) -> Result<Tensor> {
    let pinned = Tensor::new();
    // SAFETY: both outlive the call; the shim fills the one that is this function's own.
    ffi::check(unsafe { ffi::ext_pin_memory(pinned.as_ptr().cast_mut(), tensor.as_ptr()) })?;
    Ok(pinned)
}

/// A tensor on its way to the host.
#[derive(Debug)]
pub struct Download {
    tensor: Tensor,
    /// None for a tensor that was on the host already.
    arrived: Option<Event>,
}

/// Starts a copy to the host, behind everything that is queued on the device now. Waiting for it does not
/// wait for what is queued afterwards, as a plain copy does.
///
/// # Errors
/// What libtorch or the driver refuses.
pub fn download(tensor: &Tensor) -> Result<Download> {
    let device = tensor.device();
    if !device.is_cuda() {
        return Ok(Download { tensor: tensor.shallow_clone(), arrived: None });
    }
    // Into pinned memory, as libtorch does it when it is not to wait.
    let tensor = tensor.f_to_device_(Device::Cpu, tensor.kind(), true, false)?;
    Ok(Download { tensor, arrived: Some(Event::record(device)?) })
}

impl Download {
    /// The tensor, once it is there.
    ///
    /// # Errors
    /// What an earlier kernel failed with.
    pub fn wait(self) -> Result<Tensor> {
        if let Some(event) = &self.arrived {
            event.wait()?;
        }
        Ok(self.tensor)
    }
}

/// A small tensor of known values. It is copied to the device when it is first asked for, and kept. So a
/// recorded graph ([`crate::GraphPool`]) may read it; a tensor of [`upload`] it may not.
///
/// The values are rounded to `kind`.
///
/// # Shapes
/// As many values as `shape` has places.
pub fn constant(values: &[f64], shape: &[i64], (kind, device): (Kind, Device)) -> Tensor {
    type Key = (Kind, String, Vec<u64>, Vec<i64>);
    static KEPT: Mutex<Option<HashMap<Key, Tensor>>> = Mutex::new(None);
    let bits = values.iter().map(|v| v.to_bits()).collect();
    let key = (kind, device_name(device), bits, shape.to_vec());
    let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    kept.get_or_insert_default()
        .entry(key)
        .or_insert_with(|| upload(&Tensor::from_slice(values).to_kind(kind).view(shape), device))
        .shallow_clone()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_seen_in_any_kind() {
        for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int64] {
            assert!(all_finite(&Tensor::arange(5, (kind, Device::Cpu))).unwrap());
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let x = Tensor::from_slice(&[1.0, value, 2.0, 3.0]).view([2, 2]);
            for kind in [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16] {
                assert!(!all_finite(&x.to_kind(kind)).unwrap(), "{value} {kind:?}");
            }
            assert!(!all_finite(&x.to_kind(Kind::Float).transpose(0, 1)).unwrap());
        }
    }

    #[test]
    fn a_file_fills_what_is_left_and_a_short_one_is_an_error() {
        let mut done = Ok(());
        let read = |from: &[u8], done: &mut std::io::Result<()>| {
            let mut from = from;
            filled(&[4], Kind::Uint8, |bytes| {
                bytes.write(&[9]);
                *done = bytes.read(&mut from);
            })
            .unwrap()
        };
        assert_eq!(Vec::<u8>::try_from(read(&[1, 2, 3, 4], &mut done)).unwrap(), [9, 1, 2, 3]);
        assert!(done.is_ok());
        let short = read(&[], &mut done);
        assert_eq!(done.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(Vec::<u8>::try_from(short).unwrap(), [9, 0, 0, 0]);
    }

    #[test]
    fn what_is_not_filled_is_zero() {
        let words = filled(&[2, 3], Kind::Int16, |bytes| {
            bytes.repeat(0, 4);
            bytes.write(&[0, 0, 255, 255]);
        })
        .unwrap();
        assert_eq!(words.size(), [2, 3]);
        assert_eq!(Vec::<i16>::try_from(words.flatten(0, 1)).unwrap(), [0, 0, 0, -1, 0, 0]);
        let nothing = filled(&[0, 3], Kind::Uint8, |_| panic!("no bytes to fill"));
        assert_eq!(nothing.unwrap().size(), [0, 3]);
    }

    #[test]
    #[should_panic(expected = "2 bytes for the last 1 of a tensor")]
    fn nothing_is_written_beyond_the_end() {
        let _ = filled(&[3], Kind::Uint8, |bytes| {
            bytes.repeat(1, 2);
            bytes.write(&[2, 3]);
        });
    }

    #[test]
    fn a_constant_is_made_once_for_each_shape() {
        let f32s = (Kind::Float, Device::Cpu);
        let a = constant(&[1.0, 2.0], &[2], f32s);
        let b = constant(&[1.0, 2.0], &[2], f32s);
        let c = constant(&[1.0, 2.0], &[1, 2], f32s);
        let d = constant(&[1.0, 2.0], &[2], (Kind::Double, Device::Cpu));
        assert_eq!(a.data_ptr(), b.data_ptr());
        assert_ne!(a.data_ptr(), c.data_ptr());
        assert_eq!((a.kind(), d.kind()), (Kind::Float, Kind::Double));
        assert_eq!(Vec::<f32>::try_from(c.flatten(0, 1)).unwrap(), [1.0, 2.0]);
    }
}
