//! Validation images with ground truth beside predictions: chooses some, and draws them.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use image::{RgbImage, imageops};

use super::Drawn;
use crate::{
    boxes::Xyxy,
    config::SplitConfig,
    data::{
        detection_source::{BrokenImages, DetectionSource, ImageEntry},
        loader::BatchSource as _,
    },
    detector::Detector,
    draw::{self, Labeled},
    error::Result,
    predict::every_image_once,
    train::OpenedSet,
    vocabulary::{Category, ClassIndex, Frequency, Vocabulary},
};

/// Longer side of an image as it is shown, in pixels: labels stay readable on small ones, and the
/// file small with large ones.
const SIDE: u32 = 480;

/// A small image is enlarged by at most this factor.
const LARGEST_SCALE: f32 = 4.0;

/// With more boxes than this an image is hard to read.
const MANY_BOXES: f64 = 12.0;

/// What a report of a run shows.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Validation images shown at most.
    pub images: usize,
    /// Least score of a prediction that is drawn, 0 to 1.
    pub least_score: f32,
    /// Folders of runs whose evaluations stand beside this one's: the best, and, should that be another,
    /// the one after as many epochs.
    pub compare: Vec<PathBuf>,
    /// Notes to show at the top of the page.
    pub notes: Vec<String>,
    /// The validation set, where its annotations have been read already.
    pub val: Option<OpenedSet>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { images: 12, least_score: 0.3, compare: Vec::new(), notes: Vec::new(), val: None }
    }
}

/// Draws up to `options.images` images of a set. Broken ones are noted, and the next in line
/// take their places.
///
/// # Errors
/// Annotations that cannot be read, what libtorch refuses.
pub(super) fn show(
    detector: &Detector,
    split: &SplitConfig,
    options: &RunOptions,
    notes: &mut Vec<String>,
) -> Result<Vec<Drawn>> {
    let OpenedSet { store, entries, vocabulary } = match &options.val {
        Some(set) => set.clone(),
        None => OpenedSet::open(split)?,
    };
    let groups = groups(&vocabulary, detector.vocabulary());
    // As many again in case some are broken.
    let order = choose(&entries, &groups, options.images.saturating_mul(2));
    let broken = Arc::new(BrokenImages::new(usize::MAX));
    let every = every_image_once(detector, store, Arc::clone(&entries), 1, broken);
    let source = DetectionSource { order: order.clone(), keep_originals: true, ..every };
    let mut images = Vec::new();
    for (position, &index) in (0..).zip(&order) {
        if images.len() == options.images {
            break;
        }
        let entry = &entries[index as usize];
        let mut batch = source.build(position)?;
        if batch.is_empty() {
            notes.extend(batch.skipped.iter().map(|why| format!("Skipped: {why}")));
            continue;
        }
        let found = detector.detect(&batch)?.swap_remove(0);
        let truth: Vec<Labeled> = entry
            .boxes
            .iter()
            .zip(&entry.labels)
            .map(|(&bbox, &class)| labeled(bbox, vocabulary.category(class), None))
            .collect();
        let prediction: Vec<Labeled> = found
            .iter()
            .filter(|d| d.score >= options.least_score)
            .map(|d| labeled(d.bbox, detector.vocabulary().category(d.class), Some(d.score)))
            .collect();
        let image = batch.originals.swap_remove(0);
        images.push(Drawn {
            caption: format!(
                "{}: {}, {} with a score of at least {}",
                entry.name,
                counted(truth.len(), "object"),
                counted(prediction.len(), "prediction"),
                options.least_score
            ),
            image: drawn(image, truth, prediction),
        });
    }
    Ok(images)
}

/// The frequency group of each class. A class of the training set has its group there.
fn groups(classes: &Vocabulary, trained: &Vocabulary) -> Vec<Frequency> {
    let group = |category: &Category| {
        let class = trained.class_of(category.id);
        class.map_or(category, |class| trained.category(class)).frequency
    };
    classes.categories().iter().map(group).collect()
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn labeled(bbox: Xyxy, category: &Category, score: Option<f32>) -> Labeled {
    Labeled {
        bbox,
        class_name: category.name.clone(),
        color_key: category.id.0.unsigned_abs(),
        score,
    }
}

fn drawn(image: RgbImage, mut truth: Vec<Labeled>, mut prediction: Vec<Labeled>) -> RgbImage {
    let (width, height) = image.dimensions();
    let scale = (SIDE as f32 / width.max(height) as f32).min(LARGEST_SCALE);
    let [w, h] = [width, height].map(|side| ((side as f32 * scale).round() as u32).max(1));
    let filter = if scale < 1.0 {
        imageops::FilterType::Triangle // antialiased
    } else {
        imageops::FilterType::CatmullRom
    };
    let image = imageops::resize(&image, w, h, filter);
    for label in truth.iter_mut().chain(&mut prediction) {
        label.bbox.0 = label.bbox.0.map(|v| v * scale);
    }
    draw::truth_and_prediction(&image, &truth, &prediction, "")
}

/// Images in the order in which they are shown. The next one is always the image whose classes add most to
/// those shown before it. Rare classes count more than common ones, and these more than frequent ones.
/// Images with several boxes come before others, unless they are crowded. The order depends on the set alone.
/// `groups` are by class index.
fn choose(entries: &[ImageEntry], groups: &[Frequency], count: usize) -> Vec<u32> {
    let mut left: Vec<(u32, Vec<ClassIndex>, f64)> = (0..)
        .zip(entries)
        .map(|(index, entry)| {
            let mut classes = entry.labels.clone();
            classes.sort_unstable();
            classes.dedup();
            let boxes = entry.labels.len() as f64;
            let readable = (boxes.min(3.0) / 3.0) * (MANY_BOXES / boxes.max(1.0)).min(1.0);
            (index, classes, readable)
        })
        .collect();
    let mut shown: HashMap<ClassIndex, f64> = HashMap::new();
    let mut order = Vec::new();
    while order.len() < count && !left.is_empty() {
        let gain = |classes: &[ClassIndex], readable: f64| {
            let new = |class: &ClassIndex| {
                let seen = 1.0 + shown.get(class).copied().unwrap_or(0.0);
                weight(groups[class.0 as usize]) / (seen * seen)
            };
            readable * classes.iter().map(new).sum::<f64>()
        };
        let mut best = (0, f64::NEG_INFINITY);
        for (i, (_, classes, readable)) in left.iter().enumerate() {
            let gain = gain(classes, *readable);
            if gain > best.1 {
                best = (i, gain);
            }
        }
        // Order is kept, so that the first of equals stays the first.
        let (index, classes, _) = left.remove(best.0);
        order.push(index);
        for class in classes {
            *shown.entry(class).or_default() += 1.0;
        }
    }
    order
}

fn weight(group: Frequency) -> f64 {
    match group {
        Frequency::Rare => 4.0,
        Frequency::Common => 2.0,
        Frequency::Frequent => 1.0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::targets::LabelKnowledge;

    fn entry(labels: &[u32]) -> ImageEntry {
        ImageEntry {
            name: String::new(),
            id: 0,
            size: None,
            boxes: vec![Xyxy([0.0, 0.0, 1.0, 1.0]); labels.len()],
            labels: labels.iter().map(|&c| ClassIndex(c)).collect(),
            knowledge: LabelKnowledge::default(),
        }
    }

    #[test]
    fn rare_classes_come_first_and_then_what_was_not_shown() {
        use Frequency::{Common, Frequent, Rare};
        let chosen = |images: &[&[u32]], count| {
            let entries: Vec<ImageEntry> = images.iter().map(|labels| entry(labels)).collect();
            choose(&entries, &[Frequent, Common, Rare], count)
        };
        assert_eq!(chosen(&[&[0, 0, 0], &[1, 1, 1], &[2, 2, 2]], 3), [2, 1, 0]);
        // Shown once, a rare class counts a quarter: as much as a new frequent one.
        assert_eq!(chosen(&[&[2, 2, 2], &[2, 2, 2], &[1, 1, 1]], 2), [0, 2]);
        // Several boxes before one; a crowd after a few; the first of equals.
        assert_eq!(chosen(&[&[0], &[0, 0, 0]], 1), [1]);
        assert_eq!(chosen(&[&[0; 40], &[0; 5], &[0; 5]], 1), [1]);
        assert_eq!(chosen(&[&[], &[]], 5), [0, 1]);
        assert!(chosen(&[], 3).is_empty());
    }

    #[test]
    fn images_and_boxes_are_scaled_together() {
        let truth = vec![Labeled {
            bbox: Xyxy([0.0, 0.0, 400.0, 200.0]),
            class_name: "cat".to_owned(),
            color_key: 1,
            score: None,
        }];
        let page = |width, height| drawn(RgbImage::new(width, height), truth.clone(), vec![]);
        // Two images of 480 × 240 beside each other with gaps of 8.
        assert_eq!(page(960, 480).width(), 2 * 480 + 24);
        assert_eq!(page(10, 5).width(), 2 * 40 + 24);
        assert_eq!(page(1, 5000).width(), 2 + 24);
        // The frame's right edge is at x = 200, below the heading's strip; its label at the top.
        let image = page(960, 480);
        let strip = image.height() - 240 - 8;
        assert_eq!(*image.get_pixel(8 + 200, strip + 60), draw::color(1));
        assert_eq!(image.get_pixel(8 + 190, strip + 60).0, [0; 3]);
    }
}
