//! Words, settings and places, before any work.

use super::util::Dir;

#[test]
fn help_shows_every_verb_in_its_group_and_the_exit_codes() {
    let dir = Dir::new();
    let help = dir.command(&["--help"]).ok();
    let groups = [
        "Detectors:",
        "Teachers:",
        "Data:",
        "This machine and this program:",
        "Examples:",
        "Options:",
        "Exit codes:",
    ];
    let places: Vec<usize> = groups.iter().map(|g| help.stdout.find(g).expect(g)).collect();
    assert!(places.is_sorted(), "{help:?}");
    for verb in [
        "init",
        "train",
        "weights",
        "study",
        "eval",
        "predict",
        "report",
        "convert",
        "pretrain-teacher",
        "prepare",
        "synth",
        "dataset",
        "checks",
        "bench",
        "settings",
        "completions",
    ] {
        assert!(help.row(verb).len() > 3, "{help:?}");
        dir.command(&[verb, "--help"]).ok().stdout_has("Example").stdout_has("Usage: richsem");
    }
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let dir = Dir::new();
    dir.command(&["trian"]).fails(2).stderr_has("trian").stderr_has("train").no_stdout();
    dir.command(&["train"]).fails(2).stderr_has("richsem init DATA").stderr_has("--config");
    dir.command(&["train", "--data", "d"]).fails(2).stderr_has("richsem init d").no_stdout();
    dir.command(&["train", "none.toml"]).fails(1).stderr_has("none.toml");
    dir.command(&["train", "-c", "a.toml", "--device", "gpu"]).fails(2).stderr_has("cuda:N");
    dir.command(&["predict", "a.jpg", "--weights", "w", "--conf", "1.5"])
        .fails(2)
        .stderr_has("0 to 1");
    dir.command(&["eval", "--annotations", "a.json"]).fails(2).stderr_has("--detections");
    dir.command(&[
        "eval",
        "--annotations",
        "a",
        "--detections",
        "d",
        "--weights",
        "w",
        "--images",
        "i",
    ])
    .fails(2);
    dir.command(&["synth", "s", "--image-size", "160"]).fails(2).stderr_has("160,224");
}

#[test]
fn a_run_is_resumed_with_its_own_settings_alone() {
    let dir = Dir::new();
    for other in [["-c", "a.toml"], ["--set", "train.lr=1"], ["--run", "other"]] {
        let args = [&["train", "--resume", "run"], &other[..]].concat();
        dir.command(&args).fails(2).stderr_has("hint").stderr_has("run/config.toml");
    }
    dir.command(&["train", "--resume", "run"]).fails(1).stderr_has("run: no such folder");
}

/// It has the run's settings, and no steps of its own: a run would begin anew inside of it.
#[test]
fn a_checkpoint_is_no_run_to_resume() {
    let dir = Dir::with_run();
    let before = dir.files("run/checkpoints/last");
    for checkpoint in ["run/checkpoints/last", "run/checkpoints/best"] {
        let ran = dir.command(&["train", "--resume", checkpoint, "--device", "cpu"]).fails(1);
        ran.stderr_has("a checkpoint of a run").stderr_has("give the run's folder: run\n");
    }
    assert_eq!(dir.files("run/checkpoints/last"), before);
}

#[test]
fn settings_that_are_wrong_are_named_before_a_folder_is_made() {
    let dir = Dir::new();
    dir.write("bad.toml", "version = 1\n[train]\nlr_drops = [3]\n");
    let run = ["train", "-c", "bad.toml", "--run", "run"];
    dir.command(&run)
        .fails(1)
        .stderr_has("bad.toml: train.lr_drops")
        .stderr_has("`lr_drop`")
        .no_stdout();
    dir.command(&["train", "-c", "none.toml", "--run", "run"]).fails(1).stderr_has("none.toml");
    dir.write("empty.toml", "version = 1\n");
    dir.command(&["train", "-c", "empty.toml", "--run", "run"]).fails(1).stderr_has("data.train");
    dir.command(&["train", "-c", "empty.toml", "--set", "train.lr=fast"])
        .fails(1)
        .stderr_has("train.lr");
    assert!(!dir.exists("run") && !dir.exists("runs"));
}

#[test]
fn places_that_cannot_be_written_are_refused_first() {
    let dir = Dir::new();
    dir.write("a_file", "");
    dir.write("full/config.toml", "");
    // None of the inputs exists: the place is what is looked at first.
    let eval = ["eval", "--annotations", "none.json", "--detections", "none.json", "--json"];
    dir.command(&[&eval[..], &["absent/out.json"]].concat())
        .fails(1)
        .stderr_has("--json: the folder `absent`");
    dir.command(&[&eval[..], &["full"]].concat()).fails(1).stderr_has("--json: `full` is a folder");
    // The one place that not even an administrator can write to.
    dir.command(&[&eval[..], &["/proc/out.json"]].concat())
        .fails(1)
        .stderr_has("--json: the folder `/proc` cannot be written to");
    dir.write("ok.toml", "version = 1\n");
    dir.command(&["train", "-c", "ok.toml", "--run", "full"])
        .fails(1)
        .stderr_has("not empty")
        .stderr_has("--resume full");
    dir.command(&["train", "-c", "ok.toml", "--run", "a_file/run"])
        .fails(1)
        .stderr_has("--run: ")
        .stderr_has("is a file");
}

#[test]
fn checks_tell_versions_and_devices() {
    let dir = Dir::new();
    let ran =
        dir.command(&["checks", "--device", "cpu"]).ok().stdout_has("--device cpu computes on cpu");
    assert_eq!(ran.row("richsem"), ["richsem", env!("CARGO_PKG_VERSION")]);
    assert!(ran.row("libtorch")[1].starts_with("2.11."), "{ran:?}");
    assert!(!ran.stdout.contains("device: "), "{ran:?}");
    let half = ran.row("CUDA").join(" ");
    let known = ["CUDA half present", "CUDA half missing: "].iter().any(|s| half.starts_with(s));
    assert!(known && (half.contains("present") || half.contains("make libtorch-cuda")), "{half}");
    dir.command(&["checks", "--device", "cuda:512"]).fails(1).stderr_has("device");
}

#[test]
fn colours_are_left_out_unless_there_is_a_terminal_or_they_are_forced() {
    let dir = Dir::new();
    let stats = ["dataset", "stats", "absent.json"];
    let escape = "\u{1b}[";
    assert!(!dir.command(&stats).fails(1).stderr.contains(escape));
    dir.command(&stats).env("CLICOLOR_FORCE", "1").exits(1).stderr_has(escape);
    let refused = dir.command(&stats).env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").fails(1);
    assert!(!refused.stderr.contains(escape), "{refused:?}");
}
