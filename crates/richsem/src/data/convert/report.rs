//! What a conversion wrote.

use std::path::{Path, PathBuf};

use super::{NotCarried, Part, Target, file_of, images::Placing};
use crate::data::{dataset::LoadReport, image_io::Orientation};

/// What no reader of other formats than COCO's and LVIS's reads, and so no conversion writes or counts: for a line
/// below the table of what was lost, unless [`ConversionReport::fields_counted`].
pub const NEVER_READ: &str = "Never read of this format, and so neither written nor counted, if the set has it: \
                              polygons, masks, key points, captions, poses, parts of objects, scores, attributes, \
                              licences.";

/// What [`super::convert`] wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConversionReport {
    /// The parts of the set, in its own order.
    pub splits: Vec<SplitReport>,
    /// Class names of all of them, in the order of their category ids.
    pub classes: Vec<String>,
    /// What was decided for all of them, each a line.
    pub notes: Vec<String>,
    /// What the new format has no place for.
    pub not_carried: NotCarried,
    /// Whether every field of the set was carried or counted, also those that nothing here reads: so it is of
    /// COCO and LVIS files.
    pub fields_counted: bool,
    /// Which way up the images of the new files are, for their boxes: [`Orientation::Stored`] if boxes of an image
    /// with an EXIF orientation are on the pixels as stored.
    pub orientation: Orientation,
}

/// What was written of one part of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitReport {
    /// Its name; that of the file for a set in one piece, or `all`.
    pub name: String,
    /// The JSON file, or YOLO's folder of labels.
    pub path: PathBuf,
    /// Images in it.
    pub images: usize,
    /// Boxes of the set, crowd regions included.
    pub boxes: usize,
    /// Crowd regions.
    pub crowds: usize,
    /// The folder or archive that the images are in, where it is known.
    pub images_at: Option<PathBuf>,
    /// What was met while reading.
    pub read: LoadReport,
}

impl ConversionReport {
    /// Tells of each part, once all is written.
    pub(super) fn tell(&mut self, sets: &[Part], placing: &Placing, target: Target, output: &Path) {
        for (at, (name, set)) in sets.iter().enumerate() {
            self.splits.push(SplitReport {
                name: name.clone(),
                path: output.join(file_of(target, name)),
                images: set.images().len(),
                boxes: set.annotations().len(),
                crowds: set.annotations().iter().filter(|a| a.crowd).count(),
                images_at: placing.place_of(at, output),
                read: set.report().clone(),
            });
        }
        if let Some((_, first)) = sets.first() {
            let classes = first.vocabulary().categories().iter();
            self.classes = classes.map(|class| class.name.clone()).collect();
        }
    }
}
