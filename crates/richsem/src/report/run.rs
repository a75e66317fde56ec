//! Gathers what the report of a run shows from the run's folder. If the run has no evaluation, no checkpoint or
//! no images, these are left out, and a note says so: an unfinished run has a report too.

use std::path::{Path, PathBuf};

use tch::Device;

use super::{
    Drawn, NamedSummary, ReportData, RunOptions, Series,
    facts::{self, Progress},
    names, percent, things,
};
use crate::{
    config::Config,
    detector::Detector,
    error::{Error, Result, guarded},
    evaluate::Summary,
    gallery,
    train::{EvalRow, MetricsRow, OpenedSet, Position, RunFolder, TrainRow},
};

/// Gathers the report of a run: its best evaluation, its curves, and images by its best
/// checkpoint (the last one where none was evaluated), computed on `device`.
///
/// # Errors
/// Files of the run that cannot be read or are not what they should be; a run in
/// `options.compare` that is none or was never evaluated. Images, annotations or weights that
/// cannot be read are noted in the report instead.
pub fn run(run: &RunFolder, options: &RunOptions, device: Device) -> Result<ReportData> {
    let config = run.config()?;
    let rows = run.metrics()?;
    let evals: Vec<&EvalRow> = rows.iter().filter_map(MetricsRow::eval).collect();
    let mut progress = Progress {
        position: Position::of_run(run)?,
        train: rows
            .iter()
            .filter_map(|row| match row {
                MetricsRow::Train(row) => Some(row),
                MetricsRow::Eval(_) => None,
            })
            .collect(),
        best: EvalRow::best(evals.iter().copied()),
        last: evals.last().copied(),
        parameters: None,
        vocabulary: run.vocabulary()?,
    };
    let summary = progress.best.map(|row| run.summary(row.epoch)).transpose()?;
    let mut folders = vec![run.path()];
    folders.extend(options.compare.iter().map(PathBuf::as_path));
    let mut names = names::of_runs(&folders).into_iter();
    let own = names.next().unwrap_or_default();
    let title = options.name.clone().unwrap_or(own);
    let others = others(options.compare.iter().zip(names), progress.best)?;
    // Beside other runs, its name says how long it was trained, as theirs do.
    let name = match progress.best.filter(|_| !others.is_empty()) {
        Some(row) => trained(&title, row),
        None => title.clone(),
    };

    let mut notes = options.notes.clone();
    let early = run.ended_early(&config)?;
    note_state(&config, (&progress, early), !others.is_empty(), &mut notes);
    let drawn = draw(run, &config, summary.as_ref(), (options, device), &mut progress, &mut notes);
    Ok(ReportData {
        title,
        facts: facts::facts(&config, &progress),
        settings: config.to_toml(),
        loss: loss_curves(&progress.train, &evals),
        ap: ap_curves(&evals),
        name,
        summary,
        others,
        labels: run.labels()?,
        misses: drawn.misses,
        false_alarms: drawn.false_alarms,
        images: drawn.images,
        notes,
    })
}

/// The images of a report.
#[derive(Default)]
struct Images {
    misses: Vec<Drawn>,
    false_alarms: Vec<Drawn>,
    images: Vec<Drawn>,
}

/// Draws all images. What cannot be read is noted, and left out.
fn draw(
    run: &RunFolder,
    config: &Config,
    summary: Option<&Summary>,
    (options, device): (&RunOptions, Device),
    progress: &mut Progress<'_>,
    notes: &mut Vec<String>,
) -> Images {
    let mut drawn = Images::default();
    let detector = guarded(|| load(run, device));
    let split = config.data.val.as_ref().filter(|_| options.images > 0);
    let set = split.map(|split| options.val.clone().map_or_else(|| OpenedSet::open(split), Ok));
    let set = match set.transpose() {
        Ok(set) => set,
        Err(error) => {
            notes.push(format!("Images are left out: {error}"));
            None
        }
    };
    if let (Some(set), Some(details)) = (&set, summary.and_then(|s| s.details.as_ref())) {
        drawn.misses = gallery::show_mistakes(&details.misses, set.images(), notes);
        drawn.false_alarms = gallery::show_mistakes(&details.false_alarms, set.images(), notes);
    }
    match detector {
        Ok(None) => notes.push("There is no checkpoint yet, so no predictions to show.".to_owned()),
        Ok(Some(detector)) => {
            progress.parameters = Some(detector.trainable_count());
            let shown = (options.images, options.least_score);
            let images =
                set.map(|set| guarded(|| gallery::show(&detector, set.images(), shown, notes)));
            drawn.images = images
                .transpose()
                .unwrap_or_else(|error| {
                    notes.push(format!("Images are left out: {error}"));
                    None
                })
                .unwrap_or_default();
        }
        Err(error) => notes.push(format!("Images are left out: {error}")),
    }
    // A broken image may be met in several places.
    let mut seen = std::collections::HashSet::new();
    notes.retain(|note| seen.insert(note.clone()));
    drawn
}

/// Evaluations of the runs to compare with, which have names.
fn others<'a>(
    runs: impl Iterator<Item = (&'a PathBuf, String)>,
    best: Option<&EvalRow>,
) -> Result<Vec<NamedSummary>> {
    let mut others = Vec::new();
    for (folder, name) in runs {
        others.extend(compared(folder, &name, best)?);
    }
    Ok(others)
}

/// Another run's evaluation at the epoch that is shown of this one, if it has one, and its best.
fn compared(folder: &Path, name: &str, own: Option<&EvalRow>) -> Result<Vec<NamedSummary>> {
    let run = RunFolder::open(folder)?;
    let rows = run.metrics()?;
    let rows: Vec<&EvalRow> = rows.iter().filter_map(MetricsRow::eval).collect();
    let best = EvalRow::best(rows.iter().copied()).ok_or_else(|| {
        Error::invalid(folder, "metrics.jsonl", "no evaluation yet: nothing to compare with")
            .with_hint("compare with a run whose data.val is set and that has finished an epoch")
    })?;
    let at = |row: &&EvalRow| own.is_some_and(|own| row.epoch == own.epoch);
    let same = rows.iter().copied().find(at).filter(|row| row.epoch != best.epoch);
    let shown = same.into_iter().chain([best]);
    shown
        .map(|row| Ok(NamedSummary { name: trained(name, row), summary: run.summary(row.epoch)? }))
        .collect()
}

/// A run's name, and for how long it was trained when it was evaluated.
fn trained(name: &str, row: &EvalRow) -> String {
    format!("{name}, epoch {}, {}", row.epoch, things(row.step as usize, "step"))
}

/// The detector of the best checkpoint, or of the last one; `None` before the first.
fn load(run: &RunFolder, device: Device) -> Result<Option<Detector>> {
    let files =
        ["best", "last"].map(|name| run.file("checkpoints").join(name).join("model.safetensors"));
    let Some(file) = files.iter().find(|file| file.is_file()) else { return Ok(None) };
    Detector::load(file, device).map(Some)
}

/// Adds notes of what a reader must know before the numbers.
fn note_state(
    config: &Config,
    (progress, early): (&Progress<'_>, Option<u64>),
    compared: bool,
    notes: &mut Vec<String>,
) {
    let epochs = config.train.epochs;
    let done = progress.position.as_ref().map_or(0, |position| position.epoch);
    if let Some(epoch) = early {
        notes.push(format!("train.patience ended the run after epoch {epoch} of {epochs}."));
    } else if done < epochs {
        notes.push(format!("The run is not finished: {done} of {epochs} epochs are done."));
    }
    let (Some(best), Some(last)) = (progress.best, progress.last) else {
        notes.push(match config.data.val {
            None => "Nothing is evaluated: the run has no validation set (data.val).".to_owned(),
            Some(_) => "Nothing is evaluated yet.".to_owned(),
        });
        if compared {
            notes.push("So there is nothing to compare the other runs with.".to_owned());
        }
        return;
    };
    if best.ap().is_none() {
        notes.push("There is no AP: no box of data.val counts, so none can be missed.".to_owned());
    }
    if best.epoch != last.epoch {
        let ap = |row: &EvalRow| percent(row.ap());
        notes.push(format!(
            "Results and images are of the best checkpoint, after epoch {} (AP {}); the last \
             evaluated, after epoch {}, has AP {}.",
            best.epoch,
            ap(best),
            last.epoch,
            ap(last)
        ));
    }
}

/// The objective, that of the validation set, and the terms of the last decoder layer.
fn loss_curves(rows: &[&TrainRow], evals: &[&EvalRow]) -> Vec<Series> {
    let curve = |name: &str, short: &str, value: &dyn Fn(&TrainRow) -> Option<f64>| Series {
        name: name.to_owned(),
        short: short.to_owned(),
        exact: false,
        points: rows.iter().filter_map(|row| Some((row.step as f64, value(row)?))).collect(),
    };
    let term = |key: &'static str| move |row: &TrainRow| row.terms.get(key).copied();
    let validation = Series {
        name: "validation set".to_owned(),
        short: "validation".to_owned(),
        exact: true,
        points: evals.iter().filter_map(|row| Some((row.step as f64, row.loss?))).collect(),
    };
    let mut curves = vec![
        curve("total of all layers", "total", &|row| Some(row.loss)),
        validation,
        curve("last layer: class", "class", &term("loss_ce")),
        curve("last layer: L1", "L1", &term("loss_bbox")),
        curve("last layer: GIoU", "GIoU", &term("loss_giou")),
    ];
    curves.retain(|curve| !curve.points.is_empty());
    curves
}

/// AP of all classes and of each group; groups without classes have no curve.
fn ap_curves(rows: &[&EvalRow]) -> Vec<Series> {
    let names = ["AP", "APr", "APc", "APf", "AP50"];
    let curve = |name: &str| Series {
        name: name.to_owned(),
        short: name.to_owned(),
        exact: true,
        points: rows
            .iter()
            .filter_map(|row| Some((row.epoch as f64, (*row.metrics.get(name)?)?)))
            .collect(),
    };
    let mut curves: Vec<Series> = names.into_iter().map(curve).collect();
    curves.retain(|curve| !curve.points.is_empty());
    curves
}
