//! Annotated boxes.

use std::path::Path;

use super::{
    Columns, Names,
    names::{Numbered, Part},
    table::{self, Format, Row, Rows},
};
use crate::{
    data::reading::{UNWATCHED, Watch},
    error::Result,
};

static FORMAT: Format = Format {
    what: "a file of boxes",
    required: &["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"],
    optional: &[
        "Source",
        "IsOccluded",
        "IsTruncated",
        "IsGroupOf",
        "IsDepiction",
        "IsInside",
        // Of the box, mostly 1: it says nothing that the source does not.
        "Confidence",
    ],
};
const IMAGE: usize = 0;
const CLASS: usize = 1;
const X_MIN: usize = 2;
const X_MAX: usize = 3;
const Y_MIN: usize = 4;
const Y_MAX: usize = 5;
const SOURCE: usize = 6;
const FLAGS: usize = 7;

/// A property of a box that an annotator said or did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// 0.
    No,
    /// 1.
    Yes,
    /// -1, or the file has no such column.
    Unknown,
}

/// How a box came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `xclick`: drawn by a person, by extreme clicking.
    ExtremeClicks,
    /// `activemil`: proposed by a method, and verified by a person.
    Verified,
    /// `freeform`: drawn by a person.
    Drawn,
    /// Anything else, or the file has no such column.
    Other,
}

/// A row of a file of boxes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpenImagesBox {
    /// The image's number in the list of images.
    pub image: u32,
    /// The class's number in the list of classes.
    pub class: u32,
    /// `[x0, y0, x1, y1]`, shares of the image.
    pub bbox: [f64; 4],
    /// How it came about.
    pub source: Source,
    flags: [Flag; 5],
}

impl OpenImagesBox {
    /// Whether something else hides a part of the object.
    #[must_use]
    pub fn occluded(&self) -> Flag {
        self.flags[0]
    }

    /// Whether the object reaches beyond the image.
    #[must_use]
    pub fn truncated(&self) -> Flag {
        self.flags[1]
    }

    /// Whether the box is around five or more objects that touch each other.
    #[must_use]
    pub fn group_of(&self) -> Flag {
        self.flags[2]
    }

    /// Whether it is a drawing or a model of the object.
    #[must_use]
    pub fn depiction(&self) -> Flag {
        self.flags[3]
    }

    /// Whether the image was taken inside the object.
    #[must_use]
    pub fn inside(&self) -> Flag {
        self.flags[4]
    }
}

impl Numbered for OpenImagesBox {
    fn numbers(&mut self) -> (&mut u32, &mut u32) {
        (&mut self.image, &mut self.class)
    }
}

/// The contents of a file of boxes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Boxes {
    /// All boxes, in the order of the file.
    pub boxes: Vec<OpenImagesBox>,
    /// What of the header was not as expected.
    pub columns: Columns,
    /// Boxes without an area: width or height is 0 or less. They are kept.
    pub without_area: usize,
    /// Boxes that reach beyond the image. They are kept as they are.
    pub beyond: usize,
}

/// Reads a file of boxes, of any version or of the challenge. 48 bytes a box.
///
/// # Errors
/// A file that cannot be read, is not CSV or lacks a column; a row that is not as it should be, with line
/// and column.
pub fn read_boxes(path: &Path, images: &mut Names, classes: &mut Names) -> Result<Boxes> {
    read_boxes_watched(path, images, classes, UNWATCHED)
}

/// As [`read_boxes`]; `watch` is told how far it is.
///
/// # Errors
/// As [`read_boxes`]; that of `watch`.
pub(in crate::data) fn read_boxes_watched(
    path: &Path,
    images: &mut Names,
    classes: &mut Names,
    watch: Watch<'_>,
) -> Result<Boxes> {
    let mut all = Boxes::default();
    let header = table::read(path, &FORMAT, watch, part, |part| {
        let [without_area, beyond] = part.append_to(&mut all.boxes, images, classes);
        all.without_area += without_area;
        all.beyond += beyond;
    })?;
    all.columns = header.columns();
    Ok(all)
}

fn part(rows: &mut Rows<'_>) -> Result<Part<OpenImagesBox, [usize; 2]>> {
    let mut part = Part::<_, [usize; 2]>::new();
    while let Some(row) = rows.next()? {
        let image = part.image(row.text(IMAGE)?);
        let class = part.class(row.text(CLASS)?);
        let (bbox, source) = (corners(&row, [X_MIN, Y_MIN, X_MAX, Y_MAX])?, source(&row));
        let mut flags = [Flag::Unknown; 5];
        for (flag, column) in flags.iter_mut().zip(FLAGS..) {
            *flag = self::flag(&row, column)?;
        }
        part.counts[0] += usize::from(!has_area(bbox));
        part.counts[1] += usize::from(is_beyond(bbox));
        part.records.push(OpenImagesBox { image, class, bbox, source, flags });
    }
    Ok(part)
}

pub(super) fn corners(row: &Row<'_>, columns: [usize; 4]) -> Result<[f64; 4]> {
    let mut corners = [0.0; 4];
    for (corner, column) in corners.iter_mut().zip(columns) {
        *corner = row.share(column)?;
    }
    Ok(corners)
}

pub(super) fn has_area([x0, y0, x1, y1]: [f64; 4]) -> bool {
    x0 < x1 && y0 < y1
}

pub(super) fn is_beyond(bbox: [f64; 4]) -> bool {
    bbox.iter().any(|share| !(0.0..=1.0).contains(share))
}

fn flag(row: &Row<'_>, column: usize) -> Result<Flag> {
    // With a point: as data frames write a column that has gaps.
    Ok(match row.bytes(column) {
        b"0" | b"0.0" => Flag::No,
        b"1" | b"1.0" => Flag::Yes,
        b"-1" | b"-1.0" | b"" => Flag::Unknown,
        _ => {
            let other = row.text(column)?;
            let problem = format!("expected 1 (yes), 0 (no) or -1 (unknown), got `{other}`");
            return Err(row.wrong(column, problem));
        }
    })
}

fn source(row: &Row<'_>) -> Source {
    match row.bytes(SOURCE) {
        b"xclick" => Source::ExtremeClicks,
        b"activemil" => Source::Verified,
        b"freeform" => Source::Drawn,
        _ => Source::Other,
    }
}
