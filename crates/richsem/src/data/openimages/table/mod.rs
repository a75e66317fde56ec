//! CSV files of any size: columns by the header's names, rows read in parallel, mistakes explained.

mod block;
mod blocks;
mod row;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::Kind;
use crate::{
    data::reading::Watch,
    error::{Error, Result},
};

use blocks::Blocks;
pub(super) use row::{Row, Rows, check_share};

/// Bytes that one thread reads at a time.
const PART: usize = 1 << 20;
/// Parts that are in memory at the same time.
const PARTS: usize = 16;

/// What the detections.csv that `predict` writes begins with.
const PREDICTED: [&str; 3] = ["file", "class", "score"];

/// A kind of file, and the columns that are read.
#[derive(Debug)]
pub(super) struct Format {
    /// In words, for messages.
    pub(super) what: &'static str,
    /// Columns that must be there. Their positions here are what [`Row`] calls a column.
    pub(super) required: &'static [&'static str],
    /// Columns that may be there: they follow.
    pub(super) optional: &'static [&'static str],
}

impl Format {
    fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.required.iter().chain(self.optional).copied()
    }
}

/// Where the columns of a file are.
#[derive(Debug)]
pub(super) struct Header {
    file: PathBuf,
    format: &'static Format,
    /// All names, as they are written.
    names: Vec<String>,
    /// Of each column of the format, where it is.
    at: Vec<Option<usize>>,
}

impl Header {
    /// Names are compared without regard to case: `ImageId` is `ImageID`.
    fn new(file: &Path, format: &'static Format, names: Vec<String>, line: u64) -> Result<Self> {
        let wrong = |problem: String| Error::invalid(file, format!("line {line}"), problem);
        let mut at = Vec::new();
        for (i, wanted) in format.columns().enumerate() {
            let is_it = |(_, name): &(usize, &String)| name.eq_ignore_ascii_case(wanted);
            let found: Vec<usize> =
                (0..).zip(&names).filter(is_it).map(|(position, _)| position).collect();
            if let [first, second, ..] = found[..] {
                let (first, second) = (first + 1, second + 1);
                let problem =
                    format!("columns {first} and {second} of the header are both `{wanted}`");
                return Err(wrong(problem).with_hint("keep one of them"));
            }
            if found.is_empty() && i < format.required.len() {
                let problem = format!(
                    "expected the header of {}, with a column `{wanted}`, got `{}`",
                    format.what,
                    shortened(&names)
                );
                return Err(wrong(problem).with_hint(hint_for(&names)));
            }
            at.push(found.first().copied());
        }
        Ok(Self { file: file.to_owned(), format, names, at })
    }

    /// What of the header was not as expected.
    pub(super) fn columns(&self) -> Columns {
        let missing = std::iter::zip(self.format.columns(), &self.at);
        let missing = missing.filter(|(_, at)| at.is_none()).map(|(name, _)| name);
        let known = |i: &usize| self.at.contains(&Some(*i));
        let passed_over = (0..self.names.len()).filter(|i| !known(i));
        Columns {
            missing: missing.collect(),
            passed_over: passed_over.map(|i| self.names[i].clone()).collect(),
        }
    }
}

/// What of a header was not as expected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Columns that the file could have and has not.
    pub missing: Vec<&'static str>,
    /// Columns that nothing is read from.
    pub passed_over: Vec<String>,
}

fn shortened(names: &[String]) -> String {
    let text = names.join(",");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn hint_for(names: &[String]) -> String {
    match Kind::of(names) {
        Some(kind) => format!("these are the columns of {kind}: is it the right file?"),
        None if names.iter().any(|name| name.contains([';', '\t'])) => {
            "columns are separated by commas".to_owned()
        }
        None if names.starts_with(&PREDICTED.map(str::to_owned)) => {
            "this is the detections.csv of `predict`, with rounded numbers: give the detections.json that it writes \
             with --formats json"
                .to_owned()
        }
        None => "the first line names the columns".to_owned(),
    }
}

/// Reads a file, part by part. `watch` is told how far it is. `part` reads the rows of one, `add` gets what it returns, in the order of
/// the file.
///
/// # Errors
/// A file that cannot be read, is not CSV, or lacks a column; the first error of `part`.
pub(super) fn read<P: Send>(
    path: &Path,
    format: &'static Format,
    watch: Watch<'_>,
    part: impl Fn(&mut Rows<'_>) -> Result<P> + Sync,
    mut add: impl FnMut(P),
) -> Result<Header> {
    let mut blocks = Blocks::open(path)?;
    let (line, names) = blocks.first_row()?;
    let header = Header::new(path, format, names, line)?;
    let counter = blocks.counter();
    while let Some(block) = blocks.next(PART, PARTS)? {
        let one =
            |range: &std::ops::Range<usize>| part(&mut Rows::new(&header, &block, range.clone()));
        let read: Vec<Result<P>> = block.parts.par_iter().map(one).collect();
        for part in read {
            add(part?);
        }
        crate::data::reading::tell(&counter, watch)?;
    }
    Ok(header)
}

/// The fields of the first line of a file.
///
/// # Errors
/// A file that cannot be read or is not CSV.
pub(super) fn first_row(path: &Path) -> Result<Vec<String>> {
    Ok(Blocks::open(path)?.first_row()?.1)
}

/// All rows of a small file, each with its line. A header is a row like the others.
///
/// # Errors
/// A file that cannot be read or is not CSV.
pub(super) fn all_rows(path: &Path) -> Result<Vec<(u64, Vec<String>)>> {
    let mut blocks = Blocks::open(path)?;
    let mut rows = Vec::new();
    while let Some(block) = blocks.next(PART, PARTS)? {
        for range in &block.parts {
            rows.extend(row::texts(&block, range.clone())?);
        }
    }
    Ok(rows)
}
