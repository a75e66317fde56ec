//! Object detection on long-tailed data: the RichSem method (arXiv 2310.12152) and everything
//! around it, from annotation files to a trained, measured detector.
//!
//! Data flows one way: files → [`data::dataset::Dataset`] → `Sample` → transforms → `Batch` →
//! detector → criterion → optimizer → checkpoint, and detector output → detections → evaluator →
//! report.
#![forbid(unsafe_code)]

pub mod boxes;
pub mod collective;
pub mod data;
pub mod detections;
pub mod draw;
pub mod error;
pub mod evaluate;
pub mod losses;
pub mod models;
pub mod random;
pub mod synth;
pub mod targets;
#[doc(hidden)]
pub mod testing;
pub mod report;
pub mod targets;
pub mod tensorboard;
pub mod vocabulary;

pub use error::{Error, Result};
