//! From a dataset to what the loader reads.

use rayon::prelude::*;

use super::{dataset::Dataset, detection_source::ImageEntry};

/// Every image with the boxes that are trained on (see [`Dataset::training_boxes`]).
#[must_use]
pub fn entries(dataset: &Dataset) -> Vec<ImageEntry> {
    dataset
        .images()
        .par_iter()
        .enumerate()
        .map(|(i, image)| {
            let (boxes, labels) = dataset.training_boxes(i).into_iter().unzip();
            ImageEntry {
                name: image.file_name.clone(),
                id: image.id,
                size: image.size,
                boxes,
                labels,
                knowledge: dataset.knowledge(i),
            }
        })
        .collect()
}
