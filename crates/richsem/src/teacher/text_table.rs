//! A vocabulary's text table from prompts, and its cache on disk: LVIS's 1,203 classes times 81
//! prompts are 97,443 texts, a minute on a GPU and hours without one.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use tch::{Kind, Tensor};

use super::clip::{Activation, HEAD_WIDTH, TextConfig, TextEncoder, Tokenizer};
use crate::{
    checkpoint_io::{bytes, safetensors},
    error::{Error, Result, guarded},
    hash::hex,
    models::parameters::ParameterStore,
};

/// Texts that are encoded at once.
const BATCH: usize = 512;
/// Name of the tensor in a cached file.
const TABLE: &str = "text_table";
/// Metadata key of a cached file: the hash of the table's values.
const CHECKSUM: &str = "sha256";

/// The mean over the templates of each name's text features, not normalised before the mean
/// (method, part 2).
///
/// # Shapes
/// → `[names, D]` f32 on the encoder's device
///
/// # Errors
/// A prompt that is too long, an encoder of another vocabulary than the tokenizer's, what libtorch
/// refuses.
pub fn encode_prompts(
    encoder: &TextEncoder,
    device: tch::Device,
    templates: &[impl AsRef<str>],
    names: &[&str],
) -> Result<Tensor> {
    if encoder.vocabulary() != Tokenizer::VOCABULARY {
        let (known, tokens) = (encoder.vocabulary(), Tokenizer::VOCABULARY);
        let problem = format!("expected a text encoder of CLIP's {tokens} tokens, got {known}");
        return Err(Error::config("teacher.text", problem)
            .with_hint("give the vocabulary's embeddings: kind = \"table\", table = a file"));
    }
    let tokenizer = Tokenizer::new();
    let context = encoder.context_length();
    let texts: Vec<String> = names
        .iter()
        .flat_map(|name| templates.iter().map(move |t| t.as_ref().replace("{}", name)))
        .collect();
    let mut features = Vec::new();
    for batch in texts.chunks(BATCH) {
        let ids = tokenizer.tokenize(batch, context as usize, false).map_err(|error| {
            Error::config("teacher.text", error.to_string())
                .with_hint("shorten the class's name or the template")
        })?;
        // Padding comes after the end, where nothing looks: only the longest text's part is read.
        let length = ids.argmax(-1, false).max().int64_value(&[]) + 1;
        let ids = ids.narrow(1, 0, length).to_device(device);
        features.push(guarded(|| Ok(torch_ext::no_grad(|| encoder.forward(&ids))))?);
    }
    let features = Tensor::f_cat(&features, 0)?; // [names · templates, D]
    let (names, templates) = (names.len() as i64, templates.len() as i64);
    Ok(features.f_view([names, templates, -1])?.f_mean_dim(
        [1i64].as_slice(),
        false,
        Kind::Float,
    )?)
}

/// The name of a table in the cache: a hash of all that decides it, which is the text encoder's
/// weights, the tokenizer, the templates and the class names.
pub(super) fn key(
    store: &ParameterStore,
    config: &TextConfig,
    templates: &[impl AsRef<str>],
    names: &[&str],
) -> Result<String> {
    let mut hash = Sha256::new();
    // Lengths in front, so that no two lists give the same bytes.
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(b"richsem text table 1");
    add(Tokenizer::VERSION.as_bytes());
    // What no tensor tells; left out where it is as in OpenAI's models, so that their tables stay.
    if config.activation != Activation::default() {
        add(config.activation.name().as_bytes());
    }
    if config.heads != (config.width / HEAD_WIDTH).max(1) {
        add(format!("{} heads", config.heads).as_bytes());
    }
    for (name, tensor) in store.named_tensors() {
        if name.starts_with("visual.") || name == "logit_scale" {
            continue;
        }
        add(name.as_bytes());
        add(format!("{:?}", tensor.size()).as_bytes());
        add(&bytes(&tensor)?);
    }
    add(format!("{} templates", templates.len()).as_bytes());
    templates.iter().for_each(|t| add(t.as_ref().as_bytes()));
    names.iter().for_each(|n| add(n.as_bytes()));
    Ok(hex(&hash.finalize()))
}

/// `$XDG_CACHE_HOME/richsem/text`, or the same under `~/.cache`.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("richsem/text"))
}

/// The table of that key from the folder, or else from `make`. A new table is written to the
/// folder. A file that is damaged or of another shape is replaced.
///
/// # Errors
/// Those of `make`. A cache that cannot be written costs the next run its time, and nothing else.
pub(super) fn cached(
    folder: Option<&Path>,
    key: &str,
    shape: [i64; 2],
    make: impl FnOnce() -> Result<Tensor>,
) -> Result<Tensor> {
    let file = folder.map(|folder| folder.join(format!("{key}.safetensors")));
    if let Some(table) = file.as_deref().and_then(|file| read(file, shape)) {
        return Ok(table);
    }
    let table = make()?;
    if table.size() != shape {
        return Err(Error::other(format!(
            "text table: expected {shape:?}, got {:?}",
            table.size()
        )));
    }
    if let Some(file) = file {
        let _ = write(&file, &table);
    }
    Ok(table)
}

fn read(file: &Path, shape: [i64; 2]) -> Option<Tensor> {
    let (mut tensors, metadata) = safetensors::read(file).ok()?;
    let table = tensors.remove(TABLE)?;
    let whole = table.size() == shape && table.kind() == Kind::Float;
    let intact = metadata.get(CHECKSUM)? == &hex(&Sha256::digest(bytes(&table).ok()?));
    (whole && intact).then_some(table)
}

fn write(file: &Path, table: &Tensor) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs_err::create_dir_all(folder)?;
    }
    let checksum = hex(&Sha256::digest(bytes(table)?));
    let tensors = BTreeMap::from([(TABLE.to_owned(), table.shallow_clone())]);
    safetensors::write(file, &tensors, &HashMap::from([(CHECKSUM.to_owned(), checksum)]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_table_is_made_once_and_again_when_its_file_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let table = Tensor::randn([3, 4], (Kind::Float, Device::Cpu));
        let get = |key: &str| {
            let mut made = false;
            let got = cached(Some(&folder), key, [3, 4], || {
                made = true;
                Ok(table.shallow_clone())
            });
            assert_eq!(got.unwrap(), table);
            made
        };
        assert!(get("a") && !get("a") && get("b"));
        let file = folder.join("a.safetensors");
        let whole = std::fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        for damaged in [&whole[..0], &whole[..whole.len() / 2], &flipped, b"something else"] {
            std::fs::write(&file, damaged).unwrap();
            assert!(get("a"), "made anew");
            assert!(!get("a"), "and kept");
        }
        let nowhere = cached(None, "a", [3, 4], || Ok(table.shallow_clone())).unwrap();
        assert_eq!(nowhere, table);
        assert!(cached(None, "a", [4, 4], || Ok(table.shallow_clone())).is_err());
    }

    #[test]
    fn whatever_decides_a_table_is_in_its_key() {
        use crate::models::parameters::Init;
        let config = |activation, heads| TextConfig {
            context_length: 8,
            vocabulary: 9,
            width: 128,
            layers: 1,
            heads,
            hidden: 8,
            activation,
        };
        let plain = config(Activation::QuickGelu, 2);
        let make = |value: f64, image: f64| {
            let store = ParameterStore::new(Device::Cpu, 0);
            let _ = store.root().parameter("text_projection", &[2, 2], Init::Constant(value));
            let _ = store.root().parameter("visual.proj", &[2, 2], Init::Constant(image));
            store
        };
        let base = key(&make(1.0, 1.0), &plain, &["{}", "a {}"], &["cat", "dog"]).unwrap();
        assert_eq!(key(&make(1.0, 2.0), &plain, &["{}", "a {}"], &["cat", "dog"]).unwrap(), base);
        for other in [
            key(&make(1.0, 1.0), &config(Activation::Gelu, 2), &["{}", "a {}"], &["cat", "dog"]),
            key(
                &make(1.0, 1.0),
                &config(Activation::QuickGelu, 4),
                &["{}", "a {}"],
                &["cat", "dog"],
            ),
            key(&make(2.0, 1.0), &plain, &["{}", "a {}"], &["cat", "dog"]),
            key(&make(1.0, 1.0), &plain, &["{}", "a {}"], &["dog", "cat"]),
            key(&make(1.0, 1.0), &plain, &["{}", "a {}"], &["cat", "do", "g"]),
            key(&make(1.0, 1.0), &plain, &["{}"], &["a {}", "cat", "dog"]),
        ] {
            assert_ne!(other.unwrap(), base);
        }
    }
}
