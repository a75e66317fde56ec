//! What a file of weights holds, in a few lines.

use std::path::Path;

use crate::{
    convert::{Kind, Source},
    detector::Detector,
    error::Result,
    models::padding::Padding,
    report::{Facts, thousands},
};

/// Names and values for the user, in order: what the file is, and for a detector of this program its sizes,
/// its classes, and what padding changes of its results.
///
/// # Errors
/// A file that cannot be read, or whose tensors are none of the known kinds.
pub fn info(path: &Path) -> Result<Vec<(String, String)>> {
    let source = Source::read(path, None)?;
    let mut facts = Facts::default();
    facts.add("file", path.display().to_string());
    facts.add("what", source.describe());
    match source.kind {
        Kind::Detector => {
            let (config, vocabulary) = Detector::named_in(&source.metadata, path)?;
            facts.add_detector(&config.model);
            facts.add_classes(&vocabulary);
            facts.add_inference(&config);
        }
        // What it becomes, converted or started from.
        Kind::Official(_) => facts.add("padding", Padding::Official.to_string()),
        Kind::Backbone(layout) => {
            let copy = |(name, t): (&String, &tch::Tensor)| (name.clone(), t.shallow_clone());
            let sorted = layout.sort(source.tensors.iter().map(copy).collect());
            let sizes = layout.config(&sorted.tensors);
            facts.add("sizes", sizes.map_or("unknown".to_owned(), |config| config.describe()));
        }
        Kind::FasterRcnn(_) | Kind::Clip | Kind::Resnet(_) => {}
    }
    let numbers: usize = source.tensors.values().map(tch::Tensor::numel).sum();
    let tensors = thousands(source.tensors.len());
    facts.add("tensors", format!("{tensors}, {} numbers", thousands(numbers)));
    Ok(facts.0)
}
