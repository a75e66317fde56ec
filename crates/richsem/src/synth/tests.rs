#![allow(clippy::unwrap_used)]

use super::*;
use hotcoco::{COCO, COCOeval, params::IouType};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

fn quiet(_: usize, _: usize) {}

/// The `stop` of tests that do not stop.
static GO: AtomicBool = AtomicBool::new(false);

fn small() -> SynthConfig {
    SynthConfig {
        seed: 7,
        classes: 12,
        train_images: 300,
        val_images: 60,
        image_size: (96, 128),
        objects_per_image: (2, 6),
        classification_per_class: 3,
        classification_size: 64,
        captioned_images: 0,
    }
}

/// Every file of a folder, by its path within.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs_err::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, fs_err::read(path).unwrap());
            }
        }
    }
    files
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[test]
fn the_bytes_depend_on_the_configuration_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = SynthConfig { train_images: 40, val_images: 20, ..small() };
    let draw = |name: &str, config: &SynthConfig, threads: usize| {
        let output = folder.path().join(name);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let report = pool.install(|| generate(config, &output, false, &GO, &quiet)).unwrap();
        (files(&output), report)
    };
    let one = draw("one", &config, 1);
    assert_eq!(one.0.len(), 40 + 20 + 12 * 3 + 3);
    assert!(one == draw("many", &config, 7));

    let (other, report) = draw("seed", &SynthConfig { seed: 8, ..config.clone() }, 2);
    assert!(one.0.iter().filter(|(name, bytes)| other[*name] == **bytes).count() == 0);
    let names = |r: &SynthReport| {
        r.vocabulary.categories().iter().map(|c| c.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&one.1), names(&report), "a seed does not change the classes");

    // More classification images leave the others as they were.
    let more = SynthConfig { classification_per_class: 5, ..config };
    let (more, _) = draw("more", &more, 2);
    for (name, bytes) in &one.0 {
        assert!(more[name] == *bytes || name == Path::new(readme::FILE), "{name:?}");
    }
}

#[test]
fn annotations_are_lvis_and_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("deep/set");
    let calls = std::sync::Mutex::new(Vec::new());
    let report = generate(&small(), &output, false, &GO, &|done, total| {
        calls.lock().unwrap().push((done, total))
    })
    .unwrap();
    let mut calls = calls.into_inner().unwrap();
    calls.sort_unstable();
    assert_eq!(calls, (1..=396).map(|i| (i, 396)).collect::<Vec<_>>());

    let mut image_ids = BTreeSet::new();
    for (split, images) in [("train", 300), ("val", 60)] {
        let file = json(&output.join(format!("{split}.json")));
        let categories = list(&file["categories"]);
        let ids: Vec<u64> = categories.iter().map(|c| number(&c["id"])).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13]);
        assert_eq!(list(&file["images"]).len(), images);

        let mut shown: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        let mut boxes: BTreeMap<u64, u64> = BTreeMap::new();
        let mut sizes = BTreeMap::new();
        for image in list(&file["images"]) {
            let (id, name) = (number(&image["id"]), image["file_name"].as_str().unwrap());
            assert!(image_ids.insert(id), "{id} twice");
            let size = image::image_dimensions(output.join("images").join(name)).unwrap();
            assert_eq!(
                (number(&image["width"]), number(&image["height"])),
                (size.0.into(), size.1.into())
            );
            assert!((96..=128).contains(&size.0) && (96..=128).contains(&size.1));
            sizes.insert(id, size);
        }
        for (index, record) in list(&file["annotations"]).iter().enumerate() {
            assert_eq!(number(&record["id"]), index as u64 + 1);
            let (image, class) = (number(&record["image_id"]), number(&record["category_id"]));
            assert!(ids.contains(&class));
            shown.entry(image).or_default().insert(class);
            *boxes.entry(class).or_default() += 1;
            let [x, y, w, h] = [0, 1, 2, 3].map(|i| record["bbox"][i].as_f64().unwrap());
            let (width, height) = sizes[&image];
            assert!(x >= 0.0 && y >= 0.0 && w >= 8.0 && h >= 8.0);
            assert!(x + w <= width.into() && y + h <= height.into());
            let area = record["area"].as_f64().unwrap();
            assert!(0.1 * w * h < area && area <= w * h, "{record}");
        }
        for image in list(&file["images"]) {
            let absent: BTreeSet<u64> =
                list(&image["neg_category_ids"]).iter().map(number).collect();
            let present = shown.get(&number(&image["id"])).cloned().unwrap_or_default();
            assert!(absent.is_disjoint(&present));
            assert_eq!(absent.len() + present.len(), 12);
        }
        for (position, category) in categories.iter().enumerate() {
            let id = number(&category["id"]);
            assert!(boxes[&id] >= if split == "val" { 15 } else { 3 }, "{category}");
            if split == "val" {
                assert_eq!(u64::from(report.val_instances[position]), boxes[&id]);
                continue;
            }
            let in_images = shown.values().filter(|classes| classes.contains(&id)).count();
            assert_eq!(number(&category["image_count"]), in_images as u64);
            assert_eq!(number(&category["instance_count"]), boxes[&id]);
            let letter = category["frequency"].as_str().unwrap();
            assert_eq!(letter, Frequency::of(in_images as u32).letter().to_string());
        }
    }
    use Frequency::{Common, Frequent, Rare};
    assert_eq!([Frequent, Common, Rare].map(|g| report.classes_of(g)), [4, 4, 4]);

    for category in report.vocabulary.categories() {
        let folder = output.join("classification").join(&category.name);
        assert_eq!(fs_err::read_dir(folder).unwrap().count(), 3);
    }
    let left: Vec<_> = fs_err::read_dir(folder.path().join("deep")).unwrap().collect();
    assert_eq!(left.len(), 1, "no temporary folder stays: {left:?}");
}

#[test]
fn an_independent_evaluator_finds_perfect_detections_perfect() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("set");
    let config = SynthConfig { classification_per_class: 0, ..small() };
    generate(&config, &output, false, &GO, &quiet).unwrap();
    assert!(!output.join("classification").exists());

    let truth = COCO::new(&output.join("val.json")).unwrap();
    assert!(truth.load_warnings().is_empty(), "{:?}", truth.load_warnings());
    let health = truth.healthcheck();
    assert!(health.errors.is_empty(), "{:?}", health.errors);

    let file = json(&output.join("val.json"));
    let detection = |image: &Value, class: &Value, bbox: Value, score: f64| serde_json::json!({"image_id": image, "category_id": class, "bbox": bbox, "score": score});
    let mut detections: Vec<Value> = list(&file["annotations"])
        .iter()
        .map(|a| detection(&a["image_id"], &a["category_id"], a["bbox"].clone(), 0.5))
        .collect();
    let evaluate = |detections: &[Value]| {
        let path = folder.path().join("detections.json");
        fs_err::write(&path, serde_json::to_vec(detections).unwrap()).unwrap();
        let truth = COCO::new(&output.join("val.json")).unwrap();
        let detections = truth.load_res(&path).unwrap();
        let mut evaluation = COCOeval::new_lvis(truth, detections, IouType::Bbox);
        evaluation.run().unwrap();
        evaluation.get_results(None, false)
    };
    let perfect = evaluate(&detections);
    for metric in ["AP", "APr", "APc", "APf"] {
        assert!((perfect[metric] - 1.0).abs() < 1e-9, "{metric}: {}", perfect[metric]);
    }
    // Absence is verified: detections of a class where it is not shown count as wrong.
    let class = Value::from(8);
    let shown: BTreeSet<u64> = (list(&file["annotations"]).iter())
        .filter(|a| a["category_id"] == class)
        .map(|a| number(&a["image_id"]))
        .collect();
    for image in list(&file["images"]).iter().filter(|i| !shown.contains(&number(&i["id"]))) {
        let bbox = serde_json::json!([0.0, 0.0, 9.0, 9.0]);
        detections.push(detection(&image["id"], &class, bbox, 0.9));
    }
    assert!(evaluate(&detections)["AP"] < 0.98);
}

#[test]
fn the_default_set_has_a_third_of_its_classes_in_each_group() {
    let config = SynthConfig { classification_per_class: 0, ..SynthConfig::default() };
    let folder = tempfile::tempdir().unwrap();
    let report = generate(&config, &folder.path().join("set"), false, &GO, &quiet).unwrap();
    use Frequency::{Common, Frequent, Rare};
    assert_eq!([Frequent, Common, Rare].map(|g| report.classes_of(g)), [14, 13, 13]);
    assert!(report.val_instances.iter().all(|&n| n >= 15), "{:?}", report.val_instances);
    assert!(report.vocabulary.categories().iter().all(|c| c.image_count >= 3));
}

#[test]
fn only_earlier_sets_are_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("set");
    let config = SynthConfig {
        classes: 2,
        train_images: 3,
        val_images: 2,
        classification_per_class: 0,
        ..small()
    };
    fs_err::create_dir(&output).unwrap();
    generate(&config, &output, false, &GO, &quiet).unwrap();
    let first = files(&output);

    let message = generate(&config, &output, false, &GO, &quiet).unwrap_err().to_string();
    assert!(message.contains("not empty") && message.contains("`overwrite`"), "{message}");
    let other = SynthConfig { seed: 1, ..config.clone() };
    generate(&other, &output, true, &GO, &quiet).unwrap();
    assert_ne!(files(&output), first);

    fs_err::write(output.join("thesis.tex"), "x").unwrap();
    let message = generate(&other, &output, true, &GO, &quiet).unwrap_err().to_string();
    assert!(message.contains("thesis.tex"), "{message}");
    fs_err::remove_file(output.join("thesis.tex")).unwrap();
    fs_err::write(output.join("README.md"), "My photographs").unwrap();
    let message = generate(&other, &output, true, &GO, &quiet).unwrap_err().to_string();
    assert!(message.contains("not made by"), "{message}");
    assert!(output.join("train.json").exists());
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_stopped_drawing_leaves_the_earlier_set() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("set");
    let small =
        SynthConfig { train_images: 30, val_images: 15, classification_per_class: 1, ..small() };
    for stop_at in [1, 20, 35, 50] {
        let stop = AtomicBool::new(false);
        let stopping = |done, _| {
            if done >= stop_at {
                stop.store(true, Ordering::Relaxed);
            }
        };
        let error = generate(&small, &output, false, &stop, &stopping).unwrap_err();
        assert!(matches!(error, Error::Stopped), "{error}");
        assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 0, "{stop_at}");
    }
}

#[test]
fn a_failed_drawing_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs_err::write(&file, "x").unwrap();
    let within = generate(&small(), &file.join("set"), false, &GO, &quiet).unwrap_err().to_string();
    assert!(within.contains(&file.display().to_string()), "{within}");
    let itself = generate(&small(), &file, true, &GO, &quiet).unwrap_err().to_string();
    assert!(itself.contains("is a file"), "{itself}");
    // `/proc` refuses new folders to everyone, root too.
    #[cfg(target_os = "linux")]
    {
        let nowhere = Path::new("/proc/richsem-set");
        let message = generate(&small(), nowhere, false, &GO, &quiet).unwrap_err().to_string();
        assert!(message.contains("/proc"), "{message}");
    }
    assert_eq!(fs_err::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn configurations_that_cannot_be_drawn_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("set");
    type Change = fn(&mut SynthConfig);
    let cases: [(&str, &str, Change); 13] = [
        ("classes", "1 to 600, got 0", |c| c.classes = 0),
        ("classes", "got 601", |c| c.classes = 601),
        ("train_images", "got 0", |c| c.train_images = 0),
        ("train_images", "fewer than the 12 classes", |c| c.train_images = 1),
        ("val_images", "got 0", |c| c.val_images = 0),
        ("val_images", "fewer than the 12 classes", |c| c.val_images = 1),
        ("image_size", "got 8 and 128", |c| c.image_size.0 = 8),
        ("image_size", "got 96 and 64", |c| c.image_size.1 = 64),
        ("objects_per_image", "got 7 and 6", |c| c.objects_per_image.0 = 7),
        ("objects_per_image", "got 0 and 0", |c| c.objects_per_image = (0, 0)),
        ("objects_per_image", "1 to 9, got 2 and 10", |c| c.objects_per_image.1 = 10),
        ("classification_size", "got 4", |c| c.classification_size = 4),
        ("classification_per_class", "got 184", |c| c.classification_per_class = usize::MAX),
    ];
    for (key, part, change) in cases {
        let mut config = small();
        change(&mut config);
        let error = generate(&config, &output, false, &GO, &quiet).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Config { key: k, .. } if k == key), "{key}: {message}");
        assert!(message.contains(part) && message.contains("hint: "), "{key}: {message}");
        assert!(!output.exists());
    }
    // The sizes of unwanted classification images do not matter.
    let none = SynthConfig { classification_per_class: 0, classification_size: 0, ..small() };
    none.validate().unwrap();
}

#[test]
fn captions_name_every_class_and_their_images_are_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("set");
    let plain = SynthConfig { train_images: 40, val_images: 20, ..small() };
    let config = SynthConfig { captioned_images: 36, ..plain.clone() };
    let report = generate(&config, &output, false, &GO, &quiet).unwrap();
    assert_eq!(report.captioned_images, 36);
    let (classes, _) = classes::vocabulary(12);
    let lines = fs_err::read_to_string(output.join("captions.jsonl")).unwrap();
    let mut two = 0;
    for (i, line) in lines.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (image, caption) = (line["image"].as_str().unwrap(), line["caption"].as_str().unwrap());
        assert_eq!(image, format!("captioned/{:06}.jpg", i + 1));
        let first = format!("a picture of a {}", classes[i % 12].name());
        assert!(caption.starts_with(&first) && caption.ends_with('.'), "{caption}");
        two += usize::from(caption.contains(" and a "));
    }
    // 36 times 0.4, give or take three standard deviations; some find no place.
    assert!((4..24).contains(&two), "{two}");
    let all = files(&output);
    let images: Vec<_> = all.iter().filter(|(p, _)| p.extension().unwrap() == "jpg").collect();
    let different: BTreeSet<&Vec<u8>> = images.iter().map(|(_, bytes)| *bytes).collect();
    assert_eq!((images.len(), different.len()), (40 + 20 + 36 + 36, 40 + 20 + 36 + 36));
    // All else is as without them, and such a set may be replaced.
    let without = folder.path().join("without");
    generate(&plain, &without, false, &GO, &quiet).unwrap();
    let kept = |path: &PathBuf| path != Path::new("README.md");
    assert!(files(&without).iter().filter(|(p, _)| kept(p)).all(|(p, bytes)| all[p] == *bytes));
    generate(&plain, &output, true, &GO, &quiet).unwrap();
    assert!(!output.join("captions.jsonl").exists());
}

#[test]
fn classes_are_distinct_and_share_their_attributes() {
    for count in [1, 2, 12, 40, 600] {
        let (classes, ranks) = classes::vocabulary(count);
        let names: BTreeSet<String> = classes.iter().map(Class::name).collect();
        assert_eq!(names.len(), count);
        assert!(classes.iter().map(Class::name).is_sorted());
        assert_eq!(ranks.iter().collect::<BTreeSet<_>>().len(), count);
        if count < 12 {
            continue;
        }
        // Most classes have a rival that differs from them in one attribute alone.
        let rivals = classes.iter().filter(|a| {
            classes.iter().any(|b| {
                let same = [a.texture == b.texture, a.colour == b.colour, a.shape == b.shape];
                same.iter().filter(|&&s| s).count() == 2
            })
        });
        assert!(rivals.count() * 3 >= count * 2, "{count}");
    }
}

#[test]
fn extreme_configurations_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = SynthConfig {
        classes: 1,
        train_images: 1,
        val_images: 1,
        image_size: (64, 64),
        objects_per_image: (1, 1),
        classification_per_class: 1,
        classification_size: 48,
        captioned_images: 0,
        seed: u64::MAX,
    };
    let report = generate(&tiny, &folder.path().join("tiny"), false, &GO, &quiet).unwrap();
    assert_eq!((report.train_boxes(), report.val_boxes()), (1, 1));

    // As crowded as it gets, with empty images among them.
    let crowded = SynthConfig {
        classes: 30,
        train_images: 60,
        val_images: 60,
        objects_per_image: (0, 16),
        image_size: (128, 300),
        classification_per_class: 0,
        ..tiny
    };
    let report = generate(&crowded, &folder.path().join("crowded"), false, &GO, &quiet).unwrap();
    let asked = 60 * 8;
    assert!(report.val_boxes() > asked * 7 / 10, "{} of about {asked}", report.val_boxes());
}
