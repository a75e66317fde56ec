//! Runs a detector over many images.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    boxes::Xywh,
    data::{
        batch::Batch,
        detection_source::DetectionSource,
        loader::{BatchSource as _, Loader},
    },
    detections::Detection,
    detector::Detector,
    error::Result,
    models::{dino::InferenceOutput, postprocess::ScoredBox},
    vocabulary::Vocabulary,
};

/// Batches whose sizes decide which passes are recorded.
const SIZES_LOOKED_AT: u64 = 10_000;

/// How images are read ahead.
#[derive(Debug, Clone, Copy)]
pub struct ReadAhead {
    /// Threads.
    pub workers: usize,
    /// Batches prepared ahead.
    pub prefetch: usize,
}

/// A batch that went through a detector.
#[derive(Debug)]
pub struct Detected {
    /// What was detected in; without images where all of them are broken.
    pub batch: Batch,
    /// What the network gives; none for a batch without images.
    pub output: Option<InferenceOutput>,
    /// Of each image, in pixels of the original.
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

/// In the form of result files: category ids, corner and size.
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
