//! OpenImages as its files are: boxes and image-level labels as CSV, the hierarchy of its classes, predictions
//! and submissions.
//!
//! Sources: the data set's page (storage.googleapis.com/openimages/web, versions V4 to V7), and the
//! evaluation of the challenge of 2019. Columns are found by the names in the header, so that all versions
//! read alike. Coordinates are shares of the image: in all of these files but a submission, XMax
//! precedes YMin.
//!
//! Classes are known by their MID, as `/m/01g317`. Names are for people: two classes can have the same.

mod boxes;
mod classes;
mod hierarchy;
mod judged;
mod labels;
mod names;
mod predictions;
mod submission;
mod table;

use std::{fmt, path::Path};

pub(in crate::data) use boxes::read_boxes_watched;
pub use boxes::{Boxes, Flag, OpenImagesBox, Source, read_boxes};
pub use classes::{Classes, read_classes};
pub use hierarchy::{Hierarchy, Knowledge, Relations};
pub use judged::{ScoredBox, VerifiedLabel};
pub(in crate::data) use labels::read_labels_watched;
pub use labels::{Labels, read_labels};
pub use names::Names;
pub use predictions::{Predictions, read_predictions, write_predictions};
pub use submission::{read_submission, write_submission};
pub use table::Columns;

use crate::error::Result;

/// What a CSV file of OpenImages holds, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Annotated boxes: `ImageID`, `LabelName`, `XMin` and so on.
    Boxes,
    /// Image-level labels: `ImageID`, `LabelName`, `Confidence`, no coordinates.
    Labels,
    /// Predictions as the evaluator reads them: boxes with a `Score`.
    Predictions,
    /// Predictions as Kaggle takes them: `ImageId`, `PredictionString`.
    Submission,
    /// Names of classes: `LabelName`, `DisplayName`, or MIDs without a header.
    Classes,
}

impl Kind {
    /// What the fields of a file's first line say.
    fn of(fields: &[String]) -> Option<Self> {
        let has = |wanted: &str| fields.iter().any(|field| field.eq_ignore_ascii_case(wanted));
        let mid = fields.first().is_some_and(|field| classes::is_mid(field));
        Some(match () {
            () if has("ImageID") && has("PredictionString") => Self::Submission,
            () if has("ImageID") && has("LabelName") && has("XMin") => {
                if has("Score") {
                    Self::Predictions
                } else {
                    Self::Boxes
                }
            }
            () if has("ImageID") && has("LabelName") && has("Confidence") => Self::Labels,
            () if has("LabelName") && has("DisplayName") || mid && fields.len() > 1 => {
                Self::Classes
            }
            () => return None,
        })
    }

    /// What a file holds, or `None` where its header is none of OpenImages'.
    ///
    /// # Errors
    /// A file that cannot be read, or is no text.
    pub fn of_file(path: &Path) -> Result<Option<Self>> {
        Ok(Self::of(&table::first_row(path)?))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boxes => "a file of boxes",
            Self::Labels => "a file of image-level labels",
            Self::Predictions => "a file of predictions",
            Self::Submission => "a submission",
            Self::Classes => "a file of class names",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
