//! What can go wrong below the library.

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What libtorch says, without the backtrace of its own that it appends.
#[must_use]
pub fn without_backtrace(text: &str) -> &str {
    text.split("Exception raised from").next().unwrap_or(text).trim()
}

/// What can go wrong below the library. The messages are complete in themselves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch refused a call that goes through `tch`.
    #[error("libtorch: {}", without_backtrace(&.0.to_string()))]
    Torch(#[from] tch::TchError),
    /// libtorch refused a call that goes through this crate's own bindings.
    #[error("libtorch: {}", without_backtrace(.0))]
    Libtorch(String),
    /// An argument of an operation has the wrong shape, kind or device.
    #[error("{op}: {argument}: expected {expected}, got {got}")]
    Argument {
        /// The operation that was called, by its function's name.
        op: &'static str,
        /// The argument's name in that function.
        argument: &'static str,
        /// The shape, kind, device or range that the argument should have.
        expected: String,
        /// What the argument has instead.
        got: String,
    },
    /// The libtorch that is loaded is not the one that this crate is written for.
    #[error("{0}")]
    Version(String),
    /// The device that was asked for can not be used.
    #[error("{0}")]
    Device(String),
    /// A CUDA kernel could not be compiled, loaded or started.
    #[error("CUDA: {0}")]
    Cuda(String),
}

impl Error {
    pub(crate) fn argument(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        Self::Argument { op, argument, expected: expected.into(), got: got.into() }
    }
}
