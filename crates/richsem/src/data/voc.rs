//! Pascal VOC's XML to COCO's JSON, one file per image set.
//!
//! hotcoco has such a converter too (`hotcoco::convert::voc_to_coco`), which these numbers are
//! tested against. It reads a folder as one set, so image sets, archives, sizes missing from the
//! XML and images whose name the XML gets wrong need this one.
//!
//! Boxes: VOC counts pixels from 1 and includes both ends (the devkit's area is
//! `(xmax - xmin + 1) * (ymax - ymin + 1)`), so `xmin, ymin, xmax, ymax` become
//! `[xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]`.
//!
//! `difficult` objects become `iscrowd: 1`, the nearest COCO has to VOC's rule: neither trained
//! on, nor missed, nor a false alarm when found. One difference remains: COCO compares a detection
//! with a crowd by the share of the *detection* inside, VOC by intersection over union.
//!
//! Boxes that lie beyond their image are written as they are and counted, as [`super::dataset`] keeps
//! and counts them: training clips them, evaluation sees the file's own numbers. Sizes are compared with
//! the images'.

mod frame;
mod image_sets;
mod report;
mod source;
mod stems;
#[cfg(test)]
mod tests;
pub(in crate::data) mod xml;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::AtomicBool,
};

use serde::Serialize;

use super::listing::EXTENSIONS;
use crate::{
    argument::Argument,
    boxes::Xywh,
    error::{Error, Result, TEMPORARY, unless_stopped, write_atomically},
};
use frame::{coco_box, frame};
use image_sets::splits;
pub use report::{ConversionReport, Named, SplitReport};
use source::Collected;
use stems::{Found, Stems};
use xml::Object;

/// The folder of an archive's images in the output.
const IMAGES: &str = "images";

#[derive(Serialize)]
struct CocoFile<'a> {
    images: Vec<&'a CocoImage>,
    annotations: Vec<&'a CocoAnnotation>,
    categories: Vec<CocoCategory<'a>>,
}

impl<'a> CocoFile<'a> {
    fn new(images: impl Iterator<Item = &'a Converted>, classes: &[&'a str]) -> Self {
        let (images, annotations): (Vec<_>, Vec<_>) =
            images.map(|(image, annotations)| (image, annotations)).unzip();
        let categories = (1..).zip(classes).map(|(id, name)| CocoCategory { id, name }).collect();
        Self { images, annotations: annotations.into_iter().flatten().collect(), categories }
    }

    /// Writes the image set of that name into `folder`, which will become `output`.
    fn write(&self, name: &str, folder: &Path, output: &Path) -> Result<SplitReport> {
        let file_name = format!("{name}.json");
        write_atomically(&folder.join(&file_name), |out| {
            serde_json::to_writer(out, self).map_err(|e| std::io::Error::from(e).into())
        })?;
        Ok(SplitReport {
            name: name.to_owned(),
            path: output.join(file_name),
            images: self.images.len(),
            boxes: self.annotations.len(),
            learnable: self.annotations.iter().filter(|a| a.learnable).count(),
        })
    }
}

#[derive(Serialize)]
struct CocoImage {
    id: usize,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct CocoAnnotation {
    id: usize,
    image_id: usize,
    category_id: usize,
    bbox: Xywh,
    area: f64,
    iscrowd: u8,
    /// Whether training can use it: not difficult, and with an inside in its image.
    #[serde(skip)]
    learnable: bool,
}

#[derive(Serialize)]
struct CocoCategory<'a> {
    id: usize,
    name: &'a str,
}

/// Converts a VOC set: a folder or a `.tar`, at any depth of which lie `Annotations/*.xml`,
/// `JPEGImages/` (both with folders in them, or without) and, unless everything is one set,
/// `ImageSets/Main/*.txt` (or `ImageSets/*.txt`).
///
/// Writes `output/<set>.json` for each image set, whatever it is called, and from an archive also
/// `output/images/`. Image, annotation and category ids are the same in every file, so files may be
/// merged. Everything is written under another name first: if there is an error, `output` is as it was.
/// An `output` that is not empty is refused, unless `overwrite` is set: files of the same names are then
/// replaced.
///
/// # Errors
/// [`Error::Stopped`] once `stop` is set; [`Error::Config`] for an `output` that is not empty; if the
/// input is no such set, if an XML file is broken (it is named), if an image set lists what
/// does not exist, or if writing fails.
pub fn convert(
    input: &Path,
    output: &Path,
    overwrite: bool,
    stop: &AtomicBool,
) -> Result<ConversionReport> {
    refuse_full(output, overwrite)?;
    let of_folder = fs_err::metadata(input)?.is_dir();
    // On the same disk as the output, so that renaming is all that is left to do.
    let absolute = std::path::absolute(output)?;
    let existing = absolute.ancestors().find(|p| p.is_dir()).unwrap_or(&absolute);
    let staging = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(existing)?;
    let collected = if of_folder {
        source::from_folder(input, stop)?
    } else {
        source::from_tar(input, &staging.path().join(IMAGES), stop)?
    };
    if collected.annotations.is_empty() {
        return Err(Error::invalid(input, "Annotations", "no Annotations/*.xml in it")
            .with_hint("a Pascal VOC set has the folders Annotations, JPEGImages and ImageSets"));
    }
    let mut report = ConversionReport {
        image_root: if of_folder { collected.image_root.clone() } else { output.join(IMAGES) },
        passed_over: collected.passed_over.clone(),
        ..ConversionReport::default()
    };
    let splits = splits(input, &collected, &mut report)?;
    let listed: BTreeSet<&str> = splits.iter().flat_map(|(_, stems)| stems).copied().collect();
    let classes = classes_of(input, &collected, &listed)?;
    report.classes = classes.iter().map(|&class| class.to_owned()).collect();
    report.unlisted = collected.annotations.len() - listed.len();
    let mut converter = Converter {
        input,
        images: Stems::of(collected.images.keys()),
        collected: &collected,
        classes: &classes,
        image_of: BTreeMap::new(),
        annotations: 0,
        report: &mut report,
    };
    let mut converted: BTreeMap<&str, Converted> = BTreeMap::new();
    for (id, stem) in (1..).zip(listed) {
        unless_stopped(stop)?;
        converted.insert(stem, converter.image(id, stem)?);
    }
    for (name, stems) in splits {
        if stems.is_empty() {
            report.empty_splits.push(name.to_owned());
            continue;
        }
        let file = CocoFile::new(stems.iter().map(|stem| &converted[stem]), &classes);
        report.splits.push(file.write(name, staging.path(), output)?);
    }
    if report.splits.is_empty() {
        let sets = report.empty_splits.join(", ");
        return Err(Error::invalid(input, "ImageSets", format!("no list names an image: {sets}"))
            .with_hint("take the empty lists away, and all annotated images become one set"));
    }
    move_into(staging.path(), output)?;
    Ok(report)
}

/// Refuses an output folder that is not empty, unless it may be written over.
fn refuse_full(output: &Path, overwrite: bool) -> Result<()> {
    if !overwrite && output.is_dir() && fs_err::read_dir(output)?.next().is_some() {
        let problem = format!("`{}` exists and is not empty", output.display());
        return Err(Error::config("output", problem).with_hint(format!(
            "choose another folder, or pass {} to replace files of the same names",
            Argument::Overwrite
        )));
    }
    Ok(())
}

/// The names of all classes of the listed images, sorted.
fn classes_of<'a>(
    input: &Path,
    collected: &'a Collected,
    listed: &BTreeSet<&str>,
) -> Result<Vec<&'a str>> {
    let classes: BTreeSet<&str> = listed
        .iter()
        .flat_map(|stem| &collected.annotations[*stem].objects)
        .map(|object| object.name.as_str())
        .collect();
    // Lists without a name are refused later, with their own words.
    if classes.is_empty() && !listed.is_empty() {
        let problem =
            format!("no object in any of the {} annotations that are listed", listed.len());
        return Err(Error::invalid(input, "Annotations", problem).with_hint(
            "without a class there is nothing to train on or to evaluate: has the program \
                        that wrote these files left the <object>s out?",
        ));
    }
    Ok(classes.into_iter().collect())
}

/// An image of the set as COCO has it, with its annotations.
type Converted = (CocoImage, Vec<CocoAnnotation>);

/// Converts images one after the other, and counts what it meets.
struct Converter<'a> {
    input: &'a Path,
    collected: &'a Collected,
    images: Stems<'a>,
    /// Sorted; a class's id is its place, from 1.
    classes: &'a [&'a str],
    /// The annotation that each image file belongs to.
    image_of: BTreeMap<String, &'a str>,
    /// Annotations so far: ids go on from one image to the next.
    annotations: usize,
    report: &'a mut ConversionReport,
}

impl<'a> Converter<'a> {
    /// Converts the image of an annotation file.
    fn image(&mut self, id: usize, stem: &'a str) -> Result<Converted> {
        let annotated = &self.collected.annotations[stem];
        let file_name = image_of(self.input, self.collected, &self.images, stem)?;
        if let Some(other) = self.image_of.insert(file_name.clone(), stem) {
            let problem = format!("JPEGImages/{file_name} is the image of `{other}`, too");
            return Err(Error::invalid(self.input, format!("Annotations/{stem}.xml"), problem)
                .with_hint("give each its own image, or take one of them out of the lists"));
        }
        let path = self.collected.image_root.join(&file_name);
        let (width, height) = frame(&path, stem, annotated, self.report)?;
        let image = CocoImage { id, file_name, width, height };
        let objects = annotated.objects.iter();
        let annotations =
            objects.filter_map(|object| self.annotation(object, stem, &image)).collect();
        Ok((image, annotations))
    }

    /// Converts an object. None if its box has no inside.
    fn annotation(
        &mut self,
        object: &Object,
        stem: &str,
        image: &CocoImage,
    ) -> Option<CocoAnnotation> {
        let bbox = coco_box(object);
        let [x, y, w, h] = bbox.0;
        if w <= 0.0 || h <= 0.0 {
            self.report.degenerate.add(stem);
            return None;
        }
        self.report.from_zero += usize::from(x == -1.0 || y == -1.0);
        let corners = bbox.to_xyxy();
        let clipped = corners.clipped(image.width, image.height);
        if !object.difficult {
            if clipped.is_degenerate() {
                self.report.outside.add(stem);
            } else if clipped != corners {
                self.report.beyond.add(stem);
            }
        }
        self.report.difficult += usize::from(object.difficult);
        self.annotations += 1;
        Some(CocoAnnotation {
            id: self.annotations,
            image_id: image.id,
            category_id: 1 + self.classes.partition_point(|c| *c < object.name.as_str()),
            bbox,
            area: w * h,
            iscrowd: u8::from(object.difficult),
            learnable: !object.difficult && !clipped.is_degenerate(),
        })
    }
}

/// Moves all files of a folder, and of folders in it, to the same names in another.
fn move_into(from: &Path, to: &Path) -> Result<()> {
    fs_err::create_dir_all(to)?;
    for entry in fs_err::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.exists() {
            move_into(&entry.path(), &target)?;
        } else {
            fs_err::rename(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The image that belongs to an XML file. It has the same name, with its folder or without. If there is
/// none, it is the one that the XML's `<filename>` names.
fn image_of(input: &Path, collected: &Collected, images: &Stems<'_>, stem: &str) -> Result<String> {
    let wrong = |problem: String| {
        Error::invalid(input, format!("Annotations/{stem}.xml"), problem)
            .with_hint("add the image, or take the name out of the lists in ImageSets/Main")
    };
    let last = stem.rsplit('/').next().unwrap_or(stem);
    // Folders of one kind alone; of two kinds they are the same ones.
    let fits = |image: &str| !(stem.contains('/') && image.contains('/'));
    let named = || {
        let name = collected.annotations[stem].file_name.as_deref()?;
        let (other, _) = name.rsplit_once('.')?;
        match images.find(other) {
            Found::One(found) if fits(found) && collected.images[found].ends_with(name) => {
                Some(found)
            }
            _ => None,
        }
    };
    let found = match (images.find(stem), images.find(last)) {
        (Found::None, Found::One(one)) if !fits(one) => Found::None,
        (Found::None, found) => found,
        (found, _) => found,
    };
    let found = match (found, named()) {
        (Found::One(found), _) => found,
        (_, Some(named)) => named,
        (Found::Several(one, two), None) => {
            return Err(wrong(format!("its image may be JPEGImages/{one} or JPEGImages/{two}")));
        }
        (Found::None, None) => {
            let kinds = EXTENSIONS.join(", .");
            return Err(wrong(format!(
                "its image is missing: no JPEGImages/{stem} with an image's extension (.{kinds})"
            )));
        }
    };
    Ok(collected.images[found].clone())
}
