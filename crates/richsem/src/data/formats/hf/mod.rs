//! Hugging Face's sets with boxes: parquet files with the images in them, and folders of images with a
//! `metadata.jsonl` (`imagefolder`). Neither says what the four numbers of a box are: see [`BoxForm`].

mod boxes;
mod collect;
mod imagefolder;
mod parquet;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use boxes::BoxForm;
pub(super) use imagefolder::FORMAT as IMAGEFOLDER;
pub(super) use parquet::FORMAT as PARQUET;
pub(in crate::data) use parquet::part_of_file;

use super::{Place, is_usual};
use crate::error::{Error, Result};

/// Folders that sets lie in, below what is given: as on Hugging Face.
const DATA: &str = "data";

/// The place itself and its folder `data`.
fn places(place: &Place) -> Vec<Place> {
    let own = Place::new(place.path()).ok();
    own.into_iter().chain(place.below(DATA)).collect()
}

/// The part that is asked for, by its position.
fn part_of<T>(path: &Path, parts: &[(String, T)], split: &str) -> Result<usize> {
    let found = parts.iter().position(|(name, _)| split.is_empty() || name == split);
    found.ok_or_else(|| Error::invalid(path, "split", format!("there is no part `{split}`")))
}
