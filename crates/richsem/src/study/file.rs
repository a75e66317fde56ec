//! The study file as the user writes it, and the mistakes that show in it alone.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    error::{Error, Result},
    settings,
};

/// Version of the file's format that this program reads.
const VERSION: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StudyFile {
    version: u32,
    /// Settings of the variants that have none of their own. The path is relative to this file.
    pub(super) config: Option<PathBuf>,
    /// `key=value` assignments for all variants.
    #[serde(default)]
    pub(super) set: Vec<String>,
    #[serde(default)]
    pub(super) seeds: Vec<u64>,
    #[serde(default = "default_metrics")]
    pub(super) metrics: Vec<String>,
    #[serde(default)]
    pub(super) variant: Vec<VariantEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VariantEntry {
    pub(super) name: String,
    pub(super) config: Option<PathBuf>,
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// Names of the variants that this one is compared with. Default: the first variant.
    pub(super) against: Option<Vec<String>>,
}

fn default_metrics() -> Vec<String> {
    ["AP", "APr", "APc", "APf"].map(str::to_owned).into()
}

/// The name of a variant as a part of file names.
pub(super) fn file_name(variant: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.+=".contains(c);
    variant.chars().map(|c| if plain(c) { c } else { '_' }).collect()
}

impl StudyFile {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file: Self = settings::parse_as(&crate::error::read_text(path)?, path)?;
        file.validate().map_err(|error| match error {
            Error::Config { key, problem, hint } => {
                Error::Invalid { file: path.to_owned(), field: key, problem, hint }
            }
            other => other,
        })?;
        Ok(file)
    }

    fn validate(&self) -> Result<()> {
        if self.version != VERSION {
            let problem =
                format!("expected {VERSION}, got {}: the file is of another release", self.version);
            return Err(Error::config("version", problem).with_hint(
                "compare it with the example in `richsem study --help`, then set version",
            ));
        }
        let lists = [
            ("seeds", self.seeds.is_empty(), "for example seeds = [1, 2, 3, 4, 5]"),
            ("metrics", self.metrics.is_empty(), "for example metrics = [\"AP\", \"APr\"]"),
            (
                "variant",
                self.variant.is_empty(),
                "for example [[variant]] and, below it, name = \"baseline\"",
            ),
        ];
        for (key, empty, hint) in lists {
            if empty {
                return Err(Error::config(key, "expected at least one, got none").with_hint(hint));
            }
        }
        refuse_repeated("seeds", self.seeds.iter())?;
        refuse_repeated("metrics", self.metrics.iter())?;
        check_assignments(|i| format!("set[{i}]"), &self.set)?;
        for (i, variant) in self.variant.iter().enumerate() {
            self.validate_variant(&format!("variant[{i}]"), i, variant)?;
        }
        Ok(())
    }

    fn validate_variant(&self, key: &str, index: usize, variant: &VariantEntry) -> Result<()> {
        let name = &variant.name;
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            let problem = format!("expected a name on one line, got {name:?}");
            return Err(Error::config(format!("{key}.name"), problem));
        }
        let same_files = |other: &&VariantEntry| file_name(&other.name) == file_name(name);
        if let Some(other) = self.variant[..index].iter().find(same_files) {
            let problem = if other.name == *name {
                format!("`{name}` is the name of an earlier variant too")
            } else {
                format!("`{name}` would have the same files as `{}`", other.name)
            };
            return Err(Error::config(format!("{key}.name"), problem)
                .with_hint("give each variant a name of its own"));
        }
        if variant.config.is_none() && self.config.is_none() {
            return Err(Error::config(
                format!("{key}.config"),
                "missing, and there is no `config`",
            )
            .with_hint("name the base settings of all at the top: config = \"FILE.toml\""));
        }
        check_assignments(|i| format!("{key}.set[{i}]"), &variant.set)?;
        let against = variant.against.as_deref().unwrap_or_default();
        refuse_repeated(&format!("{key}.against"), against.iter())?;
        for (j, other) in against.iter().enumerate() {
            let key = format!("{key}.against[{j}]");
            if other == name {
                return Err(Error::config(key, format!("`{name}` is this variant itself")));
            }
            self.index_of(other, &key)?;
        }
        Ok(())
    }

    /// The position of the variant with that name.
    pub(super) fn index_of(&self, name: &str, key: &str) -> Result<usize> {
        let names: Vec<&str> = self.variant.iter().map(|v| v.name.as_str()).collect();
        find(name, &names, key, "variant")
    }
}

/// The position of a name in a list. The error names the nearest one.
pub(super) fn find(name: &str, known: &[&str], key: &str, what: &str) -> Result<usize> {
    if let Some(index) = known.iter().position(|k| *k == name) {
        return Ok(index);
    }
    let nearest = known
        .iter()
        .map(|k| (strsim::jaro_winkler(&name.to_lowercase(), &k.to_lowercase()), k))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((score, nearest)) if score > 0.7 => format!("did you mean `{nearest}`?"),
        _ => format!("there are: {}", known.join(", ")),
    };
    Err(Error::config(key, format!("no {what} is called `{name}`")).with_hint(hint))
}

fn refuse_repeated<T: PartialEq + std::fmt::Display>(
    key: &str,
    mut list: impl Iterator<Item = T> + Clone,
) -> Result<()> {
    while let Some(value) = list.next() {
        if list.clone().any(|other| other == value) {
            return Err(Error::config(key, format!("{value} is in the list twice")));
        }
    }
    Ok(())
}

/// Refuses assignments that are none, and those of `seed`. Whether the key exists is checked with
/// the settings.
pub(super) fn check_assignments(key: impl Fn(usize) -> String, list: &[String]) -> Result<()> {
    for (i, text) in list.iter().enumerate() {
        let name = text.split_once('=').map(|(name, _)| name.trim());
        match name {
            None => {
                return Err(Error::config(key(i), format!("expected key=value, got `{text}`"))
                    .with_hint("for example \"train.lr=0.0002\""));
            }
            Some("seed") => {
                return Err(Error::config(key(i), "the seed of a run comes from `seeds`")
                    .with_hint("change the list `seeds` of the study"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
