//! Ids while the lists that declare them are still to come.

use std::collections::HashMap;

/// The ids of one list, in the order in which they were first seen anywhere.
#[derive(Default)]
pub(super) struct Ids {
    slots: HashMap<i64, u32>,
    pub(super) seen: Vec<Seen>,
}

pub(super) struct Seen {
    pub(super) id: i64,
    /// Position in the list that declares it.
    pub(super) declared: Option<u32>,
    /// Position of the first annotation that has it.
    pub(super) mentioned: Option<u32>,
}

impl Ids {
    pub(super) fn slot(&mut self, id: i64) -> u32 {
        *self.slots.entry(id).or_insert_with(|| {
            self.seen.push(Seen { id, declared: None, mentioned: None });
            self.seen.len() as u32 - 1
        })
    }

    pub(super) fn mention(&mut self, id: i64, annotation: u32) -> u32 {
        let slot = self.slot(id);
        self.seen[slot as usize].mentioned.get_or_insert(annotation);
        slot
    }

    /// Gives the earlier position if the id is taken.
    pub(super) fn declare(&mut self, id: i64, position: usize) -> Result<(), u32> {
        let slot = self.slot(id) as usize;
        match self.seen[slot].declared.replace(position as u32) {
            None => Ok(()),
            Some(earlier) => Err(earlier),
        }
    }
}

/// Which ids there are, as a hint why `wanted` is not among them.
pub(super) fn known_ids(list: &str, mut ids: Vec<i64>, wanted: i64) -> String {
    ids.sort_unstable();
    let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else {
        return format!("the file has no {list}");
    };
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
