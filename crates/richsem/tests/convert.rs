//! Official checkpoints as detectors and back. `tests/fixtures/official` has the key names and
//! shapes that the official code itself gives at full size (`make.py` there wrote them).
//!
//! What the official code then does with our files was tried with it: its full-size models with
//! random weights, saved by it, converted and converted back with `--rest`, load strictly
//! (RichSem: 1583 keys, DINO: 626), every value the same to the bit, and the text table differs
//! from its own by 2e-6 of 8.6.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use richsem::{
    checkpoint_io::{
        fit::Patterns,
        key_maps::official::{Family, Fate as KeyFate, Layout},
        pth, safetensors,
    },
    config::Config,
    convert::{Conversion, Fate, Form, Kind, Options, Source, convert},
    detector::Detector,
    models::{
        class_head::{ClassSpace, TextTable},
        dino::{Dino, DinoConfig},
        parameters::ParameterStore,
    },
    teacher::{
        clip::{Clip, ClipConfig, PromptSet, TextConfig, VisualConfig},
        encode_prompts,
    },
    testing::normal,
    vocabulary::{Category, CategoryId, Frequency, Vocabulary},
};
use tch::{Device, Kind as Number, Tensor};

type Tensors = BTreeMap<String, Tensor>;

const DIM: i64 = 24;

fn vocabulary(ids: &[i64]) -> Vocabulary {
    let category = |&id: &i64| Category {
        id: CategoryId(id),
        name: format!("thing {id}"),
        image_count: 1,
        instance_count: 1,
        frequency: Frequency::Rare,
        synset: None,
        wnid: None,
        lvis_clip_row: None,
    };
    Vocabulary::new(ids.iter().map(category).collect())
}

fn settings() -> Config {
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
fn options(ids: Option<&[i64]>) -> Options {
    Options {
        config: Config::defaults(&["model.dino.transformer.nheads=2".to_owned()]).unwrap(),
        vocabulary: ids.map(vocabulary),
        allow: Patterns::default(),
        clip: None,
        rest: None,
        device: Device::Cpu,
    }
}

fn small_clip() -> ParameterStore {
    let trunk = richsem::models::backbone::BackboneConfig {
        name: richsem::models::backbone::Trunk::ClipResnet,
        width: 4,
        layers: vec![1, 1, 1, 1],
        frozen_stages: -1,
        ..Default::default()
    };
    let config = ClipConfig {
        visual: VisualConfig::Resnet { trunk, resolution: 64, heads: 2 },
        text: Some(TextConfig {
            context_length: 77,
            vocabulary: 49408,
            width: 8,
            layers: 1,
            heads: 1,
            hidden: 32,
        }),
        embed_dim: DIM,
    };
    let store = ParameterStore::new(Device::Cpu, 2);
    let _ = Clip::new(&store.root(), &config);
    store
}

/// A checkpoint as the official code would save the detector of these settings, classes 1 to 7.
fn official(space: ClassSpace) -> Tensors {
    let store = ParameterStore::new(Device::Cpu, 8);
    Dino::new(&store, &settings().model.dino, space).unwrap();
    let family = match space {
        ClassSpace::Text(_) => Family::RichSem,
        ClassSpace::Classes(_) => Family::Dino,
    };
    let layout = Layout { family, decoder_layers: 3 };
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

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        // Whatever the environment says: tests side by side wait for each other's threads.
        tch::set_num_threads(1);
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pth(&self, tensors: &Tensors) -> PathBuf {
        let path = self.path("official.pth");
        pth::write(&path, Some("model"), tensors).unwrap();
        path
    }
}

fn converted(path: &Path, form: Form, options: &Options) -> richsem::Result<Conversion> {
    convert(Source::read(path, None)?, form, options)
}

fn problems(conversion: &Conversion) -> Vec<String> {
    conversion.report.problems().map(|p| format!("{}: {}", p.name, p.fate.detail())).collect()
}

#[track_caller]
fn assert_same(got: &Tensors, expected: &Tensors) {
    assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, tensor) in expected {
        assert_eq!(&got[name], tensor, "{name}");
    }
}

fn fixture(name: &str) -> BTreeMap<String, Vec<i64>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/official");
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

/// Every key of the official full-size models leads to one of our parameters, of the same shape,
/// or to a stated fate; and every parameter of ours is reached.
#[test]
fn official_keys_and_ours_cover_each_other() {
    for (name, family, space, left) in [
        ("richsem.json", Family::RichSem, ClassSpace::Text(1024), 1583 - 979),
        ("dino.json", Family::Dino, ClassSpace::Classes(91), 626 - 1),
    ] {
        let keys = fixture(name);
        let layout = Layout::of(keys.keys().map(String::as_str)).unwrap();
        assert_eq!(layout, Layout { family, decoder_layers: 6 });
        let store = ParameterStore::to_be_loaded(Device::Cpu);
        Dino::new(&store, &DinoConfig::default(), space).unwrap();
        let ours = store.named_tensors();
        let mut reached = BTreeSet::new();
        let mut taken = 0;
        for (key, shape) in &keys {
            match layout.fate(key) {
                KeyFate::Parameter(path) | KeyFate::Copy(path) => {
                    assert_eq!(&ours[&path].size(), shape, "{key}");
                    assert!(layout.keys_of(&path).contains(key), "{key}");
                    reached.insert(path);
                    taken += 1;
                }
                KeyFate::Unknown | KeyFate::NoPlace(_) => panic!("{name}: {key}"),
                _ => {}
            }
        }
        assert_eq!(reached.len(), ours.len(), "{name}");
        assert_eq!(taken, left, "{name}");
    }
}

/// Deformable DETR's heads, encoder, trunk and attention are the same; the rest has a reason.
#[test]
fn deformable_detrs_keys_are_all_known() {
    let keys = fixture("deformable_detr.json");
    let layout = Layout::of(keys.keys().map(String::as_str)).unwrap();
    assert_eq!(layout, Layout { family: Family::DeformableDetr, decoder_layers: 6 });
    let unknown = keys.keys().filter(|key| layout.fate(key) == KeyFate::Unknown);
    assert_eq!(unknown.count(), 0);
    let mut config = DinoConfig::default();
    config.transformer.dim_feedforward = 1024;
    let store = ParameterStore::to_be_loaded(Device::Cpu);
    Dino::new(&store, &config, ClassSpace::Classes(91)).unwrap();
    let found: BTreeSet<String> = keys
        .keys()
        .filter_map(|key| match layout.fate(key) {
            KeyFate::Parameter(path) => Some(path),
            _ => None,
        })
        .collect();
    let ours: BTreeSet<String> = store.named_tensors().into_keys().collect();
    let missing: Vec<&String> = ours.difference(&found).collect();
    let parts = [
        "transformer.tgt_embed.",
        "transformer.decoder.norm.",
        "transformer.decoder.ref_point_head.",
    ];
    assert!(missing.iter().all(|m| parts.iter().any(|p| m.starts_with(p))), "{missing:?}");
    assert_eq!(found.difference(&ours).count(), 0);
}

#[test]
fn a_richsem_checkpoint_becomes_a_slim_detector_and_comes_back_whole() {
    let folder = Folder::new();
    let checkpoint = official(ClassSpace::Text(DIM));
    let path = folder.pth(&checkpoint);
    let ids = [1, 2, 3, 5, 7];
    let conversion = converted(&path, Form::Safetensors, &options(Some(&ids))).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let (ours, rest) = (folder.path("ours.safetensors"), folder.path("rest.safetensors"));
    conversion.write(&ours).unwrap();
    conversion.write_rest(&rest).unwrap();

    // All sizes but the attention heads came from shapes.
    let detector = Detector::load(&ours, Device::Cpu).unwrap();
    let expected = settings().model.dino;
    assert_eq!(detector.config.model.dino, expected);
    assert_eq!(detector.vocabulary, vocabulary(&ids));
    for (path, tensor) in detector.store.named_tensors() {
        assert_eq!(checkpoint[&path], tensor, "{path}");
    }
    // The table is that of the checkpoint's own CLIP: 81 prompts a class.
    let store = small_clip();
    let weights = store.named_tensors();
    let (_, _, clip) = richsem::teacher::clip::from_weights(&weights, &path, Device::Cpu).unwrap();
    let names: Vec<String> = ids.iter().map(|id| format!("thing {id}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let templates = PromptSet::Reference.templates(&[]);
    let table =
        encode_prompts(clip.text.as_ref().unwrap(), Device::Cpu, &templates, &names).unwrap();
    assert_eq!(detector.text.as_ref().unwrap().rows, table);
    // Slim: nothing of CLIP or the branch is in it.
    let (slim, _) = safetensors::read(&ours).unwrap();
    assert!(slim.keys().all(|key| !key.contains("clip")), "{:?}", slim.keys());
    assert_eq!(slim.len(), detector.store.named_tensors().len() + 1);

    // Back, with what was left over: every key and every value.
    let mut back = options(None);
    back.rest = Some(rest);
    let conversion = converted(&ours, Form::Pth, &back).unwrap();
    conversion.write(&folder.path("back.pth")).unwrap();
    assert_same(&pth::read(&folder.path("back.pth")).unwrap(), &checkpoint);

    // Back with a CLIP from elsewhere: only the semantic branch and the counter are missing.
    let clip = folder.path("clip.safetensors");
    safetensors::write(&clip, &weights, &safetensors::Metadata::new()).unwrap();
    let with_clip = Options { clip: Some(clip.clone()), ..options(None) };
    let conversion = converted(&ours, Form::Pth, &with_clip).unwrap();
    conversion.write(&folder.path("back.pth")).unwrap();
    let mut expected = checkpoint;
    expected.retain(|key, _| !key.contains("clip_visual_proj") && !key.ends_with("_tracked"));
    assert_same(&pth::read(&folder.path("back.pth")).unwrap(), &expected);

    // The slim checkpoint has no CLIP of its own: one must be given, or a table.
    expected.retain(|key, _| !key.contains(".clip."));
    let path = folder.pth(&expected);
    let error = converted(&path, Form::Safetensors, &options(Some(&ids))).unwrap_err();
    assert!(error.to_string().contains("--clip"), "{error}");
    let with_clip = Options { clip: Some(clip), ..options(Some(&ids)) };
    let conversion = converted(&path, Form::Safetensors, &with_clip).unwrap();
    conversion.write(&ours).unwrap();
    assert_eq!(Detector::load(&ours, Device::Cpu).unwrap().text.unwrap().rows, table);
}

#[test]
fn rows_of_linear_heads_are_category_ids() {
    let folder = Folder::new();
    let checkpoint = official(ClassSpace::Classes(8));
    let path = folder.pth(&checkpoint);
    let ids = [1, 2, 4, 7];
    let conversion = converted(&path, Form::Safetensors, &options(Some(&ids))).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let (ours, rest) = (folder.path("ours.safetensors"), folder.path("rest.safetensors"));
    conversion.write(&ours).unwrap();
    conversion.write_rest(&rest).unwrap();
    let detector = Detector::load(&ours, Device::Cpu).unwrap();
    let values = detector.store.named_tensors();
    for (row, &id) in ids.iter().enumerate() {
        for name in ["class_embed.0.weight", "transformer.enc_out_class_embed.bias"] {
            assert_eq!(values[name].get(row as i64), checkpoint[name].get(id), "{name} {id}");
        }
    }

    let with_rest = Options { rest: Some(rest), ..options(None) };
    converted(&ours, Form::Pth, &with_rest).unwrap().write(&folder.path("back.pth")).unwrap();
    assert_same(&pth::read(&folder.path("back.pth")).unwrap(), &checkpoint);

    // Without it, ids that are no class are never found, and labels are embedded as we do it.
    let alone = converted(&ours, Form::Pth, &options(None)).unwrap();
    alone.write(&folder.path("back.pth")).unwrap();
    let back = pth::read(&folder.path("back.pth")).unwrap();
    assert_eq!(back.keys().collect::<Vec<_>>(), checkpoint.keys().collect::<Vec<_>>());
    let (weight, bias) = (&back["class_embed.2.weight"], &back["class_embed.2.bias"]);
    assert_eq!(weight.get(4), checkpoint["class_embed.0.weight"].get(4));
    for id in [0, 3, 5, 6] {
        assert_eq!(weight.get(id).abs().max().double_value(&[]), 0.0);
        assert!((bias.get(id).sigmoid().double_value(&[]) - 0.01).abs() < 1e-6);
    }
    assert_eq!(back["label_enc.weight"].size(), [9, 32]);
    assert_eq!(back["label_enc.weight"].narrow(0, 0, 8), *weight);

    // One row a class is in order; anything else is told.
    let in_order =
        converted(&path, Form::Safetensors, &options(Some(&[11, 12, 13, 14, 15, 16, 17, 18])));
    assert_eq!(problems(&in_order.unwrap()), [""; 0]);
    let error = converted(&path, Form::Safetensors, &options(Some(&[1, 9]))).unwrap_err();
    assert!(error.to_string().contains("8 rows, of 2 classes with ids up to 9"), "{error}");
    let error = converted(&path, Form::Safetensors, &options(None)).unwrap_err().to_string();
    assert!(error.contains("--annotations") && error.contains("no names"), "{error}");
}

#[test]
fn each_mismatch_is_listed_and_nothing_is_written() {
    let folder = Folder::new();
    let mut checkpoint = official(ClassSpace::Classes(8));
    checkpoint.remove("transformer.level_embed");
    checkpoint.insert("transformer.surprise".into(), normal(1, &[2]));
    checkpoint.insert("transformer.encoder.layers.0.norm2.bias".into(), normal(1, &[31]));
    checkpoint.insert("bbox_embed.2.layers.0.bias".into(), normal(9, &[32]));
    let path = folder.pth(&checkpoint);
    let strict = converted(&path, Form::Safetensors, &options(Some(&[1]))).unwrap();
    assert_eq!(
        problems(&strict),
        [
            "bbox_embed.2.layers.0.bias: does not fit: other values than bbox_embed.0.layers.0.bias, \
             which this program shares",
            "transformer.encoder.layers.0.norm2.bias: does not fit: \
             transformer.encoder.layers.0.norm2.bias: shape [31] in the file, [32] here",
            "transformer.surprise: does not fit: unexpected",
            "transformer.level_embed: does not fit: missing",
        ]
    );
    let output = folder.path("ours.safetensors");
    assert!(strict.write(&output).is_err() && !output.exists());

    let patterns = ["bbox_embed.2.*", "*.norm2.bias", "transformer.s*", "*.level_embed"];
    let allowing = Options {
        allow: Patterns::new(&patterns, "--allow-missing").unwrap(),
        ..options(Some(&[1]))
    };
    let conversion = converted(&path, Form::Safetensors, &allowing).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let allowed = |line: &&richsem::convert::Line| matches!(line.fate, Fate::Allowed(_));
    assert_eq!(conversion.report.lines.iter().filter(allowed).count(), 4);
    conversion.write(&output).unwrap();
    Detector::load(&output, Device::Cpu).unwrap();

    let heads = Options { config: Config::defaults(&[]).unwrap(), ..options(Some(&[1])) };
    let error = converted(&path, Form::Safetensors, &heads).unwrap_err().to_string();
    assert!(error.contains("nheads"), "3 points of 2 heads are no 8 heads': {error}");
}

#[test]
fn data_parallel_running_means_and_what_lies_beside_are_seen() {
    let folder = Folder::new();
    let checkpoint = official(ClassSpace::Classes(8));
    let wrapped: Tensors =
        checkpoint.iter().map(|(k, v)| (format!("module.{k}"), v.shallow_clone())).collect();
    let source = Source::read(&folder.pth(&wrapped), None).unwrap();
    assert_eq!(source.tensors.len(), checkpoint.len());
    assert!(matches!(source.kind, Kind::Official(layout) if layout.family == Family::Dino));
    let error = Source::read(&folder.pth(&wrapped), Some("ema_model")).unwrap_err().to_string();
    assert!(error.contains("ema_model") && error.contains("`model`"), "{error}");
}

/// The encoder's class head compares with text there, and the decoder's does not.
#[test]
fn richsems_baseline_is_refused_by_name() {
    let folder = Folder::new();
    let mut checkpoint = official(ClassSpace::Classes(8));
    checkpoint.retain(|key, _| !key.starts_with("transformer.enc_out_class_embed."));
    let key = "transformer.enc_out_class_embed.dino_visual_proj.weight";
    checkpoint.insert(key.into(), normal(1, &[DIM, 32]));
    let path = folder.pth(&checkpoint);
    let error = converted(&path, Form::Safetensors, &options(Some(&[1]))).unwrap_err().to_string();
    for part in ["baseline without language", "no such detector", "--init"] {
        assert!(error.contains(part), "{error}");
    }
}

/// What it lacks starts anew, and what has no place here is named.
#[test]
fn deformable_detr_gives_what_it_has() {
    let folder = Folder::new();
    let store = ParameterStore::new(Device::Cpu, 8);
    Dino::new(&store, &settings().model.dino, ClassSpace::Classes(8)).unwrap();
    let mut checkpoint = Tensors::new();
    for (path, tensor) in store.named_tensors() {
        // Three layers' heads, the encoder's after them.
        let name = match path.split_once("_embed.") {
            Some(("bbox" | "class", rest)) => path.replace(rest, &rest.replacen('0', "2", 1)),
            Some(("transformer.enc_out_bbox" | "transformer.enc_out_class", rest)) => {
                let head = path["transformer.enc_out_".len()..].split('.').next().unwrap();
                format!("{head}.3.{rest}")
            }
            _ => path,
        };
        checkpoint.insert(name, tensor);
    }
    let new = [
        "transformer.tgt_embed.",
        "transformer.decoder.norm.",
        "transformer.decoder.ref_point_head.",
    ];
    checkpoint.retain(|key, _| !new.iter().any(|prefix| key.starts_with(prefix)));
    for key in
        ["bbox_embed.0.layers.0.weight", "bbox_embed.1.layers.0.weight", "class_embed.0.bias"]
    {
        checkpoint.insert(key.into(), normal(2, &[3]));
    }
    checkpoint.insert("transformer.pos_trans.weight".into(), normal(3, &[4]));
    let path = folder.pth(&checkpoint);
    let strict = converted(&path, Form::Safetensors, &options(Some(&[1, 2]))).unwrap();
    let told = problems(&strict);
    assert!(
        !told.is_empty() && told.iter().all(|t| t.ends_with(": does not fit: missing")),
        "{told:?}"
    );
    let patterns: Vec<String> = new.iter().map(|prefix| format!("{prefix}*")).collect();
    let allow = Patterns::new(&patterns, "--allow-missing").unwrap();
    let allowing = Options { allow, ..options(Some(&[1, 2])) };
    let conversion = converted(&path, Form::Safetensors, &allowing).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let output = folder.path("ours.safetensors");
    conversion.write(&output).unwrap();
    let detector = Detector::load(&output, Device::Cpu).unwrap();
    assert_eq!(detector.config.model.dino.transformer.pe_temperature, 10_000.0);
    let (ours, theirs) = (detector.store.named_tensors(), store.named_tensors());
    for name in ["bbox_embed.0.layers.2.weight", "transformer.enc_out_bbox_embed.layers.0.bias"] {
        assert_eq!(ours[name], theirs[name], "{name}");
    }
    let left = |part: &str| {
        let lines = conversion.report.lines.iter();
        lines.filter(|line| line.fate.title().contains(part)).count()
    };
    assert_eq!((left("each decoder layer's own head"), left("queries from proposals")), (3, 1));
}

#[test]
fn trunks_and_clips_are_checked_and_cut() {
    let folder = Folder::new();
    let store = ParameterStore::new(Device::Cpu, 1);
    let config = richsem::models::backbone::BackboneConfig { width: 8, ..Default::default() };
    let _ = richsem::models::backbone::Backbone::new(&store.root(), &config);
    let trunk = store.named_tensors();
    let mut whole = trunk.iter().map(|(k, v)| (k.clone(), v.copy())).collect::<Tensors>();
    // MIIL's 21k, as timm names it.
    whole.insert("fc.weight".into(), normal(1, &[11221, 4]));
    whole.insert("bn1.num_batches_tracked".into(), Tensor::from(7i64));
    let path = folder.path("trunk.pth");
    pth::write(&path, Some("model"), &whole).unwrap();
    let conversion = converted(&path, Form::Safetensors, &options(None)).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    let output = folder.path("trunk.safetensors");
    conversion.write(&output).unwrap();
    assert_same(&safetensors::read(&output).unwrap().0, &trunk);
    assert_eq!(conversion.rest.len(), 2);
    // ResNet-50-D has another stem.
    whole.remove("layer1.0.downsample.1.bias");
    whole.insert("layer1.0.downsample.2.bias".into(), normal(1, &[32]));
    pth::write(&path, None, &whole).unwrap();
    let told = problems(&converted(&path, Form::Safetensors, &options(None)).unwrap());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("unexpected layer1.0.downsample.2.bias"), "{told:?}");
    assert!(told[1].contains("missing layer1.0.downsample.1.bias"), "{told:?}");

    let clip = small_clip().named_tensors();
    let mut trunk = clip.iter().map(|(k, v)| (k.clone(), v.copy())).collect::<Tensors>();
    trunk.retain(|key, _| key.starts_with("visual.") && !key.contains("attnpool"));
    pth::write(&path, None, &trunk).unwrap();
    let conversion = converted(&path, Form::Safetensors, &options(None)).unwrap();
    assert_eq!(problems(&conversion), [""; 0]);
    conversion.write(&output).unwrap();
    let plain = |(k, v): (String, Tensor)| (k["visual.".len()..].to_owned(), v);
    let trunk: Tensors = trunk.into_iter().map(plain).collect();
    assert_same(&safetensors::read(&output).unwrap().0, &trunk);

    let mut half: Tensors =
        clip.iter().map(|(k, v)| (k.clone(), v.to_kind(Number::Half))).collect();
    half.insert("input_resolution".into(), Tensor::from(64i64));
    pth::write(&path, None, &half).unwrap();
    let conversion = converted(&path, Form::Safetensors, &options(None)).unwrap();
    conversion.write(&output).unwrap();
    half.remove("input_resolution");
    assert_same(&safetensors::read(&output).unwrap().0, &half);

    for (tensors, part) in [
        (Tensors::from([("a.b".to_owned(), normal(1, &[1]))]), "none of the known kinds"),
        (
            Tensors::from([("visual.class_embedding".to_owned(), normal(1, &[1]))]),
            "visual.conv1.weight: missing",
        ),
    ] {
        pth::write(&path, None, &tensors).unwrap();
        let error = converted(&path, Form::Safetensors, &options(None)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn pairs_that_make_no_sense_are_refused() {
    let folder = Folder::new();
    let path = folder.pth(&official(ClassSpace::Classes(8)));
    let error = converted(&path, Form::Pth, &options(Some(&[1]))).unwrap_err().to_string();
    assert!(error.contains("OUT") && error.contains("official"), "{error}");
    let table = TextTable::new(&normal(3, &[2, DIM]));
    let mut config = settings();
    config.model.class_head = richsem::config::ClassHeadConfig::Text { table: None };
    let detector =
        Detector::new(&config, vocabulary(&[1, 2]), Device::Cpu, Some((&table, 4.0))).unwrap();
    let path = folder.path("ours.safetensors");
    detector.save(&path).unwrap();
    let error = converted(&path, Form::Safetensors, &options(None)).unwrap_err().to_string();
    assert!(error.contains("already"), "{error}");
    for (name, form) in
        [("a.PTH", Form::Pth), ("a.pt", Form::Pth), ("a.safetensors", Form::Safetensors)]
    {
        assert_eq!(Form::of(Path::new(name)).unwrap(), form);
    }
    assert!(
        Form::of(Path::new("weights")).unwrap_err().to_string().contains(".safetensors or .pth")
    );
}
