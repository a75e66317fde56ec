//! `richsem report`.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use richsem::{
    error::write_atomically,
    report::{self, RunOptions},
    train::{OpenedSet, RunFolder},
};
use tch::Device;

use crate::{
    args::{DeviceArgs, score},
    exit, output,
};

const HELP: &str = "\
Examples:
  richsem report runs/tiny-20260131-120000
  richsem report runs/b --compare runs/a --output b.html
  richsem report runs/b --images 40 --conf 0.5
  richsem report runs/b --csv metrics.csv

Writes one HTML file that needs no other file: metrics, which threshold to use, confusions and the worst
mistakes, curves, labels, classes, settings, and images with ground truth beside predictions. The
predictions are those of the best checkpoint. The images are from the validation set, rare classes among
them, and are the same each time. richsem train writes such a report at its end. docs/report.md explains
what it shows.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Folder of the run, finished or not
    run: PathBuf,
    /// File to write. Default: RUN/report.html
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name of the run in the report. Default: of its folder
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Also writes the rows of metrics.jsonl to this file, as a table
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// Most images that are shown. 0: none, nor those with the worst mistakes
    #[arg(long, alias = "pictures", value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u16).range(..=1000))]
    images: u16,
    /// Smallest score of predictions that are drawn, 0 to 1. Where an image has none, its best three are drawn
    #[arg(long, value_name = "SCORE", default_value_t = 0.3, value_parser = score)]
    conf: f32,
    /// Another run to compare with. May be given many times
    #[arg(long, value_name = "RUN")]
    compare: Vec<PathBuf>,
    /// A sentence for the top of the report. May be given many times
    #[arg(long, value_name = "TEXT")]
    note: Vec<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let run = RunFolder::open(&args.run)?;
    let file = args.output.clone().unwrap_or_else(|| default_file(&run));
    check_files(args, &run, &file)?;
    let options = RunOptions {
        images: args.images.into(),
        least_score: args.conf,
        name: args.name.clone(),
        compare: args.compare.clone(),
        notes: args.note.clone(),
        val: None,
    };
    let device = args.device.resolve()?;
    write(&run, &options, device, &file)?;
    if let Some(csv) = &args.csv {
        let table = report::metrics_csv(&run.metrics()?);
        write_atomically(csv, |out| Ok(out.write_all(table.as_bytes())?))?;
        output::note(format!("metrics: {}", csv.display()));
    }
    output::print(file.display())?;
    Ok(exit::OK)
}

/// Refuses files that could not be written, or would take the place of what the report is made from.
fn check_files(args: &Args, run: &RunFolder, file: &Path) -> Result<()> {
    let config = run.config()?;
    let val = config.data.val.as_ref();
    let runs = args.compare.iter().chain([&args.run]).map(|run| (run.as_path(), "a run"));
    let sets = val.map(|val| (val.annotations.as_path(), "data.val.annotations"));
    let inputs: Vec<_> = runs.chain(sets).collect();
    let images = val.and_then(|val| Some((val.images.as_deref()?, "data.val.images")));
    let images: Vec<_> = images.into_iter().collect();
    let results = [(Some(file), "--output"), (args.csv.as_deref(), "--csv")];
    for (file, flag) in results {
        if let Some(file) = file {
            output::check_file(file, flag)?;
            output::check_apart(file, flag, &inputs)?;
            output::check_no_images(file, flag, &images)?;
        }
    }
    if args.csv.as_deref() == Some(file) {
        return Err(anyhow!("--csv: this is the file of --output\n  hint: give another name"));
    }
    Ok(())
}

/// Writes the report of a run that has just finished into its folder, and gives its path.
pub(crate) fn of_finished(folder: &Path, val: OpenedSet, device: Device) -> Result<PathBuf> {
    let run = RunFolder::open(folder)?;
    let file = default_file(&run);
    let options = RunOptions { val: Some(val), ..RunOptions::default() };
    write(&run, &options, device, &file)?;
    Ok(file)
}

fn default_file(run: &RunFolder) -> PathBuf {
    run.file("report.html")
}

fn write(run: &RunFolder, options: &RunOptions, device: Device, file: &Path) -> Result<()> {
    let data = report::run(run, options, device)?;
    for note in &data.notes {
        output::note(note);
    }
    Ok(report::write(file, &data)?)
}
