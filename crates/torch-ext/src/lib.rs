//! What libtorch has and `tch` does not bind, and the project's own kernels.
//!
//! The only crate with `unsafe` code and C++. The binary links the CPU half of libtorch alone;
//! [`DeviceChoice::resolve`] opens the CUDA half when a CUDA device is asked for.

pub mod assign;
mod autocast;
mod checkpoint;
pub mod conv2d_relu;
mod cuda;
pub mod depthwise;
pub mod detr_losses;
mod device;
mod error;
mod ffi;
mod function;
pub mod group_norm;
pub mod layer_norm;
pub mod linear;
pub mod ms_deform_attn;
pub mod nms;
mod no_grad;
pub mod optim;
mod real;
mod report;
pub mod roi_align;
mod settings;
mod store;
mod transfer;
mod version;

pub use autocast::{autocast, autocast_kind, autocast_of, no_autocast};
pub use checkpoint::checkpoint;
pub use conv2d_relu::{Conv2dRelu, conv2d_relu, conv2d_relu_naive};
pub use cuda::graph::{GraphPool, Recording, Replay};
pub use cuda::nccl::Communicator;
pub use depthwise::depthwise_conv2d;
pub use device::{DeviceChoice, device_name, open_libraries};
pub use error::{Error, Result, without_backtrace};
pub use function::{BackwardArgs, Gradients, custom_function};
pub use group_norm::{group_norm, group_norm_naive};
pub use layer_norm::{add_layer_norm, add_layer_norm_naive};
pub use linear::{Epilogue, linear, linear_naive};
pub use ms_deform_attn::{
    ms_deform_attn, ms_deform_attn_around, ms_deform_attn_around_naive, ms_deform_attn_naive,
};
pub use nms::nms;
pub use no_grad::no_grad;
pub use report::{DeviceReport, Driver, EngineReport, Finding, KernelReport, KernelState, report};
pub use roi_align::{LevelBoxes, roi_align, roi_align_levels};
pub use settings::{
    Memory, backward, empty_cache, gradients, is_deterministic, memory, memory_left,
    reset_peak_memory, set_cudnn_benchmark, set_deterministic, set_grad, set_tf32, synchronize,
};
pub use store::Store;
pub use transfer::{Bytes, Download, all_finite, constant, download, filled, upload};
pub use version::loaded as libtorch_version;
