//! `richsem train`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Result, anyhow};
use clap::{CommandFactory as _, error::ErrorKind};
use richsem::{
    Error,
    config::{Config, Preset},
    shell::quoted,
    train::{EvalRow, MetricsRow, NewRun, Outcome, RunFolder, Start, train},
};

use crate::{
    Cli,
    args::{DeviceArgs, weights_file},
    commands::report,
    exit, output, progress,
    progress::TrainProgress,
    ranks::{self, Member, ProcessArgs},
    shorthand::Shorthands,
    signals::Signals,
    table,
};

const USAGE: &str = "\
richsem train --config <FILE> [--set <KEY=VALUE>]... [--run <FOLDER>] [--device <DEVICE> | --gpus <N|all>]
       richsem train --preset <NAME> --data <DATA> [OPTIONS]
       richsem train --resume <RUN> [--device <DEVICE> | --gpus <N|all>]";

const HELP: &str = "\
Examples:
  richsem train -c mine.toml                           mine.toml: `richsem init DATA` writes one
  richsem train -c mine.toml --epochs 12 --lr 0.0002 --set eval.max_detections=100
  richsem train --preset tiny --data DATA              settings that are part of the program
  richsem train -c mine.toml --data train.json --val val.json --images images
  richsem train -c mine.toml --init runs/lvis          other classes, the same model
  richsem train --resume runs/tiny-20260131-120000
  richsem train -c mine.toml --gpus all                 every GPU of this machine
  torchrun --no-python --nnodes 2 … -- richsem train -c mine.toml --run runs/mine
  srun --ntasks-per-node 8 … richsem train -c mine.toml --run runs/mine

Ctrl-C (or SIGTERM) finishes the step, saves everything and says how to continue. A second Ctrl-C
ends at once. The run's folder has config.toml (all settings), metrics.jsonl, tensorboard/, eval/ and
checkpoints/ (last, best). With a validation set it gets report.html at the end.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP, override_usage = USAGE)]
pub(crate) struct Args {
    /// Settings of the new run (TOML), or preset:NAME
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The same as --config
    #[arg(value_name = "FILE.toml", conflicts_with_all = ["config", "preset", "resume"], hide = true)]
    settings: Option<PathBuf>,
    /// Settings that are part of the program, instead of a file: the same as -c preset:NAME. `--preset list`
    /// lists them
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    preset: Option<String>,
    #[command(flatten)]
    shorthands: Shorthands,
    /// Changes one setting, as train.lr=0.0002. May be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Detector to start from: a file of this program, a run folder, or an official checkpoint. Its
    /// classes may be others (sets init.weights)
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// With --init: names of parameters that may be missing, unexpected or of another shape, as
    /// 'class_embed.*'. May be given many times (sets init.allow_missing)
    #[arg(long, value_name = "PATTERN")]
    allow_missing: Vec<String>,
    /// Folder of the new run. Default: runs/CONFIG-DATE-TIME (UTC), with -2, -3, … if that exists
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// Continues the run of that folder, with its own settings
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if args.preset.as_deref() == Some("list") {
        let rows = Config::presets().iter().map(|p| vec![p.name.to_owned(), p.about.to_owned()]);
        output::print(table::table(&["<preset", "<for"], rows))?;
        return Ok(exit::OK);
    }
    ranks::run(&args.processes, |member| run_as(args, member))
}

/// The work of one process.
fn run_as(args: &Args, member: &Member) -> Result<u8> {
    let Prepared { start, config, folder } = match &args.resume {
        Some(folder) => prepare_resume(args, folder)?,
        None => prepare_new(args, member)?,
    };
    let worker = member.worker(&args.device)?;
    let signals = Signals::catch()?;
    let mut progress = TrainProgress::new(&config, Arc::clone(&signals.stop));
    let started = Instant::now();
    let outcome = train(start, &worker, &mut progress, &signals.stop);
    progress.finish();
    let outcome = match outcome {
        Err(Error::Stopped) => {
            output::note("stopped before the first step; what was indexed of the archives is kept");
            return Ok(signals.exit_code());
        }
        outcome => outcome?,
    };
    match outcome {
        Outcome::Finished { .. } if !member.leads() => Ok(exit::OK),
        Outcome::Finished { val, .. } => {
            let time = progress::hms(started.elapsed().as_secs_f64());
            output::note(finished(&folder, &time)?);
            // The run is whole without its report.
            match val.map(|val| report::of_finished(&folder, val, worker.device)) {
                Some(Ok(file)) => output::note(format!("report: {}", file.display())),
                Some(Err(error)) => output::warn(format!(
                    "the report could not be written: {error:#}\n  `richsem report {}` tries again",
                    quoted(&folder)
                )),
                None => {}
            }
            Ok(exit::OK)
        }
        Outcome::Stopped(step) => {
            output::note(format!(
                "stopped at step {step}, everything is saved; continue with\n  richsem train --resume \
                 {}",
                quoted(&folder)
            ));
            Ok(signals.exit_code())
        }
    }
}

/// A run that can start.
struct Prepared {
    start: Start,
    config: Config,
    folder: PathBuf,
}

/// Opens the run of a folder. It keeps its own settings: no other flag may change them.
fn prepare_resume(args: &Args, folder: &Path) -> Result<Prepared> {
    for (given, flag) in [
        (args.config.is_some(), "--config"),
        (args.preset.is_some(), "--preset"),
        (
            !args.shorthands.is_empty(),
            "--data, --val, --images, --epochs, --batch, --imgsz or --lr",
        ),
        (!args.assignments.is_empty(), "--set"),
        (args.init.is_some(), "--init"),
        (!args.allow_missing.is_empty(), "--allow-missing"),
        (args.run.is_some(), "--run"),
    ] {
        if given {
            refuse_with_resume(flag, folder);
        }
    }
    let config = RunFolder::open(folder)?.config()?;
    output::check_new_folder(folder, "--resume")?;
    Ok(Prepared { start: Start::Resume(folder.to_owned()), config, folder: folder.to_owned() })
}

/// Reads the settings and claims a folder, or, in a process that is not of rank 0, is told which it is.
fn prepare_new(args: &Args, member: &Member) -> Result<Prepared> {
    let named = args.preset.as_ref().map(|name| PathBuf::from(format!("preset:{name}")));
    let Some(file) = named.or_else(|| args.settings.clone()).or_else(|| args.config.clone()) else {
        refuse_without_settings(args);
    };
    let preset = Preset::named_by(&file);
    if preset.is_none() {
        check_is_settings(&file)?;
        output::check_input_file(&file, "--config")?;
    }
    let mut assignments = args.assignments.clone();
    if let Some(weights) = &args.init {
        output::check_weights(weights, "--init")?;
        let weights = std::path::absolute(weights_file(weights, "--init")?)?;
        let Some(name) = weights.to_str() else {
            return Err(anyhow!(
                "--init: `{}`: the name is not UTF-8, so the settings cannot hold it\n  hint: rename \
                 the file or its folder",
                weights.display()
            ));
        };
        assignments.push(assignment("init.weights", name));
    }
    if !args.allow_missing.is_empty() {
        assignments.push(assignment("init.allow_missing", args.allow_missing.clone()));
    }
    let config = args.shorthands.apply(&assignments, |all| Config::load(&file, all))?;
    let mut claimed = None;
    let told = member.told_by_first(|| {
        if let Some(folder) = &args.run
            && member.restarts() > 0
            && goes_on(folder, &config)?
        {
            return Ok(GOES_ON.to_owned());
        }
        let run = claim(args.run.as_deref(), preset.map_or(&file, Path::new))?;
        let folder = run.path().to_str().map(str::to_owned);
        claimed = Some(run);
        // Alone, nobody needs to be told.
        match folder {
            None if member.has_others() => Err(anyhow!("--run: the folder's name is not UTF-8")),
            folder => Ok(folder.unwrap_or_default()),
        }
    })?;
    if let (GOES_ON, Some(folder)) = (told.as_str(), &args.run) {
        output::note(format!(
            "started again ({} times by now): goes on with {}",
            member.restarts(),
            folder.display()
        ));
        let folder = folder.clone();
        return Ok(Prepared { start: Start::Resume(folder.clone()), config, folder });
    }
    if args.run.is_none() && std::env::var("TORCHELASTIC_MAX_RESTARTS").is_ok_and(|n| n != "0") {
        output::note(
            "without --run, torchrun's restarts begin anew: they do not know this run's folder",
        );
    }
    let folder = PathBuf::from(told);
    let boxed = Box::new(config.clone());
    Ok(match claimed {
        Some(folder) => {
            let path = folder.path().to_owned();
            Prepared { start: Start::New { config: boxed, folder }, config, folder: path }
        }
        None => {
            let start = Start::Beside { config: boxed, folder: folder.clone() };
            Prepared { start, config, folder }
        }
    })
}

/// Refuses a set of images, or a run, in the place of settings.
fn check_is_settings(file: &Path) -> Result<()> {
    /// Files that are never settings: sets, their archives, images, weights.
    const OTHERS: [&str; 22] = [
        "tar",
        "gz",
        "tgz",
        "zip",
        "json",
        "jsonl",
        "yaml",
        "yml",
        "xml",
        "csv",
        "txt",
        "parquet",
        "jpg",
        "jpeg",
        "png",
        "webp",
        "bmp",
        "tif",
        "pt",
        "pth",
        "safetensors",
        "pkl",
    ];
    let extension = file.extension().and_then(|extension| extension.to_str());
    let other = extension.filter(|e| OTHERS.iter().any(|other| e.eq_ignore_ascii_case(other)));
    if !file.exists() || !file.is_dir() && other.is_none() {
        return Ok(());
    }
    let name = quoted(file);
    let hint = if file.join("checkpoints").is_dir() || file.join("config.toml").is_file() {
        format!(
            "this is a run: `richsem train --resume {name}` goes on with it, `-c {}` starts another \
             one with its settings",
            quoted(file.join("config.toml"))
        )
    } else if let Some("pt" | "pth" | "safetensors" | "pkl") = other {
        format!("weights to start from: `richsem init DATA --weights {name}`")
    } else {
        format!(
            "if it is a set of images, `richsem init {name}` writes settings for it; then richsem train -c FILE.toml"
        )
    };
    let is = if file.is_dir() { "a folder" } else { "another kind of file" };
    let name = file.display();
    Err(anyhow!("--config: `{name}` is {is}, expected settings (FILE.toml)\n  hint: {hint}"))
}

/// What rank 0 tells where a run goes on in the folder that all were given. No folder has this name.
const GOES_ON: &str = "\0";

/// Whether a command that was started again finds its run in the folder, to go on with.
///
/// # Errors
/// The run there is another one.
fn goes_on(folder: &Path, given: &Config) -> Result<bool> {
    let Ok(run) = RunFolder::open(folder) else { return Ok(false) };
    let of_run = run.config()?;
    // What the command leaves open, the run may have settled.
    match given.differences(&of_run).into_iter().find(|of| of.first != "nothing") {
        None => Ok(true),
        Some(difference) => Err(anyhow!(
            "--run: `{}` holds a run with other settings: `{}` is {} there, and {} here\n  hint: go on with \
             --resume, or give this run another folder",
            folder.display(),
            difference.key,
            difference.second,
            difference.first
        )),
    }
}

/// Takes the folder that the user named, or one named after the settings.
fn claim(named: Option<&Path>, config: &Path) -> Result<NewRun> {
    let Some(folder) = named else {
        let folder = default_folder(config);
        output::check_new_folder(&folder, "--run")?;
        return Ok(NewRun::claim_free(&folder)?);
    };
    output::check_new_folder(folder, "--run")?;
    Ok(NewRun::claim(folder)?)
}

/// A flag as an assignment of its setting. JSON's strings, and lists of them, are TOML's too.
fn assignment(key: &str, value: impl Into<serde_json::Value>) -> String {
    format!("{key}={}", value.into())
}

/// Ends with the message and exit code that clap has for a wrong command line.
fn refuse_with_resume(flag: &str, folder: &Path) -> ! {
    let folder = folder.display();
    let problem = format!(
        "{flag} cannot be used with --resume: a run keeps the settings of its folder\n\n  hint: to \
         train longer, raise train.epochs in {folder}/config.toml; for other settings start a new \
         run"
    );
    refuse(ErrorKind::ArgumentConflict, problem)
}

/// The same where nothing says how to train.
fn refuse_without_settings(args: &Args) -> ! {
    let data = args.shorthands.typed("DATA");
    let problem = format!(
        "no settings\n\n  hint: `richsem init {data}` looks at the data and writes them; then richsem train -c \
         FILE.toml. Or take a preset: richsem train --preset tiny --data {data}"
    );
    refuse(ErrorKind::MissingRequiredArgument, problem)
}

fn refuse(kind: ErrorKind, problem: String) -> ! {
    let mut all = Cli::command();
    all.build();
    match all.find_subcommand_mut("train") {
        Some(train) => train.error(kind, problem).exit(),
        None => all.error(kind, problem).exit(),
    }
}

/// The folder of a run without `--run`: `runs/<config>-<date>-<time>`, in UTC.
fn default_folder(config: &Path) -> PathBuf {
    let name = config.file_stem().unwrap_or_default().to_string_lossy();
    let now = time::OffsetDateTime::now_utc();
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second) = now.to_hms();
    let month = u8::from(month);
    Path::new("runs")
        .join(format!("{name}-{year}{month:02}{day:02}-{hour:02}{minute:02}{second:02}"))
}

/// The message at the end of a run: time, what ended it before its last epoch, best AP and weights.
fn finished(folder: &Path, time: &str) -> Result<String> {
    let run = RunFolder::open(folder)?;
    let rows = run.metrics()?;
    let best = EvalRow::best(rows.iter().filter_map(MetricsRow::eval));
    let weights = if best.is_some() { "best" } else { "last" };
    let config = run.config()?;
    let early = run.ended_early(&config)?.map_or_else(String::new, |epoch| {
        format!("; ended by train.patience after epoch {epoch} of {}", config.train.epochs)
    });
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
    Ok(format!("finished in {time}{early}{best}\nweights: {}", weights.display()))
}
