//! One folder a run: `config.toml`, `vocabulary.json`, `data.json`, `labels.json`, `metrics.jsonl`,
//! `tensorboard/`, `eval/`, `checkpoints/`.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::rows::{EvalRow, MetricsRow};
use crate::{
    argument::Argument,
    config::Config,
    data::{
        detection_source::ImageEntry, fingerprint::Fingerprint, label_statistics::LabelStatistics,
    },
    error::{Error, Result, TEMPORARY, write_atomically},
    evaluate::Summary,
    lock::{LOCK, is_locked, lock_folder},
    shell::quoted,
    vocabulary::Vocabulary,
};

/// What keeps a run out of a folder that another process works in.
pub(super) fn busy(folder: &Path) -> Error {
    let problem = format!("{}: another process is training in this run folder", folder.display());
    Error::other(problem)
        .with_hint(format!("stop that one first, or choose another folder with {}", Argument::Run))
}

/// The file of a checkpoint that a run's folder does not have.
const STATE: &str = "state.json";

/// The run that a checkpoint's folder is in; none for another folder.
fn run_of_checkpoint(path: &Path) -> Option<PathBuf> {
    if !path.join(STATE).is_file() {
        return None;
    }
    let absolute = std::path::absolute(path).ok()?;
    let run = absolute.parent().and_then(Path::parent)?;
    let above = path.parent().and_then(Path::parent).filter(|above| !above.as_os_str().is_empty());
    Some(above.unwrap_or(run).to_owned())
}

/// What the labels of a run's sets are like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Of the training set.
    pub train: LabelStatistics,
    /// Of the validation set.
    pub val: Option<LabelStatistics>,
}

impl Labels {
    pub(super) fn of(train: &[ImageEntry], val: Option<&Vec<ImageEntry>>) -> Self {
        Self {
            train: LabelStatistics::of(train),
            val: val.map(|entries| LabelStatistics::of(entries)),
        }
    }
}

/// What makes a folder a run's: all settings.
pub(super) const SETTINGS: &str = "config.toml";
const VOCABULARY: &str = "vocabulary.json";
const DATA: &str = "data.json";
const LABELS: &str = "labels.json";
const METRICS: &str = "metrics.jsonl";
/// What processes other than rank 0 leave: their logs.
pub const RANKS: &str = "ranks";
const FOLDERS: [&str; 2] = ["eval", "checkpoints"];
/// The folder of event files.
pub(super) const EVENTS: &str = "tensorboard";

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Whether a new run may have that folder. What a run left that was killed before it had settings
    /// does not count.
    ///
    /// # Errors
    /// A folder that already holds something.
    pub fn check_new(path: &Path) -> Result<()> {
        if path.exists() && !entries(path, |name| !is_nothing(name))?.is_empty() {
            let first = match path.join(SETTINGS).exists() {
                true => {
                    format!("continue that run with {} {}, or", Argument::Resume, quoted(path))
                }
                false => "it is not a run's:".to_owned(),
            };
            let problem = format!("{}: the run folder is not empty", path.display());
            return Err(Error::other(problem)
                .with_hint(format!("{first} choose another folder with {}", Argument::Run)));
        }
        Ok(())
    }

    /// A new run in a folder that is its own and holds nothing. The settings come first: with them
    /// the folder is a run's, which can be resumed whatever else is still missing.
    ///
    /// # Errors
    /// A folder that cannot be written; it is then as it was.
    pub(super) fn create(
        path: &Path,
        config: &Config,
        vocabulary: &Vocabulary,
        data: &Fingerprint,
    ) -> Result<Self> {
        let run = Self { path: path.to_owned() };
        let written = write_text(&run.file(SETTINGS), &config.to_toml())
            .and_then(|()| run.complete(vocabulary, data));
        if let Err(error) = written {
            // Best effort: the first error is the one to tell.
            for file in [VOCABULARY, DATA, SETTINGS] {
                let _ = std::fs::remove_file(run.file(file));
            }
            for folder in FOLDERS {
                let _ = std::fs::remove_dir(run.file(folder));
            }
            return Err(error);
        }
        Ok(run)
    }

    /// Removes what a killed process was writing.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub(super) fn sweep(&self) -> Result<()> {
        for folder in ["", "checkpoints/last"].iter().chain(&FOLDERS) {
            let folder = self.file(folder);
            if folder.exists() {
                remove(&folder, is_temporary)?;
            }
        }
        Ok(())
    }

    /// Makes what is missing beside the settings.
    ///
    /// # Errors
    /// The run was started with other classes or other data; a folder that cannot be written.
    pub(super) fn complete(&self, vocabulary: &Vocabulary, data: &Fingerprint) -> Result<()> {
        for folder in FOLDERS {
            fs_err::create_dir_all(self.file(folder))?;
        }
        self.check_vocabulary(vocabulary)?;
        let path = self.file(DATA);
        // A run of a release before this file has it from now on.
        let started = written_once(&path, "data", data)?;
        match data.differs_from(&started) {
            None => Ok(()),
            Some(problem) => Err(Error::invalid(&path, "data", problem).with_hint(OTHER_DATA)),
        }
    }

    fn check_vocabulary(&self, vocabulary: &Vocabulary) -> Result<()> {
        let path = self.file(VOCABULARY);
        let started = written_once(&path, "vocabulary", vocabulary)?;
        let names = |vocabulary: &Vocabulary| -> Vec<_> {
            vocabulary.categories().iter().map(|c| (c.id, c.name.clone())).collect()
        };
        if names(&started) != names(vocabulary) {
            let problem = format!(
                "the run was started with {} classes that are not the {} of data.train.annotations",
                started.len(),
                vocabulary.len()
            );
            return Err(Error::invalid(&path, "vocabulary", problem).with_hint(OTHER_DATA));
        }
        Ok(())
    }

    /// The folder of a run that the process of rank 0 makes.
    pub(super) fn beside(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where the batch goes that gave a number which is not finite.
    pub(super) fn non_finite(&self, step: u64, rank: u64) -> PathBuf {
        match rank {
            0 => self.file(&format!("non-finite-step-{step}")),
            rank => self.file(&format!("{RANKS}/rank-{rank}-non-finite-step-{step}")),
        }
    }

    /// A run that was made before.
    ///
    /// # Errors
    /// There is no such folder, or it is not a run's.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join(SETTINGS).is_file() {
            let error = if path.exists() {
                Error::invalid(path, SETTINGS, "missing: this is not a run folder")
            } else {
                Error::other(format!("{}: no such folder", path.display()))
            };
            return Err(error.with_hint(
                "give the folder that `richsem train` made (the one with config.toml)",
            ));
        }
        // A checkpoint has the run's settings too, and would be taken for a run that has not begun.
        if let Some(run) = run_of_checkpoint(path) {
            return Err(Error::invalid(
                path,
                STATE,
                "there is one: this is a checkpoint of a run, not a run",
            )
            .with_hint(format!("give the run's folder: {}", run.display())));
        }
        Ok(Self { path: path.to_owned() })
    }

    /// Keeps other processes from training here until the file is dropped. The lock ends with the
    /// process, however it ends.
    ///
    /// # Errors
    /// Another process holds it.
    pub(super) fn lock(&self) -> Result<std::fs::File> {
        lock_folder(&self.path)?.ok_or_else(|| busy(&self.path))
    }

    /// Whether some process trains in that folder now. False for a folder that is not there.
    ///
    /// # Errors
    /// A folder that cannot be looked into.
    pub fn is_busy(path: &Path) -> Result<bool> {
        is_locked(path)
    }

    /// The settings the run was started with.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self) -> Result<Config> {
        let file = self.file(SETTINGS);
        Config::parse_saved(&crate::error::read_text(&file)?, &file)
    }

    /// The classes, as the training set has them; `None` if the file is not there.
    ///
    /// # Errors
    /// A file that is no vocabulary.
    pub fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        let path = self.file(VOCABULARY);
        if !path.is_file() {
            return Ok(None);
        }
        let vocabulary = serde_json::from_str(&crate::error::read_text(&path)?)
            .map_err(|e| Error::invalid(&path, "vocabulary", e.to_string()))?;
        Ok(Some(vocabulary))
    }

    /// What the labels of its sets are like; `None` of a run of a release that did not count them.
    ///
    /// # Errors
    /// A file that does not say it.
    pub fn labels(&self) -> Result<Option<Labels>> {
        let path = self.file(LABELS);
        if !path.is_file() {
            return Ok(None);
        }
        let labels = serde_json::from_str(&crate::error::read_text(&path)?)
            .map_err(|e| Error::invalid(&path, "labels", e.to_string()))?;
        Ok(Some(labels))
    }

    pub(super) fn write_labels(&self, labels: &Labels) -> Result<()> {
        let text = serde_json::to_string_pretty(labels)
            .map_err(|e| Error::other(format!("{LABELS}: {e}")))?;
        write_text(&self.file(LABELS), &text)
    }

    /// The evaluation after so many epochs.
    ///
    /// # Errors
    /// There is no such file, or it is no evaluation.
    pub fn summary(&self, epoch: u64) -> Result<Summary> {
        let path = self.summary_file(epoch);
        serde_json::from_str(&crate::error::read_text(&path)?)
            .map_err(|e| Error::invalid(&path, "summary", e.to_string()))
    }

    pub(super) fn summary_file(&self, epoch: u64) -> PathBuf {
        self.file(&format!("eval/epoch-{epoch:04}.json"))
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether a path is that of a file, or in a folder, in which training keeps the run. A report, or what else was
    /// put beside, is none.
    #[must_use]
    pub fn keeps(&self, path: &Path) -> bool {
        let kept = [SETTINGS, VOCABULARY, DATA, LABELS, METRICS, RANKS, EVENTS, LOCK];
        let is_kept = |name: &str| kept.contains(&name) || FOLDERS.contains(&name);
        // The file need not be there, nor its folder be named in the same way.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let entry = folder.unwrap_or(Path::new(".")).canonicalize().ok();
        let entry = entry.and_then(|folder| Some(folder.join(path.file_name()?)));
        let Ok(run) = self.path.canonicalize() else { return false };
        [entry, path.canonicalize().ok()].into_iter().flatten().any(|place| {
            let below = place.strip_prefix(&run).ok().and_then(|below| below.components().next());
            below.is_some_and(|first| is_kept(&first.as_os_str().to_string_lossy()))
        })
    }

    /// Adds a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// A full disk and the like.
    pub fn append(&self, row: &MetricsRow) -> Result<()> {
        let mut line =
            serde_json::to_string(row).map_err(|e| Error::other(format!("metrics.jsonl: {e}")))?;
        line.push('\n');
        let mut file =
            fs_err::OpenOptions::new().create(true).append(true).open(self.file(METRICS))?;
        Ok(file.write_all(line.as_bytes())?)
    }

    /// All lines of `metrics.jsonl`; none if there is no such file yet.
    ///
    /// # Errors
    /// A line that is not a row, except a last one cut off by a kill.
    pub fn metrics(&self) -> Result<Vec<MetricsRow>> {
        let path = self.file(METRICS);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let text = crate::error::read_text(&path)?;
        let mut rows = Vec::new();
        for (i, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(row) => rows.push(row),
                Err(_) if i + 1 == text.lines().count() && !text.ends_with('\n') => {}
                Err(e) => {
                    return Err(Error::invalid(&path, format!("line {}", i + 1), e.to_string())
                        .with_hint("the file was edited or damaged: take that line out"));
                }
            }
        }
        Ok(rows)
    }

    /// Forgets what a killed run wrote after the checkpoint it is resumed from.
    pub(super) fn rewind(&self, step: u64) -> Result<()> {
        let mut rows = self.metrics()?;
        rows.retain(|row| row.step() <= step);
        self.write_metrics(&rows)
    }

    /// Adds an evaluation, in place of an earlier one of the same step.
    pub(super) fn replace_eval(&self, row: EvalRow) -> Result<()> {
        let mut rows = self.metrics()?;
        rows.retain(|r| !matches!(r, MetricsRow::Eval(old) if old.step == row.step));
        rows.push(MetricsRow::Eval(row));
        self.write_metrics(&rows)
    }

    fn write_metrics(&self, rows: &[MetricsRow]) -> Result<()> {
        write_atomically(&self.file(METRICS), |file| {
            for row in rows {
                serde_json::to_writer(&mut *file, row).map_err(std::io::Error::from)?;
                file.write_all(b"\n")?;
            }
            Ok(())
        })
    }
}

/// What to do where the training set is not that of the run.
const OTHER_DATA: &str =
    "put what it was trained with back (annotations, extra images, teacher), or start a new run";

/// What a JSON file of the run's start holds: this value, unless it was written before.
fn written_once<T: Clone + Serialize + DeserializeOwned>(
    path: &Path,
    what: &str,
    value: &T,
) -> Result<T> {
    if path.exists() {
        return serde_json::from_str(&crate::error::read_text(path)?)
            .map_err(|e| Error::invalid(path, what, e.to_string()));
    }
    let text =
        serde_json::to_string_pretty(value).map_err(|e| Error::other(format!("{what}: {e}")))?;
    write_text(path, &text)?;
    Ok(value.clone())
}

fn is_temporary(name: &str) -> bool {
    name.starts_with(TEMPORARY)
}

/// Whether a name stands for nothing that a run has.
fn is_nothing(name: &str) -> bool {
    name == LOCK || is_temporary(name)
}

/// Whatever lies in a folder under a name that `meant` holds for.
fn entries(folder: &Path, meant: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if meant(&entry.file_name().to_string_lossy()) {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Removes these, with all that is in them.
fn remove(folder: &Path, meant: impl Fn(&str) -> bool) -> Result<()> {
    for path in entries(folder, meant)? {
        match path.is_dir() && !path.is_symlink() {
            true => fs_err::remove_dir_all(path)?,
            false => fs_err::remove_file(path)?,
        }
    }
    Ok(())
}

pub(super) fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |file| Ok(file.write_all(text.as_bytes())?))
}
