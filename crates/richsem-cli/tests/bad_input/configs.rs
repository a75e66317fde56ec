//! Settings.

use super::{all_refused, refused, util::Dir};

#[test]
fn a_settings_file_that_is_wrong_is_named_with_the_key() {
    // Name, file, field and problem, hint.
    let cases: &[(&str, &str, &str, &str)] = &[
        (
            "unknown key",
            "version = 1\n[train]\nlr_drops = [3]",
            "train.lr_drops: unknown key",
            "hint: did you mean `lr_drop`?",
        ),
        (
            "unknown table",
            "version = 1\n[trian]\nlr = 1",
            "trian: unknown key",
            "hint: did you mean `train`?",
        ),
        (
            "nothing near",
            "version = 1\n[eval]\nzzz = 1",
            "eval.zzz: unknown key",
            "hint: known here: batch_size, max_detections",
        ),
        (
            "text for a number",
            "version = 1\n[train]\nlr = \"fast\"",
            "train.lr: expected a number, got string \"fast\"",
            "",
        ),
        (
            "below zero",
            "version = 1\n[data]\nbatch_size = -2",
            "data.batch_size: expected a whole number of at least 0, got integer `-2`",
            "",
        ),
        (
            "a number for a table",
            "version = 1\ntrain = 3",
            "train: expected a table, got integer `3`",
            "",
        ),
        (
            "zero",
            "version = 1\n[data]\nbatch_size = 0",
            "data.batch_size: expected 1 to 4096, got 0",
            "",
        ),
        (
            "out of range",
            "version = 1\n[train.ema]\ndecay = 1.5",
            "train.ema.decay: expected a number from 0 to below 1, got 1.5",
            "",
        ),
        ("not finite", "version = 1\n[train]\nlr = nan", "train.lr: expected 0 to 1, got NaN", ""),
        (
            "too many threads",
            "version = 1\n[data]\nworkers = 99999999",
            "data.workers: expected 0 to 1024, got 99999999",
            "hint: 0 takes as many",
        ),
        (
            "two settings that disagree",
            "version = 1\n[model.dino.transformer]\nnheads = 5",
            "model.dino.transformer.hidden_dim: expected a multiple of nheads (5)",
            "",
        ),
        (
            "unknown word",
            "version = 1\n[train]\nprecision = \"int8\"",
            "train.precision: expected `f32` or `bf16`, got unknown variant `int8`",
            "",
        ),
        (
            "nearly a known word",
            "version = 1\n[train]\nparam_groups = \"ddetr\"",
            "train.param_groups: expected one of `default`, `ddetr_in_mmdet`, `large_wd`, got unknown",
            "hint: did you mean `ddetr_in_mmdet`?",
        ),
        (
            "another release",
            "version = 2",
            "version: expected 1, got 2: the file is of another release",
            "hint: compare it with the files in configs/",
        ),
        (
            "no version",
            "[train]\nlr = 1e-4",
            "version: missing",
            "hint: write `version = 1` at the top",
        ),
        ("empty", "", "version: missing", "hint: write `version = 1`"),
        ("not TOML", "version = 1\n[train\nlr = 1", "line 2: ", ""),
        ("JSON", "{\"version\": 1}", "line 1: ", "hint: this looks like JSON"),
        (
            "extends nothing",
            "version = 1\nextends = \"absent.toml\"",
            "extends: there is no file `absent.toml`",
            "hint: the name is relative",
        ),
        (
            "extends itself",
            "version = 1\nextends = \"bad.toml\"",
            "extends: the file extends itself",
            "hint: take `extends` out",
        ),
        (
            "extends in a circle",
            "version = 1\nextends = \"circle.toml\"",
            "extends: the file extends itself, directly or by others",
            "hint: ",
        ),
        (
            "extends a number",
            "version = 1\nextends = 3",
            "extends: expected the name of a config file, got 3",
            "",
        ),
    ];
    let dir = Dir::new();
    dir.write("circle.toml", "extends = \"bad.toml\"");
    for (name, content, says, hint) in cases {
        dir.write("bad.toml", content);
        let train = ["train", "-c", "bad.toml", "--run", "run", "--device", "cpu"];
        let says = format!("bad.toml: {says}");
        let ran = refused(&dir, name, dir.command(&train), 1, &[&says, hint]).no_stdout();
        assert_eq!(ran.stderr.contains("\n  hint: "), !hint.is_empty(), "{name}: {ran:?}");
    }
    dir.write("bad.toml", [0xff, 0xfe, 0x00]);
    // The mistake is in the parent: it is the parent that is named.
    dir.write("parent.toml", "version = 1\n[train]\nlr = -1");
    dir.write("child.toml", "version = 1\nextends = \"parent.toml\"");
    all_refused(
        &dir,
        &[
            ("not text", &["train", "-c", "bad.toml"], &["bad.toml", "UTF-8"]),
            (
                "absent",
                &["train", "-c", "none.toml"],
                &["--config: no such file as `none.toml`", "hint: "],
            ),
            ("a folder", &["train", "-c", "."], &["--config: `.` is a folder", "hint: "]),
            (
                "in a parent",
                &["train", "-c", "child.toml"],
                &["parent.toml: train.lr: expected 0 to 1"],
            ),
        ],
    );
}

#[test]
fn an_assignment_that_is_wrong_is_told_as_one() {
    let dir = Dir::new();
    dir.write("good.toml", "version = 1");
    let set = |assignment| ["train", "-c", "good.toml", "--run", "run", "--set", assignment];
    all_refused(
        &dir,
        &[
            (
                "no value",
                &set("train.lr"),
                &["--set: expected key=value, got `train.lr`", "hint: for example"],
            ),
            ("no key", &set("=3"), &["--set: expected a dotted key, got ``", "hint: for example"]),
            (
                "two dots",
                &set("train..lr=3"),
                &["--set: expected a dotted key, got `train..lr`", "hint: "],
            ),
            (
                "unknown",
                &set("train.lrr=3"),
                &["--set: train.lrr: unknown key", "hint: did you mean `lr`?"],
            ),
            (
                "wrong type",
                &set("train.epochs=many"),
                &[
                    "--set: train.epochs: expected a whole number of at least 0, got string \"many\"",
                ],
            ),
            (
                "a table for a number",
                &set("seed.x=3"),
                &["--set: seed: expected a whole number of at least 0, got a table"],
            ),
            (
                "out of range",
                &set("train.accumulate=0"),
                &["--set: train.accumulate: expected 1 to 100000, got 0"],
            ),
            (
                "nothing to learn from",
                &set("seed=1"),
                &[
                    "data.train: missing: nothing to learn from",
                    "hint: set data.train to a file or folder",
                ],
            ),
        ],
    );
}

#[test]
fn settings_that_do_not_fit_the_data_are_refused_before_a_folder_is_made() {
    let dir = Dir::with_data();
    let npy = |shape: &str, values: usize| {
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        header.push_str(&" ".repeat(117 - header.len()));
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(std::iter::repeat_n(1.0f32.to_le_bytes(), values).flatten());
        bytes
    };
    dir.write("three.npy", npy("(3, 8)", 24));
    dir.write("flat.npy", npy("(32,)", 32));
    dir.write("short.npy", npy("(4, 8)", 5));
    dir.write("empty.npy", npy("(4, 0)", 0));
    dir.write("text.npy", "no array");
    let table = |file: &str| format!("model.class_head={{ kind = \"text\", table = \"{file}\" }}");
    let tables =
        ["three.npy", "flat.npy", "short.npy", "empty.npy", "text.npy", "none.npy"].map(table);
    let train = ["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu", "--set"];
    let set = |assignment| [&train[..], &[assignment]].concat();
    all_refused(
        &dir,
        &[
            (
                "batch larger than the set",
                &set("data.batch_size=50"),
                &["data.batch_size: 12 images do not fill one batch of 50", "hint: use at most 12"],
            ),
            (
                "more batches than an epoch has",
                &set("train.accumulate=50"),
                &[
                    "train.accumulate: expected at most the 6 batches of an epoch, got 50",
                    "hint: lower it",
                ],
            ),
            (
                "no image folder",
                &set("data.train.images=none"),
                &[
                    "data.train.images: `",
                    "none` does not exist",
                    "hint: paths of a settings file are relative",
                ],
            ),
            (
                "rows",
                &set(&tables[0]),
                &[
                    "three.npy: rows: the table has 3 rows for 4 classes",
                    "hint: give one row a class",
                ],
            ),
            (
                "one dimension",
                &set(&tables[1]),
                &["flat.npy: shape: expected shape [rows, width], got [32]"],
            ),
            (
                "too few values",
                &set(&tables[2]),
                &[
                    "short.npy: array: [4, 8] values of Float do not fill 20 bytes",
                    "hint: write it",
                ],
            ),
            (
                "no width",
                &set(&tables[3]),
                &[
                    "empty.npy: text table: expected shape [4, width], got [4, 0]",
                    "hint: give one row",
                ],
            ),
            (
                "not an array",
                &set(&tables[4]),
                &["text.npy: array: not a .npy file", "hint: write it with numpy.save"],
            ),
            (
                "no table",
                &set(&tables[5]),
                &["model.class_head.table: `", "none.npy` does not exist", "hint: "],
            ),
        ],
    );
}

#[test]
fn what_is_no_settings_file_is_refused_with_what_to_type() {
    let dir = Dir::new();
    for file in ["set.tar", "data.yaml", "set/train.json", "run/config.toml", "w.pth"] {
        dir.write(file, "");
    }
    all_refused(
        &dir,
        &[
            ("an archive", &["train", "set.tar"], &["set.tar", "hint: if", "richsem init set.tar"]),
            ("a set", &["train", "-c", "data.yaml"], &["--config: `data.yaml`", "richsem init"]),
            ("a folder", &["train", "set"], &["`set` is a folder", "`richsem init set`"]),
            ("a run", &["train", "run"], &["this is a run", "richsem train --resume run"]),
            ("weights", &["train", "w.pth"], &["richsem init DATA --weights w.pth"]),
            (
                "public weights",
                &["init", "set", "--weights", "resnet50"],
                &["--weights: no such", "$(richsem weights fetch resnet50)"],
            ),
            (
                "unknown weights",
                &["init", "set", "--weights", "none.pth"],
                &["--weights: no such", "`richsem weights` lists public ones"],
            ),
        ],
    );
}
