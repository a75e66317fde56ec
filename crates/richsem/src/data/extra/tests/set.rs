use super::*;
use crate::data::{
    dataset::Dataset,
    extra::support::{class_folders, file, items, packed, vocabulary},
};

fn by_name(images: &Path) -> ExtraConfig {
    ExtraConfig { mapping: Some(MappingConfig::Name {}), ..ExtraConfig::new(images) }
}

fn open(config: &ExtraConfig) -> Result<ClassificationSet> {
    ClassificationSet::open(config, &vocabulary())
}

#[test]
fn folders_and_archives_give_the_same_images_in_the_same_order() {
    let folder = class_folders();
    let expected = [
        ("cat/a.png".to_owned(), vec![0], 0),
        ("cat/b.png".to_owned(), vec![0], 1),
        ("dog/sub/c.png".to_owned(), vec![1], 2),
    ];
    let set = open(&by_name(folder.path())).unwrap();
    assert_eq!(items(&set), expected);
    for prefix in ["", "sets/train"] {
        let (_kept, tar) = packed(folder.path(), prefix);
        // With a folder around them, `notes.txt` keeps company with the classes.
        let from_tar = open(&by_name(&tar)).unwrap();
        let mut got = items(&from_tar);
        for (name, _, _) in &mut got {
            *name = name.trim_start_matches(prefix).trim_start_matches('/').to_owned();
        }
        assert_eq!(got, expected);
        assert_eq!(from_tar.store().image(&from_tar.item(2).name).unwrap().dimensions(), (20, 10));
    }
}

#[test]
fn what_is_left_out_is_reported() {
    let folder = class_folders();
    fs_err::create_dir(folder.path().join("airplane")).unwrap();
    let set = open(&by_name(folder.path())).unwrap();
    let report = set.report();
    assert_eq!((report.images, report.classes, report.source_classes), (3, 2, 4));
    assert_eq!(report.images_by_frequency, [2, 1, 0]);
    assert_eq!(report.classes_by_frequency, [1, 1, 0]);
    assert_eq!(report.unmapped, [("yeti".to_owned(), 3)]);
    assert_eq!(report.empty, ["airplane"]);
    assert_eq!(
        report.to_string(),
        "3 classification images of 2 of the 3 classes: 2 of 1 rare, 1 of 1 common, 0 of 0 \
         frequent ones\n  1 of the set's 4 classes are not in the detection set, left out with \
         their 3 images: yeti (3)\n  1 class without images: airplane\n  passed over as no \
         images: 1 .db (cat/Thumbs.db), 1 .txt (cat/readme.txt), 1 hidden (cat/._a.png)"
    );
    let many = ExtraReport {
        unmapped: (0..25).map(|i| (format!("c{i}"), 2)).collect(),
        ..Default::default()
    };
    let text = many.to_string();
    assert!(text.contains("their 50 images") && text.contains("c9 (2) and 15 more"), "{text}");
}

const INFO: &str = r#"{"annotations": [], "images": [
    {"id": 11, "file_name": "dog/sub/c.png", "pos_category_ids": [2, 1, 2], "width": 1, "height": 1},
    {"id": 12, "file_name": "./cat/a.png", "pos_category_ids": [1]},
    {"id": 13, "file_name": "yeti/1.png", "pos_category_ids": [3]},
    {"id": 14, "file_name": "cat/b.png", "pos_category_ids": [1, 3]}],
  "categories": [{"id": 1, "name": "felis", "synset": "cat.n.01"},
    {"id": 2, "name": "dog", "synset": "dog.n.01"}, {"id": 3, "name": "yeti"}]}"#;

fn listed(text: &str) -> Result<ClassificationSet> {
    let folder = class_folders();
    let (_kept, info) = file("info.json", text);
    open(&ExtraConfig { info: Some(info), ..ExtraConfig::new(folder.path()) })
}

#[test]
fn a_list_gives_its_images_all_their_labels() {
    let set = listed(INFO).unwrap();
    assert_eq!(
        items(&set),
        [
            ("dog/sub/c.png".to_owned(), vec![1, 0], 11),
            ("cat/a.png".to_owned(), vec![0], 12),
            ("cat/b.png".to_owned(), vec![0], 14),
        ]
    );
    let report = set.report();
    assert_eq!(report.unmapped, [("yeti".to_owned(), 2)]);
    assert_eq!((report.images, report.images_by_frequency), (3, [3, 1, 0]));
    // The lists may come in any order.
    let (images, categories) = INFO.split_once("\"categories\"").unwrap();
    let images = images.trim_start_matches('{').trim_end().trim_end_matches(',');
    let swapped =
        format!("{{\"categories\"{}, {images}}}", categories.trim_end_matches('}').to_owned());
    assert_eq!(items(&listed(&swapped).unwrap()), items(&set));
}

#[test]
fn mistakes_in_a_list_are_named() {
    let with = |from: &str, to: &str| INFO.replacen(from, to, 1);
    for (text, expected) in [
        (String::new(), "info.json: top level: the file is empty"),
        (INFO[..INFO.len() / 2].to_owned(), "info.json: images"),
        ("{}".into(), "info.json: images: missing"),
        ("{\"images\": []}".into(), "info.json: categories: missing"),
        ("[]".into(), "info.json: top level: expected an object"),
        (with("[2, 1, 2]", "[2, 77]"), "images[0].pos_category_ids: 77 is not the id of any"),
        (with("[2, 1, 2]", "\"dog\""), "images[0].pos_category_ids: expected a list of category"),
        (with("\"pos_category_ids\": [1]", "\"x\": 1"), "images[1].pos_category_ids: missing"),
        (with("./cat/a.png", "../cat/a.png"), "images[1].file_name: the path leaves"),
        (with("./cat/a.png", "/cat/a.png"), "images[1].file_name: expected a relative path"),
        (with("\"id\": 2", "\"id\": 1"), "categories[1].id: 1 is also the id of categories[0]"),
        (with("dog/sub/c.png", "dog/c.png"), "there is no `dog/c.png`, which the list names"),
        (with("\"id\": 12", "\"id\": 1.5"), "images[1].id: expected an integer"),
    ] {
        let error = listed(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn sets_that_cannot_be_used_say_why() {
    let folder = class_folders();
    let error = |config: &ExtraConfig| open(config).unwrap_err().to_string();
    let text = error(&ExtraConfig::new(folder.path()));
    for expected in [
        "none of the set's 3 classes is one of the 3 detection classes (mapping by wnid)",
        "called `cat`, `dog`, `yeti`",
        "wnid `n02121620`",
        "`mapping = { by = \"name\" }` would find 2 of 3",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    let strangers = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(strangers.path().join("yeti")).unwrap();
    fs_err::create_dir_all(strangers.path().join("kraken")).unwrap();
    let text = error(&by_name(strangers.path()));
    assert!(text.contains("`kraken`, `yeti`") && text.contains("a mapping file"), "{text}");

    let text = error(&ExtraConfig::new(folder.path().join("nowhere")));
    assert!(text.contains("images: there is no such file or folder"), "{text}");
    let info = Some(folder.path().join("nowhere.json"));
    let text = error(&ExtraConfig { info, ..by_name(folder.path()) });
    assert!(text.contains("nowhere.json: info: there is no such"), "{text}");

    let text = error(&by_name(&folder.path().join("cat")));
    assert!(
        text.contains("no class folders among 4 files") && text.contains("`Thumbs.db`"),
        "{text}"
    );

    let empty = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(empty.path().join("cat")).unwrap();
    fs_err::create_dir_all(empty.path().join("dog")).unwrap();
    let text = error(&by_name(empty.path()));
    assert!(text.contains("no image is left") && text.contains("cat, dog"), "{text}");
}

#[test]
fn the_folders_of_splits_are_no_classes() {
    use crate::data::extra::support::image;
    let folder = tempfile::tempdir().unwrap();
    for name in ["train/dog/b.png", "train/cat/a.png", "train/.x/c.png", "valid/cat/d.png"] {
        image(folder.path(), name, 20, 10, 0);
    }
    image(folder.path(), "test/airplane/e.png", 20, 10, 0);
    let expected =
        [("train/cat/a.png".to_owned(), vec![0], 0), ("train/dog/b.png".to_owned(), vec![1], 1)];
    let set = open(&by_name(folder.path())).unwrap();
    assert_eq!(items(&set), expected);
    assert_eq!(set.report().other_splits, ["test", "valid"]);
    let text = set.report().to_string();
    for line in [
        "classes are those of `train`; not learned from: test, valid",
        "1 hidden folder (train/.x)",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let (_kept, tar) = packed(folder.path(), "sets");
    let from_tar = open(&by_name(&tar)).unwrap();
    assert_eq!(from_tar.item(1).name, "sets/train/dog/b.png");
    assert_eq!(from_tar.report().other_splits, ["test", "valid"]);
    // Mapped by nothing that fits: the message names classes, not splits.
    let text = open(&ExtraConfig::new(folder.path())).unwrap_err().to_string();
    assert!(text.contains("called `cat`, `dog`") && text.contains("would find 2 of 2"), "{text}");
}

#[test]
fn a_class_may_be_called_train() {
    use crate::data::extra::support::image;
    let folder = tempfile::tempdir().unwrap();
    // Images of its own: a vehicle, whatever the other one is.
    for name in ["train/a.png", "test/b.png", "cat/c.png"] {
        image(folder.path(), name, 20, 10, 0);
    }
    let set = open(&by_name(folder.path())).unwrap();
    assert_eq!(items(&set), [("cat/c.png".to_owned(), vec![0], 0)]);
    assert_eq!(set.report().unmapped, [("test".to_owned(), 1), ("train".to_owned(), 1)]);
    assert!(set.report().other_splits.is_empty());
}

#[test]
fn ultralytics_sample_of_class_folders_is_its_training_split() {
    let Some(path) = crate::testing::shared("samples/yolo/classify") else { return };
    let set = open(&by_name(&path)).unwrap();
    let names: Vec<String> = items(&set).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["train/cat/0.jpg", "train/dog/1.jpg"]);
    assert_eq!(set.report().other_splits, ["val"]);
    assert!(set.report().to_string().contains("1 hidden folder (train/.DS_Store_dir)"));
}

#[test]
fn archives_without_class_folders_say_what_is_there() {
    let flat = tempfile::tempdir().unwrap();
    fs_err::write(flat.path().join("n01440764.tar"), "x").unwrap();
    let (_kept, tar) = packed(flat.path(), "");
    let text = open(&ExtraConfig::new(&tar)).unwrap_err().to_string();
    assert!(text.contains("`n01440764.tar`") && text.contains("unpack each"), "{text}");

    let (_kept, tar) = packed(tempfile::tempdir().unwrap().path(), "");
    let text = open(&ExtraConfig::new(&tar)).unwrap_err().to_string();
    assert!(text.contains("no class folders among 0 files"), "{text}");

    let (_kept, tar) = file("set.tar", "");
    let text = open(&ExtraConfig::new(&tar)).unwrap_err().to_string();
    assert!(text.contains("set.tar: tar archive: the file is empty"), "{text}");
}

#[test]
fn the_benchmarks_archive_is_mapped_wholly_by_wnid() {
    let (Some(tar), Some(train)) = (
        crate::testing::shared("tinylvis/classification.tar"),
        crate::testing::shared("tinylvis/train.json"),
    ) else {
        return;
    };
    let vocabulary = Dataset::open(&train).unwrap().vocabulary().clone();
    let set = ClassificationSet::open(&ExtraConfig::new(&tar), &vocabulary).unwrap();
    let report = set.report();
    assert_eq!((set.len(), report.classes, report.source_classes), (4230, 40, 40));
    // 60 images a frequent class, 120 a common one, 150 a rare one.
    assert_eq!(report.classes_by_frequency, [11, 14, 15]);
    assert_eq!(report.images_by_frequency, [11 * 150, 14 * 120, 15 * 60]);
    assert!(report.unmapped.is_empty() && report.passed_over.is_empty());
    for i in (0..set.len()).step_by(97) {
        let item = set.item(i);
        let category = vocabulary.category(item.labels[0]);
        assert!(item.name.starts_with(category.wnid.as_deref().unwrap()), "{item:?}");
    }
    // The general map, by synset, finds the same.
    let Some(path) = crate::testing::shared("lvis/lvis_imagenet21k_wnid_map_DERIVED.json") else {
        return;
    };
    let config =
        ExtraConfig { mapping: Some(MappingConfig::File { path }), ..ExtraConfig::new(&tar) };
    let by_file = ClassificationSet::open(&config, &vocabulary).unwrap();
    assert_eq!(by_file.report(), report);
}
