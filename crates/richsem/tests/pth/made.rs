//! Files as PyTorch writes them, and as it would not: pickles instruction by instruction.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::bits;

/// Instructions of pickle.
pub(crate) mod op {
    pub(crate) fn text(text: &str) -> Vec<u8> {
        [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    pub(crate) fn int(number: i64) -> Vec<u8> {
        [&[0x8a, 8], &number.to_le_bytes()[..]].concat()
    }

    pub(crate) fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
        [b"(", &items.concat()[..], b"t"].concat()
    }

    pub(crate) fn call(function: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
        let (module, name) = function.rsplit_once('.').unwrap();
        [format!("c{module}\n{name}\n").as_bytes(), &tuple(arguments), b"R"].concat()
    }

    pub(crate) fn dict(items: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let items: Vec<_> = items.iter().map(|(k, v)| [text(k), v.clone()].concat()).collect();
        [b"}(", &items.concat()[..], b"u"].concat()
    }

    /// A tensor of the storage `0` of `numel` f32.
    pub(crate) fn tensor(numel: i64, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
        stored("0", numel, offset, size, stride)
    }

    pub(crate) fn stored(
        key: &str,
        numel: i64,
        offset: i64,
        size: &[i64],
        stride: &[i64],
    ) -> Vec<u8> {
        let numbers = |all: &[i64]| tuple(&all.iter().map(|&n| int(n)).collect::<Vec<_>>());
        let class = b"ctorch\nFloatStorage\n".to_vec();
        let id = tuple(&[text("storage"), class, text(key), text("cpu"), int(numel)]);
        let storage = [id, b"Q".to_vec()].concat();
        call(
            "torch._utils._rebuild_tensor_v2",
            &[storage, int(offset), numbers(size), numbers(stride), vec![0x89], b"}".to_vec()],
        )
    }
}

/// A zip archive, without compression.
pub(crate) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut bytes = Vec::new();
    let mut archive = rawzip::ZipArchiveWriter::new(&mut bytes);
    for (name, contents) in members {
        let (mut entry, config) = archive.new_file(name).start().unwrap();
        let mut writer = config.wrap(&mut entry);
        writer.write_all(contents).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    bytes
}

/// A state dict of f32.
pub(crate) fn checkpoint(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let mut items = Vec::new();
    let mut members = vec![(String::new(), Vec::new())];
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        assert_eq!(tensor.kind(), Kind::Float);
        let (numel, key) = (tensor.numel() as i64, i.to_string());
        let stored = op::stored(&key, numel, 0, &tensor.size(), &tensor.stride());
        items.push((name.as_str(), stored));
        members.push((format!("archive/data/{key}"), bits(tensor)));
    }
    let pickle = [b"\x80\x02", &op::dict(&items)[..], b"."].concat();
    members[0] = ("archive/data.pkl".to_owned(), pickle);
    zip(&members.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect::<Vec<_>>())
}

/// A file of PyTorch before 1.6: `machine` says what wrote it.
pub(crate) fn legacy(machine: &[u8], object: &[u8], storages: &[(&str, &[f32])]) -> Vec<u8> {
    let keys: Vec<_> = storages.iter().map(|(key, _)| op::text(key)).collect();
    let mut bytes = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    for pickle in [b"M\xe9\x03", machine, object, &op::tuple(&keys)] {
        bytes.extend([b"\x80\x02", pickle, b"."].concat());
    }
    for (_, numbers) in storages {
        bytes.extend((numbers.len() as u64).to_le_bytes());
        bytes.extend(bytes_of(numbers));
    }
    bytes
}

pub(crate) fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}
