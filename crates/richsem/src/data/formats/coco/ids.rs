//! Ids while the lists that declare them are still to come.

use std::collections::HashMap;

use crate::json::Id;

/// The ids of one list, in the order in which they were first seen anywhere.
#[derive(Default)]
pub(super) struct Ids {
    slots: HashMap<i64, u32>,
    /// Of those that are no numbers.
    texts: HashMap<String, u32>,
    pub(super) seen: Vec<Seen>,
}

pub(super) struct Seen {
    pub(super) id: Id,
    /// Position in the list that declares it.
    pub(super) declared: Option<u32>,
    /// Position of the first annotation that has it.
    pub(super) mentioned: Option<u32>,
}

impl Ids {
    /// A number and the text of it are the same id.
    pub(super) fn slot(&mut self, id: &Id) -> u32 {
        let next = self.seen.len() as u32;
        let slot = match id.number() {
            Some(number) => *self.slots.entry(number).or_insert(next),
            None => *self.texts.entry(id.clone().into_text()).or_insert(next),
        };
        if slot == next {
            self.seen.push(Seen { id: id.clone(), declared: None, mentioned: None });
        }
        slot
    }

    pub(super) fn mention(&mut self, id: &Id, annotation: u32) -> u32 {
        let slot = self.slot(id);
        self.seen[slot as usize].mentioned.get_or_insert(annotation);
        slot
    }

    /// Gives the earlier position if the id is taken.
    pub(super) fn declare(&mut self, id: &Id, position: usize) -> Result<(), u32> {
        let slot = self.slot(id) as usize;
        match self.seen[slot].declared.replace(position as u32) {
            None => Ok(()),
            Some(earlier) => Err(earlier),
        }
    }
}

/// Which ids there are, as a hint why `wanted` is not among them.
pub(super) fn known_ids<'a>(list: &str, ids: impl Iterator<Item = &'a Id>, wanted: &Id) -> String {
    let ids: Vec<&Id> = ids.collect();
    let Some(first) = ids.first() else { return format!("the file has no {list}") };
    let numbers: Option<Vec<i64>> = ids.iter().map(|id| id.number()).collect();
    match (numbers, wanted.number()) {
        (Some(numbers), Some(wanted)) => known_numbers(list, numbers, wanted),
        _ => format!("the file has {} {list}; the id of the first is {first}", ids.len()),
    }
}

fn known_numbers(list: &str, mut ids: Vec<i64>, wanted: i64) -> String {
    ids.sort_unstable();
    let (first, last) = (ids[0], ids[ids.len() - 1]);
    let span = i128::from(last) - i128::from(first) + 1;
    if span == ids.len() as i128 {
        return format!("the file has {list} {first}..={last}");
    }
    let after = ids.partition_point(|&id| id < wanted);
    let near: Vec<String> =
        ids[after.saturating_sub(1)..ids.len().min(after + 1)].iter().map(i64::to_string).collect();
    format!(
        "the file has {} {list} with ids from {first} to {last}, not all used; the closest: {}",
        ids.len(),
        near.join(", ")
    )
}
