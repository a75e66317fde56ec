//! Pictures on their way into a detector, as evaluation and prediction read them.

use std::sync::Arc;

use richsem::{
    config::Config,
    data::{
        detection_source::{BrokenImages, DetectionSource, ImageEntry, OnBroken, Transform},
        image_store::ImageStore,
        sampler::{LastBatch, Share},
    },
    predict::ReadAhead,
};

/// Every picture once, in order, resized as the detector's settings say.
pub(crate) fn source(
    store: Arc<ImageStore>,
    entries: Vec<ImageEntry>,
    config: &Config,
    batch_size: usize,
    broken: Arc<BrokenImages>,
) -> DetectionSource {
    DetectionSource {
        store,
        order: (0..entries.len() as u32).collect(),
        entries: Arc::new(entries),
        share: Share { batch_size, rank: 0, world: 1, last: LastBatch::Short },
        transform: Transform::Eval(config.data.resize.clone()),
        seed: config.seed,
        epoch: 0,
        pad_multiple: config.data.pad_multiple,
        broken,
        on_broken: OnBroken::LeaveOut,
    }
}

/// As many threads as the machine here has cores, at most 8: what the run's own machine had says
/// nothing.
pub(crate) fn ahead() -> ReadAhead {
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().min(8));
    ReadAhead { workers, prefetch: workers }
}
