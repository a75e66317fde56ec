//! Runs a detector over many images.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    boxes::Xywh,
    collective::{Collective, pack, unpack},
    data::{
        batch::Batch,
        detection_source::{BrokenImages, DetectionSource, ImageEntry, OnBroken, Transform},
        image_store::ImageStore,
        loader::{BatchSource as _, Loader},
        sampler::{LastBatch, Share},
    },
    detections::Detection,
    detector::Detector,
    error::Result,
    models::{network::NetworkOutput, padding::Padding, scored_box::ScoredBox},
    vocabulary::{CategoryId, Vocabulary},
};

/// Most batches whose sizes decide which passes are recorded as CUDA graphs.
const SIZES_LOOKED_AT: u64 = 10_000;

/// How images are read ahead.
#[derive(Debug, Clone, Copy)]
pub struct ReadAhead {
    /// Threads that read and resize images, at least 1.
    pub workers: usize,
    /// Batches that are read before the network needs them, at least 1.
    pub prefetch: usize,
}

impl Default for ReadAhead {
    /// As many threads as the machine has cores, at most 8.
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, |n| n.get().min(8));
        Self { workers, prefetch: workers }
    }
}

/// Images of these `[height, width]` in the order in which a detector reads them: as they are one by one, and
/// in batches those of like shape together, so that little is padded, where padding changes nothing. Those of
/// unknown size come last.
#[must_use]
pub fn reading_order(
    sizes: impl Iterator<Item = Option<[u32; 2]>>,
    padding: Padding,
    batch_size: usize,
) -> Vec<usize> {
    let aspects: Vec<f64> = sizes
        .map(|size| {
            size.map_or(f64::INFINITY, |[height, width]| f64::from(height) / f64::from(width))
        })
        .collect();
    let mut order: Vec<usize> = (0..aspects.len()).collect();
    if batch_size > 1 && padding == Padding::Masked {
        order.sort_by(|&a, &b| aspects[a].total_cmp(&aspects[b]));
    }
    order
}

/// Every image once, in [`reading_order`], resized as the detector's settings say. Those that cannot be read
/// are left out.
#[must_use]
pub fn every_image_once(
    detector: &Detector,
    store: Arc<ImageStore>,
    entries: Arc<Vec<ImageEntry>>,
    batch_size: usize,
    broken: Arc<BrokenImages>,
) -> DetectionSource {
    let config = detector.config();
    let sizes = entries.iter().map(|entry| entry.size);
    let order = reading_order(sizes, config.model.padding(), batch_size);
    DetectionSource {
        store,
        order: order.into_iter().map(|i| i as u32).collect(),
        entries,
        share: Share { batch_size, rank: 0, world: 1, last: LastBatch::Short },
        transform: Transform::Eval(config.resize.clone()),
        // What depends on these two is training's alone.
        seed: 0,
        epoch: 0,
        pad_multiple: config.pad_multiple,
        broken,
        on_broken: OnBroken::LeaveOut,
        keep_originals: false,
    }
}

/// A batch that went through a detector.
#[derive(Debug)]
pub struct Detected {
    /// The batch. It has no images if all of them were broken.
    pub batch: Batch,
    /// What the network gives; none for a batch without images.
    pub output: Option<NetworkOutput>,
    /// The boxes of each image, in pixels of the original.
    pub found: Vec<Vec<ScoredBox>>,
}

/// Detects in every batch of a source and hands them over. The device works on the next one meanwhile.
/// `each` can end it early.
///
/// # Errors
/// Too many broken images; what libtorch refuses; what `each` returns.
pub fn detect_batches(
    detector: &Detector,
    source: DetectionSource,
    ahead: ReadAhead,
    mut each: impl FnMut(Detected) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let batches = source.batches()?;
    let source = Arc::new(source);
    let mut loader =
        Loader::new(Arc::clone(&source) as _, 0..batches, ahead.workers, ahead.prefetch)?;
    let looked_at =
        (0..batches.min(SIZES_LOOKED_AT)).map(|i| i * batches / batches.min(SIZES_LOOKED_AT));
    let shapes: Vec<_> = looked_at.filter_map(|position| source.shape(position)).collect();
    detector.plan_recordings(&shapes);
    let mut queued = None;
    loop {
        let next = match loader.next() {
            None => None,
            Some(batch) => {
                let batch = batch?;
                let output = if batch.is_empty() { None } else { Some(detector.infer(&batch)?) };
                Some((batch, output))
            }
        };
        let last = next.is_none();
        if let Some((batch, output)) = std::mem::replace(&mut queued, next) {
            let found = match &output {
                Some(output) => detector.boxes(output, &batch)?,
                None => Vec::new(),
            };
            if each(Detected { batch, output, found })?.is_break() {
                return Ok(());
            }
        }
        if last {
            return Ok(());
        }
    }
}

/// Of rows that the processes have of their batches, those of all in the order in which one process alone has
/// them; for rank 0.
///
/// # Errors
/// A process that failed or is gone.
pub(crate) fn gather_in_order(
    collective: &dyn Collective,
    rows: &[Vec<u8>],
) -> Result<Option<Vec<Vec<u8>>>> {
    let Some(all) = collective.gather(pack(rows))? else { return Ok(None) };
    let all: Vec<Vec<Vec<u8>>> = all.iter().map(|bytes| unpack(bytes)).collect::<Result<_>>()?;
    // Batches go to the ranks in turn.
    let most = all.iter().map(Vec::len).max().unwrap_or(0);
    let mut of_rank: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
    let turns =
        (0..most).flat_map(|_| of_rank.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>());
    Ok(Some(turns.collect()))
}

/// The detections of all processes, of which each has those of its own batches, in the order in which one
/// process alone has them; for rank 0.
///
/// # Errors
/// A process that failed or is gone.
pub fn gather_detections(
    collective: &dyn Collective,
    batches: Vec<Vec<Detection>>,
) -> Result<Option<Vec<Detection>>> {
    if collective.world() == 1 {
        return Ok(Some(batches.concat()));
    }
    let bytes = |d: &Detection| {
        let ids = [d.image_id, d.category_id.0].map(|id| id.cast_unsigned());
        let numbers = d.bbox.0.into_iter().chain([d.score]).map(f64::to_bits);
        ids.into_iter().chain(numbers).flat_map(u64::to_le_bytes).collect::<Vec<u8>>()
    };
    let rows: Vec<Vec<u8>> =
        batches.iter().map(|batch| batch.iter().flat_map(bytes).collect()).collect();
    drop(batches);
    let Some(rows) = gather_in_order(collective, &rows)? else { return Ok(None) };
    let mut detections = Vec::new();
    for row in rows {
        let (records, _) = row.as_chunks::<56>();
        detections.extend(records.iter().map(|record| {
            let (words, _) = record.as_chunks::<8>();
            let word = |i: usize| u64::from_le_bytes(words[i]);
            let number = |i: usize| f64::from_bits(word(i));
            Detection {
                image_id: word(0).cast_signed(),
                category_id: CategoryId(word(1).cast_signed()),
                bbox: Xywh(std::array::from_fn(|k| number(2 + k))),
                score: number(6),
            }
        }));
    }
    Ok(Some(detections))
}

/// As [`detect_batches`], image by image: its id, its `[height, width]`, and what was found.
///
/// # Errors
/// As [`detect_batches`].
pub fn detect_all(
    detector: &Detector,
    source: DetectionSource,
    ahead: ReadAhead,
    mut each: impl FnMut(i64, [u32; 2], Vec<ScoredBox>) -> ControlFlow<()>,
) -> Result<()> {
    detect_batches(detector, source, ahead, |Detected { batch, found, .. }| {
        for (target, boxes) in batch.targets.iter().zip(found) {
            if each(target.image_id, target.original_size, boxes).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// The boxes as result files have them: category ids, corner and size.
#[must_use]
pub fn to_detections(
    image_id: i64,
    found: &[ScoredBox],
    vocabulary: &Vocabulary,
) -> Vec<Detection> {
    found
        .iter()
        .map(|d| {
            let Xywh(bbox) = d.bbox.to_xywh();
            Detection {
                image_id,
                category_id: vocabulary.category(d.class).id,
                bbox: Xywh(bbox),
                score: f64::from(d.score),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_like_shape_are_read_together_where_they_share_a_batch() {
        let sizes = [Some([480, 640]), None, Some([640, 480]), Some([300, 400]), Some([500, 500])];
        let order = |padding, batch| reading_order(sizes.into_iter(), padding, batch);
        assert_eq!(order(Padding::Masked, 1), [0, 1, 2, 3, 4]);
        assert_eq!(order(Padding::Official, 2), [0, 1, 2, 3, 4]);
        assert_eq!(order(Padding::Masked, 2), [0, 3, 4, 2, 1]);
    }
}
