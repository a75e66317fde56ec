//! The loss by hand, gradients everywhere, captions that are wrong, and a small training whose
//! weights open as a teacher.

use std::{collections::BTreeSet, sync::atomic::AtomicBool};

use image::RgbImage;

use super::*;
use crate::{
    data::dataset::Dataset,
    precision::Precision,
    random::{Random, Stream},
    synth::SynthConfig,
    teacher::{
        ClipTeacher, Teacher as _, TeacherConfig, TeacherText, VitLabels,
        clip::{PIXELS, PromptSet},
    },
    testing::{category, small_set, write_set},
    vocabulary::Vocabulary,
};

static GO: AtomicBool = AtomicBool::new(false);

#[derive(Default)]
struct Quiet(Vec<u64>);

impl PretrainObserver for Quiet {
    fn message(&mut self, _: &str) {}
    fn step(&mut self, done: u64, _: Option<&PretrainRow>) {
        self.0.push(done);
    }
}

/// 4 classes, 40 captioned images of 48 pixels.
fn drawn(folder: &Path) -> PathBuf {
    let config = SynthConfig { classification_size: 48, captioned_images: 40, ..small_set() };
    let set = folder.join("set");
    write_set(&config, &set).unwrap();
    set
}

/// The smallest model, for images of 48 pixels.
fn small(steps: u64) -> PretrainConfig {
    let assignments = [
        "data.sides=[48]",
        "data.batch_size=32",
        "data.held_out=0.1",
        "model.resolution=32",
        "model.width=8",
        "model.embed_dim=16",
        "model.text_width=16",
        "model.text_layers=1",
        "train.warmup_steps=5",
        "train.log_every=10",
        &format!("train.steps={steps}"),
    ];
    PretrainConfig::load(None, &assignments.map(str::to_owned)).unwrap()
}

/// The loss as the paper's figure 3 writes it, with shared targets, in plain numbers.
fn by_hand(logits: [[f64; 3]; 3], captions: [i64; 3]) -> f64 {
    let mut sum = 0.0;
    for i in 0..3 {
        let same: Vec<usize> = (0..3).filter(|&j| captions[j] == captions[i]).collect();
        let row: f64 = (0..3).map(|j| logits[i][j].exp()).sum();
        let column: f64 = (0..3).map(|j| logits[j][i].exp()).sum();
        for &j in &same {
            let share = 1.0 / same.len() as f64;
            sum -= share * (logits[i][j] - row.ln()) + share * (logits[j][i] - column.ln());
        }
    }
    sum / 6.0
}

#[test]
fn the_loss_is_that_of_the_paper_and_equal_captions_are_no_negatives() {
    let angles = [(0.1f64, 0.4f64), (1.3, 1.1), (2.0, -0.5)];
    let on_circle = |angle: f64| [angle.cos(), angle.sin()];
    let tensor = |of: fn(&(f64, f64)) -> f64| {
        let rows: Vec<f64> = angles.iter().flat_map(|a| on_circle(of(a))).collect();
        Tensor::from_slice(&rows).view([3, 2])
    };
    let (images, texts) = (tensor(|a| a.0), tensor(|a| a.1));
    let scale = Tensor::from(7.0f64.ln());
    for captions in [[0, 1, 2], [4, 1, 4], [3, 3, 3]] {
        let logits = [0, 1, 2].map(|i| [0, 1, 2].map(|j| 7.0 * (angles[i].0 - angles[j].1).cos()));
        let got = contrastive_loss(&images, &texts, &Tensor::from_slice(&captions), &scale);
        let expected = by_hand(logits, captions);
        assert!((got.double_value(&[]) - expected).abs() < 1e-12, "{captions:?}");
    }
    // Images that agree with their caption, the first two with the same: nothing is left to gain
    // but the choice between equals, ln 2 for two of three.
    let x = Tensor::from_slice(&[1f64, 0.0, 1.0, 0.0, -1.0, 0.0]).view([3, 2]);
    let loss =
        contrastive_loss(&x, &x, &Tensor::from_slice(&[5i64, 5, 6]), &Tensor::from(50f64.ln()));
    assert!((loss.double_value(&[]) - 2.0 / 3.0 * 2f64.ln()).abs() < 1e-12);
}

#[test]
fn the_gradient_reaches_every_parameter() {
    let folder = tempfile::tempdir().unwrap();
    let set = CaptionSet::open(&drawn(folder.path()).join("captions.jsonl"), None, "{}").unwrap();
    let settings = small(1);
    let store = ParameterStore::new(Device::Cpu, 1);
    let clip = Clip::new(&store.root(), &settings.clip());
    let optimizer = Optimizer::new(store.parameters(), &settings.optimizer()).unwrap();
    let tokens = set.tokens(77).0;
    let run = Run { settings: &settings, set: &set, tokens, device: Device::Cpu, clip, optimizer };
    let of: Vec<usize> = (0..set.images().len()).collect();
    let batch = batch::training(&set, &of, &settings.data, 0, 0).unwrap();
    let captions: Vec<i64> = batch.captions.iter().map(|&c| c as i64).collect();
    let images = run.images(&batch, true).unwrap();
    let texts = run.texts(&batch.captions).unwrap();
    let captions = Tensor::from_slice(&captions);
    contrastive_loss(&images, &texts, &captions, &run.clip.logit_scale).backward();
    for parameter in store.parameters() {
        // Shifting every key shifts every logit of a softmax alike.
        if parameter.role != Role::Trainable || parameter.name.ends_with("k_proj.bias") {
            continue;
        }
        let norm = parameter.tensor.grad().norm().double_value(&[]);
        assert!(norm.is_finite() && norm > 1e-7, "{}: {norm:e}", parameter.name);
    }
}

#[test]
fn each_epoch_shows_every_image_once_and_a_step_depends_on_its_number_alone() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..10 {
        let path = folder.path().join(format!("{i}.png"));
        RgbImage::from_pixel(20, 20, image::Rgb([i; 3])).save(path).unwrap();
    }
    let line = |i: u8| format!("{{\"image\": \"{i}.png\", \"caption\": \"number {i}\"}}\n");
    let path = folder.path().join("c.jsonl");
    fs_err::write(&path, (0..10).map(line).collect::<String>()).unwrap();
    let set = CaptionSet::open(&path, None, "{}").unwrap();
    let (train, held_out) = set.split(0.2, 3);
    assert_eq!((train.len(), held_out.len()), (8, 2));
    let all: BTreeSet<_> = train.iter().chain(&held_out).collect();
    assert_eq!(all.len(), 10);

    let config = PretrainData { batch_size: 3, sides: vec![16, 32], ..PretrainData::default() };
    let build = |step| batch::training(&set, &train, &config, 5, step).unwrap();
    let seen: Vec<usize> = (0..16).flat_map(|step| build(step).captions).collect();
    for epoch in seen.chunks(8) {
        let numbers: BTreeSet<usize> = epoch.iter().copied().collect();
        assert_eq!(numbers, train.iter().copied().collect(), "{epoch:?}");
    }
    let (pixels, boxes) = build(4).upload(Device::Cpu).unwrap();
    assert!(build(4).upload(Device::Cpu).unwrap().0 == pixels);
    let side = pixels.size()[2] as f32 / 2.0;
    assert_eq!(boxes.size(), [3, 5]);
    let rows = Vec::<f32>::try_from(boxes.view([15])).unwrap();
    assert_eq!(rows[5..], [0.0, side, 0.0, 2.0 * side, side, 0.0, 0.0, side, side, 2.0 * side]);
}

#[test]
fn captions_that_are_wrong_are_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    RgbImage::new(8, 8).save(folder.path().join("a.png")).unwrap();
    let path = folder.path().join("c.jsonl");
    let good = r#"{"image": "a.png", "caption": "a cat"}"#;
    let cases: [(&[u8], &str); 9] = [
        (br#"{"image": "b.png", "caption": "a dog"}"#, "line 3: image: there is no file"),
        (br#"{"image": "a.png", "caption": " "}"#, "line 3: caption: empty"),
        (br#"{"image": "a.png", "caption": "a d"#, "line 3: EOF while parsing"),
        (br#"{"image": "a.png"}"#, "line 3: missing field `caption`"),
        (br#"{"image": "a.png", "text": "a dog"}"#, "line 3: unknown field `text`"),
        (br#"["a.png", 3]"#, "line 3: invalid type"),
        (b"{\"image\": \"a.png\", \"caption\": \"d\xFFg\"}", "line 3: not UTF-8 from byte 33 on"),
        (br#"{"image": "a.png", "caption": "x", "bbox": [1, 2, 0, 4]}"#, "line 3: bbox: expected"),
        (b"", "captions: expected at least 2 different ones, got 1"),
    ];
    for (line, says) in cases {
        // A blank line is none, but counts.
        fs_err::write(&path, [good.as_bytes(), b"\n\n", line].concat()).unwrap();
        let error = CaptionSet::open(&path, None, "{}").unwrap_err().to_string();
        assert!(error.contains("c.jsonl: ") && error.contains(says), "{says}: {error}");
        assert!(error.contains("hint: ") || error.contains("width, height"), "{error}");
    }
    // A box that no image has is found when the image is read.
    let outside = r#"{"image": "a.png", "caption": "x", "bbox": [9, 9, 4, 4]}"#;
    fs_err::write(&path, format!("\u{FEFF}{good}\r\n{outside}\r\n")).unwrap();
    let set = CaptionSet::open(&path, None, "{}").unwrap();
    let error = batch::whole(&set, &[0, 1], 16).unwrap_err().to_string();
    assert!(error.contains("a.png: bbox: ") && error.contains("8 x 8"), "{error}");
    // An image that is none is named as elsewhere.
    fs_err::write(folder.path().join("a.png"), "no image").unwrap();
    assert!(batch::whole(&set, &[0], 16).unwrap_err().to_string().contains("a.png"));
}

#[test]
fn boxes_of_an_annotation_file_are_captioned_with_their_class() {
    let folder = tempfile::tempdir().unwrap();
    let set = drawn(folder.path());
    let json = set.join("train.json");
    let captions = CaptionSet::open(&json, Some(&set.join("images")), "one {}!").unwrap();
    let dataset = Dataset::open(&json).unwrap();
    assert_eq!(captions.images().len(), dataset.annotations().len());
    let name = |c: &crate::vocabulary::Category| format!("one {}!", c.name);
    let names: BTreeSet<String> = dataset.vocabulary().categories().iter().map(name).collect();
    assert_eq!(captions.captions().iter().cloned().collect::<BTreeSet<_>>(), names);
    let first = &captions.images()[0];
    assert_eq!(first.region, Some(dataset.training_boxes(0)[0].0));
    assert_eq!(first.image, dataset.images()[0].file_name);
    // Boxes of one image are learned from, or evaluated on.
    let (train, held_out) = captions.split(0.3, 1);
    let images = |of: &[usize]| -> BTreeSet<&str> {
        of.iter().map(|&at| captions.images()[at].image.as_str()).collect()
    };
    assert!(images(&train).is_disjoint(&images(&held_out)));
    assert_eq!(train.len() + held_out.len(), captions.images().len());
    assert!(held_out.len() >= 3 && train.len() >= held_out.len(), "{}", held_out.len());

    let error = CaptionSet::open(&json, None, "{}").unwrap_err().to_string();
    assert!(error.contains("train.json: images: the folder"), "{error}");
}

#[test]
fn settings_that_cannot_be_are_named() {
    for (assignment, says) in [
        ("data.sides=[40]", "data.sides: expected multiples of 16"),
        ("data.sides=[]", "data.sides"),
        ("data.batch_size=1", "data.batch_size: expected 2"),
        ("data.least_area=1.5", "data.least_area: expected 0.01 to 1, got 1.5"),
        ("data.template=a cat", "data.template: no {}"),
        ("model.resolution=48", "model.resolution: expected a multiple of 32"),
        ("model.text_width=100", "model.text_width: expected 1 to 64, or a multiple of 64"),
        ("model.width=7", "model.width: expected an even number"),
        ("model.layers=[1,1]", "model.layers: expected four"),
        ("train.lr=nan", "train.lr: expected 0 to 1, got NaN"),
        ("data=[3]", "data: expected a table, got a list"),
        ("train.step=5", "did you mean `steps`?"),
        ("version=9", "version: expected 1, got 9"),
    ] {
        let error = PretrainConfig::load(None, &[assignment.to_owned()]).unwrap_err().to_string();
        assert!(error.contains(says), "{assignment}: {error}");
    }
    assert_eq!(PretrainConfig::load(None, &[]).unwrap(), PretrainConfig::default());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/pretrain_teacher.toml");
    let written = PretrainConfig::load(Some(&file), &[]).unwrap();
    assert_eq!(written, PretrainConfig::default(), "the file says that it is the defaults");
}

#[test]
fn the_rate_rises_then_falls_to_zero() {
    let config = PretrainConfig {
        train: PretrainSchedule { steps: 13, warmup_steps: 3, ..PretrainSchedule::default() },
        ..PretrainConfig::default()
    };
    let at = |step| (config.lr_factor(step) * 1e6).round() / 1e6;
    assert_eq!([at(0), at(2), at(3), at(8)], [0.25, 0.75, 1.0, 0.5]);
    assert!(at(12) < 0.03);
    // Shorter than its own rise.
    let mut short = config;
    short.train.steps = 2;
    assert_eq!(short.lr_factor(1), 0.5);
}

const COLOURS: [(&str, [f64; 3]); 4] = [
    ("red", [200., 40., 40.]),
    ("green", [40., 170., 60.]),
    ("blue", [50., 60., 200.]),
    ("white", [220.; 3]),
];

/// A noisy image of a colour, with a grey square somewhere.
fn coloured(colour: usize, item: u64) -> RgbImage {
    let mut random = Random::new(0, Stream::Test, 40 + colour as u64, item);
    let (x, y) = (random.below(20) as u32, random.below(20) as u32);
    RgbImage::from_fn(32, 32, |u, v| {
        let grey = (x..x + 12).contains(&u) && (y..y + 12).contains(&v);
        let base = if grey { [128.0; 3] } else { COLOURS[colour].1 };
        image::Rgb(base.map(|c| (c + 40.0 * random.normal()) as u8))
    })
}

/// Trains for seconds, on some images; asks about others.
#[test]
fn what_was_trained_opens_as_a_teacher_and_knows_new_images() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    for i in 0..80u64 {
        let (colour, file) = ((i % 4) as usize, format!("{i}.png"));
        coloured(colour, i).save(folder.path().join(&file)).unwrap();
        let caption = format!("a picture of a {}.", COLOURS[colour].0);
        lines += &format!("{{\"image\": {file:?}, \"caption\": {caption:?}}}\n");
    }
    let path = folder.path().join("captions.jsonl");
    fs_err::write(&path, lines).unwrap();
    let captions = CaptionSet::open(&path, None, "{}").unwrap();
    let mut settings = small(60);
    settings.data.sides = vec![32, 48];
    settings.data.held_out = 0.25;
    let mut steps = Quiet::default();
    let trained = pretrain(&settings, &captions, Device::Cpu, &mut steps, &GO).unwrap();
    assert_eq!(steps.0, (1..=60).collect::<Vec<_>>());
    let rows: Vec<u64> = trained.rows.iter().map(|row| row.step).collect();
    assert_eq!(rows, [10, 20, 30, 40, 50, 60]);
    // Eight of 32 with the same caption leave ln 8 = 2.08 at the least.
    let [first, .., last] = &trained.rows[..] else { panic!() };
    assert!(last.loss < first.loss - 0.3 && last.loss > 1.9, "{:?}", trained.rows);
    let held_out = trained.held_out.clone().unwrap();
    assert_eq!((held_out.images, held_out.captions), (20, 4));
    assert!(held_out.top1 >= 0.8 && held_out.chance < 0.5, "{held_out:?}");

    let weights = folder.path().join("teacher.safetensors");
    trained.save(&weights).unwrap();
    let metrics = fs_err::read_to_string(folder.path().join("teacher.metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 7);
    assert!(metrics.lines().last().unwrap().contains("\"top1\""));
    let templates = vec!["a picture of a {}.".into()];
    let config = TeacherConfig {
        weights: Some(weights),
        prepared: None,
        text: TeacherText::Prompts { set: PromptSet::Own, templates },
        precision: Precision::F32,
        vit: VitLabels::default(),
        activation: None,
    };
    let class = |(i, &(name, _)): (usize, &(&str, _))| category(i as i64 + 1, name);
    let vocabulary = Vocabulary::new(COLOURS.iter().enumerate().map(class).collect());
    let cache = folder.path().join("cache");
    let teacher =
        ClipTeacher::open_with_cache(&config, &vocabulary, Device::Cpu, Some(&cache)).unwrap();
    assert!((teacher.logit_scale() - trained.clip.logit_scale.double_value(&[])).abs() < 1e-6);

    // New images of the four, in a row: five of each.
    let (mut boxes, mut row) = (Vec::new(), RgbImage::new(20 * 32, 32));
    for i in 0..20u32 {
        let image = coloured(i as usize % 4, 1000 + u64::from(i));
        image::imageops::replace(&mut row, &image, i64::from(32 * i), 0);
        boxes.extend([0.0, 32.0 * i as f32, 0.0, 32.0 * (i + 1) as f32, 32.0]);
    }
    let boxes = Tensor::from_slice(&boxes).view([20, 5]);
    let row = Tensor::from_slice(row.as_raw()).view([1, 32, 640, 3]);
    let images = row.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
    let soft = teacher.label(&teacher.encode(&images).unwrap(), &boxes).unwrap();
    let best = Vec::<i64>::try_from(soft.logits.argmax(1, false)).unwrap();
    let right = best.iter().enumerate().filter(|&(i, &class)| i as i64 % 4 == class).count();
    // By chance, ten of twenty have a probability of 0.014.
    assert!(right >= 16, "{right} of 20: {best:?}");

    // The same numbers as the trained model's, up to the 16 bits of the file.
    let channels = |v: [f32; 3]| Tensor::from_slice(&v).view([1, 3, 1, 1]);
    let pixels = (images - channels(PIXELS.mean)) / channels(PIXELS.std);
    let Visual::Resnet(visual) = &trained.clip.visual else { panic!() };
    let own =
        torch_ext::no_grad(|| visual.embed_boxes(&visual.dense(&pixels, false).unwrap(), &boxes));
    let cosines = (l2_normalize(&own.unwrap()) * &soft.features).sum_dim_intlist(
        [1i64].as_slice(),
        false,
        None::<Kind>,
    );
    assert!(cosines.min().double_value(&[]) > 0.9999, "{cosines}");
}

#[test]
fn a_training_that_is_stopped_gives_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let captions =
        CaptionSet::open(&drawn(folder.path()).join("captions.jsonl"), None, "{}").unwrap();
    struct Stop<'a>(&'a AtomicBool);
    impl PretrainObserver for Stop<'_> {
        fn message(&mut self, _: &str) {}
        fn step(&mut self, done: u64, _: Option<&PretrainRow>) {
            assert!(done <= 2, "it goes on");
            self.0.store(done == 2, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let ended = pretrain(&small(1000), &captions, Device::Cpu, &mut Stop(&stop), &stop);
    assert!(matches!(ended, Err(Error::Stopped)), "{ended:?}");
}
