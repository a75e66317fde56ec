//! `richsem train`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Result, anyhow};
use clap::{CommandFactory as _, error::ErrorKind};
use richsem::{
    config::Config,
    train::{EvalRow, MetricsRow, NewRun, Outcome, RunFolder, Start, Worker, train},
};

use crate::{
    Cli,
    args::{DeviceArgs, weights_file},
    commands::report,
    exit, output, progress,
    progress::TrainProgress,
    signals::Signals,
};

const USAGE: &str = "\
richsem train --config <FILE> [--set <KEY=VALUE>]... [--run <FOLDER>] [--device <DEVICE>]
       richsem train --resume <RUN> [--device <DEVICE>]";

const HELP: &str = "\
Examples:
  richsem train -c configs/tiny.toml
  richsem train -c configs/tiny.toml --set train.lr=0.0002 --set train.epochs=12
  richsem train -c mine.toml --init runs/lvis          other classes, the same model
  richsem train --resume runs/tiny-20260131-120000

Ctrl-C (or SIGTERM) ends the step, saves everything and says how to go on; once more ends at once.
A run's folder holds config.toml (all settings), metrics.jsonl, tensorboard/, eval/, checkpoints/
(last, best) and, with a validation set, report.html at the end.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP, override_usage = USAGE)]
pub(crate) struct Args {
    /// Settings (TOML)
    #[arg(short, long, value_name = "FILE", required_unless_present = "resume")]
    config: Option<PathBuf>,
    /// Changes one setting, as train.lr=0.0002; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Weights of a whole detector to start from, of this program or an official checkpoint; its
    /// classes may be others (the setting init.weights)
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// With --init: names that may be missing, unexpected or of another shape, as 'class_embed.*';
    /// may be given many times (the setting init.allow_missing)
    #[arg(long, value_name = "PATTERN")]
    allow_missing: Vec<String>,
    /// Folder of the new run; runs/CONFIG-DATE-TIME (UTC) unless given, with -2, -3, … where that is
    /// taken
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// Goes on with the run of that folder, with its own settings
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: Args) -> Result<u8> {
    let (start, config, folder) = match args.resume {
        Some(folder) => {
            for (given, flag) in [
                (args.config.is_some(), "--config"),
                (!args.assignments.is_empty(), "--set"),
                (args.init.is_some(), "--init"),
                (!args.allow_missing.is_empty(), "--allow-missing"),
                (args.run.is_some(), "--run"),
            ] {
                if given {
                    refuse_with_resume(flag, &folder);
                }
            }
            let config = RunFolder::open(&folder)?.config()?;
            output::check_new_folder(&folder, "--resume")?;
            (Start::Resume(folder.clone()), config, folder)
        }
        None => {
            let file = args.config.expect("clap asks for it where --resume is absent");
            output::check_input_file(&file, "--config")?;
            let mut assignments = args.assignments;
            if let Some(weights) = &args.init {
                output::check_input(weights, "--init", "file or folder")?;
                let weights = std::path::absolute(weights_file(weights, "--init")?)?;
                let Some(name) = weights.to_str() else {
                    return Err(anyhow!(
                        "--init: `{}`: the name is not UTF-8, the settings could not hold it\n  \
                         hint: rename the file or its folder",
                        weights.display()
                    ));
                };
                assignments.push(assignment("init.weights", name));
            }
            if !args.allow_missing.is_empty() {
                assignments.push(assignment("init.allow_missing", args.allow_missing));
            }
            let config = Config::load(&file, &assignments)?;
            let run = match args.run {
                Some(folder) => {
                    output::check_new_folder(&folder, "--run")?;
                    NewRun::claim(&folder)?
                }
                None => {
                    let folder = default_folder(&file);
                    output::check_new_folder(&folder, "--run")?;
                    NewRun::claim_free(&folder)?
                }
            };
            let folder = run.path().to_owned();
            (Start::New { config: Box::new(config.clone()), folder: run }, config, folder)
        }
    };
    let device = args.device.resolve()?;
    let signals = Signals::catch()?;
    let mut progress = TrainProgress::new(&config, Arc::clone(&signals.stop));
    let started = Instant::now();
    let outcome = train(start, &Worker::alone(device), &mut progress, &signals.stop);
    progress.finish();
    match outcome? {
        Outcome::Finished { val, .. } => {
            let time = progress::hours(started.elapsed().as_secs_f64());
            output::note(finished(&folder, &time)?);
            // The run is whole without its report.
            match val.map(|val| report::of_finished(&folder, val, device)) {
                Some(Ok(file)) => output::note(format!("report: {}", file.display())),
                Some(Err(error)) => output::warn(format!(
                    "the report could not be written: {error:#}\n  `richsem report {}` tries again",
                    folder.display()
                )),
                None => {}
            }
            Ok(exit::OK)
        }
        Outcome::Stopped(step) => {
            output::note(format!(
                "stopped at step {step}, everything is saved; go on with\n  richsem train --resume \
                 {}",
                folder.display()
            ));
            Ok(signals.exit_code())
        }
    }
}

/// A flag as the setting it stands for. JSON's strings and lists of them are TOML's, too.
fn assignment(key: &str, value: impl Into<serde_json::Value>) -> String {
    format!("{key}={}", value.into())
}

/// A wrong command line, told as clap tells it.
fn refuse_with_resume(flag: &str, folder: &Path) -> ! {
    let folder = folder.display();
    let problem = format!(
        "{flag} cannot be used with --resume: a run keeps the settings of its folder\n\n  hint: to \
         train longer, raise train.epochs in {folder}/config.toml; for other settings start a new \
         run"
    );
    Cli::command().error(ErrorKind::ArgumentConflict, problem).exit()
}

/// `runs/<config>-<date>-<time>`.
fn default_folder(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or_default().to_string_lossy();
    let now = time::OffsetDateTime::now_utc();
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second) = now.to_hms();
    let month = u8::from(month);
    Path::new("runs")
        .join(format!("{name}-{year}{month:02}{day:02}-{hour:02}{minute:02}{second:02}"))
}

/// What to say at the end, and what one would want next.
fn finished(folder: &Path, time: &str) -> Result<String> {
    let run = RunFolder::open(folder)?;
    let rows = run.metrics()?;
    let best = EvalRow::best(rows.iter().filter_map(MetricsRow::eval));
    let weights = if best.is_some() { "best" } else { "last" };
    let best = match best.map(|row| (row, row.ap())) {
        None => String::new(),
        Some((row, Some(ap))) => format!("; best AP {:.1} after epoch {}", 100.0 * ap, row.epoch),
        Some((row, None)) => {
            let boxes = run.summary(row.epoch)?.boxes;
            let why = match boxes {
                0 => "data.val has no boxes".to_owned(),
                _ => format!("none of data.val's {boxes} boxes counts (crowds, or ignored)"),
            };
            format!("; no AP: {why}, so nothing could be evaluated")
        }
    };
    let weights = run.file("checkpoints").join(weights).join("model.safetensors");
    Ok(format!("finished in {time}{best}\nweights: {}", weights.display()))
}
