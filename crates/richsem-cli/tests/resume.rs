//! A run that is killed at any moment, or told to stop, and gone on with is, to the last bit, the
//! run that nobody interrupted.
#![allow(clippy::unwrap_used)]

mod util;

use std::{
    collections::BTreeMap,
    io::Read as _,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use richsem::{
    random::{Random, Stream},
    testing::{small_run, write_small_set},
};
use util::Dir;

/// SIGKILLs that a run must survive here.
const KILLS: usize = 28;

/// Kill `k` comes in epoch `k + 5` at the latest, however fast the machine is.
const EPOCHS: usize = KILLS + 12;

/// Said when the run folder is in order and training begins.
const READY: &str = "trainable parameters";

/// A `richsem train` process that runs.
struct Session<'a> {
    dir: &'a Dir,
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: std::thread::JoinHandle<()>,
}

impl<'a> Session<'a> {
    /// Resumes a run, or starts it if it has no settings yet.
    fn start(dir: &'a Dir, run: &str) -> Self {
        let settings = dir.exists(&format!("{run}/config.toml"));
        let start: &[&str] = if settings {
            &["train", "--device", "cpu", "--resume", run]
        } else {
            &["train", "--device", "cpu", "-c", "tiny.toml", "--run", run]
        };
        // The tests themselves may run under `nohup`, and what is ignored is inherited.
        Self::through(dir, &["env", "--default-signal=HUP"], start)
    }

    /// Goes on with a run as `nohup` does it.
    fn start_nohup(dir: &'a Dir, run: &str) -> Self {
        Self::through(dir, &["nohup"], &["train", "--device", "cpu", "--resume", run])
    }

    /// Starts `richsem` by way of a command that becomes it.
    fn through(dir: &'a Dir, wrapper: &[&str], args: &[&str]) -> Self {
        let plain = dir.raw_command(args);
        let mut command = Command::new(wrapper[0]);
        command.args(&wrapper[1..]).arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(plain.get_current_dir().unwrap()).stdin(Stdio::null());
        Self::of(dir, command)
    }

    fn of(dir: &'a Dir, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::<Mutex<String>>::default();
        let (mut pipe, text) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut bytes) {
                text.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { dir, child, stderr, reader }
    }

    fn says(&self, text: &str) -> bool {
        self.stderr.lock().unwrap().contains(text)
    }

    /// Waits for something to hold; false if the process ends before.
    fn wait_for(&mut self, holds: impl Fn(&Self) -> bool) -> bool {
        let started = Instant::now();
        loop {
            if holds(self) {
                return true;
            }
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(
                started.elapsed() < Duration::from_secs(120),
                "{}",
                self.stderr.lock().unwrap()
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn signal(&self, signal: &str) {
        // Not reaped yet, so that the id is still this process's.
        let kill = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    /// Ends it with a signal. Its exit code, none if the signal itself ended it, and what it said.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        let code = self.child.wait().unwrap().code();
        self.reader.join().unwrap();
        let text = self.stderr.lock().unwrap().clone();
        (code, text)
    }

    /// Lets it go on to its end.
    fn finish(mut self) {
        let status = self.child.wait().unwrap();
        self.reader.join().unwrap();
        assert!(status.success(), "{}", self.stderr.lock().unwrap());
    }
}

/// A checkpoint is being written, or was when the run was killed.
fn is_saving(dir: &Dir, run: &str) -> bool {
    std::fs::read_dir(dir.path(&format!("{run}/checkpoints"))).is_ok_and(|entries| {
        entries.flatten().any(|e| e.file_name().to_string_lossy().starts_with(".tmp-"))
    })
}

/// What a run did last, from what it said and left.
fn phase(dir: &Dir, run: &str, stderr: &str) -> &'static str {
    let last = |text: &str| stderr.rfind(text);
    if !dir.exists(run) {
        "before the run folder"
    } else if !dir.exists(&format!("{run}/config.toml")) {
        "making the run folder"
    } else if stderr.contains(READY) && is_saving(dir, run) {
        "writing a checkpoint"
    } else if last("evaluating") > last("  step ") {
        "evaluating"
    } else if last("  step ").is_some() {
        "training"
    } else {
        "starting up"
    }
}

/// Everything in a run's folder that must not depend on how it got there.
fn results(dir: &Dir, run: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for file in dir.files(run) {
        let mut bytes = dir.read(&format!("{run}/{file}"));
        if file.starts_with("tensorboard/") || file == "report.html" {
            continue; // times; the run's own name
        }
        if file == "metrics.jsonl" {
            bytes.clear();
            for line in dir.text(&format!("{run}/{file}")).lines() {
                let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
                row.as_object_mut().unwrap().remove("images_per_second");
                bytes.extend(format!("{row}\n").bytes());
            }
        }
        files.insert(file, bytes);
    }
    files
}

#[track_caller]
fn assert_same(dir: &Dir, run: &str, whole: &str) {
    let (got, expected) = (results(dir, run), results(dir, whole));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&got), names(&expected), "files of {run}");
    for link in ["last", "best"] {
        let target = |run: &str| std::fs::read_link(dir.path(&format!("{run}/checkpoints/{link}")));
        assert_eq!(target(run).unwrap(), target(whole).unwrap(), "{link}");
    }
    for file in ["model.safetensors", "training.safetensors", "state.json"] {
        assert!(got.contains_key(&format!("checkpoints/last/{file}")), "{file}: {:?}", names(&got));
    }
    for (file, bytes) in &expected {
        assert!(&got[file] == bytes, "{run}/{file} is not the uninterrupted run's");
    }
}

#[test]
fn however_often_a_run_is_ended_it_becomes_the_uninterrupted_one() {
    let dir = Dir::new();
    write_small_set(&dir.path("set")).unwrap();
    let train = format!("epochs = {EPOCHS}\nlr_drop = [8]\nlog_every = 1");
    dir.write("tiny.toml", small_run("set".as_ref(), &train));
    let started = Instant::now();
    Session::start(&dir, "whole").finish();
    println!("uninterrupted: {:.1} s", started.elapsed().as_secs_f64());
    assert_eq!(dir.json("whole/checkpoints/last/state.json")["epoch"], EPOCHS);

    std::thread::scope(|scope| {
        scope.spawn(|| {
            killed(&dir);
            assert_same(&dir, "killed", "whole");
        });
        signalled(&dir);
        assert_same(&dir, "signalled", "whole");

        // Killed when it had nothing but its settings.
        dir.write("settings/config.toml", dir.read("whole/config.toml"));
        Session::start(&dir, "settings").finish();
        assert_same(&dir, "settings", "whole");
    });
}

/// Kills a run again and again: while the process starts, trains, saves and evaluates.
fn killed(dir: &Dir) {
    let run = "killed";
    let mut random = Random::new(0, Stream::Test, 0, 0);
    let mut phases: BTreeMap<&str, usize> = BTreeMap::new();
    let started = Instant::now();
    for kill in 0..KILLS {
        let mut session = Session::start(dir, run);
        // Up to so many seconds after the moment.
        let (reached, most) = match kill {
            0 => (true, 0.05),
            1 => (session.wait_for(|s| s.dir.exists(run)), 0.0),
            2 => (session.wait_for(|s| s.dir.exists("killed/config.toml")), 0.001),
            _ => match kill % 4 {
                0 => (true, 0.6),
                1 => (session.wait_for(|s| s.says("  step ")), 0.2),
                2 => (session.wait_for(|s| s.says(READY) && is_saving(s.dir, run)), 0.01),
                _ => (session.wait_for(|s| s.says("evaluating")), 0.06),
            },
        };
        assert!(reached, "the run ended after {kill} kills: {}", session.stderr.lock().unwrap());
        let wait = Duration::from_secs_f64(random.range(0.0, most));
        let (late, waiting) = (format!("epoch {}/{EPOCHS} ", kill + 5), Instant::now());
        while waiting.elapsed() < wait && !session.says(&late) {
            std::thread::sleep(Duration::from_micros(200));
        }
        assert!(session.child.try_wait().unwrap().is_none(), "it ended before kill {kill}");
        let (code, stderr) = session.end("-KILL");
        assert_eq!(code, None, "{stderr}");
        assert!(!stderr.contains("error"), "{stderr}");
        *phases.entry(phase(dir, run, &stderr)).or_default() += 1;
    }
    Session::start(dir, run).finish();
    println!("{KILLS} kills in {:.1} s: {phases:?}", started.elapsed().as_secs_f64());
    for phase in ["starting up", "training", "writing a checkpoint", "evaluating"] {
        assert!(phases.contains_key(phase), "no kill while {phase}: {phases:?}");
    }
}

/// Ctrl-C and SIGTERM, while the process loads, trains and evaluates.
fn signalled(dir: &Dir) {
    for (signal, code, moment) in [
        ("-INT", 130, READY),
        ("-TERM", 143, "  step 3 "),
        ("-INT", 130, "evaluating"),
        ("-TERM", 143, "evaluating"),
        ("-INT", 130, "  step 11 "),
        ("-HUP", 129, "  step 13 "),
    ] {
        let mut session = Session::start(dir, "signalled");
        let reached = session.wait_for(|s| s.says(moment));
        assert!(reached, "never `{moment}`: {}", session.stderr.lock().unwrap());
        let (ended, stderr) = session.end(signal);
        assert_eq!(ended, Some(code), "{moment}: {stderr}");
        assert!(stderr.contains("richsem train --resume signalled"), "{stderr}");
    }
    let mut session = Session::start_nohup(dir, "signalled");
    assert!(session.wait_for(|s| s.says(READY)), "{}", session.stderr.lock().unwrap());
    session.signal("-HUP");
    session.finish();
}
