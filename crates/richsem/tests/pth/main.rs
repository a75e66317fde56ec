//! PyTorch's files: what PyTorch wrote is read bit by bit, and what nobody should have written is
//! refused, in little memory. The fixtures and what is in them are of
//! `tests/fixtures/pth/make.py`.
#![allow(clippy::unwrap_used)]

mod arrays;
mod hostile;
mod made;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use richsem::{
    checkpoint_io::{backbones::load_backbone, pth, read_weights, safetensors},
    models::{
        backbone::{Resnet, ResnetConfig, ResnetName},
        parameters::ParameterStore,
    },
    testing::shared,
};
use tch::{Device, Kind, Tensor};

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

/// `written.pth` is what this program writes of those tensors, and `make.py --check` shows that
/// PyTorch reads it (`weights_only=True`) to the bit. RICHSEM_WRITE_FIXTURES=1 writes it anew.
#[test]
fn what_is_written_is_what_pytorch_was_shown_to_read() {
    let tensors = expected("zip");
    let (folder, kept) = (tempfile::tempdir().unwrap(), fixture("written.pth"));
    let path = folder.path().join("written.pth");
    pth::write(&path, Some("model"), &tensors).unwrap();
    if std::env::var_os("RICHSEM_WRITE_FIXTURES").is_some() {
        std::fs::copy(&path, &kept).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&kept).unwrap());
    assert_same(&pth::read(&kept).unwrap(), &tensors);
}

#[test]
fn a_training_checkpoint_has_weights_average_and_optimizer() {
    let path = fixture("training.pth");
    let checkpoint = pth::Checkpoint::load(&path).unwrap();
    // Names are the file's own; reading weights takes `DataParallel`'s prefix off.
    let weights = |key: Option<&str>| -> BTreeMap<String, Tensor> {
        let tensors = checkpoint.state_dict(key).unwrap().into_iter();
        tensors.map(|(name, t)| (name.strip_prefix("module.").unwrap().to_owned(), t)).collect()
    };
    assert_same(&read_weights(&path).unwrap(), &expected("training"));
    assert_same(&weights(None), &expected("training"));
    assert_same(&weights(Some("model")), &expected("training"));
    assert_same(&weights(Some("ema_model")), &expected("average"));
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

/// Python 2's names at protocol 2, numpy's buffers at protocol 5.
#[test]
fn what_lies_beside_weights_is_passed_over_at_every_protocol() {
    for file in ["beside2.pth", "beside5.pth"] {
        let tensors = read_weights(&fixture(file)).unwrap();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["weight"], "{file}");
        assert_eq!(Vec::<i64>::try_from(&tensors["weight"]).unwrap(), [0, 1, 2]);
    }
}

#[test]
fn of_two_models_of_the_same_names_none_is_chosen() {
    let path = fixture("twice.pth");
    let error = read_weights(&path).unwrap_err().to_string();
    for part in
        ["twice.pth", "two models of the same names: at `state_dict` and at `model`", "`key`"]
    {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    let one = pth::Checkpoint::load(&path).unwrap().state_dict(Some("model")).unwrap();
    assert_eq!(one["module.0.weight"].size(), [4, 3]);
}

#[test]
fn a_model_within_one_of_the_usual_places_is_found() {
    let path = fixture("nested.pth");
    let found = pth::read(&path).unwrap();
    let named = pth::Checkpoint::load(&path).unwrap().state_dict(Some("state_dict.model")).unwrap();
    assert!(!found.is_empty() && found.keys().eq(named.keys()));
    assert_eq!(read_weights(&path).unwrap().len(), found.len());
}

#[test]
fn where_tensors_are_or_why_there_are_none_is_said() {
    for (file, part) in [("deep.pth", "`key` a.b.c"), ("deep.pth", "`a`, `epoch`")] {
        let error = read_weights(&fixture(file)).unwrap_err().to_string();
        assert!(error.contains(part), "no `{part}` in {error}");
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
    let real = std::fs::read_to_string(fixture("real.json")).unwrap();
    type Tensors = BTreeMap<String, (String, Vec<i64>, u32)>;
    let real: BTreeMap<String, Tensors> = serde_json::from_str(&real).unwrap();
    for (file, expected) in real {
        let Some(path) = shared(&format!("weights/{file}")) else { continue };
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
    std::fs::write(&path, b"\x93NUMPY\x01\x00").unwrap();
    let message = read_weights(&path).unwrap_err().to_string();
    assert!(
        message.contains("one array of NumPy's") && message.contains("numpy.savez"),
        "{message}"
    );
    std::fs::write(&path, b"\x80\x04}.").unwrap();
    let message = read_weights(&path).unwrap_err().to_string();
    assert!(message.contains("a pickle that torch.save did not write"), "{message}");
}

#[test]
fn what_is_not_weights_is_refused_by_name() {
    let message = read_weights(&fixture("negated.pth")).unwrap_err().to_string();
    assert!(message.contains("a: a tensor whose values are negated"), "{message}");
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

#[test]
fn a_backbone_starts_from_a_pth_file() {
    let config = ResnetConfig { name: ResnetName::Resnet18, width: 8, ..ResnetConfig::default() };
    let store = |seed| {
        let store = ParameterStore::new(Device::Cpu, seed);
        drop(Resnet::new(&store.root().sub("backbone.0.body"), &config));
        store
    };
    let from = store(1);
    // As torchvision has it, where what follows the backbone comes along; as a part of whole models.
    for (prefix, beside) in [
        ("", "fc.bias"),
        ("module.", "module.fc.bias"),
        ("backbone.", "rpn_head.bias"),
        ("model._orig_mod.backbone.0.body.", "model._orig_mod.class_embed.0.bias"),
    ] {
        let mut weights = BTreeMap::from([(beside.to_owned(), Tensor::from_slice(&[1f32]))]);
        for (name, tensor) in from.named_tensors() {
            weights.insert(format!("{prefix}{}", &name["backbone.0.body.".len()..]), tensor);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made::checkpoint(&weights)).unwrap();
        let to = store(2);
        assert_ne!(to.named_tensors(), from.named_tensors());
        let found = load_backbone(&to, &config.clone().into(), file.path()).unwrap();
        assert_eq!(found.what, "a ResNet");
        assert_eq!(found.prefix, prefix.replace("module.", "").replace("_orig_mod.", ""));
        assert_eq!(to.named_tensors(), from.named_tensors(), "{prefix}");
    }
}
