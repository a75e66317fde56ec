//! How long a step takes, and how much memory it wants: on random images, with random weights. And
//! how fast a training's own images are read.

mod real;

use std::{sync::Arc, time::Instant};

use image::RgbImage;
use serde::Serialize;
use tch::Device;

use crate::{
    boxes::Cxcywh,
    collective::Single,
    config::Config,
    data::{
        batch::Batch, detection_source::BrokenImages, interleaved::Interleaved, loader::Loader,
    },
    error::{Error, Result},
    losses::terms::StepKey,
    random::{Random, Stream},
    targets::{LabelKnowledge, Target},
    train::{
        Intermediates, Learner, Prepared,
        inputs::{self, Split},
        observer::Silent,
    },
    vocabulary::{Category, CategoryId, ClassIndex, Frequency, Vocabulary},
};

pub use real::{RealSizes, RealTiming, WindowTiming, run_real};

/// Half of a training's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Forward, losses, backward, update.
    Train,
    /// From a decoded batch in host memory to boxes.
    Inference,
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Images at once.
    pub batch: usize,
    /// Their height, in pixels.
    pub height: u32,
    /// Their width, in pixels.
    pub width: u32,
    /// Boxes an image.
    pub boxes: usize,
    /// Classes.
    pub classes: usize,
    /// Runs before the clock starts.
    pub warmup: usize,
    /// Runs that are timed.
    pub runs: usize,
}

/// Milliseconds of one operation.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Timing {
    /// Half of the runs were faster.
    pub median_ms: f64,
    /// A tenth were faster.
    pub low_ms: f64,
    /// A tenth were slower.
    pub high_ms: f64,
    /// Most memory that libtorch held on the GPU, its pools included, in MiB; `None` on the CPU.
    pub memory_mib: Option<f64>,
}

/// What was measured of a detector.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// A training step.
    pub train: Option<Timing>,
    /// Inference.
    pub inference: Option<Timing>,
}

/// Times training steps and inference, as [`Part`] has them, or one of the two alone.
///
/// # Errors
/// Settings that contradict each other, a device without enough memory.
pub fn run(
    config: &Config,
    work: &Workload,
    device: Device,
    only: Option<Part>,
) -> Result<Timings> {
    let vocabulary = vocabulary(work.classes);
    let batch = random_batch(work)?;
    let mut learner = Learner::new(config, vocabulary, device, Arc::new(Single))?;
    let wanted = |part| only.is_none_or(|only| only == part);
    let train = match wanted(Part::Train) {
        true => {
            let mut steps = Steps::new(&mut learner, batch)?;
            let timing = time(work, device, || steps.next(|| Ok(None)))?;
            Some(timing)
        }
        false => None,
    };
    let batch = random_batch(work)?;
    let detector = learner.into_detector();
    let inference = wanted(Part::Inference)
        .then(|| time(work, device, || detector.detect(&batch).map(drop)))
        .transpose()?;
    Ok(Timings { train, inference })
}

/// Steps as a run takes them: the next batch is prepared while the device works.
struct Steps<'a> {
    learner: &'a mut Learner,
    batch: Batch,
    prepared: Option<Prepared>,
    step: u64,
}

impl<'a> Steps<'a> {
    /// `first` is the first batch.
    fn new(learner: &'a mut Learner, first: Batch) -> Result<Self> {
        let prepared = Some(learner.prepare(&first, StepKey { seed: 0, micro_step: 0 })?);
        Ok(Self { learner, batch: first, prepared, step: 0 })
    }

    /// A step on the present batch. What `batch` gives while the device works, or the same again, is that of
    /// the next.
    fn next(&mut self, batch: impl FnOnce() -> Result<Option<Batch>>) -> Result<()> {
        let Some(prepared) = self.prepared.take() else { return Ok(()) };
        let mut intermediates = Intermediates::default();
        let loss = self.learner.start(&self.batch, prepared, &mut intermediates)?;
        let update = self.learner.start_update(1e-6)?;
        self.step += 1;
        if let Some(batch) = batch()? {
            self.batch = batch;
        }
        let key = StepKey { seed: 0, micro_step: self.step };
        self.prepared = Some(self.learner.prepare(&self.batch, key)?);
        loss.wait()?;
        self.learner.finish_update(update)?;
        Ok(())
    }
}

fn time(work: &Workload, device: Device, mut f: impl FnMut() -> Result<()>) -> Result<Timing> {
    if device.is_cuda() {
        torch_ext::reset_peak_memory(device)?;
    }
    for _ in 0..work.warmup {
        f()?;
    }
    torch_ext::synchronize(device)?;
    let mut times = Vec::with_capacity(work.runs);
    for _ in 0..work.runs.max(1) {
        let start = Instant::now();
        f()?;
        torch_ext::synchronize(device)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let [low_ms, median_ms, high_ms] = quantiles(times);
    Ok(Timing {
        median_ms,
        low_ms,
        high_ms,
        memory_mib: torch_ext::memory(device).map(|m| m.peak_reserved as f64 / f64::from(1 << 20)),
    })
}

/// What a tenth, half and nine tenths are below. Not of an empty list.
fn quantiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0.1, 0.5, 0.9].map(|share| values[((values.len() - 1) as f64 * share).round() as usize])
}

/// How fast a training's batches are decoded, augmented and collated.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LoaderSpeed {
    /// Images of a pass.
    pub images: usize,
    /// Threads that read.
    pub workers: usize,
    /// Cores that these can be on at once: workers, or fewer where the machine has no more.
    pub cores: usize,
    /// Half of the passes were slower, in images a second.
    pub median: f64,
    /// A tenth were slower, in images a second.
    pub low: f64,
    /// A tenth were faster, in images a second.
    pub high: f64,
}

/// Reads the training set of the settings as training does, extra sets included, without a model: an
/// epoch a pass, each with its own order and augmentation.
///
/// # Errors
/// No training set in the settings; what training would refuse; fewer images than a batch has.
pub fn run_loader(config: &Config, passes: usize, warmup: usize) -> Result<LoaderSpeed> {
    let Some(set) = &config.data.train else {
        return Err(Error::config("data.train", "missing: it is what is read")
            .with_hint("set data.train to a file or folder of annotations"));
    };
    inputs::check_files(config, false)?;
    let (dataset, split) = Split::open("data.train", set, None, &mut Silent)?;
    let extra = inputs::extra_sets(config, dataset.vocabulary(), &mut Silent)?;
    let broken = Arc::new(BrokenImages::new(config.data.max_broken_images));
    let mut config = config.clone();
    config.train.epochs = (warmup + passes.max(1)) as u64;
    let row = inputs::batches(&config, &split, &extra, &broken, &Single)?;
    let workers = inputs::workers(config.data.workers);
    let (mut speeds, mut images, mut start) = (Vec::new(), 0, 0);
    for epoch in 0..config.train.epochs {
        let end = start + row.batches(epoch);
        let clock = Instant::now();
        let source = Arc::<Interleaved>::clone(&row);
        let mut loader = Loader::new(source, start..end, workers, config.data.prefetch)?;
        images = loader.try_fold(0, |sum, batch| batch.map(|batch| sum + batch.len()))?;
        if epoch >= warmup as u64 {
            speeds.push(images as f64 / clock.elapsed().as_secs_f64());
        }
        start = end;
    }
    let [low, median, high] = quantiles(speeds);
    let cores = std::thread::available_parallelism().map_or(workers, |n| n.get().min(workers));
    Ok(LoaderSpeed { images, workers, cores, median, low, high })
}

/// Classes without meaning.
#[must_use]
pub fn vocabulary(classes: usize) -> Vocabulary {
    let category = |i: usize| Category {
        key: None,
        id: CategoryId(i as i64 + 1),
        name: format!("class {i}"),
        image_count: 100,
        instance_count: 100,
        frequency: Frequency::Common,
        synset: None,
        wnid: None,
        text_row: None,
    };
    Vocabulary::new((0..classes).map(category).collect())
}

/// Images of noise, with boxes around their middle.
///
/// # Errors
/// The host has no room.
pub fn random_batch(work: &Workload) -> Result<Batch> {
    let sample = |i: usize| {
        let mut random = Random::new(0, Stream::Test, 0, i as u64);
        let bytes = (0..work.height * work.width * 3).map(|_| random.bits() as u8).collect();
        let image = RgbImage::from_raw(work.width, work.height, bytes)
            .expect("the buffer has three bytes a pixel");
        let size = [work.height, work.width];
        (image, target(i as i64, size, (work.boxes, work.classes), &mut random))
    };
    Batch::collate((0..work.batch).map(sample).collect(), Vec::new(), 32)
}

/// Boxes of any class around the middle of an image of `[height, width]`.
fn target(
    image_id: i64,
    size: [u32; 2],
    (boxes, classes): (usize, usize),
    random: &mut Random,
) -> Target {
    let labels: Vec<ClassIndex> =
        (0..boxes).map(|_| ClassIndex(random.below(classes) as u32)).collect();
    let mut side = || random.range(0.05, 0.4) as f32;
    Target {
        image_id,
        boxes: labels.iter().map(|_| Cxcywh([0.5, 0.5, side(), side()])).collect(),
        labels,
        knowledge: LabelKnowledge::default(),
        size,
        original_size: size,
        view: None,
        geometry: None,
    }
}
