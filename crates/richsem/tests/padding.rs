//! What is evaluated does not depend on what else was in the batch, nor on how far it was padded.
#![allow(clippy::unwrap_used)]

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use richsem::{
    config::Config,
    data::{
        dataset::Dataset,
        detection_source::{BrokenImages, DetectionSource},
        entries,
        image_io::Orientation,
        image_store::ImageStore,
    },
    detector::Detector,
    evaluate::evaluate,
    models::padding::Padding,
    predict::{ReadAhead, detect_all, every_image_once, to_detections},
    synth::SynthConfig,
    testing::{small_set, write_set},
    train::{NewRun, Start, Worker, observer::Silent, train},
};
use tch::Device;

/// The demo's detector, trained for some seconds on images of many shapes, which it then knows well
/// enough for an AP that could differ.
fn trained(set: &Path, run: &Path) -> Detector {
    tch::set_num_threads(1);
    let synth = SynthConfig { classes: 3, train_images: 40, image_size: (64, 112), ..small_set() };
    write_set(&synth, set).unwrap();
    let demo = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/demo.toml"));
    let set = set.display();
    let assignments = [
        format!("data.train={{annotations='{set}/train.json',images='{set}/images'}}"),
        "data.augment={scales=[80,96],max_size=128,crop={probability=0}}".into(),
        "data.resize={size=96,max_size=128}".into(),
        "data.sampler={kind='uniform'}".into(),
        "train.epochs=24".into(),
        "train.ema.decay=0.98".into(),
    ];
    let config = Config::load(demo, &assignments).unwrap();
    let start = Start::New { config: Box::new(config), folder: NewRun::claim(run).unwrap() };
    train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false)).unwrap();
    Detector::load(&run.join("checkpoints/last/model.safetensors"), Device::Cpu).unwrap()
}

/// In percent, on the images that it was trained on.
fn ap(detector: &Detector, set: &Path, batch_size: usize, pad_multiple: u32) -> f64 {
    let annotations = set.join("train.json");
    let entries = entries(&Dataset::open(&annotations).unwrap());
    let store = ImageStore::open(&set.join("images"), Orientation::Exif).unwrap();
    let broken = Arc::new(BrokenImages::new(0));
    let every = every_image_once(detector, Arc::new(store), Arc::new(entries), batch_size, broken);
    let source = DetectionSource { pad_multiple, ..every };
    let mut found = Vec::new();
    detect_all(detector, source, ReadAhead { workers: 1, prefetch: 1 }, |image_id, _, boxes| {
        found.extend(to_detections(image_id, &boxes, detector.vocabulary()));
        ControlFlow::Continue(())
    })
    .unwrap();
    100.0 * evaluate(&annotations, &found, None).unwrap().get("AP").unwrap()
}

#[test]
fn ap_is_the_same_in_every_batch_and_padding() {
    let folder = tempfile::tempdir().unwrap();
    let (set, run) = (folder.path().join("set"), folder.path().join("run"));
    let detector = trained(&set, &run);
    assert_eq!(detector.config().model.padding(), Padding::Masked);
    let alone = ap(&detector, &set, 1, 1);
    assert!(alone > 20.0, "{alone}: too little is learned for the comparison to say something");
    let others = [(1, 32), (1, 64), (8, 1), (8, 32), (32, 32)];
    let all: Vec<f64> = others.iter().map(|&(b, pad)| ap(&detector, &set, b, pad)).collect();
    for (other, got) in others.iter().zip(&all) {
        assert!((got - alone).abs() <= 0.05, "batch, padding {other:?}: {got}, alone {alone}");
    }
    // The same weights as the official code would use them: the comparison can tell.
    let mut config = detector.config().clone();
    config.model.set_padding(Some(Padding::Official));
    let (classes, place) = (detector.vocabulary().clone(), (Device::Cpu, 0));
    let mut official = Detector::new(&config, classes, place, None).unwrap();
    official.load_weights(&detector.weights(), Path::new("test")).unwrap();
    let differ = |&(b, pad): &(usize, u32)| (ap(&official, &set, b, pad) - alone).abs() > 0.05;
    assert!(others.iter().any(differ), "padding changes nothing here either way");
}
