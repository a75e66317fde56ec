//! From annotation files and images to batches.

pub mod batch;
pub mod convert;
pub mod dataset;
pub mod detection_source;
mod entries;
pub mod epochs;
pub mod extra;
pub mod fingerprint;
pub mod formats;
pub mod image_io;
pub mod image_store;
pub mod interleaved;
mod json_file;
pub mod label_statistics;
pub mod listing;
pub mod loader;
pub mod openimages;
pub(crate) mod reading;
mod records;
pub mod sampler;
pub mod split;
mod texts;
pub mod transforms;

pub use entries::entries;
pub use reading::Reading;
