//! Other programs' weights: files that are none, or of something else, for `convert` and
//! `train --init`; results that would take an input's place.

use std::collections::BTreeMap;

use richsem::{
    checkpoint_io::{pth, safetensors},
    testing::normal,
};
use tch::{Kind, Tensor};

use super::{
    Case, all_refused, refused,
    util::{Dir, TINY_CONFIG},
};

type Tensors = BTreeMap<String, Tensor>;

/// A small CLIP of 42 tokens and embeddings of 32 numbers.
const CLIP: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../richsem/tests/fixtures/teacher/rn.safetensors");
const TRAIN: [&str; 7] = ["train", "-c", "frozen.toml", "--run", "next", "--device", "cpu"];

/// With settings in `frozen.toml` that have the one norm that the official code knows.
fn with_frozen_norm() -> Dir {
    let dir = Dir::with_data();
    let norm = r#"norm = "group_norm", groups = 4"#;
    dir.write("frozen.toml", TINY_CONFIG.replace(norm, r#"norm = "frozen_bn""#));
    dir
}

/// With a run in `run/`, and its detector as an official checkpoint, `official.pth`.
fn converted() -> Dir {
    let dir = with_frozen_norm();
    dir.command(&["train", "-c", "frozen.toml", "--run", "run", "--device", "cpu"]).ok();
    dir.command(&["convert", "run", "official.pth"]).ok();
    dir
}

fn write(dir: &Dir, name: &str, tensors: &Tensors) {
    safetensors::write(&dir.path(name), tensors, &safetensors::Metadata::new()).unwrap();
}

/// `convert` of an official checkpoint.
fn to_detector<'a>(input: &'a str, output: &'a str) -> Vec<&'a str> {
    let heads = ["--annotations", "set/val.json", "--set", "model.dino.transformer.nheads=2"];
    [&["convert", input, output, "--device", "cpu"][..], &heads].concat()
}

/// The arguments of a training that starts from weights (`train --init`).
fn start_from<'a>(weights: &'a str, setting: &'a str) -> Vec<&'a str> {
    [&TRAIN[..], &["--init", weights, "--set", setting]].concat()
}

#[test]
fn files_that_are_no_weights_are_named_whoever_reads_them() {
    let dir = converted();
    let whole = dir.read("official.pth");
    dir.write("empty.pth", "");
    dir.write("cut.pth", &whole[..whole.len() / 2]);
    dir.write("short.pth", &whole[..whole.len() - 9]);
    dir.write("words.txt", "weights of a detector\n".repeat(30));
    std::fs::create_dir(dir.path("a_folder")).unwrap();
    let other = "weights: neither safetensors nor a PyTorch file (.pt, .pth)";
    let cut = ["zip: not a whole zip archive", "hint: the file is damaged or was cut off"];
    for (file, says) in [
        ("empty.pth", ["weights: the file is empty", "hint: fetch it again"]),
        ("cut.pth", cut),
        ("short.pth", cut),
        ("words.txt", [other, "hint: the file is truncated, or of another kind"]),
        ("set/val.json", [other, "hint: "]),
        ("set/images/val/000001.jpg", [other, "hint: "]),
        (
            "a_folder",
            [
                "a_folder: weights: the folder holds neither model.safetensors nor checkpoints",
                "hint: give a .safetens",
            ],
        ),
    ] {
        let says: &[&str] = &[file, says[0], says[1]];
        let cases: [Case; 3] = [
            (file, &to_detector(file, "out.safetensors"), says),
            (file, &start_from(file, "seed=1"), says),
            // Going back, what was left over may come from a .pth, too.
            (file, &["convert", "run", "out.pth", "--rest", file], &[file, "hint: "]),
        ];
        all_refused(&dir, &cases);
    }
    let predict =
        ["predict", "set/images/val", "--device", "cpu", "-o", "out", "--weights", "official.pth"];
    let says: &[&str] =
        &["official.pth: header: not a safetensors file: PyTorch's", "richsem conver"];
    all_refused(&dir, &[("official weights as a detector", &predict, says)]);
}

#[test]
fn weights_of_something_else_are_told_from_a_detectors() {
    let dir = converted();
    let (detector, _) =
        safetensors::read(&dir.path("run/checkpoints/last/model.safetensors")).unwrap();
    let copy = |tensors: &Tensors| -> Tensors {
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
    };
    let backbone: Tensors = detector
        .iter()
        .filter_map(|(name, tensor)| {
            Some((name.strip_prefix("backbone.0.body.")?.to_owned(), tensor.shallow_clone()))
        })
        .collect();
    write(&dir, "backbone.safetensors", &backbone);
    let with = |tensors: &Tensors, name: &str, value: Tensor| {
        let mut changed = copy(tensors);
        changed.insert(name.to_owned(), value);
        changed
    };
    let first = "layer1.0.conv1.weight";
    let none = Tensor::zeros([0, 8, 3, 3], (Kind::Float, tch::Device::Cpu));
    write(&dir, "no_channels.safetensors", &with(&backbone, first, none));
    write(&dir, "vector.safetensors", &with(&backbone, "conv1.weight", normal(1, &[1176])));
    let nan = |name: &str| &detector[name] * f64::NAN;
    let level = "transformer.level_embed";
    write(&dir, "nan.safetensors", &with(&detector, level, nan(level)));
    let conv = "conv1.weight";
    write(
        &dir,
        "nan_backbone.safetensors",
        &with(&backbone, conv, &backbone[conv] * f64::INFINITY),
    );
    let broken = ["holds NaN or infinite values", "hint: the file is damaged, or its training had"];
    let backbone_of = |weights: &str| format!("model.dino.backbone.weights={weights}");
    let backbone_from = backbone_of("nan_backbone.safetensors");
    all_refused(
        &dir,
        &[
            (
                "CLIP as a detector",
                &start_from(CLIP, "seed=1"),
                &[
                    "rn.safetensors: weights: CLIP, expected a detector",
                    "hint: ",
                    "teacher.weights",
                ],
            ),
            (
                "a backbone as a detector",
                &start_from("backbone.safetensors", "seed=1"),
                &[
                    "backbone.safetensors: weights: a ResNet, expected a detector",
                    "backbone.weights",
                ],
            ),
            (
                "another hidden size",
                &start_from("official.pth", "model.dino.transformer.hidden_dim=64"),
                &[
                    "official.pth: weights: ",
                    "transformer.level_embed: shape [2, 32] in the file, [2, 64] here",
                    "hint: [model] must be as it was",
                ],
            ),
            (
                "a value that is no number",
                &to_detector("nan.safetensors", "out.safetensors"),
                &["nan.safetensors: transformer.level_embed: ", broken[0], broken[1]],
            ),
            (
                "the same, to start from",
                &start_from("nan.safetensors", "seed=1"),
                &["nan.safetensors: transformer.level_embed: ", broken[0], broken[1]],
            ),
            (
                "a backbone that is infinite",
                &["convert", "nan_backbone.safetensors", "out.safetensors"],
                &["nan_backbone.safetensors: conv1.weight: ", broken[0], broken[1]],
            ),
            (
                "the same, to start from",
                &[&TRAIN[..], &["--set", &backbone_from]].concat(),
                &["nan_backbone.safetensors: backbone.0.body.conv1.weight: ", broken[0], broken[1]],
            ),
            (
                "a backbone without channels",
                &["convert", "no_channels.safetensors", "out.safetensors"],
                &[
                    "no_channels.safetensors: weights: no sizes of a ResNet follow from them: \
                     backbone.width: expected",
                    "hint: the file is damaged",
                ],
            ),
            (
                "a convolution that is a vector",
                &["convert", "vector.safetensors", "out.safetensors"],
                &[
                    "conv1.weight: shape [1176] in the file, [8, 3, 7, 7] here",
                    "nothing is written",
                ],
            ),
            (
                "CLIP for a detector that has none",
                &["convert", "run", "out.pth", "--clip", CLIP],
                &["--clip: this detector's class head is linear", "hint: leave it out"],
            ),
            (
                "a backbone as what was left over",
                &["convert", "run", "out.pth", "--rest", "backbone.safetensors"],
                &["unexpected, in the file of --rest", "more (--list)", "nothing is written"],
            ),
            (
                "heads that do not share out evenly",
                &to_detector("official.pth", "out.safetensors")
                    .into_iter()
                    .map(|word| word.trim_end_matches("nheads=2"))
                    .map(|word| match word {
                        "model.dino.transformer." => "model.dino.transformer.nheads=0",
                        word => word,
                    })
                    .collect::<Vec<_>>(),
                &["--set: model.dino.transformer.nheads: expected 1 to 256"],
            ),
        ],
    );
}

/// The copies of CLIP in an official checkpoint are what its text table is computed with.
#[test]
fn only_a_whole_clip_of_the_texts_width_goes_into_a_checkpoint() {
    let dir = with_frozen_norm();
    let table = Tensors::from([("rows".to_owned(), normal(2, &[4, 24]))]);
    write(&dir, "text.safetensors", &table);
    let text = r#"model.class_head={ kind = "text", table = "text.safetensors" }"#;
    dir.command(&[&TRAIN[..], &["--set", text]].concat()).ok();
    let mut clip = safetensors::read(CLIP.as_ref()).unwrap().0;
    let first = &clip["visual.conv1.weight"] * f64::NAN;
    clip.insert("visual.conv1.weight".into(), first);
    write(&dir, "nan.safetensors", &clip);
    let with = |clip| ["convert", "next", "out.pth", "--clip", clip];
    all_refused(
        &dir,
        &[
            (
                "a table",
                &with("text.safetensors"),
                &["text.safetensors: weights: ", "of CLIP, with"],
            ),
            (
                "a value that is no number",
                &with("nan.safetensors"),
                &["visual.conv1.weight: holds"],
            ),
            (
                "another width",
                &with(CLIP),
                &["rn.safetensors: weights: embeddings of 32 numbers", "text of 24", "hint: give"],
            ),
        ],
    );
    // One of other tokens makes no text table.
    dir.command(&["convert", "next", "slim.pth"]).ok();
    let back = [&to_detector("slim.pth", "out.safetensors")[..], &["--clip", CLIP]].concat();
    let says: &[&str] = &["rn.safetensors: text: expected a text encoder of CLIP's 49408 tokens"];
    all_refused(&dir, &[("other tokens", &back, says)]);
}

#[test]
fn no_result_takes_the_place_of_what_it_is_made_from() {
    let dir = converted();
    let backbone = Tensors::from([("x".to_owned(), normal(1, &[2]))]);
    write(&dir, "batch.safetensors", &backbone);
    let rest =
        |file| [&to_detector("official.pth", "out.safetensors")[..], &["--rest", file]].concat();
    let model = "run/checkpoints/best/model.safetensors";
    let raw = |words: &[&'static str], file| {
        [&["predict", "--device", "cpu", "--weights", "run", "--raw", file][..], words].concat()
    };
    let eval = ["eval", "--annotations", "set/val.json", "--detections", "set/train.json"];
    // Another way to the same file.
    std::os::unix::fs::symlink("official.pth", dir.path("link.safetensors")).unwrap();
    let over = "which would be overwritten\n  hint: give another name";
    all_refused(
        &dir,
        &[
            (
                "OUT is IN",
                &["convert", "official.pth", "official.pth"],
                &["`official.pth` is the file of the input, ", over],
            ),
            (
                "OUT is IN by a link",
                &to_detector("official.pth", "link.safetensors"),
                &["`link.safetensors` is the file of the input, ", over],
            ),
            (
                "--rest is IN",
                &rest("official.pth"),
                &["--rest: `official.pth` is the file of the input", over],
            ),
            (
                "--rest is the classes",
                &rest("set/val.json"),
                &["--rest: ", "of --annotations, ", over],
            ),
            ("--raw is the detector", &raw(&["set/images/val"], model), &["of --weights, ", over]),
            (
                "--raw is an image",
                &raw(&["set/images/val"], "set/images/val/000001.jpg"),
                &["--raw: ", "of an image, ", over],
            ),
            (
                "--raw is the batch",
                &raw(&["--tensor", "batch.safetensors"], "batch.safetensors"),
                &["--raw: ", "of --tensor, ", over],
            ),
            (
                "--raw of a batch is the detector",
                &raw(&["--tensor", "batch.safetensors"], model),
                &["--raw: ", "of --weights, ", over],
            ),
            (
                "--json is the annotations",
                &[&eval[..], &["--json", "set/val.json"]].concat(),
                &["--json: ", "of --annotations, ", over],
            ),
            (
                "--save-json is the detections",
                &[&eval[..], &["--json", "set/train.json"]].concat(),
                &["--json: ", "of --detections, ", over],
            ),
        ],
    );
}

#[test]
fn a_converted_file_is_whole_or_not_there() {
    let dir = converted();
    let limit = "hint: raise the limit on the size of files";
    for (name, words) in [
        ("a detector", to_detector("official.pth", "out.safetensors")),
        ("a checkpoint", vec!["convert", "run", "out.pth"]),
    ] {
        let command = dir.command(&words).with_file_limit(1000);
        refused(&dir, name, command, 1, &["could not write `out.", limit]);
    }
    let full = "hint: the disk is full";
    for (name, words) in [
        ("a detector", to_detector("official.pth", "full.safetensors")),
        ("a checkpoint", vec!["convert", "run", "full.pth"]),
    ] {
        // A device is written to as it is.
        std::os::unix::fs::symlink("/dev/full", dir.path(words[2])).unwrap();
        refused(&dir, name, dir.command(&words), 1, &["could not write `full.", full]);
    }
    let _ = pth::read(&dir.path("official.pth")).unwrap();
}
