//! Typed settings of any kind: a TOML file, the files it extends, and assignments on top. Unknown keys are
//! refused with the nearest known one. Which settings there are, the rooms that they are about say.

mod forgiving;
mod keys;
mod layers;
mod origins;
mod presets;
mod words;

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use toml::Table;

pub(crate) use layers::{Assignment, Merged};
pub use presets::Preset;
pub(crate) use words::not_toml;

use crate::error::{Error, Result};

/// Version of the settings files that this program reads.
pub const VERSION: u32 = 1;

/// What is special about the keys of a kind of settings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Form {
    /// Keys whose values are paths, relative to the file that says them; `*` is any name.
    pub(crate) paths: &'static [&'static str],
    /// Keys that have moved: where files may still have them, and where they are read.
    pub(crate) moved: &'static [(&'static str, &'static str)],
    /// Tables that a string may stand for, and which of their keys it then is; `*` is any name.
    pub(crate) short: &'static [(&'static str, &'static str)],
    /// Files that are part of the program.
    pub(crate) presets: &'static [Preset],
    /// Tables of several kinds, and the kind that is meant where files say none; `*` is any name.
    pub(crate) kinds: &'static [(&'static str, &'static str)],
}

impl Form {
    /// Settings that hold no paths and of which none has moved.
    pub(crate) const PLAIN: Self =
        Self { paths: &[], moved: &[], short: &[], presets: &[], kinds: &[] };

    /// Reads a file and what it extends, then the assignments.
    pub(crate) fn read(&self, path: &Path, assignments: &[Assignment<'_>]) -> Result<Merged> {
        layers::read(self, path, assignments)
    }

    /// As [`Self::read`], of a preset.
    pub(crate) fn read_preset(&self, name: &str, assignments: &[Assignment<'_>]) -> Result<Merged> {
        layers::read_preset(self, name, assignments)
    }

    /// No file, only assignments.
    pub(crate) fn defaults(&self, assignments: &[Assignment<'_>]) -> Result<Merged> {
        layers::defaults(self, assignments)
    }

    /// One complete text. `path` is what errors call it, and what its paths are relative to.
    pub(crate) fn parse(&self, text: &str, path: &Path) -> Result<Merged> {
        layers::parse(self, text, path)
    }
}

/// Reads TOML with the errors of settings: file, key, nearest known key.
pub(crate) fn parse_as<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T> {
    Form::PLAIN.parse(text, path)?.deserialize()
}

/// Settings without paths: a file (none: the defaults), the files it extends, and assignments.
///
/// # Errors
/// A file that cannot be read or is not TOML, an unknown key, a value of the wrong type or out of range.
pub(crate) fn load<T: DeserializeOwned + Serialize>(
    path: Option<&Path>,
    assignments: &[String],
    validate: impl Fn(&T) -> Result<()>,
) -> Result<T> {
    let assignments = Assignment::from_outside(assignments);
    let merged = match path {
        Some(path) => Form::PLAIN.read(path, &assignments)?,
        None => Form::PLAIN.defaults(&assignments)?,
    };
    merged.settings(validate)
}

/// Settings as TOML, every one spelled out.
pub(crate) fn as_table(settings: &impl Serialize) -> Table {
    Table::try_from(settings).expect("numbers, strings, lists and tables are TOML")
}

/// Settings as the text of a TOML file, every one spelled out.
pub(crate) fn to_toml(settings: &impl Serialize) -> String {
    toml::to_string_pretty(settings).expect("numbers, strings, lists and tables are TOML")
}

/// # Errors
/// A file of another release.
pub(crate) fn check_version(version: u32) -> Result<()> {
    if version != VERSION {
        let problem =
            format!("expected {VERSION}, got {}: the file is of another release", version);
        return Err(Error::config("version", problem).with_hint(
            "compare it with the files in configs/ and CHANGELOG.md, then set version",
        ));
    }
    Ok(())
}
