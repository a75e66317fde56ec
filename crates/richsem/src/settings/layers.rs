//! Merging: a file over the files it extends, assignments over all; where each key was said.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{
    Form,
    keys::{at, named_at, put, remove, take},
    presets::Parent,
    words::{in_plain_words, nearest, not_toml, unknown_name},
};
use crate::{
    argument::Argument,
    error::{Error, Result},
};

/// All layers in one table.
#[derive(Debug, Default, Clone)]
pub(crate) struct Merged {
    pub(super) table: Table,
    /// Dotted key → the file that said it last, or [`Argument::Set`].
    pub(super) origins: BTreeMap<String, PathBuf>,
    pub(super) main: PathBuf,
}

/// One setting over those of the files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Assignment<'a> {
    /// `a.b=c`.
    pub(crate) text: &'a str,
    /// The file that says it, whose folder paths are then relative to; none for one from outside.
    pub(crate) file: Option<&'a Path>,
}

impl<'a> Assignment<'a> {
    /// Those from outside of all files.
    pub(crate) fn from_outside(texts: &'a [String]) -> Vec<Self> {
        texts.iter().map(|text| Self { text, file: None }).collect()
    }
}

/// Reads `path` and what it extends, then the assignments.
pub(super) fn read(form: &Form, path: &Path, assignments: &[Assignment<'_>]) -> Result<Merged> {
    read_parent(form, &Parent::file(path), assignments)
}

/// As [`read`], of a preset, whose paths are relative to the working folder.
pub(super) fn read_preset(
    form: &Form,
    name: &str,
    assignments: &[Assignment<'_>],
) -> Result<Merged> {
    read_parent(form, &Parent::preset(form, name)?, assignments)
}

fn read_parent(form: &Form, parent: &Parent, assignments: &[Assignment<'_>]) -> Result<Merged> {
    let mut merged = Merged { main: parent.name(), ..Merged::default() };
    merge_parent(form, parent, &mut merged, &mut Vec::new())?;
    for assignment in assignments {
        assign(form, *assignment, &mut merged)?;
    }
    Ok(merged)
}

/// No file, only assignments.
pub(super) fn defaults(form: &Form, assignments: &[Assignment<'_>]) -> Result<Merged> {
    let version = format!("version = {}", super::VERSION);
    let mut merged = parse(form, &version, &outside())?;
    for assignment in assignments {
        assign(form, *assignment, &mut merged)?;
    }
    Ok(merged)
}

/// One complete text.
pub(super) fn parse(form: &Form, text: &str, path: &Path) -> Result<Merged> {
    let mut merged = Merged { main: path.to_owned(), ..Merged::default() };
    merge_text(form, text, &Parent::file(path), &mut merged, &mut Vec::new())?;
    Ok(merged)
}

/// Reads the file or preset that another one extends, and what it extends itself.
fn merge_parent(
    form: &Form,
    parent: &Parent,
    merged: &mut Merged,
    open: &mut Vec<PathBuf>,
) -> Result<()> {
    let path = parent.name();
    let text = parent.text()?;
    let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
    if open.contains(&identity) {
        return Err(Error::invalid(
            &path,
            "extends",
            "the file extends itself, directly or by others",
        )
        .with_hint("take `extends` out of one of them"));
    }
    open.push(identity);
    merge_text(form, &text, parent, merged, open)?;
    open.pop();
    Ok(())
}

const NOT_TOML: &str = "this looks like JSON: settings are TOML, as in configs/";

fn merge_text(
    form: &Form,
    text: &str,
    this: &Parent,
    merged: &mut Merged,
    open: &mut Vec<PathBuf>,
) -> Result<()> {
    let path = &*this.name();
    let mut table: Table = text.parse().map_err(|e: toml::de::Error| {
        let error = not_toml(path, text, &e);
        if text.trim_start().starts_with('{') { error.with_hint(NOT_TOML) } else { error }
    })?;
    match table.remove("extends") {
        None => {}
        Some(Value::String(parent)) => {
            merge_parent(form, &this.parent(form, &parent)?, merged, open)?;
        }
        Some(other) => {
            let problem = format!("expected the name of a config file, got {other}");
            return Err(Error::invalid(path, "extends", problem));
        }
    }
    moved(form, &mut table).map_err(|problem| problem.of(path))?;
    spell_out(form, &mut table, &mut merged.table);
    say_kinds(form, &mut table, &mut merged.table);
    absolute_paths(form, &mut table, this.folder());
    overlay(&mut merged.table, table, "", path, &mut merged.origins);
    Ok(())
}

/// Writes strings that stand for a table as that table. It takes the place of one in `base`: nothing of
/// another set stays.
fn spell_out(form: &Form, over: &mut Table, base: &mut Table) {
    for (table, key) in form.short {
        let mut replaced = Vec::new();
        named_at(over, table, String::new(), &mut |dotted, value| {
            if let Value::String(text) = value {
                let text = Value::String(std::mem::take(text));
                *value = Value::Table(Table::from_iter([((*key).to_owned(), text)]));
                replaced.push(dotted);
            }
        });
        replaced.iter().for_each(|dotted| remove(base, dotted));
    }
}

/// Writes the kind that is meant into tables of which neither `over` nor `base` says one: a file over them
/// that chooses another kind is then seen to.
fn say_kinds(form: &Form, over: &mut Table, base: &mut Table) {
    for (table, kind) in form.kinds {
        let mut said = Vec::new();
        named_at(base, table, String::new(), &mut |dotted, value| {
            if value.get("kind").is_some() {
                said.push(dotted);
            }
        });
        named_at(over, table, String::new(), &mut |dotted, value| {
            if let Value::Table(value) = value
                && !said.contains(&dotted)
            {
                value.entry("kind").or_insert_with(|| Value::String((*kind).to_owned()));
            }
        });
    }
}

fn absolute_paths(form: &Form, table: &mut Table, folder: &Path) {
    for key in form.paths {
        at(table, key, &mut |value| {
            if let Value::String(path) = value {
                let joined = folder.join(&*path);
                let absolute = std::path::absolute(&joined).unwrap_or(joined);
                *path = absolute.to_string_lossy().into_owned();
            }
        });
    }
}

/// A setting that a table has in two places.
struct TwoPlaces {
    old: &'static str,
    new: &'static str,
}

impl TwoPlaces {
    fn of(self, path: &Path) -> Error {
        let problem = format!("it is said twice: `{}` is its former place", self.old);
        Error::invalid(path, self.new, problem).with_hint("take one of them out")
    }
}

/// Puts what has moved where it is read.
fn moved(form: &Form, table: &mut Table) -> std::result::Result<(), TwoPlaces> {
    for &(old, new) in form.moved {
        let Some(value) = take(table, old) else { continue };
        if take(table, new).is_some() {
            return Err(TwoPlaces { old, new });
        }
        put(table, new, value);
    }
    Ok(())
}

/// Where a key is read that may have moved.
fn current(form: &Form, key: &str) -> String {
    let moved = form.moved.iter().find_map(|(old, new)| {
        let rest = key.strip_prefix(old)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{new}{rest}"))
    });
    moved.unwrap_or_else(|| key.to_owned())
}

fn overlay(
    base: &mut Table,
    over: Table,
    prefix: &str,
    file: &Path,
    origins: &mut BTreeMap<String, PathBuf>,
) {
    // A table with another `kind` is another choice: nothing of the old one stays.
    if let (Some(old), Some(new)) = (base.get("kind"), over.get("kind"))
        && old != new
    {
        base.clear();
    }
    for (key, value) in over {
        let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        origins.insert(dotted.clone(), file.to_owned());
        match (base.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => {
                overlay(old, new, &dotted, file, origins)
            }
            (_, Value::Table(new)) => {
                let mut fresh = Table::new();
                overlay(&mut fresh, new, &dotted, file, origins);
                base.insert(key, Value::Table(fresh));
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// What messages name in the place of a file.
pub(super) fn outside() -> PathBuf {
    Argument::Set.to_string().into()
}

/// `a.b=c`: a TOML value, or a bare word as a string.
fn assign(form: &Form, assignment: Assignment<'_>, merged: &mut Merged) -> Result<()> {
    let text = assignment.text;
    let origin = &*assignment.file.map_or_else(outside, Path::to_owned);
    let refuse = |problem: String| {
        Error::config(origin.display().to_string(), problem)
            .with_hint("for example train.lr=0.0002")
    };
    let Some((key, text)) = text.split_once('=') else {
        return Err(refuse(format!("expected key=value, got `{text}`")));
    };
    let (key, text) = (&*current(form, key.trim()), text.trim());
    if key.is_empty() || key.split('.').any(str::is_empty) {
        return Err(refuse(format!("expected a dotted key, got `{key}`")));
    }
    let value = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    if matches!(value, Value::Table(_)) {
        // A whole table takes the place of the one before.
        remove(&mut merged.table, key);
    }
    let mut over = Table::new();
    let mut at = &mut over;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            at.insert(part.to_owned(), value);
            break;
        }
        let next = at.entry(part.to_owned()).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = next else { break };
        at = next;
    }
    spell_out(form, &mut over, &mut merged.table);
    absolute_paths(form, &mut over, origin.parent().unwrap_or(Path::new("")));
    overlay(&mut merged.table, over, "", origin, &mut merged.origins);
    Ok(())
}

impl Merged {
    /// Sets a key of a table, where there is that table and it does not say it.
    pub(crate) fn add(&mut self, table: &str, key: &str, value: impl Into<Value>) {
        let value = value.into();
        at(&mut self.table, table, &mut |found| {
            if let Value::Table(found) = found {
                found.entry(key).or_insert_with(|| value.clone());
            }
        });
    }

    /// The settings, and nothing else: unknown keys are refused.
    ///
    /// # Errors
    /// With the file and key, and the nearest known one.
    pub(crate) fn deserialize<T: DeserializeOwned>(&self) -> Result<T> {
        match self.forgiven::<T>() {
            Some(other) => other.read_strictly(),
            None => self.read_strictly(),
        }
    }

    fn read_strictly<T: DeserializeOwned>(&self) -> Result<T> {
        if !self.table.contains_key("version") {
            return Err(Error::invalid(&self.main, "version", "missing")
                .with_hint(format!("write `version = {}` at the top", super::VERSION)));
        }
        serde_path_to_error::deserialize(Value::Table(self.table.clone())).map_err(|error| {
            let mut key = error.path().to_string();
            let message = error.inner().to_string();
            let message = message.trim().lines().next().unwrap_or_default().to_owned();
            if ["invalid ", "unknown variant "].iter().any(|start| message.starts_with(start)) {
                key = self.innermost::<T>(key, &message);
            }
            let (problem, hint) = match unknown_name(&message, "field") {
                None => {
                    let hint = unknown_name(&message, "variant");
                    (in_plain_words(&message), hint.and_then(|(word, known)| nearest(word, &known)))
                }
                Some((unknown, known)) => {
                    // serde's path may or may not end in the unknown key itself.
                    if key == "." {
                        key.clear();
                    }
                    if key.rsplit('.').next() != Some(unknown) {
                        key = if key.is_empty() {
                            unknown.into()
                        } else {
                            format!("{key}.{unknown}")
                        };
                    }
                    let hint = nearest(unknown, &known).unwrap_or_else(|| match known[..] {
                        [] => "take it out: there are no other keys here".to_owned(),
                        _ => format!("known here: {}", known.join(", ")),
                    });
                    ("unknown key".to_owned(), Some(hint))
                }
            };
            let hint = hint.or_else(|| self.misspelt_set(&key));
            let error = Error::invalid(self.origin(&key), key, problem);
            match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        })
    }

    /// As [`Self::deserialize`], and they are checked.
    ///
    /// # Errors
    /// As that; what `validate` refuses, with the file that said it.
    pub(crate) fn settings<T: DeserializeOwned + Serialize>(
        &self,
        validate: impl Fn(&T) -> Result<()>,
    ) -> Result<T> {
        let settings: T = self.deserialize()?;
        self.refuse_lists(&super::as_table(&settings))?;
        validate(&settings).map_err(|error| self.locate(error))?;
        Ok(settings)
    }

    /// Keeps what is at these dotted keys, and takes the rest out.
    pub(crate) fn keep(&mut self, keys: &[&str]) {
        let mut kept = Table::new();
        for key in keys {
            if let Some(value) = take(&mut self.table, key) {
                put(&mut kept, key, value);
            }
        }
        self.table = kept;
    }

    /// Of a setting that is one of several kinds serde names the whole, wherever in it the fault is.
    /// The faulty key is the one without which that is no longer what is said.
    pub(super) fn innermost<T: DeserializeOwned>(&self, mut key: String, message: &str) -> String {
        let mut whole = self.table.clone();
        loop {
            let mut names = Vec::new();
            at(&mut whole, &key, &mut |value| {
                if let Value::Table(table) = value {
                    names.extend(table.keys().cloned());
                }
            });
            // Without its kind such a setting is always at fault: that comes last.
            names.sort_by_key(|name| ["kind", "by"].contains(&name.as_str()));
            let inner = names.iter().map(|name| format!("{key}.{name}")).find(|inner| {
                let mut without = whole.clone();
                remove(&mut without, inner);
                let left = T::deserialize(Value::Table(without));
                left.err().is_none_or(|error| !error.to_string().starts_with(message))
            });
            match inner {
                Some(inner) => key = inner,
                None => return key,
            }
        }
    }

    /// Refuses lists where tables are expected, which serde takes for the fields in their order. `whole`
    /// are the settings that were read.
    fn refuse_lists(&self, whole: &Table) -> Result<()> {
        fn find(given: &Table, whole: &Table, prefix: &str) -> Option<String> {
            given.iter().find_map(|(name, value)| {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                match (value, whole.get(name)?) {
                    (Value::Array(_), Value::Table(_)) => Some(key),
                    (Value::Table(given), Value::Table(whole)) => find(given, whole, &key),
                    _ => None,
                }
            })
        }
        match find(&self.table, whole, "") {
            None => Ok(()),
            Some(key) => {
                Err(Error::invalid(self.origin(&key), &key, "expected a table, got a list"))
            }
        }
    }

    /// The set of classification images that may have been meant where one of that name is not
    /// whole: `data.extra.wbe.weight=2` makes a new set of nothing but a weight.
    fn misspelt_set(&self, key: &str) -> Option<String> {
        let name = key.strip_prefix("data.extra.")?.split('.').next()?;
        let sets = self.table.get("data")?.get("extra")?.as_table()?;
        let others: Vec<&str> = sets.keys().map(String::as_str).filter(|n| *n != name).collect();
        nearest(name, &others)
    }
}
