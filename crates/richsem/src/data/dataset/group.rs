//! Annotations by image, and classes in the order of their ids.

use crate::{
    data::records::{Annotation, Records},
    vocabulary::{ClassIndex, Frequency},
};

/// Replaces the places of classes in the file by their places in the order of their ids. Gives the frequency
/// of each class, in that order, as far as the file has it, and its other names.
pub(super) fn by_id(records: &mut Records) -> (Vec<Option<Frequency>>, Vec<Vec<String>>) {
    let mut order: Vec<u32> = (0..records.classes.len() as u32).collect();
    order.sort_by_key(|&at| records.classes[at as usize].id);
    let mut class_at = vec![ClassIndex(0); order.len()];
    for (class, &at) in (0..).zip(&order) {
        class_at[at as usize] = ClassIndex(class);
    }
    let resolve = |class: &mut ClassIndex| *class = class_at[class.0 as usize];
    records.annotations.iter_mut().for_each(|a| resolve(&mut a.class));
    for image in &mut records.images {
        image.present_classes.iter_mut().for_each(resolve);
        image.neg_classes.iter_mut().for_each(resolve);
        image.not_exhaustive_classes.iter_mut().for_each(resolve);
    }
    let classes = order.iter().map(|&at| &records.classes[at as usize]);
    classes.map(|class| (class.frequency, class.synonyms.clone())).unzip()
}

/// Sorts in place, keeping the file's order within an image; gives where each image begins.
pub(super) fn by_image(annotations: &mut [Annotation], images: usize) -> Vec<u32> {
    let mut starts = vec![0u32; images + 1];
    for annotation in annotations.iter() {
        starts[annotation.image as usize + 1] += 1;
    }
    for image in 0..images {
        starts[image + 1] += starts[image];
    }
    // As in files whose records stand image by image.
    if annotations.is_sorted_by_key(|annotation| annotation.image) {
        return starts;
    }
    // Each annotation goes straight to its place, by cycles: sorting by key would copy all.
    let mut free = starts.clone();
    let mut place: Vec<u32> = Vec::with_capacity(annotations.len());
    for annotation in annotations.iter() {
        let next = &mut free[annotation.image as usize];
        place.push(*next);
        *next += 1;
    }
    for i in 0..annotations.len() {
        while place[i] as usize != i {
            let to = place[i] as usize;
            annotations.swap(i, to);
            place.swap(i, to);
        }
    }
    starts
}
