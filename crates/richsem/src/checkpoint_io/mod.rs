//! Weights and tables on disk.

mod array;
pub mod backbones;
pub mod fit;
mod npy;
pub(crate) mod prefix;
pub mod pth;
pub mod safetensors;
mod text_table;

use std::{collections::BTreeMap, path::Path};

use tch::Tensor;

use crate::{
    error::{Error, Result},
    stand_in::stand_in,
};

pub use text_table::read_text_table;
pub(crate) use text_table::{checked_text_table, read_text_rows};

/// Which format a file of weights has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Safetensors,
    PyTorch,
}

/// The format of a file, by its contents.
pub(crate) fn format_of(path: &Path) -> Result<Format> {
    use std::io::Read as _;
    let mut start = Vec::new();
    fs_err::File::open(path)?.take(512).read_to_end(&mut start)?;
    // First, since its first bytes are a length, which may look like anything.
    let safetensors = start.get(8) == Some(&b'{') && start[4..8] == [0; 4];
    let text = String::from_utf8_lossy(&start);
    let text = text.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    let (problem, hint) = if safetensors {
        return Ok(Format::Safetensors);
    } else if start.starts_with(b"PK\x03\x04") || matches!(start[..], [0x80, 0..=5, ..]) {
        return Ok(Format::PyTorch);
    } else if start.starts_with(b"\x93NUMPY") {
        (
            "one array of NumPy's (.npy); weights are many, by their names",
            "save them in one file: numpy.savez(\"weights.npz\", **arrays)",
        )
    } else if start.is_empty() {
        ("the file is empty", "fetch it again")
    } else if let Some(stand_in) = stand_in(&start) {
        stand_in
    } else if text.starts_with("<?xml") {
        (
            "XML, not weights: the server answered with it",
            "open the file to see what it says, and fetch the weights again",
        )
    } else {
        (
            "neither safetensors nor a PyTorch file (.pt, .pth), nor NumPy's (.npz)",
            "the file is truncated, or of another kind",
        )
    };
    Err(Error::invalid(path, "weights", problem).with_hint(hint))
}

/// Reads a file of weights, to the CPU, in the kinds of the file: safetensors, PyTorch's `.pt` and `.pth`
/// (state dicts, checkpoints that hold one, TorchScript), NumPy's arrays in `.npz` or pickled. The contents
/// decide, not the name. What wrappers of modules add to names (`module.`, `_orig_mod.`) is taken off.
///
/// # Errors
/// A file that cannot be read, or is of another kind; names that wrappers alone tell apart.
pub fn read_weights(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let tensors = match format_of(path)? {
        Format::Safetensors => safetensors::read(path)?.0,
        Format::PyTorch => pth::read(path)?,
    };
    prefix::without_wrappers(tensors, path)
}

/// Names of a file's tensors, whose values are not read, and the strings of a safetensors file.
///
/// # Errors
/// As [`read_weights`].
pub(crate) fn weight_names(path: &Path) -> Result<(Vec<String>, safetensors::Metadata)> {
    match format_of(path)? {
        Format::Safetensors => safetensors::read_names(path),
        Format::PyTorch => {
            Ok((pth::Checkpoint::load(path)?.tensor_names()?, safetensors::Metadata::new()))
        }
    }
}

/// A tensor's values as bytes, little-endian, contiguous.
pub(crate) fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.detach().f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// The error for weights that this program did not write.
pub(crate) fn not_ours(path: &Path) -> Error {
    Error::invalid(
        path,
        "__metadata__.richsem",
        "missing: this program did not write these weights",
    )
    .with_hint(
        "give the model.safetensors of a run that `richsem train` made; `richsem convert` makes one of \
         an official checkpoint",
    )
}
