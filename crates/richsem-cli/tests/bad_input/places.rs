//! Places that cannot be written, disks that are full, devices that are not there.

use std::{os::unix::fs::FileTypeExt as _, path::Path, process::Command};

use super::{Case, all_refused, assert_same, contents, refused, util::Dir};

const TRAIN: [&str; 5] = ["train", "-c", "tiny.toml", "--device", "cpu"];
const PREDICT: [&str; 6] = ["predict", "set/images/val", "--weights", "run", "--device", "cpu"];
const EVAL: [&str; 5] = ["eval", "--annotations", "set/val.json", "--device", "cpu"];
const EVALUATE: [&str; 4] = ["--weights", "run", "--images", "set/images"];

#[test]
fn places_that_cannot_be_written_are_refused_before_the_work() {
    let dir = Dir::with_run();
    dir.write("file", "mine");
    // Also an administrator, whom permissions do not bind, can write neither below a file nor
    // into /proc.
    let is_file = "` is a file, expected a folder";
    let refuses = "the folder `/proc` cannot be written to";
    let train = |folder| [&TRAIN[..], &["--run", folder]].concat();
    let predict = |flag, place| [&PREDICT[..], &[flag, place]].concat();
    let eval = |flag, place| [&EVAL[..], &EVALUATE, &[flag, place]].concat();
    let convert = |place| ["dataset", "from-voc", "set", place];
    all_refused(
        &dir,
        &[
            ("run below a file", &train("file/run"), &["--run: `", "file", is_file]),
            ("run is a file", &train("file"), &["--run: `", "file", is_file]),
            ("run in /proc", &train("/proc/run"), &["--run: ", refuses]),
            ("synth over a file", &["synth", "file"], &["error: `", "file`", is_file]),
            ("synth below a file", &["synth", "file/set"], &["error: `", "file`", is_file]),
            ("synth in /proc", &["synth", "/proc/set"], &["error: ", "/proc", refuses]),
            ("voc below a file", &convert("file/out"), &["error: `", "file`", is_file]),
            ("images below a file", &predict("-o", "file/out"), &["--output: `", "file", is_file]),
            ("images over a file", &predict("-o", "file"), &["--output: `", "file", is_file]),
            ("images in /proc", &predict("-o", "/proc/out"), &["--output: ", refuses]),
            (
                "raw in no folder",
                &predict("--raw", "none/raw.safetensors"),
                &["--raw: the folder `none` does not exist", "hint: make it"],
            ),
            (
                "detections in /proc",
                &eval("--save-json", "/proc/out.json"),
                &["--save-json: ", refuses],
            ),
            (
                "metrics as a folder",
                &eval("--json", "set"),
                &["--json: `set` is a folder", "expected the name of a file"],
            ),
        ],
    );
}

/// Also of a file that no flag names: what a run keeps, and what is in a folder of annotations or of images.
#[test]
fn no_result_takes_the_place_of_a_file_in_a_folder_that_is_read() {
    let dir = Dir::with_run();
    dir.write("set/images/old.tar", [0; 1024]);
    dir.command(&["report", "run", "--device", "cpu"]).ok();
    let report = |flag, file| ["report", "run", "--device", "cpu", flag, file];
    let folder = ["eval", "--device", "cpu", "--annotations", "set", "--weights", "run"];
    let folder = |flag, file| [&folder[..], &[flag, file]].concat();
    let eval = |flag, file| [&EVAL[..], &EVALUATE, &[flag, file]].concat();
    let doctor = |flag, file| ["doctor", "set", "--val", "set", flag, file];
    let kept = "is a file of the run in `run`, which would be overwritten";
    let part = "may be part of it, and would be overwritten";
    let bench = |file| ["bench", "-c", "run/config.toml", "--json", file, "--device", "cpu"];
    all_refused(
        &dir,
        &[
            ("csv is the metrics", &report("--csv", "run/metrics.jsonl"), &["--csv: `", kept]),
            ("page is labels", &report("-o", "run/labels.json"), &["--output: `", kept]),
            ("page is settings", &report("-o", "run/../run/config.toml"), &["--output: `", kept]),
            ("csv is an evaluation", &report("--csv", "run/eval/epoch-0001.json"), &[kept]),
            ("csv among checkpoints", &report("--csv", "run/checkpoints/a.csv"), &[kept]),
            ("csv is the set", &report("--csv", "set/val.json"), &["of data.val.annotations, "]),
            ("csv is the page", &report("--csv", "run/report.html"), &["the file of --output"]),
            ("metrics are a run's", &eval("--json", "run/vocabulary.json"), &["--json: `", kept]),
            ("metrics of a set", &folder("--json", "set/val.json"), &["of --annotations, ", part]),
            ("the other part", &folder("--save-json", "set/train.json"), &["--save-json: ", part]),
            ("an image", &eval("--report", "set/images/val/000001.jpg"), &["the images, ", part]),
            ("an archive", &eval("--json", "set/images/old.tar"), &["the images, ", part]),
            ("findings are the set", &doctor("--json", "set/val.json"), &["the set, ", part]),
            ("times are a run's", &bench("run/data.json"), &["--json: `", kept]),
            (
                "tensors are a run's",
                &[&PREDICT[..], &["--raw", "run/metrics.jsonl"]].concat(),
                &["--raw: `", kept],
            ),
            (
                "settings are the set",
                &["init", "set", "--output", "set/train.json", "--overwrite"],
                &["--output: `", "of DATA, ", part],
            ),
        ],
    );
    // What is put beside is the user's, and pages are no part of a set.
    for file in ["run/eval.json", "run/metrics.json", "new.json", "set/images/new.json"] {
        for _ in 0..2 {
            dir.command(&eval("--json", file)).ok();
        }
    }
    for file in ["run/report.html", "set/eval.html"] {
        for _ in 0..2 {
            dir.command(&folder("--report", file)).ok();
        }
    }
    dir.command(&report("--csv", "run/metrics.csv")).ok();
}

#[test]
fn a_device_that_is_full_is_told_and_stays_a_device() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: this system has no /dev/full");
        return;
    }
    let dir = Dir::with_run();
    // By another name, so that a mistake here would not replace the system's own.
    std::os::unix::fs::symlink("/dev/full", dir.path("full")).unwrap();
    let full = "could not write `full`: No space left on device";
    let hint = "hint: the disk is full: free some space";
    dir.command(&[&EVAL[..], &EVALUATE, &["--save-json", "found.json"]].concat()).ok();
    all_refused(
        &dir,
        &[
            (
                "metrics",
                &[&EVAL[..], &["--detections", "found.json", "--json", "full"]].concat(),
                &[full, hint],
            ),
            (
                "detections",
                &[&EVAL[..], &EVALUATE, &["--save-json", "full"]].concat(),
                &[full, hint],
            ),
        ],
    );
    // What was computed is told all the same.
    dir.command(&[&EVAL[..], &EVALUATE, &["--save-json", "full", "--json", "told.json"]].concat())
        .fails(1)
        .stdout_has("AP50");
    assert!(dir.json("told.json")["metrics"].is_object());
    let raw = [&PREDICT[..], &["--no-images", "-o", "out", "--raw", "full"]].concat();
    dir.command(&raw).fails(1).stderr_has(full).stderr_has(hint);
    assert!(std::fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    // A link to a file stays a link.
    dir.write("elsewhere/metrics.json", "old");
    std::os::unix::fs::symlink("elsewhere/metrics.json", dir.path("link.json")).unwrap();
    dir.command(&[&EVAL[..], &["--detections", "found.json", "--json", "link.json"]].concat()).ok();
    assert!(dir.path("link.json").is_symlink());
    assert!(dir.json("elsewhere/metrics.json")["metrics"].is_object());
}

#[test]
fn what_a_submission_cannot_hold_is_refused_before_the_work() {
    let dir = Dir::with_run();
    let mut set = dir.json("set/val.json");
    let first = set["images"][0]["file_name"].as_str().unwrap().replace("val/", "train/");
    set["images"][1]["file_name"] = first.into();
    dir.write("shared.json", set.to_string());
    let eval = ["eval", "--annotations", "shared.json", "--device", "cpu"];
    let args = [&eval[..], &EVALUATE, &["--save-json", "found.CSV", "--json", "m.json"]].concat();
    let says = ["found.CSV: submission: `000001` may be any of 2 images", "ends in .json"];
    let ran = refused(&dir, "two images of one name", dir.command(&args), 1, &says);
    assert!(!ran.stderr.contains("detecting"), "{ran:?}");
}

#[test]
fn a_write_that_fails_half_way_leaves_nothing_half_written() {
    let dir = Dir::with_run();
    let hint = "hint: raise the limit on the size of files";
    let says = ["File too large", hint];
    // In blocks of 512 bytes: too small for settings, images, annotations, detections.
    let cases: &[(&str, usize, Vec<&str>)] = &[
        ("settings of a run", 1, [&TRAIN[..], &["--run", "new"]].concat()),
        (
            "a synthetic set",
            4,
            vec!["synth", "drawn", "--train-images", "20", "--classification-per-class", "1"],
        ),
        ("detections", 1, [&EVAL[..], &EVALUATE, &["--save-json", "found.json"]].concat()),
        ("metrics", 1, [&EVAL[..], &EVALUATE, &["--json", "metrics.json"]].concat()),
    ];
    for (name, blocks, args) in cases {
        refused(&dir, name, dir.command(args).with_file_limit(*blocks), 1, &says);
    }
    std::fs::create_dir(dir.path("empty")).unwrap();
    let in_empty = [&TRAIN[..], &["--run", "empty"]].concat();
    refused(&dir, "an empty folder", dir.command(&in_empty).with_file_limit(1), 1, &says);

    let before = contents(&dir);
    let predict = [&PREDICT[..], &["-o", "out"]].concat();
    let ran = dir.command(&predict).with_file_limit(1).fails(1);
    ran.stderr_has("could not write `out/000001.jpg`").stderr_has(hint);
    // What there is room for is there all the same, and whole.
    assert_eq!(dir.files("out"), [".predicted", "detections.json"]);
    assert_eq!(dir.json("out/detections.json"), serde_json::json!([]));
    std::fs::remove_dir_all(dir.path("out")).unwrap();
    assert_same("images", &before, &contents(&dir));

    // Room for the settings, not for a checkpoint: the run stops, and goes on when there is room.
    let ran = dir.command(&[&TRAIN[..], &["--run", "new"]].concat()).with_file_limit(8).fails(1);
    ran.stderr_has("could not write `").stderr_has("model.safetensors").stderr_has(hint);
    assert!(dir.files("new/checkpoints").is_empty(), "{:?}", dir.files("new"));
    assert!(!contents(&dir).keys().any(|file| file.contains(".tmp-")));
    dir.command(&["train", "--resume", "new", "--device", "cpu"]).ok().stderr_has("finished");
}

/// A file system in memory, taken away with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// None where this process may not mount.
    fn mount(path: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path);
        let done = mount.output().is_ok_and(|output| output.status.success());
        done.then(|| Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_stops_a_run_cleanly() {
    let dir = Dir::with_data();
    let Some(_disk) = SmallDisk::mount(dir.path("disk"), "256k") else {
        println!("skipped: mounting a small disk needs an administrator");
        return;
    };
    let ran = dir.command(&[&TRAIN[..], &["--run", "disk/run"]].concat()).fails(1);
    ran.stderr_has("could not write `")
        .stderr_has("/disk/run/checkpoints/")
        .stderr_has("No space left on device")
        .stderr_has("hint: the disk is full: free some space, or write to another one");
    assert!(dir.files("disk/run/checkpoints").is_empty(), "{:?}", dir.files("disk"));
    assert!(dir.exists("disk/run/config.toml"));
    refused(
        &dir,
        "a set",
        dir.command(&["synth", "disk/set", "--train-images", "200"]),
        1,
        &["No space left on device", "hint: the disk is full"],
    );
}

#[test]
fn devices_that_are_not_there_are_told_with_what_is_missing() {
    let dir = Dir::with_data();
    let train = |device| ["train", "-c", "tiny.toml", "--run", "run", "--device", device];
    for device in ["gpu", "cuda:", "cuda:x", "CPU", ""] {
        let says = ["--device <DEVICE>", "expected cpu, cuda, cuda:N (as cuda:0) or auto"];
        refused(&dir, device, dir.command(&train(device)), 2, &says);
    }
    if Path::new("/dev/nvidiactl").exists() {
        println!("skipped: this machine has a GPU");
        return;
    }
    let no_driver: Case = (
        "no driver",
        &train("cuda"),
        &["device: ", "`libcuda.so.1` is not on this machine", "hint: install a driver"],
    );
    all_refused(&dir, &[no_driver]);
    // A library that can be opened under the driver's name. Of the CUDA half something is then
    // missing, or, where it is complete, the device.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.split_whitespace().find(|word| word.contains("/libgcc_s.so")).unwrap();
    std::fs::create_dir(dir.path("driver")).unwrap();
    std::fs::copy(library, dir.path("driver/libcuda.so.1")).unwrap();
    let folder = dir.path("driver");
    let command = dir.command(&train("cuda")).env("LD_LIBRARY_PATH", folder.to_str().unwrap());
    let ran = refused(&dir, "no CUDA half", command, 1, &["device: "]);
    let complete = ran.stderr.contains("offers no usable device");
    for text in ["libtorch's CUDA half can't be opened: ", ".so", "run `make libtorch-cuda`"] {
        assert!(complete || ran.stderr.contains(text), "no `{text}`: {ran:?}");
    }
}
