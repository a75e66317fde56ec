//! Which device to compute on, by name.

use std::fmt;
use std::str::FromStr;

use tch::{Cuda, Device, Kind, Tensor};

use crate::cuda::libraries;
use crate::{Error, Result, no_grad, version};

/// What the user asked for: `cpu`, `cuda`, `cuda:N` or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The CPU, whether there is a CUDA device or not.
    Cpu,
    /// A CUDA device, the first when no index is given.
    Cuda(Option<usize>),
    /// The first CUDA device when there is one that works, else the CPU.
    #[default]
    Auto,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(None)),
            "auto" => Ok(Self::Auto),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(|index| Self::Cuda(Some(index)))
                .ok_or_else(|| {
                    Error::Device(format!(
                        "device: expected `cpu`, `cuda`, `cuda:N` (as `cuda:0`) or `auto`, got \
                         `{text}`"
                    ))
                }),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// A device's name, as [`DeviceChoice`] reads it: `cpu`, `cuda:0`.
#[must_use]
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

impl DeviceChoice {
    /// The device to compute on. Opens the CUDA half of libtorch when a CUDA device is asked for,
    /// or when the choice is left open and an NVIDIA driver is there.
    ///
    /// # Errors
    /// When the libtorch that is loaded is not 2.11. When a CUDA device was asked for and can't be had:
    /// says what is missing and what to do. `Auto` takes the CPU instead.
    pub fn resolve(&self) -> Result<Device> {
        version::check()?;
        match *self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(index) => cuda_device(index.unwrap_or(0)),
            Self::Auto => Ok(cuda_device(0).unwrap_or(Device::Cpu)),
        }
    }
}

/// CUDA device `index`, after opening the CUDA half of libtorch.
/// Has a CUDA device's context made and cuDNN and cuBLAS opened, which takes half a second of a process's
/// first pass: on a thread of its own it is done while weights are read. Does nothing on the CPU. What is
/// wrong with the device, the first pass says.
pub fn open_libraries(device: Device) {
    if !device.is_cuda() {
        return;
    }
    let first_pass = || -> std::result::Result<(), tch::TchError> {
        let map = Tensor::f_ones([1, 8, 8, 8], (Kind::BFloat16, device))?;
        let weight = Tensor::f_ones([8, 8, 3, 3], (Kind::BFloat16, device))?;
        let _ = map.f_conv2d(&weight, None::<&Tensor>, 1, 1, 1, 1)?;
        let rows = map.f_view([64, 8])?;
        let _ = rows.f_matmul(&rows.f_transpose(0, 1)?)?;
        let rows = rows.f_to_kind(Kind::Float)?;
        let _ = rows.f_matmul(&rows.f_transpose(0, 1)?)?;
        Ok(())
    };
    let _ = no_grad(first_pass);
}

fn cuda_device(index: usize) -> Result<Device> {
    libraries::open_cuda_half()?;
    match usize::try_from(Cuda::device_count()).unwrap_or(0) {
        0 => Err(Error::Device(libraries::no_device_message())),
        count if index >= count => {
            let last = count - 1;
            let names =
                if last == 0 { "`cuda:0`".into() } else { format!("`cuda:0` to `cuda:{last}`") };
            Err(Error::Device(format!(
                "device: `cuda:{index}` was asked for, but libtorch sees {count} CUDA \
                 device{}: {names}",
                if count == 1 { "" } else { "s" }
            )))
        }
        _ => Ok(Device::Cuda(index)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(None)),
            ("cuda:3", DeviceChoice::Cuda(Some(3))),
            ("auto", DeviceChoice::Auto),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:99999999999999999999"] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("cuda:N") && error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn a_device_is_called_what_the_user_calls_it() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            let DeviceChoice::Cuda(Some(index)) = device_name(device).parse().unwrap() else {
                assert_eq!((device, device_name(device).as_str()), (Device::Cpu, "cpu"));
                continue;
            };
            assert_eq!(device, Device::Cuda(index));
        }
    }

    #[test]
    fn cpu_and_auto_always_resolve() {
        assert_eq!(DeviceChoice::Cpu.resolve().unwrap(), Device::Cpu);
        assert!(DeviceChoice::Auto.resolve().is_ok());
    }

    #[test]
    fn a_missing_device_is_explained() {
        let error = DeviceChoice::Cuda(Some(512)).resolve().unwrap_err().to_string();
        // Which of the three holds depends on the machine; each tells what to do or what there is.
        assert!(
            error.contains("driver")
                || error.contains("make libtorch-cuda")
                || error.contains("cuda:0"),
            "{error}"
        );
    }
}
