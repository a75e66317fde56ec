//! Object detection on long-tailed data: the RichSem method (arXiv 2310.12152) and everything
//! around it, from annotation files to a trained, evaluated detector.
//!
//! Data flows one way: files → [`data::dataset::Dataset`] → `Sample` → transforms → `Batch` →
//! detector → criterion → optimizer → checkpoint, and detector output → detections → evaluator →
//! report.
#![forbid(unsafe_code)]

pub mod bench;
mod bounds;
pub mod boxes;
pub mod checkpoint_io;
pub mod collective;
pub mod config;
pub mod convert;
pub mod data;
pub mod detections;
pub mod detector;
pub mod draw;
pub mod error;
pub mod evaluate;
pub mod families;
pub mod geometry;
mod hash;
pub mod info;
mod json;
pub mod losses;
pub mod models;
pub mod normalization;
pub mod precision;
pub mod predict;
pub mod prepare;
pub mod prepared;
pub mod pretrain;
pub mod random;
mod recordings;
pub mod report;
pub mod semantic_branch;
mod settings;
pub mod stored_batch;
pub mod study;
pub mod synth;
pub mod targets;
pub mod teacher;
pub mod tensorboard;
#[doc(hidden)]
pub mod testing;
pub mod train;
pub mod vocabulary;

pub use error::{Error, Result};
pub use image;
pub use tch;
