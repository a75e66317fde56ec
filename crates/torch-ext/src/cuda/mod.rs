//! CUDA, all of it opened at run time.

pub(crate) mod libraries;
