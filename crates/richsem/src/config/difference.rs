//! What two settings have differently.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::Config;

/// A setting that two settings files have differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The dotted key, as `train.lr`.
    pub key: String,
    /// Its value in the first file, as TOML. `nothing` if the file does not have the key.
    pub first: String,
    /// Its value in the second file, in the same way.
    pub second: String,
}

impl Config {
    /// The settings as a TOML table, sections as tables in it.
    #[must_use]
    pub fn to_table(&self) -> Table {
        crate::settings::as_table(self)
    }

    /// Every setting that `other` has differently, in the order of their keys.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let (first, second) = (self.flat(), other.flat());
        let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
        let value = |of: &BTreeMap<String, String>, key: &String| {
            of.get(key).cloned().unwrap_or_else(|| "nothing".to_owned())
        };
        keys.into_iter()
            .filter(|key| first.get(*key) != second.get(*key))
            .map(|key| Difference {
                key: key.clone(),
                first: value(&first, key),
                second: value(&second, key),
            })
            .collect()
    }

    /// Every setting by its dotted key, its value as TOML.
    pub(crate) fn flat(&self) -> BTreeMap<String, String> {
        fn add(prefix: &str, table: Table, flat: &mut BTreeMap<String, String>) {
            for (key, value) in table {
                let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                match value {
                    Value::Table(table) => add(&key, table, flat),
                    value => drop(flat.insert(key, value.to_string())),
                }
            }
        }
        let mut flat = BTreeMap::new();
        add("", self.to_table(), &mut flat);
        flat
    }
}
