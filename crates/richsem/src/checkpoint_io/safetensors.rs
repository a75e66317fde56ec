//! Tensors by name in a safetensors file.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read as _,
    path::Path,
};

use safetensors::{
    Dtype,
    tensor::{Metadata as Header, TensorInfo},
};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::{Format, bytes, format_of};
use crate::error::{Error, Result, write_atomically};

/// The strings that a file has beside its tensors (`__metadata__`), by key.
pub type Metadata = HashMap<String, String>;

/// Bytes of the longest header that is believed, as the crate `safetensors` has it.
const LONGEST_HEADER: u64 = 100_000_000;

/// What to think of a file that is not as safetensors files are.
const OTHER_KIND: &str = "the file is truncated, or of another kind";

fn invalid(path: &Path, error: &dyn std::fmt::Display) -> Error {
    if matches!(format_of(path), Ok(Format::PyTorch)) {
        return Error::invalid(path, "header", "not a safetensors file: PyTorch's").with_hint(
            "`richsem convert` makes a .safetensors of another program's detector, backbone or CLIP",
        );
    }
    Error::invalid(path, "header", format!("not a safetensors file: {error}")).with_hint(OTHER_KIND)
}

/// What the header of an open file says; the file is then at its first value.
fn read_header(file: &mut fs_err::File, path: &Path) -> Result<Header> {
    let invalid = |problem: &dyn std::fmt::Display| invalid(path, problem);
    let size = file.metadata()?.len();
    let mut length = [0; 8];
    if size < length.len() as u64 {
        return Err(invalid(&format_args!(
            "{size} bytes, where the header's length alone takes 8"
        )));
    }
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let rest = size - 8;
    if length > rest.min(LONGEST_HEADER) {
        if format_of(path).is_err() {
            // The first bytes of a file of another kind are no length.
            return Err(
                Error::invalid(path, "header", "not a safetensors file").with_hint(OTHER_KIND)
            );
        }
        let problem = format_args!("its header would have {length} bytes, and {rest} follow");
        return Err(invalid(&problem));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    let header: Header = serde_json::from_slice(&bytes).map_err(|e| invalid(&e))?;
    let (announced, found) = (header.data_len() as u64, rest - length);
    if announced != found {
        let problem =
            format_args!("its header tells of {announced} bytes of values, and it has {found}");
        return Err(invalid(&problem));
    }
    Ok(header)
}

/// Reads the names of all tensors and the strings beside them.
///
/// # Errors
/// A file that cannot be read, or is not safetensors.
pub(super) fn read_names(path: &Path) -> Result<(Vec<String>, Metadata)> {
    let header = read_header(&mut fs_err::File::open(path)?, path)?;
    let mut names: Vec<String> = header.tensors().into_keys().collect();
    names.sort_unstable();
    Ok((names, header.metadata().clone().unwrap_or_default()))
}

/// Reads every tensor, to the CPU, in the kinds of the file. Values go from the file into the tensors' own
/// memory: nothing is copied. (A file that is mapped instead ends the program when another one cuts it off.)
///
/// # Errors
/// A file that cannot be read, or is not safetensors, or holds a kind or a shape that libtorch does
/// not have.
pub fn read(path: &Path) -> Result<(BTreeMap<String, Tensor>, Metadata)> {
    let mut file = fs_err::File::open(path)?;
    let header = read_header(&mut file, path)?;
    let mut tensors = BTreeMap::new();
    for name in header.offset_keys() {
        let Some(TensorInfo { dtype, shape, .. }) = header.info(&name) else { continue };
        let kind = kind_of(*dtype).ok_or_else(|| {
            Error::invalid(path, name.clone(), format!("kind {dtype:?} is not supported"))
                .with_hint("floats of 16, 32 and 64 bits, integers and booleans are")
        })?;
        let shape = shape_of(shape, kind).ok_or_else(|| {
            let problem = format!("no tensor can have the shape {shape:?}");
            Error::invalid(path, name.clone(), problem).with_hint("the file is damaged")
        })?;
        // No other values than 0 and 1 may be in a C++ bool.
        let as_read = if kind == Kind::Bool { Kind::Uint8 } else { kind };
        let mut done = Ok(());
        let tensor = torch_ext::filled(&shape, as_read, |bytes| done = bytes.read(&mut file))?;
        done?;
        let tensor = if kind == Kind::Bool { tensor.f_ne(0)? } else { tensor };
        tensors.insert(name, tensor);
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// The sides as libtorch counts them. None if all sides but zeros make more bytes than 64 bits can count:
/// a side of 0 hides that from the file's own check.
fn shape_of(sides: &[usize], kind: Kind) -> Option<Vec<i64>> {
    let shape: Vec<i64> = sides.iter().map(|&n| i64::try_from(n).ok()).collect::<Option<_>>()?;
    let bytes = kind.elt_size_in_bytes() as i64;
    shape.iter().try_fold(bytes, |all, &side| all.checked_mul(side.max(1))).map(|_| shape)
}

/// Writes tensors of any device. The file is written wholly or not at all. The same values give the same
/// bytes.
///
/// # Errors
/// An unwritable folder, a full disk, a kind that safetensors does not have.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &Metadata) -> Result<()> {
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = dtype_of(tensor.kind()).ok_or_else(|| {
            Error::other(format!("{name}: kind {:?} cannot be saved", tensor.kind()))
        })?;
        entries.push((name, dtype, tensor));
    }
    // The widest kinds first, so that each value lies at a multiple of its size; then by name.
    entries.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    // The crate would write the strings in the order of a hash map, which is another each time.
    let mut header = BTreeMap::<&str, Value>::new();
    let mut end = 0;
    for (name, dtype, tensor) in &entries {
        let start = end;
        end += tensor.numel() * tensor.kind().elt_size_in_bytes();
        let shape = tensor.size();
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, end] });
        header.insert(name, entry);
    }
    if !metadata.is_empty() {
        let strings: BTreeMap<_, _> = metadata.iter().collect();
        header.insert("__metadata__", json!(strings));
    }
    let mut header = serde_json::to_vec(&header)
        .map_err(|e| Error::other(format!("{}: {e}", path.display())))?;
    // Values start at a multiple of 8 bytes, as the crate has it.
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for (_, _, tensor) in entries {
            file.write_all(&bytes(tensor)?)?;
        }
        Ok(())
    })
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::normal;

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let tensors = BTreeMap::from([
            ("a.weight".to_owned(), normal(1, &[3, 4]).transpose(0, 1)),
            ("scalar".to_owned(), Tensor::from(2.5f64)),
            ("half".to_owned(), normal(2, &[5]).to_kind(Kind::BFloat16)),
            ("mask".to_owned(), Tensor::from_slice(&[true, false])),
        ]);
        let strings = || (0..9).map(|i| (format!("k{i}"), format!("v{i}"))).collect::<Metadata>();
        write(&path, &tensors, &strings()).unwrap();
        let (read_back, read_metadata) = read(&path).unwrap();
        assert_eq!(read_metadata, strings());
        assert_eq!(read_back, tensors);
        let bytes = std::fs::read(&path).unwrap();
        write(&path, &tensors, &strings()).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes, "another hash map, other bytes");
    }

    #[test]
    fn broken_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let good = BTreeMap::from([("a".to_owned(), Tensor::from_slice(&[1f32; 100]))]);
        write(&path, &good, &Metadata::new()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        // A header that claims more than there is must not be believed.
        let mut huge = bytes.clone();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        for content in
            [&bytes[..0], &bytes[..5], &bytes[..bytes.len() - 1], b"not tensors at all", &huge]
        {
            std::fs::write(&path, content).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains("w.safetensors: header: not a safetensors file"), "{message}");
        }
    }

    #[test]
    fn shapes_that_no_tensor_has_are_named_and_booleans_are_0_or_1() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let file = |kind: &str, shape: &[u64], values: &[u8]| {
            let entry = serde_json::json!({"dtype": kind, "shape": shape, "data_offsets": [0, values.len()]});
            let header = serde_json::json!({ "a": entry }).to_string();
            let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), values].concat();
            std::fs::write(&path, bytes).unwrap();
            read(&path).map(|(tensors, _)| tensors)
        };
        assert_eq!(file("F32", &[1 << 40, 0, 3], &[]).unwrap()["a"].size(), [1 << 40, 0, 3]);
        for shape in [&[1 << 63, 0][..], &[1 << 40, 0, 1 << 40]] {
            let message = file("F32", shape, &[]).unwrap_err().to_string();
            assert!(
                message.contains("w.safetensors: a: no tensor can have the shape"),
                "{message}"
            );
        }
        let message = file("F8_E4M3", &[2], &[1, 2]).unwrap_err().to_string();
        assert!(message.contains("w.safetensors: a: kind F8_E4M3 is not supported"), "{message}");
        let flags = &file("BOOL", &[3], &[0, 1, 7]).unwrap()["a"];
        assert_eq!(bytes(flags).unwrap(), [0, 1, 1]);
    }

    #[test]
    fn nothing_is_left_when_writing_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("w.safetensors");
        let error = write(&path, &BTreeMap::new(), &Metadata::new()).unwrap_err().to_string();
        assert!(error.contains("w.safetensors"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
