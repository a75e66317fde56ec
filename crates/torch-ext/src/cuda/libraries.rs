//! Opening at run time what only a machine with a GPU has: the driver, libtorch's CUDA half, NVRTC.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::version::{self, torch_folder};
use crate::{Error, Result, ffi};

/// Opens a library for the rest of the process, its symbols visible to all.
fn open(name: &Path) -> Result<(), String> {
    // SAFETY: runs the library's initialisers; only libtorch and NVIDIA's libraries are named.
    match unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            // Never closed: libtorch and the driver keep pointers into what they registered.
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(reason(&error)),
    }
}

/// The loader's message, without libloading's own words around it.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether the NVIDIA driver's library is there.
pub(crate) fn driver_present() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    *PRESENT.get_or_init(|| open(Path::new("libcuda.so.1")).is_ok())
}

/// Opens `libtorch_cuda.so`, once; libtorch then knows the CUDA device type.
///
/// # Errors
/// Names what is missing (the driver, the library or one it needs) and what to do about it.
pub(crate) fn open_cuda_half() -> Result<()> {
    static STATE: OnceLock<Result<(), String>> = OnceLock::new();
    STATE.get_or_init(try_open_cuda_half).clone().map_err(Error::Device)
}

fn try_open_cuda_half() -> Result<(), String> {
    if !driver_present() {
        return Err("device: a CUDA device needs the NVIDIA driver, and its library \
                    `libcuda.so.1` is not on this machine\n  hint: install a driver of version \
                    580 or newer, or compute on the `cpu`"
            .to_owned());
    }
    version::check().map_err(|problem| problem.to_string())?;
    // No other than that: both halves are of one version where they lie in one folder.
    let Some(file) = cuda_half_file() else {
        return Err(cuda_half_message(&match torch_folder() {
            Some(folder) => format!("there is no {CUDA_HALF} in `{}`", folder.display()),
            None => "libtorch's folder is unknown".to_owned(),
        }));
    };
    open(&file).map_err(|problem| cuda_half_message(&problem))?;
    choose_allocator().map_err(|problem| cuda_half_message(&problem.to_string()))
}

/// Lets libtorch take the device's memory in pieces that grow, unless the user has chosen something else.
/// Recorded graphs have memory of their own; beside them, the usual pieces leave half a gigabyte unused. The
/// setting goes through libtorch, not through the environment, which other threads may be reading.
fn choose_allocator() -> Result<()> {
    // Those that libtorch reads.
    let chosen = ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF"];
    if chosen.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    // SAFETY: sets flags of libtorch's allocator.
    ffi::check(unsafe { ffi::ext_cuda_expandable_segments() })
}

const CUDA_HALF: &str = "libtorch_cuda.so";

/// The CUDA half in the folder that libtorch was loaded from, if it is there.
pub(crate) fn cuda_half_file() -> Option<PathBuf> {
    torch_folder().map(|folder| folder.join(CUDA_HALF)).filter(|path| path.exists())
}

fn cuda_half_message(problem: &str) -> String {
    format!(
        "device: libtorch's CUDA half can't be opened: {problem}\n  hint: run `make libtorch-cuda`, \
         or set LIBTORCH to a complete PyTorch 2.11 for CUDA 13 and build again"
    )
}

/// Why libtorch, with its CUDA half open, sees no device.
pub(crate) fn no_device_message() -> String {
    let driver = driver_version().unwrap_or_else(|| "of unknown version".to_owned());
    let hidden = std::env::var("CUDA_VISIBLE_DEVICES")
        .map(|value| format!(" and CUDA_VISIBLE_DEVICES=`{value}` allows it"))
        .unwrap_or_default();
    format!(
        "device: the NVIDIA driver ({driver}) is there, but offers no usable device\n  hint: libtorch \
         for CUDA 13.0 needs driver 580 or newer; check that `nvidia-smi` lists the GPU{hidden}"
    )
}

/// Version of the kernel driver, as `580.95.05`.
pub(crate) fn driver_version() -> Option<String> {
    std::fs::read_to_string("/sys/module/nvidia/version").ok().map(|text| text.trim().to_owned())
}

/// Opens NVRTC and the library of built-in headers that it looks for by name.
///
/// # Errors
/// Names the library and what to do about it.
pub(crate) fn open_nvrtc() -> Result<()> {
    static STATE: OnceLock<Result<(), String>> = OnceLock::new();
    STATE.get_or_init(try_open_nvrtc).clone().map_err(Error::Cuda)
}

fn try_open_nvrtc() -> Result<(), String> {
    // `.libtorch/torch/lib` and `site-packages/torch/lib` alike have `../../nvidia` beside them.
    let folders: Vec<PathBuf> = torch_folder()
        .map(|folder| {
            let packages = folder.join("../../nvidia");
            vec![packages.join("cu13/lib"), packages.join("cuda_nvrtc/lib"), folder]
        })
        .unwrap_or_default();
    let beside =
        |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
    // The compiler opens this one by its bare name while compiling; a copy that is already open
    // is found whatever the search path.
    if let Some(builtins) =
        folders.iter().find_map(|folder| find(folder, "libnvrtc-builtins.so.13."))
    {
        open(&builtins)?;
    }
    const NAME: &str = "libnvrtc.so.13";
    open(&beside(NAME).unwrap_or_else(|| PathBuf::from(NAME))).map_err(|problem| {
        format!(
            "the kernel compiler NVRTC can't be opened: {problem}; run `make libtorch-cuda`, or \
             install the package `nvidia-cuda-nvrtc` beside PyTorch"
        )
    })
}

/// The first file of the folder whose name starts with `prefix` and goes on with a digit.
fn find(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let rest = entry.file_name().to_str()?.strip_prefix(prefix)?.to_owned();
            rest.starts_with(|c: char| c.is_ascii_digit()).then(|| entry.path())
        })
        .collect();
    found.sort();
    found.into_iter().next()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// c10 keeps these settings for all devices, so that they can be set without a GPU; the shim looks
    /// whether they were taken.
    #[test]
    fn the_allocator_is_set_without_the_environment() {
        let of_allocator = || {
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().ends_with("ALLOC_CONF"))
        };
        let before: Vec<_> = of_allocator().collect();
        choose_allocator().unwrap();
        assert_eq!(of_allocator().collect::<Vec<_>>(), before);
    }

    #[test]
    fn a_library_that_can_not_be_opened_is_named() {
        let problem = open(Path::new("libno-such-thing.so.7")).unwrap_err();
        assert!(problem.contains("libno-such-thing.so.7"), "{problem}");
        let message = cuda_half_message(&problem);
        assert!(
            message.contains("make libtorch-cuda") && message.contains("libno-such-thing.so.7")
        );
    }
}
