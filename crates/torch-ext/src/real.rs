//! What the CPU kernels need of a floating number, and of a tensor of them.

use std::mem::MaybeUninit;

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// The numbers of the CPU kernels: `f32` or `f64`.
pub(crate) trait Real:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Into<f64>
    + std::iter::Sum
    + std::ops::Add<Output = Self>
    + std::ops::AddAssign
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    const KIND: Kind;
    const ZERO: Self;
    const ONE: Self;
    const HALF: Self;
    fn from_f64(value: f64) -> Self;
    fn from_index(value: usize) -> Self;
    /// Rounds towards zero. What does not fit becomes the nearest number that does; a NaN becomes 0.
    fn to_index(self) -> isize;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn fused_mul_add(self, factor: Self, term: Self) -> Self;
}

macro_rules! real {
    ($type:ty, $kind:expr) => {
        impl Real for $type {
            const KIND: Kind = $kind;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const HALF: Self = 0.5;
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $type
            }
            #[inline(always)]
            fn from_index(value: usize) -> Self {
                value as $type
            }
            #[inline(always)]
            fn to_index(self) -> isize {
                self as isize
            }
            #[inline(always)]
            fn floor(self) -> Self {
                <$type>::floor(self)
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                <$type>::ceil(self)
            }
            #[inline(always)]
            fn fused_mul_add(self, factor: Self, term: Self) -> Self {
                <$type>::mul_add(self, factor, term)
            }
        }
    };
}

real!(f32, Kind::Float);
real!(f64, Kind::Double);

/// `a · b + c`, in one rounding where the processor has that in one instruction.
#[inline(always)]
pub(crate) fn mul_add<T: Real, const FMA: bool>(a: T, b: T, c: T) -> T {
    if FMA { a.fused_mul_add(b, c) } else { a * b + c }
}

/// The numbers of a contiguous CPU tensor.
pub(crate) fn data<'a, T: Real>(op: &'static str, tensor: &'a Tensor) -> Result<&'a [T]> {
    let (pointer, length) = checked::<T>(op, tensor)?;
    // SAFETY: `checked` found that many numbers of this kind in CPU memory, which the tensor keeps
    // alive; an empty tensor's pointer may be null.
    Ok(if length == 0 { &[] } else { unsafe { std::slice::from_raw_parts(pointer, length) } })
}

/// The numbers of a contiguous CPU tensor.
///
/// # Safety
/// Nothing else refers to the tensor's memory while they are borrowed, and it was written (by zeros, if by
/// nothing else).
pub(crate) unsafe fn data_mut<'a, T: Real>(
    op: &'static str,
    tensor: &'a mut Tensor,
) -> Result<&'a mut [T]> {
    let (pointer, length) = checked::<T>(op, tensor)?;
    // SAFETY: as in `data`; the rest is the caller's promise.
    Ok(if length == 0 {
        &mut []
    } else {
        unsafe { std::slice::from_raw_parts_mut(pointer, length) }
    })
}

/// A new tensor on the CPU, and what `fill` is to write in it: memory that holds no numbers yet.
///
/// # Safety
/// `fill` writes every place.
///
/// # Errors
/// No room; what `fill` returns.
pub(crate) unsafe fn filled<T: Real>(
    op: &'static str,
    size: &[i64],
    fill: impl FnOnce(&mut [MaybeUninit<T>]),
) -> Result<Tensor> {
    let tensor = Tensor::f_empty(size, (T::KIND, Device::Cpu))?;
    let (pointer, length) = checked::<T>(op, &tensor)?;
    if length > 0 {
        // SAFETY: as in `data`; the tensor is new, and such places may hold anything.
        fill(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), length) });
    }
    Ok(tensor)
}

fn checked<T: Real>(op: &'static str, tensor: &Tensor) -> Result<(*mut T, usize)> {
    if tensor.device() != Device::Cpu || tensor.kind() != T::KIND || !tensor.is_contiguous() {
        return Err(Error::argument(
            op,
            "tensor",
            format!("contiguous {:?} on the CPU", T::KIND),
            format!("{:?} {:?} on {:?}", tensor.kind(), tensor.stride(), tensor.device()),
        ));
    }
    Ok((tensor.data_ptr().cast(), tensor.numel()))
}

/// A slice that parallel tasks write disjoint parts of, where the parts interleave so that no
/// chunking of the slice can express it.
pub(crate) struct Scattered<'a, T> {
    pointer: *mut T,
    length: usize,
    _slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: whoever calls `part` vouches for disjointness.
unsafe impl<T: Send> Sync for Scattered<'_, T> {}

impl<'a, T> Scattered<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), length: slice.len(), _slice: std::marker::PhantomData }
    }

    /// `length` elements from `start`.
    ///
    /// # Safety
    /// No two live parts may overlap.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) unsafe fn part(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.length && length <= self.length - start);
        // SAFETY: in bounds; the caller vouches for disjointness.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), length) }
    }
}

/// Defines `$name`, which runs the generic kernel `$body` compiled for AVX2 and FMA where the
/// processor has them, and for the baseline otherwise. `$body` takes `const FMA: bool` last and
/// must be `#[inline(always)]`.
macro_rules! multiversioned {
    (fn $name:ident / $body:ident<$t:ident $(, const $d:ident: usize)?>($($arg:ident: $type:ty),* $(,)?)) => {
        fn $name<$t: Real $(, const $d: usize)?>($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn wide<$t: Real $(, const $d: usize)?>($($arg: $type),*) {
                    $body::<$t $(, $d)?, true>($($arg),*);
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has the features.
                    return unsafe { wide::<$t $(, $d)?>($($arg),*) };
                }
            }
            // Every 64-bit ARM processor fuses.
            $body::<$t $(, $d)?, { cfg!(target_arch = "aarch64") }>($($arg),*);
        }
    };
}
pub(crate) use multiversioned;
