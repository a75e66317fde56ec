use image::RgbImage;

use super::*;
use crate::{
    boxes::Xyxy,
    data::{
        detection_source::{BrokenImages, DetectionSource, ImageEntry, OnBroken, Transform},
        image_io::Orientation,
        image_store::ImageStore,
        sampler::{LastBatch, Share},
        transforms::EvalTransformConfig,
    },
};

#[test]
fn sources_take_turns_by_weight() {
    assert_eq!(cycle(&[1]), [0].map(SourceId));
    assert_eq!(cycle(&[1, 1]), [0, 1].map(SourceId));
    assert_eq!(cycle(&[2, 1]), [0, 1, 0].map(SourceId));
    assert_eq!(cycle(&[1, 1, 1]), [0, 1, 2].map(SourceId));
    assert_eq!(cycle(&[3, 2]), [0, 1, 0, 1, 0].map(SourceId));
    // It starts with detection data however little of that there is.
    assert_eq!(cycle(&[1, 2]), [0, 1, 1].map(SourceId));
}

/// Batches without images that carry their own position.
struct Numbered;

impl BatchSource for Numbered {
    fn build(&self, position: u64) -> Result<Batch> {
        Batch::collate(Vec::new(), vec![format!("extra {position}")], 1)
    }
}

/// Three detection batches an epoch, of one image each.
fn detection(epochs: u64, folder: &std::path::Path) -> Arc<Epochs> {
    RgbImage::new(8, 8).save(folder.join("a.png")).unwrap();
    let store = Arc::new(ImageStore::open(folder, Orientation::Exif).unwrap());
    let entry = |id| ImageEntry {
        name: "a.png".into(),
        id,
        size: None,
        boxes: vec![Xyxy([0.0, 0.0, 4.0, 4.0])],
        labels: vec![crate::vocabulary::ClassIndex(0)],
        knowledge: Default::default(),
    };
    let entries = Arc::new((0..3).map(entry).collect::<Vec<_>>());
    let broken = Arc::new(BrokenImages::default());
    let make = move |epoch| {
        Ok(DetectionSource {
            store: Arc::clone(&store),
            entries: Arc::clone(&entries),
            order: vec![0, 1, 2],
            share: Share { batch_size: 1, rank: 0, world: 1, last: LastBatch::Drop },
            transform: Transform::Eval(EvalTransformConfig { size: 8, max_size: 8 }),
            seed: 0,
            epoch,
            pad_multiple: 1,
            broken: Arc::clone(&broken),
            on_broken: OnBroken::Replace,
            keep_originals: false,
        })
    };
    Arc::new(Epochs::new(epochs, 1, make).unwrap())
}

/// What a row delivers, as words.
fn row(weight: u32, extra: u32) -> (Vec<String>, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    let extras = match extra {
        0 => Vec::new(),
        weight => vec![Extra { name: "more".into(), source: Arc::new(Numbered), weight }],
    };
    let row = Interleaved::new(detection(2, folder.path()), weight, extras);
    let said = (0..row.total()).map(|position| {
        let batch = row.build(position).unwrap();
        match row.sources().extra(batch.source) {
            None => format!("image {}", batch.targets[0].image_id),
            Some(name) => {
                assert_eq!(name, "more");
                batch.skipped[0].clone()
            }
        }
    });
    (said.collect(), (0..2).map(|epoch| row.batches(epoch)).collect())
}

#[test]
fn every_source_goes_on_where_it_stopped() {
    let (said, epochs) = row(1, 1);
    let expected = [
        "image 0", "extra 0", "image 1", "extra 1", "image 2", "extra 2", //
        "image 0", "extra 3", "image 1", "extra 4", "image 2", "extra 5",
    ];
    assert_eq!(said, expected);
    assert_eq!(epochs, [6, 6]);
}

#[test]
fn without_extra_data_the_row_is_the_detection_data() {
    let (said, epochs) = row(1, 0);
    assert_eq!(said, ["image 0", "image 1", "image 2", "image 0", "image 1", "image 2"]);
    assert_eq!(epochs, [3, 3]);
}

#[test]
fn weights_hold_across_epochs() {
    let (said, epochs) = row(2, 1);
    assert_eq!(said.iter().filter(|s| s.starts_with("extra")).count(), 3);
    assert_eq!(said.len() as u64, epochs.iter().sum::<u64>());
    let (said, epochs) = row(1, 2);
    assert_eq!(said.iter().filter(|s| s.starts_with("extra")).count(), 12);
    assert_eq!(epochs, [9, 9]);
}
