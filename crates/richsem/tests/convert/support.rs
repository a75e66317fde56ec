//! Small detectors and CLIPs, as the official code would save them, and what both sides share.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use richsem::{
    checkpoint_io::{fit::Patterns, pth},
    config::Config,
    convert::{
        Conversion, Form, Options, Source, convert,
        dino::keys::{Layout, Variant},
    },
    models::{
        backbone::{ResnetConfig, ResnetName},
        class_head::ClassSpace,
        dino::{Dino, DinoConfig},
        parameters::ParameterStore,
    },
    teacher::clip::{Activation, Clip, ClipConfig, TextConfig, VisualConfig},
    testing::{category, normal},
    vocabulary::Vocabulary,
};
use tch::{Device, Tensor};

pub(crate) type Tensors = BTreeMap<String, Tensor>;

pub(crate) const DIM: i64 = 24;

pub(crate) fn vocabulary(ids: &[i64]) -> Vocabulary {
    Vocabulary::new(ids.iter().map(|&id| category(id, format!("thing {id}"))).collect())
}

pub(crate) fn settings() -> Config {
    let sizes = [
        "model.dino.backbone.name=resnet18",
        "model.dino.backbone.width=8",
        "model.dino.transformer.hidden_dim=32",
        "model.dino.transformer.nheads=2",
        "model.dino.transformer.enc_layers=1",
        "model.dino.transformer.dec_layers=3",
        "model.dino.transformer.dim_feedforward=20",
        "model.dino.transformer.num_queries=10",
        "model.dino.transformer.enc_n_points=3",
    ];
    Config::defaults(&sizes.map(str::to_owned)).unwrap()
}

/// Only what no shape tells; all else is to be read off the file.
pub(crate) fn options(ids: Option<&[i64]>) -> Options {
    Options {
        config: Config::defaults(&["model.dino.transformer.nheads=2".to_owned()])
            .unwrap()
            .of_detector(),
        seed: 0,
        vocabulary: ids.map(vocabulary),
        allow: Patterns::default(),
        clip: None,
        rest: None,
        device: Device::Cpu,
    }
}

pub(crate) fn small_clip() -> ParameterStore {
    let backbone = ResnetConfig {
        name: ResnetName::ClipResnet,
        width: 4,
        layers: vec![1, 1, 1, 1],
        frozen_stages: -1,
        ..Default::default()
    };
    let config = ClipConfig {
        visual: VisualConfig::Resnet { backbone, resolution: 64, heads: 2 },
        text: Some(TextConfig {
            context_length: 77,
            vocabulary: 49408,
            width: 8,
            layers: 1,
            heads: 1,
            hidden: 32,
            activation: Activation::QuickGelu,
        }),
        embed_dim: DIM,
    };
    let store = ParameterStore::new(Device::Cpu, 2);
    let _ = Clip::new(&store.root(), &config);
    store
}

/// A checkpoint as the official code would save the detector of these settings, classes 1 to 7.
pub(crate) fn official(space: ClassSpace) -> Tensors {
    official_of(settings().model.as_dino().unwrap(), space)
}

/// As [`official`], of a detector of these settings.
pub(crate) fn official_of(config: &DinoConfig, space: ClassSpace) -> Tensors {
    let store = ParameterStore::new(Device::Cpu, 8);
    Dino::new(&store, config, space).unwrap();
    let variant = match space {
        ClassSpace::Text(_) => Variant::RichSem,
        ClassSpace::Classes(_) => Variant::Dino,
    };
    let layout = Layout { variant, decoder_layers: 3 };
    let mut tensors = Tensors::new();
    for (path, tensor) in store.named_tensors() {
        // The official code's copies are one storage, or equal: both are met here.
        for (i, key) in layout.keys_of(&path).into_iter().enumerate() {
            let value = if i % 2 == 0 { tensor.shallow_clone() } else { tensor.copy() };
            tensors.insert(key, value);
        }
    }
    match space {
        ClassSpace::Text(_) => {
            for (name, tensor) in small_clip().named_tensors() {
                for head in ["class_embed", "transformer.enc_out_class_embed"] {
                    tensors.insert(format!("{head}.clip.{name}"), tensor.shallow_clone());
                }
            }
            let counter = "class_embed.clip.visual.bn1.num_batches_tracked";
            tensors.insert(counter.into(), Tensor::from(3i64));
            tensors.insert("class_embed.clip_visual_proj.weight".into(), normal(5, &[DIM, 32]));
        }
        ClassSpace::Classes(rows) => {
            tensors.insert("label_enc.weight".into(), normal(6, &[rows + 1, 32]));
        }
    }
    tensors
}

pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        // Whatever the environment says: tests side by side wait for each other's threads.
        tch::set_num_threads(1);
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn pth(&self, tensors: &Tensors) -> PathBuf {
        let path = self.path("official.pth");
        pth::write(&path, Some("model"), tensors).unwrap();
        path
    }
}

pub(crate) fn converted(path: &Path, form: Form, options: &Options) -> richsem::Result<Conversion> {
    convert(Source::read(path, None)?, form, options)
}

pub(crate) fn problems(conversion: &Conversion) -> Vec<String> {
    conversion.report.problems().map(|p| format!("{}: {}", p.name, p.fate.detail())).collect()
}

#[track_caller]
pub(crate) fn assert_same(got: &Tensors, expected: &Tensors) {
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in expected {
        assert_eq!(&got[name], tensor, "{name}");
    }
}

pub(crate) fn fixture(name: &str) -> BTreeMap<String, Vec<i64>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/official");
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}
