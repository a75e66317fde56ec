//! NumPy's arrays as weights: what NumPy wrote (`tests/fixtures/pth/make_arrays.py`) is read bit by bit, and
//! what it would not write is refused.

use std::collections::BTreeMap;

use richsem::checkpoint_io::{pth, read_weights, safetensors};
use tch::{Kind, Tensor};

use super::{
    assert_same, bits, fixture,
    made::{bytes_of, op, zip},
    most,
};

/// All files of the same arrays.
const FILES: [&str; 7] = [
    "arrays2.pkl",
    "arrays3.pkl",
    "arrays4.pkl",
    "arrays5.pkl",
    "arrays2.pth",
    "arrays.npz",
    "packed.npz",
];

#[test]
fn every_way_of_numpys_is_read_bit_by_bit() {
    let (expected, _) = safetensors::read(&fixture("arrays.safetensors")).unwrap();
    assert_eq!(expected.len(), 37);
    for file in FILES {
        let (tensors, memory) = most(|| read_weights(&fixture(file)).unwrap());
        assert_same(&tensors, &expected);
        assert!(tensors.values().all(Tensor::is_contiguous), "{file}");
        assert!(memory < 1 << 20, "{file}: {memory}");
        // One array with two names is one tensor's memory; archives have it twice.
        let shared = tensors["f4"].data_ptr() == tensors["shared"].data_ptr();
        assert_eq!(shared, !file.ends_with("npz"), "{file}");
    }
    // As torch.save writes them at protocol 5.
    let tensors = read_weights(&fixture("arrays.pth")).unwrap();
    let ones = Tensor::from_slice(&[1f64, 1.]);
    assert_eq!(
        tensors,
        BTreeMap::from([
            ("b".into(), Tensor::zeros_like(&Tensor::from_slice(&[0f64; 3]))),
            ("w".into(), ones)
        ])
    );
    let checkpoint = pth::Checkpoint::load(&fixture("arrays4.pkl")).unwrap();
    let names = checkpoint.tensor_names().unwrap();
    for name in ["model.f4.swapped", "best"] {
        assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
    }
    assert_eq!(checkpoint.state_dict(Some("model")).unwrap().len(), expected.len());
}

/// What is below a usual key are weights, whoever made them, and two models of the same names are two.
#[test]
fn arrays_beside_pytorchs_tensors_are_weights_too() {
    let tensors = read_weights(&fixture("beside.pth")).unwrap();
    assert_eq!(tensors, BTreeMap::from([("w".into(), Tensor::from_slice(&[1f32, 2.0]))]));
    let message = read_weights(&fixture("mixed.pth")).unwrap_err().to_string();
    assert!(
        message.contains("two models of the same names: at `state_dict` and at `model`"),
        "{message}"
    );
    let mixed = pth::Checkpoint::load(&fixture("mixed.pth")).unwrap();
    for (key, first) in [("state_dict", 1.0), ("model", 3.0)] {
        let tensors = mixed.state_dict(Some(key)).unwrap();
        assert_eq!(tensors["w"].double_value(&[0]), first, "{key}");
    }
}

#[test]
fn arrays_that_cannot_be_tensors_are_named() {
    for file in ["unread.npz", "unread.pkl"] {
        let message = read_weights(&fixture(file)).unwrap_err().to_string();
        for part in [
            &format!("{file}: odd: expected an array of f2, f4"),
            "got one of <c8",
            "hint: convert it before saving",
        ] {
            assert!(message.contains(part), "{file}: no `{part}` in {message}");
        }
    }
    let message = read_weights(&fixture("objects.npz")).unwrap_err().to_string();
    assert!(
        message.contains("the file has `model`") && message.contains("numpy.savez"),
        "{message}"
    );
}

/// An array of f4 as protocol 2 has it, with these values.
fn array(values: Vec<u8>, shape: &[i64], fortran: bool) -> Vec<u8> {
    let shape = op::tuple(&shape.iter().map(|&n| op::int(n)).collect::<Vec<_>>());
    let flag = if fortran { 0x88 } else { 0x89 };
    let state = op::tuple(&[op::int(1), shape, dtype("f4", "<"), vec![flag], values]);
    [reconstruct(), state, b"b".to_vec()].concat()
}

fn reconstruct() -> Vec<u8> {
    op::call("numpy.core.multiarray._reconstruct", &[b"cnumpy\nndarray\n".to_vec()])
}

fn dtype(code: &str, order: &str) -> Vec<u8> {
    let state = op::tuple(&[op::int(3), op::text(order), b"N".to_vec()]);
    [op::call("numpy.dtype", &[op::text(code)]), state, b"b".to_vec()].concat()
}

fn scalar(number: f32) -> Vec<u8> {
    op::call("numpy.core.multiarray.scalar", &[dtype("f4", "<"), short(&number.to_le_bytes())])
}

/// Bytes as Python 3 has them.
fn short(bytes: &[u8]) -> Vec<u8> {
    [&[b'C', bytes.len() as u8], bytes].concat()
}

fn read(bytes: &[u8]) -> richsem::Result<BTreeMap<String, Tensor>> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let (result, memory) = most(|| read_weights(file.path()));
    assert!(memory < 1 << 20, "{memory}");
    result
}

fn pickled(object: &[u8]) -> Vec<u8> {
    [b"\x80\x02", object, b"."].concat()
}

/// An archive of PyTorch's with the storage `0` of four numbers.
fn archive(object: &[u8]) -> Vec<u8> {
    let storage = bytes_of(&[1., 2., 3., 4.]);
    zip(&[("a/data.pkl", &pickled(object)), ("a/data/0", &storage)])
}

/// Python 2's text may be text or bytes; here bytes that are UTF-8 of two characters, and some that are not.
#[test]
fn what_python_2_wrote_is_the_same_bytes() {
    for values in [b"\xc3\xa9\xc3\xa9", b"\xff\xfe\x80\x3f", b"abcd"] {
        let text = [&b"U\x04"[..], values].concat();
        let tensors = read(&pickled(&op::dict(&[("w", array(text, &[1], false))]))).unwrap();
        assert_eq!(bits(&tensors["w"]), values);
    }
}

#[test]
fn beside_tensors_arrays_are_read_and_numbers_are_none() {
    let values = short(&bytes_of(&[1., 2., 3., 4., 5., 6.]));
    let made = op::dict(&[
        ("w", op::tensor(4, 0, &[4], &[1])),
        ("best", scalar(0.5)),
        ("table", array(values.clone(), &[2, 3], true)),
    ]);
    for object in [made.clone(), op::dict(&[("model", made)])] {
        let tensors = read(&archive(&object)).unwrap();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["table", "w"]);
        let table = Tensor::from_slice(&[1f32, 3., 5., 2., 4., 6.]).view([2, 3]);
        assert_eq!(tensors["table"], table);
    }
    // Alone they are weights, and do not say by themselves where these are.
    let alone = op::dict(&[
        ("best", scalar(0.5)),
        ("net", op::dict(&[("w", array(values.clone(), &[6], false)), ("scale", scalar(4.5))])),
    ]);
    let tensors = read(&pickled(&alone)).unwrap();
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["scale", "w"]);
    assert_eq!((tensors["scale"].kind(), tensors["scale"].size()), (Kind::Float, vec![]));
    // Which of the two is meant is not for an array to say.
    let weights = op::dict(&[("w", op::tensor(4, 0, &[4], &[1]))]);
    let beside = op::dict(&[("weights", weights), ("anchors", array(values, &[6], false))]);
    let message = read(&archive(&beside)).unwrap_err().to_string();
    assert!(message.contains("`key` weights"), "{message}");
}

#[test]
fn arrays_that_nobody_should_have_written_are_refused() {
    let four = || short(&[0; 16]);
    let keyed = |value: Vec<u8>| pickled(&op::dict(&[("w", value)]));
    let buffer = |rest: &[Vec<u8>]| {
        let arguments = [&[four(), dtype("f4", "<")], rest].concat();
        keyed(op::call("numpy._core.numeric._frombuffer", &arguments))
    };
    let sides = |sides: &[i64]| op::tuple(&sides.iter().map(|&n| op::int(n)).collect::<Vec<_>>());
    assert_eq!(read(&keyed(array(four(), &[2, 2], false))).unwrap()["w"].size(), [2, 2]);
    assert_eq!(read(&buffer(&[op::int(4), op::text("C")])).unwrap()["w"].size(), [4]);
    let large = 1 << 40;
    for (bytes, says) in [
        (keyed(array(four(), &[3], false)), "size [3] of Float in 16 bytes"),
        (keyed(array(four(), &[5], false)), "of a storage of 4"),
        (keyed(array(short(&[0; 15]), &[3], false)), "size [3] of Float in 15 bytes"),
        (keyed(array(four(), &[-4], false)), "cannot be"),
        (keyed(array(four(), &[large, large], true)), "not described"),
        (keyed(array(four(), &[0, large], true)), "in 16 bytes"),
        (keyed(array(four(), &[1; 65], true)), "cannot be"),
        (keyed(array(op::text("ab\u{100}d"), &[1], false)), "not described"),
        (keyed(array(b"]".to_vec(), &[1], false)), "not described"),
        (keyed([reconstruct(), b"Nb".to_vec()].concat()), "not described"),
        (keyed([reconstruct(), op::tuple(&[]), b"b".to_vec()].concat()), "not described"),
        (
            keyed([op::call("numpy.dtype", &[op::text("f4")]), b"Nb".to_vec()].concat()),
            "not described",
        ),
        (buffer(&[sides(&[4])]), "not described"),
        (buffer(&[sides(&[4]), op::text("X")]), "not described"),
        (buffer(&[sides(&[2, 2]), op::text("K"), sides(&[0, 0])]), "not described"),
        (buffer(&[sides(&[2, 2]), op::text("K"), sides(&[0])]), "not described"),
        (buffer(&[sides(&[2, 2]), op::text("K"), sides(&[0, 2])]), "not described"),
        // A state that is missing leaves no array.
        (keyed(reconstruct()), "no arrays of NumPy's are in it"),
        (
            pickled(&op::dict(&[("w", op::tensor(4, 0, &[4], &[1]))])),
            "that torch.save did not write",
        ),
        (keyed(op::call("os.system", &[op::text("id")])), "`os.system`"),
        (
            [keyed(array(four(), &[4], false)), keyed(array(four(), &[4], false))].concat(),
            "more than one",
        ),
    ] {
        let message = read(&bytes).expect_err(says).to_string();
        assert!(message.contains(says) && message.contains("hint: "), "{says}: {message}");
    }
}

#[test]
fn members_that_are_no_arrays_are_refused() {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n";
    let member = |header: &str, values: usize| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(vec![0; values]);
        bytes
    };
    let whole = member(header, 8);
    assert_eq!(read(&zip(&[("a.b.npy", &whole)])).unwrap()["a.b"].size(), [2]);
    let long = header.replace("(2,)", "(4611686018427387904, 4)");
    for (name, bytes, says) in [
        ("w.npy", member(header, 7), "w.npy: a tensor of size [2]"),
        ("w.npy", member(header, 9), "w.npy: an array of size [2] of Float in 9 bytes"),
        ("w.npy", member(header, 4), "w.npy: a tensor of size [2]"),
        ("w.npy", member(&long, 8), "w.npy: sides that cannot be"),
        ("w.npy", member(&header.replace("shape", "shale"), 8), "w.npy: unreadable header"),
        ("w.npy", b"\x93NUMPY".to_vec(), "w.npy: not a .npy file"),
        ("notes.txt", b"text".to_vec(), "notes.txt: is no array (.npy)"),
    ] {
        let message = read(&zip(&[("v.npy", &whole), (name, &bytes)])).expect_err(says).to_string();
        assert!(message.contains(says) && message.contains("hint: "), "{says}: {message}");
    }
}

#[test]
fn cut_off_and_damaged_arrays_give_an_error_in_little_memory() {
    let sorted = |tensors: &BTreeMap<String, Tensor>| {
        let mut all: Vec<_> = tensors.values().map(|t| (t.size(), bits(t))).collect();
        all.sort();
        all
    };
    for file in FILES {
        let bytes = std::fs::read(fixture(file)).unwrap();
        let intact = sorted(&read_weights(&fixture(file)).unwrap());
        for length in (0..bytes.len()).step_by(97) {
            let message = read(&bytes[..length]).expect_err(file).to_string();
            assert!(message.contains("hint: "), "{message}");
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            // Plain pickles have no checksums.
            if let (Ok(tensors), false) = (read(&changed), file.ends_with("pkl")) {
                assert!(sorted(&tensors) == intact, "{file}: damage at {at} went unseen");
            }
        }
    }
}
