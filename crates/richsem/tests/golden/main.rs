//! Golden files: the numbers of the official RichSem code (github MengLcool/RichSem, commit 42bf5ff)
//! on small models with random weights, written by `reference/golden` (`make golden`), against ours.
//! The official code ran in f64, and so do we where we say so; what it makes in f32 by name (position
//! encodings, reference points) is f32 on both sides. Tolerances are relative to the largest value of
//! a tensor unless a test says otherwise.
//!
//! The vocabulary is the official one: id 0 is "none", so that 7 classes give 8 logits.
#![allow(clippy::unwrap_used)]

mod data;
mod denoising;
mod losses;
mod modules;
mod objective;
mod soft_labels;
mod support;
mod whole;
