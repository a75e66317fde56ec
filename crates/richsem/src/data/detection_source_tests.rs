use std::path::{Path, PathBuf};

use super::*;
use crate::data::{
    image_io::{self, Orientation},
    loader::Loader,
    sampler::{LastBatch, SamplerConfig},
    transforms::CropConfig,
};

/// `shared/data/..` beside the checkout, where real images lie; none elsewhere.
fn shared(path: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/data").join(path))
        .find(|candidate| candidate.exists());
    if found.is_none() {
        eprintln!("skipped: shared/data/{path} is not there");
    }
    found
}

/// A folder of `count` PNGs, 40 to 60 pixels a side, all of one colour: 10 · number. Each has a
/// box of class `number % 3`.
fn dataset(folder: &Path, count: u32) -> Vec<ImageEntry> {
    (0..count)
        .map(|i| {
            let (w, h) = (40 + i % 21, 60 - i % 17);
            let name = format!("{i}.png");
            let image = RgbImage::from_pixel(w, h, image::Rgb([10 * i as u8; 3]));
            image.save(folder.join(&name)).unwrap();
            ImageEntry {
                name,
                id: i64::from(i),
                size: Some([h, w]),
                boxes: vec![Xyxy([5.0, 6.0, 30.0, 31.0])],
                labels: vec![ClassIndex(i % 3)],
                knowledge: LabelKnowledge {
                    present: vec![ClassIndex(i % 3)],
                    ..Default::default()
                },
            }
        })
        .collect()
}

fn source(folder: &Path, entries: Vec<ImageEntry>, batch_size: usize) -> DetectionSource {
    DetectionSource {
        store: Arc::new(ImageStore::open(folder, Orientation::Exif).unwrap()),
        order: (0..entries.len() as u32).collect(),
        entries: Arc::new(entries),
        share: Share { batch_size, rank: 0, world: 1, last: LastBatch::Drop },
        transform: Transform::Eval(EvalTransformConfig { size: 40, max_size: 100 }),
        seed: 0,
        epoch: 0,
        pad_multiple: 32,
        broken: Arc::default(),
        on_broken: OnBroken::Replace,
        keep_originals: false,
    }
}

fn ids(batch: &Batch) -> Vec<i64> {
    batch.targets.iter().map(|t| t.image_id).collect()
}

fn contents(batch: &Batch) -> (Vec<i64>, Vec<u8>, Vec<Target>) {
    let pixels = Vec::try_from(&batch.images.contiguous().view([-1])).unwrap();
    (batch.images.size(), pixels, batch.targets.clone())
}

#[test]
fn a_batch_holds_its_slots_images_and_their_boxes() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = source(folder.path(), dataset(folder.path(), 10), 2);
    source.order.reverse();
    source.share = Share { batch_size: 2, rank: 1, world: 2, last: LastBatch::Drop };
    assert_eq!(source.batches().unwrap(), 2);
    let batch = source.build(1).unwrap();
    // (1 · 2 + 1) · 2 = slots 6 and 7 of the reversed order.
    assert_eq!(ids(&batch), [3, 2]);
    // 43 x 57 and 42 x 58 resized to a shorter side of 40, padded to 32s.
    assert_eq!(batch.targets[0].size, [53, 40]);
    assert_eq!(batch.targets[0].original_size, [57, 43]);
    assert_eq!(batch.images.size(), [2, 3, 64, 64]);
    assert_eq!(batch.images.double_value(&[0, 1, 20, 20]), 30.0);
    let expected = Xyxy([5.0, 6.0, 30.0, 31.0]).to_cxcywh(43, 57);
    for (got, expected) in batch.targets[0].boxes[0].0.iter().zip(expected.0) {
        assert!((got - expected).abs() < 1e-6);
    }
    assert!(batch.skipped.is_empty() && source.broken.summary().is_none());
}

#[test]
fn training_batches_do_not_depend_on_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let entries = dataset(folder.path(), 14);
    fs_err::write(folder.path().join("4.png"), b"broken").unwrap();
    let classes: Vec<_> = entries.iter().map(|e| e.labels.clone()).collect();
    let run = |workers, epoch| -> Vec<_> {
        let mut source = source(folder.path(), entries.clone(), 3);
        source.transform = Transform::Train(TransformConfig {
            flip: 0.5,
            scales: vec![32, 48, 64],
            max_size: 90,
            crop: CropConfig { probability: 0.5, resize: vec![40], min: 20, max: 40 },
        });
        source.epoch = epoch;
        source.order = SamplerConfig::ClassAware {}.epoch_order(&classes, 1, epoch).unwrap();
        let batches = source.batches().unwrap();
        Loader::new(Arc::new(source), 0..batches, workers, 3)
            .unwrap()
            .map(|batch| contents(&batch.unwrap()))
            .collect()
    };
    let one = run(1, 0);
    assert_eq!(one.len(), 4);
    assert!(run(2, 0) == one && run(7, 0) == one);
    assert!(run(1, 1) != one);
}

#[test]
fn an_image_drawn_twice_is_augmented_in_two_ways() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = source(folder.path(), dataset(folder.path(), 1), 8);
    source.order = vec![0; 8];
    let scales: Vec<u32> = (20..60).collect();
    let crop = CropConfig { probability: 0.0, ..CropConfig::default() };
    source.transform = Transform::Train(TransformConfig { flip: 0.0, scales, max_size: 90, crop });
    let mut sizes: Vec<_> = source.build(0).unwrap().targets.iter().map(|t| t.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert!(sizes.len() > 4, "{sizes:?}");
}

#[test]
fn broken_images_are_named_replaced_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut entries = dataset(folder.path(), 9);
    fs_err::write(folder.path().join("1.png"), b"no image").unwrap();
    fs_err::remove_file(folder.path().join("3.png")).unwrap();
    entries[4].size = Some([40, 44]);
    let (h, w) = (60 - 5, 40 + 5);
    entries[5].size = Some([w, h]);
    let mut source = source(folder.path(), entries, 3);
    source.broken = Arc::new(BrokenImages::new(4));

    let batch = source.build(0).unwrap();
    // 1 is replaced from behind the batch; 3, 4 and 5 there are broken too.
    assert_eq!(ids(&batch), [0, 6, 2]);
    assert_eq!(batch.skipped.len(), 4);
    for (text, expected) in batch.skipped.iter().zip([
        "1.png: image: expected JPEG, PNG",
        "3.png",
        "expected 44 x 40 pixels as listed, got 44 x 56",
        "resized or replaced",
    ]) {
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(contents(&source.build(0).unwrap()), contents(&batch), "again the same");
    let names: Vec<_> = source.broken.list().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["1.png", "3.png", "4.png", "5.png"]);
    let summary = source.broken.summary().unwrap();
    assert!(summary.starts_with("4 images could not be read") && summary.contains("3.png"));

    source.broken = Arc::new(BrokenImages::new(3));
    let text = source.build(0).unwrap_err().to_string();
    assert!(
        text.contains("allowed 3") && text.contains("1.png") && text.contains("hint"),
        "{text}"
    );

    // Every image broken, yet fewer than allowed.
    for i in 0..9 {
        fs_err::write(folder.path().join(format!("{i}.png")), b"").unwrap();
    }
    source.broken = Arc::default();
    let text = source.build(0).unwrap_err().to_string();
    assert!(text.contains("too few images can be read"), "{text}");
}

/// Which frame the boxes are in: told where the size shows it, noted where it cannot.
#[test]
fn images_with_an_exif_orientation_are_checked_against_their_annotations() {
    use image_io::tests::jpeg_with_exif;
    let folder = tempfile::tempdir().unwrap();
    // Stored as 40 × 30, and 32 × 32.
    for (exif, side) in [(1, 30), (3, 30), (6, 30), (8, 32)] {
        let width = if side == 30 { 40 } else { 32 };
        let bytes = jpeg_with_exif(&RgbImage::new(width, side), exif);
        fs_err::write(folder.path().join(format!("{exif}.jpg")), bytes).unwrap();
    }
    let mut entry = dataset(folder.path(), 1).remove(0);
    let read = |store: &ImageStore, entry: &ImageEntry| match entry.read(store) {
        Ok(image) => format!("{:?}", image.dimensions()),
        Err(error) => error.to_string(),
    };
    let viewed = ImageStore::open(folder.path(), Orientation::Exif).unwrap();
    let stored = ImageStore::open(folder.path(), Orientation::Stored).unwrap();
    for (exif, size, as_viewed, as_stored, noted) in [
        (1, Some([30, 40]), "(40, 30)", "(40, 30)", false),
        (3, Some([30, 40]), "(40, 30)", "(40, 30)", true),
        (6, Some([40, 30]), "(30, 40)", "leave out orientation = \"stored\"", false),
        (6, Some([30, 40]), "set orientation = \"stored\"", "(40, 30)", false),
        (6, Some([30, 41]), "resized or replaced", "resized or replaced", false),
        (6, None, "(30, 40)", "(40, 30)", true),
        (8, Some([32, 32]), "(32, 32)", "(32, 32)", true),
    ] {
        (entry.name, entry.size) = (format!("{exif}.jpg"), size);
        let viewed_before = ImageStore::open(folder.path(), Orientation::Exif).unwrap();
        let got = read(&viewed_before, &entry);
        assert!(got.contains(as_viewed), "{exif} {size:?}: {got}");
        assert_eq!(viewed_before.turned("x").is_some(), noted, "{exif} {size:?}");
        let got = read(&stored, &entry);
        assert!(got.contains(as_stored), "{exif} {size:?} stored: {got}");
        let _ = read(&viewed, &entry);
    }
    for (store, value) in [(viewed, "stored"), (stored, "exif")] {
        let note = store.turned("the setting").unwrap();
        assert!(note.starts_with("3 images, as `3.jpg`, "), "{note}");
        assert!(note.ends_with(&format!("set the setting to {value}")), "{note}");
    }
}

#[test]
fn evaluation_leaves_broken_images_out() {
    let folder = tempfile::tempdir().unwrap();
    let entries = dataset(folder.path(), 5);
    for i in [1, 4] {
        fs_err::write(folder.path().join(format!("{i}.png")), b"").unwrap();
    }
    let mut source = source(folder.path(), entries, 2);
    source.on_broken = OnBroken::LeaveOut;
    source.share.last = LastBatch::Short;
    assert_eq!(source.batches().unwrap(), 3);
    let seen: Vec<_> = (0..3).map(|p| ids(&source.build(p).unwrap())).collect();
    assert_eq!(seen, [vec![0], vec![2, 3], vec![]]);
    assert_eq!(source.broken.list().len(), 2);
}

#[test]
fn an_order_that_does_not_fit_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = source(folder.path(), dataset(folder.path(), 2), 1);
    source.order = vec![2];
    assert!(source.build(0).is_err());
    source.order = vec![];
    assert!(source.build(0).is_err());
}

#[test]
fn real_photographs_become_batches() {
    let Some(folder) = shared("photos/coco_mini/images") else { return };
    let mut names: Vec<String> = fs_err::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let entries: Vec<_> = names
        .into_iter()
        .map(|name| {
            let [h, w] = image_io::size(&folder.join(&name), Orientation::Exif).unwrap();
            ImageEntry {
                name,
                id: 0,
                size: Some([h, w]),
                boxes: vec![Xyxy([0.0, 0.0, w as f32, h as f32])],
                labels: vec![ClassIndex(0)],
                knowledge: LabelKnowledge::default(),
            }
        })
        .collect();
    assert_eq!(entries.len(), 150);
    let mut source = source(&folder, entries, 4);
    source.transform = Transform::Train(TransformConfig::default());
    source.share.last = LastBatch::Short;
    let broken = Arc::clone(&source.broken);
    let batches = source.batches().unwrap();
    let mut images = 0;
    for batch in Loader::new(Arc::new(source), 0..batches, 2, 4).unwrap() {
        let batch = batch.unwrap();
        images += batch.len();
        let [_, _, h, w] = batch.images.size()[..] else { unreachable!("four dimensions") };
        assert!(h % 32 == 0 && w % 32 == 0 && h.max(w) <= 1344);
        // Nothing but padding beyond each image, nothing masked within.
        for (i, target) in (0..).zip(&batch.targets) {
            let mask = batch.mask.get(i);
            let [th, tw] = target.size.map(i64::from);
            let inside = mask.narrow(0, 0, th).narrow(1, 0, tw);
            assert_eq!(inside.sum(tch::Kind::Int64).int64_value(&[]), 0);
            assert_eq!(mask.sum(tch::Kind::Int64).int64_value(&[]), h * w - th * tw);
        }
    }
    assert_eq!((images, broken.list()), (150, vec![]));
}

#[test]
fn real_archives_are_read_in_place() {
    let Some(path) = shared("tinylvis/images.tar") else { return };
    let store = ImageStore::open(&path, Orientation::Exif).unwrap();
    let names = store.files("").unwrap();
    assert_eq!(names.len(), 1076 + 405);
    for name in names.iter().take(100) {
        let image = store.image(name).unwrap();
        assert_eq!(image.dimensions(), (256, 256), "{name}");
    }
}

/// Sizes of images of COCO and LVIS, (width, height), and about how many of a hundred have them.
const LVIS_SIZES: [((u32, u32), usize); 12] = [
    ((640, 480), 30),
    ((640, 427), 21),
    ((480, 640), 11),
    ((427, 640), 8),
    ((640, 426), 6),
    ((640, 425), 5),
    ((500, 375), 5),
    ((640, 360), 4),
    ((640, 640), 3),
    ((612, 612), 3),
    ((500, 333), 2),
    ((375, 500), 2),
];

/// In training the images of a step are dealt out to the devices by their shape. The step has the images that it had,
/// each as it was augmented, and the device with the largest batch has less to do.
/// `cargo test --release -p richsem --lib dealt_out -- --nocapture` prints how much.
#[test]
fn the_images_of_a_step_are_dealt_out_by_their_shape() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = LVIS_SIZES.iter().flat_map(|&(size, count)| std::iter::repeat_n(size, 20 * count));
    let entries: Vec<ImageEntry> = sizes
        .zip(0..)
        .map(|((w, h), id)| ImageEntry {
            name: format!("{id}.png"),
            id,
            size: Some([h, w]),
            boxes: Vec::new(),
            labels: Vec::new(),
            knowledge: LabelKnowledge::default(),
        })
        .collect();
    let classes = vec![Vec::new(); entries.len()];
    let order = SamplerConfig::default().epoch_order(&classes, 3, 0).unwrap();
    let mut source = source(folder.path(), entries, 2);
    source.transform = Transform::Train(TransformConfig::default());
    source.order = order;
    let area = |source: &DetectionSource, position| {
        source.shape(position).unwrap().iter().product::<i64>() as f64
    };
    for (batch_size, world, least) in [(2, 2, 0.02), (2, 8, 0.05), (4, 8, 0.05), (2, 64, 0.1)] {
        let share = |rank, world| Share { batch_size, rank, world, last: LastBatch::Drop };
        source.share = share(0, world);
        let steps = source.batches().unwrap();
        let (mut slowest, mut mean) = ([0.0; 2], [0.0; 2]);
        for step in 0..steps {
            let (mut seen, mut all): (Vec<usize>, Vec<usize>) = Default::default();
            let mut areas = [Vec::new(), Vec::new()];
            for rank in 0..world {
                // As it was: the step cut into pieces.
                source.share = share(0, 1);
                let position = step * world as u64 + rank as u64;
                areas[0].push(area(&source, position));
                all.extend(source.slots(position).0);
                source.share = share(rank, world);
                areas[1].push(area(&source, step));
                let (slots, after) = source.slots(step);
                assert!(slots.len() == batch_size && after == (position as usize + 1) * batch_size);
                seen.extend(slots);
            }
            seen.sort_unstable();
            assert_eq!(seen, all);
            for (how, areas) in areas.into_iter().enumerate() {
                slowest[how] += areas.iter().copied().fold(0.0, f64::max) / steps as f64;
                mean[how] += areas.iter().sum::<f64>() / world as f64 / steps as f64;
            }
        }
        let saved = 1.0 - slowest[1] / slowest[0];
        println!(
            "{world} × {batch_size}: largest batch over the mean {:.2} cut, {:.2} dealt out; the largest has \
             {:.1} % fewer pixels, the mean {:.1} %",
            slowest[0] / mean[0],
            slowest[1] / mean[1],
            100.0 * saved,
            100.0 * (1.0 - mean[1] / mean[0])
        );
        assert!(saved > least, "{world} × {batch_size}: {saved}");
    }
    // Evaluation has an order of its own.
    source.share = Share { batch_size: 2, rank: 1, world: 2, last: LastBatch::Short };
    source.transform = Transform::Eval(EvalTransformConfig { size: 40, max_size: 100 });
    assert_eq!(source.slots(1), (vec![6, 7], 8));
}
