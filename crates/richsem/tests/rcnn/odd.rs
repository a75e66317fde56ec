//! Batches, weights and settings that are odd or wrong.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use richsem::{
    collective::Single,
    config::{Config, InitConfig},
    testing::{category, new_run, small_run},
    train::{Learner, Outcome, Worker, observer::Silent, train},
    vocabulary::Vocabulary,
};
use tch::Device;

use super::setup::{ROI, batch, data, key, learner, parse, richsem, settings, term, usual_batch};

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
    let dino = save(&small_run(&data, ""), "dino.safetensors");
    let same = save(&own, "same.safetensors");
    let start = |weights: &Path, name: &str| {
        let mut config = parse(&own);
        config.init = Some(InitConfig { weights: weights.to_owned(), allow_missing: Vec::new() });
        let start = new_run(&config, &folder.path().join(name)).unwrap();
        train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false))
    };
    let error = start(&wider, "a").unwrap_err().to_string();
    assert!(error.contains("fc6.weight: shape [24, 256] in the file, [32, 256] here"), "{error}");
    let error = start(&dino, "b").unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("rpn.head"), "{error}");
    assert!(matches!(start(&same, "c").unwrap(), Outcome::Finished { .. }));
    // The other way.
    let mut config = parse(&small_run(&data, ""));
    config.init = Some(InitConfig { weights: same, allow_missing: Vec::new() });
    let start = new_run(&config, &folder.path().join("d")).unwrap();
    let error = train(start, &Worker::alone(Device::Cpu), &mut Silent, &AtomicBool::new(false));
    assert!(error.unwrap_err().to_string().contains("transformer."));
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
