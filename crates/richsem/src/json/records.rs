//! Records of a user's JSON, and what to say of one that is not as it should be.

use std::{fmt, path::Path};

use rayon::prelude::*;
use serde::{
    Deserialize, Deserializer,
    de::{IntoDeserializer as _, Visitor},
};
use serde_json::Value;
use serde_path_to_error::Segment;

use super::stream::Records;
use crate::error::{Error, Result};

/// A kind of record, and in words what its fields should be.
pub(crate) trait JsonRecord<'a>: Deserialize<'a> {
    /// Top-level key of the list; empty where the file is the list.
    const LIST: &'static str;
    /// Each field and what is expected of it.
    const FIELDS: &'static [(&'static str, &'static str)];
}

/// What an integer is called in messages.
pub(crate) const INTEGER: &str = "an integer";

/// Parses a batch in parallel; `add` gets the records in order, with their positions in the list.
///
/// # Errors
/// The first record that is not as it should be, with file, record and field; what `add` returns.
pub(crate) fn parse<'a, T: JsonRecord<'a> + Send>(
    file: &Path,
    batch: &Records<'a>,
    mut add: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let parsed: Vec<Result<T, serde_json::Error>> = batch
        .spans
        .par_iter()
        .with_min_len(64)
        .map(|span| serde_json::from_slice(&batch.bytes[span.clone()]))
        .collect();
    for (i, (record, span)) in parsed.into_iter().zip(batch.spans).enumerate() {
        let index = batch.first + i;
        match record {
            Ok(record) => add(index, record)?,
            Err(e) => {
                let offset = batch.offset + span.start as u64;
                return Err(explain::<T>(file, index, offset, &batch.bytes[span.clone()], &e));
            }
        }
    }
    Ok(())
}

/// A whole number, also one written `3.0` as spreadsheets and data frames do, or `"3"` as languages do
/// whose keys are text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Integer(pub(crate) i64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Integer;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(INTEGER)
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Integer, E> {
                Ok(Integer(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Integer, E> {
                i64::try_from(value).map(Integer).map_err(E::custom)
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Integer, E> {
                // Beyond 2^53 neighbouring integers are the same f64.
                if value.fract() == 0.0 && value.abs() <= (1u64 << 53) as f64 {
                    Ok(Integer(value as i64))
                } else {
                    Err(E::custom("not a whole number"))
                }
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Integer, E> {
                value.parse().map(Integer).map_err(|_| E::custom("not a whole number"))
            }
        }
        deserializer.deserialize_any(Whole)
    }
}

/// What an id is called in messages, where it may be a text.
pub(crate) const ID: &str = "an integer or a string";

/// An id as it is written: a number as [`Integer`] has it, or a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Id {
    Number(i64),
    Text(String),
}

impl Id {
    /// The number that it is, also of one written `"3"` or `"003"`.
    pub(crate) fn number(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }

    /// Whether a number cannot stand for it: `"a1"`, and `"003"`, which a reader of the file would look for.
    pub(crate) fn is_text(&self) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Text(text) => self.number().is_none_or(|number| number.to_string() != *text),
        }
    }

    /// Without quotes.
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

/// `3` or `"a1"`.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "\"{}\"", text.escape_debug()),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Id;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ID)
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Id, E> {
                Ok(Id::Number(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Id, E> {
                i64::try_from(value).map(Id::Number).map_err(E::custom)
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Id, E> {
                Integer::deserialize(value.into_deserializer()).map(|whole| Id::Number(whole.0))
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Id, E> {
                Ok(Id::Text(value.to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// Yes or no, written as 0 or 1, or as a boolean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ZeroOrOne(pub(crate) bool);

impl<'de> Deserialize<'de> for ZeroOrOne {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bit;
        impl Visitor<'_> for Bit {
            type Value = ZeroOrOne;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("0 or 1")
            }
            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<ZeroOrOne, E> {
                Ok(ZeroOrOne(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<ZeroOrOne, E> {
                self.visit_f64(value as f64)
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<ZeroOrOne, E> {
                if value == 0.0 || value == 1.0 {
                    Ok(ZeroOrOne(value == 1.0))
                } else {
                    Err(E::custom("neither 0 nor 1"))
                }
            }
        }
        deserializer.deserialize_any(Bit)
    }
}

/// Why `bytes`, record `index` of its list, at byte `offset` of `file`, gave `error`.
///
/// This runs once, for the record that stops the reading. So it may parse the record again to find the
/// field.
fn explain<'a, T: JsonRecord<'a>>(
    file: &Path,
    index: usize,
    offset: u64,
    bytes: &'a [u8],
    error: &serde_json::Error,
) -> Error {
    let record = format!("{}[{index}]", T::LIST);
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(syntax) => return explain_syntax::<T>(file, &record, offset, bytes, &syntax),
    };
    let reason = reason(error);
    let missing = reason.strip_prefix("missing field `").and_then(|r| r.strip_suffix('`'));
    if let Some(field) = missing {
        let problem = format!("missing; expected {}", expected_of::<T>(field).unwrap_or("a value"));
        let keys: Vec<&str> = value.as_object().into_iter().flatten().map(|(k, _)| &**k).collect();
        return Error::invalid(file, format!("{record}.{field}"), problem)
            .with_hint(format!("the record has {}", keys.join(", ")));
    }
    // The same mistake again, this time keeping track of the field.
    let mut again = serde_json::Deserializer::from_slice(bytes);
    let field = serde_path_to_error::deserialize::<_, T>(&mut again).err().and_then(|e| {
        match e.path().iter().next() {
            Some(Segment::Map { key }) => Some(key.clone()),
            _ => None,
        }
    });
    match field.and_then(|f| Some((expected_of::<T>(&f)?, value.get(&f)?, f))) {
        Some((expected, got, field)) if !reason.starts_with("duplicate field") => {
            let problem = format!("expected {expected}, got {}", describe(got));
            let error = Error::invalid(file, format!("{record}.{field}"), problem);
            match got {
                Value::String(_) if expected == INTEGER => error.with_hint(
                    "ids are numbers; write a name into `file_name`, which also finds the image",
                ),
                Value::Number(number)
                    if is_too_large(number) && [INTEGER, ID].contains(&expected) =>
                {
                    let strings =
                        if expected == ID { "; larger ones are written as strings" } else { "" };
                    error.with_hint(format!(
                        "integers are from {} to {}{strings}",
                        i64::MIN,
                        i64::MAX
                    ))
                }
                _ => error,
            }
        }
        _ => Error::invalid(file, record, reason),
    }
}

/// Whether a whole number does not fit into 64 bits with a sign.
fn is_too_large(number: &serde_json::Number) -> bool {
    number.as_i64().is_none() && number.as_f64().is_some_and(|number| number.fract() == 0.0)
}

/// Why `bytes`, the record `record` at byte `offset` of `file`, are not JSON.
fn explain_syntax<'a, T: JsonRecord<'a>>(
    file: &Path,
    record: &str,
    offset: u64,
    bytes: &[u8],
    syntax: &serde_json::Error,
) -> Error {
    let at = byte_of(bytes, syntax);
    let field = key_before(bytes, at);
    let place = field.as_ref().map_or(record.to_owned(), |f| format!("{record}.{f}"));
    let expected = field.as_deref().and_then(expected_of::<T>).unwrap_or("a JSON value");
    if let Some(word) = word_at(bytes, at) {
        return Error::invalid(file, place, format!("expected {expected}, got {word}")).with_hint(
            format!(
                "{word} is not JSON; Python's `json.dump(..., allow_nan=False)` finds where it comes \
                 from"
            ),
        );
    }
    if syntax.to_string().starts_with("number out of range") {
        return Error::invalid(file, place, format!("expected {expected}, got a number too large"));
    }
    let problem = format!("not valid JSON at byte {}: {}", offset + at as u64, reason(syntax));
    Error::invalid(file, place, problem)
        .with_hint(format!("the record is {}", shortened(&String::from_utf8_lossy(bytes))))
}

/// What is expected of a field, in words.
fn expected_of<'a, T: JsonRecord<'a>>(field: &str) -> Option<&'static str> {
    T::FIELDS.iter().find(|(name, _)| *name == field).map(|(_, expected)| *expected)
}

/// The message without its line and column, which count from the start of the record.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

/// Where in the record the parser stopped.
fn byte_of(bytes: &[u8], error: &serde_json::Error) -> usize {
    let line = memchr::memchr_iter(b'\n', bytes)
        .nth(error.line().wrapping_sub(2))
        .map_or(0, |newline| newline + 1);
    (line + error.column().saturating_sub(1)).min(bytes.len().saturating_sub(1))
}

/// The record's own key (not one of an object inside it) that was last begun at or before `at`.
fn key_before(bytes: &[u8], at: usize) -> Option<String> {
    let (mut depth, mut begin, mut is_key, mut key) = (0usize, None, false, None);
    let mut escaped = false;
    for (i, &byte) in bytes.iter().enumerate().take(at + 1) {
        match (begin, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(from), b'"') => {
                if is_key && depth == 1 {
                    key = serde_json::from_slice(&bytes[from..=i]).ok();
                }
                begin = None;
            }
            (Some(_), _) => {}
            (None, b'"') => begin = Some(i),
            (None, b'{' | b'[') => {
                depth += 1;
                is_key = depth == 1;
            }
            (None, b'}' | b']') => depth = depth.saturating_sub(1),
            // At the record's own level a string after a comma is a key, after a colon a value.
            (None, b',') if depth == 1 => is_key = true,
            (None, b':') if depth == 1 => is_key = false,
            _ => {}
        }
    }
    key
}

/// A word at `at` that programs write into JSON although it has no such word.
fn word_at(bytes: &[u8], at: usize) -> Option<&'static str> {
    let letter = |b: &u8| b.is_ascii_alphabetic();
    let from = bytes[..at].iter().rposition(|b| !letter(b)).map_or(0, |i| i + 1);
    let word: Vec<u8> = bytes[from..].iter().copied().take_while(|b| letter(b)).collect();
    ["NaN", "nan", "Infinity", "inf", "None", "True", "False"]
        .into_iter()
        .find(|known| known.as_bytes() == word)
}

/// A value in few words.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("a list of {}: {}", items.len(), shortened(&value.to_string()))
        }
        Value::Object(_) => format!("an object: {}", shortened(&value.to_string())),
        Value::String(_) => format!("the string {}", shortened(&value.to_string())),
        other => other.to_string(),
    }
}

fn shortened(text: &str) -> String {
    const KEPT: usize = 80;
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
