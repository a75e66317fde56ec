//! `richsem pretrain-teacher`, as a user calls it.
#![allow(clippy::unwrap_used)]

mod util;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use util::{Dir, SMALL_SYNTH};

const SMALL: [&str; 20] = [
    "pretrain-teacher",
    "set/captions.jsonl",
    "--device",
    "cpu",
    "--set",
    "data.sides=[32]",
    "--set",
    "data.batch_size=16",
    "--set",
    "model.resolution=32",
    "--set",
    "model.width=4",
    "--set",
    "model.text_width=8",
    "--set",
    "model.text_layers=1",
    "--set",
    "train.log_every=2",
    "-o",
    "teacher.safetensors",
];

fn drawn() -> Dir {
    let dir = Dir::new();
    let args = ["--captioned-images", "40", "--classification-size", "48"];
    dir.command(&[&SMALL_SYNTH[..], &args].concat()).ok();
    dir
}

#[test]
fn a_teacher_is_written_the_same_each_time_and_labels_a_detectors_boxes() {
    let dir = drawn();
    let args = [&SMALL[..], &["--set", "train.steps=4"]].concat();
    let ran = dir.command(&args).ok().stdout_has("held-out images: top-1 ");
    let ran = ran.stderr_has("40 images with ").stderr_has("2 held out to evaluate on");
    ran.stderr_has("step 4/4  loss ").stderr_has("metrics: teacher.metrics.jsonl");
    let weights = dir.read("teacher.safetensors");
    assert_eq!(dir.text("teacher.metrics.jsonl").lines().count(), 3);
    dir.command(&args).ok();
    assert!(weights == dir.read("teacher.safetensors"), "the same seed, other weights");

    dir.write("tiny.toml", util::TINY_CONFIG);
    let teacher = [
        "--set",
        "teacher.weights=teacher.safetensors",
        "--set",
        "teacher.text={kind = \"prompts\", set = \"single\"}",
        "--set",
        "semantic.weight=0.5",
    ];
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"];
    let cache = dir.path("cache").to_string_lossy().into_owned();
    let ran = dir.command(&[&train[..], &teacher].concat()).env("XDG_CACHE_HOME", &cache).ok();
    ran.stderr_has("teacher on the first batches of detection data: top-1 ");
}

#[test]
fn what_cannot_be_is_refused_before_the_work() {
    let dir = drawn();
    let with = |args: &[&'static str]| [&SMALL[..], args].concat();
    dir.command(&with(&["--images", "none"])).fails(1).stderr_has("--images: no such folder");
    dir.command(&with(&["-c", "none.toml"])).fails(1).stderr_has("--config: no such file");
    dir.command(&with(&["--set", "train.step=1"])).fails(1).stderr_has("did you mean `steps`?");
    let place = ["pretrain-teacher", "set/captions.jsonl", "-o", "none/t.safetensors"];
    dir.command(&place).fails(1).stderr_has("--output: the folder `none` does not exist");
    let captions = ["pretrain-teacher", "none.jsonl", "-o", "t.safetensors"];
    dir.command(&captions).fails(1).stderr_has("error: no such file as `none.jsonl`");
    dir.write("set/captions.jsonl", "{\"image\": \"captioned/000001.jpg\"}\n");
    let ran = dir.command(&SMALL).fails(1).no_stdout();
    ran.stderr_has("set/captions.jsonl: line 1: missing field `caption`")
        .stderr_has("hint: a line is");
    assert!(!dir.exists("teacher.safetensors"));
}

#[test]
fn ctrl_c_leaves_everything_as_it_was() {
    let dir = drawn();
    dir.write("teacher.safetensors", "earlier weights");
    let before = dir.files("");
    let mut command = dir.raw_command(&[&SMALL[..], &["--set", "train.steps=1000000"]].concat());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("step 2/")), "it did not begin");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(rest.last().unwrap(), "stopped: `teacher.safetensors` is as it was");
    assert_eq!(dir.files(""), before);
    assert_eq!(dir.text("teacher.safetensors"), "earlier weights");
}
