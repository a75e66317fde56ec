//! `richsem bench`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Result;
use clap::ValueEnum;
use richsem::{
    bench::{self, Part, RealSizes, Timing, WindowTiming, Workload},
    config::Config,
    error::{guarded, write_atomically},
    train::RunFolder,
};
use serde_json::{Value, json};
use tch::Device;
use torch_ext::device_name;

use crate::{args::DeviceArgs, exit, output, table};

const HELP: &str = "\
Examples:
  richsem bench -c configs/baseline_r50.toml
  richsem bench -c configs/baseline_r50.toml --set train.precision=bf16 --batch 4
  richsem bench -c configs/tiny.toml --device cpu --size 160x224 --classes 40
  richsem bench -c configs/baseline_r50.toml --sizes benches/lvis_sizes.txt --set train.precision=bf16
  richsem bench -c configs/baseline_r50.toml --loader --set data.workers=2 \\
      --set data.train.annotations=train.json --set data.train.images=images/

Times training steps (forward, losses, backward, update) and inference (from a batch in memory to
boxes). Images and weights are random: no data is needed. The column MiB is the GPU memory that
libtorch has taken.

--sizes times training steps on images of many sizes, from a cold start. They are augmented as the
settings say, in batches of data.batch_size. Steps at the one size of --size are timed beside them.

--loader times how fast the training set is read, augmented and put into batches, by data.workers
threads, without a model. A run is then one pass over the set.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Settings (TOML). Their data sets are used only with --loader
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Changes one setting, as train.precision=bf16. May be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Images of a batch. Default: 2; with --sizes or --loader data.batch_size
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// Height and width of the images, in pixels
    #[arg(long, value_name = "HxW", default_value = "800x1216")]
    size: ImageSize,
    /// Number of boxes of each image
    #[arg(long, value_name = "N", default_value_t = 10)]
    boxes: u16,
    /// Number of classes of the detector. Default: those of the run, if the settings are a run's; else 1203
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    classes: Option<u32>,
    /// Runs that are timed. Default: 20; with --sizes 1200, with --loader 5
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: Option<u32>,
    /// Runs before the clock starts. Default: 5; with --loader 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    warmup: Option<u32>,
    /// Times only training steps, or only inference
    #[arg(long, value_enum, value_name = "train|inference", hide_possible_values = true)]
    only: Option<Only>,
    /// Times training on images of these sizes. Each line has a height, a width and a count
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "loader"])]
    sizes: Option<PathBuf>,
    /// With --sizes: every second batch has square images with this side, as mosaics are
    #[arg(long, value_name = "PIXELS", requires = "sizes", value_parser = clap::value_parser!(u32).range(32..=16_384))]
    mosaic: Option<u32>,
    /// Times only the reading of the training set
    #[arg(long, conflicts_with_all = ["only", "size", "boxes", "classes", "device"])]
    loader: bool,
    /// Also writes the numbers to this file (JSON)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Only {
    Train,
    Inference,
}

/// Height and width in pixels, as `800x1216`.
#[derive(Debug, Clone, Copy)]
struct ImageSize {
    height: u16,
    width: u16,
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.height, self.width)
    }
}

impl FromStr for ImageSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const SIDES: std::ops::RangeInclusive<u16> = 1..=16_384;
        let side = |text: &str| text.trim().parse().ok().filter(|side| SIDES.contains(side));
        text.split_once(['x', '×'])
            .and_then(|(height, width)| Some(Self { height: side(height)?, width: side(width)? }))
            .ok_or_else(|| "expected height and width, 1 to 16384, as 800x1216".to_owned())
    }
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    if let Some(file) = &args.json {
        output::check_file(file, "--json")?;
        let sizes = args.sizes.iter().map(|file| (file.as_path(), "--sizes"));
        let mut inputs: Vec<_> = sizes.chain([(&*args.config, "--config")]).collect();
        // A run's settings are in its folder.
        inputs.extend(
            args.config
                .parent()
                .map(|folder| (folder, "--config"))
                .filter(|(folder, _)| RunFolder::open(folder).is_ok()),
        );
        output::check_apart(file, "--json", &inputs)?;
    }
    let config = Config::load(&args.config, &args.assignments)?;
    let (text, numbers) = match &args.sizes {
        _ if args.loader => time_loader(args, config)?,
        Some(sizes) => time_sizes(args, config, sizes)?,
        None => time_detector(args, &config)?,
    };
    output::print(text)?;
    if let Some(file) = &args.json {
        write_json(file, &numbers)?;
    }
    Ok(exit::OK)
}

fn write_json(file: &Path, numbers: &Value) -> Result<()> {
    write_atomically(file, |out| Ok(writeln!(out, "{numbers:#}")?))?;
    output::note(format!("numbers: {}", file.display()));
    Ok(())
}

/// Times steps at one size. Gives the table, and the same numbers for programs.
fn time_detector(args: &Args, config: &Config) -> Result<(String, Value)> {
    let device = args.device.resolve()?;
    let work = one_size(args, args.batch.unwrap_or(2).into(), args.steps.unwrap_or(20) as usize)?;
    let only = args.only.map(|only| match only {
        Only::Train => Part::Train,
        Only::Inference => Part::Inference,
    });
    let timings = guarded(|| bench::run(config, &work, device, only))?;
    let precision = config.train.precision.name();
    let columns = ["<what", "median ms", "p10 ms", "p90 ms", "images/s", "MiB"];
    let rows = [("training step", timings.train), ("inference", timings.inference)];
    let rows =
        rows.into_iter().filter_map(|(name, timing)| Some(timing_row(name, &timing?, &work)));
    let text = format!(
        "{}, {precision}\nbatch {} of {}, {} boxes an image, {} classes; {} runs after {} to warm \
         up\n\n{}",
        hardware(device),
        work.batch,
        args.size,
        work.boxes,
        work.classes,
        work.runs,
        work.warmup,
        table::table(&columns, rows)
    );
    let numbers = json!({
        "hardware": hardware(device),
        "precision": precision,
        "batch": work.batch,
        "height": work.height,
        "width": work.width,
        "boxes": work.boxes,
        "classes": work.classes,
        "runs": work.runs,
        "warmup": work.warmup,
        "threads": tch::get_num_threads(),
        "train": timings.train,
        "inference": timings.inference,
    });
    Ok((text, numbers))
}

/// Classes of LVIS.
const USUAL_CLASSES: usize = 1203;

/// Classes of the detector.
fn classes(args: &Args) -> Result<usize> {
    if let Some(classes) = args.classes {
        return Ok(classes as usize);
    }
    let of_run = match args.config.parent().map(RunFolder::open) {
        Some(Ok(run)) => run.vocabulary()?.map(|classes| classes.len()),
        _ => None,
    };
    Ok(of_run.unwrap_or(USUAL_CLASSES))
}

/// `runs` steps on batches of images of `--size`.
fn one_size(args: &Args, batch: usize, runs: usize) -> Result<Workload> {
    Ok(Workload {
        batch,
        height: args.size.height.into(),
        width: args.size.width.into(),
        boxes: args.boxes.into(),
        classes: classes(args)?,
        warmup: args.warmup.unwrap_or(5) as usize,
        runs,
    })
}

fn timing_row(name: &str, timing: &Timing, work: &Workload) -> Vec<String> {
    let ms = |value: f64| format!("{value:.1}");
    vec![
        name.to_owned(),
        ms(timing.median_ms),
        ms(timing.low_ms),
        ms(timing.high_ms),
        format!("{:.1}", work.batch as f64 * 1e3 / timing.median_ms),
        timing.memory_mib.map_or_else(|| table::NOTHING.to_owned(), |mib| format!("{mib:.0}")),
    ]
}

/// Times training steps on images of many sizes, and beside them steps at one size.
fn time_sizes(args: &Args, mut config: Config, sizes: &Path) -> Result<(String, Value)> {
    let device = args.device.resolve()?;
    if let Some(batch) = args.batch {
        config.data.batch_size = batch.into();
    }
    let work = RealSizes {
        sizes: RealSizes::read(sizes)?,
        mosaic: args.mosaic,
        boxes: args.boxes.into(),
        classes: classes(args)?,
        steps: args.steps.unwrap_or(1200) as usize,
    };
    let real = guarded(|| bench::run_real(&config, &work, device))?;
    let one = one_size(args, config.data.batch_size, 20.min(work.steps))?;
    let fixed = guarded(|| bench::run(&config, &one, device, Some(Part::Train)))?.train;
    let columns = ["<what", "images/s", "Mpixel/s", "of one size", "slow steps"];
    let memory = real.memory_mib.map(|mib| format!("; at most {mib:.0} MiB")).unwrap_or_default();
    let notes = real.recorded.iter().chain(&real.news).map(|line| format!("{line}\n"));
    let text = format!(
        "{}\nbatch {}, images of {} sizes, {} boxes an image, {} classes; {:.1} s to the first \
         step{memory}\n{}\n{}",
        hardware(device),
        one.batch,
        sizes.display(),
        work.boxes,
        work.classes,
        real.start_seconds,
        notes.collect::<String>(),
        table::table(&columns, size_rows(&real.windows, &one, fixed.as_ref(), args.size))
    );
    let numbers = json!({
        "hardware": hardware(device),
        "batch": one.batch,
        "boxes": work.boxes,
        "classes": work.classes,
        "real": real,
        "one_size": { "height": one.height, "width": one.width, "train": fixed },
    });
    Ok((text, numbers))
}

/// A row for each window of steps, and one for the steps at one size, if these were timed.
fn size_rows(
    windows: &[WindowTiming],
    one: &Workload,
    fixed: Option<&Timing>,
    size: ImageSize,
) -> Vec<Vec<String>> {
    let fixed_pixels = one.batch as f64 * f64::from(one.height) * f64::from(one.width);
    let fixed_speed = fixed.map(|fixed| fixed_pixels / fixed.median_ms * 1e3);
    let share =
        |window: &WindowTiming| fixed_speed.map(|speed| window.pixels / window.seconds / speed);
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mut rows: Vec<Vec<String>> = windows
        .iter()
        .map(|window| {
            vec![
                format!("steps {} to {}", window.from, window.to),
                format!("{:.1}", window.images as f64 / window.seconds),
                format!("{:.1}", window.pixels / window.seconds / 1e6),
                share(window).map_or_else(|| table::NOTHING.to_owned(), percent),
                percent(window.slow),
            ]
        })
        .collect();
    if let Some(fixed) = fixed {
        rows.push(vec![
            format!("one size, {size}"),
            format!("{:.1}", one.batch as f64 * 1e3 / fixed.median_ms),
            format!("{:.1}", fixed_pixels / fixed.median_ms / 1e3),
            percent(1.0),
            table::NOTHING.to_owned(),
        ]);
    }
    rows
}

/// Times the reading of the training set.
fn time_loader(args: &Args, mut config: Config) -> Result<(String, Value)> {
    if let Some(batch) = args.batch {
        config.data.batch_size = batch.into();
    }
    let (passes, warmup) = (args.steps.unwrap_or(5), args.warmup.unwrap_or(1));
    let speed = bench::run_loader(&config, passes as usize, warmup as usize)?;
    let rate = |value: f64| format!("{value:.1}");
    let columns = ["<what", "median", "p10", "p90", "per core"];
    let row = vec![
        "images/s".to_owned(),
        rate(speed.median),
        rate(speed.low),
        rate(speed.high),
        rate(speed.median / speed.cores as f64),
    ];
    let text = format!(
        "{}; {} threads on {} cores\n{} images a pass, batches of {}; {passes} passes after \
         {warmup} to warm up\n\n{}",
        processor().unwrap_or_else(|| "cpu".to_owned()),
        speed.workers,
        speed.cores,
        speed.images,
        config.data.batch_size,
        table::table(&columns, [row])
    );
    let numbers = json!({
        "hardware": processor(),
        "batch": config.data.batch_size,
        "runs": passes,
        "warmup": warmup,
        "loader": speed,
    });
    Ok((text, numbers))
}

/// The device, and the name that its maker gave it.
fn hardware(device: Device) -> String {
    let short = device_name(device);
    let name = match device {
        Device::Cuda(index) => {
            let devices = torch_ext::report().devices;
            devices.into_iter().find(|d| d.index == index).map(|d| d.name)
        }
        _ => processor().map(|name| match tch::get_num_threads() {
            1 => format!("{name}, 1 thread"),
            threads => format!("{name}, {threads} threads"),
        }),
    };
    name.map_or_else(|| short.clone(), |name| format!("{short}: {name}"))
}

/// Name of the processor, from Linux. Other systems have no such file.
fn processor() -> Option<String> {
    let text = fs_err::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
