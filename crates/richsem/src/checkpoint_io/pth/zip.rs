//! PyTorch's files since 1.6, and TorchScript's: zip archives with `data.pkl` and a member
//! `data/KEY` for each storage, all in one folder. They are stored as they are; deflated ones,
//! which other programs make of them, are read too, and so are NumPy's archives of arrays.

use std::{collections::HashMap, fs::File, ops::Range, path::Path};

use rawzip::{CompressionMethod, FileReader, ZipArchive, ZipFileHeaderRecord};

use super::{
    input::Input,
    npz, pickle,
    stored_bytes::StoredBytes,
    value::{Budget, Fault, Heap, Node, Source, Value},
};
use crate::error::Result;

/// The members of an archive, and whose archive it is.
struct Members {
    /// By name: where the bytes lie, or why they cannot be read.
    places: HashMap<String, Result<StoredBytes, Fault>>,
    /// The folder that all of PyTorch's members lie in.
    folder: String,
    /// Names of NumPy's arrays, sorted; empty in an archive of PyTorch's.
    arrays: Vec<String>,
}

/// Reads what is in an archive, all but the storages: the pickle's value, and where each storage of
/// `heap` lies.
pub(super) fn read(
    file: &File,
    heap: &mut Heap,
    path: &Path,
) -> Result<(Value, Vec<Option<StoredBytes>>)> {
    let at = |member: &str| {
        let member = member.to_owned();
        move |fault: Fault| fault.at(path, &member)
    };
    let reader = FileReader::from(file.try_clone()?);
    let length = file.metadata()?.len();
    let members = members(file, length, &mut heap.budget).map_err(at("zip"))?;
    if !members.arrays.is_empty() {
        return arrays(&members, &reader, heap, path);
    }
    let inside = |name: &str| format!("{}/{name}", members.folder);
    let get =
        |name: &str, budget: &mut Budget| members.get(&inside(name), budget).map_err(at(name));
    if let Some(place) = get("byteorder", &mut heap.budget)? {
        let order = place.read(&reader).map_err(at("byteorder"))?;
        if order.trim_ascii() != b"little" {
            return Err(big_endian().at(path, "byteorder"));
        }
    }
    let script = get("constants.pkl", &mut heap.budget)?.is_some();
    let none = || Fault::from("is missing");
    let place = get("data.pkl", &mut heap.budget)?.ok_or_else(none).map_err(at("data.pkl"))?;
    heap.budget.charge(place.bytes).map_err(at("data.pkl"))?;
    let pickled = place.read(&reader).map_err(at("data.pkl"))?;
    let mut input = Input::new(&pickled[..], pickled.len() as u64);
    let value = pickle::read(&mut input, heap, script, path)?;
    let mut places = Vec::with_capacity(heap.storages.len());
    for storage in &heap.storages {
        let Source::File(key) = &storage.source else {
            places.push(None);
            continue;
        };
        let name = format!("data/{key}");
        let place = get(&name, &mut heap.budget)?.ok_or_else(none).map_err(at(&name))?;
        if place.bytes != storage.bytes {
            let problem = format!("has {} bytes, and data.pkl says {}", place.bytes, storage.bytes);
            return Err(Fault::from(problem).at(path, &name));
        }
        places.push(Some(place));
    }
    Ok((value, places))
}

/// Reads an archive of NumPy's as a dictionary of its arrays.
fn arrays(
    members: &Members,
    reader: &FileReader,
    heap: &mut Heap,
    path: &Path,
) -> Result<(Value, Vec<Option<StoredBytes>>)> {
    let others = members
        .places
        .keys()
        .filter(|name| !name.ends_with(npz::EXTENSION) && !name.ends_with('/'));
    if let Some(other) = others.min() {
        let fault = Fault::new(
            "is no array (.npy), in an archive of NumPy's arrays",
            "take it out of the archive, or save the arrays again: numpy.savez(\"weights.npz\", **arrays)",
        );
        return Err(fault.at(path, other));
    }
    let (mut items, mut places) = (Vec::new(), Vec::new());
    for member in &members.arrays {
        let mut add = || -> Result<(), Fault> {
            let place = members.get(member, &mut heap.budget)?.ok_or("is missing")?;
            let name = member.strip_suffix(npz::EXTENSION).unwrap_or(member);
            let key = heap.add(Node::Str(name.into()))?;
            items.push((key, npz::array(reader, place, heap, &mut places)?));
            Ok(())
        };
        add().map_err(|fault| fault.at(path, member))?;
    }
    let root = heap.add(Node::Dict(items)).map_err(|fault| fault.at(path, "zip"))?;
    Ok((root, places))
}

pub(super) fn big_endian() -> Fault {
    Fault::new(
        "written on a big-endian machine",
        "load it with PyTorch on any other one and save it again",
    )
}

impl Members {
    /// Tells PyTorch's archives from NumPy's by the names of the members.
    fn of(places: HashMap<String, Result<StoredBytes, Fault>>) -> Result<Self, Fault> {
        let mut folders = places.keys().filter_map(|name| name.strip_suffix("/data.pkl"));
        let folder = folders.next().filter(|folder| !folder.contains('/'));
        let of_numpy = places.keys().filter(|name| name.ends_with(npz::EXTENSION));
        let mut arrays: Vec<String> = of_numpy.cloned().collect();
        arrays.sort_unstable();
        match (folder, folders.next()) {
            (Some(folder), None) => {
                Ok(Self { folder: folder.to_owned(), arrays: Vec::new(), places })
            }
            (None, None) if !arrays.is_empty() => {
                Ok(Self { folder: String::new(), arrays, places })
            }
            _ => Err(Fault::new(
                "a zip archive that is not PyTorch's, nor NumPy's: there is not one FOLDER/data.pkl in it, \
                 and no array (.npy)",
                "if a .pt or .pth file is inside, unpack that; TorchScript before PyTorch 1.4 is not \
                 read: load and save it with a later one",
            )),
        }
    }

    /// A member by its whole name.
    fn get(&self, name: &str, budget: &mut Budget) -> Result<Option<StoredBytes>, Fault> {
        match self.places.get(name) {
            None => Ok(None),
            Some(Err(fault)) => Err(Fault::new(fault.problem.clone(), fault.hint.clone())),
            Some(Ok(place)) => {
                // What is stored as it is cannot be more than the file.
                if place.deflated {
                    budget.charge(place.bytes)?;
                }
                Ok(Some(*place))
            }
        }
    }
}

/// The archive's directory. Each member lies inside the file and apart from the others.
fn members(file: &File, length: u64, budget: &mut Budget) -> Result<Members, Fault> {
    let io = |e: &dyn std::fmt::Display| Fault::from(format!("not a whole zip archive: {e}"));
    let mut buffer = vec![0; rawzip::RECOMMENDED_BUFFER_SIZE];
    let file = file.try_clone().map_err(|e| io(&e))?;
    let archive = ZipArchive::from_file(file, &mut buffer).map_err(|e| io(&e))?;
    let mut entries = archive.entries(&mut buffer);
    let mut places = HashMap::new();
    let mut ranges = Vec::new();
    while let Some(entry) = entries.next_entry().map_err(|e| io(&e))? {
        let name = {
            let raw = entry.file_path();
            let raw = raw.as_ref();
            budget.charge(256 + 2 * raw.len() as u64)?;
            String::from_utf8_lossy(raw).into_owned()
        };
        let local = archive.get_entry(entry.wayfinder()).map_err(|e| io(&e))?;
        let (start, end) = local.compressed_data_range();
        if end > length.min(archive.directory_offset()) {
            return Err(format!("{name}: ends behind the end of the archive's members").into());
        }
        ranges.push((entry.local_header_offset(), end));
        if places.insert(name.clone(), stored_bytes(&entry, start..end)).is_some() {
            return Err(format!("{name}: comes twice").into());
        }
    }
    if places.len() as u64 != archive.entries_hint() {
        let problem =
            format!("{} members, and {} by its end", places.len(), archive.entries_hint());
        return Err(problem.into());
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[1].0 < pair[0].1) {
        return Err("two of its members overlap".into());
    }
    Members::of(places)
}

/// The bytes of a member, which lie at `range`; or why they cannot be read.
fn stored_bytes(entry: &ZipFileHeaderRecord<'_>, range: Range<u64>) -> Result<StoredBytes, Fault> {
    let method = entry.compression_method();
    let stored = StoredBytes {
        start: range.start,
        packed: range.end - range.start,
        bytes: entry.uncompressed_size_hint(),
        deflated: method == CompressionMethod::DEFLATE,
        // 0: PyTorch was told to leave it out (`set_crc32_options`).
        crc: Some(entry.crc32()).filter(|&crc| crc != 0),
        skipped: 0,
    };
    if entry.flags().is_encrypted() {
        return Err(Fault::new("is encrypted", "unpack the archive and fetch the file inside"));
    }
    if stored.deflated {
        return Ok(stored);
    }
    if method != CompressionMethod::STORE {
        return Err(Fault::new(
            format!("is compressed by method {}", method.as_u16()),
            "save it again with torch.save",
        ));
    }
    if stored.bytes != stored.packed {
        let StoredBytes { bytes, packed, .. } = stored;
        return Err(format!("{bytes} bytes are said to be stored in {packed}").into());
    }
    Ok(stored)
}
