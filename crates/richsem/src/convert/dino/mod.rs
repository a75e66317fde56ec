//! DINO's checkpoints: those of RichSem, DINO and Deformable DETR, as this program's detectors and back.

mod export;
mod import;
pub mod keys;
mod sizes;

pub(in crate::convert) use export::to_official;
pub(in crate::convert) use import::{from_official, initial_values, rows_of};
