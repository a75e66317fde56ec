//! Runs of several processes that are watched while they are at work, and sent signals.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use richsem::testing::{small_run, write_small_set};

use super::Dir;

/// All processes of a failed run have ended by then.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The end of the table `[train]` of a run that does not end by itself.
pub(crate) const LONG: &str = "epochs = 200\nlr_drop = []\nlog_every = 1\n";

/// A `richsem` whose stderr is a file.
pub(crate) struct Running {
    pub(crate) child: Child,
    stderr: PathBuf,
}

impl Running {
    pub(crate) fn start(
        dir: &Dir,
        name: &str,
        args: &[&str],
        variables: &[(&str, String)],
    ) -> Self {
        Self::start_command(dir.raw_command(args), dir.path(name), variables)
    }

    pub(crate) fn start_command(
        mut command: Command,
        stderr: PathBuf,
        variables: &[(&str, String)],
    ) -> Self {
        let file = std::fs::File::create(&stderr).unwrap();
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let child = command.stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Self { child, stderr }
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    pub(crate) fn wait_for(&mut self, text: &str) {
        let stderr = self.stderr.clone();
        self.wait_until(text, || std::fs::read_to_string(&stderr).unwrap().contains(text));
    }

    /// It has not ended.
    pub(crate) fn goes_on(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "it has ended: {ended:?}: {}", self.text());
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn() -> bool) {
        let started = Instant::now();
        while !holds() {
            self.goes_on();
            assert!(started.elapsed() < 2 * SOON, "{what}: {}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Processes that this one started, by rank.
    pub(crate) fn ranks(&self) -> Vec<u32> {
        let id = self.child.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let text = std::fs::read_to_string(children).unwrap();
        let mut ids: Vec<u32> = text.split_whitespace().map(|id| id.parse().unwrap()).collect();
        ids.sort_unstable();
        ids
    }

    /// Waits until a process has met the others, or is about to: it has a thread that gives signs of life.
    pub(crate) fn wait_until_it_lives(&mut self, id: u32) {
        let has_pulse = || {
            let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten();
            let mut names = tasks
                .flatten()
                .map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
            names.any(|name| name.trim() == "pulse")
        };
        self.wait_until("no sign of life", has_pulse);
    }

    /// Its exit code and what it said, once it has ended, which must be soon.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
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

pub(crate) fn signal(signal: &str, id: u32) {
    assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
}

pub(crate) fn is_there(id: u32) -> bool {
    std::path::Path::new(&format!("/proc/{id}")).exists()
}

pub(crate) fn one_error(text: &str) -> &str {
    let mut errors = text.match_indices("error:").map(|(at, _)| at);
    let at = errors.next().unwrap_or_else(|| panic!("no error: {text}"));
    assert_eq!(errors.next(), None, "more than one error: {text}");
    &text[at..]
}

/// A port that nothing listens on.
pub(crate) fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The variables of one of several processes, as whoever starts them sets them.
pub(crate) fn variables(rank: usize, world: usize, port: u16) -> [(&'static str, String); 5] {
    [
        ("RANK", rank.to_string()),
        ("WORLD_SIZE", world.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("MASTER_ADDR", "localhost".to_owned()),
        ("MASTER_PORT", port.to_string()),
    ]
}

pub(crate) fn place(train: &str) -> Dir {
    let dir = Dir::new();
    write_small_set(&dir.path("set")).unwrap();
    dir.write("tiny.toml", small_run("set".as_ref(), train));
    dir
}
