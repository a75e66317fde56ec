//! The real binary, verb by verb.
#![allow(clippy::unwrap_used)]

mod command_line;
mod data;
mod detecting;
mod doctor;
mod evaluating;
mod predicting;
mod showing;
mod starting;
mod stopping;
#[path = "../util/mod.rs"]
mod util;
