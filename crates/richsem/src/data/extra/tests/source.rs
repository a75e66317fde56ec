use std::path::Path;

use super::*;
use crate::{
    data::{
        extra::{
            MappingConfig,
            support::{image, vocabulary},
        },
        loader::Loader,
        sampler::LastBatch,
        transforms::CropConfig,
    },
    targets::Target,
    vocabulary::ClassIndex,
};

/// Images 0 to 19, of colour 10 · number; the first ten are cats, the others dogs.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..20 {
        let class = if i < 10 { "cat" } else { "dog" };
        image(folder.path(), &format!("{class}/{i:02}.png"), 30 + i, 40, 10 * i as u8);
    }
    folder
}

fn set(folder: &Path, mapping: MappingConfig) -> Arc<ClassificationSet> {
    let config = ExtraConfig { mapping: Some(mapping), ..ExtraConfig::new(folder) };
    Arc::new(ClassificationSet::open(&config, &vocabulary()).unwrap())
}

fn feed(rank: usize, world: usize) -> FeedConfig {
    FeedConfig {
        seed: 3,
        share: Share { batch_size: 2, rank, world, last: LastBatch::Drop },
        augment: TransformConfig {
            flip: 0.5,
            scales: vec![32],
            max_size: 64,
            crop: CropConfig { probability: 0.0, ..CropConfig::default() },
        },
        pad_multiple: 32,
        batches_per_epoch: 2,
    }
}

fn source(folder: &Path, form: FormConfig) -> ExtraSource {
    let config = ExtraConfig { form, ..ExtraConfig::new(folder) };
    ExtraSource::new(set(folder, MappingConfig::Name {}), &config, feed(0, 1), Arc::default())
        .unwrap()
}

fn contents(batch: &Batch) -> (Vec<i64>, Vec<u8>, Vec<Target>) {
    let pixels = Vec::try_from(&batch.images.contiguous().view([-1])).unwrap();
    (batch.images.size(), pixels, batch.targets.clone())
}

fn ids(source: &ExtraSource, position: u64) -> Vec<i64> {
    source.build(position).unwrap().targets.iter().map(|t| t.image_id).collect()
}

#[test]
fn mosaics_show_four_images_each_with_its_label() {
    let folder = folder();
    let source = source(folder.path(), FormConfig::Mosaic { tile: 48 });
    assert_eq!(source.images_per_batch(), 8);
    let batch = source.build(0).unwrap();
    assert_eq!(batch.images.size(), [2, 3, 96, 96]);
    assert_eq!(batch.mask.any().double_value(&[]), 0.0, "the canvas has no padding");
    let mut shown = Vec::new();
    for (i, target) in (0..).zip(&batch.targets) {
        assert_eq!((target.size, target.boxes.len()), ([96, 96], 4));
        for (bbox, label) in target.boxes.iter().zip(&target.labels) {
            // The colour in the middle of the box tells which image it is.
            let [cx, cy, ..] = bbox.0.map(|v| (v * 96.0) as i64);
            let number = batch.images.double_value(&[i, 0, cy, cx]) as u32 / 10;
            assert_eq!(*label, ClassIndex(u32::from(number >= 10)));
            shown.push(number);
        }
        let mut present = target.labels.clone();
        present.sort_unstable();
        present.dedup();
        let known = LabelKnowledge { present, ..Default::default() };
        assert_eq!(target.knowledge, known, "nothing is known of other classes");
    }
    shown.sort_unstable();
    shown.dedup();
    assert_eq!(shown.len(), 8, "eight different ones of the first pass");
}

#[test]
fn single_images_are_augmented_as_detection_images_are() {
    let folder = folder();
    let batch = source(folder.path(), FormConfig::Single {}).build(3).unwrap();
    for target in &batch.targets {
        let width = 30 + target.image_id as u32;
        assert_eq!(target.original_size, [40, width]);
        assert_eq!(target.size.iter().min(), Some(&32), "the shorter side, by `scales`");
        assert_eq!(target.boxes, [Xyxy([0.0, 0.0, 1.0, 1.0]).to_cxcywh(1, 1)], "all of it");
        assert_eq!(target.labels, [ClassIndex(u32::from(target.image_id >= 10))]);
    }
}

#[test]
fn a_set_has_its_own_settings() {
    let folder = folder();
    let config = ExtraConfig {
        form: FormConfig::Single {},
        batch_size: Some(5),
        augment: Some(TransformConfig { scales: vec![20], ..feed(0, 1).augment }),
        supervision: Supervision { l1: false, ..Supervision::default() },
        ..ExtraConfig::new(folder.path())
    };
    let set = set(folder.path(), MappingConfig::Name {});
    let batch =
        ExtraSource::new(set, &config, feed(0, 1), Arc::default()).unwrap().build(0).unwrap();
    assert_eq!((batch.len(), &batch.supervision), (5, &config.supervision));
    assert!(batch.targets.iter().all(|t| t.size.iter().min() == Some(&20)));
}

#[test]
fn batches_depend_on_seed_position_and_rank_alone() {
    let folder = folder();
    let set = set(folder.path(), MappingConfig::Name {});
    let augment = TransformConfig {
        flip: 0.5,
        scales: vec![32, 48, 64],
        max_size: 90,
        crop: CropConfig { probability: 0.5, resize: vec![40], min: 20, max: 40 },
    };
    for order in [OrderConfig::Shuffled, OrderConfig::Official] {
        let config = ExtraConfig {
            order,
            form: FormConfig::Mosaic { tile: 40 },
            augment: Some(augment.clone()),
            ..ExtraConfig::new(folder.path())
        };
        let make = |seed, rank| {
            let feed = FeedConfig { seed, ..feed(rank, 2) };
            Arc::new(ExtraSource::new(Arc::clone(&set), &config, feed, Arc::default()).unwrap())
        };
        let run = |source, positions, workers| -> Vec<_> {
            let batches = Loader::new(source, positions, workers, 3).unwrap();
            batches.map(|batch| contents(&batch.unwrap())).collect()
        };
        let whole = run(make(3, 0), 0..9, 1);
        assert!(run(make(3, 0), 0..9, 3) == whole, "whatever the threads");
        assert!(run(make(3, 0), 5..9, 2) == whole[5..], "resumed at any position");
        assert!(run(make(4, 0), 0..9, 1) != whole && run(make(3, 1), 0..9, 1) != whole);
    }
}

#[test]
fn all_labels_have_a_box_and_officially_the_first() {
    let folder = folder();
    let map = folder.path().join("map.json");
    fs_err::write(&map, r#"{"cat": ["dog", "cat"], "dog": "airplane"}"#).unwrap();
    let set = set(folder.path(), MappingConfig::File { path: map });
    for (order, expected) in [(OrderConfig::Shuffled, vec![1, 0]), (OrderConfig::Official, vec![1])]
    {
        let config =
            ExtraConfig { order, form: FormConfig::Single {}, ..ExtraConfig::new(folder.path()) };
        let source =
            ExtraSource::new(Arc::clone(&set), &config, feed(0, 1), Arc::default()).unwrap();
        let targets = (0..10).flat_map(|p| source.build(p).unwrap().targets);
        for target in targets.filter(|t| t.image_id < 10) {
            let labels: Vec<u32> = target.labels.iter().map(|c| c.0).collect();
            assert_eq!((labels, target.boxes.len()), (expected.clone(), expected.len()));
            let mut present = expected.clone();
            present.sort_unstable();
            let present: Vec<_> = present.into_iter().map(ClassIndex).collect();
            assert_eq!(target.knowledge.present, present);
        }
    }
}

#[test]
fn broken_images_are_named_and_replaced_from_behind_the_batch() {
    let folder = folder();
    let whole = source(folder.path(), FormConfig::Single {});
    let [broken, kept] = ids(&whole, 0)[..] else { panic!("two a batch") };
    let next = ids(&whole, 1);
    let class = if broken < 10 { "cat" } else { "dog" };
    let name = format!("{class}/{broken:02}.png");
    fs_err::write(folder.path().join(&name), "no image").unwrap();
    let source = source(folder.path(), FormConfig::Single {});
    let batch = source.build(0).unwrap();
    let got: Vec<i64> = batch.targets.iter().map(|t| t.image_id).collect();
    assert_eq!(got, [next[0], kept]);
    assert!(batch.skipped.len() == 1 && batch.skipped[0].contains(&name), "{:?}", batch.skipped);
    assert_eq!(source.broken.list()[0].0, name);

    for i in 0..20 {
        let class = if i < 10 { "cat" } else { "dog" };
        fs_err::write(folder.path().join(format!("{class}/{i:02}.png")), "").unwrap();
    }
    let text = source.build(0).unwrap_err().to_string();
    assert!(text.contains("more than the allowed 10 images"), "{text}");
}

#[test]
fn real_images_become_mosaics() {
    let (Some(tar), Some(train)) = (
        crate::testing::shared("tinylvis/classification.tar"),
        crate::testing::shared("tinylvis/train.json"),
    ) else {
        return;
    };
    let vocabulary = crate::data::dataset::Dataset::open(&train).unwrap().vocabulary().clone();
    let config = ExtraConfig { form: FormConfig::Mosaic { tile: 224 }, ..ExtraConfig::new(&tar) };
    let set = Arc::new(ClassificationSet::open(&config, &vocabulary).unwrap());
    let feed = FeedConfig { augment: TransformConfig::default(), ..feed(0, 1) };
    let source = ExtraSource::new(set, &config, feed, Arc::default()).unwrap();
    for position in 0..4 {
        let batch = source.build(position).unwrap();
        assert_eq!(batch.images.size(), [2, 3, 448, 448]);
        assert!(batch.skipped.is_empty() && batch.targets.iter().all(|t| t.boxes.len() == 4));
    }
}
