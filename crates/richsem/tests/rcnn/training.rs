//! A tiny Faster R-CNN on a tiny set: it learns, and goes on exactly where it stopped.

use std::{collections::BTreeMap, path::Path, sync::atomic::AtomicBool};

use richsem::{
    checkpoint_io::safetensors,
    config::Config,
    detector::Detector,
    models::scored_box::ScoredBox,
    testing::{new_run, run_in_pieces},
    train::{Observer, Outcome, Worker, observer::Silent, train},
};
use tch::{Device, Tensor};

use super::setup::{ROI, data, key, learner, parse, richsem, settings, term, usual_batch};

fn run(config: &Config, folder: &Path) {
    let start = new_run(config, folder).unwrap();
    let outcome =
        train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false)).unwrap();
    assert!(matches!(outcome, Outcome::Finished { .. }));
}

fn state(run: &Path) -> BTreeMap<String, Tensor> {
    let last = run.join("checkpoints/last");
    let mut all = safetensors::read(&last.join("training.safetensors")).unwrap().0;
    all.extend(safetensors::read(&last.join("model.safetensors")).unwrap().0);
    all
}

/// Runs settings whole and in pieces of five batches, and compares all that a checkpoint holds. Returns the names.
fn whole_and_in_pieces(config: &Config, folder: &Path) -> Vec<String> {
    let (whole, pieces) = (folder.join("whole"), folder.join("pieces"));
    run(config, &whole);
    let stops = run_in_pieces(config, &pieces, 5).unwrap();
    assert!(stops > 2, "{stops}");
    let (expected, got) = (state(&whole), state(&pieces));
    assert_eq!(got.len(), expected.len());
    for (name, tensor) in &expected {
        assert_eq!(&got[name], tensor, "{name}");
    }
    expected.into_keys().collect()
}

/// With extra data, teacher and branch: what is drawn (anchors, boxes) depends on the step alone.
#[test]
fn a_stopped_and_resumed_run_is_the_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let config = parse(&richsem(&data, ROI, "", ""));
    whole_and_in_pieces(&config, folder.path());
    // The detector knows nothing of the branch, and opens as it was.
    let detector = Detector::open(folder.path().join("whole"), Device::Cpu).unwrap();
    assert!(detector.weights().keys().all(|name| !name.contains("semantic")));
    let rcnn = detector.config().model.as_faster_rcnn().unwrap();
    assert_eq!((rcnn.roi.dim, rcnn.rpn.post_nms_test), (32, 40));
}

/// With SGD the sum of gradients goes on, and so does the warm-up.
#[test]
fn a_run_with_sgd_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let sgd = "optimizer = \"sgd\"\nmomentum = 0.8\nwarmup_steps = 4\nwarmup_factor = 0.01\n\
               epochs = 5\nlr_drop = [4]\neval_every = 0";
    let config = parse(&settings(&data, ROI, sgd));
    let names = whole_and_in_pieces(&config, folder.path());
    assert!(names.iter().any(|name| name.starts_with("momentum.")), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("exp_avg")), "{names:?}");
}

/// One batch by heart: the loss falls to a fifth, and the boxes are found with their classes.
#[test]
fn it_learns_a_batch_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let text = settings(&data, ROI, "accumulate = 1\nema = { decay = 0.5 }")
        .replace("accumulate = 2\nema = { decay = 0.9, warmup = true }\n", "")
        .replace("\"batch_norm\"", "\"group_norm\", groups = 4");
    let mut learner = learner(&parse(&text), &data);
    let batch = usual_batch();
    let mut losses = Vec::new();
    for step in 0..120 {
        losses.push(learner.backward(&batch, key(step)).unwrap().loss);
        learner.update(1.0).unwrap();
    }
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[115..]));
    assert!(last < first / 5.0, "{first} {last}");
    let found = learner.model.detector.detect(&batch).unwrap();
    for (found, target) in found.iter().zip(&batch.targets) {
        for (bbox, label) in target.boxes.iter().zip(&target.labels) {
            let wanted = bbox.to_xyxy(64, 64).0;
            let near = |found: &&ScoredBox| {
                let apart = found.bbox.0.iter().zip(wanted).map(|(a, b)| (a - b).abs());
                found.class == *label && found.score > 0.5 && apart.fold(0.0, f32::max) < 6.0
            };
            assert!(found.iter().any(|found| near(&found)), "{label:?} {wanted:?}: {found:?}");
        }
    }
}

/// A cascade with sigmoids, federated loss and a class head against text: its terms have the stage's name.
#[test]
fn a_cascade_against_text_trains() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let model = "classifier = \"sigmoid\"\n\
                 roi = { dim = 32, pool = 4, batch_per_image = 32, class_agnostic = true, \
                 iou = [0.5, 0.6, 0.7], box_predictor = \"mlp\" }";
    let text = settings(&data, model, "[loss.federated]\nclasses = 3\n").replace(
        "[model]",
        &format!(
            "[model]\nclass_head = {{ kind = \"text\", table = \"{}/text.npy\" }}",
            data.display()
        ),
    );
    let mut learner = learner(&parse(&text), &data);
    for step in 0..3 {
        let loss = learner.backward(&usual_batch(), key(step)).unwrap();
        learner.update(1.0).unwrap();
        for stage in 0..3 {
            assert!(term(&loss, &format!("loss_cls_stage{stage}")) > 0.0);
        }
        assert_eq!(loss.terms.len(), 2 + 2 * 3);
    }
    assert_eq!(learner.model.detector.detect(&usual_batch()).unwrap().len(), 2);
}

/// A backbone alone starts it, as it starts a DINO.
#[test]
fn a_backbone_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let first = learner(&parse(&settings(&data, ROI, "")), &data);
    let file = folder.path().join("backbone.safetensors");
    let prefix = "backbone.body.";
    let own: BTreeMap<String, Tensor> = first
        .model
        .detector
        .weights()
        .into_iter()
        .filter_map(|(name, x)| Some((name.strip_prefix(prefix)?.to_owned(), x + 1.0)))
        .collect();
    safetensors::write(&file, &own, &Default::default()).unwrap();
    let weights = format!("frozen_stages = -1, weights = \"{}\"", file.display());
    let text = settings(&data, ROI, "epochs = 1").replace("frozen_stages = -1", &weights);
    let run = folder.path().join("run");
    let start = new_run(&parse(&text), &run).unwrap();
    let mut said = Said::default();
    train(start, &Worker::alone(Device::Cpu), &mut said, &AtomicBool::new(true)).unwrap();
    assert!(said.0.contains("backbone from"), "{}", said.0);
}

#[derive(Default)]
struct Said(String);

impl Observer for Said {
    fn message(&mut self, text: &str) {
        self.0 += text;
        self.0.push('\n');
    }
}
