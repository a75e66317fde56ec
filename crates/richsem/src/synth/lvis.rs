//! The annotation files, as LVIS v1 has them.

use super::{
    classes::{Class, category_id},
    scene::Seen,
};
use crate::{
    Result,
    boxes::Xywh,
    vocabulary::{Category, CategoryId, Frequency},
};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct File<'a> {
    info: Info,
    licenses: [(); 0],
    categories: Vec<CategoryRecord<'a>>,
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Serialize)]
struct Info {
    description: String,
    version: &'static str,
}

#[derive(Serialize)]
struct CategoryRecord<'a> {
    #[serde(flatten)]
    category: &'a Category,
    def: String,
    synonyms: [&'a str; 1],
}

#[derive(Serialize)]
struct Image {
    id: usize,
    file_name: String,
    width: u32,
    height: u32,
    /// Every class is annotated completely in every image, …
    not_exhaustive_category_ids: [i64; 0],
    /// … so each one that is not annotated is absent, and a detection of it is wrong.
    neg_category_ids: Vec<i64>,
}

#[derive(Serialize)]
struct Annotation {
    id: usize,
    image_id: usize,
    category_id: i64,
    bbox: Xywh,
    area: u32,
    /// The box's corners: programs that want a polygon find one, but there are no masks.
    segmentation: [[f64; 8]; 1],
    iscrowd: u8,
}

/// A drawn image of the set.
pub(super) struct Drawn {
    pub(super) size: (u32, u32),
    pub(super) seen: Vec<Seen>,
}

/// Name of an image in its split, from its position.
pub(super) fn file_name(split: &str, index: usize) -> String {
    format!("{split}/{:06}.jpg", index + 1)
}

/// By class, in how many images it is and how often.
pub(super) fn counts(classes: usize, images: &[Drawn]) -> Vec<(u32, u32)> {
    let mut counts = vec![(0, 0); classes];
    for image in images {
        let mut here = vec![false; classes];
        for seen in &image.seen {
            counts[seen.class].0 += u32::from(!here[seen.class]);
            counts[seen.class].1 += 1;
            here[seen.class] = true;
        }
    }
    counts
}

/// The classes with their training counts, as both splits' files carry them.
pub(super) fn categories(classes: &[Class], train: &[Drawn]) -> Vec<Category> {
    let counts = counts(classes.len(), train);
    (classes.iter().zip(counts).enumerate())
        .map(|(position, (class, (image_count, instance_count)))| Category {
            key: None,
            id: CategoryId(category_id(position)),
            name: class.name(),
            image_count,
            instance_count,
            frequency: Frequency::of(image_count),
            synset: Some(format!("{}.n.01", class.name())),
            wnid: None,
            text_row: None,
        })
        .collect()
}

/// Writes one split. Image ids start after `ids_before`, so that both splits' ids differ.
///
/// # Errors
/// I/O errors, with the path in them.
pub(super) fn write(
    path: &Path,
    split: &str,
    ids_before: usize,
    (classes, categories): (&[Class], &[Category]),
    drawn: &[Drawn],
) -> Result<()> {
    let mut images = Vec::with_capacity(drawn.len());
    let mut annotations = Vec::new();
    for (index, image) in drawn.iter().enumerate() {
        let id = ids_before + index + 1;
        let absent = |c: &usize| image.seen.iter().all(|seen| seen.class != *c);
        images.push(Image {
            id,
            file_name: file_name(split, index),
            width: image.size.0,
            height: image.size.1,
            not_exhaustive_category_ids: [],
            neg_category_ids: (0..classes.len()).filter(absent).map(category_id).collect(),
        });
        for seen in &image.seen {
            let Xywh([x, y, w, h]) = seen.bbox;
            annotations.push(Annotation {
                id: annotations.len() + 1,
                image_id: id,
                category_id: category_id(seen.class),
                bbox: seen.bbox,
                area: seen.area,
                segmentation: [[x, y, x + w, y, x + w, y + h, x, y + h]],
                iscrowd: 0,
            });
        }
    }
    let records = categories.iter().zip(classes).map(|(category, class)| CategoryRecord {
        category,
        def: class.definition(),
        synonyms: [&category.name],
    });
    let file = File {
        info: Info {
            description: format!("Drawn by `richsem synth`: {split} split"),
            version: env!("CARGO_PKG_VERSION"),
        },
        licenses: [],
        categories: records.collect(),
        images,
        annotations,
    };
    let json = serde_json::to_vec(&file).map_err(std::io::Error::from)?;
    Ok(fs_err::write(path, json)?)
}
