//! How long a step takes, and how much memory it wants: on random pictures, with random weights.

use std::time::Instant;

use image::RgbImage;
use tch::Device;

use crate::{
    boxes::Cxcywh,
    collective::Single,
    config::Config,
    data::batch::Batch,
    error::Result,
    losses::criterion::StepKey,
    random::{Random, Stream},
    targets::{LabelKnowledge, Target},
    train::{Learner, Trace},
    vocabulary::{Category, CategoryId, ClassIndex, Frequency, Vocabulary},
};

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
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Half of the runs were faster.
    pub median_ms: f64,
    /// A tenth were faster.
    pub low_ms: f64,
    /// A tenth were slower.
    pub high_ms: f64,
    /// Memory that libtorch held on the GPU in the end, its pools included, in MiB; `None` on the CPU.
    pub memory_mib: Option<f64>,
}

/// Times training steps (forward, losses, backward, update) and inference from a decoded batch in
/// host memory to boxes.
///
/// # Errors
/// Settings that contradict each other, a device without enough memory.
pub fn run(config: &Config, work: &Workload, device: Device) -> Result<(Timing, Timing)> {
    let vocabulary = vocabulary(work.classes);
    let batch = random_batch(work)?;
    let mut learner = Learner::new(config, vocabulary, device, Box::new(Single))?;
    let mut step = 0;
    let train = time(work, device, || {
        step += 1;
        learner.backward(&batch, StepKey { seed: 0, step }, &mut Trace::default())?;
        learner.update(1e-6)?;
        Ok(())
    })?;
    let detector = learner.into_detector();
    let inference = time(work, device, || detector.detect(&batch).map(drop))?;
    Ok((train, inference))
}

fn time(work: &Workload, device: Device, mut f: impl FnMut() -> Result<()>) -> Result<Timing> {
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
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Ok(Timing {
        median_ms: at(0.5),
        low_ms: at(0.1),
        high_ms: at(0.9),
        memory_mib: torch_ext::memory(device).map(|m| m.reserved as f64 / f64::from(1 << 20)),
    })
}

/// Classes without meaning.
#[must_use]
pub fn vocabulary(classes: usize) -> Vocabulary {
    let category = |i: usize| Category {
        id: CategoryId(i as i64 + 1),
        name: format!("class {i}"),
        image_count: 100,
        instance_count: 100,
        frequency: Frequency::Common,
        synset: None,
        wnid: None,
        lvis_clip_row: None,
    };
    Vocabulary::new((0..classes).map(category).collect())
}

/// Pictures of noise, with boxes around their middle.
///
/// # Errors
/// The host has no room.
pub fn random_batch(work: &Workload) -> Result<Batch> {
    let sample = |i: usize| {
        let mut random = Random::new(0, Stream::Test, 0, i as u64);
        let bytes = (0..work.height * work.width * 3).map(|_| random.bits() as u8).collect();
        let image = RgbImage::from_raw(work.width, work.height, bytes)
            .expect("the buffer has three bytes a pixel");
        let labels: Vec<ClassIndex> =
            (0..work.boxes).map(|_| ClassIndex(random.below(work.classes) as u32)).collect();
        let mut side = || random.range(0.05, 0.4) as f32;
        let boxes = labels.iter().map(|_| Cxcywh([0.5, 0.5, side(), side()])).collect();
        let size = [work.height, work.width];
        let target = Target {
            image_id: i as i64,
            boxes,
            labels,
            knowledge: LabelKnowledge::default(),
            size,
            original_size: size,
            view: None,
        };
        (image, target)
    };
    Batch::collate((0..work.batch).map(sample).collect(), Vec::new(), 32)
}
