//! CUDA, all of it opened at run time: the driver, libtorch's CUDA half, and the kernel compiler.

pub(crate) mod compile;
pub(crate) mod cublas_lt;
pub(crate) mod graph;
pub(crate) mod launch;
pub(crate) mod libraries;
pub(crate) mod nccl;
pub(crate) mod zeros;
