//! `study.jsonl`: one line for each finished run. Lines are only added.

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{PlannedRun, Study};
use crate::error::{Error, Result, problem_in_line, write_atomically};

/// A finished run, one line of `study.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResultLine {
    /// Name of the variant.
    pub variant: String,
    /// Seed of the run.
    pub seed: u64,
    /// Its last evaluation: AP, AP50, …; fractions, null where nothing could be evaluated.
    pub metrics: BTreeMap<String, Option<f64>>,
    /// Number of steps of the whole run.
    pub steps: u64,
    /// Seconds from start to end of its process, loading and evaluating included. Null if the run
    /// was stopped and resumed, or found finished.
    pub seconds: Option<f64>,
    /// The device that trained it, as `cuda:0`. Null if the run was found finished.
    pub device: Option<String>,
    /// Fingerprint of the settings, see [`PlannedRun::config_hash`].
    pub config_hash: String,
}

/// The lines of a study's folder.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    lines: Vec<ResultLine>,
    /// Number of bytes after the last whole line: a process was killed while it wrote them.
    cut_off: usize,
}

impl Results {
    /// Reads `study.jsonl` of a folder. Without that file there are no lines. The file is not
    /// changed. A last line that a killed process left unfinished does not count.
    ///
    /// # Errors
    /// Any other line that is none.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("study.jsonl");
        let mut results = Self { path, lines: Vec::new(), cut_off: 0 };
        if !results.path.exists() {
            return Ok(results);
        }
        let bytes = fs_err::read(&results.path)?;
        let mut lines = bytes.split(|&byte| byte == b'\n').enumerate().peekable();
        while let Some((i, line)) = lines.next() {
            let is_last = lines.peek().is_none();
            match serde_json::from_slice(line) {
                Ok(line) => results.lines.push(line),
                Err(_) if is_last => results.cut_off = line.len(),
                Err(error) => {
                    let place = format!("line {}", i + 1);
                    return Err(Error::invalid(&results.path, place, problem_in_line(&error)).with_hint(
                        "the file was edited or damaged: remove that line; its run is then read \
                         from its folder",
                    ));
                }
            }
        }
        Ok(results)
    }

    /// As [`Self::read`], and makes the file ready for more lines: what follows the last whole line
    /// is taken out. The message says so.
    ///
    /// # Errors
    /// As [`Self::read`]; a file that cannot be written.
    pub fn open(folder: &Path) -> Result<(Self, Option<String>)> {
        let mut results = Self::read(folder)?;
        let message = (results.cut_off > 0).then(|| {
            format!(
                "{}: the last line was cut off while it was written. It is dropped, and its run is \
                 read from its folder",
                results.path.display()
            )
        });
        if results.path.exists() {
            let bytes = fs_err::read(&results.path)?;
            let mut whole = bytes[..bytes.len() - results.cut_off].to_vec();
            if whole.last().is_some_and(|&byte| byte != b'\n') {
                whole.push(b'\n');
            }
            if whole != bytes {
                write_atomically(&results.path, |file| Ok(file.write_all(&whole)?))?;
            }
        }
        results.cut_off = 0;
        Ok((results, message))
    }

    /// All lines, in the order they were written.
    #[must_use]
    pub fn lines(&self) -> &[ResultLine] {
        &self.lines
    }

    /// The line of a run with exactly these settings; the last if there are several.
    #[must_use]
    pub fn of(&self, study: &Study, run: &PlannedRun) -> Option<&ResultLine> {
        self.lines.iter().rev().find(|line| is_of(line, study, run))
    }

    /// Number of lines that no run of the study has: of other settings, variants or seeds.
    #[must_use]
    pub fn unknown_lines(&self, study: &Study) -> usize {
        let is_known = |line: &&ResultLine| study.runs.iter().any(|run| is_of(line, study, run));
        self.lines.len() - self.lines.iter().filter(is_known).count()
    }

    /// Adds a line; it is on disk when this returns.
    ///
    /// # Errors
    /// A full disk and the like.
    pub fn append(&mut self, line: ResultLine) -> Result<()> {
        let mut file = fs_err::OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(&as_bytes(&line)?)?;
        file.sync_all()?;
        self.lines.push(line);
        Ok(())
    }
}

fn is_of(line: &ResultLine, study: &Study, run: &PlannedRun) -> bool {
    line.config_hash == run.config_hash
        && line.seed == run.seed
        && line.variant == study.variants[run.variant].name
}

fn as_bytes(line: &ResultLine) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec(line).map_err(|e| Error::other(format!("study.jsonl: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
