//! `richsem convert`, and `richsem train --init`.
#![allow(clippy::unwrap_used)]

mod util;

use std::collections::BTreeMap;

use richsem::{
    checkpoint_io::{pth, safetensors},
    convert::dino::keys::{Layout, Variant},
    testing::{normal, small_run, write_small_set},
};
use tch::Tensor;
use util::Dir;

type Tensors = BTreeMap<String, Tensor>;

/// A folder with a set, settings, and a run of one epoch.
fn trained() -> Dir {
    let dir = Dir::new();
    write_small_set(&dir.path("set")).unwrap();
    let text = small_run(&dir.path("set"), "epochs = 1\nlr_drop = []\n");
    dir.write("small.toml", text.replace("\"batch_norm\"", "\"frozen_bn\""));
    dir.command(&["train", "-c", "small.toml", "--run", "run", "--device", "cpu"]).ok();
    dir
}

fn weights(dir: &Dir, name: &str) -> Tensors {
    safetensors::read(&dir.path(name)).unwrap().0
}

const MODEL: &str = "run/checkpoints/last/model.safetensors";

/// The line of `richsem info` about padding.
fn ran_with_padding(dir: &Dir, command: &[&str]) -> String {
    let ran = dir.command(command).ok();
    let line = ran.stdout.lines().find(|line| line.starts_with("padding"));
    line.unwrap_or_else(|| panic!("no padding in: {ran:?}")).to_owned()
}

#[test]
fn a_run_becomes_an_official_checkpoint_and_a_detector_again() {
    let dir = trained();
    let ran = dir.command(&["convert", "run", "official.pth"]).ok();
    for part in
        ["a detector of this program → a checkpoint of DINO", "label_enc", "num_classes = 5"]
    {
        assert!(ran.stdout.contains(part), "{ran:?}");
    }
    let official = pth::read(&dir.path("official.pth")).unwrap();
    let ours = weights(&dir, MODEL);
    let layout = Layout { variant: Variant::Dino, decoder_layers: 2 };
    for (path, tensor) in &ours {
        for key in layout.keys_of(path) {
            let value = &official[&key];
            // Rows of the heads are category ids from 1 here.
            let rows = value.size().first() > tensor.size().first();
            let value = if rows { value.narrow(0, 1, 4) } else { value.shallow_clone() };
            assert_eq!(&value, tensor, "{key}");
        }
    }
    let back = ["convert", "official.pth", "back.safetensors", "--annotations", "set/val.json"];
    let heads = ["--set", "model.dino.transformer.nheads=2", "--device", "cpu", "--list"];
    let ran = dir.command(&[&back[..], &heads].concat()).ok();
    assert!(ran.stdout.contains("transformer.level_embed"), "{ran:?}");
    assert!(ran.stdout.contains("4 of 5 rows"), "{ran:?}");
    assert_eq!(weights(&dir, "back.safetensors"), ours);
    // With the settings of the run instead, it is told nothing else.
    let config =
        ["convert", "official.pth", "with.safetensors", "-c", "small.toml", "--device", "cpu"];
    dir.command(&config).ok();
    assert_eq!(weights(&dir, "with.safetensors"), ours);
    // What padding changes is told, and goes with the weights.
    assert!(ran_with_padding(&dir, &["info", "run"]).contains("masked"));
    for file in ["official.pth", "back.safetensors"] {
        assert!(ran_with_padding(&dir, &["info", file]).contains("official"), "{file}");
    }
    for (init, more, expected) in [
        ("official.pth", None, "padding official"),
        ("back.safetensors", None, "padding official"),
        ("back.safetensors", Some("model.dino.padding=masked"), "padding masked"),
        ("run/checkpoints/last/model.safetensors", None, "padding masked"),
    ] {
        let run = format!("{}-{}", init.replace('/', "-"), more.is_some());
        let start = ["train", "-c", "small.toml", "--init", init, "--run", &run, "--device", "cpu"];
        let set = more.map_or(vec![], |more| vec!["--set", more]);
        dir.command(&[&start[..], &set].concat()).ok().stderr_has(expected);
    }
    // What other verbs read.
    let eval = [
        "eval",
        "--weights",
        "with.safetensors",
        "--annotations",
        "set/val.json",
        "--images",
        "set/images",
        "--device",
        "cpu",
    ];
    let original: Vec<&str> =
        eval.iter().map(|w| if *w == "with.safetensors" { "run" } else { w }).collect();
    assert_eq!(dir.command(&eval).ok().stdout, dir.command(&original).ok().stdout);
}

#[test]
fn what_does_not_fit_is_listed_and_nothing_is_written() {
    let dir = trained();
    dir.command(&["convert", "run", "official.pth"]).ok();
    let mut official = pth::read(&dir.path("official.pth")).unwrap();
    official.remove("transformer.tgt_embed.weight");
    official.insert("mystery.weight".into(), normal(1, &[3]));
    pth::write(&dir.path("official.pth"), Some("model"), &official).unwrap();
    let words = ["convert", "official.pth", "o.safetensors", "-c", "small.toml", "--device", "cpu"];
    let ran = dir.command(&words).fails(1);
    for part in [
        "2 tensors do not fit",
        "mystery.weight: does not fit: unexpected",
        "tgt_embed.weight: does not fit: missing",
        "--allow-missing",
    ] {
        assert!(ran.stderr.contains(part), "{ran:?}");
    }
    assert!(ran.stdout.contains("DOES NOT FIT"), "{ran:?}");
    assert!(!dir.exists("o.safetensors"));
    let allow = ["--allow-missing", "mystery.*", "--allow-missing", "*.tgt_embed.*"];
    dir.command(&[&words[..], &allow].concat()).ok();
    assert!(dir.exists("o.safetensors"));
    for (words, part) in [
        (&["convert", "absent.pth", "o.safetensors"][..], "no such file"),
        (&["convert", "official.pth", "o.bin"], ".safetensors or .pth"),
        (&["convert", "official.pth", "o.safetensors"], "--annotations"),
        (&["convert", "small.toml", "o.safetensors"], "neither safetensors nor a PyTorch file"),
        (&["convert", "run", "o.pth", "--clip", "official.pth"], "--clip"),
        (&["convert", "run", "o.pth", "--rest", "absent"], "--rest: no such file"),
        (&["convert", "official.pth", "no/o.safetensors"], "does not exist"),
        (&["convert", "official.pth", "o.safetensors", "--key", "ema"], "ema"),
        (&["convert", "official.pth", "o.safetensors", "--allow-missing", "[a"], "no pattern"),
    ] {
        dir.command(words).fails(1).stderr_has(part);
    }
}

#[test]
fn a_run_starts_from_weights_by_flag() {
    let dir = trained();
    let run = ["train", "-c", "small.toml", "--init", "run", "--run", "next", "--device", "cpu"];
    let ran = dir
        .command(&[&run[..], &["--set", "train.lr=0", "--set", "train.lr_backbone=0"]].concat())
        .ok();
    assert!(
        ran.stderr.contains("weights from") && ran.stderr.contains("run/checkpoints/best/"),
        "{ran:?}"
    );
    assert_eq!(weights(&dir, "next/checkpoints/last/model.safetensors"), weights(&dir, MODEL));
    assert!(dir.text("next/config.toml").contains("[init]"));
    // Going on needs no flag, and takes none.
    dir.command(&["train", "--resume", "next", "--device", "cpu"]).ok();
    let words = ["train", "--resume", "next", "--init", "run"];
    dir.command(&words).fails(2).stderr_has("--init cannot be used with --resume");
    let words = ["train", "-c", "small.toml", "--allow-missing", "class_embed.*"];
    dir.command(&words).fails(1).stderr_has("init");
    let words = ["train", "-c", "small.toml", "--init", "nowhere.pth"];
    dir.command(&words).fails(1).stderr_has("--init: no such file or folder");
}
