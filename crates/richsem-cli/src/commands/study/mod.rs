//! `richsem study`.

mod place;
mod progress;
mod session;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Result;
use richsem::plural::among;
use richsem::study::{self, Results, Study, StudyTable};
use torch_ext::DeviceChoice;

use crate::{args::device_choice, exit, output, signals::Signals, table};
use session::{Ended, Session};

const HELP: &str = "\
Examples:
  richsem study compare.toml --device cuda --jobs 4
  richsem study compare.toml --device cuda:0,cuda:1 --jobs 8      four runs on each GPU
  richsem study compare.toml --gpus-per-run 2                     each run on two GPUs
  richsem study compare.toml --only RichSem --seeds 1             one run of it
  richsem study compare.toml --table                              what there is so far

compare.toml:
  version = 1
  config = \"base.toml\"                    # settings of every variant; relative to this file
  set = [\"train.epochs=10\"]               # as --set of train, for all variants
  seeds = [1, 2, 3, 4, 5]
  metrics = [\"AP\", \"APr\", \"APc\", \"APf\"]   # columns of the table; these are the default
  [[variant]]
  name = \"baseline\"
  [[variant]]
  name = \"slow\"
  set = [\"train.lr=0.00005\"]              # config = \"FILE\" takes other base settings
  against = [\"baseline\"]                  # differences to show; default: to the first

Each variant is trained with each seed, seed by seed. Each run is a `richsem train` of its own, with
the settings as they are when the study starts. Each finished run is a line of study.jsonl. The table
is printed and written to study.md and, as fractions, to study.json: mean, paired differences and 95 %
t-intervals of the last evaluations. runs/ has the runs with their logs.

Ctrl-C (or SIGTERM) lets the runs save and stop. The same command continues from there, and tries
failed runs again. Several jobs share the CPU's cores, unless OMP_NUM_THREADS or RAYON_NUM_THREADS is
set.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Variants, seeds and metrics (TOML, as below)
    study: PathBuf,
    /// Folder of the results. Default: runs/study-NAME
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Number of runs at the same time. Default: one for each device
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Devices to compute on: cpu, cuda, cuda:N, or auto (the first GPU, else the CPU). Runs are spread
    /// over all devices of a list
    #[arg(long, value_name = "DEVICE,...", default_value = "auto", value_delimiter = ',', value_parser = device_choice)]
    device: Vec<DeviceChoice>,
    /// GPUs of each run, with a process each (train --gpus). Runs are spread over the GPUs of this machine, or
    /// those of --device
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    gpus_per_run: Option<u16>,
    /// Processes of each run, on the CPU (train --processes)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), conflicts_with_all = ["gpus_per_run", "device"])]
    processes: Option<u16>,
    /// Changes one setting of all variants, as train.epochs=2. May be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Trains only this variant. May be given many times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Trains only with these of the study's seeds
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Prints the table of the finished runs, and trains nothing (--jobs and devices are ignored)
    #[arg(long, conflicts_with_all = ["only", "seeds"])]
    table: bool,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    output::check_input(&args.study, "STUDY", "file")?;
    let study = Study::load(&args.study, &args.assignments)?;
    let folder = match &args.out {
        Some(folder) => folder.clone(),
        None => Path::new("runs").join(format!("study-{}", study.name)),
    };
    if args.table {
        output::check_input(&folder, "--out", "folder")?;
        show(&study, &Results::read(&folder)?)?;
        return Ok(exit::OK);
    }
    let selected = study.select(&args.only, &args.seeds)?;
    if let Some((first, second)) = study.same_settings() {
        output::warn(format!("`{first}` and `{second}` have the same settings"));
    }
    output::make_folder(&folder, "--out")?;
    output::make_folder(&folder.join("runs"), "--out")?;
    let _lock = study::lock(&folder)?;
    let (results, message) = Results::open(&folder)?;
    if let Some(message) = message {
        output::warn(message);
    }
    let mut session = Session::new(&study, &folder, results, selected)?;
    let mut code = exit::OK;
    if session.is_work_left() {
        let places = place::places(&args.device, args.processes, args.gpus_per_run)?;
        let jobs = args.jobs.map_or(places.len(), usize::from);
        let signals = Signals::catch()?;
        match session.work(places, jobs, &signals.stop)? {
            Ended::Done { failed: 0 } => {}
            Ended::Done { failed } => {
                output::warn(format!(
                    "failed: {failed} of the runs, see above\n  the same command tries them again"
                ));
                code = exit::ERROR;
            }
            Ended::Stopped => {
                output::note("stopped; the same command continues from here");
                code = signals.exit_code();
            }
        }
    }
    let results = session.into_results();
    StudyTable::new(&study, &results).write(&folder)?;
    show(&study, &results)?;
    output::note(format!("table: {}", folder.join("study.md").display()));
    Ok(code)
}

fn show(study: &Study, results: &Results) -> Result<()> {
    let unknown = results.unknown_lines(study);
    if unknown > 0 {
        output::note(format!(
            "study.jsonl: {} other settings than the study: left out",
            among(unknown, results.lines().len(), "line", ["has", "have"])
        ));
    }
    let known: BTreeSet<&str> =
        results.lines().iter().flat_map(|line| line.metrics.keys()).map(String::as_str).collect();
    for metric in study.metrics.iter().filter(|metric| !known.contains(metric.as_str())) {
        if !known.is_empty() {
            let known: Vec<&str> = known.iter().copied().collect();
            output::warn(format!(
                "metrics: no run has `{metric}`; the runs have {}",
                known.join(", ")
            ));
        }
    }
    let table = StudyTable::new(study, results);
    let mut text = table.caption();
    for (title, rows) in
        [("<variant", table.variant_cells()), ("<difference", table.difference_cells())]
    {
        if !rows.is_empty() {
            let metrics = study.metrics.iter().map(String::as_str);
            let columns: Vec<&str> = [title, "seeds"].into_iter().chain(metrics).collect();
            text += &format!("\n\n{}", table::table(&columns, rows));
        }
    }
    output::print(text)
}
