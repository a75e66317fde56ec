//! Weights of detectors and backbones.

use serde_json::{Value, json};

use super::{all_refused, util::Dir};

/// A safetensors file taken apart.
struct Weights {
    header: Value,
    values: Vec<u8>,
}

impl Weights {
    fn read(dir: &Dir, name: &str) -> Self {
        let bytes = dir.read(name);
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        Self { header, values: bytes[8 + length..].to_vec() }
    }

    /// The file, with its header changed.
    fn with(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut header = self.header.clone();
        change(&mut header);
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.extend(&self.values);
        bytes
    }

    /// The same, with the record of this program changed.
    fn with_record(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        self.with(|header| {
            let record = &mut header["__metadata__"]["richsem"];
            let mut value = serde_json::from_str(record.as_str().unwrap()).unwrap();
            change(&mut value);
            *record = json!(value.to_string());
        })
    }

    /// The same, with the settings in that record changed.
    fn with_settings(&self, old: &str, new: &str) -> Vec<u8> {
        self.with_record(|record| {
            let settings = record["config"].as_str().unwrap();
            assert!(settings.contains(old), "{settings}");
            record["config"] = json!(settings.replace(old, new));
        })
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_with_the_reason() {
    let dir = Dir::with_run();
    let name = "run/checkpoints/last/model.safetensors";
    let (whole, good) = (dir.read(name), Weights::read(&dir, name));
    let another = "hint: another release wrote these weights";
    let header = "header: not a safetensors file";
    let damaged = "hint: the file is truncated, or of another kind";
    let not_finite = Weights { values: vec![0xff; good.values.len()], header: good.header.clone() };
    // Name, content, field and problem, hint.
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("empty", vec![], header, damaged),
        ("cut off in the header", whole[..100].to_vec(), header, damaged),
        ("cut off in the values", whole[..whole.len() - 4].to_vec(), header, damaged),
        ("a header that is huge", [&[0xff; 8], &whole[8..]].concat(), header, damaged),
        (
            "a PyTorch file",
            b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl".to_vec(),
            "header: not a safetensors file: PyTorch's",
            "hint: `richsem convert` makes",
        ),
        ("a web page", b"<!doctype html><html><body>404</body></html>".to_vec(), header, damaged),
        (
            "of another program",
            good.with(|h| drop(h.as_object_mut().unwrap().remove("__metadata__"))),
            "__metadata__.richsem: missing: this program did not write these weights",
            "hint: give the model.safetensors of a run",
        ),
        (
            "a record without settings",
            good.with_record(|record| *record = json!({})),
            "__metadata__.richsem: missing field `config`",
            another,
        ),
        (
            "of another version",
            good.with_settings("version = 1", "version = 2"),
            "__metadata__.richsem.config: version: expected 1, got 2",
            another,
        ),
        (
            "a setting of another version",
            good.with_settings("[model]", "[model]\nsize = 3"),
            "__metadata__.richsem.config: model.size: unknown key",
            another,
        ),
        (
            "other shapes than the settings say",
            good.with_settings("hidden_dim = 32", "hidden_dim = 64"),
            "weights: transformer.enc_out_class_embed.weight: expected shape [4, 64], got [4, 32]",
            "hint: the weights belong to another model",
        ),
        (
            "a layer too few",
            good.with_settings("enc_layers = 1", "enc_layers = 2"),
            "weights: missing transformer.encoder.layers.1",
            "hint: the weights belong to another model",
        ),
        (
            "no classes",
            good.with_record(|record| record["vocabulary"] = json!([])),
            "__metadata__.richsem.vocabulary: no classes",
            another,
        ),
        (
            "not finite",
            not_finite.with(|_| ()),
            "holds NaN or infinite values",
            "hint: the file is damaged, or its training had diverged",
        ),
    ];
    for (name, content, says, hint) in &cases {
        dir.write("bad.safetensors", content);
        let weights = ["--weights", "bad.safetensors", "--device", "cpu"];
        let eval = [
            "eval",
            "--annotations",
            "set/val.json",
            "--images",
            "set/images",
            "--json",
            "out.json",
        ];
        let predict = ["predict", "set/images/val", "-o", "out", "--raw", "raw.safetensors"];
        let says: &[&str] = &["bad.safetensors: ", says, hint];
        all_refused(
            &dir,
            &[
                (name, &[&eval[..], &weights].concat(), says),
                (name, &[&predict[..], &weights].concat(), says),
            ],
        );
    }
}

#[test]
fn weights_that_are_not_there_or_no_weights_are_named_with_their_flag() {
    let dir = Dir::with_data();
    dir.write("backbone.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    let predict = |weights| {
        ["predict", "set/images/val", "--device", "cpu", "-o", "out", "--weights", weights]
    };
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu", "--set"];
    let backbone = |setting| [&train[..], &[setting]].concat();
    // An annotation file that is broken: what is missing is told before it is read.
    dir.write("broken.json", "{");
    let first =
        |setting| [&train[..], &["data.train.annotations=broken.json", "--set", setting]].concat();
    all_refused(
        &dir,
        &[
            (
                "absent",
                &predict("none.safetensors"),
                &["--weights: no such file or folder as `none.safetensors`", "hint: "],
            ),
            (
                "a folder of something else",
                &predict("set"),
                &[
                    "--weights: set: weights: the folder holds neither model.safetensors nor checkpoints",
                    "hint: give a .safetensors file",
                ],
            ),
            (
                "a backbone that is empty",
                &backbone("model.dino.backbone.weights=backbone.safetensors"),
                &[
                    "backbone.safetensors: weights: missing backbone.0.body.",
                    "hint: the model's backbone (name, width, layers, norm) must be",
                ],
            ),
            (
                "a backbone that is text",
                &backbone("model.dino.backbone.weights=tiny.toml"),
                &["tiny.toml: weights: neither safetensors nor a PyTorch file", "hint: "],
            ),
            (
                "a table that is absent",
                &first("model.class_head={ kind = \"text\", table = \"none.npy\" }"),
                &[
                    "model.class_head.table: `",
                    "none.npy` does not exist",
                    "hint: paths of a settings file",
                ],
            ),
            (
                "a backbone that is absent",
                &first("model.dino.backbone.weights=none.pth"),
                &[
                    "model.dino.backbone.weights: `",
                    "none.pth` does not exist",
                    "hint: paths of a settings file",
                ],
            ),
        ],
    );
}
