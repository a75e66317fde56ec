//! What a conversion wrote.

use std::path::PathBuf;

use super::NotCarried;
use crate::data::dataset::LoadReport;

/// What no reader reads, and so no conversion writes: for a line below the table of what was lost.
pub const NEVER_READ: &str = "Never read, and so never written: polygons, masks, key points, captions, poses, \
                              parts of objects, licences.";

/// What [`super::convert`] wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConversionReport {
    /// The parts of the set, in its own order.
    pub splits: Vec<SplitReport>,
    /// Class names of all of them, in the order of their category ids.
    pub classes: Vec<String>,
    /// What was decided for all of them, each a line.
    pub notes: Vec<String>,
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
    /// Boxes in it, crowd regions included.
    pub boxes: usize,
    /// Crowd regions.
    pub crowds: usize,
    /// The folder or archive that the file names are relative to, where it is known.
    pub images_at: Option<PathBuf>,
    /// What was met while reading.
    pub read: LoadReport,
    /// What the new format has no place for.
    pub not_carried: NotCarried,
}
