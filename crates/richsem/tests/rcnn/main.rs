//! Faster R-CNN against torchvision's and detectron2's own (`reference/rcnn.py`, `reference/rcnn_detectron2.py`), in
//! f64: forward, each loss term, each gradient, detections. And trainings of tiny ones, and files of weights.
#![allow(clippy::unwrap_used)]

mod branch;
mod convert;
mod golden;
mod objective;
mod odd;
mod setup;
mod training;
