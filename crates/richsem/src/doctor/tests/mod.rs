//! Planted faults are found, clean sets say little, and the scheme is one that training takes.
#![allow(clippy::unwrap_used)]

mod images;
mod planted;
mod scheme;
mod sizes;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use image::{Rgb, RgbImage};

use super::*;
use crate::{
    data::image_io::Orientation,
    random::{Random, Stream},
};

/// An image of a few random rectangles: no two look the same.
pub(super) fn painted(key: u64, width: u32, height: u32) -> RgbImage {
    let mut random = Random::new(0, Stream::Test, 77, key);
    let mut colour = || Rgb(std::array::from_fn(|_| random.below(256) as u8));
    let mut image = RgbImage::from_pixel(width, height, colour());
    let mut random = Random::new(0, Stream::Test, 78, key);
    for _ in 0..12 {
        let ink = Rgb(std::array::from_fn(|_| random.below(256) as u8));
        let (x, y) = (random.below(width as usize) as u32, random.below(height as usize) as u32);
        let right = x + 1 + random.below(width as usize / 2) as u32;
        let bottom = y + 1 + random.below(height as usize / 2) as u32;
        for (px, py) in
            (y..bottom.min(height)).flat_map(|py| (x..right.min(width)).map(move |px| (px, py)))
        {
            image.put_pixel(px, py, ink);
        }
    }
    image
}

/// Encodes an image as JPEG.
pub(super) fn jpeg(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
    image.write_with_encoder(encoder).unwrap();
    bytes
}

/// A folder of images and annotation files.
pub(super) struct Folder(pub(super) tempfile::TempDir);

/// A box: image, class, `[x, y, width, height]`.
pub(super) type Boxed = (usize, i64, [f64; 4]);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes an annotation file of images of 100 by 80 pixels, and reads it.
    pub(super) fn annotations(
        &self,
        name: &str,
        files: &[String],
        boxes: &[Boxed],
        classes: &[(i64, &str)],
    ) -> Dataset {
        let images: Vec<_> = (0..)
            .zip(files)
            .map(|(id, file)| {
                serde_json::json!({"id": id, "file_name": file, "width": 100, "height": 80})
            })
            .collect();
        let annotations: Vec<_> = (1..)
            .zip(boxes)
            .map(|(id, (image, class, bbox))| {
                serde_json::json!({"id": id, "image_id": image, "category_id": class, "bbox": bbox})
            })
            .collect();
        let categories: Vec<_> =
            classes.iter().map(|(id, name)| serde_json::json!({"id": id, "name": name})).collect();
        let text = serde_json::json!({
            "images": images, "annotations": annotations, "categories": categories
        });
        let path = self.path(name);
        std::fs::write(&path, text.to_string()).unwrap();
        Dataset::open(&path).unwrap()
    }

    pub(super) fn store(&self) -> ImageStore {
        ImageStore::open(self.0.path(), Orientation::Exif).unwrap()
    }
}

/// Examines without a stop or a watcher.
pub(super) fn examined(parts: &[Part<'_>]) -> Examination {
    let stop = AtomicBool::new(false);
    let watch = Watch { stop: &stop, progress: &|_, _| {} };
    examine(parts, None, &Options::default(), &watch).unwrap()
}

/// The finding of a code.
pub(super) fn found<'a>(examination: &'a Examination, code: &str) -> Option<&'a Finding> {
    examination.findings.iter().find(|finding| finding.code == code)
}

/// Opens a set of the shared data.
pub(super) fn shared_set(annotations: &str, images: &str) -> Option<(Dataset, ImageStore)> {
    let path = crate::testing::shared(annotations)?;
    let images = crate::testing::shared(images)?;
    Some((Dataset::open(&path).unwrap(), open(&images)))
}

fn open(path: &Path) -> ImageStore {
    ImageStore::open(path, Orientation::Exif).unwrap()
}
