//! Running the real binary in a folder of its own.
//!
//! ```text
//! let dir = Dir::new();
//! dir.command(&["dataset", "stats", "absent.json"]).fails(1).stderr_has("absent.json");
//! ```
#![allow(dead_code, clippy::unwrap_used)] // each test program uses its part

pub(crate) mod running;

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A temporary folder, removed with the value.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, its folders made.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    pub(crate) fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Every file below a folder, by its path within, sorted.
    pub(crate) fn files(&self, name: &str) -> Vec<String> {
        fn walk(root: &Path, at: &Path, files: &mut Vec<String>) {
            for entry in std::fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(root, &path, files);
                } else {
                    files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let mut files = Vec::new();
        let root = self.path(name);
        walk(&root, &root, &mut files);
        files.sort();
        files
    }

    /// `richsem` with these arguments, in this folder. Nothing of the caller's environment that
    /// changes what is printed comes along.
    pub(crate) fn raw_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_richsem"));
        command
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            // Tests run side by side: threads that wait for each other by spinning take ten times
            // as long when there are more of them than cores.
            .env("OMP_NUM_THREADS", "1")
            .env_remove("RUST_BACKTRACE")
            .env_remove("CLICOLOR_FORCE")
            .env_remove("NO_COLOR");
        command
    }

    /// The same, not yet run.
    pub(crate) fn command(&self, args: &[&str]) -> TestCommand {
        TestCommand { command: self.raw_command(args), words: args.join(" ") }
    }
}

/// `richsem` with arguments, and what is expected of it.
pub(crate) struct TestCommand {
    command: Command,
    words: String,
}

impl TestCommand {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// The same, unable to write files of more than so many blocks of 512 bytes: writing then
    /// fails half-way, as on a full disk.
    pub(crate) fn with_file_limit(self, blocks: usize) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"])
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .stdin(Stdio::null());
        if let Some(folder) = self.command.get_current_dir() {
            command.current_dir(folder);
        }
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self { command, words: self.words }
    }

    /// Runs it; it must succeed.
    pub(crate) fn ok(self) -> Ran {
        self.exits(0)
    }

    /// Runs it; it must end with this code and say `error:`, without a panic.
    pub(crate) fn fails(self, code: i32) -> Ran {
        assert_ne!(code, 0);
        let ran = self.exits(code);
        assert!(ran.stderr.contains("error:"), "no error is told:\n{ran:?}");
        for word in ["internal error", "panicked", "RUST_BACKTRACE"] {
            assert!(!ran.stderr.contains(word), "`{word}` is told:\n{ran:?}");
        }
        ran
    }

    /// Runs it; it must end with this code.
    pub(crate) fn exits(mut self, code: i32) -> Ran {
        let output = self.command.output().unwrap();
        let ran = Ran {
            words: self.words,
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        assert_eq!(ran.code, Some(code), "another exit code was expected:\n{ran:?}");
        ran
    }
}

/// What a command wrote, and its exit code.
pub(crate) struct Ran {
    words: String,
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { words, code, stdout, stderr } = self;
        write!(f, "richsem {words}\nexit code {code:?}\n--- stdout\n{stdout}--- stderr\n{stderr}")
    }
}

impl Ran {
    pub(crate) fn stdout_has(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "no `{text}` in stdout:\n{self:?}");
        self
    }

    pub(crate) fn stderr_has(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no `{text}` in stderr:\n{self:?}");
        self
    }

    /// No results where there is an error.
    pub(crate) fn no_stdout(self) -> Self {
        assert!(self.stdout.is_empty(), "stdout should be empty:\n{self:?}");
        self
    }

    /// The words of the row of a table that starts with this word.
    pub(crate) fn row(&self, first: &str) -> Vec<&str> {
        self.stdout
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| words.first() == Some(&first))
            .unwrap_or_else(|| panic!("no row `{first}`:\n{self:?}"))
    }

    /// The words of the row below the one that starts with this word and a rule.
    pub(crate) fn values_below(&self, first: &str) -> Vec<&str> {
        let lines: Vec<&str> = self.stdout.lines().collect();
        let header = lines.iter().position(|l| l.split_whitespace().next() == Some(first));
        let header = header.unwrap_or_else(|| panic!("no header `{first}`:\n{self:?}"));
        lines[header + 2].split_whitespace().collect()
    }
}

/// Arguments that draw 4 classes in 12 training and 6 validation images.
pub(crate) const SMALL_SYNTH: [&str; 12] = [
    "synth",
    "set",
    "--classes",
    "4",
    "--train-images",
    "12",
    "--val-images",
    "6",
    "--image-size",
    "96,128",
    "--classification-per-class",
    "0",
];

/// Settings of a detector that trains on that set in seconds. Batches of 2, so 6 steps an epoch.
pub(crate) const TINY_CONFIG: &str = r#"
version = 1

[data]
batch_size = 2
workers = 2
train = { annotations = "set/train.json", images = "set/images" }
val = { annotations = "set/val.json", images = "set/images" }
augment = { scales = [96], max_size = 160 }
resize = { size = 96, max_size = 160 }

[model.dino]
return_interm_indices = [2, 3]
backbone = { name = "resnet18", width = 8, norm = "group_norm", groups = 4, frozen_stages = -1 }

[model.dino.transformer]
hidden_dim = 32
nheads = 2
enc_layers = 1
dec_layers = 2
dim_feedforward = 64
num_queries = 20
num_feature_levels = 2

[train]
epochs = 1
log_every = 2
"#;

impl Dir {
    /// With [`SMALL_SYNTH`] in `set/` and [`TINY_CONFIG`] as `tiny.toml`.
    pub(crate) fn with_data() -> Self {
        let dir = Self::new();
        dir.command(&SMALL_SYNTH).ok();
        dir.write("tiny.toml", TINY_CONFIG);
        dir
    }

    /// As [`Self::with_data`], with a detector trained for one epoch in `run/`.
    pub(crate) fn with_run() -> Self {
        let dir = Self::with_data();
        dir.command(&["train", "-c", "tiny.toml", "--run", "run", "--device", "cpu"]).ok();
        dir
    }
}
