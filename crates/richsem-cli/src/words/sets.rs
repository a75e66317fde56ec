//! Words for the verbs of sets: `init`, `doctor` and those of `dataset`.

use super::habits::{
    Answer::{Argument, Flag, Says},
    Habit,
};

const fn habit(
    verbs: &'static [&'static str],
    words: &'static [&'static str],
    answer: super::habits::Answer,
) -> Habit {
    Habit { words, verbs, answer }
}

const INIT: &[&str] = &["init"];
const SPLIT: &[&str] = &["dataset split"];
const CONVERT: &[&str] = &["dataset convert"];
const ALL: &[&str] =
    &["init", "doctor", "dataset stats", "dataset show", "dataset convert", "dataset split"];

pub(super) const FLAGS: &[Habit] = &[
    habit(
        ALL,
        &[
            "data",
            "dataset",
            "data-dir",
            "dataset-dir",
            "data-path",
            "coco-path",
            "input",
            "source",
        ],
        Argument,
    ),
    habit(ALL, &["ann", "ann-file", "annotations", "train"], Argument),
    habit(
        &["init", "doctor", "dataset show", "dataset convert", "dataset split"],
        &["img-dir", "image-dir", "images-dir", "image-folder", "img-prefix"],
        Flag("--images"),
    ),
    habit(
        INIT,
        &["epochs", "max-epochs", "num-epochs", "steps"],
        Says(
            "init finds the epochs; less time is --minutes N, other epochs richsem train -c mine.toml --epochs N",
        ),
    ),
    habit(
        INIT,
        &[
            "batch",
            "batch-size",
            "bs",
            "imgsz",
            "img-size",
            "img",
            "resolution",
            "lr",
            "lr0",
            "optimizer",
        ],
        Says(
            "init finds it, and writes why; change it in the file, or in richsem train -c mine.toml --batch N",
        ),
    ),
    habit(
        INIT,
        &["model", "init", "pretrained", "backbone", "checkpoint", "ckpt", "load-from"],
        Flag("--weights"),
    ),
    habit(INIT, &["config", "cfg", "out", "save"], Flag("--output")),
    habit(
        INIT,
        &["preset"],
        Says(
            "init chooses a preset by the machine and --weights; without it: richsem train --preset list",
        ),
    ),
    habit(&["doctor"], &["report", "output", "out"], Flag("--html")),
    habit(&["doctor"], &["model", "checkpoint", "ckpt"], Flag("--weights")),
    habit(
        SPLIT,
        &[
            "val",
            "train-size",
            "val-size",
            "val-split",
            "test-split",
            "train-split",
            "test-size",
            "val-ratio",
            "train-ratio",
            "ratio",
            "ratios",
            "split-ratio",
            "test",
            "fraction",
        ],
        Says("shares are given by the parts' names: --parts train=0.8,val=0.2"),
    ),
    habit(SPLIT, &["random-state", "random-seed"], Flag("--seed")),
    habit(
        CONVERT,
        &["from", "source-format", "input-format", "in-format", "src-format"],
        Flag("--format"),
    ),
    habit(
        CONVERT,
        &["output-format", "out-format", "target-format", "dst-format", "target", "into"],
        Flag("--to"),
    ),
    habit(
        &["dataset show", "dataset convert", "dataset split"],
        &["output", "out", "output-dir", "out-dir", "save-dir", "dst"],
        Says(
            "the folder to write to has no flag, it is the last name: richsem dataset VERB IN OUT",
        ),
    ),
];

/// Verbs below a verb that has some.
pub(super) const INNER: &[(&str, &[&str], &str)] = &[
    (
        "dataset",
        &["check", "validate", "verify", "lint", "health", "doctor", "clean", "dedupe", "audit"],
        "faults of a set are found by `doctor`: richsem doctor DATA",
    ),
    (
        "dataset",
        &["visualize", "visualise", "view", "draw", "browse", "plot", "inspect"],
        "it is `dataset show`: richsem dataset show DATA looks",
    ),
    (
        "dataset",
        &["info", "summary", "describe", "analyze", "analyse", "count", "classes"],
        "it is `dataset stats`: richsem dataset stats DATA",
    ),
    (
        "dataset",
        &["merge", "combine", "join", "concat", "rename", "remap", "filter", "subset"],
        "it is not there: change the file of annotations (`richsem dataset convert IN OUT --to coco` writes one)",
    ),
    (
        "dataset",
        &["export", "import", "to-coco", "to-yolo", "coco2yolo", "yolo2coco", "voc2coco"],
        "it is `dataset convert`: richsem dataset convert IN OUT --to yolo",
    ),
    (
        "dataset",
        &["partition", "divide", "train-test-split", "kfold"],
        "it is `dataset split`: richsem dataset split IN OUT",
    ),
    (
        "dataset",
        &["download", "fetch", "list", "get"],
        "sets are not fetched: name a file or folder that is here (richsem synth shapes draws a small one)",
    ),
    (
        "weights",
        &["list", "ls", "show", "all", "search"],
        "they are listed by `richsem weights` alone",
    ),
    (
        "weights",
        &["convert", "export", "import"],
        "weights are converted by `convert`: richsem convert IN OUT",
    ),
    (
        "weights",
        &["info", "inspect", "verify", "check"],
        "what a file of weights holds is shown by `info`: richsem info FILE",
    ),
    (
        "weights",
        &["download", "get", "pull", "install"],
        "it is `weights fetch`: richsem weights fetch resnet50-v2",
    ),
];
