//! From a classification set's classes to those of the detection vocabulary.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, Result,
    error::first_few,
    vocabulary::{Category, ClassIndex, Vocabulary},
};

/// How the classes of a classification set are found among the detection classes. A class of the
/// set is a folder or a category of the `info` file. The name of a folder is compared with any of
/// these. Several detection classes may share a wnid or synset: then an image has all of them as
/// labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum MappingConfig {
    /// Equal WordNet ids, as `n02690373`.
    Wnid {},
    /// Equal WordNet synsets, as `airliner.n.01`.
    Synset {},
    /// Equal class names, letter by letter.
    Name {},
    /// Equal category ids: both files must number the same classes in the same way.
    Id {},
    /// As a file says, JSON or TOML (by its ending).
    ///
    /// Either an object from a class's wnid, synset, name or id to a category id, name, synset or
    /// wnid of the detection set, or a list of such (an empty one leaves the class out on
    /// purpose):
    /// `{"n02690373": "airplane", "n02123045": [12, "animal"]}`. Each must exist.
    ///
    /// Or a list of records, one a pair, made for a larger vocabulary:
    /// `[{"wnid": "n02690373", "synset": "airplane.n.01", "name": "airplane", "id": 3}]`
    /// (`lvis_name`, `lvis_id` mean the same). The first of synset, name and id that is there
    /// decides; pairs whose class the detection set lacks are passed over.
    File {
        /// The file, JSON or TOML. The path is relative to the settings file.
        path: PathBuf,
    },
}

impl MappingConfig {
    fn word(&self) -> &'static str {
        match self {
            Self::Wnid {} => "wnid",
            Self::Synset {} => "synset",
            Self::Name {} => "name",
            Self::Id {} => "id",
            Self::File { .. } => "file",
        }
    }

    /// The mappings that need no file.
    const ALL: [Self; 4] = [Self::Wnid {}, Self::Synset {}, Self::Name {}, Self::Id {}];
}

/// One class of a classification set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SourceClass {
    pub(super) name: String,
    pub(super) id: Option<i64>,
    pub(super) synset: Option<String>,
    pub(super) wnid: Option<String>,
}

impl SourceClass {
    /// A folder, whose name may be any of these.
    pub(super) fn folder(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: name.parse().ok(),
            synset: Some(name.to_owned()),
            wnid: Some(name.to_owned()),
        }
    }
}

type Table = HashMap<String, Vec<ClassIndex>>;

fn text_of(by: &MappingConfig, category: &Category) -> Option<String> {
    match by {
        MappingConfig::Wnid {} => category.wnid.clone(),
        MappingConfig::Synset {} => category.synset.clone(),
        MappingConfig::Name {} => Some(category.name.clone()),
        MappingConfig::Id {} => Some(category.id.0.to_string()),
        MappingConfig::File { .. } => None,
    }
}

/// The detection classes by one of their properties.
fn table(by: &MappingConfig, vocabulary: &Vocabulary) -> Table {
    let mut table = Table::new();
    for (class, category) in (0..).map(ClassIndex).zip(vocabulary.categories()) {
        if let Some(text) = text_of(by, category) {
            table.entry(text).or_default().push(class);
        }
    }
    table
}

/// A mapping and the detection classes, ready for look-ups.
pub(super) struct Mapper {
    /// None: by synset or name, whichever both sides have.
    by: Option<MappingConfig>,
    /// Detection classes by the property that `by` compares.
    table: Table,
    /// Detection classes by name, if `by` is none.
    names: Table,
}

impl Mapper {
    pub(super) fn new(by: Option<&MappingConfig>, vocabulary: &Vocabulary) -> Result<Self> {
        let table = match by {
            Some(MappingConfig::File { path }) => read(path, vocabulary)?,
            Some(by) => table(by, vocabulary),
            None => table(&MappingConfig::Synset {}, vocabulary),
        };
        let names = match by {
            None => self::table(&MappingConfig::Name {}, vocabulary),
            Some(_) => Table::new(),
        };
        Ok(Self { by: by.cloned(), table, names })
    }

    /// The detection classes of one class, each once, in the mapping's order; often none.
    pub(super) fn classes(&self, source: &SourceClass) -> Vec<ClassIndex> {
        let id = source.id.map(|id| id.to_string());
        let (name, synset) = (Some(&source.name), source.synset.as_ref());
        let found = |key: Option<&String>| key.and_then(|key| self.table.get(key));
        let classes = match &self.by {
            Some(MappingConfig::Wnid {}) => found(source.wnid.as_ref()),
            Some(MappingConfig::Synset {}) => found(synset),
            Some(MappingConfig::Name {}) => found(name),
            Some(MappingConfig::Id {}) => found(id.as_ref()),
            Some(MappingConfig::File { .. }) => {
                [source.wnid.as_ref(), synset, name, id.as_ref()].into_iter().find_map(found)
            }
            None if synset.is_some() && !self.table.is_empty() => found(synset),
            None => self.names.get(&source.name),
        };
        classes.cloned().unwrap_or_default()
    }

    /// The error for a set none of whose classes is in the vocabulary: what both sides look like,
    /// and which mapping would find something.
    pub(super) fn nothing_found(
        &self,
        file: &Path,
        sources: &[SourceClass],
        vocabulary: &Vocabulary,
    ) -> Error {
        let problem = format!(
            "none of the set's {} classes is one of the {} detection classes (mapping by {})",
            sources.len(),
            vocabulary.len(),
            self.by.as_ref().map_or("synset or name", MappingConfig::word)
        );
        let few = |names: &mut dyn Iterator<Item = String>| {
            let names: Vec<String> = names.take(3).map(|n| format!("`{n}`")).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        let example = vocabulary.categories().first();
        let theirs = example.map_or("nothing".to_owned(), |c| {
            let of = |by: &MappingConfig| {
                text_of(by, c)
                    .map_or(format!("no {}", by.word()), |t| format!("{} `{t}`", by.word()))
            };
            MappingConfig::ALL.iter().map(of).collect::<Vec<_>>().join(", ")
        });
        let mut hint = format!(
            "the set's classes are called {}; the first detection class has {theirs}",
            few(&mut sources.iter().map(|s| s.name.clone()))
        );
        let mapped = |by: &MappingConfig| {
            let mapper =
                Self { by: Some(by.clone()), table: table(by, vocabulary), names: Table::new() };
            sources.iter().filter(|s| !mapper.classes(s).is_empty()).count()
        };
        let best = MappingConfig::ALL.iter().map(|by| (mapped(by), by)).max_by_key(|(n, _)| *n);
        match best {
            Some((count, by)) if count > 0 => {
                hint += &format!(
                    "; `mapping = {{ by = \"{}\" }}` would find {count} of {}",
                    by.word(),
                    sources.len()
                )
            }
            _ => {
                hint += "; a mapping file can say which is which (mapping = { by = \"file\", path = .. })"
            }
        }
        Error::invalid(file, "classes", problem).with_hint(hint)
    }
}

/// One pair of a list.
#[derive(Deserialize)]
struct MappingRecord {
    wnid: String,
    synset: Option<String>,
    #[serde(alias = "lvis_name")]
    name: Option<String>,
    #[serde(alias = "lvis_id")]
    id: Option<i64>,
}

/// The entries of a mapping file (see [`MappingConfig::File`]) for folders of images; none where it has no
/// entry for one.
///
/// # Errors
/// A file that cannot be read or is no mapping; classes that `vocabulary` has not.
pub fn read_mapping(
    path: &Path,
    vocabulary: &Vocabulary,
    folders: &[&str],
) -> Result<Vec<Vec<ClassIndex>>> {
    let by = MappingConfig::File { path: path.to_owned() };
    let mapper = Mapper::new(Some(&by), vocabulary)?;
    Ok(folders.iter().map(|folder| mapper.classes(&SourceClass::folder(folder))).collect())
}

/// Reads a mapping file, see [`MappingConfig::File`].
fn read(path: &Path, vocabulary: &Vocabulary) -> Result<Table> {
    let text = crate::error::read_text(path)?;
    let is_toml = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("toml"));
    let value: Value = if is_toml {
        toml::from_str(&text).map_err(|e| crate::settings::not_toml(path, &text, &e))?
    } else {
        serde_json::from_str(&text).map_err(|e| {
            Error::invalid(path, "JSON", e.to_string())
                .with_hint("a mapping written as TOML needs a name that ends in .toml")
        })?
    };
    match value {
        Value::Object(entries) => {
            let known = ClassWords::new(vocabulary);
            let read =
                |(key, value): (String, Value)| Ok((key.clone(), known.all(path, &key, &value)?));
            entries.into_iter().map(read).collect()
        }
        Value::Array(records) => {
            let mut mapping = Table::new();
            let by = |by: MappingConfig| table(&by, vocabulary);
            let (synsets, names, ids) = (
                by(MappingConfig::Synset {}),
                by(MappingConfig::Name {}),
                by(MappingConfig::Id {}),
            );
            for (i, record) in records.into_iter().enumerate() {
                let pair: MappingRecord = serde_json::from_value(record).map_err(|e| {
                    Error::invalid(path, format!("[{i}]"), e.to_string()).with_hint(
                        "expected {\"wnid\": .., \"synset\": .., \"name\": .., \"id\": ..}",
                    )
                })?;
                let class = match (pair.synset, pair.name, pair.id) {
                    (Some(synset), ..) if !synsets.is_empty() => synsets.get(&synset),
                    (_, Some(name), _) => names.get(&name),
                    (.., Some(id)) => ids.get(&id.to_string()),
                    _ => {
                        let problem = "expected a synset, a name or an id, got none of them";
                        return Err(Error::invalid(path, format!("[{i}]"), problem));
                    }
                };
                let classes = mapping.entry(pair.wnid).or_default();
                for class in class.into_iter().flatten() {
                    if !classes.contains(class) {
                        classes.push(*class);
                    }
                }
            }
            Ok(mapping)
        }
        other => {
            let problem = format!("expected an object or a list of records, got {other}");
            Err(Error::invalid(path, "top level", problem)
                .with_hint("such as {\"n02690373\": \"airplane\"}"))
        }
    }
}

/// Every word that means a detection class, with the classes.
struct ClassWords(BTreeMap<String, Vec<ClassIndex>>);

impl ClassWords {
    fn new(vocabulary: &Vocabulary) -> Self {
        let mut words = BTreeMap::new();
        // Where a word is the name of one class and, say, the synset of another, the name counts.
        for by in [MappingConfig::Name {}, MappingConfig::Synset {}, MappingConfig::Wnid {}] {
            for (word, classes) in table(&by, vocabulary) {
                words.entry(word).or_insert(classes);
            }
        }
        for (class, category) in (0..).zip(vocabulary.categories()) {
            if let Some(key) = &category.key {
                words.entry(key.clone()).or_insert_with(|| vec![ClassIndex(class)]);
            }
        }
        for (id, classes) in table(&MappingConfig::Id {}, vocabulary) {
            words.entry(format!("#{id}")).or_insert(classes);
        }
        Self(words)
    }

    /// The classes that an entry of an object means.
    fn all(&self, path: &Path, key: &str, value: &Value) -> Result<Vec<ClassIndex>> {
        let items = match value {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut classes = Vec::new();
        for item in items {
            for class in self.one(path, key, item)? {
                if !classes.contains(class) {
                    classes.push(*class);
                }
            }
        }
        Ok(classes)
    }

    fn one(&self, path: &Path, key: &str, value: &Value) -> Result<&[ClassIndex]> {
        let word = match value {
            Value::String(word) => word.clone(),
            Value::Number(id) => format!("#{id}"),
            other => {
                let problem = format!(
                    "expected a category id, name, synset or wnid of the detection set, or a list \
                     of them, got {other}"
                );
                return Err(Error::invalid(path, key, problem));
            }
        };
        self.0.get(&word).map(Vec::as_slice).ok_or_else(|| {
            let problem = format!("{value} is no category of the detection set");
            let ids = matches!(value, Value::Number(_));
            let words = self.0.keys().filter(|k| k.starts_with('#') == ids);
            let near = words.clone().map(|k| (strsim::jaro_winkler(&word, k), k));
            let nearest =
                near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.85);
            let hint = match nearest {
                Some((_, nearest)) if !ids => format!("did you mean `{nearest}`?"),
                _ => {
                    let all: Vec<String> =
                        words.map(|w| w.trim_start_matches('#').to_owned()).collect();
                    format!("it has {}", first_few(all.into_iter()))
                }
            };
            Error::invalid(path, key, problem).with_hint(hint)
        })
    }
}

#[cfg(test)]
#[path = "tests/mapping.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
