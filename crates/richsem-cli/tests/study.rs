//! The real binary's `study`: a real one, stopped and killed in the middle, and every way in which
//! one can be refused or fail.
#![allow(clippy::unwrap_used)]

mod util;

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use util::Dir;

const STUDY: &str = r#"
version = 1
config = "../tiny.toml"
seeds = [1, 2]
set = ["train.epochs=5", "train.log_every=1", "train.checkpoint_every=2", "train.eval_every=0"]
metrics = ["AP", "AP50"]

[[variant]]
name = "baseline"

[[variant]]
name = "fast, hard"
set = ["train.lr=0.01"]
"#;

fn dir() -> Dir {
    let dir = Dir::with_data();
    dir.write("studies/pair.toml", STUDY);
    dir
}

/// `richsem study`, on two jobs.
fn args(out: &str) -> Vec<&str> {
    vec!["study", "studies/pair.toml", "--device", "cpu", "--jobs", "2", "--out", out]
}

fn lines(dir: &Dir, out: &str) -> Vec<Value> {
    let text = dir.text(&format!("{out}/study.jsonl"));
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What must not depend on how a study got to its end; every run is there once.
fn results(dir: &Dir, out: &str) -> BTreeMap<(String, u64), (Value, Value, Value)> {
    let lines = lines(dir, out);
    let results: BTreeMap<_, _> = lines
        .iter()
        .map(|line| {
            let key =
                (line["variant"].as_str().unwrap().to_owned(), line["seed"].as_u64().unwrap());
            let part = |name: &str| line[name].clone();
            (key, (part("metrics"), part("steps"), part("config_hash")))
        })
        .collect();
    assert_eq!(results.len(), lines.len(), "a run has two lines: {lines:?}");
    results
}

/// A study under way; what it says goes to a file.
struct Session<'a> {
    dir: &'a Dir,
    child: Child,
    log: String,
}

impl<'a> Session<'a> {
    fn start(dir: &'a Dir, out: &str) -> Self {
        let log = format!("{out}.log");
        let stderr = std::fs::File::create(dir.path(&log)).unwrap();
        let mut command = dir.raw_command(&args(out));
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Self { dir, child, log }
    }

    /// Waits for something to hold while it is at work.
    fn wait_for(&mut self, holds: impl Fn(&Dir) -> bool) {
        let started = Instant::now();
        while !holds(self.dir) {
            assert!(self.child.try_wait().unwrap().is_none(), "{}", self.dir.text(&self.log));
            assert!(started.elapsed() < Duration::from_secs(120), "{}", self.dir.text(&self.log));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal; its exit code and what it said.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        // Reaped only below, so that the id is still this process's.
        let kill = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let code = self.child.wait().unwrap().code();
        (code, self.dir.text(&self.log))
    }
}

/// A run has its line, and one of the second seed trains.
fn is_in_the_middle(dir: &Dir, out: &str) -> bool {
    let file = |name: &str| dir.exists(&format!("{out}/{name}"));
    file("study.jsonl")
        && ["baseline-s2", "fast__hard-s2"]
            .iter()
            .any(|run| file(&format!("runs/{run}/checkpoints/last")))
}

#[test]
fn a_study_however_interrupted_has_the_same_lines() {
    let dir = dir();
    let ran = dir.command(&args("whole")).ok();
    let whole = results(&dir, "whole");
    let steps: Vec<u64> = whole.values().map(|(_, steps, _)| steps.as_u64().unwrap()).collect();
    assert_eq!(steps, [30; 4]);
    for line in lines(&dir, "whole") {
        assert_eq!(line["device"], "cpu");
        assert!(line["seconds"].as_f64().unwrap() > 0.0, "{line}");
        let all = dir.text(&format!(
            "whole/runs/{}-s{}/metrics.jsonl",
            line["variant"].as_str().unwrap().replace(", ", "__"),
            line["seed"]
        ));
        let row: Value = serde_json::from_str(all.lines().last().unwrap()).unwrap();
        assert_eq!(line["metrics"], row["metrics"], "all of the last evaluation");
    }
    assert_eq!(ran.row("baseline")[1], "2");
    assert!(ran.stdout.contains("fast, hard − baseline"), "{ran:?}");
    assert!(dir.text("whole/study.md").contains("| fast, hard − baseline | 2 | "));
    assert_eq!(dir.json("whole/study.json")["done"], 4);
    assert_eq!(dir.json("whole/study.json")["variants"][1]["seeds"], serde_json::json!([1, 2]));

    // Again: nothing is trained, nothing changes. The table alone is the same, and writes nothing.
    let before = dir.read("whole/study.jsonl");
    let again = dir.command(&args("whole")).ok();
    assert!(!again.stderr.contains("started") && again.stdout == ran.stdout, "{again:?}");
    std::fs::remove_file(dir.path("whole/study.md")).unwrap();
    let table = ["study", "studies/pair.toml", "--out", "whole", "--table"];
    assert_eq!(dir.command(&table).ok().stdout, ran.stdout);
    assert!(!dir.exists("whole/study.md"));
    assert!(dir.read("whole/study.jsonl") == before);

    stopped(&dir);
    assert_eq!(results(&dir, "stopped"), whole);
    killed(&dir);
    assert_eq!(results(&dir, "killed"), whole);
    damaged(&dir, &before);
    changed(&dir);
}

/// SIGTERM lets the runs save; the same command goes on with them.
fn stopped(dir: &Dir) {
    let mut session = Session::start(dir, "stopped");
    session.wait_for(|dir| is_in_the_middle(dir, "stopped"));
    let (code, stderr) = session.end("-TERM");
    assert_eq!(code, Some(143), "{stderr}");
    assert!(stderr.contains("stopping: the runs save first"), "{stderr}");
    assert!(stderr.contains("the same command continues from here"), "{stderr}");
    let before = lines(dir, "stopped");
    assert!((1..4).contains(&before.len()), "{before:?}");
    assert!(dir.text("stopped/study.md").contains(&format!("{} of 4 runs", before.len())));
    let saved: Vec<_> = ["baseline-s2", "fast__hard-s2"]
        .into_iter()
        .filter(|run| {
            let log = format!("stopped/runs/{run}.log");
            // On a busy machine the other one may not have begun.
            dir.exists(&log) && dir.text(&log).contains("everything is saved")
        })
        .collect();
    assert!(!saved.is_empty(), "{stderr}");

    let ran = dir.command(&args("stopped")).ok().stderr_has("resumed");
    assert_eq!(ran.stderr.matches("done ").count(), 4 - before.len(), "{ran:?}");
    assert_eq!(lines(dir, "stopped")[..before.len()], before);
    // How long a run took is not known if it was interrupted.
    let timed = |run: &str| {
        let lines = lines(dir, "stopped");
        let name = |line: &Value| {
            let variant = line["variant"].as_str().unwrap().replace(", ", "__");
            format!("{variant}-s{}", line["seed"])
        };
        lines.iter().find(|line| name(line) == run).unwrap()["seconds"].is_number()
    };
    assert!(saved.iter().all(|run| !timed(run)) && timed("baseline-s1"));
}

/// After SIGKILL the runs go on by themselves; the next study waits for them.
fn killed(dir: &Dir) {
    let mut session = Session::start(dir, "killed");
    session.wait_for(|dir| dir.exists("killed/runs/baseline-s1/checkpoints/last"));
    let (code, stderr) = session.end("-KILL");
    assert_eq!(code, None, "{stderr}");
    dir.command(&args("killed"))
        .ok()
        .stderr_has("waiting  baseline, seed 1: another process trains in")
        .stderr_has("done     baseline, seed 1 found finished");
}

/// A line that was cut off is read from its run; another damaged line is named.
fn damaged(dir: &Dir, whole: &[u8]) {
    dir.write("whole/study.jsonl", &whole[..whole.len() - 30]);
    let ran = dir
        .command(&args("whole"))
        .ok()
        .stderr_has("study.jsonl: the last line was cut off")
        .stderr_has("found finished");
    assert!(!ran.stderr.contains("started") && !ran.stderr.contains("resumed"), "{ran:?}");
    assert_eq!(results(dir, "whole").len(), 4);
    assert_eq!(lines(dir, "whole")[3]["seconds"], Value::Null);
    dir.write("whole/study.jsonl", [b"what\n", whole].concat());
    dir.command(&args("whole")).fails(1).stderr_has("study.jsonl: line 1").no_stdout();
    dir.write("whole/study.jsonl", whole);
}

/// Other settings are refused before anything is trained, unless they go to another folder.
fn changed(dir: &Dir) {
    let before = dir.read("whole/study.jsonl");
    let with = [&args("whole")[..], &["--set", "train.weight_decay=0.5"]].concat();
    dir.command(&with)
        .fails(1)
        .stderr_has("whole/runs/baseline-s1/config.toml: train.weight_decay: the run has 0.0001")
        .stderr_has("the study asks for 0.5")
        .stderr_has("--out")
        .no_stdout();
    assert!(dir.read("whole/study.jsonl") == before);
    let table = ["study", "studies/pair.toml", "--out", "whole", "--table", "--set", "train.lr=1"];
    dir.command(&table)
        .ok()
        .stderr_has("4 of 4 lines have other settings than the study: left out")
        .stdout_has("0 of 4");

    // Added variants and seeds are trained beside what is there; the rest is chosen by name.
    dir.write(
        "studies/pair.toml",
        STUDY.replace("[1, 2]", "[1, 2, 3]") + "[[variant]]\nname = \"c\"\nset = [\"loss.clas=9\"]",
    );
    dir.command(&args("whole")).fails(1).stderr_has("pair.toml: loss.clas: unknown key");
    dir.write(
        "studies/pair.toml",
        STUDY.replace("[1, 2]", "[1, 2, 3]").replace("\"AP50\"", "\"APP\"")
            + "[[variant]]\nname = \"c\"\nset = [\"train.weight_decay=0\"]\n\
               against = [\"fast, hard\", \"baseline\"]",
    );
    let chosen = [&args("whole")[..], &["--only", "c", "--seeds", "2"]].concat();
    let ran = dir
        .command(&chosen)
        .ok()
        .stdout_has("5 of 9 runs")
        .stdout_has("c − fast, hard")
        .stderr_has("metrics: no run has `APP`; the runs have AP, ");
    assert_eq!(ran.row("c")[1], "1");
    assert_eq!(ran.stderr.matches("started").count(), 1, "{ran:?}");
}

#[test]
fn a_variant_that_fails_does_not_stop_the_others() {
    let dir = dir();
    dir.write(
        "studies/pair.toml",
        STUDY
            .replace("train.epochs=5", "train.epochs=1")
            .replace("\"train.lr=0.01\"", "\"data.train.images=nowhere\""),
    );
    let ran = dir.command(&args("out")).exits(1);
    let ran = ran
        .stderr_has(
            "failed   fast, hard, seed 1 (exit code 1); the end of out/runs/fast__hard-s1.log",
        )
        .stderr_has("studies/nowhere")
        .stderr_has("failed: 2 of the runs")
        .stdout_has("2 of 4 runs");
    assert_eq!(ran.row("baseline")[1], "2");
    assert_eq!(results(&dir, "out").len(), 2);
    assert!(dir.text("out/study.md").contains("| baseline | 2 |"));

    // Mended, the same command does what is missing.
    assert!(
        Command::new("ln")
            .args(["-s", "../set/images", "studies/nowhere"])
            .current_dir(dir.path(""))
            .status()
            .unwrap()
            .success()
    );
    let ran = dir.command(&args("out")).ok();
    assert_eq!(ran.stderr.matches("started").count(), 2, "{ran:?}");
    assert_eq!(results(&dir, "out").len(), 4);
}

#[test]
fn a_study_that_cannot_be_run_is_refused() {
    let dir = dir();
    dir.command(&["study", "absent.toml"]).fails(1).stderr_has("no such file as `absent.toml`");
    dir.command(&["study", "studies/pair.toml", "--table"])
        .fails(1)
        .stderr_has("no such folder as `runs/study-pair`");
    let with = |more: &[&'static str]| [&args("out")[..], more].concat();
    dir.command(&with(&["--only", "Baseline"])).fails(1).stderr_has("did you mean `baseline`?");
    dir.command(&with(&["--seeds", "2,7"])).fails(1).stderr_has("7 is not one of the study's");
    dir.command(&with(&["--set", "seed=1"])).fails(1).stderr_has("comes from `seeds`");
    dir.command(&["study", "studies/pair.toml", "--jobs", "0"]).exits(2).stderr_has("--jobs");
    dir.command(&["study", "studies/pair.toml", "--device", "cpu,gpu"]).exits(2).stderr_has("gpu");
    dir.command(&["study", "studies/pair.toml", "--table", "--seeds", "1"]).exits(2);
    assert!(!dir.exists("out") && !dir.exists("runs"));

    // Another study at work in the folder; something else in a run's place.
    std::fs::create_dir_all(dir.path("out/runs/fast__hard-s2/mine")).unwrap();
    let held = std::fs::File::create(dir.path("out/.lock")).unwrap();
    held.lock().unwrap();
    dir.command(&with(&[])).fails(1).stderr_has("another `richsem study` works in this folder");
    drop(held);
    dir.command(&with(&[])).fails(1).stderr_has("fast__hard-s2").stderr_has("not a run folder");
    assert_eq!(dir.files("out"), [".lock"], "nothing was trained");
}

#[test]
fn the_file_that_the_help_shows_is_one() {
    let dir = dir();
    let help = dir.command(&["study", "--help"]).ok().stdout;
    let (_, text) = help.split_once("compare.toml:\n").unwrap();
    dir.write("compare.toml", text.split_once("\n\n").unwrap().0);
    dir.write("base.toml", dir.text("tiny.toml"));
    dir.write("out/.keep", "");
    let ran = dir.command(&["study", "compare.toml", "--out", "out", "--table"]).ok();
    assert_eq!(ran.row("slow"), ["slow", "0", "–", "–", "–", "–"]);
    assert!(ran.stdout.contains("0 of 10 runs") && ran.stdout.contains("slow − baseline"));
}

/// Each run is trained by two processes, and is the run that these train without a study.
#[test]
fn each_run_may_have_several_processes() {
    let dir = dir();
    let study = ["study", "studies/pair.toml", "--processes", "2", "--seeds", "1", "--out", "two"];
    dir.command(&[&study[..], &["--only", "baseline"]].concat()).ok();
    let lines = lines(&dir, "two");
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["device"], "cpu, 2 processes");
    let run = "two/runs/baseline-s1";
    assert!(dir.exists(&format!("{run}/ranks/rank-1.log")));
    dir.command(&["train", "-c", &format!("{run}.toml"), "--run", "same", "--processes", "2"]).ok();
    let weights = |run: &str| dir.read(&format!("{run}/checkpoints/last/model.safetensors"));
    assert!(weights(run) == weights("same"));
    let refused = |more: &[&str]| dir.command(&[&study[..], more].concat());
    refused(&["--device", "cpu"]).exits(2).stderr_has("cannot be used with");
    refused(&["--gpus-per-run", "2"]).exits(2).stderr_has("cannot be used with");
}

/// A run that `train.patience` ended is finished: the study has its line, and does not train it again.
#[test]
fn a_run_that_patience_ended_is_finished() {
    let dir = dir();
    let study = STUDY
        .replace("seeds = [1, 2]", "seeds = [1]")
        .replace("train.eval_every=0", "train.patience=1")
        .replace(
            "\"train.epochs=5\"",
            "\"train.epochs=9\", \"train.lr=0\", \"train.lr_backbone=0\"",
        )
        .replace("set = [\"train.lr=0.01\"]", "set = [\"train.lr_backbone=0\"]");
    dir.write("studies/pair.toml", study);
    dir.command(&args("out")).ok();
    let ended = lines(&dir, "out");
    assert_eq!(ended.len(), 2, "{ended:?}");
    assert!(ended.iter().all(|line| line["steps"] == 12), "{ended:?}");
    dir.command(&args("out")).ok().stdout_has("pair: 2 of 2 runs.");
    assert_eq!(lines(&dir, "out"), ended);
}
