//! A file like LVIS v1's training annotations, of any fraction of its size.

use std::io::{Result, Write};

use crate::random::{Random, Stream};

/// How much [`write_lvis`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LvisCounts {
    /// Number of images.
    pub images: usize,
    /// Number of annotations.
    pub annotations: usize,
    /// Number of categories.
    pub categories: usize,
}

/// Writes LVIS v1 train's shape times `scale`: at 1.0, 100,170 images, 1,270,141 annotations,
/// 1,203 categories, about 1.1 GB, nearly all polygons. The same bytes for the same `scale`.
/// Annotations come before the images and categories they refer to, the harder order to read.
///
/// # Errors
/// What `out` returns.
pub fn write_lvis(out: &mut dyn Write, scale: f64) -> Result<LvisCounts> {
    let count = |full: f64| ((full * scale).round() as usize).max(1);
    let counts = LvisCounts {
        images: count(100_170.0),
        annotations: count(1_270_141.0),
        categories: count(1203.0),
    };
    out.write_all(
        br#"{"info": {"description": "the shape of LVIS v1 train", "version": "v1.0"}, "#,
    )?;
    out.write_all(br#""annotations": ["#)?;
    for i in 0..counts.annotations {
        write_annotation(out, i, counts)?;
    }
    out.write_all(br#"], "images": ["#)?;
    for i in 0..counts.images {
        write_image(out, i, counts)?;
    }
    out.write_all(br#"], "licenses": [{"url": "http://flickr.com/commons/usage/", "id": 7}], "#)?;
    out.write_all(br#""categories": ["#)?;
    for class in 0..counts.categories {
        write_category(out, class)?;
    }
    out.write_all(b"]}")?;
    Ok(counts)
}

fn image_id(image: usize) -> usize {
    3 * image + 30
}

fn category_id(class: usize) -> usize {
    class + 1
}

fn comma(position: usize) -> &'static str {
    if position == 0 { "" } else { ", " }
}

fn write_annotation(out: &mut dyn Write, i: usize, counts: LvisCounts) -> Result<()> {
    let mut random = Random::new(0, Stream::Test, 1, i as u64);
    // Squaring piles the annotations on few classes, as a long tail does.
    let class = (random.uniform().powi(2) * counts.categories as f64) as usize;
    let image = random.below(counts.images);
    let (w, h) = (random.between(100, 20_000), random.between(100, 20_000));
    let (x, y) = (random.below(64_000 - w), random.below(48_000 - h));
    write!(
        out,
        r#"{}{{"area": {}, "id": {}, "segmentation": [["#,
        comma(i),
        Cents(w * h / 150),
        i + 1
    )?;
    // Two coordinates of six or seven characters and two of punctuation a point.
    let points = 6 + (random.uniform().powi(2) * 125.0) as usize;
    for point in 0..points {
        let bits = random.bits();
        let (px, py) = (x + (bits as u32 as usize) % w, y + ((bits >> 32) as usize) % h);
        write!(out, "{}{}, {}", comma(point), Cents(px), Cents(py))?;
    }
    write!(
        out,
        r#"]], "image_id": {}, "bbox": [{}, {}, {}, {}], "category_id": {}}}"#,
        image_id(image),
        Cents(x),
        Cents(y),
        Cents(w),
        Cents(h),
        category_id(class)
    )
}

fn write_image(out: &mut dyn Write, i: usize, counts: LvisCounts) -> Result<()> {
    let mut random = Random::new(0, Stream::Test, 2, i as u64);
    let ids = |random: &mut Random, n: usize| -> String {
        let ids: Vec<String> =
            (0..n).map(|_| category_id(random.below(counts.categories)).to_string()).collect();
        ids.join(", ")
    };
    let few = random.below(14);
    let (neg, few) = (ids(&mut random, few), random.below(3));
    write!(
        out,
        r#"{}{{"date_captured": "2013-11-15 02:41:42", "neg_category_ids": [{neg}], "license": 4, "height": 480, "flickr_url": "http://farm5.staticflickr.com/4028/{i:010}_e4efa0bbee_z.jpg", "coco_url": "http://images.cocodataset.org/train2017/{:012}.jpg", "id": {}, "width": 640, "not_exhaustive_category_ids": [{}]}}"#,
        comma(i),
        image_id(i),
        image_id(i),
        ids(&mut random, few)
    )
}

fn write_category(out: &mut dyn Write, class: usize) -> Result<()> {
    write!(
        out,
        r#"{}{{"frequency": "c", "synset": "class_{class}.n.01", "image_count": 64, "id": {}, "synonyms": ["class_{class}"], "def": "braces }} and \" quotes {{ in text", "instance_count": 252, "name": "class_{class}"}}"#,
        comma(class),
        category_id(class)
    )
}

/// A number of hundredths, written with two decimals.
struct Cents(usize);

impl std::fmt::Display for Cents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}
