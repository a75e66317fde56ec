//! `richsem prepare`, and training without the teacher, as a user calls them.
#![allow(clippy::unwrap_used)]

mod util;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use util::Dir;

const TEACHER: [&str; 6] = [
    "--set",
    "teacher.text={ kind = \"table\", table = \"text.npy\" }",
    "--set",
    "semantic.weight=0.5",
    "--set",
    "data.augment.crop.probability=0",
];
const PREPARE: [&str; 9] = [
    "prepare",
    "-c",
    "tiny.toml",
    "--out",
    "labels",
    "--device",
    "cpu",
    "--set",
    "teacher.weights=clip.safetensors",
];
const TRAIN: [&str; 9] = [
    "train",
    "-c",
    "tiny.toml",
    "--run",
    "run",
    "--device",
    "cpu",
    "--set",
    "teacher.weights=clip.safetensors",
];

/// A small set, a CLIP-ResNet of random weights and a table of width 32 for 4 classes.
fn drawn() -> Dir {
    let dir = Dir::with_data();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../richsem/tests/fixtures/teacher");
    std::fs::copy(fixtures.join("rn.safetensors"), dir.path("clip.safetensors")).unwrap();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 32), }";
    let mut table = b"\x93NUMPY\x01\x00".to_vec();
    table.extend((header.len() as u16).to_le_bytes());
    table.extend(header.as_bytes());
    (0..4 * 32u16).for_each(|i| table.extend(f32::from(i * i % 23 + 1).sin().to_le_bytes()));
    dir.write("text.npy", table);
    dir
}

#[test]
fn training_reads_labels_and_never_the_teacher() {
    let dir = drawn();
    let ran = dir.command(&[&PREPARE[..], &TEACHER].concat()).ok().no_stdout();
    ran.stderr_has("train: 12 images with ")
        .stderr_has(" boxes in 2 views each: ")
        .stderr_has("1 shard made, 0 there")
        .stderr_has("--set teacher.prepared=labels");
    let files = ["prepared.json", "text.safetensors", "train/shard-00000.safetensors"];
    assert_eq!(dir.files("labels"), files);
    let again = dir.command(&[&PREPARE[..], &TEACHER].concat()).ok();
    again.stderr_has("0 shards made, 1 there");

    std::fs::remove_file(dir.path("clip.safetensors")).unwrap();
    let train = [&TRAIN[..], &TEACHER].concat();
    dir.command(&train).fails(1).stderr_has("teacher.weights: `").stderr_has("does not exist");
    let reading = [&train[..], &["--set", "teacher.prepared=labels"]].concat();
    let scales = [&reading[..], &["--set", "data.augment.scales=[96, 128]"]].concat();
    dir.command(&scales).fails(1).stderr_has("data.augment.scales: 128 was not prepared");
    let crops = [&reading[..], &["--set", "data.augment.crop.probability=0.5"]].concat();
    dir.command(&crops).fails(1).stderr_has("data.augment.crop.probability: soft labels cannot");
    assert!(!dir.exists("run"));
    let ran = dir.command(&reading).ok();
    ran.stderr_has("teacher on the first batches of detection data: top-1 ");
    assert!(dir.text("run/metrics.jsonl").contains("loss_semantic"));
}

#[test]
fn ctrl_c_keeps_whole_shards_and_says_so() {
    let dir = drawn();
    // Enough views for a signal to come in between.
    let scales: Vec<String> = (64..160).map(|side| side.to_string()).collect();
    let scales = format!("data.augment.scales=[{}]", scales.join(", "));
    let args = [&PREPARE[..], &TEACHER, &["--set", &scales]].concat();
    let mut command = dir.raw_command(&args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("train: 12 images")), "it did not begin");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.last().unwrap().starts_with("stopped: the whole shards stay in `labels`"));
    assert!(dir.files("labels").iter().all(|name| !name.contains("tmp")));
}

#[test]
fn what_cannot_be_prepared_is_refused_before_the_work() {
    let dir = drawn();
    let with = |args: &[&'static str]| [&PREPARE[..], &TEACHER, args].concat();
    let crops = with(&["--set", "data.augment.crop.probability=0.5"]);
    dir.command(&crops).fails(1).stderr_has("data.augment.crop.probability: soft labels cannot");
    let boxes = with(&["--set", "semantic.target_boxes=all"]);
    dir.command(&boxes).fails(1).stderr_has("semantic.target_boxes: soft labels cannot");
    let off = with(&["--set", "semantic.weight=0"]);
    dir.command(&off).fails(1).stderr_has("semantic: off");
    assert!(!dir.exists("labels"));
    dir.command(&["prepare", "-c", "none.toml", "-o", "l"]).fails(1).stderr_has("no such file");
    dir.command(&["prepare", "-c", "tiny.toml", "-o", "tiny.toml"]).fails(1).stderr_has("--out: ");
}
