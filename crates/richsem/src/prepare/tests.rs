//! Prepared labels against those of the teacher itself, an unfinished folder, and settings that
//! cannot be prepared.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tch::{Device, Kind, Tensor};

use super::*;
use crate::prepared::check_data;
use crate::{
    collective::Single,
    config::Config,
    data::{
        batch::{Batch, SourceId},
        interleaved::Interleaved,
    },
    error::{Error, Result},
    losses::terms::StepKey,
    synth::SynthConfig,
    testing::{normal, small_run, small_set, write_set},
    train::{
        Learner,
        inputs::{Split, batches, extra_sets},
        observer::Silent,
    },
    vocabulary::Vocabulary,
};

/// Images in a shard: 14 make three shards.
const SHARD: usize = 6;

struct Place(tempfile::TempDir);

impl Place {
    /// 4 classes in 14 training images and 12 classification images, a text table, and settings
    /// with the CLIP-ResNet of the teacher's own tests.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let config =
            SynthConfig { classification_per_class: 3, classification_size: 64, ..small_set() };
        let set = place.path("set");
        write_set(&config, &set).unwrap();
        normal(7, &[4, 32]).write_npy(place.path("text.npy")).unwrap();
        let run = small_run(&set, "epochs = 1\nlr_drop = []\nlog_every = 1");
        std::fs::write(place.path("run.toml"), run).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn out(&self) -> PathBuf {
        self.path("labels")
    }

    fn try_config(&self, more: &[&str]) -> Result<Config> {
        let teacher = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/teacher");
        let mut all = vec![
            "data.augment.crop.probability=0".to_owned(),
            "data.batch_size=1".to_owned(),
            "semantic.weight=0.5".to_owned(),
            format!("teacher.weights={}", teacher.join("rn.safetensors").display()),
            format!(
                "teacher.text={{ kind = \"table\", table = \"{}\" }}",
                self.path("text.npy").display()
            ),
        ];
        all.extend(more.iter().map(|&text| text.to_owned()));
        Config::load(&self.path("run.toml"), &all)
    }

    fn config(&self, more: &[&str]) -> Config {
        self.try_config(more).unwrap()
    }

    /// The same settings, reading the prepared labels.
    fn reading(&self, more: &[&str]) -> Config {
        let mut config = self.config(more);
        let teacher = config.teacher.as_mut().unwrap();
        (teacher.weights, teacher.prepared) = (None, Some(self.out()));
        config
    }

    fn prepare(&self, config: &Config, recorder: &mut Recorder) -> Result<PrepareReport> {
        let stop = Arc::clone(&recorder.stop);
        prepare_sharded(config, &self.out(), &Worker::alone(Device::Cpu), SHARD, recorder, &stop)
    }

    fn shard(&self, number: usize) -> PathBuf {
        shard::path(&self.out().join("train"), number)
    }
}

/// The classification images as they are.
const SINGLE: &str = "data.extra.photos={ images = \"SET/classification\", form = { kind = \
                      \"single\" }, mapping = { by = \"name\" }, weight = 1 }";

fn single(place: &Place) -> String {
    SINGLE.replace("SET", &place.path("set").display().to_string())
}

#[derive(Default)]
struct Recorder {
    lines: Vec<String>,
    /// Asks to stop after so many views.
    stop_after: Option<u64>,
    stop: Arc<AtomicBool>,
    last: (u64, u64),
}

impl PrepareObserver for Recorder {
    fn message(&mut self, text: &str) {
        self.lines.push(text.to_owned());
    }

    fn views(&mut self, done: u64, total: u64) {
        self.last = (done, total);
        if self.stop_after.is_some_and(|after| done >= after) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// The batches of a run, after the checks that come before it.
fn interleaved(config: &Config) -> Result<(Vocabulary, Arc<Interleaved>)> {
    let train = config.data.train.as_ref().unwrap();
    let (dataset, split) = Split::open("data.train", train, None, &mut Silent)?;
    let vocabulary = dataset.vocabulary().clone();
    let extras = extra_sets(config, &vocabulary, &mut Silent)?;
    check_data(config, (&split.store, &split.entries), &extras)?;
    let broken = Arc::new(BrokenImages::default());
    let all = batches(config, &split, &extras, &broken, &Single)?;
    Ok((vocabulary, all))
}

/// A learner, and its batches.
fn learner(config: &Config) -> Result<(Learner, Arc<dyn BatchSource>)> {
    let (vocabulary, all) = interleaved(config)?;
    let learner = Learner::new(config, vocabulary, Device::Cpu, Arc::new(Single))?;
    let batches = learner.batches(all);
    Ok((learner, batches))
}

/// The largest relative errors of two runs' labels and semantic terms over the same batches: of a
/// box's features, of the mean of the terms; and the largest absolute one of a logit.
#[derive(Debug, Default)]
struct Errors {
    features: f64,
    logits: f64,
    terms: f64,
    /// Batches of classification images among them.
    extra: usize,
}

fn errors(live: &Config, read: &Config, from: u64, count: u64) -> Errors {
    let ((live, batches), (read, others)) = (learner(live).unwrap(), learner(read).unwrap());
    let mut worst = Errors::default();
    let largest = |x: Tensor| x.abs().max().double_value(&[]);
    for position in from..from + count {
        let (batch, same) = (batches.build(position).unwrap(), others.build(position).unwrap());
        assert_eq!(batch.targets, same.targets);
        worst.extra += usize::from(batch.source != SourceId::DETECTION);
        let expected = live.soft_labels(&batch).unwrap().unwrap();
        let got = read.soft_labels(&same).unwrap().unwrap();
        assert_eq!(got.features.size(), expected.features.size());
        let apart = (&got.features - &expected.features).norm_scalaropt_dim(2.0, [-1i64], false);
        worst.features = worst.features.max(largest(apart));
        worst.logits = worst.logits.max(largest(&got.logits - &expected.logits));
        let key = StepKey { seed: 5, micro_step: position };
        let loss = |learner: &Learner, batch: &Batch| {
            let done = learner.backward(batch, key).unwrap();
            let terms = done.terms.into_iter().filter(|(name, _)| name.contains("semantic"));
            terms.map(|(_, value)| value).collect::<Vec<_>>()
        };
        let (got, expected) = (loss(&read, &same), loss(&live, &batch));
        assert!(!expected.is_empty() && got.len() == expected.len());
        for (got, expected) in got.into_iter().zip(expected) {
            worst.terms = worst.terms.max((got - expected).abs() / expected.abs().max(1e-6));
        }
    }
    worst
}

#[test]
fn training_reads_what_the_teacher_would_say() {
    let place = Place::new();
    let photos = single(&place);
    let with: [&str; 1] = [&photos];
    let mut recorder = Recorder::default();
    let report = place.prepare(&place.config(&with), &mut recorder).unwrap();
    assert_eq!((report.made, report.kept), (3 + 2, 0));
    assert_eq!(recorder.last, (4 * (14 + 12), 4 * (14 + 12)));
    let line = recorder.lines.iter().find(|line| line.starts_with("extra.photos: ")).unwrap();
    assert_eq!(line, "extra.photos: 12 images with 12 boxes in 4 views each: 48 rows, 0.0 MB");
    let worst = errors(&place.config(&with), &place.reading(&with), 0, 24);
    println!("alone: {worst:?}");
    assert!(worst.extra == 12, "{worst:?}");
    assert!(worst.features < 5e-4, "{worst:?}");
    assert!(worst.logits < 1e-2, "{worst:?}");
    // A mean divergence is itself a difference, and small: 2.3e-3 was measured.
    assert!(worst.terms < 1e-2, "{worst:?}");
}

#[test]
fn only_padding_tells_batches_of_several_images_apart() {
    let place = Place::new();
    place.prepare(&place.config(&[]), &mut Recorder::default()).unwrap();
    let two = ["data.batch_size=2"];
    let worst = errors(&place.config(&two), &place.reading(&two), 0, 6);
    println!("in pairs: {worst:?}");
    // On images of 64 to 128 pixels, of which the padding is a large part.
    assert!(worst.features > 5e-4 && worst.features < 0.5, "{worst:?}");
    // Batches of images of one size, as square ones of one scale are, have no such padding.
    let photos = single(&place);
    let same = ["data.augment.scales=[64]", "data.batch_size=2", &photos];
    std::fs::remove_dir_all(place.out()).unwrap();
    place.prepare(&place.config(&same), &mut Recorder::default()).unwrap();
    let (live, read) = (place.config(&same), place.reading(&same));
    let all = interleaved(&read).unwrap().1;
    let ((live, _), (read, batches)) = (learner(&live).unwrap(), learner(&read).unwrap());
    for position in all.positions_of(SourceId(1)).take(4) {
        let batch = batches.build(position).unwrap();
        assert_eq!((batch.len(), batch.images.size()), (2, vec![2, 3, 64, 64]));
        let labels = |learner: &Learner| learner.soft_labels(&batch).unwrap().unwrap().features;
        let apart = (labels(&live) - labels(&read)).norm_scalaropt_dim(2.0, [-1i64], false);
        assert!(apart.max().double_value(&[]) < 5e-4);
    }
}

#[test]
fn work_goes_on_where_it_was_stopped() {
    let place = Place::new();
    let config = place.config(&[]);
    let mut recorder = Recorder { stop_after: Some(30), ..Recorder::default() };
    assert!(matches!(place.prepare(&config, &mut recorder), Err(Error::Stopped)));
    assert!(place.shard(0).exists() && !place.shard(1).exists());
    let unfinished = learner(&place.reading(&[])).map(drop).unwrap_err().to_string();
    assert!(unfinished.contains("shard-00001.safetensors: file: missing"), "{unfinished}");
    assert!(unfinished.contains("hint: run the same `richsem prepare`"), "{unfinished}");
    let report = place.prepare(&config, &mut Recorder::default()).unwrap();
    assert_eq!((report.made, report.kept), (2, 1));
    let read = |number| std::fs::read(place.shard(number)).unwrap();
    let whole: Vec<Vec<u8>> = (0..3).map(read).collect();

    // One is gone, a bit of another flipped: the same two come back.
    std::fs::remove_file(place.shard(0)).unwrap();
    let mut flipped = whole[2].clone();
    let half = flipped.len() - 100;
    flipped[half] ^= 1;
    std::fs::write(place.shard(2), &flipped).unwrap();
    let mut recorder = Recorder::default();
    let report = place.prepare(&config, &mut recorder).unwrap();
    assert_eq!((report.made, report.kept), (2, 1));
    let line = recorder.lines.iter().find(|line| line.ends_with("made again")).unwrap();
    assert!(line.contains("shard-00002.safetensors: sha256"), "{line}");
    assert!((0..3).map(read).eq(whole.iter().cloned()), "other bytes than the first time");
}

#[test]
fn damaged_shards_are_named_before_or_when_they_are_read() {
    let place = Place::new();
    place.prepare(&place.config(&[]), &mut Recorder::default()).unwrap();
    let whole = std::fs::read(place.shard(1)).unwrap();
    let mut foreign = whole.clone();
    let at = foreign.windows(8).position(|w| w == b"prepared").unwrap() + 12;
    foreign[at] = if foreign[at] == b'0' { b'1' } else { b'0' };
    let mut huge = whole.clone();
    huge[..8].fill(0xff);
    for (content, field) in [
        (&whole[..0], "header"),
        (&whole[..300], "header"),
        (&whole[..whole.len() - 1], "length"),
        (b"something else altogether", "header"),
        (&huge, "header"),
        (&foreign, "prepared"),
    ] {
        std::fs::write(place.shard(1), content).unwrap();
        let error = learner(&place.reading(&[])).map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("shard-00001.safetensors: {field}: ")), "{error}");
    }
    // The header is whole, the features are not: seen when a batch asks for them.
    let mut wrong = whole.clone();
    let features = whole.len() - whole.len() / 2;
    wrong[features..].fill(0x7f);
    std::fs::write(place.shard(1), &wrong).unwrap();
    let (_, batches) = learner(&place.reading(&[])).unwrap();
    let error = (0..12).find_map(|position| batches.build(position).err());
    let error = error.unwrap().to_string();
    assert!(error.contains("shard-00001.safetensors: features: "), "{error}");
}

#[test]
fn what_no_folder_can_hold_is_refused_by_its_key() {
    let place = Place::new();
    let photos = single(&place);
    let mosaic = photos.replace("single", "mosaic");
    let cropped =
        format!("{}, augment = {{ scales = [64] }} }}", photos.trim_end_matches([' ', '}']));
    let labels = format!("teacher.prepared={}", place.out().display());
    for (more, key) in [
        (vec!["data.augment.crop.probability=0.5"], "data.augment.crop.probability: soft labels"),
        (vec!["semantic.target_boxes=matched"], "semantic.target_boxes: soft labels"),
        (vec![&*mosaic], "data.extra.photos.form: soft labels"),
        (vec![&*cropped], "data.extra.photos.augment.crop.probability: soft labels"),
    ] {
        // While the settings are read, with prepared labels; with a teacher when they are made.
        let with = [&more[..], &[&*labels]].concat();
        let error = place.try_config(&with).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("hint"), "{error}");
        let error = place.prepare(&place.config(&more), &mut Recorder::default()).unwrap_err();
        assert!(error.to_string().starts_with(key), "{error}");
    }
    assert!(!place.out().exists());
    // Images that teach no semantics need no labels.
    let unlabelled = mosaic.replace("weight = 1", "weight = 1, supervision = { semantic = false }");
    place.config(&[&unlabelled, &labels]);
    let off = place.prepare(&place.config(&["semantic.weight=0"]), &mut Recorder::default());
    assert!(off.unwrap_err().to_string().starts_with("semantic: off"));
    let mut nobody = place.config(&[&labels]);
    nobody.teacher.as_mut().unwrap().weights = None;
    let error = place.prepare(&nobody, &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.starts_with("teacher.weights: missing"), "{error}");
}

#[test]
fn labels_of_other_settings_are_refused_by_their_key() {
    let place = Place::new();
    place.prepare(&place.config(&["data.augment.flip=0"]), &mut Recorder::default()).unwrap();
    let other =
        place.prepare(&place.config(&[]), &mut Recorder::default()).unwrap_err().to_string();
    assert!(other.contains("prepared.json: sets.train.views: these settings"), "{other}");

    let flip = "data.augment.flip=0";
    let photos = single(&place);
    normal(8, &[4, 32]).write_npy(place.path("other.npy")).unwrap();
    let table = format!(
        "teacher.text={{ kind = \"table\", table = \"{}\" }}",
        place.path("other.npy").display()
    );
    for (more, key) in [
        (vec![], "data.augment.flip: mirrored images were not prepared"),
        (vec![flip, "data.augment.scales=[64, 96]"], "data.augment.scales: 96 was not"),
        (vec![flip, "data.augment.max_size=100"], "data.augment.max_size: 100"),
        (vec![flip, "data.pad_multiple=1"], "data.pad_multiple: 1"),
        (
            vec![flip, "data.train.orientation=stored"],
            "data.train.orientation: images are read Stored",
        ),
        (vec![flip, "model.pixel_mean=[0.5, 0.5, 0.5]"], "model.pixel_mean: "),
        (vec![flip, "teacher.precision=bf16"], "teacher.precision: Bf16"),
        (vec![flip, &*table], "teacher.text: "),
        (vec![flip, &*photos], "teacher.prepared: no labels of set extra.photos"),
    ] {
        let error = learner(&place.reading(&more)).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(key) && error.contains("hint"), "{key}: {error}");
    }
    let same = place.reading(&[flip]);
    assert!(learner(&same).is_ok());
    // The weights may stay in the settings; nobody looks whether they are there.
    let mut both = same.clone();
    both.teacher.as_mut().unwrap().weights = Some("absent.pt".into());
    assert!(learner(&both).is_ok());

    let json = place.path("set/train.json");
    let annotations = std::fs::read_to_string(&json).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&annotations).unwrap();
    let x = &mut value["annotations"][0]["bbox"][2];
    *x = (x.as_f64().unwrap() - 1.0).into();
    std::fs::write(&json, value.to_string()).unwrap();
    let error = learner(&same).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("data.train.annotations: 14 images"), "{error}");
    value["categories"][0]["name"] = "another".into();
    std::fs::write(&json, value.to_string()).unwrap();
    let error = crate::prepared::Prepared::open(
        &same,
        &interleaved(&place.config(&[flip])).unwrap().0,
        Device::Cpu,
    );
    let error = error.map(drop).unwrap_err().to_string();
    assert!(error.starts_with("teacher.prepared: the training set has 4 classes"), "{error}");

    for (content, says) in
        [("{", "prepared.json: JSON"), ("{\"version\": 9}", "version: expected 1")]
    {
        std::fs::write(place.out().join("prepared.json"), content).unwrap();
        let error = learner(&same).map(drop).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    std::fs::remove_dir_all(place.out()).unwrap();
    let error = learner(&same).map(drop).unwrap_err().to_string();
    assert!(error.contains("prepared.json: file: missing"), "{error}");
}

/// A class head against text takes the folder's, without a semantic branch too.
#[test]
fn the_class_head_takes_the_text_that_was_kept() {
    let place = Place::new();
    place.prepare(&place.config(&[]), &mut Recorder::default()).unwrap();
    let more = ["model.class_head.kind=text", "semantic.weight=0", "data.augment.scales=[96]"];
    let (learner, row) = learner(&place.reading(&more)).unwrap();
    let text = learner.model.detector.classes().text().unwrap();
    assert_eq!(text.rows, normal(7, &[4, 32]).to_kind(Kind::Float));
    assert!(learner.soft_labels(&row.build(0).unwrap()).unwrap().is_none());
}
