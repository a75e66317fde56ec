//! Runs a detector over many pictures.

use std::{ops::ControlFlow, sync::Arc};

use crate::{
    boxes::Xywh,
    data::{detection_source::DetectionSource, loader::Loader},
    detections::Detection,
    detector::Detector,
    error::Result,
    models::postprocess::ScoredBox,
    vocabulary::Vocabulary,
};

/// How pictures are read ahead.
#[derive(Debug, Clone, Copy)]
pub struct ReadAhead {
    /// Threads.
    pub workers: usize,
    /// Batches prepared ahead.
    pub prefetch: usize,
}

/// Detects on every picture of a source and hands the results over, image by image: its id, its
/// `[height, width]`, and what was found. `each` can end it early.
///
/// # Errors
/// Too many broken pictures; what libtorch refuses.
pub fn detect_all(
    detector: &Detector,
    source: DetectionSource,
    ahead: ReadAhead,
    mut each: impl FnMut(i64, [u32; 2], Vec<ScoredBox>) -> ControlFlow<()>,
) -> Result<()> {
    let batches = source.batches()?;
    let loader = Loader::new(Arc::new(source), 0..batches, ahead.workers, ahead.prefetch)?;
    for batch in loader {
        let batch = batch?;
        let found = detector.detect(&batch)?;
        for (target, boxes) in batch.targets.iter().zip(found) {
            if each(target.image_id, target.original_size, boxes).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
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
