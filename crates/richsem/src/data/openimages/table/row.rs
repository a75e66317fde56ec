//! Rows of a part of a file, and what to say of one that is not as it should be.

use std::ops::Range;

use csv::ByteRecord;

use super::{Header, block::Block};
use crate::error::{Error, Result};

/// The rows of a part of a file.
pub(in super::super) struct Rows<'a> {
    header: &'a Header,
    block: &'a Block<'a>,
    start: usize,
    reader: csv::Reader<&'a [u8]>,
    record: ByteRecord,
}

fn reader(bytes: &[u8]) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes)
}

impl<'a> Rows<'a> {
    pub(super) fn new(header: &'a Header, block: &'a Block<'a>, range: Range<usize>) -> Self {
        let (start, reader) = (range.start, reader(&block.bytes[range]));
        Self { header, block, start, reader, record: ByteRecord::new() }
    }

    /// The next row; empty lines are none.
    ///
    /// # Errors
    /// A row with more or fewer fields than the header.
    pub(in super::super) fn next(&mut self) -> Result<Option<Row<'_>>> {
        if !read(&mut self.reader, &mut self.record, self.block)? {
            return Ok(None);
        }
        let (header, block, start) = (self.header, self.block, self.start);
        let row = Row { header, block, start, record: &self.record };
        let (expected, got) = (header.names.len(), row.record.len());
        if expected == got {
            return Ok(Some(row));
        }
        let problem = format!("expected {expected} fields, as in the header, got {got}");
        Err(Error::invalid(&header.file, row.place(), problem).with_hint(if got < expected {
            "is the file truncated? Compare its size with the original's"
        } else {
            "a text with a comma stands in quotes (\")"
        }))
    }
}

/// Reads the next record; false after the last.
fn read(reader: &mut csv::Reader<&[u8]>, record: &mut ByteRecord, block: &Block) -> Result<bool> {
    reader.read_byte_record(record).map_err(|error| {
        Error::invalid(block.file, format!("line {} or after it", block.line), error.to_string())
    })
}

/// The line of the file in which a record begins. (The reader's own count begins with the part, and it
/// takes the second half of a line's end for the beginning of the next record.)
fn line(block: &Block, start: usize, record: &ByteRecord) -> u64 {
    let byte = start + record.position().map_or(0, |position| position.byte() as usize);
    let rest = block.bytes.get(byte..).unwrap_or_default();
    let ends = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    block.line_at(byte + ends)
}

/// The fields of all rows of a part, each row with its line.
///
/// # Errors
/// Fields that are not UTF-8.
pub(super) fn texts(block: &Block, range: Range<usize>) -> Result<Vec<(u64, Vec<String>)>> {
    let mut reader = reader(&block.bytes[range.clone()]);
    let (mut record, mut rows) = (ByteRecord::new(), Vec::new());
    while read(&mut reader, &mut record, block)? {
        let line = line(block, range.start, &record);
        let field = |(i, bytes): (usize, &[u8])| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => {
                let place = format!("line {line}, column {}", i + 1);
                Err(not_utf8(block, place, bytes, error))
            }
        };
        rows.push((line, record.iter().enumerate().map(field).collect::<Result<_>>()?));
    }
    Ok(rows)
}

fn not_utf8(block: &Block, place: String, bytes: &[u8], error: std::str::Utf8Error) -> Error {
    let problem = format!("expected UTF-8 text, got {:#04x}", bytes[error.valid_up_to()]);
    Error::invalid(block.file, place, problem).with_hint("save the file as UTF-8")
}

/// One row.
pub(in super::super) struct Row<'a> {
    header: &'a Header,
    block: &'a Block<'a>,
    start: usize,
    record: &'a ByteRecord,
}

impl<'a> Row<'a> {
    fn place(&self) -> String {
        format!("line {}", line(self.block, self.start, self.record))
    }

    /// The error of a column of the format.
    pub(in super::super) fn wrong(&self, column: usize, problem: impl Into<String>) -> Error {
        let name = self.header.format.columns().nth(column).unwrap_or("?");
        Error::invalid(&self.header.file, format!("{}, column {name}", self.place()), problem)
    }

    /// A field without white space around it; empty where the file has no such column.
    pub(in super::super) fn bytes(&self, column: usize) -> &'a [u8] {
        let bytes = self.header.at[column].and_then(|at| self.record.get(at));
        bytes.unwrap_or_default().trim_ascii()
    }

    /// The same as text.
    pub(in super::super) fn text_or_empty(&self, column: usize) -> Result<&'a str> {
        let bytes = self.bytes(column);
        std::str::from_utf8(bytes).map_err(|error| {
            let problem = format!("expected UTF-8 text, got {:#04x}", bytes[error.valid_up_to()]);
            self.wrong(column, problem).with_hint("save the file as UTF-8")
        })
    }

    /// A field as text that is not empty.
    pub(in super::super) fn text(&self, column: usize) -> Result<&'a str> {
        match self.text_or_empty(column)? {
            "" => Err(self.wrong(column, "the field is empty")),
            text => Ok(text),
        }
    }

    /// A field as a finite number.
    pub(in super::super) fn number(&self, column: usize) -> Result<f64> {
        let text = self.text(column)?;
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| self.wrong(column, format!("expected a number, got `{text}`")))
    }

    /// A coordinate as a share of the image's width or height.
    pub(in super::super) fn share(&self, column: usize) -> Result<f64> {
        let number = self.number(column)?;
        check_share(number)
            .map_err(|(problem, hint)| self.wrong(column, problem).with_hint(hint))?;
        Ok(number)
    }
}

/// Whether a coordinate can be a share of the image, or why not, and what to do. Boxes reach beyond the
/// image now and then.
pub(in super::super) fn check_share(number: f64) -> Result<(), (String, &'static str)> {
    if (-1.0..=2.0).contains(&number) {
        return Ok(());
    }
    let problem = format!("expected a share of the image, between 0 and 1, got {number}");
    Err((problem, "are these pixels? Divide x by the image's width and y by its height"))
}
