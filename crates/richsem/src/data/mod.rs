//! From annotation files and pictures to batches.

pub mod dataset;
pub mod voc;
