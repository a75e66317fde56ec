//! What is said of a part of a set.

use richsem::data::{dataset::Dataset, formats::same_split};

/// The part's name, to stand behind the set's.
pub(crate) fn of_part(dataset: &Dataset) -> String {
    match dataset.split() {
        "" => String::new(),
        part => format!(", part `{part}`"),
    }
}

/// Whether rare, common and frequent classes can be told: the file says which these are, or it may be what is
/// trained on, whose images decide.
pub(crate) fn has_groups(dataset: &Dataset) -> bool {
    let said = dataset.frequencies().iter().any(Option::is_some);
    said || dataset.split().is_empty() || same_split(dataset.split(), "train")
}
