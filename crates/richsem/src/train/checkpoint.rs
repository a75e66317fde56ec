//! Checkpoints: `checkpoints/step-000001200/` with `model.safetensors` (all that inference needs),
//! `training.safetensors` (weights, moments, EMA), `config.toml` (the settings it was trained
//! with last) and `state.json`; `last` and `best` are
//! links to such folders. A folder appears under its name only when it is complete, and is never
//! written again while a link points to it, so a kill at any moment leaves the one before.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{
    Learner,
    rows::MetricsRow,
    run_folder::{RunFolder, SETTINGS, write_text},
};
use crate::{
    argument::Argument,
    checkpoint_io::safetensors,
    config::Config,
    data::interleaved::Interleaved,
    detector::TEXT_TABLE,
    error::{Error, Result, TEMPORARY},
    models::parameters::{Parameter, Role},
    plural::counted,
};

const VERSION: u32 = 1;
/// Metadata of `training.safetensors`: which parameter lies where.
const LAYOUT: &str = "layout";

/// What to do when `last` cannot be read.
pub(super) const DAMAGED: &str = "the checkpoint is damaged: point `last` to another one, as with \
                       `ln -sfn step-000001200 checkpoints/last`, or start a new run";

/// Where a run stands: the keys of all its randomness, and what is still to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Version of this record.
    pub version: u32,
    /// Epoch, from 0.
    pub epoch: u64,
    /// Batches of this epoch that are done.
    pub batch: u64,
    /// Batches since the start of the run.
    pub micro_steps: u64,
    /// Updates since the start of the run.
    pub updates: u64,
    /// Processes of the run: with another number each batch would be another one.
    #[serde(default = "one")]
    pub world: u64,
    /// The epoch before this one is trained but not evaluated.
    pub pending_eval: bool,
    /// Best AP so far and the step it was evaluated at: what the link `best` points to. Where no
    /// evaluation had anything to evaluate, there is no AP, and the step is the last's.
    pub best: Option<(Option<f64>, u64)>,
    /// What the next row of `metrics.jsonl` is to be the mean of, so far.
    #[serde(default, rename = "window")]
    pub since_log: LogSums,
}

/// Of runs before there could be several.
fn one() -> u64 {
    1
}

impl Position {
    /// Of a run of that many processes.
    #[must_use]
    pub fn start(world: u64) -> Self {
        Self {
            version: VERSION,
            epoch: 0,
            batch: 0,
            micro_steps: 0,
            updates: 0,
            world,
            pending_eval: false,
            best: None,
            since_log: LogSums::default(),
        }
    }
}

impl Position {
    /// Goes on with another number of processes: at the image of the epoch where it stands, or, where a batch
    /// of all processes would begin before it, there. Says so.
    pub(super) fn go_on_with(
        &mut self,
        world: u64,
        batches: &Interleaved,
        accumulate: u64,
    ) -> Option<String> {
        if self.world == world {
            return None;
        }
        let before = std::mem::replace(&mut self.world, world);
        // Whole updates; the last one is left where the epoch is shorter now.
        let last = batches.batches(self.epoch).saturating_sub(accumulate);
        let batch = (self.batch * before / world).min(last) / accumulate * accumulate;
        self.batch = batch;
        self.micro_steps = (0..self.epoch).map(|e| batches.batches(e)).sum::<u64>() + batch;
        Some(format!(
            "the run had {} until now and has {world} from now on: it goes on in epoch {} at batch {batch}; a \
             step has {world} / {before} times as many images, and the learning rates stay as they are",
            counted(before as usize, "process"),
            self.epoch + 1
        ))
    }

    /// Where the last checkpoint of a run stands; `None` before the first.
    ///
    /// # Errors
    /// A record that is broken or of another release.
    pub fn of_run(run: &RunFolder) -> Result<Option<Self>> {
        let folder = run.file("checkpoints").join("last");
        if !folder.is_symlink() {
            return Ok(None);
        }
        if !folder.exists() {
            let target = fs_err::read_link(&folder)?;
            let problem = format!("points to `{}`, which is missing", target.display());
            return Err(Error::invalid(&folder, "link", problem).with_hint(DAMAGED));
        }
        let path = folder.join("state.json");
        let position: Self = serde_json::from_str(&crate::error::read_text(&path)?)
            .map_err(|e| Error::invalid(&path, "state", e.to_string()).with_hint(DAMAGED))?;
        if position.version != VERSION {
            let problem = format!("expected {VERSION}, got {}", position.version);
            return Err(Error::invalid(&path, "version", problem)
                .with_hint("resume with the release that started the run"));
        }
        Ok(Some(position))
    }
}

/// Sums since the row before. Part of a checkpoint, so that the row after a stop between two rows
/// is the mean of what came before the stop, too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSums {
    pub(super) batches: u64,
    pub(super) updates: u64,
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
    /// Sum and number of each term: extra batches have terms of their own.
    pub(super) terms: BTreeMap<String, (f64, u64)>,
    #[serde(default)]
    pub(super) images: u64,
    /// Speed is of this process alone: two runs never have the same.
    #[serde(skip)]
    pub(super) seconds: f64,
    /// The images of those seconds.
    #[serde(skip)]
    pub(super) timed_images: u64,
}

/// The settings of a checkpoint, beside its weights.
pub(super) fn settings_of(checkpoint: &Path) -> PathBuf {
    checkpoint.join(SETTINGS)
}

fn folder_name(updates: u64) -> String {
    format!("step-{updates:09}")
}

/// Writes a checkpoint and points `last` to it.
pub(super) fn save(
    run: &RunFolder,
    config: &Config,
    learner: &Learner,
    position: &Position,
) -> Result<PathBuf> {
    let Learner { model, optimizer, .. } = learner;
    let checkpoints = run.file("checkpoints");
    let path = checkpoints.join(folder_name(position.updates));
    let folder = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(&checkpoints)?;
    learner.evaluated().save(&folder.path().join("model.safetensors"))?;
    let mut tensors = optimizer.state();
    for parameter in model.parameters() {
        if parameter.role.is_buffer() {
            tensors.insert(format!("buffer.{}", parameter.name), parameter.tensor);
        }
    }
    safetensors::write(
        &folder.path().join("training.safetensors"),
        &tensors,
        &[(LAYOUT.to_owned(), optimizer.layout())].into(),
    )?;
    write_text(&settings_of(folder.path()), &config.to_toml())?;
    write_position(folder.path(), position)?;
    // Temporary folders are private; a checkpoint is as readable as the rest of the run.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs_err::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    }
    // Left by a run that was killed before `last` pointed to it.
    if path.exists() {
        fs_err::remove_dir_all(&path)?;
    }
    fs_err::rename(folder.keep(), &path)?;
    link(&checkpoints, "last", &folder_name(position.updates))?;
    Ok(path)
}

/// Records that the evaluation of a saved epoch is done.
pub(super) fn write_position(checkpoint: &Path, position: &Position) -> Result<()> {
    let text = serde_json::to_string_pretty(position)
        .map_err(|e| Error::other(format!("state.json: {e}")))?;
    write_text(&checkpoint.join("state.json"), &text)
}

/// Points `checkpoints/<name>` to a checkpoint, in one step.
pub(super) fn link(checkpoints: &Path, name: &str, target: &str) -> Result<()> {
    let temporary = checkpoints.join(format!(".tmp-link-{name}"));
    let _ = fs_err::remove_file(&temporary);
    fs_err::os::unix::fs::symlink(target, &temporary)?;
    Ok(fs_err::rename(&temporary, checkpoints.join(name))?)
}

pub(super) fn link_best(run: &RunFolder, updates: u64) -> Result<()> {
    link(&run.file("checkpoints"), "best", &folder_name(updates))
}

/// Removes checkpoints that are neither `last`, nor `best`, nor of the end of every `keep`-th epoch (0: of none).
pub(super) fn prune(run: &RunFolder, position: &Position, keep: u64) -> Result<()> {
    let rows = if keep > 0 { run.metrics()? } else { Vec::new() };
    let kept: Vec<u64> = rows
        .iter()
        .filter_map(|row| match row {
            MetricsRow::Eval(row) if row.epoch % keep == 0 => Some(row.step),
            _ => None,
        })
        .collect();
    let checkpoints = run.file("checkpoints");
    // Not the present step's: an epoch can end without a save.
    let last = fs_err::read_link(checkpoints.join("last")).ok();
    for entry in fs_err::read_dir(&checkpoints)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(step) = name.strip_prefix("step-").and_then(|s| s.parse::<u64>().ok()) else {
            continue;
        };
        let best = position.best.is_some_and(|(_, at)| at == step);
        let is_last = last.as_deref().is_some_and(|target| target.as_os_str() == &*name);
        if !is_last && !best && !kept.contains(&step) {
            fs_err::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Restores the last checkpoint; `None` if the run was killed before its first.
pub(super) fn resume(run: &RunFolder, learner: &mut Learner) -> Result<Option<Position>> {
    let Some(position) = Position::of_run(run)? else { return Ok(None) };
    let folder = run.file("checkpoints").join("last");
    let Learner { model, optimizer, .. } = learner;
    let path = folder.join("training.safetensors");
    let (tensors, metadata) = safetensors::read(&path).map_err(|e| e.with_hint(DAMAGED))?;
    let layout = metadata.get(LAYOUT).map_or("", String::as_str);
    optimizer.load_state(&tensors, layout, position.updates as i64, &path)?;
    for parameter in model.parameters() {
        if parameter.role.is_buffer() {
            restore(&parameter, &tensors, &format!("buffer.{}", parameter.name), &path)?;
        }
    }
    // Frozen weights are in neither: they are what inference uses.
    let path = folder.join("model.safetensors");
    let (weights, _) = safetensors::read(&path).map_err(|e| e.with_hint(DAMAGED))?;
    for parameter in model.parameters() {
        if parameter.role == Role::Frozen {
            restore(&parameter, &weights, &parameter.name, &path)?;
        }
    }
    if let (Some(text), Some(saved)) = (model.detector.classes().text(), weights.get(TEXT_TABLE)) {
        check_text(&text.rows, saved, &path)?;
    }
    Ok(Some(position))
}

/// The class head's text is read anew at each start; of other words it would be another head.
fn check_text(rows: &Tensor, saved: &Tensor, path: &Path) -> Result<()> {
    let same = rows.size() == saved.size() && {
        let (rows, saved) = (rows.to_device(tch::Device::Cpu), saved.to_kind(tch::Kind::Float));
        let largest = |x: &Tensor| x.abs().max().double_value(&[]);
        // A teacher's text may have been computed on another device.
        largest(&(rows.to_kind(tch::Kind::Float) - &saved)) <= 1e-2 * largest(&saved)
    };
    if same {
        return Ok(());
    }
    let problem = "the class head's text was another one until the checkpoint";
    Err(Error::invalid(path, TEXT_TABLE, problem).with_hint(format!(
        "put model.class_head.table, or the teacher and its text, back, or begin a new run with {}",
        Argument::Init
    )))
}

fn restore(
    parameter: &Parameter,
    saved: &BTreeMap<String, Tensor>,
    name: &str,
    path: &Path,
) -> Result<()> {
    let value =
        saved.get(name).filter(|v| v.size() == parameter.tensor.size()).ok_or_else(|| {
            let problem = format!("missing, or not of shape {:?}", parameter.tensor.size());
            Error::invalid(path, name, problem).with_hint(DAMAGED)
        })?;
    torch_ext::no_grad(|| parameter.tensor.shallow_clone().f_copy_(value))?;
    Ok(())
}
