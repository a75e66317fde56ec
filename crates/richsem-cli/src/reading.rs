//! Images on their way into a detector, as evaluation and prediction read them.

use std::sync::Arc;

use richsem::{
    config::Config,
    data::{
        detection_source::{BrokenImages, DetectionSource, ImageEntry, OnBroken, Transform},
        image_store::ImageStore,
        sampler::{LastBatch, Share},
    },
    models::padding::Padding,
    predict::ReadAhead,
};

/// Images of these `[height, width]` in the order in which to read them: as they are one by one, and in
/// batches those of like shape together, so that little is padded, where padding changes nothing. Those of
/// unknown size come last.
pub(crate) fn order(
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

/// Every image once, in [`order`], resized as the detector's settings say.
pub(crate) fn source(
    store: Arc<ImageStore>,
    entries: Vec<ImageEntry>,
    config: &Config,
    batch_size: usize,
    broken: Arc<BrokenImages>,
) -> DetectionSource {
    DetectionSource {
        store,
        order: order(
            entries.iter().map(|entry| entry.size),
            config.model.dino.padding(),
            batch_size,
        )
        .into_iter()
        .map(|i| i as u32)
        .collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_like_shape_are_read_together_where_they_share_a_batch() {
        let sizes = [Some([480, 640]), None, Some([640, 480]), Some([300, 400]), Some([500, 500])];
        let order = |padding, batch| order(sizes.into_iter(), padding, batch);
        assert_eq!(order(Padding::Masked, 1), [0, 1, 2, 3, 4]);
        assert_eq!(order(Padding::Official, 2), [0, 1, 2, 3, 4]);
        assert_eq!(order(Padding::Masked, 2), [0, 3, 4, 2, 1]);
    }
}
