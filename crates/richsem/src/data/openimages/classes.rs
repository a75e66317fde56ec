//! Names of classes.

use std::{collections::BTreeMap, path::Path};

use super::{Kind, Names, table};
use crate::error::{Error, Result};

/// What the first column is called where there is a header.
const HEADERS: [&str; 2] = ["LabelName", "MID"];

/// Whether a text looks like the id of an entity: `/m/01g317`, `/g/1q5`.
pub(super) fn is_mid(text: &str) -> bool {
    matches!(text.as_bytes(), [b'/', kind, b'/', _, ..] if kind.is_ascii_lowercase())
}

/// Classes and what people call them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classes {
    /// The MIDs, in the order of the file: the position of a class is its number.
    pub mids: Names,
    /// The name of each. They are not unique: OpenImages has two classes called `Mouse`.
    pub names: Vec<String>,
    /// Rows with more columns than two, as `/m/0cmf2,Airplane,86`: the number is passed over.
    pub with_numbers: usize,
    /// Names that were put together again: they have commas, and do not stand in quotes.
    pub unquoted: usize,
}

/// Reads a file of class names: `MID,Name`, with a header (V6 and later) or without.
///
/// # Errors
/// A file that cannot be read or is not CSV; a row without a MID or a name; a MID that is there twice.
pub fn read_classes(path: &Path) -> Result<Classes> {
    let mut classes = Classes::default();
    let mut lines = BTreeMap::new();
    for (i, (line, fields)) in table::all_rows(path)?.into_iter().enumerate() {
        let place = |column: &str| format!("line {line}, column {column}");
        let (mid, rest) = match &fields[..] {
            [first, ..] if i == 0 && HEADERS.iter().any(|h| first.eq_ignore_ascii_case(h)) => {
                continue;
            }
            [mid, rest @ ..] if !mid.is_empty() && rest.iter().any(|text| !text.is_empty()) => {
                (mid, rest)
            }
            _ => {
                let problem = format!("expected MID,Name, got `{}`", fields.join(","));
                return Err(Error::invalid(path, format!("line {line}"), problem)
                    .with_hint("such as /m/01g317,Person"));
            }
        };
        if i == 0 && !is_mid(mid) {
            let problem = format!("expected a MID, as /m/01g317, got `{mid}`");
            let error = Error::invalid(path, place("1"), problem);
            return Err(match Kind::of(&fields) {
                Some(kind) => error.with_hint(format!("this looks like {kind}")),
                None => error.with_hint("a header's first column is called LabelName or MID"),
            });
        }
        if let Some(earlier) = lines.insert(mid.clone(), line) {
            let problem = format!("`{mid}` is in line {earlier}, too");
            return Err(Error::invalid(path, place("1"), problem).with_hint("keep one of them"));
        }
        classes.add(mid, rest);
    }
    if classes.names.is_empty() {
        return Err(Error::invalid(path, "file", "there is a header and no class"));
    }
    Ok(classes)
}

impl Classes {
    fn add(&mut self, mid: &str, rest: &[String]) {
        self.mids.add(mid);
        let name = match rest {
            [name] => name.clone(),
            [name, number] if number.parse::<u64>().is_ok() => {
                self.with_numbers += 1;
                name.clone()
            }
            _ => {
                self.unquoted += 1;
                rest.join(", ")
            }
        };
        self.names.push(name);
    }
}
