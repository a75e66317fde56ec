//! What most programs need: `use richsem::prelude::*`.

pub use std::sync::atomic::AtomicBool;

pub use image::RgbImage;
pub use tch::Device;
pub use torch_ext::DeviceChoice;

pub use crate::{
    boxes::{Xywh, Xyxy},
    config::Config,
    detector::{ClassSet, Detector, DetectorConfig, Prediction, read_image},
    error::{Error, Result},
    evaluate::{Evaluator, Summary, evaluate},
    models::class_head::TextTable,
    teacher::{DenseMap, SoftLabels, Teacher},
    train::{
        NewRun, Observer, Outcome, Start, Worker,
        observer::{Logged, Silent},
        train, train_with_teacher,
    },
    vocabulary::{ClassIndex, Vocabulary},
};
