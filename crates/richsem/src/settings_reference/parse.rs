//! Reads the doc comments of settings out of this crate's own sources: what is said of a setting is said once,
//! where it is declared.

use std::collections::BTreeMap;

/// A type of settings.
#[derive(Debug, Clone, Default)]
pub(super) struct Item {
    /// The key that says which variant is meant, as `kind`.
    pub(super) tag: Option<String>,
    /// Of a struct; of an enum none.
    pub(super) fields: Vec<Field>,
    /// Of an enum.
    pub(super) variants: Vec<Variant>,
}

/// A field of a struct or of a variant.
#[derive(Debug, Clone, Default)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) about: String,
}

/// A choice.
#[derive(Debug, Clone, Default)]
pub(super) struct Variant {
    /// As settings have it, in snake case.
    pub(super) word: String,
    pub(super) about: String,
    pub(super) fields: Vec<Field>,
    /// What it holds without naming it, as a family's settings.
    pub(super) holds: Option<String>,
}

/// The public structs and enums of a source file that rustfmt has formatted, by name.
pub(super) fn items(source: &str, items: &mut BTreeMap<String, Item>) {
    let mut lines = source.lines();
    let mut tag = None;
    while let Some(line) = lines.next() {
        if line.starts_with("#[") {
            tag = tag.or_else(|| quoted(line, "tag = \""));
        } else if let Some(name) = opened(line, "pub struct ") {
            let fields = fields(&mut lines, "}");
            items.insert(name, Item { fields, ..Item::default() });
            tag = None;
        } else if let Some(name) = opened(line, "pub enum ") {
            let variants = variants(&mut lines);
            items.insert(name, Item { tag: tag.take(), variants, ..Item::default() });
        } else {
            tag = None;
        }
    }
}

/// The name in `pub struct Name {`.
fn opened(line: &str, start: &str) -> Option<String> {
    Some(line.strip_prefix(start)?.strip_suffix(" {")?.to_owned())
}

fn fields<'a>(lines: &mut impl Iterator<Item = &'a str>, end: &str) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut about = String::new();
    for line in lines {
        let line = line.trim();
        if line == end || line == format!("{end},") {
            break;
        }
        if let Some(text) = line.strip_prefix("///") {
            add(&mut about, text);
        } else if let Some((name, kind)) = line.split_once(": ")
            && !line.starts_with("#[")
            && !line.starts_with("//")
        {
            let name = name.trim_start_matches("pub(crate) ").trim_start_matches("pub ").to_owned();
            let kind = kind.trim_end_matches(',').to_owned();
            fields.push(Field { name, kind, about: std::mem::take(&mut about) });
        }
    }
    fields
}

fn variants<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<Variant> {
    let mut variants = Vec::new();
    let mut about = String::new();
    while let Some(line) = lines.next() {
        if line == "}" {
            break;
        }
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            add(&mut about, text);
            continue;
        }
        if line.starts_with("#[") || line.starts_with("//") || line.is_empty() {
            continue;
        }
        let name: String = line.chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect();
        let rest = &line[name.len()..];
        let fields = if rest.trim() == "{" { fields(lines, "}") } else { Vec::new() };
        let holds = rest.strip_prefix('(').and_then(|rest| rest.split(')').next());
        variants.push(Variant {
            word: snake(&name),
            about: std::mem::take(&mut about),
            fields,
            holds: holds.map(str::to_owned),
        });
    }
    variants
}

/// Adds a line of a comment; an empty one ends a paragraph.
fn add(about: &mut String, line: &str) {
    let line = line.trim();
    if !about.is_empty() {
        about.push(' ');
    }
    about.push_str(line);
}

/// The text after `start`, up to the next quote.
fn quoted(line: &str, start: &str) -> Option<String> {
    let rest = &line[line.find(start)? + start.len()..];
    Some(rest[..rest.find('"')?].to_owned())
}

/// `RepeatFactor` as `repeat_factor`.
fn snake(name: &str) -> String {
    let mut word = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.extend(c.to_lowercase());
    }
    word
}
