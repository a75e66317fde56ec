//! Several processes: what happens when one of them fails, is killed, is told to stop, or never comes. Each
//! failure ends all of them, with one message that names the process and the cause, and the run can go on.
#![allow(clippy::unwrap_used)]

mod util;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use util::{
    Dir,
    running::{LONG, Running, SOON, is_there, one_error, place, port, signal, variables},
};

const START: [&str; 7] = ["train", "-c", "tiny.toml", "--run", "run", "--processes", "2"];

/// One rank is killed without a word, in the middle of training: all end, nothing half-written is left, and
/// the run goes on. Then it is told to stop, and goes on again, with another number of processes.
#[test]
fn a_killed_process_ends_the_run_which_then_goes_on() {
    let dir = place(LONG);
    let mut running = Running::start(&dir, "err", &START, &[]);
    running.wait_for("step 4 ");
    let ranks = running.ranks();
    assert_eq!(ranks.len(), 2);
    signal("-KILL", ranks[1]);
    let (code, text) = running.end();
    let error = one_error(&text);
    assert!(code == Some(1) && error.contains("rank 1 (on "), "{code:?}: {text}");
    assert!(error.contains("signal 9"), "{text}");
    assert!(!ranks.iter().any(|id| is_there(*id)));
    // The other rank told its file, and nothing else.
    assert!(dir.text("run/ranks/rank-1.log").contains("trainable parameters"));
    assert!(dir.files("run").iter().all(|file| !file.contains(".tmp-")), "{:?}", dir.files("run"));

    let resume = ["train", "--resume", "run", "--processes", "2"];
    let mut running = Running::start(&dir, "err", &resume, &[]);
    running.wait_for("step 8 ");
    let ranks = running.ranks();
    signal("-TERM", running.child.id());
    let (code, text) = running.end();
    assert!(code == Some(143) && text.contains("everything is saved"), "{code:?}: {text}");
    assert!(text.contains("resumed at step") && !ranks.iter().any(|id| is_there(*id)), "{text}");

    let mut running =
        Running::start(&dir, "err", &["train", "--resume", "run", "--device", "cpu"], &[]);
    running.wait_for("had 2 processes until now and has 1");
    running.wait_for("  step ");
    signal("-TERM", running.child.id());
    assert_eq!(running.end().0, Some(143));

    // Rank 0 itself, and the one that started both.
    let mut running = Running::start(&dir, "err", &resume, &[]);
    running.wait_for("  step ");
    signal("-KILL", running.ranks()[0]);
    let (code, text) = running.end();
    let error = one_error(&text);
    assert!(code == Some(137) && error.contains("rank 0") && error.contains("signal 9"), "{text}");
    let mut running = Running::start(&dir, "err", &resume, &[]);
    running.wait_for("  step ");
    let ranks = running.ranks();
    signal("-KILL", running.child.id());
    running.end();
    let started = Instant::now();
    while ranks.iter().any(|id| is_there(*id)) {
        assert!(started.elapsed() < SOON, "processes are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two processes that were started by hand; what rank 0 says, and the codes of both.
fn by_hand(dir: &Dir, args: [&[&str]; 2]) -> (String, [Option<i32>; 2]) {
    let port = port();
    let [first, second] = [0, 1].map(|rank| {
        let mut all = vec!["train", "--device", "cpu", "--timeout", "20", "--run", "run"];
        all.extend(args[rank]);
        Running::start(dir, &format!("err-{rank}"), &all, &variables(rank, 2, port))
    });
    let ((first, text), (second, other)) = (first.end(), second.end());
    assert_eq!(other, "", "rank 1 writes to the terminal");
    (text, [first, second])
}

/// What two processes must have in common is compared, and the one that has something else is named.
#[test]
fn what_differs_between_processes_is_named() {
    let dir = place("epochs = 1\nlr_drop = []\n");
    let config = ["-c", "tiny.toml"];
    let (text, codes) = by_hand(&dir, [&config, &["-c", "tiny.toml", "--set", "train.lr=0.5"]]);
    let error = one_error(&text);
    assert_eq!(codes, [Some(1); 2]);
    assert!(error.contains("rank 1 (on ") && error.contains("`lr = 0.5` here"), "{text}");

    // A file that one of two machines does not have.
    let (text, codes) = by_hand(&dir, [&config, &["-c", "absent.toml"]]);
    let error = one_error(&text);
    assert_eq!(codes, [Some(1); 2]);
    assert!(error.contains("rank 1 (on ") && error.contains("absent.toml"), "{text}");
    assert!(!dir.exists("run"), "{:?}", dir.files("run"));

    // With nothing in the way the run is that of torchrun.
    let (text, codes) = by_hand(&dir, [&config, &config]);
    assert!(codes == [Some(0); 2] && text.contains("2 processes × data.batch_size 2"), "{text}");
    assert!(dir.exists("run/checkpoints/last/model.safetensors") && dir.exists("run/report.html"));
}

#[test]
fn whoever_does_not_come_is_named() {
    let dir = place(LONG);
    let train = ["train", "-c", "tiny.toml", "--device", "cpu", "--timeout", "2", "--run", "run"];
    let run = |rank, port| Running::start(&dir, "err", &train, &variables(rank, 3, port)).end();
    let (code, text) = run(0, port());
    assert_eq!(code, Some(1));
    assert!(
        one_error(&text).contains("2 of 3 processes did not come within 2 s: rank 1, 2"),
        "{text}"
    );
    let (code, text) = run(2, port());
    assert_eq!(code, Some(1));
    assert!(one_error(&text).contains("rank 2 of 3 found no store at localhost:"), "{text}");
    let taken = TcpListener::bind("[::]:0").unwrap();
    let (code, text) = run(0, taken.local_addr().unwrap().port());
    assert_eq!(code, Some(1));
    assert!(one_error(&text).contains("of this machine cannot be had"), "{text}");
    assert!(text.contains("MASTER_PORT") && !dir.exists("run"), "{text}");
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let dir = place(LONG);
    let start = |more: &[&str]| dir.command(&[&["train", "-c", "tiny.toml"], more].concat());
    start(&["--gpus", "2", "--processes", "2"]).exits(2).stderr_has("cannot be used with");
    start(&["--gpus", "2", "--device", "cpu"]).exits(2).stderr_has("cannot be used with");
    start(&["--gpus", "0"]).exits(2).stderr_has("expected a number of GPUs, at least 1, or all");
    let again = start(&["--processes", "2"]).env("RANK", "0").env("WORLD_SIZE", "1");
    again
        .env("LOCAL_RANK", "0")
        .env("MASTER_ADDR", "a")
        .env("MASTER_PORT", "1")
        .fails(1)
        .stderr_has("was started as one of several");
}

/// Evaluation and prediction by several processes give what one gives, byte by byte.
#[test]
fn detection_by_several_is_detection_by_one() {
    let dir = place("epochs = 1\nlr_drop = []\n");
    dir.command(&["train", "-c", "tiny.toml", "--run", "run", "--processes", "2"]).ok();
    let eval =
        ["eval", "--weights", "run", "--annotations", "set/val.json", "--images", "set/images"];
    let predict = ["predict", "set/images/val", "--weights", "run", "--conf", "0.0"];
    let run = |how: &[&str], name: &str| {
        let (dets, metrics) = (format!("{name}-dets.json"), format!("{name}.json"));
        let files = ["--save-json", &dets, "--json", &metrics];
        let ran = dir.command(&[&eval, &files[..], how].concat()).ok();
        dir.command(&[&predict, &["--output", name][..], how].concat()).ok();
        let found = dir.text(&format!("{name}/detections.json"));
        (dir.text(&dets), dir.text(&metrics), ran.stdout, found, dir.files(name))
    };
    let alone = run(&["--device", "cpu"], "alone");
    assert!(run(&["--processes", "3"], "by-three") == alone);
}
