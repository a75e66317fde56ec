//! Some training steps, timed: what a batch may be, and how long a run takes.

use std::time::Instant;

use anyhow::{Result, anyhow};
use richsem::{
    bench::{self, Workload},
    config::Config,
    data::{dataset::Dataset, image_store::ImageStore},
    doctor::Examination,
    recipe::{Machine, Pace, Situation},
};
use tch::Device;

use super::memory::{self, MOST_MEMORY, Need, gib};

/// Images that are read to time it.
const READ: usize = 12;

/// A set, and its images where they are known.
#[derive(Clone, Copy)]
pub(super) struct Images<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) store: &'a ImageStore,
}

/// What was tried.
pub(super) struct Trial {
    pub(super) pace: Pace,
    pub(super) batch: usize,
    pub(super) why: String,
    /// Height and width of the images that were tried.
    pub(super) size: [u32; 2],
    /// Memory of a step, in MiB: of the GPU, or of this process.
    pub(super) memory: Option<f64>,
}

/// Height and width of the images that a recipe trains on, by their usual size.
pub(super) fn trained_size(config: &Config, train: Images<'_>) -> Result<[u32; 2]> {
    let scales = &config.data.augment.scales;
    let scale = scales.iter().sum::<u32>() / u32::try_from(scales.len()).unwrap_or(1).max(1);
    Ok(resized(usual_sides(train)?, scale, config.data.augment.max_size))
}

/// A batch of random images like those of a set.
pub(super) fn work(
    train: Images<'_>,
    examination: &Examination,
    (batch, [height, width]): (usize, [u32; 2]),
    (warmup, runs): (usize, usize),
) -> Workload {
    Workload {
        batch,
        height,
        width,
        boxes: (examination.density.mean.round() as usize).clamp(1, 200),
        classes: train.dataset.vocabulary().len(),
        warmup,
        runs,
    }
}

/// Times steps of the recipe on random images of the set's usual size, with fewer images a batch where memory
/// does not do. `memory`: what such steps take on the CPU, and how many bytes are free; a GPU is asked.
pub(super) fn trial(
    config: &Config,
    situation: &Situation,
    train: Images<'_>,
    examination: &Examination,
    (device, memory): (Device, Option<(Need, f64)>),
) -> Result<Trial> {
    let read = reading(train);
    let size = trained_size(config, train)?;
    let resize = &config.data.resize;
    let judged = resized(usual_sides(train)?, resize.size, resize.max_size);
    // On a GPU the first steps compile kernels and record passes.
    let times = if device.is_cuda() { (6, 5) } else { (1, 2) };
    let work = |batch, size| work(train, examination, (batch, size), times);
    let (mut batch, mut lowered) = (situation.batch(), None);
    if let Some((need, free)) = memory {
        let limit = MOST_MEMORY * free;
        while batch > 1 && need.of_batch(batch) > limit {
            lowered = Some(format!(
                "{batch} would take {:.1} GiB, and {:.1} GiB are free",
                gib(need.of_batch(batch)),
                gib(free)
            ));
            batch /= 2;
        }
    }
    let before = memory::of_process("VmRSS");
    memory::forget_peak();
    let step_ms = |batch, size| -> Result<(f64, Option<f64>)> {
        let timings = bench::run(config, &work(batch, size), device, Some(bench::Part::Train))?;
        let timing = timings.train.ok_or_else(|| anyhow!("no step was timed"))?;
        Ok((timing.median_ms, timing.memory_mib))
    };
    let canvas = situation.tile.map(|tile| [2 * tile; 2]);
    // Of a batch of each kind: the mean time, and the most memory.
    let both = |batch| -> Result<(f64, Option<f64>)> {
        let (detection, memory) = step_ms(batch, size)?;
        let Some(canvas) = canvas else { return Ok((detection, memory)) };
        let (mosaics, more) = step_ms(batch, canvas)?;
        let most = memory.zip(more).map(|(one, other)| one.max(other));
        Ok((f64::midpoint(detection, mosaics), most))
    };
    let (step_ms, memory_mib) = loop {
        let fits = both(batch);
        let free = torch_ext::memory_left(device);
        let problem = match fits {
            Ok(timing) => {
                let taken = timing.1.map(|mib| mib * f64::from(1 << 20));
                let all = free.zip(taken).map(|(free, taken)| free as f64 + taken);
                match all.zip(taken) {
                    Some((all, taken)) if taken > MOST_MEMORY * all && batch > 1 => {
                        format!(
                            "{batch} would take {:.0} % of the free memory",
                            100.0 * taken / all
                        )
                    }
                    _ => break timing,
                }
            }
            Err(error) if batch > 1 && error.to_string().contains("memory") => {
                format!("{batch} do not fit into memory")
            }
            Err(error) => return Err(error),
        };
        batch /= 2;
        lowered = Some(problem);
        torch_ext::empty_cache(device)?;
    };
    let of_process =
        || Some((memory::of_process("VmHWM")? - before?).max(0.0) / f64::from(1 << 20));
    let taken = memory_mib.or_else(|| of_process().filter(|_| device == Device::Cpu));
    let inference = bench::run(config, &work(1, judged), device, Some(bench::Part::Inference))?;
    let judged_ms = inference.inference.map_or(0.0, |timing| timing.median_ms);
    let step = step_ms / 1e3;
    // A mosaic has four images.
    let images = if canvas.is_some() { f64::midpoint(1.0, 4.0) } else { 1.0 };
    let reading = read * images * batch as f64;
    let pace = match &situation.machine {
        // Reading takes the same cores.
        Machine::Cpu { cores } => Pace {
            step: step + reading / (*cores).max(1) as f64,
            judged: judged_ms / 1e3 + read / (*cores).max(1) as f64,
        },
        Machine::Gpu { .. } => {
            let workers = richsem::predict::ReadAhead::default().workers.max(1) as f64;
            Pace {
                step: step.max(reading / workers),
                judged: (judged_ms / 1e3).max(read / workers),
            }
        }
    };
    let why = match lowered {
        Some(problem) => format!("images of a batch: {problem}"),
        None => "images of a batch".to_owned(),
    };
    Ok(Trial { pace, batch, why, size, memory: taken })
}

/// Seconds that reading an image takes one thread; 0 where none can be read.
fn reading(train: Images<'_>) -> f64 {
    let images = train.dataset.images();
    let step = (images.len() / READ).max(1);
    let start = Instant::now();
    let read = images.iter().step_by(step).take(READ);
    let read = read.filter(|image| train.store.image(&image.file_name).is_ok()).count();
    start.elapsed().as_secs_f64() / read.max(1) as f64
}

/// The median height and width of the images.
fn usual_sides(train: Images<'_>) -> Result<[u32; 2]> {
    let known = train.dataset.images().iter().filter_map(|image| image.size);
    let mut sides: Vec<[u32; 2]> = known.collect();
    if sides.is_empty() {
        let names = train.dataset.images().iter().take(READ).map(|image| &image.file_name);
        sides = names.filter_map(|name| train.store.size(name).ok()).collect();
    }
    let median = |at: usize| {
        let mut lengths: Vec<u32> = sides.iter().map(|size| size[at]).collect();
        lengths.sort_unstable();
        lengths.get(lengths.len() / 2).copied()
    };
    median(0)
        .zip(median(1))
        .map(|(height, width)| [height, width])
        .ok_or_else(|| anyhow!("{}: no image could be read", train.dataset.path().display()))
}

/// A size of which the shorter side is `shorter`, and the longer one at most `longest`.
fn resized(size: [u32; 2], shorter: u32, longest: u32) -> [u32; 2] {
    let (short, long) = (size[0].min(size[1]).max(1), size[0].max(size[1]).max(1));
    let factor = (f64::from(shorter) / f64::from(short)).min(f64::from(longest) / f64::from(long));
    size.map(|side| ((f64::from(side) * factor).round() as u32).max(1))
}
