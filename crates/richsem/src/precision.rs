//! The numbers that networks compute in. Only this module sets libtorch's state for it.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// Numbers that a network computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// bf16 in convolutions and matrix products. Boxes, cosines, matching and losses are f32.
    Bf16,
}

impl Precision {
    /// The name in settings files, as `bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// The kind that autocast converts to. None if nothing is converted.
    #[must_use]
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::F32 => None,
            Self::Bf16 => Some(Kind::BFloat16),
        }
    }

    /// Sets libtorch to this precision, in this process from now on. With [`Self::F32`], matrix products on
    /// a GPU are in full f32. With [`Self::Bf16`], those that stay in f32 use TF32 there.
    ///
    /// # Errors
    /// What libtorch refuses.
    pub fn apply(self) -> Result<()> {
        Ok(torch_ext::set_tf32(self != Self::F32)?)
    }

    /// Runs a pass of a network in this precision, [`Self::apply`] included. So a detector always gives the
    /// same numbers, whatever ran before.
    ///
    /// # Errors
    /// What libtorch refuses; what `pass` returns.
    pub fn run<T>(self, device: Device, pass: impl FnOnce() -> Result<T>) -> Result<T> {
        self.run_with(device, &[], pass)
    }

    /// As [`Self::run`], of a network whose parameters lie in these buffers: see [`torch_ext::autocast_of`].
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn run_with<T>(
        self,
        device: Device,
        buffers: &[Tensor],
        pass: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.apply()?;
        torch_ext::autocast_of(device, self.kind(), buffers, pass)?
    }
}
