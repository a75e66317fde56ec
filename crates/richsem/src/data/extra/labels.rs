//! Sets that say each image's label beside it: parquet files, and webdataset's shards with a field `cls`.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value as Json;

use super::{MappingConfig, info::Info, mapping::SourceClass};
use crate::{
    Error, Result,
    data::{
        formats::{part_of_file, same_split},
        image_store::{
            ImageStore, StoreKind,
            parquet::{Annotations, Value},
        },
        listing::PassedOver,
    },
};

/// Keys of a sample's `json` that may hold the label.
const KEYS: [&str; 3] = ["cls", "label", "class"];

/// A set's images with their labels, and what was left out of it.
pub(super) struct Labelled {
    pub(super) info: Info,
    /// Images without a label.
    pub(super) unlabelled: usize,
    /// Parts of the set that are not for training.
    pub(super) other_splits: Vec<String>,
    /// Files that are no images of samples.
    pub(super) passed_over: PassedOver,
    /// How the classes are found among the detection classes, if the settings do not say: by wnid, if all are
    /// called so, else by name.
    pub(super) mapping: MappingConfig,
}

/// The labels that lie beside the images; none if the set is of another kind.
///
/// # Errors
/// A table without labels, labels that cannot be read, or no image with one.
pub(super) fn read(store: &ImageStore, path: &Path) -> Result<Option<Labelled>> {
    let mut labels = Labels::default();
    if ImageStore::kind_of(path)? == StoreKind::Parquet {
        labels.table(path)?;
    } else if !store.is_samples() || !labels.samples(store)? {
        return Ok(None);
    }
    if labels.info.ids.is_empty() {
        let problem = format!("none of {} images has a label", labels.unlabelled);
        return Err(Error::invalid(path, "labels", problem));
    }
    Ok(Some(labels.finish()))
}

#[derive(Default)]
struct Labels {
    info: Info,
    /// Labels that the file does not name, with their ids in `info`.
    met: BTreeMap<Value, i64>,
    images: i64,
    unlabelled: usize,
    other_splits: Vec<String>,
    passed_over: PassedOver,
}

impl Labels {
    /// Reads the column of labels. Of files that are parts by their names, those for training count.
    fn table(&mut self, path: &Path) -> Result<()> {
        let table = Annotations::open(path)?;
        if !table.has_labels() {
            let error = Error::invalid(path, "label", "the table has no column of labels");
            return Err(error.with_hint(if table.has_boxes() {
                "it has boxes: give it as `data.train`, or as `data.val`"
            } else {
                "expected a column `label` of class numbers or names"
            }));
        }
        let parts: Vec<String> = (0..table.files()).map(|i| part_of_file(table.file(i))).collect();
        let trains = |part: &String| same_split(part, "train");
        let counts = |part: &String| trains(part) || !parts.iter().any(trains);
        let others = parts.iter().filter(|part| !counts(part));
        self.other_splits = others.cloned().collect();
        self.other_splits.sort_unstable();
        self.other_splits.dedup();
        for (id, name) in (0..).zip(table.labels().unwrap_or_default()) {
            self.info.classes.push(SourceClass { id: Some(id), ..SourceClass::folder(name) });
        }
        let named = table.labels().map(<[String]>::len);
        table.each(|row| {
            if !counts(&parts[row.file]) {
                return Ok(());
            }
            if let (Some(named), Some(Value::Integer(number))) = (named, &row.label)
                && !usize::try_from(*number).is_ok_and(|number| number < named)
            {
                let problem = format!("{number} is none of the {named} classes, from 0 on");
                let field = format!("row {}: label", row.row);
                return Err(Error::invalid(table.file(row.file), field, problem));
            }
            self.put(&row.image, row.label, named.is_some());
            Ok(())
        })
    }

    /// Reads the field `cls` of each sample, or the label in its `json`. False if the first image has
    /// neither: then the set is of another kind.
    fn samples(&mut self, store: &ImageStore) -> Result<bool> {
        let (images, passed_over) = store.images("")?;
        let Some(first) = images.first() else { return Ok(false) };
        if label_beside(store, first)?.is_none() {
            return Ok(false);
        }
        self.passed_over = passed_over;
        for image in &images {
            self.put(image, label_beside(store, image)?, false);
        }
        Ok(true)
    }

    fn put(&mut self, image: &str, label: Option<Value>, named: bool) {
        self.images += 1;
        let id = match label {
            None => {
                self.unlabelled += 1;
                return;
            }
            Some(Value::Integer(id)) if named => id,
            Some(label) => {
                // Names have numbers that no class has.
                let next = -1 - self.met.len() as i64;
                let number = if let Value::Integer(number) = label { Some(number) } else { None };
                *self.met.entry(label).or_insert(number.unwrap_or(next))
            }
        };
        self.info.put(image, self.images - 1, vec![id]);
    }

    fn finish(mut self) -> Labelled {
        for (label, id) in self.met {
            self.info.classes.push(match label {
                Value::Integer(number) => {
                    SourceClass { name: number.to_string(), id: Some(id), synset: None, wnid: None }
                }
                Value::Text(name) => SourceClass { id: Some(id), ..SourceClass::folder(&name) },
            });
        }
        let wnids = self.info.classes.iter().all(|class| is_wnid(&class.name));
        Labelled {
            info: self.info,
            unlabelled: self.unlabelled,
            other_splits: self.other_splits,
            passed_over: self.passed_over,
            mapping: if wnids { MappingConfig::Wnid {} } else { MappingConfig::Name {} },
        }
    }
}

/// Whether a class is called as in ImageNet: `n01440764`.
fn is_wnid(name: &str) -> bool {
    name.strip_prefix('n').is_some_and(|rest| rest.len() == 8 && rest.parse::<u32>().is_ok())
}

/// A text without its byte order mark.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The label of a sample: what its `cls` says, or else a key of its `json`.
fn label_beside(store: &ImageStore, image: &str) -> Result<Option<Value>> {
    let invalid = |field: &str, problem: String| {
        Error::invalid(&store.display_path(image), format!("field {field}"), problem)
    };
    if let Some(bytes) = store.companion(image, "cls")? {
        let Ok(text) = str::from_utf8(without_mark(&bytes)) else {
            return Err(invalid("cls", "expected the number or name of a class, got bytes".into()));
        };
        return Ok(match (text.trim(), text.trim().parse()) {
            ("", _) => None,
            (_, Ok(number)) => of_number(number),
            (name, Err(_)) => Some(Value::Text(name.to_owned())),
        });
    }
    let Some(bytes) = store.companion(image, "json")? else { return Ok(None) };
    let record: Json = serde_json::from_slice(without_mark(&bytes))
        .map_err(|error| invalid("json", error.to_string()))?;
    let found: Vec<(&str, &Json)> =
        KEYS.iter().filter_map(|key| Some((*key, record.get(*key)?))).collect();
    match found.first() {
        None | Some((_, Json::Null)) => Ok(None),
        Some((_, Json::String(name))) => Ok(Some(Value::Text(name.clone()))),
        Some((key, value)) => match value.as_i64() {
            Some(number) => Ok(of_number(number)),
            None => {
                let got: String = value.to_string().chars().take(60).collect();
                let problem = format!("{key}: expected the number or name of a class, got {got}");
                Err(invalid("json", problem))
            }
        },
    }
}

/// The class of a number: -1 is none, as in parquet.
fn of_number(number: i64) -> Option<Value> {
    (number >= 0).then_some(Value::Integer(number))
}

#[cfg(test)]
#[path = "tests/labels.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
