//! PyTorch's files: what PyTorch wrote is read bit by bit, and what nobody should have written is
//! refused, in little memory. The fixtures and what is in them are of
//! `tests/fixtures/pth/make.py`.
#![allow(clippy::unwrap_used)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use richsem::checkpoint_io::{pth, read_weights, safetensors};
use tch::{Kind, Tensor};

/// Counts what each thread has allocated, and has had at most.
struct Counting;

thread_local! {
    static USED: Cell<[usize; 2]> = const { Cell::new([0; 2]) };
}

fn count(more: usize, less: usize) {
    // A thread that ends has no counter any more.
    let _ = USED.try_with(|used| {
        let [now, most] = used.get();
        let now = (now + more).saturating_sub(less);
        used.set([now, most.max(now)]);
    });
}

// SAFETY: the system's allocator, and counting, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While it moves, both are there.
        count(size, 0);
        count(0, layout.size());
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `f` had allocated at most.
fn most<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let [before, _] = USED.get();
    USED.set([before; 2]);
    let result = f();
    (result, USED.get()[1] - before)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pth").join(name)
}

/// Tensors of `expected.safetensors` below a name.
fn expected(of: &str) -> BTreeMap<String, Tensor> {
    let (all, _) = safetensors::read(&fixture("expected.safetensors")).unwrap();
    let prefix = format!("{of}/");
    let named = all.into_iter().filter_map(|(k, v)| Some((k.strip_prefix(&prefix)?.to_owned(), v)));
    named.collect()
}

fn bits(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.contiguous();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

#[track_caller]
fn assert_same(got: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>) {
    assert!(!expected.is_empty());
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in expected {
        let got = &got[name];
        assert_eq!((got.kind(), got.size()), (tensor.kind(), tensor.size()), "{name}");
        assert!(bits(got) == bits(tensor), "{name}: {got:?} {tensor:?}");
    }
}

#[test]
fn every_way_of_saving_is_read_bit_by_bit() {
    let expected = expected("zip");
    assert_eq!(expected.len(), 26);
    for file in ["zip.pth", "protocol5.pth", "legacy.pth", "deflated.pth", "unchecked.pth"] {
        let tensors = read_weights(&fixture(file)).unwrap();
        assert_same(&tensors, &expected);
        // One storage with two names is one tensor's memory; a part of it is not kept by that.
        let address = |name: &str| tensors[name].data_ptr();
        assert_eq!(address("shared.a"), address("shared.b"), "{file}");
        assert!(tensors.values().all(Tensor::is_contiguous), "{file}");
    }
}

#[test]
fn a_training_checkpoint_has_weights_average_and_optimizer() {
    let path = fixture("training.pth");
    let checkpoint = pth::Checkpoint::load(&path).unwrap();
    assert_same(&checkpoint.state_dict(None).unwrap(), &expected("training"));
    assert_same(&checkpoint.state_dict(Some("model")).unwrap(), &expected("training"));
    assert_same(&checkpoint.state_dict(Some("ema_model")).unwrap(), &expected("average"));
    assert_same(&checkpoint.state_dict(Some("optimizer.state")).unwrap(), &expected("optimizer"));
    let one = checkpoint.state_dict(Some("model.module.0.weight"));
    assert_eq!(one.unwrap().into_values().next().unwrap().size(), [4, 3]);
    let names = checkpoint.tensor_names().unwrap();
    for name in ["model.module.1.running_var", "optimizer.state.0.max_exp_avg_sq", "random.0"] {
        assert!(names.iter().any(|n| n == name), "{name}: {names:?}");
    }
    let message = checkpoint.state_dict(Some("ema")).unwrap_err().to_string();
    for part in ["training.pth: ema: ", "`model`, `ema_model`, `optimizer`, `lr_scheduler`"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn torchscript_is_read_as_its_state_dict() {
    let tensors = read_weights(&fixture("scripted.pt")).unwrap();
    assert_same(&tensors, &expected("scripted"));
    assert_eq!(tensors["visual.0.weight"].kind(), Kind::Half);
    assert_eq!(tensors["vocab_size"].int64_value(&[]), 49408);
}

#[test]
fn published_files_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/weights");
    let real = std::fs::read_to_string(fixture("real.json")).unwrap();
    type Tensors = BTreeMap<String, (String, Vec<i64>, u32)>;
    let real: BTreeMap<String, Tensors> = serde_json::from_str(&real).unwrap();
    for (file, expected) in real {
        let path = folder.join(&file);
        if !path.exists() {
            eprintln!("{} is not there: not checked", path.display());
            continue;
        }
        let length = path.metadata().unwrap().len() as usize;
        let (tensors, memory) = most(|| read_weights(&path).unwrap());
        assert!(memory < 2 * length, "{file}: {memory} bytes for {length}");
        let tensors = tensors.iter().map(|(name, tensor)| {
            let kind = match tensor.kind() {
                Kind::Float => "float32",
                Kind::Int64 => "int64",
                other => panic!("{name}: {other:?}"),
            };
            let mut crc = flate2::Crc::new();
            crc.update(&bits(tensor));
            (name.clone(), (kind.to_owned(), tensor.size(), crc.sum()))
        });
        assert_eq!(tensors.collect::<Tensors>(), expected, "{file}");
    }
}

#[test]
fn files_are_known_by_their_contents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    for file in ["zip.pth", "legacy.pth", "scripted.pt", "expected.safetensors"] {
        std::fs::copy(fixture(file), &path).unwrap();
        assert!(!read_weights(&path).unwrap().is_empty(), "{file}");
    }
    // The length of this header looks like the start of a pickle.
    let mut name = "a".repeat(0x280 - 65);
    let one = |name: &String| BTreeMap::from([(name.clone(), Tensor::from_slice(&[1f32]))]);
    while {
        safetensors::write(&path, &one(&name), &safetensors::Metadata::new()).unwrap();
        std::fs::read(&path).unwrap()[..2] != [0x80, 2]
    } {
        name.push('a');
        assert!(name.len() < 0x280);
    }
    assert_eq!(read_weights(&path).unwrap(), one(&name));
    for (contents, says) in [
        ("", "empty"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git-lfs"),
        ("\n <!DOCTYPE html><html>404</html>", "web page"),
        ("<html>", "web page"),
        ("not weights at all", "neither safetensors nor a PyTorch file"),
        ("\u{0}\u{0}", "neither safetensors nor a PyTorch file"),
        ("PK\u{3}\u{4} and no more", "not a whole zip archive"),
    ] {
        std::fs::write(&path, contents).unwrap();
        let message = read_weights(&path).unwrap_err().to_string();
        assert!(message.contains("weights.bin: ") && message.contains(says), "{message}");
        assert!(message.contains("hint: "), "{message}");
    }
    std::fs::write(&path, b"\x80\x04}.").unwrap();
    let message = read_weights(&path).unwrap_err().to_string();
    assert!(message.contains("a pickle that torch.save did not write"), "{message}");
}

#[test]
fn what_is_not_weights_is_refused_by_name() {
    for (file, place, says) in [
        ("complex.pth", "model.b", "`torch.ComplexFloatStorage`"),
        ("whole_model.pth", "pickle", "`torch.nn.modules.linear.Linear`"),
        ("settings.pth", "args.config", "`util.slconfig.SLConfig`"),
    ] {
        let message = read_weights(&fixture(file)).unwrap_err().to_string();
        let start = format!("{file}: {place}: the file asks for {says}");
        assert!(message.contains(&start) && message.contains("hint: "), "{message}");
    }
}

#[test]
fn cut_off_and_damaged_files_give_an_error_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["zip.pth", "legacy.pth", "deflated.pth", "training.pth", "scripted.pt"] {
        let path = folder.path().join(file);
        let bytes = std::fs::read(fixture(file)).unwrap();
        let intact = bits_of(&read_weights(&fixture(file)).unwrap());
        for length in (0..bytes.len()).step_by(97) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let (result, memory) = most(|| read_weights(&path));
            let message = result.expect_err(file).to_string();
            assert!(message.contains(file) && message.contains("hint: "), "{message}");
            assert!(memory < 1 << 20, "{file} of {length}: {memory} bytes");
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(&path, changed).unwrap();
            let (result, memory) = most(|| read_weights(&path));
            assert!(memory < 1 << 20, "{file} at {at}: {memory} bytes");
            // Only archives have checksums; some bytes of these are dates, padding or unused.
            if let (Ok(tensors), true) = (result, file != "legacy.pth") {
                assert!(bits_of(&tensors) == intact, "{file}: damage at {at} went unseen");
            }
        }
    }
}

fn bits_of(tensors: &BTreeMap<String, Tensor>) -> Vec<(String, Vec<i64>, Vec<u8>)> {
    tensors.iter().map(|(name, t)| (name.clone(), t.size(), bits(t))).collect()
}

/// Instructions of pickle.
mod op {
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

    /// A tensor of a storage of `numel` f32.
    pub(crate) fn tensor(numel: i64, offset: i64, size: &[i64], stride: &[i64]) -> Vec<u8> {
        let numbers = |all: &[i64]| tuple(&all.iter().map(|&n| int(n)).collect::<Vec<_>>());
        let class = b"ctorch\nFloatStorage\n".to_vec();
        let id = tuple(&[text("storage"), class, text("0"), text("cpu"), int(numel)]);
        let storage = [id, b"Q".to_vec()].concat();
        call(
            "torch._utils._rebuild_tensor_v2",
            &[storage, int(offset), numbers(size), numbers(stride), vec![0x89], b"}".to_vec()],
        )
    }
}

/// A zip archive, without compression.
fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
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

/// Reads an archive with this pickle and a storage of four numbers; what it took in memory.
fn read_pickle(pickle: &[u8]) -> (richsem::Result<BTreeMap<String, Tensor>>, usize) {
    let pickle = [b"\x80\x02", pickle, b"."].concat();
    let bytes =
        zip(&[("a/data.pkl", &pickle), ("a/data/0", bytes_of(&[1., 2., 3., 4.]).as_slice())]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    most(|| read_weights(file.path()))
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
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
        ("none", keyed(vec![b'N'])[..0].to_vec(), "empty stack", 1),
        ("deep", keyed([repeat(b"]", 5000), repeat(b"a", 4999)].concat()), "too deep", 8),
        ("circle", keyed(circle), "circle", 1),
        ("bomb", keyed(bomb), "too deep", 8),
        ("lists", keyed(repeat(b"]", 3 << 20)), "four times the file's length", 130),
        ("marks", keyed(repeat(b"(", 3 << 20)), "four times the file's length", 130),
        ("nones", keyed(repeat(b"N", 3 << 20)), "four times the file's length", 130),
        ("names", names.concat(), "four times the file's length", 130),
    ] {
        let (result, memory) = read_pickle(&pickle);
        let message = result.expect_err(name).to_string();
        assert!(message.contains(says) && message.contains("hint: "), "{name}: {message}");
        // In MiB.
        assert!(memory < limit << 20, "{name}: {memory}");
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
