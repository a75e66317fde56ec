//! The part of an annotation file that box metrics read. Polygons are skipped as they pass.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    Error, Result,
    detections::{FourNumbers, Id},
    vocabulary::{CategoryId, Frequency},
};

/// Images and categories in order of their ids, boxes by image. Positions stand for ids
/// everywhere, so that the engine meets neither holes nor negative ids.
pub(super) struct GroundTruth {
    pub(super) path: PathBuf,
    pub(super) images: Vec<Image>,
    pub(super) categories: Vec<Category>,
    /// Grouped by image, in file order within one: ties are broken by it.
    pub(super) boxes: Vec<TrueBox>,
    /// Some image says which classes are verified absent or not exhaustively annotated.
    pub(super) federated: bool,
}

pub(super) struct Image {
    pub(super) id: i64,
    /// Its boxes' range in [`GroundTruth::boxes`].
    pub(super) boxes: std::ops::Range<usize>,
    /// Positions of classes verified absent.
    pub(super) absent: Vec<u64>,
    /// Positions of classes not all of whose boxes are annotated.
    pub(super) not_exhaustive: Vec<u64>,
}

pub(super) struct Category {
    pub(super) id: CategoryId,
    pub(super) name: String,
    pub(super) frequency: Option<Frequency>,
    pub(super) image_count: u32,
    pub(super) instance_count: u32,
}

pub(super) struct TrueBox {
    /// Position of the category.
    pub(super) category: u32,
    pub(super) bbox: [f64; 4],
    /// The object's, from its mask where the file says so: it decides small, medium and large.
    pub(super) area: f64,
    pub(super) crowd: bool,
    pub(super) ignore: bool,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with images, annotations and categories")]
struct File {
    images: Vec<ImageRecord>,
    annotations: Vec<BoxRecord>,
    categories: Vec<CategoryRecord>,
}

#[derive(Deserialize)]
struct ImageRecord {
    id: Id,
    neg_category_ids: Option<Vec<Id>>,
    not_exhaustive_category_ids: Option<Vec<Id>>,
}

#[derive(Deserialize)]
struct BoxRecord {
    image_id: Id,
    category_id: Id,
    bbox: FourNumbers,
    area: Option<f64>,
    #[serde(default)]
    iscrowd: Flag,
    #[serde(default)]
    ignore: Flag,
}

#[derive(Deserialize)]
struct CategoryRecord {
    id: Id,
    name: Option<String>,
    frequency: Option<Frequency>,
    image_count: Option<u32>,
    instance_count: Option<u32>,
}

/// 0, 1, true, false or null.
#[derive(Default)]
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected 0, 1, true or false")]
        enum Spelling {
            Bool(bool),
            Number(f64),
            Null(()),
        }
        Ok(Self(match Spelling::deserialize(deserializer)? {
            Spelling::Bool(flag) => flag,
            Spelling::Number(number) => number != 0.0,
            Spelling::Null(()) => false,
        }))
    }
}

impl GroundTruth {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut file = BufReader::with_capacity(1 << 20, fs_err::File::open(path)?);
        let start = file.fill_buf()?.trim_ascii_start();
        if start.first() == Some(&b'[') {
            return Err(Error::invalid(
                path,
                "top level",
                "expected an object with images, annotations and categories, got a list",
            )
            .with_hint("this looks like detections, not like an annotation file"));
        }
        let mut json = serde_json::Deserializer::from_reader(file);
        let file: File = serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let field = match e.path().to_string() {
                top if top == "." => "top level".to_owned(),
                field => field,
            };
            let invalid = Error::invalid(path, field, e.inner().to_string());
            if e.inner().is_eof() {
                invalid.with_hint("the file is cut off: fetch or write it again")
            } else if e.inner().to_string().contains("missing field `annotations`") {
                invalid.with_hint("a file without annotations (a test set's) cannot be measured on")
            } else {
                invalid
            }
        })?;

        let mut categories = file.categories;
        categories.sort_by_key(|c| c.id.0);
        let category_at = positions(path, "categories", categories.iter().map(|c| c.id.0))?;
        let mut images = file.images;
        images.sort_by_key(|i| i.id.0);
        let image_at = positions(path, "images", images.iter().map(|i| i.id.0))?;

        let mut boxes = Vec::with_capacity(file.annotations.len());
        for (i, record) in file.annotations.into_iter().enumerate() {
            let Some(&category) = category_at.get(&record.category_id.0) else {
                return Err(Error::invalid(
                    path,
                    format!("annotations[{i}].category_id"),
                    format!("no category has the id {}", record.category_id.0),
                )
                .with_hint("add the category, or take the annotation out"));
            };
            // As the official evaluators do, so that a file whose image list was shortened
            // measures the images that are left.
            let Some(&image) = image_at.get(&record.image_id.0) else { continue };
            let bbox = record.bbox.0;
            boxes.push((
                image,
                TrueBox {
                    category: category as u32,
                    bbox,
                    area: record.area.unwrap_or(bbox[2] * bbox[3]),
                    crowd: record.iscrowd.0,
                    ignore: record.ignore.0,
                },
            ));
        }
        boxes.sort_by_key(|(image, _)| *image); // stable: file order stays

        let mut end = 0;
        let federated = images
            .iter()
            .any(|i| i.neg_category_ids.is_some() || i.not_exhaustive_category_ids.is_some());
        let images = images
            .into_iter()
            .enumerate()
            .map(|(at, record)| {
                let start = end;
                end += boxes[start..].iter().take_while(|(image, _)| *image == at).count();
                // An id that is no category can neither match nor count.
                let known = |ids: Option<Vec<Id>>| {
                    let ids = ids.unwrap_or_default();
                    ids.iter().filter_map(|id| category_at.get(&id.0)).map(|&c| c as u64).collect()
                };
                Image {
                    id: record.id.0,
                    boxes: start..end,
                    absent: known(record.neg_category_ids),
                    not_exhaustive: known(record.not_exhaustive_category_ids),
                }
            })
            .collect();

        let counted = count(categories.len(), &boxes);
        let categories = categories
            .into_iter()
            .zip(counted)
            .map(|(record, (image_count, instance_count))| Category {
                id: CategoryId(record.id.0),
                name: record.name.unwrap_or_else(|| format!("category {}", record.id.0)),
                frequency: record.frequency,
                image_count: record.image_count.unwrap_or(image_count),
                instance_count: record.instance_count.unwrap_or(instance_count),
            })
            .collect();
        Ok(Self {
            path: path.to_owned(),
            images,
            categories,
            boxes: boxes.into_iter().map(|(_, b)| b).collect(),
            federated,
        })
    }
}

/// Where each id is in a sorted list without repetitions.
fn positions(
    path: &Path,
    list: &str,
    ids: impl Iterator<Item = i64>,
) -> Result<HashMap<i64, usize>> {
    let mut at = HashMap::new();
    for (position, id) in ids.enumerate() {
        if at.insert(id, position).is_some() {
            return Err(Error::invalid(path, list, format!("the id {id} occurs twice"))
                .with_hint("ids must be unique; merged files need new ones"));
        }
    }
    Ok(at)
}

/// Images with, and boxes of, each category.
fn count(categories: usize, boxes: &[(usize, TrueBox)]) -> Vec<(u32, u32)> {
    let mut counts = vec![(0, 0); categories];
    let mut last_image = vec![usize::MAX; categories];
    for (image, b) in boxes {
        let category = b.category as usize;
        counts[category].1 += 1;
        if last_image[category] != *image {
            last_image[category] = *image;
            counts[category].0 += 1;
        }
    }
    counts
}
