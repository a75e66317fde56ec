//! A label file: a row for each object, `class x y width height` (the box's centre and size) or
//! `class x1 y1 x2 y2 …` (a polygon), in shares of the image as viewers show it.

use std::{borrow::Cow, collections::HashSet};

/// How far beyond its image a centre or size may be, as a share.
const BEYOND: f64 = 0.01;

/// What rounding to six digits makes of an edge that lies on the image's.
const ROUNDING: f64 = 2e-6;

/// Columns of a row with a box: class, centre and size.
const BOX: usize = 5;

/// What rows may hold.
#[derive(Debug, Clone, Copy)]
pub(in crate::data::formats) struct Rows {
    /// Number of classes.
    pub(in crate::data::formats) classes: usize,
    /// Numbers of keypoints after each box; none if the set has no keypoints.
    pub(in crate::data::formats) keypoints: Option<usize>,
}

/// A box of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Object {
    pub(super) class: u32,
    /// Corner and size, in shares.
    pub(super) xywh: [f64; 4],
}

/// What a file says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Label {
    /// In the order of the file, each once.
    pub(super) objects: Vec<Object>,
    /// Rows that an earlier one is equal to.
    pub(super) repeated: usize,
    /// Rows that were polygons.
    pub(super) polygons: usize,
}

/// Why a file cannot be used.
#[derive(Debug, PartialEq)]
pub(super) struct Problem {
    /// From 1.
    pub(super) line: usize,
    /// Which column.
    pub(super) field: &'static str,
    pub(super) problem: String,
    pub(super) hint: &'static str,
    /// Whether it is a class that the set does not have.
    pub(super) no_class: bool,
}

impl Rows {
    /// Reads the contents of a file. An empty one has no objects.
    pub(super) fn parse(self, bytes: &[u8]) -> Result<Label, Problem> {
        let text = text_of(bytes)?;
        let lines = (1..).zip(text.lines());
        let rows: Vec<(usize, Vec<&str>)> = lines
            .map(|(line, row)| (line, row.split_whitespace().collect::<Vec<_>>()))
            .filter(|(_, row)| !row.is_empty())
            .collect();
        let polygons = self.keypoints.is_none() && rows.iter().any(|(_, row)| row.len() > BOX + 1);
        let mut label = Label::default();
        let mut seen = HashSet::with_capacity(rows.len());
        for (line, row) in rows {
            let object = Row { line, columns: &row }.object(self, polygons)?;
            label.polygons += usize::from(polygons);
            if seen.insert((object.class, object.xywh.map(f64::to_bits))) {
                label.objects.push(object);
            } else {
                label.repeated += 1;
            }
        }
        Ok(label)
    }
}

/// The text of a file, with `\n` at the end of lines and without a byte order mark.
fn text_of(bytes: &[u8]) -> Result<Cow<'_, str>, Problem> {
    let wrong = |line, problem: &str| {
        let hint = "save it as plain UTF-8 text";
        Problem { line, field: "text", problem: problem.to_owned(), hint, no_class: false }
    };
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(wrong(1, "this is UTF-16 text, not UTF-8"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        wrong(line, &format!("expected UTF-8 text, got the byte {:#04x}", bytes[at]))
    })?;
    Ok(if text.contains('\r') {
        text.replace("\r\n", "\n").replace('\r', "\n").into()
    } else {
        text.into()
    })
}

struct Row<'a> {
    line: usize,
    columns: &'a [&'a str],
}

impl Row<'_> {
    fn object(&self, rows: Rows, polygons: bool) -> Result<Object, Problem> {
        self.check_columns(rows, polygons)?;
        let class = self.class(rows.classes)?;
        let [cx, cy, w, h] = if polygons { self.extremes()? } else { self.numbers()? };
        for (field, value) in [("centre x", cx), ("centre y", cy), ("width", w), ("height", h)] {
            let least = if matches!(field, "width" | "height") { 0.0 } else { -BEYOND };
            if !(least..=1.0 + BEYOND).contains(&value) {
                let problem = format!("expected a share of the image from 0 to 1, got {value}");
                let hint = if value > 1.0 {
                    "are these pixels? Divide x by the image's width and y by its height"
                } else {
                    "correct the row, or remove it"
                };
                return Err(self.wrong(field, problem, hint));
            }
        }
        let ([x, w], [y, h]) = (span(cx, w), span(cy, h));
        Ok(Object { class, xywh: [x, y, w, h] })
    }

    fn check_columns(&self, rows: Rows, polygons: bool) -> Result<(), Problem> {
        let found = self.columns.len();
        let refuse = |expected: &str, hint| {
            Err(self.wrong("columns", format!("expected {expected}, got {found}"), hint))
        };
        let wanted = BOX + rows.keypoints.unwrap_or(0);
        match (found, polygons) {
            _ if self.columns.iter().any(|column| column.contains([',', ';'])) => {
                refuse("columns with spaces between", "write spaces in place of commas")
            }
            (_, false) if found == wanted => Ok(()),
            (BOX, true) => {
                let problem = "a row of 5 columns, which is a box, among polygons".to_owned();
                let hint = "Ultralytics takes it for a polygon of two points: write the file's rows all \
                            as boxes, or all as polygons";
                Err(self.wrong("columns", problem, hint))
            }
            (_, true) if found % 2 == 1 => Ok(()),
            (_, true) => refuse(
                "a class and pairs of x and y",
                "if these are keypoints, data.yaml needs `kpt_shape`",
            ),
            _ if rows.keypoints.is_some() => {
                let expected = format!("{wanted} columns (5 and those of `kpt_shape`)");
                refuse(&expected, "does `kpt_shape` in data.yaml belong to these labels?")
            }
            (6, _) => refuse(
                "5 columns (class, centre x and y, width, height)",
                "is the last one a score? Then these are predictions, not labels",
            ),
            _ => refuse(
                "5 columns (class, centre x and y, width, height)",
                "is the file cut off? Complete the row, or remove it",
            ),
        }
    }

    fn class(&self, classes: usize) -> Result<u32, Problem> {
        let text = self.columns.first().copied().unwrap_or_default();
        let number = text.parse::<f64>().ok().filter(|n| n.fract() == 0.0 && *n >= 0.0);
        let Some(number) = number else {
            let problem = format!("expected the index of a class, got `{}`", text.escape_debug());
            return Err(self.wrong("class", problem, "write its place in names, from 0"));
        };
        if number >= classes as f64 {
            let last = classes.saturating_sub(1);
            let problem = format!("expected an index from 0 to {last}, got {number}");
            let hint = "do the names belong to these labels? Indices begin at 0";
            return Err(Problem { no_class: true, ..self.wrong("class", problem, hint) });
        }
        Ok(number as u32)
    }

    /// The numbers of a box: its centre and size.
    fn numbers(&self) -> Result<[f64; 4], Problem> {
        let mut numbers = [0.0; 4];
        let fields = ["centre x", "centre y", "width", "height"];
        for ((number, field), text) in numbers.iter_mut().zip(fields).zip(&self.columns[1..]) {
            *number = self.number(field, text)?;
        }
        Ok(numbers)
    }

    /// The centre and size of the box around a polygon.
    fn extremes(&self) -> Result<[f64; 4], Problem> {
        let mut low = [f64::INFINITY; 2];
        let mut high = [f64::NEG_INFINITY; 2];
        for (i, text) in self.columns[1..].iter().enumerate() {
            let value = self.number(["x", "y"][i % 2], text)?;
            low[i % 2] = low[i % 2].min(value);
            high[i % 2] = high[i % 2].max(value);
        }
        let centre = |i: usize| (low[i] + high[i]) / 2.0;
        Ok([centre(0), centre(1), high[0] - low[0], high[1] - low[1]])
    }

    fn number(&self, field: &'static str, text: &str) -> Result<f64, Problem> {
        text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(|| {
            let problem = format!("expected a number, got `{}`", text.escape_debug());
            self.wrong(field, problem, "correct the row, or remove it")
        })
    }

    fn wrong(&self, field: &'static str, problem: String, hint: &'static str) -> Problem {
        Problem { line: self.line, field, problem, hint, no_class: false }
    }
}

/// Start and length along one side. What rounding put beyond the image's edge lies on it.
fn span(centre: f64, length: f64) -> [f64; 2] {
    let (start, end) = (centre - length / 2.0, centre + length / 2.0);
    let before = start < 0.0 && start > -ROUNDING;
    let behind = end > 1.0 && end < 1.0 + ROUNDING;
    match (before, behind) {
        (false, false) => [start, length],
        (true, false) => [0.0, end],
        (false, true) => [start, 1.0 - start],
        (true, true) => [0.0, 1.0],
    }
}
