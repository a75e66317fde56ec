//! What libtorch has and `tch` does not bind, and the project's own kernels.

/// What can go wrong below the library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
