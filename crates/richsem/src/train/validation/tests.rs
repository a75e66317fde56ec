use image::{Rgb, RgbImage};
use tch::Device;

use super::*;
use crate::{
    boxes::Xyxy,
    collective::Single,
    config::Config,
    data::{image_io::Orientation, image_store::ImageStore},
    testing::{category, small_run, target},
    vocabulary::CategoryId,
};

fn vocabulary() -> Vocabulary {
    Vocabulary::new((1..=4).map(|id| category(id, format!("class{id}"))).collect())
}

/// The small run's learner. `norm` of the backbone; `ema` whether it has an average of the weights.
fn learner(norm: &str, ema: bool) -> Learner {
    tch::set_num_threads(1);
    let text = small_run(std::path::Path::new("none"), "epochs = 2\nlr_drop = [1]");
    let text = text.replace("\"batch_norm\"", &format!("\"{norm}\", groups = 4"));
    let text = if ema { text } else { text.replace("ema = ", "# ema = ") };
    let config = Config::parse(&text, std::path::Path::new("test.toml")).unwrap();
    Learner::new(&config, vocabulary(), Device::Cpu, Arc::new(Single)).unwrap()
}

/// Two images with boxes of three classes.
fn batch() -> Batch {
    let image = |seed: u32| {
        RgbImage::from_fn(64, 64, |x, y| {
            let value = |c: u32| (x * 37 + y * 91 + c * 53 + seed * 17 + x * y) % 256;
            Rgb([0, 1, 2].map(|c| value(c) as u8))
        })
    };
    let targets = [
        target(&[(0, [0.3, 0.3, 0.4, 0.2]), (2, [0.6, 0.7, 0.2, 0.3])]),
        target(&[(1, [0.5, 0.5, 0.5, 0.5])]),
    ];
    let samples = (0..).zip(targets).map(|(i, mut target)| {
        target.size = [64, 64];
        (image(i), target)
    });
    Batch::collate(samples.collect(), vec![], 1).unwrap()
}

const KEY: StepKey = StepKey { seed: 5, micro_step: 3 };

fn assert_same(a: &BatchLoss, b: &BatchLoss) {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-5 * b.abs().max(1e-3);
    assert!(near(a.loss, b.loss), "{} and {}", a.loss, b.loss);
    assert_eq!(a.terms.len(), b.terms.len());
    for ((name, a), (other, b)) in a.terms.iter().zip(&b.terms) {
        assert!(name == other && near(*a, *b), "{name}: {a}, {other}: {b}");
    }
}

/// The oracle is a training step. Nothing differs but that no gradient is kept.
#[test]
fn it_is_the_training_loss_of_the_same_batch() {
    let learner = learner("group_norm", false);
    let measured = learner.loss(&batch(), KEY).unwrap();
    let trained = learner.backward(&batch(), KEY).unwrap();
    assert_same(&measured, &trained);
    assert!(trained.terms.iter().any(|(name, _)| name.contains("_dn")), "denoising is part of it");
    assert_same(&learner.loss(&batch(), KEY).unwrap(), &measured);
    let other = learner.loss(&batch(), StepKey { micro_step: 4, ..KEY }).unwrap();
    assert!((other.loss - measured.loss).abs() > 1e-6, "other noise");
}

#[test]
fn it_is_of_the_weights_that_are_evaluated() {
    let mut averaged = learner("group_norm", true);
    for step in 0..3 {
        averaged.backward(&batch(), StepKey { micro_step: step, ..KEY }).unwrap();
        averaged.update(1.0).unwrap();
    }
    let measured = averaged.loss(&batch(), KEY).unwrap();
    let mut plain = learner("group_norm", false);
    let weights = averaged.evaluated().weights();
    plain.model.detector.load_weights(&weights, std::path::Path::new("average")).unwrap();
    assert_same(&measured, &plain.backward(&batch(), KEY).unwrap());
    let current = averaged.backward(&batch(), KEY).unwrap();
    assert!((current.loss - measured.loss).abs() > 1e-4, "{} twice", current.loss);
}

/// A batch norm goes by its running statistics, as in evaluation, and keeps them.
#[test]
fn it_changes_nothing() {
    let learner = learner("batch_norm", true);
    let all = || {
        let mut all = learner.model.detector.weights();
        all.extend(learner.evaluated().weights().into_iter().map(|(k, v)| (format!("ema.{k}"), v)));
        all.into_iter().map(|(name, tensor)| (name, tensor.copy())).collect::<Vec<_>>()
    };
    let before = all();
    learner.loss(&batch(), KEY).unwrap();
    assert!(before.iter().zip(&all()).all(|((_, a), (_, b))| a == b));
    let no_gradient = |gradient: &Tensor| gradient.abs().sum(Kind::Double).double_value(&[]) == 0.0;
    assert!(learner.optimizer.gradients().iter().all(no_gradient));
    // A training step does change the statistics: the comparison above can fail.
    learner.backward(&batch(), KEY).unwrap();
    assert!(before.iter().zip(&all()).any(|((_, a), (_, b))| a != b));
}

/// Batches of 3 and 1 images: (3 · 2 + 1 · 6) / 4.
#[test]
fn batches_count_as_often_as_they_have_images() {
    let row = |images, loss, term| Row { images, loss, terms: vec![("loss_ce".to_owned(), term)] };
    let mean = SetLoss::of(&[row(3, 2.0, 1.0), row(1, 6.0, 0.0)]).unwrap();
    assert_eq!((mean.loss, mean.terms["loss_ce"]), (3.0, 0.75));
    assert_eq!(SetLoss::of(&[]), None);
}

/// A validation set that lacks a class numbers the others in another way.
#[test]
fn classes_are_those_of_the_detector() {
    let folder = tempfile::tempdir().unwrap();
    let own: Vec<_> = [4, 2].map(|id| category(id, format!("class{id}"))).into();
    let own = Vocabulary::new(own);
    let class = |id: i64| own.class_of(CategoryId(id)).unwrap();
    let exhaustive: Arc<[ClassIndex]> = vec![ClassIndex(0), ClassIndex(1)].into();
    let entry = |id: i64| ImageEntry {
        name: String::new(),
        id,
        size: None,
        boxes: vec![Xyxy([0.0, 0.0, 1.0, 1.0])],
        labels: vec![class(id)],
        knowledge: LabelKnowledge {
            present: vec![class(id)],
            absent: vec![class(6 - id)],
            not_exhaustive: vec![class(id)],
            exhaustive: Arc::clone(&exhaustive),
        },
    };
    let set = OpenedSet {
        store: Arc::new(ImageStore::open(folder.path(), Orientation::default()).unwrap()),
        entries: Arc::new(vec![entry(2), entry(4)]),
        vocabulary: own.clone(),
    };
    // Ids 1 to 4 are classes 0 to 3.
    let entries = in_classes_of(&vocabulary(), &set);
    for (entry, [this, other]) in entries.iter().zip([[1, 3], [3, 1]].map(|c| c.map(ClassIndex))) {
        assert_eq!(entry.labels, [this]);
        let LabelKnowledge { present, absent, not_exhaustive, exhaustive } = &entry.knowledge;
        assert_eq!((present, absent, not_exhaustive), (&vec![this], &vec![other], &vec![this]));
        assert_eq!(**exhaustive, [ClassIndex(1), ClassIndex(3)]);
    }
    assert!(Arc::ptr_eq(&entries[0].knowledge.exhaustive, &entries[1].knowledge.exhaustive));
    let same = in_classes_of(&own, &set);
    assert!(Arc::ptr_eq(&same, &set.entries), "nothing to do");
}
