//! Faster R-CNN against torchvision's and detectron2's own (`reference/rcnn.py`, `reference/rcnn_detectron2.py`), in
//! f64: forward, each loss term, each gradient, detections.
#![allow(clippy::unwrap_used)]

mod convert;
mod golden;
mod objective;
mod training;
