//! PyTorch's files before 1.6, and of `_use_new_zipfile_serialization=False`: four pickles (a magic
//! number, a version, the machine that wrote it, the object), a fifth with the storages' keys, then
//! each storage: its number of elements, and its bytes. And what Python's own `pickle.dump` writes: one
//! pickle, which is read where its weights are NumPy's arrays (Detectron2's model zoo has such files).

use std::{fs::File, path::Path};

use super::{
    input::Input,
    pickle,
    stored_bytes::StoredBytes,
    value::{Fault, Heap, Node, Source, Value},
    zip::big_endian,
};
use crate::error::{Error, Result};

/// The magic number, as the first pickle has it: an integer of ten bytes.
const MAGIC: [u8; 12] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Reads all but the storages: the object, and where each storage of `heap` lies.
pub(super) fn read(
    file: &File,
    start: &[u8],
    heap: &mut Heap,
    path: &Path,
) -> Result<(Value, Vec<Option<StoredBytes>>)> {
    let head = &start[..start.len().min(64)];
    if !head.windows(MAGIC.len()).any(|bytes| bytes == MAGIC) {
        return plain(file, heap, path).map(|value| (value, vec![None; heap.storages.len()]));
    }
    let mut input = Input::new(file.try_clone()?, file.metadata()?.len());
    let at = |field: &str| {
        let field = field.to_owned();
        move |fault: Fault| fault.at(path, &field)
    };
    pickle::read(&mut input, heap, false, path)?;
    let version = pickle::read(&mut input, heap, false, path)?;
    if version != Value::Int(1001) {
        let problem = "a version of PyTorch's old format that is not read, expected 1001";
        return Err(Fault::from(problem).at(path, "protocol_version"));
    }
    let machine = pickle::read(&mut input, heap, false, path)?;
    if heap.lookup(machine, "little_endian") == Some(Value::Bool(false)) {
        return Err(big_endian().at(path, "little_endian"));
    }
    let value = pickle::read(&mut input, heap, false, path)?;
    let keys = pickle::read(&mut input, heap, false, path)?;
    let places = storages(&mut input, heap, keys).map_err(at("storages"))?;
    Ok((value, places))
}

/// Reads a pickle alone, whose tensors must lie in it.
fn plain(file: &File, heap: &mut Heap, path: &Path) -> Result<Value> {
    const OTHER: &str = "a pickle that torch.save did not write";
    const HINT: &str = "if you trust whoever made it (loading a pickle runs what is in it), load it in Python with pickle.load \
        and save its weights: numpy.savez(\"weights.npz\", **arrays), or torch.save(tensors, \"weights.pth\"); if it worked \
        before, fetch the file again";
    let mut input = Input::new(file.try_clone()?, file.metadata()?.len());
    let value = pickle::read(&mut input, heap, false, path).map_err(|error| match error {
        Error::Invalid { field, problem, .. } => {
            Error::invalid(path, field, format!("{OTHER}: {problem}")).with_hint(HINT)
        }
        other => other,
    })?;
    let array = |node: &Node| matches!(node, Node::Tensor(_) | Node::Unread(_));
    let problem = if !heap.arrays_alone() || !heap.nodes.iter().any(array) {
        "no arrays of NumPy's are in it"
    } else if input.position != input.length {
        "more than one pickle, or bytes behind its end; expected one, with all weights"
    } else {
        return Ok(value);
    };
    Err(Fault::new(format!("{OTHER}: {problem}"), HINT).at(path, "pickle"))
}

fn storages(
    input: &mut Input<File>,
    heap: &Heap,
    keys: Value,
) -> Result<Vec<Option<StoredBytes>>, Fault> {
    let by_key: std::collections::HashMap<_, _> = (heap.storages.iter().enumerate())
        .filter_map(|(i, storage)| match &storage.source {
            Source::File(key) => Some((key.as_str(), i)),
            Source::Member | Source::Array(_) | Source::Scalar(_) => None,
        })
        .collect();
    let mut places = vec![None; heap.storages.len()];
    for &key in heap.items(keys).ok_or("no list of storages")? {
        let key = heap.text(key).ok_or("a storage without a name")?;
        let &number = by_key.get(key).ok_or_else(|| format!("{key}: of no tensor"))?;
        let storage = &heap.storages[number];
        let width = storage.kind.map_or(1, |k| k.elt_size_in_bytes()) as u64;
        let numel = u64::from_le_bytes(input.array()?);
        if numel.checked_mul(width) != Some(storage.bytes) {
            let expected = storage.bytes / width;
            return Err(format!("{key}: {numel} elements, expected {expected}").into());
        }
        if storage.bytes > input.length.saturating_sub(input.position) {
            return Err(format!("{key}: {} bytes, and the file ends", storage.bytes).into());
        }
        if places[number].replace(StoredBytes::plain(input.position, storage.bytes)).is_some() {
            return Err(format!("{key}: comes twice").into());
        }
        input.skip(storage.bytes)?;
    }
    for (place, storage) in places.iter().zip(&heap.storages) {
        if let (None, Source::File(key)) = (place, &storage.source) {
            return Err(format!("{key}: is missing").into());
        }
    }
    Ok(places)
}
