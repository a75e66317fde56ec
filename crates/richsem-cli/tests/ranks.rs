//! Several processes: what happens when one of them fails, is killed, is told to stop, or never comes. Each
//! failure ends all of them, with one message that names the process and the cause, and the run can go on.
#![allow(clippy::unwrap_used)]

mod util;

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use richsem::testing::{small_run, write_small_set};
use util::Dir;

/// All processes of a failed run have ended by then.
const SOON: Duration = Duration::from_secs(60);

fn place(train: &str) -> Dir {
    let dir = Dir::new();
    write_small_set(&dir.path("set")).unwrap();
    dir.write("tiny.toml", small_run("set".as_ref(), train));
    dir
}

const LONG: &str = "epochs = 200\nlr_drop = []\nlog_every = 1\n";

/// A `richsem` whose stderr is a file.
struct Running {
    child: Child,
    stderr: std::path::PathBuf,
}

impl Running {
    fn start(dir: &Dir, name: &str, args: &[&str], variables: &[(&str, String)]) -> Self {
        let stderr = dir.path(name);
        let file = std::fs::File::create(&stderr).unwrap();
        let mut command = dir.raw_command(args);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Self { child, stderr }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    fn wait_for(&mut self, text: &str) {
        let started = Instant::now();
        while !self.text().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < 2 * SOON, "{ended:?}: {}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Processes that this one started, by rank.
    fn ranks(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let text = std::fs::read_to_string(children).unwrap();
        let mut ids: Vec<u32> = text.split_whitespace().map(|id| id.parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    /// Its exit code and what it said, once it has ended, which must be soon.
    fn end(mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.text());
            }
            if started.elapsed() > SOON {
                self.child.kill().unwrap();
                panic!("it does not end: {}", self.text());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn signal(signal: &str, id: u32) {
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
}

fn is_there(id: u32) -> bool {
    std::path::Path::new(&format!("/proc/{id}")).exists()
}

fn one_error(text: &str) -> &str {
    let mut errors = text.match_indices("error:").map(|(at, _)| at);
    let at = errors.next().unwrap_or_else(|| panic!("no error: {text}"));
    assert_eq!(errors.next(), None, "more than one error: {text}");
    &text[at..]
}

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
    running.wait_for("had 2 process(es) until now and has 1");
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

/// A port that nothing listens on.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The variables of one of several processes, as whoever starts them sets them.
fn variables(rank: usize, world: usize, port: u16) -> [(&'static str, String); 5] {
    [
        ("RANK", rank.to_string()),
        ("WORLD_SIZE", world.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("MASTER_ADDR", "localhost".to_owned()),
        ("MASTER_PORT", port.to_string()),
    ]
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
