//! Names that may lack their folders.

use std::collections::{BTreeMap, BTreeSet};

/// Names of files below a folder, which can be found with their folders or without.
pub(super) struct Stems<'a> {
    whole: BTreeSet<&'a str>,
    /// Whole names, by the part behind the last `/`.
    by_last: BTreeMap<&'a str, Vec<&'a str>>,
}

pub(super) enum Found<'a> {
    None,
    One(&'a str),
    Several(&'a str, &'a str),
}

impl<'a> Stems<'a> {
    pub(super) fn of(names: impl Iterator<Item = &'a String>) -> Self {
        let mut stems = Self { whole: BTreeSet::new(), by_last: BTreeMap::new() };
        for name in names {
            let last = name.rsplit('/').next().unwrap_or(name);
            stems.whole.insert(name);
            stems.by_last.entry(last).or_default().push(name);
        }
        stems
    }

    /// Finds a file by its whole name, or else by its last part if only one file has that.
    pub(super) fn find(&self, name: &str) -> Found<'a> {
        if let Some(&whole) = self.whole.get(name) {
            return Found::One(whole);
        }
        match self.by_last.get(name).map(Vec::as_slice) {
            None | Some([]) => Found::None,
            Some(&[one]) => Found::One(one),
            Some(&[one, two, ..]) => Found::Several(one, two),
        }
    }
}
