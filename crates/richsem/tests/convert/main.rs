//! Official checkpoints as detectors and back. `tests/fixtures/official` has the key names and
//! shapes that the official code itself gives at full size (`make.py` there wrote them).
//!
//! What the official code then does with our files was tried with it: its full-size models with
//! random weights, saved by it, converted and converted back with `--rest`, load strictly
//! (RichSem: 1583 keys, DINO: 626), every value the same to the bit, and the text table differs
//! from its own by 2e-6 of 8.6.
#![allow(clippy::unwrap_used)]

mod detectors;
mod keys;
mod parts;
mod refusals;
mod support;
