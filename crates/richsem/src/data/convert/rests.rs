//! What COCO and LVIS files have beside what is read: carried to files of their own kind, counted for others.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    rc::Rc,
    sync::atomic::AtomicBool,
};

use super::{NotCarried, Part, Target};
use crate::{
    data::{
        formats::{Rest, Written},
        records::ClassRecord,
    },
    error::Result,
};

/// For each part, where it was read from such a file. Parts of one file share it.
pub(super) struct Rests(Vec<Option<Rc<Rest>>>);

impl Rests {
    /// Reads the files of all parts again. Temporary files are in `folder`; without one, fields are only counted.
    pub(super) fn read(sets: &[Part], folder: Option<&Path>, stop: &AtomicBool) -> Result<Self> {
        let mut of_file: BTreeMap<&Path, Rc<Rest>> = BTreeMap::new();
        let mut all = Vec::with_capacity(sets.len());
        for (_, set) in sets {
            let known = set.json_file().and_then(|file| of_file.get(file.path())).cloned();
            let rest = match known {
                Some(rest) => Some(rest),
                None => Rest::read(set, folder, stop)?.map(Rc::new),
            };
            if let (Some(file), Some(rest)) = (set.json_file(), &rest) {
                of_file.insert(file.path(), Rc::clone(rest));
            }
            all.push(rest);
        }
        Ok(Self(all))
    }

    /// That of a part.
    pub(super) fn of(&self, part: usize) -> Option<&Rest> {
        self.0[part].as_deref()
    }

    /// What a part's file says more of its classes, or another's, of those that it does not list.
    pub(super) fn of_classes(&self, part: usize, classes: &[ClassRecord]) -> Vec<Written> {
        let names: HashSet<&str> = classes.iter().map(|class| class.name.as_str()).collect();
        let others = (0..self.0.len()).filter(|other| *other != part);
        let order: Vec<&Rest> =
            std::iter::once(part).chain(others).filter_map(|at| self.of(at)).collect();
        let more = |class: &ClassRecord| {
            let found = order.iter().find_map(|rest| rest.of_class(class, |n| names.contains(n)));
            found.unwrap_or_default()
        };
        classes.iter().map(more).collect()
    }

    /// Whether all parts were read from such files: nothing is then lost without a count.
    pub(super) fn are_all(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// Counts what the new format has no place for, by the names of the fields.
    pub(super) fn tell(&self, sets: &[Part], target: Target, lost: &mut NotCarried) {
        for (at, rest) in self.0.iter().enumerate() {
            let Some(rest) = rest else { continue };
            let same = |other: &Option<Rc<Rest>>| {
                other.as_ref().is_some_and(|other| Rc::ptr_eq(other, rest))
            };
            if self.0[..at].iter().any(same) {
                continue;
            }
            let shared = self.0.iter().filter(|other| same(other)).count() > 1;
            let part = if shared { "" } else { &sets[at].0 };
            for ((list, field), &count) in &rest.counts {
                let instead = match (target, field.as_str()) {
                    (Target::Yolo, _) => "left out",
                    (Target::Lvis, "pos_category_ids") => {
                        "classes without a box are in not_exhaustive_category_ids"
                    }
                    (Target::Coco, "pos_category_ids") => "left out",
                    _ => continue,
                };
                let what = match *list {
                    "" => format!("`{field}` of the file"),
                    list => format!("{list} with `{field}`"),
                };
                lost.add(part, what, count, instead);
            }
        }
    }
}
