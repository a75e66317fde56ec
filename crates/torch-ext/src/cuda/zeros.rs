//! Zeros that kernels add to. A recorded pass needs hundreds of small tensors of zeros, and would have a kernel
//! for each. So in a recording they are cut from one piece, which is cleared once.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::launch::stream;
use crate::{Error, Result};

/// Numbers of a piece. A tensor of more than a quarter of it has memory of its own.
const PIECE: i64 = 1 << 18;
/// Every cut starts at a multiple of as many numbers (256 bytes).
const ALIGNMENT: i64 = 64;

/// The recording that is going on.
struct Recorded {
    stream: Stream,
    piece: Option<(Tensor, i64)>,
}

#[derive(PartialEq)]
struct Stream(*mut c_void);

// SAFETY: a handle, which is compared and nothing else.
unsafe impl Send for Stream {}

/// Only one recording may go on at a time.
static RECORDED: Mutex<Option<Recorded>> = Mutex::new(None);

/// As long as this lives, zeros on the current stream come from pieces.
pub(super) struct InPieces(());

impl InPieces {
    /// For a recording that has begun.
    pub(super) fn new(device: Device) -> Result<Self> {
        let Device::Cuda(index) = device else {
            return Err(Error::Cuda(format!("nothing is recorded on {device:?}")));
        };
        let recorded = Recorded { stream: Stream(stream(index)?), piece: None };
        *RECORDED.lock().unwrap_or_else(PoisonError::into_inner) = Some(recorded);
        Ok(Self(()))
    }
}

impl Drop for InPieces {
    fn drop(&mut self) {
        *RECORDED.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Zeros of four bytes each, f32 or i32.
pub(crate) fn zeros(size: &[i64], kind: Kind, device: Device) -> Result<Tensor> {
    let whole = || Ok(Tensor::f_zeros(size, (kind, device))?);
    let count: i64 = size.iter().product();
    let Device::Cuda(index) = device else { return whole() };
    if count == 0 || count > PIECE / 4 || !matches!(kind, Kind::Float | Kind::Int) {
        return whole();
    }
    let mut recorded = RECORDED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(Recorded { stream: own, piece }) = recorded.as_mut() else { return whole() };
    // Others may compute at the same time, on streams of their own.
    if *own != Stream(stream(index)?) {
        return whole();
    }
    let (numbers, used) = match piece.take() {
        Some((numbers, used)) if used + count <= PIECE => (numbers, used),
        _ => (Tensor::f_zeros([PIECE], (Kind::Float, device))?, 0),
    };
    let cut = numbers.f_narrow(0, used, count)?.f_view_dtype(kind)?.f_view(size)?;
    let padded = (count + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    *piece = Some((numbers, used + padded));
    Ok(cut)
}
