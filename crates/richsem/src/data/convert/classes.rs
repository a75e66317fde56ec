//! The same classes, with the same ids, in all parts of a set.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::Part;
use crate::{
    argument::Argument,
    data::records::ClassRecord,
    error::{Error, Result, first_few},
    plural::counted,
    vocabulary::ClassIndex,
};

/// Gives all parts the classes of each of them. Ids stay, if the parts agree: no id has two names, and no
/// name two ids. Otherwise classes are those of equal names, numbered from 1 in the order of their names.
/// Gives notes for the user.
pub(super) fn unify(input: &Path, sets: &mut [Part]) -> Result<Vec<String>> {
    let [first, others @ ..] = &*sets else { return Ok(Vec::new()) };
    let ids = |part: &Part| -> Vec<(i64, String)> {
        part.1.class_records().iter().map(|class| (class.id, class.name.clone())).collect()
    };
    let own = ids(first);
    if others.iter().all(|other| ids(other) == own) {
        return Ok(Vec::new());
    }
    let mut notes = Vec::new();
    let id_of = match ids_that_agree(sets) {
        Ok(()) => None,
        Err(why) => {
            notes.push(format!("classes are numbered anew, by name, because {why}"));
            Some(by_name(input, sets)?)
        }
    };
    let union = union_of(sets, id_of.as_ref());
    for (name, set) in sets {
        let mut classes = union.clone();
        let mut place = Vec::with_capacity(set.class_records().len());
        for class in set.class_records() {
            let id = id_of.as_ref().map_or(class.id, |ids| ids[&class.name]);
            let at = classes.partition_point(|other| other.id < id);
            classes[at] = ClassRecord { id, ..class.clone() };
            place.push(ClassIndex(at as u32));
        }
        if place.len() < classes.len() {
            let others: BTreeSet<usize> = place.iter().map(|class| class.0 as usize).collect();
            let added = (0..classes.len()).filter(|at| !others.contains(at));
            let added: Vec<String> = added.map(|at| classes[at].name.clone()).collect();
            notes.push(format!(
                "`{name}` gets {} that only other parts list: {}",
                counted(added.len(), "class"),
                first_few(added.iter().cloned())
            ));
        }
        set.set_classes(classes, &place);
    }
    Ok(notes)
}

/// Whether no id has two names and no name two ids in several parts; or why not.
fn ids_that_agree(sets: &[Part]) -> Result<(), String> {
    let mut names: BTreeMap<i64, &str> = BTreeMap::new();
    let mut owners: BTreeMap<&str, (usize, i64)> = BTreeMap::new();
    for (at, (_, set)) in sets.iter().enumerate() {
        for class in set.class_records() {
            let known = *names.entry(class.id).or_insert(&class.name);
            if known != class.name {
                return Err(format!(
                    "category {} is `{known}` in one part and `{}` in another",
                    class.id, class.name
                ));
            }
            let (owner, id) = *owners.entry(&class.name).or_insert((at, class.id));
            // Two classes of one name in one part have ids of their own.
            if owner != at && id != class.id {
                return Err(format!(
                    "`{}` is category {id} in one part and {} in another",
                    class.name, class.id
                ));
            }
        }
    }
    Ok(())
}

/// Ids from 1 by name. No part may have two classes of one name: they would become one.
fn by_name(input: &Path, sets: &[Part]) -> Result<BTreeMap<String, i64>> {
    let mut names = BTreeSet::new();
    for (part, set) in sets {
        let mut own = BTreeSet::new();
        for class in set.class_records() {
            if !own.insert(&class.name) {
                let problem = format!(
                    "the parts number their classes in different ways, and `{part}` has two that are \
                     called `{}`",
                    class.name
                );
                return Err(Error::invalid(input, "classes", problem).with_hint(format!(
                    "give them different names, or convert the parts one at a time: {}",
                    Argument::Split
                )));
            }
        }
        names.extend(own);
    }
    Ok(names.into_iter().cloned().zip(1..).collect())
}

/// All classes in the order of their ids, each as the first part that has it says.
fn union_of(sets: &[Part], id_of: Option<&BTreeMap<String, i64>>) -> Vec<ClassRecord> {
    let mut union: BTreeMap<i64, ClassRecord> = BTreeMap::new();
    for class in sets.iter().flat_map(|(_, set)| set.class_records()) {
        let id = id_of.map_or(class.id, |ids| ids[&class.name]);
        union.entry(id).or_insert_with(|| ClassRecord { id, ..class.clone() });
    }
    union.into_values().collect()
}
