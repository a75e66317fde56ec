//! Settings files that are part of the program, and what a file may extend: one of them, or another file.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use super::{Form, words::nearest};
use crate::error::{Error, Result};

/// What stands before the name of a preset, in `extends` and in messages.
const PREFIX: &str = "preset:";

/// A settings file that is part of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its name, as in `extends = "preset:tiny"`.
    pub name: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// Its text.
    pub text: &'static str,
}

impl Preset {
    /// The name in `preset:NAME`; none of another path.
    #[must_use]
    pub fn named_by(path: &Path) -> Option<&str> {
        path.to_str()?.strip_prefix(PREFIX)
    }
}

/// A text of settings: a file, or a preset with the folder that its paths are relative to.
#[derive(Debug)]
pub(super) enum Parent {
    File(PathBuf),
    Preset { preset: Preset, folder: PathBuf },
}

impl Parent {
    pub(super) fn file(path: &Path) -> Self {
        Self::File(path.to_owned())
    }

    /// A preset by its name, whose paths are relative to the working folder.
    pub(super) fn preset(form: &Form, name: &str) -> Result<Self> {
        let known: Vec<&str> = form.presets.iter().map(|preset| preset.name).collect();
        let found = form.presets.iter().find(|preset| preset.name == name);
        match found {
            Some(preset) => Ok(Self::Preset { preset: *preset, folder: PathBuf::new() }),
            None => {
                let hint = nearest(name, &known)
                    .unwrap_or_else(|| format!("presets are: {}", known.join(", ")));
                Err(Error::config("preset", format!("there is no preset `{name}`")).with_hint(hint))
            }
        }
    }

    /// What messages call it.
    pub(super) fn name(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Preset { preset, .. } => format!("{PREFIX}{}", preset.name).into(),
        }
    }

    pub(super) fn text(&self) -> Result<Cow<'static, str>> {
        match self {
            Self::File(path) => crate::error::read_text(path).map(Cow::Owned),
            Self::Preset { preset, .. } => Ok(Cow::Borrowed(preset.text)),
        }
    }

    /// The folder that its paths are relative to.
    pub(super) fn folder(&self) -> &Path {
        match self {
            Self::File(path) => path.parent().unwrap_or(Path::new("")),
            Self::Preset { folder, .. } => folder,
        }
    }

    /// What it extends by that name. Presets extend presets, by the names of their files.
    pub(super) fn parent(&self, form: &Form, name: &str) -> Result<Self> {
        let preset = match self {
            Self::Preset { .. } => Some(name.strip_suffix(".toml").unwrap_or(name)),
            Self::File(_) => name.strip_prefix(PREFIX),
        };
        let Some(preset) = preset else {
            let parent = self.folder().join(name);
            if parent.is_file() {
                return Ok(Self::File(parent));
            }
            let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str());
            let hint = match form.presets.iter().find(|preset| Some(preset.name) == stem) {
                Some(preset) => format!(
                    "the program has that file: extends = \"{PREFIX}{}\"; other names are relative \
                     to the folder of this file",
                    preset.name
                ),
                None => "the name is relative to the folder of this file".to_owned(),
            };
            let problem = format!("there is no file `{}`", parent.display());
            return Err(Error::invalid(&self.name(), "extends", problem).with_hint(hint));
        };
        match Self::preset(form, preset) {
            Ok(Self::Preset { preset, .. }) => {
                Ok(Self::Preset { preset, folder: self.folder().to_owned() })
            }
            Ok(file) => Ok(file),
            Err(Error::Config { problem, hint, .. }) => Err(Error::Invalid {
                file: self.name(),
                field: "extends".to_owned(),
                problem,
                hint,
            }),
            Err(other) => Err(other),
        }
    }
}
