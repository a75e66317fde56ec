//! Writes a set as Ultralytics has it: `data.yaml`, and a label file for each image.

use std::{
    collections::HashSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use crate::{
    argument::Argument,
    data::{
        dataset::Dataset,
        listing::is_image,
        records::{Annotation, ClassRecord, Unit},
    },
    error::{Error, Result, write_atomically},
};

/// Splits that Ultralytics reads.
const SPLITS: [&str; 3] = ["train", "val", "test"];

/// A part of the set that is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split<'a> {
    /// `train`, `val` or `test`.
    pub(super) name: &'a str,
    /// Its images and boxes.
    pub(super) dataset: &'a Dataset,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Where each image belongs: the name that the set has for it, and its place below the folder that was
    /// written, as `images/train/0.jpg`. Splits and images in the order in which they were given. The caller
    /// links or copies them.
    pub(super) images: Vec<(String, PathBuf)>,
    /// Number of boxes.
    pub(super) boxes: usize,
    /// What could not be carried, each in words with how often.
    pub(super) lost: Vec<(&'static str, usize)>,
}

/// Writes `data.yaml` and the label files into a folder. Boxes are in shares of the image, to nine digits: a
/// thousandth of a pixel has its place in the largest image. An image without boxes has an empty file.
///
/// `data.yaml` comes last: a folder without it was not completed.
///
/// # Errors
/// No splits, or one of another name; splits with different classes; boxes in pixels of an image whose size
/// is not known; what cannot be written.
pub(super) fn write(splits: &[Split<'_>], folder: &Path) -> Result<Written> {
    check(splits)?;
    let mut written = Written::default();
    let mut lost = Lost::default();
    for split in splits {
        let (targets, renamed) = targets(split);
        lost.renamed += renamed;
        lost.count_split(split);
        let labels: Vec<(PathBuf, Label)> = (0..targets.len())
            .into_par_iter()
            .map(|image| {
                let path = label_path(folder, split, &targets[image]);
                Ok((path, Label::of(split.dataset, image)?))
            })
            .collect::<Result<_>>()?;
        let folders: HashSet<&Path> = labels.iter().filter_map(|(path, _)| path.parent()).collect();
        for folder in folders {
            fs_err::create_dir_all(folder)?;
        }
        labels.par_iter().try_for_each(|(path, label)| fs_err::write(path, &label.text))?;
        for (_, label) in &labels {
            written.boxes += label.boxes;
            lost.add(label);
        }
        let names = split.dataset.images().iter().map(|image| image.file_name.clone());
        let below =
            targets.into_iter().map(|target| Path::new("images").join(split.name).join(target));
        written.images.extend(names.zip(below));
    }
    write_atomically(&folder.join("data.yaml"), |out| {
        Ok(out.write_all(data_yaml(splits)?.as_bytes())?)
    })?;
    written.lost = lost.in_words();
    Ok(written)
}

fn check(splits: &[Split<'_>]) -> Result<()> {
    let Some(first) = splits.first() else {
        return Err(Error::argument(
            Argument::Split,
            "expected at least one part of a set, got none",
        ));
    };
    for (i, split) in splits.iter().enumerate() {
        if !SPLITS.contains(&split.name) || splits[..i].iter().any(|other| other.name == split.name)
        {
            let problem =
                format!("expected {}, each once, got `{}`", SPLITS.join(", "), split.name);
            return Err(Error::argument(Argument::Split, problem));
        }
        let names = |split: &Split<'_>| -> Vec<String> {
            split.dataset.vocabulary().categories().iter().map(|c| c.name.clone()).collect()
        };
        if names(split) != names(first) {
            let problem =
                format!("its classes are not those of {}", first.dataset.path().display());
            return Err(Error::invalid(split.dataset.path(), "categories", problem)
                .with_hint("one data.yaml has one list of classes: write two folders"));
        }
    }
    Ok(())
}

/// Names of a split's images in the new folder, and how many have another one than before: the folder that
/// all are in goes, and so does each `images`, which would be taken for the one that labels lie beside. Two
/// images never share a label file.
fn targets(split: &Split<'_>) -> (Vec<String>, usize) {
    let names: Vec<&str> = split.dataset.images().iter().map(|i| i.file_name.as_str()).collect();
    let common = common_folder(&names);
    let (mut taken, mut renamed) = (HashSet::with_capacity(names.len()), 0);
    let all = names.iter().map(|name| {
        let below = name[common..].split('/').collect::<Vec<_>>();
        let (file, folders) = below.split_last().unwrap_or((&"", &[]));
        let folders = folders.iter().filter(|folder| **folder != "images");
        let folder: String = folders.map(|folder| format!("{folder}/")).collect();
        let (stem, extension) = match file.rsplit_once('.') {
            Some((stem, extension)) => (stem, format!(".{extension}")),
            None => (*file, String::new()),
        };
        let mut wanted = format!("{folder}{stem}");
        let mut number = 1;
        while !taken.insert(wanted.clone()) {
            number += 1;
            wanted = format!("{folder}{stem}_{number}");
        }
        renamed += usize::from(number > 1);
        wanted + &extension
    });
    (all.collect(), renamed)
}

/// Length of the folders that all names begin with, with their `/`.
fn common_folder(names: &[&str]) -> usize {
    let folder = |name: &str| name.rfind('/').map_or(0, |at| at + 1);
    let Some(first) = names.first() else { return 0 };
    let mut common = &first[..folder(first)];
    for name in names {
        while !name.starts_with(common) {
            common = &common[..folder(&common[..common.len() - 1])];
        }
    }
    common.len()
}

fn label_path(folder: &Path, split: &Split<'_>, target: &str) -> PathBuf {
    let stem = target.rsplit_once('.').map_or(target, |(stem, _)| stem);
    folder.join("labels").join(split.name).join(format!("{stem}.txt"))
}

fn data_yaml(splits: &[Split<'_>]) -> Result<String> {
    let mut text = String::new();
    for split in splits {
        let _ = writeln!(text, "{0}: images/{0}", split.name);
    }
    let classes = splits[0].dataset.vocabulary().categories();
    let _ = writeln!(text, "nc: {}\nnames:", classes.len());
    for (i, class) in classes.iter().enumerate() {
        // JSON's strings are YAML's, too, but for what YAML takes for the end of a line or cannot have.
        let name = serde_json::to_string(&class.name).map_err(|e| Error::other(e.to_string()))?;
        let _ = write!(text, "  {i}: ");
        for c in name.chars() {
            let _ = match c {
                '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                    write!(text, "\\u{:04x}", u32::from(c))
                }
                c => write!(text, "{c}"),
            };
        }
        text.push('\n');
    }
    Ok(text)
}

/// The label file of an image.
#[derive(Default)]
struct Label {
    text: String,
    boxes: usize,
    crowd: usize,
    ignore: usize,
    clipped: usize,
    empty: usize,
    repeated: usize,
    area: usize,
}

impl Label {
    fn of(dataset: &Dataset, image: usize) -> Result<Self> {
        let record = &dataset.images()[image];
        let annotations = dataset.annotations_of(image);
        let [height, width] = match (dataset.unit(), record.size) {
            (Unit::Shares, _) => [1.0; 2],
            (Unit::Pixels, Some(size)) => size.map(f64::from),
            (Unit::Pixels, None) if annotations.is_empty() => [1.0; 2],
            (Unit::Pixels, None) => {
                let problem = format!(
                    "the size of image {} (`{}`) is not known, and its boxes become shares of it",
                    record.id, record.file_name
                );
                return Err(Error::invalid(dataset.path(), "images", problem)
                    .with_hint("write width and height of each image into the file"));
            }
        };
        let mut label = Self::default();
        let mut rows = HashSet::with_capacity(annotations.len());
        for annotation in annotations {
            if let Some(row) = label.row(annotation, [width, height]) {
                let row = format!("{} {}\n", annotation.class.0, row);
                if rows.insert(row.clone()) {
                    label.text += &row;
                    label.boxes += 1;
                } else {
                    label.repeated += 1;
                }
            }
        }
        Ok(label)
    }

    /// Centre and size of a box within its image, as text; none if it is not written.
    fn row(&mut self, annotation: &Annotation, sides: [f64; 2]) -> Option<String> {
        if annotation.crowd || annotation.ignore {
            *(if annotation.crowd { &mut self.crowd } else { &mut self.ignore }) += 1;
            return None;
        }
        let [x, y, w, h] = annotation.bbox.0;
        let clip = |start: f64, length: f64, side: f64| {
            let end = (start + length).clamp(0.0, side);
            let start = start.clamp(0.0, side);
            [(start + end) / 2.0 / side, (end - start) / side]
        };
        let ([cx, sw], [cy, sh]) = (clip(x, w, sides[0]), clip(y, h, sides[1]));
        let texts = [cx, cy, sw, sh].map(digits);
        if texts[2..].iter().any(|text| text == "0") {
            self.empty += 1;
            return None;
        }
        // Written numbers have nine digits: what is less than their last one changes nothing.
        let beyond = |start: f64, length: f64, side: f64| {
            start < -1e-9 * side || start + length > side * (1.0 + 1e-9)
        };
        self.clipped += usize::from(beyond(x, w, sides[0]) || beyond(y, h, sides[1]));
        self.area += usize::from((annotation.area - w * h).abs() > 1e-6 * w * h);
        Some(texts.join(" "))
    }
}

/// A share to nine digits, without zeros at its end.
fn digits(share: f64) -> String {
    let text = format!("{share:.9}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Counts of what a label file has no place for.
#[derive(Default)]
struct Lost {
    crowd: usize,
    ignore: usize,
    clipped: usize,
    empty: usize,
    repeated: usize,
    area: usize,
    renamed: usize,
    no_image: usize,
    verified: usize,
    image_ids: usize,
    annotation_ids: usize,
    class_ids: usize,
    class_facts: usize,
    related: usize,
}

impl Lost {
    fn add(&mut self, label: &Label) {
        self.crowd += label.crowd;
        self.ignore += label.ignore;
        self.clipped += label.clipped;
        self.empty += label.empty;
        self.repeated += label.repeated;
        self.area += label.area;
    }

    fn count_split(&mut self, split: &Split<'_>) {
        let dataset = split.dataset;
        for (number, image) in (1..).zip(dataset.images()) {
            self.no_image += usize::from(!is_image(&image.file_name));
            let is_text = dataset.text_id(number as usize - 1).is_some();
            self.image_ids += usize::from(is_text || image.id != number);
            let lists = [&image.neg_classes, &image.not_exhaustive_classes, &image.present_classes];
            self.verified += usize::from(lists.iter().any(|list| !list.is_empty()));
        }
        let numbered = (1..).zip(dataset.annotations());
        let is_lost = |(number, a): &(i64, &Annotation)| {
            dataset.annotation_text_id(a).is_some() || a.id != *number
        };
        self.annotation_ids += numbered.filter(is_lost).count();
        let classes = (0..).zip(dataset.vocabulary().categories());
        self.class_ids = classes.filter(|(number, class)| class.id.0 != *number).count();
        let says_more =
            |class: &&ClassRecord| **class != ClassRecord::named(class.id, class.name.as_str());
        self.class_facts = dataset.class_records().iter().filter(says_more).count();
        let related =
            |class: &u32| dataset.relations().is_some_and(|r| !r.ancestors(*class).is_empty());
        self.related = (0..dataset.vocabulary().len() as u32).filter(related).count();
    }

    fn in_words(&self) -> Vec<(&'static str, usize)> {
        let all = [
            ("crowd regions, left out", self.crowd),
            ("boxes to be ignored, left out", self.ignore),
            ("empty boxes, left out", self.empty),
            ("boxes equal to an earlier one, left out", self.repeated),
            ("boxes beyond their image, clipped", self.clipped),
            ("areas that are not width x height", self.area),
            ("images with verified classes: what is not shown becomes absent", self.verified),
            ("images whose names are no image's, which readers pass over", self.no_image),
            (
                "images with a number added to their name, for a label file of their own",
                self.renamed,
            ),
            ("image ids", self.image_ids),
            ("annotation ids", self.annotation_ids),
            ("class ids, which become 0, 1, …", self.class_ids),
            (
                "classes of which more than the name is known, as synonyms or counts",
                self.class_facts,
            ),
            ("classes that are kinds of other classes", self.related),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}
