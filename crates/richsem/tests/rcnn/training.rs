//! A tiny Faster R-CNN on a tiny set: it learns, and goes on exactly where it stopped.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use richsem::{
    checkpoint_io::safetensors,
    collective::Single,
    config::{Config, InitConfig},
    data::{batch::Batch, dataset::Dataset},
    detector::Detector,
    losses::terms::StepKey,
    models::scored_box::ScoredBox,
    synth::SynthConfig,
    targets::{Supervision, Target},
    teacher::clip,
    testing::{category, normal, small_set, target, write_set},
    train::{
        BatchLoss, Learner, NewRun, Observer, Outcome, Start, TrainRow, Worker, observer::Silent,
        train,
    },
    vocabulary::Vocabulary,
};
use tch::{Device, Tensor};

const TEACHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/teacher/rn.safetensors");

/// Detection and classification images, a teacher, and a text table of its width.
fn data(folder: &Path) -> PathBuf {
    // Whatever the environment says: tests side by side wait for each other's threads.
    tch::set_num_threads(1);
    let out = folder.join("synth");
    let config = SynthConfig {
        val_images: 4,
        classification_per_class: 5,
        classification_size: 48,
        ..small_set()
    };
    write_set(&config, &out).unwrap();
    let (_, sizes, _) = clip::load(TEACHER.as_ref(), &clip::Hints::default(), Device::Cpu).unwrap();
    normal(3, &[4, sizes.embed_dim]).write_npy(out.join("text.npy")).unwrap();
    std::fs::copy(TEACHER, out.join("teacher.safetensors")).unwrap();
    out
}

/// A small run; `model` and `more` are added to their sections.
fn settings(data: &Path, model: &str, more: &str) -> String {
    format!(
        r#"
version = 1
seed = 5

[data]
batch_size = 2
workers = 2
train = {{ annotations = "{0}/train.json", images = "{0}/images" }}
val = {{ annotations = "{0}/val.json", images = "{0}/images" }}
augment = {{ scales = [64, 80], max_size = 128 }}
resize = {{ size = 64, max_size = 128 }}

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

[train]
lr = 0.002
lr_backbone = 0.002
accumulate = 2
ema = {{ decay = 0.9, warmup = true }}
checkpoint_every = 2
{more}
"#,
        data.display()
    )
}

const ROI: &str = "roi = { dim = 32, pool = 4, batch_per_image = 32 }";
const TEXT_ROI: &str = "classifier = \"sigmoid\"\n\
                        roi = { dim = 32, pool = 4, batch_per_image = 32, class_agnostic = true }";

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("test.toml")).unwrap()
}

/// Mosaics of classification images and the semantic branch.
fn richsem(data: &Path, model: &str, supervision: &str, semantic: &str) -> String {
    let more = format!(
        r#"epochs = 2
lr_drop = [1]
log_every = 3

[data.extra.classification]
images = "{0}/classification"
mapping = {{ by = "name" }}
form = {{ kind = "mosaic", tile = 32 }}
augment = {{ scales = [32], max_size = 48, crop = {{ probability = 0 }} }}
supervision = {{ {supervision} }}

[teacher]
weights = "{0}/teacher.safetensors"
text = {{ kind = "table", table = "{0}/text.npy" }}

[semantic]
{semantic}"#,
        data.display()
    );
    settings(data, model, &more)
}

fn run(config: &Config, folder: &Path) {
    let start =
        Start::New { config: Box::new(config.clone()), folder: NewRun::claim(folder).unwrap() };
    let outcome =
        train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false)).unwrap();
    assert!(matches!(outcome, Outcome::Finished { .. }));
}

struct StopAt<'a>(usize, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn batch(&mut self, _loss: f64, _images: usize, _row: Option<&TrainRow>) {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

fn state(run: &Path) -> BTreeMap<String, Tensor> {
    let last = run.join("checkpoints/last");
    let mut all = safetensors::read(&last.join("training.safetensors")).unwrap().0;
    all.extend(safetensors::read(&last.join("model.safetensors")).unwrap().0);
    all
}

/// With extra data, teacher and branch: what is drawn (anchors, boxes) depends on the step alone.
#[test]
fn a_stopped_and_resumed_run_is_the_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let config = parse(&richsem(&data, ROI, "", ""));
    let whole = folder.path().join("whole");
    run(&config, &whole);
    let expected = state(&whole);
    let path = folder.path().join("stopped");
    let mut next = Start::New { config: Box::new(config), folder: NewRun::claim(&path).unwrap() };
    let mut stops = 0;
    loop {
        let stop = AtomicBool::new(false);
        match train(next, &Worker::alone(Device::Cpu), &mut StopAt(5, &stop), &stop).unwrap() {
            Outcome::Stopped(_) => stops += 1,
            Outcome::Finished { .. } => break,
        }
        next = Start::Resume(path.clone());
    }
    assert!(stops > 2, "{stops}");
    let got = state(&path);
    assert_eq!(got.len(), expected.len());
    for (name, tensor) in &expected {
        assert_eq!(&got[name], tensor, "{name}");
    }
    // The detector knows nothing of the branch, and opens as it was.
    let detector = Detector::open(&whole, Device::Cpu).unwrap();
    assert!(detector.weights().keys().all(|name| !name.contains("semantic")));
    let rcnn = detector.config().model.as_faster_rcnn().unwrap();
    assert_eq!((rcnn.roi.dim, rcnn.rpn.post_nms_test), (32, 40));
}

/// Two dark images with coloured boxes: the colour is the class.
fn batch(size: u32, objects: [&[(u32, [f32; 4])]; 2]) -> Batch {
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

fn usual_batch() -> Batch {
    batch(
        64,
        [&[(0, [0.3, 0.3, 0.4, 0.4]), (1, [0.75, 0.7, 0.3, 0.4])], &[(2, [0.5, 0.5, 0.6, 0.6])]],
    )
}

fn learner(config: &Config, data: &Path) -> Learner {
    let vocabulary = Dataset::open(&data.join("train.json")).unwrap().vocabulary().clone();
    Learner::new(config, vocabulary, Device::Cpu, Arc::new(Single)).unwrap()
}

fn key(micro_step: u64) -> StepKey {
    StepKey { seed: 1, micro_step }
}

fn term(loss: &BatchLoss, name: &str) -> f64 {
    loss.terms.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("no {name}")).1
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

/// Each switch takes its terms' gradients away and no others'.
#[test]
fn switches_of_a_set_are_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let mut learner = learner(&parse(&richsem(&data, ROI, "", "")), &data);
    let mut moved = |change: fn(&mut Supervision)| {
        let mut batch = usual_batch();
        change(&mut batch.supervision);
        learner.optimizer.zero_grad();
        let loss = learner.backward(&batch, key(0)).unwrap();
        let parts = [
            "rpn.head.cls_logits",
            "rpn.head.bbox_pred",
            "cls_score",
            "box_predictor.bbox_pred",
            "semantic_branch",
        ];
        let moved = parts.map(|part| {
            let of_part = |p: &richsem::models::parameters::Parameter| {
                p.name.contains(part) && p.tensor.grad().abs().max().double_value(&[]) > 0.0
            };
            learner.model.parameters().iter().any(of_part)
        });
        (moved, loss.terms.len())
    };
    assert_eq!(moved(|_| {}), ([true; 5], 5));
    assert_eq!(moved(|on| on.rpn = false), ([false, false, true, true, true], 5));
    assert_eq!(moved(|on| on.class = false), ([true, true, false, true, true], 5));
    assert_eq!(moved(|on| on.l1 = false), ([true, true, true, false, true], 5));
    assert_eq!(moved(|on| on.semantic = false), ([true, true, true, true, false], 4));
}

/// The branch moves the features that it looks at, with each kind of target, and its term falls.
#[test]
fn the_branch_teaches_the_box_head() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let gradient = |semantic: &str, model: &str, text_head: bool| {
        let mut text = richsem(&data, model, "", semantic);
        if text_head {
            text = text.replace("[model]", "[model]\nclass_head = { kind = \"text\" }");
        }
        let learner = learner(&parse(&text), &data);
        let mut batch = usual_batch();
        // Only the branch teaches.
        let on = &mut batch.supervision;
        (on.class, on.l1, on.rpn) = (false, false, false);
        let loss = learner.backward(&batch, key(0)).unwrap();
        let fc = learner
            .model
            .parameters()
            .into_iter()
            .find(|p| p.name.ends_with("box_head.fc6.weight"));
        assert!(fc.unwrap().tensor.grad().norm().double_value(&[]) > 0.0, "{semantic}");
        assert!(term(&loss, "loss_semantic") > 0.0, "{semantic}");
        term(&loss, "loss_semantic")
    };
    let plain = gradient("", ROI, false);
    for other in [
        "objective = \"l1\"",
        "entropy_weight = true",
        "target_boxes = \"all\"",
        "projection = \"mlp\"",
    ] {
        assert_ne!(gradient(other, ROI, false), plain, "{other}");
    }
    // The same where no proposal of the untrained network but only the objects' own boxes learn, which the last
    // digits decide.
    gradient("target_boxes = \"matched\"", ROI, false);
    gradient("projection = \"shared\"", TEXT_ROI, true);
    gradient("federated = true\n[loss.federated]\nclasses = 3", TEXT_ROI, true);
}

/// Small images, images without boxes, boxes that no anchor fits: a step and detections each.
#[test]
fn odd_batches_are_learned_from() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let mut learner = learner(&parse(&richsem(&data, ROI, "", "")), &data);
    let whole: &[(u32, [f32; 4])] = &[(1, [0.5, 0.5, 1.0, 1.0])];
    let tiny: &[(u32, [f32; 4])] = &[(1, [0.02, 0.98, 0.03, 0.03])];
    for (step, (size, objects)) in
        [(32, [whole, &[]]), (64, [&[], &[]]), (64, [tiny, whole]), (17, [whole, whole])]
            .into_iter()
            .enumerate()
    {
        let batch = batch(size, objects);
        let loss = learner.backward(&batch, key(step as u64)).unwrap();
        assert!(loss.loss.is_finite());
        let objects = batch.targets.iter().any(|target| !target.boxes.is_empty());
        assert_eq!(term(&loss, "loss_semantic") > 0.0, objects, "{size}");
        assert_eq!(term(&loss, "loss_box_reg") > 0.0, objects, "{size}");
        learner.update(1.0).unwrap();
        let found = learner.model.detector.detect(&batch).unwrap();
        let side = size as f32 + 1e-3;
        assert!(found.iter().flatten().all(|d| d.bbox.0.iter().all(|x| (0.0..=side).contains(x))));
    }
}

/// Every proposal lies outside of its image: in training the objects' own boxes are left, in detection nothing.
#[test]
fn no_proposals_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let learner = learner(&parse(&settings(&data, ROI, "")), &data);
    let bias = &learner.model.detector.weights()["rpn.head.bbox_pred.bias"];
    // The first number of each anchor's four: far to the right.
    let _ = bias.view([-1, 4]).select(1, 0).fill_(1e4);
    let loss = learner.backward(&usual_batch(), key(0)).unwrap();
    assert!(term(&loss, "loss_cls") > 0.0 && term(&loss, "loss_box_reg") >= 0.0);
    let found = learner.model.detector.detect(&usual_batch()).unwrap();
    assert!(found.len() == 2 && found.iter().all(Vec::is_empty));
}

/// LVIS's 1,203 classes and one box in a batch, by softmax and by sigmoids with a federated loss.
#[test]
fn many_classes_and_one_box() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let categories = (1..=1203).map(|id| category(id, format!("thing {id}"))).collect();
    let vocabulary = Vocabulary::new(categories);
    let batch = batch(64, [&[(1202, [0.4, 0.5, 0.5, 0.6])], &[]]);
    for (model, more) in [
        (ROI.to_owned(), ""),
        (format!("classifier = \"sigmoid\"\n{ROI}"), "[loss.federated]\nclasses = 50"),
    ] {
        let config = parse(&settings(&data, &model, more));
        let learner =
            Learner::new(&config, vocabulary.clone(), Device::Cpu, Arc::new(Single)).unwrap();
        let loss = learner.backward(&batch, key(0)).unwrap();
        assert!(loss.loss.is_finite() && term(&loss, "loss_box_reg") > 0.0);
        let found = learner.model.detector.detect(&batch).unwrap();
        assert!(found.iter().all(|found| found.len() <= 300));
        for found in &found {
            assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
    }
}

/// Weights of another size or family: what differs is named, and the run does not start.
#[test]
fn weights_of_another_detector_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let save = |text: &str, name: &str| {
        let path = folder.path().join(name);
        learner(&parse(text), &data).model.detector.save(&path).unwrap();
        path
    };
    let own = settings(&data, ROI, "epochs = 1");
    let wider = save(&own.replace("dim = 32", "dim = 24"), "wider.safetensors");
    let dino = save(&richsem::testing::small_run(&data, ""), "dino.safetensors");
    let same = save(&own, "same.safetensors");
    let start = |weights: &Path, name: &str| {
        let mut config = parse(&own);
        config.init = Some(InitConfig { weights: weights.to_owned(), allow_missing: Vec::new() });
        let run = NewRun::claim(&folder.path().join(name)).unwrap();
        let start = Start::New { config: Box::new(config), folder: run };
        train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false))
    };
    let error = start(&wider, "a").unwrap_err().to_string();
    assert!(error.contains("fc6.weight: shape [24, 256] in the file, [32, 256] here"), "{error}");
    let error = start(&dino, "b").unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("rpn.head"), "{error}");
    assert!(matches!(start(&same, "c").unwrap(), Outcome::Finished { .. }));
    // The other way.
    let mut config = parse(&richsem::testing::small_run(&data, ""));
    config.init = Some(InitConfig { weights: same, allow_missing: Vec::new() });
    let start = Start::New {
        config: Box::new(config),
        folder: NewRun::claim(&folder.path().join("d")).unwrap(),
    };
    let error = train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false));
    assert!(error.unwrap_err().to_string().contains("transformer."));
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
    let start = Start::New { config: Box::new(parse(&text)), folder: NewRun::claim(&run).unwrap() };
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

/// What a family does not have is refused by name.
#[test]
fn what_cannot_be_is_refused_by_name() {
    let folder = Path::new("/nowhere");
    let refused = |text: String, parts: [&str; 2]| {
        let message = Config::parse(&text, Path::new("test.toml")).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    for (more, key, says) in [
        ("[loss]\nl1 = 2.0", "loss.l1", "only DINO has it"),
        ("[loss.matcher]\nl1 = 2.0", "loss.matcher", "only DINO has it"),
        ("[loss.federated]", "loss.federated", "softmax"),
        ("[loss]\nunknown_classes = \"ignore\"", "loss.unknown_classes", "softmax"),
        ("[model.dino]", "model", "`dino` is of another family"),
    ] {
        refused(settings(folder, ROI, more), [key, says]);
    }
    for (supervision, key) in [
        ("giou = false", "supervision.giou"),
        ("interm_exempt = true", "supervision.interm_exempt"),
        ("assignment = \"max_size\"", "supervision.assignment"),
    ] {
        refused(richsem(folder, ROI, supervision, ""), [key, "Faster R-CNN"]);
    }
    refused(richsem(folder, ROI, "", "aux_layers = true"), ["semantic.aux_layers", "last stage"]);
    for (model, key, says) in [
        ("roi = { iou = [0.5, 0.6] }", "roi.class_agnostic", "cascade"),
        ("roi = { iou = [] }", "roi.iou", "1 to 8"),
        ("roi = { head = \"4conv1fc\" }", "fpn_dim", "multiple of 32"),
        ("roi = { nms = 1.5 }", "roi.nms", "0 to 1"),
    ] {
        refused(settings(folder, model, ""), [key, says]);
    }
    let text =
        settings(folder, ROI, "").replace("[model]", "[model]\nclass_head = { kind = \"text\" }");
    refused(text, ["classifier", "softmax needs a row for the background"]);
    let rpn = settings(folder, ROI, "").replace("[8, 16, 32, 64, 128]", "[8, 16]");
    refused(rpn, ["rpn.sizes", "one for each of P2 to P6"]);
    // And DINO has none of these.
    let dino = |more: &str| format!("version = 1\n{more}");
    refused(dino("[loss.faster_rcnn]\nbbox = 2.0"), ["loss.faster_rcnn", "only Faster R-CNN"]);
    refused(
        dino("[data.extra.a]\nimages = \"i\"\nsupervision = { rpn = false }"),
        ["data.extra.a.supervision.rpn", "only Faster R-CNN"],
    );
    refused(dino("[model.faster_rcnn]"), ["model", "`faster_rcnn` is of another family"]);
}
