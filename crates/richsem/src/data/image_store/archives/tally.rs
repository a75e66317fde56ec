//! What an archive holds beside its files' names and places.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::samples::{self, Group};
use crate::plural::clause;

/// Most names that are kept of each kind.
const NAMED: usize = 20;

/// Counts of what was found in archives, whatever became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Files, those of equal names counted each.
    pub(super) files: u64,
    /// Second names of files: name and target, in the archive's order.
    pub(super) links: Vec<(String, String)>,
    /// Links to what is not in the archive, sorted.
    pub(super) broken: Vec<String>,
    /// What is neither file, folder nor link, by kind: how many, and the first of them.
    others: BTreeMap<String, (u64, String)>,
    /// Archives that end without their end mark.
    unmarked: (u64, Vec<String>),
    /// Archives without files.
    empty: (u64, Vec<String>),
    /// Names that more than one file has: how many files are not read, and one of them.
    repeated: (u64, Option<String>),
    /// Groups of neighbouring files of one key with an image.
    pictured: u64,
    /// Those with an image of their own and another field.
    samples: u64,
    /// Where the last group stands.
    group: Group,
}

fn note(list: &mut (u64, Vec<String>), name: &str) {
    list.0 += 1;
    if list.1.len() < NAMED {
        list.1.push(name.to_owned());
    }
}

impl Tally {
    /// Counts a file, after those before it in its archive.
    pub(super) fn file(&mut self, name: &str) {
        self.files += 1;
        if let Some(key) = samples::key(name)
            && key != self.group.key
        {
            self.end_group();
            key.clone_into(&mut self.group.key);
        }
        self.group.add(name);
    }

    /// Ends the group of neighbouring files.
    pub(super) fn end_group(&mut self) {
        let group = std::mem::take(&mut self.group);
        self.pictured += u64::from(group.image);
        self.samples += u64::from(group.own_image && group.other);
    }

    /// Counts what is neither file, folder nor link.
    pub(super) fn other(&mut self, kind: &str, name: &str) {
        let (count, _) = self.others.entry(kind.to_owned()).or_insert((0, name.to_owned()));
        *count += 1;
    }

    /// Counts an archive without an end mark.
    pub(super) fn unmarked(&mut self, name: &str) {
        note(&mut self.unmarked, name);
    }

    /// Counts an archive without files.
    pub(super) fn empty(&mut self, name: &str) {
        note(&mut self.empty, name);
    }

    /// Counts a file whose name a later one has, too.
    pub(super) fn repeated(&mut self, name: &str) {
        self.repeated.0 += 1;
        self.repeated.1.get_or_insert_with(|| name.to_owned());
    }

    /// Whether most images have fields beside them, as `.cls` or `.json`: webdataset's samples.
    pub(super) fn is_samples(&self) -> bool {
        self.samples > 0 && self.samples * 2 >= self.pictured
    }

    /// What should be told, a line each.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let (count @ 1.., Some(name)) = &self.repeated {
            notes.push(format!(
                "{} the name of a later file, which is read instead (as `{name}`)",
                clause(*count as usize, "file", ["has", "have"])
            ));
        }
        for (kind, (count, name)) in &self.others {
            notes.push(format!("passed over: {kind}, {count} (as `{name}`)"));
        }
        if let Some(first) = self.broken.first() {
            let count = self.broken.len();
            let links = clause(count, "link", ["leads", "lead"]);
            notes.push(format!("{links} to no file of the archive (as `{first}`)"));
        }
        if let (count @ 1.., names) = &self.unmarked {
            notes.push(format!(
                "{} without an end mark: cut off between two files, perhaps ({})",
                clause(*count as usize, "archive", ["ends", "end"]),
                names.join(", ")
            ));
        }
        if let (count @ 1.., names) = &self.empty {
            let archives = clause(*count as usize, "archive", ["holds", "hold"]);
            notes.push(format!("{archives} no files ({})", names.join(", ")));
        }
        notes
    }
}
