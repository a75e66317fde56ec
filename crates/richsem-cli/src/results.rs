//! Files of detections, as `eval` and `doctor` take them.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, anyhow};
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
    let detections::Found { detections, renumbered, renamed, left_out, other_images, negative } =
        detections::read_for(file, names)?;
    if let Some(first) = other_images.keys().next() {
        output::warn(format!(
            "{}: passed over, in images that the annotations do not have: {} in {}, as {first}",
            file.display(),
            counted(other_images.values().sum::<usize>(), "detection"),
            counted(other_images.len(), "image")
        ));
    }
    tell_left_out(file, &left_out);
    warn_of_negative(
        file,
        negative,
        detections.len(),
        "a box is [x, y, width, height], not two corners",
    );
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

/// Warns of boxes that have no size.
fn warn_of_negative(file: &Path, negative: usize, of: usize, rule: &str) {
    if negative > 0 {
        output::warn(format!(
            "{}: {} a width or height below 0 and no match ({rule})",
            file.display(),
            among(negative, of, "detection", ["has", "have"])
        ));
    }
}

/// Detections of a file of OpenImages' predictions, or of a submission.
fn read_shares(file: &Path, dataset: &Dataset) -> Result<Vec<Detection>> {
    let Results { detections, other_images, other_classes, negative } =
        read_results(file, dataset)?;
    if detections.is_empty() && (other_images > 0 || !other_classes.is_empty()) {
        return Err(anyhow!(
            "{}: no prediction is in an image and of a class that the annotations have (images that they do not have: {} \
             predictions; classes: {})\n  hint: give the annotations of these very images and classes",
            file.display(),
            other_images,
            other_classes.values().sum::<usize>()
        ));
    }
    warn_of_negative(file, negative, detections.len(), "XMin is the smaller x, YMin the smaller y");
    if other_images > 0 {
        output::warn(format!(
            "{}: passed over, in images that the annotations do not have: {}",
            file.display(),
            counted(other_images, "prediction")
        ));
    }
    tell_left_out(file, &other_classes);
    Ok(detections)
}

/// Tells of detections whose classes the annotations do not have, by the names of the classes.
fn tell_left_out(file: &Path, classes: &BTreeMap<String, usize>) {
    if let Some(first) = classes.keys().next() {
        output::warn(format!(
            "{}: passed over, of classes that the annotations do not have: {} of {}, as {first}",
            file.display(),
            counted(classes.values().sum::<usize>(), "detection"),
            counted(classes.len(), "class")
        ));
    }
}
