//! Writing state dicts as `torch.save` has since PyTorch 1.6: a zip archive of `data.pkl` (pickle
//! protocol 2) and a stored member for each storage, its values at a multiple of 64 bytes.
//! `torch.load(…, weights_only=True)` reads it.

use std::{collections::BTreeMap, io::Write, path::Path};

use rawzip::{ErrorKind, Header, ZipArchiveWriter, extra_fields::ExtraFieldId};
use tch::{Device, Kind, Tensor};

use super::opcode as op;
use crate::{
    checkpoint_io::bytes,
    error::{Error, Result, write_atomically},
};

/// The folder in the archive; PyTorch asks for one of any name.
const FOLDER: &str = "archive";
/// Where PyTorch lets values start.
const ALIGNMENT: u64 = 64;
/// `FB`: the field that PyTorch fills up with, too.
const PADDING: ExtraFieldId = ExtraFieldId::new(0x4246);
/// A member's header without its name and its fields, and a field's own header.
const HEADERS: u64 = 30 + 4;

/// Writes tensors of any device by name, wholly or not at all; below `key` (`model`) if one is
/// given. The same values give the same bytes. Names of one and the same tensor share a storage
/// there, too.
///
/// # Errors
/// An unwritable folder, a full disk, a kind of number that is not written.
pub fn write(path: &Path, key: Option<&str>, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut pickle = Pickle(vec![op::PROTO, 2]);
    let mut storages: Vec<&Tensor> = Vec::new();
    let mut known = BTreeMap::new();
    if let Some(key) = key {
        pickle.0.extend([op::EMPTY_DICT, op::MARK]);
        pickle.text(key);
    }
    pickle.global("collections", "OrderedDict");
    pickle.0.extend([op::EMPTY_TUPLE, op::REDUCE, op::MARK]);
    for (name, tensor) in tensors {
        let class = storage_of(tensor.kind()).ok_or_else(|| {
            Error::other(format!("{name}: kind {:?} cannot be saved", tensor.kind()))
        })?;
        let next = storages.len();
        let number = match identity(tensor) {
            Some(identity) => *known.entry(identity).or_insert(next),
            None => next,
        };
        if number == next {
            storages.push(tensor);
        }
        pickle.text(name);
        pickle.tensor(class, number, &tensor.size());
    }
    pickle.0.push(op::SETITEMS);
    if key.is_some() {
        pickle.0.push(op::SETITEMS);
    }
    pickle.0.push(op::STOP);
    write_atomically(path, |file| {
        let mut archive = ZipArchiveWriter::new(file);
        member(&mut archive, "data.pkl", &pickle.0)?;
        member(&mut archive, "byteorder", b"little")?;
        for (number, tensor) in storages.into_iter().enumerate() {
            member(&mut archive, &format!("data/{number}"), &bytes(tensor)?)?;
        }
        member(&mut archive, "version", b"3\n")?;
        archive.finish().map_err(other)?;
        Ok(())
    })
}

fn other(error: rawzip::Error) -> Error {
    let error = match error.into_kind() {
        // As it is: a full disk has a hint.
        ErrorKind::IO(error) => error,
        kind => std::io::Error::other(rawzip::Error::from(kind)),
    };
    error.into()
}

/// Adds a member whose content starts at a multiple of [`ALIGNMENT`].
fn member<W: Write>(archive: &mut ZipArchiveWriter<W>, name: &str, content: &[u8]) -> Result<()> {
    let name = format!("{FOLDER}/{name}");
    let start = archive.stream_offset() + HEADERS + name.len() as u64;
    let padding = vec![b'Z'; (start.next_multiple_of(ALIGNMENT) - start) as usize];
    let builder = archive.new_file(&*name).extra_field(PADDING, &padding, Header::LOCAL);
    let (mut entry, config) = builder.map_err(other)?.start().map_err(other)?;
    let mut writer = config.wrap(&mut entry);
    writer.write_all(content)?;
    let (_, description) = writer.finish().map_err(other)?;
    entry.finish(description).map_err(other)?;
    Ok(())
}

/// The same for tensors that are the same memory as a whole.
fn identity(tensor: &Tensor) -> Option<(usize, usize, usize)> {
    let plain = tensor.device() == Device::Cpu && tensor.is_contiguous() && tensor.numel() > 0;
    plain.then(|| (tensor.data_ptr() as usize, tensor.numel(), tensor.kind() as usize))
}

fn storage_of(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Double => "DoubleStorage",
        Kind::Float => "FloatStorage",
        Kind::Half => "HalfStorage",
        Kind::BFloat16 => "BFloat16Storage",
        Kind::Int64 => "LongStorage",
        Kind::Int => "IntStorage",
        Kind::Int16 => "ShortStorage",
        Kind::Int8 => "CharStorage",
        Kind::Uint8 => "ByteStorage",
        Kind::Bool => "BoolStorage",
        _ => return None,
    })
}

/// A pickle in the making: its opcodes.
struct Pickle(Vec<u8>);

impl Pickle {
    fn text(&mut self, text: &str) {
        self.0.push(op::BINUNICODE);
        // No name is 4 GiB long.
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.push(op::GLOBAL);
        self.0.extend(format!("{module}\n{name}\n").as_bytes());
    }

    fn int(&mut self, number: i64) {
        match i32::try_from(number) {
            Ok(number) => {
                self.0.push(op::BININT);
                self.0.extend(number.to_le_bytes());
            }
            Err(_) => {
                self.0.extend([op::LONG1, 8]);
                self.0.extend(number.to_le_bytes());
            }
        }
    }

    fn tuple(&mut self, numbers: &[i64]) {
        self.0.push(op::MARK);
        numbers.iter().for_each(|&number| self.int(number));
        self.0.push(op::TUPLE);
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)`: all of a
    /// storage, the last index fastest.
    fn tensor(&mut self, class: &str, storage: usize, size: &[i64]) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.0.extend([op::MARK; 2]);
        self.text("storage");
        self.global("torch", class);
        self.text(&storage.to_string());
        self.text("cpu");
        self.int(size.iter().product());
        self.0.extend([op::TUPLE, op::BINPERSID]);
        self.int(0);
        self.tuple(size);
        let mut strides = vec![1; size.len()];
        for i in (1..size.len()).rev() {
            strides[i - 1] = strides[i] * size[i].max(1);
        }
        self.tuple(&strides);
        self.0.push(op::NEWFALSE);
        self.global("collections", "OrderedDict");
        self.0.extend([op::EMPTY_TUPLE, op::REDUCE, op::TUPLE, op::REDUCE]);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{checkpoint_io::pth, testing::normal};

    fn tensors() -> BTreeMap<String, Tensor> {
        let base = normal(1, &[4, 6]);
        let kinds = [
            Kind::Double,
            Kind::Float,
            Kind::Half,
            Kind::BFloat16,
            Kind::Int64,
            Kind::Int,
            Kind::Int16,
            Kind::Int8,
            Kind::Uint8,
            Kind::Bool,
        ];
        let mut tensors: BTreeMap<String, Tensor> = kinds
            .into_iter()
            .map(|kind| (format!("{kind:?}"), (&base * 3.0).abs().to_kind(kind)))
            .collect();
        tensors.insert("a.weight".into(), base.shallow_clone());
        tensors.insert("b.weight".into(), base.shallow_clone());
        tensors.insert("reshaped".into(), base.view([2, 12]));
        tensors.insert("transposed".into(), base.transpose(0, 1));
        tensors.insert("part".into(), base.narrow(0, 1, 2));
        tensors.insert("scalar".into(), Tensor::from(4.6052f32));
        tensors.insert("empty".into(), Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)));
        tensors.insert("größe.名前".into(), Tensor::from_slice(&[i64::MIN, i64::MAX]));
        tensors
    }

    /// What PyTorch itself reads of such a file is shown in `tests/fixtures/pth/check_written.py`.
    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.pth");
        for key in [None, Some("model")] {
            write(&path, key, &tensors()).unwrap();
            let read = pth::read(&path).unwrap();
            assert_eq!(read, tensors());
            assert_eq!(read["a.weight"].data_ptr(), read["b.weight"].data_ptr());
            let bytes = std::fs::read(&path).unwrap();
            write(&path, key, &tensors()).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes, "the same values, other bytes");
        }
        let checkpoint = pth::Checkpoint::load(&path).unwrap();
        assert!(checkpoint.tensor_names().unwrap().contains(&"model.a.weight".to_owned()));
    }

    #[test]
    fn values_are_stored_once_and_aligned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.pth");
        let all = tensors();
        write(&path, None, &all).unwrap();
        let file = std::fs::read(&path).unwrap();
        let archive = rawzip::ZipArchive::from_slice(&file).unwrap();
        let mut storages = 0;
        for entry in archive.entries() {
            let entry = entry.unwrap();
            let (start, _) = archive.get_entry(entry.wayfinder()).unwrap().compressed_data_range();
            assert_eq!(start % ALIGNMENT, 0);
            let name = entry.file_path();
            storages += usize::from(name.as_ref().starts_with(b"archive/data/"));
        }
        // `a.weight`, `b.weight` and `reshaped` are one.
        assert_eq!(storages, all.len() - 2);
    }

    #[test]
    fn nothing_is_left_when_writing_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.pth");
        let complex = Tensor::zeros([2], (Kind::ComplexFloat, Device::Cpu));
        let message = write(&path, None, &[("z".to_owned(), complex)].into()).unwrap_err();
        assert!(message.to_string().contains("z: kind ComplexFloat"), "{message}");
        assert!(write(&folder.path().join("no/w.pth"), None, &tensors()).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
