//! Settings, batches and learners of a tiny Faster R-CNN on a tiny set.

use std::path::{Path, PathBuf};

use richsem::{
    config::Config,
    data::batch::Batch,
    losses::terms::StepKey,
    targets::Target,
    testing::{self, small_run_of, target, taught_run, write_taught_set},
    train::{BatchLoss, Learner},
};

const TEACHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/teacher/rn.safetensors");

/// Detection and classification images, a teacher, and a text table of its width.
pub(super) fn data(folder: &Path) -> PathBuf {
    write_taught_set(folder, TEACHER.as_ref()).unwrap()
}

/// A small run; `model` and `more` are added to their sections.
pub(super) fn settings(data: &Path, model: &str, more: &str) -> String {
    let model = format!(
        r#"
[model]
kind = "faster_rcnn"

[model.faster_rcnn]
fpn_dim = 16
backbone = {{ name = "resnet18", width = 8, norm = "batch_norm", frozen_stages = -1 }}
{model}

[model.faster_rcnn.rpn]
sizes = [8, 16, 32, 64, 128]
pre_nms_train = 100
pre_nms_test = 100
post_nms_train = 50
post_nms_test = 40
batch_per_image = 64
"#
    );
    small_run_of(data, &model, 0.002, more)
}

pub(super) const ROI: &str = "roi = { dim = 32, pool = 4, batch_per_image = 32 }";
pub(super) const TEXT_ROI: &str = "classifier = \"sigmoid\"\n\
                        roi = { dim = 32, pool = 4, batch_per_image = 32, class_agnostic = true }";

pub(super) fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("test.toml")).unwrap()
}

/// Mosaics of classification images and the semantic branch.
pub(super) fn richsem(data: &Path, model: &str, supervision: &str, semantic: &str) -> String {
    settings(data, model, &taught_run(data, supervision, semantic))
}

/// Two dark images with coloured boxes: the colour is the class.
pub(super) fn batch(size: u32, objects: [&[(u32, [f32; 4])]; 2]) -> Batch {
    let sample = |(i, objects): (u32, &[(u32, [f32; 4])])| {
        let mut image = image::RgbImage::from_fn(size, size, |x, y| {
            image::Rgb([(x * 3 + i * 5) as u8 % 60, (y * 7) as u8 % 60, (x * y) as u8 % 60])
        });
        let target = Target { size: [size; 2], original_size: [size; 2], ..target(objects) };
        for (bbox, label) in target.boxes.iter().zip(&target.labels) {
            let [x0, y0, x1, y1] = bbox.to_xyxy(size, size).0.map(|x| x as u32);
            for (x, y) in (x0..x1).flat_map(|x| (y0..y1).map(move |y| (x, y))) {
                image.get_pixel_mut(x, y).0[label.0 as usize % 3] = 250;
            }
        }
        (image, target)
    };
    Batch::collate((0..2).zip(objects).map(sample).collect(), Vec::new(), 32).unwrap()
}

pub(super) fn usual_batch() -> Batch {
    batch(
        64,
        [&[(0, [0.3, 0.3, 0.4, 0.4]), (1, [0.75, 0.7, 0.3, 0.4])], &[(2, [0.5, 0.5, 0.6, 0.6])]],
    )
}

pub(super) fn learner(config: &Config, data: &Path) -> Learner {
    testing::learner(config, data).unwrap()
}

pub(super) fn key(micro_step: u64) -> StepKey {
    StepKey { seed: 1, micro_step }
}

pub(super) fn term(loss: &BatchLoss, name: &str) -> f64 {
    loss.terms.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("no {name}")).1
}
