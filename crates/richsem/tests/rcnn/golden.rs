//! Tiny detectors of torchvision's and detectron2's own classes, with all options that differ between them.

use std::{collections::BTreeMap, path::Path};

use richsem::{
    checkpoint_io::safetensors,
    families::{Objective, Step, TrainingOutput},
    losses::{
        FasterRcnnLossConfig, LossConfig,
        terms::{StepKey, WholeBatch},
    },
    models::{
        backbone::ResnetConfig,
        class_head::ClassSpace,
        config::{FamilyConfig, ModelConfig},
        faster_rcnn::{BoxHeadKind, Classifier, FasterRcnn, FasterRcnnConfig, Variant},
        network::{Images, Network, NetworkOutput},
        padding::Padding,
        parameters::{ParameterStore, Role},
    },
    targets::{LabelKnowledge, Supervision, Target},
    vocabulary::ClassIndex,
};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

const CLASSES: usize = 5;
const SIZES: [[u32; 2]; 2] = [[128, 64], [96, 48]];
const KEY: StepKey = StepKey { seed: 0, micro_step: 0 };

/// A file of `reference/rcnn.py` or `reference/rcnn_detectron2.py`.
fn fixture(name: &str) -> Tensors {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rcnn");
    safetensors::read(&folder.join(format!("{name}.safetensors"))).unwrap().0
}

/// Sizes of the scripts.
fn config(name: &str) -> FasterRcnnConfig {
    let backbone = ResnetConfig {
        name: richsem::models::backbone::ResnetName::Resnet18,
        width: 2,
        layers: vec![1; 4],
        frozen_stages: -1,
        ..ResnetConfig::default()
    };
    let mut config = FasterRcnnConfig {
        variant: if name == "torchvision" { Variant::Torchvision } else { Variant::Detectron2 },
        backbone: backbone.into(),
        padding: Some(Padding::Official),
        fpn_dim: 8,
        ..FasterRcnnConfig::default()
    };
    config.rpn.batch_per_image = 1_000_000;
    (config.rpn.pre_nms_train, config.rpn.post_nms_train) = (150, 60);
    (config.rpn.pre_nms_test, config.rpn.post_nms_test) = (100, 40);
    config.roi.batch_per_image = 1_000_000;
    config.roi.dim = 16;
    config.roi.score_threshold = 0.05;
    if name == "cascade" {
        config.classifier = Classifier::Sigmoid;
        config.roi.iou = vec![0.5, 0.6, 0.7];
        config.roi.class_agnostic = true;
    }
    config
}

struct Model {
    name: &'static str,
    golden: Tensors,
    store: ParameterStore,
    network: Network,
    images: Tensor,
    mask: Tensor,
}

impl Model {
    fn new(name: &'static str) -> Self {
        let (mut golden, shared) = (fixture(name), fixture("torchvision"));
        // The batch, the backbone and the pyramid are the same.
        for (key, x) in shared {
            let of_batch =
                key == "pixels" || key.starts_with("boxes.") || key.starts_with("labels.");
            if of_batch || key.starts_with("weights.backbone.") {
                golden.entry(key).or_insert(x);
            }
        }
        let store = ParameterStore::to_be_loaded(Device::Cpu);
        let space = ClassSpace::Classes(CLASSES as i64);
        let network = FasterRcnn::new(&store, &config(name), space).unwrap();
        let weights: Tensors = golden
            .iter()
            .filter_map(|(name, x)| Some((name.strip_prefix("weights.")?.to_owned(), x.copy())))
            .collect();
        // Every name of theirs is a name of ours, and no other.
        store.load(&weights, Path::new(name)).unwrap();
        for mut parameter in store.parameters() {
            let double = parameter.tensor.detach().to_kind(Kind::Double);
            parameter.tensor.set_data(&double);
        }
        let pixels = golden["pixels"].to_kind(Kind::Double) / 255.0;
        let images = pixels.avg_pool2d([9], [1], [4], false, true, None::<i64>) * 6.0 - 3.0;
        let mask = Tensor::ones([2, 128, 64], (Kind::Bool, Device::Cpu));
        for (i, [height, width]) in (0..).zip(SIZES) {
            let mut inside = mask.get(i).narrow(0, 0, height.into()).narrow(1, 0, width.into());
            let _ = inside.fill_(0);
        }
        Self { name, golden, store, network: Network::FasterRcnn(Box::new(network)), images, mask }
    }

    fn rcnn(&self) -> &FasterRcnn {
        let Network::FasterRcnn(rcnn) = &self.network else { unreachable!() };
        rcnn
    }

    fn images(&self) -> Images<'_> {
        Images::new(&self.images, &self.mask)
    }

    fn targets(&self) -> Vec<Target> {
        let target = |(i, size): (usize, [u32; 2])| {
            let boxes = Vec::<Vec<f64>>::try_from(&self.golden[&format!("boxes.{i}")]).unwrap();
            let labels = Vec::<i64>::try_from(&self.golden[&format!("labels.{i}")]).unwrap();
            let [h, w] = size.map(f64::from);
            let relative = |b: Vec<f64>| {
                let cxcywh = [
                    (b[0] + b[2]) / 2.0 / w,
                    (b[1] + b[3]) / 2.0 / h,
                    (b[2] - b[0]) / w,
                    (b[3] - b[1]) / h,
                ];
                richsem::boxes::Cxcywh(cxcywh.map(|x| x as f32))
            };
            Target {
                image_id: i as i64,
                boxes: boxes.into_iter().map(relative).collect(),
                labels: labels.into_iter().map(|l| ClassIndex(l as u32)).collect(),
                knowledge: LabelKnowledge::default(),
                size,
                original_size: size,
                view: None,
                geometry: None,
            }
        };
        SIZES.into_iter().enumerate().map(target).collect()
    }

    fn objective(&self) -> Objective {
        let faster_rcnn =
            FasterRcnnLossConfig { rpn_class: 1.0, rpn_bbox: 0.7, class: 1.3, bbox: 0.9 };
        let loss = LossConfig { faster_rcnn, ..LossConfig::default() };
        let model = ModelConfig {
            family: FamilyConfig::FasterRcnn(config(self.name)),
            ..ModelConfig::default()
        };
        Objective::new(&model, &loss, &[1; CLASSES], true)
    }
}

fn close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), expected.size(), "{what}");
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    let (got, expected) = (got.detach().to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = largest(&(got - &expected)) / largest(&expected).max(1e-30);
    println!("{what}: {difference:.1e}");
    assert!(difference <= tolerance, "{what}: differs by {difference:.3e} of its largest value");
}

const ALL: [&str; 3] = ["torchvision", "detectron2", "cascade"];

#[test]
fn pyramid_and_rounded_anchors() {
    let model = Model::new("torchvision");
    let features = model.rcnn().features(model.images(), true).unwrap();
    let rpn = model.rcnn().rpn(&features).unwrap();
    // Those of every level, in the order y, x, ratio.
    close("anchors", &rpn.anchors, &model.golden["anchors"], 0.0);
    for (level, map) in (0..).zip(features.pyramid()) {
        close(&format!("P{}", level + 2), map, &model.golden[&format!("pyramid.{level}")], 1e-6);
    }
}

/// Of training, best first as theirs.
#[test]
fn proposals() {
    for name in ALL {
        let model = Model::new(name);
        let features = model.rcnn().features(model.images(), true).unwrap();
        let rpn = model.rcnn().rpn(&features).unwrap();
        let proposals = model.rcnn().propose(&rpn, &features, true).unwrap();
        for image in 0..2 {
            let count = proposals.valid.get(image).sum(Kind::Int64).int64_value(&[]);
            let boxes = proposals.boxes.get(image).narrow(0, 0, count);
            let expected = &model.golden[&format!("proposals.{image}")];
            close(&format!("{name}: proposals"), &boxes, expected, 1e-10);
        }
    }
}

/// Each term, and the gradient of each parameter under four different weights.
#[test]
fn losses_and_gradients() {
    for name in ALL {
        let model = Model::new(name);
        let (objective, targets) = (model.objective(), model.targets());
        let supervision = Supervision::default();
        let step = Step {
            targets: &targets,
            supervision: &supervision,
            whole: WholeBatch::of(KEY, &targets),
        };
        let input = objective.prepare(step.clone(), Device::Cpu, false);
        let form = model.network.form(SIZES);
        let tensors = objective.run(&model.network, model.images(), form, None, &input).unwrap();
        let output: TrainingOutput = objective.output(&tensors, &input);
        let matched = objective.start(&output, step).unwrap().wait().unwrap();
        let (terms, _) = matched.finish(1.0, None).unwrap();
        let expected = model.golden.keys().filter(|key| key.starts_with("losses.")).count();
        assert_eq!(terms.names.len(), expected);
        for (i, term) in (0..).zip(&terms.names) {
            let expected = &model.golden[&format!("losses.{term}")];
            close(&format!("{name}: {term}"), &terms.values.get(i), expected, 1e-9);
        }
        terms.total.backward();
        let mut found = 0;
        for parameter in model.store.parameters().iter().filter(|p| p.role == Role::Trainable) {
            let Some(expected) = model.golden.get(&format!("gradients.{}", parameter.name)) else {
                assert!(parameter.name.starts_with("backbone."), "{}", parameter.name);
                continue;
            };
            let what = format!("{name}: {}", parameter.name);
            close(&what, &parameter.tensor.grad(), expected, 1e-6);
            found += 1;
        }
        assert_eq!(found, model.golden.keys().filter(|k| k.starts_with("gradients.")).count());
    }
}

/// Boxes, scores and classes, best first.
#[test]
fn detections() {
    for name in ALL {
        let model = Model::new(name);
        let form = model.network.form(SIZES);
        let tensors = model.network.infer(model.images(), form, None).unwrap();
        let names = model.network.output_names().iter().copied();
        let output = NetworkOutput { named: names.zip(tensors).collect() };
        let found = model.network.boxes(&output, &SIZES, 100).unwrap();
        for (i, found) in found.iter().enumerate() {
            let expected = &model.golden[&format!("detections.{i}")];
            let expected = Vec::<Vec<f64>>::try_from(expected).unwrap();
            assert_eq!(found.len(), expected.len(), "{name}");
            for (got, expected) in found.iter().zip(&expected) {
                for (got, expected) in got.bbox.0.iter().zip(expected) {
                    assert!((f64::from(*got) - expected).abs() < 1e-4, "{name}: {got} {expected}");
                }
                assert!((f64::from(got.score) - expected[4]).abs() < 1e-6, "{name}");
                assert_eq!(f64::from(got.class.0), expected[5], "{name}");
            }
        }
        // In an original of twice the size all boxes are twice as large.
        let twice = model.network.boxes(&output, &SIZES.map(|[h, w]| [2 * h, 2 * w]), 1).unwrap();
        for (twice, once) in twice.iter().zip(&found) {
            assert_eq!(twice[0].bbox.0, once[0].bbox.0.map(|x| 2.0 * x), "{name}");
        }
    }
}

/// `4conv1fc` by libtorch's own operations: each convolution without a bias, then group norm, then ReLU; then one
/// layer with ReLU. Boxes of 20 pixels are read from P2, where a bin of the map's is one of theirs.
#[test]
fn four_convolutions_and_one_layer() {
    let mut config = config("detectron2");
    config.fpn_dim = 64;
    config.roi.head = BoxHeadKind::FourConvOneFc;
    let store = ParameterStore::new(Device::Cpu, 3);
    let rcnn = FasterRcnn::new(&store, &config, ClassSpace::Classes(2)).unwrap();
    for parameter in store.parameters().iter().filter(|p| p.name.contains("conv1.norm.")) {
        // A norm that does something.
        let values = richsem::testing::normal(4, &parameter.tensor.size());
        parameter.tensor.detach().copy_(&values);
    }
    let images = richsem::testing::normal(5, &[1, 3, 64, 64]);
    let mask = Tensor::zeros([1, 64, 64], (Kind::Bool, Device::Cpu));
    let features = rcnn.features(Images::new(&images, &mask), false).unwrap();
    let boxes = Tensor::from_slice(&[0f32, 4.0, 8.0, 24.0, 28.0, 0.0, 30.0, 20.0, 50.0, 40.0]);
    let boxes = boxes.view([2, 5]);
    let got = rcnn.look(&features, &boxes, 0, None).unwrap();
    let named = store.named_tensors();
    let weight = |name: &str| &named[&format!("roi_heads.box_head.{name}")];
    let mut x =
        torch_ext::roi_align(&features.pyramid()[0], &boxes, (7, 7), 0.25, 0, true).unwrap();
    for i in 1..=4 {
        let none = None::<&Tensor>;
        x = x.conv2d(weight(&format!("conv{i}.weight")), none, [1], [1], [1], 1);
        let norm = |leaf: &str| Some(weight(&format!("conv{i}.norm.{leaf}")));
        x = x.group_norm(32, norm("weight"), norm("bias"), 1e-5, true).relu();
    }
    let x = x.flatten(1, 3).linear(weight("fc6.weight"), Some(weight("fc6.bias"))).relu();
    close("features", &got.features, &x, 1e-5);
    assert_eq!((got.logits.size(), got.deltas.size()), (vec![2, 3], vec![2, 8]));
}
