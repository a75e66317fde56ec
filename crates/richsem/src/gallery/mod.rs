//! Images with boxes on them, for people to look at: chooses some of a set, and draws truth and predictions.

mod labels;

use std::{collections::HashMap, sync::Arc};

use image::{RgbImage, imageops};

use crate::{
    boxes::Xyxy,
    data::{
        detection_source::{BrokenImages, DetectionSource, ImageEntry},
        image_store::ImageStore,
        loader::BatchSource as _,
    },
    detections::Verdict,
    detector::Detector,
    draw::{self, Labeled},
    error::Result,
    evaluate::details::{Example, JudgedBox},
    models::scored_box::ScoredBox,
    plural::counted,
    predict::every_image_once,
    vocabulary::{Category, CategoryId, ClassIndex, Frequency, Vocabulary},
};

pub use labels::{Labels, choose_images, draw_labels};

/// Longer side of an image as it is shown, in pixels: labels stay readable on small ones, and the
/// file small with large ones.
const SIDE: u32 = 480;

/// A small image is enlarged by at most this factor.
const LARGEST_SCALE: f32 = 4.0;

/// With more boxes than this an image is hard to read.
const MANY_BOXES: f64 = 12.0;

/// Least score of a prediction that is drawn, where nobody says another.
pub(crate) const LEAST_SCORE: f32 = 0.3;

/// Predictions that are shown where none has the least score.
const BEST: usize = 3;

/// An image, or several that belong together, with words beneath.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The words beneath.
    pub caption: String,
    /// The images with their headings, which may be empty.
    pub views: Vec<(String, RgbImage)>,
}

impl Drawn {
    /// One image.
    #[must_use]
    pub fn one(caption: String, image: RgbImage) -> Self {
        Self { caption, views: vec![(String::new(), image)] }
    }

    /// All in one image, the first two beside each other, without the words.
    pub(crate) fn joined(&self) -> RgbImage {
        match &self.views[..] {
            [(a, left), (b, right), ..] => draw::side_by_side((a, left), (b, right), ""),
            [(_, image)] => image.clone(),
            [] => RgbImage::new(1, 1),
        }
    }
}

/// Images of a set, where they are, and its classes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageSet<'a> {
    pub(crate) store: &'a Arc<ImageStore>,
    pub(crate) entries: &'a Arc<Vec<ImageEntry>>,
    pub(crate) vocabulary: &'a Vocabulary,
}

/// Draws truth and predictions of up to `count` images of a set. Broken ones are noted, and the next in line
/// take their places. Predictions are those with the least score; where there are none, the best few.
///
/// # Errors
/// What libtorch refuses.
pub(crate) fn show(
    detector: &Detector,
    set: ImageSet<'_>,
    (count, least_score): (usize, f32),
    notes: &mut Vec<String>,
) -> Result<Vec<Drawn>> {
    let ImageSet { store, entries, vocabulary } = set;
    let groups = groups(vocabulary, detector.vocabulary());
    // As many again in case some are broken.
    let labels = entries.iter().map(|entry| entry.labels.clone());
    let order = choose(labels, &groups, count.saturating_mul(2));
    let broken = Arc::new(BrokenImages::new(usize::MAX));
    let every = every_image_once(detector, Arc::clone(store), Arc::clone(entries), 1, broken);
    let source = DetectionSource { order: order.clone(), keep_originals: true, ..every };
    let mut images = Vec::new();
    for (position, &index) in (0..).zip(&order) {
        if images.len() == count {
            break;
        }
        let entry = &entries[index as usize];
        let mut batch = source.build(position)?;
        if batch.is_empty() {
            notes.extend(batch.skipped.iter().map(|why| format!("Skipped: {why}")));
            continue;
        }
        let found = detector.detect(&batch)?.swap_remove(0);
        let (found, words) = shown(found, least_score);
        let mut truth: Vec<Labeled> = entry
            .boxes
            .iter()
            .zip(&entry.labels)
            .map(|(&bbox, &class)| labeled(bbox, vocabulary.category(class), None))
            .collect();
        let mut prediction: Vec<Labeled> = found
            .iter()
            .map(|d| labeled(d.bbox, detector.vocabulary().category(d.class), Some(d.score)))
            .collect();
        let (mut left, scale) = resized(&batch.originals.swap_remove(0));
        let mut right = left.clone();
        for label in truth.iter_mut().chain(&mut prediction) {
            label.bbox.0 = label.bbox.0.map(|v| v * scale);
        }
        draw::draw(&mut left, &truth);
        draw::draw(&mut right, &prediction);
        images.push(Drawn {
            caption: format!("{}: {}, {words}", entry.name, counted(truth.len(), "object")),
            views: vec![("ground truth".to_owned(), left), ("prediction".to_owned(), right)],
        });
    }
    Ok(images)
}

/// The predictions that are drawn, and words that say which they are.
fn shown(mut found: Vec<ScoredBox>, least_score: f32) -> (Vec<ScoredBox>, String) {
    let enough = found.iter().filter(|d| d.score >= least_score).count();
    if enough > 0 || found.is_empty() {
        found.retain(|d| d.score >= least_score);
        let predictions = counted(found.len(), "prediction");
        return (found, format!("{predictions} with a score of at least {least_score}"));
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(BEST);
    let best = match found.len() {
        1 => "the best one is shown".to_owned(),
        count => format!("the best {count} are shown"),
    };
    (found, format!("no prediction with a score of at least {least_score}: {best}"))
}

/// Draws images with mistakes: what was found, what is not there, what was not found. Those that cannot be read
/// are noted.
pub(crate) fn show_mistakes(
    examples: &[Example],
    set: ImageSet<'_>,
    notes: &mut Vec<String>,
) -> Vec<Drawn> {
    let by_id: HashMap<i64, &ImageEntry> =
        set.entries.iter().map(|entry| (entry.id, entry)).collect();
    let mut images = Vec::new();
    for example in examples {
        let Some(entry) = by_id.get(&example.image_id) else {
            notes.push(format!("Skipped: no image has the id {} any more", example.image_id));
            continue;
        };
        match entry.read(set.store) {
            Ok(image) => images.push(mistakes(example, entry, &image, set.vocabulary)),
            Err(error) => notes.push(format!("Skipped: {error}")),
        }
    }
    images
}

fn mistakes(
    example: &Example,
    entry: &ImageEntry,
    image: &RgbImage,
    vocabulary: &Vocabulary,
) -> Drawn {
    let name = |id: CategoryId| match vocabulary.class_of(id) {
        Some(class) => vocabulary.category(class).name.clone(),
        None => id.0.to_string(),
    };
    let (mut image, scale) = resized(image);
    let labels = example.boxes.iter().map(|judged| {
        let bbox = Xyxy(judged.bbox.to_xyxy().0.map(|v| v * scale));
        let label = Labeled {
            bbox,
            class_name: name(judged.category_id),
            color_key: 0, // the verdict decides
            score: judged.score.map(|score| score as f32),
            dashed: false, // as well
        };
        (label, judged.verdict)
    });
    draw::draw_judged(&mut image, &labels.collect::<Vec<_>>());
    let worst = example.boxes.get(example.worst);
    let what = worst.map(|worst| match worst.score {
        Some(score) => {
            format!("{} with a score of {score:.2} is not there", name(worst.category_id))
        }
        None => {
            let [_, _, width, height] = worst.bbox.0;
            format!("{} of {width:.0} × {height:.0} pixels is not found", name(worst.category_id))
        }
    });
    let count = |verdict: Verdict| {
        let of_kind = |judged: &&JudgedBox| judged.verdict == verdict;
        format!("{} {}", example.boxes.iter().filter(of_kind).count(), verdict.short())
    };
    let caption = format!(
        "{}: {} ({})",
        entry.name,
        what.unwrap_or_default(),
        Verdict::ALL.map(count).join(", ")
    );
    Drawn::one(caption, image)
}

/// An image as large as it is shown, and by which factor its boxes grow.
fn resized(image: &RgbImage) -> (RgbImage, f32) {
    let (width, height) = image.dimensions();
    let scale = (SIDE as f32 / width.max(height).max(1) as f32).min(LARGEST_SCALE);
    let [w, h] = [width, height].map(|side| ((side as f32 * scale).round() as u32).max(1));
    let filter = if scale < 1.0 {
        imageops::FilterType::Triangle // antialiased
    } else {
        imageops::FilterType::CatmullRom
    };
    (imageops::resize(image, w, h, filter), scale)
}

/// The frequency group of each class. A class of the training set has its group there.
fn groups(classes: &Vocabulary, trained: &Vocabulary) -> Vec<Frequency> {
    let group = |category: &Category| {
        let class = trained.class_of(category.id);
        class.map_or(category, |class| trained.category(class)).frequency
    };
    classes.categories().iter().map(group).collect()
}

fn labeled(bbox: Xyxy, category: &Category, score: Option<f32>) -> Labeled {
    Labeled {
        bbox,
        class_name: category.name.clone(),
        color_key: category.id.0.unsigned_abs(),
        score,
        dashed: false,
    }
}

/// Images in the order in which they are shown. The next one is always the image whose classes add most to
/// those shown before it. Rare classes count more than common ones, and these more than frequent ones.
/// Images with several boxes come before others, unless they are crowded. The order depends on the set alone.
/// `labels` are the classes of each image's boxes, `groups` are by class index.
fn choose(
    labels: impl Iterator<Item = Vec<ClassIndex>>,
    groups: &[Frequency],
    count: usize,
) -> Vec<u32> {
    let mut left: Vec<(u32, Vec<ClassIndex>, f64)> = (0..)
        .zip(labels)
        .map(|(index, mut classes)| {
            let boxes = classes.len() as f64;
            classes.sort_unstable();
            classes.dedup();
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
    use crate::{boxes::Xywh, targets::LabelKnowledge};

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
            let labels = images.iter().map(|image| image.iter().map(|&c| ClassIndex(c)).collect());
            choose(labels, &[Frequent, Common, Rare], count)
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
        let size = |width, height| resized(&RgbImage::new(width, height)).0.dimensions();
        assert_eq!([size(960, 480), size(10, 5), size(1, 5000)], [(480, 240), (40, 20), (1, 480)]);
        let example = Example {
            image_id: 7,
            worst: 1,
            boxes: vec![
                JudgedBox {
                    category_id: CategoryId(1),
                    bbox: Xywh([600.0, 100.0, 200.0, 200.0]),
                    score: Some(0.9),
                    verdict: Verdict::FalsePositive,
                },
                JudgedBox {
                    category_id: CategoryId(1),
                    bbox: Xywh([0.0, 0.0, 400.0, 200.0]),
                    score: None,
                    verdict: Verdict::FalseNegative,
                },
            ],
        };
        let vocabulary = Vocabulary::new(vec![crate::testing::category(1, "cat")]);
        let drawn = mistakes(&example, &entry(&[]), &RgbImage::new(960, 480), &vocabulary);
        assert_eq!(drawn.caption, ": cat of 400 × 200 pixels is not found (0 TP, 1 FP, 1 FN)");
        let image = drawn.joined();
        assert_eq!(image.dimensions(), (480, 240));
        // The box that is not found is dashed: its right edge, at x = 200, has its colour and gaps.
        let edge: Vec<_> = (30..95).map(|y| *image.get_pixel(200, y)).collect();
        let ink = draw::verdict_color(Verdict::FalseNegative);
        let dashes = edge.iter().filter(|&&pixel| pixel == ink).count();
        assert!((20..50).contains(&dashes), "{dashes} of {}", edge.len());
        // The other one is not.
        let edge = (70..145).map(|y| *image.get_pixel(300, y));
        let ink = draw::verdict_color(Verdict::FalsePositive);
        assert!(edge.into_iter().all(|pixel| pixel == ink));
    }

    /// A detector that has hardly learned has low scores: then its best are shown, and the words say so.
    #[test]
    fn where_nothing_has_the_least_score_the_best_few_are_shown() {
        let found = |scores: &[f32]| -> Vec<ScoredBox> {
            let class = ClassIndex(0);
            scores
                .iter()
                .map(|&score| ScoredBox { class, score, bbox: Xyxy([0.0, 0.0, 1.0, 1.0]) })
                .collect()
        };
        let of = |scores: &[f32]| {
            let (shown, words) = shown(found(scores), 0.3);
            (shown.iter().map(|d| d.score).collect::<Vec<_>>(), words)
        };
        let enough = "1 prediction with a score of at least 0.3";
        assert_eq!(of(&[0.1, 0.3, 0.2]), (vec![0.3], enough.to_owned()));
        let best = "no prediction with a score of at least 0.3: the best 3 are shown";
        assert_eq!(of(&[0.1, 0.05, 0.2, 0.15]), (vec![0.2, 0.15, 0.1], best.to_owned()));
        assert!(of(&[0.1]).1.ends_with("the best one is shown"));
        assert_eq!(of(&[]), (vec![], "0 predictions with a score of at least 0.3".to_owned()));
    }
}
