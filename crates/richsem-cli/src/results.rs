//! Files of detections, as `eval` and `doctor` take them.

use std::path::Path;

use anyhow::Result;
use richsem::{
    data::dataset::Dataset,
    detections::{self, Detection, Names},
    evaluate::openimages::{Results, is_results, read_results},
    plural::{among, counted},
};

use crate::output;

/// Detections of a results file for these annotations; tells what is odd in it.
pub(crate) fn read_detections(file: &Path, dataset: &Dataset) -> Result<Vec<Detection>> {
    if is_results(file) {
        return read_shares(file, dataset);
    }
    let images = dataset.image_names();
    let names = Names { images: &images, classes: dataset.vocabulary() };
    let detections::Found { detections, renumbered, renamed, negative } =
        detections::read_for(file, names)?;
    if negative > 0 {
        output::warn(format!(
            "{}: {} a width or height below 0 and no match (a box is [x, y, width, height], not two corners)",
            file.display(),
            among(negative, detections.len(), "detection", ["has", "have"])
        ));
    }
    for (count, id, name) in
        [(renumbered, "image_id", "file_name"), (renamed, "category_id", "category_name")]
    {
        if count > 0 {
            output::note(format!(
                "{}: in {count} of {} detections {id} and {name} disagree: {name} is used",
                file.display(),
                detections.len()
            ));
        }
    }
    Ok(detections)
}

/// Detections of a file of OpenImages' predictions, or of a submission.
fn read_shares(file: &Path, dataset: &Dataset) -> Result<Vec<Detection>> {
    let Results { detections, other_images, other_classes } = read_results(file, dataset)?;
    if other_images > 0 {
        output::warn(format!(
            "{}: passed over, in images that the annotations do not have: {}",
            file.display(),
            counted(other_images, "prediction")
        ));
    }
    if let Some((first, _)) = other_classes.first_key_value() {
        output::warn(format!(
            "{}: passed over, of classes that the annotations do not have: {} of {}, as {first}",
            file.display(),
            counted(other_classes.values().sum::<usize>(), "prediction"),
            counted(other_classes.len(), "class")
        ));
    }
    Ok(detections)
}
