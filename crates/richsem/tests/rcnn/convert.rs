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
        faster_rcnn::{FasterRcnnConfig, Variant},
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
