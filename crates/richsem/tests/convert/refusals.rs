//! What does not fit, or makes no sense: told, and nothing written.

use std::path::Path;

use richsem::{
    checkpoint_io::fit::Patterns,
    config::Config,
    convert::{Fate, Form, Line, Options},
    detector::Detector,
    models::{
        class_head::{ClassSpace, TextTable},
        config::ClassHeadConfig,
    },
    testing::normal,
};
use tch::Device;

use crate::support::*;

#[test]
fn each_mismatch_is_listed_and_nothing_is_written() {
    let folder = Folder::new();
    let mut checkpoint = official(ClassSpace::Classes(8));
    checkpoint.remove("transformer.level_embed");
    checkpoint.insert("transformer.surprise".into(), normal(1, &[2]));
    checkpoint.insert("transformer.encoder.layers.0.norm2.bias".into(), normal(1, &[31]));
    checkpoint.insert("bbox_embed.2.layers.0.bias".into(), normal(9, &[32]));
    let path = folder.pth(&checkpoint);
    let strict = converted(&path, Form::Safetensors, &options(Some(&[1]))).unwrap();
    assert_eq!(
        problems(&strict),
        [
            "bbox_embed.2.layers.0.bias: does not fit: other values than bbox_embed.0.layers.0.bias, \
             which this program shares",
            "transformer.encoder.layers.0.norm2.bias: does not fit: \
             transformer.encoder.layers.0.norm2.bias: shape [31] in the file, [32] here",
            "transformer.surprise: does not fit: unexpected",
            "transformer.level_embed: does not fit: missing",
        ]
    );
    let output = folder.path("ours.safetensors");
    assert!(strict.write(&output).is_err() && !output.exists());

    let patterns = ["bbox_embed.2.*", "*.norm2.bias", "transformer.s*", "*.level_embed"];
    let allowing = Options {
        allow: Patterns::new(&patterns, "init.allow_missing").unwrap(),
        ..options(Some(&[1]))
    };
    let conversion = converted(&path, Form::Safetensors, &allowing).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let allowed = |line: &&Line| matches!(line.fate, Fate::Allowed(_));
    assert_eq!(conversion.report.lines.iter().filter(allowed).count(), 4);
    conversion.write(&output).unwrap();
    Detector::load(&output, Device::Cpu).unwrap();

    let heads =
        Options { config: Config::defaults(&[]).unwrap().of_detector(), ..options(Some(&[1])) };
    let error = converted(&path, Form::Safetensors, &heads).unwrap_err().to_string();
    assert!(error.contains("nheads"), "3 points of 2 heads are no 8 heads': {error}");
}

/// The encoder's class head compares with text there, and the decoder's does not.
#[test]
fn richsems_baseline_is_refused_by_name() {
    let folder = Folder::new();
    let mut checkpoint = official(ClassSpace::Classes(8));
    checkpoint.retain(|key, _| !key.starts_with("transformer.enc_out_class_embed."));
    let key = "transformer.enc_out_class_embed.dino_visual_proj.weight";
    checkpoint.insert(key.into(), normal(1, &[DIM, 32]));
    let path = folder.pth(&checkpoint);
    let error = converted(&path, Form::Safetensors, &options(Some(&[1]))).unwrap_err().to_string();
    for part in ["baseline without language", "no such detector", "`init`"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn pairs_that_make_no_sense_are_refused() {
    let folder = Folder::new();
    let path = folder.pth(&official(ClassSpace::Classes(8)));
    let error = converted(&path, Form::Pth, &options(Some(&[1]))).unwrap_err().to_string();
    assert!(error.contains(".safetensors") && error.contains("official"), "{error}");
    let table = TextTable::new(&normal(3, &[2, DIM]));
    let mut config = settings().of_detector();
    config.model.class_head = ClassHeadConfig::Text { table: None };
    let detector =
        Detector::new(&config, vocabulary(&[1, 2]), (Device::Cpu, 0), Some((&table, 4.0))).unwrap();
    let path = folder.path("ours.safetensors");
    detector.save(&path).unwrap();
    let error = converted(&path, Form::Safetensors, &options(None)).unwrap_err().to_string();
    assert!(error.contains("already"), "{error}");
    for (name, form) in
        [("a.PTH", Form::Pth), ("a.pt", Form::Pth), ("a.safetensors", Form::Safetensors)]
    {
        assert_eq!(Form::of(Path::new(name)).unwrap(), form);
    }
    assert!(
        Form::of(Path::new("weights")).unwrap_err().to_string().contains(".safetensors or .pth")
    );
}
