//! A matrix product with all that follows it in one kernel, by cuBLASLt, which libtorch brings and does not
//! offer. It chooses a kernel for a shape in microseconds. cuDNN takes milliseconds to plan the same product
//! as a convolution of one pixel, for each size of images anew.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, OnceLock};

use libloading::os::unix::Library;
use tch::{Device, Kind, Tensor};

use super::launch::{Current, aligned, context, stream};
use crate::{Error, Result};

/// Descriptions of products, matrices and wishes, behind pointers.
type Handle = *mut c_void;
type Status = c_int;

// Numbers of cublasLt.h, library_types.h and cublas_api.h (CUDA 13), which no machine needs for building.
const R_32F: c_int = 0;
const R_16F: c_int = 2;
const R_16BF: c_int = 14;
const COMPUTE_32F: c_int = 68;
const DESC_TRANSA: c_int = 3;
const DESC_EPILOGUE: c_int = 7;
const DESC_BIAS_POINTER: c_int = 8;
const EPILOGUE_RELU_BIAS: c_int = 6;
const OP_T: c_int = 1;
const PREF_MAX_WORKSPACE_BYTES: c_int = 1;
const PREF_REDUCTION_SCHEME_MASK: c_int = 3;
/// Parts of a sum are added up in f32 alone; by default they may be in the result's 16 bits.
const REDUCTION_COMPUTE_TYPE: u32 = 2;
const NOT_SUPPORTED: Status = 15;
/// Of A, B, C and D.
const PREF_MIN_ALIGNMENT_BYTES: [c_int; 4] = [5, 6, 7, 8];

/// Bytes: `aligned` gives tensors at such addresses.
const ALIGNMENT: u32 = 16;
/// Bytes of working memory that a kernel may use at most: what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

/// A kernel with its settings, `cublasLtMatmulAlgo_t`.
type Algorithm = [u64; 8];

/// An answer of the library's, `cublasLtMatmulHeuristicResult_t`.
#[repr(C)]
struct Found {
    algorithm: Algorithm,
    workspace: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

/// A kernel for products of a shape.
#[derive(Clone, Copy)]
struct Chosen {
    algorithm: Algorithm,
    workspace: usize,
}

/// What decides which kernel is the fastest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// The library's number of the kind.
    kind: c_int,
    /// N, the rows of `x`.
    rows: i64,
    /// K, the columns of `x` and of the weight.
    inputs: i64,
    /// M, the rows of the weight.
    outputs: i64,
    /// Whether a residual is added.
    residual: bool,
}

macro_rules! functions {
    ($($field:ident = $name:literal: fn($($argument:ty),*);)*) => {
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> Status,)*
        }

        impl Functions {
            fn load() -> Result<Self, String> {
                // libtorch's CUDA half brings the library, and its symbols are visible to all.
                let all = Library::this();
                // SAFETY: the types are those of cublasLt.h.
                unsafe {
                    Ok(Self {
                        $($field: *all.get($name).map_err(|error| error.to_string())?,)*
                    })
                }
            }
        }
    };
}

functions! {
    create = b"cublasLtCreate": fn(*mut Handle);
    desc_create = b"cublasLtMatmulDescCreate": fn(*mut Handle, c_int, c_int);
    desc_set = b"cublasLtMatmulDescSetAttribute": fn(Handle, c_int, *const c_void, usize);
    desc_destroy = b"cublasLtMatmulDescDestroy": fn(Handle);
    layout_create = b"cublasLtMatrixLayoutCreate": fn(*mut Handle, c_int, u64, u64, i64);
    layout_destroy = b"cublasLtMatrixLayoutDestroy": fn(Handle);
    pref_create = b"cublasLtMatmulPreferenceCreate": fn(*mut Handle);
    pref_set = b"cublasLtMatmulPreferenceSetAttribute": fn(Handle, c_int, *const c_void, usize);
    pref_destroy = b"cublasLtMatmulPreferenceDestroy": fn(Handle);
    heuristic = b"cublasLtMatmulAlgoGetHeuristic": fn(
        Handle, Handle, Handle, Handle, Handle, Handle, Handle, c_int, *mut Found, *mut c_int
    );
    matmul = b"cublasLtMatmul": fn(
        Handle, Handle, *const c_void, *const c_void, Handle, *const c_void, Handle, *const c_void,
        *const c_void, Handle, *mut c_void, Handle, *const Algorithm, *mut c_void, usize, *mut c_void
    );
}

fn functions() -> Result<&'static Functions> {
    static FUNCTIONS: OnceLock<Result<Functions, String>> = OnceLock::new();
    FUNCTIONS.get_or_init(Functions::load).as_ref().map_err(|problem| Error::Cuda(problem.clone()))
}

fn check(status: Status, what: &str) -> Result<()> {
    match status {
        0 => Ok(()),
        status => Err(Error::Cuda(format!("{what}: cuBLASLt's status {status}"))),
    }
}

/// Something that is destroyed when it is no longer needed.
struct Owned(Handle, unsafe extern "C" fn(Handle) -> Status);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by the library, and destroyed once.
        unsafe { (self.1)(self.0) };
    }
}

/// Sets an attribute.
///
/// # Safety
/// The library must know the attribute as one of this type.
unsafe fn attribute<T>(
    set: unsafe extern "C" fn(Handle, c_int, *const c_void, usize) -> Status,
    of: &Owned,
    which: c_int,
    value: &T,
) -> Result<()> {
    let pointer = std::ptr::from_ref(value).cast();
    // SAFETY: the value is live, and of the type that the caller vouches for.
    check(unsafe { set(of.0, which, pointer, size_of::<T>()) }, "an attribute")
}

/// What a product is, for the library.
struct Plan {
    desc: Owned,
    /// Of A, B, and of C and D.
    layouts: [Owned; 3],
}

impl Plan {
    fn new(f: &Functions, shape: Shape, bias: &Tensor) -> Result<Self> {
        let Shape { kind, rows, inputs, outputs, .. } = shape;
        let mut desc = null_mut();
        // SAFETY: the place is live.
        check(unsafe { (f.desc_create)(&raw mut desc, COMPUTE_32F, R_32F) }, "a product")?;
        let desc = Owned(desc, f.desc_destroy);
        let set = f.desc_set;
        // SAFETY: attributes of these types; the values are copied.
        unsafe {
            attribute(set, &desc, DESC_TRANSA, &OP_T)?;
            attribute(set, &desc, DESC_EPILOGUE, &EPILOGUE_RELU_BIAS)?;
            attribute(set, &desc, DESC_BIAS_POINTER, &bias.data_ptr())?;
        }
        // The library counts columns first: its matrices are ours transposed.
        let layout = |rows: i64, columns: i64| -> Result<Owned> {
            let mut layout = null_mut();
            let (rows, columns) = (rows.cast_unsigned(), columns.cast_unsigned());
            // SAFETY: the place is live.
            let status = unsafe {
                (f.layout_create)(&raw mut layout, kind, rows, columns, rows.cast_signed())
            };
            check(status, "a matrix").map(|()| Owned(layout, f.layout_destroy))
        };
        Ok(Self {
            desc,
            layouts: [layout(inputs, outputs)?, layout(inputs, rows)?, layout(outputs, rows)?],
        })
    }

    /// The kernel that the library thinks fastest; none where it has none.
    fn choose(&self, f: &Functions, handle: Handle) -> Result<Option<Chosen>> {
        let mut pref = null_mut();
        // SAFETY: the place is live.
        check(unsafe { (f.pref_create)(&raw mut pref) }, "a preference")?;
        let pref = Owned(pref, f.pref_destroy);
        // SAFETY: attributes of these types; the values are copied.
        unsafe {
            attribute(f.pref_set, &pref, PREF_MAX_WORKSPACE_BYTES, &WORKSPACE)?;
            attribute(f.pref_set, &pref, PREF_REDUCTION_SCHEME_MASK, &REDUCTION_COMPUTE_TYPE)?;
            for of_matrix in PREF_MIN_ALIGNMENT_BYTES {
                attribute(f.pref_set, &pref, of_matrix, &ALIGNMENT)?;
            }
        }
        let [a, b, c] = &self.layouts;
        let mut found =
            Found { algorithm: [0; 8], workspace: 0, state: 0, waves: 0.0, reserved: [0; 4] };
        let mut count = 0;
        // SAFETY: all live; there is room for the one that is asked for.
        let status = unsafe {
            (f.heuristic)(
                handle,
                self.desc.0,
                a.0,
                b.0,
                c.0,
                c.0,
                pref.0,
                1,
                &raw mut found,
                &raw mut count,
            )
        };
        if status != NOT_SUPPORTED {
            check(status, "choosing a kernel")?;
        }
        let there = status == 0 && count > 0 && found.state == 0;
        Ok(there.then_some(Chosen { algorithm: found.algorithm, workspace: found.workspace }))
    }
}

/// Handles by device, and kernels by device and shape.
#[derive(Default)]
struct Known {
    handles: HashMap<usize, usize>,
    chosen: HashMap<(usize, Shape), Option<Chosen>>,
}

/// `relu(x wᵀ + bias [+ residual])` in bf16 or f16, sums in f32. None if the library has no kernel for it.
///
/// # Shapes
/// `x` `[N, K]`, `weight` `[M, K]`, `bias` `[M]`, `residual` `[N, M]` → `[N, M]`, all of one kind and CUDA
/// device, none empty
///
/// # Errors
/// What the library or libtorch refuses.
pub(crate) fn relu_product(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let (shape, index) = checked(x, weight, bias, residual)?;
    let (x, weight, bias) = (aligned(x)?, aligned(weight)?, aligned(bias)?);
    let residual = residual.map(aligned).transpose()?;
    let f = functions()?;
    let _current = Current::set(context(index)?.context)?;
    let plan = Plan::new(f, shape, &bias)?;
    let (handle, chosen) = kernel(f, index, shape, &plan)?;
    let Some(Chosen { algorithm, workspace }) = chosen else { return Ok(None) };
    let Shape { rows, outputs, .. } = shape;
    let result = Tensor::f_empty([rows, outputs], (x.kind(), x.device()))?;
    let place = Tensor::f_empty([workspace as i64], (Kind::Uint8, x.device()))?;
    let (one, beta) = (1.0f32, if residual.is_some() { 1.0f32 } else { 0.0 });
    let added = residual.as_ref().unwrap_or(&result);
    let [a, b, c] = &plan.layouts;
    // SAFETY: the library's arguments in order: sizes, kinds and devices are checked, and all lies as the
    // layouts say. What is freed here is taken again by work on the same stream alone.
    check(
        unsafe {
            (f.matmul)(
                handle,
                plan.desc.0,
                (&raw const one).cast(),
                weight.data_ptr(),
                a.0,
                x.data_ptr(),
                b.0,
                (&raw const beta).cast(),
                added.data_ptr(),
                c.0,
                result.data_ptr(),
                c.0,
                &raw const algorithm,
                place.data_ptr(),
                workspace,
                stream(index)?,
            )
        },
        "a product",
    )?;
    Ok(Some(result))
}

/// Checks the arguments of [`relu_product`]. Returns the product's shape and the device's number.
fn checked(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
) -> Result<(Shape, usize)> {
    let wrong = |argument: &'static str, expected: String, got: &Tensor| {
        let got = format!("{:?} {:?} on {:?}", got.size(), got.kind(), got.device());
        Err(Error::argument("relu_product", argument, expected, got))
    };
    let (&[rows, inputs], Device::Cuda(index), Kind::BFloat16 | Kind::Half) =
        (x.size().as_slice(), x.device(), x.kind())
    else {
        return wrong("x", "[N, K] in 16 bits on CUDA".into(), x);
    };
    let outputs = bias.numel() as i64;
    let others = [("weight", weight, vec![outputs, inputs]), ("bias", bias, vec![outputs])];
    let residual_size = residual.map(|residual| ("residual", residual, vec![rows, outputs]));
    for (name, tensor, size) in others.into_iter().chain(residual_size) {
        if tensor.size() != size || tensor.kind() != x.kind() || tensor.device() != x.device() {
            return wrong(name, format!("{size:?} {:?} on {:?}", x.kind(), x.device()), tensor);
        }
    }
    if x.numel() == 0 || outputs == 0 {
        return wrong("x", "numbers".into(), x);
    }
    let kind = if x.kind() == Kind::Half { R_16F } else { R_16BF };
    Ok((Shape { kind, rows, inputs, outputs, residual: residual.is_some() }, index))
}

/// The library's handle for a device, and its kernel for a shape: both are asked for once.
fn kernel(
    f: &Functions,
    index: usize,
    shape: Shape,
    plan: &Plan,
) -> Result<(Handle, Option<Chosen>)> {
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Known { handles, chosen } = known.get_or_insert_default();
    let handle = match handles.get(&index) {
        Some(&handle) => handle as Handle,
        None => {
            let mut handle = null_mut();
            // SAFETY: the place is live. The handle is never destroyed, as libtorch's are not.
            check(unsafe { (f.create)(&raw mut handle) }, "opening the library")?;
            handles.insert(index, handle as usize);
            handle
        }
    };
    let chosen = match chosen.get(&(index, shape)) {
        Some(chosen) => *chosen,
        None => *chosen.entry((index, shape)).or_insert(plan.choose(f, handle)?),
    };
    Ok((handle, chosen))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::DeviceChoice;

    /// Where it has none, others compute instead, and nothing but the time would tell.
    #[test]
    fn there_are_kernels_for_usual_shapes() {
        let Ok(device) = DeviceChoice::Cuda(None).resolve() else {
            println!("skipped, there is no CUDA device");
            return;
        };
        for kind in [Kind::BFloat16, Kind::Half] {
            for [n, k, m] in [[700, 64, 256], [30_400, 512, 128], [2208, 256, 2048], [1, 8, 8]] {
                let random = |size: &[i64]| Tensor::rand(size, (Kind::Float, device)).to_kind(kind);
                let (x, weight, bias) = (random(&[n, k]), random(&[m, k]), random(&[m]));
                for residual in [None, Some(random(&[n, m]))] {
                    let y = relu_product(&x, &weight, &bias, residual.as_ref()).unwrap().unwrap();
                    let float = |x: &Tensor| x.to_kind(Kind::Float);
                    let mut expected = float(&x).matmul(&float(&weight).tr()) + float(&bias);
                    if let Some(residual) = &residual {
                        expected += float(residual);
                    }
                    let apart = ((float(&y) - &expected) / &expected).abs().max();
                    assert!(apart.double_value(&[]) < 1e-2, "{n} × {k} × {m}: {apart:?}");
                }
            }
        }
    }
}
