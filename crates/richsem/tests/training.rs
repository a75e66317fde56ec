//! A whole run on a small synthetic set.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use richsem::{
    checkpoint_io::safetensors,
    config::{Config, InitConfig},
    detector::Detector,
    models::padding::Padding,
    testing::{StopAt, new_run, rows_without_speed, small_run, write_small_set},
    train::{
        MetricsRow, NewRun, Observer, Outcome, RunFolder, Start, Worker, observer::Silent, train,
    },
};
use tch::{Device, Tensor};

fn data(folder: &Path) -> PathBuf {
    let out = folder.join("synth");
    write_small_set(&out).unwrap();
    out
}

fn config(data: &Path, more: &str) -> Config {
    // Whatever the environment says: tests side by side wait for each other's threads.
    tch::set_num_threads(1);
    let train = format!("epochs = 3\nlr_drop = [2]\nlog_every = 4\n{more}");
    Config::parse(&small_run(data, &train), Path::new("test.toml")).unwrap()
}

fn new(config: &Config, folder: &Path) -> Start {
    new_run(config, folder).unwrap()
}

fn weights(run: &Path) -> BTreeMap<String, Tensor> {
    let (mut all, _) =
        safetensors::read(&run.join("checkpoints/last/training.safetensors")).unwrap();
    let (model, _) = safetensors::read(&run.join("checkpoints/last/model.safetensors")).unwrap();
    all.extend(model);
    all
}

#[test]
fn a_stopped_and_resumed_run_is_the_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&data(folder.path()), "");
    let go = AtomicBool::new(false);
    let whole = folder.path().join("whole");
    let outcome =
        train(new(&config, &whole), &Worker::alone(Device::Cpu), &mut Silent, &go).unwrap();
    assert!(matches!(outcome, Outcome::Finished { summary: Some(_), .. }));
    let expected = weights(&whole);
    let metrics = |path: &Path| rows_without_speed(path).unwrap();
    let eval_rows = metrics(&whole).iter().filter(|r| r.eval().is_some()).count();
    assert_eq!(eval_rows, 3);
    // Each epoch has 3 or 4 updates, and a row, though a row is the mean of 4.
    for epoch in 0..3 {
        let of_epoch = |r: &MetricsRow| matches!(r, MetricsRow::Train(row) if row.epoch == epoch);
        assert!(metrics(&whole).iter().any(of_epoch), "{epoch}");
    }

    for stop_after in [1, 4, 9, 16] {
        let path = folder.path().join(format!("stopped-{stop_after}"));
        let mut start = new(&config, &path);
        let mut stops = 0;
        // Stops again and again, always after the same number of events.
        loop {
            let stop = AtomicBool::new(false);
            match train(start, &Worker::alone(Device::Cpu), &mut StopAt(stop_after, &stop), &stop)
                .unwrap()
            {
                Outcome::Stopped(_) => stops += 1,
                Outcome::Finished { .. } => break,
            }
            start = Start::Resume(path.clone());
            // An evaluation is never saved half-way: with a short fuse it would never end.
            if stop_after < 8 && stops > 3 {
                train(Start::Resume(path.clone()), &Worker::alone(Device::Cpu), &mut Silent, &go)
                    .unwrap();
                break;
            }
        }
        assert!(stops > 0);
        let got = weights(&path);
        assert_eq!(got.len(), expected.len());
        for (name, tensor) in &expected {
            assert_eq!(&got[name], tensor, "{name} after stopping every {stop_after}");
        }
        assert_eq!(metrics(&path), metrics(&whole));
    }
}

/// A Swin Transformer with drop path: its draws are the step's own, so that a resumed run is the uninterrupted
/// one. A checkpointed backbone learns the same, but for rounding: libtorch's attention has another kernel where
/// nothing is recorded.
#[test]
fn a_resumed_run_with_drop_path_is_the_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let set = data(folder.path());
    let config = |drop_path: f64, checkpointing: bool| {
        let backbone = format!(
            "{{ kind = \"swin\", width = 8, head_width = 4, window = 3, layers = [1, 1, 2, 1], \
             drop_path = {drop_path}, checkpointing = {checkpointing} }}"
        );
        let resnet =
            "{ name = \"resnet18\", width = 8, norm = \"batch_norm\", frozen_stages = -1 }";
        tch::set_num_threads(1);
        let text = small_run(&set, "epochs = 2\nlr_drop = []\nlog_every = 4");
        assert!(text.contains(resnet));
        Config::parse(&text.replace(resnet, &backbone), Path::new("test.toml")).unwrap()
    };
    let go = AtomicBool::new(false);
    let run = |name: &str, config: &Config| {
        let path = folder.path().join(name);
        train(new(config, &path), &Worker::alone(Device::Cpu), &mut Silent, &go).unwrap();
        weights(&path)
    };
    let expected = run("whole", &config(0.5, false));
    let differ = |got: &BTreeMap<String, Tensor>| {
        expected.iter().filter(|(name, tensor)| got.get(*name) != Some(tensor)).count()
    };
    let path = folder.path().join("stopped");
    let stop = AtomicBool::new(false);
    let first = train(
        new(&config(0.5, false), &path),
        &Worker::alone(Device::Cpu),
        &mut StopAt(5, &stop),
        &stop,
    );
    assert!(matches!(first.unwrap(), Outcome::Stopped(_)));
    train(Start::Resume(path.clone()), &Worker::alone(Device::Cpu), &mut Silent, &go).unwrap();
    assert_eq!(differ(&weights(&path)), 0);
    let first_loss = |name: &str, config: &Config| {
        let _ = run(name, config);
        let rows = RunFolder::open(&folder.path().join(name)).unwrap().metrics().unwrap();
        let loss = rows.iter().find_map(|row| match row {
            MetricsRow::Train(row) => Some(row.loss),
            MetricsRow::Eval(_) => None,
        });
        loss.unwrap()
    };
    let dropped = first_loss("dropped", &config(0.5, false));
    let again = first_loss("again", &config(0.5, true));
    assert!((again - dropped).abs() < 1e-3 * dropped, "{again} {dropped}");
    let undropped = first_loss("undropped", &config(0.0, false));
    assert!((undropped - dropped).abs() > 1e-3 * dropped, "the draws do nothing");
}

/// Asks at each epoch's start; counts the updates before it.
struct LastIsThere {
    run: PathBuf,
    updates: Vec<u64>,
}

impl Observer for LastIsThere {
    fn epoch(&mut self, _epoch: u64, _epochs: u64, _done: u64, batches: u64) {
        let last = self.run.join("checkpoints/last");
        assert!(!last.is_symlink() || last.exists(), "`last` points to what was removed");
        let before = self.updates.last().copied().unwrap_or(0);
        self.updates.push(before + batches / 2);
    }
}

/// Epochs that end between two saves, without an evaluation: what is there to go on from stays.
#[test]
fn the_last_checkpoint_outlives_epochs_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&data(folder.path()), "eval_every = 0");
    let run = folder.path().join("run");
    let go = AtomicBool::new(false);
    let mut observer = LastIsThere { run: run.clone(), updates: Vec::new() };
    train(new(&config, &run), &Worker::alone(Device::Cpu), &mut observer, &go).unwrap();
    // Saves come every two updates: an epoch but the last must have ended between two.
    let (_, ends) = observer.updates.split_last().unwrap();
    assert!(ends.iter().any(|updates| updates % 2 == 1), "{ends:?}");
}

#[test]
fn a_run_leaves_what_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&data(folder.path()), "keep_every = 2\n[loss.federated]\nclasses = 2");
    let run = folder.path().join("run");
    let go = AtomicBool::new(false);
    train(new(&config, &run), &Worker::alone(Device::Cpu), &mut Silent, &go).unwrap();
    for file in
        ["config.toml", "vocabulary.json", "data.json", "metrics.jsonl", "eval/epoch-0003.json"]
    {
        assert!(run.join(file).is_file(), "{file}");
    }
    assert!(run.join("tensorboard").read_dir().unwrap().count() == 1);
    // `last`, the kept one of epoch 2, perhaps another `best`; nothing temporary.
    let names: Vec<String> = run
        .join("checkpoints")
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|n| n == "last") && names.iter().any(|n| n == "best"), "{names:?}");
    assert!((4..=5).contains(&names.len()), "{names:?}");
    assert!(names.iter().all(|n| !n.starts_with(".tmp")), "{names:?}");
    // The same settings again are the same run; what they leave open is settled.
    let mut settled = config.clone();
    settled.model.set_padding(Some(Padding::Masked));
    assert_eq!(RunFolder::open(&run).unwrap().config().unwrap(), settled);
    // The weights file alone is a detector.
    let weights = run.join("checkpoints/best/model.safetensors");
    let detector = Detector::load(&weights, Device::Cpu).unwrap();
    assert_eq!(detector.config().model.padding_setting(), Some(Padding::Masked));
    assert_eq!(detector.vocabulary().len(), 4);
    let bytes = std::fs::read(&weights).unwrap();
    let place = folder.path().as_os_str().as_encoded_bytes();
    assert!(!bytes.windows(place.len()).any(|part| part == place), "it names this machine's files");
    let copy = folder.path().join("copy.safetensors");
    detector.save(&copy).unwrap();
    assert_eq!(safetensors::read(&copy).unwrap().0, safetensors::read(&weights).unwrap().0);
    // A folder with a run in it is not overwritten.
    let error = NewRun::claim(&run).unwrap_err().to_string();
    assert!(error.contains("not empty") && error.contains("`resume`"), "{error}");
}

#[test]
fn a_number_that_is_not_finite_stops_the_run_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&data(folder.path()), "clip_max_norm = 0.0\nwarmup_steps = 0");
    let mut config = config;
    config.train.epochs = 1;
    let (first, run) = (folder.path().join("first"), folder.path().join("run"));
    let go = AtomicBool::new(false);
    let alone = Worker::alone(Device::Cpu);
    train(new(&config, &first), &alone, &mut Silent, &go).unwrap();
    // Weights that overflow: all settings that would lead there are refused.
    let mut detector = Detector::open(&first, Device::Cpu).unwrap();
    let values = detector.weights().into_iter();
    let values = values.map(|(name, value)| match name.contains("linear1.weight") {
        true => (name, value * 1e37),
        false => (name, value.copy()),
    });
    detector.load_weights(&values.collect(), "test".as_ref()).unwrap();
    let large = folder.path().join("large.safetensors");
    detector.save(&large).unwrap();
    config.init = Some(InitConfig { weights: large, allow_missing: Vec::new() });
    let error = train(new(&config, &run), &alone, &mut Silent, &go).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, richsem::Error::NonFinite { .. }), "{message}");
    for part in ["step ", "not finite", "first non-finite tensor: ", "images [", "hint"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let kept = run
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.to_string_lossy().contains("non-finite-step-"))
        .unwrap();
    let (batch, _) = safetensors::read(&kept.join("batch.safetensors")).unwrap();
    assert_eq!(batch["images"].size()[0], 2);
    assert!(kept.join("report.json").is_file());
}
