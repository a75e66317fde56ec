//! How far a planned run is, from its folder.

use std::{
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
};

use crate::{
    argument::Argument,
    config::{Config, Difference},
    error::{Error, Result},
    train::{EvalRow, MetricsRow, Position, RunFolder},
};

/// How far a run is.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// The run is not started.
    New,
    /// There are settings, and perhaps checkpoints: the run can be resumed.
    Unfinished,
    /// All epochs are trained and evaluated, or all before `train.patience` ended the run. This is the last evaluation.
    Finished(EvalRow),
}

/// Looks into a run's folder. `wanted` are the settings it should have.
///
/// # Errors
/// A folder that is no run's; a run with other settings, naming the first key that differs; files
/// that cannot be read.
pub fn run_state(folder: &Path, wanted: &Config) -> Result<RunState> {
    if !folder.join("config.toml").is_file() {
        return match RunFolder::check_new(folder) {
            Ok(()) => Ok(RunState::New),
            Err(_) => {
                Err(Error::invalid(folder, "config.toml", "missing: this is not a run folder")
                    .with_hint("move the folder away: the study wants to train there"))
            }
        };
    }
    let run = RunFolder::open(folder)?;
    let config = run.config()?;
    let mut wanted = wanted.clone();
    if wanted.model.padding_setting().is_none() {
        // The settings leave it open, and a run decides it: by the weights that it starts from, or as runs
        // from scratch do now. A run of an earlier release may have decided otherwise.
        let padding = match wanted.init {
            Some(_) => config.model.padding_setting(),
            None => Some(wanted.model.padding()),
        };
        wanted.model.set_padding(padding);
    }
    if let (Some(wanted), Some(settled)) = (&mut wanted.teacher, &config.teacher) {
        // The activation is decided in the same way.
        wanted.activation = wanted.activation.or(settled.activation);
    }
    let different = config.differences(&wanted);
    if let Some(Difference { key, first, second }) = different.first() {
        let more = match different.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        let problem = format!("the run has {first}, the study asks for {second}{more}");
        return Err(Error::invalid(&run.file("config.toml"), key, problem).with_hint(format!(
            "put the setting back, choose another folder with {}, or move this one away to train \
             the run anew",
            Argument::Out
        )));
    }
    let whole = Position::of_run(&run)?
        .is_some_and(|position| position.epoch >= config.train.epochs && !position.pending_eval);
    let done = whole || run.ended_early(&config)?.is_some();
    let rows = if done { run.metrics()? } else { Vec::new() };
    let last = rows.iter().rev().find_map(MetricsRow::eval);
    Ok(last.map_or(RunState::Unfinished, |row| RunState::Finished(row.clone())))
}

/// The last whole row of a run's `metrics.jsonl`, if there is one yet. Only the end of the file is
/// read.
#[must_use]
pub fn last_row(folder: &Path) -> Option<MetricsRow> {
    /// Far more than two rows.
    const END: u64 = 64 << 10;
    let mut file = std::fs::File::open(folder.join("metrics.jsonl")).ok()?;
    let length = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(length.saturating_sub(END))).ok()?;
    let mut end = Vec::new();
    file.read_to_end(&mut end).ok()?;
    end.split(|&byte| byte == b'\n').rev().find_map(|line| serde_json::from_slice(line).ok())
}
