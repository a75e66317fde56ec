//! A list of classification images, as Detic's `imagenet_lvis_image_info.json`: COCO's form,
//! with the labels at the images (`images[].pos_category_ids`) and no annotations.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;

use super::{
    groups::{Groups, NameList},
    mapping::SourceClass,
};
use crate::{
    Error, Result,
    data::formats::below_root,
    json::{self, Integer, JsonRecord, JsonStream, TopLevel, parse},
};

const TOP_LEVEL: TopLevel = TopLevel {
    bracket: b'{',
    expected: "an object with `images` and `categories`",
    other: "expected a file like Detic's imagenet_lvis_image_info.json",
};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

#[derive(Deserialize)]
struct RawImage {
    id: Integer,
    file_name: String,
    pos_category_ids: Vec<Integer>,
}

impl JsonRecord<'_> for RawImage {
    const LIST: &'static str = "images";
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("id", "an integer"),
        ("file_name", "a string"),
        ("pos_category_ids", "a list of category ids, the image's labels"),
    ];
}

#[derive(Deserialize)]
struct RawClass {
    id: Integer,
    name: String,
    synset: Option<String>,
    wnid: Option<String>,
}

impl JsonRecord<'_> for RawClass {
    const LIST: &'static str = "categories";
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("id", "an integer"), ("name", "a string"), ("synset", "a string"), ("wnid", "a string")];
}

/// The file's images and classes, not yet mapped.
#[derive(Default)]
pub(super) struct Info {
    pub(super) names: NameList,
    pub(super) ids: Vec<i64>,
    /// Index into `label_sets` of each image.
    pub(super) sets: Vec<u32>,
    /// Each combination of category ids once, in the file's order within.
    pub(super) label_sets: Vec<Vec<i64>>,
    pub(super) classes: Vec<SourceClass>,
    numbers: HashMap<Vec<i64>, u32>,
    /// Where each label set occurs first.
    first: Vec<usize>,
}

impl Info {
    /// Reads the file once, front to back; an image keeps its name, id and a number.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut info = Self::default();
        let mut stream = JsonStream::new(path, json::open(path)?, CHUNK);
        let mut found = [false; 2];
        stream.open(&TOP_LEVEL)?;
        while let Some(key) = stream.next_key()? {
            match key.as_str() {
                "images" => {
                    found[0] = true;
                    stream.records(&key, |batch| {
                        parse(path, batch, |i, raw| info.add_image(path, i, raw))
                    })?;
                }
                "categories" => {
                    found[1] = true;
                    stream.records(&key, |batch| {
                        parse(path, batch, |i, raw| info.add_class(path, i, raw))
                    })?;
                }
                _ => stream.skip_value(&key)?,
            }
        }
        for (found, key) in found.into_iter().zip(["images", "categories"]) {
            if !found {
                return Err(Error::invalid(path, key, "missing").with_hint(
                    "expected a file like Detic's imagenet_lvis_image_info.json: `images`, each \
                     with id, file_name and pos_category_ids, and `categories`",
                ));
            }
        }
        info.check(path)?;
        Ok(info)
    }

    fn add_image(&mut self, path: &Path, index: usize, raw: RawImage) -> Result<()> {
        let name = below_root(&raw.file_name).map_err(|problem| {
            Error::invalid(path, format!("images[{index}].file_name"), problem)
                .with_hint("write paths relative to the folder or archive of the images")
        })?;
        let mut labels = Vec::new();
        for Integer(id) in raw.pos_category_ids {
            if !labels.contains(&id) {
                labels.push(id);
            }
        }
        self.put(&name, raw.id.0, labels);
        Ok(())
    }

    /// Adds an image with its labels, each once.
    pub(super) fn put(&mut self, name: &str, id: i64, labels: Vec<i64>) {
        let index = self.ids.len();
        self.names.push(name);
        self.ids.push(id);
        let next = self.label_sets.len() as u32;
        let number = *self.numbers.entry(labels).or_insert_with_key(|labels| {
            self.label_sets.push(labels.clone());
            self.first.push(index);
            next
        });
        self.sets.push(number);
    }

    fn add_class(&mut self, path: &Path, index: usize, raw: RawClass) -> Result<()> {
        let RawClass { id: Integer(id), name, synset, wnid } = raw;
        if let Some(earlier) = self.classes.iter().position(|c| c.id == Some(id)) {
            let problem = format!("{id} is also the id of categories[{earlier}]");
            return Err(Error::invalid(path, format!("categories[{index}].id"), problem));
        }
        self.classes.push(SourceClass { name, id: Some(id), synset, wnid });
        Ok(())
    }

    /// Every label must be one of the file's categories.
    fn check(&self, path: &Path) -> Result<()> {
        let known = self.class_numbers();
        for (labels, first) in std::iter::zip(&self.label_sets, &self.first) {
            if let Some(id) = labels.iter().find(|id| !known.contains_key(id)) {
                let field = format!("images[{first}].pos_category_ids");
                let problem =
                    format!("{id} is not the id of any of the {} categories", known.len());
                return Err(Error::invalid(path, field, problem));
            }
        }
        Ok(())
    }

    /// Position of each category id in `classes`.
    pub(super) fn class_numbers(&self) -> HashMap<i64, usize> {
        self.classes.iter().enumerate().filter_map(|(i, c)| Some((c.id?, i))).collect()
    }

    /// The images that have any of the given detection classes, by category of this file.
    pub(super) fn images(
        self,
        classes: &[Vec<crate::vocabulary::ClassIndex>],
    ) -> (NameList, Vec<i64>, Groups) {
        let numbers = self.class_numbers();
        let mut groups = Groups::default();
        // Label set → group, if it is one.
        let group: Vec<Option<u32>> = self
            .label_sets
            .iter()
            .map(|ids| {
                let mut labels = Vec::new();
                for class in ids.iter().flat_map(|id| &classes[numbers[id]]) {
                    if !labels.contains(class) {
                        labels.push(*class);
                    }
                }
                (!labels.is_empty()).then(|| groups.add(String::new(), labels))
            })
            .collect();
        let (mut names, mut ids) = (NameList::default(), Vec::new());
        for (i, &set) in self.sets.iter().enumerate() {
            if let Some(group) = group[set as usize] {
                names.push(self.names.get(i));
                ids.push(self.ids[i]);
                groups.put(group);
            }
        }
        (names, ids, groups)
    }
}
