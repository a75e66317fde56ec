//! torchvision's and detectron2's own files as detectors, and back.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use richsem::{
    checkpoint_io::{fit::Patterns, pth, read_weights, safetensors},
    config::Config,
    convert::{Conversion, Fate, Form, Options, Source, convert},
    detector::Detector,
    models::{
        config::FamilyConfig,
        faster_rcnn::{BoxPredictor, Classifier, FasterRcnn, FasterRcnnConfig, Variant},
        network::{Images, Network},
    },
    testing::category,
    vocabulary::Vocabulary,
};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rcnn").join(name)
}

fn options(ids: &[i64]) -> Options {
    let categories = ids.iter().map(|&id| category(id, format!("thing {id}")));
    Options {
        config: Config::defaults(&[]).unwrap().of_detector(),
        seed: 0,
        vocabulary: (!ids.is_empty()).then(|| Vocabulary::new(categories.collect())),
        allow: Patterns::default(),
        clip: None,
        rest: None,
        device: Device::Cpu,
    }
}

fn converted(file: &Path, form: Form, options: &Options) -> richsem::Result<Conversion> {
    convert(Source::read(file, None)?, form, options)
}

fn weights_of(name: &str) -> Tensors {
    let all = safetensors::read(&fixture(name)).unwrap().0;
    let own = |(name, x): (String, Tensor)| Some((name.strip_prefix("weights.")?.to_owned(), x));
    all.into_iter().filter_map(own).collect()
}

/// What torch.save wrote of a torchvision model: all sizes are read off, the background goes last. What is left
/// over makes the way back exact.
#[test]
fn torchvision_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (model, back, rest) = (
        folder.path().join("model.safetensors"),
        folder.path().join("back.pth"),
        folder.path().join("rest.safetensors"),
    );
    let file = fixture("torchvision.pth");
    let conversion = converted(&file, Form::Safetensors, &options(&[1, 2, 3, 4, 5])).unwrap();
    conversion.write(&model).unwrap();
    conversion.write_rest(&rest).unwrap();
    let detector = Detector::load(&model, Device::Cpu).unwrap();
    let rcnn = detector.config().model.as_faster_rcnn().unwrap();
    assert_eq!(
        (rcnn.variant, rcnn.fpn_dim, rcnn.roi.dim, rcnn.roi.pool),
        (Variant::Torchvision, 8, 16, 7)
    );
    assert_eq!(detector.weights(), weights_of("torchvision.safetensors"));

    let original = pth::read(&file).unwrap();
    let same = |rest: Option<PathBuf>| {
        let conversion = converted(&model, Form::Pth, &Options { rest, ..options(&[]) }).unwrap();
        conversion.write(&back).unwrap();
        let back = pth::read(&back).unwrap();
        assert!(back.keys().eq(original.keys()));
        let differ = back.iter().filter(|(name, x)| **x != original[*name]);
        differ.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert!(same(Some(rest)).is_empty());
    // Without it, the background's boxes are zero, which nothing looks at.
    let predictor = "roi_heads.box_predictor.bbox_pred";
    assert_eq!(same(None), [format!("{predictor}.bias"), format!("{predictor}.weight")]);
}

/// A model of 6 outputs of which a set knows three, by their ids, as torchvision's 91 for COCO's 80.
#[test]
fn rows_are_those_of_the_category_ids() {
    let file = fixture("torchvision.pth");
    let conversion = converted(&file, Form::Safetensors, &options(&[1, 3, 5])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    conversion.write(&model).unwrap();
    let own = Detector::load(&model, Device::Cpu).unwrap().weights();
    let all = weights_of("torchvision.safetensors");
    let name = "roi_heads.box_predictor.cls_score.weight";
    let rows = |of: &[i64]| all[name].index_select(0, &Tensor::from_slice(of));
    assert_eq!(own[name], rows(&[0, 2, 4, 5]));
    let boxes = &own["roi_heads.box_predictor.bbox_pred.bias"];
    assert_eq!(
        boxes.narrow(0, 4, 4),
        all["roi_heads.box_predictor.bbox_pred.bias"].narrow(0, 8, 4)
    );
    // Seven classes are more than it has.
    let error = converted(&file, Form::Safetensors, &options(&[1, 2, 3, 4, 5, 6, 7])).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("6 rows, of 7 classes: expected 8"), "{text}");
}

/// A pickle of NumPy's arrays under detectron2's names. Its pixels are blue, green, red; ours red, green, blue.
#[test]
fn detectron2_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (model, back) = (folder.path().join("model.safetensors"), folder.path().join("back.pth"));
    let file = fixture("detectron2.pkl");
    let conversion = converted(&file, Form::Safetensors, &options(&[7, 8, 9, 10, 11])).unwrap();
    assert!(conversion.report.notes.iter().any(|note| note.contains("blue first")));
    conversion.write(&model).unwrap();
    let detector = Detector::load(&model, Device::Cpu).unwrap();
    let rcnn = detector.config().model.as_faster_rcnn().unwrap();
    assert_eq!(rcnn.variant, Variant::Detectron2);
    let std = detector.config().model.pixel_std;
    assert!(std.iter().all(|std| (std * 255.0 - 1.0).abs() < 1e-5));
    let mut expected = weights_of("torchvision.safetensors");
    expected.extend(weights_of("detectron2.safetensors"));
    let stem = expected.get_mut("backbone.body.conv1.weight").unwrap();
    *stem = stem.flip([1i64]);
    assert_eq!(detector.weights(), expected);

    converted(&model, Form::Pth, &options(&[])).unwrap().write(&back).unwrap();
    let mut original = read_weights(&file).unwrap();
    original.retain(|name, _| !name.contains("anchor_generator"));
    assert_eq!(pth::read(&back).unwrap(), original);

    // Settings of this family say how it sees pixels: as ImageNet's, red first.
    let mut rgb = options(&[7, 8, 9, 10, 11]);
    rgb.config.model.family = FamilyConfig::FasterRcnn(FasterRcnnConfig::default());
    let conversion = converted(&file, Form::Safetensors, &rgb).unwrap();
    conversion.write(&model).unwrap();
    let own = Detector::load(&model, Device::Cpu).unwrap().weights();
    assert_eq!(own["backbone.body.conv1.weight"], original["backbone.bottom_up.stem.conv1.weight"]);
}

/// What is not of one layout, or of another family, is refused by name, and nothing is written.
#[test]
fn what_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mixed.safetensors");
    let mut mixed = pth::read(&fixture("torchvision.pth")).unwrap();
    let stray = "proposal_generator.rpn_head.conv.weight";
    mixed.insert(stray.into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    mixed.remove("rpn.head.conv.0.0.bias");
    let write = |tensors: &Tensors| {
        safetensors::write(&file, tensors, &Default::default()).unwrap();
    };
    write(&mixed);
    let conversion = converted(&file, Form::Safetensors, &options(&[1, 2, 3, 4, 5])).unwrap();
    let problems: Vec<_> = conversion.report.problems().map(|line| line.name.clone()).collect();
    assert_eq!(problems, [stray, "rpn.head.conv.0.0.bias"]);
    let output = folder.path().join("model.safetensors");
    assert!(conversion.write(&output).is_err() && !output.exists());
    assert!(!conversion.report.lines.iter().any(|line| line.fate == Fate::Again(String::new())));

    let no_classes = converted(&fixture("torchvision.pth"), Form::Safetensors, &options(&[]));
    assert!(no_classes.unwrap_err().to_string().contains("has no names of its classes"));

    let mut two = pth::read(&fixture("torchvision.pth")).unwrap();
    let anchors = Tensor::zeros([5, 8, 1, 1], (Kind::Float, Device::Cpu));
    two.insert("rpn.head.cls_logits.weight".into(), anchors);
    write(&two);
    let error = converted(&file, Form::Safetensors, &options(&[1, 2, 3, 4, 5])).unwrap_err();
    assert!(
        error.to_string().contains("5 anchors a cell, and the settings have 3 ratios"),
        "{error}"
    );
}

/// A pickle is a program; this one would call `os.system`.
#[test]
fn a_pickle_with_code_in_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.pkl");
    let mark = folder.path().join("executed");
    let mut bytes = b"\x80\x02cos\nsystem\nX".to_vec();
    let command = format!("touch {}", mark.display());
    bytes.extend((command.len() as u32).to_le_bytes());
    bytes.extend(command.as_bytes());
    bytes.extend(b"\x85R.");
    std::fs::write(&file, bytes).unwrap();
    let error = Source::read(&file, None).unwrap_err().to_string();
    assert!(
        error.contains("os.system") && error.contains("nothing in a file is executed"),
        "{error}"
    );
    assert!(!mark.exists());
}

/// Images of the scripts, and nothing padded: the fixture's pixels as a mean of their neighbours.
fn images(scale: f64, less: [f32; 3]) -> (Tensor, Tensor) {
    let pixels = &safetensors::read(&fixture("torchvision.safetensors")).unwrap().0["pixels"];
    let smooth =
        pixels.to_kind(Kind::Float).avg_pool2d([9], [1], [4], false, true, None::<i64>) * scale;
    let mask = Tensor::zeros([2, 128, 64], (Kind::Bool, Device::Cpu));
    (smooth - Tensor::from_slice(&less).view([3, 1, 1]), mask)
}

/// What our detector of a converted file computes, and what a script says.
fn compared(model: &Path, name: &str) -> (Detector, Tensors) {
    let golden = safetensors::read(&fixture(&format!("{name}.safetensors"))).unwrap().0;
    (Detector::load(model, Device::Cpu).unwrap(), golden)
}

fn rcnn(detector: &Detector) -> &FasterRcnn {
    let Network::FasterRcnn(rcnn) = detector.network() else { panic!("another family") };
    rcnn
}

fn close(what: &str, got: &Tensor, expected: &Tensor) {
    assert_eq!(got.size(), expected.size(), "{what}");
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    let (got, expected) = (got.detach().to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = largest(&(got - &expected)) / largest(&expected);
    assert!(difference < 1e-5, "{what}: differs by {difference:.1e} of its largest value");
}

/// Settings that say that pixels are red first, as ImageNet's.
fn red_first(ids: &[i64]) -> Options {
    let mut options = options(ids);
    options.config.model.family = FamilyConfig::FasterRcnn(FasterRcnnConfig::default());
    options
}

/// Three stages of Detic's heads: all sizes are read off, the classes' text too, and each stage says what the
/// script's does (`reference/detic.py`).
#[test]
fn detics_heads_compute_as_detics() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let ids = [1, 2, 3, 4, 5];
    let conversion = converted(&fixture("detic.pth"), Form::Safetensors, &red_first(&ids)).unwrap();
    let text = "roi_heads.box_predictor.2.cls_score.zs_weight";
    let line = conversion.report.lines.iter().find(|line| line.name == text).unwrap();
    assert_eq!(line.fate, Fate::TakenAs("as the text table".into()));
    conversion.write(&model).unwrap();
    let (detector, golden) = compared(&model, "detic");
    let rcnn = rcnn(&detector);
    let config = rcnn.config();
    assert_eq!(
        (config.classifier, config.roi.box_predictor),
        (Classifier::Sigmoid, BoxPredictor::Mlp)
    );
    assert_eq!((config.roi.stages(), config.roi.dim, config.roi.class_agnostic), (3, 8, true));
    let (images, mask) = images(6.0 / 255.0, [3.0; 3]);
    let features = rcnn.features(Images::new(&images, &mask), false).unwrap();
    let boxes = golden["boxes"].to_kind(Kind::Float);
    for stage in 0..3 {
        let got = rcnn.look(&features, &boxes, stage, detector.classes().text()).unwrap();
        close("logits", &got.logits, &golden[&format!("logits.{stage}")]);
        close("probabilities", &got.logits.sigmoid(), &golden[&format!("probabilities.{stage}")]);
        close("deltas", &got.deltas, &golden[&format!("deltas.{stage}")]);
    }
    // Six classes are not those of its text.
    let error =
        converted(&fixture("detic.pth"), Form::Safetensors, &red_first(&[1, 2, 3, 4, 5, 6]));
    let text = error.unwrap_err().to_string();
    assert!(text.contains("zs_weight") && text.contains("expected [width, 7]"), "{text}");
}

/// The proposals of Detic's released models.
#[test]
fn centernets_proposals_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("detic.safetensors");
    let mut tensors = pth::read(&fixture("detic.pth")).unwrap();
    tensors.retain(|name, _| !name.contains("rpn_head"));
    let key = "proposal_generator.centernet_head.agn_hm.weight";
    tensors.insert(key.into(), Tensor::zeros([1, 8, 3, 3], (Kind::Float, Device::Cpu)));
    safetensors::write(&file, &tensors, &Default::default()).unwrap();
    let error = Source::read(&file, None).unwrap_err().to_string();
    assert!(error.contains(key) && error.contains("CenterNet2"), "{error}");
}

/// A ResNet-50 of Caffe2's names, narrow: each weight is at its place, or numbers would differ
/// (`reference/caffe2.py`). Its pixels are blue first; images here are red first.
#[test]
fn caffe2s_names_lead_to_the_right_places() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let conversion =
        converted(&fixture("caffe2.pkl"), Form::Safetensors, &options(&[7, 8, 9])).unwrap();
    let momentum = conversion.report.lines.iter().find(|line| line.name == "fc7_w_momentum");
    assert_eq!(momentum.unwrap().fate, Fate::Left("the optimizer's".into()));
    conversion.write(&model).unwrap();
    let (detector, golden) = compared(&model, "caffe2");
    let rcnn = rcnn(&detector);
    // As the network sees pixels: 255 times what lies from 0 to 1, less the mean.
    let (images, mask) = images(1.0, [123.675, 116.28, 103.53]);
    let features = rcnn.features(Images::new(&images, &mask), false).unwrap();
    for level in 1..5 {
        let expected = &golden[&format!("pyramid.{level}")];
        close(&format!("P{}", level + 2), &features.pyramid()[level], expected);
    }
    let rpn = rcnn.rpn(&features).unwrap();
    let skipped = rpn.counts[0];
    let rest = |x: &Tensor| x.narrow(1, skipped, x.size()[1] - skipped);
    close("anchors' logits", &rest(&rpn.logits), &golden["rpn_logits"]);
    close("anchors' deltas", &rest(&rpn.deltas), &golden["rpn_deltas"]);
    let got = rcnn.look(&features, &golden["boxes"], 0, None).unwrap();
    close("logits", &got.logits, &golden["logits"]);
    close("deltas", &got.deltas, &golden["deltas"]);
}

/// Half of the backbone under one origin's names, half under another's.
#[test]
fn a_mixture_of_layouts_is_told_key_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mixed.safetensors");
    let mut mixed = pth::read(&fixture("torchvision.pth")).unwrap();
    let other = read_weights(&fixture("detectron2.pkl")).unwrap();
    mixed.retain(|name, _| !name.starts_with("backbone.body.layer1."));
    mixed
        .extend(other.into_iter().filter(|(name, _)| name.starts_with("backbone.bottom_up.res2.")));
    safetensors::write(&file, &mixed, &Default::default()).unwrap();
    let error = converted(&file, Form::Safetensors, &options(&[1, 2, 3, 4, 5])).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("backbone.body.layer1.0.conv1.weight: missing"), "{text}");
}
