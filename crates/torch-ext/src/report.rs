//! What the engine finds on this machine, for `richsem checks`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cudarc::driver::{result as driver, sys};
use tch::{Cuda, Kind};

use crate::cuda::compile::{self, Program};
use crate::cuda::{launch, libraries};
use crate::{
    Result, assign, conv2d_relu, depthwise, detr_losses, group_norm, layer_norm, linear,
    ms_deform_attn, nms, roi_align, version,
};

/// What the engine finds on this machine.
#[derive(Debug, Clone)]
pub struct EngineReport {
    /// Version of the libtorch that is loaded, as `2.11.0`; none if it does not say.
    pub libtorch_version: Option<String>,
    /// Folder that libtorch was loaded from.
    pub libtorch_folder: Option<PathBuf>,
    /// Whether libtorch's CUDA half could be opened; the CPU half is there or nothing would run.
    pub cuda_half: Finding,
    /// The NVIDIA driver, if one is installed.
    pub driver: Option<Driver>,
    /// CUDA devices that libtorch can use.
    pub devices: Vec<DeviceReport>,
    /// The kernel compiler; its version when present.
    pub nvrtc: Finding,
    /// This crate's CUDA kernels, on the first device.
    pub kernels: Vec<KernelReport>,
    /// Threads that libtorch computes with on the CPU.
    pub libtorch_threads: usize,
    /// Threads that this crate's CPU kernels compute with.
    pub kernel_threads: usize,
}

/// Whether a part of the engine is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is, with its version if it has one.
    Present(Option<String>),
    /// It is not, and why.
    Missing(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(Some(version)) => f.write_str(version),
            Self::Present(None) => f.write_str("present"),
            Self::Missing(reason) => write!(f, "missing: {reason}"),
        }
    }
}

/// Versions of the NVIDIA driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Version of the kernel driver, as `580.95.05`.
    pub version: Option<String>,
    /// Newest CUDA version it supports, as `(13, 0)`.
    pub cuda: Option<(i32, i32)>,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version.as_deref().unwrap_or("version unknown"))?;
        self.cuda.map_or(Ok(()), |(major, minor)| write!(f, ", CUDA up to {major}.{minor}"))
    }
}

/// A CUDA device that libtorch can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// Its number, from 0, as in `cuda:0`.
    pub index: usize,
    /// Name, as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Memory of the device in bytes, free or not.
    pub memory: u64,
    /// Compute capability, as `(9, 0)`.
    pub capability: (i32, i32),
}

impl fmt::Display for DeviceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, memory, capability: (major, minor) } = self;
        let gib = *memory as f64 / (1u64 << 30) as f64;
        write!(f, "cuda:{index}: {name}, {gib:.1} GiB, compute capability {major}.{minor}")
    }
}

/// One of this crate's CUDA programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelReport {
    /// Operation and kind, as `ms_deform_attn bf16`.
    pub name: String,
    /// Whether it could be compiled and loaded.
    pub state: KernelState,
}

/// Whether a CUDA program could be compiled and loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelState {
    /// It is compiled and loaded on the first device.
    Ready {
        /// Time to compile it, or to find it in the cache.
        time: Duration,
        /// Whether an earlier run had compiled it.
        cached: bool,
    },
    /// It could not be compiled; the text says why.
    NotCompiled(String),
}

impl fmt::Display for KernelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { time, cached } => {
                let how = if *cached { "cached" } else { "compiled" };
                write!(f, "{how}, {:.0} ms", time.as_secs_f64() * 1e3)
            }
            Self::NotCompiled(reason) => write!(f, "not compiled: {reason}"),
        }
    }
}

/// Looks at the machine. Opens libtorch's CUDA half when an NVIDIA driver is there, and compiles
/// this crate's kernels when there is a device to run them on. Never fails: what is missing is in
/// the report.
pub fn report() -> EngineReport {
    let driver = libraries::driver_present();
    let cuda_half = cuda_half(driver, libraries::cuda_half_file().is_some(), || {
        libraries::open_cuda_half().map_err(|problem| problem.to_string())
    });
    let nvrtc = match compile::nvrtc_version() {
        Ok((major, minor)) => Finding::Present(Some(format!("{major}.{minor}"))),
        Err(problem) => Finding::Missing(problem.to_string()),
    };
    let devices = match cuda_half {
        Finding::Present(_) => devices(),
        Finding::Missing(_) => vec![],
    };
    EngineReport {
        libtorch_version: version::loaded().map(str::to_owned),
        libtorch_folder: version::torch_folder(),
        driver: driver
            .then(|| Driver { version: libraries::driver_version(), cuda: driver_cuda_version() }),
        kernels: kernels(devices.first()),
        cuda_half,
        devices,
        nvrtc,
        libtorch_threads: usize::try_from(tch::get_num_threads()).unwrap_or(0),
        kernel_threads: rayon::current_num_threads(),
    }
}

/// The finding about libtorch's CUDA half. Without a driver it is not opened, and the finding is whether the
/// file exists: what a missing driver means has a line of its own.
fn cuda_half(driver: bool, file: bool, open: impl FnOnce() -> Result<(), String>) -> Finding {
    match (driver, file) {
        (true, _) => match open() {
            Ok(()) => Finding::Present(None),
            Err(problem) => Finding::Missing(on_one_line(&problem)),
        },
        (false, true) => {
            Finding::Present(Some("present, not opened: there is no NVIDIA driver".to_owned()))
        }
        (false, false) => Finding::Missing("`make libtorch-cuda` fetches it".to_owned()),
    }
}

/// A device's error for a line of the report: without its first word, which the line has already, and with
/// the hint on the same line.
fn on_one_line(problem: &str) -> String {
    problem.strip_prefix("device: ").unwrap_or(problem).replace("\n  hint: ", "; ")
}

/// Newest CUDA version that the driver, which is present, supports.
fn driver_cuda_version() -> Option<(i32, i32)> {
    let mut version = 0;
    // SAFETY: the driver's library is open; `version` is live.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
    Some((version / 1000, version % 1000 / 10))
}

fn devices() -> Vec<DeviceReport> {
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if count == 0 || driver::init().is_err() {
        return vec![];
    }
    let describe = |index| -> Option<DeviceReport> {
        let device = driver::device::get(index as i32).ok()?;
        Some(DeviceReport {
            index,
            name: driver::device::get_name(device).ok()?,
            // SAFETY: a device of this machine.
            memory: unsafe { driver::device::total_mem(device) }.ok()? as u64,
            capability: launch::capability(device).ok()?,
        })
    };
    (0..count).filter_map(describe).collect()
}

/// The programs with the sizes that the detectors use: heads of 32 features, 4 levels, 4 points.
fn kernels(device: Option<&DeviceReport>) -> Vec<KernelReport> {
    let kinds = [("f32", Kind::Float), ("bf16", Kind::BFloat16), ("f16", Kind::Half)];
    let state = |program: Result<Program>| match device {
        None => KernelState::NotCompiled("no CUDA device".to_owned()),
        Some(device) => match program.and_then(|program| launch::prepare(device.index, &program)) {
            Ok(compiled) => KernelState::Ready { time: compiled.time, cached: compiled.cached },
            Err(problem) => KernelState::NotCompiled(problem.to_string()),
        },
    };
    let attention = kinds.into_iter().map(|(name, kind)| KernelReport {
        name: format!("ms_deform_attn {name}"),
        state: state(ms_deform_attn::cuda::program(kind, [32, 4, 4], 2)),
    });
    let roi_align = kinds.into_iter().map(|(name, kind)| KernelReport {
        name: format!("roi_align {name}"),
        state: state(roi_align::cuda::program(kind, 256)),
    });
    let of_boxes = [("f32", Kind::Float), ("f64", Kind::Double)];
    let nms = of_boxes.into_iter().map(|(name, kind)| KernelReport {
        name: format!("nms {name}"),
        state: state(Ok(nms::cuda::program(kind))),
    });
    let linear = kinds.into_iter().map(|(name, kind)| KernelReport {
        name: format!("linear {name}"),
        state: state(linear::cuda::program(kind, 256, linear::Mode::Relu)),
    });
    let layer_norm = kinds.into_iter().map(|(name, kind)| KernelReport {
        name: format!("add_layer_norm {name}"),
        state: state(layer_norm::cuda::program(kind, kind, 256)),
    });
    // As the decoder adds them.
    let mixed = [("f32 + bf16", Kind::BFloat16), ("f32 + f16", Kind::Half)];
    let layer_norm = layer_norm.chain(mixed.into_iter().map(|(name, other)| KernelReport {
        name: format!("add_layer_norm {name}"),
        state: state(layer_norm::cuda::program(Kind::Float, other, 256)),
    }));
    let losses = [("detr_losses", detr_losses::program()), ("assign", assign::program())];
    let losses = losses
        .into_iter()
        .map(|(name, program)| KernelReport { name: name.to_owned(), state: state(Ok(program)) });
    let group_norm = kinds.into_iter().map(|(name, kind)| KernelReport {
        name: format!("group_norm {name}"),
        state: state(group_norm::cuda::program(kind, 256, 32)),
    });
    let conv2d_relu = kinds.into_iter().map(|(name, kind)| KernelReport {
        name: format!("conv2d_relu {name}"),
        state: state(conv2d_relu::cuda::program(kind, 256)),
    });
    let depthwise = kinds.into_iter().map(|(name, kind)| KernelReport {
        name: format!("depthwise_conv2d {name}"),
        state: state(depthwise::cuda::program(kind, 96, 7)),
    });
    attention
        .chain(roi_align)
        .chain(depthwise)
        .chain(nms)
        .chain(linear)
        .chain(layer_norm)
        .chain(group_norm)
        .chain(conv2d_relu)
        .chain(losses)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_whole_with_or_without_a_gpu() {
        let report = report();
        assert!(report.libtorch_version.is_some_and(|version| version.starts_with("2.11.")));
        assert!(report.libtorch_folder.is_some());
        assert!(report.libtorch_threads > 0 && report.kernel_threads > 0);
        assert_eq!(report.kernels.len(), 27);
        for kernel in &report.kernels {
            let text = kernel.state.to_string();
            match (&kernel.state, report.devices.is_empty(), &report.nvrtc) {
                (KernelState::NotCompiled(_), true, _) => {
                    assert_eq!(text, "not compiled: no CUDA device");
                }
                (KernelState::NotCompiled(_), false, Finding::Missing(reason)) => {
                    assert!(text.contains(reason));
                }
                (KernelState::Ready { .. }, false, Finding::Present(_)) => {
                    assert!(text.ends_with(" ms"));
                }
                _ => panic!("{}: {text}", kernel.name),
            }
        }
    }

    #[test]
    fn the_cuda_half_is_told_of_with_what_to_do() {
        let not_asked = || -> Result<(), String> { panic!("opened without a driver") };
        let text = cuda_half(false, false, not_asked).to_string();
        assert_eq!(text, "missing: `make libtorch-cuda` fetches it");
        let text = cuda_half(false, true, not_asked).to_string();
        assert!(text.starts_with("present, not opened"), "{text}");
        let text = cuda_half(true, false, || Err("device: no `x.so`; run this".to_owned()));
        assert_eq!(text.to_string(), "missing: no `x.so`; run this");
        assert_eq!(cuda_half(true, true, || Ok(())), Finding::Present(None));
    }

    #[test]
    fn findings_read_well() {
        let device = DeviceReport {
            index: 0,
            name: "NVIDIA H100".into(),
            memory: 80 << 30,
            capability: (9, 0),
        };
        assert_eq!(device.to_string(), "cuda:0: NVIDIA H100, 80.0 GiB, compute capability 9.0");
        let driver = Driver { version: Some("580.95.05".into()), cuda: Some((13, 0)) };
        assert_eq!(driver.to_string(), "580.95.05, CUDA up to 13.0");
        let ready = KernelState::Ready { time: Duration::from_millis(812), cached: false };
        assert_eq!(ready.to_string(), "compiled, 812 ms");
    }
}
