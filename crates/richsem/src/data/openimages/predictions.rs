//! Predictions as the evaluator reads and writes them: a row a box.

use std::{io::Write, path::Path};

use super::{
    Columns, Names,
    boxes::{corners, has_area},
    judged::ScoredBox,
    names::{Numbered, Part},
    table::{self, Format, Rows},
};
use crate::{
    data::reading::UNWATCHED,
    error::{Error, Result, write_atomically},
};

static FORMAT: Format = Format {
    what: "a file of predictions",
    required: &["ImageID", "LabelName", "Score", "XMin", "XMax", "YMin", "YMax"],
    optional: &[],
};
const IMAGE: usize = 0;
const CLASS: usize = 1;
const SCORE: usize = 2;
const X_MIN: usize = 3;
const X_MAX: usize = 4;
const Y_MIN: usize = 5;
const Y_MAX: usize = 6;

impl Numbered for ScoredBox {
    fn numbers(&mut self) -> (&mut u32, &mut u32) {
        (&mut self.image, &mut self.class)
    }
}

/// The contents of a file of predictions or of a submission.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    /// All predictions, in the order of the file. Boxes are shares of the image.
    pub boxes: Vec<ScoredBox>,
    /// What of the header was not as expected.
    pub columns: Columns,
    /// Boxes without an area. They are kept; the metric drops them.
    pub without_area: usize,
    /// Of a submission: images without a prediction.
    pub empty_images: usize,
}

/// Reads a file of predictions, as the evaluator does: `ImageID,LabelName,Score,XMin,XMax,YMin,YMax`.
/// 48 bytes a box.
///
/// # Errors
/// A file that cannot be read, is not CSV or lacks a column; a row that is not as it should be, with line
/// and column.
pub fn read_predictions(
    path: &Path,
    images: &mut Names,
    classes: &mut Names,
) -> Result<Predictions> {
    let mut all = Predictions::default();
    let header = table::read(path, &FORMAT, UNWATCHED, part, |part| {
        all.without_area += part.append_to(&mut all.boxes, images, classes);
    })?;
    all.columns = header.columns();
    Ok(all)
}

fn part(rows: &mut Rows<'_>) -> Result<Part<ScoredBox, usize>> {
    let mut part = Part::new();
    while let Some(row) = rows.next()? {
        let (image, class) = (part.image(row.text(IMAGE)?), part.class(row.text(CLASS)?));
        let score = row.number(SCORE)?;
        let bbox = corners(&row, [X_MIN, Y_MIN, X_MAX, Y_MAX])?;
        part.counts += usize::from(!has_area(bbox));
        part.records.push(ScoredBox { image, class, score, bbox });
    }
    Ok(part)
}

/// Writes predictions as the evaluator reads them, in their order. `images` and `classes` are the names of
/// the numbers.
///
/// # Errors
/// A file that cannot be written; a number that has no name.
pub fn write_predictions(
    path: &Path,
    predictions: &[ScoredBox],
    images: &Names,
    classes: &Names,
) -> Result<()> {
    write_atomically(path, |out| {
        let mut out = csv::Writer::from_writer(out);
        write_row(&mut out, FORMAT.required)?;
        for found in predictions {
            let [x0, y0, x1, y1] = found.bbox.map(|share| share.to_string());
            let (image, class) = (name(images, found.image)?, name(classes, found.class)?);
            let score = found.score.to_string();
            write_row(&mut out, &[image, class, &score, &x0, &x1, &y0, &y1])?;
        }
        Ok(out.flush()?)
    })
}

pub(super) fn name(names: &Names, number: u32) -> Result<&str> {
    let missing = || Error::other(format!("number {number} has no name among {}", names.len()));
    names.get(number).ok_or_else(missing)
}

pub(super) fn write_row(out: &mut csv::Writer<impl Write>, fields: &[&str]) -> Result<()> {
    out.write_record(fields).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error.into(),
        other => Error::other(format!("CSV: {other:?}")),
    })
}
