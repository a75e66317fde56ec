//! Run folders that are none, or damaged.

use super::{Case, all_refused, refused, util::Dir};

#[test]
fn a_folder_that_is_no_run_is_not_resumed_and_a_run_not_overwritten() {
    let dir = Dir::with_data();
    dir.write("taken/config.toml", "version = 1\n");
    let resume = |folder| ["train", "--resume", folder, "--device", "cpu"];
    let train = |folder| ["train", "-c", "tiny.toml", "--device", "cpu", "--run", folder];
    all_refused(
        &dir,
        &[
            (
                "no run",
                &resume("set"),
                &[
                    "set: config.toml: missing: this is not a run folder",
                    "hint: give the folder that `richsem train` made",
                ],
            ),
            ("absent", &resume("none"), &["none: no such folder", "hint: give the folder"]),
            (
                "a file",
                &resume("tiny.toml"),
                &["tiny.toml: config.toml: missing", "hint: give the folder"],
            ),
            ("nothing to learn from", &resume("taken"), &["data.train: missing", "hint: "]),
            (
                "taken",
                &train("taken"),
                &[
                    "taken: the run folder is not empty",
                    "hint: continue that run with --resume taken",
                ],
            ),
            ("a set", &train("set"), &["set: the run folder is not empty", "hint: "]),
        ],
    );
    let with_set = dir.command(&["train", "--resume", "taken", "--set", "seed=1"]);
    refused(&dir, "other settings", with_set, 2, &["--set cannot be used with --resume", "hint: "]);
}

#[test]
fn a_run_that_is_damaged_is_left_as_it_is_and_the_damage_named() {
    let dir = Dir::with_run();
    let truncated = |file: &str| {
        let bytes = dir.read(file);
        bytes[..bytes.len() / 2].to_vec()
    };
    let last = |file: &str| format!("run/checkpoints/last/{file}");
    let (state, training) = (last("state.json"), last("training.safetensors"));
    let last_settings = last("config.toml");
    let damaged = "hint: the checkpoint is damaged: point `last` to another one";
    let edit = |file: &str, old: &str, new: &str| {
        let text = dir.text(file);
        assert!(text.contains(old), "{text}");
        text.replacen(old, new, 1).into_bytes()
    };
    let mut other_boxes = dir.json("set/train.json");
    let first = &mut other_boxes["annotations"][0]["bbox"];
    first[2] = (first[2].as_f64().unwrap() - 1.0).into();
    let other_boxes = other_boxes.to_string().into_bytes();
    // Name, file, content, field and problem, hint.
    let cases: Vec<(&str, &str, Vec<u8>, &str, &str)> = vec![
        ("state cut off", &state, truncated(&state), "state.json: state: EOF", damaged),
        ("state empty", &state, vec![], "state.json: state: EOF", damaged),
        (
            "state of another version",
            &state,
            edit(&state, "\"version\": 1", "\"version\": 9"),
            "state.json: version: expected 1, got 9",
            "hint: resume with the release",
        ),
        (
            "state without a field",
            &state,
            edit(&state, "\"updates\": 6,", ""),
            "state.json: state: missing field `updates`",
            damaged,
        ),
        (
            "training cut off",
            &training,
            truncated(&training),
            "training.safetensors: header: not a safetensors file",
            damaged,
        ),
        (
            "training of another program",
            &training,
            b"\x02\0\0\0\0\0\0\0{}".to_vec(),
            "training.safetensors: layout: the record of the parameters is damaged",
            "hint: resume with the release and the settings",
        ),
        (
            "another size",
            "run/config.toml",
            edit("run/config.toml", "hidden_dim = 32", "hidden_dim = 64"),
            "run/config.toml: model.dino.transformer.hidden_dim: it was 32 until the checkpoint and is 64 now",
            "hint: put it back, or begin a new run",
        ),
        (
            "the checkpoint's settings cut off",
            &last_settings,
            truncated(&last_settings),
            "checkpoints/last/config.toml: ",
            damaged,
        ),
        (
            "the checkpoint's settings empty",
            &last_settings,
            vec![],
            "checkpoints/last/config.toml: version: missing",
            damaged,
        ),
        (
            "another place in the data",
            "run/config.toml",
            edit(
                "run/config.toml",
                "[data]\nweight = 1\nbatch_size = 2",
                "[data]\nweight = 1\nbatch_size = 1",
            ),
            "run/config.toml: data.batch_size: it was 2 until the checkpoint and is 1 now: the run's place",
            "hint: put it back",
        ),
        (
            "a setting of another version",
            "run/config.toml",
            edit("run/config.toml", "[train]", "[train]\nspeed = 3"),
            "run/config.toml: train.speed: unknown key",
            "hint: ",
        ),
        (
            "metrics",
            "run/metrics.jsonl",
            b"{\"kind\": \"train\"}\n".to_vec(),
            "run/metrics.jsonl: line 1: ",
            "hint: the file was edited or damaged",
        ),
        (
            "vocabulary",
            "run/vocabulary.json",
            b"[".to_vec(),
            "run/vocabulary.json: vocabulary: ",
            "",
        ),
        ("data", "run/data.json", b"[".to_vec(), "run/data.json: data: ", ""),
        (
            "other boxes",
            "set/train.json",
            other_boxes,
            "run/data.json: data: the run was started with 12 images and ",
            "hint: put what it was trained with back",
        ),
        (
            "other classes",
            "set/train.json",
            dir.text("set/train.json").replace("\"name\":\"", "\"name\":\"other ").into_bytes(),
            "",
            "hint: ",
        ),
    ];
    let resume: &[&str] = &["train", "--resume", "run", "--device", "cpu"];
    for (name, file, content, says, hint) in &cases {
        let before = dir.read(file);
        dir.write(file, content);
        let case: Case = (name, resume, &[says, hint]);
        all_refused(&dir, &[case]);
        dir.write(file, before);
    }
    std::fs::remove_file(dir.path(&training)).unwrap();
    all_refused(&dir, &[("no training state", resume, &["last/training.safetensors"])]);
    std::fs::remove_dir_all(dir.path("run/checkpoints/step-000000006")).unwrap();
    let says: &[&str] =
        &["run/checkpoints/last: link: points to `step-000000006`, which is missing", damaged];
    all_refused(&dir, &[("no checkpoint", resume, says)]);
}
