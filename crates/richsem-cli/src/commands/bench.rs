//! `richsem bench`.

use std::{fmt, path::PathBuf, str::FromStr};

use anyhow::Result;
use richsem::{
    bench::{self, Timing, Workload},
    config::{Config, Precision},
    error::guarded,
};
use tch::Device;
use torch_ext::device_name;

use crate::{args::DeviceArgs, exit, output, table};

const HELP: &str = "\
Examples:
  richsem bench -c configs/baseline_r50.toml
  richsem bench -c configs/baseline_r50.toml --set train.precision=bf16 --batch 4
  richsem bench -c configs/tiny.toml --device cpu --size 160x224 --classes 40

Times training steps (forward, losses, backward, update) and inference (from a decoded batch in
memory to boxes) on random pictures with random weights. No data is needed. Memory is what libtorch
has taken of the GPU's.";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Settings (TOML); those of the data are not used
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Changes one setting, as train.precision=bf16; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Their height and width, in pixels
    #[arg(long, value_name = "HxW", default_value = "800x1216")]
    size: Size,
    /// Boxes an image
    #[arg(long, value_name = "N", default_value_t = 10)]
    boxes: u16,
    /// Classes
    #[arg(long, value_name = "N", default_value_t = 1203, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    classes: u32,
    /// Runs that are timed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Runs before the clock starts
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: u32,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Height and width, as `800x1216`.
#[derive(Debug, Clone, Copy)]
struct Size {
    height: u16,
    width: u16,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.height, self.width)
    }
}

impl FromStr for Size {
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
    let config = Config::load(&args.config, &args.assignments)?;
    let device = args.device.resolve()?;
    let work = Workload {
        batch: args.batch.into(),
        height: args.size.height.into(),
        width: args.size.width.into(),
        boxes: args.boxes.into(),
        classes: args.classes as usize,
        warmup: args.warmup as usize,
        runs: args.steps as usize,
    };
    let (train, inference) = guarded(|| bench::run(&config, &work, device))?;
    let precision = match config.train.precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    };
    let row = |name: &str, timing: &Timing| {
        let ms = |value: f64| format!("{value:.1}");
        vec![
            name.to_owned(),
            ms(timing.median_ms),
            ms(timing.low_ms),
            ms(timing.high_ms),
            format!("{:.1}", work.batch as f64 * 1e3 / timing.median_ms),
            timing.memory_mib.map_or_else(|| table::NOTHING.to_owned(), |mib| format!("{mib:.0}")),
        ]
    };
    let columns = ["<what", "median ms", "p10 ms", "p90 ms", "images/s", "MiB"];
    output::print(format!(
        "{}, {precision}\nbatch {} of {}, {} boxes an image, {} classes; {} runs after {} to warm \
         up\n\n{}",
        hardware(device),
        work.batch,
        args.size,
        work.boxes,
        work.classes,
        work.runs,
        work.warmup,
        table::table(&columns, [row("training step", &train), row("inference", &inference)])
    ))?;
    Ok(exit::OK)
}

/// The device by its maker's name.
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

/// As Linux tells it; other systems have no such file.
fn processor() -> Option<String> {
    let text = fs_err::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
