//! A dataset in the form that the evaluation engine takes.

use crate::{
    data::{
        dataset::{Annotation, Dataset},
        openimages::Relations,
    },
    vocabulary::{CategoryId, Frequency},
};

/// Images and categories in the order of their ids, boxes by image. Positions stand for ids
/// everywhere: the engine then meets neither holes nor negative ids.
pub(super) struct GroundTruth {
    pub(super) images: Vec<TrueImage>,
    pub(super) categories: Vec<TrueCategory>,
    /// Grouped by image, in file order within one: ties are broken by it.
    pub(super) boxes: Vec<TrueBox>,
    /// Which classes are kinds of which others.
    pub(super) relations: Option<Relations>,
}

pub(super) struct TrueImage {
    pub(super) id: i64,
    /// `[height, width]`, if known.
    pub(super) size: Option<[u32; 2]>,
    /// Its boxes' range in [`GroundTruth::boxes`].
    pub(super) boxes: std::ops::Range<usize>,
    /// Positions of classes verified present, with boxes or without.
    pub(super) present: Vec<u64>,
    /// Positions of classes verified absent.
    pub(super) absent: Vec<u64>,
    /// Positions of classes not all of whose boxes are annotated.
    pub(super) not_exhaustive: Vec<u64>,
}

pub(super) struct TrueCategory {
    pub(super) id: CategoryId,
    pub(super) name: String,
    pub(super) frequency: Option<Frequency>,
    pub(super) image_count: u32,
    pub(super) instance_count: u32,
}

pub(super) struct TrueBox {
    /// Position of its category in [`GroundTruth::categories`].
    pub(super) category: u32,
    pub(super) bbox: [f64; 4],
    /// Area of the object in square pixels, of its mask where the file has one. It decides between
    /// small, medium and large.
    pub(super) area: f64,
    pub(super) crowd: bool,
    pub(super) ignore: bool,
}

impl GroundTruth {
    pub(super) fn of(dataset: &Dataset) -> Self {
        let mut order: Vec<usize> = (0..dataset.images().len()).collect();
        order.sort_by_key(|&i| dataset.images()[i].id);
        let mut boxes = Vec::with_capacity(dataset.annotations().len());
        let images = order
            .into_iter()
            .map(|i| {
                let record = &dataset.images()[i];
                let start = boxes.len();
                boxes.extend(dataset.annotations_of(i).iter().map(TrueBox::of));
                let positions = |classes: &[crate::vocabulary::ClassIndex]| {
                    classes.iter().map(|class| u64::from(class.0)).collect()
                };
                TrueImage {
                    id: record.id,
                    size: record.size,
                    boxes: start..boxes.len(),
                    present: positions(&record.present_classes),
                    absent: positions(&record.neg_classes),
                    not_exhaustive: positions(&record.not_exhaustive_classes),
                }
            })
            .collect();
        let categories = dataset.vocabulary().categories().iter().zip(dataset.frequencies());
        let categories = categories
            .map(|(category, &frequency)| TrueCategory {
                id: category.id,
                name: category.name.clone(),
                frequency,
                image_count: category.image_count,
                instance_count: category.instance_count,
            })
            .collect();
        Self { images, categories, boxes, relations: dataset.relations().cloned() }
    }
}

impl TrueBox {
    fn of(annotation: &Annotation) -> Self {
        Self {
            category: annotation.class.0,
            bbox: annotation.bbox.0,
            area: annotation.area,
            crowd: annotation.crowd,
            ignore: annotation.ignore,
        }
    }
}
