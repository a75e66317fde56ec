//! RichSem as a whole, on a small synthetic set with mosaics of classification images and a small
//! random CLIP: resumed runs, what a saved detector holds, and what the switches do.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use richsem::{
    checkpoint_io::safetensors,
    config::Config,
    data::batch::Batch,
    detector::Detector,
    losses::terms::StepKey,
    targets::Target,
    teacher::clip,
    testing::{
        self, StopAt, new_run, rows_without_speed, run_in_pieces, small_run, target, taught_run,
        write_taught_set,
    },
    train::{
        Learner, MetricsRow, Observer, Outcome, RunFolder, Start, Worker, observer::Silent, train,
    },
};
use tch::Device;

const TEACHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/teacher/rn.safetensors");

/// Detection and classification images, and a text table for the teacher's width.
fn data(folder: &Path) -> PathBuf {
    write_taught_set(folder, TEACHER.as_ref()).unwrap()
}

/// The small run's settings with everything that RichSem adds.
fn config(data: &Path, more: &str) -> Config {
    let train = taught_run(data, "", &format!("aux_layers = true\n{more}"));
    Config::parse(&small_run(data, &train), Path::new("test.toml")).unwrap()
}

/// Both data streams, the branch and its optimizer state go on exactly where they stopped; the saved
/// detector has no trace of branch and teacher.
#[test]
fn a_run_resumes_exactly_and_its_detector_knows_nothing_of_the_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let config = config(&data, "");
    let go = AtomicBool::new(false);
    let whole = folder.path().join("whole");
    train(new_run(&config, &whole).unwrap(), &Worker::alone(Device::Cpu), &mut Silent, &go)
        .unwrap();
    let state =
        |run: &Path| safetensors::read(&run.join("checkpoints/last/training.safetensors")).unwrap();
    let (expected, metadata) = state(&whole);
    assert!(metadata["layout"].contains("semantic_branch.clip_visual_proj.weight"));
    let rows = rows_without_speed(&whole).unwrap();
    let terms = |row: &MetricsRow| match row {
        MetricsRow::Train(row) => row.terms.keys().cloned().collect(),
        MetricsRow::Eval(_) => Vec::new(),
    };
    let terms: Vec<String> = rows.iter().flat_map(terms).collect();
    for name in [
        "loss_semantic",
        "loss_semantic_0",
        "loss_semantic_dn",
        "extra/loss_semantic",
        "extra/loss_ce",
        "extra/loss_ce_interm",
    ] {
        assert!(terms.iter().any(|t| t == name), "{name}: {terms:?}");
    }

    let path = folder.path().join("stopped");
    let stops = run_in_pieces(&config, &path, 5).unwrap();
    assert!(stops > 2, "{stops}");
    let (got, _) = state(&path);
    assert_eq!(got.len(), expected.len());
    for (name, tensor) in &expected {
        assert_eq!(&got[name], tensor, "{name}");
    }
    assert_eq!(rows_without_speed(&path).unwrap(), rows);

    let weights = whole.join("checkpoints/last/model.safetensors");
    let (tensors, metadata) = safetensors::read(&weights).unwrap();
    let names: Vec<&String> = tensors.keys().collect();
    for word in ["semantic", "teacher", "clip", "visual", "attnpool"] {
        assert!(!names.iter().any(|name| name.contains(word)), "{word}: {names:?}");
    }
    for (key, text) in &metadata {
        for word in ["teacher", "semantic", "classification"] {
            assert!(!text.contains(word), "{key} says {word}: {text}");
        }
    }
}

#[test]
fn a_run_is_not_resumed_with_another_teacher_or_other_images() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let path = folder.path().join("run");
    let start = new_run(&config(&data, ""), &path).unwrap();
    let stop = AtomicBool::new(false);
    let outcome = train(start, &Worker::alone(Device::Cpu), &mut StopAt(2, &stop), &stop).unwrap();
    assert!(matches!(outcome, Outcome::Stopped(_)));
    let refused = |says: &str| {
        let start = Start::Resume(path.clone());
        let error = train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false))
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("data.json") && text.contains(says), "{text}");
    };
    let teacher = data.join("teacher.safetensors");
    let whole = std::fs::read(&teacher).unwrap();
    let mut other = whole.clone();
    // The last tensor's last bytes: another number of the same shape.
    let at = other.len() - 3;
    other[at] ^= 1;
    std::fs::write(&teacher, other).unwrap();
    refused("another teacher");
    std::fs::write(&teacher, whole).unwrap();
    let mut classes = std::fs::read_dir(data.join("classification")).unwrap();
    let class = classes.next().unwrap().unwrap().path();
    let image = std::fs::read_dir(class).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(image).unwrap();
    refused("other classification images (data.extra: 20) than there are now (19)");
}

/// A set that is not labelled softly does not keep the others from being looked at.
#[test]
fn each_sets_teacher_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let hard = format!(
        "min_top1 = 0.9\n[data.extra.another]\nimages = \"{}/classification\"\n\
         mapping = {{ by = \"name\" }}\nform = {{ kind = \"single\" }}\n\
         supervision = {{ semantic = false }}\n",
        data.display()
    );
    let run = folder.path().join("run");
    let start = new_run(&config(&data, &hard), &run).unwrap();
    let error = train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false))
        .unwrap_err();
    assert!(error.to_string().contains("of data.extra.classification"), "{error}");
}

/// What nothing says is tried on the run's own images, and what was found is the run's setting.
#[test]
fn a_teachers_activation_is_found_out_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let vit = Path::new(TEACHER).with_file_name("vit.safetensors");
    std::fs::copy(vit, data.join("teacher.safetensors")).unwrap();
    let config = config(&data, "");
    let run = |name: &str| {
        let path = folder.path().join(name);
        let start = new_run(&config, &path).unwrap();
        let mut said = Said::default();
        // Ends at the first step.
        train(start, &Worker::alone(Device::Cpu), &mut said, &AtomicBool::new(true)).unwrap();
        let settled = RunFolder::open(&path).unwrap().config().unwrap();
        (said.0, settled.teacher.unwrap().activation)
    };
    let (said, taken) = run("tried");
    let line = said.lines().find(|line| line.contains("teacher.activation")).unwrap();
    assert!(line.contains("nothing says with which the weights were trained"), "{line}");
    // A random one knows no class: there is no clear difference, and the more usual one is taken.
    assert!(line.contains("no clear difference"), "{line}");
    assert_eq!(taken, Some(clip::Activation::QuickGelu));

    let beside = r#"{"model_type": "clip",
        "text_config": {"hidden_act": "gelu", "hidden_size": 64, "num_attention_heads": 1},
        "vision_config": {"hidden_act": "gelu", "hidden_size": 128, "num_attention_heads": 2}}"#;
    std::fs::write(data.join("config.json"), beside).unwrap();
    let (said, taken) = run("told");
    assert!(said.contains("config.json beside the weights says so"), "{said}");
    assert_eq!(taken, Some(clip::Activation::Gelu));
}

#[derive(Default)]
struct Said(String);

impl Observer for Said {
    fn message(&mut self, text: &str) {
        self.0 += text;
        self.0.push('\n');
    }
}

/// Two images with a box each.
fn batch() -> Batch {
    let sample = |i: u32| {
        let image = image::RgbImage::from_fn(64, 64, |x, y| {
            image::Rgb([(x * 4 + i) as u8, (y * 3) as u8, (x * y + 9 * i) as u8])
        });
        let target = Target {
            image_id: i64::from(i),
            size: [64, 64],
            original_size: [64, 64],
            ..target(&[(i, [0.4, 0.5, 0.3 + 0.1 * i as f32, 0.4])])
        };
        (image, target)
    };
    Batch::collate((0..2).map(sample).collect(), Vec::new(), 32).unwrap()
}

fn learner(config: &Config, data: &Path) -> Learner {
    testing::learner(config, data).unwrap()
}

/// A branch beside the detector changes no bit of what it infers, neither at the start nor in what
/// is saved after an update.
#[test]
fn logits_are_the_same_with_and_without_the_branch() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let mut with = learner(&config(&data, ""), &data);
    let without = learner(&config(&data, "weight = 0.0"), &data);
    assert!(with.model.semantic_branch.is_some() && without.model.semantic_branch.is_none());
    let batch = batch();
    let logits = |detector: &Detector| detector.infer(&batch).unwrap().named.swap_remove(0).1;
    let before = logits(&with.model.detector);
    assert_eq!(before, logits(&without.model.detector));

    let key = StepKey { seed: 1, micro_step: 0 };
    for _ in 0..2 {
        with.backward(&batch, key).unwrap();
    }
    with.update(1.0).unwrap();
    let attached = logits(&with.model.detector);
    assert_ne!(before, attached);
    let path = folder.path().join("model.safetensors");
    with.model.detector.save(&path).unwrap();
    let alone = Detector::load(&path, Device::Cpu).unwrap();
    assert_eq!(attached, logits(&alone));
}

/// A gradient with the branch on and one with it off, of the same batch: the branch must move the
/// detector's own parameters, or it would teach nothing.
#[test]
fn the_branch_teaches_the_detector_and_switches_are_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let terms = |more: &str, semantic: bool| {
        let learner = learner(&config(&data, more), &data);
        let mut batch = batch();
        batch.supervision.semantic = semantic;
        let key = StepKey { seed: 1, micro_step: 0 };
        let loss = learner.backward(&batch, key).unwrap();
        let gradients: BTreeMap<String, f64> = learner
            .model
            .parameters()
            .into_iter()
            .filter(|p| p.name.contains("decoder.layers.1.linear2.weight"))
            .map(|p| (p.name, p.tensor.grad().norm().double_value(&[])))
            .collect();
        (loss.terms.len(), gradients)
    };
    let (on, taught) = terms("", true);
    let (off, untaught) = terms("", false);
    // Two layers, matching and denoising queries.
    assert_eq!(on, off + 4);
    assert_eq!(taught.len(), 1);
    assert_ne!(taught, untaught);
    let (none, plain) = terms("weight = 0.0", true);
    assert_eq!((none, plain), (off, untaught));
}

/// The terms stay what they are; what is learned of all of them, the branch's included, is a quarter.
#[test]
fn a_set_may_weigh_less() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let step = |weight: f64| {
        let learner = learner(&config(&data, ""), &data);
        let mut batch = batch();
        batch.supervision.loss_weight = weight;
        let loss = learner.backward(&batch, StepKey { seed: 1, micro_step: 0 }).unwrap();
        let trained = learner.model.parameters().into_iter().filter(|p| p.tensor.grad().defined());
        let gradients: BTreeMap<_, _> = trained.map(|p| (p.name, p.tensor.grad())).collect();
        (loss, gradients)
    };
    let ((loss, gradients), (less, smaller)) = (step(1.0), step(0.25));
    assert_eq!(less.terms, loss.terms);
    assert!((less.loss - loss.loss / 4.0).abs() < 1e-5 * loss.loss);
    assert!(gradients.keys().any(|name| name.starts_with("semantic_branch.")));
    for (name, gradient) in &gradients {
        // A power of two: the same bits, but for the order in which threads add up.
        let (expected, got) = (gradient * 0.25, &smaller[name]);
        let most = expected.abs().max().double_value(&[]);
        let off = (got - expected).abs().max().double_value(&[]);
        assert!(off <= 1e-5 * most, "{name}: {off} of {most}");
    }
}

#[test]
fn a_teacher_that_does_not_know_the_images_is_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let config = config(&data, "min_top1 = 0.9");
    let run = folder.path().join("run");
    let start = new_run(&config, &run).unwrap();
    let error = train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false))
        .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("semantic.min_top1") && text.contains("at least 0.9"), "{text}");
    // Three sizes were tried, each with its share.
    assert_eq!(text.matches(": top-1 ").count(), 3, "{text}");
    assert!(!run.exists());
}
