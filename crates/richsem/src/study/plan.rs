//! The runs of a study: each with its settings, in the order of training.

use std::path::{Component, Path, PathBuf};

use toml::Value;

use super::file::{StudyFile, check_assignments, file_name, find};
use crate::{
    argument::Argument,
    config::Config,
    error::{Error, Result},
    settings::Assignment,
};

/// A study, ready to be run.
#[derive(Debug)]
pub struct Study {
    /// The study file's name without its ending.
    pub name: String,
    /// The variants, in the file's order.
    pub variants: Vec<Variant>,
    /// The seeds, in the file's order.
    pub seeds: Vec<u64>,
    /// Metrics of the table, as `metrics.jsonl` has them.
    pub metrics: Vec<String>,
    /// Variants × seeds: all variants of the first seed, then of the second, so that a study that
    /// is stopped has whole pairs.
    pub runs: Vec<PlannedRun>,
}

/// One way to train, with its comparisons.
#[derive(Debug)]
pub struct Variant {
    /// Name in the study file.
    pub name: String,
    /// The variants that its results are compared with, as positions in [`Study::variants`].
    pub against: Vec<usize>,
}

/// One run of a study: a variant with a seed.
#[derive(Debug)]
pub struct PlannedRun {
    /// Its variant, a position in [`Study::variants`].
    pub variant: usize,
    /// The seed of its settings.
    pub seed: u64,
    /// `VARIANT-sSEED`: what its folder and files are called.
    pub name: String,
    /// All of its settings.
    pub config: Config,
    /// A fingerprint of the settings: 16 hexadecimal digits. Paths count as they are seen from the
    /// study file, so that the same study in another place has the same.
    pub config_hash: String,
}

impl Study {
    /// Reads a study file and the settings of all its runs. `assignments` change those of
    /// all variants, over what the file sets.
    ///
    /// # Errors
    /// Whatever is wrong with the study file or the settings, with file and key.
    pub fn load(path: &Path, assignments: &[String]) -> Result<Self> {
        let file = StudyFile::read(path)?;
        check_assignments(|_| Argument::Set.to_string(), assignments)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut variants = Vec::new();
        let mut configs = Vec::new();
        for (i, entry) in file.variant.iter().enumerate() {
            let base = match (&entry.config, &file.config) {
                (Some(own), _) => (own, format!("variant[{i}].config")),
                (None, Some(base)) => (base, "config".to_owned()),
                (None, None) => unreachable!("validated: one of them is there"),
            };
            let base_file = folder.join(base.0);
            if !base_file.is_file() {
                let problem = format!("there is no file `{}`", base_file.display());
                return Err(Error::invalid(path, base.1, problem)
                    .with_hint("the name is relative to the folder of this file"));
            }
            let of_file = file.set.iter().chain(&entry.set).map(|text| (text, Some(path)));
            let all: Vec<Assignment<'_>> = of_file
                .chain(assignments.iter().map(|text| (text, None)))
                .map(|(text, file)| Assignment { text, file })
                .collect();
            let config = Config::load_assigned(&base_file, &all)?;
            if config.data.val.is_none() {
                return Err(Error::invalid(
                    &base_file,
                    "data.val",
                    "missing: nothing to evaluate on",
                )
                .with_hint("a study compares evaluations: set data.val"));
            }
            configs.push(config);
            let against = match &entry.against {
                None if i == 0 => Vec::new(),
                None => vec![0],
                Some(names) => names
                    .iter()
                    .map(|name| file.index_of(name, "against"))
                    .collect::<Result<_>>()?,
            };
            variants.push(Variant { name: entry.name.clone(), against });
        }
        let mut runs = Vec::new();
        for &seed in &file.seeds {
            for (variant, config) in configs.iter().enumerate() {
                let config = Config { seed, ..config.clone() };
                runs.push(PlannedRun {
                    variant,
                    seed,
                    name: format!("{}-s{seed}", file_name(&variants[variant].name)),
                    config_hash: fingerprint(&config, folder),
                    config,
                });
            }
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, variants, seeds: file.seeds, metrics: file.metrics, runs })
    }

    /// The runs of some variants and seeds, by name and number; of all where none are named.
    ///
    /// # Errors
    /// A variant or seed that the study does not have.
    pub fn select(&self, only: &[String], seeds: &[u64]) -> Result<Vec<&PlannedRun>> {
        let names: Vec<&str> = self.variants.iter().map(|v| v.name.as_str()).collect();
        let wanted: Vec<usize> = only
            .iter()
            .map(|name| find(name, &names, &Argument::Only.to_string(), "variant"))
            .collect::<Result<_>>()?;
        if let Some(seed) = seeds.iter().find(|seed| !self.seeds.contains(seed)) {
            let problem = format!("{seed} is not one of the study's seeds {:?}", self.seeds);
            return Err(Error::argument(Argument::Seeds, problem)
                .with_hint("add it to `seeds` in the study file: the table shows those"));
        }
        let is_wanted = |run: &&PlannedRun| {
            (only.is_empty() || wanted.contains(&run.variant))
                && (seeds.is_empty() || seeds.contains(&run.seed))
        };
        Ok(self.runs.iter().filter(is_wanted).collect())
    }

    /// Two variants with the same settings, if there are: most likely an oversight.
    #[must_use]
    pub fn same_settings(&self) -> Option<(&str, &str)> {
        let first = &self.runs[..self.variants.len()];
        first.iter().enumerate().find_map(|(i, run)| {
            let twin = first[..i].iter().find(|other| other.config_hash == run.config_hash)?;
            let name = |run: &PlannedRun| self.variants[run.variant].name.as_str();
            Some((name(twin), name(run)))
        })
    }
}

/// CRC-64 of the settings as TOML, absolute paths made relative to `base`.
fn fingerprint(config: &Config, base: &Path) -> String {
    const CRC: crc::Crc<u64> = crc::Crc::<u64>::new(&crc::CRC_64_XZ);
    let mut value = Value::Table(config.to_table());
    paths_from(&mut value, &std::path::absolute(base).unwrap_or(base.to_owned()));
    format!("{:016x}", CRC.checksum(value.to_string().as_bytes()))
}

fn paths_from(value: &mut Value, base: &Path) {
    match value {
        Value::String(text) if Path::new(&*text).is_absolute() => {
            *text = relative(Path::new(&*text), base).to_string_lossy().into_owned();
        }
        Value::Array(list) => list.iter_mut().for_each(|value| paths_from(value, base)),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| paths_from(value, base)),
        _ => {}
    }
}

/// The way from one absolute path to another by names alone: links are not followed.
fn relative(path: &Path, base: &Path) -> PathBuf {
    let plain = |path: &Path| -> Vec<String> {
        let mut parts = Vec::new();
        for part in path.components() {
            match part {
                Component::ParentDir => drop(parts.pop()),
                Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
                _ => {}
            }
        }
        parts
    };
    let (path, base) = (plain(path), plain(base));
    let shared = path.iter().zip(&base).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..", base.len() - shared);
    up.chain(path[shared..].iter().map(String::as_str)).collect()
}
