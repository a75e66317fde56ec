//! Several sorted lists to one.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use super::{Blocks, Span};
use crate::Result;

/// The next entry of a list.
struct Head {
    name: String,
    span: Span,
    list: usize,
}

impl Ord for Head {
    /// By name; of equal names, that of the last list is first.
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name).then_with(|| other.list.cmp(&self.list))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Shows the entries of sorted lists in one order, each name once: that of the last list that has it.
/// Entries that are replaced so are shown to `replaced`.
///
/// # Errors
/// Blocks that cannot be read, and those of `put`.
pub(in super::super) fn merge(
    mut lists: Vec<Blocks<'_>>,
    mut put: impl FnMut(&str, Span) -> Result<()>,
    mut replaced: impl FnMut(&str),
) -> Result<()> {
    let mut heap = BinaryHeap::with_capacity(lists.len());
    for (list, blocks) in lists.iter_mut().enumerate() {
        if let Some((name, span)) = blocks.next()? {
            heap.push(Reverse(Head { name: name.to_owned(), span, list }));
        }
    }
    let mut last = String::new();
    let mut any = false;
    while let Some(mut top) = heap.peek_mut() {
        let Reverse(head) = &mut *top;
        if any && last == head.name {
            replaced(&head.name);
        } else {
            put(&head.name, head.span)?;
            last.clone_from(&head.name);
            any = true;
        }
        match lists[head.list].next()? {
            Some((name, span)) => {
                name.clone_into(&mut head.name);
                head.span = span;
            }
            None => drop(std::collections::binary_heap::PeekMut::pop(top)),
        }
    }
    Ok(())
}
