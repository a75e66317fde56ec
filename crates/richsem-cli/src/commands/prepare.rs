//! `richsem prepare`.

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use richsem::{
    Error,
    config::{Config, Preset},
    plural::counted,
    prepare::{PrepareObserver, prepare},
};

use crate::{
    args::DeviceArgs,
    exit, output,
    progress::{self, Counter},
    ranks::{self, Member, ProcessArgs},
    signals::Signals,
};

const HELP: &str = "\
Examples:
  richsem prepare -c richsem.toml --set data.augment.crop.probability=0 --out labels
  richsem train   -c richsem.toml --set data.augment.crop.probability=0 \\
      --set teacher.prepared=labels

The teacher labels every training image once at each of data.augment.scales, as it is and mirrored.
Training then reads these labels, and never loads the teacher (teacher.weights need not be there).
The command says first how much work that is. Crops (data.augment.crop) and mosaics
(data.extra.NAME.form) show random parts of images: they cannot be prepared, and are refused.

Ctrl-C ends at once. Whole shards stay, and the same command continues after them.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Settings of the training (TOML)
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Changes one setting, as data.augment.flip=0. May be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Folder for the labels: a new one, or one that this command began
    #[arg(short, long, value_name = "FOLDER")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    ranks::run(&args.processes, |member| run_as(args, member))
}

/// The work of one process.
fn run_as(args: &Args, member: &Member) -> Result<u8> {
    if Preset::named_by(&args.config).is_none() {
        output::check_input_file(&args.config, "--config")?;
    }
    output::check_new_folder(&args.out, "--out")?;
    let config = Config::load(&args.config, &args.assignments)?;
    let worker = member.worker(&args.device)?;
    let signals = Signals::catch()?;
    let started = Instant::now();
    let mut progress = PrepareProgress(Counter::new("labelling", 0));
    let done = prepare(&config, &args.out, &worker, &mut progress, &signals.stop);
    drop(progress);
    let out = args.out.display();
    let report = match done {
        Err(Error::Stopped) => {
            output::note(format!(
                "stopped: the whole shards stay in `{out}`; the same command continues after them"
            ));
            return Ok(signals.exit_code());
        }
        done => done?,
    };
    output::note(format!(
        "finished in {}: {}; {} made, {} there before\ntrain with\n  --set teacher.prepared={out}",
        progress::hms(started.elapsed().as_secs_f64()),
        counted(report.rows as usize, "row"),
        counted(report.made, "shard"),
        report.kept,
    ));
    Ok(exit::OK)
}

struct PrepareProgress(Counter);

impl PrepareObserver for PrepareProgress {
    fn message(&mut self, text: &str) {
        self.0.note(text);
    }

    fn views(&mut self, done: u64, total: u64) {
        self.0.set(done as usize, total as usize);
    }
}
