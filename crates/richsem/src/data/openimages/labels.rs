//! Image-level labels: what was verified to be in an image, and what not to be.

use std::path::Path;

use super::{
    Columns, Names,
    judged::VerifiedLabel,
    names::{Numbered, Part},
    table::{self, Format, Rows},
};
use crate::{
    data::reading::{UNWATCHED, Watch},
    error::Result,
};

static FORMAT: Format = Format {
    what: "a file of image-level labels",
    required: &["ImageID", "LabelName", "Confidence"],
    optional: &["Source"],
};
const IMAGE: usize = 0;
const CLASS: usize = 1;
const CONFIDENCE: usize = 2;
const SOURCE: usize = 3;

impl Numbered for VerifiedLabel {
    fn numbers(&mut self) -> (&mut u32, &mut u32) {
        (&mut self.image, &mut self.class)
    }
}

/// The contents of a file of image-level labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labels {
    /// What people verified, in the order of the file.
    pub labels: Vec<VerifiedLabel>,
    /// What of the header was not as expected.
    pub columns: Columns,
    /// Labels that verify nothing: a machine's, whose confidence is a fraction. They are passed over.
    pub unverified: usize,
}

/// Reads a file of image-level labels. A confidence of 1 says that a person saw the class in the image,
/// 0 that it is not there. A fraction, or a `Source` that is `machine`, says what a classifier thought:
/// that verifies nothing. 12 bytes a label.
///
/// # Errors
/// A file that cannot be read, is not CSV or lacks a column; a row that is not as it should be, with line
/// and column.
pub fn read_labels(path: &Path, images: &mut Names, classes: &mut Names) -> Result<Labels> {
    read_labels_watched(path, images, classes, UNWATCHED)
}

/// As [`read_labels`]; `watch` is told how far it is.
///
/// # Errors
/// As [`read_labels`]; that of `watch`.
pub(in crate::data) fn read_labels_watched(
    path: &Path,
    images: &mut Names,
    classes: &mut Names,
    watch: Watch<'_>,
) -> Result<Labels> {
    let mut all = Labels::default();
    let header = table::read(path, &FORMAT, watch, part, |part| {
        all.unverified += part.append_to(&mut all.labels, images, classes);
    })?;
    all.columns = header.columns();
    Ok(all)
}

fn part(rows: &mut Rows<'_>) -> Result<Part<VerifiedLabel, usize>> {
    let mut part = Part::new();
    while let Some(row) = rows.next()? {
        let (image, class) = (row.text(IMAGE)?, row.text(CLASS)?);
        let confidence = row.number(CONFIDENCE)?;
        if !(0.0..=1.0).contains(&confidence) {
            let problem = format!("expected a number between 0 and 1, got {confidence}");
            return Err(row.wrong(CONFIDENCE, problem));
        }
        let certain = confidence == 0.0 || confidence == 1.0;
        if certain && !row.text_or_empty(SOURCE)?.eq_ignore_ascii_case("machine") {
            let (image, class) = (part.image(image), part.class(class));
            part.records.push(VerifiedLabel { image, class, present: confidence == 1.0 });
        } else {
            part.counts += 1;
        }
    }
    Ok(part)
}
