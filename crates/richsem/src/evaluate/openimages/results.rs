//! OpenImages' results files as detections of a data set, and back.

use std::{collections::BTreeMap, path::Path};

use crate::{
    boxes::Xywh,
    data::{
        dataset::Dataset,
        formats::Unit,
        openimages::{Kind, Names, read_predictions, read_submission, write_submission},
    },
    detections::Detection,
    error::{Error, Result},
    evaluate::ScoredBox,
    vocabulary::{CategoryId, ClassIndex},
};

/// The contents of a file of predictions or a submission.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    /// In the order of the file; boxes in the unit of the data set.
    pub detections: Vec<Detection>,
    /// Predictions in images that the set does not have: passed over.
    pub other_images: usize,
    /// Predictions of classes that the set does not have, by MID: passed over.
    pub other_classes: BTreeMap<String, usize>,
}

/// Whether a file has predictions as OpenImages' evaluator reads them, or as Kaggle does.
#[must_use]
pub fn is_results(path: &Path) -> bool {
    matches!(Kind::of_file(path), Ok(Some(Kind::Predictions | Kind::Submission)))
}

/// Reads predictions (`ImageID,LabelName,Score,XMin,…`) or a submission (`ImageId,PredictionString`) for the
/// images and classes of a data set.
///
/// # Errors
/// A file that cannot be read or is not as it should be; an image whose size is not known, if the set is in
/// pixels.
pub fn read_results(path: &Path, dataset: &Dataset) -> Result<Results> {
    let (mut images, mut classes) = (images_of(dataset), keys_of(dataset));
    let (image_count, class_count) = (images.len(), classes.len());
    let found = match Kind::of_file(path)? {
        Some(Kind::Submission) => read_submission(path, &mut images, &mut classes)?,
        _ => read_predictions(path, &mut images, &mut classes)?,
    };
    let mut results = Results::default();
    for found in found.boxes {
        if found.class as usize >= class_count {
            let mid = classes.get(found.class).unwrap_or_default().to_owned();
            *results.other_classes.entry(mid).or_default() += 1;
        } else if found.image as usize >= image_count {
            results.other_images += 1;
        } else {
            results.detections.push(detection(&found, dataset)?);
        }
    }
    Ok(results)
}

fn detection(found: &ScoredBox, dataset: &Dataset) -> Result<Detection> {
    let image = found.image as usize;
    let [width, height] = sides(dataset, image)?;
    let [x0, y0, x1, y1] = found.bbox;
    Ok(Detection {
        image_id: dataset.images()[image].id,
        category_id: dataset.vocabulary().category(ClassIndex(found.class)).id,
        bbox: Xywh([x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]),
        score: found.score,
    })
}

/// Writes detections as a submission, which has a row for every image of the set.
///
/// # Errors
/// A file that cannot be written; an image whose size is not known; detections of another set.
pub fn write_results(path: &Path, detections: &[Detection], dataset: &Dataset) -> Result<()> {
    let place: BTreeMap<i64, usize> =
        dataset.images().iter().enumerate().map(|(at, image)| (image.id, at)).collect();
    let scored = |detection: &Detection| -> Result<ScoredBox> {
        let unknown = || Error::other(format!("a detection of another set: {detection:?}"));
        let image = *place.get(&detection.image_id).ok_or_else(unknown)?;
        let class = class_of(dataset, detection.category_id).ok_or_else(unknown)?;
        let [width, height] = sides(dataset, image)?;
        let Xywh([x, y, w, h]) = detection.bbox;
        let bbox = [x / width, y / height, (x + w) / width, (y + h) / height];
        Ok(ScoredBox { image: image as u32, class, score: detection.score, bbox })
    };
    let found: Vec<ScoredBox> = detections.iter().map(scored).collect::<Result<_>>()?;
    write_submission(path, &found, &images_of(dataset), &keys_of(dataset))
}

fn class_of(dataset: &Dataset, id: CategoryId) -> Option<u32> {
    dataset.vocabulary().class_of(id).map(|class| class.0)
}

/// Width and height that shares are of; 1 if the set's boxes are shares themselves.
fn sides(dataset: &Dataset, image: usize) -> Result<[f64; 2]> {
    if dataset.unit() == Unit::Shares {
        return Ok([1.0; 2]);
    }
    let record = &dataset.images()[image];
    let [height, width] = record.size.ok_or_else(|| {
        let problem = "unknown, and predictions are shares of it";
        Error::invalid(dataset.path(), format!("size of {}", record.file_name), problem)
    })?;
    Ok([f64::from(width), f64::from(height)])
}

/// The ids of the images, by position: as texts, or the names of their files.
fn images_of(dataset: &Dataset) -> Names {
    let mut names = Names::new();
    for (at, image) in dataset.images().iter().enumerate() {
        let file = image.file_name.rsplit('/').next().unwrap_or_default();
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        names.add(dataset.text_id(at).unwrap_or(stem));
    }
    names
}

/// The MIDs of the classes, by position; names where a set has none.
fn keys_of(dataset: &Dataset) -> Names {
    let mut names = Names::new();
    for category in dataset.vocabulary().categories() {
        names.add(category.key.as_deref().unwrap_or(&category.name));
    }
    names
}
