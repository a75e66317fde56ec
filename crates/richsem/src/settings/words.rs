//! Serde's messages in the words of settings files.

use std::path::Path;

use crate::error::Error;

/// Serde's message with TOML's words for Rust's types.
pub(super) fn in_plain_words(message: &str) -> String {
    if message.starts_with("wanted exactly 1 element") {
        return "expected one of the known words, got a table".to_owned();
    }
    let Some((got, expected)) = message.rsplit_once(", expected ") else {
        return message.to_owned();
    };
    let expected = match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number of at least 0",
        "isize" | "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a sequence" => "a list",
        "a map" => "a table",
        "path string" => "a path",
        "string only" | "variant identifier" => "one of the known words",
        other if other.starts_with("internally tagged enum") => "a table with its kind",
        other => other.strip_prefix("struct ").map_or(other, |_| "a table"),
    };
    let got = got.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    let got = match got {
        "unit variant" => "another kind of value".to_owned(),
        "sequence" => "a list".to_owned(),
        got => got.replace("map", "a table"),
    };
    format!("expected {expected}, got {got}")
}

/// A hint at the known name that was probably meant.
pub(super) fn nearest(unknown: &str, known: &[&str]) -> Option<String> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(score, _)| *score > 0.7)
        .map(|(_, name)| format!("did you mean `{name}`?"))
}

/// The unknown name and the known ones, from serde's "unknown field `x`, expected one of `a`, `b`".
/// `what` it names: a `field`, or a `variant` of a choice.
pub(super) fn unknown_name<'a>(message: &'a str, what: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let rest = message.strip_prefix("unknown ")?.strip_prefix(what)?.strip_prefix(" `")?;
    let (unknown, rest) = rest.split_once('`')?;
    Some((unknown, rest.split('`').skip(1).step_by(2).collect()))
}

/// What is wrong with a text that was to be TOML, in one line, and where.
pub(crate) fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    if text.trim().is_empty() {
        return Error::invalid(path, "TOML", "the file is empty");
    }
    let message = error.message();
    let Some(span) = error.span() else { return Error::invalid(path, "TOML", message.to_owned()) };
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    if message == "duplicate key"
        && let Some(key) = text.get(span)
    {
        // The message does not say which.
        return Error::invalid(
            path,
            format!("line {line}"),
            format!("the key `{key}` is there twice"),
        );
    }
    let key = text.lines().nth(line - 1).and_then(|line| Some(line.split_once('=')?.0.trim()));
    let at = key.map(|key| format!(" (`{key}`)")).unwrap_or_default();
    Error::invalid(path, format!("line {line}{at}"), in_plain_words(message))
}
