//! `prepared.json`: what a folder of prepared labels was made of.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    argument::Argument,
    checkpoint_io::{bytes, read_text_table},
    config::prepared::manifest_file,
    data::image_io::Orientation,
    error::{Error, Result, write_atomically},
    hash::{hex, sha256_of_file},
    precision::Precision,
    teacher::{TeacherConfig, TeacherText, VitLabels, clip::Activation},
    vocabulary::Vocabulary,
};

/// Version of the folder's format. A folder of another version is refused.
pub(crate) const VERSION: u32 = 1;

/// `prepared.json`: everything that decides what the shards hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) teacher: TeacherFacts,
    /// Number of classes, C, in the vocabulary.
    pub(crate) classes: usize,
    /// SHA-256 of the classes' ids and names, in order.
    pub(crate) vocabulary: String,
    /// Width of the features, D.
    pub(crate) dim: i64,
    /// Colour of the padding, as the teacher sees it.
    pub(crate) pixel_mean: [f32; 3],
    pub(crate) pad_multiple: u32,
    /// Images in a shard; the last of a set may have fewer.
    #[serde(rename = "shard_pictures")]
    pub(crate) shard_images: usize,
    /// By name of the set's folder.
    pub(crate) sets: BTreeMap<String, SetFacts>,
}

/// Everything about the teacher that decides what its labels are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TeacherFacts {
    /// SHA-256 of the file of its weights.
    pub(crate) weights: String,
    pub(crate) precision: Precision,
    pub(crate) vit: VitLabels,
    /// Left out where it is what it was before it was recorded, so that hashes stay the same.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) activation: Activation,
    /// Where the class embeddings came from: [`text_identity`].
    pub(crate) text: String,
}

impl TeacherFacts {
    /// Of a teacher with these settings, whose weights are that file.
    pub(crate) fn of(
        config: &TeacherConfig,
        weights: &Path,
        vocabulary: &Vocabulary,
    ) -> Result<Self> {
        Ok(Self {
            weights: sha256_of_file(weights)?,
            precision: config.precision,
            vit: config.vit,
            activation: config.activation.unwrap_or_default(),
            text: text_identity(&config.text, vocabulary)?,
        })
    }
}

/// One set of images and the views of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetFacts {
    #[serde(rename = "pictures")]
    pub(crate) images: usize,
    pub(crate) boxes: usize,
    /// Hash of ids, classes and coordinates of the boxes, in order.
    pub(crate) hash: String,
    /// Which way up the images were read.
    #[serde(default = "stored", skip_serializing_if = "is_stored")]
    pub(crate) orientation: Orientation,
    pub(crate) max_size: u32,
    /// (shorter side, mirrored), in the order of a shard's columns.
    pub(crate) views: Vec<(u32, bool)>,
}

/// How images were read before manifests recorded it.
fn stored() -> Orientation {
    Orientation::Stored
}

fn is_stored(orientation: &Orientation) -> bool {
    *orientation == Orientation::Stored
}

fn is_default(activation: &Activation) -> bool {
    *activation == Activation::default()
}

impl Manifest {
    pub(crate) fn path(folder: &Path) -> PathBuf {
        manifest_file(folder)
    }

    /// # Errors
    /// There is none, it is not one, or one of another release.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        if !path.is_file() {
            let problem = "missing: no prepared labels lie here";
            return Err(Error::invalid(&path, "file", problem)
                .with_hint("`richsem prepare` makes such a folder"));
        }
        let text = crate::error::read_text(&path)?;
        let again = "prepare into another folder";
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(&path, "JSON", e.to_string()).with_hint(again))?;
        if value["version"] != VERSION {
            let problem = format!("expected {VERSION}, got {}", value["version"]);
            return Err(Error::invalid(&path, "version", problem)
                .with_hint(format!("another release wrote this folder: {again}")));
        }
        serde_json::from_value(value)
            .map_err(|e| Error::invalid(&path, "JSON", e.to_string()).with_hint(again))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = Self::path(folder);
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::other(format!("{}: {e}", path.display())))?;
        write_atomically(&path, |file| Ok(writeln!(file, "{json}")?))
    }

    /// SHA-256 of the manifest. The shards of a folder hold it, to know which folder they belong to.
    pub(crate) fn hash(&self) -> String {
        let json = serde_json::to_vec(self).expect("numbers, strings, lists and maps are JSON");
        hex(&Sha256::digest(json))
    }

    /// Compares the settings' manifest with the one that is in `folder`.
    ///
    /// # Errors
    /// The first field that differs.
    pub(crate) fn same_as_in(&self, folder: &Path, there: &Self) -> Result<()> {
        let json = |of: &Self| serde_json::to_value(of).unwrap_or(Value::Null);
        match difference("", &json(self), &json(there)) {
            None => Ok(()),
            Some((field, here, there)) => {
                let problem =
                    format!("these settings give {here}, the folder was made with {there}");
                Err(Error::invalid(&Self::path(folder), field, problem).with_hint(format!(
                    "give the folder's own settings, or another folder ({})",
                    Argument::Out
                )))
            }
        }
    }
}

/// The dotted name of the first value that differs, with both.
fn difference(at: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    match (a, b) {
        (Value::Object(first), Value::Object(second)) => {
            first.keys().chain(second.keys()).find_map(|key| {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or(Value::Null)
                };
                difference(&at, &of(first), &of(second))
            })
        }
        _ if a == b => None,
        _ => Some((at.to_owned(), a.to_string(), b.to_string())),
    }
}

/// Where the class embeddings came from: the prompts, or a hash of the rows of a given table.
pub(crate) fn text_identity(text: &TeacherText, vocabulary: &Vocabulary) -> Result<String> {
    match text {
        TeacherText::Table { table } => {
            let rows = read_text_table(table, vocabulary)?.rows;
            Ok(format!("table {}", hex(&Sha256::digest(bytes(&rows)?))))
        }
        TeacherText::Prompts { .. } => serde_json::to_string(text)
            .map_err(|e| Error::other(format!("the prompts cannot be written: {e}"))),
    }
}

/// SHA-256 of ids and names, in order.
pub(crate) fn vocabulary_identity(vocabulary: &Vocabulary) -> String {
    let mut hash = Sha256::new();
    for category in vocabulary.categories() {
        hash.update(category.id.0.to_le_bytes());
        // The length in front, so that no two lists give the same bytes.
        hash.update((category.name.len() as u64).to_le_bytes());
        hash.update(category.name.as_bytes());
    }
    hex(&hash.finalize())
}
