//! What nobody should have written.

use std::collections::BTreeMap;

use richsem::checkpoint_io::read_weights;
use tch::Tensor;

use super::{
    made::{bytes_of, legacy, op, zip},
    most,
};

/// Reads an archive with this pickle and a storage of four numbers; what it took in memory.
fn read_pickle(pickle: &[u8]) -> (richsem::Result<BTreeMap<String, Tensor>>, usize) {
    let pickle = [b"\x80\x02", pickle, b"."].concat();
    let bytes =
        zip(&[("a/data.pkl", &pickle), ("a/data/0", bytes_of(&[1., 2., 3., 4.]).as_slice())]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    most(|| read_weights(file.path()))
}

#[test]
fn sizes_that_the_storage_does_not_have_are_refused() {
    let numbers = |size: &[i64], stride: &[i64], offset| {
        let pickle = op::dict(&[("w", op::tensor(4, offset, size, stride))]);
        let (result, memory) = read_pickle(&pickle);
        assert!(memory < 1 << 20, "{memory}");
        result.map(|t| Vec::<f32>::try_from(&t["w"].flatten(0, -1)).unwrap())
    };
    assert_eq!(numbers(&[2, 2], &[2, 1], 0).unwrap(), [1., 2., 3., 4.]);
    assert_eq!(numbers(&[2, 2], &[1, 2], 0).unwrap(), [1., 3., 2., 4.]);
    assert_eq!(numbers(&[2, 2], &[0, 3], 0).unwrap(), [1., 4., 1., 4.]);
    assert_eq!(numbers(&[], &[], 3).unwrap(), [4.]);
    assert_eq!(numbers(&[0, 1 << 40], &[1, 1], 0).unwrap(), [0f32; 0]);
    let large = 1 << 40;
    let (min, max) = (i64::MIN, i64::MAX);
    for (size, stride, offset, says) in [
        (vec![5], vec![1], 0, "from element 0 of a storage of 4"),
        (vec![4], vec![1], 1, "from element 1 of a storage of 4"),
        (vec![1], vec![1], -1, "from element -1"),
        (vec![1], vec![1], max, "of a storage of 4"),
        (vec![2, 2], vec![3, 1], 0, "of a storage of 4"),
        (vec![2], vec![-1], 3, "cannot be"),
        (vec![-1], vec![1], 0, "cannot be"),
        (vec![min], vec![min], 0, "cannot be"),
        (vec![2], vec![1, 1], 0, "cannot be"),
        (vec![1; 65], vec![1; 65], 0, "cannot be"),
        (vec![large], vec![0], 0, "more than four times the file's length"),
        (vec![large, large], vec![0, 0], 0, "of a storage of 4"),
        (vec![0, large, large], vec![0, 0, 0], 0, "of a storage of 4"),
        (vec![max, 2], vec![max, max], 0, "of a storage of 4"),
    ] {
        let message = numbers(&size, &stride, offset).unwrap_err().to_string();
        assert!(message.contains(": w: ") && message.contains(says), "{message}");
    }
    for numel in [3, 5, max] {
        let (result, memory) = read_pickle(&op::dict(&[("w", op::tensor(numel, 0, &[1], &[1]))]));
        let message = result.unwrap_err().to_string();
        assert!(message.contains("data/0: has 16 bytes") || numel == max, "{message}");
        assert!(memory < 1 << 20, "{memory}");
    }
}

#[test]
fn hostile_pickles_are_refused_in_little_memory() {
    let repeat = |part: &[u8], times| part.repeat(times);
    let weights = op::tensor(4, 0, &[4], &[1]);
    let keyed = |value: Vec<u8>| op::dict(&[("a", weights.clone()), ("x", value)]);
    // Lists within lists, each ten times: a billion of them, of which each is seen.
    let mut bomb = b"]q\0".to_vec();
    for i in 0..60u8 {
        bomb.extend([b']', b'q', i + 1, b'(']);
        bomb.extend([b'h', i].repeat(10));
        bomb.push(b'e');
    }
    let circle = b"}q\x01(X\x01\0\0\0ah\x01u".to_vec();
    // Each key makes the names below it a megabyte longer.
    let long = [op::text(&"k".repeat(1 << 20)), b"q\x01".to_vec()].concat();
    let names = [
        &op::dict(&[("k", [long, weights.clone(), b"q\x02\x86".to_vec()].concat())])[..],
        b"0}(h\x01}(",
        &(0..20000).flat_map(|i| [op::int(i), b"h\x02".to_vec()].concat()).collect::<Vec<_>>(),
        b"uX\x01\0\0\0ah\x02u",
    ];
    for (name, pickle, says, limit) in [
        (
            "call",
            op::call("os.system", &[op::text("id")]),
            "pickle: the file asks for `os.system`",
            1,
        ),
        (
            "call below",
            keyed(op::call("posix.system", &[op::text("id")])),
            "x: the file asks for `posix.system`",
            1,
        ),
        (
            "evaluation",
            keyed(b"X\x08\0\0\0builtinsX\x04\0\0\0eval\x93".to_vec()),
            "`builtins.eval`",
            1,
        ),
        ("scripted", keyed(b"c__torch__\nNet\n".to_vec()), "`__torch__.Net`", 1),
        (
            "bytes",
            keyed(op::call("torch.storage._load_from_bytes", &[])),
            "`torch.storage._load_from_bytes`",
            1,
        ),
        ("protocol", b"\x80\x09N".to_vec(), "protocol 9", 1),
        ("instance", b"(ios\nsystem\n".to_vec(), "instruction 0x69", 1),
        ("extension", b"\x82\x01".to_vec(), "instruction 0x82", 1),
        ("text", b"X\xff\xff\xff\x7fa".to_vec(), "ends at byte", 1),
        ("bytes", b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "ends at byte", 1),
        ("text8", b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(), "ends at byte", 1),
        ("number", b"\x8b\xff\xff\xff\xff".to_vec(), "ends at byte", 1),
        ("stack", b"0".to_vec(), "empty stack", 1),
        ("mark", b"t".to_vec(), "a mark that is not there", 1),
        ("memo", b"h\x07".to_vec(), "a memo that is not there", 1),
        ("pairs", b"}(NNNu".to_vec(), "no dictionary", 1),
        ("state", b"NNb".to_vec(), "a state of", 1),
        ("storage", b"(NNNNNtQ".to_vec(), "a storage that is not described", 1),
        ("line", [b"c".to_vec(), repeat(b"a", 5000)].concat(), "1024 bytes", 1),
        ("list", b"]".to_vec(), "a list", 1),
        ("none", Vec::new(), "empty stack", 1),
        ("deep", keyed([repeat(b"]", 5000), repeat(b"a", 4999)].concat()), "too deep", 8),
        ("circle", keyed(circle), "circle", 1),
        ("bomb", keyed(bomb), "too deep", 8),
        ("lists", keyed(repeat(b"]", 3 << 20)), "four times the file's length", 64),
        ("marks", keyed(repeat(b"(", 3 << 20)), "four times the file's length", 64),
        ("nones", keyed(repeat(b"N", 3 << 20)), "four times the file's length", 64),
        ("names", names.concat(), "four times the file's length", 64),
    ] {
        let (result, memory) = read_pickle(&pickle);
        let message = result.expect_err(name).to_string();
        assert!(message.contains(says) && message.contains("hint: "), "{name}: {message}");
        // In MiB.
        assert!(memory <= limit << 20, "{name}: {memory}");
    }
    // A memo of four billion is one entry, and attributes are left aside.
    let odd = [b"Nr\xff\xff\xff\xff0".to_vec(), op::dict(&[("a", weights)]), b"}b".to_vec()];
    assert_eq!(read_pickle(&odd.concat()).0.unwrap().len(), 1);
}

#[test]
fn archives_that_lie_are_refused() {
    let pickle =
        [b"\x80\x02", &op::dict(&[("w", op::tensor(4, 0, &[4], &[1]))])[..], b"."].concat();
    let storage = bytes_of(&[1., 2., 3., 4.]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(file.path(), bytes).unwrap();
        let (result, memory) = most(|| read_weights(file.path()));
        assert!(memory < 1 << 20, "{memory}");
        result.map(|tensors| tensors.len()).map_err(|e| e.to_string())
    };
    let (data, zero) = (("a/data.pkl", &pickle[..]), ("a/data/0", &storage[..]));
    assert_eq!(read(&zip(&[data, zero])), Ok(1));
    for (members, says) in [
        (vec![data], "data/0: is missing"),
        (vec![zero], "not PyTorch's"),
        (vec![data, zero, zero], "a/data/0: comes twice"),
        (vec![data, zero, ("b/data.pkl", b"")], "not PyTorch's"),
        (vec![data, ("a/data/0", &storage[..12])], "has 12 bytes, and data.pkl says 16"),
        (vec![data, zero, ("a/byteorder", b"big")], "big-endian"),
        (vec![("a/model.json", b"{}")], "not PyTorch's"),
    ] {
        let message = read(&zip(&members)).unwrap_err();
        assert!(message.contains(says) && message.contains("hint: "), "{message}");
    }
    let whole = zip(&[data, zero]);
    let replaced = |old: &[u8], new: &[u8], skip: usize| {
        let mut found = whole.windows(old.len()).enumerate().filter(|(_, w)| w == &old);
        let (at, _) = found.nth(skip).unwrap();
        let mut bytes = whole.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    let message = read(&replaced(&storage, &[9], 0)).unwrap_err();
    assert!(message.contains(": w: checksum"), "{message}");
    // The directory's second entry: where its member starts, 42 bytes in, is that of the first.
    let second = whole.windows(4).enumerate().filter(|(_, w)| w == b"PK\x01\x02").nth(1).unwrap().0;
    let mut overlap = whole.clone();
    overlap[second + 42..second + 46].fill(0);
    let message = read(&overlap).unwrap_err();
    assert!(message.contains("overlap"), "{message}");
    // Sizes, 20 bytes in, of 4 GB.
    let mut large = whole.clone();
    large[second + 20..second + 28]
        .copy_from_slice(&[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff]);
    let message = read(&large).unwrap_err();
    assert!(message.contains("ends behind the end"), "{message}");
    // Deflated (10 bytes in), it says, to 4 GB.
    let mut bomb = whole.clone();
    bomb[second + 10] = 8;
    bomb[second + 24..second + 28].copy_from_slice(&[0xf0, 0xff, 0xff, 0xff]);
    let message = read(&bomb).unwrap_err();
    assert!(message.contains("four times the file's length"), "{message}");
}

#[test]
fn old_files_are_read_as_python_2_and_cuda_wrote_them() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read = |bytes: &[u8]| {
        std::fs::write(file.path(), bytes).unwrap();
        read_weights(file.path()).map_err(|e| e.to_string())
    };
    // A view of a storage, text of bytes, integers as lines.
    let view = |start: i64, numel: i64| {
        let class = b"ctorch.cuda\nFloatStorage\n".to_vec();
        let part = op::tuple(&[op::text("8"), op::int(start), op::int(2)]);
        let key = b"U\x017".to_vec();
        let id = op::tuple(&[op::text("storage"), class, key, op::text("0"), op::int(numel), part]);
        let one = op::tuple(&[b"I1\n".to_vec()]);
        let size = op::tuple(&[b"L2L\n".to_vec()]);
        let storage = [&id[..], b"Q"].concat();
        op::dict(&[(
            "w",
            op::call("torch._utils._rebuild_tensor", &[storage, op::int(0), size, one]),
        )])
    };
    let little = op::dict(&[("little_endian", vec![0x88])]);
    let big = op::dict(&[("little_endian", vec![0x89])]);
    let storage: (&str, &[f32]) = ("7", &[1., 2., 3., 4.]);
    let tensors = read(&legacy(&little, &view(1, 4), &[storage])).unwrap();
    assert_eq!(tensors["w"], Tensor::from_slice(&[2f32, 3.]));
    for (bytes, says) in [
        (legacy(&big, &view(1, 4), &[storage]), "big-endian"),
        (legacy(&little, &view(3, 4), &[storage]), "a storage that is not described"),
        (legacy(&little, &view(i64::MAX, 4), &[storage]), "a storage that is not described"),
        (legacy(&little, &view(1, 5), &[storage]), "7: 4 elements, expected 5"),
        (legacy(&little, &view(1, 1 << 60), &[storage]), "7: 4 elements, expected"),
        (legacy(&little, &view(1, 4), &[]), "7: is missing"),
        (legacy(&little, &view(1, 4), &[storage, storage]), "7: comes twice"),
        (legacy(&little, &view(1, 4), &[storage, ("8", &[])]), "8: of no tensor"),
        (legacy(&little, &op::call("os.system", &[op::text("id")]), &[]), "`os.system`"),
    ] {
        let message = read(&bytes).unwrap_err();
        assert!(message.contains(says) && message.contains("hint: "), "{message}");
    }
    let mut version = legacy(&little, &view(1, 4), &[storage]);
    version[18] ^= 1;
    let message = read(&version).unwrap_err();
    assert!(message.contains("expected 1001"), "{message}");
}
