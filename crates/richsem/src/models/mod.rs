//! The detector's parts. Nothing here knows of data sets, losses, teachers or training.

pub mod backbone;
pub mod class_head;
pub mod config;
pub mod dino;
pub mod faster_rcnn;
mod images;
pub mod layers;
pub mod network;
#[cfg(test)]
pub(crate) mod padded_batch;
pub mod padding;
pub mod parameters;
pub mod position_encoding;
pub mod projection;
pub mod scored_box;
