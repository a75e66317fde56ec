//! PyTorch's checkpoints, without Python and without executing anything: what `torch.save` writes
//! (zip archives since PyTorch 1.6, bare pickles before), and TorchScript's archives, as OpenAI's
//! CLIPs are. NumPy's arrays are tensors too: in these files, in plain pickles, and in `.npz`.
//!
//! A pickle is a program. Here, the few globals that weights are made of stand for what they would
//! make. Every other one is refused by name. Sizes are checked against the file before anything is
//! allocated. A file may take memory of four times its length (64 MiB if it is small) and its largest
//! storage. One that asks for more is refused, too. A tensor counts with all its values: one that was
//! `expand`ed to many times its storage is read, within that limit.

mod arrays;
mod globals;
mod input;
mod legacy;
mod names;
mod npz;
mod opcode;
mod pickle;
mod stored_bytes;
mod value;
mod write;
mod zip;

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    path::{Path, PathBuf},
};

use rawzip::FileReader;
use tch::{Device, Kind, Tensor};

pub use self::write::write;
use self::{
    stored_bytes::StoredBytes,
    value::{Budget, Fault, Heap, Source, TensorRef, Value},
};
use super::array;
use crate::error::{Error, Result};

/// A checkpoint whose tensors are not read yet.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    file: FileReader,
    heap: Heap,
    root: Value,
    /// Where in the file each of the heap's storages lies; none of those in the pickle.
    places: Vec<Option<StoredBytes>>,
}

/// Reads the state dict of a file, to the CPU, in the kinds of the file: [`Checkpoint::state_dict`]
/// of the usual place.
///
/// # Errors
/// Those of [`Checkpoint::load`] and [`Checkpoint::state_dict`].
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    Checkpoint::load(path)?.state_dict(None)
}

/// Keys that state dicts usually lie below, in the order in which they are looked for.
pub(crate) fn usual_keys() -> impl Iterator<Item = &'static str> {
    names::USUAL.into_iter()
}

impl Checkpoint {
    /// Reads everything but the tensors' values.
    ///
    /// # Errors
    /// A file that cannot be read, is cut off or damaged, is neither a zip archive nor a pickle of
    /// PyTorch's, was written on a big-endian machine, holds tensors of a kind that is not read
    /// (complex, quantized, sparse), or asks for a global that is not known: by name, and with the
    /// keys that led there.
    pub fn load(path: &Path) -> Result<Self> {
        let (file, _) = fs_err::File::open(path)?.into_parts();
        let io = |e: std::io::Error| Error::from(named(&e, path));
        let length = file.metadata().map_err(io)?.len();
        let mut start = Vec::new();
        (&file).take(64).read_to_end(&mut start).map_err(io)?;
        std::io::Seek::rewind(&mut &file).map_err(io)?;
        let mut heap = Heap::new(Budget::of_file(length));
        let (root, places) = if start.starts_with(b"PK") {
            zip::read(&file, &mut heap, path)?
        } else {
            legacy::read(&file, &start, &mut heap, path)?
        };
        let file = FileReader::from(file);
        Ok(Self { path: path.to_owned(), file, heap, root, places })
    }

    /// Names of all tensors: the keys on the way to them, joined by dots.
    ///
    /// # Errors
    /// Values within values more than 64 deep, or in a circle.
    pub fn tensor_names(&self) -> Result<Vec<String>> {
        let tensors = names::below(&self.heap, self.root);
        let tensors = tensors.map_err(|fault| fault.at(&self.path, "pickle"))?;
        Ok(tensors.read.into_iter().map(|(name, _)| name).collect())
    }

    /// The tensors below a dotted `key` (`optimizer.state`), by their names from there. With no key, those
    /// of the state dict in the usual places: the whole file (or TorchScript's object), or what it holds
    /// under `state_dict`, `model`, `model_state_dict`, `net`, `network`, `module` or `blobs`, also one within
    /// another. An EMA (`ema_model`) is read only if it is asked for. Names are those of the file, with the
    /// prefixes of wrappers.
    ///
    /// NumPy's arrays are tensors too, single numbers are not. If the file also has PyTorch's tensors, arrays
    /// at its top do not make a state dict of the whole file.
    ///
    /// Names that share all of a storage share it here too. A part of a storage is copied.
    ///
    /// # Errors
    /// No tensors there: what there is instead. A tensor that cannot be read: its name.
    pub fn state_dict(&self, key: Option<&str>) -> Result<BTreeMap<String, Tensor>> {
        let found = match key {
            Some(key) => names::at(&self.heap, self.root, key),
            None => names::usual(&self.heap, self.root),
        };
        let found = found
            .and_then(|value| names::below(&self.heap, value))
            .map_err(|fault| fault.at(&self.path, key.unwrap_or("state dict")))?;
        if let Some((name, got)) = found.unread.first() {
            let problem = format!("expected an array of {}, got one of {got}", array::READ);
            return Err(Fault::new(problem, "convert it before saving: array.astype(\"float32\")")
                .at(&self.path, name));
        }
        let refs = found.read;
        let mut uses: HashMap<u32, usize> = HashMap::new();
        for (_, tensor) in &refs {
            *uses.entry(tensor.storage).or_default() += 1;
        }
        let mut shared = HashMap::new();
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &refs {
            let keep = (uses[&tensor.storage] > 1).then_some(&mut shared);
            let read = self.tensor(tensor, keep).map_err(|e| match e {
                Unread::Fault(fault) => fault.at(&self.path, name),
                Unread::Torch(e) => e.into(),
            })?;
            tensors.insert(name.clone(), read);
        }
        Ok(tensors)
    }

    /// Reads a tensor. With `shared` its storage is read once: it is kept there for the next tensor.
    fn tensor(
        &self,
        tensor: &TensorRef,
        shared: Option<&mut HashMap<(u32, Kind), Tensor>>,
    ) -> Result<Tensor, Unread> {
        let kind = tensor.kind;
        if tensor.numel() == 0 {
            return Ok(Tensor::f_empty(&tensor.size, (kind, Device::Cpu))?);
        }
        let whole = match shared {
            None => self.storage(tensor.storage, kind)?,
            Some(shared) => match shared.get(&(tensor.storage, kind)) {
                Some(whole) => whole.shallow_clone(),
                None => {
                    let whole = self.storage(tensor.storage, kind)?;
                    shared.insert((tensor.storage, kind), whole.shallow_clone());
                    whole
                }
            },
        };
        if tensor.is_contiguous() && tensor.numel() == whole.size()[0] {
            return Ok(whole.f_view_(&tensor.size)?);
        }
        let part = whole.f_as_strided(&tensor.size, &tensor.stride, tensor.offset)?;
        let mut own = Tensor::f_empty(&tensor.size, (kind, Device::Cpu))?;
        own.f_copy_(&part)?;
        Ok(own)
    }

    /// Reads all of a storage, as `[N]`.
    fn storage(&self, number: u32, kind: Kind) -> Result<Tensor, Unread> {
        let storage = &self.heap.storages[number as usize];
        let bytes = match (&storage.source, &self.places[number as usize]) {
            (&(Source::Array(values) | Source::Scalar(values)), _) => {
                arrays::bytes(&self.heap, values)
            }
            (_, Some(place)) => place.read(&self.file),
            (_, None) => Err("its values are missing".into()),
        };
        let mut bytes = bytes.map_err(Unread::Fault)?;
        if storage.swapped {
            array::swap(&mut bytes, kind);
        }
        if kind == Kind::Bool {
            // No other values than these may be in a C++ bool.
            bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        let width = kind.elt_size_in_bytes();
        let count = bytes.len() / width;
        Ok(Tensor::f_from_data_size(&bytes[..count * width], &[count as i64], kind)?)
    }
}

/// Why a tensor could not be read: the file is wrong, or libtorch refused.
enum Unread {
    Fault(Fault),
    Torch(tch::TchError),
}

impl From<tch::TchError> for Unread {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error)
    }
}

fn named(error: &std::io::Error, path: &Path) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("could not read `{}`: {error}", path.display()))
}
