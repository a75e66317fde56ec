//! One process of several is stopped, killed, of another program, or lacks a file: in every phase all end soon, and
//! one message names the process and the cause. What was killed at any moment goes on as if nothing had been.
#![allow(clippy::unwrap_used)]

mod util;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use richsem::{
    random::{Random, Stream},
    testing::{rows_without_speed, small_run, small_set, write_set},
};
use util::{
    Dir,
    running::{LONG, Running, SOON, is_there, one_error, place, port, signal, variables},
};

/// Long enough for a process that is alive, on a machine with much else to do.
const TIMEOUT: &str = "5";

/// Trains with two processes on this machine.
const TRAIN: [&str; 9] =
    ["train", "-c", "tiny.toml", "--run", "run", "--processes", "2", "--timeout", TIMEOUT];

/// All have ended, in much less than a minute, and one message names the rank.
fn ended(running: Running, ranks: &[u32], rank: u64) -> String {
    let started = Instant::now();
    let (code, text) = running.end();
    assert!(started.elapsed() < SOON / 2, "{:?}: {text}", started.elapsed());
    let error = one_error(&text);
    assert!(code == Some(1) && error.contains(&format!("rank {rank} (on ")), "{code:?}: {text}");
    assert!(!ranks.iter().any(|id| is_there(*id)), "{text}");
    error.to_owned()
}

/// A process that is stopped (SIGSTOP) while the run starts says nothing, and closes nothing.
#[test]
fn a_process_that_is_stopped_at_the_start_is_found() {
    for rank in [1, 0] {
        let dir = place(LONG);
        let mut running = Running::start(&dir, "err", &TRAIN, &[]);
        while running.ranks().len() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ranks = running.ranks();
        running.wait_until_it_lives(ranks[rank]);
        signal("-STOP", ranks[rank]);
        let (code, text) = running.end();
        let error = one_error(&text);
        // By its silence, or by a connection that does not answer. Where it was stopped before it had met the
        // others, these do not know its machine.
        let why = ["no sign of life for", "it does not answer, though it is alive"];
        let silent = error.contains(&format!("rank {rank} (on "))
            && why.iter().any(|why| error.contains(why));
        let absent = rank == 1 && error.contains("did not come within 5 s: rank 1");
        assert!(code == Some(1) && (silent || absent), "{code:?}: {text}");
        assert!(!ranks.iter().any(|id| is_there(*id)), "{text}");
    }
}

/// A process that works a fifth of the time, as one whose GPU or disk others use: the run goes on, and says whom it
/// waits for.
#[test]
fn a_process_that_is_slow_is_named() {
    let dir = place(LONG);
    let mut running = Running::start(&dir, "err", &TRAIN, &[]);
    running.wait_for("step 1 ");
    let slow = running.ranks()[1];
    let started = Instant::now();
    while !running.text().contains("all wait for it") {
        assert!(started.elapsed() < 2 * SOON, "{}", running.text());
        for (name, milliseconds) in [("-STOP", 40), ("-CONT", 10)] {
            signal(name, slow);
            std::thread::sleep(Duration::from_millis(milliseconds));
        }
    }
    let text = running.text();
    let told = text.lines().find(|line| line.contains("all wait for it")).unwrap();
    assert!(told.contains("rank 1 on ") && told.contains("a batch where others take"), "{told}");
    signal("-TERM", running.child.id());
    assert_eq!(running.end().0, Some(143));
}

/// A set with more to evaluate than to train on.
fn place_to_evaluate() -> Dir {
    let dir = Dir::new();
    let config = richsem::synth::SynthConfig { val_images: 500, ..small_set() };
    write_set(&config, &dir.path("set")).unwrap();
    dir.write("tiny.toml", small_run("set".as_ref(), "epochs = 1\nlr_drop = []\n"));
    dir
}

/// Stopped or killed while all evaluate, each a share of its own; the run then goes on with the evaluation.
#[test]
fn a_process_that_is_stopped_or_killed_in_an_evaluation_is_found() {
    let dir = place_to_evaluate();
    let resume = ["train", "--resume", "run", "--processes", "2", "--timeout", TIMEOUT];
    let mut args = &TRAIN[..];
    for (signal_name, rank) in [("-STOP", 1), ("-KILL", 0), ("-STOP", 0)] {
        let mut running = Running::start(&dir, "err", args, &[]);
        running.wait_for("evaluating ");
        let ranks = running.ranks();
        signal(signal_name, ranks[rank]);
        if signal_name == "-KILL" {
            let (code, text) = running.end();
            let error = one_error(&text);
            assert!(code == Some(137) && error.contains("rank 0: its process was ended"), "{text}");
            assert!(!ranks.iter().any(|id| is_there(*id)));
        } else {
            let error = ended(running, &ranks, rank as u64);
            assert!(error.contains("no sign of life for"), "{error}");
        }
        assert!(dir.files("run").iter().all(|file| !file.contains(".tmp-")));
        args = &resume;
    }
    dir.command(&resume).ok();
    assert!(dir.exists("run/eval/epoch-0001.json") && dir.exists("run/report.html"));
}

/// Started by hand, rank 0 keeps the store itself. Where it is stopped the store does not even say that it is gone;
/// rank 1 speaks for all then.
#[test]
fn the_others_find_rank_0_that_keeps_the_store() {
    for (signal_name, told) in [("-STOP", "does not answer for"), ("-KILL", "is gone")] {
        let dir = place(LONG);
        let port = port();
        let train = ["train", "-c", "tiny.toml", "--device", "cpu", "--timeout", TIMEOUT];
        let args = [&train[..], &["--run", "run"]].concat();
        let [mut first, second] = [0, 1].map(|rank| {
            Running::start(&dir, &format!("err-{rank}"), &args, &variables(rank, 2, port))
        });
        first.wait_for("step 2 ");
        signal(signal_name, first.child.id());
        let (code, text) = second.end();
        let error = one_error(&text);
        let named = error.contains("rank 0 (on ") && error.contains("the store of the run");
        assert!(code == Some(1) && named && error.contains(told), "{code:?}: {text}");
        let _ = first.child.kill();
        first.child.wait().unwrap();
    }
}

/// Rank 0's and rank 1's message and codes, of commands in these folders and with these programs.
fn by_hand(dir: &Dir, how: [(&Path, &Path); 2]) -> (String, [Option<i32>; 2]) {
    let port = port();
    let config = dir.path("tiny.toml");
    let [first, second] = [0, 1].map(|rank| {
        let (program, folder) = how[rank];
        let mut command = Command::new(program);
        command.args(["train", "--device", "cpu", "--timeout", "20", "--run", "run", "-c"]);
        command.arg(&config).current_dir(folder).env("OMP_NUM_THREADS", "1");
        let stderr = dir.path(&format!("err-{rank}"));
        Running::start_command(command, stderr, &variables(rank, 2, port))
    });
    let ((first, text), (second, other)) = (first.end(), second.end());
    // The store ends with rank 0. Who has not heard why until then says that it is gone, and nothing else.
    let silent = other.is_empty() || one_error(&other).contains("the store of the run is gone");
    assert!(silent, "rank 1 writes to the terminal: {other}");
    (text, [first, second])
}

#[test]
fn another_program_or_a_file_that_one_machine_lacks_is_named() {
    let dir = place(LONG);
    let program = Path::new(env!("CARGO_BIN_EXE_richsem"));
    // The same program of as many bytes, but for the last of them.
    let mut bytes = std::fs::read(program).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let other = dir.write("other-richsem", bytes);
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    let here = dir.path(".");
    let (text, codes) = by_hand(&dir, [(program, &here), (&other, &here)]);
    let error = one_error(&text);
    assert_eq!(codes, [Some(1); 2]);
    assert!(error.contains("rank 1 (on ") && error.contains("program is another one"), "{text}");

    // One path, which leads elsewhere for each process.
    dir.write("tiny.toml", small_run("/proc/self/cwd/set".as_ref(), LONG));
    let elsewhere = dir.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (text, codes) = by_hand(&dir, [(program, &here), (program, &elsewhere)]);
    let error = one_error(&text);
    assert_eq!(codes, [Some(1); 2]);
    assert!(error.contains("rank 1 (on ") && error.contains("train.json"), "{text}");
    assert!(!dir.exists("run") && !dir.exists("elsewhere/run"));
}

/// A pipe in the place of an image, which nobody writes to: whoever reads it waits, alive, for ever. It is met in the
/// first steps, which may take long.
#[test]
fn a_process_that_is_stuck_in_its_first_steps_is_found() {
    let dir = place(LONG);
    dir.write("tiny.toml", small_run("/proc/self/cwd/set".as_ref(), LONG));
    let (here, elsewhere) = (dir.path("."), dir.path("elsewhere"));
    let copied = Command::new("cp").arg("-r").arg(dir.path("set")).arg(dir.path("copy")).status();
    assert!(copied.unwrap().success());
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::rename(dir.path("copy"), elsewhere.join("set")).unwrap();
    // One is left: a folder without any is refused.
    for image in dir.files("elsewhere/set/images/train").into_iter().skip(1) {
        let image = elsewhere.join("set/images/train").join(image);
        std::fs::remove_file(&image).unwrap();
        assert!(Command::new("mkfifo").arg(&image).status().unwrap().success());
    }
    let program = Path::new(env!("CARGO_BIN_EXE_richsem"));
    let started = Instant::now();
    let (text, codes) = by_hand(&dir, [(program, &here), (program, &elsewhere)]);
    let error = one_error(&text);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(codes, [Some(1); 2]);
    assert!(error.contains("rank 1 (on ") && error.contains("nothing done for 20 s"), "{text}");
}

/// A command that torchrun or SLURM's queue starts again goes on with its run; one whose folder holds another run
/// does not.
#[test]
fn a_command_that_is_started_again_goes_on() {
    let dir = place(LONG);
    let train = ["train", "-c", "tiny.toml", "--run", "run"];
    let alone = [&train[..], &["--device", "cpu"]].concat();
    let several = [&train[..], &["--processes", "2"]].concat();
    for (args, restarts, goes_on) in [
        // Killed before there was a run.
        (&alone, "SLURM_RESTART_COUNT", false),
        (&alone, "TORCHELASTIC_RESTART_COUNT", true),
        (&several, "SLURM_RESTART_COUNT", true),
    ] {
        let mut running = Running::start(&dir, "err", args, &[(restarts, "1".to_owned())]);
        running.wait_for("  step ");
        signal("-TERM", running.child.id());
        let (code, text) = running.end();
        let told = "started again (1 times by now): goes on with run";
        assert!(code == Some(143) && text.contains(told) == goes_on, "{text}");
        assert_eq!(text.contains("resumed at step"), goes_on, "{text}");
    }
    // A restart knows its run by the settings.
    let other = [&alone[..], &["--set", "train.lr=0.5"]].concat();
    let ran = dir.command(&other).env("SLURM_RESTART_COUNT", "1").fails(1);
    ran.stderr_has("holds a run with other settings: `train.lr` is 0.001 there");
    // Not started again, it is a new run, whose folder is taken.
    dir.command(&alone).fails(1).stderr_has("--resume run");
}

/// A random process, or all, killed at random moments, of starts, steps, evaluations and savings: at the end the
/// run is the one that nobody disturbed, to the last bit. `RICHSEM_KILLS=20` kills more often than three times.
#[test]
fn killed_at_any_moment_a_run_is_the_undisturbed_one() {
    let kills: u64 = std::env::var("RICHSEM_KILLS").map_or(3, |kills| kills.parse().unwrap());
    // Each kill has its epochs, and comes before they are over; how long they take differs between machines. The
    // last epochs are for what the machine does between that and the kill.
    let epochs = 4 * kills + 8;
    let dir = place(&format!("epochs = {epochs}\nlr_drop = []\nlog_every = 1\n"));
    let start = |run| ["train", "-c", "tiny.toml", "--processes", "2", "--run", run];
    let resume = ["train", "--processes", "2", "--resume", "parts"];
    dir.command(&start("whole")).ok();
    let mut told = Vec::new();
    for kill in 0..kills {
        let mut random = Random::new(20, Stream::Test, kill, 0);
        let goes_on = dir.exists("parts/config.toml");
        let args = if goes_on { &resume[..] } else { &start("parts")[..] };
        let mut running = Running::start(&dir, "err", args, &[]);
        let last = format!("epoch {}/{epochs} ", 4 * (kill + 1));
        let is_late = |running: &Running| running.text().contains(&last);
        // While it starts, or somewhen after a step: in the next ones, a checkpoint or an evaluation.
        if random.chance(0.75) {
            let steps = 1 + random.below(5);
            while running.text().matches("  step ").count() < steps && !is_late(&running) {
                running.goes_on();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let wait = Duration::from_secs_f64(random.range(0.0, 0.6));
        let waiting = Instant::now();
        while waiting.elapsed() < wait && !is_late(&running) {
            std::thread::sleep(Duration::from_millis(2));
        }
        running.goes_on();
        let ranks = running.ranks();
        let who = random.below(3);
        match ranks.get(who) {
            Some(id) => signal("-KILL", *id),
            None => signal("-KILL", running.child.id()),
        }
        told.push(format!("{who} of {} after {:?}", ranks.len(), running.text().lines().last()));
        let (code, text) = running.end();
        assert!(code != Some(0), "{told:?}: {text}");
        let started = Instant::now();
        while ranks.iter().any(|id| is_there(*id)) {
            assert!(started.elapsed() < SOON, "processes are left");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    dir.command(&resume).ok();
    for file in ["model", "training"].map(|name| format!("checkpoints/last/{name}.safetensors")) {
        let [whole, parts] = ["whole", "parts"].map(|run| dir.read(&format!("{run}/{file}")));
        assert!(whole == parts, "{file} differs after {told:?}");
    }
    let [whole, parts] = ["whole", "parts"].map(|run| rows_without_speed(&dir.path(run)).unwrap());
    assert_eq!(whole, parts, "{told:?}");
    for epoch in ["eval/epoch-0001.json".to_owned(), format!("eval/epoch-{epochs:04}.json")] {
        let [whole, parts] = ["whole", "parts"].map(|run| dir.text(&format!("{run}/{epoch}")));
        assert_eq!(whole, parts, "{told:?}");
    }
    if kills > 3 {
        eprintln!("killed: {told:#?}");
    }
}
