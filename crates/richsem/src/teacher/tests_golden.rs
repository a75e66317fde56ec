//! CLIPs of random weights against open_clip 3.3, transformers 5.23 and torchvision 0.26, all on
//! PyTorch 2.11: `tests/fixtures/teacher/make.py` says which number is whose. Differences are
//! relative to the largest value; the tolerance in f32 is 1e-5.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use tch::{Device, Kind, Tensor};

use super::{
    clip::{
        self, Activation, Clip, ClipConfig, Hints, PIXELS, PromptSet, TextConfig, Visual,
        VisualConfig,
    },
    tests::{boxes, classes, config},
    *,
};
use crate::{
    checkpoint_io::{read_weights, safetensors},
    models::{
        backbone::{Norm, ResnetConfig, ResnetName},
        parameters::ParameterStore,
    },
    precision::Precision,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/teacher").join(name)
}

fn expected() -> BTreeMap<String, Tensor> {
    read_weights(&fixture("expected.safetensors")).unwrap()
}

fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.size(), expected.size());
    let largest = |x: &Tensor| x.to_kind(Kind::Float).abs().max().double_value(&[]);
    largest(&(got.to_kind(Kind::Float) - expected)) / largest(expected)
}

fn close(name: &str, got: &Tensor, expected: &BTreeMap<String, Tensor>) {
    let difference = difference(got, &expected[name]);
    assert!(difference < 1e-5, "{name}: {difference}");
}

/// A table of random directions, as wide as both small models.
fn table(folder: &Path) -> TeacherText {
    let path = folder.join("table.safetensors");
    let rows = Tensor::randn([3, 32], (Kind::Float, Device::Cpu));
    let tensors = BTreeMap::from([("rows".to_owned(), rows)]);
    safetensors::write(&path, &tensors, &Default::default()).unwrap();
    TeacherText::Table { table: path }
}

fn teacher(weights: &str, precision: Precision, vit: VitLabels) -> ClipTeacher {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(fixture(weights), table(folder.path()));
    (config.precision, config.vit) = (precision, vit);
    ClipTeacher::open(&config, &classes(&["a", "b", "c"]), Device::Cpu).unwrap()
}

/// `[B, 3, H, W]` in [0, 1].
fn images_of(expected: &BTreeMap<String, Tensor>) -> Tensor {
    expected["pictures"].to_kind(Kind::Float) / 255.0
}

/// Box features as the oracle's, which are not normalised, would be.
fn normalized(expected: &BTreeMap<String, Tensor>, name: &str) -> BTreeMap<String, Tensor> {
    let features = crate::models::layers::l2_normalize(&expected[name]);
    BTreeMap::from([(name.to_owned(), features)])
}

#[test]
fn text_features_are_open_clips_and_transformers() {
    let expected = expected();
    for (file, name) in [("rn.safetensors", "rn.text"), ("vit.safetensors", "vit.text")] {
        let (_, _, clip) = clip::load(&fixture(file), &Hints::default(), Device::Cpu).unwrap();
        let encoder = clip.text.unwrap();
        close(name, &encoder.forward(&expected["ids"]), &expected);
        // Padding may be left out.
        let second = encoder.forward(&expected["ids"].narrow(0, 1, 1).narrow(1, 0, 2));
        assert!(difference(&second, &expected[name].narrow(0, 1, 1)) < 1e-5);
    }
}

#[test]
fn resnet_maps_globals_and_boxes_are_open_clips() {
    let expected = expected();
    let teacher = teacher("rn.safetensors", Precision::F32, VitLabels::default());
    let images = images_of(&expected);
    let map = teacher.encode(&images).unwrap();
    close("rn.dense", &map.features, &expected);
    close("rn.global", &teacher.embed_images(&images.narrow(3, 16, 64)).unwrap(), &expected);
    let labels = teacher.label(&map, &expected["boxes"]).unwrap();
    close("rn.boxes", &labels.features, &normalized(&expected, "rn.boxes"));
}

#[test]
fn vit_maps_globals_boxes_and_crops_are_transformers() {
    let expected = expected();
    let images = images_of(&expected);
    let patches = teacher("vit.safetensors", Precision::F32, VitLabels::PatchMap);
    let map = patches.encode(&images).unwrap();
    assert_eq!(map.stride, 16);
    close("vit.dense", &map.features, &expected);
    let labels = patches.label(&map, &expected["boxes"]).unwrap();
    close("vit.boxes", &labels.features, &normalized(&expected, "vit.boxes"));
    let whole = images.narrow(2, 8, 48).narrow(3, 24, 48);
    close("vit.global", &patches.embed_images(&whole).unwrap(), &expected);
    let crops = teacher("vit.safetensors", Precision::F32, VitLabels::Crops);
    let labels = crops.label(&crops.encode(&images).unwrap(), &expected["boxes"]).unwrap();
    close("vit.crops", &labels.features, &normalized(&expected, "vit.crops"));
}

/// An image that is no multiple of the patch is padded at the right and below with the mean colour.
#[test]
fn a_patch_map_covers_the_whole_image() {
    let teacher = teacher("vit.safetensors", Precision::F32, VitLabels::PatchMap);
    let images = images_of(&expected()).narrow(2, 0, 60).narrow(3, 0, 81);
    let mean = Tensor::from_slice(&PIXELS.mean).view([1, 3, 1, 1]);
    let padded = mean.expand([2, 3, 64, 96], false).contiguous();
    padded.narrow(2, 0, 60).narrow(3, 0, 81).copy_(&images);
    let (got, expected) = (teacher.encode(&images).unwrap(), teacher.encode(&padded).unwrap());
    assert!(difference(&got.features, &expected.features) < 1e-5);
}

#[test]
fn soft_labels_are_scaled_cosines() {
    let expected = expected();
    let teacher = teacher("rn.safetensors", Precision::F32, VitLabels::default());
    let map = teacher.encode(&images_of(&expected)).unwrap();
    let labels = teacher.label(&map, &expected["boxes"]).unwrap();
    let scale = read_weights(&fixture("rn.safetensors")).unwrap()["logit_scale"].double_value(&[]);
    assert!((teacher.logit_scale() - scale).abs() < 1e-6);
    let text = &teacher.text().rows;
    for n in 0..4 {
        for c in 0..3 {
            let (a, b) = (labels.features.get(n), text.get(c));
            let dot = (&a * &b).sum(Kind::Double).double_value(&[]);
            let cosine = dot / (a.norm().double_value(&[]) * b.norm().double_value(&[]));
            let got = labels.logits.double_value(&[n, c]);
            assert!((got - scale.exp() * cosine).abs() < 1e-4, "{got}");
        }
    }
    assert!(!labels.logits.requires_grad());
}

#[test]
fn no_boxes_many_boxes_and_single_images_give_the_same() {
    let expected = expected();
    let images = images_of(&expected);
    for (weights, vit) in [
        ("rn.safetensors", VitLabels::Crops),
        ("vit.safetensors", VitLabels::Crops),
        ("vit.safetensors", VitLabels::PatchMap),
    ] {
        let teacher = teacher(weights, Precision::F32, vit);
        let map = teacher.encode(&images).unwrap();
        let none = teacher.label(&map, &boxes(&[])).unwrap();
        assert_eq!((none.logits.size(), none.features.size()), (vec![0, 3], vec![0, 32]));
        // More than are embedded at once.
        let many = expected["boxes"].repeat([70, 1]);
        let many = teacher.label(&map, &many).unwrap().logits;
        let few = teacher.label(&map, &expected["boxes"]).unwrap().logits;
        assert!(difference(&many, &few.repeat([70, 1])) < 1e-5);
        let second = teacher.encode(&images.narrow(0, 1, 1)).unwrap();
        let same = boxes(&[[0.0, 0.0, 0.0, 96.0, 64.0]]);
        let single = teacher.label(&second, &same).unwrap().logits;
        assert!(difference(&single, &few.narrow(0, 1, 1)) < 1e-5);
    }
}

#[test]
fn wrong_arguments_are_errors() {
    for vit in [VitLabels::Crops, VitLabels::PatchMap] {
        for weights in ["rn.safetensors", "vit.safetensors"] {
            let teacher = teacher(weights, Precision::F32, vit);
            let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
            for shape in [&[3, 64, 64][..], &[1, 1, 64, 64], &[1, 3, 0, 64]] {
                let error = teacher.encode(&zeros(shape)).unwrap_err().to_string();
                assert!(error.contains("expected [B, 3, H, W] f32"), "{error}");
            }
            let map = teacher.encode(&zeros(&[1, 3, 64, 64])).unwrap();
            assert!(teacher.label(&map, &zeros(&[2, 4])).is_err());
            let other = boxes(&[[1.0, 0.0, 0.0, 9.0, 9.0]]);
            assert!(teacher.label(&map, &other).is_err(), "there is no image 1");
            // Outside of the image: something finite.
            let outside = boxes(&[[0.0, 90.0, 90.0, 99.0, 99.0], [0.0, 9.0, 9.0, 9.0, 9.0]]);
            let logits = teacher.label(&map, &outside).unwrap().logits;
            assert!(logits.isfinite().all().int64_value(&[]) == 1);
        }
    }
    let tiny = Tensor::zeros([1, 3, 8, 8], (Kind::Float, Device::Cpu));
    let resnet = teacher("rn.safetensors", Precision::F32, VitLabels::Crops);
    assert!(resnet.encode(&tiny).is_err(), "smaller than a cell of the map");
}

/// bf16 has 8 bits: half a percent a number.
#[test]
fn bf16_is_near_f32() {
    let expected = expected();
    for (weights, vit) in [
        ("rn.safetensors", VitLabels::Crops),
        ("vit.safetensors", VitLabels::Crops),
        ("vit.safetensors", VitLabels::PatchMap),
    ] {
        let run = |precision| {
            let teacher = teacher(weights, precision, vit);
            let map = teacher.encode(&images_of(&expected)).unwrap();
            teacher.label(&map, &expected["boxes"]).unwrap()
        };
        let (low, full) = (run(Precision::Bf16), run(Precision::F32));
        assert_eq!(low.features.kind(), Kind::Float);
        let difference = difference(&low.features, &full.features);
        assert!(difference > 1e-6 && difference < 0.05, "{weights} {vit:?}: {difference}");
    }
}

/// The names of `transformers` and OpenAI's for one model.
#[test]
fn hugging_faces_layout_is_openais() {
    let path = fixture("vit.safetensors");
    let weights = clip::to_openai(read_weights(&path).unwrap(), &path).unwrap();
    let config = ClipConfig::from_weights(&weights, &Hints::default(), &path).unwrap();
    let visual = VisualConfig::Vit {
        width: 128,
        layers: 2,
        patch: 16,
        resolution: 48,
        heads: 2,
        hidden: 128,
        activation: Activation::QuickGelu,
    };
    let text = TextConfig {
        context_length: 8,
        vocabulary: 42,
        width: 64,
        layers: 1,
        heads: 1,
        hidden: 96,
        activation: Activation::QuickGelu,
    };
    assert_eq!(config, ClipConfig { visual, text: Some(text), embed_dim: 32 });
    let folder = tempfile::tempdir().unwrap();
    let openai = folder.path().join("openai.safetensors");
    safetensors::write(&openai, &weights, &Default::default()).unwrap();
    let expected = expected();
    let images = images_of(&expected).narrow(2, 8, 48).narrow(3, 24, 48);
    let text = table(folder.path());
    let teacher = ClipTeacher::open(
        &super::tests::config(openai, text),
        &classes(&["a", "b", "c"]),
        Device::Cpu,
    );
    close("vit.global", &teacher.unwrap().embed_images(&images).unwrap(), &expected);
}

/// The settings beside the weights say the activation and the heads, which no tensor does.
#[test]
fn settings_beside_the_weights_are_obeyed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::copy(fixture("vit.safetensors"), &path).unwrap();
    let expected = expected();
    let images = images_of(&expected).narrow(2, 8, 48).narrow(3, 24, 48);
    let got = |activation: Option<Activation>| {
        let mut config = config(path.clone(), table(folder.path()));
        config.activation = activation;
        let teacher = ClipTeacher::open(&config, &classes(&["a", "b", "c"]), Device::Cpu).unwrap();
        let hints = Hints::of(&path, activation).unwrap();
        let (_store, _, clip) = clip::load(&path, &hints, Device::Cpu).unwrap();
        let text = torch_ext::no_grad(|| clip.text.as_ref().unwrap().forward(&expected["ids"]));
        (teacher.embed_images(&images).unwrap(), text)
    };
    let (image, text) = got(None);
    close("vit.global", &image, &expected);
    close("vit.text", &text, &expected);
    std::fs::copy(fixture("gelu/config.json"), folder.path().join("config.json")).unwrap();
    let (image, text) = got(None);
    close("gelu.global", &image, &expected);
    close("gelu.text", &text, &expected);
    // The settings of the run come before those of the file.
    let (other, _) = got(Some(Activation::QuickGelu));
    assert!(difference(&other, &expected["gelu.global"]) > 1e-3);
}

#[test]
fn open_clips_own_name_of_the_text_encoder_is_known() {
    let path = fixture("rn.safetensors");
    let weights = read_weights(&path).unwrap();
    let config = |weights| {
        ClipConfig::from_weights(
            &clip::to_openai(weights, &path).unwrap(),
            &Hints::default(),
            &path,
        )
    };
    let plain = config(read_weights(&path).unwrap()).unwrap();
    assert!(plain.text.is_some());
    let nested = weights.into_iter().map(|(name, tensor)| {
        let beside = name.starts_with("visual.") || name == "logit_scale";
        (if beside { name } else { format!("text.{name}") }, tensor)
    });
    assert_eq!(config(nested.collect()).unwrap(), plain);
}

/// The small models know 42 tokens, CLIP's tokenizer 49,408: this one is made here.
#[test]
fn a_prompted_table_is_the_mean_over_the_templates() {
    let text = TextConfig {
        context_length: 77,
        vocabulary: clip::Tokenizer::VOCABULARY,
        width: 8,
        layers: 1,
        heads: 1,
        hidden: 16,
        activation: Activation::QuickGelu,
    };
    let store = ParameterStore::new(Device::Cpu, 1);
    let encoder = clip::TextEncoder::new(&store.root(), &text, 6);
    let templates = PromptSet::Reference.templates(&[]);
    let names = ["air_conditioner", "alarm clock", "zebra"];
    let table = encode_prompts(&encoder, Device::Cpu, &templates, &names).unwrap();
    assert_eq!(table.size(), [3, 6]);
    let tokenizer = clip::Tokenizer::new();
    for (name, row) in names.iter().zip(0..) {
        let texts: Vec<String> = templates.iter().map(|t| t.replace("{}", name)).collect();
        let ids = tokenizer.tokenize(&texts, 77, false).unwrap();
        let mean = torch_ext::no_grad(|| encoder.forward(&ids)).mean_dim(0, false, Kind::Float);
        assert!(difference(&table.get(row), &mean) < 1e-5, "{name}");
    }
    let long = ["very ".repeat(80)];
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let error = encode_prompts(&encoder, Device::Cpu, &templates, &long).unwrap_err();
    assert!(error.to_string().contains("at most 77"), "{error}");
}

/// From weights and class names to soft labels, the second time from the cache.
#[test]
fn a_teacher_with_prompts_keeps_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let (path, cache) = (folder.path().join("clip.safetensors"), folder.path().join("cache"));
    let rn = fixture("rn.safetensors");
    let mut sizes = clip::load(&rn, &Hints::default(), Device::Cpu).unwrap().1;
    let text = sizes.text.as_mut().unwrap();
    (text.context_length, text.vocabulary, text.width) = (77, clip::Tokenizer::VOCABULARY, 8);
    (text.heads, text.hidden) = (1, 16);
    let store = ParameterStore::new(Device::Cpu, 3);
    let model = Clip::new(&store.root(), &sizes);
    safetensors::write(&path, &store.named_tensors(), &Default::default()).unwrap();
    let names = ["zebra", "alarm_clock"];
    let templates = ["the {}", "{} and {}"].map(str::to_owned).to_vec();
    let text = TeacherText::Prompts { set: PromptSet::Own, templates: templates.clone() };
    let config = config(path, text);
    let open = || {
        ClipTeacher::open_with_cache(&config, &classes(&names), Device::Cpu, Some(&cache)).unwrap()
    };
    let (made, kept) = (open(), open());
    assert_eq!(made.text().rows, kept.text().rows);
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    let encoder = model.text.as_ref().unwrap();
    let rows = encode_prompts(encoder, Device::Cpu, &templates, &names).unwrap();
    assert_eq!(made.text().rows, rows);
    assert_eq!(made.config(), &sizes);
    let images = images_of(&expected());
    let labels = made.label(&made.encode(&images).unwrap(), &expected()["boxes"]).unwrap();
    assert_eq!(labels.logits.size(), [4, 2]);
}

#[test]
fn texts_that_do_not_belong_to_the_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |config: &TeacherConfig, names: &[&str]| {
        ClipTeacher::open(config, &classes(names), Device::Cpu).unwrap_err().to_string()
    };
    let prompts = config(fixture("rn.safetensors"), TeacherText::default());
    let error = open(&prompts, &["cat"]);
    assert!(error.contains("expected a text encoder of CLIP's 49408 tokens, got 42"), "{error}");
    let wide = folder.path().join("wide.safetensors");
    let rows = Tensor::ones([2, 33], (Kind::Float, Device::Cpu));
    let tensors = BTreeMap::from([("rows".to_owned(), rows)]);
    safetensors::write(&wide, &tensors, &Default::default()).unwrap();
    let table = config(fixture("rn.safetensors"), TeacherText::Table { table: wide });
    let error = open(&table, &["cat", "dog"]);
    assert!(error.contains("expected rows of width 32, got 33"), "{error}");
    let error = open(
        &config(fixture("rn.safetensors"), TeacherText::Table { table: "nowhere.npy".into() }),
        &["cat"],
    );
    assert!(error.starts_with("teacher.text.table: there is no file"), "{error}");
    let mut visual_only = read_weights(&fixture("rn.safetensors")).unwrap();
    visual_only.retain(|name, _| name.starts_with("visual.") || name == "logit_scale");
    let path = folder.path().join("visual.safetensors");
    safetensors::write(&path, &visual_only, &Default::default()).unwrap();
    let error = open(&config(path.clone(), TeacherText::default()), &["cat"]);
    assert!(error.contains("no text encoder") && error.contains("hint"), "{error}");
    let bias = visual_only.remove("visual.layer4.0.bn1.bias").unwrap();
    safetensors::write(&path, &visual_only, &Default::default()).unwrap();
    let error = open(&config(path.clone(), TeacherText::default()), &["cat"]);
    assert!(error.contains("missing visual.layer4.0.bn1.bias"), "{error}");
    visual_only.insert("visual.layer4.0.bn1.bias".to_owned(), bias * f64::NAN);
    safetensors::write(&path, &visual_only, &Default::default()).unwrap();
    let error = open(&config(path, TeacherText::default()), &["cat"]);
    assert!(error.contains("visual.layer4.0.bn1.bias: holds NaN"), "{error}");
}

/// The encoders are plain functions: whoever trains a CLIP gets gradients for every parameter.
#[test]
fn both_encoders_are_differentiable() {
    let (visual, text) = (
        VisualConfig::Resnet {
            backbone: ResnetConfig {
                name: ResnetName::ClipResnet,
                width: 4,
                layers: vec![1; 4],
                norm: Norm::BatchNorm,
                frozen_stages: -1,
                ..ResnetConfig::default()
            },
            resolution: 64,
            heads: 2,
        },
        TextConfig {
            context_length: 8,
            vocabulary: 42,
            width: 16,
            layers: 1,
            heads: 2,
            hidden: 32,
            activation: Activation::QuickGelu,
        },
    );
    let vit = VisualConfig::Vit {
        width: 16,
        layers: 1,
        patch: 16,
        resolution: 64,
        heads: 2,
        hidden: 32,
        activation: Activation::QuickGelu,
    };
    for visual in [visual, vit] {
        let store = ParameterStore::new(Device::Cpu, 0);
        let config = ClipConfig { visual, text: Some(text.clone()), embed_dim: 8 };
        let clip = Clip::new(&store.root(), &config);
        let images = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let image = clip.encode_image(&images, true).unwrap();
        let texts = clip.text.as_ref().unwrap().forward(&expected()["ids"].narrow(0, 0, 2));
        let normalize = crate::models::layers::l2_normalize;
        let logits = normalize(&image).matmul(&normalize(&texts).transpose(0, 1));
        let loss = (logits * clip.logit_scale.exp())
            .cross_entropy_for_logits(&Tensor::from_slice(&[0i64, 1]));
        loss.backward();
        for parameter in store.parameters() {
            let trained = parameter.role == crate::models::parameters::Role::Trainable;
            let has = parameter.tensor.grad().defined();
            assert_eq!(has, trained, "{}", parameter.name);
        }
        if let Visual::Resnet(visual) = &clip.visual {
            let map = visual.dense(&images, true).unwrap();
            let pooled = visual.embed_boxes(&map, &boxes(&[[0.0, 0.0, 0.0, 50.0, 50.0]])).unwrap();
            assert!(pooled.requires_grad());
        }
    }
}
